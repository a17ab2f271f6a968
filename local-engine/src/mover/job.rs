//! The job row of a copy that a DMA runs.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use copy::{Path, Plan};
use link::Verify;
use model::{GenerationId, JobId};
use service::messages;
use svs::{
    Catalogue, CopyPath, Ending, EventKind, JobKind, JobOwner, JobState, NewJob, Progress,
    SvsError, Verified,
};

/// How often a job's bytes are written down.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Tells the DMA something about the copy (NDMP LOG_MESSAGE).
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// The job of one data connection; clones share it. The row is written when the first run knows
/// its source and its target, before any byte moves. All calls may wait for the catalogue's disk.
#[derive(Clone)]
pub struct JobHandle(Arc<Inner>);

struct Inner {
    id: JobId,
    catalogue: Arc<Catalogue>,
    requested_by: String,
    tell: Tell,
    /// How it is to be proven; as the library of its target says if not given.
    verify: Option<Verify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    written: bool,
    ended: bool,
    source: String,
    targets: Vec<String>,
    route: Option<Plan>,
    generation: Option<GenerationId>,
    seen: Option<Instant>,
    bytes: u64,
    /// How it was proven here.
    proven: Option<Verified>,
    /// Bytes that are known to come in all.
    expected: Option<u64>,
    /// Object number and bytes of the last flush.
    flushed: Option<(u64, u64)>,
}

impl State {
    fn target(&self) -> &str {
        self.targets.last().map_or("-", String::as_str)
    }

    /// A cause with what is safe on the target.
    fn with_flushed(&self, cause: &str) -> String {
        match self.flushed {
            Some((object, bytes)) => {
                format!("{cause}; flushed to the target: {bytes} bytes, up to object {object}")
            }
            None => format!("{cause}; nothing was flushed to the target"),
        }
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobHandle({})", self.0.id)
    }
}

impl JobHandle {
    /// A job without a row yet.
    pub fn new(id: JobId, catalogue: Arc<Catalogue>, requested_by: String, tell: Tell) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Inner { id, catalogue, requested_by, tell, verify: None, state }))
    }

    /// A job of this engine whose row is written: (source, target) as there.
    pub fn of_engine(
        id: JobId,
        catalogue: Arc<Catalogue>,
        ends: (String, String),
        verify: Option<Verified>,
    ) -> Self {
        let state =
            State { written: true, source: ends.0, targets: vec![ends.1], ..State::default() };
        let (requested_by, tell) = (String::new(), Arc::new(|_| {}));
        let verify = verify.map(|how| match how {
            Verified::None => Verify::None,
            Verified::Position => Verify::Position,
            Verified::Readback => Verify::Readback,
        });
        let state = Mutex::new(state);
        Self(Arc::new(Inner { id, catalogue, requested_by, tell, verify, state }))
    }

    /// The job's id, the same at both sites.
    pub fn id(&self) -> JobId {
        self.0.id
    }

    /// How it is to be proven, if it was asked for with that.
    pub fn verify(&self) -> Option<Verify> {
        self.0.verify
    }

    /// Whether it has ended; what moves afterwards belongs to another job.
    pub fn is_ended(&self) -> bool {
        self.state().ended
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

    fn say(&self, id: &str, words: &[(&str, &dyn fmt::Display)]) {
        let subject = self.0.id.to_string();
        messages::note(&self.0.catalogue, EventKind::Job, id, words, Some(&subject));
    }

    /// A run begins: writes the row if there is none, and notes a changed target or path. An error
    /// says that the job can not be written down, so that its work must not begin.
    pub fn begin(&self, source: &str, target: &str, plan: &Plan) -> Result<(), String> {
        let mut state = self.state();
        if state.ended {
            return Ok(());
        }
        if !state.written {
            self.write_row(&mut state, source, target, plan)?;
        }
        if state.target() != target {
            state.targets.push(target.to_owned());
            let all = state.targets.join(", ");
            self.note(self.0.catalogue.set_target(self.0.id, &all));
        }
        if state.route.as_ref() != Some(plan) {
            // Of a job whose row was there before, this is the first run.
            if state.route.is_none() {
                self.say_begins(source, target, plan);
            }
            state.route = Some(plan.clone());
            let reason = plan.reason.to_string();
            self.note(self.0.catalogue.set_path(self.0.id, path(plan), &reason));
            (self.0.tell)(format!("copy {}: {} ({reason})", self.0.id, plan.path.as_str()));
        }
        Ok(())
    }

    fn write_row(
        &self,
        state: &mut State,
        source: &str,
        target: &str,
        plan: &Plan,
    ) -> Result<(), String> {
        let ends = (source.to_owned(), target.to_owned());
        let by = self.0.requested_by.clone();
        let mut job = NewJob::new(self.0.id, JobKind::Copy, JobOwner::Dma, ends, by);
        job.path = Some(path(plan));
        job.path_reason = Some(plan.reason.to_string());
        let written = self.0.catalogue.create_job(&job);
        written.map_err(|error| format!("the job can not be written down: {error}"))?;
        state.written = true;
        state.source = source.to_owned();
        state.targets.push(target.to_owned());
        state.route = Some(plan.clone());
        (self.0.tell)(format!("copy {}: {} ({})", self.0.id, plan.path.as_str(), plan.reason));
        self.say_begins(source, target, plan);
        Ok(())
    }

    fn say_begins(&self, source: &str, target: &str, plan: &Plan) {
        let words: [(&str, &dyn fmt::Display); 4] = [
            ("source", &source),
            ("target", &target),
            ("path", &plan.path.as_str()),
            ("reason", &plan.reason),
        ];
        self.say(messages::COPY_BEGINS, &words);
    }

    /// The copy reads this generation: it stays pinned until the job has ended.
    pub fn reads(&self, generation: GenerationId) {
        let mut state = self.state();
        if state.written && !state.ended && state.generation != Some(generation) {
            state.generation = Some(generation);
            self.note(self.0.catalogue.set_generation(self.0.id, generation));
        }
    }

    /// Moves the job to a state that has not ended.
    pub fn enter(&self, to: JobState, message: Option<&str>) {
        let state = self.state();
        if state.written && !state.ended {
            self.note(self.0.catalogue.transition(self.0.id, to, message).map(drop));
        }
    }

    /// The target's medium is full, and what was written is flushed.
    pub fn paused_at_end_of_medium(&self, bytes: u64) {
        self.enter(JobState::PausedEom, Some("the target tape is full"));
        let target = {
            let state = self.state();
            (state.written && !state.ended).then(|| state.target().to_owned())
        };
        if let Some(target) = target {
            self.say(messages::COPY_AT_END_OF_MEDIUM, &[("target", &target), ("bytes", &bytes)]);
        }
    }

    /// The source has named what it gives: so many bytes in all, as far as it is known. It is
    /// written down with the next progress.
    pub fn expects(&self, bytes: u64) {
        self.state().expected = Some(bytes);
    }

    /// Notes how many bytes the target has in all; written down at most twice a second.
    pub fn progress(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes = bytes;
        let due = state.seen.is_none_or(|seen| seen.elapsed() >= PROGRESS_EVERY);
        if due && state.written && !state.ended {
            state.seen = Some(Instant::now());
            let progress = Progress { bytes, bytes_total: state.expected };
            self.note(self.0.catalogue.progress(self.0.id, progress));
        }
    }

    /// Notes what a flush made safe.
    pub fn flushed(&self, object: u64, bytes: u64) {
        let mut state = self.state();
        if state.written && !state.ended {
            state.flushed = Some((object, bytes));
            self.note(self.0.catalogue.flushed(self.0.id, object, bytes));
        }
    }

    /// What is on the target was proven by this engine.
    pub fn proven(&self, how: Verified) {
        self.state().proven = Some(how);
    }

    /// Everything is on tape and flushed.
    pub fn done(&self, bytes: u64) {
        let ending = |state: &State| Ending::done(bytes, state.proven.unwrap_or(Verified::None));
        let Some(state) = self.end(ending) else { return };
        let words: [(&str, &dyn fmt::Display); 3] =
            [("source", &state.0), ("target", &state.1), ("bytes", &bytes)];
        self.say(messages::COPY_DONE, &words);
    }

    /// The copy has failed; what was flushed stands in the row.
    pub fn failed(&self, cause: &str) {
        let ended = self.end(|state| {
            let mut ending = Ending::failed(state.with_flushed(cause));
            ending.bytes = Some(state.bytes);
            ending
        });
        let Some(state) = ended else { return };
        let words: [(&str, &dyn fmt::Display); 3] =
            [("source", &state.0), ("target", &state.1), ("cause", &cause)];
        self.say(messages::COPY_FAILED, &words);
    }

    /// Somebody wished its end; what was flushed stands in the row.
    pub fn cancelled(&self, cause: &str) {
        self.end(|state| {
            let mut ending = Ending::cancelled(state.with_flushed(cause));
            ending.bytes = Some(state.bytes);
            ending
        });
    }

    /// Ends it once; its source and its target if this did.
    fn end(&self, ending: impl FnOnce(&State) -> Ending) -> Option<(String, String)> {
        let mut state = self.state();
        if !state.written || state.ended {
            return None;
        }
        state.ended = true;
        self.note(self.0.catalogue.finish(self.0.id, &ending(&state)));
        Some((state.source.clone(), state.targets.join(", ")))
    }
}

fn path(plan: &Plan) -> CopyPath {
    match plan.path {
        Path::Offloaded => CopyPath::Offloaded,
        Path::Moved => CopyPath::Moved,
    }
}

#[cfg(test)]
mod tests {
    use copy::Reason;
    use model::SiteName;
    use svs::{EventFilter, JobStatus};

    use super::*;

    struct Desk {
        _dir: tempfile::TempDir,
        catalogue: Arc<Catalogue>,
        job: JobHandle,
    }

    fn desk() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Arc::new(Catalogue::open(&dir.path().join("svs.db")).unwrap());
        let (id, tell) = (JobId::generate(1), Arc::new(|_| {}));
        let job = JobHandle::new(id, Arc::clone(&catalogue), "ndmp test".into(), tell);
        Desk { _dir: dir, catalogue, job }
    }

    fn plan() -> Plan {
        let dr = SiteName::new("dr").unwrap();
        Plan { path: Path::Offloaded, reason: Reason::RemoteHasData(dr) }
    }

    impl Desk {
        fn begin(&self, target: &str) {
            self.job.begin("vtl0/A", target, &plan()).unwrap();
            self.job.enter(JobState::InProgress, None);
        }

        fn row(&self) -> JobStatus {
            self.catalogue.job_status(self.job.id()).unwrap().unwrap()
        }
    }

    #[test]
    fn without_a_copy_there_is_no_row() {
        let desk = desk();
        desk.job.progress(5);
        desk.job.flushed(1, 5);
        desk.job.done(5);
        desk.job.failed("whatever");
        assert!(desk.catalogue.job_status(desk.job.id()).unwrap().is_none());
    }

    #[test]
    fn a_copy_over_two_tapes_has_one_row_with_both() {
        let desk = desk();
        desk.begin("dr-ptl0/P1");
        desk.job.progress(100);
        desk.job.flushed(3, 100);
        desk.job.paused_at_end_of_medium(100);
        assert_eq!(desk.row().state, JobState::PausedEom);
        desk.begin("dr-ptl0/P2");
        desk.job.done(150);
        let row = desk.row();
        assert_eq!((row.state, row.bytes), (JobState::Done, 150));
        assert_eq!(row.target, "dr-ptl0/P1, dr-ptl0/P2");
        let events = desk.catalogue.events(&EventFilter::default()).unwrap();
        let ids: Vec<_> = events.iter().map(|event| event.message_id.as_str()).collect();
        assert!(ids.contains(&messages::COPY_BEGINS) && ids.contains(&messages::COPY_DONE));
        assert!(ids.contains(&messages::COPY_AT_END_OF_MEDIUM));
    }

    #[test]
    fn a_copy_of_the_engine_says_that_it_begins_too() {
        let desk = desk();
        let ends = ("vtl0/A".to_owned(), "dr-ptl0/P1".to_owned());
        let id = JobId::generate(2);
        let new = NewJob::new(id, JobKind::Copy, JobOwner::Engine, ends.clone(), "test");
        desk.catalogue.create_job(&new).unwrap();
        let job = JobHandle::of_engine(id, Arc::clone(&desk.catalogue), ends, None);
        job.begin("vtl0/A", "dr-ptl0/P1", &plan()).unwrap();
        job.begin("vtl0/A", "dr-ptl0/P1", &plan()).unwrap();
        let events = desk.catalogue.events(&EventFilter::default()).unwrap();
        let begun = events.iter().filter(|event| event.message_id == messages::COPY_BEGINS);
        assert_eq!(begun.count(), 1);
    }

    #[test]
    fn what_has_ended_stays_ended_and_says_what_is_safe() {
        let desk = desk();
        desk.begin("dr-ptl0/P1");
        desk.job.flushed(4, 4096);
        desk.job.progress(9000);
        desk.job.failed("the source's mover was aborted");
        assert!(desk.job.is_ended());
        desk.job.done(9999);
        desk.job.failed("again");
        desk.job.flushed(9, 9999);
        let row = desk.row();
        assert_eq!((row.state, row.bytes), (JobState::Failed, 9000));
        let message = row.message.unwrap();
        assert!(message.contains("aborted; flushed to the target: 4096 bytes, up to object 4"));
    }
}
