//! A ghost drive: every operation is done on the real device, now.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use copy::Holder;
use link::{Answer, CopyRange, LibraryReport, RangeSource, Work};
use model::{DeviceName, DeviceRole, JobId, LibraryName, SiteName};
use ndmp::tape::{Failure, FailureKind};
use scsi::{DeviceType, Sense};
use svs::JobState;
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Operation, Outcome, Position,
    ReadEnd, SpaceKind, Spaced, TapeDrive, TapeError, WriteEnd,
};

use super::reading::Reading;
use super::writing::{ForeignStream, Writing};
use super::{not_opened, way_lost};
use crate::engine::now_ms;
use crate::link::{LeaseHandle, RemoteSite};
use crate::mover::{
    Counters, EngineDrive, JobHandle, RangeEnd, RangeRequest, RangeTarget, RangeWritten, Run, Stop,
};

/// How long freeing it may take; after that the lease runs out by itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(600);
/// How often data is replicated again that the site said to have and does not.
const RESENDS: usize = 3;
/// How often reading ahead is begun again for one object.
const REREADS: usize = 16;

/// A drive of a remote site, opened by one session.
pub(super) struct GhostDrive {
    library: LibraryName,
    site: Arc<RemoteSite>,
    site_name: SiteName,
    /// Its name at its site.
    device: DeviceName,
    identity: DeviceIdentity,
    report: Arc<RwLock<LibraryReport>>,
    lease: Option<LeaseHandle>,
    /// Restarts of the remote engine that this session knows of.
    restarts: u64,
    /// It was reset, or its lease was lost: what comes next is told so first.
    attention: bool,
    /// Reading ahead pays: the longest record expected.
    read_ahead: Option<u32>,
    reading: Option<Reading>,
}

impl GhostDrive {
    /// Opens a drive of which the parts tell its name there, who it is, and the last report.
    pub(super) fn open(
        library: LibraryName,
        site: &Arc<RemoteSite>,
        parts: (DeviceName, DeviceIdentity, Arc<RwLock<LibraryReport>>),
        control: &Control,
    ) -> Result<Self, Failure> {
        let (device, identity, report) = parts;
        let unknown = || Failure::new(FailureKind::NoDevice, "the site was never met");
        let site_name = site.name().ok_or_else(unknown)?;
        let restarts = site.restarts();
        let lease = match site.open(device.clone(), control) {
            Ok(lease) => Some(lease),
            Err(error) => {
                let cause = error.to_string();
                if let Some(failure) = not_opened(error) {
                    return Err(failure);
                }
                tracing::warn!(%library, cause, "a ghost drive was opened and is not ready");
                None
            }
        };
        Ok(Self {
            library,
            site: Arc::clone(site),
            site_name,
            device,
            identity,
            report,
            lease,
            restarts,
            attention: false,
            read_ahead: None,
            reading: None,
        })
    }

    /// The lease; a new one if there is none (any more) and the site can be reached. A drive whose
    /// lease was lost may have been used by others: that is told before anything is done.
    fn lease(&mut self, control: &Control) -> Result<&mut LeaseHandle, TapeError> {
        if self.lease.as_ref().is_some_and(LeaseHandle::is_useless) {
            self.lease = None;
            self.attention = true;
        }
        let lease = match self.lease.take() {
            Some(lease) => lease,
            None => self.site.open(self.device.clone(), control).map_err(way_lost)?,
        };
        Ok(self.lease.insert(lease))
    }

    fn work(
        &mut self,
        work: Work,
        control: &Control,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Answer, TapeError> {
        self.settle(control)?;
        self.lease(control)?;
        // A range or a reading ahead proves the position by itself; everything else is told first
        // that the drive was reset.
        let meets = match &work {
            Work::Operation(operation) => super::meets_attention(operation),
            _ => false,
        };
        if meets || !matches!(work, Work::Operation(_)) {
            let known = std::mem::replace(&mut self.restarts, self.site.restarts());
            self.attention |= meets && known != self.restarts;
        }
        if meets && std::mem::take(&mut self.attention) {
            return Err(TapeError::Check(Sense::POWER_ON_RESET));
        }
        match self.lease(control)?.perform(work, control, progress)? {
            Answer::Failed(error) => Err(error),
            answer => Ok(answer),
        }
    }

    /// Takes back what was read ahead: the tape stands behind what was taken.
    fn settle(&mut self, control: &Control) -> Result<(), TapeError> {
        let (Some(reading), Some(lease)) = (self.reading.take(), &mut self.lease) else {
            return Ok(());
        };
        match reading.end(lease, control)? {
            None => Ok(()),
            Some(object) => {
                let locate = Work::Operation(Operation::Locate(object));
                match lease.perform(locate, control, &mut |_, _| {})? {
                    Answer::Failed(error) => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The next object of a stream that is read ahead.
    fn read_on(
        &mut self,
        record_max: u32,
        buffer: &mut [u8],
        control: &Control,
    ) -> Result<ReadEnd, TapeError> {
        for _ in 0..REREADS {
            if self.reading.as_ref().is_some_and(|reading| reading.record_max() < record_max) {
                self.settle(control)?;
            }
            if self.reading.is_none() {
                let begin = self.expected_object(control)?;
                let reading = Reading::begin(self.lease(control)?, record_max, begin, control)?;
                self.reading = Some(reading);
            }
            let store = &self.site.ground().store;
            let (Some(reading), Some(lease)) = (&mut self.reading, &self.lease) else {
                return Err(unexpected());
            };
            match reading.next(lease, store, buffer, control)? {
                Some(end @ (ReadEnd::Filemark | ReadEnd::EndOfData)) => {
                    self.settle(control)?;
                    return Ok(end);
                }
                Some(end) => return Ok(end),
                // It ended before the tape did: a limit, or a link that broke.
                None => self.settle(control)?,
            }
        }
        let cause = "reading ahead ends again and again before its first record";
        Err(TapeError::Unreachable(cause.into()))
    }

    fn perform(&mut self, operation: Operation, control: &Control) -> Result<Outcome, TapeError> {
        match self.work(Work::Operation(operation), control, &mut |_, _| {})? {
            Answer::Outcome(outcome) => Ok(outcome),
            _ => Err(unexpected()),
        }
    }

    fn expected_object(&mut self, control: &Control) -> Result<u64, TapeError> {
        match self.lease.as_ref().and_then(LeaseHandle::expected_object) {
            Some(object) => Ok(object),
            None => Ok(self.position(control)?.object),
        }
    }

    /// Sends a range once its generations are at the site.
    fn send_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> Result<link::RangeResult, TapeError> {
        let job = request.job.as_ref();
        let id = job.map_or_else(|| JobId::generate(now_ms()), |job| job.id());
        for _ in 0..RESENDS {
            self.replicate(request, control)?;
            let extents = request.extents.iter().map(|extent| link::Extent {
                generation: extent.generation,
                first_object: 0,
                offset_in_object: extent.offset,
                length: extent.length,
            });
            let range = CopyRange {
                job: id,
                source: RangeSource::Extents(extents.collect()),
                record_size: request.record_size,
                pad_last: request.pad_last,
                flush: false,
                ignore_early_warning: request.ignore_early_warning,
                expected_object: self.expected_object(control)?,
                verify: job.and_then(JobHandle::verify),
            };
            let answer = self.work(Work::Copy(range), control, &mut |bytes, _| progress(bytes))?;
            match answer {
                // Freed there meanwhile: it goes there again.
                Answer::Copied(result) if result.end == link::RangeEnd::NotReplicated => {
                    for extent in &request.extents {
                        let forgotten = self.site.replicator().forget(extent.generation);
                        forgotten.map_err(|error| TapeError::Unreachable(error.to_string()))?;
                    }
                }
                Answer::Copied(result) => return Ok(result),
                _ => return Err(unexpected()),
            }
        }
        let cause = "the site does not keep what is replicated to it; look at its store";
        Err(TapeError::Unreachable(cause.into()))
    }

    /// Waits until the site has every generation of the range.
    fn replicate(&self, request: &RangeRequest, control: &Control) -> Result<(), TapeError> {
        let job = request.job.as_ref();
        let mut waited = false;
        for extent in &request.extents {
            if self.site.replicator().is_done(extent.generation) {
                continue;
            }
            if let Some(job) = job {
                job.enter(JobState::WaitingReplication, Some("the data goes to the site first"));
            }
            waited = true;
            let mut tell = |text: String| {
                if let Some(job) = job {
                    job.tell(text);
                }
            };
            // A lease that ended meanwhile ends the wait: the drive is no longer ours.
            let alive = || self.lease.as_ref().map_or(Ok(()), LeaseHandle::check);
            self.site.replicator().ensure(extent.generation, control, &alive, &mut tell)?;
        }
        if let Some(job) = job.filter(|_| waited) {
            job.enter(JobState::InProgress, None);
        }
        Ok(())
    }
}

fn unexpected() -> TapeError {
    TapeError::Lost("the remote gave another answer".into())
}

impl Drop for GhostDrive {
    fn drop(&mut self) {
        // Free at once for the next one, if the site can be reached.
        if let Some(lease) = self.lease.take()
            && self.site.is_up()
            && let Err(error) = lease.close(&Control::within(CLOSE_TIMEOUT))
        {
            tracing::warn!(library = %self.library, %error, "a ghost drive was not closed cleanly");
        }
    }
}

impl RangeTarget for GhostDrive {
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten {
        let length: u64 = request.extents.iter().map(|extent| extent.length).sum();
        let rest = length % u64::from(request.record_size.max(1));
        let asked = if request.pad_last { length } else { length - rest };
        let result = match self.send_range(request, control, progress) {
            Ok(result) => result,
            Err(error) => {
                let end = RangeEnd::Failed(error);
                return RangeWritten { end, bytes: 0, early_warning: false };
            }
        };
        let bytes = result.bytes;
        let early_warning = result.end == link::RangeEnd::EarlyWarning;
        let end = match result.end {
            link::RangeEnd::Done => RangeEnd::Done,
            // The last record met it: whether that is the end of the medium for the copy is known
            // when something more wants to be written.
            link::RangeEnd::EarlyWarning if bytes == asked => RangeEnd::Done,
            link::RangeEnd::EarlyWarning => RangeEnd::EarlyWarning,
            link::RangeEnd::Overflow => RangeEnd::Overflow,
            link::RangeEnd::MediaError(sense) => RangeEnd::Failed(TapeError::Check(sense)),
            link::RangeEnd::Cancelled => RangeEnd::Failed(TapeError::Cancelled),
            link::RangeEnd::NotReplicated | link::RangeEnd::NotMine => {
                let cause = "the medium is not the remote engine's to write";
                RangeEnd::Failed(TapeError::Lost(cause.into()))
            }
        };
        RangeWritten { end, bytes, early_warning }
    }
}

impl EngineDrive for GhostDrive {
    fn holder(&self) -> Holder {
        Holder::RemoteDrive { site: self.site_name.clone(), reachable: self.site.is_up() }
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        self
    }

    fn medium_name(&mut self) -> String {
        let index = match self.device.role {
            DeviceRole::Drive(index) => usize::from(index),
            DeviceRole::Changer => usize::MAX,
        };
        let report = self.report.read().unwrap_or_else(PoisonError::into_inner);
        let drives = report.inventory.elements.iter();
        let element = report.drives.get(index).map(|drive| drive.element);
        let loaded = drives.filter(|e| Some(e.address) == element).find_map(|e| e.barcode.clone());
        let barcode = loaded.map_or_else(|| "-".to_owned(), |barcode| barcode.to_string());
        format!("{}/{barcode}", self.library)
    }

    /// The link has no reset. Giving the device back and taking it anew ends what this initiator
    /// holds there.
    fn reset(&mut self, control: &Control) -> Result<(), TapeError> {
        if !self.site.is_up() {
            return Err(TapeError::Check(Sense::new(0x02, 0x04, 0x00)));
        }
        self.reading = None;
        self.attention = true;
        self.lease.take().map_or(Ok(()), |lease| lease.close(control))
    }

    fn is_reachable(&self) -> bool {
        self.site.is_up()
    }

    fn begin_reading(&mut self, record_max: u32) {
        self.read_ahead = Some(record_max);
    }

    fn end_reading(&mut self, control: &Control) -> Result<(), TapeError> {
        self.read_ahead = None;
        self.settle(control)
    }

    fn takes_streams(&self) -> bool {
        self.lease.is_some()
    }

    fn write_stream(
        &mut self,
        stream: &mut ForeignStream,
        run: &Run,
        counters: &Counters,
    ) -> Option<Stop> {
        let expected = self.settle(&run.control).and_then(|()| self.expected_object(&run.control));
        let expected = match expected {
            Ok(expected) => expected,
            Err(error) => return Some(Stop::from_tape(&error)),
        };
        let lease = match self.lease(&run.control) {
            Ok(lease) => lease,
            Err(error) => return Some(Stop::from_tape(&error)),
        };
        Some(Writing { stream, lease, run, counters }.run(expected))
    }

    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        Some(self)
    }
}

impl TapeDrive for GhostDrive {
    fn identity(&self) -> DeviceIdentity {
        self.identity.clone()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        match self.perform(Operation::State, control)? {
            Outcome::State(state) => Ok(state),
            _ => Err(unexpected()),
        }
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        match self.perform(Operation::Position, control)? {
            Outcome::Position(position) => Ok(position),
            _ => Err(unexpected()),
        }
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Rewind, control).map(drop)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Locate(object), control).map(drop)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        match self.perform(Operation::Space(kind, count), control)? {
            Outcome::Spaced(spaced) => Ok(spaced),
            _ => Err(unexpected()),
        }
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        if let Some(record_max) = self.read_ahead {
            return self.read_on(record_max, buffer, control);
        }
        let max = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        match self.perform(Operation::Read(max), control)? {
            Outcome::Read(end, data) if data.len() <= buffer.len() => {
                buffer[..data.len()].copy_from_slice(&data);
                Ok(end)
            }
            _ => Err(unexpected()),
        }
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        match self.perform(Operation::Write(Bytes::copy_from_slice(record)), control)? {
            Outcome::Written(end) => Ok(end),
            _ => Err(unexpected()),
        }
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        match self.perform(Operation::WriteFilemarks(count), control)? {
            Outcome::Written(end) => Ok(end),
            _ => Err(unexpected()),
        }
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Load, control).map(drop)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Unload, control).map(drop)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        if !self.site.is_up() {
            return Ok(tape::target::offline(DeviceType::Tape, &self.identity, None, request));
        }
        match self.perform(Operation::Cdb(request.clone()), control) {
            Ok(Outcome::Completion(completion)) => Ok(completion),
            Ok(_) => Err(unexpected()),
            Err(TapeError::Check(sense)) => Ok(Completion::check(sense)),
            Err(error) => Err(error),
        }
    }
}
