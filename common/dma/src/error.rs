//! What can go wrong for a DMA.

use std::io;

use ndmp::wire::{ErrorCode, HaltReason, MessageCode, PauseReason, Version};

/// A request or a copy that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// The server can not be reached; a retry may help.
    #[error("can not connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke; a new one may help.
    #[error("the connection to the NDMP server broke: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the NDMP server closed the connection{}", said(.0))]
    Closed(String),
    /// The server takes no more sessions now; a retry later may help.
    #[error("the NDMP server refuses the connection{}", said(.0))]
    ServerRefused(String),
    /// Nothing came in time.
    #[error("no answer to {0} in time")]
    TimedOut(&'static str),
    /// The server does not speak the version that was asked for.
    #[error("the NDMP server speaks up to version {offered}, not {wanted}")]
    VersionRefused {
        /// What was asked for.
        wanted: Version,
        /// The highest that it announced.
        offered: u32,
    },
    /// The request does not exist in the version spoken.
    #[error("{0} needs a later version than {1}")]
    NotInVersion(MessageCode, Version),
    /// The server sent something that is not NDMP; its fault.
    #[error("the server's answer can not be understood: {0}")]
    Protocol(String),
    /// The server refused a request.
    #[error("{message}: {error}")]
    Refused {
        /// The request.
        message: MessageCode,
        /// Its answer.
        error: ErrorCode,
    },
    /// The server knows no such user with this password.
    #[error("the NDMP server accepts neither user nor password: one of them is wrong")]
    NotAuthorized,
    /// The server did not open a device.
    #[error("{device} can not be opened: {}", not_opened(error))]
    NotOpened {
        /// Its name.
        device: String,
        /// The answer.
        error: ErrorCode,
    },
    /// A SCSI command failed at the device.
    #[error("SCSI command {command:02x}h ended with status {status:02x}h: {sense}")]
    Scsi {
        /// Operation code.
        command: u8,
        /// SAM status byte.
        status: u8,
        /// Sense data in words.
        sense: String,
    },
    /// A mover ended before its work was done.
    #[error("the {side} mover has halted: {reason}{}", said(.text))]
    Halted {
        /// `source` or `target`.
        side: &'static str,
        /// Why.
        reason: HaltReason,
        /// The server's words.
        text: String,
    },
    /// A mover paused where nothing can be done about it.
    #[error("the {side} mover has paused at byte {position}: {reason}")]
    Paused {
        /// `source` or `target`.
        side: &'static str,
        /// Why.
        reason: PauseReason,
        /// Where in the stream.
        position: u64,
    },
    /// The target tape is full and nobody changes it.
    #[error("the tape is full at byte {position} and there is no other")]
    EndOfMedium {
        /// Where in the stream.
        position: u64,
    },
    /// The target has another number of bytes than the source gave: the copy is not good.
    #[error("{moved} bytes are on the target tape, {expected} were sent")]
    Incomplete {
        /// What the source sent.
        expected: u64,
        /// What the target wrote.
        moved: u64,
    },
    /// A plan or an argument makes no sense; the caller's fault.
    #[error("{0}")]
    Invalid(String),
}

impl DmaError {
    /// The NDMP error, if it is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } | Self::NotOpened { error, .. } => Some(*error),
            Self::NotAuthorized => Some(ErrorCode::NotAuthorized),
            _ => None,
        }
    }
}

fn not_opened(error: &ErrorCode) -> String {
    match error {
        ErrorCode::NoDevice => "the server has no such device".to_owned(),
        ErrorCode::NoTapeLoaded => "no tape is loaded".to_owned(),
        ErrorCode::DeviceBusy => "another session uses it; try again later".to_owned(),
        ErrorCode::WriteProtect => "the tape is write-protected".to_owned(),
        other => other.to_string(),
    }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}
