//! The wish to stop, told to every task.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Hears of the wish to stop. Clones hear the same.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Tells it. Dropped, it tells it as well: nobody is left to say so later.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// A new pair.
pub fn channel() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl ShutdownTrigger {
    /// Tells every [`Shutdown`] to stop; more than once does no harm.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether it is time to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits so long on a thread of the runtime that may block; false if it is time to stop.
    pub fn wait_blocking(&self, time: std::time::Duration) -> bool {
        if time.is_zero() {
            return !self.is_requested();
        }
        let stop = async { tokio::time::timeout(time, self.requested()).await.is_ok() };
        !tokio::runtime::Handle::current().block_on(stop)
    }

    /// Returns when it is time to stop. May be dropped and called again, as in `select!`.
    pub async fn requested(&self) {
        // The error means that the trigger is gone.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
}

/// A [`Shutdown`] that SIGTERM and SIGINT request, and the trigger to do so from inside. Call it
/// within a tokio runtime.
///
/// # Errors
/// The system refuses a signal handler.
pub fn on_signals() -> std::io::Result<(ShutdownTrigger, Shutdown)> {
    let (trigger, shutdown) = channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = trigger.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        told.trigger();
    });
    Ok((trigger, shutdown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_it() {
        let (trigger, shutdown) = channel();
        let other = shutdown.clone();
        let waiting = tokio::spawn(async move { other.requested().await });
        assert!(!shutdown.is_requested());
        trigger.trigger();
        waiting.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_wish_to_stop() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
