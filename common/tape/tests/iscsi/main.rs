//! The way over iSCSI, driven as an engine drives it, to a target that makes trouble: no record is
//! ever doubled or lost, and what can not be known is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reservation;
mod spanning;
mod target;

use std::sync::Arc;
use std::time::Duration;

use iscsi::{Credentials, Digests, Secret};
use tape::driver::{
    Data, IscsiOptions, IscsiTransport, Portal, ScsiDrive, ScsiTransport, TransportError, discover,
};
use tape::physical::{Address, PhysicalLibrary, ScsiLibrary, ScsiLibrarySpec, Ways};
use tape::{Control, MediumChanger, ReadEnd, TapeDrive, TapeError, WriteEnd};
use target::{CHANGER, DRIVE, Manners, NAME, Target, Trouble, barcode};

fn options() -> IscsiOptions {
    IscsiOptions {
        initiator: "iqn.2026-01.test:us".into(),
        credentials: None,
        digests: Digests { header: true, data: true },
    }
}

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn transport(target: &Target, lun: u16) -> IscsiTransport {
    IscsiTransport::new(target.url(lun), options()).unwrap()
}

/// The first drive with a cartridge, ready and at its beginning.
fn drive(target: &Target) -> ScsiDrive<IscsiTransport> {
    target.insert(1);
    let mut drive = ScsiDrive::open(transport(target, DRIVE), &control()).unwrap();
    drive.set_poll(Duration::from_millis(1));
    drive.ready(&control()).unwrap();
    assert_eq!(drive.position(&control()).unwrap().object, 0);
    drive
}

/// A record unlike all others, of a length that takes every path: with the command, unasked behind
/// it, and in several answers to R2T.
fn record(number: usize) -> Vec<u8> {
    let length = [10, 1000, 2400, 2500, 2501, 9000][number % 6];
    (0..length).map(|i| (i * 7 + number * 31) as u8).collect()
}

fn all_manners() -> Vec<Manners> {
    let base = Manners::default();
    vec![
        base.clone(),
        Manners { digests: false, ..base.clone() },
        Manners { initial_r2t: true, ..base.clone() },
        Manners { immediate: false, ..base.clone() },
        Manners { immediate: false, initial_r2t: true, segment: 512, ..base.clone() },
        Manners { segment: 1 << 20, first_burst: 1 << 20, burst: 1 << 20, ..base },
    ]
}

#[test]
fn records_go_there_and_back_whatever_was_negotiated() {
    for manners in all_manners() {
        let target = Target::start(manners.clone());
        let mut drive = drive(&target);
        for number in 0..6 {
            assert_eq!(drive.write(&record(number), &control()), Ok(WriteEnd::Written));
        }
        drive.write_filemarks(1, &control()).unwrap();
        let expected: Vec<_> = (0..6).map(|n| Some(record(n))).chain([None]).collect();
        assert_eq!(target.tape(1), expected, "{manners:?}");
        drive.rewind(&control()).unwrap();
        let mut buffer = vec![0; 9000];
        for number in 0..6 {
            let length = record(number).len();
            // Shorter than the buffer: CHECK CONDITION with data.
            assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::Record { length }));
            assert_eq!(buffer[..length], record(number));
        }
        assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::Filemark));
        assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::EndOfData));
        drop(drive);
        assert_eq!((target.logins(), target.logouts()), (1, 1));
    }
}

/// Three records, a filemark, three records, two filemarks: what is on the tape afterwards.
fn sequence() -> Vec<Option<Vec<u8>>> {
    let records = |numbers: std::ops::Range<usize>| numbers.map(|number| Some(record(number)));
    records(0..3).chain([None]).chain(records(3..6)).chain([None, None]).collect()
}

/// Writes the sequence with trouble at one PDU, as far as the driver says that it is written. What
/// it said, for each object.
fn write_through(target: &Target, trouble: Trouble, at: usize) -> Vec<Result<WriteEnd, TapeError>> {
    let mut drive = drive(target);
    target.plan_trouble(at, trouble);
    let mut results = Vec::new();
    let sequence = sequence();
    let mut objects = sequence.iter().peekable();
    while let Some(object) = objects.next() {
        let result = match object {
            Some(record) => drive.write(record, &control()),
            // Two filemarks are one command.
            None if objects.next_if(|next| next.is_none()).is_some() => {
                results.push(drive.write_filemarks(2, &control()));
                results[results.len() - 1].clone()
            }
            None => drive.write_filemarks(1, &control()),
        };
        let failed = result.is_err();
        results.push(result);
        if failed {
            break;
        }
    }
    results
}

#[test]
fn a_connection_that_drops_at_any_pdu_doubles_and_loses_nothing() {
    let whole = sequence();
    for trouble in [Trouble::Drop, Trouble::Corrupt] {
        for at in 0.. {
            let target = Target::start(Manners::default());
            let results = write_through(&target, trouble, at);
            let spared = target.is_spared();
            for (number, result) in results.iter().enumerate() {
                assert_eq!(*result, Ok(WriteEnd::Written), "{trouble:?} at {at}, {number}");
            }
            assert_eq!(target.tape(1), whole, "{trouble:?} at {at}");
            // A command was sent again only where the position proved that it had not been done.
            let sent = target.commands(0x0a);
            assert!(sent <= 7, "{sent} writes for 6 records");
            if spared {
                assert_eq!((target.logins(), sent), (1, 6));
                assert!(at > 30, "the trouble has met {at} PDUs only");
                break;
            }
        }
    }
}

#[test]
fn a_target_that_restarts_is_not_written_on() {
    let mut lost = 0;
    for at in 0.. {
        let target = Target::start(Manners::default());
        let results = write_through(&target, Trouble::Restart, at);
        if target.is_spared() {
            break;
        }
        let written = results.iter().take_while(|result| result.is_ok()).count();
        let tape = target.tape(1);
        // What was said to be written stays, once; what was not said is there whole or not at all.
        let length = tape.len();
        assert!(length >= written && tape == sequence()[..length], "at {at}: {written}, {length}");
        match results.get(written) {
            Some(Err(TapeError::PositionUnknown(_) | TapeError::Check(_))) => lost += 1,
            // Where the tape stood at its beginning nothing had been done, and it is done again.
            None => assert_eq!(tape, sequence(), "at {at}"),
            other => panic!("at {at}: {other:?}"),
        }
    }
    assert!(lost > 10, "only {lost} restarts were noticed");
}

#[test]
fn a_command_without_an_answer_is_aborted_and_the_connection_lives() {
    let target = Target::start(Manners::default());
    let mut transport = transport(&target, DRIVE);
    let inquiry = scsi::Cdb::Inquiry { page: None, allocation: 96 }.encode();
    let mut buffer = [0; 96];
    let mut ask = |timeout| transport.execute(&inquiry, Data::In(&mut buffer), timeout);
    target.be_silent(Some(0x12));
    assert_eq!(ask(Duration::from_millis(50)), Err(TransportError::TimedOut));
    target.be_silent(None);
    assert_eq!(ask(Duration::from_secs(10)).unwrap().status, 0);
    assert_eq!((target.aborted(), target.logins(), target.commands(0x12)), (1, 1, 2));
}

#[test]
fn a_connection_lost_while_idle_is_told_before_anything_is_sent() {
    let target = Target::start(Manners::default());
    let mut transport = transport(&target, DRIVE);
    let ready = [0; 6];
    let mut ask = || transport.execute(&ready, Data::None, Duration::from_secs(10));
    assert_eq!(ask().unwrap().status, 2);
    // The target drops the connection behind its last answer, by refusing a ping that never came.
    target.plan_trouble(0, Trouble::Drop);
    let broken = ask();
    assert!(matches!(broken, Err(TransportError::Broken(_))), "{broken:?}");
    let before = target.commands(0x00);
    // The next one connects anew, and meets the unit attention of a new initiator.
    let completion = ask().unwrap();
    assert_eq!(scsi::Sense::parse(&completion.sense).unwrap().key, 6);
    assert_eq!((target.commands(0x00), target.logins()), (before + 1, 2));
}

#[test]
fn a_reset_is_seen_by_every_initiator() {
    let target = Target::start(Manners::default());
    let (mut one, mut other) = (transport(&target, DRIVE), transport(&target, DRIVE));
    one.reset().unwrap();
    other.reset().unwrap();
    assert_eq!(target.aborted(), 2);
}

#[test]
fn who_does_not_know_the_secret_does_not_come_in() {
    let chap = Some(["twin", "reel-reel-reel", "library", "tape-tape-tape"]);
    let target = Target::start(Manners { chap, ..Manners::default() });
    let ask = |user: &str, secret: &str, theirs: Option<&str>| {
        let bytes = |text: &str| Secret::new(text.as_bytes().to_vec());
        let theirs = theirs.map(|text| ("library".to_owned(), bytes(text)));
        let credentials = Credentials { user: user.into(), secret: bytes(secret), target: theirs };
        let options = IscsiOptions { credentials: Some(credentials), ..options() };
        let mut transport = IscsiTransport::new(target.url(DRIVE), options).unwrap();
        let mut buffer = [0; 96];
        let inquiry = scsi::Cdb::Inquiry { page: None, allocation: 96 }.encode();
        transport.execute(&inquiry, Data::In(&mut buffer), Duration::from_secs(10))
    };
    let refused = |result: Result<_, TransportError>, text: &str| match result {
        Err(TransportError::NotSent(cause)) => assert!(cause.contains(text), "{cause}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask("twin", "reel-reel-reel", None).unwrap().status, 0);
    assert_eq!(ask("twin", "reel-reel-reel", Some("tape-tape-tape")).unwrap().status, 0);
    refused(ask("twin", "wrong-wrong-wrong", None), "user and secret are not accepted");
    refused(ask("else", "reel-reel-reel", None), "user and secret are not accepted");
    refused(ask("twin", "reel-reel-reel", Some("wrong-wrong-wrong")), "does not prove");
    let mut without = transport(&target, DRIVE);
    refused(without.execute(&[0; 6], Data::None, Duration::from_secs(10)), "not accepted");
}

#[test]
fn nobody_there_is_told_before_anything_is_sent() {
    let mut url = Target::start(Manners::default()).url(DRIVE);
    url.port = 1;
    let mut transport = IscsiTransport::new(url, options()).unwrap();
    let error = transport.execute(&[0; 6], Data::None, Duration::from_secs(10)).unwrap_err();
    assert!(matches!(error, TransportError::NotSent(_)), "{error}");
}

#[test]
fn what_is_behind_a_portal_is_found() {
    let target = Target::start(Manners::default());
    let url = target.url(0);
    let portal = Portal { host: url.host.clone(), port: url.port };
    let found = discover(&portal, &options()).unwrap();
    let found: Vec<_> = found.iter().map(|url| (url.target.as_str(), url.lun)).collect();
    assert_eq!(found, [(NAME, 0), (NAME, 1), (NAME, 2), (NAME, 3)]);
}

fn library(ways: Ways) -> ScsiLibrary {
    let (name, options, keys) = ("ptl0".into(), options(), Arc::default());
    let is_reserved = true;
    ScsiLibrary::open(ScsiLibrarySpec { name, ways, options, keys, is_reserved }).unwrap()
}

/// A library whose drives are named in the wrong order.
fn named(target: &Target) -> ScsiLibrary {
    let address = |lun| Address::Iscsi(target.url(lun));
    library(Ways::Named { changer: address(CHANGER), drives: vec![address(3), address(DRIVE)] })
}

#[test]
fn a_library_knows_its_drives_by_serial_number_and_sees_its_own_moves() {
    let target = Target::start(Manners::default());
    let library = named(&target);
    let look = library.look().unwrap();
    assert!(look.online && library.drive_count() == 2);
    let serials: Vec<_> = look.drives.iter().map(|drive| drive.identity.serial.clone()).collect();
    assert_eq!(serials, ["TEST-DRIVE-0", "TEST-DRIVE-1"]);
    let slot = look.inventory.elements.iter().find(|it| it.barcode == Some(barcode(2))).unwrap();
    let (slot, bay) = (slot.address, look.drives[1].element);
    assert_eq!(library.medium(1), None);
    let mut changer = library.open_changer(1, &control()).unwrap();
    let moved = loop {
        // Its power-on first.
        match changer.move_medium(slot, bay, &control()) {
            Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
            moved => break moved,
        }
    };
    assert_eq!(moved, Ok(()));
    assert_eq!(
        library
            .look()
            .unwrap()
            .inventory
            .elements
            .iter()
            .find(|it| it.address == bay)
            .unwrap()
            .barcode,
        Some(barcode(2))
    );
    assert_eq!(library.medium(1), Some((barcode(2), true)));
    let mut drive = library.open_drive(1, 2, &control()).unwrap();
    drive.ready(&control()).unwrap();
    drive.write(b"record", &control()).unwrap();
    drive.write_filemarks(0, &control()).unwrap();
    assert_eq!(target.tape(2), [Some(b"record".to_vec())]);
    // What the drive tells of its tape is in the look, now and after the next one.
    let state = drive.state(&control()).unwrap();
    let capacity = state.medium.as_ref().unwrap().capacity;
    assert!(capacity.is_some());
    let shown = || library.look().unwrap().drives[1].state.clone().unwrap().medium.unwrap();
    assert_eq!(shown().capacity, None);
    library.learn(1, &state);
    assert_eq!((shown().capacity, shown().barcode), (capacity, Some(barcode(2))));
    changer.initialize(&control()).unwrap();
    assert_eq!(shown().capacity, capacity);
    // Out again, by a changer that unloads the drive first.
    drop(drive);
    changer.move_medium(bay, slot, &control()).unwrap();
    assert_eq!(library.medium(1), None);
}

#[test]
fn a_library_is_found_by_its_portal() {
    let target = Target::start(Manners::default());
    let url = target.url(0);
    let library = library(Ways::Portal(Portal { host: url.host, port: url.port }));
    let look = loop {
        if let Some(look) = library.look() {
            break look;
        }
    };
    assert_eq!((look.identity.serial.as_str(), look.drives.len()), ("TEST-LIBRARY", 2));
    assert!(library.open_drive(0, 1, &control()).is_ok());
}

#[test]
fn a_library_that_is_not_there_is_told_and_not_waited_for() {
    let mut url = Target::start(Manners::default()).url(CHANGER);
    url.port = 1;
    let library = library(Ways::Named { changer: Address::Iscsi(url), drives: Vec::new() });
    assert_eq!(library.look(), None);
    let refused = library.open_changer(1, &control()).err();
    assert!(matches!(refused, Some(TapeError::Unreachable(_))), "{refused:?}");
}
