//! What the mover asks of the data plane, and what that reports.
//!
//! ```text
//!   Listen ──► Listening | ListenFailed ──► (a peer dials) Connected | ConnectionLost
//!   Connect ─► Connected | ConnectFailed
//!   Run ─────► Stopped, exactly once, when it ends by itself or by Cancel
//!   CloseConnection: no answer; ends a Listen or Connect that is not answered yet; no event of
//!             that connection or listener comes after it
//! ```
//!
//! `Moved` may come at any time and must come before each message is delivered, so that
//! `NDMP_MOVER_GET_STATE` tells the truth. A `Cancel` that crosses a `Stopped` on its way is
//! answered by that `Stopped`; there is never a second one.

use crate::tape::Failure;
use crate::wire::{Addr, AddrType};

/// The way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From the data connection to the tape (`NDMP_MOVER_MODE_READ`).
    ToTape,
    /// From the tape to the data connection (`NDMP_MOVER_MODE_WRITE`).
    FromTape,
}

/// Something asked of the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoverCommand {
    /// Wait for one peer. All counters and buffers of the data plane start anew.
    Listen {
        /// Which way data will go.
        flow: Flow,
        /// `Local` or `Tcp`.
        addr_type: AddrType,
    },
    /// Dial a peer. All counters and buffers of the data plane start anew.
    Connect {
        /// Which way data will go.
        flow: Flow,
        /// `Local`, or TCP addresses to try in order.
        addr: Addr,
    },
    /// Move data until something stops it.
    Run(Grant),
    /// Stop the run at a record boundary, now, and answer `Stopped`.
    Cancel,
    /// Close the data connection, or stop listening, and forget what was not moved.
    CloseConnection {
        /// The stream has come to its end (closed by the client or the peer); otherwise it was
        /// broken off, and what the other side has of it is not the whole.
        orderly: bool,
    },
}

/// Leave to move data: one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Which way.
    pub flow: Flow,
    /// Bytes of a record. `ToTape`: every record written has this length, the last of the stream
    /// being padded with zeros. `FromTape`: room for a record that is read.
    pub record_size: u32,
    /// Offset in the stream of the first byte of this run.
    pub offset: u64,
    /// How many bytes may move in this run, `None` for no limit. `ToTape`: a multiple of
    /// `record_size`, up to the end of the window. `FromTape`: until the read is satisfied or the
    /// window ends; a record may be sent in part, the rest of it is kept for the next run.
    pub limit: Option<u64>,
    /// `FromTape`: go to another place first. `None` to go on where the last run stopped, with
    /// what it kept.
    pub reposition: Option<Reposition>,
    /// `FromTape`: where the tape is left when a filemark stops the run.
    pub at_filemark: FilemarkSide,
    /// `ToTape`: the client knows already that this tape is beyond early warning: only overflow
    /// stops the run.
    pub past_early_warning: bool,
}

/// Where a `FromTape` run begins, counted from where the tape stands; what the last run kept is
/// dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reposition {
    /// Records to space over, backwards if negative. A filemark met stops the run with
    /// [`StopReason::Filemark`].
    pub records: i64,
    /// Bytes of the first record that are not sent. They do not count as moved.
    pub skip: u32,
}

/// A side of a filemark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilemarkSide {
    /// On the side of the beginning of the tape: a drive that read over the mark steps back.
    BeginningOfTape,
    /// On the side of the end of the tape, where reading leaves it.
    EndOfTape,
}

/// What has moved since the last `Listen` or `Connect`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the stream. `ToTape`: those whose WRITE the drive answered GOOD, without the pad.
    /// `FromTape`: those given to the connection.
    pub bytes: u64,
    /// Records written to or read from the tape (spacing does not count).
    pub records: u64,
}

/// What the data plane reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoverEvent {
    /// Listening, at these addresses (never 0.0.0.0).
    Listening(Addr),
    /// Can not listen.
    ListenFailed(Failure),
    /// The peer is there, or the dialled peer answered.
    Connected,
    /// The dialled peer did not answer.
    ConnectFailed(Failure),
    /// How far it is.
    Moved(Progress),
    /// The run has ended.
    Stopped(StopReason, Progress),
    /// Between runs of a `FromTape` mover: the peer closed the connection. A `ToTape` mover
    /// reports that by the run that met it, since what arrived before is still to be written.
    PeerClosed,
    /// Between runs, or while listening: the connection or the listener broke.
    ConnectionLost(Failure),
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// `ToTape`: there is data beyond the limit.
    WindowFull,
    /// `FromTape`: as many bytes as the limit were sent.
    LimitReached,
    /// `ToTape`: early warning or overflow. What was not written is kept and goes first in the
    /// next run. Everything counted is flushed.
    EndOfMedium,
    /// `FromTape`: a filemark; the tape is on the side asked for and everything before is sent.
    Filemark,
    /// `FromTape`: the end of the data on tape; everything before is sent.
    EndOfData,
    /// The peer closed the connection. `ToTape`: everything that arrived is written, the last
    /// record padded, and flushed.
    PeerClosed,
    /// The drive or the medium failed.
    MediaError(Failure),
    /// The connection broke.
    ConnectionError(Failure),
    /// The server failed.
    Internal(Failure),
    /// Cancelled, at a record boundary.
    Cancelled,
}
