//! Several writers and readers of one store at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;

use store::{Options, Store};
use support::{Random, cartridge, read_all, write};
use vfs::RealVfs;

#[test]
fn writers_and_readers_do_not_disturb_each_other() {
    let seed = support::seed(12);
    let dir = tempfile::tempdir().unwrap();
    let options = Options { container_bytes: 1 << 20, ..Options::default() };
    let (store, _) = Store::open(Arc::new(RealVfs), dir.path(), &options).unwrap();
    let handles: Vec<_> = (0..4)
        .map(|n| {
            let store = store.clone();
            std::thread::spawn(move || {
                // Two writers each write the same, so that they race for the same chunks.
                let mut random = Random::new(seed + n / 2);
                let mut image = store.image(cartridge(n)).unwrap();
                let mut items = Vec::new();
                let mut sealed = Vec::new();
                for _ in 0..8 {
                    for _ in 0..20 {
                        let item = (random.below(9) > 0).then(|| random.record(60_000));
                        write(&mut image, &item).unwrap();
                        items.push(item);
                    }
                    image.flush().unwrap();
                    if random.below(2) == 0 {
                        let id = image.seal().unwrap().unwrap();
                        let read = read_all(&mut store.reader(id).unwrap()).unwrap();
                        assert!(read == items, "TWINREEL_SEED={seed} writer {n}");
                        sealed.push((id, items.len()));
                    }
                }
                (items, sealed)
            })
        })
        .collect();
    let written: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
    drop(store);
    let (store, report) = Store::open(Arc::new(RealVfs), dir.path(), &options).unwrap();
    assert_eq!(report.damage, []);
    for (n, (items, sealed)) in written.iter().enumerate() {
        for (id, len) in sealed {
            let read = read_all(&mut store.reader(*id).unwrap()).unwrap();
            assert!(read == items[..*len], "TWINREEL_SEED={seed} cartridge {n}");
        }
        let mut image = store.image(cartridge(n as u64)).unwrap();
        assert!(read_all(&mut image).unwrap() == *items, "TWINREEL_SEED={seed} cartridge {n}");
    }
    assert!(dir.path().join("containers/00000002.container").exists());
    assert!(!Path::new("store").exists());
}
