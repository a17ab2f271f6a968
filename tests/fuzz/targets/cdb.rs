//! CDBs: reading and writing them, and a library and its drives that answer whatever they are sent.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::{Barcode, ElementMap};
use scsi::{Cdb, DeviceType};
use tape::target::{
    Answer, DriveSpec, LibrarySpec, MemoryInventory, MemoryMedium, MemoryShelf, TargetLibrary,
    Transfer,
};
use tape::{Control, DeviceIdentity};

/// Commands of one input.
const COMMANDS_MAX: usize = 64;
/// Room for data of a command.
const ROOM: usize = 70_000;

fn identity(serial: &str) -> DeviceIdentity {
    DeviceIdentity {
        vendor: "TWINREEL".into(),
        product: "ULTRIUM-TD8".into(),
        revision: "0001".into(),
        serial: serial.into(),
    }
}

/// Two drives with a tape each, five slots, two import/export elements.
fn library() -> TargetLibrary<MemoryMedium> {
    let shelf = MemoryShelf::new();
    let names = ["T00001L8", "T00002L8", "T00003L8"].map(|name| Barcode::new(name).expect("one"));
    names.iter().for_each(|name| shelf.add(name, 20_000));
    let drive = |index: u16| DriveSpec {
        index,
        identity: identity(&format!("TESTDRIVE{index}")),
        early_warning: Some(5_000),
        power_on_attention: false,
    };
    let spec = LibrarySpec {
        identity: identity("TESTCHG001"),
        map: ElementMap::with_counts(2, 5, 2),
        drives: vec![drive(0), drive(1)],
        cartridges: names.to_vec(),
        power_on_attention: false,
    };
    let inventory = Box::new(MemoryInventory::default());
    let mut library = TargetLibrary::open(spec, Arc::new(shelf), inventory).expect("a library");
    for (source, destination) in [(1024, 128), (1025, 129)] {
        let load = Cdb::MoveMedium { transport: 0, source, destination, invert: false };
        let loaded = library.execute_cdb(1, &load.encode(), Transfer::None, &control());
        assert_eq!(loaded.expect("it is loaded").status, 0);
    }
    library
}

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

/// A command that exists, with legal bits or with any, or no command at all.
fn cdb(input: &mut Input<'_>, kind: DeviceType) -> Vec<u8> {
    let how = input.below(8);
    if how == 0 {
        let length = input.below(20);
        return input.take(length.into()).to_vec();
    }
    let commands: Vec<_> = scsi::commands(kind).collect();
    let command = input.pick(&commands);
    let mut cdb = command.usage.to_vec();
    let noise = input.take(cdb.len() - 1);
    cdb[1..].fill(0);
    for ((byte, noise), usage) in cdb[1..].iter_mut().zip(noise).zip(&command.usage[1..]) {
        *byte = if how == 1 { *noise } else { noise & usage };
    }
    if let Some(action) = command.service_action() {
        cdb[1] = cdb[1] & !0x1f | action;
    }
    cdb
}

fn lead_back(kind: DeviceType, cdb: &[u8]) {
    if let Ok(parsed) = Cdb::parse(kind, cdb) {
        let again = parsed.encode();
        assert_eq!(Cdb::parse(kind, &again), Ok(parsed), "{cdb:02x?} {again:02x?}");
    }
}

/// What holds for every answer.
fn check(cdb: &[u8], answer: &Answer, expected: usize) {
    assert!(answer.moved <= expected, "{cdb:02x?}: {answer:?}");
    assert_eq!(answer.status == 2, answer.sense.is_some(), "{cdb:02x?}: {answer:?}");
    if let Some(sense) = answer.sense {
        assert!(scsi::Sense::parse(&sense.to_fixed()).is_some(), "{sense:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut library = library();
    let mut room = vec![0; ROOM];
    for _ in 0..COMMANDS_MAX {
        if input.is_over() {
            break;
        }
        let unit = input.below(4);
        let kind = if unit == 0 { DeviceType::Changer } else { DeviceType::Tape };
        let nexus = 1 + u64::from(input.below(3));
        let cdb = cdb(&mut input, kind);
        lead_back(kind, &cdb);
        let (data, expected) = match input.below(4) {
            0 => (None, 0),
            1 => (None, usize::from(input.u16())),
            _ => {
                let data = input.block(false);
                (Some(data), data.len())
            }
        };
        let transfer = match data {
            Some(data) => Transfer::Out(data),
            None if expected == 0 => Transfer::None,
            None => Transfer::In(&mut room[..expected]),
        };
        let answer = match unit {
            0 => library.execute_cdb(nexus, &cdb, transfer, &control()),
            _ => {
                let drive = library.drives().nth((unit % 2).into()).expect("there are two");
                let mut drive = drive.lock().expect("nobody panicked");
                drive.execute_cdb(nexus, &cdb, transfer, &control())
            }
        };
        if let Ok(answer) = answer {
            check(&cdb, &answer, expected);
        }
    }
});
