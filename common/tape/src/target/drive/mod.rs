//! A tape drive: one state object with two faces, [`crate::TapeDrive`] calls (through
//! [`DriveHandle`]) and CDBs ([`TargetDrive::execute_cdb`]).

mod cdb;
mod crypt;
mod data;
mod handle;
mod motion;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Barcode, DeviceRole};
use scsi::Sense;

use super::fault::Faults;
use super::nexus::{Access, Nexuses};
use super::{FaultPlan, Medium, MediumError, Shelf};
use crate::{Control, DeviceIdentity, DriveState, MediumState, TapeError};

pub use handle::{DriveHandle, WriteRun};

/// How often a drive is asked before a cleaning cartridge is done.
const CLEANING_LOOKS: u8 = 3;

/// TapeAlert flags that cleaning answers: now, and periodic.
const CLEANING_ALERTS: [u16; 2] = [20, 21];

/// Cleaning cartridges are known by their volume tag, as in real libraries.
fn is_cleaner(barcode: &Barcode) -> bool {
    barcode.as_str().starts_with("CLN")
}

/// What a drive is made from.
#[derive(Clone, Debug)]
pub struct DriveSpec {
    /// Its index in the library; the name by which a [`FaultPlan`] means it.
    pub index: u16,
    /// Who it says it is. The serial number has at most 32 characters; hosts compare the last
    /// ten with what the library reports.
    pub identity: DeviceIdentity,
    /// Bytes between early warning and the physical end, `None` for
    /// [`default_early_warning`]. Never more than half of a cartridge.
    pub early_warning: Option<u64>,
    /// Whether every initiator finds 06/29/00 first, as after a power-on.
    pub power_on_attention: bool,
}

/// The early warning zone of a cartridge of `capacity` bytes where nothing else is said: a 64th
/// of it, at least 1 MiB and at most 64 MiB, but never more than a quarter.
pub fn default_early_warning(capacity: u64) -> u64 {
    (capacity / 64).clamp(1 << 20, 64 << 20).min(capacity / 4)
}

/// What MODE SELECT can change.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Bytes, 0 for variable blocks.
    block_length: u32,
    /// Buffered mode 1; with 0 every write is flushed before it is answered.
    buffered: bool,
    /// What the data compression page says; the medium does as it likes.
    compression: bool,
    /// WRITE MODE 01h: nothing that was written is written over.
    append_only: bool,
}

impl Settings {
    const DEFAULT: Self =
        Self { block_length: 0, buffered: true, compression: true, append_only: false };
}

/// What ALLOW OVERWRITE has allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overwrite {
    No,
    /// A write at this object.
    At(u64),
    /// FORMAT MEDIUM.
    Format,
}

/// Counters for the log pages, since power-on.
#[derive(Clone, Debug, Default)]
struct Counters {
    bytes_written: u64,
    bytes_read: u64,
    write_errors: u64,
    read_errors: u64,
    loads: u64,
    /// TapeAlert flags, cleared by reading.
    alerts: Vec<u16>,
}

/// A drive over cartridges of the kind `M`.
///
/// The drive's element may hold a cartridge ([`TargetDrive::insert`]), and the cartridge may be
/// threaded or not. Threaded, the medium stands somewhere; every initiator and the engine itself
/// see the same position.
pub struct TargetDrive<M> {
    spec: DriveSpec,
    shelf: Arc<dyn Shelf<M>>,
    /// What lies in the element.
    cartridge: Option<Barcode>,
    medium: Option<M>,
    /// Why the cartridge could not be threaded, told instead of 02/3A/00.
    load_error: Option<Sense>,
    /// The medium is calibrated: so often the drive is asked before that is done, and of how often.
    calibrating: (u16, u16),
    /// A cleaning cartridge is at work: so often the drive is asked before it is done.
    cleaning: u8,
    /// Whether `medium` is there, for the library, without the drive's lock.
    threaded: Arc<AtomicBool>,
    nexuses: Nexuses,
    /// Whose command is done now.
    nexus: u64,
    crypt: crypt::Crypt,
    /// Where ALLOW OVERWRITE lets the next write begin.
    overwrite: Overwrite,
    settings: Settings,
    counters: Counters,
    /// Objects and bytes written since the last flush.
    buffered: (u64, u64),
    faults: Faults,
}

impl<M: Medium> TargetDrive<M> {
    /// An empty drive that takes cartridges from `shelf`.
    pub fn new(spec: DriveSpec, shelf: Arc<dyn Shelf<M>>) -> Self {
        Self {
            nexuses: Nexuses::new(spec.power_on_attention),
            spec,
            shelf,
            cartridge: None,
            medium: None,
            load_error: None,
            calibrating: (0, 0),
            cleaning: 0,
            threaded: Arc::new(AtomicBool::new(false)),
            nexus: 0,
            crypt: crypt::Crypt::default(),
            overwrite: Overwrite::No,
            settings: Settings::DEFAULT,
            counters: Counters::default(),
            buffered: (0, 0),
            faults: Faults::default(),
        }
    }

    /// Who the drive is.
    pub fn identity(&self) -> &DeviceIdentity {
        &self.spec.identity
    }

    /// The cartridge in the drive's element, threaded or not.
    pub fn cartridge(&self) -> Option<&Barcode> {
        self.cartridge.as_ref()
    }

    /// What is loaded, without a command: no unit attention, no reservation, no fault.
    pub fn glance(&mut self) -> DriveState {
        let told = self.medium.as_mut().and_then(Medium::told);
        let mut state = self.reckon();
        if let (Some(medium), Some(told)) = (&mut state.medium, told) {
            (medium.capacity, medium.remaining) = (told.capacity, told.remaining);
        }
        state
    }

    /// What is loaded, by the capacity of the medium.
    fn reckon(&self) -> DriveState {
        let medium = self.medium.as_ref().map(|medium| MediumState {
            barcode: Some(medium.barcode()),
            write_protected: medium.write_protected(),
            capacity: Some(self.warning_at()),
            remaining: Some(self.warning_at().saturating_sub(medium.used())),
        });
        DriveState { medium, block_length: self.settings.block_length }
    }

    /// The threaded medium. Who needs more of it than [`crate::TapeDrive`] gives (where its data
    /// lies, a generation to pin) finds it here.
    pub fn medium(&self) -> Option<&M> {
        self.medium.as_ref()
    }

    /// The threaded medium, to change. Moving it moves the tape for everybody.
    pub fn medium_mut(&mut self) -> Option<&mut M> {
        self.medium.as_mut()
    }

    /// Whether a medium is threaded; may be looked at without the drive's lock.
    pub fn threaded_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.threaded)
    }

    /// Sets the faults to inject and counts operations anew.
    pub fn set_faults(&mut self, plan: &FaultPlan) {
        self.faults = Faults::new(plan, DeviceRole::Drive(self.spec.index));
    }

    /// An initiator is gone for good: its reservations, unit attentions and its PREVENT end.
    pub fn forget_nexus(&mut self, nexus: u64) {
        self.crypt.forget(nexus);
        if self.nexuses.forget(nexus)
            && let Some(medium) = &mut self.medium
        {
            medium.rest();
        }
    }

    /// NDMP's and SAM's reset of the drive: RESERVE, PREVENT and modes are as after power-on and
    /// every initiator finds 06/29/00; encryption keys are gone. The tape stays where it is, and
    /// what is buffered stays buffered.
    pub fn reset(&mut self) {
        self.nexuses.reset();
        self.crypt.reset();
        self.settings = Settings::DEFAULT;
        self.overwrite = Overwrite::No;
    }

    /// Whether an initiator prevents removal.
    pub fn removal_prevented(&self) -> bool {
        self.nexuses.removal_prevented()
    }

    /// The library puts a cartridge into the element; the drive threads it by itself and raises
    /// 06/28/00 for every initiator. A cartridge that can not be threaded stays in the element,
    /// and the drive answers the cause as not ready.
    ///
    /// # Errors
    /// 05/3B/0D: the element is full.
    pub fn insert(&mut self, barcode: &Barcode) -> Result<(), Sense> {
        if self.cartridge.is_some() {
            return Err(Sense::DESTINATION_ELEMENT_FULL);
        }
        self.cartridge = Some(barcode.clone());
        if is_cleaner(barcode) {
            self.load_error = Some(Sense::CLEANING_CARTRIDGE_INSTALLED);
            self.cleaning = CLEANING_LOOKS;
            self.nexuses.raise(Sense::MEDIUM_MAY_HAVE_CHANGED, None);
            return Ok(());
        }
        if let Err(error) = self.thread() {
            tracing::warn!(%barcode, %error, "a cartridge could not be threaded");
        }
        self.nexuses.raise(Sense::MEDIUM_MAY_HAVE_CHANGED, None);
        Ok(())
    }

    /// The library takes the cartridge out of the element; a threaded one is flushed, rewound and
    /// unthreaded first.
    ///
    /// # Errors
    /// 05/3B/0E: there is none. 05/53/02: an initiator prevents removal. The medium's sense data:
    /// it could not be flushed and stays threaded.
    pub fn eject(&mut self) -> Result<Barcode, Sense> {
        if self.cartridge.is_none() {
            return Err(Sense::SOURCE_ELEMENT_EMPTY);
        }
        if self.nexuses.removal_prevented() {
            return Err(Sense::MEDIUM_REMOVAL_PREVENTED);
        }
        // It is not let go of meanwhile.
        if self.calibrating.0 > 0 {
            return Err(Sense::DRIVE_NOT_UNLOADED);
        }
        self.unthread()?;
        self.load_error = None;
        self.cartridge.take().ok_or(Sense::SOURCE_ELEMENT_EMPTY)
    }

    /// Opens the cartridge in the element.
    fn thread(&mut self) -> Result<(), MediumError> {
        let Some(barcode) = self.cartridge.clone() else { return Ok(()) };
        match self.shelf.open_in(&barcode, self.spec.index) {
            Ok(medium) => {
                self.medium = Some(medium);
                self.load_error = None;
                self.counters.loads += 1;
                self.buffered = (0, 0);
                let looks = self.faults.calibration();
                self.calibrating = (looks, looks);
                self.threaded.store(true, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                self.load_error = Some(error.load_sense());
                Err(error)
            }
        }
    }

    /// Closes the medium; after an error it stays threaded.
    fn unthread(&mut self) -> Result<(), Sense> {
        if let Some(medium) = &mut self.medium {
            medium.close().map_err(|error| self.write_failed(&error))?;
        }
        self.medium = None;
        self.crypt.demounted();
        self.overwrite = Overwrite::No;
        self.buffered = (0, 0);
        self.threaded.store(false, Ordering::Release);
        Ok(())
    }

    /// Not ready: why there is no medium to work on.
    fn not_ready(&self) -> Sense {
        self.load_error.unwrap_or(Sense::MEDIUM_NOT_PRESENT)
    }

    /// What REQUEST SENSE answers where nothing else is to be told.
    fn idle_sense(&self) -> Sense {
        match (self.calibrating, &self.medium) {
            ((left @ 1.., all), _) => calibrating(left, all),
            (_, Some(_)) => Sense::NO_SENSE,
            (_, None) => self.not_ready(),
        }
    }

    fn ready(&mut self) -> Result<&mut M, TapeError> {
        if self.cleaning > 0 {
            self.cleaning -= 1;
            if self.cleaning == 0 {
                self.load_error = None;
                self.counters.alerts.retain(|flag| !CLEANING_ALERTS.contains(flag));
            }
        }
        if let (left @ 1.., all) = self.calibrating {
            self.calibrating.0 = left - 1;
            return Err(TapeError::Check(calibrating(left, all)));
        }
        let not_ready = self.not_ready();
        self.medium.as_mut().ok_or(TapeError::Check(not_ready))
    }

    /// The medium, if it may be written on.
    fn writable(&mut self) -> Result<&mut M, TapeError> {
        let medium = self.ready()?;
        if medium.write_protected() {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        Ok(medium)
    }

    fn enter(&mut self, nexus: u64, access: Access, control: &Control) -> Result<(), TapeError> {
        control.check()?;
        self.nexus = nexus;
        self.nexuses.enter(nexus, access)
    }

    /// Notes a failed read for log pages and TapeAlert (flag 5).
    fn read_failed(&mut self, error: &MediumError) -> Sense {
        tracing::warn!(cartridge = ?self.cartridge, %error, "a read from a tape failed");
        self.counters.read_errors += 1;
        self.alert(5);
        error.read_sense()
    }

    /// Notes a failed write for log pages and TapeAlert (flag 6).
    fn write_failed(&mut self, error: &MediumError) -> Sense {
        tracing::warn!(cartridge = ?self.cartridge, %error, "a write to a tape failed");
        self.counters.write_errors += 1;
        self.alert(6);
        error.write_sense()
    }

    fn alert(&mut self, flag: u16) {
        if !self.counters.alerts.contains(&flag) {
            self.counters.alerts.push(flag);
        }
    }

    /// Where early warning begins, in bytes from BOT.
    fn warning_at(&self) -> u64 {
        let Some(medium) = &self.medium else { return 0 };
        let capacity = medium.capacity();
        if medium.warned().is_some() {
            return capacity;
        }
        let zone = self.spec.early_warning.unwrap_or_else(|| default_early_warning(capacity));
        capacity - zone.min(capacity / 2)
    }

    fn past_early_warning(&self) -> bool {
        self.medium.as_ref().is_some_and(|medium| {
            medium.warned().unwrap_or_else(|| medium.used() >= self.warning_at())
        })
    }
}

/// Becoming ready, with so many looks left of all.
fn calibrating(left: u16, all: u16) -> Sense {
    let done = u32::from(all - left.min(all)) << 16;
    let part = u16::try_from(done / u32::from(all.max(1))).unwrap_or(u16::MAX);
    Sense::BECOMING_READY.with_progress(part)
}
