use bytes::Bytes;
use proptest::prelude::*;

use crate::{Limits, Reader, Reassembler, RecordError, Writer, XdrError, frame};

fn reader_of(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[test]
fn values_are_big_endian_and_padded() {
    let mut writer = Writer::new(100);
    writer.u32(1);
    writer.i32(-2);
    writer.u64(0x0102_0304_0506_0708);
    writer.bool(true);
    writer.string("abcde");
    let bytes = writer.finish().unwrap();
    assert_eq!(
        bytes,
        [
            0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 0, 5,
            b'a', b'b', b'c', b'd', b'e', 0, 0, 0
        ]
    );
    let bytes = reader_of(&bytes);
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.u32(), Ok(1));
    assert_eq!(reader.i32(), Ok(-2));
    assert_eq!(reader.u64(), Ok(0x0102_0304_0506_0708));
    assert_eq!(reader.bool(), Ok(true));
    assert_eq!(reader.string(5).as_deref(), Ok("abcde"));
    assert_eq!(reader.finish(), Ok(()));
}

#[test]
fn lengths_are_not_believed() {
    let bytes = reader_of(&[0xff, 0xff, 0xff, 0xff, 1, 2]);
    let too_long = XdrError::TooLong { length: u64::from(u32::MAX), max: 10 };
    assert_eq!(Reader::new(&bytes).opaque(10), Err(too_long));
    assert_eq!(Reader::new(&bytes).opaque(usize::MAX), Err(XdrError::Truncated));
    assert_eq!(Reader::new(&bytes).count(usize::MAX, 4), Err(XdrError::Truncated));
    assert_eq!(
        Reader::new(&bytes).count(3, 4),
        Err(XdrError::TooLong { max: 3, length: u64::from(u32::MAX) })
    );
    let unpadded = reader_of(&[0, 0, 0, 2, 1, 2]);
    assert_eq!(Reader::new(&unpadded).opaque(10), Err(XdrError::Truncated));
    let yes = reader_of(&[0, 0, 0, 2]);
    assert_eq!(Reader::new(&yes).bool(), Err(XdrError::Invalid));
    assert_eq!(Reader::new(&yes).finish(), Err(XdrError::Trailing(4)));
}

#[test]
fn a_writer_stops_at_its_limit() {
    let mut writer = Writer::new(8);
    writer.opaque(&[1; 1000]);
    assert_eq!(writer.finish(), Err(XdrError::TooLong { length: 1004, max: 8 }));
}

#[test]
fn fragments_become_one_record() {
    let mut stream = vec![0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0x80, 0, 0, 1, b'c'];
    stream.extend(frame(b"next").unwrap());
    let mut reassembler = Reassembler::new(Limits::default());
    let mut records = Vec::new();
    for byte in stream {
        reassembler.push(&[byte]);
        while let Some(record) = reassembler.next_record().unwrap() {
            records.push(record);
        }
    }
    assert_eq!(records, [Bytes::from_static(b"abc"), Bytes::from_static(b"next")]);
    assert!(!reassembler.is_midway());
}

#[test]
fn records_have_limits() {
    let limits = Limits { record: 8, fragments: 4 };
    let mut reassembler = Reassembler::new(limits);
    reassembler.push(&[0x80, 0, 0, 9]);
    assert_eq!(reassembler.next_record(), Err(RecordError::TooLong(8)));
    let mut reassembler = Reassembler::new(limits);
    reassembler.push(&[0, 0, 0, 5, 1, 2, 3, 4, 5, 0x80, 0, 0, 4]);
    assert_eq!(reassembler.next_record(), Err(RecordError::TooLong(8)));
    let mut reassembler = Reassembler::new(limits);
    reassembler.push(&[0; 4 * 5]);
    assert_eq!(reassembler.next_record(), Err(RecordError::TooManyFragments(4)));
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_records(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..6),
        cuts in proptest::collection::vec(1usize..20, 1..20),
    ) {
        let mut stream = Vec::new();
        for record in &records {
            stream.extend(frame(record).unwrap());
        }
        let mut reassembler = Reassembler::new(Limits::default());
        let (mut out, mut at, mut turn) = (Vec::new(), 0, 0);
        while at < stream.len() {
            let end = (at + cuts[turn % cuts.len()]).min(stream.len());
            reassembler.push(&stream[at..end]);
            (at, turn) = (end, turn + 1);
            while let Some(record) = reassembler.next_record().unwrap() {
                out.push(record.to_vec());
            }
        }
        prop_assert_eq!(out, records);
    }

    #[test]
    fn rubbish_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut reassembler = Reassembler::new(Limits { record: 64, fragments: 4 });
        reassembler.push(&bytes);
        while let Ok(Some(record)) = reassembler.next_record() {
            prop_assert!(record.len() <= 64);
        }
    }
}
