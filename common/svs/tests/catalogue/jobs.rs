//! Jobs: rows before work, legal moves, the view, and what a restart makes of them.

use crate::support::*;
use svs::{
    Catalogue, CopyPath, Ending, JobFilter, JobKind, JobOwner, JobState, PeerFact, Progress,
    SvsError, Verified,
};

#[test]
fn a_copy_goes_its_way_and_the_view_tells_it() {
    let (_dir, c) = catalogue();
    let mut new = job(1, JobKind::Copy, JobOwner::Dma);
    new.bytes_total = Some(1000);
    assert!(c.create_job(&new).unwrap());
    assert!(!c.create_job(&new).unwrap(), "the same job twice is one job");
    let row = c.job_status(new.id).unwrap().unwrap();
    assert_eq!((row.state, row.percent, row.rate), (JobState::Pending, Some(0.0), None));
    assert_eq!((row.started, row.path, row.verified), (None, None, Verified::None));

    c.set_path(new.id, CopyPath::Offloaded, "the remote holds it").unwrap();
    let from = c.transition(new.id, JobState::WaitingReplication, Some("12 %")).unwrap();
    assert_eq!(from, JobState::Pending);
    c.transition(new.id, JobState::InProgress, None).unwrap();
    c.progress(new.id, Progress { bytes: 250, bytes_total: None }).unwrap();
    let row = c.job_status(new.id).unwrap().unwrap();
    assert_eq!((row.percent, row.bytes, row.message), (Some(25.0), 250, None));
    assert!(row.started.unwrap().ends_with('Z'));

    c.transition(new.id, JobState::PausedEom, Some("PTA001L8 is full")).unwrap();
    c.transition(new.id, JobState::InProgress, None).unwrap();
    c.flushed(new.id, 17, 1000).unwrap();
    c.finish(new.id, &Ending::done(1000, Verified::Position)).unwrap();
    c.finish(new.id, &Ending::done(1000, Verified::Position)).unwrap();
    let row = c.job_status(new.id).unwrap().unwrap();
    assert_eq!((row.state, row.percent, row.bytes), (JobState::Done, Some(100.0), 1000));
    assert_eq!((row.path, row.verified), (Some(CopyPath::Offloaded), Verified::Position));
    assert!(row.ended.is_some());
    let full = c.job(new.id).unwrap().unwrap();
    assert_eq!((full.flushed_object, full.flushed_bytes), (Some(17), Some(1000)));
}

#[test]
fn the_json_of_a_row_has_the_columns_of_the_view() {
    let (_dir, c) = catalogue();
    c.create_job(&job(1, JobKind::Copy, JobOwner::Dma)).unwrap();
    let row = serde_json::to_value(c.job_status(job_id(1)).unwrap().unwrap()).unwrap();
    let columns: Vec<_> = "id kind source target state percent bytes rate started ended \
         requested_by path path_reason verified message"
        .split_whitespace()
        .collect();
    let mut keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut sorted = columns.clone();
    sorted.sort_unstable();
    assert_eq!(keys, sorted);
    assert_eq!(row["state"], "pending");
    assert_eq!(row["verified"], "none");

    let raw = rusqlite::Connection::open(c.path()).unwrap();
    let statement = raw.prepare("SELECT * FROM job_status").unwrap();
    assert!(statement.column_names().eq(columns.iter().copied()));
}

#[test]
fn illegal_moves_change_nothing() {
    let (_dir, c) = catalogue();
    let id = job_id(1);
    c.create_job(&job(1, JobKind::Copy, JobOwner::Dma)).unwrap();
    let illegal = |result: Result<JobState, SvsError>| {
        assert!(matches!(result, Err(SvsError::Transition { .. })), "{result:?}");
    };
    illegal(c.transition(id, JobState::PausedEom, None));
    illegal(c.transition(id, JobState::Done, None));
    let never_began = c.finish(id, &Ending::done(0, Verified::None));
    assert!(matches!(never_began, Err(SvsError::Transition { .. })));
    c.finish(id, &Ending::cancelled("admin")).unwrap();
    illegal(c.transition(id, JobState::InProgress, None));
    assert!(c.finish(id, &Ending::failed("late")).is_err());
    // Late progress of a job that has ended is no error and no change.
    c.progress(id, Progress { bytes: 5, bytes_total: None }).unwrap();
    let row = c.job_status(id).unwrap().unwrap();
    assert_eq!((row.state, row.bytes), (JobState::Cancelled, 0));
    assert_eq!(row.message.as_deref(), Some("admin"));
    illegal_is_not_found(&c);
}

fn illegal_is_not_found(c: &Catalogue) {
    let missing = c.transition(job_id(99), JobState::InProgress, None);
    assert!(matches!(missing, Err(SvsError::NotFound(_))));
    assert!(matches!(c.flushed(job_id(99), 0, 0), Err(SvsError::NotFound(_))));
}

#[test]
fn a_restart_leaves_nothing_in_progress() {
    let (_dir, c) = catalogue();
    let mut n = 0;
    for owner in [JobOwner::Engine, JobOwner::Dma, JobOwner::Peer] {
        for state in JobState::ALL.iter().filter(|state| !state.is_final()) {
            n += 1;
            let mut new = job(n, JobKind::Copy, owner);
            new.state = *state;
            c.create_job(&new).unwrap();
        }
    }
    c.flushed(job_id(11), 9, 4096).unwrap();
    let recovered = c.recover_after_restart("the engine was restarted").unwrap();
    assert_eq!(recovered.len(), 6 + 2 * 4);
    for row in c.jobs(&JobFilter::default()).unwrap() {
        let full = c.job(row.id).unwrap().unwrap();
        match full.owner {
            JobOwner::Dma => assert_eq!(row.state, JobState::Failed),
            _ => assert!(matches!(row.state, JobState::Pending | JobState::Scheduled)),
        }
    }
    let failed = c.job(job_id(11)).unwrap().unwrap();
    let expected = "the engine was restarted; flushed to the target: 4096 bytes, up to object 9";
    assert_eq!(failed.message.as_deref(), Some(expected));
    assert!(c.recover_after_restart("again").unwrap().is_empty());
}

#[test]
fn the_facts_of_the_peer_win_over_what_is_open_here() {
    let (_dir, c) = catalogue();
    let fact = |state, bytes, flushed| PeerFact { state, bytes, flushed, message: None };
    c.create_job(&job(1, JobKind::Copy, JobOwner::Engine)).unwrap();
    let now = c.reconcile(job_id(1), &fact(JobState::Done, 700, Some((3, 700)))).unwrap();
    assert_eq!(now, JobState::Done);
    // What has ended keeps its state, but numbers grow, and never shrink.
    c.reconcile(job_id(1), &fact(JobState::InProgress, 10, None)).unwrap();
    let full = c.job(job_id(1)).unwrap().unwrap();
    assert_eq!((full.state, full.bytes, full.flushed_bytes), (JobState::Done, 700, Some(700)));
    assert_eq!(full.flushed_object, Some(3));
    assert!(c.reconcile(job_id(2), &fact(JobState::Done, 0, None)).is_err());
}

#[test]
fn jobs_are_listed_by_state_kind_and_subject() {
    let (_dir, c) = catalogue();
    for n in 1..=5 {
        let kind = if n % 2 == 0 { JobKind::Replication } else { JobKind::Copy };
        c.create_job(&job(n, kind, JobOwner::Engine)).unwrap();
    }
    c.finish(job_id(1), &Ending::failed("x")).unwrap();
    let ids = |filter: &JobFilter| -> Vec<_> {
        c.jobs(filter).unwrap().into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids(&JobFilter::default()).len(), 5);
    assert_eq!(ids(&JobFilter::unfinished()), [2, 3, 4, 5].map(job_id));
    let newest = JobFilter { limit: 2, ..JobFilter::default() };
    assert_eq!(ids(&newest), [4, 5].map(job_id));
    let copies = JobFilter { kinds: vec![JobKind::Copy], ..JobFilter::unfinished() };
    assert_eq!(ids(&copies), [3, 5].map(job_id));
    let about = |text: &str| JobFilter { about: Some(text.into()), ..JobFilter::default() };
    assert_eq!(ids(&about("PTA001L8")).len(), 5);
    assert!(ids(&about("' OR 1=1")).is_empty());
    assert_eq!(c.unfinished_jobs(Some(JobKind::Replication)).unwrap().len(), 2);
    let whole: Vec<_> = c.newest_jobs(2).unwrap().iter().map(|job| job.id).collect();
    assert_eq!(whole, [4, 5].map(job_id));
    // Only what has ended is forgotten.
    assert!(matches!(c.forget_job(job_id(5)), Err(SvsError::Conflict(_))));
    c.finish(job_id(5), &Ending::failed("x")).unwrap();
    assert!(c.forget_job(job_id(5)).unwrap() && !c.forget_job(job_id(5)).unwrap());
    assert_eq!(c.prune_jobs(0).unwrap(), 1);
    assert_eq!(ids(&JobFilter::default()).len(), 3);
}

#[test]
fn an_unfinished_job_pins_its_generation() {
    let (_dir, c) = catalogue();
    let generation = model::GenerationId::generate(7);
    c.create_job(&job(1, JobKind::Copy, JobOwner::Engine)).unwrap();
    c.set_generation(job_id(1), generation).unwrap();
    assert_eq!(c.pinned_generations().unwrap(), [generation]);
    c.finish(job_id(1), &Ending::failed("x")).unwrap();
    assert!(c.pinned_generations().unwrap().is_empty());
}

#[test]
fn notes_have_bounds() {
    let (_dir, c) = catalogue();
    c.create_job(&job(1, JobKind::Copy, JobOwner::Engine)).unwrap();
    c.set_resume(job_id(1), "{\"next\":1}").unwrap();
    assert!(c.set_resume(job_id(1), &"x".repeat((64 << 10) + 1)).is_err());
    c.finish(job_id(1), &Ending::failed("ä".repeat(5000))).unwrap();
    let full = c.job(job_id(1)).unwrap().unwrap();
    assert_eq!(full.resume.as_deref(), Some("{\"next\":1}"));
    assert_eq!(full.message.unwrap().len(), 2048);
    let mut ended = job(2, JobKind::Copy, JobOwner::Engine);
    ended.state = JobState::Done;
    assert!(c.create_job(&ended).is_err());
}
