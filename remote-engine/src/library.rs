//! The physical libraries of this site and the ways to their devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use link::{DriveReport, LibraryReport, Refusal, RefusalWhy, Verify};
use model::{Barcode, DeviceName, DeviceRole, LibraryName, SiteName};
use service::cli::Failure;
use service::config::{self, RemoteConfig};
use service::unit::{OpenUnit, Unit};
use tape::physical::{DriveLook, LibraryLook, PhysicalLibrary};
use tape::{CdbRequest, Control, DriveState, MediumChanger, TapeDrive, TapeError};
use vfs::Vfs;

/// One library as it is configured, open.
struct Open {
    config: config::PhysicalLibrary,
    library: Arc<dyn PhysicalLibrary>,
}

/// The libraries, by their name at this site.
pub struct Libraries {
    open: BTreeMap<LibraryName, Open>,
    /// Each opening of a device is an initiator of its own; numbers are not used twice.
    nexus: AtomicU64,
    /// Devices that were opened since this start.
    met: Mutex<BTreeSet<DeviceName>>,
}

fn refusal(why: RefusalWhy, text: impl Into<String>) -> Refusal {
    Refusal { why, text: text.into() }
}

/// Whether a site may use a library.
pub fn belongs_to(config: &RemoteConfig, library: &LibraryName, site: &SiteName) -> bool {
    let peer = config.peers.iter().find(|peer| peer.name == *site);
    peer.is_some_and(|peer| peer.libraries.contains(library))
}

impl Libraries {
    /// Opens every configured library.
    ///
    /// # Errors
    /// The first one that can not be opened.
    pub fn open(vfs: &Arc<dyn Vfs>, config: &RemoteConfig) -> Result<Self, Failure> {
        let mut open = BTreeMap::new();
        for config_of in &config.physical_libraries {
            let library = service::physical::open(vfs, config_of, &config.site.name)?;
            let name = config_of.name.clone();
            open.insert(name, Open { config: config_of.clone(), library });
        }
        Ok(Self { open, nexus: AtomicU64::new(1), met: Mutex::default() })
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &LibraryName> {
        self.open.keys()
    }

    /// What drives a library, for the catalogue.
    pub fn backend(&self, name: &LibraryName) -> &'static str {
        self.open.get(name).map_or("", |open| open.config.backend.as_str())
    }

    /// How copies onto its tapes are proven where nobody asks for another way.
    pub fn verify(&self, name: &LibraryName) -> Verify {
        match self.open.get(name).map(|open| open.config.verify) {
            Some(config::Verify::None) => Verify::None,
            Some(config::Verify::Readback) => Verify::Readback,
            Some(config::Verify::Position) | None => Verify::Position,
        }
    }

    /// Opens a device as a new initiator. A drive that nobody opened since this start tells its
    /// first user 06/29/00. Whoever comes later was not there when it was reset, nor was anybody
    /// at a changer, which keeps no position: the device is asked once, and what it has to say
    /// about its power-on is taken. A session that lives over a restart of this engine is told by
    /// its own engine.
    ///
    /// # Errors
    /// There is no such device, or it does not answer.
    pub fn open_device(&self, name: &DeviceName, control: &Control) -> Result<OpenUnit, Refusal> {
        let none = || refusal(RefusalWhy::NoSuchDevice, format!("there is no device {name}"));
        let library = Arc::clone(&self.open.get(&name.library).ok_or_else(none)?.library);
        let nexus = self.nexus.fetch_add(1, Ordering::Relaxed);
        if matches!(name.role, DeviceRole::Drive(index) if index >= library.drive_count()) {
            return Err(none());
        }
        let silent = |error: TapeError| refusal(RefusalWhy::Device, format!("{name}: {error}"));
        let mut opened = OpenUnit::open(library, name.role, nexus, control).map_err(silent)?;
        let new = self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        if !new || name.role == DeviceRole::Changer {
            let ready = CdbRequest {
                cdb: scsi::Cdb::TestUnitReady.encode(),
                data_out: Bytes::new(),
                data_in_max: 0,
                timeout: control.remaining(),
            };
            let asked = match &mut opened.unit {
                Unit::Changer(changer) => changer.execute(&ready, control),
                Unit::Drive(drive) => drive.execute(&ready, control),
            };
            asked.map_err(silent)?;
        }
        Ok(opened)
    }

    /// What a drive told of its tape to whoever holds it.
    pub fn learn(&self, name: &DeviceName, state: &DriveState) {
        if let (DeviceRole::Drive(index), Some(open)) = (name.role, self.open.get(&name.library)) {
            open.library.learn(index, state);
        }
    }

    /// What lies in a drive, and whether the library says so too. No command is sent to the drive.
    pub fn medium(&self, name: &DeviceName) -> Option<(Barcode, bool)> {
        let DeviceRole::Drive(index) = name.role else { return None };
        self.open.get(&name.library)?.library.medium(index)
    }

    /// What a library looks like now; who holds its drives and how they are is not told. Nothing is
    /// asked of a device that is in use: no unit attention is taken, no fault met.
    pub fn report(&self, name: &LibraryName) -> Option<LibraryReport> {
        let open = self.open.get(name)?;
        let LibraryLook { identity, inventory, drives, online } = open.library.look()?;
        let drive = |DriveLook { element, identity, state }| {
            let (in_use, down, readying) = Default::default();
            DriveReport { element, identity, state, in_use, down, readying }
        };
        let drives = drives.into_iter().map(drive);
        Some(LibraryReport {
            name: name.clone(),
            identity,
            drives: drives.collect(),
            inventory,
            capacity: open.config.file().map(|file| file.capacity.0),
            online,
            frozen: Vec::new(),
        })
    }
}
