//! Reading a far tape ahead: the remote engine reads records into a stream, and only chunks that
//! are not in this engine's store travel.

use link::{
    Answer, ClientEvent, Item, ReadEndReason, ReadRange, ReadResult, Stream, StreamBody, StreamId,
    StreamReceiver, StreamReceiverOutput, Work,
};
use model::{JobId, Ulid};
use store::Store;
use tape::{Control, ReadEnd, TapeError};

use crate::engine::now_ms;
use crate::link::{DeviceEvent, LeaseHandle};

/// Objects asked for at once; a filemark, the end of data or the reader ends it before.
const OBJECTS_MAX: u64 = 1 << 32;

/// A read range under way.
pub(super) struct Reading {
    stream: StreamId,
    receiver: StreamReceiver,
    record_max: u32,
    /// The object number where it began.
    begin: u64,
    /// Objects taken since.
    taken: u64,
    /// How the range ended there.
    answer: Option<Result<ReadResult, TapeError>>,
    /// The link broke: the stream is gone, what was not taken is read again.
    broken: bool,
}

impl Reading {
    /// Begins where the drive stands.
    pub(super) fn begin(
        lease: &LeaseHandle,
        record_max: u32,
        begin: u64,
        control: &Control,
    ) -> Result<Self, TapeError> {
        let stream = StreamId(Ulid::generate(now_ms()));
        lease.join_stream(stream);
        let range = ReadRange {
            job: JobId::generate(now_ms()),
            stream,
            expected_object: begin,
            objects_max: OBJECTS_MAX,
            record_max,
            before_filemark: false,
        };
        lease.submit(&Work::Read(range), control)?;
        let receiver = StreamReceiver::new(stream, 0);
        let (taken, answer, broken) = (0, None, false);
        Ok(Self { stream, receiver, record_max, begin, taken, answer, broken })
    }

    /// The longest record that it takes.
    pub(super) fn record_max(&self) -> u32 {
        self.record_max
    }

    /// The next object, `None` when the range has ended and another one must begin.
    pub(super) fn next(
        &mut self,
        lease: &LeaseHandle,
        store: &Store,
        buffer: &mut [u8],
        control: &Control,
    ) -> Result<Option<ReadEnd>, TapeError> {
        loop {
            self.pump(lease, store);
            if let Some(item) = self.receiver.peek_item() {
                return self.take(&item, buffer).map(Some);
            }
            if self.broken {
                return Ok(None);
            }
            if let Some(end) = self.ended()? {
                return Ok(end);
            }
            self.wait(lease, control)?;
        }
    }

    fn take(&mut self, item: &Item, buffer: &mut [u8]) -> Result<ReadEnd, TapeError> {
        let end = match item {
            Item::Record(record) => {
                let length = record.len().min(buffer.len());
                buffer[..length].copy_from_slice(&record[..length]);
                ReadEnd::Record { length: record.len() }
            }
            Item::Filemark => ReadEnd::Filemark,
        };
        self.receiver.consume_item().map_err(|error| TapeError::Lost(error.to_string()))?;
        self.taken += 1;
        Ok(end)
    }

    /// What the end of the range means once everything in the stream was taken.
    fn ended(&mut self) -> Result<Option<Option<ReadEnd>>, TapeError> {
        let result = match &self.answer {
            None => return Ok(None),
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(result)) => *result,
        };
        if self.taken < result.records {
            // The rest of the stream is still on its way.
            return Ok(None);
        }
        Ok(Some(match result.end {
            ReadEndReason::Filemark => {
                // The drive has read over it, and so has whoever reads here.
                self.taken = result.object.saturating_sub(self.begin);
                Some(ReadEnd::Filemark)
            }
            ReadEndReason::EndOfData => Some(ReadEnd::EndOfData),
            ReadEndReason::MediaError(sense) => return Err(TapeError::Check(sense)),
            ReadEndReason::Limit | ReadEndReason::Cancelled => None,
        }))
    }

    fn wait(&mut self, lease: &LeaseHandle, control: &Control) -> Result<(), TapeError> {
        match lease.next_event(control)? {
            // Of a reading that is over.
            DeviceEvent::Stream(message) if message.stream != self.stream => Ok(()),
            DeviceEvent::Stream(message) => self
                .receiver
                .handle(message.body)
                .map_err(|error| TapeError::Lost(error.to_string())),
            DeviceEvent::Down => {
                self.broken = true;
                Ok(())
            }
            DeviceEvent::Lease(event) => self.lease_event(event),
            DeviceEvent::Up | DeviceEvent::Woken => Ok(()),
        }
    }

    fn lease_event(&mut self, event: ClientEvent) -> Result<(), TapeError> {
        match event {
            ClientEvent::Answered { answer: Answer::Read(result), .. } => {
                self.answer = Some(Ok(result));
                Ok(())
            }
            ClientEvent::Answered { answer: Answer::Failed(error), .. } => {
                self.answer = Some(Err(error));
                Ok(())
            }
            ClientEvent::Ended { why, .. } => Err(TapeError::Lost(why.to_string())),
            _ => Ok(()),
        }
    }

    fn pump(&mut self, lease: &LeaseHandle, store: &Store) {
        while let Some(output) = self.receiver.poll() {
            match output {
                StreamReceiverOutput::Send(message) => lease.send_stream(message),
                StreamReceiverOutput::NeedMissing { sequence, digests } => {
                    self.receiver.missing(sequence, &store.missing(&digests));
                }
                StreamReceiverOutput::ReadChunk { digest } => {
                    let bytes = store.chunk(&digest).ok().map(Into::into);
                    self.receiver.chunk(digest, bytes);
                }
                // The range's own answer says why.
                StreamReceiverOutput::Failed(error) => {
                    tracing::warn!(%error, "a stream from a far tape has ended");
                    self.broken = true;
                }
            }
        }
    }

    /// The other side need not keep the stream any longer: it may not have heard yet that all of it
    /// was taken.
    fn leave(&mut self, lease: &LeaseHandle) {
        lease.leave_stream(self.stream);
        let body = StreamBody::Abort("it was read".to_owned());
        lease.send_stream(Stream { stream: self.stream, body });
    }

    /// Ends the range and says where the tape has to stand, if it does not stand there already.
    pub(super) fn end(
        mut self,
        lease: &mut LeaseHandle,
        control: &Control,
    ) -> Result<Option<u64>, TapeError> {
        let wanted = self.begin + self.taken;
        if self.answer.is_none() {
            lease.cancel(Some(self.taken));
            let answer = lease.await_answer(control, &mut |_, _| {});
            self.leave(lease);
            self.answer = match answer? {
                Answer::Read(result) => Some(Ok(result)),
                Answer::Failed(error) => Some(Err(error)),
                _ => None,
            };
        } else {
            self.leave(lease);
        }
        match self.answer {
            Some(Ok(result)) if result.object == wanted => Ok(None),
            // Another tape, a reset, a place that nobody knows: not to be glossed over by going
            // back to where this one stood.
            Some(Err(TapeError::Check(sense))) if sense.key == 0x06 => Err(TapeError::Check(sense)),
            Some(Err(
                error @ (TapeError::Lost(_)
                | TapeError::PositionUnknown(_)
                | TapeError::ReservationConflict),
            )) => Err(error),
            // What stopped the reading ahead was met behind what was taken.
            _ => Ok(Some(wanted)),
        }
    }
}
