//! Somebody else takes the drive away in the middle of a run, and gives it back.

use std::time::Duration;

use scsi::Sense;
use tape::driver::{Data, IscsiTransport, ScsiTransport};
use tape::{TapeDrive, TapeError, WriteEnd};

use super::target::{DRIVE, Manners, Target};
use super::{control, drive, record, sequence, transport};

/// How the other host takes the drive, and gives it back.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// RESERVE(6) and RELEASE(6).
    Reserve,
    /// A persistent reservation of the type *exclusive access*.
    Persistent,
    /// RESERVE(6), and the other host's connection ends.
    Vanish,
}

const KEY: [u8; 8] = *b"otherkey";

/// Sends a command without an answer of its own; unit attentions are passed over.
fn send(other: &mut IscsiTransport, cdb: &[u8], data: &[u8]) {
    loop {
        let out = if data.is_empty() { Data::None } else { Data::Out(data) };
        let completion = other.execute(cdb, out, Duration::from_secs(10)).unwrap();
        match Sense::parse(&completion.sense) {
            Some(sense) if sense.is_unit_attention() => {}
            sense => break assert_eq!((completion.status, sense), (0, None), "{cdb:02x?}"),
        }
    }
}

/// PERSISTENT RESERVE OUT with a service action.
fn reserve_out(other: &mut IscsiTransport, action: u8, key: [u8; 8], service_key: [u8; 8]) {
    let parameters = [&key[..], &service_key, &[0; 8]].concat();
    send(other, &[0x5f, action, 3, 0, 0, 0, 0, 0, 24, 0], &parameters);
}

fn take(target: &Target, way: Way) -> IscsiTransport {
    let mut other = transport(target, DRIVE);
    match way {
        Way::Reserve | Way::Vanish => send(&mut other, &[0x16, 0, 0, 0, 0, 0], &[]),
        Way::Persistent => {
            reserve_out(&mut other, 0, [0; 8], KEY);
            reserve_out(&mut other, 1, KEY, [0; 8]);
        }
    }
    other
}

fn give_back(mut other: IscsiTransport, way: Way) {
    match way {
        Way::Reserve => send(&mut other, &[0x17, 0, 0, 0, 0, 0], &[]),
        Way::Persistent => {
            reserve_out(&mut other, 2, KEY, [0; 8]);
            reserve_out(&mut other, 0, KEY, [0; 8]);
        }
        Way::Vanish => {}
    }
}

/// One object of the sequence.
fn write(drive: &mut impl TapeDrive, object: &Option<Vec<u8>>) -> Result<WriteEnd, TapeError> {
    match object {
        Some(record) => drive.write(record, &control()),
        None => drive.write_filemarks(1, &control()),
    }
}

#[test]
fn a_foreign_reservation_at_any_object_doubles_and_loses_nothing() {
    for way in [Way::Reserve, Way::Persistent, Way::Vanish] {
        for taken in 0..sequence().len() {
            let target = Target::start(Manners::default());
            let mut drive = drive(&target);
            for (number, object) in sequence().iter().enumerate() {
                if number == taken {
                    let other = take(&target, way);
                    let refused = write(&mut drive, object);
                    assert_eq!(refused, Err(TapeError::ReservationConflict), "{way:?} at {taken}");
                    assert_eq!(target.tape(1), sequence()[..number], "{way:?} at {taken}");
                    give_back(other, way);
                }
                let written = loop {
                    // A reservation that ended with its holder ends a moment later than it seems.
                    match write(&mut drive, object) {
                        Err(TapeError::ReservationConflict) if matches!(way, Way::Vanish) => {}
                        written => break written,
                    }
                };
                assert_eq!(written, Ok(WriteEnd::Written), "{way:?} at {taken}, object {number}");
            }
            assert_eq!(target.tape(1), sequence(), "{way:?} at {taken}");
            assert_eq!(target.logins(), 2);
        }
    }
}

/// A reset of the drive by another host: told once, to whoever writes next.
#[test]
fn a_foreign_reset_at_any_object_is_told_and_doubles_nothing() {
    for reset in 1..sequence().len() {
        let target = Target::start(Manners::default());
        let mut drive = drive(&target);
        let mut told = 0;
        for (number, object) in sequence().iter().enumerate() {
            if number == reset {
                target.reset_drive();
            }
            match write(&mut drive, object) {
                Err(TapeError::Check(sense)) if sense.is_unit_attention() => {
                    told += 1;
                    // The position is where it was, so whoever asked may go on.
                    assert_eq!(drive.position(&control()).unwrap().object, number as u64);
                    assert_eq!(write(&mut drive, object), Ok(WriteEnd::Written));
                }
                written => assert_eq!(written, Ok(WriteEnd::Written)),
            }
        }
        assert_eq!((told, target.tape(1)), (1, sequence()), "at {reset}");
        // Nor does a record vanish that was read over.
        assert_eq!(target.tape(1).iter().flatten().count(), (0..6).map(record).count());
    }
}
