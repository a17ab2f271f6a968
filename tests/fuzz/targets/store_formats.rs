//! The store's files as somebody else may have left them, generations taken from such a store, and
//! chunks as a peer may send them:
//! nothing panics, and no byte is given out that was not written. Checksums are mended behind each
//! change, so that what they protect is reached as well.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::{CartridgeId, Digest, Ulid};
use store::{ChunkParams, ChunkRef, Encoding, GenerationInfo, ObjectRun, Options, Reel, Store};
use vfs::{CrashMode, CrashVfs, Vfs};

/// Changes of one input.
const CHANGES_MAX: usize = 8;
/// Objects that are read of a cartridge.
const OBJECTS_MAX: usize = 10_000;

fn options() -> Options {
    Options {
        chunk: ChunkParams { min: 128, average: 256, max: 1024, ..ChunkParams::default() },
        container_bytes: 16 << 10,
        ..Options::default()
    }
}

fn cartridge(n: u64) -> CartridgeId {
    CartridgeId(Ulid::from_parts(n, 1))
}

fn open(vfs: &CrashVfs) -> Option<Store> {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    Store::open(vfs, Path::new("/store"), &options()).ok().map(|(store, _)| store)
}

/// Two sealed generations of one cartridge and an open one of another, made once.
fn furnished() -> &'static (CrashVfs, Vec<PathBuf>) {
    static STORE: OnceLock<(CrashVfs, Vec<PathBuf>)> = OnceLock::new();
    STORE.get_or_init(|| {
        let vfs = CrashVfs::new();
        let store = open(&vfs).expect("a new store");
        let record = |seed: u32, length: u32| -> Vec<u8> {
            (0..length).map(|at| (at.wrapping_mul(seed) >> 7) as u8).collect()
        };
        let mut image = store.image(cartridge(1)).expect("an image");
        for generation in 0..2 {
            for n in 0..4 {
                image
                    .write(&record(40_503 + n + generation, 700 + 300 * n))
                    .expect("it is written");
                image.write_filemarks(1).expect("it is written");
            }
            image.seal().expect("it is sealed");
        }
        let mut image = store.image(cartridge(2)).expect("an image");
        for n in 0..3 {
            image.write(&record(77_003 + n, 1500)).expect("it is written");
            image.flush().expect("it is flushed");
        }
        let after = vfs.crash(CrashMode::KeepAll, 0);
        drop((image, store));
        let files = files(&after, Path::new("/store"));
        (after, files)
    })
}

fn files(vfs: &CrashVfs, directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for name in vfs.list(directory).expect("a directory") {
        let path = directory.join(name);
        match vfs.list(&path) {
            Ok(_) => all.extend(files(vfs, &path)),
            Err(_) => all.push(path),
        }
    }
    all.sort();
    all
}

/// Puts the right checksums into a file again, see `docs/formats/store.md`. Into a recipe only
/// where `forged`: that its lists agree is what its checksums are for in a store of ours.
fn mend(path: &Path, bytes: &mut [u8], forged: bool) {
    let crc = |salt: u32, bytes: &[u8]| crc32c::crc32c_append(salt, bytes);
    let mut put = |bytes: &mut [u8], from: usize, at: usize, salt: u32| {
        if at + 4 <= bytes.len() {
            let sum = crc(salt, &bytes[from..at]);
            bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
    };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let salt = stem.parse::<Ulid>().map_or(0, |id| crc(0, &id.0.to_be_bytes()));
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("header") => [0, 4096].into_iter().for_each(|from| put(bytes, from, from + 60, 0)),
        Some("journal") => {
            put(bytes, 0, 92, salt);
            let mut at = 96;
            while let Some(length) = bytes.get(at + 24..at + 28) {
                let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
                if at + 40 + length > bytes.len() {
                    break;
                }
                let sum = crc(salt, &bytes[at + 40..at + 40 + length]);
                bytes[at + 28..at + 32].copy_from_slice(&sum.to_le_bytes());
                put(bytes, at, at + 36, salt);
                at += 40 + length;
            }
        }
        Some("container") => mend_container(&stem, bytes, &mut put),
        Some("recipe") if forged => {
            (0..bytes.len()).step_by(4096).for_each(|page| put(bytes, page, page + 4092, salt));
        }
        _ => {}
    }
}

fn mend_container(
    stem: &str,
    bytes: &mut [u8],
    put: &mut impl FnMut(&mut [u8], usize, usize, u32),
) {
    let number = u32::from_str_radix(stem, 16).unwrap_or(0);
    // *crc(container number)* is begun with the number itself.
    put(bytes, 0, 28, 0);
    let mut at = 32;
    while bytes.get(at..at + 4) == Some(b"TRck") && at + 56 <= bytes.len() {
        let stored = bytes[at + 12..at + 16].try_into().expect("four bytes");
        let stored = u32::from_le_bytes(stored) as usize;
        if at + 56 + stored > bytes.len() {
            break;
        }
        let sum = crc32c::crc32c(&bytes[at + 56..at + 56 + stored]);
        bytes[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
        put(bytes, at, at + 52, number);
        at += 56 + stored;
    }
    if let Some(trailer) = bytes.len().checked_sub(32).filter(|at| *at > 32)
        && bytes[trailer..].starts_with(b"TRREELF1")
    {
        let first = bytes[trailer + 12..trailer + 16].try_into().expect("four bytes");
        let first = u32::from_le_bytes(first) as usize;
        if first <= trailer {
            let sum = crc32c::crc32c(&bytes[first..trailer]);
            bytes[trailer + 20..trailer + 24].copy_from_slice(&sum.to_le_bytes());
        }
        put(bytes, trailer, trailer + 28, number);
    }
}

/// Changes a file, and mends its checksums or does not.
fn change(vfs: &CrashVfs, path: &Path, input: &mut Input<'_>, forged: bool) {
    let file = vfs.open(path).expect("the file is there");
    let length = file.len().expect("it has a length");
    let mut bytes = vec![0; usize::try_from(length).expect("it is short")];
    file.read_exact_at(&mut bytes, 0).expect("it is read");
    let at = usize::from(input.u16()) % bytes.len().max(1);
    let mended = match input.below(4) {
        0 => {
            let cut = file.set_len(at as u64);
            return cut.expect("it can be cut");
        }
        kind => kind > 1,
    };
    let length = usize::from(input.below(16)) + 1;
    let new = input.take(length);
    let end = (at + new.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&new[..end - at]);
    if mended {
        mend(path, &mut bytes, forged);
    }
    file.write_all_at(&bytes, 0).expect("it is written");
}

fn read(reel: &mut Reel) {
    let mut buffer = vec![0; 4096];
    if reel.locate(0).is_err() {
        return;
    }
    for _ in 0..OBJECTS_MAX {
        match reel.read(&mut buffer) {
            Ok(store::Object::EndOfData) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Everything that a store can be asked.
fn use_all(store: &Store) {
    for info in store.all_generations() {
        if let Ok(mut reader) = store.reader(info.id) {
            let _ = reader.verify();
            read(&mut reader);
        }
        if let Ok(recipe) = store.recipe(info.id) {
            recipe.chunks(0).take(OBJECTS_MAX).for_each(drop);
            recipe.runs(0).take(OBJECTS_MAX).for_each(drop);
        }
        for base in [None, info.parent] {
            let _ = store.compare(info.id, base).map(|all| all.take(OBJECTS_MAX).for_each(drop));
        }
    }
    for n in 1..3 {
        if let Ok(mut image) = store.image(cartridge(n)) {
            read(&mut image);
            let _ = image.write(b"one more").and_then(|()| image.seal());
        }
    }
}

/// A store of which some files were changed.
fn changed(input: &mut Input<'_>, forged: bool) -> Option<Store> {
    let (vfs, files) = furnished();
    let vfs = vfs.crash(CrashMode::KeepAll, 0);
    for _ in 0..CHANGES_MAX {
        if input.is_over() {
            break;
        }
        let path = input.pick(files);
        change(&vfs, path, input, forged);
    }
    open(&vfs)
}

fn damaged(input: &mut Input<'_>) {
    if let Some(store) = changed(input, false) {
        use_all(&store);
    }
}

/// A disk that somebody else had: what is taken from it is whole and can be read.
fn carried(input: &mut Input<'_>) {
    let Some(from) = changed(input, true) else { return };
    let to = open(&CrashVfs::new()).expect("a new store");
    for info in from.all_generations() {
        let Ok((mut import, _)) = to.bring(&from, info.id, &mut |_| true) else { continue };
        let Ok(committed) = import.commit() else { continue };
        let mut reader = to.reader(committed.id).expect("it is there");
        assert_eq!(reader.verify().expect("it is whole"), committed.bytes);
        read(&mut reader);
        to.recipe(committed.id).expect("it is there").digest().expect("it is whole");
    }
}

/// A peer's chunks and recipe.
fn sent(input: &mut Input<'_>) {
    let vfs = furnished().0.crash(CrashMode::KeepAll, 0);
    let store = open(&vfs).expect("it is sound");
    let Some(info) = GenerationInfo::from_bytes(&{
        let mut bytes = [0; GenerationInfo::LENGTH];
        let taken = input.take(GenerationInfo::LENGTH);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }) else {
        return;
    };
    assert_eq!(GenerationInfo::from_bytes(&info.to_bytes()), Some(info));
    let Ok(mut import) = store.import(info) else { return };
    for _ in 0..64 {
        if input.is_over() {
            break;
        }
        let len = input.number() as u32;
        match input.below(6) {
            0 => {
                let digest = Digest([input.below(3); 32]);
                let encoding = if input.flag() { Encoding::Zstd } else { Encoding::Raw };
                let stored = input.block(true);
                // Nobody finds bytes that hash to this.
                assert!(store.put_stored_chunk(&digest, encoding, len, stored).is_err());
            }
            1 => {
                let digest = Digest([input.below(3); 32]);
                let _ = import.append_chunk(ChunkRef { digest, len });
            }
            2 => {
                let from = store.all_generations();
                let from = from.get(usize::from(input.below(3))).map(|info| info.id);
                let (first, count) = (input.number(), input.number());
                let _ = from.map(|from| import.append_run(from, first, count));
            }
            3 => {
                let count = input.number();
                let run = match input.flag() {
                    true => ObjectRun::Filemarks { count },
                    false => ObjectRun::Records { size: len, count },
                };
                let _ = import.append_objects(run);
            }
            4 => drop(import.append_again(input.number(), input.number().min(1 << 16))),
            _ => drop(import.missing(100)),
        }
    }
    if import.commit().is_ok() {
        use_all(&store);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => sent(&mut input),
        1 => carried(&mut input),
        _ => damaged(&mut input),
    }
});
