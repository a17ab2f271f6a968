//! Images against a model: whatever is done in whatever order, also over sealing, reopening and
//! several generations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use model::GenerationId;
use store::{Extent, Image, Object, Space, Store, StoreError};
use support::{Item, Random, Tape, cartridge, open, read_all, write};
use vfs::{CrashVfs, Vfs};

fn memory() -> Arc<dyn Vfs> {
    Arc::new(CrashVfs::new())
}

#[test]
fn what_is_written_is_read_back_and_sealed() {
    let vfs = memory();
    let (store, report) = open(&vfs);
    assert_eq!(report, store::OpenReport::default());
    let mut image = store.image(cartridge(1)).unwrap();
    assert!(matches!(store.image(cartridge(1)), Err(StoreError::InUse(_))));
    assert_eq!(image.seal().unwrap(), None);
    image.write(b"label").unwrap();
    image.write_filemarks(1).unwrap();
    image.write(&[7; 5000]).unwrap();
    image.write_filemarks(2).unwrap();
    let id = image.seal().unwrap().unwrap();
    assert_eq!(image.seal().unwrap(), None);
    let items = vec![Some(b"label".to_vec()), None, Some(vec![7; 5000]), None, None];
    assert_eq!(read_all(&mut image).unwrap(), items);
    let info = store.generation(id).unwrap();
    assert_eq!((info.objects, info.filemarks, info.bytes), (5, 3, 5005));
    assert_eq!(info.parent, None);
    drop(image);
    let mut reader = store.reader(id).unwrap();
    assert_eq!(read_all(&mut reader).unwrap(), items);
    assert_eq!(reader.verify().unwrap(), 5005);
    assert!(matches!(store.delete_generation(id), Err(StoreError::Pinned(_))));
    drop(reader);
    store.delete_generation(id).unwrap();
    assert_eq!(store.latest(cartridge(1)), None);
}

#[test]
fn records_have_1_byte_to_16_mebibytes() {
    let (store, _) = open(&memory());
    let mut image = store.image(cartridge(1)).unwrap();
    assert!(matches!(image.write(b""), Err(StoreError::RecordSize(0))));
    let longest = vec![1; store::MAX_RECORD];
    image.write(&longest).unwrap();
    assert!(image.write(&vec![1; store::MAX_RECORD + 1]).is_err());
    image.locate(0).unwrap();
    let mut buffer = vec![0; store::MAX_RECORD];
    let length = store::MAX_RECORD as u32;
    assert_eq!(image.read(&mut buffer).unwrap(), Object::Record { length });
    assert!(buffer == longest);
}

#[test]
fn a_second_copy_costs_nothing_and_block_size_does_not_matter() {
    let (store, _) = open(&memory());
    let data = Random::new(5).bytes(100_000);
    for (n, block) in [(1, 100_000), (2, 512), (3, 777)] {
        let mut image = store.image(cartridge(n)).unwrap();
        data.chunks(block).for_each(|record| image.write(record).unwrap());
        image.write_filemarks(1).unwrap();
        let info = store.generation(image.seal().unwrap().unwrap()).unwrap();
        assert_eq!(info.unique_bytes, if n == 1 { 100_000 } else { 0 }, "block {block}");
    }
}

/// Compares everything that can be asked at the place where image and model stand.
fn compare_here(image: &mut Image, tape: &Tape) {
    let place = image.place();
    assert_eq!(place.object, tape.at as u64);
    assert_eq!(place.byte, tape.bytes_to(tape.at));
    assert_eq!(place.file, tape.files_to(tape.at));
    let end = image.end();
    assert_eq!(end.object, tape.items.len() as u64);
    assert_eq!(end.byte, tape.bytes_to(tape.items.len()));
    let expected = match tape.items.get(tape.at) {
        Some(Some(record)) => Object::Record { length: record.len() as u32 },
        Some(None) => Object::Filemark,
        None => Object::EndOfData,
    };
    assert_eq!(image.peek().unwrap(), expected);
}

/// Compares extents and places computed from anywhere.
fn compare_extents(image: &mut Image, tape: &Tape, random: &mut Random) {
    let object = random.below(tape.items.len() as u64 + 1) as usize;
    let mark = (object..tape.items.len()).find(|i| tape.items[*i].is_none());
    let mark = mark.unwrap_or(tape.items.len());
    assert_eq!(image.filemark_after(object as u64).unwrap().object, mark as u64);
    let file: Vec<u8> = tape.items[object..mark].iter().flatten().flatten().copied().collect();
    let offset = random.below(file.len() as u64 + 1) as usize;
    let mut buffer = vec![0; random.below(3000) as usize];
    let len = image.read_at(object as u64, offset as u64, &mut buffer).unwrap();
    assert_eq!(len, buffer.len().min(file.len() - offset));
    assert_eq!(buffer[..len], file[offset..offset + len]);
    assert!(image.read_at(object as u64, file.len() as u64 + 1, &mut buffer).is_err());
    let (place, within) = image.after_bytes(object as u64, offset as u64).unwrap();
    let (mut at, mut left) = (object, offset);
    while left > 0 {
        let len = tape.items[at].as_ref().unwrap().len();
        if left < len {
            break;
        }
        (at, left) = (at + 1, left - len);
    }
    assert_eq!((place.object, within), (at as u64, left as u32));
}

fn step(image: &mut Image, tape: &mut Tape, random: &mut Random) {
    match random.below(12) {
        0..=4 => {
            for _ in 0..random.below(6) + 1 {
                let item = (random.below(5) > 0).then(|| random.record(3000));
                write(image, &item).unwrap();
                tape.write(item);
            }
        }
        5 => {
            let object = random.below(tape.items.len() as u64 + 3);
            tape.at = (object as usize).min(tape.items.len());
            assert_eq!(image.locate(object).unwrap(), tape.at as u64);
        }
        6..=8 => {
            let kinds = [Space::Records, Space::Filemarks, Space::Records, Space::EndOfData];
            let kind = kinds[random.below(4) as usize];
            let count = random.below(21) as i64 - 10;
            let spaced = image.space(kind, count).unwrap();
            assert_eq!(spaced, tape.space(kind, count), "{kind:?} {count}");
        }
        9 | 10 => {
            let mut buffer = vec![0; random.below(4000) as usize];
            let object = image.read(&mut buffer).unwrap();
            match tape.items.get(tape.at) {
                Some(Some(record)) => {
                    let len = record.len().min(buffer.len());
                    assert_eq!(object, Object::Record { length: record.len() as u32 });
                    assert_eq!(buffer[..len], record[..len]);
                }
                Some(None) => assert_eq!(object, Object::Filemark),
                None => assert_eq!(object, Object::EndOfData),
            }
            tape.at = (tape.at + 1).min(tape.items.len());
        }
        _ => {
            tape.items.truncate(tape.at);
            image.erase().unwrap();
        }
    }
}

struct Bench {
    vfs: Arc<dyn Vfs>,
    sealed: Vec<(GenerationId, Vec<Item>)>,
}

/// Writes stretches of what was sealed, as other records.
fn write_by_reference(bench: &Bench, image: &mut Image, tape: &mut Tape, random: &mut Random) {
    let (mut bytes, mut extents) = (Vec::new(), Vec::new());
    for _ in 0..random.below(3) + 1 {
        if bench.sealed.is_empty() {
            return;
        }
        let (generation, items) = &bench.sealed[random.below(bench.sealed.len() as u64) as usize];
        let stream: Vec<u8> = items.iter().flatten().flatten().copied().collect();
        let offset = random.below(stream.len() as u64 + 1);
        let length = random.below(stream.len() as u64 - offset + 1);
        bytes.extend_from_slice(&stream[offset as usize..(offset + length) as usize]);
        extents.push(Extent { generation: *generation, offset, length });
    }
    let size = random.below(4000) as usize + 1;
    let rest = bytes.len() % size;
    if rest > 0 {
        // Not whole records: nothing is written.
        assert!(image.write_extents(&extents, size as u32).is_err());
    }
    let mut left = bytes.len() - rest;
    bytes.truncate(left);
    for extent in &mut extents {
        extent.length = extent.length.min(left as u64);
        left -= extent.length as usize;
    }
    match image.write_extents(&extents, size as u32) {
        Ok(()) => bytes.chunks(size).for_each(|record| tape.write(Some(record.to_vec()))),
        Err(error) => assert!(bytes.is_empty(), "{error}"),
    }
}

/// Flush, seal, reopen the image, reopen the store: what is between two runs of steps.
fn turn(
    bench: &mut Bench,
    store: Store,
    mut image: Image,
    tape: &mut Tape,
    random: &mut Random,
) -> (Store, Image) {
    match random.below(8) {
        0 => image.flush().unwrap(),
        4 | 5 => {
            write_by_reference(bench, &mut image, tape, random);
            compare_here(&mut image, tape);
        }
        1 => {
            if let Some(id) = image.seal().unwrap() {
                bench.sealed.push((id, tape.items.clone()));
                assert_eq!(store.latest(cartridge(1)).unwrap().id, id);
            }
            compare_here(&mut image, tape);
        }
        2 => {
            image.flush().unwrap();
            drop(image);
            tape.at = 0;
            image = store.image(cartridge(1)).unwrap();
        }
        3 => {
            image.flush().unwrap();
            drop(image);
            drop(store);
            let (store, report) = open(&bench.vfs);
            assert_eq!(report.damage, []);
            assert_eq!(report.generations.len(), bench.sealed.len());
            tape.at = 0;
            let image = store.image(cartridge(1)).unwrap();
            return (store, image);
        }
        _ => {}
    }
    (store, image)
}

#[test]
fn an_image_behaves_like_a_list() {
    let seed = support::seed(1);
    for round in 0..support::number("TWINREEL_MODEL_ROUNDS", 30) {
        let mut random = Random::new(seed.wrapping_add(round));
        let mut bench = Bench { vfs: memory(), sealed: Vec::new() };
        let (mut store, _) = open(&bench.vfs);
        let mut image = store.image(cartridge(1)).unwrap();
        let mut tape = Tape::default();
        for _ in 0..60 {
            for _ in 0..random.below(8) {
                step(&mut image, &mut tape, &mut random);
                compare_here(&mut image, &tape);
                compare_extents(&mut image, &tape, &mut random);
            }
            (store, image) = turn(&mut bench, store, image, &mut tape, &mut random);
        }
        assert!(read_all(&mut image).unwrap() == tape.items, "round {round}");
        for (id, items) in &bench.sealed {
            let mut reader = store.reader(*id).unwrap();
            assert!(read_all(&mut reader).unwrap() == *items, "round {round}");
            assert_eq!(reader.verify().unwrap(), reader.info().bytes);
        }
    }
}

#[test]
fn runs_are_the_objects() {
    let (store, _) = open(&memory());
    let mut image = store.image(cartridge(1)).unwrap();
    for size in [10, 10, 20, 20, 20] {
        image.write(&vec![1; size]).unwrap();
    }
    image.write_filemarks(3).unwrap();
    use store::ObjectRun::{Filemarks, Records};
    let runs = |image: &Image, from| image.runs(from).map(Result::unwrap).collect::<Vec<_>>();
    let (tens, twenties) = (Records { size: 10, count: 2 }, Records { size: 20, count: 3 });
    assert_eq!(runs(&image, 0), [tens, twenties, Filemarks { count: 3 }]);
    assert_eq!(runs(&image, 3), [Records { size: 20, count: 2 }, Filemarks { count: 3 }]);
    assert_eq!(runs(&image, 7), [Filemarks { count: 1 }]);
    assert_eq!(runs(&image, 8), []);
}

/// So much that lists go to the scratch file and the journal has frames without a commit.
#[test]
fn a_long_generation_is_no_different() {
    let vfs = memory();
    let (store, _) = open(&vfs);
    let mut random = Random::new(support::seed(14));
    let mut image = store.image(cartridge(1)).unwrap();
    let mut sizes: Vec<usize> = Vec::new();
    let record = |n: usize, len: usize| Random::new(n as u64).bytes(len);
    for round in 0..3 {
        for _ in 0..25_000 {
            let len = 1 + random.below(1200) as usize;
            image.write(&record(sizes.len(), len)).unwrap();
            sizes.push(len);
        }
        if round == 1 {
            image.flush().unwrap();
            drop(image);
            image = store.image(cartridge(1)).unwrap();
            assert_eq!(image.end().object, sizes.len() as u64);
            // Back into what is no longer in memory.
            sizes.truncate(3000);
            image.locate(3000).unwrap();
        }
    }
    let id = image.seal().unwrap().unwrap();
    drop(image);
    let mut reader = store.reader(id).unwrap();
    assert_eq!(reader.verify().unwrap(), sizes.iter().sum::<usize>() as u64);
    let mut buffer = vec![0; 1200];
    for _ in 0..2000 {
        let n = random.below(sizes.len() as u64) as usize;
        reader.locate(n as u64).unwrap();
        let length = sizes[n] as u32;
        assert_eq!(reader.read(&mut buffer).unwrap(), Object::Record { length });
        assert!(buffer[..sizes[n]] == record(n, sizes[n]));
    }
}

#[test]
fn handles_go_to_other_threads() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<store::Pin>();
    shared::<StoreError>();
    sent::<Image>();
    sent::<store::GenerationReader>();
    sent::<store::Recipes>();
    sent::<store::Import>();
    sent::<store::Compare>();
}

/// Written in large blocks that other threads name, and byte for byte with a flush behind each
/// record, where nothing is ahead: the same chunks, and whatever is read in between is right.
#[test]
fn blocks_on_other_threads_are_the_same_generation() {
    let seed = support::seed(31);
    let mut random = Random::new(seed);
    let (fast, slow) = (memory(), memory());
    let (fast, slow) = (open(&fast).0, open(&slow).0);
    for round in 0..6 {
        let (mut ahead, mut plain) =
            (fast.image(cartridge(round)).unwrap(), slow.image(cartridge(round)).unwrap());
        let mut tape = Tape::default();
        for _ in 0..60 {
            if tape.at > 0 && random.below(12) == 0 {
                // Back to somewhere, often within what is on its way.
                tape.at -= (random.below(4) as usize).min(tape.at);
                for image in [&mut ahead, &mut plain] {
                    image.locate(tape.at as u64).unwrap();
                }
            }
            let item = (random.below(20) > 0).then(|| random.record(40_000));
            for image in [&mut ahead, &mut plain] {
                match &item {
                    Some(record) => image.write(record).unwrap(),
                    None => image.write_filemarks(1).unwrap(),
                }
            }
            plain.flush().unwrap();
            tape.write(item);
            if random.below(8) == 0 {
                let object = random.below(tape.at as u64);
                ahead.locate(object).unwrap();
                let mut buffer = vec![0; 50_000];
                let read = ahead.read(&mut buffer).unwrap();
                match (read, &tape.items[object as usize]) {
                    (Object::Record { length }, Some(record)) => {
                        assert!(buffer[..length as usize] == record[..], "seed {seed}");
                    }
                    (Object::Filemark, None) => {}
                    other => panic!("seed {seed}: {other:?}"),
                }
                ahead.locate(tape.at as u64).unwrap();
            }
        }
        assert!(read_all(&mut ahead).unwrap() == tape.items, "seed {seed}");
        let sealed = [ahead.seal().unwrap().unwrap(), plain.seal().unwrap().unwrap()];
        let chunks = [(&fast, sealed[0]), (&slow, sealed[1])].map(|(store, id)| {
            let recipe = store.recipe(id).unwrap();
            recipe.chunks(0).collect::<Result<Vec<_>, _>>().unwrap()
        });
        assert!(chunks[0] == chunks[1], "seed {seed}: {round}");
    }
}
