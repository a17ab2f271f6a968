//! What can go wrong, and whose fault it is.

use std::path::PathBuf;

use model::{CartridgeId, Digest, GenerationId};
use vfs::VfsError;

/// A call on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system below failed: the machine's fault, or a full disk ([`StoreError::is_full`]),
    /// where a retry helps once there is room.
    #[error(transparent)]
    Vfs(#[from] VfsError),
    /// Another process has this store open. A retry helps when it has ended.
    #[error("the store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The directory holds something that is no store of ours, or one of a later version. The
    /// operator's fault: a wrong path or a downgrade.
    #[error("{} is not a store this version can open: {what}", path.display())]
    Unrecognised {
        /// The file that tells.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store is encrypted with another key, or there is a key where none belongs. Nothing was
    /// touched; the operator's fault.
    #[error(transparent)]
    Key(#[from] crate::KeyError),
    /// Options that no store can have; the caller's fault.
    #[error("the store options are not usable: {0}")]
    Options(&'static str),
    /// Stored bytes are not what was written. A retry does not help; another generation, or the
    /// peer's copy, may have the data.
    #[error("damaged data in {}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A chunk is not in the store. For an import: it has not been put yet. For a read: the
    /// container that held it is damaged or gone.
    #[error("chunk {0} is not in the store")]
    MissingChunk(Digest),
    /// Bytes offered as a chunk are not that chunk; the sender's fault. Nothing was stored.
    #[error("what was offered as chunk {digest} is something else: {what}")]
    WrongChunk {
        /// The name it was offered under.
        digest: Digest,
        /// What does not fit.
        what: &'static str,
    },
    /// An import does not add up to what was announced; the sender's fault.
    #[error("the import of generation {generation} does not add up: {what}")]
    WrongImport {
        /// The generation.
        generation: GenerationId,
        /// What does not fit.
        what: &'static str,
    },
    /// There is no such sealed generation.
    #[error("there is no generation {0}")]
    NoGeneration(GenerationId),
    /// The generation is pinned, or something is being built on it. A retry helps later.
    #[error("generation {0} is in use")]
    Pinned(GenerationId),
    /// The cartridge is locked until a date. Nothing helps but to wait for it.
    #[error("cartridge {cartridge} is kept until {until_ms} ms after 1970 by a retention lock")]
    Retained {
        /// The cartridge.
        cartridge: CartridgeId,
        /// When the lock ends, in milliseconds since 1970.
        until_ms: u64,
    },
    /// The cartridge has an image open already. A retry helps when it is dropped.
    #[error("cartridge {0} is in use")]
    InUse(CartridgeId),
    /// Something that says which chunks are needed can not be read, so that none is freed. The
    /// operator restores the file, or takes it away and so gives up what it describes.
    #[error("nothing is collected: {} can not be read, and what it needs is unknown", .0.display())]
    NotCollected(PathBuf),
    /// A record of 0 bytes or more than [`crate::MAX_RECORD`]; the caller's fault.
    #[error("a record has 1 to {max} bytes, not {0}", max = crate::MAX_RECORD)]
    RecordSize(usize),
    /// A place beyond the end of data was asked for; the caller's fault.
    #[error("there is no object {object}, the end of data is at {end}")]
    BeyondEnd {
        /// What was asked for.
        object: u64,
        /// The end of data.
        end: u64,
    },
    /// A sync failed earlier, so it is not known what is on disk. Nothing more is written until
    /// the store is opened anew; reading goes on.
    #[error("the store writes no more until it is opened anew, since a sync failed: {0}")]
    Poisoned(String),
}

impl StoreError {
    /// The disk is full: nothing was changed, and a retry helps once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Vfs(error) if error.is_full())
    }

    /// A file is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Vfs(error) if error.is_not_found())
    }

    /// The data itself is damaged or lost, as against a device that failed to answer.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::MissingChunk(_))
    }

    /// Whether the same call may succeed later without anybody changing the request.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Vfs(error) => error.op != vfs::VfsOp::Sync,
            Self::Locked(_) | Self::Pinned(_) | Self::InUse(_) => true,
            _ => false,
        }
    }
}

/// Shorthand used everywhere in this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
