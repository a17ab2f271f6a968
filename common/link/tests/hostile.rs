//! Peers that keep no rule: whatever they send, the machines answer with an error or go on. They
//! do not panic, and they do not hold more than their windows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use link::{
    Answer, Bases, Begin, Begun, Chunk, ChunkData, Doubt, Entry, Expect, FailWhy, Failure,
    LeaseAction, LeaseBody, LeaseRequest, LeaseTable, Numbered, Offer, Pack, PackForm, Peer,
    Receiver, ReceiverOutput, ReplicateBody, Segment, Sender, SenderOutput, StreamBody, StreamId,
    StreamReceiver, StreamReceiverOutput, StreamSender, StreamSenderOutput, Totals, TransferId,
    Work,
};
use model::{CartridgeId, Digest, EngineId, GenerationId, LeaseId, SiteName, Ulid};
use support::{Random, seeds};
use tape::Operation;

/// Small numbers mostly, and the ends of the range.
fn number(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => u64::MAX,
        1 => u64::MAX - random.below(3),
        2 => random.next(),
        _ => random.below(4),
    }
}

fn small(random: &mut Random) -> u32 {
    number(random) as u32
}

fn chunk(random: &mut Random) -> Chunk {
    let digest = Digest([random.below(5) as u8; 32]);
    Chunk { digest, length: 1 + random.below(3) as u32 }
}

fn chunks(random: &mut Random) -> Vec<(u32, ChunkData)> {
    let data = |random: &mut Random| ChunkData {
        encoding: random.below(3) as u8,
        raw_length: 1 + random.below(3) as u32,
        bytes: Bytes::from(vec![0; random.below(4) as usize]),
    };
    (0..random.below(3)).map(|_| (small(random), data(random))).collect()
}

fn flags(random: &mut Random) -> Vec<bool> {
    (0..random.below(5)).map(|_| random.chance(500)).collect()
}

fn failure() -> Failure {
    Failure { why: FailWhy::Store, text: String::new() }
}

fn entry(random: &mut Random) -> Entry {
    match random.below(8) {
        0 => Entry::Run { first: number(random), count: number(random) },
        1 => Entry::Again { first: number(random), count: number(random) },
        2 => Entry::Old { first: number(random), count: number(random) },
        3 | 4 => Entry::Fresh(1 + random.below(3) as u32),
        _ => Entry::Chunk(chunk(random)),
    }
}

fn pack(random: &mut Random) -> Pack {
    Pack {
        chunks: (0..random.below(4)).map(|_| small(random)).collect(),
        olds: (0..random.below(3)).map(|_| small(random)).collect(),
        form: if random.chance(500) { PackForm::Plain } else { PackForm::Delta },
        proof: Digest([0; 32]),
        bytes: Bytes::from(vec![0; random.below(4) as usize]),
    }
}

fn replicate(random: &mut Random) -> ReplicateBody {
    match random.below(16) {
        0 => {
            let base = random.chance(500).then(|| random.below(3) as u32);
            ReplicateBody::Ready { already: random.chance(200), base }
        }
        1..5 => {
            let entries = (0..random.below(4)).map(|_| entry(random)).collect();
            let offer = Offer { segments: vec![Segment::Filemarks(number(random))], entries };
            ReplicateBody::Offer { sequence: small(random), offer }
        }
        5..8 => ReplicateBody::Want { sequence: small(random), wanted: flags(random) },
        8..11 => ReplicateBody::Pack { sequence: small(random), pack: pack(random) },
        11 | 12 => ReplicateBody::Credit { stored: number(random), offers: small(random) },
        13 => ReplicateBody::Commit(Totals::default()),
        14 => ReplicateBody::Committed,
        _ => ReplicateBody::Failed(failure()),
    }
}

fn begin() -> Begin {
    Begin {
        generation: GenerationId(Ulid(1)),
        cartridge: CartridgeId(Ulid(2)),
        parent: None,
        bases: Bases::Any(vec![GenerationId(Ulid(3)), GenerationId(Ulid(4))]),
        barcode: None,
        attributes: Bytes::new(),
    }
}

#[test]
fn transfers_survive_any_message() {
    seeds(3000, |seed| {
        let mut random = Random(seed);
        let mut sender = Sender::new(TransferId(Ulid(1)), begin());
        let mut receiver = Receiver::new(TransferId(Ulid(1)), begin());
        for _ in 0..60 {
            let _ = sender.handle(replicate(&mut random));
            let _ = receiver.handle(replicate(&mut random));
            match sender.poll() {
                Some(SenderOutput::NeedBatch { .. }) if random.chance(100) => {
                    sender.end(Totals::default()).unwrap();
                }
                Some(SenderOutput::NeedBatch { .. }) => {
                    let entries = (0..3).map(|_| entry(&mut random)).collect();
                    sender.batch(Offer { segments: Vec::new(), entries }).unwrap();
                }
                Some(SenderOutput::NeedPack { chunks, .. }) => {
                    let some = 1 + random.below(chunks.len() as u64) as usize;
                    let chunks = chunks[..some].to_vec();
                    let (form, proof) = (PackForm::Plain, Digest([0; 32]));
                    let bytes = Bytes::from_static(b"abc");
                    sender.pack(Pack { chunks, olds: Vec::new(), form, proof, bytes }).unwrap();
                }
                _ => {}
            }
            match receiver.poll() {
                Some(ReceiverOutput::Begin(_)) => {
                    let base = random.chance(300).then_some(0);
                    receiver.begun(Begun::Import { base }).unwrap();
                }
                Some(ReceiverOutput::NeedMissing { sequence, digests }) => {
                    let missing: Vec<_> = digests.iter().map(|_| random.chance(700)).collect();
                    receiver.missing(sequence, &missing).unwrap();
                }
                Some(ReceiverOutput::Unpack(pack)) => {
                    let names = pack.chunks.iter().map(|it| it.1.unwrap_or(Digest([9; 32])));
                    receiver.stored(&names.collect::<Vec<_>>()).unwrap();
                }
                Some(ReceiverOutput::Commit(_)) => receiver.committed().unwrap(),
                _ => {}
            }
            if random.chance(5) {
                sender.fail(failure());
                receiver.fail(failure());
            }
        }
    });
}

fn stream(random: &mut Random) -> StreamBody {
    match random.below(16) {
        0 => StreamBody::Open { base: number(random), opening: number(random) as u32 },
        1 => {
            // Often the opening that is meant.
            let opening = (number(random) % 2) as u32;
            StreamBody::Accept { from: number(random), limit: number(random), opening }
        }
        2..7 => StreamBody::Offer {
            sequence: small(random),
            offset: number(random),
            chunks: (0..random.below(4)).map(|_| chunk(random)).collect(),
            marks: vec![Segment::Records { size: small(random), count: 1 + random.below(3) }],
        },
        7..10 => StreamBody::Want { sequence: small(random), wanted: flags(random) },
        10..13 => StreamBody::Data { sequence: small(random), chunks: chunks(random) },
        13 => StreamBody::Credit { consumed: number(random), limit: number(random) },
        14 => StreamBody::Finish(number(random)),
        _ => StreamBody::Abort(String::new()),
    }
}

#[test]
fn streams_survive_any_message() {
    seeds(3000, |seed| {
        let mut random = Random(seed);
        let mut sender = StreamSender::new(StreamId(Ulid(1)));
        let from = number(&mut random);
        let mut receiver = StreamReceiver::new(StreamId(Ulid(1)), from);
        let _ = receiver.handle(StreamBody::Open { base: from, opening: 0 });
        for _ in 0..60 {
            let _ = sender.handle(stream(&mut random));
            let _ = receiver.handle(stream(&mut random));
            match random.below(6) {
                0 if sender.room() > 100 => sender.push(&[7; 100]).unwrap(),
                1 => sender.flush(),
                2 => {
                    let _ = sender.on_reconnect();
                }
                3 if random.chance(100) => sender.on_disconnect(),
                4 if random.chance(100) => receiver.on_disconnect(),
                _ => {
                    let _ = receiver.peek(random.below(5) as usize);
                    let _ = receiver.peek_item();
                    let _ = receiver.consume(random.below(3));
                    let _ = receiver.consume_item();
                }
            }
            while let Some(output) = receiver.poll() {
                match output {
                    StreamReceiverOutput::NeedMissing { sequence, digests } => {
                        let missing: Vec<_> = digests.iter().map(|_| random.chance(700)).collect();
                        receiver.missing(sequence, &missing);
                    }
                    StreamReceiverOutput::ReadChunk { digest } => {
                        let bytes = random.chance(500).then(|| Bytes::from_static(b"ab"));
                        receiver.chunk(digest, bytes);
                    }
                    _ => {}
                }
            }
            if let Some(StreamSenderOutput::Done) = sender.poll() {
                break;
            }
        }
    });
}

fn lease(random: &mut Random) -> LeaseRequest {
    let body = match random.below(8) {
        0 => LeaseBody::Open {
            device: format!("ptl0/drive{}", random.below(2)).parse().unwrap(),
            exclusive: random.chance(700),
        },
        1 => LeaseBody::Resume,
        2 => LeaseBody::Renew,
        3 => LeaseBody::Cancel { number: number(random), taken: None },
        _ => LeaseBody::Perform(Numbered {
            number: number(random),
            repeated: random.chance(500),
            expect: Expect { before: Some(number(random)), after: None, unflushed: false },
            work: match random.below(4) {
                0 => Work::Close,
                1 => Work::Operation(Operation::Position),
                _ => Work::Operation(Operation::WriteFilemarks(small(random))),
            },
        }),
    };
    LeaseRequest { lease: LeaseId(Ulid(random.below(4).into())), epoch: small(random), body }
}

#[test]
fn leases_survive_any_request_and_share_no_device() {
    seeds(2000, |seed| {
        let mut random = Random(seed);
        let mut table = LeaseTable::new(100);
        let mut rows = std::collections::BTreeMap::new();
        let mut open = std::collections::BTreeMap::new();
        let mut jobs = Vec::new();
        for now in 0..80 {
            let site = SiteName::new(["hq", "branch"][random.below(2) as usize]).unwrap();
            let engine = EngineId(Ulid(random.below(2).into()));
            let peer = Peer { site, engine, version: 1, capabilities: link::Capabilities::ALL };
            let mut actions = match random.below(10) {
                0 => table.tick(now * 10),
                1 => table.on_peer(now * 10, &peer),
                2 => table.revoke(now * 10, LeaseId(Ulid(random.below(4).into()))),
                _ => table.handle(now * 10, &peer, lease(&mut random)).unwrap_or_default(),
            };
            while !actions.is_empty() {
                match actions.remove(0) {
                    LeaseAction::Open { lease, device, .. } => {
                        open.insert(lease, device);
                        actions.extend(table.opened(now * 10, lease, Ok(())));
                    }
                    LeaseAction::Perform { lease, number, .. } => jobs.push((lease, number)),
                    LeaseAction::Close { lease, .. } => {
                        assert!(open.remove(&lease).is_some(), "closed twice");
                        actions.extend(table.closed(now * 10, lease, Ok(())));
                    }
                    LeaseAction::Persist { lease, row } => {
                        rows.insert(lease, row);
                    }
                    LeaseAction::Forget { lease } => {
                        rows.remove(&lease);
                    }
                    LeaseAction::Cancel { .. }
                    | LeaseAction::Attach { .. }
                    | LeaseAction::Send { .. } => {}
                }
            }
            if random.chance(300) && !jobs.is_empty() {
                let (lease, number) = jobs.remove(0);
                let actions = table.completed(lease, number, Answer::Closed);
                for action in actions {
                    if let LeaseAction::Close { lease, .. } = action {
                        open.remove(&lease);
                        table.closed(now * 10, lease, Ok(()));
                    }
                }
            }
            if random.chance(20) {
                jobs.clear();
                open.clear();
                table = LeaseTable::new(100);
                let rows = rows.iter().map(|(id, row)| (*id, &row[..]));
                for action in table.restore(now * 10, rows).unwrap() {
                    if let LeaseAction::Open { lease, device, .. } = action {
                        open.insert(lease, device);
                    }
                }
            }
        }
    });
}

#[test]
fn any_expectation_is_settled() {
    seeds(2000, |seed| {
        let mut random = Random(seed);
        let LeaseBody::Perform(numbered) = lease(&mut random).body else { return };
        let expect = Expect {
            before: random.chance(700).then(|| number(&mut random)),
            after: random.chance(500).then(|| number(&mut random)),
            unflushed: random.chance(500),
        };
        let doubt = Doubt { expect, repeated: random.chance(500) };
        let object = number(&mut random);
        link::settle(&numbered.work, doubt, || {
            Ok(tape::Position { object, ..tape::Position::default() })
        });
    });
}
