//! Smaller answers: READ POSITION, READ BLOCK LIMITS, REPORT DENSITY SUPPORT, REPORT SUPPORTED
//! OPERATION CODES, REPORT LUNS.

use crate::wire::{be16, be24, be32, be64, bit, need, padded, text};
use crate::{Command, DeviceType, Malformed, OpcodeQuery, PositionForm, commands};

/// READ POSITION data of any form (SSC-4 7.6); `None` for what the form or the device leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionReport {
    /// BOP.
    pub at_bot: bool,
    /// EOP: between early warning and the end of the partition.
    pub at_end: bool,
    /// BPEW: beyond programmable early warning.
    pub past_early_warning: bool,
    /// The partition.
    pub partition: u32,
    /// The next object that the host transfers (first logical object location).
    pub object: Option<u64>,
    /// The next object that goes to the medium (last logical object location).
    pub medium_object: Option<u64>,
    /// Filemarks before the position.
    pub file: Option<u64>,
    /// Objects in the buffer.
    pub buffered_objects: Option<u32>,
    /// Bytes in the buffer.
    pub buffered_bytes: Option<u64>,
}

impl PositionReport {
    /// The bytes of a form. Short form: an object number of more than 32 bits sets PERR.
    pub fn encode(&self, form: PositionForm) -> Vec<u8> {
        let flags = u8::from(self.at_bot) << 7 | u8::from(self.at_end) << 6;
        let flags = flags | u8::from(self.past_early_warning);
        match form {
            PositionForm::Short => self.encode_short(flags),
            PositionForm::Long => {
                let mut bytes = vec![0; 32];
                let unknown = u8::from(self.file.is_none()) << 3;
                bytes[0] = flags | unknown | u8::from(self.object.is_none()) << 2;
                bytes[4..8].copy_from_slice(&self.partition.to_be_bytes());
                bytes[8..16].copy_from_slice(&self.object.unwrap_or(0).to_be_bytes());
                bytes[16..24].copy_from_slice(&self.file.unwrap_or(0).to_be_bytes());
                bytes
            }
            PositionForm::Extended => {
                let mut bytes = vec![0; 32];
                bytes[0] = flags | self.unknown_flags();
                bytes[1] = self.partition as u8;
                bytes[3] = 28;
                bytes[5..8].copy_from_slice(&self.objects_in_buffer());
                bytes[8..16].copy_from_slice(&self.object.unwrap_or(0).to_be_bytes());
                bytes[16..24].copy_from_slice(&self.last().to_be_bytes());
                bytes[24..].copy_from_slice(&self.buffered_bytes.unwrap_or(0).to_be_bytes());
                bytes
            }
        }
    }

    fn encode_short(&self, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[0] = flags | self.unknown_flags();
        bytes[1] = self.partition as u8;
        let object = u32::try_from(self.object.unwrap_or(0));
        match (object, u32::try_from(self.last())) {
            (Ok(first), Ok(last)) => {
                bytes[4..8].copy_from_slice(&first.to_be_bytes());
                bytes[8..12].copy_from_slice(&last.to_be_bytes());
            }
            _ => bytes[0] |= 0x02,
        }
        bytes[13..16].copy_from_slice(&self.objects_in_buffer());
        let buffered = self.buffered_bytes.unwrap_or(0).min(u32::MAX.into()) as u32;
        bytes[16..].copy_from_slice(&buffered.to_be_bytes());
        bytes
    }

    fn last(&self) -> u64 {
        self.medium_object.or(self.object).unwrap_or(0)
    }

    /// LOCU, BYCU and LOLU.
    fn unknown_flags(&self) -> u8 {
        u8::from(self.buffered_objects.is_none()) << 5
            | u8::from(self.buffered_bytes.is_none()) << 4
            | u8::from(self.object.is_none()) << 2
    }

    fn objects_in_buffer(&self) -> [u8; 3] {
        let [_, a, b, c] = self.buffered_objects.unwrap_or(0).min(0xff_ffff).to_be_bytes();
        [a, b, c]
    }

    /// Reads the bytes of a form.
    ///
    /// # Errors
    /// Fewer than 20 bytes (short) or 32 bytes (long, extended).
    pub fn parse(bytes: &[u8], form: PositionForm) -> Result<Self, Malformed> {
        let length = if form == PositionForm::Short { 20 } else { 32 };
        let bytes = need(bytes, length, "READ POSITION data")?;
        let flags = bytes[0];
        let mut report = Self {
            at_bot: bit(flags, 7),
            at_end: bit(flags, 6),
            past_early_warning: bit(flags, 0),
            ..Self::default()
        };
        let known = !bit(flags, 2);
        if form == PositionForm::Long {
            report.partition = be32(bytes, 4);
            report.object = known.then(|| be64(bytes, 8));
            report.file = (!bit(flags, 3)).then(|| be64(bytes, 16));
            return Ok(report);
        }
        report.partition = bytes[1].into();
        let (objects, first, last, buffer) = match form {
            PositionForm::Short => (13, be32(bytes, 4).into(), be32(bytes, 8).into(), None),
            _ => (5, be64(bytes, 8), be64(bytes, 16), Some(be64(bytes, 24))),
        };
        let overflow = form == PositionForm::Short && bit(flags, 1);
        report.object = (known && !overflow).then_some(first);
        report.medium_object = (known && !overflow).then_some(last);
        report.buffered_objects = (!bit(flags, 5)).then(|| be24(bytes, objects));
        let buffered = buffer.unwrap_or_else(|| be32(bytes, 16).into());
        report.buffered_bytes = (!bit(flags, 4)).then_some(buffered);
        Ok(report)
    }
}

/// READ BLOCK LIMITS data (SSC-4 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// GRANULARITY: block lengths are multiples of two to this power.
    pub granularity: u8,
    /// Longest block, 24 bits; 0 is no limit.
    pub maximum: u32,
    /// Shortest block.
    pub minimum: u16,
}

impl BlockLimits {
    /// Six bytes.
    pub fn encode(&self) -> Vec<u8> {
        let [_, a, b, c] = self.maximum.min(0xff_ffff).to_be_bytes();
        let [d, e] = self.minimum.to_be_bytes();
        vec![self.granularity & 0x1f, a, b, c, d, e]
    }

    /// Reads six bytes.
    ///
    /// # Errors
    /// Fewer bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = need(bytes, 6, "block limits")?;
        let granularity = bytes[0] & 0x1f;
        Ok(Self { granularity, maximum: be24(bytes, 1), minimum: be16(bytes, 4) })
    }
}

/// One medium type of REPORT DENSITY SUPPORT (SSC-4 7.9.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediumType {
    /// MEDIUM TYPE, as MODE SENSE has it.
    pub code: u8,
    /// PRIMARY DENSITY CODES, at most nine.
    pub densities: Vec<u8>,
    /// MEDIA WIDTH in tenths of a millimetre.
    pub width: u16,
    /// MEDIUM LENGTH in metres.
    pub length: u16,
    /// ASSIGNING ORGANIZATION, 8 characters.
    pub organisation: String,
    /// MEDIUM TYPE NAME, 8 characters.
    pub name: String,
    /// DESCRIPTION, 20 characters.
    pub description: String,
}

impl MediumType {
    /// The whole answer for a list of medium types.
    pub fn encode_report(types: &[Self]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for it in types {
            let mut densities = it.densities.clone();
            densities.resize(9, 0);
            bytes.extend([it.code, 0, 0, 52, it.densities.len().min(9) as u8]);
            bytes.extend(densities);
            bytes.extend(it.width.to_be_bytes());
            bytes.extend(it.length.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(padded(&it.organisation, 8));
            bytes.extend(padded(&it.name, 8));
            bytes.extend(padded(&it.description, 20));
        }
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

/// One density of REPORT DENSITY SUPPORT (SSC-4 7.9.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Density {
    /// PRIMARY DENSITY CODE, `5Eh` for LTO-8.
    pub code: u8,
    /// WRTOK.
    pub writable: bool,
    /// DEFLT.
    pub default: bool,
    /// BITS PER MM, 24 bits.
    pub bits_per_mm: u32,
    /// MEDIA WIDTH in tenths of a millimetre.
    pub width: u16,
    /// TRACKS.
    pub tracks: u16,
    /// CAPACITY in megabytes (10^6).
    pub capacity_mb: u32,
    /// ASSIGNING ORGANIZATION, 8 characters.
    pub organisation: String,
    /// DENSITY NAME, 8 characters.
    pub name: String,
    /// DESCRIPTION, 20 characters.
    pub description: String,
}

impl Density {
    /// The whole answer for a list of densities.
    pub fn encode_report(densities: &[Self]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for density in densities {
            let flags = u8::from(density.writable) << 7 | u8::from(density.default) << 5;
            bytes.extend([density.code, density.code, flags, 0, 0]);
            bytes.extend(&density.bits_per_mm.to_be_bytes()[1..]);
            bytes.extend(density.width.to_be_bytes());
            bytes.extend(density.tracks.to_be_bytes());
            bytes.extend(density.capacity_mb.to_be_bytes());
            bytes.extend(padded(&density.organisation, 8));
            bytes.extend(padded(&density.name, 8));
            bytes.extend(padded(&density.description, 20));
        }
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Reads the descriptors that are whole.
    ///
    /// # Errors
    /// No header.
    pub fn parse_report(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let head = need(bytes, 4, "density report")?;
        let end = bytes.len().min(2 + usize::from(be16(head, 0))).max(4);
        let parse = |d: &[u8]| Self {
            code: d[0],
            writable: bit(d[2], 7),
            default: bit(d[2], 5),
            bits_per_mm: be24(d, 5),
            width: be16(d, 8),
            tracks: be16(d, 10),
            capacity_mb: be32(d, 12),
            organisation: text(&d[16..24]),
            name: text(&d[24..32]),
            description: text(&d[32..52]),
        };
        Ok(bytes[4..end].chunks_exact(52).map(parse).collect())
    }
}

/// The answer to REPORT SUPPORTED OPERATION CODES (SPC-5 6.35). Asking with the wrong one of
/// "with" and "without service action" gives `None`: 05/24/00.
pub fn supported_opcodes(kind: DeviceType, query: OpcodeQuery, timeouts: bool) -> Option<Vec<u8>> {
    let of = |opcode| commands(kind).filter(move |c| c.opcode() == opcode);
    let (opcode, action) = match query {
        OpcodeQuery::All => return Some(all_opcodes(kind, timeouts)),
        OpcodeQuery::Opcode(opcode) if of(opcode).any(|c| c.has_action) => return None,
        OpcodeQuery::Opcode(opcode) => (opcode, 0),
        OpcodeQuery::ServiceAction(opcode, _) if of(opcode).any(|c| !c.has_action) => {
            return None;
        }
        OpcodeQuery::ServiceAction(opcode, action) | OpcodeQuery::Either(opcode, action) => {
            (opcode, action)
        }
    };
    let wanted = |c: &&Command| c.service_action().is_none_or(|own| u16::from(own) == action);
    Some(match of(opcode).find(wanted) {
        None => vec![0, 0x01, 0, 0],
        Some(command) => {
            let flags = u8::from(timeouts) << 7 | 0x03;
            let mut bytes = vec![0, flags, 0, command.usage.len() as u8];
            bytes.extend(command.usage);
            if timeouts {
                bytes.extend(timeout_descriptor(command));
            }
            bytes
        }
    })
}

fn all_opcodes(kind: DeviceType, timeouts: bool) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for command in commands(kind) {
        let action = u16::from(command.service_action().unwrap_or(0)).to_be_bytes();
        let flags = u8::from(timeouts) << 1 | u8::from(command.has_action);
        bytes.extend([command.opcode(), 0, action[0], action[1], 0, flags, 0]);
        bytes.push(command.usage.len() as u8);
        if timeouts {
            bytes.extend(timeout_descriptor(command));
        }
    }
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn timeout_descriptor(command: &Command) -> Vec<u8> {
    let mut bytes = vec![0, 0x0a, 0, 0];
    bytes.extend(command.nominal.to_be_bytes());
    bytes.extend(command.recommended.to_be_bytes());
    bytes
}

/// One command that a device says it supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedOpcode {
    /// Operation code.
    pub opcode: u8,
    /// Service action, where the code has any.
    pub service_action: Option<u16>,
    /// Recommended command timeout in seconds, `None` where the device does not say or says 0.
    pub recommended: Option<u32>,
}

/// Reads the answer to [`OpcodeQuery::All`] as far as it goes.
///
/// # Errors
/// No header.
pub fn parse_supported_opcodes(bytes: &[u8]) -> Result<Vec<SupportedOpcode>, Malformed> {
    let length = be32(need(bytes, 4, "supported operation codes")?, 0) as usize;
    let end = bytes.len().min(length.saturating_add(4));
    let (mut rest, mut list) = (&bytes[4..end], Vec::new());
    while let Some(descriptor) = rest.get(..8) {
        let with_timeouts = bit(descriptor[5], 1) && rest.len() >= 20;
        let recommended = if with_timeouts { be32(rest, 16) } else { 0 };
        list.push(SupportedOpcode {
            opcode: descriptor[0],
            service_action: bit(descriptor[5], 0).then(|| be16(descriptor, 2)),
            recommended: (recommended != 0).then_some(recommended),
        });
        rest = &rest[if with_timeouts { 20 } else { 8 }..];
    }
    Ok(list)
}

/// The answer to REPORT LUNS (SPC-5 6.33) for a target with these logical units, each of them
/// below 256.
pub fn luns(units: &[u8]) -> Vec<u8> {
    let mut bytes = ((units.len() * 8) as u32).to_be_bytes().to_vec();
    bytes.extend([0; 4]);
    units.iter().for_each(|unit| bytes.extend([0, *unit, 0, 0, 0, 0, 0, 0]));
    bytes
}

/// Reads the answer to REPORT LUNS as far as it came: units with peripheral device or flat space
/// addressing (SAM-5 4.7.7), others are left out.
pub fn parse_luns(bytes: &[u8]) -> Vec<u16> {
    let Ok(head) = need(bytes, 8, "REPORT LUNS data") else { return Vec::new() };
    let end = bytes.len().min((be32(head, 0) as usize).saturating_add(8));
    let units = bytes[8..end].chunks_exact(8);
    units.map(|unit| be16(unit, 0)).filter_map(flat).collect()
}

fn flat(first: u16) -> Option<u16> {
    match first >> 14 {
        0 if first < 256 => Some(first),
        1 => Some(first & 0x3fff),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMS: [PositionForm; 3] =
        [PositionForm::Short, PositionForm::Long, PositionForm::Extended];

    proptest! {
        #[test]
        fn positions_lead_back(flags: [bool; 3], object: u64, file: u64, wide: bool) {
            let object = if wide { object } else { object & 0xffff_ffff };
            let report = PositionReport {
                at_bot: flags[0],
                at_end: flags[1],
                past_early_warning: flags[2],
                partition: 0,
                object: Some(object),
                medium_object: Some(object),
                file: Some(file),
                buffered_objects: Some(0),
                buffered_bytes: Some(0),
            };
            let back = |form| PositionReport::parse(&report.encode(form), form).unwrap();
            let short = back(PositionForm::Short);
            prop_assert_eq!(short.object, (object <= u32::MAX.into()).then_some(object));
            let long = back(PositionForm::Long);
            prop_assert_eq!((long.object, long.file), (Some(object), Some(file)));
            let expected = PositionReport { file: None, ..report };
            prop_assert_eq!(back(PositionForm::Extended), expected);
        }

        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            for form in FORMS {
                let _ = PositionReport::parse(&bytes, form);
            }
            let _ = BlockLimits::parse(&bytes);
            let _ = Density::parse_report(&bytes);
            let _ = parse_supported_opcodes(&bytes);
        }
    }

    #[test]
    fn units_are_read_in_two_ways_of_addressing() {
        assert_eq!(parse_luns(&luns(&[0, 7, 255])), [0, 7, 255]);
        let mut bytes = luns(&[1, 2, 3]);
        (bytes[8], bytes[9], bytes[16]) = (0x41, 0x2c, 0x80);
        assert_eq!(parse_luns(&bytes), [300, 3]);
        assert_eq!(parse_luns(&bytes[..20]), [300]);
        assert_eq!(parse_luns(&bytes[..7]), [0u16; 0]);
        assert_eq!(parse_luns(&[0xff; 16]), [0u16; 0]);
    }

    #[test]
    fn limits_and_densities_lead_back() {
        let limits = BlockLimits { granularity: 0, maximum: 8 << 20, minimum: 1 };
        assert_eq!(BlockLimits::parse(&limits.encode()), Ok(limits));
        let density = Density {
            code: 0x5e,
            writable: true,
            default: true,
            bits_per_mm: 20_668,
            width: 127,
            tracks: 6656,
            capacity_mb: 12_000_000,
            organisation: "LTO-CVE".into(),
            name: "U-832".into(),
            description: "Ultrium 8/32T".into(),
        };
        let report = Density::encode_report(std::slice::from_ref(&density));
        assert_eq!(report.len(), 56);
        assert_eq!(Density::parse_report(&report), Ok(vec![density]));
    }

    #[test]
    fn supported_opcodes_lead_back() {
        for kind in [DeviceType::Tape, DeviceType::Changer] {
            let bytes = supported_opcodes(kind, OpcodeQuery::All, true).unwrap();
            let list = parse_supported_opcodes(&bytes).unwrap();
            assert_eq!(list.len(), commands(kind).count());
            let known = commands(kind).zip(&list);
            assert!(
                known
                    .into_iter()
                    .all(|(c, l)| c.opcode() == l.opcode && l.recommended == Some(c.recommended))
            );
        }
        let one = |query| supported_opcodes(DeviceType::Tape, query, false);
        let rewind = vec![0, 3, 0, 6, 1, 1, 0, 0, 0, 0];
        assert_eq!(one(OpcodeQuery::Opcode(0x01)), Some(rewind));
        assert_eq!(one(OpcodeQuery::Opcode(0xee)), Some(vec![0, 1, 0, 0]));
        assert_eq!(one(OpcodeQuery::Opcode(0x5e)), None);
        assert_eq!(one(OpcodeQuery::ServiceAction(0x01, 0)), None);
        assert!(one(OpcodeQuery::ServiceAction(0x34, 6)).unwrap().len() == 14);
    }

    #[test]
    fn one_unit_is_reported() {
        assert_eq!(luns(&[0]), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
