//! A library behind SCSI: a changer and drives wherever they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{Barcode, DeviceRole};

use super::watch::{Wake, watch};
use super::{Address, AnyChanger, AnyDrive, LibraryLook, PhysicalLibrary};
use crate::driver::{
    Data, IscsiOptions, Place, Portal, ReservationKey, ScsiChanger, ScsiCompletion, ScsiDrive,
    ScsiTransport, TransportError,
};
use crate::{Control, DriveState, KeyRing, MediumState, TapeError};

/// How long a look waits for the thread that looks.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which devices make a library.
#[derive(Clone, Debug)]
pub enum Ways {
    /// These; the drives in any order.
    Named {
        /// The changer.
        changer: Address,
        /// The drives.
        drives: Vec<Address>,
    },
    /// The changer behind a portal, and its drives.
    Portal(Portal),
    /// The changer among the nodes of this host, and its drives.
    Nodes,
}

/// A library to be opened.
#[derive(Clone, Debug)]
pub struct ScsiLibrarySpec {
    /// Its name, for the log.
    pub name: String,
    /// Its devices.
    pub ways: Ways,
    /// How we come to iSCSI targets.
    pub options: IscsiOptions,
    /// The keys of its tapes.
    pub keys: Arc<KeyRing>,
    /// Drives are reserved while they are used, by the key of our iSCSI name.
    pub is_reserved: bool,
}

/// What is known of the library.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The changer, once it is known which.
    pub(super) changer: Option<Address>,
    /// Behind each drive element, in their order.
    pub(super) drives: Vec<Option<Address>>,
    /// How it looked.
    pub(super) look: Option<LibraryLook>,
    /// An attempt to reach it has failed since it was seen.
    pub(super) is_missed: bool,
}

/// What the library, its open devices and its watching thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spec: ScsiLibrarySpec,
    /// Something may have moved since the last look.
    pub(super) is_stale: AtomicBool,
    seen: Mutex<Seen>,
    /// What drives told of cartridges, by volume tag.
    media: Mutex<BTreeMap<Barcode, MediumState>>,
    /// By their numbers, where drives without positions were left.
    places: Mutex<BTreeMap<u16, Place>>,
}

impl Shared {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a drive told of a cartridge that the changer sees.
    pub(super) fn known(&self, barcode: &Barcode) -> Option<MediumState> {
        let media = self.media.lock().unwrap_or_else(PoisonError::into_inner);
        media.get(barcode).cloned()
    }

    fn place(&self, index: u16) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(index).or_default().clone()
    }

    /// A cartridge may have been moved: a tape that comes into a drive stands at its beginning.
    fn forget_places(&self) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.values().for_each(Place::forget);
    }

    /// A way to a device that tells when it changes what the library looks like.
    pub(super) fn way(
        self: &Arc<Self>,
        address: &Address,
    ) -> Result<Box<dyn ScsiTransport>, TapeError> {
        let transport = address.transport(&self.spec.options);
        let transport = transport.map_err(|error| TapeError::Unreachable(error.to_string()))?;
        Ok(Box::new(Telling { transport, shared: Arc::clone(self) }))
    }
}

/// Marks the look of the library as stale after a command that moves something, and after every
/// unit attention.
struct Telling {
    transport: Box<dyn ScsiTransport>,
    shared: Arc<Shared>,
}

impl ScsiTransport for Telling {
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        let result = self.transport.execute(cdb, data, timeout);
        let attention = result.as_ref().is_ok_and(|it| scsi::Sense::tell_unit_attention(&it.sense));
        if moves(cdb) {
            self.shared.forget_places();
        }
        if attention || moves(cdb) {
            self.shared.is_stale.store(true, Ordering::Release);
        }
        result
    }

    fn longest(&self) -> usize {
        self.transport.longest()
    }

    fn reset(&mut self) -> Result<(), TransportError> {
        self.transport.reset()
    }
}

/// INITIALIZE ELEMENT STATUS (two forms), LOAD UNLOAD or OPEN/CLOSE IMPORT/EXPORT ELEMENT, MOVE
/// MEDIUM, EXCHANGE MEDIUM.
fn moves(cdb: &[u8]) -> bool {
    matches!(cdb.first(), Some(0x07 | 0x1b | 0x37 | 0xa5 | 0xa6 | 0xe7))
}

/// A [`PhysicalLibrary`] of SCSI devices. A thread of its own keeps what is known of it up to date:
/// after every move through it, after every unit attention of the changer, and from time to time.
#[derive(Clone, Debug)]
pub struct ScsiLibrary {
    shared: Arc<Shared>,
    /// Dropped by all, it ends the thread.
    wake: SyncSender<Wake>,
}

impl ScsiLibrary {
    /// Takes a library over. Its devices need not answer now.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn open(spec: ScsiLibrarySpec) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            spec,
            is_stale: AtomicBool::new(true),
            seen: Mutex::default(),
            media: Mutex::default(),
            places: Mutex::default(),
        });
        let (wake, woken) = sync_channel(64);
        watch(Arc::clone(&shared), woken)?;
        Ok(Self { shared, wake })
    }

    fn changer_address(&self) -> Result<Address, TapeError> {
        if self.shared.seen().changer.is_none() {
            self.look();
        }
        let unknown = || TapeError::Unreachable("no changer was found yet".to_owned());
        self.shared.seen().changer.clone().ok_or_else(unknown)
    }

    fn reservation(&self) -> Option<ReservationKey> {
        let spec = &self.shared.spec;
        spec.is_reserved.then(|| ReservationKey::of(&spec.options.initiator))
    }

    /// What lies in a drive, if nothing can have moved since that was seen.
    fn tape_now(&self, index: u16) -> Option<Barcode> {
        let (barcode, _) = self.medium(index)?;
        (!self.shared.is_stale.load(Ordering::Acquire)).then_some(barcode)
    }

    fn drive_address(&self, index: u16) -> Result<Address, TapeError> {
        if self.shared.seen().look.is_none() {
            self.look();
        }
        let seen = self.shared.seen();
        match seen.drives.get(usize::from(index)) {
            Some(Some(address)) => Ok(address.clone()),
            Some(None) => Err(TapeError::Unreachable(format!(
                "none of the configured devices is drive {index}: see the log for its serial number"
            ))),
            None => Err(TapeError::Unreachable("the library was not reached yet".to_owned())),
        }
    }
}

impl PhysicalLibrary for ScsiLibrary {
    fn drive_count(&self) -> u16 {
        let seen = self.shared.seen();
        let configured = match &self.shared.spec.ways {
            Ways::Named { drives, .. } => drives.len(),
            Ways::Portal(_) | Ways::Nodes => 0,
        };
        let known = if seen.look.is_some() { seen.drives.len() } else { configured };
        u16::try_from(known).unwrap_or(u16::MAX)
    }

    fn open_drive(&self, index: u16, _: u64, control: &Control) -> Result<AnyDrive, TapeError> {
        let address = self.drive_address(index)?;
        let drive = ScsiDrive::open(self.shared.way(&address)?, control)?;
        let (keys, library) = (Arc::clone(&self.shared.spec.keys), self.clone());
        let drive = drive.with_keys(keys, Box::new(move || library.tape_now(index)));
        let drive = match self.reservation() {
            Some(key) => drive.reserving(key),
            None => drive,
        };
        Ok(drive.resuming(self.shared.place(index)))
    }

    /// With ways to the drives, so that a drive is unloaded before a cartridge is taken from it.
    fn open_changer(&self, _: u64, control: &Control) -> Result<AnyChanger, TapeError> {
        let address = self.changer_address()?;
        let changer = ScsiChanger::open(self.shared.way(&address)?, control)?;
        let mut changer = changer.composing();
        if let Some(key) = self.reservation() {
            changer = changer.reserving(key);
        }
        let drives: Vec<_> = {
            let seen = self.shared.seen();
            let looks = seen.look.iter().flat_map(|look| &look.drives);
            looks.map(|drive| drive.element).zip(seen.drives.iter().cloned()).collect()
        };
        for (element, address) in drives {
            if let Some(address) = address {
                changer = changer.with_drive(element, self.shared.way(&address)?);
            }
        }
        Ok(changer)
    }

    /// Each opened device is an initiator of its own, whose connection ends with it; on a node of
    /// this host all are one, and there is nobody to forget.
    fn forget(&self, _: u64) {}

    fn reset(&self, role: DeviceRole) -> Result<(), TapeError> {
        let address = match role {
            DeviceRole::Changer => self.changer_address()?,
            DeviceRole::Drive(index) => self.drive_address(index)?,
        };
        let reset = self.shared.way(&address)?.reset();
        reset.map_err(|error| TapeError::Unreachable(error.to_string()))
    }

    fn glance(&self) -> Option<LibraryLook> {
        self.shared.seen().look.clone()
    }

    fn look(&self) -> Option<LibraryLook> {
        let is_missed = self.shared.seen().is_missed;
        if self.shared.is_stale.load(Ordering::Acquire) && !is_missed {
            let (done, wait) = sync_channel(1);
            if self.wake.try_send(Wake(done)).is_ok() {
                // A library that is slow is seen by the next look.
                let _ = wait.recv_timeout(PATIENCE);
            }
        }
        self.glance()
    }

    fn learn(&self, index: u16, state: &DriveState) {
        let Some(told) = &state.medium else { return };
        let mut seen = self.shared.seen();
        let Some(look) = &mut seen.look else { return };
        let Some(drive) = look.drives.get_mut(usize::from(index)) else { return };
        // The volume tag is the changer's word: not every drive knows it.
        let medium = drive.state.as_mut().and_then(|state| state.medium.as_mut());
        let Some((medium, barcode)) = medium.and_then(|it| it.barcode.clone().map(|tag| (it, tag)))
        else {
            return;
        };
        if told.barcode.as_ref().is_some_and(|tag| *tag != barcode) {
            return;
        }
        *medium = MediumState { barcode: Some(barcode.clone()), ..told.clone() };
        let mut media = self.shared.media.lock().unwrap_or_else(PoisonError::into_inner);
        media.insert(barcode, medium.clone());
        // Of what has left the library nothing is kept.
        let tags: BTreeSet<_> =
            look.inventory.elements.iter().filter_map(|element| element.barcode.clone()).collect();
        media.retain(|tag, _| tags.contains(tag));
    }

    fn medium(&self, index: u16) -> Option<(Barcode, bool)> {
        let look = self.look()?;
        let element = look.drives.get(usize::from(index))?.element;
        let found = look.inventory.elements.into_iter().find(|it| it.address == element)?;
        Some((found.barcode?, true))
    }
}
