//! A drive for a tape, and the tape in it.

use std::time::Duration;

use model::{DeviceName, ElementAddress, ElementType};
use scsi::Sense;
use tape::{CancelToken, Control, TapeError};

use super::order::{self, Found, TapeAt};
use crate::device::{Claim, Device, Opener};
use crate::engine::Engine;
use crate::mover::EngineDrive;

/// How long one movement may take.
const MOVE: Duration = Duration::from_secs(900);
/// How often a library is looked at for a free drive: nothing tells of drives of another site.
const LOOK: Duration = Duration::from_millis(500);
/// Unit attentions that are met one after the other before a command.
const ATTENTIONS: usize = 8;

/// Why a copy does not go on.
#[derive(Debug)]
pub(super) enum Halt {
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

/// A tape in a drive that is ours.
pub(super) struct Mounted {
    pub(super) drive: Box<dyn EngineDrive>,
    _claim: Claim,
    tape: TapeAt,
    element: ElementAddress,
    /// Where it came from; `None` if it was in the drive already.
    home: Option<ElementAddress>,
}

/// Does something again while a unit attention comes in its way.
pub(super) fn past_attentions<T>(
    mut work: impl FnMut() -> Result<T, TapeError>,
) -> Result<T, TapeError> {
    for _ in 0..ATTENTIONS {
        match work() {
            Err(TapeError::Check(sense)) if sense.key == Sense::POWER_ON_RESET.key => {}
            other => return other,
        }
    }
    work()
}

/// Brings a tape into a drive, and waits for one as long as nobody cancels.
pub(super) fn mount(
    engine: &Engine,
    tape: &TapeAt,
    opener: &Opener,
    cancel: &CancelToken,
    waiting: &mut dyn FnMut(&str),
) -> Result<Mounted, Halt> {
    loop {
        if cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        let found = order::find(engine, tape).map_err(|error| Halt::Failed(error.to_string()))?;
        if let Some(mounted) = attempt(engine, tape, &found, opener, cancel)? {
            return Ok(mounted);
        }
        waiting(if found.view.online {
            "no drive is free"
        } else {
            "the library can not be reached"
        });
        std::thread::sleep(LOOK);
    }
}

/// `None` where something is in use, or out of reach, for now.
fn attempt(
    engine: &Engine,
    tape: &TapeAt,
    found: &Found,
    opener: &Opener,
    cancel: &CancelToken,
) -> Result<Option<Mounted>, Halt> {
    if !found.view.online {
        return Ok(None);
    }
    let loaded = order::drive_of(&found.view, &found.element);
    let (index, home) = match loaded {
        Some(index) => (index, None),
        None => {
            let Some((index, target)) = free_drive(engine, tape, found) else { return Ok(None) };
            let from = found.element.address;
            match carry(engine, tape, opener, cancel, (from, target))? {
                true => (index, Some(from)),
                false => return Ok(None),
            }
        }
    };
    let element = drive_element(found, index).unwrap_or(found.element.address);
    let control = Control::new(MOVE, cancel.clone());
    let name = order::drive_name(tape, index).to_string();
    let (claim, drive) = match engine.ground.registry.open_tape(&name, opener, &control) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%name, %error, "a drive for a copy could not be opened");
            if let Some(home) = home {
                carry(engine, tape, opener, cancel, (element, home))?;
            }
            return Ok(None);
        }
    };
    let mut mounted = Mounted { drive, _claim: claim, tape: tape.clone(), element, home };
    match mounted.make_ready(&control) {
        Ok(()) => Ok(Some(mounted)),
        Err(halt) => {
            mounted.unmount(engine, opener);
            Err(halt)
        }
    }
}

fn drive_element(found: &Found, index: u16) -> Option<ElementAddress> {
    let elements = found.view.inventory.elements.iter();
    let mut drives = elements.filter(|e| e.kind == ElementType::DataTransfer);
    drives.nth(usize::from(index)).map(|element| element.address)
}

/// An empty drive that nobody here holds.
fn free_drive(engine: &Engine, tape: &TapeAt, found: &Found) -> Option<(u16, ElementAddress)> {
    let elements = found.view.inventory.elements.iter();
    let drives = elements.filter(|e| e.kind == ElementType::DataTransfer);
    let registry = &engine.ground.registry;
    let mut free = (0u16..).zip(drives).filter(|(index, element)| {
        !element.full && registry.holder(&order::drive_name(tape, *index)).is_none()
    });
    free.next().map(|(index, element)| (index, element.address))
}

/// Moves a tape; `false` where the changer is in use.
fn carry(
    engine: &Engine,
    tape: &TapeAt,
    opener: &Opener,
    cancel: &CancelToken,
    (from, to): (ElementAddress, ElementAddress),
) -> Result<bool, Halt> {
    let control = Control::new(MOVE, cancel.clone());
    let name = DeviceName::changer(tape.library.clone()).to_string();
    let opened = engine.ground.registry.open_scsi(&name, opener, &control);
    let Ok((_claim, Device::Changer(mut changer))) = opened else { return Ok(false) };
    let moved = past_attentions(|| changer.move_medium(from, to, &control));
    // It is free for others.
    drop(changer);
    match moved {
        Ok(()) => Ok(true),
        // Held by another host there, or gone for now.
        Err(TapeError::Busy | TapeError::ReservationConflict | TapeError::Unreachable(_)) => {
            Ok(false)
        }
        Err(TapeError::Cancelled) => Err(Halt::Cancelled),
        Err(error) => Err(Halt::Failed(format!("moving {tape}: {error}"))),
    }
}

impl Mounted {
    /// Waits until the tape is threaded.
    fn make_ready(&mut self, control: &Control) -> Result<(), Halt> {
        let drive = &mut self.drive;
        let state = past_attentions(|| drive.state(control))?;
        if state.medium.is_none() {
            past_attentions(|| drive.load(control))?;
        }
        past_attentions(|| drive.position(control))?;
        Ok(())
    }

    /// Takes the tape back to where it was. What fails here leaves it in the drive, and is told in
    /// the log: the copy itself is done.
    pub(super) fn unmount(self, engine: &Engine, opener: &Opener) {
        let Self { mut drive, _claim: claim, tape, element, home } = self;
        let Some(home) = home else { return };
        let unloaded = past_attentions(|| drive.unload(&Control::within(MOVE)));
        drop(drive);
        drop(claim);
        let way = (element, home);
        let told = match unloaded {
            Ok(()) => match carry(engine, &tape, opener, &CancelToken::new(), way) {
                Ok(true) => return,
                Ok(false) => "the changer is in use".to_owned(),
                Err(Halt::Failed(cause) | Halt::Unfit(cause)) => cause,
                Err(Halt::Cancelled) => return,
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(%tape, cause = told, "a copied tape stays in its drive");
    }
}
