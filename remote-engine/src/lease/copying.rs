//! Ranges of a copy: gate, place, records, flush; and the job row that follows them.

use std::time::{Duration, Instant};

use copy::proof::Proof;
use copy::run::{self, Noted, RangeOrder, Waits, write_noted};
use link::{Answer, CopyRange, EndReason, Extent, RangeEnd, RangeResult, RangeSource, Verify};
use model::{JobId, ObjectNumber};
use scsi::Sense;
use service::messages;
use store::Store;
use svs::{CopyPath, Ending, EventKind, JobState, Verified};
use tape::{Control, TapeError};

use super::seat::{Seat, behind};
use super::source::StoreBytes;
use crate::jobs::{NewCopy, Owner};

/// Progress is told after so many bytes or so much time, whichever is first.
const PROGRESS_BYTES: u64 = 4 << 20;
const PROGRESS_TIME: Duration = Duration::from_millis(100);
/// The job row follows at most so often.
const ROW_TIME: Duration = Duration::from_millis(500);
/// A copy whose drive waited for so long in all is told of: less is bridged by a drive's buffer.
const STARVED: Duration = Duration::from_secs(1);

/// How the last range of a copy ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// All of it is written.
    Done,
    /// At early warning or the end of the medium; the application decides.
    Full,
    /// By its holder.
    Cancelled,
    /// Nothing was written: the data is not here.
    Waiting,
    /// It failed.
    Failed(String),
}

/// A copy that this seat's drive writes.
#[derive(Clone, Debug)]
pub(super) struct Copying {
    pub(super) id: JobId,
    /// Bytes of the job that the drive answered GOOD, of this and former tapes.
    pub(super) bytes: u64,
    /// The place behind the last record.
    pub(super) object: ObjectNumber,
    pub(super) last: Last,
    /// Everything up to there is on the medium.
    pub(super) flushed: bool,
    /// How it is to be proven.
    pub(super) verify: Verify,
    /// The least proof of all that was flushed; `None` before the first flush.
    pub(super) verified: Option<Verified>,
    /// What is still to be read back.
    pub(super) proof: Proof,
    /// How often the drive had to wait for the store.
    pub(super) waits: Waits,
    /// Why what was read back is wrong.
    pub(super) fault: Option<String>,
    /// The last range was written to its end.
    pub(super) whole: bool,
    /// The row's note says that all of what was asked is on tape.
    pub(super) noted: bool,
    /// When the row was written last.
    pub(super) row: Instant,
}

/// What came of a range before it is an answer.
pub(super) struct Came {
    pub(super) end: Result<RangeEnd, TapeError>,
    /// Bytes and records on the tape, those written before a restart included.
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) flushed: bool,
    /// All of the range is on the tape.
    pub(super) whole: bool,
}

impl Came {
    /// Nothing was written.
    fn nothing(end: Result<RangeEnd, TapeError>) -> Self {
        Self { end, bytes: 0, records: 0, flushed: false, whole: false }
    }

    /// It failed before anything was written.
    pub(super) fn failed(error: TapeError) -> Self {
        Self::nothing(Err(error))
    }
}

/// The extents of a range; none for a stream.
fn extents(range: &CopyRange) -> &[Extent] {
    match &range.source {
        RangeSource::Extents(list) => list,
        RangeSource::Stream { .. } => &[],
    }
}

/// What a copy reads, for people.
fn source_name(seat: &Seat, range: &CopyRange) -> String {
    let Some(first) = extents(range).first() else {
        return format!("a mover at site {}", seat.site);
    };
    let info = seat.ground.store.generation(first.generation);
    let row = info.and_then(|info| seat.ground.catalogue.cartridge(info.cartridge).ok().flatten());
    row.map_or_else(
        || first.generation.to_string(),
        |row| format!("{}/{}", row.library, row.barcode),
    )
}

/// Whether every extent lies in a generation that is committed here: `None` if it can never be.
fn gate(store: &Store, extents: &[Extent]) -> Result<bool, TapeError> {
    for extent in extents {
        let Some(info) = store.generation(extent.generation) else { return Ok(false) };
        let end = extent.offset_in_object.checked_add(extent.length);
        if extent.first_object > info.objects || end.is_none_or(|end| end > info.bytes) {
            return Err(TapeError::Check(Sense::INVALID_FIELD_IN_PARAMETER_LIST));
        }
    }
    Ok(true)
}

impl Seat {
    /// Writes a range, of which `written` records are on the tape already.
    pub(super) fn copy(
        &mut self,
        range: &CopyRange,
        written: u64,
        control: &Control,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Answer {
        if let Err(error) = self.begin_copy(range, written, control) {
            return Answer::Failed(error);
        }
        let gate = gate(&self.ground.store, extents(range));
        if let Some(copying) = self.copying.as_mut().filter(|_| written > 0) {
            // What an earlier run of this engine wrote is not known well enough to be compared.
            copying.proof.miss();
        }
        let came = match gate {
            Err(error) => Came::failed(error),
            Ok(_) if self.is_frozen() => Came::failed(TapeError::Check(Sense::WRITE_PROTECTED)),
            Ok(_) if !self.is_ours() => Came::nothing(Ok(RangeEnd::NotMine)),
            Ok(false) => Came::nothing(Ok(RangeEnd::NotReplicated)),
            Ok(true) => match self.stands_at(range.expected_object, written, control) {
                Err(error) => Came::failed(error),
                Ok(()) => match &range.source {
                    RangeSource::Extents(list) => {
                        self.write_records(range, list, written, control, progress)
                    }
                    RangeSource::Stream { .. } => {
                        self.write_stream(range, written, control, progress)
                    }
                },
            },
        };
        self.note_range(range, &came);
        match came.end {
            Err(error) => Answer::Failed(error),
            Ok(end) => Answer::Copied(RangeResult {
                end,
                bytes: came.bytes,
                records: came.records,
                object: behind(range.expected_object, came.records),
                flushed: came.flushed,
            }),
        }
    }

    /// Writes the job's row before the work, and ends the copy that was written here before.
    fn begin_copy(
        &mut self,
        range: &CopyRange,
        written: u64,
        control: &Control,
    ) -> Result<(), TapeError> {
        if self.copying.as_ref().is_some_and(|copying| copying.id != range.job) {
            let flushed = self.flush(control);
            self.end_copy(EndReason::Closed, &flushed);
            flushed?;
        }
        if let Some(copying) = &self.copying {
            let (id, jobs) = (copying.id, &self.ground.jobs);
            if copying.noted {
                jobs.set_whole(id, false, copying.verified);
            }
            if copying.last == Last::Waiting {
                jobs.set_source(id, &source_name(self, range));
            }
            if copying.last != Last::Done {
                jobs.enter(id, JobState::InProgress, None);
            }
            return Ok(());
        }
        let barcode = self.ground.libraries.medium(&self.name).map(|(barcode, _)| barcode);
        let barcode = barcode.map_or("-".to_owned(), |barcode| barcode.to_string());
        let peers = self.ground.peers.connected();
        let engine = peers.iter().find(|peer| peer.site == self.site).map(|peer| peer.engine);
        let new = NewCopy {
            id: range.job,
            owner: Owner::new(self.site.clone(), engine, self.lease),
            source: source_name(self, range),
            target: format!("{}/{barcode}", self.name.library),
            generation: extents(range).first().map(|extent| extent.generation),
            path: match range.source {
                RangeSource::Extents(_) => CopyPath::Offloaded,
                RangeSource::Stream { .. } => CopyPath::Moved,
            },
        };
        let (before, verified) = self.ground.jobs.begin_copy(&new).map_err(|cause| {
            TapeError::Unreachable(format!("the job can not be written down: {cause}"))
        })?;
        // What a range interrupted by a restart had written is counted again by its result.
        let bytes = before.saturating_sub(written.saturating_mul(range.record_size.into()));
        self.copying = Some(Copying {
            id: range.job,
            bytes,
            object: range.expected_object,
            last: Last::Done,
            flushed: true,
            verify: range.verify.unwrap_or(self.ground.libraries.verify(&self.name.library)),
            verified,
            proof: Proof::default(),
            waits: Waits::default(),
            fault: None,
            whole: false,
            noted: false,
            row: Instant::now(),
        });
        Ok(())
    }

    /// Whether the medium in the drive is one that the library knows in this drive.
    fn is_ours(&self) -> bool {
        // An empty drive says so itself.
        self.ground.libraries.medium(&self.name).is_none_or(|(_, listed)| listed)
    }

    /// Lets the job's row follow a range that goes on.
    pub(super) fn row_follows(&mut self, bytes: u64) {
        if let Some(copying) = self.copying.as_mut().filter(|it| it.row.elapsed() >= ROW_TIME) {
            copying.row = Instant::now();
            self.ground.jobs.progress(copying.id, copying.bytes + bytes);
        }
    }

    /// Compares the drive's place with where it must be. A unit attention met here is the answer.
    pub(super) fn stands_at(
        &mut self,
        expected: ObjectNumber,
        written: u64,
        control: &Control,
    ) -> Result<(), TapeError> {
        let position = self.drive()?.position(control)?;
        let expected = behind(expected, written);
        match position.object == expected {
            true => Ok(()),
            false => Err(TapeError::PositionUnknown(format!(
                "the drive stands at object {}, not at {expected}",
                position.object
            ))),
        }
    }

    fn write_records(
        &mut self,
        range: &CopyRange,
        extents: &[Extent],
        written: u64,
        control: &Control,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Came {
        let total: u64 = extents.iter().map(|extent| extent.length).sum();
        let skip = written.saturating_mul(range.record_size.into()).min(total);
        let mut source =
            StoreBytes::new(self.ground.store.clone(), extents, skip, self.reader.take());
        let order = RangeOrder {
            record_size: range.record_size as usize,
            length: total - skip,
            pad_last: range.pad_last,
            flush: false,
            ignore_early_warning: range.ignore_early_warning,
        };
        let jobs = &self.ground.jobs;
        let job = self.copying.as_ref().map(|copying| (copying.id, copying.bytes));
        let copying = self.copying.as_mut().filter(|it| it.verify == Verify::Readback);
        let object = behind(range.expected_object, written);
        let noted = copying.map(|copying| Noted { proof: &mut copying.proof, object });
        let mut teller = Teller::new(|bytes, records| {
            progress(skip + bytes, written + records);
        });
        let mut row = Instant::now();
        let mut told = |bytes: u64, records: u64| {
            teller.tell(bytes, records);
            if let Some((id, before)) = job.filter(|_| row.elapsed() >= ROW_TIME) {
                row = Instant::now();
                jobs.progress(id, before + skip + bytes);
            }
        };
        let result = match self.device.as_mut().map(|device| &mut device.unit) {
            Some(service::unit::Unit::Drive(drive)) => {
                write_noted(drive.as_mut(), &mut source, order, control, &mut told, noted)
            }
            _ => run::RangeResult {
                end: run::RangeEnd::Drive(TapeError::Check(Sense::INVALID_OPERATION_CODE)),
                bytes: 0,
                records: 0,
                early_warning: false,
                waits: Waits::default(),
            },
        };
        if let Some(copying) = &mut self.copying {
            copying.waits = copying.waits.and(result.waits);
        }
        self.reader = source.into_reader();
        self.unflushed |= result.records > 0;
        let end = self.range_end(range, &result);
        let (bytes, records) = (skip + result.bytes, written + result.records);
        let size = u64::from(range.record_size);
        let whole = records == if range.pad_last { total.div_ceil(size) } else { total / size };
        let came = Came { end, bytes, records, flushed: false, whole };
        self.flush_range(range, came, control)
    }

    fn range_end(
        &self,
        range: &CopyRange,
        result: &run::RangeResult,
    ) -> Result<RangeEnd, TapeError> {
        Ok(match &result.end {
            // Whoever asked decides what early warning means, with the last record as well.
            run::RangeEnd::Done if result.early_warning && !range.ignore_early_warning => {
                RangeEnd::EarlyWarning
            }
            run::RangeEnd::Done => RangeEnd::Done,
            run::RangeEnd::EarlyWarning => RangeEnd::EarlyWarning,
            run::RangeEnd::Overflow => RangeEnd::Overflow,
            run::RangeEnd::Drive(TapeError::Check(sense)) => RangeEnd::MediaError(*sense),
            run::RangeEnd::Drive(TapeError::Cancelled) => RangeEnd::Cancelled,
            run::RangeEnd::Drive(error) => return Err(error.clone()),
            run::RangeEnd::Source(error) => {
                let words: [(&str, &dyn std::fmt::Display); 2] =
                    [("cartridge", &self.name), ("cause", error)];
                let id = messages::CHUNK_DAMAGED;
                messages::note(&self.ground.catalogue, EventKind::Store, id, &words, None);
                RangeEnd::MediaError(Sense::INTERNAL_TARGET_FAILURE)
            }
            run::RangeEnd::Refused(_) => return Err(TapeError::Check(Sense::INVALID_FIELD_IN_CDB)),
        })
    }

    /// Flushes where the range or its end asks for it, and proves the place behind it.
    pub(super) fn flush_range(&mut self, range: &CopyRange, came: Came, control: &Control) -> Came {
        let full = matches!(came.end, Ok(RangeEnd::EarlyWarning | RangeEnd::Overflow));
        if !(full || (range.flush && came.end == Ok(RangeEnd::Done))) {
            return came;
        }
        // Early warning was answered, so that a flush must not be cut short by a cancel.
        let control = Control { deadline: control.deadline, cancel: tape::CancelToken::new() };
        self.unflushed = true;
        let expected = behind(range.expected_object, came.records);
        let flushed = self.flush_only(&control).and_then(|_| match self.asks_for_position() {
            true => self.stands_at(expected, 0, &control),
            false => Ok(()),
        });
        match flushed.and_then(|()| self.prove(Some(expected))) {
            Ok(()) => Came { flushed: true, ..came },
            Err(TapeError::Check(sense)) => Came { end: Ok(RangeEnd::MediaError(sense)), ..came },
            Err(error) => Came { end: Err(error), ..came },
        }
    }

    /// Brings the copy and its row in line with what a range did.
    fn note_range(&mut self, range: &CopyRange, came: &Came) {
        let Some(copying) = &mut self.copying else { return };
        let jobs = &self.ground.jobs;
        copying.bytes = copying.bytes.saturating_add(came.bytes);
        copying.object = behind(range.expected_object, came.records);
        copying.flushed = came.flushed || (copying.flushed && came.records == 0);
        copying.whole = came.whole;
        copying.noted = false;
        let (id, bytes) = (copying.id, copying.bytes);
        jobs.progress(id, bytes);
        if came.flushed {
            jobs.flushed(id, copying.object, bytes);
        }
        copying.last = match &came.end {
            Ok(RangeEnd::Done) => Last::Done,
            Ok(RangeEnd::EarlyWarning | RangeEnd::Overflow) => Last::Full,
            Ok(RangeEnd::Cancelled) => Last::Cancelled,
            Ok(RangeEnd::NotReplicated | RangeEnd::NotMine) => Last::Waiting,
            Ok(RangeEnd::MediaError(sense)) => Last::Failed(sense.to_string()),
            Err(error) => Last::Failed(error.to_string()),
        };
        if let Some(fault) = &copying.fault {
            copying.last = Last::Failed(fault.clone());
        }
        match &copying.last {
            Last::Full => {
                jobs.enter(id, JobState::PausedEom, Some("the medium is full"));
                let words: [(&str, &dyn std::fmt::Display); 2] =
                    [("target", &self.name), ("bytes", &bytes)];
                let (subject, message) = (id.to_string(), messages::COPY_AT_END_OF_MEDIUM);
                let catalogue = &self.ground.catalogue;
                messages::note(catalogue, EventKind::Job, message, &words, Some(&subject));
            }
            Last::Waiting => {
                jobs.enter(id, JobState::WaitingReplication, Some("the data is not here yet"));
            }
            Last::Done | Last::Cancelled | Last::Failed(_) => {}
        }
        self.note_whole();
    }

    /// A flush made everything so far safe; `at` is where the drive stands, if that was asked.
    pub(super) fn copy_flushed(&mut self, at: Option<ObjectNumber>) {
        let Some(copying) = &mut self.copying else { return };
        if !copying.flushed {
            // Filemarks that the application wrote behind the records are safe as well.
            copying.object = at.unwrap_or(copying.object).max(copying.object);
            copying.flushed = true;
            self.ground.jobs.flushed(copying.id, copying.object, copying.bytes);
            self.note_whole();
        }
    }

    /// Notes that all of what was asked so far is safe, for the case that nothing more comes.
    fn note_whole(&mut self) {
        let Some(copying) = &mut self.copying else { return };
        let whole = match copying.last {
            Last::Done => true,
            Last::Full => copying.whole,
            _ => false,
        };
        if whole && copying.flushed && copying.fault.is_none() && !copying.noted {
            copying.noted = true;
            self.ground.jobs.set_whole(copying.id, true, copying.verified);
        }
    }

    /// Says how often the drive had to wait for the store, if it had to.
    fn tell_waits(&self, copying: &Copying) {
        let Waits { count, time } = copying.waits;
        if time >= STARVED {
            let milliseconds = time.as_millis();
            let words: [(&str, &dyn std::fmt::Display); 3] =
                [("target", &self.name), ("count", &count), ("milliseconds", &milliseconds)];
            let (subject, message) = (copying.id.to_string(), messages::COPY_STARVED);
            let catalogue = &self.ground.catalogue;
            messages::note(catalogue, EventKind::Job, message, &words, Some(&subject));
        }
    }

    /// The device is let go, or the next copy begins: the copy that was written here ends, unless
    /// it waits for its next tape.
    pub(super) fn end_copy(&mut self, why: EndReason, flushed: &Result<(), TapeError>) {
        let jobs = &self.ground.jobs;
        let Some(copying) = self.copying.take() else {
            // One of an earlier run of this engine, which nobody continued.
            return match why {
                EndReason::Closed => jobs.lease_closed(self.lease),
                _ => jobs.lease_lost(self.lease, false, why),
            };
        };
        let mut copying = copying;
        if let Some(fault) = copying.fault.take() {
            copying.last = Last::Failed(fault);
        }
        self.tell_waits(&copying);
        let jobs = &self.ground.jobs;
        let written = match copying.last {
            Last::Done => true,
            Last::Full => copying.whole,
            _ => false,
        };
        let complete = written && copying.flushed && flushed.is_ok();
        if why != EndReason::Closed {
            return jobs.lease_lost(self.lease, complete, why);
        }
        let bytes = Some(copying.bytes);
        match (copying.last, flushed) {
            (Last::Failed(cause), _) => {
                jobs.finish(copying.id, &Ending { bytes, ..Ending::failed(cause) });
            }
            (_, Err(error)) => {
                let cause = format!("the drive could not be flushed: {error}");
                jobs.finish(copying.id, &Ending { bytes, ..Ending::failed(cause) });
            }
            // Nor is it known here whether there is more for another drive.
            (Last::Done, Ok(())) => {
                let verified = copying.verified.unwrap_or(Verified::None);
                jobs.let_go(copying.id, copying.bytes, verified);
                self.ground.send_proof(&self.site, copying.id);
            }
            // The next tape comes with another lease, if there is more.
            (Last::Full, Ok(())) => {}
            (Last::Cancelled | Last::Waiting, Ok(())) => {
                let ending = Ending::cancelled(format!("given up by site {}", self.site));
                jobs.finish(copying.id, &Ending { bytes, ..ending });
            }
        }
    }
}

/// Passes progress on, now and then.
pub(super) struct Teller<F> {
    tell: F,
    bytes: u64,
    at: Instant,
}

impl<F: FnMut(u64, u64)> Teller<F> {
    pub(super) fn new(tell: F) -> Self {
        Self { tell, bytes: 0, at: Instant::now() }
    }

    pub(super) fn tell(&mut self, bytes: u64, records: u64) {
        if bytes - self.bytes >= PROGRESS_BYTES || self.at.elapsed() >= PROGRESS_TIME {
            (self.bytes, self.at) = (bytes, Instant::now());
            (self.tell)(bytes, records);
        }
    }
}
