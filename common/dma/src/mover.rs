//! The MOVER interface.

use std::time::Duration;

use ndmp::wire::{
    Addr, AddrType, HaltReason, MessageCode, MoverMode, MoverReport, PauseReason, Post, ReplyBody,
    Request,
};

use crate::{Client, DmaError};

/// A window or a read without an end.
pub const TO_THE_END: u64 = u64::MAX;

/// What a mover has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoverNews {
    /// It waits for the application.
    Paused {
        /// Why.
        reason: PauseReason,
        /// Where in the stream.
        position: u64,
    },
    /// It has ended.
    Halted {
        /// Why.
        reason: HaltReason,
        /// The server's words, versions 2 and 3.
        text: String,
    },
}

impl Client {
    /// `NDMP_MOVER_GET_STATE`.
    pub fn mover_state(&mut self) -> Result<MoverReport, DmaError> {
        match self.ask_bare(MessageCode::MoverGetState)? {
            ReplyBody::Mover(report) => Ok(report),
            _ => Err(DmaError::Protocol("NDMP_MOVER_GET_STATE: no state".to_owned())),
        }
    }

    /// `NDMP_MOVER_SET_RECORD_SIZE`: bytes of a record. Only while the mover is idle.
    pub fn mover_set_record_size(&mut self, size: u32) -> Result<(), DmaError> {
        self.ask(&Request::MoverSetRecordSize(size)).map(|_| ())
    }

    /// `NDMP_MOVER_SET_WINDOW`: the part of the stream that this tape holds.
    pub fn mover_set_window(&mut self, offset: u64, length: u64) -> Result<(), DmaError> {
        self.ask(&Request::MoverSetWindow { offset, length }).map(|_| ())
    }

    /// `NDMP_MOVER_LISTEN`: where the other end may connect to.
    pub fn mover_listen(&mut self, mode: MoverMode, addr_type: AddrType) -> Result<Addr, DmaError> {
        match self.ask(&Request::MoverListen { mode, addr_type })? {
            ReplyBody::Address(addr) => Ok(addr),
            _ => Err(DmaError::Protocol("NDMP_MOVER_LISTEN: no address".to_owned())),
        }
    }

    /// `NDMP_MOVER_CONNECT` (version 3 on).
    pub fn mover_connect(&mut self, mode: MoverMode, addr: Addr) -> Result<(), DmaError> {
        self.ask(&Request::MoverConnect { mode, addr }).map(|_| ())
    }

    /// `NDMP_MOVER_READ`: sends part of the stream.
    pub fn mover_read(&mut self, offset: u64, length: u64) -> Result<(), DmaError> {
        self.ask(&Request::MoverRead { offset, length }).map(|_| ())
    }

    /// `NDMP_MOVER_CONTINUE`.
    pub fn mover_continue(&mut self) -> Result<(), DmaError> {
        self.ask_bare(MessageCode::MoverContinue).map(|_| ())
    }

    /// `NDMP_MOVER_CLOSE`.
    pub fn mover_close(&mut self) -> Result<(), DmaError> {
        self.ask_bare(MessageCode::MoverClose).map(|_| ())
    }

    /// `NDMP_MOVER_ABORT`.
    pub fn mover_abort(&mut self) -> Result<(), DmaError> {
        self.ask_bare(MessageCode::MoverAbort).map(|_| ())
    }

    /// `NDMP_MOVER_STOP`.
    pub fn mover_stop(&mut self) -> Result<(), DmaError> {
        self.ask_bare(MessageCode::MoverStop).map(|_| ())
    }

    /// What the mover says next, waiting at most `timeout` for it.
    pub fn wait_mover(&mut self, timeout: Duration) -> Result<Option<MoverNews>, DmaError> {
        match self.wait_notification(timeout)? {
            None => Ok(None),
            Some(Post::MoverPaused { reason, seek_position }) => {
                Ok(Some(MoverNews::Paused { reason, position: seek_position }))
            }
            Some(Post::MoverHalted { reason, text }) => {
                Ok(Some(MoverNews::Halted { reason, text }))
            }
            Some(other) => Err(DmaError::Protocol(format!(
                "{} where the mover was to speak",
                other.code(self.version())
            ))),
        }
    }

    /// Brings the mover back to idle, whatever it does.
    pub fn mover_reset(&mut self) -> Result<(), DmaError> {
        use ndmp::wire::MoverState;
        match self.mover_state()?.state {
            MoverState::Idle => return Ok(()),
            MoverState::Halted => {}
            _ => self.mover_abort()?,
        }
        self.mover_stop()?;
        // What it said before belongs to what is over.
        while self.wait_notification(Duration::ZERO)?.is_some() {}
        Ok(())
    }
}
