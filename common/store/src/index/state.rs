//! What looking up needs: places that no run has, the runs, and what counts of them.

use std::collections::HashMap;
use std::sync::Arc;

use model::Digest;

use super::contents::{Contents, Stamp};
use super::run::Run;
use super::{Location, Mixer};

/// What looking up needs.
pub(super) struct State {
    /// Places that no run has.
    pub(super) recent: HashMap<[u8; 32], Location, Mixer>,
    /// Oldest first: what a later one says is newer.
    pub(super) runs: Arc<Vec<Arc<Run>>>,
    pub(super) contents: HashMap<u32, Contents>,
    /// The epoch that stamps are counted from.
    pub(super) base: u32,
}

impl State {
    pub(super) fn stamp(&self, epoch: u32) -> Stamp {
        Stamp::try_from(epoch.saturating_sub(self.base)).unwrap_or(Stamp::MAX)
    }

    pub(super) fn of(&self, at: &Location) -> Option<&Contents> {
        self.contents.get(&at.container)
    }

    /// Whether the chunk at this place counts.
    pub(super) fn counts(&self, at: &Location) -> bool {
        self.of(at).is_some_and(|contents| contents.counts(at))
    }

    /// The place, if it counts; stamped if there is an epoch.
    pub(super) fn rely(&self, at: Location, epoch: Option<u32>) -> Option<Location> {
        let contents = self.of(&at)?;
        let counts = match epoch {
            Some(epoch) => contents.touch(&at, self.stamp(epoch)),
            None => contents.counts(&at),
        };
        counts.then_some(at)
    }

    /// The place that no run has, if it counts; stamped if there is an epoch.
    pub(super) fn recent(&self, digest: &Digest, epoch: Option<u32>) -> Option<Location> {
        self.recent.get(digest.as_bytes()).and_then(|at| self.rely(*at, epoch))
    }

    /// Of two places of a chunk only the newer one counts from here on. Whoever relied on the
    /// older one relies on the newer one: it is kept longer than anybody can have asked for.
    /// False if the newer one does not count: then nothing is changed.
    pub(super) fn settle(&self, older: &Location, newer: &Location) -> bool {
        let kept = self.of(newer).is_some_and(|contents| contents.touch(newer, Stamp::MAX));
        if let Some(contents) = self.of(older).filter(|_| kept && older != newer) {
            contents.leave(older);
        }
        kept
    }

    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let each = self.contents.values().map(Contents::totals);
        each.fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
    }
}
