//! The bytes of a cartridge file: two header slots, then a chain of entries. `file-library.md` in
//! the documentation describes the same for people who read tapes without this program.

use std::collections::BTreeMap;

use model::Barcode;
use serde::{Deserialize, Serialize};

use crate::target::{MAC, MAX_BLOCK, Seal};

/// The first bytes of a header slot.
const MAGIC: [u8; 8] = *b"TWRLTAPE";
/// The version of the format of cartridges without encrypted blocks.
const VERSION: u32 = 1;
/// The one of cartridges that have had one: programs that do not know them keep away.
const VERSION_SEALED: u32 = 2;
/// Length of a header slot.
pub(super) const SLOT: u64 = 64 << 10;
/// Where the first entry begins.
pub(super) const DATA: u64 = 2 * SLOT;
/// Bytes of a slot before its body.
const SLOT_HEAD: usize = 32;
/// Bytes before an entry's payload.
pub(super) const HEAD: usize = 20;
/// Bytes after it.
pub(super) const TAIL: usize = 4;
/// Bytes that the payload of an encrypted block has beyond those of the record.
const SEALED: u32 = (Seal::LENGTH + MAC) as u32;
/// Attributes of the cartridge memory that are kept at most, so that they fit a slot.
const ATTRIBUTES_MAX: usize = 96;
/// The longest value of one.
const ATTRIBUTE_LENGTH_MAX: usize = 256;

/// What is known of a cartridge apart from its records: the body of a header slot, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) barcode: Barcode,
    /// Bytes of records from BOT to the physical end.
    pub(super) capacity: u64,
    pub(super) write_protected: bool,
    /// All that lies before this offset was synced: what is wrong there is damage, what is wrong
    /// behind it is the torn end of an interrupted write.
    pub(super) durable: u64,
    /// An encrypted block may be on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) sealed: bool,
    /// Cartridge memory: attribute identifiers as four hexadecimal digits, values as hexadecimal.
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
}

impl Header {
    pub(super) fn new(barcode: Barcode, capacity: u64) -> Self {
        let attributes = BTreeMap::new();
        let (write_protected, sealed) = (false, false);
        Self { barcode, capacity, write_protected, durable: DATA, sealed, attributes }
    }

    pub(super) fn attribute(&self, id: u16) -> Option<Vec<u8>> {
        let text = self.attributes.get(&format!("{id:04x}"))?.as_bytes();
        let nibble = |c: u8| (c as char).to_digit(16).map(|n| n as u8);
        text.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect()
    }

    /// Stores an attribute, or removes it if the value is empty. `false`: there is no room.
    pub(super) fn set_attribute(&mut self, id: u16, value: &[u8]) -> bool {
        let key = format!("{id:04x}");
        if value.is_empty() {
            self.attributes.remove(&key);
            return true;
        }
        let has_room = self.attributes.len() < ATTRIBUTES_MAX || self.attributes.contains_key(&key);
        if !has_room || value.len() > ATTRIBUTE_LENGTH_MAX {
            return false;
        }
        let hex = value.iter().map(|byte| format!("{byte:02x}")).collect();
        self.attributes.insert(key, hex);
        true
    }

    /// The bytes of a slot, without the unused rest.
    pub(super) fn encode(&self, sequence: u64) -> Result<Vec<u8>, String> {
        let body = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if body.len() + SLOT_HEAD > SLOT as usize {
            return Err("the cartridge memory is full".to_owned());
        }
        let mut slot = Vec::with_capacity(SLOT_HEAD + body.len());
        slot.extend(MAGIC);
        let version = if self.sealed { VERSION_SEALED } else { VERSION };
        slot.extend(version.to_le_bytes());
        slot.extend((body.len() as u32).to_le_bytes());
        slot.extend(sequence.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&slot), &body);
        slot.extend(crc.to_le_bytes());
        slot.extend([0; 4]);
        slot.extend(body);
        Ok(slot)
    }

    /// Reads a slot: its sequence number and the header. The text says why it is none.
    pub(super) fn decode(slot: &[u8]) -> Result<(u64, Self), String> {
        let head = slot.get(..SLOT_HEAD).ok_or("too short for a header")?;
        if head[..8] != MAGIC {
            return Err("not a tape file".to_owned());
        }
        let version = le32(&head[8..]);
        if !(VERSION..=VERSION_SEALED).contains(&version) {
            let known = format!("{VERSION} and {VERSION_SEALED}");
            return Err(format!("format version {version}, this program reads {known}"));
        }
        let length = le32(&head[12..]) as usize;
        let body = slot.get(SLOT_HEAD..).and_then(|rest| rest.get(..length));
        let body = body.ok_or("the header is cut off")?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..24]), body) != le32(&head[24..]) {
            return Err("the header has a wrong checksum".to_owned());
        }
        let sequence = u64::from(le32(&head[16..])) | u64::from(le32(&head[20..])) << 32;
        let header = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        Ok((sequence, header))
    }
}

/// The first four bytes as a number; missing ones count as zero.
pub(super) fn le32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Record = b'R' as isize,
    /// A record that the drive has encrypted.
    Sealed = b'E' as isize,
    Filemark = b'F' as isize,
}

/// The head of an entry. Its checksum covers the checksum of the head before it, so that an entry
/// left over from an earlier use of the file never follows a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Bytes of payload, 0 for a filemark.
    pub(super) length: u32,
    /// CRC-32C of the payload.
    pub(super) crc: u32,
    /// The chain value of the entry before, 0 for the first.
    pub(super) previous: u32,
}

impl Head {
    pub(super) fn record(payload: &[u8], previous: u32) -> Self {
        let crc = crc32c::crc32c(payload);
        Self { kind: Kind::Record, length: payload.len() as u32, crc, previous }
    }

    /// The head of an encrypted record; the payload is in two parts.
    pub(super) fn sealed(seal: &[u8], sealed: &[u8], previous: u32) -> Self {
        let crc = crc32c::crc32c_append(crc32c::crc32c(seal), sealed);
        let length = (seal.len() + sealed.len()) as u32;
        Self { kind: Kind::Sealed, length, crc, previous }
    }

    /// Bytes of the record, as it is read.
    pub(super) fn bytes(&self) -> u32 {
        match self.kind {
            Kind::Sealed => self.length.saturating_sub(SEALED),
            Kind::Record | Kind::Filemark => self.length,
        }
    }

    pub(super) fn filemark(previous: u32) -> Self {
        Self { kind: Kind::Filemark, length: 0, crc: 0, previous }
    }

    fn fields(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc.to_le_bytes());
        bytes[12..].copy_from_slice(&self.previous.to_le_bytes());
        bytes
    }

    /// The chain value: the checksum of this head.
    pub(super) fn chain(&self) -> u32 {
        crc32c::crc32c(&self.fields())
    }

    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..16].copy_from_slice(&self.fields());
        bytes[16..].copy_from_slice(&self.chain().to_le_bytes());
        bytes
    }

    /// `None` for bytes that are no head.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEAD)?;
        let kind = match bytes[0] {
            b'R' => Kind::Record,
            b'E' => Kind::Sealed,
            b'F' => Kind::Filemark,
            _ => return None,
        };
        let (length, crc) = (le32(&bytes[4..]), le32(&bytes[8..]));
        let head = Self { kind, length, crc, previous: le32(&bytes[12..]) };
        let fits = match kind {
            Kind::Record => (1..=MAX_BLOCK).contains(&length),
            Kind::Sealed => (SEALED + 1..=SEALED + MAX_BLOCK).contains(&length),
            Kind::Filemark => length == 0 && crc == 0,
        };
        (fits && head.encode() == bytes).then_some(head)
    }

    /// Bytes of the whole entry.
    pub(super) fn size(&self) -> u64 {
        (HEAD + TAIL) as u64 + u64::from(self.length)
    }
}

/// A place between two entries, and all that is counted up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset in the file.
    pub(super) offset: u64,
    /// Entries before.
    pub(super) object: u64,
    /// Filemarks before.
    pub(super) file: u64,
    /// Bytes of records before.
    pub(super) used: u64,
    /// Chain value of the entry before.
    pub(super) chain: u32,
}

impl Place {
    /// The beginning of the tape.
    pub(super) const BOT: Self = Self { offset: DATA, object: 0, file: 0, used: 0, chain: 0 };

    /// The place behind an entry that begins here.
    pub(super) fn after(&self, head: &Head) -> Self {
        Self {
            offset: self.offset + head.size(),
            object: self.object + 1,
            file: self.file + u64::from(head.kind == Kind::Filemark),
            used: self.used + u64::from(head.bytes()),
            chain: head.chain(),
        }
    }

    /// The place before an entry that ends here.
    pub(super) fn before(&self, head: &Head) -> Self {
        Self {
            offset: self.offset.saturating_sub(head.size()),
            object: self.object.saturating_sub(1),
            file: self.file.saturating_sub(u64::from(head.kind == Kind::Filemark)),
            used: self.used.saturating_sub(head.bytes().into()),
            chain: head.previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_lead_back_and_no_flipped_bit_passes(
            payload in prop::collection::vec(any::<u8>(), 1..100),
            previous: u32,
            bit in 0..HEAD * 8,
        ) {
            let heads = [
                Head::record(&payload, previous),
                Head::sealed(&[7; SEALED as usize], &payload, previous),
                Head::filemark(previous),
            ];
            for head in heads {
                let mut bytes = head.encode();
                prop_assert_eq!(Head::decode(&bytes), Some(head));
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(Head::decode(&bytes), None);
            }
        }

        #[test]
        fn header_decoding_never_panics(mut bytes: Vec<u8>) {
            let _ = Header::decode(&bytes);
            bytes.splice(0..0, MAGIC.into_iter().chain(VERSION.to_le_bytes()));
            let _ = Header::decode(&bytes);
            Head::decode(&bytes);
        }
    }

    #[test]
    fn headers_lead_back() {
        let mut header = Header::new(Barcode::new("PTA001L8").unwrap(), 1 << 40);
        assert!(header.set_attribute(0x0806, b"PTA001L8"));
        assert!(!header.set_attribute(0x0803, &[0; 257]));
        let bytes = header.encode(1 << 33).unwrap();
        assert_eq!(Header::decode(&bytes), Ok((1 << 33, header.clone())));
        assert_eq!(header.attribute(0x0806).unwrap(), b"PTA001L8");
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 4;
            let is_reserved = (28..32).contains(&at);
            assert_eq!(Header::decode(&wrong).is_err(), !is_reserved, "byte {at}");
        }
    }

    #[test]
    fn a_full_cartridge_memory_fits_its_slot() {
        let mut header = Header::new(Barcode::new(&"X".repeat(32)).unwrap(), u64::MAX);
        let stored = (0..200u16).filter(|id| header.set_attribute(*id, &[255; 256])).count();
        assert_eq!(stored, ATTRIBUTES_MAX);
        assert!(header.encode(u64::MAX).is_ok());
        assert!(header.set_attribute(0, &[]));
        assert_eq!(header.attribute(0), None);
    }
}
