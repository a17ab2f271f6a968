//! From bytes to [`Cdb`], with sense data that points at the wrong field.

use model::ElementType;

use super::{
    CDB_MAX, Cdb, Command, Destination, DeviceType, ElementRange, ModeForm, OpcodeQuery,
    PositionForm, SpaceCode,
};
use crate::Sense;

/// A CDB padded with zeroes to 16 bytes, so that fields can be taken by their place.
struct Fields([u8; CDB_MAX]);

impl Fields {
    fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] & (1 << bit) != 0
    }

    fn number(&self, at: usize, width: usize) -> u64 {
        self.0[at..at + width].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn be16(&self, at: usize) -> u16 {
        self.number(at, 2) as u16
    }

    fn be24(&self, at: usize) -> u32 {
        self.number(at, 3) as u32
    }

    fn be32(&self, at: usize) -> u32 {
        self.number(at, 4) as u32
    }

    fn range(&self) -> Result<ElementRange, Sense> {
        let kind = match self.byte(1) & 0x0f {
            0 => None,
            code => {
                let kind = ElementType::from_code(code);
                Some(kind.ok_or(Sense::bad_cdb_field(1, Some(3)))?)
            }
        };
        Ok(ElementRange { kind, start: self.be16(2), count: self.be16(4) })
    }
}

impl Cdb {
    /// Reads the CDB that a device of this type got.
    ///
    /// Bytes beyond the command's length are ignored (some hosts always send 16).
    ///
    /// # Errors
    /// The sense data to answer: 05/20/00 for an unknown operation code, 05/24/00 with a field
    /// pointer for an unknown service action, a reserved bit, an illegal value, or a CDB that
    /// ends before its time.
    pub fn parse(kind: DeviceType, cdb: &[u8]) -> Result<Self, Sense> {
        let Some(command) = Command::find(kind, cdb) else {
            let known = super::commands(kind).any(|c| Some(&c.opcode()) == cdb.first());
            return Err(match known {
                true => Sense::bad_cdb_field(1, Some(4)),
                false => Sense::INVALID_OPERATION_CODE,
            });
        };
        if cdb.len() < command.usage.len() {
            return Err(Sense::bad_cdb_field(cdb.len() as u16, None));
        }
        if let Some((byte, bit)) = command.stray_bit(cdb) {
            return Err(Sense::bad_cdb_field(byte, Some(bit)));
        }
        let mut fields = Fields([0; CDB_MAX]);
        let length = command.usage.len().min(CDB_MAX);
        fields.0[..length].copy_from_slice(&cdb[..length]);
        fields.0[1] &= !command.unit_bits() | command.usage[1];
        let parsed = match parse_common(&fields)? {
            Some(common) => Some(common),
            None if kind == DeviceType::Tape => parse_tape(&fields)?,
            None => parse_changer(&fields)?,
        };
        parsed.ok_or(Sense::INVALID_OPERATION_CODE)
    }
}

fn parse_common(f: &Fields) -> Result<Option<Cdb>, Sense> {
    Ok(Some(match f.byte(0) {
        0x00 => Cdb::TestUnitReady,
        0x03 => Cdb::RequestSense { descriptor: f.bit(1, 0), allocation: f.byte(4) },
        0x12 => parse_inquiry(f)?,
        0x15 => Cdb::ModeSelect { form: ModeForm::Six, length: f.byte(4).into() },
        0x55 => Cdb::ModeSelect { form: ModeForm::Ten, length: f.be16(7) },
        0x1a => parse_mode_sense(f, ModeForm::Six, f.byte(4).into()),
        0x5a => parse_mode_sense(f, ModeForm::Ten, f.be16(7)),
        0x1e => Cdb::PreventAllow { prevent: f.bit(4, 0) },
        0x4c => Cdb::LogSelect {
            reset: f.bit(1, 1),
            control: f.byte(2) >> 6,
            page: f.byte(2) & 0x3f,
            subpage: f.byte(3),
            length: f.be16(7),
        },
        0x4d => Cdb::LogSense {
            control: f.byte(2) >> 6,
            page: f.byte(2) & 0x3f,
            subpage: f.byte(3),
            parameter: f.be16(5),
            allocation: f.be16(7),
        },
        0x16 => Cdb::Reserve { ten: false },
        0x56 => Cdb::Reserve { ten: true },
        0x17 => Cdb::Release { ten: false },
        0x57 => Cdb::Release { ten: true },
        0x5e => Cdb::PersistentReserveIn { action: f.byte(1) & 0x1f, allocation: f.be16(7) },
        0x5f => Cdb::PersistentReserveOut {
            action: f.byte(1) & 0x1f,
            scope: f.byte(2) >> 4,
            kind: f.byte(2) & 0x0f,
            length: f.be32(5),
        },
        0xa0 => Cdb::ReportLuns { select: f.byte(2), allocation: f.be32(6) },
        0xa3 => parse_supported_opcodes(f)?,
        _ => return Ok(None),
    }))
}

fn parse_inquiry(f: &Fields) -> Result<Cdb, Sense> {
    let page = f.bit(1, 0).then(|| f.byte(2));
    if page.is_none() && f.byte(2) != 0 {
        return Err(Sense::bad_cdb_field(2, None));
    }
    Ok(Cdb::Inquiry { page, allocation: f.be16(3) })
}

fn parse_mode_sense(f: &Fields, form: ModeForm, allocation: u16) -> Cdb {
    Cdb::ModeSense {
        form,
        no_descriptors: f.bit(1, 3),
        control: f.byte(2) >> 6,
        page: f.byte(2) & 0x3f,
        subpage: f.byte(3),
        allocation,
    }
}

fn parse_supported_opcodes(f: &Fields) -> Result<Cdb, Sense> {
    let (opcode, action) = (f.byte(3), f.be16(4));
    let query = match f.byte(2) & 0x07 {
        0 => OpcodeQuery::All,
        1 => OpcodeQuery::Opcode(opcode),
        2 => OpcodeQuery::ServiceAction(opcode, action),
        3 => OpcodeQuery::Either(opcode, action),
        _ => return Err(Sense::bad_cdb_field(2, Some(2))),
    };
    Ok(Cdb::ReportSupportedOpcodes { query, timeouts: f.bit(2, 7), allocation: f.be32(6) })
}

fn parse_tape(f: &Fields) -> Result<Option<Cdb>, Sense> {
    Ok(Some(match f.byte(0) {
        0x01 => Cdb::Rewind { immediate: f.bit(1, 0) },
        0x04 => Cdb::FormatMedium {
            immediate: f.bit(1, 0),
            verify: f.bit(1, 1),
            format: f.byte(2) & 0x0f,
            length: f.be16(3),
        },
        0x05 => Cdb::ReadBlockLimits { object_limit: f.bit(1, 0) },
        0x08 => parse_read(f)?,
        0x0a => Cdb::Write { fixed: f.bit(1, 0), length: f.be24(2) },
        0x0b => Cdb::SetCapacity { immediate: f.bit(1, 0), proportion: f.be16(3) },
        0x10 => Cdb::WriteFilemarks { immediate: f.bit(1, 0), count: f.be24(2) },
        0x80 if f.byte(3) != 0 => return Err(Sense::bad_cdb_field(3, None)),
        0x80 => Cdb::WriteFilemarks { immediate: f.bit(1, 0), count: f.be24(12) },
        0x11 => {
            let count = i64::from((f.be24(2) << 8) as i32 >> 8);
            Cdb::Space { code: space_code(f)?, count }
        }
        0x91 => Cdb::Space { code: space_code(f)?, count: f.number(4, 8) as i64 },
        0x13 => Cdb::Verify { immediate: f.bit(1, 2), fixed: f.bit(1, 0), length: f.be24(2) },
        0x19 => Cdb::Erase { long: f.bit(1, 0), immediate: f.bit(1, 1) },
        0x1b => Cdb::LoadUnload { immediate: f.bit(1, 0), action: f.byte(4) & 0x0f },
        0x2b => Cdb::Locate {
            immediate: f.bit(1, 0),
            partition: f.bit(1, 1).then(|| f.byte(8)),
            destination: Destination::Object(f.be32(3).into()),
        },
        0x92 => parse_locate(f)?,
        0x34 => parse_read_position(f)?,
        0x44 => Cdb::ReportDensity {
            medium_types: f.bit(1, 1),
            loaded: f.bit(1, 0),
            allocation: f.be16(7),
        },
        0x8c => Cdb::ReadAttribute {
            action: f.byte(1) & 0x1f,
            partition: f.byte(7),
            first: f.be16(8),
            allocation: f.be32(10),
        },
        0x8d => Cdb::WriteAttribute {
            write_through: f.bit(1, 0),
            partition: f.byte(7),
            length: f.be32(10),
        },
        0x82 => Cdb::AllowOverwrite {
            mode: f.byte(2) & 0x0f,
            partition: f.byte(3),
            object: f.number(4, 8),
        },
        0xa2 => {
            Cdb::SecurityProtocolIn { protocol: f.byte(1), page: f.be16(2), allocation: f.be32(6) }
        }
        0xb5 => {
            Cdb::SecurityProtocolOut { protocol: f.byte(1), page: f.be16(2), length: f.be32(6) }
        }
        _ => return Ok(None),
    }))
}

fn parse_read(f: &Fields) -> Result<Cdb, Sense> {
    let (fixed, sili) = (f.bit(1, 0), f.bit(1, 1));
    if fixed && sili {
        return Err(Sense::bad_cdb_field(1, Some(1)));
    }
    Ok(Cdb::Read { fixed, sili, length: f.be24(2) })
}

fn space_code(f: &Fields) -> Result<SpaceCode, Sense> {
    match f.byte(1) & 0x0f {
        0 => Ok(SpaceCode::Blocks),
        1 => Ok(SpaceCode::Filemarks),
        3 => Ok(SpaceCode::EndOfData),
        _ => Err(Sense::bad_cdb_field(1, Some(3))),
    }
}

fn parse_locate(f: &Fields) -> Result<Cdb, Sense> {
    let value = f.number(4, 8);
    let destination = match f.byte(1) >> 3 & 3 {
        0 => Destination::Object(value),
        1 => Destination::File(value),
        3 => Destination::EndOfData,
        _ => return Err(Sense::bad_cdb_field(1, Some(4))),
    };
    let partition = f.bit(1, 1).then(|| f.byte(3));
    Ok(Cdb::Locate { immediate: f.bit(1, 0), partition, destination })
}

fn parse_read_position(f: &Fields) -> Result<Cdb, Sense> {
    let form = match f.byte(1) & 0x1f {
        // The vendor's own form (st asks for it) is the same here: it counts in objects, too.
        0x00 | 0x01 => PositionForm::Short,
        0x06 => PositionForm::Long,
        _ => PositionForm::Extended,
    };
    let allocation = f.be16(7);
    if allocation != 0 && form != PositionForm::Extended {
        return Err(Sense::bad_cdb_field(7, None));
    }
    Ok(Cdb::ReadPosition { form, allocation })
}

fn parse_changer(f: &Fields) -> Result<Option<Cdb>, Sense> {
    Ok(Some(match f.byte(0) {
        0x07 => Cdb::InitializeElementStatus,
        opcode @ (0x37 | 0xe7) => Cdb::InitializeElementStatusRange {
            vendor: opcode == 0xe7,
            fast: f.bit(1, 1),
            range: f.bit(1, 0).then(|| (f.be16(2), f.be16(6))),
        },
        0x1b => Cdb::OpenCloseImportExport { element: f.be16(2), action: f.byte(4) & 0x1f },
        0x2b => Cdb::PositionToElement {
            transport: f.be16(2),
            destination: f.be16(4),
            invert: f.bit(8, 0),
        },
        0xa5 => Cdb::MoveMedium {
            transport: f.be16(2),
            source: f.be16(4),
            destination: f.be16(6),
            invert: f.bit(10, 0),
        },
        0xa6 => Cdb::ExchangeMedium {
            transport: f.be16(2),
            source: f.be16(4),
            first: f.be16(6),
            second: f.be16(8),
            invert: f.byte(10) & 0x03,
        },
        0xb5 => Cdb::RequestVolumeElementAddress {
            tags: f.bit(1, 4),
            range: f.range()?,
            allocation: f.be24(7),
        },
        0xb6 => Cdb::SendVolumeTag {
            range: ElementRange { count: 0, ..f.range()? },
            action: f.byte(5) & 0x1f,
            length: f.be16(8),
        },
        0xb8 => Cdb::ReadElementStatus {
            tags: f.bit(1, 4),
            identities: f.bit(6, 0),
            current_data: f.bit(6, 1),
            range: f.range()?,
            allocation: f.be24(7),
        },
        _ => return Ok(None),
    }))
}
