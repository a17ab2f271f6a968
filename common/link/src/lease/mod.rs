//! Leases: the right to one open device of the other site, and its numbered operations.
//!
//! The local engine opens a ghost device under a fresh [`LeaseId`] and numbers what it asks, one
//! thing at a time. The remote does each number once: it makes number and answer durable before
//! the answer leaves, so the same number asked again is answered from the record. Three things can
//! come between:
//!
//! * *The link breaks.* Both ends remember. The client resumes with the next epoch and asks the
//!   outstanding number again; the table attaches it to the running work or answers from memory.
//! * *The remote crashes.* Its table is rebuilt from rows. A repeated number without a record may
//!   or may not have been done: [`settle`] compares where the drive stands with where the client
//!   expects it before and after. The first new number is settled as well, since a drive that was
//!   reset has lost place and buffer, and its unit attention may have been met by someone else.
//! * *Nobody comes back.* After the lease time the remote flushes, frees the device and remembers
//!   for one more lease time why.

mod client;
mod row;
mod settle;
mod table;
mod track;

pub use client::{ClientError, ClientEvent, LeaseClient};
pub use row::RestoreError;
pub use settle::{Proof, Settled, after_crash, settle, settle_move};
pub use table::{CLOSING_MS, LEASES_MAX, LeaseAction, LeaseTable, TableError};

use model::{DeviceName, LeaseId, ObjectNumber};
use tape::{Operation, Outcome, TapeError};

use crate::range::{CopyRange, RangeResult, ReadRange, ReadResult};

/// Something that a lease holder asks, under a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// One device operation.
    Operation(Operation),
    /// Write a range of records that the remote can make itself.
    Copy(CopyRange),
    /// Read ahead into a stream.
    Read(ReadRange),
    /// Flush, free the device, end the lease.
    Close,
}

/// What came of a [`Work`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of an operation.
    Outcome(Outcome),
    /// Of a copy range.
    Copied(RangeResult),
    /// Of a read range.
    Read(ReadResult),
    /// Of a close: everything before is on the medium, the device is free.
    Closed,
    /// The device's own complaint, or why nothing more is known.
    Failed(TapeError),
}

/// What the client knows about the drive when it asks, for the case that the remote crashes
/// between doing and recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The object number before the work, `None` if the client does not know it.
    pub before: Option<ObjectNumber>,
    /// The object number after it, where that can be told in advance.
    pub after: Option<ObjectNumber>,
    /// Acknowledged records may still be in the drive's buffer only.
    pub unflushed: bool,
}

/// Why a work must be settled before it is done: the remote was restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What the client expects.
    pub expect: Expect,
    /// It was sent before: it may have been done. Otherwise only the drive's place is in doubt.
    pub repeated: bool,
}

/// A numbered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// From 1, one more each time.
    pub number: u64,
    /// It was sent before, over an earlier connection.
    pub repeated: bool,
    /// For the verification after a crash.
    pub expect: Expect,
    /// What is to be done.
    pub work: Work,
}

/// From the holder of a lease to the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The lease.
    pub lease: LeaseId,
    /// Which connection of the lease, from 1.
    pub epoch: u32,
    /// The request.
    pub body: LeaseBody,
}

/// The requests under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseBody {
    /// Begin. Asked again it is answered again.
    Open {
        /// The device under its name at the remote site (no site prefix).
        device: DeviceName,
        /// Nobody else may have it open.
        exclusive: bool,
    },
    /// The same lease over a new connection; comes before what is asked again.
    Resume,
    /// Do something.
    Perform(Numbered),
    /// Stay: nothing to do now. Every other request renews as well.
    Renew,
    /// End the running work with this number at the next record boundary.
    Cancel {
        /// The number.
        number: u64,
        /// Of a [`ReadRange`]: objects taken; the drive is positioned behind them.
        taken: Option<u64>,
    },
}

/// From the remote to the holder of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReply {
    /// The lease.
    pub lease: LeaseId,
    /// Which connection of the lease it answers on.
    pub epoch: u32,
    /// The reply.
    pub body: LeaseReplyBody,
}

/// The replies under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseReplyBody {
    /// Opened or resumed.
    Opened {
        /// How long the remote keeps it without a sign of life, in milliseconds.
        lease_ms: u64,
    },
    /// Not opened.
    Refused(Refusal),
    /// The answer to a number.
    Answered {
        /// The number.
        number: u64,
        /// What came of it.
        answer: Answer,
    },
    /// A range goes on.
    Progress {
        /// Its number.
        number: u64,
        /// Bytes whose WRITE the drive answered GOOD (read: bytes read), so far.
        bytes: u64,
        /// Records so far.
        records: u64,
    },
    /// There is no such lease any more.
    Ended(EndReason),
}

/// Why a device was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {text}")]
pub struct Refusal {
    /// The kind of reason.
    pub why: RefusalWhy,
    /// For people, at most 1024 bytes.
    pub text: String,
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusalWhy {
    /// Someone else has it open; a retry helps once they closed it.
    #[error("the device is in use")]
    Busy,
    /// There is no device of this name; the report was stale.
    #[error("there is no such device")]
    NoSuchDevice,
    /// The remote's configuration does not give it to this peer.
    #[error("the device is not for this site")]
    NotAllowed,
    /// More leases than the remote keeps.
    #[error("too many open devices")]
    TooMany,
    /// The device itself could not be opened.
    #[error("the device does not answer")]
    Device,
}

/// Why a lease is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// It was closed by its holder.
    #[error("it was closed")]
    Closed,
    /// Nothing was heard for the lease time; the remote flushed and freed the device.
    #[error("the link was down for longer than the lease")]
    Expired,
    /// An operator of the remote site took the device back.
    #[error("the device was taken back at its site")]
    Revoked,
    /// The remote does not know it (any more).
    #[error("the remote engine does not know the lease")]
    Unknown,
    /// The holder's engine was restarted.
    #[error("the engine that held it was restarted")]
    PeerRestarted,
}

impl Work {
    /// Whether doing it twice differs from doing it once.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Operation(operation) => operation.has_effect(),
            Self::Copy(_) | Self::Read(_) | Self::Close => true,
        }
    }

    /// Whether number and answer must survive a crash of the remote. Reading changes no medium:
    /// after a crash the drive is positioned back and reads again, so that no data is recorded.
    pub(crate) fn is_recorded(&self) -> bool {
        let reads = matches!(self, Self::Read(_) | Self::Operation(Operation::Read(_)));
        self.has_effect() && !reads
    }
}
