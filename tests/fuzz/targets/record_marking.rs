//! Record marking: a stream means the same however it is cut, and holds no more than its limits.
#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use xdr::{Limits, Reassembler, RecordError, frame};

const LIMITS: Limits = Limits { record: 600, fragments: 6 };

/// What a stream means, by the words of RFC 5531 section 11.
fn meaning(mut stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut records = Vec::new();
    loop {
        let (mut record, mut fragments) = (Vec::new(), 0);
        loop {
            let Some((header, rest)) = stream.split_first_chunk::<4>() else {
                return (records, true);
            };
            let header = u32::from_be_bytes(*header);
            let length = (header & 0x7fff_ffff) as usize;
            if record.len() + length > LIMITS.record || fragments == LIMITS.fragments {
                return (records, false);
            }
            if rest.len() < length {
                return (records, true);
            }
            record.extend_from_slice(&rest[..length]);
            stream = &rest[length..];
            fragments += 1;
            if header >> 31 == 1 {
                break;
            }
        }
        records.push(record);
    }
}

fn all(reassembler: &mut Reassembler, records: &mut Vec<Vec<u8>>) -> Result<(), RecordError> {
    while let Some(record) = reassembler.next_record()? {
        records.push(record.to_vec());
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let step = usize::from(input.u8());
    let stream = input.rest();
    let (expected, good) = meaning(stream);

    let mut reassembler = Reassembler::new(LIMITS);
    let (mut records, mut outcome) = (Vec::new(), Ok(()));
    // Pieces of one length, or of lengths that go up.
    let (mut rest, mut length) = (stream, step % 16);
    while !rest.is_empty() && outcome.is_ok() {
        length += step / 16;
        let (piece, more) = rest.split_at(length.clamp(1, rest.len()));
        reassembler.push(piece);
        rest = more;
        outcome = all(&mut reassembler, &mut records);
        // What waits is one record at most, and the piece that came last.
        assert!(reassembler.buffer().len() <= 4 + LIMITS.record + piece.len());
    }
    assert_eq!(records, expected);
    assert_eq!(outcome.is_ok(), good, "{outcome:?}");

    for record in records {
        let mut again = Reassembler::new(LIMITS);
        again.push(&frame(&record).unwrap());
        assert_eq!(again.next_record().unwrap().unwrap(), record);
        assert!(!again.is_midway());
    }
});
