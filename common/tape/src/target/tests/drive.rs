//! The rules of SSC-4, one by one.

use scsi::{Destination, PositionForm, PositionReport, SpaceCode};

use super::*;
use crate::{ReadEnd, SpaceKind, TapeDrive, TapeError, WriteEnd};

fn read(drive: &mut Drive, sili: bool, length: u32) -> Ended {
    ask(drive, Cdb::Read { fixed: false, sili, length }, length as usize)
}

#[test]
fn variable_reads_say_how_long_the_block_was() {
    let (mut drive, _) = loaded(1 << 20);
    for (sili, length, sense, moved) in [
        (false, 1000, None, 1000),
        (false, 1500, Some(Sense::INCORRECT_LENGTH.with_information(500)), 1000),
        (true, 1500, None, 1000),
        (false, 600, Some(Sense::INCORRECT_LENGTH.with_information(-400)), 600),
        (true, 600, None, 600),
    ] {
        rewind(&mut drive);
        write(&mut drive, &[7; 1000]);
        rewind(&mut drive);
        let ended = read(&mut drive, sili, length);
        assert_eq!((ended.sense, ended.data.len()), (sense, moved), "{sili} {length}");
        assert_eq!(ended.residual, i64::from(length) - moved as i64);
        assert!(ended.data.iter().all(|byte| *byte == 7));
        // Whatever was said, the block was passed.
        let next = read(&mut drive, false, 10);
        assert_eq!(next.sense(), Sense::END_OF_DATA.with_information(10));
    }
}

#[test]
fn filemarks_and_the_end_of_data_stop_reads() {
    let (mut drive, _) = loaded(1 << 20);
    filemarks(&mut drive, 1);
    rewind(&mut drive);
    assert_eq!(read(&mut drive, false, 0).status, 0);
    let ended = read(&mut drive, false, 4096);
    assert_eq!(ended.sense(), Sense::FILEMARK_DETECTED.with_information(4096));
    assert_eq!((ended.data.len(), ended.residual), (0, 4096));
    for _ in 0..2 {
        assert_eq!(read(&mut drive, true, 9).sense(), Sense::END_OF_DATA.with_information(9));
    }
}

fn set_block_length(drive: &mut Drive, length: u32) -> Answer {
    let block = scsi::mode::BlockDescriptor { density: 0, blocks: 0, length };
    let list = scsi::mode::ModeParameters {
        device_specific: 0x10,
        block: Some(block),
        ..Default::default()
    };
    let form = scsi::ModeForm::Six;
    let list = list.encode_select(form);
    send(drive, Cdb::ModeSelect { form, length: list.len() as u16 }, &list)
}

#[test]
fn fixed_transfers_count_blocks() {
    let (mut drive, shelf) = loaded(1 << 20);
    let fixed = |length| Cdb::Read { fixed: true, sili: false, length };
    assert_eq!(ask(&mut drive, fixed(1), 10).sense(), Sense::bad_cdb_field(1, Some(0)));
    assert_eq!(set_block_length(&mut drive, 100).status, 0);
    let data: Vec<u8> = (0..=255).cycle().take(300).collect();
    assert_eq!(send(&mut drive, Cdb::Write { fixed: true, length: 3 }, &data).moved, 300);
    write(&mut drive, &[9; 50]);
    filemarks(&mut drive, 1);
    assert_eq!(shelf.tape(&barcode("T00001L8")).unwrap().objects.len(), 5);
    rewind(&mut drive);

    let all = ask(&mut drive, fixed(3), 300);
    assert_eq!((all.status, all.data, all.residual), (0, data.clone(), 0));
    rewind(&mut drive);
    let short = ask(&mut drive, fixed(5), 500);
    assert_eq!(short.sense(), Sense::INCORRECT_LENGTH.with_information(2));
    assert_eq!((short.data, short.residual), (data, 200));
    let mark = ask(&mut drive, fixed(2), 200);
    assert_eq!(mark.sense(), Sense::FILEMARK_DETECTED.with_information(2));
    let end = ask(&mut drive, fixed(2), 200);
    assert_eq!(end.sense(), Sense::END_OF_DATA.with_information(2));
    assert_eq!(ask(&mut drive, fixed(3), 299).sense(), Sense::bad_cdb_field(2, None));
    rewind(&mut drive);
    let verified = ask(&mut drive, Cdb::Verify { immediate: false, fixed: true, length: 9 }, 0);
    assert_eq!(verified.sense(), Sense::INCORRECT_LENGTH.with_information(6));
}

#[test]
fn early_warning_writes_and_overflow_does_not() {
    let (mut drive, shelf) = loaded(1000);
    assert_eq!(write(&mut drive, &[1; 800]).status, 0);
    let warned = write(&mut drive, &[2; 100]);
    assert_eq!(warned.sense, Some(Sense::EARLY_WARNING.with_information(0)));
    assert_eq!((warned.moved, warned.residual), (100, 0));
    let mark = ask(&mut drive, Cdb::WriteFilemarks { immediate: false, count: 1 }, 0);
    assert!(mark.sense().is(Sense::EARLY_WARNING) && mark.sense().eom);
    assert!(write(&mut drive, &[3; 60]).sense.unwrap().is(Sense::EARLY_WARNING));
    let full = write(&mut drive, &[4; 50]);
    assert_eq!(full.sense, Some(Sense::VOLUME_OVERFLOW.with_information(50)));
    assert_eq!((full.moved, full.residual), (0, 50));
    assert!(write(&mut drive, &[5; 40]).sense.unwrap().is(Sense::EARLY_WARNING));
    // Trailers go on after the end, or no volume could be closed.
    assert!(ask(&mut drive, Cdb::WriteFilemarks { immediate: false, count: 2 }, 0).sense().eom);
    assert_eq!(shelf.tape(&barcode("T00001L8")).unwrap().objects.len(), 7);

    let position = |drive: &mut Drive| {
        let form = PositionForm::Long;
        let data = ask(drive, Cdb::ReadPosition { form, allocation: 0 }, 64).data;
        PositionReport::parse(&data, form).unwrap()
    };
    assert!(position(&mut drive).at_end && !position(&mut drive).at_bot);
    rewind(&mut drive);
    assert!(!position(&mut drive).at_end && position(&mut drive).at_bot);
    assert_eq!(write(&mut drive, &[6; 10]).status, 0);
    assert_eq!(shelf.tape(&barcode("T00001L8")).unwrap().objects.len(), 1);
}

#[test]
fn fixed_writes_say_how_many_blocks_did_not_fit() {
    let (mut drive, _) = loaded(1000);
    set_block_length(&mut drive, 300);
    let full = send(&mut drive, Cdb::Write { fixed: true, length: 5 }, &[0; 1500]);
    assert_eq!(full.sense, Some(Sense::VOLUME_OVERFLOW.with_information(2)));
    assert_eq!((full.moved, full.residual), (900, 600));
}

#[test]
fn spacing_stops_on_the_right_side_with_a_residue() {
    let (mut drive, _) = loaded(1 << 20);
    for _ in 0..3 {
        write(&mut drive, b"x");
    }
    filemarks(&mut drive, 2);
    let object = |drive: &mut Drive| drive.medium().unwrap().object();
    let mut space = |code, count| {
        let ended = ask(&mut drive, Cdb::Space { code, count }, 0);
        (ended.sense, object(&mut drive))
    };
    use SpaceCode::{Blocks, EndOfData, Filemarks};
    let marked = |left| Some(Sense::FILEMARK_DETECTED.with_information(left));
    assert_eq!(space(Blocks, -1), (marked(1), 4));
    assert_eq!(space(Filemarks, -1), (None, 3));
    assert_eq!(space(Blocks, -2), (None, 1));
    let at_bot = Some(Sense::BEGINNING_OF_MEDIUM.with_information(3));
    assert_eq!(space(Blocks, -4), (at_bot, 0));
    assert_eq!(space(Blocks, 5), (marked(2), 4));
    assert_eq!(space(Blocks, 0), (None, 4));
    let at_end = |left| Some(Sense::END_OF_DATA.with_information(left));
    assert_eq!(space(Filemarks, 3), (at_end(2), 5));
    assert_eq!(
        space(Filemarks, -0x90_0000),
        (Some(Sense::BEGINNING_OF_MEDIUM.with_information(0x90_0000 - 2)), 0)
    );
    assert_eq!(space(EndOfData, 0), (None, 5));
    assert_eq!(space(Blocks, 1), (at_end(1), 5));
}

#[test]
fn locate_goes_to_objects_files_and_the_end() {
    let (mut drive, _) = loaded(1 << 20);
    for _ in 0..2 {
        write(&mut drive, b"x");
        filemarks(&mut drive, 1);
    }
    let mut locate = |destination| {
        let cdb = Cdb::Locate { immediate: false, partition: None, destination };
        let sense = ask(&mut drive, cdb, 0).sense;
        (sense, drive.medium().unwrap().object(), drive.medium().unwrap().file())
    };
    assert_eq!(locate(Destination::Object(3)), (None, 3, 1));
    assert_eq!(locate(Destination::File(1)), (None, 2, 1));
    assert_eq!(locate(Destination::EndOfData), (None, 4, 2));
    assert_eq!(locate(Destination::Object(0)), (None, 0, 0));
    assert_eq!(locate(Destination::Object(5)), (Some(Sense::END_OF_DATA), 4, 2));
    assert_eq!(locate(Destination::Object(1 << 40)), (Some(Sense::END_OF_DATA), 4, 2));
    assert_eq!(locate(Destination::File(3)), (Some(Sense::END_OF_DATA), 4, 2));
    let elsewhere =
        Cdb::Locate { immediate: false, partition: Some(1), destination: Destination::Object(0) };
    assert_eq!(ask(&mut drive, elsewhere, 0).sense(), Sense::bad_cdb_field(8, None));
}

#[test]
fn what_is_buffered_is_told_and_flushed() {
    let (mut drive, shelf) = loaded(1 << 20);
    let flushes = || shelf.tape(&barcode("T00001L8")).unwrap().flushed;
    write(&mut drive, b"abc");
    good(&mut drive, Cdb::WriteFilemarks { immediate: true, count: 1 });
    let form = PositionForm::Short;
    let position = |drive: &mut Drive| {
        let data = ask(drive, Cdb::ReadPosition { form, allocation: 0 }, 20).data;
        PositionReport::parse(&data, form).unwrap()
    };
    let told = position(&mut drive);
    assert_eq!((told.object, told.medium_object), (Some(2), Some(0)));
    assert_eq!((told.buffered_objects, told.buffered_bytes), (Some(2), Some(3)));
    assert_eq!(flushes(), 0);
    filemarks(&mut drive, 0);
    assert_eq!((flushes(), position(&mut drive).medium_object), (1, Some(2)));
    filemarks(&mut drive, 0);
    assert_eq!(flushes(), 1);
    write(&mut drive, b"abc");
    rewind(&mut drive);
    assert_eq!(flushes(), 2);
}

#[test]
fn protected_media_are_not_written() {
    let (mut drive, shelf) = loaded(1 << 20);
    shelf.alter(&barcode("T00001L8"), |tape| tape.write_protected = true);
    assert_eq!(write(&mut drive, b"abc").sense, Some(Sense::WRITE_PROTECTED));
    for cdb in [
        Cdb::WriteFilemarks { immediate: false, count: 1 },
        Cdb::Erase { long: true, immediate: false },
        Cdb::FormatMedium { immediate: false, verify: false, format: 0, length: 0 },
        Cdb::SetCapacity { immediate: false, proportion: 0xffff },
    ] {
        assert_eq!(ask(&mut drive, cdb, 0).sense(), Sense::WRITE_PROTECTED, "{cdb:?}");
    }
    // A flush writes nothing.
    filemarks(&mut drive, 0);
}

#[test]
fn erasing_cuts_and_formatting_wants_the_beginning() {
    let (mut drive, shelf) = loaded(1 << 20);
    let objects = || shelf.tape(&barcode("T00001L8")).unwrap().objects.len();
    for _ in 0..4 {
        write(&mut drive, b"x");
    }
    let format = |format| Cdb::FormatMedium { immediate: false, verify: false, format, length: 0 };
    assert_eq!(ask(&mut drive, format(0), 0).sense(), Sense::NOT_AT_BEGINNING_OF_MEDIUM);
    good(&mut drive, Cdb::Space { code: SpaceCode::Blocks, count: -2 });
    good(&mut drive, Cdb::Erase { long: false, immediate: false });
    assert_eq!(objects(), 2);
    rewind(&mut drive);
    assert_eq!(ask(&mut drive, format(1), 0).sense(), Sense::bad_cdb_field(2, Some(3)));
    let half = Cdb::SetCapacity { immediate: false, proportion: 0x7fff };
    assert_eq!(ask(&mut drive, half, 0).sense(), Sense::bad_cdb_field(3, None));
    assert_eq!(objects(), 2);
    good(&mut drive, format(0));
    assert_eq!(objects(), 0);
}

#[test]
fn load_and_unload_keep_the_cartridge() {
    let (mut drive, shelf) = loaded(1 << 20);
    let unload = Cdb::LoadUnload { immediate: false, action: 0 };
    let load = Cdb::LoadUnload { immediate: false, action: 1 };
    good(&mut drive, Cdb::TestUnitReady);
    raw(&mut drive, 2, &[0; 6], 0);
    good(&mut drive, Cdb::PreventAllow { prevent: true });
    assert_eq!(ask(&mut drive, unload, 0).sense(), Sense::MEDIUM_REMOVAL_PREVENTED);
    assert_eq!(drive.eject(), Err(Sense::MEDIUM_REMOVAL_PREVENTED));
    good(&mut drive, Cdb::PreventAllow { prevent: false });
    write(&mut drive, b"abc");
    good(&mut drive, unload);
    assert_eq!(shelf.tape(&barcode("T00001L8")).unwrap().closed, 1);
    assert_eq!(ask(&mut drive, Cdb::TestUnitReady, 0).sense(), Sense::MEDIUM_NOT_PRESENT);
    good(&mut drive, unload);
    let sense = ask(&mut drive, Cdb::RequestSense { descriptor: false, allocation: 18 }, 18);
    assert_eq!(Sense::parse(&sense.data), Some(Sense::MEDIUM_NOT_PRESENT));
    let both = Cdb::LoadUnload { immediate: false, action: 0b101 };
    assert_eq!(ask(&mut drive, both, 0).sense(), Sense::bad_cdb_field(4, Some(2)));
    good(&mut drive, load);
    assert_eq!(read(&mut drive, false, 3).data, b"abc");
    // The other initiator learns of it, once.
    assert_eq!(raw(&mut drive, 2, &[0; 6], 0).sense(), Sense::MEDIUM_MAY_HAVE_CHANGED);
    assert_eq!(raw(&mut drive, 2, &[0; 6], 0).status, 0);
    assert_eq!(drive.eject().unwrap(), barcode("T00001L8"));
    assert_eq!(ask(&mut drive, load, 0).sense(), Sense::MEDIUM_NOT_PRESENT);
    assert_eq!(drive.eject(), Err(Sense::SOURCE_ELEMENT_EMPTY));
}

#[test]
fn attention_then_reservation_then_readiness() {
    let mut spec = drive_spec(0);
    spec.power_on_attention = true;
    let mut drive = TargetDrive::new(spec, Arc::new(MemoryShelf::new()));
    assert_eq!(raw(&mut drive, 1, &[0x12, 0, 0, 0, 36, 0], 36).status, 0);
    assert_eq!(raw(&mut drive, 1, &[0x16, 0, 0, 0, 0, 0], 0).sense(), Sense::POWER_ON_RESET);
    assert_eq!(raw(&mut drive, 1, &[0x16, 0, 0, 0, 0, 0], 0).status, 0);
    assert_eq!(raw(&mut drive, 2, &[0; 6], 0).sense(), Sense::POWER_ON_RESET);
    assert_eq!(raw(&mut drive, 2, &[0; 6], 0).status, 0x18);
    assert_eq!(raw(&mut drive, 1, &[0; 6], 0).sense(), Sense::MEDIUM_NOT_PRESENT);
    let mut handle = DriveHandle::new(shared(drive), 2);
    assert_eq!(handle.rewind(&control()), Err(TapeError::ReservationConflict));
    handle.lock().reset();
    assert_eq!(handle.rewind(&control()), Err(Sense::POWER_ON_RESET.into()));
    assert_eq!(handle.rewind(&control()), Err(Sense::MEDIUM_NOT_PRESENT.into()));
    assert_eq!(handle.state(&control()).unwrap().medium, None);
}

#[test]
fn a_cartridge_that_can_not_be_threaded_says_why() {
    let shelf = MemoryShelf::new();
    let mut drive: Drive = TargetDrive::new(drive_spec(0), Arc::new(shelf.clone()));
    drive.insert(&barcode("T00001L8")).unwrap();
    assert_eq!(drive.insert(&barcode("T00001L8")), Err(Sense::DESTINATION_ELEMENT_FULL));
    assert_eq!(raw(&mut drive, 1, &[0; 6], 0).sense(), Sense::MEDIUM_NOT_PRESENT);
    shelf.add(&barcode("T00001L8"), 1000);
    good(&mut drive, Cdb::LoadUnload { immediate: false, action: 1 });
    good(&mut drive, Cdb::TestUnitReady);
}

#[test]
fn both_faces_see_one_state() {
    let drive = shared(loaded(1000).0);
    let mut one = DriveHandle::new(Arc::clone(&drive), 1);
    let mut two = DriveHandle::new(drive, 2);
    let c = control();
    assert_eq!(one.write(b"first", &c), Ok(WriteEnd::Written));
    assert_eq!(write(&mut two.lock(), b"second").status, 0);
    assert_eq!(two.write_filemarks(1, &c), Ok(WriteEnd::Written));
    let position = one.position(&c).unwrap();
    assert_eq!((position.object, position.file, position.buffered_objects), (3, 1, 0));
    assert_eq!(one.space(SpaceKind::Filemarks, -1, &c).unwrap().residual, 0);
    one.locate(0, &c).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(two.read(&mut buffer, &c), Ok(ReadEnd::Record { length: 5 }));
    assert_eq!(one.read(&mut buffer[..2], &c), Ok(ReadEnd::Record { length: 6 }));
    assert_eq!(one.read(&mut buffer, &c), Ok(ReadEnd::Filemark));
    assert_eq!(one.read(&mut buffer, &c), Ok(ReadEnd::EndOfData));
    assert_eq!(one.locate(9, &c), Err(Sense::END_OF_DATA.into()));
    assert_eq!(one.write(&[0; 880], &c), Ok(WriteEnd::Written));
    assert_eq!(one.write(&[0; 20], &c), Ok(WriteEnd::EarlyWarning));
    assert_eq!(one.write(&[0; 500], &c), Ok(WriteEnd::Overflow));
    let medium = one.state(&c).unwrap().medium.unwrap();
    assert_eq!((medium.capacity, medium.remaining), (Some(900), Some(0)));
    two.unload(&c).unwrap();
    assert_eq!(one.read(&mut buffer, &c), Err(Sense::MEDIUM_NOT_PRESENT.into()));
    two.load(&c).unwrap();
    assert_eq!(one.rewind(&c), Err(Sense::MEDIUM_MAY_HAVE_CHANGED.into()));
    assert_eq!(one.rewind(&c), Ok(()));
}

#[test]
fn planned_faults_come_to_pass() {
    let (mut drive, shelf) = loaded(1 << 20);
    let plan = "drive0 write 2 sense 03/0c/00\n* write 3 lost\ndrive1 write 1.. lost\n\
                drive0 flush 1 deferred 03/0c/00\n";
    drive.set_faults(&FaultPlan::parse(plan).unwrap());
    let mut handle = DriveHandle::new(shared(drive), 1);
    let c = control();
    assert_eq!(handle.write(b"1", &c), Ok(WriteEnd::Written));
    assert_eq!(handle.write(b"2", &c), Err(Sense::WRITE_ERROR.into()));
    assert_eq!(handle.write(b"3", &c), Err(TapeError::TimedOut));
    assert_eq!(handle.write(b"4", &c), Ok(WriteEnd::Written));
    let deferred = Sense { deferred: true, ..Sense::WRITE_ERROR };
    assert_eq!(handle.write_filemarks(0, &c), Err(deferred.into()));
    let objects = shelf.tape(&barcode("T00001L8")).unwrap().objects;
    let records = [b"1", b"3", b"4"].map(|r| TapeObject::Record(r.to_vec()));
    assert_eq!(objects, records);
    let cancelled = control();
    cancelled.cancel.cancel();
    assert_eq!(handle.write(b"5", &cancelled), Err(TapeError::Cancelled));
}

#[test]
fn a_new_cartridge_is_calibrated_with_progress_and_not_let_go_meanwhile() {
    let shelf = MemoryShelf::new();
    shelf.add(&barcode("T00001L8"), 1000);
    let mut drive = TargetDrive::new(drive_spec(0), Arc::new(shelf));
    drive.set_faults(&FaultPlan::parse("drive0 load 1 calibrate 4").unwrap());
    let ready = Cdb::TestUnitReady;
    // An initiator is known from its first command on, and told of what changes then.
    assert_eq!(ask(&mut drive, ready, 0).sense(), Sense::MEDIUM_NOT_PRESENT);
    drive.insert(&barcode("T00001L8")).unwrap();
    assert_eq!(ask(&mut drive, ready, 0).sense(), Sense::MEDIUM_MAY_HAVE_CHANGED);
    let becoming = |part| Sense::BECOMING_READY.with_progress(part);
    assert_eq!(ask(&mut drive, ready, 0).sense(), becoming(0));
    assert_eq!(ask(&mut drive, Cdb::Rewind { immediate: false }, 0).sense(), becoming(0x4000));
    assert_eq!(drive.eject(), Err(Sense::DRIVE_NOT_UNLOADED));
    // REQUEST SENSE tells it, and is no question of its own.
    for _ in 0..2 {
        let told = ask(&mut drive, Cdb::RequestSense { descriptor: false, allocation: 18 }, 18);
        assert_eq!(Sense::parse(&told.data), Some(becoming(0x8000)));
    }
    assert_eq!(ask(&mut drive, ready, 0).sense(), becoming(0x8000));
    assert_eq!(ask(&mut drive, ready, 0).sense(), becoming(0xc000));
    good(&mut drive, ready);
    // Once for each cartridge.
    drive.eject().unwrap();
    drive.insert(&barcode("T00001L8")).unwrap();
    assert_eq!(ask(&mut drive, ready, 0).sense(), Sense::MEDIUM_MAY_HAVE_CHANGED);
    good(&mut drive, ready);
}
