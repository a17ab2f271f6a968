//! Tells that something has changed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::ElementAddress;
use tape::{CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, TapeError};
use tokio::sync::watch;

use super::EngineChanger;

/// Rung when what [`super::Library::view`], a holder or a job row says may have changed. Whoever
/// listens looks for himself; rings that nobody heard are one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tasks: watch::Sender<()>,
    /// How often it was rung, for threads.
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    /// Something has changed.
    pub fn ring(&self) {
        self.0.tasks.send_replace(());
        *self.locked() += 1;
        self.0.rung.notify_all();
    }

    fn locked(&self) -> MutexGuard<'_, u64> {
        self.0.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was rung.
    pub fn rings(&self) -> u64 {
        *self.locked()
    }

    /// Returns when it was rung more often than `heard` times, or after so long. Blocks.
    pub fn wait(&self, heard: u64, patience: Duration) {
        let silent = |rings: &mut u64| *rings == heard;
        drop(self.0.rung.wait_timeout_while(self.locked(), patience, silent));
    }

    /// Hears every ring from now on.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.tasks.subscribe()
    }
}

/// A changer whose moves are told.
pub(super) struct Told {
    changer: Box<dyn EngineChanger>,
    bell: Bell,
}

impl Told {
    pub(super) fn new(changer: Box<dyn EngineChanger>, bell: &Bell) -> Self {
        Self { changer, bell: bell.clone() }
    }

    fn told<T>(&mut self, work: impl FnOnce(&mut dyn EngineChanger) -> T) -> T {
        let done = work(self.changer.as_mut());
        self.bell.ring();
        done
    }
}

impl MediumChanger for Told {
    fn identity(&self) -> DeviceIdentity {
        self.changer.identity()
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        self.changer.inventory(control)
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        self.told(|changer| changer.initialize(control))
    }

    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.told(|changer| changer.move_medium(from, to, control))
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        self.told(|changer| changer.execute(request, control))
    }
}

impl EngineChanger for Told {
    fn reset(&mut self, control: &Control) -> Result<(), TapeError> {
        self.told(|changer| changer.reset(control))
    }
}
