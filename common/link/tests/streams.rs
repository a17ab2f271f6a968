//! Both sides of a stream over a link that is cut: every byte arrives once, in order, and memory
//! and resending stay within the window.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use link::{
    Chunker, Item, Message, STREAM_WINDOW, Stream, StreamBody, StreamId, StreamReceiver,
    StreamReceiverOutput, StreamSender, StreamSenderOutput,
};
use model::{Digest, Ulid};
use sha2::{Digest as _, Sha256};
use support::{Random, seeds};

const STREAM: StreamId = StreamId(Ulid(5));

struct World {
    random: Random,
    sender: StreamSender,
    receiver: StreamReceiver,
    /// The receiver's store.
    store: HashMap<Digest, Bytes>,
    up: bool,
    to_receiver: VecDeque<Bytes>,
    to_sender: VecDeque<Bytes>,
    questions: VecDeque<(u32, Vec<Digest>)>,
    reads: VecDeque<Digest>,
    /// Reads that the store does not fulfil, in a thousand.
    lost: u64,
    done: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            sender: StreamSender::new(STREAM),
            receiver: StreamReceiver::new(STREAM, 0),
            store: HashMap::new(),
            up: true,
            to_receiver: VecDeque::new(),
            to_sender: VecDeque::new(),
            questions: VecDeque::new(),
            reads: VecDeque::new(),
            lost: 0,
            done: false,
        }
    }

    /// Some of the data is at the receiver already.
    fn known(&mut self, data: &[u8], per_mille: u64) {
        let mut chunker = Chunker::default();
        for piece in data.chunks(4096) {
            chunker.push(piece);
            while let Some(chunk) = chunker.next(false) {
                if self.random.chance(per_mille) {
                    self.store.insert(Digest(Sha256::digest(&chunk).into()), chunk);
                }
            }
        }
    }

    fn cut(&mut self) {
        self.up = false;
        self.to_receiver.clear();
        self.to_sender.clear();
        self.questions.clear();
        self.reads.clear();
        self.sender.on_disconnect();
        self.receiver.on_disconnect();
    }

    fn reconnect(&mut self) {
        if !self.up {
            self.up = true;
            self.sender.on_reconnect().unwrap();
        }
    }

    fn sender_step(&mut self) {
        if let Some(frame) = self.to_sender.pop_front() {
            self.sender.handle(body(frame)).unwrap();
        }
        match self.sender.poll() {
            None => {}
            Some(StreamSenderOutput::Send(message)) if self.up => {
                self.to_receiver.push_back(Message::Stream(message).encode());
            }
            Some(StreamSenderOutput::Send(_)) => {}
            Some(StreamSenderOutput::Done) => self.done = true,
            Some(StreamSenderOutput::Failed(error)) => panic!("{error}"),
        }
    }

    fn receiver_step(&mut self) {
        if let Some(frame) = self.to_receiver.pop_front() {
            self.receiver.handle(body(frame)).unwrap();
        }
        if self.random.chance(600)
            && let Some((sequence, names)) = self.questions.pop_front()
        {
            let lacks = |name: &Digest| !self.store.contains_key(name);
            let missing: Vec<_> = names.iter().map(lacks).collect();
            self.receiver.missing(sequence, &missing);
        }
        if self.random.chance(600)
            && let Some(name) = self.reads.pop_front()
        {
            if self.random.chance(self.lost) {
                self.store.remove(&name);
            }
            self.receiver.chunk(name, self.store.get(&name).cloned());
        }
        match self.receiver.poll() {
            None => {}
            Some(StreamReceiverOutput::Send(message)) if self.up => {
                self.to_sender.push_back(Message::Stream(message).encode());
            }
            Some(StreamReceiverOutput::Send(_)) => {}
            Some(StreamReceiverOutput::NeedMissing { sequence, digests }) => {
                self.questions.push_back((sequence, digests));
            }
            Some(StreamReceiverOutput::ReadChunk { digest }) => self.reads.push_back(digest),
            Some(StreamReceiverOutput::Failed(error)) => panic!("{error}"),
        }
    }

    /// Pushes what there is room for, in pieces.
    fn push(&mut self, data: &[u8], pushed: &mut usize) {
        let room = usize::try_from(self.sender.room()).unwrap_or(usize::MAX);
        let piece = 1 + self.random.below(60_000) as usize;
        let piece = piece.min(room).min(data.len() - *pushed);
        if piece > 0 {
            self.sender.push(&data[*pushed..*pushed + piece]).unwrap();
            *pushed += piece;
        }
    }
}

fn body(frame: Bytes) -> StreamBody {
    match Message::decode(frame).unwrap() {
        Message::Stream(Stream { stream: STREAM, body }) => body,
        other => panic!("no message of the stream: {other:?}"),
    }
}

/// Half noise, half repetition.
fn data(random: &mut Random, length: usize) -> Vec<u8> {
    let noise = random.bytes(length / 4);
    let mut data = noise.clone();
    data.resize(length / 2, 0);
    data.extend(noise);
    data.extend(vec![3; length - data.len()]);
    data
}

#[test]
fn bytes_arrive_once_and_in_order_through_cuts_and_restarts() {
    seeds(250, |seed| {
        let mut world = World::new(seed);
        let length = 1 + world.random.below(600_000) as usize;
        let data = data(&mut world.random, length);
        world.known(&data, [0, 300, 1000][(seed % 3) as usize]);
        let trouble = [0, 4, 20][(seed / 3 % 3) as usize];
        let record = 1 + world.random.below(40_000);
        let (mut pushed, mut written, mut steps) = (0, Vec::new(), 0);
        while !world.done {
            steps += 1;
            let trouble = if steps > 5000 { 0 } else { trouble };
            assert!(steps < 200_000, "it never ends");
            if world.random.chance(trouble) {
                world.cut();
                // The receiver was restarted: it knows what is written and nothing else.
                if world.random.chance(300) {
                    world.receiver = StreamReceiver::new(STREAM, written.len() as u64);
                }
            }
            match world.random.below(5) {
                0 if pushed < length => world.push(&data, &mut pushed),
                0 => world.sender.finish(),
                1 if world.random.chance(10) => world.sender.flush(),
                1 if world.random.chance(200) => world.reconnect(),
                2 => world.sender_step(),
                3 => world.receiver_step(),
                _ => {
                    // A record is taken only when it is whole, or the last.
                    let at = world.receiver.consumed();
                    let left = world.receiver.finish().map_or(record, |end| end - at);
                    let size = record.min(left);
                    if let Some(bytes) = world.receiver.peek(size as usize).filter(|_| size > 0) {
                        written.extend_from_slice(&bytes);
                        world.receiver.consume(size).unwrap();
                    }
                }
            }
        }
        assert!(written == data, "the bytes differ");
    });
}

#[test]
fn records_and_filemarks_arrive_as_they_were() {
    seeds(150, |seed| {
        let mut world = World::new(seed);
        let count = world.random.below(300);
        let items: Vec<Item> = (0..count)
            .map(|_| match world.random.below(6) {
                0 => Item::Filemark,
                1 => Item::Record(vec![9; 1 + world.random.below(90_000) as usize].into()),
                _ => {
                    let size = 1 + world.random.below(3000) as usize;
                    Item::Record(world.random.bytes(size).into())
                }
            })
            .collect();
        let mut left = items.iter();
        let mut next = left.next();
        let mut taken = Vec::new();
        let mut steps = 0;
        while !world.done {
            steps += 1;
            assert!(steps < 200_000, "it never ends");
            match world.random.below(4) {
                0 => match next {
                    None => world.sender.finish(),
                    Some(Item::Filemark) => {
                        world.sender.filemark();
                        next = left.next();
                    }
                    Some(Item::Record(record)) if world.sender.room() >= record.len() as u64 => {
                        world.sender.record(record).unwrap();
                        next = left.next();
                    }
                    Some(Item::Record(_)) => {}
                },
                1 => world.sender_step(),
                2 => world.receiver_step(),
                _ => {
                    if let Some(item) = world.receiver.peek_item() {
                        taken.push(item);
                        world.receiver.consume_item().unwrap();
                    }
                }
            }
        }
        assert!(taken == items, "the objects differ");
    });
}

#[test]
fn a_sender_waits_for_what_is_consumed_and_what_is_known_does_not_travel() {
    let mut world = World::new(3);
    let data = world.random.bytes(100 << 20);
    world.known(&data, 1000);
    let mut pushed = 0;
    let step = |world: &mut World, pushed: &mut usize| {
        world.push(&data, pushed);
        world.sender_step();
        world.receiver_step();
    };
    (0..20_000).for_each(|_| step(&mut world, &mut pushed));
    assert_eq!(pushed as u64, STREAM_WINDOW, "it went on without credit");
    let mut at = 0;
    while at < data.len() {
        step(&mut world, &mut pushed);
        if pushed == data.len() {
            world.sender.finish();
        }
        let size = (1 << 20).min(data.len() - at);
        if let Some(bytes) = world.receiver.peek(size) {
            assert!(bytes == data[at..at + size], "the bytes differ");
            world.receiver.consume(size as u64).unwrap();
            at += size;
        }
    }
    // The last chunk is cut by the end and was not known.
    assert!(world.sender.wire() < 70_000, "{} bytes travelled", world.sender.wire());
}

#[test]
fn a_chunk_that_the_store_lost_is_asked_for() {
    seeds(30, |seed| {
        let mut world = World::new(seed);
        let data = data(&mut world.random, 400_000);
        world.known(&data, 1000);
        world.lost = 300;
        let (mut pushed, mut at) = (0, 0);
        for _ in 0..100_000 {
            world.push(&data, &mut pushed);
            if pushed == data.len() {
                world.sender.finish();
            }
            world.sender_step();
            world.receiver_step();
            let size = 5000.min(data.len() - at);
            if let Some(bytes) = world.receiver.peek(size).filter(|_| size > 0) {
                assert!(bytes == data[at..at + size], "the bytes differ");
                world.receiver.consume(size as u64).unwrap();
                at += size;
            }
            if world.done {
                break;
            }
        }
        assert!(world.done && at == data.len());
    });
}

#[test]
fn damaged_and_unwanted_data_ends_the_stream() {
    let mut receiver = StreamReceiver::new(STREAM, 0);
    let chunk = link::Chunk { digest: Digest(Sha256::digest(b"abc").into()), length: 3 };
    let offer = |sequence| StreamBody::Offer {
        sequence,
        offset: 0,
        chunks: vec![chunk],
        marks: Vec::new(),
    };
    assert!(receiver.handle(offer(0)).is_err(), "offered before it was opened");
    let opened = || {
        let mut receiver = StreamReceiver::new(STREAM, 0);
        receiver.handle(StreamBody::Open { base: 0, opening: 0 }).unwrap();
        receiver.handle(offer(0)).unwrap();
        receiver
    };
    let data = |text: &'static [u8], encoding| {
        let bytes = Bytes::from_static(text);
        let chunk = link::ChunkData { encoding, raw_length: 3, bytes };
        StreamBody::Data { sequence: 0, chunks: vec![(0, chunk)] }
    };
    assert!(opened().handle(data(b"abc", 0)).is_err(), "not wanted");
    for (text, encoding, fine) in
        [(&b"abc"[..], 0, true), (b"abd", 0, false), (b"abcd", 0, false), (b"abc", 1, false)]
    {
        receiver = opened();
        receiver.missing(0, &[true]);
        assert_eq!(receiver.handle(data(text, encoding)).is_ok(), fine);
        assert_eq!(receiver.peek(3).is_some(), fine);
    }
    receiver = opened();
    assert!(receiver.handle(offer(2)).is_err(), "an offer left out");
}
