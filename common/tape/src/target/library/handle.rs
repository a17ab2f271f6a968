//! The [`MediumChanger`] face of a library, for one initiator.

use std::sync::{Arc, Mutex, MutexGuard};

use model::ElementAddress;

use super::{TargetLibrary, lock};
use crate::target::nexus::Access;
use crate::target::{Medium, complete};
use crate::{CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, TapeError};

/// A shared library as one initiator uses its changer. Calls begin as commands do: unit
/// attentions and reservations come back as errors.
pub struct ChangerHandle<M> {
    library: Arc<Mutex<TargetLibrary<M>>>,
    nexus: u64,
}

impl<M> Clone for ChangerHandle<M> {
    fn clone(&self) -> Self {
        Self { library: Arc::clone(&self.library), nexus: self.nexus }
    }
}

impl<M: Medium> ChangerHandle<M> {
    /// The changer as the initiator `nexus` uses it.
    pub fn new(library: Arc<Mutex<TargetLibrary<M>>>, nexus: u64) -> Self {
        Self { library, nexus }
    }

    /// The library itself, locked; short work only, since everyone else waits.
    pub fn lock(&self) -> MutexGuard<'_, TargetLibrary<M>> {
        lock(&self.library)
    }

    /// The initiator's number.
    pub fn nexus(&self) -> u64 {
        self.nexus
    }

    fn enter(
        &self,
        access: Access,
        control: &Control,
    ) -> Result<MutexGuard<'_, TargetLibrary<M>>, TapeError> {
        control.check()?;
        let mut library = self.lock();
        library.nexuses.enter(self.nexus, access)?;
        Ok(library)
    }
}

impl<M: Medium> MediumChanger for ChangerHandle<M> {
    fn identity(&self) -> DeviceIdentity {
        self.lock().identity.clone()
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        Ok(self.enter(Access::Read, control)?.inventory())
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        self.enter(Access::Write, control).map(|_| ())
    }

    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.enter(Access::Write, control)?.move_cartridge(from, to, control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        complete(request, |transfer| {
            self.lock().execute_cdb(self.nexus, &request.cdb, transfer, control)
        })
    }
}
