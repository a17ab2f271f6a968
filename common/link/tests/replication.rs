//! Both sides of replication over a link that is cut, with crashes of either engine: it ends
//! byte-equal, and what was stored is not sent again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use link::{
    Begin, Begun, Chunk, ChunkData, Counters, Entry, Failure, Message, Offer, Receiver,
    ReceiverOutput, Replicate, ReplicateBody, Segment, Sender, SenderOutput, Totals, TransferId,
};
use model::{CartridgeId, Digest, GenerationId, Ulid};
use support::{Random, seeds};

/// What may be on its way when a link breaks.
const WINDOW: u64 = 16 << 20;

type Recipe = Vec<Chunk>;

fn digest(number: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Digest(bytes)
}

/// A site's store: chunks and committed generations.
#[derive(Default)]
struct Store {
    chunks: HashMap<Digest, ChunkData>,
    committed: BTreeMap<GenerationId, (Recipe, Vec<Segment>)>,
}

/// An import that is not committed.
#[derive(Default)]
struct Import {
    generation: Option<GenerationId>,
    parent: Recipe,
    recipe: Recipe,
    segments: Vec<Segment>,
}

struct World {
    random: Random,
    transfers: u64,
    source: Store,
    target: Store,
    /// Chunks that a crash of the target takes away.
    unsynced: Vec<Digest>,
    generation: GenerationId,
    parent: Option<GenerationId>,
    /// Where the sender's shell is in the recipe.
    cursor: usize,
    batch_max: u64,
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    import: Import,
    to_target: VecDeque<Bytes>,
    to_source: VecDeque<Bytes>,
    reads: VecDeque<(u32, u32, Digest)>,
    questions: VecDeque<(u32, Vec<Digest>)>,
    stores: VecDeque<(Digest, ChunkData)>,
    wire: u64,
    breaks: u64,
    done: Option<Counters>,
}

fn make(random: &mut Random, chunks: u64, size: u64) -> Store {
    let mut store = Store::default();
    let chunk = |random: &mut Random, store: &mut Store, names: u64| {
        let name = digest(random.below(names));
        let data = store.chunks.entry(name).or_insert_with(|| {
            let length = 1 + random.below(size);
            let raw_length = length as u32;
            ChunkData { encoding: 7, raw_length, bytes: vec![name.0[7]; length as usize].into() }
        });
        Chunk { digest: name, length: data.raw_length }
    };
    let parent: Recipe = (0..chunks).map(|_| chunk(random, &mut store, chunks * 2)).collect();
    // The child is the parent with some chunks replaced and some added.
    let mut child = Recipe::new();
    for known in &parent {
        match random.below(10) {
            0 => child.push(chunk(random, &mut store, chunks * 4)),
            1 => {}
            _ => child.push(*known),
        }
    }
    child.push(chunk(random, &mut store, chunks * 4));
    let segments = vec![Segment::Records { size: 512, count: 9 }, Segment::Filemarks(2)];
    store.committed.insert(GenerationId(Ulid(1)), (parent, segments.clone()));
    store.committed.insert(GenerationId(Ulid(2)), (child, segments));
    store
}

impl World {
    fn new(seed: u64, chunks: u64, size: u64, batch_max: u64) -> Self {
        let mut random = Random(seed);
        let source = make(&mut random, chunks, size);
        Self {
            random,
            transfers: 0,
            source,
            target: Store::default(),
            unsynced: Vec::new(),
            generation: GenerationId(Ulid(1)),
            parent: None,
            cursor: 0,
            batch_max,
            sender: None,
            receiver: None,
            import: Import::default(),
            to_target: VecDeque::new(),
            to_source: VecDeque::new(),
            reads: VecDeque::new(),
            questions: VecDeque::new(),
            stores: VecDeque::new(),
            wire: 0,
            breaks: 0,
            done: None,
        }
    }

    fn begin(&mut self) {
        self.transfers += 1;
        self.cursor = 0;
        let begin = Begin {
            generation: self.generation,
            cartridge: CartridgeId(Ulid(1)),
            parent: self.parent,
            barcode: None,
            attributes: Bytes::new(),
        };
        let transfer = TransferId(Ulid(self.transfers.into()));
        self.sender = Some(Sender::new(transfer, begin));
    }

    fn cut(&mut self) {
        self.breaks += 1;
        if let Some(sender) = self.sender.take() {
            self.wire += sender.counters().wire;
        }
        self.receiver = None;
        self.to_target.clear();
        self.to_source.clear();
        self.reads.clear();
        self.questions.clear();
        self.stores.clear();
    }

    fn crash_target(&mut self) {
        self.cut();
        for name in std::mem::take(&mut self.unsynced) {
            self.target.chunks.remove(&name);
        }
    }

    // ---------------------------------------------------------------- the sender's shell

    fn batch(&mut self, runs: bool) {
        let (recipe, segments) = &self.source.committed[&self.generation];
        let sender = self.sender.as_mut().unwrap();
        if self.cursor == recipe.len() {
            let bytes = recipe.iter().map(|chunk| u64::from(chunk.length)).sum();
            return sender.end(Totals { objects: 11, bytes, chunks: recipe.len() as u64 }).unwrap();
        }
        let parent = match self.parent.filter(|_| runs) {
            Some(parent) => &self.source.committed[&parent].0[..],
            None => &[],
        };
        let mut offer = Offer::default();
        if self.cursor == 0 {
            offer.segments = segments.clone();
        }
        for _ in 0..=self.random.below(self.batch_max) {
            let Some(chunk) = recipe.get(self.cursor) else { break };
            let run = parent.iter().position(|known| known == chunk).map(|first| {
                let same = recipe[self.cursor..].iter().zip(&parent[first..]);
                (first as u64, same.take_while(|(a, b)| a == b).count())
            });
            match run {
                Some((first, count)) => {
                    offer.entries.push(Entry::Run { first, count: count as u64 });
                    self.cursor += count;
                }
                None => {
                    offer.entries.push(Entry::Chunk(*chunk));
                    self.cursor += 1;
                }
            }
        }
        sender.batch(offer).unwrap();
    }

    fn sender_step(&mut self) {
        if let Some(frame) = self.to_source.pop_front() {
            let Message::Replicate(Replicate { body, .. }) = Message::decode(frame).unwrap() else {
                panic!("a transfer message")
            };
            if let Some(sender) = &mut self.sender {
                sender.handle(body).unwrap();
            }
        }
        if self.random.chance(500)
            && let Some((sequence, index, name)) = self.reads.pop_front()
        {
            let data = self.source.chunks[&name].clone();
            self.sender.as_mut().unwrap().chunk(sequence, index, data).unwrap();
        }
        match self.sender.as_mut().and_then(Sender::poll) {
            None => {}
            Some(SenderOutput::Send(message)) => {
                self.to_target.push_back(Message::Replicate(message).encode());
            }
            Some(SenderOutput::NeedBatch { runs }) => self.batch(runs),
            Some(SenderOutput::ReadChunk { sequence, index, digest }) => {
                self.reads.push_back((sequence, index, digest));
            }
            Some(SenderOutput::Done(counters)) => {
                self.wire += counters.wire;
                self.sender = None;
                self.done = Some(counters);
            }
            Some(SenderOutput::Failed(failure)) => panic!("{failure}"),
        }
    }

    // ---------------------------------------------------------------- the receiver's shell

    fn receiver_step(&mut self) {
        if let Some(frame) = self.to_target.pop_front() {
            let Message::Replicate(message) = Message::decode(frame).unwrap() else {
                panic!("a transfer message")
            };
            match (message.body, &mut self.receiver) {
                (ReplicateBody::Begin(begin), _) => {
                    self.receiver = Some(Receiver::new(message.transfer, begin));
                }
                (body, Some(receiver)) => receiver.handle(body).unwrap(),
                _ => {}
            }
        }
        if self.random.chance(500)
            && let Some((sequence, names)) = self.questions.pop_front()
        {
            let lacks = |name: &Digest| !self.target.chunks.contains_key(name);
            let missing: Vec<_> = names.iter().map(lacks).collect();
            self.receiver.as_mut().unwrap().missing(sequence, &missing).unwrap();
        }
        if self.random.chance(500)
            && let Some((name, data)) = self.stores.pop_front()
        {
            assert_eq!(data, self.source.chunks[&name], "a chunk changed on its way");
            let before = self.target.chunks.insert(name, data);
            assert!(before.is_none(), "a chunk was sent twice in one transfer");
            self.unsynced.push(name);
            self.receiver.as_mut().unwrap().stored().unwrap();
        }
        if let Some(output) = self.receiver.as_mut().and_then(Receiver::poll) {
            self.receiver_output(output);
        }
    }

    fn receiver_output(&mut self, output: ReceiverOutput) {
        let receiver = self.receiver.as_mut().unwrap();
        match output {
            ReceiverOutput::Send(message) => {
                self.to_source.push_back(Message::Replicate(message).encode());
            }
            ReceiverOutput::Begin(begin) => {
                let committed = &self.target.committed;
                let parent = begin.parent.and_then(|parent| committed.get(&parent));
                let begun = match committed.contains_key(&begin.generation) {
                    true => Begun::Already,
                    false => Begun::Import { parent: parent.is_some() },
                };
                self.import = Import {
                    generation: Some(begin.generation),
                    parent: parent.map(|it| it.0.clone()).unwrap_or_default(),
                    ..Import::default()
                };
                receiver.begun(begun).unwrap();
            }
            ReceiverOutput::Append(offer) => {
                self.import.segments.extend(offer.segments);
                for entry in offer.entries {
                    match entry {
                        Entry::Chunk(chunk) => self.import.recipe.push(chunk),
                        Entry::Run { first, count } => {
                            let run = first as usize..(first + count) as usize;
                            self.import.recipe.extend_from_slice(&self.import.parent[run]);
                        }
                    }
                }
            }
            ReceiverOutput::NeedMissing { sequence, digests } => {
                self.questions.push_back((sequence, digests));
            }
            ReceiverOutput::Store { digest, chunk } => self.stores.push_back((digest, chunk)),
            ReceiverOutput::Commit(totals) => {
                let import = std::mem::take(&mut self.import);
                assert_eq!(totals.chunks, import.recipe.len() as u64);
                for chunk in &import.recipe {
                    assert!(self.target.chunks.contains_key(&chunk.digest), "a chunk is missing");
                }
                self.unsynced.clear();
                let recipe = (import.recipe, import.segments);
                self.target.committed.insert(import.generation.unwrap(), recipe);
                receiver.committed().unwrap();
            }
            ReceiverOutput::Done(_) => self.receiver = None,
            ReceiverOutput::Failed(Failure { why, text }) => panic!("{why}: {text}"),
        }
    }

    /// Replicates one generation through breaks, so many in a thousand steps.
    fn replicate(&mut self, generation: u64, parent: Option<u64>, trouble: u64) {
        self.generation = GenerationId(Ulid(generation.into()));
        self.parent = parent.map(|id| GenerationId(Ulid(id.into())));
        self.done = None;
        let mut steps = 0;
        while self.done.is_none() {
            steps += 1;
            let trouble = if steps > 20_000 { 0 } else { trouble };
            assert!(steps < 500_000, "it never ends");
            if self.sender.is_none() {
                self.begin();
            }
            match self.random.below(1000) {
                it if it < trouble / 2 => self.cut(),
                it if it < trouble => self.crash_target(),
                it if it % 2 == 0 => self.sender_step(),
                _ => self.receiver_step(),
            }
        }
        assert_eq!(
            self.target.committed[&self.generation],
            self.source.committed[&self.generation]
        );
    }
}

#[test]
fn it_ends_equal_through_cuts_and_crashes() {
    seeds(1500, |seed| {
        let mut world = World::new(seed, 40, 20, 1 + seed % 15);
        let trouble = [0, 2, 10, 30][(seed % 4) as usize];
        world.replicate(1, None, trouble);
        world.replicate(2, Some(1), trouble);
        // Once more: nothing is to do.
        let wire = world.wire;
        world.replicate(2, Some(1), 0);
        assert_eq!(world.wire, wire);
    });
}

#[test]
fn without_trouble_only_what_lacks_is_sent_and_once() {
    let mut world = World::new(7, 300, 30, 20);
    world.replicate(1, None, 0);
    let stored = |store: &Store| store.chunks.values().map(|it| it.bytes.len() as u64).sum::<u64>();
    assert_eq!(world.wire, stored(&world.target));
    world.replicate(2, Some(1), 0);
    assert_eq!(world.wire, stored(&world.target));
}

#[test]
fn a_break_costs_at_most_one_window() {
    seeds(3, |seed| {
        let mut world = World::new(seed, 400, 400_000, 60);
        world.replicate(1, None, 0);
        let clean = world.wire;
        let mut world = World::new(seed, 400, 400_000, 60);
        // Cuts only: a crash also costs what was not synced.
        while world.breaks < 5 {
            world.generation = GenerationId(Ulid(1));
            if world.sender.is_none() {
                world.begin();
            }
            for _ in 0..300 + 100 * world.breaks {
                match world.random.below(2) {
                    0 => world.sender_step(),
                    _ => world.receiver_step(),
                }
            }
            world.cut();
        }
        world.replicate(1, None, 0);
        assert!(clean > 3 * WINDOW, "too little to tell");
        assert!(world.wire > clean, "no break hit anything");
        assert!(world.wire <= clean + world.breaks * WINDOW, "{} of {clean}", world.wire);
    });
}
