//! A physical library at this site, driven by this engine.

use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use copy::Holder;
use model::{DeviceName, ElementType, LibraryName};
use ndmp::tape::{Failure, FailureKind};
use service::config::PhysicalLibrary as Configured;
use svs::LibraryRole;
use tape::driver::{LocalTransport, ScsiDrive};
use tape::file::{FileLibrary, FileLibraryError, FileLibrarySpec, FileMedium};
use tape::target::TargetLibrary;
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd, SpaceKind,
    Spaced, TapeDrive, TapeError, WriteEnd,
};
use vfs::Vfs;

use super::forgetting::{Forgetting, Home};
use super::virtuals::line;
use crate::device::{DeviceLine, EngineChanger, Library, LibraryView, Opener, failure};
use crate::mover::EngineDrive;

/// A library that stands here.
pub struct LocalPhysical {
    name: LibraryName,
    library: Arc<FileLibrary>,
    lines: Vec<DeviceLine>,
    /// Bytes on each cartridge.
    capacity: u64,
}

impl LocalPhysical {
    /// Opens the library that the configuration names.
    pub fn open(vfs: Arc<dyn Vfs>, config: &Configured) -> Result<Self, FileLibraryError> {
        let path: &Path = &config.path;
        let spec = FileLibrarySpec {
            name: config.name.to_string(),
            drives: config.drives,
            slots: config.slots,
            import_export: config.import_export,
            capacity: config.capacity.0,
            early_warning: Some(config.early_warning_bytes()),
            barcodes: config.barcodes(),
        };
        let library = Arc::new(FileLibrary::open(vfs, path, &spec)?);
        let lines = lines(&config.name, &library);
        Ok(Self { name: config.name.clone(), library, lines, capacity: config.capacity.0 })
    }
}

/// The target behind the transports, for what needs no command.
fn target(library: &FileLibrary) -> MutexGuard<'_, TargetLibrary<FileMedium>> {
    library.library().lock().unwrap_or_else(PoisonError::into_inner)
}

/// The changer's library, as one initiator uses it.
struct ChangerHome {
    library: Arc<FileLibrary>,
    nexus: u64,
}

impl Home for ChangerHome {
    fn forget(&self) {
        self.library.forget_nexus(self.nexus);
    }

    fn reset(&self) {
        target(&self.library).reset();
    }
}

fn lines(name: &LibraryName, library: &FileLibrary) -> Vec<DeviceLine> {
    let target = target(library);
    let mut lines = vec![line(DeviceName::changer(name.clone()), target.identity())];
    let inventory = target.inventory();
    let drives = inventory.elements.iter().filter(|e| e.kind == ElementType::DataTransfer);
    for (index, element) in (0u16..).zip(drives) {
        let identity = element.drive.clone().unwrap_or_default();
        lines.push(line(DeviceName::drive(name.clone(), index), &identity));
    }
    lines
}

impl Library for LocalPhysical {
    fn name(&self) -> &LibraryName {
        &self.name
    }

    fn devices(&self) -> Vec<DeviceLine> {
        self.lines.clone()
    }

    fn view(&self) -> Option<LibraryView> {
        let target = target(&self.library);
        Some(LibraryView {
            role: LibraryRole::Physical,
            online: true,
            identity: target.identity().clone(),
            inventory: target.inventory(),
            capacity: Some(self.capacity),
        })
    }

    fn open_drive(
        &self,
        index: u16,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure> {
        let transport = self.library.drive_transport(index, opener.nexus);
        let transport =
            transport.ok_or_else(|| Failure::new(FailureKind::NoDevice, "no such drive"))?;
        let drive = ScsiDrive::open(transport, control).map_err(|error| failure(&error))?;
        let (library, name, nexus) = (Arc::clone(&self.library), self.name.clone(), opener.nexus);
        Ok(Box::new(PhysicalDrive { name, index, drive, library, nexus }))
    }

    fn open_changer(
        &self,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        let changer = self.library.changer(opener.nexus, control);
        let changer = changer.map_err(|error| failure(&error))?;
        let home = ChangerHome { library: Arc::clone(&self.library), nexus: opener.nexus };
        Ok(Box::new(Forgetting::new(changer, home)))
    }
}

/// A drive that stands here, opened by one session.
struct PhysicalDrive {
    name: LibraryName,
    index: u16,
    drive: ScsiDrive<LocalTransport>,
    library: Arc<FileLibrary>,
    nexus: u64,
}

impl Drop for PhysicalDrive {
    fn drop(&mut self) {
        self.library.forget_nexus(self.nexus);
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
        let target = target(&self.library);
        let drive = target.drives().nth(usize::from(self.index));
        let drive = drive.map(|drive| drive.lock().unwrap_or_else(PoisonError::into_inner));
        match drive.as_ref().and_then(|drive| drive.cartridge()) {
            Some(barcode) => format!("{}/{barcode}", self.name),
            None => format!("{}/-", self.name),
        }
    }

    fn reset(&mut self, _control: &Control) -> Result<(), TapeError> {
        let target = target(&self.library);
        if let Some(drive) = target.drives().nth(usize::from(self.index)) {
            drive.lock().unwrap_or_else(PoisonError::into_inner).reset();
        }
        Ok(())
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
