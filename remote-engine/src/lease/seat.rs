//! An open device on its owner thread: operations, ranges, and the flush before it is freed.

use std::sync::Arc;
use std::time::Duration;

use link::{Answer, Doubt, EndReason, Settled, Work, settle, settle_move};
use model::{DeviceName, LeaseId, ObjectNumber, SiteName};
use service::unit::{OpenUnit, Unit};
use store::GenerationReader;
use tape::{
    CancelToken, Completion, Control, MediumChanger, Operation, Outcome, TapeDrive, TapeError,
    WriteEnd, perform, perform_changer,
};

use super::copying::Copying;
use super::streaming::ReadAhead;
use crate::engine::Ground;

/// How long one operation of a device may take: a long rewind, a locate over the whole tape.
const OPERATION: Duration = Duration::from_secs(30 * 60);
/// How long opening a device may take.
pub(super) const OPENING: Duration = Duration::from_secs(60);
/// A range may last for days; who asked can cancel it.
const RANGE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Unit attentions that a flush passes over before it gives up.
const ATTENTIONS_MAX: usize = 8;

/// A device that a lease holds.
pub struct Seat {
    pub(super) ground: Arc<Ground>,
    pub(super) lease: LeaseId,
    pub(super) site: SiteName,
    pub(super) name: DeviceName,
    pub(super) device: Option<OpenUnit>,
    /// Acknowledged records may be in the drive's buffer only.
    pub(super) unflushed: bool,
    /// Taken over from an earlier run of this engine: what the drive's buffer holds is not known.
    pub(super) restored: bool,
    /// The copy that writes here.
    pub(super) copying: Option<Copying>,
    /// The generation that was read last: the next range most likely goes on in it.
    pub(super) reader: Option<GenerationReader>,
    /// What was read ahead. Whoever asks for anything else has taken what he wanted of it.
    pub(super) ahead: Option<ReadAhead>,
    /// Dropped last, when nothing of the engine is held any more.
    pub(super) farewell: Option<std::sync::mpsc::Sender<()>>,
}

/// One numbered work under way.
pub struct Run {
    /// Ends it at a record boundary.
    pub cancel: CancelToken,
    /// What a cancelled reader took, in objects.
    pub taken: Box<dyn Fn() -> Option<u64> + Send>,
    /// Hears of bytes and records done.
    pub progress: Box<dyn FnMut(u64, u64) + Send>,
}

/// The error of a device that is not open (any more).
fn gone() -> TapeError {
    TapeError::Lost("the device is not open".to_owned())
}

impl Seat {
    /// A seat without a device yet.
    pub fn new(ground: Arc<Ground>, lease: LeaseId, site: SiteName, name: DeviceName) -> Self {
        Self {
            ground,
            lease,
            site,
            name,
            device: None,
            unflushed: false,
            restored: false,
            copying: None,
            reader: None,
            ahead: None,
            farewell: None,
        }
    }

    /// The device was open in an earlier run of this engine.
    pub fn restored(self) -> Self {
        Self { restored: true, ..self }
    }

    /// Takes the device.
    ///
    /// # Errors
    /// Why it can not be had.
    pub fn open(&mut self) -> Result<(), link::Refusal> {
        if let Some(text) = self.ground.health.refuses(&self.name) {
            return Err(link::Refusal { why: link::RefusalWhy::Device, text });
        }
        let opened = self.ground.libraries.open_device(&self.name, &Control::within(OPENING));
        self.device = Some(opened?);
        Ok(())
    }

    /// The drive, if the device is one.
    pub(super) fn drive(&mut self) -> Result<&mut dyn TapeDrive, TapeError> {
        match self.device.as_mut().map(|device| &mut device.unit) {
            Some(Unit::Drive(drive)) => Ok(drive.as_mut()),
            Some(Unit::Changer(_)) => Err(TapeError::Check(scsi::Sense::INVALID_OPERATION_CODE)),
            None => Err(gone()),
        }
    }

    /// A control for one operation.
    pub(super) fn control(&self, cancel: &CancelToken) -> Control {
        Control::new(OPERATION, cancel.clone())
    }

    /// Does a numbered work, after it was settled where that is needed.
    pub fn perform(&mut self, work: &Work, doubt: Option<Doubt>, mut run: Run) -> Answer {
        let mut written = 0;
        self.ahead = None;
        if let Some(doubt) = doubt {
            // A drive that was not reset may still hold what was acknowledged.
            self.unflushed |= doubt.expect.unflushed;
            match self.settled(work, doubt) {
                Settled::Execute => {}
                Settled::ContinueCopy { records } => written = records,
                Settled::Answer(answer) => return answer,
                Settled::LocateThenExecute(object) => {
                    let control = self.control(&run.cancel);
                    if let Err(error) = self.drive().and_then(|it| it.locate(object, &control)) {
                        return Answer::Failed(error);
                    }
                    if let Work::Copy(range) = work {
                        self.ground.jobs.back_to_flush(range.job);
                    }
                }
            }
        }
        match work {
            Work::Operation(operation) => match self.operate(operation, &run.cancel) {
                Ok(outcome) => Answer::Outcome(outcome),
                Err(error) => Answer::Failed(error),
            },
            Work::Copy(range) => {
                let control = Control::new(RANGE, run.cancel.clone());
                self.copy(range, written, &control, &mut run.progress)
            }
            Work::Read(range) => {
                let control = Control::new(RANGE, run.cancel.clone());
                self.read_ahead(range, &control, &*run.taken, &mut run.progress)
            }
            // The table hands closes out as such.
            Work::Close => Answer::Failed(gone()),
        }
    }

    /// What a restart of this engine means for a work.
    fn settled(&mut self, work: &Work, doubt: Doubt) -> Settled {
        let control = Control::within(OPERATION);
        match self.device.as_mut().map(|device| &mut device.unit) {
            Some(Unit::Drive(drive)) => settle(work, doubt, || drive.position(&control)),
            Some(Unit::Changer(changer)) => match work {
                Work::Operation(Operation::Move { from, to }) => {
                    match changer.inventory(&control) {
                        Ok(inventory) => settle_move(*from, *to, &inventory),
                        Err(error) => Settled::Answer(Answer::Failed(TapeError::PositionUnknown(
                            format!("after a restart the inventory can not be read: {error}"),
                        ))),
                    }
                }
                _ => settle(work, doubt, || Err(TapeError::Unreachable("a changer".to_owned()))),
            },
            None => Settled::Answer(Answer::Failed(gone())),
        }
    }

    fn operate(
        &mut self,
        operation: &Operation,
        cancel: &CancelToken,
    ) -> Result<Outcome, TapeError> {
        let control = self.control(cancel);
        self.prove_before(operation, &control)?;
        // Asked before the first record of a run only.
        if !self.unflushed && writes(operation) && self.is_frozen() {
            let sense = scsi::Sense::WRITE_PROTECTED;
            return match operation {
                Operation::Cdb(_) => Ok(Outcome::Completion(Completion::check(sense))),
                _ => Err(TapeError::Check(sense)),
            };
        }
        let device = self.device.as_mut().ok_or_else(gone)?;
        let drive = match &mut device.unit {
            Unit::Changer(changer) => {
                return perform_changer(changer.as_mut(), operation, &control);
            }
            Unit::Drive(drive) => drive.as_mut(),
        };
        let outcome = perform(drive, operation, &control);
        match operation {
            Operation::Write(_) => self.unflushed = true,
            Operation::Cdb(_) if writes(operation) => self.unflushed = true,
            // A failed write of filemarks may have left some of them in the buffer.
            Operation::WriteFilemarks(_) => self.unflushed = outcome.is_err(),
            other if outcome.is_ok() && flushes(other) => self.unflushed = false,
            _ => {}
        }
        if let Ok(Outcome::State(state)) = &outcome {
            self.ground.libraries.learn(&self.name, state);
        }
        self.note_readying(&outcome);
        let flushed = outcome.is_ok() && !self.unflushed && flushes(operation);
        if flushed && self.copying.is_some() {
            self.note_flush(operation, &control)?;
        }
        outcome
    }

    /// What an answer says of a cartridge that is made ready, for the report.
    fn note_readying(&self, outcome: &Result<Outcome, TapeError>) {
        let sense = match outcome {
            Ok(Outcome::Completion(completion)) if completion.status == 0x02 => {
                scsi::Sense::parse(&completion.sense)
            }
            Err(TapeError::Check(sense)) => Some(*sense),
            _ => None,
        };
        let part = sense.filter(scsi::Sense::is_becoming_ready);
        self.ground.note_readying(&self.name, part.map(|sense| sense.progress.unwrap_or(0)));
    }

    /// A flush made what the copy wrote safe. Where it stands is asked, except after motions that
    /// leave the end of what was written.
    fn note_flush(&mut self, operation: &Operation, control: &Control) -> Result<(), TapeError> {
        let at = match operation {
            Operation::WriteFilemarks(_) => {
                self.drive().and_then(|drive| drive.position(control)).ok().map(|it| it.object)
            }
            _ => None,
        };
        let is_new = self.copying.as_ref().is_some_and(Copying::is_unflushed);
        let proven = if is_new { self.prove(at) } else { Ok(()) };
        self.copy_flushed(at);
        proven
    }

    /// Flushes what was written and proves it, so that the device can be left.
    pub(super) fn flush(&mut self, control: &Control) -> Result<(), TapeError> {
        let is_new = self.copying.as_ref().is_some_and(Copying::is_unflushed);
        if !(self.flush_only(control)? && is_new) {
            return Ok(());
        }
        let at = self.drive()?.position(control).ok().map(|it| it.object);
        let proven = self.prove(at);
        self.copy_flushed(at);
        proven
    }

    /// Flushes what was written; whether that was needed. Not an error: a drive that is
    /// empty or was reloaded since, whose medium was flushed when it went.
    pub(super) fn flush_only(&mut self, control: &Control) -> Result<bool, TapeError> {
        let is_drive = matches!(self.device.as_ref().map(|it| &it.unit), Some(Unit::Drive(_)));
        if !is_drive || !(self.unflushed || self.restored) {
            return Ok(false);
        }
        for _ in 0..ATTENTIONS_MAX {
            match self.drive()?.write_filemarks(0, control) {
                Ok(WriteEnd::Written | WriteEnd::EarlyWarning) => {
                    self.unflushed = false;
                    return Ok(true);
                }
                Err(TapeError::Check(sense)) if sense.key == 0x06 && sense.asc != 0x29 => {}
                Err(TapeError::Check(sense)) if sense.key == 0x02 => {
                    self.unflushed = false;
                    return Ok(false);
                }
                // Nothing is known to be at stake.
                _ if !self.unflushed => return Ok(false),
                Err(TapeError::Check(sense)) if sense.key == 0x06 => {
                    let lost = "the drive was reset; what was in its buffer is lost";
                    return Err(TapeError::PositionUnknown(lost.to_owned()));
                }
                Ok(WriteEnd::Overflow) => {
                    return Err(TapeError::Check(scsi::Sense::VOLUME_OVERFLOW));
                }
                Err(error) => return Err(error),
            }
        }
        Err(TapeError::Busy)
    }

    /// The engine stops: what was written is flushed, the lease and its copy stay as they are.
    pub fn leave(&mut self) {
        // There is no time to read back; what was not proven is said to be so.
        if let Err(error) = self.flush_only(&Control::within(OPENING)) {
            tracing::warn!(device = %self.name, %error, "a drive could not be flushed");
        }
    }

    /// Asks the drive how it is, now that nobody depends on it any more.
    fn note_health(&mut self) {
        let Some(device) = &mut self.device else { return };
        let library = Arc::clone(device.library());
        if let Unit::Drive(drive) = &mut device.unit {
            self.ground.health.ask(&self.name, drive, &*library);
        }
    }

    /// Whether the cartridge in the drive is not to be written on any more.
    pub(super) fn is_frozen(&self) -> bool {
        let library = self.device.as_ref().map(OpenUnit::library);
        library.is_some_and(|library| self.ground.health.forbids(&self.name, &**library))
    }

    /// Flushes, ends the copy that was written here, and frees the device whatever came of it.
    pub fn close(&mut self, why: EndReason, doubt: Option<Doubt>) -> Result<(), TapeError> {
        self.unflushed |= doubt.is_some_and(|doubt| doubt.expect.unflushed);
        let settled = match doubt.map(|doubt| self.settled(&Work::Close, doubt)) {
            Some(Settled::Answer(Answer::Failed(error))) => Err(error),
            _ => Ok(()),
        };
        let result = settled.and_then(|()| self.flush(&Control::within(OPERATION)));
        self.end_copy(why, &result);
        self.note_health();
        self.ground.note_readying(&self.name, None);
        self.reader = None;
        self.device = None;
        result
    }
}

/// Whether it changes what is on the tape.
fn writes(operation: &Operation) -> bool {
    match operation {
        Operation::Write(_) => true,
        Operation::WriteFilemarks(count) => *count > 0,
        Operation::Cdb(request) => scsi::writes_medium(&request.cdb),
        _ => false,
    }
}

/// Whether everything before is on the medium once this succeeded.
fn flushes(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::WriteFilemarks(_)
            | Operation::Rewind
            | Operation::Locate(_)
            | Operation::Load
            | Operation::Unload
    )
}

/// A place behind `records` records.
pub(super) fn behind(object: ObjectNumber, records: u64) -> ObjectNumber {
    object.saturating_add(records)
}
