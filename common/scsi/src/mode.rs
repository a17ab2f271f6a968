//! MODE SENSE and MODE SELECT parameter data (SPC-5 7.5, SSC-4 8.5, SMC-3 7.3).

use model::{ElementMap, ElementType};

use crate::wire::{be16, be24, bit, need};
use crate::{Malformed, ModeForm};

/// The block descriptor of a tape drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// DENSITY CODE; 0 default, 7Fh (select) no change.
    pub density: u8,
    /// NUMBER OF BLOCKS, 24 bits, 0 for the rest of the medium.
    pub blocks: u32,
    /// BLOCK LENGTH in bytes, 24 bits; **0 is variable**.
    pub length: u32,
}

/// One mode page, or subpage where `subpage` is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModePage {
    /// PAGE CODE, six bits.
    pub code: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// What follows the page's header.
    pub data: Vec<u8>,
}

/// A whole parameter list: header, block descriptor and pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModeParameters {
    /// MEDIUM TYPE.
    pub medium_type: u8,
    /// DEVICE-SPECIFIC PARAMETER; tape: WP bit 7, buffered mode bits 6-4, speed bits 3-0.
    pub device_specific: u8,
    /// The first block descriptor.
    pub block: Option<BlockDescriptor>,
    /// Pages in order.
    pub pages: Vec<ModePage>,
}

impl ModeParameters {
    /// Writes the list with its header in the form of the command. MODE DATA LENGTH is set as for
    /// MODE SENSE; it is reserved in MODE SELECT ([`ModeParameters::encode_select`]).
    pub fn encode(&self, form: ModeForm) -> Vec<u8> {
        let mut bytes = self.encode_select(form);
        let length = bytes.len();
        match form {
            ModeForm::Six => bytes[0] = (length - 1).min(255) as u8,
            ModeForm::Ten => {
                bytes[..2].copy_from_slice(&((length - 2) as u16).to_be_bytes());
            }
        }
        bytes
    }

    /// Writes the list for MODE SELECT.
    pub fn encode_select(&self, form: ModeForm) -> Vec<u8> {
        let descriptors = if self.block.is_some() { 8 } else { 0 };
        let mut bytes = match form {
            ModeForm::Six => vec![0, self.medium_type, self.device_specific, descriptors],
            ModeForm::Ten => {
                vec![0, 0, self.medium_type, self.device_specific, 0, 0, 0, descriptors]
            }
        };
        if let Some(block) = self.block {
            bytes.push(block.density);
            bytes.extend(&block.blocks.to_be_bytes()[1..]);
            bytes.push(0);
            bytes.extend(&block.length.to_be_bytes()[1..]);
        }
        self.pages.iter().for_each(|page| page.encode(&mut bytes));
        bytes
    }

    /// Reads a list of either command. What the allocation length cut off is left out.
    ///
    /// # Errors
    /// No header, or block descriptors that are cut.
    pub fn parse(bytes: &[u8], form: ModeForm) -> Result<Self, Malformed> {
        let (header, descriptors) = match form {
            ModeForm::Six => (4, usize::from(need(bytes, 4, "mode header")?[3])),
            ModeForm::Ten => (8, usize::from(be16(need(bytes, 8, "mode header")?, 6))),
        };
        let at = if form == ModeForm::Six { 1 } else { 2 };
        let mut parameters = Self {
            medium_type: bytes[at],
            device_specific: bytes[at + 1],
            block: None,
            pages: Vec::new(),
        };
        let before = need(bytes, header + descriptors, "mode block descriptor")?;
        if descriptors >= 8 {
            parameters.block = Some(BlockDescriptor {
                density: before[header],
                blocks: be24(before, header + 1),
                length: be24(before, header + 5),
            });
        }
        let told = match form {
            ModeForm::Six => usize::from(bytes[0]) + 1,
            ModeForm::Ten => usize::from(be16(bytes, 0)) + 2,
        };
        // In MODE SELECT the length is zero and the list ends with the data.
        let end = if told <= 2 { bytes.len() } else { told.min(bytes.len()) };
        let mut rest = bytes.get(before.len()..end).unwrap_or_default();
        while let Some((page, behind)) = ModePage::parse(rest) {
            parameters.pages.push(page);
            rest = behind;
        }
        Ok(parameters)
    }

    /// The page with these codes.
    pub fn page(&self, code: u8, subpage: u8) -> Option<&ModePage> {
        self.pages.iter().find(|page| page.code == code && page.subpage == subpage)
    }

    /// WP of a tape's device-specific parameter.
    pub fn write_protected(&self) -> bool {
        bit(self.device_specific, 7)
    }
}

impl ModePage {
    /// A page without subpage.
    pub fn new(code: u8, data: impl Into<Vec<u8>>) -> Self {
        Self { code, subpage: 0, data: data.into() }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match self.subpage {
            0 => bytes.extend([self.code & 0x3f, self.data.len().min(255) as u8]),
            subpage => {
                bytes.extend([0x40 | (self.code & 0x3f), subpage]);
                bytes.extend((self.data.len() as u16).to_be_bytes());
            }
        }
        bytes.extend(&self.data);
    }

    /// One page and what is behind it, `None` where no whole page is left.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let first = *bytes.first()?;
        let (header, subpage, length) = match bit(first, 6) {
            false => (2, 0, usize::from(*bytes.get(1)?)),
            true => (4, *bytes.get(1)?, usize::from(be16(bytes.get(..4)?, 2))),
        };
        let data = bytes.get(header..header + length)?.to_vec();
        let page = Self { code: first & 0x3f, subpage, data };
        Some((page, &bytes[header + length..]))
    }
}

/// The element address assignment page (SMC-3 7.3.4, 1Dh of a changer) of a map.
pub fn element_assignment(map: &ElementMap) -> ModePage {
    let mut data = Vec::with_capacity(18);
    for kind in ElementType::ALL {
        let (first, count) = map.range(kind);
        data.extend(first.to_be_bytes());
        data.extend(count.to_be_bytes());
    }
    data.extend([0, 0]);
    ModePage::new(0x1d, data)
}

/// Reads the element address assignment page.
///
/// # Errors
/// Fewer than 16 bytes of page data.
pub fn parse_element_assignment(page: &ModePage) -> Result<ElementMap, Malformed> {
    let data = need(&page.data, 16, "element address assignment page")?;
    let range = |at| (be16(data, at), be16(data, at + 2));
    Ok(ElementMap::from_ranges([range(0), range(4), range(8), range(12)]))
}

/// Data compression page (SSC-4 8.5.2), 0Fh.
pub fn data_compression(enabled: bool) -> ModePage {
    let mut data = [0; 14];
    data[0] = u8::from(enabled) << 7 | 0x40;
    data[1] = 0x80;
    data[5] = 0x01;
    data[9] = 0x01;
    ModePage::new(0x0f, data)
}

/// Device configuration page (SSC-4 8.5.3), 10h: one partition, block identifiers supported.
pub fn device_configuration(compression: bool) -> ModePage {
    let mut data = [0; 14];
    data[6] = 0x40;
    data[8] = 0x08;
    data[12] = u8::from(compression);
    ModePage::new(0x10, data)
}

/// Device configuration extension page (SSC-4 8.3.8), 10h/01h. No programmable early warning.
/// `append_only`: WRITE MODE 01h.
pub fn device_configuration_extension(append_only: bool) -> ModePage {
    let mut data = vec![0; 28];
    data[1] = u8::from(append_only) << 4;
    ModePage { code: 0x10, subpage: 0x01, data }
}

/// Read-write error recovery page (SSC-4 8.3.5), 01h: the drive tries as often as it thinks fit.
pub fn error_recovery() -> ModePage {
    ModePage::new(0x01, [0; 10])
}

/// Disconnect-reconnect page (SPC-5 7.5.10), 02h: no limits.
pub fn disconnect_reconnect() -> ModePage {
    ModePage::new(0x02, [0; 14])
}

/// Control page (SPC-5 7.5.8), 0Ah: sense data in fixed format, busy for as long as it takes.
pub fn control() -> ModePage {
    ModePage::new(0x0a, [0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0])
}

/// Medium partition page (SSC-4 8.5.4), 11h: one partition and no more.
pub fn medium_partition() -> ModePage {
    ModePage::new(0x11, [0, 0, 0x10, 0x03, 0, 0])
}

/// Informational exceptions control page (SPC-5 7.5.12), 1Ch: only on request.
pub fn informational_exceptions() -> ModePage {
    ModePage::new(0x1c, [0, 0x03, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// Medium configuration page (SSC-4 8.5.6), 1Dh of a drive.
pub fn medium_configuration(worm: bool) -> ModePage {
    let mut data = [0; 30];
    data[0] = u8::from(worm);
    ModePage::new(0x1d, data)
}

/// Transport geometry page (SMC-3 7.3.5), 1Eh: no arm turns cartridges over.
pub fn transport_geometry(arms: u16) -> ModePage {
    let pairs = (0..arms.min(32)).flat_map(|arm| [0, arm as u8]);
    ModePage::new(0x1e, pairs.collect::<Vec<u8>>())
}

/// Device capabilities page (SMC-3 7.3.3), 1Fh: storage, import/export and drives hold
/// cartridges, and any of them moves to and exchanges with any other.
pub fn device_capabilities() -> ModePage {
    ModePage::new(0x1f, [0x0e, 0, 0, 0x0e, 0x0e, 0x0e, 0, 0, 0, 0, 0, 0x0e, 0x0e, 0x0e, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_parameters() -> impl Strategy<Value = ModeParameters> {
        let block = (any::<u8>(), 0u32..1 << 24, 0u32..1 << 24)
            .prop_map(|(density, blocks, length)| BlockDescriptor { density, blocks, length });
        let page = (0u8..0x40, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(code, subpage, data)| ModePage { code, subpage, data });
        let pages = proptest::collection::vec(page, 0..5);
        (any::<u8>(), any::<u8>(), proptest::option::of(block), pages).prop_map(
            |(medium_type, device_specific, block, pages)| ModeParameters {
                medium_type,
                device_specific,
                block,
                pages,
            },
        )
    }

    proptest! {
        #[test]
        fn lists_lead_back(list in any_parameters(), six: bool) {
            let form = if six { ModeForm::Six } else { ModeForm::Ten };
            prop_assert_eq!(ModeParameters::parse(&list.encode(form), form), Ok(list.clone()));
            prop_assert_eq!(ModeParameters::parse(&list.encode_select(form), form), Ok(list));
        }

        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, six: bool) {
            let form = if six { ModeForm::Six } else { ModeForm::Ten };
            if let Ok(list) = ModeParameters::parse(&bytes, form) {
                for page in &list.pages {
                    let _ = parse_element_assignment(page);
                }
            }
        }
    }

    #[test]
    fn pages_have_their_lengths() {
        let map = ElementMap::with_counts(2, 20, 4);
        let page = element_assignment(&map);
        assert_eq!(page.data.len(), 18);
        assert_eq!(parse_element_assignment(&page), Ok(map));
        for (page, length) in [
            (data_compression(true), 14),
            (device_configuration(true), 14),
            (informational_exceptions(), 10),
            (medium_configuration(false), 30),
            (transport_geometry(1), 2),
            (device_capabilities(), 18),
        ] {
            assert_eq!(page.data.len(), length, "{:02x}", page.code);
        }
    }
}
