//! A library in memory that can be switched off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use copy::Holder;
use model::{Barcode, DeviceName, ElementMap, LibraryName};
use ndmp::tape::Failure;
use svs::LibraryRole;
use tape::target::{
    ChangerHandle, DriveHandle, DriveSpec, FaultPlan, LibrarySpec, MemoryInventory, MemoryMedium,
    MemoryShelf, TargetLibrary,
};
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Inventory, MediumChanger,
    Position, ReadEnd, SpaceKind, Spaced, TapeDrive, TapeError, WriteEnd,
};

use crate::device::{Conditions, DeviceLine, EngineChanger, Library, LibraryView, Opener, failure};
use crate::mover::EngineDrive;

/// Bytes of a cartridge, and of its end behind early warning.
pub(super) const CAPACITY: u64 = 1000;
const WARNING: u64 = 200;

pub(super) struct Fake {
    name: LibraryName,
    serial: String,
    target: Arc<Mutex<TargetLibrary<MemoryMedium>>>,
    pub(super) shelf: MemoryShelf,
    on: Arc<AtomicBool>,
    drives: u16,
}

fn identity(serial: String) -> DeviceIdentity {
    DeviceIdentity { vendor: "TEST".into(), product: "FAKE".into(), revision: "1".into(), serial }
}

impl Fake {
    /// A library with this name and serial number, so many drives `SERIALn`, and three cartridges
    /// `PREFIX001L8` and so on.
    pub(super) fn new(serial: &str, drives: u16, prefix: &str) -> Arc<Self> {
        let shelf = MemoryShelf::new();
        let set = model::CartridgeSet { prefix: prefix.into(), count: 3 };
        let cartridges = set.barcodes().unwrap();
        cartridges.iter().for_each(|barcode| shelf.add(barcode, CAPACITY));
        let spec = |index| DriveSpec {
            index,
            identity: identity(format!("{serial}{index}")),
            early_warning: Some(WARNING),
            power_on_attention: false,
        };
        let spec = LibrarySpec {
            identity: identity(serial.into()),
            map: ElementMap::with_counts(drives, 6, 0),
            drives: (0..drives).map(spec).collect(),
            cartridges,
            power_on_attention: false,
        };
        let target =
            TargetLibrary::open(spec, Arc::new(shelf.clone()), Box::<MemoryInventory>::default());
        Arc::new(Self {
            name: LibraryName::new(&serial.to_lowercase()).unwrap(),
            serial: serial.into(),
            target: Arc::new(Mutex::new(target.unwrap())),
            shelf,
            on: Arc::new(AtomicBool::new(true)),
            drives,
        })
    }

    pub(super) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Release);
    }

    pub(super) fn faults(&self, rules: &str) {
        self.target.lock().unwrap().set_faults(&FaultPlan::parse(rules).unwrap());
    }

    /// How many records and filemarks a cartridge has.
    pub(super) fn objects(&self, barcode: &str) -> usize {
        self.shelf.tape(&Barcode::new(barcode).unwrap()).unwrap().objects.len()
    }

    /// What lies in the drives.
    pub(super) fn in_drives(&self) -> Vec<String> {
        let inventory = self.target.lock().unwrap().inventory();
        let drives = inventory.elements.into_iter().filter(|e| e.drive.is_some());
        drives.filter_map(|e| e.barcode).map(|barcode| barcode.to_string()).collect()
    }
}

impl Library for Fake {
    fn name(&self) -> &LibraryName {
        &self.name
    }

    fn devices(&self) -> Vec<DeviceLine> {
        let line = |name, serial| DeviceLine { name, model: "TEST FAKE".into(), serial };
        let mut lines = vec![line(DeviceName::changer(self.name.clone()), self.serial.clone())];
        lines.extend((0..self.drives).map(|index| {
            let name = DeviceName::drive(self.name.clone(), index);
            line(name, format!("{}{index}", self.serial))
        }));
        lines
    }

    fn view(&self) -> Option<LibraryView> {
        let target = self.target.lock().unwrap();
        Some(LibraryView {
            role: LibraryRole::Physical,
            online: self.on.load(Ordering::Acquire),
            identity: target.identity().clone(),
            inventory: target.inventory(),
            capacity: None,
            conditions: Conditions::default(),
        })
    }

    fn open_drive(
        &self,
        index: u16,
        opener: &Opener,
        _: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure> {
        self.is_on().map_err(|error| failure(&error))?;
        let handle = self.target.lock().unwrap().drive(index, opener.nexus).unwrap();
        Ok(Box::new(FakeDrive { handle, on: Arc::clone(&self.on) }))
    }

    fn open_changer(
        &self,
        opener: &Opener,
        _: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        self.is_on().map_err(|error| failure(&error))?;
        Ok(Box::new(FakeChanger(ChangerHandle::new(Arc::clone(&self.target), opener.nexus))))
    }
}

impl Fake {
    fn is_on(&self) -> Result<(), TapeError> {
        is_on(&self.on)
    }
}

fn is_on(on: &AtomicBool) -> Result<(), TapeError> {
    match on.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err(TapeError::Unreachable("switched off".into())),
    }
}

struct FakeChanger(ChangerHandle<MemoryMedium>);

impl EngineChanger for FakeChanger {
    fn reset(&mut self, _: &Control) -> Result<(), TapeError> {
        Ok(())
    }
}

impl MediumChanger for FakeChanger {
    fn identity(&self) -> DeviceIdentity {
        self.0.identity()
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        self.0.inventory(control)
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        self.0.initialize(control)
    }

    fn move_medium(&mut self, from: u16, to: u16, control: &Control) -> Result<(), TapeError> {
        self.0.move_medium(from, to, control)
    }

    fn execute(&mut self, it: &CdbRequest, control: &Control) -> Result<Completion, TapeError> {
        self.0.execute(it, control)
    }
}

struct FakeDrive {
    handle: DriveHandle<MemoryMedium>,
    on: Arc<AtomicBool>,
}

impl FakeDrive {
    fn on(&mut self) -> Result<&mut DriveHandle<MemoryMedium>, TapeError> {
        is_on(&self.on)?;
        Ok(&mut self.handle)
    }
}

impl EngineDrive for FakeDrive {
    fn holder(&self) -> Holder {
        Holder::LocalDrive
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        self
    }

    fn medium_name(&mut self) -> String {
        String::new()
    }

    fn reset(&mut self, _: &Control) -> Result<(), TapeError> {
        Ok(())
    }
}

impl TapeDrive for FakeDrive {
    fn identity(&self) -> DeviceIdentity {
        self.handle.identity()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        self.on()?.state(control)
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        self.on()?.position(control)
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.on()?.rewind(control)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.on()?.locate(object, control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.on()?.space(kind, count, control)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        self.on()?.read(buffer, control)
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        self.on()?.write(record, control)
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        self.on()?.write_filemarks(count, control)
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.on()?.load(control)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.on()?.unload(control)
    }

    fn execute(&mut self, it: &CdbRequest, control: &Control) -> Result<Completion, TapeError> {
        self.on()?.execute(it, control)
    }
}
