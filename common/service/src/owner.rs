//! The owner thread of an open device.
//!
//! Devices block and keep state, protocols do neither: they send work to the owner and wait for its
//! answer. Work is done in the order it was sent. When the last handle is dropped the
//! thread drops the device, which frees it.

use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

type Work<D> = Box<dyn FnOnce(&mut D) + Send>;

/// The handle to a device's owner thread.
#[derive(Debug)]
pub struct Owner<D> {
    work: Sender<Work<D>>,
    ended: Option<oneshot::Receiver<()>>,
}

/// The owner thread has ended; the device is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device's owner has ended")]
pub struct Gone;

impl<D: Send + 'static> Owner<D> {
    /// Starts the owner thread of `device`. `name` is for debuggers.
    pub fn start(name: &str, mut device: D) -> std::io::Result<Self> {
        // Bounded by its users: each has one request and one run under way at a time.
        let (work, inbox) = channel::<Work<D>>();
        let (over, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.chars().take(15).collect());
        thread.spawn(move || {
            while let Ok(work) = inbox.recv() {
                work(&mut device);
            }
            drop(device);
            // Nobody need wait for it.
            let _ = over.send(());
        })?;
        Ok(Self { work, ended: Some(ended) })
    }

    /// Sends work without waiting for it.
    pub fn send(&self, work: impl FnOnce(&mut D) + Send + 'static) -> Result<(), Gone> {
        self.work.send(Box::new(work)).map_err(|_| Gone)
    }

    /// Does work and waits for what it returns.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut D) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        self.send(move |device| {
            // The one who asked may have been dropped meanwhile.
            let _ = answer.send(work(device));
        })?;
        answered.await.map_err(|_| Gone)
    }

    /// Lets the device go and waits until it is free for others.
    pub async fn close(mut self) {
        let ended = self.ended.take();
        drop(self);
        if let Some(ended) = ended {
            // An error says that it has ended already.
            let _ = ended.await;
        }
    }
}
