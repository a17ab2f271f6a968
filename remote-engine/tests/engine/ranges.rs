//! Generations that arrive, and copies of them to tapes.

use bytes::Bytes;
use link::{Answer, CopyRange, Extent, Message, RangeEnd, RangeResult, RangeSource, Work};
use model::{GenerationId, JobId, Ulid};
use remote_engine::engine::now_ms;
use svs::{JobKind, JobState, ReplicationState, Verified};
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::{Control, Operation, Outcome, ReadEnd, TapeDrive, WriteEnd};

use crate::support::{Site, hq, noise, run_id, store_with};

pub(crate) const RECORD: usize = 16 << 10;

pub(crate) fn extent(generation: GenerationId, offset: u64, length: u64) -> Extent {
    Extent { generation, first_object: 0, offset_in_object: offset, length }
}

pub(crate) fn range(
    job: JobId,
    extent: Extent,
    record_size: u32,
    expected_object: u64,
) -> CopyRange {
    CopyRange {
        job,
        source: RangeSource::Extents(vec![extent]),
        record_size,
        pad_last: false,
        flush: false,
        ignore_early_warning: false,
        verify: None,
        expected_object,
    }
}

pub(crate) fn copied(answer: Answer) -> RangeResult {
    match answer {
        Answer::Copied(result) => result,
        other => panic!("no result of a range: {other:?}"),
    }
}

/// The records and filemarks (`None`) of the cartridge in a drive, read without the engine.
pub(crate) fn tape_of(site: &Site, drive: usize) -> Vec<Option<Bytes>> {
    let library = &site.config.physical_libraries[0];
    let config = library.file().unwrap();
    let spec = FileLibrarySpec {
        name: library.name.to_string(),
        drives: config.drives,
        slots: config.slots,
        import_export: config.import_export,
        capacity: config.capacity.0,
        early_warning: None,
        barcodes: config.barcodes(),
    };
    let vfs = std::sync::Arc::new(vfs::RealVfs);
    let library = FileLibrary::open(vfs, &config.path, &spec).unwrap();
    let control = Control::within(std::time::Duration::from_secs(20));
    let mut drive = library.drives(1, &control).unwrap().remove(drive);
    drive.ready(&control).unwrap();
    let (mut objects, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        match drive.read(&mut buffer, &control).unwrap() {
            ReadEnd::Record { length } => {
                objects.push(Some(Bytes::copy_from_slice(&buffer[..length])));
            }
            ReadEnd::Filemark => objects.push(None),
            ReadEnd::EndOfData => return objects,
        }
    }
}

/// Records, a filemark, records of another size, two filemarks.
pub(crate) fn source() -> Vec<Option<Bytes>> {
    let mut objects: Vec<_> = (0..40).map(|n| Some(noise(n + 1, RECORD))).collect();
    objects.push(None);
    objects.extend((0..9).map(|n| Some(noise(100 + n, 700))));
    objects.extend([None, None]);
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicated_generation_is_copied_record_for_record() {
    let site = Site::new("8MB", "1MB");
    let objects = source();
    let (store, generation) = store_with(site.dir.path(), &objects);
    let first = 40 * RECORD as u64;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    let job = JobId::generate(now_ms());

    let early = range(job, extent(generation, 0, first), RECORD as u32, 0);
    let result = copied(local.work(&mut drive, Work::Copy(early.clone())).await);
    assert_eq!((result.end, result.bytes), (RangeEnd::NotReplicated, 0));
    let catalogue = engine.ground().catalogue.clone();
    assert_eq!(catalogue.job(job).unwrap().unwrap().state, JobState::WaitingReplication);

    let unique = local.replicate(&store, generation).await;
    assert!(unique > first, "{unique}");
    assert_eq!(local.replicate(&store, generation).await, 0, "it is here already");
    let row = catalogue.replication(generation, &hq()).unwrap().unwrap();
    assert_eq!(row.state, ReplicationState::Done);

    let result = copied(local.work(&mut drive, Work::Copy(early)).await);
    assert_eq!((result.end, result.bytes, result.object), (RangeEnd::Done, first, 40));
    let mark = local.operate(&mut drive, Operation::WriteFilemarks(1)).await;
    assert_eq!(mark, Ok(Outcome::Written(WriteEnd::Written)));
    // Behind the filemark, which has no bytes; and the offset counts from the first record.
    let rest = CopyRange { flush: true, ..range(job, extent(generation, first, 6300), 700, 41) };
    let result = copied(local.work(&mut drive, Work::Copy(rest)).await);
    assert_eq!((result.end, result.records, result.flushed), (RangeEnd::Done, 9, true));
    local.operate(&mut drive, Operation::WriteFilemarks(2)).await.unwrap();
    let wrong = local.work(&mut drive, Work::Copy(range(job, extent(generation, 0, 700), 700, 7)));
    assert!(matches!(wrong.await, Answer::Failed(tape::TapeError::PositionUnknown(_))));
    // The next range proves that the copy goes on.
    let last = CopyRange { flush: true, ..range(job, extent(generation, 0, 700), 700, 52) };
    assert_eq!(copied(local.work(&mut drive, Work::Copy(last)).await).records, 1);
    assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);
    local.end_job(job).await;
    let row = catalogue.job(job).unwrap().unwrap();
    assert_eq!((row.state, row.verified), (JobState::Done, Verified::Position), "{row:?}");
    assert_eq!((row.source.as_str(), row.target.as_str()), ("vtl0/VTA001L8", "ptl0/PTA001L8"));
    assert_eq!((row.bytes, row.flushed_bytes), (first + 7000, Some(first + 7000)));
    let jobs = catalogue.jobs(&svs::JobFilter::default()).unwrap();
    let replication = jobs.iter().find(|job| job.kind == JobKind::Replication).unwrap();
    assert_eq!(replication.state, JobState::Done);
    engine.stop().await;

    let mut expected = objects;
    expected.push(Some(noise(1, RECORD).slice(..700)));
    assert!(tape_of(&site, 0) == expected, "the tape differs from its source");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_behind_the_end_of_a_tape() {
    let site = Site::new("1100KB", "200KB");
    let records: Vec<_> = (0..80).map(|n| noise(n + 1, RECORD)).collect();
    let objects: Vec<_> = records.iter().cloned().map(Some).collect();
    let (store, generation) = store_with(site.dir.path(), &objects);
    let total = 80 * RECORD as u64;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    local.replicate(&store, generation).await;
    local.change(&[(1024, 128), (1025, 129)]).await;
    let job = JobId::generate(now_ms());
    let mut written = 0;
    for (number, device) in ["ptl0/drive0", "ptl0/drive1"].into_iter().enumerate() {
        let mut drive = local.open(device).await;
        local.attention(&mut drive, Operation::Rewind).await;
        let part = extent(generation, written, total - written);
        let order = CopyRange { flush: true, ..range(job, part, RECORD as u32, 0) };
        let result = copied(local.work(&mut drive, Work::Copy(order)).await);
        let end = if number == 0 { RangeEnd::EarlyWarning } else { RangeEnd::Done };
        assert_eq!((result.end, result.flushed), (end, true));
        assert_eq!(result.bytes, result.records * RECORD as u64);
        written += result.bytes;
        if number == 0 {
            let row = engine.ground().catalogue.job(job).unwrap().unwrap();
            assert_eq!(row.state, JobState::PausedEom);
            // What the end of the medium is, the application may well know and go on to it.
            let part = extent(generation, written, total - written);
            let on = range(job, part, RECORD as u32, result.records);
            let on = CopyRange { ignore_early_warning: true, ..on };
            let result = copied(local.work(&mut drive, Work::Copy(on)).await);
            assert_eq!((result.end, result.flushed), (RangeEnd::Overflow, true));
            assert!(result.records > 0);
            written += result.bytes;
        }
        assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);
    }
    assert_eq!(written, total);
    local.end_job(job).await;
    let row = engine.ground().catalogue.job(job).unwrap().unwrap();
    assert_eq!((row.state, row.bytes), (JobState::Done, total));
    assert_eq!(row.target, "ptl0/PTA001L8, ptl0/PTA002L8");
    engine.stop().await;
    let mut both = tape_of(&site, 0);
    both.extend(tape_of(&site, 1));
    assert!(both == objects, "the tapes together differ from the source");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_lease_is_lost_fails_and_is_reported_until_acknowledged() {
    let mut site = Site::new("8MB", "1MB");
    site.config.link.lease_seconds = 1;
    let objects = source();
    let (store, generation) = store_with(site.dir.path(), &objects);
    let run = run_id();
    let engine = site.start().await;
    let mut local = site.connect(&engine, run).await;
    local.replicate(&store, generation).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    let job = JobId(Ulid::generate(now_ms()));
    let order = range(job, extent(generation, 0, 3 * RECORD as u64), RECORD as u32, 0);
    assert_eq!(copied(local.work(&mut drive, Work::Copy(order)).await).records, 3);
    let told = local.job_report().await;
    assert_eq!((told.job, told.flushed_object), (job, Some(3)));
    assert_eq!((told.flushed_bytes, told.complete), (3 * RECORD as u64, true));
    let row = engine.ground().catalogue.job(job).unwrap().unwrap();
    assert_eq!((row.state, row.flushed_object), (JobState::Failed, Some(3)));

    // Told again at each connection, over a restart as well, until the peer knows.
    engine.abandon().await;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run).await;
    assert_eq!(local.job_report().await, told);
    local.send(Message::JobAck(job)).await;
    while !engine.ground().jobs.reports_for(&hq()).is_empty() {
        tokio::task::yield_now().await;
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_replication_is_resumed_as_the_same_job() {
    let site = Site::new("8MB", "1MB");
    let (store, generation) = store_with(site.dir.path(), &source());
    let run = run_id();
    let engine = site.start().await;
    let mut local = site.connect(&engine, run).await;
    local.replicate_half(&store, generation).await;
    // A newer pair takes over in the middle; then the engine itself goes away.
    let mut local = site.connect(&engine, run).await;
    local.replicate_half(&store, generation).await;
    engine.abandon().await;
    let engine = site.start().await;
    let jobs = engine.ground().catalogue.jobs(&svs::JobFilter::default()).unwrap();
    assert_eq!((jobs.len(), jobs[0].state), (1, JobState::Pending));
    let mut local = site.connect(&engine, run).await;
    assert!(local.replicate(&store, generation).await > 0);
    let jobs = engine.ground().catalogue.jobs(&svs::JobFilter::default()).unwrap();
    assert_eq!((jobs.len(), jobs[0].state), (1, JobState::Done), "{jobs:?}");
    let mut reader = engine.ground().store.reader(generation).unwrap();
    assert_eq!(reader.verify().unwrap(), store.generation(generation).unwrap().bytes);
    drop(reader);
    engine.stop().await;
}
