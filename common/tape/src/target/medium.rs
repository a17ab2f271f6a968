//! What a drive writes on: records and filemarks at a position.

use model::{Barcode, ObjectNumber};
use scsi::Sense;
use scsi::crypt::Kads;

use crate::{ReadEnd, SpaceKind, Spaced};

/// Why a medium could not do what was asked. None of these is the fault of the CDB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediumError {
    /// What lies behind the medium failed (a disk, a file). The text is for the operator; a retry
    /// may help once the cause is gone.
    #[error("the medium could not be accessed: {0}")]
    Io(String),
    /// What was read is not what was written, or no longer has its form. A retry does not help.
    #[error("the medium is damaged: {0}")]
    Corrupt(String),
    /// The space behind the medium is used up although its capacity is not; nothing was written.
    #[error("no space is left behind the medium")]
    Full,
    /// The cartridge exists but can not be opened now (someone else has it). A retry helps later.
    #[error("the cartridge is in use: {0}")]
    InUse(String),
    /// There is no such cartridge.
    #[error("there is no cartridge {0}")]
    Missing(Barcode),
    /// The device that the medium lies in answered so; its sense data are the drive's own.
    #[error("the device behind it reports {0}")]
    Device(Sense),
}

impl MediumError {
    /// The sense data that a drive answers when this happens in a read or a motion.
    pub fn read_sense(&self) -> Sense {
        match self {
            Self::Io(_) | Self::Corrupt(_) => Sense::UNRECOVERED_READ_ERROR,
            _ => self.load_sense(),
        }
    }

    /// The sense data that a drive answers when this happens in a write or a flush.
    pub fn write_sense(&self) -> Sense {
        match self {
            Self::Io(_) | Self::Corrupt(_) => Sense::WRITE_ERROR,
            Self::Full => Sense::VOLUME_OVERFLOW,
            _ => self.load_sense(),
        }
    }

    /// The sense data that a drive answers when this happens in loading.
    pub fn load_sense(&self) -> Sense {
        match self {
            Self::Io(_) | Self::Full => Sense::MEDIA_LOAD_FAILED,
            Self::Corrupt(_) => Sense::CANNOT_READ_MEDIUM,
            Self::InUse(_) => Sense::OPERATION_IN_PROGRESS,
            Self::Missing(_) => Sense::MEDIUM_NOT_PRESENT,
            Self::Device(sense) => *sense,
        }
    }
}

/// What a medium that lies in a drive of its own is told by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Bytes that fit from BOT to early warning, if it can tell.
    pub capacity: Option<u64>,
    /// Bytes that still fit there behind the position, if it can tell.
    pub remaining: Option<u64>,
}

/// A threaded tape: records and filemarks, and a place among them.
///
/// One value is one mount: [`Shelf::open`] makes it standing at BOT, [`Medium::close`] ends it.
/// *Objects* are records and filemarks alike, counted from 0 at BOT; the *position* stands before
/// the object of its number; *end of data* is behind the last one. The drive above knows about
/// capacity, early warning, write protection and sense data; the medium only stores. A medium that
/// lies in a drive of its own ([`Medium::warned`]) knows where it ends better than the drive above:
/// it refuses with [`MediumError::Full`] what does not fit, and tells early warning.
pub trait Medium: Send {
    /// The volume tag.
    fn barcode(&self) -> Barcode;

    /// Bytes of records that fit from BOT to the physical end.
    fn capacity(&self) -> u64;

    /// Whether the cartridge's tab is set.
    fn write_protected(&self) -> bool;

    /// Sets or clears the tab. Durable when it returns.
    fn set_write_protected(&mut self, protect: bool) -> Result<(), MediumError>;

    /// The position: records and filemarks before it.
    fn object(&self) -> ObjectNumber;

    /// Filemarks before the position.
    fn file(&self) -> u64;

    /// Bytes of the records before the position.
    fn used(&self) -> u64;

    /// Bytes of all records up to the end of data.
    fn recorded(&self) -> u64;

    /// Moves to an object, or to the end of data when there are fewer. Returns the new position.
    fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber, MediumError>;

    /// Moves over records or filemarks, towards BOT with a negative count.
    ///
    /// Records: a filemark in the way stops the motion, behind it forwards and before it (on its
    /// BOT side) backwards. Filemarks: records are passed; the tape ends behind the last counted
    /// one forwards, before it backwards. BOT and end of data stop both. The residual is what was
    /// not spaced over of the kind asked for. End of data: goes there, the residual is 0.
    fn space(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, MediumError>;

    /// Reads the object here into the buffer (its first bytes if it is longer) and passes it, as
    /// [`ReadEnd`] says; at the end of data the position stays.
    fn read(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, MediumError>;

    /// Writes one record of 1 byte to [`crate::target::MAX_BLOCK`] bytes here; everything that
    /// followed is gone and the position is the new end of data. It need not be durable yet. On
    /// an error nothing was written and the position is where it was.
    fn write(&mut self, record: &[u8]) -> Result<(), MediumError>;

    /// Writes filemarks here, as [`Medium::write`] does records. With a count of 0 it does
    /// nothing.
    fn write_filemarks(&mut self, count: u32) -> Result<(), MediumError>;

    /// Drops everything from the position on: the position is the new end of data (ERASE). Keeps
    /// it as it is where nothing follows.
    fn erase(&mut self) -> Result<(), MediumError>;

    /// Makes everything written so far durable. An error says that some of it may be lost.
    fn flush(&mut self) -> Result<(), MediumError>;

    /// What lies before the data of the encrypted block here; `None` before anything else. The
    /// position stays.
    fn seal(&mut self) -> Result<Option<Seal>, MediumError> {
        Ok(None)
    }

    /// Writes a block that the drive has encrypted, as [`Medium::write`] does records; it counts as
    /// long as it is when it is read.
    fn write_sealed(&mut self, _seal: &Seal, _sealed: &[u8]) -> Result<(), MediumError> {
        Err(MediumError::Io("this medium keeps no encrypted blocks".to_owned()))
    }

    /// Passes the encrypted block here and gives its bytes as they were written.
    fn read_sealed(&mut self) -> Result<Vec<u8>, MediumError> {
        Err(MediumError::Io("this medium keeps no encrypted blocks".to_owned()))
    }

    /// Of a medium that lies in a drive of its own: whether that drive has met early warning, as
    /// far as the last motion or write told. `None` for one whose end is its capacity.
    fn warned(&self) -> Option<bool> {
        None
    }

    /// Of a medium that lies in a drive of its own: asks that drive for its capacity, which
    /// [`Medium::capacity`], [`Medium::used`] and [`Medium::recorded`] follow from then on.
    fn told(&mut self) -> Option<Told> {
        None
    }

    /// Nobody uses the drive for now: buffers that hold nothing of worth may go.
    fn rest(&mut self) {}

    /// The raw value of an attribute of the medium auxiliary memory (SPC-5, MAM), `None` where it
    /// is not stored. The drive answers what it can compute (capacity, barcode) by itself.
    fn attribute(&self, id: u16) -> Option<Vec<u8>>;

    /// Stores an attribute of at most 256 bytes durably; an empty value removes it.
    fn set_attribute(&mut self, id: u16, value: &[u8]) -> Result<(), MediumError>;

    /// Ends the mount: flushes and gives the cartridge back (a store cartridge seals its
    /// generation here). After `Ok` the value is only dropped; after an error the drive keeps it
    /// threaded and may try again. A value dropped without `close` is a power failure: what was
    /// not flushed may be lost.
    fn close(&mut self) -> Result<(), MediumError>;
}

/// The longest U-KAD, in bytes.
pub(crate) const UNAUTHENTICATED_MAX: usize = 32;
/// The longest A-KAD, in bytes.
pub(crate) const AUTHENTICATED_MAX: usize = 12;
/// Bytes of the MAC behind the data of an encrypted block.
pub(crate) const MAC: usize = 16;

/// What lies before the data of an encrypted block: enough to ask for the right key, and the nonce.
/// The block's MAC covers all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The nonce of AES-256-GCM, used for no other block of the key.
    pub nonce: [u8; 12],
    /// What is known of the key.
    pub kads: Kads,
}

impl Seal {
    /// Bytes of a seal: 1 version, 1 length of the U-KAD, 1 length of the A-KAD, 1 zero, 12 nonce,
    /// 32 U-KAD, 12 A-KAD, 4 zero.
    pub const LENGTH: usize = 64;

    /// The bytes; of longer key-associated data than there is room for the first ones.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let cut = |kad: &[u8], most: usize| kad.len().min(most);
        let lengths = (
            cut(&self.kads.unauthenticated, UNAUTHENTICATED_MAX),
            cut(&self.kads.authenticated, AUTHENTICATED_MAX),
        );
        bytes[..3].copy_from_slice(&[1, lengths.0 as u8, lengths.1 as u8]);
        bytes[4..16].copy_from_slice(&self.nonce);
        bytes[16..16 + lengths.0].copy_from_slice(&self.kads.unauthenticated[..lengths.0]);
        bytes[48..48 + lengths.1].copy_from_slice(&self.kads.authenticated[..lengths.1]);
        bytes
    }

    /// Reads a seal; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ Self::LENGTH }>()?;
        let (unauthenticated, authenticated) = (usize::from(bytes[1]), usize::from(bytes[2]));
        let kads = Kads {
            unauthenticated: bytes[16..48].get(..unauthenticated)?.to_vec(),
            authenticated: bytes[48..60].get(..authenticated)?.to_vec(),
        };
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&bytes[4..16]);
        let seal = Self { nonce, kads };
        (seal.encode() == *bytes).then_some(seal)
    }
}

/// Where cartridges come from.
pub trait Shelf<M>: Send + Sync {
    /// Whether its cartridges keep encrypted blocks: whether its drives can encrypt.
    fn seals(&self) -> bool {
        false
    }

    /// Threads a cartridge: a new mount standing at BOT.
    fn open(&self, barcode: &Barcode) -> Result<M, MediumError>;

    /// The same in a drive of this index, where that makes a difference.
    fn open_in(&self, barcode: &Barcode, _drive: u16) -> Result<M, MediumError> {
        self.open(barcode)
    }
}
