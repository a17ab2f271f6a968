//! A changer that tells its library when its user is gone.

use model::ElementAddress;
use tape::{CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, TapeError};

use crate::device::EngineChanger;

/// What the library behind a changer does for one initiator.
pub(crate) trait Home: Send {
    /// The initiator is gone: its reservations and PREVENTs end.
    fn forget(&self);
    /// LOGICAL UNIT RESET of the changer.
    fn reset(&self) -> Result<(), TapeError>;
}

/// A changer whose initiator is forgotten when this is dropped.
pub(crate) struct Forgetting<C, H: Home> {
    changer: C,
    home: H,
}

impl<C, H: Home> Forgetting<C, H> {
    pub(crate) fn new(changer: C, home: H) -> Self {
        Self { changer, home }
    }
}

impl<C, H: Home> Drop for Forgetting<C, H> {
    fn drop(&mut self) {
        self.home.forget();
    }
}

impl<C: MediumChanger, H: Home> EngineChanger for Forgetting<C, H> {
    fn reset(&mut self, _control: &Control) -> Result<(), TapeError> {
        self.home.reset()
    }
}

impl<C: MediumChanger, H: Home> MediumChanger for Forgetting<C, H> {
    fn identity(&self) -> DeviceIdentity {
        self.changer.identity()
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        self.changer.inventory(control)
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        self.changer.initialize(control)
    }

    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.changer.move_medium(from, to, control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        self.changer.execute(request, control)
    }
}
