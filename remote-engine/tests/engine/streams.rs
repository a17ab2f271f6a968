//! Bytes of a foreign mover into a drive, and what a drive reads on its way back.

use bytes::Bytes;
use link::{
    Answer, ClientEvent, CopyRange, Item, LeaseClient, Message, RangeEnd, RangeSource,
    ReadEndReason, ReadRange, ReadResult, StreamBody, StreamId, StreamReceiver,
    StreamReceiverOutput, StreamSender, StreamSenderOutput, Work,
};
use model::{JobId, Ulid};
use remote_engine::engine::now_ms;
use store::Store;
use svs::JobState;
use tape::{Operation, Outcome, ReadEnd};

use crate::ranges::{copied, tape_of};
use crate::support::{Local, PATIENCE, Site, noise, run_id, store_with};

const RECORD: usize = 20_000;

fn stream_id() -> StreamId {
    StreamId(Ulid::generate(now_ms()))
}

fn range(job: JobId, stream: StreamId, from: u64, expected_object: u64) -> CopyRange {
    CopyRange {
        job,
        source: RangeSource::Stream { stream, from, length: u64::MAX - from },
        record_size: RECORD as u32,
        pad_last: true,
        flush: true,
        ignore_early_warning: false,
        verify: None,
        expected_object,
    }
}

/// Sends what the sender has to say.
async fn pump(local: &mut Local, sender: &mut StreamSender) {
    while let Some(output) = sender.poll() {
        match output {
            StreamSenderOutput::Send(message) => local.bulk.send(Message::Stream(message)).await,
            StreamSenderOutput::Done => {}
            StreamSenderOutput::Failed(error) => panic!("{error}"),
        }
    }
}

/// Feeds a stream until the range that is under way is answered.
async fn feed(local: &mut Local, client: &mut LeaseClient, sender: &mut StreamSender) -> Answer {
    loop {
        pump(local, sender).await;
        match local.either(client).await {
            (Some(message), _) => sender.handle(message.body).unwrap(),
            (_, Some(ClientEvent::Answered { answer, .. })) => return answer,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_fills_two_tapes_and_only_what_is_unknown_travels() {
    let site = Site::new("1100KB", "200KB");
    let known = noise(7, 600_000);
    let (store, generation) = store_with(site.dir.path(), &[Some(known.clone())]);
    let engine = site.start().await;
    let run = run_id();
    let mut local = site.connect(&engine, run).await;
    local.replicate(&store, generation).await;
    local.change(&[(1024, 128), (1025, 129)]).await;
    let data = [known, noise(8, 817_003)].concat();

    let (id, job) = (stream_id(), JobId::generate(now_ms()));
    let mut sender = StreamSender::new(id);
    sender.push(&data).unwrap();
    sender.finish();
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    local.submit(&mut drive, Work::Copy(range(job, id, 0, 0))).await;
    let first = copied(feed(&mut local, &mut drive, &mut sender).await);
    assert_eq!((first.end, first.flushed), (RangeEnd::EarlyWarning, true));
    assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);

    // What was received waits over a change of the tape, and over a broken link.
    sender.on_disconnect();
    let mut local = site.connect(&engine, run).await;
    sender.on_reconnect().unwrap();
    let mut drive = local.open("ptl0/drive1").await;
    local.attention(&mut drive, Operation::Rewind).await;
    local.submit(&mut drive, Work::Copy(range(job, id, first.bytes, 0))).await;
    let second = copied(feed(&mut local, &mut drive, &mut sender).await);
    assert_eq!((second.end, second.flushed), (RangeEnd::Done, true));
    assert_eq!(first.bytes + second.bytes, data.len() as u64);
    assert!(sender.wire() < 950_000, "{} bytes sent", sender.wire());
    assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);
    local.end_job(job).await;
    let row = engine.ground().catalogue.job(job).unwrap().unwrap();
    assert_eq!((row.state, row.bytes), (JobState::Done, data.len() as u64));
    engine.stop().await;

    let mut padded = data;
    padded.resize(padded.len().next_multiple_of(RECORD), 0);
    let mut both = tape_of(&site, 0);
    both.extend(tape_of(&site, 1));
    let expected: Vec<_> =
        padded.chunks(RECORD).map(|record| Some(Bytes::copy_from_slice(record))).collect();
    assert!(both == expected, "the tapes differ from the stream");
}

/// Reads the stream of a range until `enough` objects are here or the range is answered.
async fn read(
    local: &mut Local,
    client: &mut LeaseClient,
    receiver: &mut StreamReceiver,
    store: &Store,
    enough: usize,
) -> (Vec<Bytes>, Option<Answer>) {
    let (mut records, mut answer) = (Vec::new(), None);
    loop {
        while let Some(output) = receiver.poll() {
            match output {
                StreamReceiverOutput::Send(message) => {
                    local.bulk.send(Message::Stream(message)).await;
                }
                StreamReceiverOutput::NeedMissing { sequence, digests } => {
                    receiver.missing(sequence, &store.missing(&digests));
                }
                StreamReceiverOutput::ReadChunk { digest } => {
                    receiver.chunk(digest, store.chunk(&digest).ok().map(Bytes::from));
                }
                StreamReceiverOutput::Failed(error) => panic!("{error}"),
            }
        }
        while records.len() < enough
            && let Some(Item::Record(record)) = receiver.peek_item()
        {
            records.push(record);
            receiver.consume_item().unwrap();
        }
        let complete = match &answer {
            Some(Answer::Read(result)) => records.len() as u64 == result.records,
            _ => false,
        };
        if complete || records.len() >= enough {
            return (records, answer);
        }
        match local.either(client).await {
            (Some(message), _) if message.stream == receiver.stream() => {
                receiver.handle(message.body).unwrap();
            }
            (_, Some(ClientEvent::Answered { answer: came, .. })) => answer = Some(came),
            _ => {}
        }
    }
}

fn reading(stream: StreamId, expected_object: u64) -> Work {
    Work::Read(ReadRange {
        job: JobId::generate(now_ms()),
        stream,
        expected_object,
        objects_max: 1 << 32,
        record_max: 4 << 20,
        before_filemark: false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_is_read_ahead_and_positioned_back() {
    let site = Site::new("8MB", "1MB");
    let records: Vec<_> = (0..60).map(|n| noise(n + 1, RECORD + n as usize)).collect();
    // The first half is known at the reading site.
    let known: Vec<_> = records[..30].iter().cloned().map(Some).collect();
    let (store, _) = store_with(site.dir.path(), &known);
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    for record in &records {
        local.operate(&mut drive, Operation::Write(record.clone())).await.unwrap();
    }
    local.operate(&mut drive, Operation::WriteFilemarks(1)).await.unwrap();
    local.operate(&mut drive, Operation::Rewind).await.unwrap();

    let id = stream_id();
    let mut receiver = StreamReceiver::new(id, 0);
    local.submit(&mut drive, reading(id, 0)).await;
    let (read_here, answer) = read(&mut local, &mut drive, &mut receiver, &store, 1000).await;
    assert!(read_here == records, "the records differ");
    let bytes = records.iter().map(|record| record.len() as u64).sum();
    let (end, object) = (ReadEndReason::Filemark, 61);
    assert_eq!(answer, Some(Answer::Read(ReadResult { end, records: 60, bytes, object })));
    assert_eq!(local.position(&mut drive).await, 61);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_reading_ahead_leaves_the_tape_behind_what_was_taken() {
    const LONG: usize = 4 << 20;
    let site = Site::new("100MB", "1MB");
    let (store, _) = store_with(site.dir.path(), &[Some(noise(1, 10))]);
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    // More than a stream's window, so that the drive waits for its reader.
    for byte in 0..18 {
        let record = Operation::Write(vec![byte; LONG].into());
        local.operate(&mut drive, record).await.unwrap();
    }
    local.operate(&mut drive, Operation::Locate(1)).await.unwrap();
    let id = stream_id();
    let mut receiver = StreamReceiver::new(id, 0);
    local.submit(&mut drive, reading(id, 1)).await;
    let (records, answer) = read(&mut local, &mut drive, &mut receiver, &store, 3).await;
    assert!(answer.is_none() && (1..).zip(&records).all(|(byte, record)| record[9] == byte));
    let cancel = drive.cancel(Some(3)).unwrap();
    local.send(Message::Lease(cancel)).await;
    let ended = loop {
        if let (_, Some(ClientEvent::Answered { answer, .. })) = local.either(&mut drive).await {
            break answer;
        }
    };
    let (end, bytes) = (ReadEndReason::Cancelled, 3 * LONG as u64);
    assert_eq!(ended, Answer::Read(ReadResult { end, records: 3, bytes, object: 4 }));
    match local.operate(&mut drive, Operation::Read(LONG as u32)).await {
        Ok(Outcome::Read(ReadEnd::Record { .. }, record)) => assert_eq!(record[0], 4),
        other => panic!("{other:?}"),
    }
    // The range of a reader that is gone ends with its lease.
    let mut receiver = StreamReceiver::new(stream_id(), 0);
    local.submit(&mut drive, reading(receiver.stream(), 5)).await;
    read(&mut local, &mut drive, &mut receiver, &store, 1).await;
    let mut local = site.connect(&engine, run_id()).await;
    local.report(|report| !report.libraries[0].drives[0].in_use).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_took_of_a_reading_ahead_is_kept_no_longer() {
    let site = Site::new("8MB", "1MB");
    let (store, _) = store_with(site.dir.path(), &[Some(noise(1, 10))]);
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    for seed in 0..10 {
        local.operate(&mut drive, Operation::Write(noise(seed, RECORD))).await.unwrap();
    }
    local.operate(&mut drive, Operation::Rewind).await.unwrap();
    let id = stream_id();
    let mut receiver = StreamReceiver::new(id, 0);
    local.submit(&mut drive, reading(id, 0)).await;
    let (records, mut answer) = read(&mut local, &mut drive, &mut receiver, &store, 2).await;
    assert_eq!(records.len(), 2);
    while answer.is_none() {
        if let (_, Some(ClientEvent::Answered { answer: came, .. })) =
            local.either(&mut drive).await
        {
            answer = Some(came);
        }
    }
    // The reader goes on with something else.
    local.submit(&mut drive, Work::Operation(Operation::Locate(2))).await;
    let over = async {
        loop {
            match local.either(&mut drive).await {
                (Some(message), _) if matches!(message.body, StreamBody::Abort(_)) => {
                    return message.stream;
                }
                _ => {}
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, over).await.expect("the stream is over"), id);
    engine.stop().await;
}
