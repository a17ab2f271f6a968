//! The mover's data plane: moves bytes between a tape drive and a data connection.
//!
//! The rules (window, states, pause and halt reasons) are `ndmp::server`'s. Here a *run* moves
//! bytes until something stops it; it happens on the drive's owner thread. Between runs the
//! connection's state (buffered bytes, the socket) rests in an [`Inbound`] or [`Outbound`] of the
//! session, since the DMA may change tape and even drive while the mover is paused.

mod connection;
mod feed;
mod inbound;
mod job;
mod offload;
mod outbound;
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ndmp::tape::{Failure, FailureKind};
use tape::{Control, TapeError};

use crate::device::failure;

pub use connection::{Closer, Connection, Offer, Source, SourceEnd, Splice, Taken};
pub use feed::{Fed, Feed, Wake};
pub use inbound::{Inbound, Surroundings};
pub use job::{JobHandle, Tell};
pub use outbound::Outbound;
pub use reference::{
    EngineDrive, Extent, RangeEnd, RangeRequest, RangeTarget, RangeWritten, ReferenceSource,
    Resolve, Segment,
};

/// The largest record that a mover reads from a tape.
pub const RECORD_MAX: usize = 8 << 20;

/// What one run may do.
#[derive(Clone, Debug)]
pub struct Run {
    /// The mover's record size in bytes.
    pub record_size: usize,
    /// Stream bytes that may move, `None` without a limit.
    pub limit: Option<u64>,
    /// Only overflow ends the medium; the client knows that it writes beyond early warning.
    pub ignore_early_warning: bool,
    /// From tape: records to space over first, and bytes of the next record not to send.
    pub reposition: Option<(i64, u32)>,
    /// From tape: step back over a filemark that ends the run.
    pub back_over_filemark: bool,
    /// The job row that the bytes belong to.
    pub job: Option<JobHandle>,
    /// Cancelled by MOVER_ABORT and by the end of the session.
    pub control: Control,
}

/// Why a run stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// To tape: data is waiting beyond the limit. From tape: the limit is reached.
    Limit,
    /// To tape: the medium is full; the record that did not go on it is kept for the next run.
    EndOfMedium,
    /// From tape: a filemark was met; the tape stands behind it.
    Filemark,
    /// From tape: the end of data.
    EndOfData,
    /// The other side closed the connection. To tape: everything received is on the tape.
    PeerClosed,
    /// The tape or the drive failed.
    Media(Failure),
    /// The connection failed.
    Connection(String),
    /// Something of ours failed, or the drive is no longer ours.
    Internal(Failure),
    /// Cancelled.
    Cancelled,
}

impl Stop {
    /// The stop that a failed device call means.
    pub(crate) fn from_tape(error: &TapeError) -> Self {
        match error {
            TapeError::Cancelled => Self::Cancelled,
            TapeError::Lost(_) | TapeError::PositionUnknown(_) => Self::Internal(failure(error)),
            _ => Self::Media(failure(error)),
        }
    }

    /// Something of ours failed that leaves the tape as it is.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::Internal(Failure::new(FailureKind::Refused, text))
    }
}

/// What a mover moved since it left IDLE; read by MOVER_GET_STATE while a run goes on.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<(AtomicU64, AtomicU64)>);

impl Counters {
    /// Adds stream bytes and records.
    pub fn add(&self, bytes: u64, records: u64) {
        self.0.0.fetch_add(bytes, Ordering::AcqRel);
        self.0.1.fetch_add(records, Ordering::AcqRel);
    }

    /// (stream bytes, records).
    pub fn get(&self) -> (u64, u64) {
        (self.0.0.load(Ordering::Acquire), self.0.1.load(Ordering::Acquire))
    }
}
