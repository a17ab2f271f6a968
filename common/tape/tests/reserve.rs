//! Drives that are reserved while they are used: two hosts at the embedded library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::CartridgeSet;
use scsi::Sense;
use tape::driver::{Data, LocalTransport, ReservationKey, ScsiChanger, ScsiDrive, ScsiTransport};
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::{Control, MediumChanger, TapeDrive, TapeError, WriteEnd};
use vfs::{CrashVfs, Vfs};

const CONFLICT: TapeError = TapeError::ReservationConflict;

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn library() -> FileLibrary {
    let spec = FileLibrarySpec {
        name: "ptl0".into(),
        drives: 1,
        slots: 2,
        import_export: 0,
        capacity: 64 << 20,
        early_warning: None,
        barcodes: CartridgeSet { prefix: "PTA".into(), count: 1 }.barcodes().unwrap(),
    };
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let library = FileLibrary::open(vfs, Path::new("/ptl0"), &spec).unwrap();
    let mut changer = library.changer(1, &control()).unwrap();
    changer.inventory(&control()).unwrap();
    changer.move_medium(1024, 128, &control()).unwrap();
    library
}

/// The drive as another initiator, reserved by the key of this host.
fn drive(library: &FileLibrary, nexus: u64, host: &str) -> ScsiDrive<LocalTransport> {
    let transport = library.drive_transport(0, nexus).unwrap();
    let drive = ScsiDrive::open(transport, &control()).unwrap();
    let mut drive = drive.reserving(ReservationKey::of(host));
    drive.ready(&control()).unwrap();
    drive
}

/// PERSISTENT RESERVE OUT by hand, passing over unit attentions.
fn reserve_out(way: &mut LocalTransport, action: u8, kind: u8, keys: [u64; 2]) -> u8 {
    let keys = keys.map(u64::to_be_bytes).concat();
    let list = [&keys[..], &[0; 8]].concat();
    loop {
        let cdb = [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
        let done = way.execute(&cdb, Data::Out(&list), Duration::from_secs(5)).unwrap();
        if done.status != 0x02 {
            return done.status;
        }
        assert!(Sense::parse(&done.sense).unwrap().is_unit_attention());
    }
}

#[test]
fn a_reserved_drive_is_its_users_until_he_lets_it_go() {
    let library = library();
    let mut ours = drive(&library, 2, "hq");
    assert_eq!(ours.write(b"ours", &control()), Ok(WriteEnd::Written));
    let mut theirs = drive(&library, 3, "dr");
    assert_eq!(theirs.write(b"theirs", &control()), Err(CONFLICT));
    assert_eq!(theirs.rewind(&control()), Err(CONFLICT));
    assert_eq!(theirs.position(&control()).map(drop), Err(CONFLICT));
    // Somebody who reserves nothing is kept out as well.
    let plain = library.drive_transport(0, 4).unwrap();
    let mut plain = ScsiDrive::open(plain, &control()).unwrap();
    plain.ready(&control()).unwrap();
    assert_eq!(plain.write(b"plain", &control()), Err(CONFLICT));
    assert_eq!(ours.write_filemarks(1, &control()), Ok(WriteEnd::Written));
    assert_eq!(ours.position(&control()).unwrap().object, 2);
    drop(ours);
    assert_eq!(theirs.write(b"theirs", &control()), Ok(WriteEnd::Written));
    assert_eq!(plain.rewind(&control()), Err(CONFLICT));
}

#[test]
fn a_reservation_of_an_earlier_run_is_taken_over_and_a_foreign_one_is_not() {
    let library = library();
    // What is left of a run that crashed: its initiator holds the drive and never comes back.
    drop(drive(&library, 2, "hq"));
    let mut left = drive(&library, 3, "hq");
    left.write(b"before", &control()).unwrap();
    let mut ours = drive(&library, 4, "hq");
    ours.rewind(&control()).unwrap();
    assert_eq!(ours.write(b"after", &control()), Ok(WriteEnd::Written));
    // The old one is told, and is out.
    let told = left.write(b"late", &control());
    assert!(matches!(told, Err(TapeError::Check(sense)) if sense.is_unit_attention()), "{told:?}");
    drop(ours);

    let mut other = library.drive_transport(0, 5).unwrap();
    assert_eq!(reserve_out(&mut other, 6, 0, [0, 77]), 0);
    assert_eq!(reserve_out(&mut other, 1, 3, [77, 0]), 0);
    let mut ours = drive(&library, 6, "hq");
    assert_eq!(ours.rewind(&control()), Err(CONFLICT));
    assert_eq!(reserve_out(&mut other, 2, 3, [77, 0]), 0);
    assert_eq!(ours.rewind(&control()), Ok(()));
    // Taken away by force: told, and not taken back by force.
    let our_key = {
        let mut data = [0; 24];
        let cdb = [0x5e, 1, 0, 0, 0, 0, 0, 0, 24, 0];
        other.execute(&cdb, Data::In(&mut data), Duration::from_secs(5)).unwrap();
        u64::from_be_bytes(*data[8..].first_chunk().unwrap())
    };
    assert_eq!(reserve_out(&mut other, 4, 3, [77, our_key]), 0);
    let told = ours.write(b"stolen", &control());
    assert_eq!(told, Err(TapeError::Check(Sense::REGISTRATIONS_PREEMPTED)));
    assert_eq!(ours.write(b"stolen", &control()), Err(CONFLICT));
}

#[test]
fn the_changer_unloads_what_its_engine_has_reserved() {
    let library = library();
    let mut ours = drive(&library, 2, "hq");
    ours.write(b"ours", &control()).unwrap();
    let changer = |nexus, host| {
        let changer = ScsiChanger::open(library.changer_transport(nexus), &control()).unwrap();
        let way = library.drive_transport(0, nexus + 1).unwrap();
        let changer = changer.with_drive(128, way).reserving(ReservationKey::of(host));
        let mut changer = changer;
        changer.inventory(&control()).unwrap();
        changer
    };
    changer(10, "hq").move_medium(128, 1024, &control()).unwrap();
    changer(20, "hq").move_medium(1024, 128, &control()).unwrap();
    // It is still reserved, for nobody but us.
    let mut theirs = drive(&library, 3, "dr");
    assert_eq!(theirs.rewind(&control()), Err(CONFLICT));
}
