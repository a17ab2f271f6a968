//! Digest to place: which chunks there are and where they lie.
//!
//! The places of what was stored last are in memory; when they are many they are written to disk,
//! sorted, as a *run*, and runs are merged from time to time. In memory stay a filter over each
//! run's digests, so that a chunk that is new costs no reading, and a byte for each chunk that
//! somebody relied on (`contents`). What the index has on disk is never more than what the
//! containers say of themselves: it is made anew from them where it is missing or damaged.
//!
//! A digest may stand in several runs, but only places that *count* ([`Contents::counts`]) are
//! found, the newest first: a chunk that is moved, forgotten or freed leaves its old place before
//! the new one is entered. Two places of a chunk count only where it was stored once more because
//! a part of the index could not be read; a merge settles that.

mod contents;
mod filter;
mod manifest;
mod mend;
mod merge;
mod near;
mod run;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::Digest;
use vfs::Vfs;

use crate::{Damage, Encoding, Result, StoreError};
use contents::Contents;
use manifest::{Covered, Manifest};
pub(crate) use mend::Mending;
use merge::Merge;
use near::Near;
use run::{Run, RunWriter, Spot};
use state::State;

/// Bytes before each chunk in a container.
pub(crate) const HEADER: u64 = 56;
/// For each chunk of a container that is sealed, so many entries are merged: more than it will be
/// merged times, so that merging keeps up.
const MERGED_EACH: u64 = 16;
/// The epoch of everything that is found at start.
pub(crate) const FIRST_EPOCH: u32 = 1;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) container: u32,
    /// Of its header, in the container file.
    pub(crate) offset: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) encoding: Encoding,
    /// How many chunks are before it in the container.
    pub(crate) number: u32,
}

impl Location {
    /// Bytes that it takes in the container file.
    pub(crate) fn size(&self) -> u64 {
        HEADER + u64::from(self.stored_len)
    }
}

/// Hashes a digest. Its bytes are random already, so eight of them mixed with a secret are hash
/// enough, and nobody outside can aim at one bucket.
#[derive(Clone)]
struct Mixer {
    secret: u64,
    state: u64,
}

impl Mixer {
    fn new() -> Self {
        Self { secret: RandomState::new().build_hasher().finish(), state: 0 }
    }
}

impl BuildHasher for Mixer {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        self.clone()
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        // The length prefix of the array comes by itself, in 8 bytes, and is no use.
        if let Some(word) = bytes.first_chunk::<8>().filter(|_| bytes.len() >= 32) {
            let word = u128::from(u64::from_le_bytes(*word) ^ self.secret);
            let product = word * 0x9e37_79b9_7f4a_7c15;
            self.state = (product as u64) ^ ((product >> 64) as u64);
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// What is done beside looking up, by one thread at a time.
struct Upkeep {
    through: u32,
    next_run: u64,
    merge: Option<Merge>,
    /// The runs were looked at, and none had to be merged: until there is another.
    rests: bool,
    /// Containers that were damaged when they were looked at.
    flawed: BTreeSet<u32>,
    /// Runs that others have taken the place of, while there was no manifest: there is one to be
    /// written, and these are removed then.
    given_up: Vec<u64>,
}

/// The chunks of a store.
pub(crate) struct Index {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    /// So many places are kept in memory before a run is written.
    limit: usize,
    state: RwLock<State>,
    near: Mutex<Near>,
    upkeep: Mutex<Upkeep>,
    /// A run turned out to be damaged.
    spoilt: AtomicBool,
}

/// The answer to a look-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) at: Location,
    /// The places of its neighbours are worth [`Index::bring`]ing.
    pub(crate) wanted: bool,
}

impl Index {
    /// Opens the index in `dir`, of a store that has the containers `present`. Whatever is wrong
    /// with it is put into `damage`, and it begins anew, without anything.
    pub(crate) fn open(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        limit: u32,
        present: &[u32],
        damage: &mut Vec<Damage>,
    ) -> Result<Self> {
        vfs.create_dir_all(&dir)?;
        let (manifest, runs) = read(vfs.as_ref(), &dir, damage)?;
        let Manifest { through, next_run, containers, .. } = manifest;
        tidy(vfs.as_ref(), &dir, &runs)?;
        let present: HashSet<u32> = present.iter().copied().collect();
        let mut flawed = BTreeSet::new();
        let mut contents = HashMap::new();
        for covered in containers.into_iter().filter(|it| present.contains(&it.id)) {
            if covered.flawed {
                flawed.insert(covered.id);
            }
            contents.insert(covered.id, Contents::of(covered.listed));
        }
        let mixer = Mixer::new();
        let near = Mutex::new(Near::new(mixer.clone()));
        let recent = HashMap::with_hasher(mixer);
        let state = State { recent, runs: Arc::new(runs), contents, base: FIRST_EPOCH };
        let upkeep =
            Upkeep { through, next_run, merge: None, rests: false, flawed, given_up: Vec::new() };
        let (state, upkeep) = (RwLock::new(state), Mutex::new(upkeep));
        let spoilt = AtomicBool::new(false);
        Ok(Self { vfs, dir, limit: limit as usize, state, near, upkeep, spoilt })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn near(&self) -> MutexGuard<'_, Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upkeep(&self) -> MutexGuard<'_, Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is in this container is known without looking at it.
    pub(crate) fn covers(&self, container: u32) -> bool {
        self.read().contents.contains_key(&container)
    }

    /// Whether a container that is covered was damaged when it was looked at.
    pub(crate) fn is_flawed(&self, container: u32) -> bool {
        self.upkeep().flawed.contains(&container)
    }

    /// The lowest id that no container had, as far as the index knows.
    pub(crate) fn through(&self) -> u32 {
        self.upkeep().through
    }

    /// Where the chunk is, `None` if it is not here. With an epoch, it is noted that somebody
    /// relies on it.
    ///
    /// # Errors
    /// A run can not be read. If it is damaged the runs are to be made anew: [`Mending`].
    pub(crate) fn find(&self, digest: &Digest, epoch: Option<u32>) -> Result<Option<Found>> {
        let known = |at| Found { at, wanted: false };
        loop {
            let runs = {
                let state = self.read();
                if let Some(at) = state.recent(digest, epoch) {
                    return Ok(Some(known(at)));
                }
                let near = self.near().get(digest);
                if let Some(at) = near.and_then(|at| state.rely(at, epoch)) {
                    return Ok(Some(known(at)));
                }
                state.runs.clone()
            };
            let at = self.in_runs(&runs, digest);
            let state = self.read();
            // What was moved meanwhile is recent; what is not any more went into another run.
            if !Arc::ptr_eq(&runs, &state.runs) {
                continue;
            }
            let at = at.map_err(|error| self.spoilt(error))?;
            if let Some(at) = state.recent(digest, epoch) {
                return Ok(Some(known(at)));
            }
            let Some(at) = at.and_then(|at| state.rely(at, epoch)) else { return Ok(None) };
            return Ok(Some(Found { at, wanted: self.near().found(at.container) }));
        }
    }

    fn in_runs(&self, runs: &[Arc<Run>], digest: &Digest) -> Result<Option<Location>> {
        for run in runs.iter().rev() {
            if let Some(found) = run.find(digest)?.filter(|at| self.counts(at)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Passes an error on; where a run is damaged, what is on disk does not count any more.
    fn spoilt(&self, error: StoreError) -> StoreError {
        if error.is_damage() && !self.spoilt.swap(true, Ordering::AcqRel) {
            let manifest = self.dir.join(manifest::NAME);
            let removed = self.vfs.remove(&manifest).and_then(|()| self.vfs.sync_dir(&self.dir));
            tracing::error!(
                %error,
                removed = removed.is_ok(),
                "the index is damaged; it is made anew from the containers"
            );
        }
        error
    }

    /// Keeps the places of a container at hand: others of it will be asked for.
    pub(crate) fn bring(&self, container: u32, places: &[(Digest, Location)]) {
        self.near().bring(container, places);
    }

    /// Whether the chunk at this place counts; and if so, whether anybody relied on it since the
    /// beginning of `epoch`.
    pub(crate) fn is_live(&self, at: &Location, epoch: u32) -> Option<bool> {
        let state = self.read();
        let stamp = state.of(at)?.stamp(at)?;
        Some(stamp >= state.stamp(epoch))
    }

    /// Whether the chunk at this place counts.
    pub(crate) fn counts(&self, at: &Location) -> bool {
        self.read().counts(at)
    }

    /// Chunks that a container lists, whether they count or not.
    pub(crate) fn listed(&self, container: u32) -> u32 {
        self.read().contents.get(&container).map_or(0, Contents::count)
    }

    /// Bytes in a container's file that somebody relied on since the beginning of `epoch`.
    pub(crate) fn live(&self, container: u32, epoch: u32) -> u64 {
        let state = self.read();
        let needed = state.stamp(epoch);
        state.contents.get(&container).map_or(0, |contents| contents.live(needed))
    }

    /// Enters a chunk that no place that counts is known of: the next one of its container.
    pub(crate) fn insert(&self, digest: &Digest, at: Location, epoch: u32) {
        let mut state = self.write();
        let stamp = state.stamp(epoch);
        state.contents.entry(at.container).or_default().push(&at, stamp);
        state.recent.insert(*digest.as_bytes(), at);
    }

    /// Moves a chunk, if it still counts at `from`, to the next place of another container.
    pub(crate) fn relocate(&self, digest: &Digest, from: Location, to: Location) {
        let mut state = self.write();
        let left = state.of(&from).and_then(|contents| contents.leave(&from));
        let contents = state.contents.entry(to.container).or_default();
        contents.push(&to, left.unwrap_or(0));
        match left {
            Some(_) => _ = state.recent.insert(*digest.as_bytes(), to),
            None => _ = contents.leave(&to),
        }
    }

    /// Forgets a chunk that turned out to be damaged at this place, so that it is stored anew when
    /// somebody brings it.
    pub(crate) fn forget(&self, at: &Location) {
        if let Some(contents) = self.read().of(at) {
            contents.leave(at);
        }
    }

    /// Forgets a container, unless somebody relied on a chunk of it since the beginning of
    /// `epoch`. Says how many of its chunks counted.
    pub(crate) fn abandon(&self, container: u32, epoch: u32) -> Option<u64> {
        let mut state = self.write();
        let needed = state.stamp(epoch);
        let Some(contents) = state.contents.get(&container) else { return Some(0) };
        if contents.live(needed) > 0 {
            return None;
        }
        let (chunks, ..) = contents.totals();
        state.contents.remove(&container);
        drop(state);
        self.near().forget(container);
        Some(chunks)
    }

    /// Enters what was found in a container that is not covered. Where a chunk is twice, the later
    /// place counts: it was written because the earlier one is damaged or given up.
    pub(crate) fn recover(
        &self,
        container: u32,
        places: &[(Digest, Location)],
        flawed: bool,
    ) -> Result<()> {
        self.write().contents.entry(container).or_default();
        if flawed {
            self.upkeep().flawed.insert(container);
        }
        for (digest, at) in places {
            // A place that can not be looked up is not the later one.
            let known = match self.find(digest, None) {
                Err(error) if error.is_damage() => None,
                known => known?,
            };
            match known {
                Some(later) if later.at.container > container => {
                    let state = self.read();
                    if let Some(contents) = state.of(at) {
                        contents.push(at, 0);
                        contents.leave(at);
                    }
                    continue;
                }
                Some(before) => self.forget(&before.at),
                None => {}
            }
            self.insert(digest, *at, FIRST_EPOCH);
        }
        Ok(())
    }

    /// A new epoch begins; what was stamped before `needed` need not be told apart any more.
    pub(crate) fn begin_epoch(&self, epoch: u32, needed: u32) {
        let mut state = self.write();
        // What was stamped before still has less than what is needed.
        let later = needed.saturating_sub(state.base).saturating_sub(1);
        if epoch.saturating_sub(state.base) > 200 && later > 0 {
            state.base += later;
            let now = state.stamp(epoch);
            state.contents.values().for_each(|contents| contents.rebase(later, now));
        }
    }

    /// Bytes of memory that the index takes, about.
    pub(crate) fn memory(&self) -> u64 {
        /// A table is between 7/16 and 7/8 full; a byte more for each slot.
        const SLOT: u64 = (size_of::<([u8; 32], Location)>() as u64 + 1) * 8 / 7;
        let state = self.read();
        let runs: u64 = state.runs.iter().map(|run| run.memory()).sum();
        let contents: u64 = state.contents.values().map(Contents::memory).sum();
        let near = self.near().capacity();
        runs + contents + (state.recent.capacity() as u64 + near) * SLOT
    }

    /// Chunks, their bytes before and after compression.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        self.read().totals()
    }

    /// All containers below `through` are sealed and durable, and all that is known lies in them:
    /// the moment to write it down. Merges some of the runs.
    ///
    /// # Errors
    /// The disk does not take it; nothing is lost, and the next call tries again.
    pub(crate) fn sealed(&self, through: u32, chunks: u64) -> Result<()> {
        let mut upkeep = self.upkeep();
        if self.read().recent.len() >= self.limit || !upkeep.given_up.is_empty() {
            self.flush(&mut upkeep, through)?;
        }
        if self.is_spoilt() {
            return Ok(());
        }
        match self.merge_some(&mut upkeep, chunks.max(64) * MERGED_EACH) {
            // It is made anew; who stores something is not concerned.
            Err(error) if error.is_damage() => Ok(()),
            done => done,
        }
    }

    /// Writes what is recent as a run.
    fn flush(&self, upkeep: &mut Upkeep, through: u32) -> Result<()> {
        let mut spots: Vec<Spot> = {
            let state = self.read();
            let counts = state.recent.iter().filter(|(_, at)| state.counts(at));
            counts.map(|(digest, at)| Spot { digest: *digest, at: *at }).collect()
        };
        spots.sort_unstable_by_key(|spot| spot.digest);
        let id = upkeep.take_id();
        let most = spots.len() as u64;
        let mut writer = RunWriter::create(self.vfs.as_ref(), &self.dir, id, most)?;
        spots.into_iter().try_for_each(|spot| writer.push(spot))?;
        let run = writer.finish(self.vfs.as_ref(), &self.dir)?.map(Arc::new);
        let runs = self.read().runs.iter().cloned().chain(run).collect();
        self.commit(upkeep, through, runs, true)
    }

    /// Goes on with a merge, or begins one if there is reason.
    fn merge_some(&self, upkeep: &mut Upkeep, entries: u64) -> Result<()> {
        if upkeep.merge.is_none() {
            // A look passes over all containers, so not each that is sealed is worth one.
            if upkeep.rests {
                return Ok(());
            }
            let (runs, alive) = {
                let state = self.read();
                (state.runs.clone(), state.totals().0)
            };
            let lens: Vec<_> = runs.iter().map(|run| run.len()).collect();
            let Some(chosen) = merge::choice(&lens, alive, self.limit as u64) else {
                upkeep.rests = true;
                return Ok(());
            };
            let id = upkeep.take_id();
            let begun = Merge::begin(self.vfs.as_ref(), &self.dir, id, &runs[chosen]);
            upkeep.merge = Some(begun.map_err(|error| self.spoilt(error))?);
        }
        let Some(mut merge) = upkeep.merge.take() else { return Ok(()) };
        // Given up on an error, and begun again later.
        let done = merge.step(entries, &self.read()).map_err(|error| self.spoilt(error))?;
        if !done {
            upkeep.merge = Some(merge);
            return Ok(());
        }
        let inputs = merge.inputs();
        let run = merge.finish(self.vfs.as_ref(), &self.dir)?.map(Arc::new);
        let before = self.read().runs.clone();
        let first = before.iter().position(|run| inputs.first() == Some(&run.id)).unwrap_or(0);
        let mut runs = before.as_ref().clone();
        runs.splice(first..first + inputs.len(), run);
        let through = upkeep.through;
        self.commit(upkeep, through, runs, false)?;
        self.discard(inputs);
        Ok(())
    }

    /// Removes the files of runs that are not needed any more.
    fn discard(&self, runs: Vec<u64>) {
        for id in runs {
            // What stays is removed at the next open.
            let _ = self.vfs.remove(&self.dir.join(run::file_name(id)));
        }
    }

    /// From here on these are the runs, on disk first. With `all`, nothing is recent any more.
    fn commit(
        &self,
        upkeep: &mut Upkeep,
        through: u32,
        runs: Vec<Arc<Run>>,
        all: bool,
    ) -> Result<()> {
        let ids = runs.iter().map(|run| run.id).collect();
        let next_run = upkeep.next_run;
        let covered = |(id, contents): (&u32, &Contents)| {
            let (flawed, listed) = (upkeep.flawed.contains(id), contents.listed());
            Covered { id: *id, flawed, listed }
        };
        let containers = {
            let state = self.read();
            state.contents.iter().filter(|(id, _)| **id < through).map(covered).collect()
        };
        let manifest = Manifest { through, next_run, runs: ids, containers };
        // What is damaged is not vouched for.
        if !self.is_spoilt() {
            manifest.write(self.vfs.as_ref(), &self.dir)?;
            self.discard(std::mem::take(&mut upkeep.given_up));
        }
        (upkeep.through, upkeep.rests) = (through, false);
        let mut state = self.write();
        state.runs = Arc::new(runs);
        if all {
            state.recent.clear();
        }
        Ok(())
    }
}

impl Upkeep {
    fn take_id(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run
    }
}

/// What is on disk, or nothing where that is not whole.
fn read(vfs: &dyn Vfs, dir: &Path, damage: &mut Vec<Damage>) -> Result<(Manifest, Vec<Arc<Run>>)> {
    // What is left must not be taken for whole later, beside runs that are made anew.
    let mut anew = |name: &str| {
        damage.push(Damage::Index { path: dir.join(name) });
        vfs.remove(&dir.join(manifest::NAME))?;
        vfs.sync_dir(dir)?;
        Ok((Manifest::default(), Vec::new()))
    };
    let manifest = match Manifest::read(vfs, dir)? {
        None => return Ok((Manifest::default(), Vec::new())),
        Some(Some(manifest)) => manifest,
        Some(None) => return anew(manifest::NAME),
    };
    let mut runs = Vec::new();
    for id in &manifest.runs {
        match Run::open(vfs, dir, *id) {
            Ok(run) => runs.push(Arc::new(run)),
            Err(error) if error.is_damage() || error.is_gone() => {
                return anew(&run::file_name(*id));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((manifest, runs))
}

/// Removes files of runs that are not in use.
fn tidy(vfs: &dyn Vfs, dir: &Path, runs: &[Arc<Run>]) -> Result<()> {
    let used: HashSet<String> = runs.iter().map(|run| run::file_name(run.id)).collect();
    for name in vfs.list(dir)? {
        if name != manifest::NAME && !used.contains(&name) {
            vfs.remove(&dir.join(&name))?;
        }
    }
    Ok(())
}
