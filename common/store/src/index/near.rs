//! Places that will be asked for next: what was written together is asked for together. When one
//! container was found in runs twice, all its places are kept in memory for a while.

use std::collections::{HashMap, VecDeque};

use model::Digest;

use super::{Location, Mixer};

/// Places that are kept: some 15 MB.
const PLACES: usize = 128 << 10;
/// Containers that were found last are remembered.
const FOUND: usize = 64;

pub(super) struct Near {
    places: HashMap<[u8; 32], Location, Mixer>,
    /// Containers whose places are here, the oldest first.
    containers: VecDeque<u32>,
    found: VecDeque<u32>,
}

impl Near {
    pub(super) fn new(mixer: Mixer) -> Self {
        let places = HashMap::with_hasher(mixer);
        Self { places, containers: VecDeque::new(), found: VecDeque::new() }
    }

    /// Places that there is room for.
    pub(super) fn capacity(&self) -> u64 {
        self.places.capacity() as u64
    }

    /// Where the chunk was once; whether it counts there must be asked.
    pub(super) fn get(&self, digest: &Digest) -> Option<Location> {
        self.places.get(digest.as_bytes()).copied()
    }

    /// A run told a place in this container. True if its other places should be brought.
    pub(super) fn found(&mut self, container: u32) -> bool {
        if self.containers.contains(&container) {
            return false;
        }
        if self.found.contains(&container) {
            self.found.retain(|id| *id != container);
            return true;
        }
        if self.found.len() == FOUND {
            self.found.pop_front();
        }
        self.found.push_back(container);
        false
    }

    /// Keeps the places of a container, in place of those that were brought first.
    pub(super) fn bring(&mut self, container: u32, places: &[(Digest, Location)]) {
        if self.containers.contains(&container) || places.len() > PLACES {
            return;
        }
        while self.places.len() + places.len() > PLACES {
            let Some(oldest) = self.containers.pop_front() else { break };
            self.places.retain(|_, at| at.container != oldest);
        }
        self.places.extend(places.iter().map(|(digest, at)| (*digest.as_bytes(), *at)));
        self.containers.push_back(container);
    }

    /// The container is no more.
    pub(super) fn forget(&mut self, container: u32) {
        if self.containers.contains(&container) {
            self.containers.retain(|id| *id != container);
            self.places.retain(|_, at| at.container != container);
        }
    }
}
