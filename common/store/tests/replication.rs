//! One store's generations taken over by another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;

use model::GenerationId;
use store::{ChunkRef, Import, Piece, Store, StoreError};
use support::{Random, cartridge, open, read_all, small};
use vfs::{CrashMode, CrashVfs, Vfs};

fn empty() -> Store {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    open(&vfs).0
}

/// Writes a generation of 300-byte records, with a filemark now and then.
fn back_up(store: &Store, data: &[u8]) -> GenerationId {
    let mut image = store.image(cartridge(1)).unwrap();
    for (i, record) in data.chunks(300).enumerate() {
        if i % 200 == 99 {
            image.write_filemarks(1).unwrap();
        }
        image.write(record).unwrap();
    }
    image.seal().unwrap().unwrap()
}

/// The parent's data with pieces replaced, inserted and removed.
fn edited(data: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..4 {
        let at = random.below(data.len() as u64 - 2000) as usize;
        let piece = random.bytes(700);
        match random.below(3) {
            0 => data[at..at + 700].copy_from_slice(&piece),
            1 => data.splice(at..at, piece).for_each(drop),
            _ => data.drain(at..at + 1500).for_each(drop),
        }
    }
    data
}

fn expand(from: &Store, parent: GenerationId, pieces: &[Piece]) -> Vec<ChunkRef> {
    let recipe = from.recipe(parent).unwrap();
    let one = |piece: &Piece| match piece {
        Piece::Run { first, count } => {
            let run = recipe.chunks(*first).take(*count as usize);
            run.collect::<Result<Vec<_>, _>>().unwrap()
        }
        Piece::Chunk(chunk) => vec![*chunk],
        Piece::Again { .. } => Vec::new(),
    };
    let mut all: Vec<ChunkRef> = Vec::new();
    for piece in pieces {
        if let Piece::Again { first, count } = piece {
            (*first..first + count).for_each(|i| all.push(all[i as usize]));
        }
        all.extend(one(piece));
    }
    all
}

fn put(from: &Store, to: &Store, digest: &model::Digest) {
    let chunk = from.stored_chunk(digest).unwrap();
    to.put_stored_chunk(digest, chunk.encoding, chunk.raw_len, &chunk.bytes).unwrap();
}

fn begin(from: &Store, to: &Store, id: GenerationId) -> Import {
    let recipe = from.recipe(id).unwrap();
    let mut import = to.import(*recipe.info()).unwrap();
    recipe.runs(0).for_each(|run| import.append_objects(run.unwrap()).unwrap());
    import
}

/// Takes `id` over, as runs of its parent where that is there. Returns how many chunks were put.
fn replicate(from: &Store, to: &Store, id: GenerationId) -> usize {
    let mut import = begin(from, to, id);
    let base = import.info().parent.filter(|parent| to.generation(*parent).is_some());
    for piece in from.compare(id, base).unwrap() {
        match piece.unwrap() {
            Piece::Run { first, count } => import.append_run(base.unwrap(), first, count).unwrap(),
            Piece::Again { first, count } => import.append_again(first, count).unwrap(),
            Piece::Chunk(chunk) => import.append_chunk(chunk).unwrap(),
        }
    }
    let mut count = 0;
    loop {
        let missing = import.missing(7).unwrap();
        if missing.is_empty() {
            break;
        }
        assert!(matches!(import.commit(), Err(StoreError::MissingChunk(_))));
        assert!(to.missing(&missing).iter().all(|missing| *missing));
        missing.iter().for_each(|digest| put(from, to, digest));
        count += missing.len();
    }
    assert_eq!(import.commit().unwrap(), from.generation(id).unwrap());
    count
}

#[test]
fn generations_arrive_equal_and_only_what_is_missing_travels() {
    let seed = support::seed(4);
    for round in 0..10 {
        let mut random = Random::new(seed + round);
        let (from, to) = (empty(), empty());
        let mut data = random.bytes(200_000);
        let mut first = true;
        for _ in 0..4 {
            let id = back_up(&from, &data);
            let count = replicate(&from, &to, id);
            let chunks = from.generation(id).unwrap().chunks as usize;
            assert!(if first { count > chunks - 20 } else { count < 60 }, "{count} of {chunks}");
            assert_eq!(to.latest(cartridge(1)).unwrap().id, id);
            let read = |store: &Store| read_all(&mut store.reader(id).unwrap()).unwrap();
            assert!(read(&from) == read(&to));
            assert_eq!(replicate(&from, &to, id), 0, "again is nothing");
            data = edited(&data, &mut random);
            first = false;
        }
    }
}

#[test]
fn a_generation_is_runs_of_its_parent() {
    let seed = support::seed(5);
    for round in 0..10 {
        let mut random = Random::new(seed + round);
        let store = empty();
        let mut data = random.bytes(150_000);
        let parent = back_up(&store, &data);
        data = edited(&data, &mut random);
        // Moved about: the second half comes first.
        data.rotate_left(if round % 2 == 0 { 0 } else { 75_000 });
        let id = back_up(&store, &data);
        let pieces: Vec<_> = store.compare(id, Some(parent)).unwrap().map(Result::unwrap).collect();
        let all: Vec<_> = store.recipe(id).unwrap().chunks(0).map(Result::unwrap).collect();
        assert_eq!(expand(&store, parent, &pieces), all, "round {round}");
        let same = store.compare(id, Some(id)).unwrap().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(same, [Piece::Run { first: 0, count: all.len() as u64 }]);
        assert!(pieces.len() < all.len() / 2, "{} of {}", pieces.len(), all.len());
    }
}

#[test]
fn a_generation_repeats_itself_where_nothing_else_does() {
    let seed = support::seed(12);
    for round in 0..10 {
        let mut random = Random::new(seed + round);
        let store = empty();
        // Zeros, something, zeros again, the same something, and something with a hole.
        let once = random.bytes(20_000);
        let data = [&[0; 30_000], &once[..], &[0; 50_000], &once, &once[..10_000]].concat();
        let id = back_up(&store, &data);
        let pieces: Vec<_> = store.compare(id, None).unwrap().map(Result::unwrap).collect();
        let all: Vec<_> = store.recipe(id).unwrap().chunks(0).map(Result::unwrap).collect();
        assert_eq!(expand(&store, id, &pieces), all, "round {round}");
        let new = pieces.iter().filter(|it| matches!(it, Piece::Chunk(_))).count();
        assert!(new < all.len() / 2, "{new} of {}", all.len());
        let to = empty();
        replicate(&store, &to, id);
        assert_eq!(to.reader(id).unwrap().verify().unwrap(), data.len() as u64);
    }
}

#[test]
fn the_same_job_on_another_cartridge_is_found_by_its_beginning() {
    let seed = support::seed(13);
    let mut random = Random::new(seed);
    let store = empty();
    let back_up = |n: u64, data: &[u8]| {
        let mut image = store.image(cartridge(n)).unwrap();
        data.chunks(512).for_each(|record| image.write(record).unwrap());
        image.seal().unwrap().unwrap()
    };
    let (one, other) = (random.bytes(300_000), random.bytes(300_000));
    let first = back_up(1, &one);
    let stranger = back_up(2, &other);
    let second = back_up(3, &edited(&edited(&one, &mut random), &mut random));
    let third = back_up(4, &edited(&one, &mut random));
    let all = [second, first, stranger, third];
    assert_eq!(store.most_alike(third, &all).unwrap(), [first, second]);
    assert_eq!(store.most_alike(stranger, &all).unwrap(), []);
    let gone = GenerationId(model::Ulid(7));
    assert_eq!(store.most_alike(first, &[gone, second]).unwrap(), [second]);
}

#[test]
fn what_is_not_the_chunk_is_not_stored() {
    let (from, to) = (empty(), empty());
    let id = back_up(&from, &[b'a'; 5000]);
    let chunk = from.recipe(id).unwrap().chunk(0).unwrap().unwrap();
    let stored = from.stored_chunk(&chunk.digest).unwrap();
    let mut bad = stored.bytes.to_vec();
    bad[5] ^= 1;
    let other = model::Digest([7; 32]);
    for (digest, len, bytes) in [
        (chunk.digest, chunk.len, &bad[..]),
        (other, chunk.len, &stored.bytes[..]),
        (chunk.digest, chunk.len - 1, &stored.bytes[..]),
        (chunk.digest, chunk.len + 1, &stored.bytes[..]),
        (chunk.digest, u32::MAX, &stored.bytes[..]),
        (chunk.digest, 0, &[][..]),
    ] {
        let put = to.put_stored_chunk(&digest, stored.encoding, len, bytes);
        assert!(matches!(put, Err(StoreError::WrongChunk { .. })), "{put:?}");
    }
    assert_eq!(to.statistics().chunks, 0);
    let put = || to.put_stored_chunk(&chunk.digest, stored.encoding, chunk.len, &stored.bytes);
    assert!(put().unwrap());
    assert!(!put().unwrap());
}

#[test]
fn an_import_that_does_not_add_up_is_refused() {
    let (from, to) = (empty(), empty());
    let id = back_up(&from, &Random::new(1).bytes(5000));
    let recipe = from.recipe(id).unwrap();
    let chunks: Vec<_> = recipe.chunks(0).map(Result::unwrap).collect();
    chunks.iter().for_each(|chunk| put(&from, &to, &chunk.digest));
    // Too few chunks.
    let mut import = begin(&from, &to, id);
    chunks[1..].iter().for_each(|chunk| import.append_chunk(*chunk).unwrap());
    assert!(matches!(import.commit(), Err(StoreError::WrongImport { .. })));
    // Too many.
    import.append_chunk(chunks[0]).unwrap();
    assert!(import.append_chunk(chunks[0]).is_err());
    assert!(import.append_objects(store::ObjectRun::Filemarks { count: 1 }).is_err());
    let huge = store::ObjectRun::Records { size: 1 << 20, count: u64::MAX };
    assert!(import.append_objects(huge).is_err());
    // A chunk of another length than it has.
    let mut import = begin(&from, &to, id);
    let shorter = ChunkRef { len: chunks[0].len - 1, ..chunks[0] };
    import.append_chunk(shorter).unwrap();
    assert!(import.missing(9).is_err());
    // Repetitions of what is not there.
    assert!(import.append_again(1, 1).is_err());
    assert!(import.append_again(0, u64::MAX).is_err());
    // Runs of what is not there.
    assert!(matches!(import.append_run(id, 0, 1), Err(StoreError::NoGeneration(_))));
    // Another generation of the same id.
    replicate(&from, &to, id);
    let mut info = *recipe.info();
    info.bytes += 1;
    assert!(matches!(to.import(info), Err(StoreError::WrongImport { .. })));
    let mut import = begin(&from, &to, id);
    assert!(import.append_run(id, 0, u64::MAX).is_err());
    assert!(import.append_run(id, 1, chunks.len() as u64).is_err());
    assert_eq!(import.commit().unwrap(), *recipe.info());
}

/// The power goes at any point of an import: afterwards it can be done again, and what was
/// committed is there.
#[test]
fn an_import_survives_a_crash_at_any_point() {
    let seed = support::seed(6);
    let mut random = Random::new(seed);
    let from = empty();
    let id = back_up(&from, &random.bytes(40_000));
    for stop in 1..support::number("TWINREEL_CRASH_POINTS", 300) / 10 {
        let vfs = CrashVfs::new();
        let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
        let to = open(&shared).0;
        vfs.stop_at(stop);
        let recipe = from.recipe(id).unwrap();
        let taken = (|| {
            let mut import = begin(&from, &to, id);
            for chunk in recipe.chunks(0) {
                let chunk = chunk.unwrap();
                let stored = from.stored_chunk(&chunk.digest).unwrap();
                import.append_chunk(chunk)?;
                to.put_stored_chunk(&chunk.digest, stored.encoding, stored.raw_len, &stored.bytes)?;
            }
            import.commit()
        })();
        drop(to);
        for mode in CrashMode::ALL {
            let after: Arc<dyn Vfs> = Arc::new(vfs.crash(mode, random.next()));
            let (to, _) = Store::open(after, Path::new("/store"), &small()).unwrap();
            assert!(taken.is_err() || to.generation(id).is_some(), "stop {stop} {mode:?}");
            if to.generation(id).is_some() {
                let mut reader = to.reader(id).unwrap();
                assert_eq!(reader.verify().unwrap(), 40_000, "stop {stop} {mode:?}");
            }
            replicate(&from, &to, id);
            assert_eq!(to.reader(id).unwrap().verify().unwrap(), 40_000);
        }
    }
}

#[test]
fn an_import_may_learn_its_numbers_last_and_a_stream_is_read_over_filemarks() {
    let (from, to) = (empty(), empty());
    let data = Random::new(support::seed(11)).bytes(150_000);
    let id = back_up(&from, &data);
    let recipe = from.recipe(id).unwrap();
    let told = *recipe.info();
    let unknown = store::GenerationInfo { objects: 0, filemarks: 0, bytes: 0, chunks: 0, ..told };
    let mut import = to.import_unannounced(unknown);
    recipe.runs(0).for_each(|run| import.append_objects(run.unwrap()).unwrap());
    for chunk in recipe.chunks(0).map(Result::unwrap) {
        put(&from, &to, &chunk.digest);
        import.append_chunk(chunk).unwrap();
    }
    assert!(matches!(import.commit(), Err(StoreError::WrongImport { .. })), "nothing announced");
    import.announce(told.objects, told.bytes + 1, told.chunks);
    assert!(matches!(import.commit(), Err(StoreError::WrongImport { .. })), "too little came");
    import.announce(told.objects, told.bytes, told.chunks);
    assert_eq!(import.commit().unwrap(), told);

    let mut reader = to.reader(id).unwrap();
    for (byte, asked) in [(0, 150_000), (1, 99_999), (29_699, 2), (149_990, 100)] {
        let mut buffer = vec![0; asked];
        let read = reader.read_stream(byte, &mut buffer).unwrap();
        let end = (byte as usize + asked).min(data.len());
        assert_eq!(buffer[..read], data[byte as usize..end]);
    }
    assert_eq!(reader.read_stream(150_000, &mut [0; 8]).unwrap(), 0);
}
