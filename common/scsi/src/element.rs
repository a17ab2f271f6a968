//! READ ELEMENT STATUS data (SMC-3 6.11) and the parameter data of SEND VOLUME TAG.

use model::{ElementAddress, ElementType};

use crate::wire::{be16, be24, bit, need, padded, text};
use crate::{Designator, Malformed};

/// Bytes of a volume tag field: 32 characters, two reserved, a sequence number.
const TAG: usize = 36;

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementDescriptor {
    /// Element address.
    pub address: ElementAddress,
    /// Its type.
    pub kind: ElementType,
    /// FULL: a cartridge is there.
    pub full: bool,
    /// IMPEXP, import/export elements: put there by an operator.
    pub imported: bool,
    /// ACCESS: the arm can reach it.
    pub accessible: bool,
    /// ASC and ASCQ where EXCEPT is set.
    pub exception: Option<(u8, u8)>,
    /// SOURCE STORAGE ELEMENT ADDRESS where SVALID is set.
    pub source: Option<ElementAddress>,
    /// Primary volume tag without padding; `None` where there is none or it is blank.
    pub tag: Option<String>,
    /// The drive's identifier (DVCID).
    pub identity: Option<Designator>,
}

/// A READ ELEMENT STATUS answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementReport {
    /// NUMBER OF ELEMENTS AVAILABLE.
    pub available: u16,
    /// BYTE COUNT of the full report, without the header of eight bytes.
    pub byte_count: u32,
    /// The elements whose descriptors were whole.
    pub elements: Vec<ElementDescriptor>,
}

impl ElementReport {
    /// Whether the allocation length held everything.
    pub fn is_complete(&self) -> bool {
        self.elements.len() >= usize::from(self.available)
    }

    /// Writes a full report: the header and one page for each type that occurs, in the order
    /// given (ascending addresses grouped by type). Nothing is cut to an allocation length here;
    /// the header speaks of the full report in any case.
    ///
    /// `tags` and `identities` are VOLTAG and DVCID of the CDB.
    pub fn encode(elements: &[ElementDescriptor], tags: bool, identities: bool) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        for kind in ElementType::ALL {
            let page: Vec<_> = elements.iter().filter(|e| e.kind == kind).collect();
            if !page.is_empty() {
                encode_page(&mut bytes, kind, &page, tags, identities);
            }
        }
        let first = elements.iter().map(|e| e.address).min().unwrap_or(0);
        bytes[..2].copy_from_slice(&first.to_be_bytes());
        bytes[2..4].copy_from_slice(&(elements.len() as u16).to_be_bytes());
        let count = (bytes.len() - 8) as u32;
        bytes[5..8].copy_from_slice(&count.to_be_bytes()[1..]);
        bytes
    }

    /// Reads a report, whole or cut by the allocation length (a header alone is fine). Steps by
    /// the descriptor lengths that the device reports.
    ///
    /// # Errors
    /// No header, or a page whose descriptor length can not hold a descriptor.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let head = need(bytes, 8, "element status header")?;
        let mut report =
            Self { available: be16(head, 2), byte_count: be24(head, 5), elements: Vec::new() };
        let end = bytes.len().min(8 + report.byte_count as usize);
        let mut rest = &bytes[8..end];
        while rest.len() >= 8 {
            let (page, behind) = rest.split_at(rest.len().min(8 + be24(rest, 5) as usize));
            parse_page(page, &mut report.elements)?;
            rest = behind;
        }
        Ok(report)
    }
}

fn encode_page(
    bytes: &mut Vec<u8>,
    kind: ElementType,
    elements: &[&ElementDescriptor],
    tags: bool,
    identities: bool,
) {
    let identity = |e: &ElementDescriptor| {
        let designator = e.identity.as_ref().filter(|_| identities);
        designator.map_or(vec![0; 4], Designator::encode)
    };
    let longest = elements.iter().map(|e| identity(e).len()).max().unwrap_or(4);
    let length = 12 + if tags { TAG } else { 0 } + longest;
    let count = (length * elements.len()) as u32;
    bytes.extend([kind as u8, u8::from(tags) << 7]);
    bytes.extend((length as u16).to_be_bytes());
    bytes.push(0);
    bytes.extend(&count.to_be_bytes()[1..]);
    for element in elements {
        let start = bytes.len();
        bytes.extend(element.encode_fixed());
        if tags {
            match &element.tag {
                Some(tag) => bytes.extend(padded(tag, 32)),
                None => bytes.extend([0; 32]),
            }
            bytes.extend([0; 4]);
        }
        bytes.extend(identity(element));
        bytes.resize(start + length, 0);
    }
}

fn parse_page(page: &[u8], elements: &mut Vec<ElementDescriptor>) -> Result<(), Malformed> {
    let length = usize::from(be16(page, 2));
    let has_tag = bit(page[1], 7);
    let tags = usize::from(has_tag) * TAG + usize::from(bit(page[1], 6)) * TAG;
    let smallest = 12 + tags;
    if length < smallest {
        let what = "element descriptor";
        return Err(Malformed { what, needed: smallest, found: length });
    }
    // A type code that SMC-3 does not know names no element of ours.
    let Some(kind) = ElementType::from_code(page[0] & 0x0f) else { return Ok(()) };
    for bytes in page[8..].chunks_exact(length) {
        elements.push(ElementDescriptor::parse(kind, bytes, has_tag, smallest));
    }
    Ok(())
}

impl ElementDescriptor {
    /// The first twelve bytes, the same for all types.
    fn encode_fixed(&self) -> [u8; 12] {
        let exports = self.kind == ElementType::ImportExport;
        let mut bytes = [0; 12];
        bytes[..2].copy_from_slice(&self.address.to_be_bytes());
        bytes[2] = u8::from(self.full)
            | u8::from(self.imported && exports) << 1
            | u8::from(self.exception.is_some()) << 2
            | u8::from(self.accessible && self.kind != ElementType::Transport) << 3
            | if exports { 0x30 } else { 0 };
        (bytes[4], bytes[5]) = self.exception.unwrap_or((0, 0));
        if let Some(source) = self.source {
            bytes[9] = 0x80;
            bytes[10..].copy_from_slice(&source.to_be_bytes());
        }
        bytes
    }

    fn parse(kind: ElementType, bytes: &[u8], has_tag: bool, identity_at: usize) -> Self {
        let tag = has_tag.then(|| text(&bytes[12..44])).filter(|tag| !tag.is_empty());
        let identity = Designator::parse(&bytes[identity_at..]).ok().map(|(found, _)| found);
        Self {
            address: be16(bytes, 0),
            kind,
            full: bit(bytes[2], 0),
            imported: kind == ElementType::ImportExport && bit(bytes[2], 1),
            accessible: bit(bytes[2], 3),
            exception: bit(bytes[2], 2).then_some((bytes[4], bytes[5])),
            source: bit(bytes[9], 7).then(|| be16(bytes, 10)),
            tag,
            identity: identity.filter(|found| !found.data.is_empty()),
        }
    }
}

/// The template of SEND VOLUME TAG (SMC-3 6.13): what to search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    /// Up to 32 characters; `*` any number, `?` any one.
    pub pattern: String,
    /// MINIMUM VOLUME SEQUENCE NUMBER.
    pub minimum: u16,
    /// MAXIMUM VOLUME SEQUENCE NUMBER.
    pub maximum: u16,
}

impl TagTemplate {
    /// 40 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = padded(&self.pattern, 32);
        bytes.extend([0, 0]);
        bytes.extend(self.minimum.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.maximum.to_be_bytes());
        bytes
    }

    /// Reads 40 bytes.
    ///
    /// # Errors
    /// Fewer bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = need(bytes, 40, "volume tag template")?;
        Ok(Self { pattern: text(&bytes[..32]), minimum: be16(bytes, 34), maximum: be16(bytes, 38) })
    }

    /// Whether a tag fits the pattern.
    pub fn matches(&self, tag: &str) -> bool {
        fits(self.pattern.as_bytes(), tag.as_bytes())
    }
}

/// Wildcard match that goes back to the last `*` only, so its time is bounded by the product.
fn fits(pattern: &[u8], tag: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < tag.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == tag[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                None => return false,
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_element() -> impl Strategy<Value = ElementDescriptor> {
        let flags = any::<[bool; 3]>();
        let exception = proptest::option::of(any::<(u8, u8)>());
        let source = proptest::option::of(any::<u16>());
        let tag = proptest::option::of("[A-Z0-9]{1,32}");
        let serial = proptest::option::of("[A-Z0-9]{10}");
        (1u8..5, flags, exception, source, tag, serial).prop_map(
            |(kind, flags, exception, source, tag, serial)| {
                let kind = ElementType::from_code(kind).unwrap();
                ElementDescriptor {
                    address: 0,
                    kind,
                    full: flags[0],
                    imported: flags[1] && kind == ElementType::ImportExport,
                    accessible: flags[2] && kind != ElementType::Transport,
                    exception,
                    source,
                    tag,
                    identity: serial.map(|s| Designator::t10("V", "P", &s, 10)),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn reports_lead_back(
            mut elements in proptest::collection::vec(any_element(), 0..20),
            tags: bool,
            identities: bool,
            cut in 8usize..4096,
        ) {
            elements.sort_by_key(|e| e.kind);
            for (address, element) in elements.iter_mut().enumerate() {
                element.address = address as u16;
            }
            let bytes = ElementReport::encode(&elements, tags, identities);
            for element in &mut elements {
                element.tag = element.tag.take().filter(|_| tags);
                element.identity = element.identity.take().filter(|_| identities);
            }
            let report = ElementReport::parse(&bytes).unwrap();
            prop_assert!(report.is_complete());
            prop_assert_eq!(report.byte_count as usize + 8, bytes.len());
            prop_assert_eq!(&report.elements, &elements);
            let part = ElementReport::parse(&bytes[..cut.min(bytes.len())]).unwrap();
            prop_assert!(elements.starts_with(&part.elements));
            prop_assert_eq!(part.byte_count, report.byte_count);
        }

        #[test]
        fn parsing_never_panics(mut bytes: Vec<u8>, kind in 0u8..6, length: u8) {
            let _ = ElementReport::parse(&bytes);
            bytes.splice(0..0, [0, 0, 0, 9, 0, 0, 1, 0, kind, 0xc0, 0, length, 0, 0, 0, 200]);
            let _ = ElementReport::parse(&bytes);
            let _ = TagTemplate::parse(&bytes);
        }

        #[test]
        fn templates_lead_back(pattern in "[A-Z*?]{0,32}", minimum: u16, maximum: u16) {
            let template = TagTemplate { pattern, minimum, maximum };
            prop_assert_eq!(TagTemplate::parse(&template.encode()), Ok(template));
        }
    }

    #[test]
    fn observed_descriptor_lengths_are_produced() {
        let element = ElementDescriptor {
            address: 128,
            kind: ElementType::DataTransfer,
            full: true,
            imported: false,
            accessible: false,
            exception: None,
            source: Some(1024),
            tag: Some("VTA001L8".into()),
            identity: Some(Designator::t10("TWINREEL", "ULTRIUM-TD8", "0123456789", 10)),
        };
        let length = |tags, identities| {
            let report = ElementReport::encode(std::slice::from_ref(&element), tags, identities);
            be16(&report, 10)
        };
        assert_eq!([length(false, false), length(true, false)], [16, 52]);
        assert_eq!([length(false, true), length(true, true)], [50, 86]);
    }

    #[test]
    fn patterns_match_as_the_standard_says() {
        let fits = |pattern: &str, tag: &str| {
            TagTemplate { pattern: pattern.into(), minimum: 0, maximum: 0 }.matches(tag)
        };
        assert!(
            fits("*", "VTA001L8") && fits("VTA*L8", "VTA001L8") && fits("VTA00?L8", "VTA001L8")
        );
        assert!(!fits("VTA", "VTA001L8") && !fits("*L7", "VTA001L8") && !fits("?", ""));
        assert!(fits("*1*1*", "a1b1") && !fits("*1*1*1", "a1b1"));
    }
}
