//! A physical library at this site, driven by this engine.

use std::sync::Arc;

use copy::Holder;
use model::{DeviceName, DeviceRole, LibraryName, SiteName};
use ndmp::tape::{Failure, FailureKind};
use scsi::Sense;
use service::config::PhysicalLibrary as Configured;
use service::health::HealthBook;
use service::unit::OpenUnit;
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
    Conditions, DeviceLine, DriveCondition, EngineChanger, Library, LibraryView, Opener,
    drive_state, failure,
};
use crate::mounting::drives;
use crate::mover::EngineDrive;

/// A library that stands here.
pub struct LocalPhysical {
    name: LibraryName,
    library: Arc<dyn PhysicalLibrary>,
    /// What drives it, for the catalogue.
    backend: &'static str,
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
        let (name, backend) = (config.name.clone(), config.backend.as_str());
        Ok(Self { name, library, backend, capacity, health })
    }

    /// The catalogue's rows of the library and its devices.
    pub fn row(&self, site: &SiteName) -> (svs::Library, Vec<svs::Device>) {
        let lines = self.devices();
        let mut devices: Vec<_> = lines.iter().map(DeviceLine::row).collect();
        let view = self.view();
        for (index, bay) in view.iter().flat_map(drives) {
            let Some(device) = devices.get_mut(usize::from(index) + 1) else { continue };
            let barcode = bay.full.then_some(bay.barcode.as_ref());
            device.state = drive_state(barcode, self.health.refuses(&device.name).as_deref());
        }
        let library = svs::Library {
            site: site.clone(),
            name: self.name.clone(),
            serial: lines.first().map(|line| line.serial.clone()).unwrap_or_default(),
            role: LibraryRole::Physical,
            backend: self.backend.to_owned(),
            state: match view.is_some_and(|view| view.online) {
                true => "ready".to_owned(),
                false => "offline".to_owned(),
            },
        };
        (library, devices)
    }

    /// Opens a device for the engine itself, as the initiator `nexus`, whoever else is refused it.
    pub fn open_unit(
        &self,
        role: DeviceRole,
        nexus: u64,
        control: &Control,
    ) -> Result<OpenUnit, TapeError> {
        OpenUnit::open(Arc::clone(&self.library), role, nexus, control)
    }

    /// Whether no cartridge is in a drive. Sends no command.
    pub fn is_empty(&self, index: u16) -> bool {
        self.library.medium(index).is_none()
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
        let name = DeviceName::drive(self.name.clone(), index);
        if let Some(why) = self.health.refuses(&name) {
            return Err(Failure::new(FailureKind::Io, why));
        }
        let drive = self.library.open_drive(index, opener.nexus, control);
        let drive = drive.map_err(|error| failure(&error))?;
        Ok(Box::new(PhysicalDrive {
            name,
            index,
            drive,
            library: Arc::clone(&self.library),
            nexus: opener.nexus,
            health: Arc::clone(&self.health),
            is_writing: false,
        }))
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
    name: DeviceName,
    index: u16,
    drive: AnyDrive,
    library: Arc<dyn PhysicalLibrary>,
    nexus: u64,
    health: Arc<HealthBook>,
    /// The last that was done is a write that did not fail: the cartridge may be written on.
    is_writing: bool,
}

impl Drop for PhysicalDrive {
    fn drop(&mut self) {
        // Now that nobody depends on its position or its unit attentions any more.
        self.health.ask(&self.name, &mut self.drive, &*self.library);
        self.library.forget(self.nexus);
    }
}

impl PhysicalDrive {
    /// To be called before a write: nothing is written on a cartridge that is frozen. Asked before
    /// the first of a run only.
    fn before_write(&mut self) -> Result<(), TapeError> {
        if !self.is_writing && self.health.forbids(&self.name, &*self.library) {
            return Err(TapeError::Check(Sense::WRITE_PROTECTED));
        }
        self.is_writing = true;
        Ok(())
    }

    /// The drive for anything that writes nothing.
    fn idle(&mut self) -> &mut AnyDrive {
        self.is_writing = false;
        &mut self.drive
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
            Some((barcode, _)) => format!("{}/{barcode}", self.name.library),
            None => format!("{}/-", self.name.library),
        }
    }

    fn reset(&mut self, _control: &Control) -> Result<(), TapeError> {
        self.is_writing = false;
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
        self.idle().rewind(control)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.idle().locate(object, control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.idle().space(kind, count, control)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        self.idle().read(buffer, control)
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        self.before_write()?;
        let end = self.drive.write(record, control);
        self.is_writing = end.is_ok();
        end
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        if count > 0 {
            self.before_write()?;
        }
        let end = self.drive.write_filemarks(count, control);
        self.is_writing = false;
        end
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.idle().load(control)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.idle().unload(control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        if !scsi::writes_medium(&request.cdb) {
            return self.idle().execute(request, control);
        }
        match self.before_write() {
            Ok(()) => {}
            Err(TapeError::Check(sense)) => return Ok(Completion::check(sense)),
            Err(error) => return Err(error),
        }
        let completion = self.drive.execute(request, control);
        self.is_writing = completion.as_ref().is_ok_and(|it| it.status == 0);
        completion
    }
}
