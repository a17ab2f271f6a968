//! The thread that knows what a SCSI library looks like.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::ElementType;
use scsi::{Cdb, Sense};

use super::find::{Found, find};
use super::matching::match_drives;
use super::scsi::{Shared, Ways};
use super::{Address, AnyChanger, DriveLook, LibraryLook};
use crate::driver::{ScsiChanger, ScsiDrive};
use crate::{
    CdbRequest, Control, DeviceIdentity, DriveState, ElementStatus, MediumChanger, MediumState,
    TapeDrive, TapeError,
};

/// How often the changer is asked whether anything happened.
const TICK: Duration = Duration::from_secs(1);
/// How often is looked although nobody says that anything happened: not every changer does.
const ANEW: Duration = Duration::from_secs(30);
/// How long one question may take.
const ASK: Duration = Duration::from_secs(10);
/// How long an inventory may take; the arm may be at work.
const INVENTORY: Duration = Duration::from_secs(300);

/// Look now, and say when it is done.
#[derive(Debug)]
pub(super) struct Wake(pub(super) SyncSender<()>);

/// Starts the thread. It ends when the other end of the channel is gone.
pub(super) fn watch(shared: Arc<Shared>, woken: Receiver<Wake>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("library".to_owned());
    thread.spawn(move || {
        let mut watcher = Watcher::new(shared);
        loop {
            let wake = match woken.recv_timeout(TICK) {
                Ok(wake) => Some(wake),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            watcher.tick();
            if let Some(Wake(done)) = wake {
                // Whoever waited may have given up.
                let _ = done.try_send(());
            }
        }
    })?;
    Ok(())
}

struct Watcher {
    shared: Arc<Shared>,
    changer: Option<AnyChanger>,
    /// Who the drives behind the ways are, once they answered.
    drives: Vec<(Address, Option<DeviceIdentity>)>,
    looked: Option<Instant>,
}

impl Watcher {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, changer: None, drives: Vec::new(), looked: None }
    }

    fn tick(&mut self) {
        match self.try_tick() {
            Ok(()) => {}
            Err(error) => self.miss(&error),
        }
    }

    fn try_tick(&mut self) -> Result<(), TapeError> {
        if self.changer.is_none() {
            self.find()?;
            self.looked = None;
        }
        let stale = self.shared.is_stale.swap(false, Ordering::AcqRel);
        let old = self.looked.is_none_or(|looked| looked.elapsed() > ANEW);
        // Reading the elements tells unit attentions too, so there is no need to ask before.
        if stale || old || self.has_news()? {
            self.look()?;
        }
        Ok(())
    }

    /// The library is not there. Said once.
    fn miss(&mut self, error: &TapeError) {
        self.changer = None;
        self.shared.is_stale.store(true, Ordering::Release);
        let mut seen = self.shared.seen();
        if !seen.is_missed {
            tracing::warn!(library = self.shared.spec.name, %error, "the library does not answer");
        }
        seen.is_missed = true;
        if let Some(look) = &mut seen.look {
            look.online = false;
        }
    }

    /// Opens the changer, after finding out which one it is where that was left open.
    fn find(&mut self) -> Result<(), TapeError> {
        let known = self.shared.seen().changer.clone();
        let changer = match known {
            Some(changer) => changer,
            None => {
                let (changer, drives) = resolve(&self.shared)?;
                self.drives = drives.into_iter().map(|address| (address, None)).collect();
                self.shared.seen().changer = Some(changer.clone());
                changer
            }
        };
        let way = self.shared.way(&changer)?;
        self.changer = Some(ScsiChanger::open(way, &Control::within(ASK))?);
        Ok(())
    }

    /// Whether the changer has a unit attention.
    fn has_news(&mut self) -> Result<bool, TapeError> {
        let Some(changer) = &mut self.changer else { return Ok(false) };
        let request = CdbRequest {
            cdb: Cdb::TestUnitReady.encode(),
            data_out: Bytes::new(),
            data_in_max: 0,
            timeout: ASK,
        };
        let completion = changer.execute(&request, &Control::within(ASK))?;
        Ok(Sense::tell_unit_attention(&completion.sense))
    }

    fn look(&mut self) -> Result<(), TapeError> {
        let Some(changer) = &mut self.changer else { return Ok(()) };
        let inventory = changer.inventory(&Control::within(INVENTORY))?;
        let identity = changer.identity();
        let bays: Vec<_> = inventory
            .elements
            .iter()
            .filter(|element| element.kind == ElementType::DataTransfer)
            .cloned()
            .collect();
        self.identify();
        let identities: Vec<_> = self.drives.iter().map(|(_, identity)| identity.clone()).collect();
        let matched = match_drives(&bays, &identities);
        let ways: Vec<_> = matched
            .iter()
            .map(|matched| matched.way.and_then(|way| self.drives.get(way)).cloned())
            .collect();
        let shared = &self.shared;
        let looks = bays.iter().zip(&ways);
        let drives = looks.map(|(bay, way)| drive_look(shared, bay, way.as_ref()));
        let drives = drives.collect();
        self.looked = Some(Instant::now());
        let ways = ways.into_iter().map(|way| way.map(|(address, _)| address)).collect();
        self.keep(LibraryLook { identity, inventory, drives, online: true }, ways);
        Ok(())
    }

    /// Asks the drives who they are that have not said so yet.
    fn identify(&mut self) {
        for (address, identity) in self.drives.iter_mut().filter(|(_, it)| it.is_none()) {
            let opened = self.shared.way(address);
            let opened = opened.and_then(|way| ScsiDrive::open(way, &Control::within(ASK)));
            match opened {
                Ok(drive) => *identity = Some(drive.identity()),
                Err(error) => tracing::warn!(%address, %error, "a drive does not answer"),
            }
        }
    }

    fn keep(&self, look: LibraryLook, drives: Vec<Option<Address>>) {
        let name = &self.shared.spec.name;
        let mut seen = self.shared.seen();
        let is_new = seen.look.is_none() || seen.drives != drives;
        if is_new {
            for (drive, address) in look.drives.iter().zip(&drives) {
                let (element, serial) = (drive.element, &drive.identity.serial);
                match address {
                    Some(at) => tracing::info!(library = name, element, serial, %at, "drive"),
                    None => tracing::warn!(library = name, element, serial, "no way to a drive"),
                }
            }
        }
        if seen.is_missed {
            tracing::info!(library = name, "the library answers");
        }
        seen.is_missed = false;
        seen.drives = drives;
        seen.look = Some(look);
    }
}

/// What is known of a drive: of what lies in it, what the changer says, and what a drive said of it
/// to whoever held it.
fn drive_look(
    shared: &Shared,
    bay: &ElementStatus,
    way: Option<&(Address, Option<DeviceIdentity>)>,
) -> DriveLook {
    let own = way.and_then(|(_, identity)| identity.clone());
    let unknown = || MediumState {
        barcode: bay.barcode.clone(),
        write_protected: false,
        capacity: None,
        remaining: None,
    };
    let known = bay.barcode.as_ref().and_then(|barcode| shared.known(barcode));
    let medium = bay.full.then(|| known.unwrap_or_else(unknown));
    DriveLook {
        element: bay.address,
        identity: own.or_else(|| bay.drive.clone()).unwrap_or_default(),
        state: Some(DriveState { medium, block_length: 0 }),
    }
}

/// The changer and the drives of a library.
fn resolve(shared: &Shared) -> Result<(Address, Vec<Address>), TapeError> {
    let portal = match &shared.spec.ways {
        Ways::Named { changer, drives } => return Ok((changer.clone(), drives.clone())),
        Ways::Portal(portal) => Some(portal),
        Ways::Nodes => None,
    };
    let mut found = find(portal, &shared.spec.options)?;
    match found.len() {
        1 => {
            let Found { changer, drives, .. } = found.remove(0);
            Ok((changer, drives.into_iter().filter_map(|drive| drive.address).collect()))
        }
        0 => Err(TapeError::Unreachable("no changer was found".to_owned())),
        _ => {
            let all: Vec<_> = found.iter().map(|found| found.changer.to_string()).collect();
            let text = format!("several changers were found; name one of {}", all.join(", "));
            Err(TapeError::Unreachable(text))
        }
    }
}
