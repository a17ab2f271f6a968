//! A drive for a tape, and the tape in it: for whoever in this engine needs one without being a
//! session.

pub mod admin;
mod doors;
mod queue;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub use copy::mounts::TapeAt;
use model::{DeviceName, DeviceRole, ElementAddress, ElementType};
use ndmp::tape::FailureKind;
use scsi::Sense;
use svs::{DeviceRef, LibraryRole, MediumRef, OutsidePlace};
use tape::{CancelToken, CdbRequest, Control, ElementStatus, TapeError};

use crate::device::{Claim, Device, Library, LibraryView, Opener, Registry};
use crate::mover::EngineDrive;

pub use doors::{Door, Moved, follow};
pub use queue::{Asker, Heard, InLine, Mounts};

/// How long one movement may take.
const MOVE: Duration = Duration::from_secs(900);
/// How long is waited for a change before it is looked without one: a drive of another site may be
/// let go by somebody of whom nothing is heard here.
pub const LOOK: Duration = Duration::from_millis(500);
/// How long a drive may make a tape ready: the calibration of LTO-9 with some room.
const READY: Duration = Duration::from_secs(8100);
/// Unit attentions that are met one after the other before a command.
const ATTENTIONS: usize = 8;

/// A tape where it was found.
pub struct Found {
    /// Its library.
    pub view: LibraryView,
    /// Where it lies.
    pub element: ElementStatus,
}

/// Looks for a tape; `None` if no library of that name is known to hold it.
pub fn find(registry: &Registry, tape: &TapeAt) -> Option<Found> {
    let mut all = registry.libraries().into_iter();
    let view = all.find(|library| *library.name() == tape.library)?.view()?;
    let there =
        |element: &&ElementStatus| element.full && element.barcode.as_ref() == Some(&tape.barcode);
    let element = view.inventory.elements.iter().find(there).cloned()?;
    Some(Found { view, element })
}

/// Why a tape can not be mounted at all, for people.
pub fn why_not(registry: &Registry, tape: &TapeAt) -> String {
    let view = registry.libraries().into_iter().find(|library| *library.name() == tape.library);
    let Some(view) = view.and_then(|library| library.view()) else {
        return format!("there is no tape {tape}");
    };
    let medium =
        MediumRef::Tape { library: view.identity.serial.clone(), volser: tape.barcode.clone() };
    let outside = registry.mounts().catalogue();
    let outside = outside.and_then(|catalogue| catalogue.find_outside(&medium).ok().flatten());
    let found = find(registry, tape).map(|found| found.element.kind);
    match (found, outside) {
        (Some(ElementType::ImportExport), _) => {
            format!("{tape} lies in the import/export station of {}; import it first", tape.library)
        }
        (None, Some(it)) if it.place == OutsidePlace::OffSite => {
            format!("{tape} is off site since {}; bring it back and import it", it.since)
        }
        (None, Some(it)) => format!("{tape} was exported at {}; import it first", it.since),
        (None, None) => format!("there is no tape {tape}"),
        (Some(_), _) => format!("{tape} can not be taken where it is"),
    }
}

/// The library with this serial number that has drives of its own, not those of others.
pub fn backend(registry: &Registry, serial: &str) -> Option<(Arc<dyn Library>, LibraryView)> {
    registry.libraries().into_iter().find_map(|library| {
        let view = library.view()?;
        let is_it = view.identity.serial == serial && view.role != LibraryRole::Frontend;
        is_it.then_some((library, view))
    })
}

/// The number of a drive of a library, by its serial number.
pub fn drive_by_serial(library: &dyn Library, serial: &str) -> Option<u16> {
    library.devices().iter().find_map(|line| match line.name.role {
        DeviceRole::Drive(index) if line.serial == serial => Some(index),
        _ => None,
    })
}

/// How the maps name a drive of a library.
pub fn drive_ref(library: &dyn Library, serial: &str, index: u16) -> Option<DeviceRef> {
    let lines = library.devices();
    let line = lines.iter().find(|line| line.name.role == DeviceRole::Drive(index))?;
    Some(DeviceRef::Drive { library: serial.to_owned(), drive: line.serial.clone() })
}

/// The drives of a library in order.
pub fn drives(view: &LibraryView) -> impl Iterator<Item = (u16, &ElementStatus)> + Clone {
    let elements = view.inventory.elements.iter();
    (0u16..).zip(elements.filter(|element| element.kind == ElementType::DataTransfer))
}

/// The number of the drive that an element is.
pub fn drive_of(view: &LibraryView, element: &ElementStatus) -> Option<u16> {
    drives(view).find(|(_, drive)| drive.address == element.address).map(|(index, _)| index)
}

/// What a drive of the tape's library is called.
pub fn drive_name(tape: &TapeAt, index: u16) -> DeviceName {
    DeviceName::drive(tape.library.clone(), index)
}

/// Why a tape is not brought into a drive, or not used any more.
#[derive(Debug)]
pub enum Halt {
    /// Somebody wished it.
    Cancelled,
    /// It failed; for the operator.
    Failed(String),
    /// It failed, and would again: what is to be written does not go on this target.
    Unfit(String),
}

impl From<TapeError> for Halt {
    fn from(error: TapeError) -> Self {
        match error {
            TapeError::Cancelled => Self::Cancelled,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// What came of an attempt to bring a tape into a drive.
pub enum Tried {
    /// It is there and ready.
    Mounted(Mounted),
    /// Tape, drives or changer are in use. It may work later.
    Busy,
    /// The library can not be reached. It may work later.
    Offline,
}

/// Who wants which tape, and where.
pub struct Wish<'a> {
    /// The tape.
    pub tape: &'a TapeAt,
    /// Who.
    pub opener: &'a Opener,
    /// Ends it.
    pub cancel: &'a CancelToken,
    /// The drive that is his; none to use the one in which the tape lies.
    pub drive: Option<u16>,
    /// Where a tape goes afterwards that was left in the drive for this.
    pub home: Option<ElementAddress>,
    /// A tape that lies in a drive already was left there: it goes to its slot afterwards.
    pub left_over: bool,
    /// Hears what is waited for in a drive that makes the tape ready.
    pub tell: &'a dyn Fn(&str),
}

/// A tape in a drive that is ours.
pub struct Mounted {
    /// The drive.
    pub drive: Box<dyn EngineDrive>,
    claim: Claim,
    tape: TapeAt,
    index: u16,
    element: ElementAddress,
    /// Where it came from; `None` if it was in the drive already.
    home: Option<ElementAddress>,
    /// The drive makes it ready still.
    is_readying: bool,
}

/// Does something again while a unit attention comes in its way.
pub fn past_attentions<T>(mut work: impl FnMut() -> Result<T, TapeError>) -> Result<T, TapeError> {
    for _ in 0..ATTENTIONS {
        match work() {
            Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
            other => return other,
        }
    }
    work()
}

/// What a drive says to TEST UNIT READY if it is not ready. The driver would wait by itself, and
/// tell nobody how far it is.
fn asked(drive: &mut dyn EngineDrive, control: &Control) -> Result<Option<Sense>, TapeError> {
    let ask = |cdb: scsi::Cdb, data_in_max| CdbRequest {
        cdb: cdb.encode(),
        data_out: bytes::Bytes::new(),
        data_in_max,
        timeout: MOVE,
    };
    let ready = drive.execute(&ask(scsi::Cdb::TestUnitReady, 0), control)?;
    let Some(sense) = Sense::parse(&ready.sense).filter(|_| ready.status == 0x02) else {
        return Ok(None);
    };
    if sense.is_unit_attention() {
        return Err(TapeError::Check(sense));
    }
    if sense.is_becoming_ready() && sense.progress.is_none() {
        let request = scsi::Cdb::RequestSense { descriptor: false, allocation: 252 };
        let told = drive.execute(&ask(request, 252), control)?;
        let more = Sense::parse(&told.data_in).filter(Sense::is_becoming_ready);
        return Ok(more.or(Some(sense)));
    }
    Ok(Some(sense))
}

/// Tries to bring a tape into a drive.
///
/// # Errors
/// The tape is not there, or it is and can not be used; it is back in its slot then if it can be.
pub fn attempt(registry: &Registry, wish: &Wish<'_>) -> Result<Tried, Halt> {
    let tape = wish.tape;
    let found = find(registry, tape);
    let found = found.ok_or_else(|| Halt::Failed(why_not(registry, tape)))?;
    if !found.view.online {
        return Ok(Tried::Offline);
    }
    if found.element.kind == ElementType::ImportExport {
        return Err(Halt::Failed(why_not(registry, tape)));
    }
    let lies_in = drive_of(&found.view, &found.element);
    let (index, element, home) = match (lies_in, wish.drive) {
        (Some(index), wanted) if wanted.is_none_or(|wanted| wanted == index) => {
            let home = wish.home.or_else(|| slot_for(&found).filter(|_| wish.left_over));
            (index, found.element.address, home)
        }
        (_, None) => return Ok(Tried::Busy),
        (from, Some(index)) => {
            let bay = drives(&found.view).find(|(number, bay)| *number == index && !bay.full);
            let Some((_, bay)) = bay else { return Ok(Tried::Busy) };
            let at = found.element.address;
            // Out of a drive that is not used any more it goes to a slot in the end.
            let home =
                if from.is_some() { wish.home.or_else(|| slot_for(&found)) } else { Some(at) };
            match carry(registry, tape, wish.opener, wish.cancel, (at, bay.address))? {
                Carried::There => (index, bay.address, home),
                Carried::Busy => return Ok(Tried::Busy),
                Carried::Offline => return Ok(Tried::Offline),
            }
        }
    };
    let control = Control::new(MOVE, wish.cancel.clone());
    let name = drive_name(tape, index).to_string();
    let (claim, drive) = match registry.open_tape(&name, wish.opener, &control) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%name, %error, "a drive could not be opened");
            if found.element.address != element
                && let Some(home) = home
            {
                carry(registry, tape, wish.opener, wish.cancel, (element, home))?;
            }
            return Ok(match error.kind {
                FailureKind::Busy => Tried::Busy,
                _ => Tried::Offline,
            });
        }
    };
    let is_readying = false;
    let mut mounted =
        Mounted { drive, claim, tape: tape.clone(), index, element, home, is_readying };
    match mounted.make_ready(registry, wish) {
        Ok(true) => Ok(Tried::Mounted(mounted)),
        // What is in the drive now is another's.
        Ok(false) => Ok(Tried::Busy),
        Err(halt) => {
            if mounted.is_readying {
                // It does not let the tape go until that is done.
                registry.mounts().takes_home(mounted);
                return Err(halt);
            }
            if let Err(cause) = mounted.unmount(registry, wish.opener) {
                tracing::warn!(%tape, cause, "a tape stays in its drive");
            }
            Err(halt)
        }
    }
}

/// Where a tape that lies in a drive goes: where it came from, or to a free slot.
fn slot_for(found: &Found) -> Option<ElementAddress> {
    let free = |element: &&ElementStatus| element.kind == ElementType::Storage && !element.full;
    let mut slots = found.view.inventory.elements.iter().filter(free).map(|slot| slot.address);
    let home = slots.clone().find(|slot| Some(*slot) == found.element.source);
    home.or_else(|| slots.next())
}

/// What came of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    There,
    Busy,
    Offline,
}

/// Moves a tape.
fn carry(
    registry: &Registry,
    tape: &TapeAt,
    opener: &Opener,
    cancel: &CancelToken,
    (from, to): (ElementAddress, ElementAddress),
) -> Result<Carried, Halt> {
    let control = Control::new(MOVE, cancel.clone());
    let arm = registry.mounts().arm(&tape.library);
    let _arm = arm.lock().unwrap_or_else(PoisonError::into_inner);
    let name = DeviceName::changer(tape.library.clone()).to_string();
    let opened = registry.open_scsi(&name, opener, &control);
    let (_claim, mut changer) = match opened {
        Ok((claim, Device::Changer(changer))) => (claim, changer),
        Err(error) if error.kind != FailureKind::Busy => return Ok(Carried::Offline),
        _ => return Ok(Carried::Busy),
    };
    let moved = past_attentions(|| changer.move_medium(from, to, &control));
    // It is free for others.
    drop(changer);
    match moved {
        Ok(()) => Ok(Carried::There),
        // Held by another host there, or another has taken tape or place since they were seen.
        Err(TapeError::Busy | TapeError::ReservationConflict) => Ok(Carried::Busy),
        Err(TapeError::Check(Sense::DESTINATION_ELEMENT_FULL | Sense::SOURCE_ELEMENT_EMPTY)) => {
            Ok(Carried::Busy)
        }
        Err(TapeError::Unreachable(_)) => Ok(Carried::Offline),
        Err(TapeError::Cancelled) => Err(Halt::Cancelled),
        Err(error) => Err(Halt::Failed(format!("moving {tape}: {error}"))),
    }
}

impl Mounted {
    /// The number of the drive.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The tape.
    pub fn tape(&self) -> &TapeAt {
        &self.tape
    }

    /// Waits until the tape is threaded; `false` if it is not here any more: somebody has moved it
    /// since it was seen.
    fn make_ready(&mut self, registry: &Registry, wish: &Wish<'_>) -> Result<bool, Halt> {
        self.await_ready(registry, wish)?;
        let control = &Control::new(MOVE, wish.cancel.clone());
        let drive = &mut self.drive;
        let state = match past_attentions(|| drive.state(control)) {
            // It could not be threaded when it came; it may be now.
            Err(TapeError::Check(sense)) if sense.key == Sense::MEDIUM_NOT_PRESENT.key => None,
            state => state?.medium,
        };
        match state.map(|medium| medium.barcode) {
            Some(Some(barcode)) if barcode != self.tape.barcode => return Ok(false),
            Some(_) => {}
            None => match past_attentions(|| drive.load(control)) {
                Err(TapeError::Check(sense)) if sense.is(Sense::MEDIUM_NOT_PRESENT) => {
                    return Ok(false);
                }
                loaded => loaded?,
            },
        }
        past_attentions(|| drive.position(control))?;
        Ok(true)
    }

    /// Waits while the drive says that it makes the tape ready. The first load of an LTO-9
    /// cartridge calibrates it, which takes up to two hours.
    fn await_ready(&mut self, registry: &Registry, wish: &Wish<'_>) -> Result<(), Halt> {
        let control = Control::new(READY, wish.cancel.clone());
        let name = drive_name(&self.tape, self.index);
        loop {
            let heard = registry.bell().rings();
            let sense = past_attentions(|| asked(self.drive.as_mut(), &control))?;
            let Some(sense) = sense.filter(|sense| sense.is_becoming_ready()) else {
                self.is_readying = false;
                return Ok(());
            };
            self.is_readying = true;
            (wish.tell)(&match sense.percent() {
                Some(percent) => format!("{name} makes {} ready: {percent} %", self.tape),
                None => format!("{name} makes {} ready", self.tape),
            });
            control.check()?;
            registry.bell().wait(heard, LOOK);
        }
    }

    /// Takes the tape back to where it was.
    ///
    /// # Errors
    /// Why it stays in the drive, for the operator.
    pub fn unmount(self, registry: &Registry, opener: &Opener) -> Result<(), String> {
        let Self { mut drive, claim, tape, element, home, .. } = self;
        let Some(home) = home else { return Ok(()) };
        let unloaded = past_attentions(|| drive.unload(&Control::within(MOVE)));
        drop(drive);
        drop(claim);
        unloaded.map_err(|error| error.to_string())?;
        match carry(registry, &tape, opener, &CancelToken::new(), (element, home)) {
            Ok(Carried::There) => Ok(()),
            Ok(Carried::Busy) => Err("the changer is in use".to_owned()),
            Ok(Carried::Offline) => Err("the library can not be reached".to_owned()),
            Err(Halt::Failed(cause) | Halt::Unfit(cause)) => Err(cause),
            Err(Halt::Cancelled) => Err("cancelled".to_owned()),
        }
    }
}
