//! Medium auxiliary memory: READ and WRITE ATTRIBUTE data (SPC-5 7.4).

use crate::Malformed;
use crate::wire::{be16, be32, bit, need};

/// Longest attribute value that is kept, in bytes.
pub const ATTRIBUTE_MAX: usize = 256;

/// Attribute identifiers.
pub mod id {
    /// Remaining capacity in partition, MiB, 8 bytes.
    pub const REMAINING_CAPACITY: u16 = 0x0000;
    /// Maximum capacity in partition, MiB, 8 bytes.
    pub const MAXIMUM_CAPACITY: u16 = 0x0001;
    /// TapeAlert flags, 8 bytes.
    pub const TAPE_ALERT: u16 = 0x0002;
    /// Load count, 8 bytes.
    pub const LOAD_COUNT: u16 = 0x0003;
    /// Assigning organization, 8 characters.
    pub const ORGANISATION: u16 = 0x0005;
    /// The density that it is written in, 1 byte.
    pub const FORMATTED_DENSITY: u16 = 0x0006;
    /// Medium manufacturer, 8 characters.
    pub const MANUFACTURER: u16 = 0x0400;
    /// Medium serial number, 32 characters.
    pub const SERIAL_NUMBER: u16 = 0x0401;
    /// Medium density code, 1 byte.
    pub const DENSITY: u16 = 0x0405;
    /// Medium type, 1 byte: 0 data, 1 cleaning, 80h WORM.
    pub const MEDIUM_TYPE: u16 = 0x0408;
    /// Application vendor, 8 characters.
    pub const APPLICATION_VENDOR: u16 = 0x0800;
    /// Application name, 32 characters.
    pub const APPLICATION_NAME: u16 = 0x0801;
    /// Application version, 8 characters.
    pub const APPLICATION_VERSION: u16 = 0x0802;
    /// User medium text label, 160 characters.
    pub const TEXT_LABEL: u16 = 0x0803;
    /// Date and time last written, 12 characters.
    pub const LAST_WRITTEN: u16 = 0x0804;
    /// Barcode, 32 characters.
    pub const BARCODE: u16 = 0x0806;
    /// Owning host textual name, 80 characters.
    pub const OWNING_HOST: u16 = 0x0807;
    /// Media pool, 160 characters.
    pub const MEDIA_POOL: u16 = 0x0808;
    /// Application format version, 16 characters.
    pub const FORMAT_VERSION: u16 = 0x080b;
    /// Volume coherency information, up to 70 bytes.
    pub const COHERENCY: u16 = 0x080c;
}

/// FORMAT of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeFormat {
    /// Binary, 0.
    Binary = 0,
    /// ASCII, 1.
    Ascii = 1,
    /// Text, 2.
    Text = 2,
}

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// ATTRIBUTE IDENTIFIER.
    pub id: u16,
    /// READ ONLY.
    pub read_only: bool,
    /// FORMAT.
    pub format: AttributeFormat,
    /// The value; in WRITE ATTRIBUTE an empty one removes the attribute.
    pub value: Vec<u8>,
}

/// What the host may store: identifier, format and the longest value.
pub const HOST_ATTRIBUTES: &[(u16, AttributeFormat, usize)] = &[
    (id::APPLICATION_VENDOR, AttributeFormat::Ascii, 8),
    (id::APPLICATION_NAME, AttributeFormat::Ascii, 32),
    (id::APPLICATION_VERSION, AttributeFormat::Ascii, 8),
    (id::TEXT_LABEL, AttributeFormat::Text, 160),
    (id::LAST_WRITTEN, AttributeFormat::Ascii, 12),
    (id::BARCODE, AttributeFormat::Ascii, 32),
    (id::OWNING_HOST, AttributeFormat::Text, 80),
    (id::MEDIA_POOL, AttributeFormat::Text, 160),
    (id::FORMAT_VERSION, AttributeFormat::Ascii, 16),
    (id::COHERENCY, AttributeFormat::Binary, 70),
];

impl Attribute {
    /// Reads the attribute list of either command: a length of four bytes and attributes.
    ///
    /// Data cut by the allocation length is read as far as it goes.
    ///
    /// # Errors
    /// No length, or a format that the standard does not know.
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let length = be32(need(bytes, 4, "attribute list")?, 0) as usize;
        let end = bytes.len().min(length.saturating_add(4));
        let (mut rest, mut list) = (&bytes[4..end], Vec::new());
        while let Some(head) = rest.get(..5) {
            let Some(value) = rest.get(5..5 + usize::from(be16(head, 3))) else { break };
            let format = match head[2] & 3 {
                0 => AttributeFormat::Binary,
                1 => AttributeFormat::Ascii,
                2 => AttributeFormat::Text,
                _ => return Err(Malformed { what: "attribute format", needed: 2, found: 3 }),
            };
            list.push(Self {
                id: be16(head, 0),
                read_only: bit(head[2], 7),
                format,
                value: value.to_vec(),
            });
            rest = &rest[5 + value.len()..];
        }
        Ok(list)
    }

    /// The attribute list of either command.
    pub fn encode_list(attributes: &[Self]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for attribute in attributes {
            let value = &attribute.value[..attribute.value.len().min(u16::MAX.into())];
            bytes.extend(attribute.id.to_be_bytes());
            bytes.push(u8::from(attribute.read_only) << 7 | attribute.format as u8);
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value);
        }
        finish(bytes)
    }

    /// The answer to the service actions that only list identifiers (1 and 5).
    pub fn encode_ids(ids: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        ids.iter().for_each(|id| bytes.extend(id.to_be_bytes()));
        finish(bytes)
    }
}

fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_lead_back(raw: Vec<(u16, bool, u8, Vec<u8>)>) {
            use AttributeFormat::{Ascii, Binary, Text};
            let list: Vec<_> = raw.into_iter().map(|(id, read_only, format, value)| {
                let format = [Binary, Ascii, Text][usize::from(format % 3)];
                Attribute { id, read_only, format, value }
            }).collect();
            let bytes = Attribute::encode_list(&list);
            prop_assert_eq!(Attribute::parse_list(&bytes), Ok(list));
        }

        #[test]
        fn parsing_never_panics(mut bytes: Vec<u8>) {
            let _ = Attribute::parse_list(&bytes);
            bytes.splice(0..0, [0, 0, 1, 0]);
            let _ = Attribute::parse_list(&bytes);
        }
    }
}
