//! Writing one range of a cartridge to a drive.
//!
//! A producer thread fills records ahead of the drive into recycled buffers; the calling thread
//! (the drive's owner) writes them. At most [`PREFETCH_BYTES`] are held, at least three records.
//!
//! A drive that has to wait stops its tape, and starting it again costs seconds. So a range begins
//! when [`PREFILL_BYTES`] are there (or all of it), and after a wait it goes on only then. Every
//! wait is counted ([`Waits`]).

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use model::ObjectNumber;
use tape::{Control, TapeDrive, TapeError, WriteEnd};

use crate::proof::{Proof, RecordDigest, digest};

/// Bytes read ahead of the drive: a third of a second of LTO-9.
pub const PREFETCH_BYTES: usize = 128 << 20;

/// Bytes that are there before a range begins, or goes on after a wait.
pub const PREFILL_BYTES: usize = 32 << 20;

/// The largest record that a range may ask for; a drive's own limit may be lower.
pub const RECORD_MAX: usize = 8 << 20;

/// The bytes of a range, in order.
pub trait RangeSource: Send {
    /// Fills `buffer` from its beginning; fewer bytes than asked only at the end of the range.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError>;
}

/// The source's data can not be read: the store is damaged or was taken away under the copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source can not be read: {0}")]
pub struct SourceError(pub String);

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOrder {
    /// Length of each record on the tape.
    pub record_size: usize,
    /// Bytes the range has in all.
    pub length: u64,
    /// Write a last partial record, padded with zeros to `record_size`. Without it the tail that
    /// fills no record is not written; whoever asked carries it into the next range.
    pub pad_last: bool,
    /// Flush after the last record.
    pub flush: bool,
    /// Only overflow ends the medium: the one who asked knows that it is past early warning.
    pub ignore_early_warning: bool,
}

/// Why a range ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// Everything that was to be written is written (and flushed, if that was asked).
    Done,
    /// The last record counted was written at or beyond early warning, and more remain.
    EarlyWarning,
    /// The record after those counted did not fit: the medium is full.
    Overflow,
    /// The drive failed.
    Drive(TapeError),
    /// The source failed; what was counted before is on the tape.
    Source(SourceError),
    /// The order can not be: a record size of 0 or beyond [`RECORD_MAX`].
    Refused(String),
}

/// How often a drive had to wait for data within a range, and how long in all. The wait for the
/// first record is none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Times.
    pub count: u64,
    /// In all.
    pub time: Duration,
}

impl Waits {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, time: self.time + other.time }
    }
}

/// How far a range came: what the drive answered GOOD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// Why it ended.
    pub end: RangeEnd,
    /// Stream bytes written, without padding.
    pub bytes: u64,
    /// Records written.
    pub records: u64,
    /// The last write was answered with early warning (also with [`RangeEnd::Done`]).
    pub early_warning: bool,
    /// How often the drive had to wait.
    pub waits: Waits,
}

struct Filled {
    buffer: Vec<u8>,
    /// Stream bytes in the buffer; less than its length in a padded last record.
    payload: usize,
    /// Of the whole record, where it is to be proven.
    digest: Option<RecordDigest>,
}

/// Where what is written is noted, and the object that comes next.
pub struct Noted<'a> {
    /// What is to be proven.
    pub proof: &'a mut Proof,
    /// The number of the first record.
    pub object: ObjectNumber,
}

/// Writes the records of `source` to `drive` until the order is done or something ends it.
/// `progress` is told the stream bytes and records written so far, after each record.
pub fn write_range(
    drive: &mut dyn TapeDrive,
    source: &mut dyn RangeSource,
    order: RangeOrder,
    control: &Control,
    progress: &mut dyn FnMut(u64, u64),
) -> RangeResult {
    write_noted(drive, source, order, control, progress, None)
}

/// [`write_range`] that notes what it writes, so that it can be proven. The digests are made by
/// the thread that fills records, not by the one that the drive waits for.
pub fn write_noted(
    drive: &mut dyn TapeDrive,
    source: &mut dyn RangeSource,
    order: RangeOrder,
    control: &Control,
    progress: &mut dyn FnMut(u64, u64),
    noted: Option<Noted<'_>>,
) -> RangeResult {
    let mut result = RangeResult {
        end: RangeEnd::Done,
        bytes: 0,
        records: 0,
        early_warning: false,
        waits: Waits::default(),
    };
    if order.record_size == 0 || order.record_size > RECORD_MAX {
        result.end = RangeEnd::Refused(format!("a record size of {} bytes", order.record_size));
        return result;
    }
    let prefill = (PREFILL_BYTES / order.record_size).clamp(1, 1 << 16);
    let depth = ((PREFETCH_BYTES - PREFILL_BYTES) / order.record_size).clamp(2, 1 << 16);
    let end = std::thread::scope(|scope| {
        let (filled_in, filled_out) = sync_channel(depth);
        let (free_in, free_out) = sync_channel::<Vec<u8>>(depth + prefill);
        let is_noted = noted.is_some();
        scope.spawn(move || produce(source, order, is_noted, &filled_in, &free_out));
        let ahead = Ahead { filled: &filled_out, held: VecDeque::new(), prefill, begun: false };
        let way = Way { ahead, free: &free_in, noted };
        consume(drive, order, control, way, &mut result, progress)
    });
    result.end = end;
    if order.flush && result.end == RangeEnd::Done {
        result.end = flush(drive, control, &mut result);
    }
    result
}

fn produce(
    source: &mut dyn RangeSource,
    order: RangeOrder,
    is_noted: bool,
    filled: &SyncSender<Result<Filled, SourceError>>,
    free: &Receiver<Vec<u8>>,
) {
    let mut left = order.length;
    while left > 0 {
        let payload = left.min(order.record_size as u64) as usize;
        if payload < order.record_size && !order.pad_last {
            return;
        }
        let mut buffer = free.try_recv().unwrap_or_default();
        buffer.resize(order.record_size, 0);
        let made = match source.fill(&mut buffer[..payload]) {
            Ok(n) if n == payload => {
                buffer[payload..].fill(0);
                let digest = is_noted.then(|| digest(&buffer));
                Ok(Filled { buffer, payload, digest })
            }
            Ok(n) => Err(SourceError(format!("it ends {} bytes early", left - n as u64))),
            Err(error) => Err(error),
        };
        let failed = made.is_err();
        // The consumer hangs up when the drive is full or has failed.
        if filled.send(made).is_err() || failed {
            return;
        }
        left -= payload as u64;
    }
}

/// Records that are ahead of the drive.
struct Ahead<'a> {
    filled: &'a Receiver<Result<Filled, SourceError>>,
    /// Taken out of the queue, so that it fills again.
    held: VecDeque<Result<Filled, SourceError>>,
    prefill: usize,
    begun: bool,
}

impl Ahead<'_> {
    /// The next record; `None` at the end.
    fn next(&mut self, waits: &mut Waits) -> Option<Result<Filled, SourceError>> {
        if let Some(record) = self.held.pop_front() {
            return Some(record);
        }
        match self.filled.try_recv() {
            Ok(record) => {
                self.begun = true;
                return Some(record);
            }
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let since = Instant::now();
        while self.held.len() < self.prefill {
            let Ok(record) = self.filled.recv() else { break };
            self.held.push_back(record);
        }
        let next = self.held.pop_front();
        // Nothing is missed by a drive that has got all.
        if std::mem::replace(&mut self.begun, true) && next.is_some() {
            waits.count += 1;
            waits.time += since.elapsed();
        }
        next
    }
}

/// How records come to the drive, and where they are noted.
struct Way<'a> {
    ahead: Ahead<'a>,
    free: &'a SyncSender<Vec<u8>>,
    noted: Option<Noted<'a>>,
}

fn consume(
    drive: &mut dyn TapeDrive,
    order: RangeOrder,
    control: &Control,
    mut way: Way<'_>,
    result: &mut RangeResult,
    progress: &mut dyn FnMut(u64, u64),
) -> RangeEnd {
    let records_total = match order.pad_last {
        true => order.length.div_ceil(order.record_size as u64),
        false => order.length / order.record_size as u64,
    };
    while let Some(next) = way.ahead.next(&mut result.waits) {
        let record = match next {
            Ok(record) => record,
            Err(error) => return RangeEnd::Source(error),
        };
        if let Err(error) = control.check() {
            return RangeEnd::Drive(error);
        }
        match drive.write(&record.buffer, control) {
            Ok(WriteEnd::Written) => result.early_warning = false,
            Ok(WriteEnd::EarlyWarning) => result.early_warning = true,
            Ok(WriteEnd::Overflow) => return RangeEnd::Overflow,
            Err(error) => return RangeEnd::Drive(error),
        }
        if let (Some(noted), Some(digest)) = (&mut way.noted, &record.digest) {
            let object = noted.object + result.records;
            noted.proof.wrote(object, record.buffer.len(), digest);
        }
        result.bytes += record.payload as u64;
        result.records += 1;
        progress(result.bytes, result.records);
        if result.early_warning && !order.ignore_early_warning && result.records < records_total {
            return RangeEnd::EarlyWarning;
        }
        // A full return queue only means that one buffer is dropped.
        let _ = way.free.try_send(record.buffer);
    }
    RangeEnd::Done
}

fn flush(drive: &mut dyn TapeDrive, control: &Control, result: &mut RangeResult) -> RangeEnd {
    match drive.write_filemarks(0, control) {
        Ok(WriteEnd::Written) => RangeEnd::Done,
        Ok(WriteEnd::EarlyWarning) => {
            result.early_warning = true;
            RangeEnd::Done
        }
        Ok(WriteEnd::Overflow) => RangeEnd::Overflow,
        Err(error) => RangeEnd::Drive(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use model::Barcode;
    use tape::target::{DriveHandle, DriveSpec, MemoryShelf, TapeObject, TargetDrive};
    use tape::{DeviceIdentity, TapeDrive};

    use super::*;

    /// A source of numbered bytes that may end early.
    struct Numbers {
        at: u64,
        end: u64,
    }

    impl RangeSource for Numbers {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
            let now = buffer.len().min((self.end - self.at) as usize);
            buffer[..now].iter_mut().zip(self.at..).for_each(|(byte, i)| *byte = (i % 251) as u8);
            self.at += now as u64;
            Ok(now)
        }
    }

    fn drive(capacity: u64) -> (DriveHandle<tape::target::MemoryMedium>, MemoryShelf, Barcode) {
        let (shelf, barcode) = (MemoryShelf::default(), Barcode::new("A00001L8").unwrap());
        shelf.add(&barcode, capacity);
        let spec = DriveSpec {
            index: 0,
            identity: DeviceIdentity::default(),
            early_warning: Some(3000),
            power_on_attention: false,
        };
        let mut drive = TargetDrive::new(spec, Arc::new(shelf.clone()));
        drive.insert(&barcode).unwrap();
        let mut handle = DriveHandle::new(Arc::new(Mutex::new(drive)), 1);
        // The first call meets the attention of the load.
        let _ = handle.state(&Control::within(Duration::from_secs(5)));
        (handle, shelf, barcode)
    }

    fn order(length: u64) -> RangeOrder {
        RangeOrder {
            record_size: 1000,
            length,
            pad_last: false,
            flush: true,
            ignore_early_warning: false,
        }
    }

    fn write(capacity: u64, order: RangeOrder, end: u64) -> (RangeResult, Vec<TapeObject>) {
        let (mut drive, shelf, barcode) = drive(capacity);
        let mut seen = Vec::new();
        let control = Control::within(Duration::from_secs(30));
        let mut source = Numbers { at: 0, end };
        let result = write_range(&mut drive, &mut source, order, &control, &mut |b, r| {
            seen.push((b, r));
        });
        assert!(seen.is_sorted());
        assert_eq!(seen.last().copied().unwrap_or((0, 0)), (result.bytes, result.records));
        (result, shelf.tape(&barcode).unwrap().objects)
    }

    fn bytes(objects: &[TapeObject]) -> Vec<u8> {
        let record = |object: &TapeObject| match object {
            TapeObject::Record(data) => data.clone(),
            TapeObject::Filemark => panic!("a filemark"),
        };
        objects.iter().flat_map(record).collect()
    }

    #[test]
    fn whole_records_are_written_and_a_rest_is_left() {
        let (result, objects) = write(1 << 20, order(10_500), 10_500);
        assert_eq!((result.end, result.bytes, result.records), (RangeEnd::Done, 10_000, 10));
        let expected: Vec<u8> = (0..10_000u64).map(|i| (i % 251) as u8).collect();
        assert_eq!(bytes(&objects), expected);
    }

    #[test]
    fn a_padded_rest_counts_without_its_padding() {
        let (result, objects) = write(1 << 20, RangeOrder { pad_last: true, ..order(2500) }, 2500);
        assert_eq!((result.bytes, result.records), (2500, 3));
        assert!(bytes(&objects)[2500..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn early_warning_ends_a_range_behind_the_record_that_met_it() {
        let (result, objects) = write(20_000, order(100_000), 100_000);
        assert_eq!(result.end, RangeEnd::EarlyWarning);
        assert_eq!(result.bytes, bytes(&objects).len() as u64);
        assert!((17_000..20_000).contains(&result.bytes), "{}", result.bytes);
    }

    #[test]
    fn past_early_warning_only_overflow_ends_a_range() {
        let ignoring = RangeOrder { ignore_early_warning: true, ..order(100_000) };
        let (result, objects) = write(20_000, ignoring, 100_000);
        assert_eq!((result.end, result.bytes), (RangeEnd::Overflow, 20_000));
        assert_eq!(objects.len(), 20);
    }

    #[test]
    fn a_source_that_ends_early_is_told_with_what_is_on_tape() {
        let (result, objects) = write(1 << 20, order(10_000), 4200);
        assert!(matches!(result.end, RangeEnd::Source(_)), "{:?}", result.end);
        assert_eq!((result.bytes, objects.len()), (4000, 4));
    }

    #[test]
    fn a_record_size_that_can_not_be_is_refused() {
        let (result, _) = write(1 << 20, RangeOrder { record_size: 0, ..order(10) }, 10);
        assert!(matches!(result.end, RangeEnd::Refused(_)));
    }

    /// A source that has nothing more until what it gave is on tape, at some of its records.
    struct Slow {
        inner: Numbers,
        given: u64,
        stops: Vec<u64>,
        written: Arc<std::sync::atomic::AtomicU64>,
    }

    impl RangeSource for Slow {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
            use std::sync::atomic::Ordering;
            while self.stops.contains(&self.given)
                && self.written.load(Ordering::Acquire) < self.given
            {
                std::thread::yield_now();
            }
            self.given += 1;
            self.inner.fill(buffer)
        }
    }

    #[test]
    fn a_drive_that_waits_is_counted_and_goes_on_when_there_is_enough() {
        use std::sync::atomic::{AtomicU64, Ordering};
        const RECORD: usize = PREFILL_BYTES / 4;
        let order = RangeOrder {
            record_size: RECORD,
            length: 10 * RECORD as u64,
            pad_last: false,
            flush: false,
            ignore_early_warning: false,
        };
        for (stops, expected) in [(vec![], 0), (vec![4], 1), (vec![4, 8], 2), (vec![10], 0)] {
            let (mut drive, ..) = drive(200 * RECORD as u64);
            let written = Arc::new(AtomicU64::new(0));
            let inner = Numbers { at: 0, end: order.length };
            let mut source = Slow { inner, given: 0, stops, written: Arc::clone(&written) };
            let control = Control::within(Duration::from_secs(60));
            let result =
                write_range(&mut drive, &mut source, order, &control, &mut |_, records| {
                    written.store(records, Ordering::Release);
                });
            assert_eq!((result.end, result.records), (RangeEnd::Done, 10));
            // Without a stop the machine may still be slower than memory.
            assert!(result.waits.count >= expected, "{:?}", result.waits);
            assert!(result.waits.count <= expected + 9 / 4, "{:?}", result.waits);
        }
    }
}
