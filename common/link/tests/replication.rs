//! Both sides of replication over a link that is cut, with crashes of either engine: it ends
//! byte-equal, and what was stored is not sent again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use link::{
    Bases, Begin, Begun, Chunk, Counters, Entry, FailWhy, Failure, Message, Offer, Pack, PackForm,
    Piece, Receiver, ReceiverOutput, Replicate, ReplicateBody, Segment, Sender, SenderOutput,
    Totals, TransferId, Unpack,
};
use model::{CartridgeId, Digest, GenerationId, Ulid};
use sha2::{Digest as _, Sha256};
use support::{Random, seeds};

/// What may be on its way when a link breaks: what there is credit for, and the last pack.
const WINDOW: u64 = (16 << 20) + link::PACK_MAX as u64;

type Recipe = Vec<Chunk>;

/// Runs of chunks: first and count.
type Runs = Vec<(u64, u64)>;

/// A site's store: chunks and committed generations.
#[derive(Default)]
struct Store {
    chunks: HashMap<Digest, Bytes>,
    committed: BTreeMap<GenerationId, (Recipe, Vec<Segment>)>,
}

/// An import that is not committed.
#[derive(Default)]
struct Import {
    generation: Option<GenerationId>,
    base: Recipe,
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
    /// How many new chunks in a thousand go without being asked for.
    fresh: u64,
    /// How often in a thousand the source takes for sure that its base is at the target.
    sure_of_base: u64,
    /// It did in this transfer.
    sure: bool,
    /// Bases that it was wrong about.
    denied: u64,
    /// The chunks of each batch of this transfer, and its old ranges.
    plans: Vec<(Vec<Digest>, Runs)>,
    /// What was asked for and came, in this transfer.
    came: Vec<Digest>,
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    import: Import,
    to_target: VecDeque<Bytes>,
    to_source: VecDeque<Bytes>,
    packs: VecDeque<(u32, Vec<u32>)>,
    questions: VecDeque<(u32, Vec<Digest>)>,
    stores: VecDeque<Unpack>,
    wire: u64,
    breaks: u64,
    done: Option<Counters>,
}

fn make(random: &mut Random, chunks: u64, size: u64) -> Store {
    let mut store = Store::default();
    let chunk = |random: &mut Random, store: &mut Store, names: u64| {
        let mut content = Random(random.below(names));
        let length = 8 + content.below(size);
        let words = length.div_ceil(8);
        let mut raw: Vec<u8> = (0..words).flat_map(|_| content.next().to_le_bytes()).collect();
        raw.truncate(length as usize);
        // Some are like others.
        if length < 1000 && content.chance(500) {
            raw[8..].fill(7);
        }
        let digest = Digest(Sha256::digest(&raw).into());
        let length = raw.len() as u32;
        store.chunks.insert(digest, raw.into());
        Chunk { digest, length }
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
            fresh: 0,
            sure_of_base: 0,
            sure: false,
            denied: 0,
            plans: Vec::new(),
            came: Vec::new(),
            sender: None,
            receiver: None,
            import: Import::default(),
            to_target: VecDeque::new(),
            to_source: VecDeque::new(),
            packs: VecDeque::new(),
            questions: VecDeque::new(),
            stores: VecDeque::new(),
            wire: 0,
            breaks: 0,
            done: None,
        }
    }

    fn begin(&mut self) {
        let sure = self.parent.filter(|_| self.random.chance(self.sure_of_base));
        self.begin_by(sure.map(Bases::Sure));
    }

    /// By what is given, else by what the target may have.
    fn begin_by(&mut self, bases: Option<Bases>) {
        self.transfers += 1;
        self.cursor = 0;
        self.plans.clear();
        self.came.clear();
        // Of two bases the target may have neither, one or both.
        let any = self.parent.into_iter().flat_map(|id| [GenerationId(Ulid(99)), id]).collect();
        let bases = bases.unwrap_or(Bases::Any(any));
        self.sure = matches!(bases, Bases::Sure(_));
        let begin = Begin {
            generation: self.generation,
            cartridge: CartridgeId(Ulid(1)),
            parent: self.parent,
            bases,
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
        self.packs.clear();
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

    fn batch(&mut self, base: Option<u32>) {
        let (recipe, segments) = &self.source.committed[&self.generation];
        let sender = self.sender.as_mut().unwrap();
        if self.cursor == recipe.len() {
            let bytes = recipe.iter().map(|chunk| u64::from(chunk.length)).sum();
            return sender
                .end(Totals {
                    objects: 11,
                    bytes,
                    chunks: recipe.len() as u64,
                    ..Totals::default()
                })
                .unwrap();
        }
        let base = match base {
            Some(which) => {
                assert_eq!(which, u32::from(!self.sure));
                &self.source.committed[&self.parent.unwrap()].0[..]
            }
            None => &[],
        };
        let (mut offer, mut plan) = (Offer::default(), (Vec::new(), Vec::new()));
        if self.cursor == 0 {
            offer.segments = segments.clone();
        }
        for _ in 0..=self.random.below(self.batch_max) {
            let Some(chunk) = recipe.get(self.cursor) else { break };
            let run = |from: &[Chunk]| {
                let first = from.iter().position(|known| known == chunk)?;
                let same = recipe[self.cursor..].iter().zip(&from[first..]);
                Some((first as u64, same.take_while(|(a, b)| a == b).count()))
            };
            if let Some((first, count)) = run(base) {
                offer.entries.push(Entry::Run { first, count: count as u64 });
                self.cursor += count;
            } else if let Some((first, count)) = run(&recipe[..self.cursor]) {
                offer.entries.push(Entry::Again { first, count: count as u64 });
                self.cursor += count;
            } else {
                if !base.is_empty() && self.random.chance(500) {
                    let first = self.random.below(base.len() as u64);
                    let count = 1 + self.random.below(3.min(base.len() as u64 - first));
                    offer.entries.push(Entry::Old { first, count });
                    plan.1.push((first, count));
                }
                offer.entries.push(match self.random.chance(self.fresh) {
                    true => Entry::Fresh(chunk.length),
                    false => Entry::Chunk(*chunk),
                });
                plan.0.push(chunk.digest);
                self.cursor += 1;
            }
        }
        self.plans.push(plan);
        sender.batch(offer).unwrap();
    }

    /// A pack of some of the chunks asked for, as a difference to some of the old ranges.
    fn pack(&mut self, sequence: u32, asked: &[u32]) -> Pack {
        let (names, ranges) = &self.plans[sequence as usize];
        let most = 1 + self.random.below(asked.len() as u64) as usize;
        let (mut chunks, mut raw, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for index in &asked[..most] {
            let name = names[*index as usize];
            if raw.len() + self.source.chunks[&name].len() > link::PACK_MAX {
                break;
            }
            raw.extend_from_slice(&self.source.chunks[&name]);
            chunks.push(*index);
            all.push(name);
        }
        let mut olds: Vec<_> = (0..ranges.len() as u32).collect();
        olds.retain(|_| self.random.chance(500));
        let runs: Vec<_> = olds.iter().map(|it| ranges[*it as usize]).collect();
        let base = self.parent.map_or(&[][..], |id| &self.source.committed[&id].0);
        let old = old(&self.source, base, &runs);
        let proof = link::proof(&all);
        let (form, bytes) = match olds.is_empty() && self.random.chance(500) {
            true => (PackForm::Plain, raw.into()),
            false => link::pack(&old, &raw, 1).unwrap(),
        };
        Pack { chunks, olds, form, proof, bytes }
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
            && let Some((sequence, chunks)) = self.packs.pop_front()
        {
            let pack = self.pack(sequence, &chunks);
            self.sender.as_mut().unwrap().pack(pack).unwrap();
        }
        match self.sender.as_mut().and_then(Sender::poll) {
            None => {}
            Some(SenderOutput::Send(message)) => {
                self.to_target.push_back(Message::Replicate(message).encode());
            }
            Some(SenderOutput::NeedBatch { base }) => self.batch(base),
            Some(SenderOutput::NeedPack { sequence, chunks }) => {
                self.packs.push_back((sequence, chunks));
            }
            Some(SenderOutput::Done(counters)) => {
                self.wire += counters.wire;
                self.sender = None;
                self.packs.clear();
                self.done = Some(counters);
            }
            Some(SenderOutput::Failed(Failure { why: FailWhy::Base, .. })) if self.sure => {
                self.cut();
                self.breaks -= 1;
                self.denied += 1;
                self.begin_by(None);
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
            && let Some(pack) = self.stores.pop_front()
        {
            self.store(&pack);
        }
        if let Some(output) = self.receiver.as_mut().and_then(Receiver::poll) {
            self.receiver_output(output);
        }
    }

    fn store(&mut self, pack: &Unpack) {
        let old = old(&self.target, &self.import.base, &pack.olds);
        let bytes = (&old[..], &pack.bytes);
        let chunks = link::unpack(&pack.chunks, pack.form, bytes, &pack.proof).unwrap();
        for ((name, raw), (_, told)) in chunks.iter().zip(&pack.chunks) {
            assert_eq!(raw, &self.source.chunks[name], "a chunk changed on its way");
            let known = self.target.chunks.insert(*name, raw.clone()).is_some();
            if told.is_some() {
                assert!(!self.came.contains(name), "a chunk was sent twice in one transfer");
                assert!(!known || self.fresh > 0, "a chunk was asked for needlessly");
                self.came.push(*name);
            }
            if !known {
                self.unsynced.push(*name);
            }
        }
        let names: Vec<_> = chunks.iter().map(|it| it.0).collect();
        self.receiver.as_mut().unwrap().stored(&names).unwrap();
    }

    fn receiver_output(&mut self, output: ReceiverOutput) {
        let receiver = self.receiver.as_mut().unwrap();
        match output {
            ReceiverOutput::Send(message) => {
                self.to_source.push_back(Message::Replicate(message).encode());
            }
            ReceiverOutput::Begin(begin) => {
                let committed = &self.target.committed;
                let mut bases = begin.bases.list().iter().zip(0u32..);
                let base = bases.find_map(|(id, index)| Some((index, committed.get(id)?)));
                let begun = match committed.contains_key(&begin.generation) {
                    true => Begun::Already,
                    false => Begun::Import { base: base.map(|it| it.0) },
                };
                self.import = Import {
                    generation: Some(begin.generation),
                    base: base.map(|it| it.1.0.clone()).unwrap_or_default(),
                    ..Import::default()
                };
                receiver.begun(begun).unwrap();
            }
            ReceiverOutput::Append { segments, pieces } => {
                self.import.segments.extend(segments);
                for piece in pieces {
                    match piece {
                        Piece::Chunk(chunk) => self.import.recipe.push(chunk),
                        Piece::Again { first, count } => (first..first + count)
                            .for_each(|i| self.import.recipe.push(self.import.recipe[i as usize])),
                        Piece::Run { first, count } => {
                            let run = first as usize..(first + count) as usize;
                            self.import.recipe.extend_from_slice(&self.import.base[run]);
                        }
                    }
                }
            }
            ReceiverOutput::NeedMissing { sequence, digests } => {
                self.questions.push_back((sequence, digests));
            }
            ReceiverOutput::Unpack(pack) => self.stores.push_back(pack),
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
            ReceiverOutput::Failed(Failure { why: FailWhy::Base, .. }) if self.sure => {
                self.receiver = None;
            }
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

/// The bytes of runs of a recipe.
fn old(store: &Store, recipe: &[Chunk], runs: &[(u64, u64)]) -> Vec<u8> {
    let run = |(first, count): &(u64, u64)| &recipe[*first as usize..(first + count) as usize];
    let chunks = runs.iter().flat_map(run);
    chunks.flat_map(|chunk| store.chunks[&chunk.digest].iter().copied()).collect()
}

#[test]
fn it_ends_equal_through_cuts_and_crashes() {
    seeds(1500, |seed| {
        let mut world = World::new(seed, 40, 20, 1 + seed % 15);
        world.fresh = [0, 0, 300, 1000][(seed / 4 % 4) as usize];
        let trouble = [0, 2, 10, 30][(seed % 4) as usize];
        world.sure_of_base = [0, 500, 1000][(seed % 3) as usize];
        world.replicate(1, None, trouble);
        world.replicate(2, Some(1), trouble);
        // Once more: nothing is to do, if that is asked first.
        world.sure_of_base = 0;
        let wire = world.wire;
        world.replicate(2, Some(1), 0);
        assert_eq!(world.wire, wire);
    });
}

#[test]
fn who_is_wrong_about_a_base_is_told_and_begins_again() {
    seeds(300, |seed| {
        let mut world = World::new(seed, 40, 20, 1 + seed % 15);
        (world.fresh, world.sure_of_base) = ([0, 300, 1000][(seed % 3) as usize], 1000);
        world.replicate(1, None, 0);
        world.target.committed.clear();
        world.replicate(2, Some(1), 0);
        assert_eq!(world.denied, 1);
    });
}

/// With a base that is sure everything that need not be asked for goes before the first answer.
#[test]
fn nothing_waits_for_the_answer_to_a_beginning_whose_base_is_sure() {
    let mut world = World::new(7, 30, 20, 100);
    (world.fresh, world.sure_of_base) = (1000, 1000);
    world.replicate(1, None, 0);
    (world.generation, world.parent) = (GenerationId(Ulid(2)), Some(GenerationId(Ulid(1))));
    world.begin();
    for _ in 0..200 {
        world.sender_step();
    }
    let bodies = world.to_target.iter().map(|frame| match Message::decode(frame.clone()) {
        Ok(Message::Replicate(message)) => message.body,
        other => panic!("{other:?}"),
    });
    let last = bodies.last();
    assert!(matches!(last, Some(ReplicateBody::Commit(_))), "{last:?}");
}

#[test]
fn without_trouble_only_what_lacks_is_sent_and_once() {
    let mut world = World::new(7, 300, 30, 20);
    world.replicate(1, None, 0);
    let stored = |store: &Store| store.chunks.values().map(|it| it.len() as u64).sum::<u64>();
    let first = world.done.unwrap().unique;
    assert_eq!(first, stored(&world.target));
    world.replicate(2, Some(1), 0);
    assert_eq!(first + world.done.unwrap().unique, stored(&world.target));
}

#[test]
fn a_break_costs_at_most_one_window() {
    seeds(3, |seed| {
        let mut world = World::new(seed, 500, 400_000, 60);
        world.replicate(1, None, 0);
        let clean = world.wire;
        let mut world = World::new(seed, 500, 400_000, 60);
        // Cuts only: a crash also costs what was not synced.
        while world.breaks < 5 {
            world.generation = GenerationId(Ulid(1));
            if world.sender.is_none() {
                world.begin();
            }
            // Until some has come and some is on its way.
            let sent = |world: &World| world.sender.as_ref().map_or(0, |it| it.counters().wire);
            while sent(&world) < (world.breaks + 1) << 20 || world.stores.is_empty() {
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
