//! From [`Cdb`] to bytes.

use super::{Cdb, Destination, ElementRange, ModeForm, OpcodeQuery};

/// A CDB under construction: fields are put where the standard's tables have them.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(opcode: u8, length: usize) -> Self {
        let mut bytes = vec![0; length];
        bytes[0] = opcode;
        Self(bytes)
    }

    fn byte(mut self, at: usize, value: u8) -> Self {
        self.0[at] |= value;
        self
    }

    fn flag(self, at: usize, bit: u8, value: bool) -> Self {
        self.byte(at, u8::from(value) << bit)
    }

    /// The low `width` bytes of a value, or all ones where it does not fit.
    fn number(mut self, at: usize, width: usize, value: u64) -> Self {
        let limit = u64::MAX >> (64 - 8 * width);
        let bytes = value.min(limit).to_be_bytes();
        self.0[at..at + width].copy_from_slice(&bytes[8 - width..]);
        self
    }

    fn range(self, range: &ElementRange) -> Self {
        let kind = range.kind.map_or(0, |kind| kind as u8);
        self.byte(1, kind).number(2, 2, range.start.into())
    }
}

impl Cdb {
    /// The bytes of the CDB, 6 to 16 of them, CONTROL zero.
    pub fn encode(&self) -> Vec<u8> {
        if self.is_for_changer() {
            return self.encode_changer().0;
        }
        match self {
            Self::Rewind { .. }
            | Self::FormatMedium { .. }
            | Self::ReadBlockLimits { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::SetCapacity { .. }
            | Self::WriteFilemarks { .. }
            | Self::Space { .. }
            | Self::Verify { .. }
            | Self::Erase { .. }
            | Self::LoadUnload { .. }
            | Self::Locate { .. }
            | Self::ReadPosition { .. }
            | Self::ReportDensity { .. }
            | Self::ReadAttribute { .. }
            | Self::WriteAttribute { .. } => self.encode_tape().0,
            Self::AllowOverwrite { .. }
            | Self::SecurityProtocolIn { .. }
            | Self::SecurityProtocolOut { .. } => self.encode_guarding().0,
            _ => self.encode_common().0,
        }
    }

    fn encode_common(&self) -> Bytes {
        match *self {
            Self::RequestSense { descriptor, allocation } => {
                Bytes::new(0x03, 6).flag(1, 0, descriptor).byte(4, allocation)
            }
            Self::Inquiry { page, allocation } => Bytes::new(0x12, 6)
                .flag(1, 0, page.is_some())
                .byte(2, page.unwrap_or(0))
                .number(3, 2, allocation.into()),
            Self::ReportLuns { select, allocation } => {
                Bytes::new(0xa0, 12).byte(2, select).number(6, 4, allocation.into())
            }
            Self::ModeSense { form, no_descriptors, control, page, subpage, allocation } => {
                let bytes = match form {
                    ModeForm::Six => Bytes::new(0x1a, 6).number(4, 1, allocation.into()),
                    ModeForm::Ten => Bytes::new(0x5a, 10).number(7, 2, allocation.into()),
                };
                bytes
                    .flag(1, 3, no_descriptors)
                    .byte(2, control << 6 | (page & 0x3f))
                    .byte(3, subpage)
            }
            Self::ModeSelect { form, length } => match form {
                ModeForm::Six => Bytes::new(0x15, 6).number(4, 1, length.into()).byte(1, 0x10),
                ModeForm::Ten => Bytes::new(0x55, 10).number(7, 2, length.into()).byte(1, 0x10),
            },
            Self::LogSelect { reset, control, page, subpage, length } => Bytes::new(0x4c, 10)
                .flag(1, 1, reset)
                .byte(2, control << 6 | (page & 0x3f))
                .byte(3, subpage)
                .number(7, 2, length.into()),
            Self::LogSense { control, page, subpage, parameter, allocation } => {
                Bytes::new(0x4d, 10)
                    .byte(2, control << 6 | (page & 0x3f))
                    .byte(3, subpage)
                    .number(5, 2, parameter.into())
                    .number(7, 2, allocation.into())
            }
            Self::PreventAllow { prevent } => Bytes::new(0x1e, 6).flag(4, 0, prevent),
            Self::Reserve { ten: false } => Bytes::new(0x16, 6),
            Self::Reserve { ten: true } => Bytes::new(0x56, 10),
            Self::Release { ten: false } => Bytes::new(0x17, 6),
            Self::Release { ten: true } => Bytes::new(0x57, 10),
            Self::PersistentReserveIn { action, allocation } => {
                Bytes::new(0x5e, 10).byte(1, action & 0x1f).number(7, 2, allocation.into())
            }
            Self::PersistentReserveOut { action, scope, kind, length } => Bytes::new(0x5f, 10)
                .byte(1, action & 0x1f)
                .byte(2, scope << 4 | (kind & 0x0f))
                .number(5, 4, length.into()),
            Self::ReportSupportedOpcodes { query, timeouts, allocation } => {
                let (options, opcode, action) = match query {
                    OpcodeQuery::All => (0, 0, 0),
                    OpcodeQuery::Opcode(opcode) => (1, opcode, 0),
                    OpcodeQuery::ServiceAction(opcode, action) => (2, opcode, action),
                    OpcodeQuery::Either(opcode, action) => (3, opcode, action),
                };
                Bytes::new(0xa3, 12)
                    .byte(1, 0x0c)
                    .byte(2, options)
                    .flag(2, 7, timeouts)
                    .byte(3, opcode)
                    .number(4, 2, action.into())
                    .number(6, 4, allocation.into())
            }
            _ => Bytes::new(0x00, 6),
        }
    }

    fn encode_tape(&self) -> Bytes {
        match *self {
            Self::Rewind { immediate } => Bytes::new(0x01, 6).flag(1, 0, immediate),
            Self::FormatMedium { immediate, verify, format, length } => Bytes::new(0x04, 6)
                .flag(1, 0, immediate)
                .flag(1, 1, verify)
                .byte(2, format & 0x0f)
                .number(3, 2, length.into()),
            Self::ReadBlockLimits { object_limit } => Bytes::new(0x05, 6).flag(1, 0, object_limit),
            Self::Read { fixed, sili, length } => {
                Bytes::new(0x08, 6).flag(1, 0, fixed).flag(1, 1, sili).number(2, 3, length.into())
            }
            Self::Write { fixed, length } => {
                Bytes::new(0x0a, 6).flag(1, 0, fixed).number(2, 3, length.into())
            }
            Self::SetCapacity { immediate, proportion } => {
                Bytes::new(0x0b, 6).flag(1, 0, immediate).number(3, 2, proportion.into())
            }
            Self::WriteFilemarks { immediate, count } => {
                Bytes::new(0x10, 6).flag(1, 0, immediate).number(2, 3, count.into())
            }
            Self::Space { code, count } => match (-0x80_0000..0x80_0000).contains(&count) {
                true => {
                    Bytes::new(0x11, 6).byte(1, code as u8).number(2, 3, (count as u64) & 0xff_ffff)
                }
                false => Bytes::new(0x91, 16).byte(1, code as u8).number(4, 8, count as u64),
            },
            Self::Verify { immediate, fixed, length } => Bytes::new(0x13, 6)
                .flag(1, 0, fixed)
                .flag(1, 2, immediate)
                .number(2, 3, length.into()),
            Self::Erase { long, immediate } => {
                Bytes::new(0x19, 6).flag(1, 0, long).flag(1, 1, immediate)
            }
            Self::LoadUnload { immediate, action } => {
                Bytes::new(0x1b, 6).flag(1, 0, immediate).byte(4, action & 0x0f)
            }
            Self::Locate { immediate, partition, destination } => encode_locate(
                destination,
                partition,
            )
            .flag(1, 0, immediate)
            .flag(1, 1, partition.is_some()),
            Self::ReadPosition { form, allocation } => {
                Bytes::new(0x34, 10).byte(1, form as u8).number(7, 2, allocation.into())
            }
            Self::ReportDensity { medium_types, loaded, allocation } => Bytes::new(0x44, 10)
                .flag(1, 0, loaded)
                .flag(1, 1, medium_types)
                .number(7, 2, allocation.into()),
            Self::ReadAttribute { action, partition, first, allocation } => Bytes::new(0x8c, 16)
                .byte(1, action & 0x1f)
                .byte(7, partition)
                .number(8, 2, first.into())
                .number(10, 4, allocation.into()),
            Self::WriteAttribute { write_through, partition, length } => Bytes::new(0x8d, 16)
                .flag(1, 0, write_through)
                .byte(7, partition)
                .number(10, 4, length.into()),
            _ => Bytes::new(0x00, 6),
        }
    }

    /// Commands that say who may read and write what.
    fn encode_guarding(&self) -> Bytes {
        match *self {
            Self::AllowOverwrite { mode, partition, object } => {
                Bytes::new(0x82, 16).byte(2, mode & 0x0f).byte(3, partition).number(4, 8, object)
            }
            Self::SecurityProtocolIn { protocol, page, allocation } => Bytes::new(0xa2, 12)
                .byte(1, protocol)
                .number(2, 2, page.into())
                .number(6, 4, allocation.into()),
            Self::SecurityProtocolOut { protocol, page, length } => Bytes::new(0xb5, 12)
                .byte(1, protocol)
                .number(2, 2, page.into())
                .number(6, 4, length.into()),
            _ => Bytes::new(0x00, 6),
        }
    }

    fn encode_changer(&self) -> Bytes {
        match *self {
            Self::InitializeElementStatusRange { vendor, fast, range } => {
                let bytes = Bytes::new(if vendor { 0xe7 } else { 0x37 }, 10).flag(1, 1, fast);
                match range {
                    None => bytes,
                    Some((first, count)) => {
                        bytes.flag(1, 0, true).number(2, 2, first.into()).number(6, 2, count.into())
                    }
                }
            }
            Self::OpenCloseImportExport { element, action } => {
                Bytes::new(0x1b, 6).number(2, 2, element.into()).byte(4, action & 0x1f)
            }
            Self::PositionToElement { transport, destination, invert } => Bytes::new(0x2b, 10)
                .number(2, 2, transport.into())
                .number(4, 2, destination.into())
                .flag(8, 0, invert),
            Self::MoveMedium { transport, source, destination, invert } => Bytes::new(0xa5, 12)
                .number(2, 2, transport.into())
                .number(4, 2, source.into())
                .number(6, 2, destination.into())
                .flag(10, 0, invert),
            Self::ExchangeMedium { transport, source, first, second, invert } => {
                Bytes::new(0xa6, 12)
                    .number(2, 2, transport.into())
                    .number(4, 2, source.into())
                    .number(6, 2, first.into())
                    .number(8, 2, second.into())
                    .byte(10, invert & 0x03)
            }
            Self::RequestVolumeElementAddress { tags, range, allocation } => Bytes::new(0xb5, 12)
                .range(&range)
                .flag(1, 4, tags)
                .number(4, 2, range.count.into())
                .number(7, 3, allocation.into()),
            Self::SendVolumeTag { range, action, length } => Bytes::new(0xb6, 12)
                .range(&range)
                .byte(5, action & 0x1f)
                .number(8, 2, length.into()),
            Self::ReadElementStatus { tags, identities, current_data, range, allocation } => {
                Bytes::new(0xb8, 12)
                    .range(&range)
                    .flag(1, 4, tags)
                    .number(4, 2, range.count.into())
                    .flag(6, 0, identities)
                    .flag(6, 1, current_data)
                    .number(7, 3, allocation.into())
            }
            _ => Bytes::new(0x07, 6),
        }
    }
}

/// LOCATE(10) where it will do, since older drives know no other.
fn encode_locate(destination: Destination, partition: Option<u8>) -> Bytes {
    let partition = partition.unwrap_or(0);
    let (code, value) = match destination {
        Destination::Object(object) if u32::try_from(object).is_ok() => {
            return Bytes::new(0x2b, 10).number(3, 4, object).byte(8, partition);
        }
        Destination::Object(object) => (0, object),
        Destination::File(file) => (1, file),
        Destination::EndOfData => (3, 0),
    };
    Bytes::new(0x92, 16).byte(1, code << 3).byte(3, partition).number(4, 8, value)
}
