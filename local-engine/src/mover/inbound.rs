//! From a data connection to a tape (mover mode READ).

use std::sync::Arc;

use copy::{Holder, Path, plan};
use model::SiteName;
use scsi::Sense;
use svs::JobState;
use tape::{TapeError, WriteEnd};

use super::connection::{Connection, Received, Source, SourceEnd};
use super::offload::{Offload, Tail};
use super::reference::{EngineDrive, Resolve};
use super::{Counters, Feed, JobHandle, Run, Stop};
use crate::ghost::ForeignStream;

/// What a destination needs of its engine to work with references.
#[derive(Clone)]
pub struct Surroundings {
    /// Whether cartridges may be replicated to a site.
    pub replicates_to: Arc<dyn Fn(&SiteName) -> bool + Send + Sync>,
    /// This engine's store.
    pub resolve: Arc<dyn Resolve>,
}

/// The destination end of a data connection: the connection and the bytes accepted but not yet on
/// a tape. They survive a pause and go first when the mover continues.
pub struct Inbound {
    connection: Connection,
    surroundings: Surroundings,
    /// Accepted bytes, at most a record. Empty while `tail` is not.
    pending: Vec<u8>,
    /// Accepted bytes by reference, less than a record.
    tail: Tail,
    ended: bool,
    /// Who gave last: what is left of it may go on another tape when it has closed.
    source: Option<SourceEnd>,
    /// Something was written that no flush of ours followed.
    dirty: bool,
    /// A foreign mover's bytes on their way to another site.
    stream: Option<ForeignStream>,
}

/// The state of one run.
struct Progress {
    moved: u64,
    past_early_warning: bool,
    /// What the planner said, and of which source.
    planned: Option<(SourceEnd, Path)>,
    /// The job knows of this tape.
    noted: bool,
}

impl Inbound {
    /// The destination end of `connection`.
    pub fn new(connection: Connection, surroundings: Surroundings) -> Self {
        Self {
            connection,
            surroundings,
            pending: Vec::new(),
            tail: Tail::default(),
            ended: false,
            source: None,
            dirty: false,
            stream: None,
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Bytes accepted that are on no tape yet.
    pub fn unwritten(&self) -> u64 {
        let stream = self.stream.as_ref().map_or(0, ForeignStream::unwritten);
        self.pending.len() as u64 + self.tail.length() + stream
    }

    /// Writes records to `drive` until something stops it. Only bytes whose WRITE was answered
    /// GOOD are counted; the padding of a last partial record is not. Before a stop at the end of
    /// the medium or of the stream, everything counted is flushed.
    pub fn run(&mut self, drive: &mut dyn EngineDrive, run: &Run, counters: &Counters) -> Stop {
        let before = counters.get().0;
        let stop = match self.by_stream(drive) {
            Ok(true) => self.write_stream(drive, run, counters),
            Ok(false) => self.write_records(drive, run, counters),
            Err(stop) => stop,
        };
        if let Some(splice) = self.connection.splice() {
            splice.destination_stops();
        }
        self.dirty |= counters.get().0 > before;
        let (stop, flushed) = match stop {
            Stop::EndOfMedium | Stop::PeerClosed => match self.flush(drive, run) {
                Ok(object) => (stop, object),
                Err(failed) => (failed, None),
            },
            other => (other, None),
        };
        let stop = if run.control.cancel.is_cancelled() { Stop::Cancelled } else { stop };
        if let Some(job) = &run.job {
            if let Some(object) = flushed {
                job.flushed(object, counters.get().0);
            }
            let whole = !self.connection.splice().is_some_and(|splice| splice.is_broken());
            note_stop(job, &stop, whole, counters.get().0);
        }
        stop
    }

    /// Everything written is on the medium when this returns, which stands behind the object
    /// returned.
    fn flush(&mut self, drive: &mut dyn EngineDrive, run: &Run) -> Result<Option<u64>, Stop> {
        let (tape, control) = (drive.tape(), &run.control);
        // The place first: so a unit attention is never met by a look that nobody hears of.
        let flushed = tape
            .position(control)
            .and_then(|at| Ok((at.object, tape.write_filemarks(0, control)?)));
        match flushed {
            Ok((_, WriteEnd::Overflow)) => {
                Err(Stop::from_tape(&TapeError::Check(Sense::VOLUME_OVERFLOW)))
            }
            Ok((object, _)) => {
                self.dirty = false;
                Ok(Some(object))
            }
            // No tape, or a protected one, and nothing was written to it.
            Err(TapeError::Check(sense)) if !self.dirty && matches!(sense.key, 0x02 | 0x07) => {
                Ok(None)
            }
            Err(error) => Err(Stop::from_tape(&error)),
        }
    }

    /// Whether the bytes of a foreign mover go to another site as a stream. Once they do, they go
    /// on so: what the stream holds is nowhere else.
    fn by_stream(&mut self, drive: &mut dyn EngineDrive) -> Result<bool, Stop> {
        let takes = drive.takes_streams();
        match (&self.connection, &self.stream) {
            (Connection::Splice(_), _) | (_, None) if !takes => Ok(false),
            (Connection::Splice(_), _) => Ok(false),
            (_, Some(stream)) if !takes && stream.unwritten() > 0 => {
                let cause = "bytes received for another site can not be written to this drive";
                Err(Stop::internal(cause))
            }
            (_, Some(_)) => Ok(takes),
            // Bytes that were received record by record are written so first.
            (_, None) if !self.pending.is_empty() => Ok(false),
            (Connection::Tcp(stream), None) => {
                let feed = stream.try_clone().and_then(Feed::start);
                let feed = feed.map_err(|error| Stop::Connection(error.to_string()))?;
                self.stream = Some(ForeignStream::new(feed));
                Ok(true)
            }
        }
    }

    fn write_stream(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        counters: &Counters,
    ) -> Stop {
        let source = SourceEnd { holder: Holder::Foreign, medium: "a mover elsewhere".into() };
        if let Err(stop) = self.plan(&source, drive, run) {
            return stop;
        }
        let stream = self.stream.as_mut();
        let stop = stream.and_then(|stream| drive.write_stream(stream, run, counters));
        stop.unwrap_or_else(|| Stop::internal("the drive takes no streams"))
    }

    fn write_records(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        counters: &Counters,
    ) -> Stop {
        let mut progress =
            Progress { moved: 0, past_early_warning: false, planned: None, noted: false };
        loop {
            let step = match self.by_reference(drive, run, &mut progress) {
                Ok(true) => self.step_by_reference(drive, run, counters, &mut progress),
                Ok(false) => self.step_by_bytes(drive, run, counters, &mut progress),
                Err(stop) => Some(stop),
            };
            if let Some(job) = &run.job {
                job.progress(counters.get().0);
            }
            if let Some(stop) = step {
                return stop;
            }
        }
    }

    /// Asks the planner when the source is new, and writes the job down. Accepted bytes that fill
    /// no record are completed by bytes first.
    fn by_reference(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        progress: &mut Progress,
    ) -> Result<bool, Stop> {
        // A record that is whole goes first, whatever the source does meanwhile.
        if self.ended || self.pending.len() >= run.record_size {
            self.note_rest(drive, run, progress)?;
            return Ok(false);
        }
        let source = match self.connection.splice().map(|splice| splice.source()) {
            Some(Source::Running(end)) => end,
            Some(Source::Closed) => {
                progress.planned = None;
                self.note_rest(drive, run, progress)?;
                return Ok(self.tail.length() > 0 && drive.range_target().is_some());
            }
            None => SourceEnd { holder: Holder::Foreign, medium: "a mover elsewhere".into() },
        };
        let path = match &progress.planned {
            Some((planned, path)) if *planned == source => *path,
            _ => {
                let path = self.plan(&source, drive, run)?;
                self.source = Some(source.clone());
                (progress.planned, progress.noted) = (Some((source, path)), true);
                path
            }
        };
        let can = path == Path::Offloaded && self.pending.is_empty();
        Ok(can && drive.range_target().is_some())
    }

    /// What was accepted before goes on this tape, though its source gives nothing now: the job has
    /// to know of the tape all the same.
    fn note_rest(
        &self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        let rest = !self.pending.is_empty() || self.tail.length() > 0;
        match self.source.as_ref().filter(|_| rest && !progress.noted) {
            Some(source) => self.plan(source, drive, run).map(drop)?,
            None => return Ok(()),
        }
        progress.noted = true;
        Ok(())
    }

    fn plan(
        &self,
        source: &SourceEnd,
        drive: &mut dyn EngineDrive,
        run: &Run,
    ) -> Result<Path, Stop> {
        let replicates = &self.surroundings.replicates_to;
        let target = drive.holder();
        let plan = plan(&source.holder, &target, |site| replicates(site));
        // A backup that comes over the network into a virtual tape is no copy.
        let is_copy = source.holder != Holder::Foreign || target != Holder::Store;
        if let Some(job) = run.job.as_ref().filter(|_| is_copy) {
            job.begin(&source.medium, &drive.medium_name(), &plan).map_err(Stop::internal)?;
            job.enter(JobState::InProgress, None);
        }
        Ok(plan.path)
    }

    fn step_by_reference(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        counters: &Counters,
        progress: &mut Progress,
    ) -> Option<Stop> {
        let splice = Arc::clone(self.connection.splice()?);
        let mut offload = Offload {
            drive,
            splice: &splice,
            source: progress.planned.as_ref().map(|(source, _)| source),
            run,
            counters,
            moved: progress.moved,
            past_early_warning: progress.past_early_warning,
        };
        let stop = offload.step(&mut self.tail);
        let (moved, past_early_warning) = (offload.moved, offload.past_early_warning);
        (progress.moved, progress.past_early_warning) = (moved, past_early_warning);
        stop
    }

    fn step_by_bytes(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        counters: &Counters,
        progress: &mut Progress,
    ) -> Option<Stop> {
        let left = run.limit.map(|limit| limit.saturating_sub(progress.moved));
        let window_full = left.is_some_and(|left| left < run.record_size as u64);
        // A full window is noticed when a byte wants to go beyond it, not before.
        if let Err(stop) = self.receive(if window_full { 1 } else { run.record_size }) {
            return Some(stop);
        }
        if self.pending.is_empty() {
            return Some(Stop::PeerClosed);
        }
        if window_full {
            return Some(Stop::Limit);
        }
        if progress.past_early_warning {
            return Some(Stop::EndOfMedium);
        }
        let payload = self.pending.len();
        // Only the last record of a stream can be partial; it is padded (NDMP mover, close).
        self.pending.resize(run.record_size, 0);
        let control = &run.control;
        let written = control.check().and_then(|()| drive.write(&self.pending, control));
        match written {
            Ok(WriteEnd::Written) => {}
            Ok(WriteEnd::EarlyWarning) => {
                progress.past_early_warning = !run.ignore_early_warning;
            }
            Ok(WriteEnd::Overflow) | Err(_) => {
                self.pending.truncate(payload);
                return Some(written.err().map_or(Stop::EndOfMedium, |e| Stop::from_tape(&e)));
            }
        }
        self.pending.clear();
        progress.moved += payload as u64;
        counters.add(payload as u64, 1);
        None
    }

    /// Buffers at least `wanted` bytes, fewer only at the end of the stream.
    fn receive(&mut self, wanted: usize) -> Result<(), Stop> {
        for extent in std::mem::take(&mut self.tail.0) {
            let bytes = self.surroundings.resolve.read(extent).map_err(Stop::internal)?;
            self.pending.extend_from_slice(&bytes);
        }
        while self.pending.len() < wanted && !self.ended {
            match self.connection.receive(&mut self.pending, wanted)? {
                Received::Data => {}
                Received::End => self.ended = true,
            }
        }
        Ok(())
    }
}

/// Brings the job row in line with how a run ended. A cancelled one is ended by its session, once
/// what it leaves behind is flushed.
fn note_stop(job: &JobHandle, stop: &Stop, whole: bool, bytes: u64) {
    match stop {
        Stop::EndOfMedium => job.paused_at_end_of_medium(bytes),
        Stop::PeerClosed if whole => job.done(bytes),
        Stop::PeerClosed => job.failed("the source's mover was aborted"),
        Stop::Media(failure) | Stop::Internal(failure) => job.failed(&failure.text),
        Stop::Connection(cause) => job.failed(cause),
        Stop::Cancelled | Stop::Limit | Stop::Filemark | Stop::EndOfData => {}
    }
}
