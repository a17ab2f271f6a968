//! The protocol between the engines: frames of a stranger, and peers that keep no rule against each
//! of the state machines. Nothing panics, what can be read can be written, and no machine holds
//! more than its window or gives a device to two.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use link::{
    Answer, Bases, Begin, Begun, Capabilities, Chunk, ChunkData, Doubt, Entry, Expect, FailWhy,
    Failure, LEASES_MAX, LeaseAction, LeaseBody, LeaseRequest, LeaseTable, Message, Numbered,
    Offer, Pack, PackForm, Peer, Receiver, ReceiverOutput, ReplicateBody, STREAM_WINDOW, Segment,
    Sender, SenderOutput, StreamBody, StreamId, StreamReceiver, StreamReceiverOutput, StreamSender,
    StreamSenderOutput, Totals, TransferId, Work,
};
use model::{CartridgeId, Digest, EngineId, GenerationId, LeaseId, SiteName, Ulid};
use tape::Operation;

/// Things that happen in one input.
const STEPS_MAX: usize = 200;
/// Outputs that one of them may cause.
const OUTPUTS_MAX: usize = 4096;

fn chunk(input: &mut Input<'_>) -> Chunk {
    Chunk { digest: Digest([input.below(5); 32]), length: 1 + u32::from(input.below(3)) }
}

fn chunks(input: &mut Input<'_>) -> Vec<(u32, ChunkData)> {
    let data = |input: &mut Input<'_>| ChunkData {
        encoding: input.below(3),
        raw_length: 1 + u32::from(input.below(3)),
        bytes: vec![0; input.below(4).into()].into(),
    };
    (0..input.below(3)).map(|_| (input.number() as u32, data(input))).collect()
}

fn flags(input: &mut Input<'_>) -> Vec<bool> {
    (0..input.below(5)).map(|_| input.flag()).collect()
}

fn failure() -> Failure {
    Failure { why: FailWhy::Store, text: String::new() }
}

fn segment(input: &mut Input<'_>) -> Segment {
    match input.flag() {
        true => Segment::Filemarks(input.number().max(1)),
        false => Segment::Records { size: input.number() as u32, count: input.number().max(1) },
    }
}

fn offer(input: &mut Input<'_>) -> Offer {
    let entry = |input: &mut Input<'_>| match input.below(8) {
        0 => Entry::Run { first: input.number(), count: input.number() },
        1 => Entry::Again { first: input.number(), count: input.number() },
        2 => Entry::Old { first: input.number(), count: input.number() },
        3 | 4 => Entry::Fresh(1 + u32::from(input.below(3))),
        _ => Entry::Chunk(chunk(input)),
    };
    let segments = (0..input.below(3)).map(|_| segment(input)).collect();
    Offer { segments, entries: (0..input.below(4)).map(|_| entry(input)).collect() }
}

fn form(input: &mut Input<'_>) -> PackForm {
    *input.pick(&[PackForm::Plain, PackForm::Zstd, PackForm::Delta])
}

fn pack(input: &mut Input<'_>) -> Pack {
    Pack {
        chunks: (0..input.below(4)).map(|_| input.number() as u32).collect(),
        olds: (0..input.below(3)).map(|_| input.number() as u32).collect(),
        form: form(input),
        proof: Digest([0; 32]),
        bytes: vec![0; input.below(4).into()].into(),
    }
}

/// A stranger's bytes as a pack: no more comes out than was told, and only what was named.
fn unpack(input: &mut Input<'_>) {
    let named = input.flag();
    let chunk = |input: &mut Input<'_>| {
        let length = input.number() as u32;
        (length, named.then_some(Digest([input.below(3); 32])))
    };
    let chunks: Vec<_> = (0..input.below(5)).map(|_| chunk(input)).collect();
    let form = form(input);
    let old = vec![7; usize::from(input.u16())];
    let bytes = Bytes::copy_from_slice(input.rest());
    let proof = link::proof([]);
    if let Ok(all) = link::unpack(&chunks, form, (&old, &bytes), &proof) {
        // Nobody finds bytes that hash to this, and the proof is that of nothing.
        assert!(all.is_empty());
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

/// A frame as it comes, and again as it was understood.
fn frame(input: &mut Input<'_>) {
    let Ok(message) = Message::decode(Bytes::copy_from_slice(input.rest())) else { return };
    let encoded = message.encode();
    let again = Message::decode(encoded.clone());
    let again = again.unwrap_or_else(|error| panic!("{message:?} can not be read: {error}"));
    assert_eq!(again.encode(), encoded, "{message:?} {again:?}");
}

fn replicate(input: &mut Input<'_>) -> ReplicateBody {
    let sequence = input.number() as u32;
    match input.below(12) {
        0 => {
            let base = input.flag().then(|| input.below(3).into());
            ReplicateBody::Ready { already: input.flag(), base }
        }
        1..4 => ReplicateBody::Offer { sequence, offer: offer(input) },
        4 | 5 => ReplicateBody::Want { sequence, wanted: flags(input) },
        6..8 => ReplicateBody::Pack { sequence, pack: pack(input) },
        8 => ReplicateBody::Credit { stored: input.number(), offers: sequence },
        9 => ReplicateBody::Commit(Totals::default()),
        10 => ReplicateBody::Committed,
        _ => ReplicateBody::Failed(failure()),
    }
}

fn transfer(input: &mut Input<'_>) {
    let mut sender = Sender::new(TransferId(Ulid(1)), begin());
    let mut receiver = Receiver::new(TransferId(Ulid(1)), begin());
    for _ in 0..STEPS_MAX {
        if input.is_over() {
            return;
        }
        match input.below(16) {
            0 => {
                sender.fail(failure());
                receiver.fail(failure());
            }
            1..8 => drop(sender.handle(replicate(input))),
            _ => drop(receiver.handle(replicate(input))),
        }
        // The owner answers what it is asked, once.
        match sender.poll() {
            Some(SenderOutput::NeedBatch { .. }) => match input.below(8) {
                0 => sender.end(Totals::default()).expect("it was asked"),
                _ => sender.batch(offer(input)).unwrap_or_default(),
            },
            Some(SenderOutput::NeedPack { chunks, .. }) => {
                let some = 1 + usize::from(input.u8()) % chunks.len();
                let chunks = chunks[..some].to_vec();
                let (form, proof) = (PackForm::Plain, Digest([0; 32]));
                let bytes = Bytes::from_static(b"abc");
                let pack = Pack { chunks, olds: Vec::new(), form, proof, bytes };
                sender.pack(pack).expect("it was asked");
            }
            _ => {}
        }
        match receiver.poll() {
            Some(ReceiverOutput::Begin(_)) => {
                let base = input.flag().then_some(0);
                receiver.begun(Begun::Import { base }).expect("it was asked");
            }
            Some(ReceiverOutput::NeedMissing { sequence, digests }) => {
                let missing: Vec<_> = digests.iter().map(|_| input.flag()).collect();
                receiver.missing(sequence, &missing).expect("it was asked");
            }
            Some(ReceiverOutput::Unpack(pack)) => {
                let names = pack.chunks.iter().map(|it| it.1.unwrap_or(Digest([9; 32])));
                receiver.stored(&names.collect::<Vec<_>>()).expect("it was asked");
            }
            Some(ReceiverOutput::Commit(_)) => receiver.committed().expect("it was asked"),
            _ => {}
        }
    }
}

fn stream_body(input: &mut Input<'_>) -> StreamBody {
    let sequence = input.number() as u32;
    match input.below(12) {
        0 => StreamBody::Open { base: input.number(), opening: input.below(4) as u32 },
        1 => StreamBody::Accept {
            from: input.number(),
            limit: input.number(),
            opening: input.below(4) as u32,
        },
        2..5 => StreamBody::Offer {
            sequence,
            offset: input.number(),
            chunks: (0..input.below(4)).map(|_| chunk(input)).collect(),
            marks: (0..input.below(3)).map(|_| segment(input)).collect(),
        },
        5 | 6 => StreamBody::Want { sequence, wanted: flags(input) },
        7 | 8 => StreamBody::Data { sequence, chunks: chunks(input) },
        9 => StreamBody::Credit { consumed: input.number(), limit: input.number() },
        10 => StreamBody::Finish(input.number()),
        _ => StreamBody::Abort(String::new()),
    }
}

fn stream(input: &mut Input<'_>) {
    let mut sender = StreamSender::new(StreamId(Ulid(1)));
    let from = input.number();
    let mut receiver = StreamReceiver::new(StreamId(Ulid(1)), from);
    for _ in 0..STEPS_MAX {
        if input.is_over() {
            return;
        }
        match input.below(20) {
            0..5 => drop(sender.handle(stream_body(input))),
            5..11 => drop(receiver.handle(stream_body(input))),
            11 if sender.room() > 256 => sender.push(input.block(false)).expect("there is room"),
            12 if sender.room() > 256 => sender.record(input.block(false)).expect("there is room"),
            13 => sender.flush(),
            14 => drop(sender.on_reconnect()),
            15 => sender.on_disconnect(),
            16 => receiver.on_disconnect(),
            17 => drop(receiver.peek(input.below(5).into())),
            18 => drop(receiver.consume(input.number())),
            _ => {
                if receiver.peek_item().is_some() {
                    receiver.consume_item().expect("there is one");
                }
            }
        }
        assert!(sender.pushed() - sender.consumed() <= STREAM_WINDOW);
        for turn in 0.. {
            assert!(turn < OUTPUTS_MAX, "there is no end of it");
            match receiver.poll() {
                Some(StreamReceiverOutput::NeedMissing { sequence, digests }) => {
                    let missing: Vec<_> = digests.iter().map(|_| input.flag()).collect();
                    receiver.missing(sequence, &missing);
                }
                Some(StreamReceiverOutput::ReadChunk { digest }) => {
                    let bytes = input.flag().then(|| Bytes::from_static(b"ab"));
                    receiver.chunk(digest, bytes);
                }
                Some(_) => {}
                None => break,
            }
        }
        for turn in 0.. {
            assert!(turn < OUTPUTS_MAX, "there is no end of it");
            match sender.poll() {
                Some(StreamSenderOutput::Done) | None => break,
                Some(_) => {}
            }
        }
    }
}

fn lease_request(input: &mut Input<'_>) -> LeaseRequest {
    let body = match input.below(8) {
        0 | 1 => LeaseBody::Open {
            device: format!("ptl0/drive{}", input.below(2)).parse().expect("a device's name"),
            exclusive: true,
        },
        2 => LeaseBody::Resume,
        3 => LeaseBody::Renew,
        4 => LeaseBody::Cancel { number: input.number(), taken: None },
        _ => LeaseBody::Perform(numbered(input)),
    };
    let lease = LeaseId(Ulid(u128::from(input.u8() % 4)));
    LeaseRequest { lease, epoch: input.number() as u32, body }
}

fn numbered(input: &mut Input<'_>) -> Numbered {
    Numbered {
        number: input.number(),
        repeated: input.flag(),
        expect: Expect {
            before: input.flag().then(|| input.number()),
            after: input.flag().then(|| input.number()),
            unflushed: input.flag(),
        },
        work: match input.below(4) {
            0 => Work::Close,
            1 => Work::Operation(Operation::Position),
            _ => Work::Operation(Operation::WriteFilemarks(input.number() as u32)),
        },
    }
}

/// The desk around a table of leases.
#[derive(Default)]
struct Desk {
    rows: BTreeMap<LeaseId, Bytes>,
    open: BTreeMap<LeaseId, model::DeviceName>,
    jobs: Vec<(LeaseId, u64)>,
}

impl Desk {
    fn carry_out(&mut self, table: &mut LeaseTable, now: u64, actions: Vec<LeaseAction>) {
        let mut actions = actions;
        let mut turns = 0;
        while !actions.is_empty() {
            turns += 1;
            assert!(turns < OUTPUTS_MAX, "there is no end of it");
            match actions.remove(0) {
                LeaseAction::Open { lease, device, .. } => {
                    let others = self.open.values().any(|other| *other == device);
                    assert!(!others, "{device} is given to two");
                    self.open.insert(lease, device);
                    actions.extend(table.opened(now, lease, Ok(())));
                }
                LeaseAction::Perform { lease, number, .. } => self.jobs.push((lease, number)),
                LeaseAction::Close { lease, .. } => {
                    assert!(self.open.remove(&lease).is_some(), "closed twice");
                    actions.extend(table.closed(now, lease, Ok(())));
                }
                LeaseAction::Persist { lease, row } => {
                    self.rows.insert(lease, row);
                }
                LeaseAction::Forget { lease } => {
                    self.rows.remove(&lease);
                }
                LeaseAction::Cancel { .. }
                | LeaseAction::Attach { .. }
                | LeaseAction::Send { .. } => {}
            }
        }
        assert!(self.rows.len() <= LEASES_MAX);
    }
}

fn leases(input: &mut Input<'_>) {
    let mut table = LeaseTable::new(100);
    let mut desk = Desk::default();
    let mut now = 0;
    for _ in 0..STEPS_MAX {
        if input.is_over() {
            return;
        }
        let site = SiteName::new(["hq", "branch"][usize::from(input.below(2))]).expect("a name");
        let (engine, capabilities) = (EngineId(Ulid(input.below(2).into())), Capabilities::ALL);
        let peer = Peer { site, engine, version: 1, capabilities };
        let actions = match input.below(12) {
            0 => {
                now += u64::from(input.u8());
                table.tick(now)
            }
            1 => table.on_peer(now, &peer),
            2 => table.revoke(now, LeaseId(Ulid(input.below(4).into()))),
            3 | 4 if !desk.jobs.is_empty() => {
                let (lease, number) = desk.jobs.remove(0);
                table.completed(lease, number, Answer::Closed)
            }
            5 if input.below(4) == 0 => {
                // The engine starts anew with what is on record.
                desk.jobs.clear();
                desk.open.clear();
                table = LeaseTable::new(100);
                let rows = desk.rows.clone();
                let rows = rows.iter().map(|(id, row)| (*id, &row[..]));
                table.restore(now, rows).expect("its own rows")
            }
            _ => table.handle(now, &peer, lease_request(input)).unwrap_or_default(),
        };
        desk.carry_out(&mut table, now, actions);
    }
}

fn expectation(input: &mut Input<'_>) {
    let Numbered { work, expect, repeated, .. } = numbered(input);
    let object = input.number();
    link::settle(&work, Doubt { expect, repeated }, || {
        Ok(tape::Position { object, ..tape::Position::default() })
    });
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.below(9) {
        8 => unpack(&mut input),
        0..3 => frame(&mut input),
        3 => transfer(&mut input),
        4 => stream(&mut input),
        5 | 6 => leases(&mut input),
        _ => expectation(&mut input),
    }
});
