//! The job row of a copy that a DMA runs.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use copy::{Path, Plan};
use model::JobId;
use svs::{
    Catalogue, CopyPath, Ending, JobKind, JobOwner, JobState, NewJob, Progress, SvsError, Verified,
};

/// How often a job's bytes are written down.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Tells the DMA something about the copy (NDMP LOG_MESSAGE).
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// The job of one data connection; clones share it. The row is written when the first run knows
/// its source and its target, before any byte moves.
#[derive(Clone)]
pub struct JobHandle(Arc<Inner>);

struct Inner {
    id: JobId,
    catalogue: Arc<Catalogue>,
    requested_by: String,
    tell: Tell,
    state: Mutex<State>,
}

struct State {
    written: bool,
    ended: bool,
    targets: Vec<String>,
    route: Option<Plan>,
    seen: Option<Instant>,
    bytes: u64,
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobHandle({})", self.0.id)
    }
}

impl JobHandle {
    /// A job without a row yet.
    pub fn new(id: JobId, catalogue: Arc<Catalogue>, requested_by: String, tell: Tell) -> Self {
        let state = State {
            written: false,
            ended: false,
            targets: Vec::new(),
            route: None,
            seen: None,
            bytes: 0,
        };
        Self(Arc::new(Inner { id, catalogue, requested_by, tell, state: Mutex::new(state) }))
    }

    /// The job's id, the same at both sites.
    pub fn id(&self) -> JobId {
        self.0.id
    }

    /// Tells the DMA something.
    pub fn tell(&self, text: String) {
        (self.0.tell)(text);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A catalogue that can not be written must not stop a copy that runs; it is told in the log.
    fn note(&self, result: Result<(), SvsError>) {
        if let Err(error) = result {
            tracing::warn!(job = %self.0.id, %error, "the job row could not be written");
        }
    }

    /// A run begins: writes the row if there is none, and notes a changed target or path. An error
    /// says that the job can not be written down, so that its work must not begin.
    pub fn begin(&self, source: &str, target: &str, plan: &Plan) -> Result<(), String> {
        let mut state = self.state();
        if state.ended {
            return Ok(());
        }
        if !state.written {
            let ends = (source.to_owned(), target.to_owned());
            let mut job = NewJob::new(
                self.0.id,
                JobKind::Copy,
                JobOwner::Dma,
                ends,
                self.0.requested_by.clone(),
            );
            job.path = Some(path(plan));
            job.path_reason = Some(plan.reason.to_string());
            self.0.catalogue.create_job(&job).map_err(|error| error.to_string())?;
            state.written = true;
            state.targets.push(target.to_owned());
            state.route = Some(plan.clone());
            (self.0.tell)(format!("copy {}: {} ({})", self.0.id, plan.path.as_str(), plan.reason));
        }
        if state.targets.last().is_some_and(|last| last != target) {
            state.targets.push(target.to_owned());
            let all = state.targets.join(", ");
            self.note(self.0.catalogue.set_target(self.0.id, &all));
        }
        if state.route.as_ref() != Some(plan) {
            state.route = Some(plan.clone());
            let reason = plan.reason.to_string();
            self.note(self.0.catalogue.set_path(self.0.id, path(plan), &reason));
            (self.0.tell)(format!("copy {}: {} ({reason})", self.0.id, plan.path.as_str()));
        }
        Ok(())
    }

    /// Moves the job to a state that has not ended.
    pub fn enter(&self, to: JobState, message: Option<&str>) {
        let state = self.state();
        if state.written && !state.ended {
            self.note(self.0.catalogue.transition(self.0.id, to, message).map(drop));
        }
    }

    /// Notes how many bytes the target has in all; written down at most twice a second.
    pub fn progress(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes = bytes;
        let due = state.seen.is_none_or(|seen| seen.elapsed() >= PROGRESS_EVERY);
        if due && state.written && !state.ended {
            state.seen = Some(Instant::now());
            let progress = Progress { bytes, bytes_total: None };
            self.note(self.0.catalogue.progress(self.0.id, progress));
        }
    }

    /// Notes what a flush made safe.
    pub fn flushed(&self, object: u64, bytes: u64) {
        let state = self.state();
        if state.written && !state.ended {
            self.note(self.0.catalogue.flushed(self.0.id, object, bytes));
        }
    }

    /// Everything is on tape and flushed.
    pub fn done(&self, bytes: u64) {
        self.end(&Ending::done(bytes, Verified::None));
    }

    /// The copy has failed; what was flushed stands in the row.
    pub fn failed(&self, cause: &str) {
        let mut ending = Ending::failed(cause);
        ending.bytes = Some(self.state().bytes);
        self.end(&ending);
    }

    fn end(&self, ending: &Ending) {
        let mut state = self.state();
        if state.written && !state.ended {
            state.ended = true;
            self.note(self.0.catalogue.finish(self.0.id, ending));
        }
    }
}

fn path(plan: &Plan) -> CopyPath {
    match plan.path {
        Path::Offloaded => CopyPath::Offloaded,
        Path::Moved => CopyPath::Moved,
    }
}
