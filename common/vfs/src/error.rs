//! What a file system call can fail with.

use std::io;
use std::path::{Path, PathBuf};

/// The call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfsOp {
    /// `create`.
    Create,
    /// `open` or `open_or_create`.
    Open,
    /// `rename`; the path is the old name.
    Rename,
    /// `remove`.
    Remove,
    /// `list`.
    List,
    /// `create_dir_all`.
    CreateDir,
    /// `sync_dir`.
    SyncDir,
    /// `exists` or `len`.
    Stat,
    /// `lock_exclusive`.
    Lock,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `set_len`.
    SetLen,
    /// `sync_data`.
    Sync,
}

impl std::fmt::Display for VfsOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::CreateDir => "make the directory",
            Self::SyncDir => "sync the directory",
            Self::Stat => "look at",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetLen => "set the length of",
            Self::Sync => "sync",
        })
    }
}

/// A file system call failed: the machine's fault (or a full disk). Whether a retry helps depends
/// on the cause; after a failed sync it never does.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}: {source}", path.display())]
pub struct VfsError {
    /// What was tried.
    pub op: VfsOp,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl VfsError {
    /// An error of `op` on `path`.
    pub fn new(op: VfsOp, path: &Path, source: io::Error) -> Self {
        Self { op, path: path.to_owned(), source }
    }

    /// There is no such file or directory.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// The name is taken.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// No space or quota left: the operator makes room, then a retry helps.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Another owner holds the directory.
    pub fn is_locked(&self) -> bool {
        self.op == VfsOp::Lock && self.source.kind() == io::ErrorKind::WouldBlock
    }
}
