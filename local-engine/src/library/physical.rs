//! A physical library at this site, driven by this engine.

use std::sync::Arc;

use copy::Holder;
use model::{DeviceName, DeviceRole, LibraryName, SiteName};
use ndmp::tape::{Failure, FailureKind};
use service::config::PhysicalLibrary as Configured;
use service::health::HealthBook;
use svs::LibraryRole;
use tape::physical::{AnyDrive, PhysicalLibrary};
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd, SpaceKind,
    Spaced, TapeDrive, TapeError, WriteEnd,
};
use vfs::Vfs;

use super::forgetting::{Forgetting, Home};
use super::virtuals::line;
use crate::device::{
    Conditions, DeviceLine, DriveCondition, EngineChanger, Library, LibraryView, Opener, failure,
};
use crate::mover::EngineDrive;

/// A library that stands here.
pub struct LocalPhysical {
    name: LibraryName,
    library: Arc<dyn PhysicalLibrary>,
    /// Bytes on each cartridge, if they are known.
    capacity: Option<u64>,
    /// How its drives and cartridges are.
    health: Arc<HealthBook>,
}

/// Cartridges that are told not to be written on.
const FROZEN_MAX: usize = 1024;

impl LocalPhysical {
    /// Opens the library that the configuration names.
    pub fn open(
        vfs: &Arc<dyn Vfs>,
        config: &Configured,
        site: &SiteName,
        health: Arc<HealthBook>,
    ) -> Result<Self, service::cli::Failure> {
        let library = service::physical::open(vfs, config, site)?;
        let capacity = config.file().map(|file| file.capacity.0);
        Ok(Self { name: config.name.clone(), library, capacity, health })
    }

    fn conditions(&self) -> Conditions {
        let condition = |index| DriveCondition {
            down: self.health.refuses(&DeviceName::drive(self.name.clone(), index)),
            ..DriveCondition::default()
        };
        Conditions {
            drives: (0..self.library.drive_count()).map(condition).collect(),
            frozen: self.health.frozen(&self.name, FROZEN_MAX),
        }
    }
}

/// The changer's library, as one initiator uses it.
struct ChangerHome {
    library: Arc<dyn PhysicalLibrary>,
    nexus: u64,
}

impl Home for ChangerHome {
    fn forget(&self) {
        self.library.forget(self.nexus);
    }

    fn reset(&self) -> Result<(), TapeError> {
        self.library.reset(DeviceRole::Changer)
    }
}

impl Library for LocalPhysical {
    fn name(&self) -> &LibraryName {
        &self.name
    }

    fn devices(&self) -> Vec<DeviceLine> {
        let (identity, drives) = match self.library.glance() {
            Some(look) => {
                (look.identity, look.drives.into_iter().map(|it| it.identity).collect::<Vec<_>>())
            }
            // A library that was not reached yet.
            None => {
                let count = usize::from(self.library.drive_count());
                (DeviceIdentity::default(), vec![DeviceIdentity::default(); count])
            }
        };
        let changer = line(DeviceName::changer(self.name.clone()), &identity);
        let drives = (0u16..)
            .zip(&drives)
            .map(|(index, identity)| line(DeviceName::drive(self.name.clone(), index), identity));
        std::iter::once(changer).chain(drives).collect()
    }

    fn view(&self) -> Option<LibraryView> {
        let look = self.library.glance()?;
        Some(LibraryView {
            role: LibraryRole::Physical,
            online: look.online,
            identity: look.identity,
            inventory: look.inventory,
            capacity: self.capacity,
            conditions: self.conditions(),
        })
    }

    fn open_drive(
        &self,
        index: u16,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure> {
        if index >= self.library.drive_count() {
            return Err(Failure::new(FailureKind::NoDevice, "no such drive"));
        }
        if let Some(why) = self.health.refuses(&DeviceName::drive(self.name.clone(), index)) {
            return Err(Failure::new(FailureKind::Io, why));
        }
        let drive = self.library.open_drive(index, opener.nexus, control);
        let drive = drive.map_err(|error| failure(&error))?;
        let (library, name, nexus) = (Arc::clone(&self.library), self.name.clone(), opener.nexus);
        Ok(Box::new(PhysicalDrive { name, index, drive, library, nexus }))
    }

    fn open_changer(
        &self,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        let changer = self.library.open_changer(opener.nexus, control);
        let changer = changer.map_err(|error| failure(&error))?;
        let home = ChangerHome { library: Arc::clone(&self.library), nexus: opener.nexus };
        Ok(Box::new(Forgetting::new(changer, home)))
    }
}

/// A drive that stands here, opened by one session.
struct PhysicalDrive {
    name: LibraryName,
    index: u16,
    drive: AnyDrive,
    library: Arc<dyn PhysicalLibrary>,
    nexus: u64,
}

impl Drop for PhysicalDrive {
    fn drop(&mut self) {
        self.library.forget(self.nexus);
    }
}

impl EngineDrive for PhysicalDrive {
    fn holder(&self) -> Holder {
        Holder::LocalDrive
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        &mut self.drive
    }

    /// Of what the library knows: a command would take a unit attention that a client must see.
    fn medium_name(&mut self) -> String {
        match self.library.medium(self.index) {
            Some((barcode, _)) => format!("{}/{barcode}", self.name),
            None => format!("{}/-", self.name),
        }
    }

    fn reset(&mut self, _control: &Control) -> Result<(), TapeError> {
        self.library.reset(DeviceRole::Drive(self.index))
    }
}

impl TapeDrive for PhysicalDrive {
    fn identity(&self) -> DeviceIdentity {
        self.drive.identity()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        self.drive.state(control)
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        self.drive.position(control)
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.drive.rewind(control)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.drive.locate(object, control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.drive.space(kind, count, control)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        self.drive.read(buffer, control)
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        self.drive.write(record, control)
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        self.drive.write_filemarks(count, control)
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.drive.load(control)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.drive.unload(control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        self.drive.execute(request, control)
    }
}
