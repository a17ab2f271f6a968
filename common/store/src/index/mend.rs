//! Runs made anew from what containers say, beside everything else: for an index that turned out
//! to be damaged while the store is open.
//!
//! What lies in the containers that the runs covered at the beginning, and counts, is written into
//! new runs; what was moved or stored since then is recent, or in runs that were written since, and
//! these come behind the new ones. In memory the new runs take the place of the old ones at once.
//! On disk there is no manifest from the moment when damage is seen to the next container that is
//! sealed, so a process that ends in between makes all of it anew at its start.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::Digest;

use super::merge::{self, Merge};
use super::run::{Run, RunWriter, Spot};
use super::{Index, Location};
use crate::Result;

/// Entries that are merged before others may enter something.
const STEP: u64 = 4096;

/// Runs that are made anew.
pub(crate) struct Mending<'a> {
    index: &'a Index,
    /// The runs that are given up.
    old: HashSet<u64>,
    /// What they cover.
    containers: Vec<u32>,
    spots: Vec<Spot>,
    runs: Vec<Arc<Run>>,
}

impl Index {
    /// Whether a run turned out to be damaged, and nobody has made the runs anew since.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Acquire)
    }

    /// Begins to make the runs anew, if they are damaged. One at a time.
    pub(crate) fn begin_mending(&self) -> Option<Mending<'_>> {
        if !self.is_spoilt() {
            return None;
        }
        let mut upkeep = self.upkeep();
        upkeep.merge = None;
        let state = self.read();
        let old = state.runs.iter().map(|run| run.id).collect();
        let covered = state.contents.keys().filter(|id| **id < upkeep.through);
        let mut containers: Vec<u32> = covered.copied().collect();
        containers.sort_unstable();
        Some(Mending { index: self, old, containers, spots: Vec::new(), runs: Vec::new() })
    }
}

impl Mending<'_> {
    /// The containers that [`Mending::take`] is to be told of, in this order.
    pub(crate) fn containers(&self) -> Vec<u32> {
        self.containers.clone()
    }

    /// What a container lists.
    pub(crate) fn take(&mut self, places: &[(Digest, Location)]) -> Result<()> {
        {
            let state = self.index.read();
            let counts = places.iter().filter(|(_, at)| state.counts(at));
            self.spots
                .extend(counts.map(|(digest, at)| Spot { digest: *digest.as_bytes(), at: *at }));
        }
        if self.spots.len() >= self.index.limit { self.write() } else { Ok(()) }
    }

    /// What was found in a container without a good list: where it lies, and not its number. The
    /// runs know it, if they can be read.
    pub(crate) fn take_found(&mut self, places: &[(Digest, Location)]) -> Result<()> {
        let runs = self.index.read().runs.clone();
        let mut known = Vec::new();
        for (digest, found) in places {
            let at = self.index.in_runs(&runs, digest)?;
            let same = at.filter(|at| (at.container, at.offset) == (found.container, found.offset));
            known.extend(same.map(|at| (*digest, at)));
        }
        self.take(&known)
    }

    fn write(&mut self) -> Result<()> {
        // Where a chunk counts twice the later place is entered.
        self.spots.sort_unstable_by_key(|spot| {
            (spot.digest, Reverse((spot.at.container, spot.at.offset)))
        });
        let state = self.index.read();
        self.spots.dedup_by(|older, newer| {
            let same = older.digest == newer.digest;
            if same && !state.settle(&older.at, &newer.at) {
                newer.at = older.at;
            }
            same
        });
        drop(state);
        let Index { vfs, dir, .. } = self.index;
        let id = self.index.upkeep().take_id();
        let mut writer = RunWriter::create(vfs.as_ref(), dir, id, self.spots.len() as u64)?;
        self.spots.drain(..).try_for_each(|spot| writer.push(spot))?;
        self.runs.extend(writer.finish(vfs.as_ref(), dir)?.map(Arc::new));
        self.merge()
    }

    fn merge(&mut self) -> Result<()> {
        let Index { vfs, dir, limit, .. } = self.index;
        loop {
            let lens: Vec<u64> = self.runs.iter().map(|run| run.len()).collect();
            let Some(chosen) = merge::choice(&lens, lens.iter().sum(), *limit as u64) else {
                return Ok(());
            };
            let id = self.index.upkeep().take_id();
            let inputs = &self.runs[chosen.clone()];
            let mut merge = Merge::begin(vfs.as_ref(), dir, id, inputs)?;
            while !merge.step(STEP, &self.index.read())? {}
            let ids = merge.inputs();
            let run = merge.finish(vfs.as_ref(), dir)?.map(Arc::new);
            self.runs.splice(chosen, run);
            self.index.discard(ids);
        }
    }

    /// The new runs take the place of the old ones; how many entries they have.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.write()?;
        let index = self.index;
        let mut upkeep = index.upkeep();
        let entries = self.runs.iter().map(|run| run.len()).sum();
        let mut state = index.write();
        let since = state.runs.iter().filter(|run| !self.old.contains(&run.id));
        self.runs.extend(since.cloned());
        state.runs = Arc::new(self.runs);
        drop(state);
        upkeep.given_up.extend(self.old);
        upkeep.rests = false;
        index.spoilt.store(false, Ordering::Release);
        Ok(entries)
    }
}
