//! A foreign mover's bytes on their way to a ghost drive: deduplicated, pipelined, bounded by the
//! stream's credit. What was received and is not on tape survives a pause and goes first after it.

use std::sync::Arc;

use link::{
    Answer, ClientEvent, CopyRange, RangeEnd, RangeSource, StreamId, StreamSender,
    StreamSenderOutput, Work,
};
use model::{JobId, LeaseId, Ulid};
use tape::{Control, TapeError};

use crate::engine::now_ms;
use crate::link::{DeviceEvent, LeaseHandle, RemoteSite};
use crate::mover::{Counters, Fed, Feed, Run, Stop};

/// What a stream from a foreign mover keeps between runs.
pub struct ForeignStream {
    feed: Feed,
    sender: Option<StreamSender>,
    /// The site that the stream goes to, and the lease that it was last written under.
    site: Option<Arc<RemoteSite>>,
    lease: Option<LeaseId>,
    /// Bytes of the stream that are on tape.
    written: u64,
    /// A piece that found no room.
    held: Option<bytes::Bytes>,
}

impl ForeignStream {
    /// A stream that begins.
    pub fn new(feed: Feed) -> Self {
        let (sender, site, lease, held) = (None, None, None, None);
        Self { feed, sender, site, lease, written: 0, held }
    }

    /// Bytes received that are on no tape.
    pub fn unwritten(&self) -> u64 {
        let held = self.held.as_ref().map_or(0, |piece| piece.len() as u64);
        self.sender.as_ref().map_or(0, |sender| sender.pushed() - self.written) + held
    }
}

impl Drop for ForeignStream {
    /// What is not on tape never will be: the other site need not keep it.
    fn drop(&mut self) {
        let (Some(site), Some(sender)) = (&self.site, &self.sender) else { return };
        if !(sender.is_finished() && sender.pushed() == self.written) {
            site.give_up_stream(sender.stream(), "the copy has ended");
        }
    }
}

/// One run of a foreign stream into a ghost drive.
pub(super) struct Writing<'a> {
    pub(super) stream: &'a mut ForeignStream,
    pub(super) lease: &'a mut LeaseHandle,
    pub(super) run: &'a Run,
    pub(super) counters: &'a Counters,
}

impl Writing<'_> {
    /// Writes until window, medium or stream end. `expected` is where the drive stands.
    pub(super) fn run(mut self, expected: u64) -> Stop {
        match self.begin().and_then(|id| self.write(id, expected)) {
            Ok(stop) | Err(stop) => {
                self.stream.feed.wake_by(None);
                stop
            }
        }
    }

    fn begin(&mut self) -> Result<StreamId, Stop> {
        let site = self.lease.site();
        if self.stream.site.as_ref().is_some_and(|former| !Arc::ptr_eq(former, site)) {
            let cause = "the bytes received for another site can not be taken to this one";
            return Err(Stop::internal(cause));
        }
        self.stream.site = Some(Arc::clone(site));
        let new = || StreamSender::new(StreamId(Ulid::generate(now_ms())));
        let lease = self.lease.id();
        let former = self.stream.lease.replace(lease);
        let sender = self.stream.sender.get_or_insert_with(new);
        let id = sender.stream();
        self.lease.join_stream(id);
        if former.is_some_and(|former| former != lease) {
            // What the receiver said in between went nowhere: it is asked anew where it stands.
            sender.on_disconnect();
            sender.on_reconnect().map_err(|error| Stop::internal(error.to_string()))?;
        }
        let waker = self.lease.waker();
        self.stream.feed.wake_by(waker);
        Ok(id)
    }

    fn write(&mut self, id: StreamId, expected: u64) -> Result<Stop, Stop> {
        if self.run.limit.is_some_and(|limit| limit < self.run.record_size as u64) {
            return self.wait_for_more();
        }
        let job = self.run.job.as_ref();
        let range = CopyRange {
            job: job.map_or_else(|| JobId::generate(now_ms()), |job| job.id()),
            source: RangeSource::Stream {
                stream: id,
                from: self.stream.written,
                length: self.run.limit.unwrap_or(u64::MAX - self.stream.written),
            },
            record_size: self.run.record_size as u32,
            pad_last: true,
            flush: false,
            ignore_early_warning: self.run.ignore_early_warning,
            expected_object: expected,
            verify: job.and_then(|job| job.verify()),
        };
        self.lease.submit(&Work::Copy(range), &self.run.control).map_err(stop)?;
        let before = self.stream.written;
        let mut told = (0, 0);
        let (result, broken) = self.await_range(&mut told)?;
        let result = match result {
            Answer::Copied(result) => result,
            Answer::Failed(error) => return Err(stop(error)),
            _ => return Err(Stop::internal("the remote gave another answer")),
        };
        self.progress(&mut told, result.bytes, result.records);
        self.stream.written = before + result.bytes;
        if let Some(stop) = broken {
            return Err(stop);
        }
        match result.end {
            RangeEnd::Done => self.wait_for_more(),
            RangeEnd::EarlyWarning => {
                let record = self.run.record_size as u64;
                let full = self.run.limit.is_some_and(|limit| limit - result.bytes < record);
                // Whether that is the end of the medium is known when something more wants to be
                // written.
                match self.wait_for_more()? {
                    Stop::Limit if !full => Ok(Stop::EndOfMedium),
                    stop => Ok(stop),
                }
            }
            RangeEnd::Overflow => Ok(Stop::EndOfMedium),
            RangeEnd::MediaError(sense) => Ok(Stop::from_tape(&TapeError::Check(sense))),
            RangeEnd::Cancelled => Ok(Stop::Cancelled),
            RangeEnd::NotReplicated | RangeEnd::NotMine => {
                Ok(Stop::internal("the remote engine does not write this medium"))
            }
        }
    }

    /// Feeds the range until it is answered. When the connection or the stream breaks, or the run
    /// is cancelled, the range is ended at a record boundary and answered all the same: the answer,
    /// and what broke.
    fn await_range(&mut self, told: &mut (u64, u64)) -> Result<(Answer, Option<Stop>), Stop> {
        let (mut broken, mut ending) = (None, false);
        loop {
            if broken.is_none() {
                broken = self.push().err();
            }
            if !ending && (broken.is_some() || self.run.control.cancel.is_cancelled()) {
                ending = true;
                self.lease.cancel(None);
            }
            if ending && !self.lease.site().is_up() {
                return Err(broken.unwrap_or(Stop::Cancelled));
            }
            let patient = Control::within(self.run.control.remaining());
            let control = if ending { &patient } else { &self.run.control };
            let event = match self.lease.next_event(control) {
                Err(TapeError::Cancelled) => continue,
                other => other.map_err(stop)?,
            };
            match event {
                DeviceEvent::Lease(ClientEvent::Progress { bytes, records, .. }) => {
                    self.progress(told, bytes, records);
                }
                DeviceEvent::Lease(ClientEvent::Answered { answer, .. }) => {
                    return Ok((answer, broken));
                }
                DeviceEvent::Lease(ClientEvent::Ended { why, .. }) => {
                    return Err(stop(TapeError::Lost(why.to_string())));
                }
                other => {
                    if let Err(stop) = self.stream_event(other) {
                        broken.get_or_insert(stop);
                    }
                }
            }
        }
    }

    fn is_finished(&self) -> bool {
        let sender = self.stream.sender.as_ref();
        self.stream.held.is_none()
            && sender.is_some_and(|s| s.is_finished() && s.pushed() == self.stream.written)
    }

    fn progress(&self, told: &mut (u64, u64), bytes: u64, records: u64) {
        let (bytes, records) = (bytes.max(told.0), records.max(told.1));
        self.counters.add(bytes - told.0, records - told.1);
        *told = (bytes, records);
        if let Some(job) = &self.run.job {
            job.progress(self.counters.get().0);
        }
    }

    /// The window is full: whether a byte wants to go beyond it, or the stream ends here.
    fn wait_for_more(&mut self) -> Result<Stop, Stop> {
        loop {
            self.push()?;
            if self.is_finished() {
                return Ok(Stop::PeerClosed);
            }
            if self.stream.unwritten() > 0 {
                return Ok(Stop::Limit);
            }
            let event = self.lease.next_event(&self.run.control).map_err(stop)?;
            self.stream_event(event)?;
        }
    }

    fn stream_event(&mut self, event: DeviceEvent) -> Result<(), Stop> {
        let Some(sender) = &mut self.stream.sender else { return Ok(()) };
        let result = match event {
            // Of a stream that is over.
            DeviceEvent::Stream(message) if message.stream != sender.stream() => Ok(()),
            DeviceEvent::Stream(message) => sender.handle(message.body),
            DeviceEvent::Down => {
                sender.on_disconnect();
                Ok(())
            }
            DeviceEvent::Up => sender.on_reconnect(),
            DeviceEvent::Woken | DeviceEvent::Lease(_) => Ok(()),
        };
        result.map_err(|error| Stop::internal(error.to_string()))
    }

    /// Takes what the connection has, as far as the stream has room, and sends what can go.
    fn push(&mut self) -> Result<(), Stop> {
        let Some(sender) = &mut self.stream.sender else { return Ok(()) };
        while !sender.is_finished() {
            let piece = match self.stream.held.take() {
                Some(piece) => piece,
                None => match self.stream.feed.take() {
                    Fed::Piece(piece) => piece,
                    Fed::Nothing => break,
                    Fed::End => {
                        sender.finish();
                        break;
                    }
                    Fed::Broken(cause) => return Err(Stop::Connection(cause)),
                },
            };
            if sender.room() < piece.len() as u64 {
                self.stream.held = Some(piece);
                break;
            }
            sender.push(&piece).map_err(|error| Stop::internal(error.to_string()))?;
            let end = self.run.limit.map(|limit| self.stream.written + limit);
            if end.is_some_and(|end| sender.pushed() >= end) {
                // The last record of the window must not wait for a chunk to become full.
                sender.flush();
            }
        }
        while let Some(output) = sender.poll() {
            match output {
                StreamSenderOutput::Send(message) => self.lease.send_stream(message),
                StreamSenderOutput::Done => {}
                StreamSenderOutput::Failed(error) => {
                    return Err(Stop::internal(error.to_string()));
                }
            }
        }
        Ok(())
    }
}

fn stop(error: TapeError) -> Stop {
    Stop::from_tape(&error)
}
