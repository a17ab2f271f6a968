//! The values that go in and out: options, generations, runs of objects, the start-up report.

use std::path::PathBuf;

use cut::{Cutter, Rules, Sizes};
use model::{CartridgeId, Digest, GenerationId};

use crate::StoreError;
use crate::bytesio::{Fields, Put, optional_id, read_optional_id};

/// The longest record: the 24 bits of a WRITE(6) transfer length (SSC-4).
pub const MAX_RECORD: usize = 0xff_ffff;

/// The largest chunk that any store may have, in bytes: the bound on everything read or received.
pub const MAX_CHUNK: usize = 1 << 20;

/// Where chunks are cut: see [`cut`]. All sizes are even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkParams {
    /// No chunk is shorter (but before a filemark, a seal, or a header that is known), at least 64
    /// bytes.
    pub min: u32,
    /// What is aimed at, at least 256 bytes.
    pub average: u32,
    /// No chunk is longer, at most [`MAX_CHUNK`].
    pub max: u32,
    /// What else is cut at.
    pub rules: Rules,
}

impl ChunkParams {
    /// What finds the cuts.
    pub(crate) fn cutter(&self) -> Cutter {
        let Self { min, average, max, rules } = *self;
        let sizes = Sizes { min: min as usize, average: average as usize, max: max as usize };
        Cutter::new(sizes, rules)
    }

    /// Bytes of a stream that are read at once when reading is sequential: 8 MiB for chunks of
    /// 16 KiB and more.
    pub(crate) fn window(&self) -> u64 {
        (u64::from(self.average) * 512).min(8 << 20)
    }

    /// Chunks that lie at most this far apart are read in one go: 256 KiB for chunks of 16 KiB and
    /// more, which takes a disk less time than to move its heads.
    pub(crate) fn gap(&self) -> u64 {
        (u64::from(self.average) * 16).min(256 << 10)
    }
}

impl Default for ChunkParams {
    /// 4, 16 and 64 KiB.
    fn default() -> Self {
        Self { min: 4 << 10, average: 16 << 10, max: 64 << 10, rules: Rules::default() }
    }
}

/// How a store is made and run. The chunk parameters and the container size are written into the
/// store when it is made; for a store that exists, what it was made with counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where chunks are cut.
    pub chunk: ChunkParams,
    /// A container is sealed before it grows beyond this many bytes; 1 KiB to 256 MiB.
    pub container_bytes: u32,
    /// zstd level of new chunks, 1 to 19.
    pub zstd_level: i32,
    /// Places of so many chunks are kept in memory before they are written to the index on disk,
    /// at least 1. Each takes about 100 bytes.
    pub recent_chunks: u32,
}

impl Default for Options {
    /// 16 KiB chunks in 64 MiB containers, zstd level 1, a quarter of a million recent places.
    fn default() -> Self {
        let chunk = ChunkParams::default();
        Self { chunk, container_bytes: 64 << 20, zstd_level: 1, recent_chunks: 256 << 10 }
    }
}

impl Options {
    /// Checks the ranges given at the fields.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let ChunkParams { min, average, max, .. } = self.chunk;
        let even = [min, average, max].iter().all(|n| n % 2 == 0);
        if !even || min < 64 || average < 256 || max < 1024 || max as usize > MAX_CHUNK {
            return Err(StoreError::Options("chunk sizes out of range or odd"));
        }
        if min > average || average > max {
            return Err(StoreError::Options("chunk sizes must ascend: min, average, max"));
        }
        if !(1 << 10..=256 << 20).contains(&self.container_bytes) {
            return Err(StoreError::Options("container size must be 1 KiB to 256 MiB"));
        }
        if self.recent_chunks == 0 {
            return Err(StoreError::Options("recent chunks must be 1 or more"));
        }
        if !(1..=19).contains(&self.zstd_level) {
            return Err(StoreError::Options("zstd level must be 1 to 19"));
        }
        Ok(())
    }
}

/// A run of equal objects of a cartridge, as they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectRun {
    /// `count` records of `size` bytes each.
    Records {
        /// Bytes of each, 1 to [`MAX_RECORD`].
        size: u32,
        /// How many, at least 1.
        count: u64,
    },
    /// `count` filemarks.
    Filemarks {
        /// How many, at least 1.
        count: u64,
    },
}

impl ObjectRun {
    /// Objects in the run.
    pub fn count(&self) -> u64 {
        match self {
            Self::Records { count, .. } | Self::Filemarks { count } => *count,
        }
    }

    /// Bytes of one object: 0 for a filemark.
    pub fn size(&self) -> u32 {
        match self {
            Self::Records { size, .. } => *size,
            Self::Filemarks { .. } => 0,
        }
    }
}

/// A chunk of a generation: its name and its length before compression, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many bytes, 1 to [`MAX_CHUNK`].
    pub len: u32,
}

/// What is known of a sealed generation without reading it. Equal at both sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationInfo {
    /// Its unique id; ids of one cartridge ascend in the order of writing.
    pub id: GenerationId,
    /// Whose it is.
    pub cartridge: CartridgeId,
    /// The generation that it was written on top of, `None` for a cartridge's first.
    pub parent: Option<GenerationId>,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: u64,
    /// Records and filemarks.
    pub objects: u64,
    /// Filemarks.
    pub filemarks: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Entries of the chunk list.
    pub chunks: u64,
    /// Bytes (before compression) of the chunks that were new to the store where it was written.
    pub unique_bytes: u64,
    /// Bytes that those took after compression.
    pub stored_bytes: u64,
}

impl GenerationInfo {
    /// Bytes of the encoded form.
    pub const LENGTH: usize = 104;

    /// The form in which recipes hold it and in which it can be sent to a peer: the three ids (16
    /// bytes each, no parent being zeros), then the numbers in the order of the fields, 8 bytes
    /// each, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LENGTH);
        out.put(&self.id.to_bytes());
        out.put(&self.cartridge.to_bytes());
        out.put(&optional_id(self.parent));
        let numbers = [
            self.created_ms,
            self.objects,
            self.filemarks,
            self.bytes,
            self.chunks,
            self.unique_bytes,
            self.stored_bytes,
        ];
        numbers.into_iter().for_each(|number| out.put_u64(number));
        out
    }

    /// Reads the encoded form, `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let info = Self {
            id: GenerationId::from_slice(fields.take(16)?)?,
            cartridge: CartridgeId::from_slice(fields.take(16)?)?,
            parent: read_optional_id(fields.array()?),
            created_ms: fields.u64()?,
            objects: fields.u64()?,
            filemarks: fields.u64()?,
            bytes: fields.u64()?,
            chunks: fields.u64()?,
            unique_bytes: fields.u64()?,
            stored_bytes: fields.u64()?,
        };
        fields.is_empty().then_some(info)
    }
}

/// How the bytes of a stored chunk are encoded; the byte in containers and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Encoding {
    /// As they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Encoding {
    /// The encoding with this byte, `None` for one that this version does not know.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd].into_iter().find(|e| *e as u8 == byte)
    }
}

/// A chunk in its stored form, as it can be sent to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// How `bytes` are encoded.
    pub encoding: Encoding,
    /// Length of the chunk itself.
    pub raw_len: u32,
    /// The stored bytes, their checksum verified.
    pub bytes: bytes::Bytes,
}

/// An open (not yet sealed) generation that was found at start, as far as it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredGeneration {
    /// The id that it will have when it is sealed.
    pub id: GenerationId,
    /// Whose it is.
    pub cartridge: CartridgeId,
    /// What it is written on top of.
    pub parent: Option<GenerationId>,
    /// Records and filemarks of the whole cartridge.
    pub objects: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Journal bytes after the last acknowledged flush, cut off. Not a loss, unless the machine
    /// damaged its very last acknowledged write.
    pub torn_bytes: u64,
}

/// Something found at start that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A recipe can not be read. Its file is left where it is; the generation is not listed.
    Recipe {
        /// The file.
        path: PathBuf,
        /// From the file's name.
        generation: GenerationId,
        /// What is wrong.
        what: &'static str,
    },
    /// A recipe lost one of its two headers; it is usable.
    RecipeHeader {
        /// The file.
        path: PathBuf,
        /// Its generation.
        generation: GenerationId,
    },
    /// An open generation lost acknowledged writes: what is before the damage was recovered. With
    /// `usable` false not even that; the file is left where it is.
    Journal {
        /// The file.
        path: PathBuf,
        /// From the file's name.
        generation: GenerationId,
        /// What is wrong.
        what: &'static str,
        /// Whether a part was recovered.
        usable: bool,
    },
    /// Bytes of a container that are neither chunks nor its index. After a crash the end of the
    /// last container may be torn (`torn`), which is no loss; otherwise chunks may be missing, and
    /// reading a generation that needs them will say so.
    Container {
        /// The file.
        path: PathBuf,
        /// How many bytes belong to nothing.
        bytes: u64,
        /// Everything after the first bad byte is bad: a write that was under way in a crash.
        torn: bool,
    },
    /// The index on disk can not be used. It was made anew from the containers, which takes a
    /// while in a large store; nothing is lost.
    Index {
        /// The file.
        path: PathBuf,
    },
    /// A retention lock can not be read: it holds for ever, until somebody takes the file away.
    Lock {
        /// The file.
        path: PathBuf,
    },
    /// A file that has no place in a store; left alone.
    Stranger {
        /// The file.
        path: PathBuf,
    },
}

/// What was found when the store was opened; the engine matches it with its catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// All sealed generations, by id.
    pub generations: Vec<GenerationInfo>,
    /// Open generations, recovered up to their last acknowledged flush.
    pub recovered: Vec<RecoveredGeneration>,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Distinct chunks.
    pub chunks: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Their bytes as stored, without headers.
    pub stored_bytes: u64,
    /// Container files.
    pub containers: u64,
    /// Bytes of memory that the index takes, about.
    pub index_memory: u64,
}
