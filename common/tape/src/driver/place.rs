//! Where a drive that does not know its own position was left.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ObjectNumber;

#[derive(Debug, Default)]
struct Left {
    /// How often a cartridge may have been moved.
    moves: u64,
    object: Option<ObjectNumber>,
}

/// Where a drive without positions was left, if anybody counted. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Place(Arc<Mutex<Left>>);

impl Place {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cartridge may have been moved: whoever counted counted on another tape.
    pub fn forget(&self) {
        let mut left = self.lock();
        left.moves += 1;
        left.object = None;
    }

    /// How often a cartridge may have been moved, and where the tape was left since.
    pub(super) fn look(&self) -> (u64, Option<ObjectNumber>) {
        let left = self.lock();
        (left.moves, left.object)
    }

    /// The tape was left here, if none was moved since `moves` was looked at.
    pub(super) fn leave(&self, moves: u64, object: Option<ObjectNumber>) {
        let mut left = self.lock();
        if left.moves == moves {
            left.object = object;
        }
    }
}
