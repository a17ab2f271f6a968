//! What is on tapes afterwards: ghost tapes by their files, virtual ones over NDMP.

use std::path::Path;

use dma::{Client, TapeObject, TapeOpenMode};
use tests::{Item, Object, RECORD_MAX, read_tape};

/// Where entries begin, and the bytes around a payload (docs/formats/file-library.md).
const DATA: usize = 2 * 65_536;
const HEAD: usize = 20;
const TAIL: usize = 4;

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// A cartridge file read as its page in the book says, faster than the Python reader does it, for
/// files that nobody writes and that must be whole.
pub(crate) fn read_file(directory: &Path, barcode: &str) -> Vec<Item> {
    let path = directory.join("cartridges").join(format!("{barcode}.tape"));
    let bytes = std::fs::read(&path).expect("the cartridge file is there");
    let (mut at, mut previous, mut items) = (DATA, 0, Vec::new());
    while at < bytes.len() {
        let head = &bytes[at..at + HEAD];
        let chain = crc32c::crc32c(&head[..16]);
        assert_eq!((number(head, 12), number(head, 16)), (previous, chain), "{barcode} at {at}");
        let length = number(head, 4) as usize;
        let payload = &bytes[at + HEAD..at + HEAD + length];
        assert_eq!(number(&bytes, at + HEAD + length) as usize, length, "{barcode} at {at}");
        items.push(match head[0] {
            b'F' => Item::Filemark,
            b'R' => {
                assert_eq!(crc32c::crc32c(payload), number(head, 8), "{barcode} at {at}");
                Item::Record(payload.to_vec())
            }
            kind => panic!("{barcode}: an entry of kind {kind} at {at}"),
        });
        (at, previous) = (at + HEAD + length + TAIL, chain);
    }
    items
}

/// The same by the Python reader.
pub(crate) fn read_twice(directory: &Path, barcode: &str, items: &[Item]) {
    let objects: Vec<Object> = items.iter().map(Item::object).collect();
    assert!(read_tape(directory, barcode) == objects, "{barcode}: two readers differ");
}

/// Everything on the tape in a drive, from its beginning.
pub(crate) fn read_drive(client: &mut Client, device: &str) -> Vec<Item> {
    client.open_tape(device, TapeOpenMode::Raw).expect("the drive opens");
    client.rewind().expect("the tape rewinds");
    let mut items = Vec::new();
    loop {
        match client.read_object(RECORD_MAX).expect("the tape is read") {
            TapeObject::Block(bytes) => items.push(Item::Record(bytes.to_vec())),
            TapeObject::Filemark => items.push(Item::Filemark),
            TapeObject::EndOfData => break,
        }
    }
    client.close_tape().expect("the drive closes");
    items
}

/// Says where two tapes differ.
pub(crate) fn compare(tape: &str, found: &[Item], expected: &[Item]) {
    let same = found.iter().zip(expected).take_while(|(one, other)| one == other).count();
    let show = |items: &[Item]| -> Vec<String> {
        let shown = items.iter().skip(same.saturating_sub(3)).take(8);
        shown
            .map(|item| match item {
                Item::Filemark => "mark".to_owned(),
                Item::Record(bytes) => {
                    let first = &bytes[..bytes.len().min(6)];
                    format!("{} ({first:02x?})", bytes.len())
                }
            })
            .collect()
    };
    assert!(
        same == found.len() && same == expected.len(),
        "{tape} differs at object {same}: {} objects, not {}; from object {}: found {:?}, \
         expected {:?}",
        found.len(),
        expected.len(),
        same.saturating_sub(3),
        show(found),
        show(expected)
    );
}
