//! What is visible, what is durable, and what lies between.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{CrashMode, SECTOR};
use crate::rng::Rng;

/// A file apart from its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeId(usize);

/// A change of a file's contents.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of a directory; all of one change survives or none.
#[derive(Clone, Debug)]
struct NameChange {
    unset: Option<String>,
    set: Option<(String, InodeId)>,
}

type Names = BTreeMap<String, InodeId>;

#[derive(Clone, Debug, Default)]
struct Dir {
    visible: Names,
    durable: Names,
    pending: Vec<NameChange>,
}

#[derive(Debug)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    dirs: BTreeMap<PathBuf, Dir>,
}

impl Default for Disk {
    fn default() -> Self {
        let roots = ["/", ""].map(|root| (PathBuf::from(root), Dir::default()));
        Self { inodes: Vec::new(), dirs: BTreeMap::from(roots) }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: new } => {
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(new);
        }
        Change::SetLen(len) => bytes.resize(*len, 0),
    }
}

fn apply_name(names: &mut Names, change: &NameChange) {
    if let Some(name) = &change.unset {
        names.remove(name);
    }
    if let Some((name, inode)) = &change.set {
        names.insert(name.clone(), *inode);
    }
}

fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Directory and last name of a path.
fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
    Ok((normal(path.parent().ok_or_else(invalid)?), name.to_owned()))
}

impl Disk {
    fn dir(&self, dir: &Path) -> io::Result<&Dir> {
        self.dirs.get(&normal(dir)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, dir: &Path, change: NameChange) -> io::Result<()> {
        let dir = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        apply_name(&mut dir.visible, &change);
        dir.pending.push(change);
        Ok(())
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.dirs.contains_key(&normal(path))
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<InodeId> {
        let (dir, name) = split(path)?;
        self.dir(&dir)?.visible.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn bytes(&self, inode: InodeId) -> &[u8] {
        &self.inodes[inode.0].visible
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        let (dir, name) = split(path)?;
        if self.dir(&dir)?.visible.contains_key(&name) || self.is_dir(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = InodeId(self.inodes.len());
        self.inodes.push(Inode::default());
        self.change_names(&dir, NameChange { unset: None, set: Some((name, inode)) })?;
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (from_dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        self.dir(&to_dir)?;
        let (unset, set) = (Some(from_name), Some((to_name, inode)));
        if from_dir == to_dir {
            return self.change_names(&to_dir, NameChange { unset, set });
        }
        self.change_names(&to_dir, NameChange { unset: None, set })?;
        self.change_names(&from_dir, NameChange { unset, set: None })
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let (dir, name) = split(path)?;
        self.change_names(&dir, NameChange { unset: Some(name), set: None })
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self.dir(dir)?.visible.keys().cloned().collect();
        let dir = normal(dir);
        let below = self.dirs.keys().filter(|path| path.parent() == Some(dir.as_path()));
        names.extend(below.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        for dir in normal(dir).ancestors() {
            if self.find(dir).is_ok() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            self.dirs.entry(dir.to_owned()).or_default();
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let dir = self.dirs.get_mut(&normal(dir)).ok_or(io::ErrorKind::NotFound)?;
        for change in dir.pending.drain(..) {
            apply_name(&mut dir.durable, &change);
        }
        Ok(())
    }

    pub(super) fn change(&mut self, inode: InodeId, change: Change) {
        let inode = &mut self.inodes[inode.0];
        apply(&mut inode.visible, &change);
        inode.pending.push(change);
    }

    pub(super) fn sync(&mut self, inode: InodeId) {
        let inode = &mut self.inodes[inode.0];
        for change in inode.pending.drain(..) {
            apply(&mut inode.durable, &change);
        }
    }

    /// What is found after a loss of power.
    pub(super) fn after_crash(&self, mode: CrashMode, rng: &mut Rng) -> Self {
        let inodes = self.inodes.iter().map(|inode| {
            let durable = inode.after_crash(mode, rng);
            Inode { visible: durable.clone(), durable, pending: Vec::new() }
        });
        let inodes = inodes.collect();
        let dirs = self.dirs.iter().map(|(path, dir)| {
            let durable = dir.after_crash(mode, rng);
            let dir = Dir { visible: durable.clone(), durable, pending: Vec::new() };
            (path.clone(), dir)
        });
        Self { inodes, dirs: dirs.collect() }
    }
}

impl Dir {
    fn after_crash(&self, mode: CrashMode, rng: &mut Rng) -> Names {
        let mut names = self.durable.clone();
        for change in &self.pending {
            let survives = match mode {
                CrashMode::LoseUnsynced => false,
                CrashMode::KeepAll | CrashMode::TornTail => true,
                CrashMode::Subset => rng.coin(),
            };
            if survives {
                apply_name(&mut names, change);
            }
        }
        names
    }
}

impl Inode {
    fn after_crash(&self, mode: CrashMode, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match mode {
            CrashMode::LoseUnsynced => {}
            CrashMode::KeepAll => bytes.clone_from(&self.visible),
            CrashMode::Subset => {
                for change in &self.pending {
                    apply_some(&mut bytes, change, rng);
                }
            }
            CrashMode::TornTail => {
                let whole = rng.below(self.pending.len() as u64 + 1) as usize;
                for change in &self.pending[..whole] {
                    apply(&mut bytes, change);
                }
                if let Some(Change::Write { offset, bytes: new }) = self.pending.get(whole) {
                    let cut = rng.below(new.len() as u64 + 1) as usize;
                    let torn = Change::Write { offset: *offset, bytes: new[..cut].to_vec() };
                    if cut > 0 {
                        apply(&mut bytes, &torn);
                    }
                }
            }
        }
        bytes
    }
}

/// Applies those sectors of a change that survive.
fn apply_some(bytes: &mut Vec<u8>, change: &Change, rng: &mut Rng) {
    let Change::Write { offset, bytes: new } = change else {
        if rng.coin() {
            apply(bytes, change);
        }
        return;
    };
    let mut done = 0;
    while done < new.len() {
        let at = offset + done;
        let end = new.len().min(done + SECTOR - at % SECTOR);
        if rng.coin() {
            apply(bytes, &Change::Write { offset: at, bytes: new[done..end].to_vec() });
        }
        done = end;
    }
}
