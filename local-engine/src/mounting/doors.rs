//! Taking cartridges out of libraries and bringing them in.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use model::{Barcode, DeviceName, ElementAddress, ElementType, LibraryName};
use ndmp::tape::FailureKind;
use scsi::Sense;
use service::messages;
use svs::{EventKind, MediumRef, OutsidePlace, SvsError};
use tape::{CdbRequest, Control, ElementStatus, Inventory, TapeError};

use super::{MOVE, TapeAt, past_attentions};
use crate::device::{Claim, Device, ENGINE_NEXUS, EngineChanger, LibraryView, Opener, Registry};
use crate::engine::Engine;

/// How long is waited for a change before it is looked without one.
const LOOK: Duration = Duration::from_secs(10);

/// A cartridge that was moved to or from the station.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Its volume tag, if it has one that can be read.
    pub barcode: Option<Barcode>,
    /// Where it was.
    pub from: ElementAddress,
    /// Where it is.
    pub to: ElementAddress,
}

/// The import/export station of a library. As far as the changer allows it, nobody takes anything
/// from it by hand while this lives.
pub struct Door<'a> {
    engine: &'a Engine,
    library: LibraryName,
    serial: String,
    changer: Box<dyn EngineChanger>,
    _claim: Claim,
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.prevent(false) {
            tracing::warn!(library = %self.library, %error, "removal stays prevented");
        }
    }
}

fn view(registry: &Registry, library: &LibraryName) -> Result<LibraryView, String> {
    let found = registry.libraries().into_iter().find(|it| it.name() == library);
    let view = found.and_then(|library| library.view());
    let view = view.ok_or_else(|| format!("there is no library {library}"))?;
    match view.online {
        true => Ok(view),
        false => Err(format!("the library {library} can not be reached")),
    }
}

fn of_kind(inventory: &Inventory, kind: ElementType) -> impl Iterator<Item = &ElementStatus> {
    inventory.elements.iter().filter(move |element| element.kind == kind)
}

impl<'a> Door<'a> {
    /// Takes the changer of a library, and keeps the station shut.
    ///
    /// # Errors
    /// The library or its changer can not be had; in words for the operator.
    pub fn open(engine: &'a Engine, library: &LibraryName) -> Result<Self, String> {
        let registry = &engine.ground.registry;
        let serial = view(registry, library)?.identity.serial;
        let name = DeviceName::changer(library.clone()).to_string();
        let opener = Opener { nexus: ENGINE_NEXUS, who: "import and export".to_owned() };
        let opened = registry.open_scsi(&name, &opener, &Control::within(MOVE));
        let (claim, changer) = match opened {
            Ok((claim, Device::Changer(changer))) => (claim, changer),
            Ok(_) => return Err(format!("{name} is no changer")),
            Err(failure) if failure.kind == FailureKind::Busy => return Err(failure.text),
            Err(failure) => return Err(format!("{name}: {}", failure.text)),
        };
        let mut door = Self { engine, library: library.clone(), serial, changer, _claim: claim };
        door.prevent(true).map_err(|error| format!("{name}: {error}"))?;
        Ok(door)
    }

    /// PREVENT ALLOW MEDIUM REMOVAL (SPC-5 6.17). A changer without it has no lock.
    fn prevent(&mut self, prevent: bool) -> Result<(), TapeError> {
        let request = CdbRequest {
            cdb: vec![0x1e, 0, 0, 0, u8::from(prevent), 0],
            data_out: Bytes::new(),
            data_in_max: 0,
            timeout: MOVE,
        };
        let control = Control::within(MOVE);
        past_attentions(|| {
            let done = self.changer.execute(&request, &control)?;
            match Sense::parse(&done.sense).filter(|_| done.status == 0x02) {
                Some(sense) if sense.key == 0x05 && sense.asc == 0x20 => Ok(()),
                Some(sense) => Err(TapeError::Check(sense)),
                None if done.status == 0 => Ok(()),
                None => Err(TapeError::Busy),
            }
        })
    }

    /// The elements as the changer sees them now: after its door was open, what it reported
    /// before is worth nothing.
    fn inventory(&mut self) -> Result<Inventory, String> {
        let control = Control::within(MOVE);
        let inventory = past_attentions(|| self.changer.inventory(&control));
        inventory.map_err(|error| format!("{}: {error}", self.library))
    }

    fn carry(&mut self, from: &ElementStatus, to: ElementAddress) -> Result<Moved, String> {
        let arm = self.engine.ground.registry.mounts().arm(&self.library);
        let _arm = arm.lock().unwrap_or_else(PoisonError::into_inner);
        let prevented = Sense::MEDIUM_REMOVAL_PREVENTED;
        let shut = |error: &TapeError| match error {
            TapeError::Check(sense) => sense.is(prevented),
            _ => false,
        };
        let control = Control::within(MOVE);
        let mut moved = past_attentions(|| self.changer.move_medium(from.address, to, &control));
        // To some changers a station that is shut is shut for the arm too.
        if moved.as_ref().is_err_and(shut) && self.prevent(false).is_ok() {
            moved = past_attentions(|| self.changer.move_medium(from.address, to, &control));
        }
        moved.map_err(|error| match shut(&error) {
            true => format!("another host keeps the station of {} shut: {error}", self.library),
            false => format!("{} {}: {error}", self.library, from.address),
        })?;
        Ok(Moved { barcode: from.barcode.clone(), from: from.address, to })
    }

    fn medium(&self, barcode: &Barcode) -> MediumRef {
        MediumRef::Tape { library: self.serial.clone(), volser: barcode.clone() }
    }

    fn say(&self, id: &'static str, barcode: &Barcode) {
        let words: [(&str, &dyn std::fmt::Display); 2] =
            [("library", &self.library), ("barcode", barcode)];
        let subject = format!("{}/{barcode}", self.library);
        let catalogue = &self.engine.ground.catalogue;
        messages::note(catalogue, EventKind::Device, id, &words, Some(&subject));
    }

    /// Brings a cartridge from its slot to the station.
    ///
    /// # Errors
    /// Why it stays; in words for the operator.
    pub fn export(&mut self, barcode: &Barcode) -> Result<Moved, String> {
        let tape = TapeAt { library: self.library.clone(), barcode: barcode.clone() };
        if let Some(job) = crate::copies::job_with(self.engine, &tape).map_err(|e| e.to_string())? {
            return Err(format!("{tape} is needed by job {job}; end it first"));
        }
        let inventory = self.inventory()?;
        let there = |it: &&ElementStatus| it.full && it.barcode.as_ref() == Some(barcode);
        let found = inventory.elements.iter().find(there);
        let Some(found) = found else {
            return Err(super::why_not(&self.engine.ground.registry, &tape));
        };
        match found.kind {
            ElementType::Storage => {}
            ElementType::ImportExport => {
                return Err(format!("{tape} lies in the station already"));
            }
            ElementType::DataTransfer | ElementType::Transport => {
                return Err(format!("{tape} is in a drive; it must be dismounted first"));
            }
        }
        let mut station = of_kind(&inventory, ElementType::ImportExport).peekable();
        if station.peek().is_none() {
            return Err(format!("{} has no import/export station", self.library));
        }
        let free = station.find(|element| !element.full).ok_or_else(|| {
            format!("the import/export station of {} is full; empty it first", self.library)
        })?;
        // Noted first: a medium that is on its way is not mounted.
        let medium = self.medium(barcode);
        let catalogue = &self.engine.ground.catalogue;
        let note = catalogue.put_outside(&medium, OutsidePlace::Exported);
        note.map_err(|error| error.to_string())?;
        match self.carry(found, free.address) {
            Ok(moved) => {
                self.say(messages::CARTRIDGE_EXPORTED, barcode);
                Ok(moved)
            }
            Err(cause) => {
                let forgotten = self.engine.ground.catalogue.remove_outside(&medium);
                forgotten.map_err(|error| error.to_string())?;
                Err(cause)
            }
        }
    }

    /// Brings what lies in the station into free slots: this cartridge, or all.
    ///
    /// # Errors
    /// Why nothing, or no more, was brought in; in words for the operator.
    pub fn import(&mut self, only: Option<&Barcode>) -> Result<Vec<Moved>, String> {
        let inventory = self.inventory()?;
        let wanted = |it: &&ElementStatus| {
            it.full && only.is_none_or(|barcode| it.barcode.as_ref() == Some(barcode))
        };
        let lying: Vec<_> =
            of_kind(&inventory, ElementType::ImportExport).filter(wanted).cloned().collect();
        if lying.is_empty() {
            return Err(match only {
                Some(it) => format!("{it} does not lie in the station of {}", self.library),
                None => format!("nothing lies in the station of {}", self.library),
            });
        }
        // The slots of cartridges that are in drives are kept for them.
        let homes: BTreeSet<_> = of_kind(&inventory, ElementType::DataTransfer)
            .filter_map(|drive| drive.source.filter(|_| drive.full))
            .collect();
        let free = of_kind(&inventory, ElementType::Storage)
            .filter(|slot| !slot.full && !homes.contains(&slot.address));
        let mut slots = free.map(|slot| slot.address);
        let mut moved = Vec::new();
        for element in &lying {
            let slot = slots.next().ok_or_else(|| {
                format!("no slot of {} is free; {} were brought in", self.library, moved.len())
            })?;
            moved.push(self.carry(element, slot)?);
            if let Some(barcode) = &element.barcode {
                let medium = self.medium(barcode);
                let forgotten = self.engine.ground.catalogue.remove_outside(&medium);
                forgotten.map_err(|error| error.to_string())?;
                self.say(messages::CARTRIDGE_IMPORTED, barcode);
            }
        }
        Ok(moved)
    }
}

/// Follows the media that were exported, on a thread of its own, while the engine lives: one that
/// is taken from the station is off site, one that is in a slot or a drive is outside no more.
///
/// # Errors
/// The system has no thread to give.
pub fn follow(engine: &Arc<Engine>) -> std::io::Result<()> {
    let (weak, bell) = (Arc::downgrade(engine), engine.ground.registry.bell().clone());
    let thread = std::thread::Builder::new().name("outside".into());
    thread.spawn(move || {
        loop {
            let heard = bell.rings();
            if Weak::upgrade(&weak).is_none_or(|engine| engine.is_stopping()) {
                return;
            }
            if let Some(engine) = weak.upgrade()
                && let Err(error) = look(&engine)
            {
                tracing::warn!(%error, "exported media could not be looked for");
            }
            bell.wait(heard, LOOK);
        }
    })?;
    Ok(())
}

fn look(engine: &Engine) -> Result<(), SvsError> {
    let ground = &engine.ground;
    for outside in ground.catalogue.outside()? {
        let MediumRef::Tape { library, volser } = &outside.medium else { continue };
        let Some((holding, view)) = super::backend(&ground.registry, library) else { continue };
        if !view.online {
            continue;
        }
        let there = |it: &&ElementStatus| it.full && it.barcode.as_ref() == Some(volser);
        let found = view.inventory.elements.iter().find(there).map(|element| element.kind);
        let changer = DeviceName::changer(holding.name().clone());
        let is_exported = outside.place == OutsidePlace::Exported;
        match found {
            None if is_exported => {
                ground.catalogue.put_outside(&outside.medium, OutsidePlace::OffSite)?;
            }
            Some(ElementType::ImportExport) if !is_exported => {
                ground.catalogue.put_outside(&outside.medium, OutsidePlace::Exported)?;
            }
            None | Some(ElementType::ImportExport) => {}
            // It may be on its way out: that is one movement, behind which it is looked again.
            Some(_) if ground.registry.holder(&changer).is_some() => {}
            Some(_) => drop(ground.catalogue.remove_outside(&outside.medium)?),
        }
    }
    Ok(())
}
