//! A virtual tape whose content was migrated away, seen by the host of its library.

use std::sync::Arc;
use std::time::Duration;

use model::LibraryName;
use svs::{MapPolicy, MediumRef, MigrationEntry, Verified};
use tape::{Control, ReadEnd, WriteEnd};

use crate::device::{Device, Opener};
use crate::engine::{self, Engine};
use crate::mounting;
use crate::mover::EngineDrive;
use crate::testing::config;

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn opener() -> Opener {
    Opener { nexus: 77, who: "a test".into() }
}

/// Two virtual libraries: vtl0 with VTA001L8 and so on, vtl1 with VTB001L8 and so on.
fn open(dir: &std::path::Path) -> Arc<Engine> {
    let more = "[[virtual_library]]\nname = \"vtl1\"\ndrives = 2\nslots = 4\nimport_export = 0\n\
                capacity = \"4MB\"\ncartridges = { prefix = \"VTB\", count = 2 }\n";
    let config = config(dir, more);
    std::fs::create_dir_all(&config.site.state_dir).unwrap();
    engine::open(config).unwrap()
}

fn serial(engine: &Engine, library: &str) -> String {
    let name = LibraryName::new(library).unwrap();
    let mut all = engine.ground.registry.libraries().into_iter();
    all.find(|it| *it.name() == name).unwrap().view().unwrap().identity.serial
}

fn medium(engine: &Engine, library: &str, volser: &str) -> MediumRef {
    format!("lib {} tape {volser}", serial(engine, library)).parse().unwrap()
}

fn carry(engine: &Engine, library: &str, from: u16, to: u16) {
    let name = format!("{library}/changer");
    let (_claim, device) = engine.ground.registry.open_scsi(&name, &opener(), &control()).unwrap();
    let Device::Changer(mut changer) = device else { panic!("no changer") };
    changer.move_medium(from, to, &control()).unwrap();
}

fn drive(engine: &Engine, name: &str) -> (crate::device::Claim, Box<dyn EngineDrive>) {
    let (claim, mut drive) = engine.ground.registry.open_tape(name, &opener(), &control()).unwrap();
    mounting::past_attentions(|| drive.position(&control())).unwrap();
    (claim, drive)
}

/// The first bytes of the records from the beginning.
fn first_bytes(drive: &mut dyn EngineDrive) -> Vec<u8> {
    drive.rewind(&control()).unwrap();
    let (mut found, mut buffer) = (Vec::new(), vec![0; 100]);
    while let ReadEnd::Record { .. } = drive.read(&mut buffer, &control()).unwrap() {
        found.push(buffer[0]);
    }
    found
}

#[test]
fn a_migrated_tape_is_served_by_its_own_library_from_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    carry(&engine, "vtl1", 1024, 128);
    {
        let (_claim, mut drive) = drive(&engine, "vtl1/drive0");
        for byte in [1, 2, 3] {
            assert_eq!(drive.write(&[byte; 50], &control()).unwrap(), WriteEnd::Written);
        }
        drive.write_filemarks(0, &control()).unwrap();
    }
    carry(&engine, "vtl1", 128, 1024);
    let (source, target) =
        (medium(&engine, "vtl0", "VTA001L8"), medium(&engine, "vtl1", "VTB001L8"));
    let catalogue = &engine.ground.catalogue;
    let entry = MigrationEntry::new(source.clone(), target.clone(), MapPolicy::Always);
    catalogue.put_migration_entry(&entry).unwrap();
    assert!(catalogue.moved(&source, 0, Verified::Position).unwrap());
    catalogue.set_freed(&source).unwrap();

    carry(&engine, "vtl0", 1024, 128);
    {
        let (_claim, mut drive) = drive(&engine, "vtl0/drive0");
        assert_eq!(first_bytes(drive.as_mut()), [1, 2, 3]);
        assert_eq!(drive.medium_name(), "vtl0/VTA001L8");
        assert!(drive.reference_source().is_none() && drive.range_target().is_none());
        drive.write(&[4; 50], &control()).unwrap();
        drive.write_filemarks(0, &control()).unwrap();
        assert!(engine.ground.registry.holder(&"vtl1/drive0".parse().unwrap()).is_some());
    }
    carry(&engine, "vtl0", 128, 1024);
    assert!(engine.ground.registry.holder(&"vtl1/drive0".parse().unwrap()).is_none());
    // It was written where it is, and is still found there.
    assert_eq!(catalogue.places(&source).unwrap().primary, target);
    carry(&engine, "vtl1", 1024, 128);
    let (_claim, mut drive) = drive(&engine, "vtl1/drive0");
    assert_eq!(first_bytes(drive.as_mut()), [1, 2, 3, 4]);
}
