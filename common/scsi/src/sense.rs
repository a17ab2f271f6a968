//! Sense data (SPC-5 4.4): what a device says about a command that did not simply end.

use std::fmt;

/// Longest sense data that is looked at; SPC-5 allows 252 bytes.
pub const SENSE_MAX: usize = 252;

/// Where in a CDB or its parameter list the wrong field is (SPC-5 4.4.2.4.2, field pointer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// C/D: the field is in the CDB, not in the parameter list.
    pub in_cdb: bool,
    /// Byte of the field, from 0.
    pub byte: u16,
    /// Its highest bit, where the field is smaller than a byte.
    pub bit: Option<u8>,
}

/// Sense data reduced to what tape needs. `Display` names key and code, as `05/20/00`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Sense key, 0 to 15.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// A filemark was met.
    pub filemark: bool,
    /// End of medium: at or beyond early warning, or BOT when spacing back.
    pub eom: bool,
    /// Incorrect length indicator.
    pub ili: bool,
    /// INFORMATION, `None` where VALID is 0.
    pub information: Option<i64>,
    /// Response code 71h or 73h: an earlier command failed, this one was not executed.
    pub deferred: bool,
    /// With ILLEGAL REQUEST: the field in error.
    pub field: Option<FieldPointer>,
    /// With NO SENSE and NOT READY: how much is done of what is under way, in 65536ths (SPC-5
    /// 4.4.2.4.4, progress indication).
    pub progress: Option<u16>,
}

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $key:literal $asc:literal $ascq:literal;)*) => {
        impl Sense {$(
            $(#[$doc])*
            pub const $name: Self = Self::new($key, $asc, $ascq);
        )*}
    };
}

known! {
    /// 00/00/00.
    NO_SENSE = 0x00 0x00 0x00;
    /// 00/00/07: the programmable early warning zone was reached.
    PROGRAMMABLE_EARLY_WARNING = 0x00 0x00 0x07;
    /// 02/04/00.
    NOT_READY_NO_CAUSE = 0x02 0x04 0x00;
    /// 02/04/01: in process of becoming ready.
    BECOMING_READY = 0x02 0x04 0x01;
    /// 02/04/02: an initializing command (LOAD, INITIALIZE ELEMENT STATUS) is required.
    INITIALIZING_COMMAND_REQUIRED = 0x02 0x04 0x02;
    /// 02/04/07: operation in progress.
    OPERATION_IN_PROGRESS = 0x02 0x04 0x07;
    /// 02/04/12: offline.
    OFFLINE = 0x02 0x04 0x12;
    /// 02/30/03: a cleaning cartridge is in the drive.
    CLEANING_CARTRIDGE_INSTALLED = 0x02 0x30 0x03;
    /// 02/3A/00.
    MEDIUM_NOT_PRESENT = 0x02 0x3a 0x00;
    /// 03/0C/00.
    WRITE_ERROR = 0x03 0x0c 0x00;
    /// 03/11/00.
    UNRECOVERED_READ_ERROR = 0x03 0x11 0x00;
    /// 03/30/01: cannot read medium, unknown format.
    CANNOT_READ_MEDIUM = 0x03 0x30 0x01;
    /// 04/15/01: mechanical positioning error.
    MECHANICAL_POSITIONING_ERROR = 0x04 0x15 0x01;
    /// 04/44/00.
    INTERNAL_TARGET_FAILURE = 0x04 0x44 0x00;
    /// 04/53/00: media load or eject failed.
    MEDIA_LOAD_FAILED = 0x04 0x53 0x00;
    /// 05/1A/00.
    PARAMETER_LIST_LENGTH_ERROR = 0x05 0x1a 0x00;
    /// 05/20/00.
    INVALID_OPERATION_CODE = 0x05 0x20 0x00;
    /// 05/21/01.
    INVALID_ELEMENT_ADDRESS = 0x05 0x21 0x01;
    /// 05/24/00.
    INVALID_FIELD_IN_CDB = 0x05 0x24 0x00;
    /// 05/25/00.
    LOGICAL_UNIT_NOT_SUPPORTED = 0x05 0x25 0x00;
    /// 05/26/00.
    INVALID_FIELD_IN_PARAMETER_LIST = 0x05 0x26 0x00;
    /// 05/26/04: release of a persistent reservation that is not the one held.
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x05 0x26 0x04;
    /// 05/2C/00.
    COMMAND_SEQUENCE_ERROR = 0x05 0x2c 0x00;
    /// 05/39/00.
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x05 0x39 0x00;
    /// 05/3A/00: the drive of a move is not unloaded.
    DRIVE_NOT_UNLOADED = 0x05 0x3a 0x00;
    /// 05/3B/0C: position past beginning of medium.
    NOT_AT_BEGINNING_OF_MEDIUM = 0x05 0x3b 0x0c;
    /// 05/3B/0D.
    DESTINATION_ELEMENT_FULL = 0x05 0x3b 0x0d;
    /// 05/3B/0E.
    SOURCE_ELEMENT_EMPTY = 0x05 0x3b 0x0e;
    /// 05/53/02.
    MEDIUM_REMOVAL_PREVENTED = 0x05 0x53 0x02;
    /// 05/55/04: insufficient registration resources.
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x05 0x55 0x04;
    /// 06/28/00: not ready to ready change, the medium may have changed.
    MEDIUM_MAY_HAVE_CHANGED = 0x06 0x28 0x00;
    /// 06/28/01.
    IMPORT_EXPORT_ACCESSED = 0x06 0x28 0x01;
    /// 06/29/00: power on or reset.
    POWER_ON_RESET = 0x06 0x29 0x00;
    /// 06/2A/01.
    MODE_PARAMETERS_CHANGED = 0x06 0x2a 0x01;
    /// 06/2A/03.
    RESERVATIONS_PREEMPTED = 0x06 0x2a 0x03;
    /// 06/2A/04.
    RESERVATIONS_RELEASED = 0x06 0x2a 0x04;
    /// 06/2A/05.
    REGISTRATIONS_PREEMPTED = 0x06 0x2a 0x05;
    /// 06/3F/0E.
    REPORTED_LUNS_CHANGED = 0x06 0x3f 0x0e;
    /// 07/27/00.
    WRITE_PROTECTED = 0x07 0x27 0x00;
    /// 06/2A/11: data encryption parameters were changed by another initiator.
    ENCRYPTION_PARAMETERS_CHANGED = 0x06 0x2a 0x11;
    /// 07/50/01: append-only, and this is not the end of data.
    APPEND_POSITION_ERROR = 0x07 0x50 0x01;
    /// 07/74/01: an encrypted block, and no key to decrypt it.
    UNABLE_TO_DECRYPT = 0x07 0x74 0x01;
    /// 07/74/02: a block that is not encrypted, and only encrypted ones are to be read.
    UNENCRYPTED_WHILE_DECRYPTING = 0x07 0x74 0x02;
    /// 07/74/03: a block encrypted by another key.
    INCORRECT_ENCRYPTION_KEY = 0x07 0x74 0x03;
    /// 07/74/04: what was decrypted does not bear out its MAC.
    CRYPTOGRAPHIC_INTEGRITY = 0x07 0x74 0x04;
    /// 08/00/05.
    END_OF_DATA = 0x08 0x00 0x05;
    /// 0B/00/00: aborted, no cause given.
    ABORTED_COMMAND = 0x0b 0x00 0x00;
}

impl Sense {
    /// 00/00/01 with FM: a filemark was met.
    pub const FILEMARK_DETECTED: Self = Self { filemark: true, ..Self::new(0x00, 0x00, 0x01) };
    /// 00/00/02 with EOM: early warning; what was to be written was written.
    pub const EARLY_WARNING: Self = Self { eom: true, ..Self::new(0x00, 0x00, 0x02) };
    /// 00/00/04 with EOM: BOT was met when spacing back.
    pub const BEGINNING_OF_MEDIUM: Self = Self { eom: true, ..Self::new(0x00, 0x00, 0x04) };
    /// 0D/00/02 with EOM: the medium is full, nothing was written.
    pub const VOLUME_OVERFLOW: Self = Self { eom: true, ..Self::new(0x0d, 0x00, 0x02) };
    /// 00/00/00 with ILI: the block has another length than asked for.
    pub const INCORRECT_LENGTH: Self = Self { ili: true, ..Self::NO_SENSE };

    /// Current sense data with no bits and no INFORMATION.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self {
            key,
            asc,
            ascq,
            filemark: false,
            eom: false,
            ili: false,
            information: None,
            deferred: false,
            field: None,
            progress: None,
        }
    }

    /// 05/24/00 pointing at a field of the CDB: its byte and, if smaller, its highest bit.
    pub const fn bad_cdb_field(byte: u16, bit: Option<u8>) -> Self {
        let field = Some(FieldPointer { in_cdb: true, byte, bit });
        Self { field, ..Self::INVALID_FIELD_IN_CDB }
    }

    /// 05/26/00 pointing at a field of the parameter list.
    pub const fn bad_parameter(byte: u16, bit: Option<u8>) -> Self {
        let field = Some(FieldPointer { in_cdb: false, byte, bit });
        Self { field, ..Self::INVALID_FIELD_IN_PARAMETER_LIST }
    }

    /// The same with INFORMATION.
    pub const fn with_information(self, information: i64) -> Self {
        Self { information: Some(information), ..self }
    }

    /// The same with a progress indication.
    pub const fn with_progress(self, progress: u16) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// What is under way as percent, where that is known.
    pub fn percent(&self) -> Option<u8> {
        self.progress.map(|part| ((u32::from(part) * 100) >> 16) as u8)
    }

    /// Whether a cartridge is made ready: threaded, or calibrated (02/04/01).
    pub const fn is_becoming_ready(&self) -> bool {
        self.is(Self::BECOMING_READY)
    }

    /// Whether key and code are those of `other`, whatever the bits and INFORMATION.
    pub const fn is(&self, other: Self) -> bool {
        self.key == other.key && self.asc == other.asc && self.ascq == other.ascq
    }

    /// Whether these are sense data of a unit attention.
    pub fn tell_unit_attention(bytes: &[u8]) -> bool {
        Self::parse(bytes).is_some_and(|sense| sense.is_unit_attention())
    }

    /// UNIT ATTENTION (key 06h).
    pub const fn is_unit_attention(&self) -> bool {
        self.key == 0x06
    }

    /// Fixed format, 18 bytes (SPC-5 4.4.3). INFORMATION that does not fit 32 bits is left out
    /// and VALID is 0, as the clause says.
    pub fn to_fixed(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = if self.deferred { 0x71 } else { 0x70 };
        if let Some(information) = self.information.and_then(|i| i32::try_from(i).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[2] = self.stream_bits() | (self.key & 0x0f);
        bytes[7] = 10;
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        if let Some(specific) = self.key_specific() {
            bytes[15..18].copy_from_slice(&specific);
        }
        bytes
    }

    /// The three bytes that depend on the sense key.
    fn key_specific(&self) -> Option<[u8; 3]> {
        let progress = self.progress.filter(|_| self.has_progress()).map(|part| {
            let [high, low] = part.to_be_bytes();
            [0x80, high, low]
        });
        self.field.map(FieldPointer::encode).or(progress)
    }

    fn has_progress(&self) -> bool {
        matches!(self.key, 0x00 | 0x02)
    }

    fn set_key_specific(&mut self, bytes: [u8; 3]) {
        let [flags, high, low] = bytes;
        if self.key == 0x05 {
            self.field = FieldPointer::decode(bytes);
        } else if self.has_progress() && flags & 0x80 != 0 {
            self.progress = Some(u16::from_be_bytes([high, low]));
        }
    }

    /// Descriptor format (SPC-5 4.4.2) with information, sense key specific and stream commands
    /// descriptors as needed.
    pub fn to_descriptor(&self) -> Vec<u8> {
        let code = if self.deferred { 0x73 } else { 0x72 };
        let mut bytes = vec![code, self.key & 0x0f, self.asc, self.ascq, 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend([0x00, 0x0a, 0x80, 0]);
            bytes.extend(information.to_be_bytes());
        }
        if let Some(specific) = self.key_specific() {
            bytes.extend([0x02, 0x06, 0, 0]);
            bytes.extend(specific);
            bytes.push(0);
        }
        if self.stream_bits() != 0 {
            bytes.extend([0x04, 0x02, 0, self.stream_bits()]);
        }
        bytes[7] = (bytes.len() - 8) as u8;
        bytes
    }

    /// Reads fixed or descriptor format; what is missing at the end counts as zero. `None` for
    /// data that is neither, or too short to hold a sense key.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(SENSE_MAX)];
        match bytes.first()? & 0x7f {
            0x70 | 0x71 => Self::parse_fixed(bytes),
            0x72 | 0x73 => Self::parse_descriptors(bytes),
            _ => None,
        }
    }

    fn parse_fixed(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.get(2)?;
        let end = bytes.get(7).map_or(bytes.len(), |more| bytes.len().min(8 + *more as usize));
        let byte = |at: usize| if at < end { bytes[at] } else { 0 };
        let mut sense = Self::new(flags & 0x0f, byte(12), byte(13));
        sense.set_stream_bits(flags);
        sense.deferred = bytes[0] & 0x7f == 0x71;
        if bytes[0] & 0x80 != 0 && end >= 7 {
            let information = [byte(3), byte(4), byte(5), byte(6)];
            sense.information = Some(i32::from_be_bytes(information).into());
        }
        sense.set_key_specific([byte(15), byte(16), byte(17)]);
        Some(sense)
    }

    fn parse_descriptors(bytes: &[u8]) -> Option<Self> {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let mut sense = Self::new(bytes.get(1)? & 0x0f, byte(2), byte(3));
        sense.deferred = bytes[0] & 0x7f == 0x73;
        let end = bytes.len().min(8 + byte(7) as usize);
        let mut rest = bytes.get(8..end).unwrap_or_default();
        while let [kind, length, body @ ..] = rest {
            let (body, next) = body.split_at(body.len().min(*length as usize));
            match (kind, body) {
                (0x00, [valid, _, value @ ..]) if valid & 0x80 != 0 => {
                    let value = value.first_chunk::<8>();
                    sense.information = value.map(|value| i64::from_be_bytes(*value));
                }
                (0x02, [_, _, a, b, c, ..]) => sense.set_key_specific([*a, *b, *c]),
                (0x04, [_, flags, ..]) => sense.set_stream_bits(*flags),
                _ => {}
            }
            rest = next;
        }
        Some(sense)
    }

    fn stream_bits(&self) -> u8 {
        u8::from(self.filemark) << 7 | u8::from(self.eom) << 6 | u8::from(self.ili) << 5
    }

    fn set_stream_bits(&mut self, flags: u8) {
        self.filemark = flags & 0x80 != 0;
        self.eom = flags & 0x40 != 0;
        self.ili = flags & 0x20 != 0;
    }
}

impl FieldPointer {
    fn encode(self) -> [u8; 3] {
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 7));
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | u8::from(self.in_cdb) << 6 | bit, high, low]
    }

    fn decode(bytes: [u8; 3]) -> Option<Self> {
        let [flags, high, low] = bytes;
        (flags & 0x80 != 0).then(|| Self {
            in_cdb: flags & 0x40 != 0,
            byte: u16::from_be_bytes([high, low]),
            bit: (flags & 0x08 != 0).then_some(flags & 7),
        })
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sense {:02x}/{:02x}/{:02x}", self.key, self.asc, self.ascq)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_sense() -> impl Strategy<Value = Sense> {
        let field = (any::<bool>(), any::<u16>(), proptest::option::of(0u8..8));
        let bits = any::<[bool; 4]>();
        let information = proptest::option::of(any::<i32>());
        let field = proptest::option::of(field);
        let progress = proptest::option::of(any::<u16>());
        (0u8..16, any::<u8>(), any::<u8>(), bits, information, field, progress).prop_map(
            |(key, asc, ascq, bits, information, field, progress)| Sense {
                progress: progress.filter(|_| matches!(key, 0 | 2)),
                key,
                asc,
                ascq,
                filemark: bits[0],
                eom: bits[1],
                ili: bits[2],
                deferred: bits[3],
                information: information.map(i64::from),
                field: field.filter(|_| key == 5).map(|(in_cdb, byte, bit)| FieldPointer {
                    in_cdb,
                    byte,
                    bit,
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn both_formats_lead_back(sense in any_sense()) {
            prop_assert_eq!(Sense::parse(&sense.to_fixed()), Some(sense));
            prop_assert_eq!(Sense::parse(&sense.to_descriptor()), Some(sense));
        }

        #[test]
        fn parsing_never_panics(code in 0x70u8..0x74, mut bytes: Vec<u8>) {
            Sense::parse(&bytes);
            bytes.insert(0, code);
            Sense::parse(&bytes);
        }
    }

    #[test]
    fn known_bytes_are_read() {
        let filemark = [0xf0, 0, 0x80, 0, 0, 0x10, 0, 10, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let expected = Sense::FILEMARK_DETECTED.with_information(4096);
        assert_eq!(Sense::parse(&filemark), Some(expected));
        assert_eq!(expected.to_fixed(), filemark);
        let long = [0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcb, 0, 1];
        assert_eq!(Sense::parse(&long), Some(Sense::bad_cdb_field(1, Some(3))));
        let calibrating = [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 4, 1, 0, 0x80, 0x40, 0];
        let calibrating = Sense::parse(&calibrating).unwrap();
        assert_eq!(calibrating, Sense::BECOMING_READY.with_progress(0x4000));
        assert_eq!(calibrating.percent(), Some(25));
        assert_eq!(Sense::parse(&[]), None);
        assert_eq!(Sense::parse(&[0x7f, 0, 5]), None);
    }

    #[test]
    fn information_that_does_not_fit_is_left_out() {
        let sense = Sense::END_OF_DATA.with_information(1 << 40);
        assert_eq!(Sense::parse(&sense.to_fixed()), Some(Sense::END_OF_DATA));
        assert_eq!(Sense::parse(&sense.to_descriptor()), Some(sense));
    }
}
