//! The bytes of every file, pinned: what is on disk somewhere must stay readable, so these digests
//! change only together with a version number.

use std::path::Path;
use std::sync::Arc;

use model::{CartridgeId, GenerationId, Ulid};
use vfs::{CrashVfs, Vfs, read_all};

use crate::container::golden as container;
use crate::journal::golden as journal;
use crate::testing::{Random, digest_of};
use crate::{ChunkParams, ChunkRef, GenerationInfo, Import, ObjectRun, Options, Store};

fn short(bytes: &[u8]) -> String {
    digest_of(bytes).to_string()[..16].to_owned()
}

#[test]
fn containers_and_journals_keep_their_form() {
    assert_eq!(short(&container()), "b2ce86829efc4b00");
    assert_eq!(short(&journal()), "750ba93ac2dae94f");
}

/// A recipe of two pages of chunks, of fixed ids.
#[test]
fn recipes_keep_their_form() {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let (store, _) = Store::open(vfs.clone(), Path::new("/s"), &Options::default()).unwrap();
    let id = GenerationId(Ulid::from_parts(1_000, 2));
    let cartridge = CartridgeId(Ulid::from_parts(3, 4));
    let (unique_bytes, stored_bytes) = (11, 12);
    let info = GenerationInfo {
        id,
        cartridge,
        parent: None,
        created_ms: 1_000,
        objects: 102,
        filemarks: 2,
        bytes: 1_000,
        chunks: 100,
        unique_bytes,
        stored_bytes,
    };
    assert_eq!(GenerationInfo::from_bytes(&info.to_bytes()), Some(info));
    let mut import: Import = store.import(info).unwrap();
    let mut random = Random::new(1);
    for _ in 0..100 {
        let raw = random.bytes(10);
        let digest = digest_of(&raw);
        store.put_stored_chunk(&digest, crate::Encoding::Raw, 10, &raw).unwrap();
        import.append_chunk(ChunkRef { digest, len: 10 }).unwrap();
    }
    import.append_objects(ObjectRun::Records { size: 10, count: 100 }).unwrap();
    import.append_objects(ObjectRun::Filemarks { count: 2 }).unwrap();
    import.commit().unwrap();
    let path = Path::new("/s/recipes").join(format!("{id}.recipe"));
    let recipe = read_all(vfs.as_ref(), &path, 1 << 20).unwrap();
    assert_eq!((recipe.len(), short(&recipe).as_str()), (5 * 4096, "040b2691cc3786f2"));
}

/// The header, of stores from before there were rules to choose from as well.
#[test]
fn headers_of_stores_with_any_rules_keep_their_form() {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let rules = [
        (cut::Rules::Plain, "f28434a271dc60d9"),
        (cut::Rules::Tar, "0613c0a700ce7858"),
        (cut::Rules::Archives, "6010b116860c00ed"),
    ];
    for (rules, golden) in rules {
        let dir = Path::new("/").join(format!("{rules:?}"));
        let chunk = ChunkParams { rules, ..ChunkParams::default() };
        let options = Options { chunk, ..Options::default() };
        drop(Store::open(vfs.clone(), &dir, &options).unwrap());
        let header = read_all(vfs.as_ref(), &dir.join("store.header"), 1 << 20).unwrap();
        assert_eq!((header.len(), short(&header).as_str()), (4096 + 64, golden), "{rules:?}");
        let (store, _) = Store::open(vfs.clone(), &dir, &Options::default()).unwrap();
        assert_eq!(store.options().chunk, chunk, "it keeps its own");
    }
}
