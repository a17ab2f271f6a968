//! Waiting for something to be so.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything on a slow machine that is also building something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a state is looked at that tells nobody when it changes (a row in a database, a
/// process that ends).
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `look` gives a value; fails the test with `what` when [`PATIENCE`] is over.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`] with a patience of its own.
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::park_timeout(LOOK);
    }
}
