//! How a copy is proven on tape, and what is said of one that is not.

use link::{Answer, CopyRange, RangeEnd, Verify, Work};
use model::{GenerationId, JobId};
use remote_engine::engine::now_ms;
use scsi::Sense;
use service::config;
use svs::{EventFilter, Job, JobState, Verified};
use tape::{Operation, Outcome, TapeError, WriteEnd};

use super::ranges::{RECORD, copied, extent, range, source, tape_of};
use super::support::{Local, Site, run_id, store_with};

/// A copy that is written, with a filemark behind it; what came of that, and of the job.
struct Copied {
    site: Site,
    mark: Result<Outcome, TapeError>,
    row: Job,
    proofs: Vec<Verify>,
    objects: u64,
    messages: Vec<String>,
}

async fn begin(local: &mut Local) -> link::LeaseClient {
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    drive
}

/// Copies 40 records by the policy of the library, or by the copy's own, under a plan of faults.
async fn copy(policy: config::Verify, own: Option<Verify>, faults: &str) -> Copied {
    let mut site = Site::new("8MB", "1MB");
    site.config.physical_libraries[0].verify = policy;
    let objects = source();
    let (store, generation): (_, GenerationId) = store_with(site.dir.path(), &objects);
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    let mut drive = begin(&mut local).await;
    local.replicate(&store, generation).await;
    let path = &site.config.physical_libraries[0].file().unwrap().path;
    std::fs::write(path.join("faults"), faults).unwrap();
    let job = JobId::generate(now_ms());
    let half = 20 * RECORD as u64;
    for (offset, object) in [(0, 0), (half, 20)] {
        let range = range(job, extent(generation, offset, half), RECORD as u32, object);
        let range = CopyRange { verify: own, ..range };
        let result = copied(local.work(&mut drive, Work::Copy(range)).await);
        assert_eq!((result.end, result.flushed), (RangeEnd::Done, false));
    }
    let mark = local.operate(&mut drive, Operation::WriteFilemarks(1)).await;
    let position = local.operate(&mut drive, Operation::Position).await;
    let Ok(Outcome::Position(position)) = position else { panic!("{position:?}") };
    assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);
    local.end_job(job).await;
    let catalogue = engine.ground().catalogue.clone();
    let row = catalogue.job(job).unwrap().unwrap();
    let events = catalogue.events(&EventFilter::default()).unwrap();
    let messages = events.into_iter().map(|event| event.message_id).collect();
    let proofs = local.proofs.iter().filter(|(id, _)| *id == job).map(|(_, how)| *how).collect();
    engine.stop().await;
    Copied { site, mark, row, proofs, objects: position.object, messages }
}

#[tokio::test(flavor = "multi_thread")]
async fn done_says_how_it_was_proven() {
    use config::Verify as Policy;
    for (policy, own, expected, told) in [
        (Policy::None, None, Verified::None, Verify::None),
        (Policy::Position, None, Verified::Position, Verify::Position),
        (Policy::Readback, None, Verified::Readback, Verify::Readback),
        // A copy may ask for another proof than the library gives.
        (Policy::Readback, Some(Verify::Position), Verified::Position, Verify::Position),
        (Policy::None, Some(Verify::Readback), Verified::Readback, Verify::Readback),
    ] {
        let copied = copy(policy, own, "").await;
        assert_eq!(copied.mark, Ok(Outcome::Written(WriteEnd::Written)), "{policy:?} {own:?}");
        let row = &copied.row;
        assert_eq!((row.state, row.verified), (JobState::Done, expected), "{policy:?} {own:?}");
        assert_eq!(copied.proofs, [told], "{policy:?} {own:?}");
        // Reading back leaves the tape where it was.
        assert_eq!(copied.objects, 41);
        let tape = tape_of(&copied.site, 0);
        assert!(tape[..40] == source()[..40], "{policy:?} {own:?}");
        assert!(tape.len() == 41 && tape[40].is_none(), "{policy:?} {own:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_back_is_not_done() {
    let faults = "drive0 read 30 sense 03/11/00\n";
    let copied = copy(config::Verify::Readback, None, faults).await;
    let deferred = Sense { deferred: true, ..Sense::WRITE_ERROR };
    assert_eq!(copied.mark, Err(TapeError::Check(deferred)), "the application is told");
    assert_eq!((copied.row.state, copied.row.verified), (JobState::Failed, Verified::None));
    let cause = copied.row.message.unwrap();
    assert!(cause.contains("can not be read back") && cause.contains("03/11/00"), "{cause}");
    assert!(copied.messages.iter().any(|id| id == "TWR-4010-E"), "{:?}", copied.messages);
    assert!(copied.proofs.is_empty());
}
