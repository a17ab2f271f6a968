//! A physical library as an engine holds it, whatever drives it.
//!
//! * [`PhysicalLibrary`] is the idea: devices by their place, opened for one initiator, and what
//!   the library looks like without asking a device that is in use.
//! * [`crate::file::FileLibrary`] is one: the embedded library.
//! * [`ScsiLibrary`] is one: a changer and drives behind [`Address`]es, drives matched to their
//!   elements by serial number, watched by a thread of its own.

mod address;
mod file;
mod find;
mod matching;
mod scsi;
mod watch;

use model::{Barcode, DeviceRole, ElementAddress};

use crate::driver::{ScsiChanger, ScsiDrive, ScsiTransport};
use crate::{Control, DeviceIdentity, DriveState, Inventory, TapeError};

pub use address::{Address, AddressError};
pub use find::{Found, FoundDrive, find};
pub use matching::{Matched, match_drives};
pub use scsi::{ScsiLibrary, ScsiLibrarySpec, Ways};

/// A drive behind any transport.
pub type AnyDrive = ScsiDrive<Box<dyn ScsiTransport>>;
/// A changer behind any transport.
pub type AnyChanger = ScsiChanger<Box<dyn ScsiTransport>>;

/// A drive of a library at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveLook {
    /// Its element.
    pub element: ElementAddress,
    /// Who it is.
    pub identity: DeviceIdentity,
    /// What lies in it, `None` where that is not known.
    pub state: Option<DriveState>,
}

/// A library at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryLook {
    /// The changer.
    pub identity: DeviceIdentity,
    /// Every element, as it was seen last.
    pub inventory: Inventory,
    /// The drives in the order of their elements.
    pub drives: Vec<DriveLook>,
    /// Whether it answers now.
    pub online: bool,
}

/// A library with a changer and drives. Drives are numbered in the order of their elements.
pub trait PhysicalLibrary: Send + Sync {
    /// How many drives there are, as far as is known.
    fn drive_count(&self) -> u16;

    /// Opens a drive as the initiator `nexus`, a number that is not used twice.
    ///
    /// # Errors
    /// There is no way to it now.
    fn open_drive(&self, index: u16, nexus: u64, control: &Control) -> Result<AnyDrive, TapeError>;

    /// Opens the changer as the initiator `nexus`.
    ///
    /// # Errors
    /// There is no way to it now.
    fn open_changer(&self, nexus: u64, control: &Control) -> Result<AnyChanger, TapeError>;

    /// An initiator is gone for good: its reservations and PREVENTs end. Devices that it opened
    /// are dropped before.
    fn forget(&self, nexus: u64);

    /// LOGICAL UNIT RESET of a device.
    ///
    /// # Errors
    /// It was not done.
    fn reset(&self, role: DeviceRole) -> Result<(), TapeError>;

    /// What it looked like last, without waiting; `None` before it was seen.
    fn glance(&self) -> Option<LibraryLook>;

    /// What it looks like, after every move that this process made. Waits a moment, where
    /// something changed.
    fn look(&self) -> Option<LibraryLook>;

    /// What somebody who holds a drive was told by it: capacity and tab of what lies in it, which
    /// only the drive knows. A library that is asked without a command knows by itself.
    fn learn(&self, _index: u16, _state: &DriveState) {}

    /// What lies in a drive, and whether the changer says so too. Sends no command.
    fn medium(&self, index: u16) -> Option<(Barcode, bool)>;
}
