//! What the tests of the catalogue share.

use model::{Barcode, CartridgeId, GenerationId, JobId, LibraryName, SiteName};
use svs::{Cartridge, Catalogue, Generation, GenerationState, JobKind, JobOwner, NewJob};

/// A catalogue in a directory of its own.
pub(crate) fn catalogue() -> (tempfile::TempDir, Catalogue) {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(&dir.path().join("svs.db")).unwrap();
    (dir, catalogue)
}

/// An identifier that sorts by `n`.
pub(crate) fn job_id(n: u64) -> JobId {
    JobId(model::Ulid::from_parts(1_700_000_000_000 + n, u128::from(n)))
}

pub(crate) fn job(n: u64, kind: JobKind, owner: JobOwner) -> NewJob {
    NewJob::new(job_id(n), kind, owner, ("vtl0/VTA001L8", "dr-ptl0/PTA001L8"), "test")
}

pub(crate) fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

pub(crate) fn library(name: &str) -> LibraryName {
    LibraryName::new(name).unwrap()
}

pub(crate) fn cartridge(barcode: &str) -> Cartridge {
    Cartridge {
        id: CartridgeId::generate(1),
        site: site("hq"),
        library: library("vtl0"),
        barcode: Barcode::new(barcode).unwrap(),
        capacity: 1 << 30,
        write_protected: false,
        element: Some(1024),
        home: None,
    }
}

pub(crate) fn generation(cartridge: CartridgeId, number: u64) -> Generation {
    Generation {
        id: GenerationId::generate(number),
        cartridge,
        number,
        state: GenerationState::Open,
        records: 0,
        filemarks: 0,
        logical_bytes: 0,
        unique_bytes: 0,
    }
}
