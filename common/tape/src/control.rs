//! Deadlines and cancellation for blocking device calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set once by whoever wants a device call to end early; looked at between records.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every call that holds a clone to end at the next record boundary.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How long a device call may take and who may end it early.
#[derive(Clone, Debug)]
pub struct Control {
    /// When the caller stops waiting. A command already at a device runs on to its own end.
    pub deadline: Instant,
    /// Ends the call at a record boundary.
    pub cancel: CancelToken,
}

impl Control {
    /// A control that ends `timeout` from now and can be cancelled by `cancel`.
    pub fn new(timeout: Duration, cancel: CancelToken) -> Self {
        Self { deadline: Instant::now() + timeout, cancel }
    }

    /// A control that nobody cancels.
    pub fn within(timeout: Duration) -> Self {
        Self::new(timeout, CancelToken::new())
    }

    /// What is left of the time.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The reason to stop now, if there is one: cancelled or out of time.
    pub fn check(&self) -> Result<(), crate::TapeError> {
        match () {
            () if self.cancel.is_cancelled() => Err(crate::TapeError::Cancelled),
            () if self.remaining().is_zero() => Err(crate::TapeError::TimedOut),
            () => Ok(()),
        }
    }
}
