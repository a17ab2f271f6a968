//! One copy, from the drive that is found to the tape that is put back.

use std::sync::Arc;
use std::time::Duration;

use copy::run::{RangeOrder, RangeSource, SourceError, write_range};
use copy::{Holder, Path, Plan, plan};
use model::{GenerationId, JobId};
use store::GenerationReader;
use svs::JobState;
use tape::{CancelToken, Control, ReadEnd, SpaceKind, TapeError, WriteEnd};

use super::Note;
use super::mount::{self, Taken, mount};
use super::order::{Order, Stretch, stretches};
use super::proof::{Written, prove};
use crate::device::Opener;
use crate::engine::Engine;
use crate::mounting::{Asker, Halt, Mounted, past_attentions};
use crate::mover::{EngineDrive, Extent, JobHandle, RECORD_MAX, RangeEnd, RangeRequest};

/// How long a copy may take in all.
const COPY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bytes of one range: progress is noted and a wish to stop is heard between two.
const RANGE: u64 = 1 << 30;

/// Runs a copy to its end, and ends its job. Returns what is to be done where it was suspended.
pub(super) fn run(
    engine: &Arc<Engine>,
    id: JobId,
    order: Order,
    cancel: CancelToken,
) -> Option<Order> {
    let job = JobHandle::of_engine(
        id,
        Arc::clone(&engine.ground.catalogue),
        (order.source.to_string(), order.target.to_string()),
        order.verify,
    );
    let opener = engine.copies.opener(id);
    let written = Written::of(&order);
    let mut copying = Copying { engine, job: &job, order, cancel, opener, bytes: 0, written };
    match copying.copy() {
        Ok(()) => job.done(copying.bytes),
        Err(_) if is_over(engine, id) => {
            tracing::info!(job = %id, "the job was ended by the other site meanwhile");
        }
        // The engine stops: the row is found at the next start.
        Err(Halt::Cancelled) if engine.is_stopping() => {}
        Err(Halt::Cancelled) if engine.copies.is_held(id) => {
            // First the note: a row that looks suspended must stay so over a crash.
            let note = Note { order: copying.order, suspended: true };
            engine.keep_note(id, &note);
            job.enter(JobState::Pending, Some("suspended"));
            return Some(note.order);
        }
        Err(Halt::Cancelled) => job.cancelled("cancelled by its owner"),
        Err(Halt::Failed(cause)) => job.failed(&cause),
        Err(Halt::Unfit(cause)) => {
            engine.copies.is_not_fit(id);
            job.failed(&cause);
        }
    }
    None
}

/// Whether the row has ended already: the other site reports what became of a job whose devices it
/// took back, and somebody may have begun another one for the same tape since.
fn is_over(engine: &Engine, id: JobId) -> bool {
    let row = engine.ground.catalogue.job(id);
    matches!(row, Ok(Some(row)) if row.state.is_final())
}

struct Copying<'a> {
    engine: &'a Arc<Engine>,
    job: &'a JobHandle,
    order: Order,
    cancel: CancelToken,
    opener: Opener,
    bytes: u64,
    written: Written,
}

fn too_small() -> Halt {
    Halt::Unfit(
        "the target is too small: its end was reached, and what is on it is incomplete".into(),
    )
}

impl Copying<'_> {
    fn control(&self) -> Control {
        Control::new(COPY, self.cancel.clone())
    }

    /// The target, and before it the source where that is no generation, in drives.
    fn mount(&self) -> Result<Taken, Halt> {
        let job = self.job;
        let mut told = String::new();
        let source = self.order.generation.is_none().then(|| self.order.source.clone());
        let tapes: Vec<_> = source.into_iter().chain([self.order.target.clone()]).collect();
        let asker = Asker {
            job: Some(job.id()),
            who: self.order.requested_by.clone(),
            priority: self.order.priority,
        };
        let by = (&self.opener, &self.cancel);
        mount(self.engine, asker, &tapes, by, &mut |why| {
            if told != why {
                told = why.to_owned();
                job.enter(JobState::WaitingDrive, Some(why));
            }
        })
    }

    fn copy(&mut self) -> Result<(), Halt> {
        let mut taken = self.mount()?;
        let written = match &mut taken.mounted[..] {
            [target] => self.write(None, target),
            [source, target] => self.write(Some(source), target),
            _ => Err(Halt::Failed("there is no target".into())),
        };
        mount::put_back(self.engine, taken, &self.opener);
        written
    }

    fn write(&mut self, source: Option<&mut Mounted>, target: &mut Mounted) -> Result<(), Halt> {
        let drive = target.drive.as_mut();
        let from = source.as_ref().map_or(Holder::Store, |source| source.drive.holder());
        let links = self.engine.links.clone();
        let plan = plan(&from, &drive.holder(), |site| links.replicates_to(site));
        let (names, to) = (self.order.source.to_string(), self.order.target.to_string());
        if is_over(self.engine, self.job.id()) {
            return Err(Halt::Cancelled);
        }
        self.job.begin(&names, &to, &plan).map_err(Halt::Failed)?;
        let control = self.control();
        let state = past_attentions(|| drive.state(&control))?;
        if state.medium.is_some_and(|medium| medium.write_protected) {
            return Err(Halt::Unfit("the target is write-protected".into()));
        }
        self.go_to_begin(drive)?;
        self.job.enter(JobState::InProgress, None);
        match (self.order.generation, source) {
            (Some(generation), _) => self.copy_generation(generation, drive, &plan)?,
            (None, Some(source)) => self.copy_tape(source.drive.as_mut(), drive)?,
            (None, None) => return Err(Halt::Failed("there is no source".into())),
        }
        self.flush(drive, 0)?;
        let store = &self.engine.ground.store;
        let proven = prove(store, &self.order, &self.written, drive, &self.control())?;
        self.job.proven(proven);
        Ok(())
    }

    /// To where the copy begins on the target: where it began before, behind what is there, or at
    /// the beginning of the tape.
    fn go_to_begin(&mut self, drive: &mut dyn EngineDrive) -> Result<(), Halt> {
        let control = self.control();
        match self.order.begins {
            Some(object) => past_attentions(|| drive.locate(object, &control))?,
            None if self.order.append => {
                past_attentions(|| drive.space(SpaceKind::EndOfData, 0, &control))?;
            }
            None => past_attentions(|| drive.rewind(&control))?,
        }
        let begins = past_attentions(|| drive.position(&control))?.object;
        if let Some(wanted) = self.order.begins.filter(|wanted| *wanted != begins) {
            self.engine.changed_by_another(&self.order.target, begins);
            let text = format!("the target ends at object {begins}, before object {wanted}");
            return Err(Halt::Failed(text));
        }
        if self.order.begins.replace(begins).is_none() {
            let noted = serde_json::to_string(&self.order).map_err(|e| e.to_string());
            let catalogue = &self.engine.ground.catalogue;
            noted
                .and_then(|note| {
                    catalogue.set_resume(self.job.id(), &note).map_err(|e| e.to_string())
                })
                .map_err(|cause| Halt::Failed(format!("the job can not be noted: {cause}")))?;
        }
        Ok(())
    }

    /// Writes filemarks, and so flushes; notes what is safe.
    fn flush(&mut self, drive: &mut dyn EngineDrive, filemarks: u32) -> Result<(), Halt> {
        let control = self.control();
        match drive.write_filemarks(filemarks, &control)? {
            WriteEnd::Overflow => return Err(too_small()),
            WriteEnd::Written | WriteEnd::EarlyWarning => {}
        }
        let object = drive.position(&control)?.object;
        self.job.flushed(object, self.bytes);
        Ok(())
    }

    fn copy_generation(
        &mut self,
        generation: GenerationId,
        drive: &mut dyn EngineDrive,
        plan: &Plan,
    ) -> Result<(), Halt> {
        let failed = |error: store::StoreError| Halt::Failed(error.to_string());
        let store = &self.engine.ground.store;
        self.job.reads(generation);
        let recipes = store.recipe(generation).map_err(failed)?;
        let mut reader = store.reader(generation).map_err(failed)?;
        for stretch in stretches(recipes.runs(0), self.order.section) {
            match stretch.map_err(failed)? {
                Stretch::Filemarks { count } => {
                    let mut left = count;
                    while left > 0 {
                        let now = left.min(1 << 16);
                        self.flush(drive, now as u32)?;
                        self.written.count(now);
                        left -= now;
                    }
                }
                Stretch::Records { size, count, offset } => {
                    let at_once = (RANGE / u64::from(size)).max(1);
                    let mut done = 0;
                    while done < count {
                        let now = at_once.min(count - done);
                        let length = now * u64::from(size);
                        let offset = offset + done * u64::from(size);
                        let extent = Extent { generation, offset, length };
                        match plan.path {
                            Path::Offloaded if drive.range_target().is_some() => {
                                self.offload(drive, extent, size)?;
                            }
                            _ => self.carry(drive, &mut reader, extent, size)?,
                        }
                        self.bytes += length;
                        self.written.count(now);
                        self.job.progress(self.bytes);
                        done += now;
                    }
                }
            }
        }
        Ok(())
    }

    /// The engine beside the drive writes it from its replica.
    fn offload(&self, drive: &mut dyn EngineDrive, extent: Extent, size: u32) -> Result<(), Halt> {
        let request = RangeRequest {
            job: Some(self.job.clone()),
            extents: vec![extent],
            record_size: size,
            pad_last: false,
            ignore_early_warning: true,
        };
        let Some(target) = drive.range_target() else {
            return Err(Halt::Failed("the drive was exchanged".into()));
        };
        let (job, before) = (self.job, self.bytes);
        let written = target.write_range(&request, &self.control(), &mut |bytes| {
            job.progress(before + bytes);
        });
        match written.end {
            RangeEnd::Done if written.bytes == extent.length => Ok(()),
            RangeEnd::Done | RangeEnd::EarlyWarning => {
                Err(Halt::Failed("the far engine wrote less than it was told".into()))
            }
            RangeEnd::Overflow => Err(too_small()),
            RangeEnd::Failed(error) => Err(error.into()),
        }
    }

    /// This engine reads and writes it.
    fn carry(
        &self,
        drive: &mut dyn EngineDrive,
        reader: &mut GenerationReader,
        extent: Extent,
        size: u32,
    ) -> Result<(), Halt> {
        let mut source = FromReader { reader, at: extent.offset };
        let order = RangeOrder {
            record_size: size as usize,
            length: extent.length,
            pad_last: false,
            flush: false,
            ignore_early_warning: true,
        };
        let (job, before) = (self.job, self.bytes);
        let mut progress = |bytes, _| job.progress(before + bytes);
        let result = write_range(drive.tape(), &mut source, order, &self.control(), &mut progress);
        match result.end {
            copy::run::RangeEnd::Done => Ok(()),
            copy::run::RangeEnd::EarlyWarning | copy::run::RangeEnd::Overflow => Err(too_small()),
            copy::run::RangeEnd::Drive(error) => Err(error.into()),
            copy::run::RangeEnd::Source(error) => Err(Halt::Failed(error.to_string())),
            copy::run::RangeEnd::Refused(text) => Err(Halt::Failed(text)),
        }
    }

    /// From a tape in a drive, object by object.
    fn copy_tape(
        &mut self,
        source: &mut dyn EngineDrive,
        target: &mut dyn EngineDrive,
    ) -> Result<(), Halt> {
        let control = self.control();
        let start = self.order.section.start;
        past_attentions(|| source.locate(start, &control))?;
        source.begin_reading(RECORD_MAX as u32);
        let copied = self.objects(source, target, &control);
        let ended = source.end_reading(&Control::within(Duration::from_secs(600)));
        copied?;
        Ok(ended?)
    }

    fn objects(
        &mut self,
        source: &mut dyn EngineDrive,
        target: &mut dyn EngineDrive,
        control: &Control,
    ) -> Result<(), Halt> {
        let mut buffer = vec![0; RECORD_MAX];
        let mut left = self.order.section.count.unwrap_or(u64::MAX);
        while left > 0 {
            control.check().map_err(|error: TapeError| Halt::from(error))?;
            match source.read(&mut buffer, control)? {
                ReadEnd::Record { length } if length > buffer.len() => {
                    return Err(Halt::Failed(format!("a record of {length} bytes is too long")));
                }
                ReadEnd::Record { length } => {
                    match target.write(&buffer[..length], control)? {
                        WriteEnd::Overflow => return Err(too_small()),
                        WriteEnd::Written | WriteEnd::EarlyWarning => {}
                    }
                    self.written.record(&buffer[..length]);
                    self.bytes += length as u64;
                    self.job.progress(self.bytes);
                }
                ReadEnd::Filemark => {
                    self.flush(target, 1)?;
                    self.written.filemark();
                }
                ReadEnd::EndOfData if self.order.section.count.is_some() => {
                    return Err(Halt::Failed("the section ends behind the source's data".into()));
                }
                ReadEnd::EndOfData => return Ok(()),
            }
            left -= 1;
        }
        Ok(())
    }
}

/// The bytes of a generation from a place on.
struct FromReader<'a> {
    reader: &'a mut GenerationReader,
    at: u64,
}

impl RangeSource for FromReader<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let read = self.reader.read_stream(self.at, buffer);
        let read = read.map_err(|error| SourceError(error.to_string()))?;
        self.at += read as u64;
        Ok(read)
    }
}
