//! An open generation is followed while it is written, whatever the writer does meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::GenerationId;
use store::{ChunkRef, Compare, Growth, Image, ObjectRun, Piece, Standing, Store, StoreError};
use support::{Random, cartridge, open};
use vfs::{CrashVfs, Vfs};

fn empty() -> Store {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    open(&vfs).0
}

/// What a follower has told so far.
struct Follower {
    id: GenerationId,
    base: Option<GenerationId>,
    compare: Compare,
    pieces: Vec<Piece>,
    runs: Vec<ObjectRun>,
    objects: u64,
}

impl Follower {
    fn new(store: &Store, id: GenerationId, base: Option<GenerationId>) -> Self {
        let compare = store.compare(id, base).unwrap();
        Self { id, base, compare, pieces: Vec::new(), runs: Vec::new(), objects: 0 }
    }

    /// Tells what is there, all of it or all but the last run.
    fn step(&mut self, settle: bool) -> Standing {
        let standing = self.compare.advance(self.objects).unwrap();
        if standing == Standing::Lost {
            return standing;
        }
        let ended = standing != Standing::Open;
        self.compare.set_settle(settle || ended);
        let mut runs: Vec<_> = self.compare.runs(self.objects).collect::<Result<_, _>>().unwrap();
        if !ended {
            runs.pop();
        }
        self.objects += runs.iter().map(ObjectRun::count).sum::<u64>();
        self.runs.extend(runs);
        for piece in self.compare.by_ref() {
            self.pieces.push(piece.unwrap());
        }
        assert!(!settle || self.compare.waiting().unwrap() == 0);
        standing
    }

    /// What was told is what the recipe says.
    fn check(&self, store: &Store) {
        let base = self.base.map(|base| store.recipe(base).unwrap());
        let mut all: Vec<ChunkRef> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Chunk(chunk) => all.push(*chunk),
                Piece::Again { first, count } => {
                    (*first..first + count).for_each(|i| all.push(all[i as usize]));
                }
                Piece::Run { first, count } => {
                    let run = base.as_ref().unwrap().chunks(*first).take(*count as usize);
                    all.extend(run.map(Result::unwrap));
                }
            }
        }
        let recipe = store.recipe(self.id).unwrap();
        let chunks: Vec<_> = recipe.chunks(0).map(Result::unwrap).collect();
        assert!(all == chunks, "{} chunks told of {}", all.len(), chunks.len());
        let objects = |runs: &mut dyn Iterator<Item = ObjectRun>| {
            let one = |run: ObjectRun| vec![run.size(); run.count() as usize];
            runs.flat_map(one).collect::<Vec<_>>()
        };
        let told = objects(&mut self.runs.iter().copied());
        assert_eq!(told, objects(&mut recipe.runs(0).map(Result::unwrap)));
    }
}

/// Something that a backup application may do.
fn write(image: &mut Image, random: &mut Random) {
    match random.below(40) {
        0 => image.flush().unwrap(),
        1..=3 => image.write_filemarks(1 + random.below(2) as u32).unwrap(),
        4 => {
            let end = image.end().object;
            image.locate(end.saturating_sub(1 + random.below(3))).unwrap();
        }
        5 if random.below(10) == 0 => {
            let end = image.end().object;
            image.locate(random.below(end + 1)).unwrap();
        }
        _ => (0..20).for_each(|_| image.write(&random.record(3000)).unwrap()),
    }
}

#[test]
fn what_is_told_while_it_is_written_is_what_is_sealed() {
    let seed = std::env::var("TWINREEL_SEED").map_or(20_261_121, |it| it.parse().unwrap());
    println!("seed {seed}");
    let (mut lost, mut early) = (0, 0);
    for round in 0..30 {
        let mut random = Random::new(seed + round);
        let store = empty();
        let mut parent = None;
        for _ in 0..3 {
            let mut image = store.image(cartridge(1)).unwrap();
            let mut follower: Option<Follower> = None;
            for _ in 0..random.below(300) {
                write(&mut image, &mut random);
                if random.below(100) == 0 {
                    // What was flushed stays; what was not is cut off.
                    drop(image);
                    image = store.image(cartridge(1)).unwrap();
                }
                let id = image.generation().filter(|_| random.below(5) == 0);
                let Some(id) = id else { continue };
                let fresh = || Follower::new(&store, id, parent);
                let mut now = follower.take().filter(|it| it.id == id).unwrap_or_else(fresh);
                match now.step(random.below(2) == 0) {
                    Standing::Lost => lost += 1,
                    _ => follower = Some(now),
                }
            }
            let Some(id) = image.seal().unwrap() else { continue };
            let fresh = || Follower::new(&store, id, parent);
            let mut end = follower.filter(|it| it.id == id).unwrap_or_else(fresh);
            early += end.pieces.len();
            if end.step(false) == Standing::Lost {
                lost += 1;
                end = fresh();
                assert!(matches!(end.step(false), Standing::Sealed(_)));
            }
            end.check(&store);
            parent = Some(id);
        }
    }
    assert!(lost > 10 && early > 1000, "{lost} lost, {early} told early");
}

#[test]
fn a_generation_that_nobody_writes_is_not_followed() {
    let store = empty();
    let mut image = store.image(cartridge(1)).unwrap();
    image.write(&[1; 500]).unwrap();
    let id = image.generation().unwrap();
    let mut follower = Follower::new(&store, id, None);
    assert_eq!(follower.step(true), Standing::Open);
    drop(image);
    assert_eq!(follower.step(true), Standing::Lost);
    let gone = store.compare(id, None).unwrap_err();
    assert!(matches!(gone, StoreError::NoGeneration(_)), "{gone}");
}

#[test]
fn what_is_ready_and_not_taken_waits() {
    let store = empty();
    let mut image = store.image(cartridge(1)).unwrap();
    let data = Random::new(6).bytes(2_000_000);
    data.chunks(1000).for_each(|record| image.write(record).unwrap());
    image.flush().unwrap();
    let mut compare = store.compare(image.generation().unwrap(), None).unwrap();
    compare.advance(0).unwrap();
    let mut all = compare.waiting().unwrap();
    assert!(all > 1_900_000, "{all}");
    while let Some(piece) = compare.next() {
        let Piece::Chunk(chunk) = piece.unwrap() else { panic!("nothing repeats") };
        all -= u64::from(chunk.len);
        assert_eq!(compare.waiting().unwrap(), all);
    }
    assert_eq!(all, 0);
}

#[test]
fn growth_is_told_by_the_writer() {
    let store = empty();
    let told: Arc<Mutex<Vec<Growth>>> = Arc::default();
    let bytes = Arc::new(AtomicU64::new(0));
    let (list, most) = (told.clone(), bytes.clone());
    store.watch(Arc::new(move |growth| {
        most.fetch_max(growth.bytes, Ordering::Relaxed);
        list.lock().unwrap().push(growth);
    }));
    let mut image = store.image(cartridge(1)).unwrap();
    let mut random = Random::new(5);
    (0..2000).for_each(|_| image.write(&random.bytes(1000)).unwrap());
    let id = image.generation().unwrap();
    // Long before the seal, and without a flush.
    assert!(told.lock().unwrap().iter().all(|growth| growth.open && growth.generation == id));
    assert!(bytes.load(Ordering::Relaxed) > 1_700_000, "{bytes:?}");
    assert_eq!(store.growing().len(), 1);
    image.seal().unwrap();
    let last = *told.lock().unwrap().last().unwrap();
    assert_eq!(last, Growth { generation: id, bytes: 2_000_000, open: false });
    assert!(store.growing().is_empty());
}
