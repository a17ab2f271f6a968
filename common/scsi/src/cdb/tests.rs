use proptest::prelude::*;

use super::*;
use crate::Sense;

const KINDS: [DeviceType; 2] = [DeviceType::Tape, DeviceType::Changer];

/// Any legal use of the bits of any command.
fn legal_cdb() -> impl Strategy<Value = (DeviceType, Vec<u8>)> {
    let all: Vec<_> =
        KINDS.into_iter().flat_map(|kind| commands(kind).map(move |c| (kind, c))).collect();
    (proptest::sample::select(all), any::<[u8; CDB_MAX]>()).prop_map(|((kind, command), noise)| {
        let mut cdb: Vec<u8> = command.usage.to_vec();
        for (byte, noise) in cdb.iter_mut().zip(noise).skip(1 + usize::from(command.has_action)) {
            *byte &= noise;
        }
        (kind, cdb)
    })
}

proptest! {
    #[test]
    fn parsed_and_encoded_lead_back((kind, cdb) in legal_cdb()) {
        if let Ok(parsed) = Cdb::parse(kind, &cdb) {
            let again = parsed.encode();
            prop_assert_eq!(Cdb::parse(kind, &again), Ok(parsed), "{:02x?} {:02x?}", cdb, again);
        }
    }

    #[test]
    fn parsing_never_panics(bytes: Vec<u8>, tape: bool) {
        let _ = Cdb::parse(KINDS[usize::from(tape)], &bytes);
    }

    #[test]
    fn every_cut_and_every_reserved_bit_is_refused((kind, cdb) in legal_cdb(), at in 0usize..128) {
        prop_assume!(Cdb::parse(kind, &cdb).is_ok());
        let cut = at % cdb.len();
        prop_assert!(Cdb::parse(kind, &cdb[..cut]).is_err());
        let command = Command::find(kind, &cdb).unwrap();
        let (byte, bit) = (1 + at / 8 % (cdb.len() - 1), (at % 8) as u8);
        let in_action = command.has_action && byte == 1 && bit < 5;
        let in_unit = byte == 1 && command.unit_bits() & (1 << bit) != 0;
        if command.usage[byte] & (1 << bit) == 0 && !in_action && !in_unit {
            let mut stray = cdb.clone();
            stray[byte] |= 1 << bit;
            let sense = Sense::bad_cdb_field(byte as u16, Some(bit));
            prop_assert_eq!(Cdb::parse(kind, &stray), Err(sense));
        }
    }
}

/// mtx tells the unit in READ ELEMENT STATUS as a host of SCSI-2 does.
#[test]
fn a_unit_that_is_told_in_the_cdb_is_passed_over() {
    let plain = [0xb8, 0x12, 4, 0, 0, 6, 0, 0, 1, 0, 0, 0];
    let told = [0xb8, 0x12 | 1 << 5, 4, 0, 0, 6, 0, 0, 1, 0, 0, 0];
    let parsed = Cdb::parse(DeviceType::Changer, &told);
    assert!(parsed.is_ok());
    assert_eq!(parsed, Cdb::parse(DeviceType::Changer, &plain));
    // Where the bits mean something they are not the unit, nor are they in longer commands.
    let locate = [0x92, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Cdb::parse(DeviceType::Tape, &locate), Err(Sense::bad_cdb_field(1, Some(7))));
}

#[test]
fn no_operation_code_is_listed_twice() {
    for kind in KINDS {
        let mut seen: Vec<_> = commands(kind).map(|c| (c.opcode(), c.service_action())).collect();
        seen.sort_unstable();
        let count = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}

#[test]
fn wrong_cdbs_are_answered_with_a_pointer_at_the_field() {
    let field = |byte, bit| Sense::bad_cdb_field(byte, bit);
    let table: &[(DeviceType, &[u8], Sense)] = &[
        (DeviceType::Tape, &[], Sense::INVALID_OPERATION_CODE),
        (DeviceType::Tape, &[0xff, 0, 0, 0, 0, 0], Sense::INVALID_OPERATION_CODE),
        (DeviceType::Changer, &[0x08, 0, 0, 0, 1, 0], Sense::INVALID_OPERATION_CODE),
        (DeviceType::Tape, &[0x00, 0, 0, 0, 0], field(5, None)),
        (DeviceType::Tape, &[0x00, 0, 0, 0, 0, 4], field(5, Some(2))),
        (DeviceType::Tape, &[0x12, 0, 0x80, 0, 96, 0], field(2, None)),
        (DeviceType::Tape, &[0x08, 3, 0, 0, 1, 0], field(1, Some(1))),
        (DeviceType::Tape, &[0x10, 2, 0, 0, 1, 0], field(1, Some(1))),
        (DeviceType::Tape, &[0x11, 2, 0, 0, 1, 0], field(1, Some(3))),
        (DeviceType::Tape, &[0x34, 3, 0, 0, 0, 0, 0, 0, 0, 0], field(1, Some(4))),
        (DeviceType::Tape, &[0x34, 6, 0, 0, 0, 0, 0, 0, 32, 0], field(7, None)),
        (DeviceType::Changer, &[0xb8, 5, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0], field(1, Some(3))),
        (DeviceType::Changer, &[0xa3, 5, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0], field(1, Some(4))),
        (DeviceType::Changer, &[0xa3, 12, 4, 0, 0, 1, 0, 0, 0, 8, 0, 0], field(2, Some(2))),
    ];
    for (kind, cdb, sense) in table {
        assert_eq!(Cdb::parse(*kind, cdb), Err(*sense), "{cdb:02x?}");
    }
}

#[test]
fn known_cdbs_have_the_bytes_of_the_standard() {
    let range = ElementRange { kind: Some(ElementType::Storage), start: 0x400, count: 1000 };
    let table: &[(Cdb, &[u8])] = &[
        (Cdb::TestUnitReady, &[0, 0, 0, 0, 0, 0]),
        (Cdb::Inquiry { page: Some(0x83), allocation: 300 }, &[0x12, 1, 0x83, 1, 44, 0]),
        (Cdb::Read { fixed: false, sili: false, length: 0x040000 }, &[8, 0, 4, 0, 0, 0]),
        (Cdb::Space { code: SpaceCode::Filemarks, count: -2 }, &[0x11, 1, 255, 255, 254, 0]),
        (
            Cdb::Locate {
                immediate: false,
                partition: None,
                destination: Destination::Object(0x0102_0304),
            },
            &[0x2b, 0, 0, 1, 2, 3, 4, 0, 0, 0],
        ),
        (
            Cdb::Locate { immediate: false, partition: None, destination: Destination::EndOfData },
            &[0x92, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Cdb::MoveMedium { transport: 0, source: 0x400, destination: 0x80, invert: false },
            &[0xa5, 0, 0, 0, 4, 0, 0, 0x80, 0, 0, 0, 0],
        ),
        (
            Cdb::ReadElementStatus {
                tags: true,
                identities: true,
                current_data: false,
                range,
                allocation: 0x010000,
            },
            &[0xb8, 0x12, 4, 0, 3, 0xe8, 1, 1, 0, 0, 0, 0],
        ),
    ];
    for (cdb, bytes) in table {
        assert_eq!(cdb.encode(), *bytes);
        let kind = KINDS[usize::from(cdb.is_for_changer())];
        assert_eq!(Cdb::parse(kind, bytes), Ok(*cdb));
    }
    assert_eq!(Cdb::Erase { long: true, immediate: false }.timeout().as_secs(), 74_341);
    assert_eq!(Cdb::InitializeElementStatus.timeout().as_secs(), 2100);
}

#[test]
fn what_changes_the_tape_is_known_by_its_cdb() {
    let writes = |cdb: Cdb| writes_medium(&cdb.encode());
    assert!(writes(Cdb::WriteFilemarks { immediate: false, count: 0x01_0000 }));
    assert!(writes(Cdb::SetCapacity { immediate: false, proportion: 0xffff }));
    assert!(writes(Cdb::Erase { long: true, immediate: false }));
    // A flush, and what only looks.
    assert!(!writes(Cdb::WriteFilemarks { immediate: true, count: 0 }));
    assert!(!writes(Cdb::TestUnitReady));
    let long = |last: u8| [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, last, 0];
    assert!(writes_medium(&long(1)) && !writes_medium(&long(0)));
    // One cut off changes nothing: the drive refuses it.
    assert!(!writes_medium(&[]) && !writes_medium(&[0x10, 0, 1]));
}
