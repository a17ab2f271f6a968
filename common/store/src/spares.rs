//! What is costly to make and can be used again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// At most so many are kept for later.
const MOST: usize = 8;

/// Those that nobody uses at the moment.
pub(crate) struct Spares<T>(Mutex<Vec<T>>);

impl<T> Spares<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work with one of them, or one that is made.
    pub(crate) fn with<R>(&self, make: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        let spare = self.lock().pop();
        let mut spare = spare.unwrap_or_else(make);
        let result = work(&mut spare);
        let mut spares = self.lock();
        if spares.len() < MOST {
            spares.push(spare);
        }
        result
    }
}
