//! Command descriptor blocks: one enum, written by a driver and read by a target.

mod command;
mod encode;
mod parse;
#[cfg(test)]
mod tests;

use std::time::Duration;

use model::{ElementAddress, ElementType};

pub use command::{Command, commands};

/// The longest CDB of a tape device or changer.
pub const CDB_MAX: usize = 16;

/// SPC peripheral device types that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceType {
    /// Sequential access (SSC), 01h.
    Tape = 0x01,
    /// Medium changer (SMC), 08h.
    Changer = 0x08,
}

/// Which of the forms of MODE SENSE and MODE SELECT (they differ in header and length fields).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModeForm {
    /// Six bytes: 8-bit lengths, a header of 4 bytes.
    Six,
    /// Ten bytes: 16-bit lengths, a header of 8 bytes.
    Ten,
}

/// What SPACE counts (SSC-4 7.7, CODE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpaceCode {
    /// Logical blocks, 0.
    Blocks = 0,
    /// Filemarks, 1.
    Filemarks = 1,
    /// End of data, 3; the count is ignored.
    EndOfData = 3,
}

/// Where LOCATE goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A logical object.
    Object(u64),
    /// The first object of a logical file, that is, behind so many filemarks (form 16 only).
    File(u64),
    /// End of data (form 16 only).
    EndOfData,
}

/// Forms of READ POSITION (service actions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PositionForm {
    /// 00h, 20 bytes.
    Short = 0x00,
    /// 06h, 32 bytes.
    Long = 0x06,
    /// 08h, 32 bytes.
    Extended = 0x08,
}

/// A range of elements for READ ELEMENT STATUS and its relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ElementRange {
    /// Only elements of this type, `None` for all.
    pub kind: Option<ElementType>,
    /// The lowest address of interest.
    pub start: ElementAddress,
    /// At most how many elements.
    pub count: u16,
}

/// What REPORT SUPPORTED OPERATION CODES asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpcodeQuery {
    /// All commands, options 0.
    All,
    /// One operation code without service actions, options 1.
    Opcode(u8),
    /// One operation code and service action, options 2.
    ServiceAction(u8, u16),
    /// One operation code, with the service action if it has any, options 3.
    Either(u8, u16),
}

/// A command as its CDB says it. Where a field is narrower on the wire than here
/// ([`Cdb::encode`]), the largest value that fits is sent; drivers keep within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cdb {
    /// TEST UNIT READY, 00h.
    TestUnitReady,
    /// REQUEST SENSE, 03h.
    RequestSense {
        /// DESC: descriptor format.
        descriptor: bool,
        /// Allocation length.
        allocation: u8,
    },
    /// INQUIRY, 12h.
    Inquiry {
        /// A vital product data page (EVPD), `None` for standard data.
        page: Option<u8>,
        /// Allocation length.
        allocation: u16,
    },
    /// REPORT LUNS, A0h.
    ReportLuns {
        /// SELECT REPORT.
        select: u8,
        /// Allocation length.
        allocation: u32,
    },
    /// MODE SENSE, 1Ah and 5Ah.
    ModeSense {
        /// Six or ten.
        form: ModeForm,
        /// DBD: no block descriptors.
        no_descriptors: bool,
        /// PC: 0 current, 1 changeable, 2 default, 3 saved.
        control: u8,
        /// Page code, 3Fh for all.
        page: u8,
        /// Subpage code, FFh for all.
        subpage: u8,
        /// Allocation length.
        allocation: u16,
    },
    /// MODE SELECT, 15h and 55h; sent with PF = 1.
    ModeSelect {
        /// Six or ten.
        form: ModeForm,
        /// Parameter list length.
        length: u16,
    },
    /// LOG SELECT, 4Ch.
    LogSelect {
        /// PCR: reset to defaults.
        reset: bool,
        /// PC.
        control: u8,
        /// Page code.
        page: u8,
        /// Subpage code.
        subpage: u8,
        /// Parameter list length.
        length: u16,
    },
    /// LOG SENSE, 4Dh.
    LogSense {
        /// PC: 1 cumulative values.
        control: u8,
        /// Page code.
        page: u8,
        /// Subpage code.
        subpage: u8,
        /// The first parameter of interest.
        parameter: u16,
        /// Allocation length.
        allocation: u16,
    },
    /// PREVENT ALLOW MEDIUM REMOVAL, 1Eh.
    PreventAllow {
        /// Prevent, or allow.
        prevent: bool,
    },
    /// RESERVE UNIT, 16h and 56h.
    Reserve {
        /// The ten byte form.
        ten: bool,
    },
    /// RELEASE UNIT, 17h and 57h.
    Release {
        /// The ten byte form.
        ten: bool,
    },
    /// PERSISTENT RESERVE IN, 5Eh.
    PersistentReserveIn {
        /// 0 keys, 1 reservation, 2 capabilities, 3 full status.
        action: u8,
        /// Allocation length.
        allocation: u16,
    },
    /// PERSISTENT RESERVE OUT, 5Fh.
    PersistentReserveOut {
        /// 0 register, 1 reserve, 2 release, 3 clear, 4 preempt, 5 preempt and abort, 6 register
        /// and ignore existing key.
        action: u8,
        /// SCOPE, 0 for the logical unit.
        scope: u8,
        /// TYPE, 3 for exclusive access.
        kind: u8,
        /// Parameter list length (24).
        length: u32,
    },
    /// REPORT SUPPORTED OPERATION CODES, A3h/0Ch.
    ReportSupportedOpcodes {
        /// Which ones.
        query: OpcodeQuery,
        /// RCTD: with timeouts.
        timeouts: bool,
        /// Allocation length.
        allocation: u32,
    },

    /// REWIND, 01h.
    Rewind {
        /// IMMED.
        immediate: bool,
    },
    /// FORMAT MEDIUM, 04h.
    FormatMedium {
        /// IMMED.
        immediate: bool,
        /// VERIFY.
        verify: bool,
        /// FORMAT: 0 one partition as now.
        format: u8,
        /// Transfer length.
        length: u16,
    },
    /// READ BLOCK LIMITS, 05h.
    ReadBlockLimits {
        /// MLOI: the maximum logical object identifier instead, 20 bytes.
        object_limit: bool,
    },
    /// READ(6), 08h.
    Read {
        /// FIXED: `length` counts blocks, else it is bytes.
        fixed: bool,
        /// SILI: no word about a shorter block.
        sili: bool,
        /// Blocks or bytes, 24 bits.
        length: u32,
    },
    /// WRITE(6), 0Ah.
    Write {
        /// FIXED: `length` counts blocks, else it is bytes.
        fixed: bool,
        /// Blocks or bytes, 24 bits.
        length: u32,
    },
    /// SET CAPACITY, 0Bh.
    SetCapacity {
        /// IMMED.
        immediate: bool,
        /// Proportion of the medium, FFFFh for all.
        proportion: u16,
    },
    /// WRITE FILEMARKS, 10h (80h is read as the same).
    WriteFilemarks {
        /// IMMED: only into the buffer.
        immediate: bool,
        /// How many, 24 bits; 0 and not immediate is a flush.
        count: u32,
    },
    /// SPACE, 11h, or 91h for a count of more than 24 bits.
    Space {
        /// What to count.
        code: SpaceCode,
        /// How far, negative towards BOT.
        count: i64,
    },
    /// VERIFY(6), 13h.
    Verify {
        /// IMMED.
        immediate: bool,
        /// FIXED: `length` counts blocks, else it is bytes.
        fixed: bool,
        /// Blocks or bytes, 24 bits.
        length: u32,
    },
    /// ERASE(6), 19h.
    Erase {
        /// LONG: to the end of the partition.
        long: bool,
        /// IMMED.
        immediate: bool,
    },
    /// LOAD UNLOAD, 1Bh.
    LoadUnload {
        /// IMMED.
        immediate: bool,
        /// HOLD, EOT, RETEN and LOAD in their bits 3 to 0.
        action: u8,
    },
    /// LOCATE, 2Bh, or 92h for what needs it.
    Locate {
        /// IMMED.
        immediate: bool,
        /// CP with a partition to change to.
        partition: Option<u8>,
        /// Where to.
        destination: Destination,
    },
    /// READ POSITION, 34h.
    ReadPosition {
        /// Short, long or extended.
        form: PositionForm,
        /// Allocation length; only for the extended form, else 0.
        allocation: u16,
    },
    /// REPORT DENSITY SUPPORT, 44h.
    ReportDensity {
        /// MEDIUM TYPE: report medium types instead of densities.
        medium_types: bool,
        /// MEDIA: only what the loaded medium takes.
        loaded: bool,
        /// Allocation length.
        allocation: u16,
    },
    /// READ ATTRIBUTE, 8Ch.
    ReadAttribute {
        /// 0 values, 1 list, 2 volumes, 3 partitions, 5 supported attributes.
        action: u8,
        /// Partition number.
        partition: u8,
        /// The first attribute of interest.
        first: u16,
        /// Allocation length.
        allocation: u32,
    },
    /// WRITE ATTRIBUTE, 8Dh.
    WriteAttribute {
        /// WTC: write through cache.
        write_through: bool,
        /// Partition number.
        partition: u8,
        /// Parameter list length.
        length: u32,
    },
    /// ALLOW OVERWRITE, 82h.
    AllowOverwrite {
        /// ALLOW OVERWRITE: 0 no more, 1 at this position, 2 for FORMAT MEDIUM.
        mode: u8,
        /// Partition number.
        partition: u8,
        /// The object at which the tape stands.
        object: u64,
    },
    /// SECURITY PROTOCOL IN, A2h; lengths in bytes.
    SecurityProtocolIn {
        /// SECURITY PROTOCOL: 00h, or 20h for data encryption.
        protocol: u8,
        /// SECURITY PROTOCOL SPECIFIC: the page.
        page: u16,
        /// Allocation length.
        allocation: u32,
    },
    /// SECURITY PROTOCOL OUT, B5h; lengths in bytes.
    SecurityProtocolOut {
        /// SECURITY PROTOCOL.
        protocol: u8,
        /// SECURITY PROTOCOL SPECIFIC: the page.
        page: u16,
        /// Transfer length.
        length: u32,
    },

    /// INITIALIZE ELEMENT STATUS, 07h.
    InitializeElementStatus,
    /// INITIALIZE ELEMENT STATUS WITH RANGE, 37h and E7h.
    InitializeElementStatusRange {
        /// The older operation code E7h.
        vendor: bool,
        /// FAST.
        fast: bool,
        /// RANGE with first address and count, `None` for all elements.
        range: Option<(ElementAddress, u16)>,
    },
    /// OPEN/CLOSE IMPORT/EXPORT ELEMENT, 1Bh.
    OpenCloseImportExport {
        /// The element.
        element: ElementAddress,
        /// 0 open, 1 close.
        action: u8,
    },
    /// POSITION TO ELEMENT, 2Bh.
    PositionToElement {
        /// The arm, 0 for the default one.
        transport: ElementAddress,
        /// Where to.
        destination: ElementAddress,
        /// Turn the medium over.
        invert: bool,
    },
    /// MOVE MEDIUM, A5h.
    MoveMedium {
        /// The arm, 0 for the default one.
        transport: ElementAddress,
        /// Where from.
        source: ElementAddress,
        /// Where to.
        destination: ElementAddress,
        /// Turn the medium over.
        invert: bool,
    },
    /// EXCHANGE MEDIUM, A6h: the cartridge of `first` goes to `second`, that of `source` to
    /// `first`.
    ExchangeMedium {
        /// The arm, 0 for the default one.
        transport: ElementAddress,
        /// Where the new cartridge comes from.
        source: ElementAddress,
        /// Where it goes.
        first: ElementAddress,
        /// Where the cartridge that was there goes.
        second: ElementAddress,
        /// INV1 and INV2 in bits 1 and 0.
        invert: u8,
    },
    /// REQUEST VOLUME ELEMENT ADDRESS, B5h.
    RequestVolumeElementAddress {
        /// VOLTAG: with volume tags.
        tags: bool,
        /// Which elements.
        range: ElementRange,
        /// Allocation length, 24 bits.
        allocation: u32,
    },
    /// SEND VOLUME TAG, B6h.
    SendVolumeTag {
        /// Which elements; `count` is not sent.
        range: ElementRange,
        /// SEND ACTION CODE, 5 translate.
        action: u8,
        /// Parameter list length (40).
        length: u16,
    },
    /// READ ELEMENT STATUS, B8h.
    ReadElementStatus {
        /// VOLTAG: with volume tags.
        tags: bool,
        /// DVCID: with the drives' identification.
        identities: bool,
        /// CURDATA: without moving the arm.
        current_data: bool,
        /// Which elements.
        range: ElementRange,
        /// Allocation length, 24 bits.
        allocation: u32,
    },
}

/// Whether a CDB for a drive changes what is on the tape (SSC-5): FORMAT MEDIUM, SET CAPACITY,
/// WRITE, ERASE, and WRITE FILEMARKS of one or more.
pub fn writes_medium(cdb: &[u8]) -> bool {
    let any = |at: std::ops::Range<usize>| cdb.get(at).is_some_and(|it| it.iter().any(|b| *b != 0));
    match cdb.first() {
        Some(0x04 | 0x0a | 0x0b | 0x19 | 0x8a | 0x93) => true,
        Some(0x10) => any(2..5),
        Some(0x80) => any(12..15),
        _ => false,
    }
}

impl Cdb {
    /// How long to wait for it, as REPORT SUPPORTED OPERATION CODES would recommend; for devices
    /// that do not say so themselves.
    pub fn timeout(&self) -> Duration {
        let bytes = self.encode();
        let kinds = [DeviceType::Tape, DeviceType::Changer];
        let kind = kinds[usize::from(self.is_for_changer())];
        let known = Command::find(kind, &bytes);
        known.map_or(Duration::from_secs(150), |command| {
            Duration::from_secs(command.recommended.into())
        })
    }

    /// Whether the command belongs to changers alone. A few operation codes mean one thing to a
    /// drive and another to a changer.
    pub fn is_for_changer(&self) -> bool {
        matches!(
            self,
            Self::InitializeElementStatus
                | Self::InitializeElementStatusRange { .. }
                | Self::OpenCloseImportExport { .. }
                | Self::PositionToElement { .. }
                | Self::MoveMedium { .. }
                | Self::ExchangeMedium { .. }
                | Self::RequestVolumeElementAddress { .. }
                | Self::SendVolumeTag { .. }
                | Self::ReadElementStatus { .. }
        )
    }
}
