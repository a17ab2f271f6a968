//! Tells that something has changed.

use std::sync::Arc;

use model::ElementAddress;
use tape::{CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, TapeError};
use tokio::sync::watch;

use super::EngineChanger;

/// Rung when what [`super::Library::view`], a holder or a job row says may have changed. Whoever
/// listens looks for himself; rings that nobody heard are one.
#[derive(Clone, Debug)]
pub struct Bell(Arc<watch::Sender<()>>);

impl Default for Bell {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }
}

impl Bell {
    /// Something has changed.
    pub fn ring(&self) {
        self.0.send_replace(());
    }

    /// Hears every ring from now on.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
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
