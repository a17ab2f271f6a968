//! A device that tells its library when its user is gone.

use model::ElementAddress;
use tape::{CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, TapeError};

/// A changer whose initiator is forgotten (reservations, PREVENTs) when this is dropped.
pub(super) struct Forgetting<C, F: FnMut()> {
    changer: C,
    forget: F,
}

impl<C, F: FnMut()> Forgetting<C, F> {
    pub(super) fn new(changer: C, forget: F) -> Self {
        Self { changer, forget }
    }
}

impl<C, F: FnMut()> Drop for Forgetting<C, F> {
    fn drop(&mut self) {
        (self.forget)();
    }
}

impl<C: MediumChanger, F: FnMut() + Send> MediumChanger for Forgetting<C, F> {
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
