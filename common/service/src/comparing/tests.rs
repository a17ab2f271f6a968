//! Two stores that hold the same, and what is found where they do not.

use std::path::Path;
use std::sync::Arc;

use model::{CartridgeId, Ulid};
use store::{ChunkRef, ObjectRun, Options};
use vfs::{CrashVfs, Vfs, VfsFile};

use super::*;
use crate::shutdown;

fn open(disk: &CrashVfs) -> Store {
    let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
    Store::open(shared, Path::new("/store"), &Options::default()).unwrap().0
}

/// A generation of more than one piece.
fn filled(store: &Store) -> GenerationId {
    let mut image = store.image(CartridgeId(Ulid(1))).unwrap();
    let mut state = 7u64;
    for _ in 0..300 {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        image.write(&std::iter::repeat_with(next).take(100_000).collect::<Vec<_>>()).unwrap();
    }
    image.write_filemarks(1).unwrap();
    image.seal().unwrap().unwrap()
}

fn copied(from: &Store, id: GenerationId) -> (CrashVfs, Store) {
    let disk = CrashVfs::new();
    let store = open(&disk);
    let (mut import, _) = store.bring(from, id, &mut |_| true).unwrap();
    import.commit().unwrap();
    (disk, store)
}

/// Compares with another store in the way of a peer; how many questions that took.
fn compared(mine: &Store, theirs: &Store, id: GenerationId, depth: Depth) -> (Compared, u64) {
    let comparing = Comparing::default();
    let (_trigger, shutdown) = shutdown::channel();
    let mut questions = 0;
    let mut ask = |question: &Question| {
        questions += 1;
        comparing.ask(&shutdown, |number| {
            comparing.arrived(number + 1, None);
            comparing.arrived(number, look(theirs, question));
            true
        })
    };
    let found = compare(mine, id, depth, &mut ask, &mut |_| true).unwrap();
    (found, questions)
}

fn found(mine: &Store, theirs: &Store, id: GenerationId, depth: Depth) -> Found {
    match compared(mine, theirs, id, depth).0 {
        Compared::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

/// Changes a byte of a chunk on disk.
fn spoil(disk: &CrashVfs, store: &Store, id: GenerationId, index: u64) {
    let chunk = store.recipe(id).unwrap().chunk(index).unwrap().unwrap();
    let stored = store.stored_chunk(&chunk.digest).unwrap().bytes;
    let dir = Path::new("/store/containers");
    for name in disk.list(dir).unwrap() {
        let path = dir.join(name);
        let bytes = vfs::read_all(disk, &path, 1 << 30).unwrap();
        if let Some(at) = bytes.windows(stored.len()).position(|window| window == stored) {
            let file: Box<dyn VfsFile> = disk.open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
        }
    }
}

#[test]
fn what_is_the_same_costs_a_few_questions() {
    let store = open(&CrashVfs::new());
    let id = filled(&store);
    let (_, copy) = copied(&store, id);
    let chunks = store.generation(id).unwrap().chunks;
    assert!(chunks > READ, "{chunks}");
    for depth in [Depth::Present, Depth::Read] {
        let (outcome, questions) = compared(&store, &copy, id, depth);
        assert_eq!(outcome, Compared::Found(Found { chunks, ..Found::default() }));
        assert!(questions <= 1 + chunks.div_ceil(READ), "{questions}");
    }
    let other = GenerationId(Ulid(5));
    let mut nobody = |_: &Question| None;
    let unanswered = compare(&store, id, Depth::Present, &mut nobody, &mut |_| true).unwrap();
    assert_eq!(unanswered, Compared::Unanswered);
    let mut copy_asked = |question: &Question| Some(look(&copy, question));
    let stopped = compare(&store, id, Depth::Present, &mut copy_asked, &mut |_| false).unwrap();
    assert_eq!(stopped, Compared::Unanswered);
    assert_eq!(look(&copy, &Question { generation: other, ..whole(id) }), None);
    let gone = open(&CrashVfs::new());
    assert_eq!(compared(&store, &gone, id, Depth::Present).0, Compared::NotThere);
}

fn whole(generation: GenerationId) -> Question {
    Question { generation, first: 0, count: 0, parts: 1, depth: Depth::Present }
}

#[test]
fn a_chunk_that_a_disk_changed_is_found_on_either_side() {
    let disk = CrashVfs::new();
    let store = open(&disk);
    let id = filled(&store);
    let (other_disk, copy) = copied(&store, id);
    let chunks = store.generation(id).unwrap().chunks;
    spoil(&other_disk, &copy, id, 17);
    spoil(&other_disk, &copy, id, chunks - 1);
    let all = Found { chunks, ..Found::default() };
    assert_eq!(found(&store, &copy, id, Depth::Present), all, "only who reads can see it");
    let lacking = Found { lacking_there: 2, ..all };
    assert_eq!(found(&store, &copy, id, Depth::Read), lacking);
    // Who has read knows it.
    assert_eq!(found(&store, &copy, id, Depth::Present), lacking);
    assert_eq!(lacking.to_string(), "2 chunks are damaged or missing there");
    let (mirrored, questions) = compared(&copy, &store, id, Depth::Read);
    assert_eq!(mirrored, Compared::Found(Found { lacking_here: 2, ..all }));
    assert!(questions < 12, "{questions}");
}

/// The same name for something else: chunks, their number, or only the records.
#[test]
fn another_generation_under_the_same_name_is_found() {
    let store = open(&CrashVfs::new());
    let id = filled(&store);
    let info = store.generation(id).unwrap();
    let lists = store.recipe(id).unwrap();
    let all: Vec<ChunkRef> = lists.chunks(0).map(|chunk| chunk.unwrap()).collect();
    let make = |order: &[ChunkRef], runs: &[ObjectRun]| {
        let other = open(&CrashVfs::new());
        let bytes = order.iter().map(|chunk| u64::from(chunk.len)).sum();
        let objects = runs.iter().map(ObjectRun::count).sum();
        let filemarks = runs.iter().filter(|run| run.size() == 0).map(ObjectRun::count).sum();
        let chunks = order.len() as u64;
        let info = store::GenerationInfo { bytes, objects, filemarks, chunks, ..info };
        let mut import = other.import(info).unwrap();
        for chunk in order {
            let stored = store.stored_chunk(&chunk.digest).unwrap();
            let parts = (stored.encoding, stored.raw_len, stored.bytes);
            other.put_stored_chunk(&chunk.digest, parts.0, parts.1, &parts.2).unwrap();
            import.append_chunk(*chunk).unwrap();
        }
        runs.iter().for_each(|run| import.append_objects(*run).unwrap());
        import.commit().unwrap();
        other
    };
    let runs: Vec<_> = lists.runs(0).map(|run| run.unwrap()).collect();
    let chunks = all.len() as u64;
    let mut swapped = all.clone();
    swapped.swap(3, 1400);
    let found_in = |other: &Store| found(&store, other, id, Depth::Present);
    let same = Found { chunks, ..Found::default() };
    assert_eq!(found_in(&make(&all, &runs)), same);
    assert_eq!(found_in(&make(&swapped, &runs)), Found { different: 2, ..same });
    let front = [ObjectRun::Filemarks { count: 1 }, runs[0]];
    assert_eq!(found_in(&make(&all, &front)), Found { objects_differ: true, ..same });
    let last = all[all.len() - 1].len;
    let short = all.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>() - u64::from(last);
    let runs = [ObjectRun::Records { size: 1, count: short }];
    let shorter = found_in(&make(&all[..all.len() - 1], &runs));
    assert!(shorter.objects_differ && shorter.different >= 1, "{shorter:?}");
}
