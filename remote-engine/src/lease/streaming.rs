//! Ranges whose bytes come from a stream, and reading ahead into one.

use std::collections::VecDeque;
use std::sync::Arc;

use copy::proof::digest;
use link::{Answer, CopyRange, RangeEnd, RangeSource, ReadEndReason, ReadRange, ReadResult};
use scsi::Sense;
use tape::{Control, ReadEnd, TapeError, WriteEnd};

use super::copying::{Came, Teller};
use super::seat::{Seat, behind};
use crate::stream::{Entry, Next};

/// The records read ahead that the other side has not taken.
#[derive(Default)]
struct Ahead {
    /// Lengths of the newest records.
    lengths: VecDeque<u32>,
    /// Their bytes.
    bytes: u64,
    /// Records and bytes read in all.
    records: u64,
    total: u64,
}

impl Ahead {
    fn push(&mut self, length: usize) {
        self.lengths.push_back(u32::try_from(length).unwrap_or(u32::MAX));
        self.bytes += length as u64;
        self.records += 1;
        self.total += length as u64;
    }

    /// Forgets what was taken for certain.
    fn trim(&mut self, taken: u64) {
        while let Some(first) = self.lengths.front().map(|length| u64::from(*length)) {
            if self.total - self.bytes + first > taken {
                break;
            }
            self.bytes -= first;
            self.lengths.pop_front();
        }
    }

    /// The bytes of the first `records` records.
    fn bytes_of(&self, records: u64) -> u64 {
        let rest = usize::try_from(self.records.saturating_sub(records)).unwrap_or(usize::MAX);
        let not_taken = self.lengths.iter().rev().take(rest).map(|length| u64::from(*length));
        self.total - not_taken.sum::<u64>()
    }
}

/// The stream that was read into, over when this is dropped: what nobody took is kept no longer.
pub(super) struct ReadAhead(Arc<Entry>);

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.0.abort("nobody reads it any more");
    }
}

impl Seat {
    /// Writes records of a stream as they arrive, behind the `written` ones that are on tape.
    /// Only at the end of the stream a record may be short: then it is padded, if that was asked.
    pub(super) fn write_stream(
        &mut self,
        range: &CopyRange,
        written: u64,
        control: &Control,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Came {
        let RangeSource::Stream { stream, from, length } = &range.source else {
            return Came::failed(TapeError::Check(Sense::INVALID_OPERATION_CODE));
        };
        let size = u64::from(range.record_size);
        let skip = written.saturating_mul(size).min(*length);
        let start = from.saturating_add(skip);
        let streams = &self.ground.streams;
        let entry = streams.receive(&self.site, *stream, start, &self.ground.store);
        let mut came = Came {
            end: Ok(RangeEnd::Done),
            bytes: skip,
            records: written,
            flushed: false,
            whole: false,
        };
        if let Err(cause) = entry.seek(start, &control.cancel) {
            came.end = match control.cancel.is_cancelled() {
                true => Ok(RangeEnd::Cancelled),
                false => Err(TapeError::Unreachable(format!("the stream is not here: {cause}"))),
            };
            return came;
        }
        let mut teller = Teller::new(progress);
        while came.end == Ok(RangeEnd::Done) {
            let Some(left) = length.checked_sub(came.bytes).filter(|left| *left >= size) else {
                break;
            };
            if !self.write_next(range, &entry, left, control, &mut came) {
                break;
            }
            teller.tell(came.bytes, came.records);
            self.row_follows(came.bytes);
        }
        entry.credit();
        self.unflushed |= came.records > written;
        self.flush_range(range, came, control)
    }

    /// Writes the next record of a stream. `false` where the range ends.
    fn write_next(
        &mut self,
        range: &CopyRange,
        entry: &Entry,
        left: u64,
        control: &Control,
        came: &mut Came,
    ) -> bool {
        let size = range.record_size as usize;
        let (record, payload) = match entry.next(size, &control.cancel) {
            Next::Whole(bytes) => (bytes, size as u64),
            Next::Rest(bytes) if bytes.is_empty() || !range.pad_last => {
                came.whole = true;
                return false;
            }
            Next::Rest(bytes) => {
                let payload = bytes.len() as u64;
                let mut padded = Vec::from(bytes);
                padded.resize(size, 0);
                (padded.into(), payload)
            }
            Next::Cancelled => {
                came.end = Ok(RangeEnd::Cancelled);
                return false;
            }
            Next::Failed(cause) => {
                let cause = format!("the stream has ended early: {cause}");
                came.end = Err(TapeError::Unreachable(cause));
                return false;
            }
        };
        let end = match self.drive().and_then(|drive| drive.write(&record, control)) {
            Ok(WriteEnd::Overflow) => Ok(RangeEnd::Overflow),
            Err(TapeError::Check(sense)) => Ok(RangeEnd::MediaError(sense)),
            Err(TapeError::Cancelled) => Ok(RangeEnd::Cancelled),
            Err(error) => Err(error),
            Ok(end) => {
                entry.consume(payload);
                if let Some(copying) = self.copying.as_mut().filter(|it| it.reads_back()) {
                    let object = behind(range.expected_object, came.records);
                    copying.wrote(object, record.len(), &digest(&record));
                }
                came.bytes += payload;
                came.records += 1;
                came.whole = payload < size as u64 || left == payload;
                match end == WriteEnd::EarlyWarning && !range.ignore_early_warning {
                    true => Ok(RangeEnd::EarlyWarning),
                    false => return payload == size as u64,
                }
            }
        };
        came.end = end;
        false
    }

    /// Reads records ahead into a stream, up to a filemark; at most the stream's window ahead of
    /// what the other side took. `taken` is told with a cancel: the drive is positioned behind so
    /// many objects.
    pub(super) fn read_ahead(
        &mut self,
        range: &ReadRange,
        control: &Control,
        taken: &dyn Fn() -> Option<u64>,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Answer {
        if let Err(error) = self.stands_at(range.expected_object, 0, control) {
            return Answer::Failed(error);
        }
        let entry = self.ground.streams.send(&self.site, range.stream, &self.ground.store);
        self.ahead = Some(ReadAhead(Arc::clone(&entry)));
        let mut ahead = Ahead::default();
        let end = self.read_records(range, &entry, &mut ahead, control, progress);
        let read = behind(range.expected_object, ahead.records);
        let result =
            |end, records, bytes, object| Answer::Read(ReadResult { end, records, bytes, object });
        match end {
            Ok(ReadEndReason::Cancelled) => {
                entry.abort("cancelled");
                let Some(taken) = taken() else {
                    return result(ReadEndReason::Cancelled, ahead.records, ahead.total, read);
                };
                let taken = taken.min(ahead.records);
                let object = behind(range.expected_object, taken);
                let patient = Control { cancel: tape::CancelToken::new(), ..control.clone() };
                match self.drive().and_then(|drive| drive.locate(object, &patient)) {
                    Ok(()) => {
                        let bytes = ahead.bytes_of(taken);
                        result(ReadEndReason::Cancelled, taken, bytes, object)
                    }
                    Err(error) => Answer::Failed(error),
                }
            }
            Ok(end) => {
                entry.finish();
                let passed = u64::from(end == ReadEndReason::Filemark && !range.before_filemark);
                result(end, ahead.records, ahead.total, behind(read, passed))
            }
            Err(error) => {
                entry.abort(&error.to_string());
                Answer::Failed(error)
            }
        }
    }

    fn read_records(
        &mut self,
        range: &ReadRange,
        entry: &Entry,
        ahead: &mut Ahead,
        control: &Control,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<ReadEndReason, TapeError> {
        let mut buffer = vec![0; range.record_max as usize];
        let mut teller = Teller::new(progress);
        while ahead.records < range.objects_max {
            if !entry.room(range.record_max.into(), &control.cancel) {
                // A stream that broke is over; whoever reads begins anew behind what was taken.
                return self.await_cancel(control);
            }
            let length = match self.drive()?.read(&mut buffer, control) {
                Ok(ReadEnd::Record { length }) if length <= buffer.len() => length,
                Ok(ReadEnd::Record { length }) => {
                    let at = behind(range.expected_object, ahead.records);
                    self.drive()?.locate(at, control)?;
                    return Ok(ReadEndReason::MediaError(too_long(buffer.len(), length)));
                }
                Ok(ReadEnd::EndOfData) => return Ok(ReadEndReason::EndOfData),
                Ok(ReadEnd::Filemark) if range.before_filemark => {
                    let at = behind(range.expected_object, ahead.records);
                    self.drive()?.locate(at, control)?;
                    return Ok(ReadEndReason::Filemark);
                }
                Ok(ReadEnd::Filemark) => return Ok(ReadEndReason::Filemark),
                Err(TapeError::Check(sense)) => return Ok(ReadEndReason::MediaError(sense)),
                Err(TapeError::Cancelled) => return Ok(ReadEndReason::Cancelled),
                Err(error) => return Err(error),
            };
            ahead.push(length);
            ahead.trim(entry.taken());
            if entry.record(&buffer[..length]).is_err() {
                return self.await_cancel(control);
            }
            teller.tell(ahead.total, ahead.records);
        }
        Ok(ReadEndReason::Limit)
    }

    /// The stream is over: its reader cancels, or its lease ends.
    fn await_cancel(&self, control: &Control) -> Result<ReadEndReason, TapeError> {
        while !control.cancel.is_cancelled() {
            control.check().or_else(|error| match error {
                TapeError::Cancelled => Ok(()),
                error => Err(error),
            })?;
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(ReadEndReason::Cancelled)
    }
}

/// What a drive says of a record that is longer than was asked (SSC-4: ILI, and by how much).
fn too_long(asked: usize, length: usize) -> Sense {
    let difference = asked as i64 - length as i64;
    Sense { ili: true, information: Some(difference), ..Sense::new(0, 0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_what_was_taken_are_known_behind_what_is_forgotten() {
        let mut ahead = Ahead::default();
        [100, 7, 7, 50, 1].into_iter().for_each(|length| ahead.push(length));
        assert_eq!(
            (0..=5).map(|n| ahead.bytes_of(n)).collect::<Vec<_>>(),
            [0, 100, 107, 114, 164, 165]
        );
        // A record that is taken in part is still wanted whole.
        ahead.trim(113);
        assert_eq!((ahead.lengths.len(), ahead.bytes), (3, 58));
        assert_eq!((2..=5).map(|n| ahead.bytes_of(n)).collect::<Vec<_>>(), [107, 114, 164, 165]);
        ahead.trim(u64::MAX);
        assert_eq!((ahead.bytes_of(5), ahead.lengths.len()), (165, 0));
    }
}
