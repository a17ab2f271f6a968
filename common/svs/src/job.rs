//! Jobs: what they are, and along which states they move.

use model::{CartridgeId, GenerationId, JobId};
use serde::{Deserialize, Serialize};

use crate::text::words;

words! {
    /// What kind of work a job is.
    JobKind ("a kind of job") {
        /// A tape is written from another one; both keep the data.
        Copy = "copy",
        /// The chunks of one cartridge generation go to the peer.
        Replication = "replication",
        /// A copy after which the source is freed.
        Migration = "migration",
        /// A tape is read back and compared.
        Verify = "verify",
        /// Unused chunks of the store are freed.
        Collect = "collect",
        /// Every chunk of the store is read and checked.
        Scrub = "scrub",
    }
}

words! {
    /// Who may resume a job after a restart of this engine.
    JobOwner ("an owner of a job") {
        /// This engine: the job returns to pending and runs again.
        Engine = "engine",
        /// A session of the backup application, which ended with the process: the job fails.
        Dma = "dma",
        /// The engine at the other site: the job returns to pending until the peer says more.
        Peer = "peer",
    }
}

words! {
    /// Where a job stands.
    JobState ("a state of a job") {
        /// Not begun, or interrupted and to be resumed.
        Pending = "pending",
        /// Has a time or a place in a queue.
        Scheduled = "scheduled",
        /// Waits until the far site holds the source completely.
        WaitingReplication = "waiting_replication",
        /// Waits for a drive or a medium.
        WaitingDrive = "waiting_drive",
        /// Bytes move, or could.
        InProgress = "in_progress",
        /// The target medium is full; the application decides.
        PausedEom = "paused_eom",
        /// Complete and flushed.
        Done = "done",
        /// Ended without its aim; the message has the cause.
        Failed = "failed",
        /// Ended by somebody's wish.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether the job has ended; such a row never changes its state again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// Whether a job in this state may go to `next`.
    ///
    /// Done is reached only from work, and not from a wait: what never began can not be done.
    /// Staying in a state that is not final is allowed, so that a message can be renewed.
    pub fn may_become(self, next: Self) -> bool {
        use JobState::*;
        match (self, next) {
            (Done | Failed | Cancelled, _) => false,
            (_, Pending | Failed | Cancelled) => true,
            (InProgress | PausedEom, Done) => true,
            (_, Done) => false,
            (InProgress, PausedEom) => true,
            (now, PausedEom) => now == PausedEom,
            (Pending, Scheduled) => true,
            (now, Scheduled) => now == Scheduled,
            (_, WaitingReplication | WaitingDrive | InProgress) => true,
        }
    }
}

words! {
    /// Who moved the bytes of a copy.
    CopyPath ("a path of a copy") {
        /// The remote engine, from its own store.
        Offloaded = "offloaded",
        /// The movers, through this engine.
        Moved = "moved",
    }
}

words! {
    /// How the result of a job was proven.
    Verified ("a kind of verification") {
        /// Not at all, beyond the drive's GOOD.
        None = "none",
        /// The position of the medium after the last flush was the expected one.
        Position = "position",
        /// The data was read back and compared.
        Readback = "readback",
    }
}

/// A job to be written before its work starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Made by the originator, used at both sites.
    pub id: JobId,
    /// What kind of work it is.
    pub kind: JobKind,
    /// Who may resume it.
    pub owner: JobOwner,
    /// What is read, for people: `vtl0/VTA001L8`.
    pub source: String,
    /// What is written, for people: `dr-ptl0/PTA001L8`.
    pub target: String,
    /// The state it begins in; not a final one.
    pub state: JobState,
    /// How much there is to do, if that is known.
    pub bytes_total: Option<u64>,
    /// The virtual cartridge it is about.
    pub cartridge: Option<CartridgeId>,
    /// The generation it is about; it stays pinned until the job has ended.
    pub generation: Option<GenerationId>,
    /// Who asked for it, for people: `ndmp user at 192.0.2.1`, `policy on-unload`, `admin`.
    pub requested_by: String,
    /// Who moves the bytes.
    pub path: Option<CopyPath>,
    /// Why the planner chose so.
    pub path_reason: Option<String>,
    /// What the owner needs to go on after a restart, in its own words; at most 64 KiB.
    pub resume: Option<String>,
}

impl NewJob {
    /// A pending job with nothing known but what every job has.
    pub fn new(
        id: JobId,
        kind: JobKind,
        owner: JobOwner,
        (source, target): (impl Into<String>, impl Into<String>),
        requested_by: impl Into<String>,
    ) -> Self {
        Self {
            id,
            kind,
            owner,
            source: source.into(),
            target: target.into(),
            state: JobState::Pending,
            bytes_total: None,
            cartridge: None,
            generation: None,
            requested_by: requested_by.into(),
            path: None,
            path_reason: None,
            resume: None,
        }
    }
}

/// A job as the programs see it: every column that one of them needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The same at both sites.
    pub id: JobId,
    /// What kind of work it is.
    pub kind: JobKind,
    /// Who may resume it.
    pub owner: JobOwner,
    /// What is read, for people.
    pub source: String,
    /// What is written, for people.
    pub target: String,
    /// Where it stands.
    pub state: JobState,
    /// Bytes done: for a copy, those that the drive answered GOOD.
    pub bytes: u64,
    /// Bytes to do, if known.
    pub bytes_total: Option<u64>,
    /// Logical object number of the target after the last flush.
    pub flushed_object: Option<u64>,
    /// Bytes that the last flush made safe.
    pub flushed_bytes: Option<u64>,
    /// The virtual cartridge it is about.
    pub cartridge: Option<CartridgeId>,
    /// The generation it is about.
    pub generation: Option<GenerationId>,
    /// Who asked for it.
    pub requested_by: String,
    /// Who moves the bytes.
    pub path: Option<CopyPath>,
    /// Why the planner chose so.
    pub path_reason: Option<String>,
    /// How the result was proven.
    pub verified: Verified,
    /// The cause of an end or a wait.
    pub message: Option<String>,
    /// What the owner noted to go on after a restart.
    pub resume: Option<String>,
    /// RFC 3339 UTC: when the row was written.
    pub created: String,
    /// RFC 3339 UTC: when it left pending and scheduled for the first time.
    pub started: Option<String>,
    /// RFC 3339 UTC: when it ended.
    pub ended: Option<String>,
}

/// One row of the view `job_status`, with its column names: what people and `--json` see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// ULID.
    pub id: JobId,
    /// What kind of work it is.
    pub kind: JobKind,
    /// What is read.
    pub source: String,
    /// What is written.
    pub target: String,
    /// Where it stands.
    pub state: JobState,
    /// 0 to 100 with one decimal; null if the total is unknown.
    pub percent: Option<f64>,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes for each second in progress; null before the first.
    pub rate: Option<u64>,
    /// RFC 3339 UTC.
    pub started: Option<String>,
    /// RFC 3339 UTC.
    pub ended: Option<String>,
    /// Who asked for it.
    pub requested_by: String,
    /// Who moves the bytes.
    pub path: Option<CopyPath>,
    /// Why the planner chose so.
    pub path_reason: Option<String>,
    /// How the result was proven.
    pub verified: Verified,
    /// The cause of an end or a wait.
    pub message: Option<String>,
}

/// Which jobs a listing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    /// Only these states; empty for all.
    pub states: Vec<JobState>,
    /// Only these kinds; empty for all.
    pub kinds: Vec<JobKind>,
    /// Only jobs whose source or target contains this text.
    pub about: Option<String>,
    /// At most so many, the newest of them; listed oldest first.
    pub limit: u32,
}

impl Default for JobFilter {
    /// The newest thousand of all jobs.
    fn default() -> Self {
        Self { states: Vec::new(), kinds: Vec::new(), about: None, limit: 1000 }
    }
}

impl JobFilter {
    /// The jobs that have not ended.
    pub fn unfinished() -> Self {
        let states = JobState::ALL.iter().copied().filter(|s| !s.is_final()).collect();
        Self { states, ..Self::default() }
    }
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes done since the beginning of the job, not since the last call.
    pub bytes: u64,
    /// Bytes to do, if that is known (better) now; `None` leaves what was known.
    pub bytes_total: Option<u64>,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// [`JobState::Done`], [`JobState::Failed`] or [`JobState::Cancelled`].
    pub state: JobState,
    /// Bytes done in all; `None` leaves the last progress.
    pub bytes: Option<u64>,
    /// How the result was proven.
    pub verified: Verified,
    /// The cause; for a failure what happened and what was flushed.
    pub message: Option<String>,
}

impl Ending {
    /// Done, with all bytes that moved.
    pub fn done(bytes: u64, verified: Verified) -> Self {
        Self { state: JobState::Done, bytes: Some(bytes), verified, message: None }
    }

    /// Failed, with the cause.
    pub fn failed(cause: impl Into<String>) -> Self {
        let (state, message) = (JobState::Failed, Some(cause.into()));
        Self { state, bytes: None, verified: Verified::None, message }
    }

    /// Cancelled, with who wished it.
    pub fn cancelled(cause: impl Into<String>) -> Self {
        Self { state: JobState::Cancelled, ..Self::failed(cause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: from. Columns: to, in the order of `ALL`. `x` is legal.
    const TABLE: [(JobState, &str); 9] = [
        //                              pend sche wrep wdrv inpr peom done fail canc
        (JobState::Pending, "x x x x x . . x x"),
        (JobState::Scheduled, "x x x x x . . x x"),
        (JobState::WaitingReplication, "x . x x x . . x x"),
        (JobState::WaitingDrive, "x . x x x . . x x"),
        (JobState::InProgress, "x . x x x x x x x"),
        (JobState::PausedEom, "x . x x x x x x x"),
        (JobState::Done, ". . . . . . . . ."),
        (JobState::Failed, ". . . . . . . . ."),
        (JobState::Cancelled, ". . . . . . . . ."),
    ];

    #[test]
    fn states_move_as_the_table_says() {
        for (row, (from, marks)) in TABLE.iter().enumerate() {
            assert_eq!(JobState::ALL[row], *from);
            for (to, mark) in JobState::ALL.iter().zip(marks.split(' ')) {
                assert_eq!(from.may_become(*to), mark == "x", "{from} -> {to}");
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_fail_and_be_cancelled() {
        for state in JobState::ALL.iter().filter(|state| !state.is_final()) {
            assert!(state.may_become(JobState::Failed) && state.may_become(JobState::Cancelled));
        }
        assert_eq!(JobFilter::unfinished().states.len(), 6);
    }
}
