//! INQUIRY: standard data and vital product data pages (SPC-5 6.6, 7.7; SSC-4 8.4).

use crate::wire::{be16, bit, need, padded, text};
use crate::{DeviceType, Malformed};

/// Standard INQUIRY data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardInquiry {
    /// PERIPHERAL DEVICE TYPE, see [`DeviceType`]; 1Fh with `qualifier` 3 where no unit is.
    pub device_type: u8,
    /// PERIPHERAL QUALIFIER, 0 for a device that is there.
    pub qualifier: u8,
    /// RMB: the medium can be taken out.
    pub removable: bool,
    /// VERSION, 6 for SPC-4.
    pub version: u8,
    /// T10 VENDOR IDENTIFICATION, up to 8 characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, up to 16 characters.
    pub product: String,
    /// PRODUCT REVISION LEVEL, up to 4 characters.
    pub revision: String,
}

impl StandardInquiry {
    /// What a device of ours answers.
    pub fn new(device_type: DeviceType, vendor: &str, product: &str, revision: &str) -> Self {
        Self {
            device_type: device_type as u8,
            qualifier: 0,
            removable: true,
            version: 6,
            vendor: vendor.to_owned(),
            product: product.to_owned(),
            revision: revision.to_owned(),
        }
    }

    /// 36 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let type_byte = self.qualifier << 5 | (self.device_type & 0x1f);
        let mut bytes =
            vec![type_byte, u8::from(self.removable) << 7, self.version, 0x02, 31, 0, 0, 0];
        bytes.extend(padded(&self.vendor, 8));
        bytes.extend(padded(&self.product, 16));
        bytes.extend(padded(&self.revision, 4));
        bytes
    }

    /// Reads standard data.
    ///
    /// # Errors
    /// Fewer than 36 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = need(bytes, 36, "standard INQUIRY data")?;
        Ok(Self {
            device_type: bytes[0] & 0x1f,
            qualifier: bytes[0] >> 5,
            removable: bit(bytes[1], 7),
            version: bytes[2],
            vendor: text(&bytes[8..16]),
            product: text(&bytes[16..32]),
            revision: text(&bytes[32..36]),
        })
    }
}

/// A designation descriptor of page 83h, also the identifier of a drive in READ ELEMENT STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designator {
    /// CODE SET: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// ASSOCIATION: 0 logical unit, 1 port, 2 target.
    pub association: u8,
    /// DESIGNATOR TYPE: 1 T10 vendor identification, 3 NAA.
    pub kind: u8,
    /// The identifier, at most 255 bytes.
    pub data: Vec<u8>,
}

impl Designator {
    /// The T10 form that libraries use for drives: vendor (8), product (16), serial number. The
    /// serial number is padded to `serial_width`, which is 10 for what hosts expect.
    pub fn t10(vendor: &str, product: &str, serial: &str, serial_width: usize) -> Self {
        let width = serial_width.min(64);
        let data = [padded(vendor, 8), padded(product, 16), padded(serial, width)].concat();
        Self { code_set: 2, association: 0, kind: 1, data }
    }

    /// An eight byte network address authority name.
    pub fn naa(name: u64) -> Self {
        Self { code_set: 1, association: 0, kind: 3, data: name.to_be_bytes().to_vec() }
    }

    /// Vendor, product and serial number of a T10 identifier in the form of
    /// [`Designator::t10`]; `None` for another type or a shorter one.
    pub fn t10_parts(&self) -> Option<(String, String, String)> {
        let parts = (self.kind == 1 && self.data.len() > 24).then_some(&self.data)?;
        Some((text(&parts[..8]), text(&parts[8..24]), text(&parts[24..])))
    }

    /// Header of four bytes and the identifier.
    pub fn encode(&self) -> Vec<u8> {
        let length = self.data.len().min(255);
        let head =
            [self.code_set & 0x0f, self.association << 4 | (self.kind & 0x0f), 0, length as u8];
        [&head[..], &self.data[..length]].concat()
    }

    /// Reads one descriptor and what is left behind it.
    ///
    /// # Errors
    /// The descriptor is cut.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let head = need(bytes, 4, "designation descriptor")?;
        let end = 4 + head[3] as usize;
        let data = need(bytes, end, "designation descriptor")?[4..].to_vec();
        let designator = Self {
            code_set: head[0] & 0x0f,
            association: head[1] >> 4 & 3,
            kind: head[1] & 0x0f,
            data,
        };
        Ok((designator, &bytes[end..]))
    }
}

/// A vital product data page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VitalPage {
    /// 00h: the pages there are, ascending.
    Supported(Vec<u8>),
    /// 80h: unit serial number.
    SerialNumber(String),
    /// 83h: device identification.
    Identification(Vec<Designator>),
    /// B0h: sequential access device capabilities.
    Capabilities {
        /// WORM media are supported.
        worm: bool,
    },
    /// B1h: manufacturer-assigned serial number.
    ManufacturerSerial(String),
    /// Any other page with its data.
    Other(u8, Vec<u8>),
}

impl VitalPage {
    /// The page code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Supported(_) => 0x00,
            Self::SerialNumber(_) => 0x80,
            Self::Identification(_) => 0x83,
            Self::Capabilities { .. } => 0xb0,
            Self::ManufacturerSerial(_) => 0xb1,
            Self::Other(code, _) => *code,
        }
    }

    /// Header of four bytes and the page.
    pub fn encode(&self, device_type: DeviceType) -> Vec<u8> {
        let mut data = match self {
            Self::Supported(pages) => pages.clone(),
            Self::SerialNumber(serial) | Self::ManufacturerSerial(serial) => {
                padded(serial, serial.chars().count())
            }
            Self::Identification(designators) => {
                designators.iter().flat_map(Designator::encode).collect()
            }
            Self::Capabilities { worm } => vec![u8::from(*worm), 0],
            Self::Other(_, data) => data.clone(),
        };
        data.truncate(u16::MAX.into());
        let [high, low] = (data.len() as u16).to_be_bytes();
        data.splice(0..0, [device_type as u8, self.code(), high, low]);
        data
    }

    /// Reads a page. Data cut by the allocation length is read as far as it goes.
    ///
    /// # Errors
    /// No header, or a designation descriptor that does not fit its page.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let head = need(bytes, 4, "vital product data page")?;
        let end = bytes.len().min(4 + be16(head, 2) as usize);
        let data = &bytes[4..end];
        Ok(match head[1] {
            0x00 => Self::Supported(data.to_vec()),
            0x80 => Self::SerialNumber(text(data)),
            0x83 => {
                let (mut rest, mut designators) = (data, Vec::new());
                while !rest.is_empty() {
                    let (designator, behind) = Designator::parse(rest)?;
                    designators.push(designator);
                    rest = behind;
                }
                Self::Identification(designators)
            }
            0xb0 => Self::Capabilities { worm: data.first().is_some_and(|b| bit(*b, 0)) },
            0xb1 => Self::ManufacturerSerial(text(data)),
            code => Self::Other(code, data.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn standard_data_leads_back() {
        let data = StandardInquiry::new(DeviceType::Changer, "TWINREEL", "VTL", "0001");
        assert_eq!(&data.encode()[..8], [8, 0x80, 6, 2, 31, 0, 0, 0]);
        assert_eq!(StandardInquiry::parse(&data.encode()), Ok(data));
    }

    #[test]
    fn pages_lead_back() {
        let t10 = Designator::t10("TWINREEL", "ULTRIUM-TD8", "VT00001D00", 10);
        assert_eq!(t10.data.len(), 34);
        let serial = t10.t10_parts().unwrap().2;
        assert_eq!(serial, "VT00001D00");
        let pages = [
            VitalPage::Supported(vec![0, 0x80, 0x83]),
            VitalPage::SerialNumber(serial),
            VitalPage::Identification(vec![t10, Designator::naa(0x3000_0000_0000_0001)]),
            VitalPage::Capabilities { worm: false },
            VitalPage::ManufacturerSerial("X".into()),
            VitalPage::Other(0xb2, vec![1; 8]),
        ];
        for page in pages {
            assert_eq!(VitalPage::parse(&page.encode(DeviceType::Tape)), Ok(page));
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, page in 0x80u8..0xb3) {
            let _ = StandardInquiry::parse(&bytes);
            let _ = VitalPage::parse(&bytes);
            let _ = VitalPage::parse(&[&[1, page], &bytes[..]].concat());
        }
    }
}
