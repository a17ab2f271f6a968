//! The vectors against the embedded library. `examples/vectors.rs` runs the same list against
//! libraries of others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod list;
mod run;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use list::{List, Peer};
use model::CartridgeSet;
use run::Device;
use tape::Control;
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::physical::PhysicalLibrary;
use vfs::{CrashVfs, Vfs};

const TEXT: &str = include_str!("vectors.txt");

#[test]
fn the_embedded_library_answers_as_the_list_says() {
    let list = List::parse(TEXT).unwrap();
    let spec = FileLibrarySpec {
        name: "ptl0".into(),
        drives: 2,
        slots: 4,
        import_export: 1,
        capacity: 64 << 20,
        early_warning: None,
        barcodes: CartridgeSet { prefix: "PTA".into(), count: 3 }.barcodes().unwrap(),
    };
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let library = FileLibrary::open(vfs, Path::new("/ptl0"), &spec).unwrap();
    let control = Control::within(Duration::from_secs(60));
    let drive = library.open_drive(0, 1, &control).unwrap();
    let changer = Some(library.open_changer(1, &control).unwrap());
    let peer = Peer { name: "embedded".into(), ..Peer::default() };
    let failed = Device { drive, changer, peer }.run(&list);
    assert!(failed.is_empty(), "{} answers differ:\n{}", failed.len(), failed.join("\n"));
    assert!(list.cases.len() > 40, "only {} cases", list.cases.len());
    let none = list.cases.iter().flat_map(|case| &case.acts).any(|(_, act)| {
        matches!(act, list::Act::Ask(ask) if ask.others.iter().any(|(peer, ..)| peer == "embedded"))
    });
    assert!(!none, "the embedded library has to answer by the standard");
}

/// The page for people lists the same differences as the list has.
#[test]
fn every_difference_is_in_the_book() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocols/scsi-vectors.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = List::parse(TEXT).unwrap().differences();
    let missing: Vec<_> = rows.iter().filter(|row| !page.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "to be put into docs/protocols/scsi-vectors.md: {missing:#?}");
}

#[test]
fn a_wrong_line_is_named() {
    let wrong = "case a\n  > 00 = good\n  ~ b = c\n";
    assert_eq!(List::parse(wrong), Err("line 3: no other answer".to_owned()));
    assert_eq!(List::parse("write 3@1"), Err("line 1: before the first case".to_owned()));
    assert_eq!(List::parse("case a\nerase"), Err("line 2: nothing known".to_owned()));
}
