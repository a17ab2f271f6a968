//! Cleaning cartridges: one is brought to a drive that asks for it, and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Barcode, DeviceName, DeviceRole, ElementAddress, ElementType};
use scsi::Sense;
use tape::{Control, MediumChanger, TapeDrive, TapeError};

use crate::health::HealthBook;
use crate::unit::{OpenUnit, Unit};

/// Volume tags of cleaning cartridges begin so.
const PREFIX: &str = "CLN";
/// How long one movement may take.
const MOVE: Duration = Duration::from_secs(900);
/// How long cleaning may take.
const CLEANING: Duration = Duration::from_secs(15 * 60);
/// How often the drive is asked whether it is done.
const LOOK: Duration = Duration::from_millis(500);
/// Unit attentions that are met one after the other before a command.
const ATTENTIONS: usize = 8;

/// An engine whose drives are cleaned.
pub trait Workshop: Send + Sync + 'static {
    /// How its drives are.
    fn health(&self) -> &HealthBook;
    /// Opens a device, though others are refused it while it is cleaned.
    ///
    /// # Errors
    /// Why it can not be had; for the operator.
    fn open(&self, device: &DeviceName, control: &Control) -> Result<OpenUnit, String>;
    /// Whether somebody has the drive, or a cartridge is in it.
    fn is_used(&self, drive: &DeviceName) -> bool;
    /// A cartridge was moved.
    fn moved(&self);
}

/// When each drive was tried last.
#[derive(Debug, Default)]
pub struct Cleaner(BTreeMap<DeviceName, Instant>);

/// A drive that could not be cleaned is tried again after this time.
const AGAIN: Duration = Duration::from_secs(600);

impl Cleaner {
    /// Begins to clean the drives that want it and that are empty and nobody's. Does not wait.
    pub fn look<W: Workshop>(&mut self, workshop: &Arc<W>) {
        let health = workshop.health();
        for drive in health.wants_cleaning() {
            let waits = self.0.get(&drive).is_some_and(|tried| tried.elapsed() < AGAIN);
            if waits || workshop.is_used(&drive) || health.is_stopping() {
                continue;
            }
            self.0.insert(drive.clone(), Instant::now());
            let workshop = Arc::clone(workshop);
            let thread = std::thread::Builder::new().name("cleaning".to_owned());
            if let Err(error) = thread.spawn(move || clean(&*workshop, &drive)) {
                tracing::warn!(%error, "no thread for cleaning a drive");
            }
        }
    }
}

/// The drive is nobody else's as long as this lives.
struct Claimed<'a>(&'a HealthBook, &'a DeviceName);

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.0.end_cleaning(self.1);
    }
}

fn clean(workshop: &dyn Workshop, drive: &DeviceName) {
    let health = workshop.health();
    if !health.begin_cleaning(drive) {
        return;
    }
    let _claimed = Claimed(health, drive);
    // From here on nobody is given it; somebody may have been just before.
    if workshop.is_used(drive) {
        return;
    }
    match try_clean(workshop, drive) {
        Ok(barcode) => health.cleaned(drive, &barcode),
        Err(cause) => health.not_cleaned(drive, &cause),
    }
}

fn past_attentions<T>(mut act: impl FnMut() -> Result<T, TapeError>) -> Result<T, String> {
    for _ in 0..ATTENTIONS {
        match act() {
            Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
            other => return other.map_err(|error| error.to_string()),
        }
    }
    act().map_err(|error| error.to_string())
}

fn try_clean(workshop: &dyn Workshop, drive: &DeviceName) -> Result<Barcode, String> {
    let control = Control::within(MOVE);
    let mut changer = workshop.open(&DeviceName::changer(drive.library.clone()), &control)?;
    let Unit::Changer(arm) = &mut changer.unit else { return Err("no changer".to_owned()) };
    let inventory = past_attentions(|| arm.inventory(&control))?;
    let DeviceRole::Drive(index) = drive.role else { return Err("no drive".to_owned()) };
    let mut bays = inventory.elements.iter().filter(|it| it.kind == ElementType::DataTransfer);
    let bay = bays.nth(index.into()).ok_or("there is no such drive")?;
    if bay.full {
        return Err("a cartridge is in it".to_owned());
    }
    let cleaner = inventory.elements.iter().find_map(|element| {
        let barcode = element.barcode.as_ref().filter(|it| it.as_str().starts_with(PREFIX))?;
        (element.kind == ElementType::Storage).then(|| (element.address, barcode.clone()))
    });
    let (slot, barcode) = cleaner.ok_or("there is no cleaning cartridge in a slot")?;
    past_attentions(|| arm.move_medium(slot, bay.address, &control))?;
    workshop.moved();
    let done = await_cleaned(workshop, drive);
    let back = put_back(arm.as_mut(), bay.address, slot);
    workshop.moved();
    done.and(back).map(|()| barcode)
}

/// Waits until the drive says neither that it is cleaned nor that it is busy.
fn await_cleaned(workshop: &dyn Workshop, name: &DeviceName) -> Result<(), String> {
    let health = workshop.health();
    let mut opened = workshop.open(name, &Control::within(CLEANING))?;
    let OpenUnit { unit: Unit::Drive(drive), .. } = &mut opened else {
        return Err("no drive".to_owned());
    };
    let until = Instant::now() + CLEANING;
    while Instant::now() < until && !health.is_stopping() {
        // One question at a time: waiting is not left to the driver, which may not be stopped.
        let asked = Control::within(LOOK);
        match drive.state(&asked) {
            Err(TapeError::Check(sense)) if is_busy(&sense) || sense.is_unit_attention() => {}
            Err(TapeError::TimedOut | TapeError::Busy) => {}
            // Empty, because the cartridge is let go of; or another word that ends it.
            _ => return Ok(()),
        }
        health.pause(LOOK);
    }
    Err("it does not end".to_owned())
}

fn is_busy(sense: &Sense) -> bool {
    sense.is(Sense::CLEANING_CARTRIDGE_INSTALLED) || matches!((sense.key, sense.asc), (2, 0 | 4))
}

fn put_back(
    arm: &mut dyn MediumChanger,
    from: ElementAddress,
    to: ElementAddress,
) -> Result<(), String> {
    let control = Control::within(MOVE);
    let moved = past_attentions(|| arm.move_medium(from, to, &control));
    moved.map_err(|cause| format!("the cleaning cartridge stays in it: {cause}"))
}
