//! To a drive beside another engine, by reference.
//!
//! The destination's window and record size are applied here, in bytes of the source's stream.
//! A *tail* of bytes that fill no record yet is carried as extents and goes first in the next
//! range, just as received bytes would be kept in a buffer.

use super::connection::{SourceEnd, Splice, Taken};
use super::reference::{EngineDrive, Extent, RangeEnd, RangeRequest, RangeWritten};
use super::{Counters, Run, Stop};

/// Accepted bytes that are not on the tape yet, as references.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(pub(super) Vec<Extent>);

impl Tail {
    pub(super) fn length(&self) -> u64 {
        self.0.iter().map(|extent| extent.length).sum()
    }

    pub(super) fn push(&mut self, extent: Extent) {
        if extent.length > 0 {
            self.0.push(extent);
        }
    }

    /// What is left after the first `bytes`.
    fn after(&self, mut bytes: u64) -> Self {
        let mut rest = Self::default();
        for extent in &self.0 {
            let gone = bytes.min(extent.length);
            bytes -= gone;
            rest.push(extent.after(gone));
        }
        rest
    }

    fn first(&self, mut bytes: u64) -> Vec<Extent> {
        let mut taken = Self::default();
        for extent in &self.0 {
            let part = extent.first(bytes);
            bytes -= part.length;
            taken.push(part);
        }
        taken.0
    }
}

/// Where a range begins: how much of which offer was consumed before, and the length of the tail
/// that goes first.
#[derive(Clone, Copy)]
struct Place {
    ticket: u64,
    consumed: u64,
    carried: u64,
}

pub(super) struct Offload<'a> {
    pub(super) drive: &'a mut dyn EngineDrive,
    pub(super) splice: &'a Splice,
    /// The source that was planned with; `None` once it has closed.
    pub(super) source: Option<&'a SourceEnd>,
    pub(super) run: &'a Run,
    pub(super) counters: &'a Counters,
    pub(super) moved: u64,
    pub(super) past_early_warning: bool,
}

impl Offload<'_> {
    /// Takes one offer as far as window and medium go. `None` to go on.
    pub(super) fn step(&mut self, tail: &mut Tail) -> Option<Stop> {
        let record = self.run.record_size as u64;
        let left = self.run.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.moved));
        let full = left < record;
        if full && tail.length() > 0 {
            return Some(Stop::Limit);
        }
        let taken = self.source.map_or(Taken::Closed, |source| self.splice.take_reference(source));
        let (offer, ticket, consumed) = match taken {
            Taken::Offer(offer, ticket, consumed) => (offer, ticket, consumed),
            Taken::Closed => return Some(self.finish(tail)),
            Taken::OtherSource => return None,
        };
        if let Some(job) = &self.run.job {
            // What lies behind the next filemark is not known yet.
            let rest = offer.extent.after(consumed).length;
            job.expects(self.counters.get().0 + tail.length() + rest);
        }
        if full {
            return Some(Stop::Limit);
        }
        if self.past_early_warning {
            return Some(Stop::EndOfMedium);
        }
        let carried = tail.length();
        let window = (left - left % record).saturating_sub(carried);
        let taken = offer.extent.after(consumed).first(window);
        let mut all = tail.clone();
        all.push(taken);
        let whole = all.length() - all.length() % record;
        if whole == 0 {
            self.splice.consume(ticket, consumed + taken.length);
            *tail = all;
            return None;
        }
        let at = Place { ticket, consumed, carried };
        let written = self.write(&all, whole, false, at);
        self.settle(tail, &all, &written, at, taken.length)
    }

    /// Brings the tail and the source's offer in line with what was written.
    fn settle(
        &mut self,
        tail: &mut Tail,
        all: &Tail,
        written: &RangeWritten,
        at: Place,
        taken: u64,
    ) -> Option<Stop> {
        self.moved += written.bytes;
        self.past_early_warning |= written.early_warning && !self.run.ignore_early_warning;
        // Early warning met by the last record is told when there is more to write.
        let whole = all.length() - all.length() % self.run.record_size as u64;
        let all_written = written.end == RangeEnd::EarlyWarning && written.bytes == whole;
        if written.end == RangeEnd::Done || all_written {
            *tail = all.after(written.bytes);
            self.splice.consume(at.ticket, at.consumed + taken);
            return None;
        }
        // What is not on the tape stays with the source, but for what it had given away before.
        *tail = tail.after(written.bytes);
        self.splice.consume(at.ticket, at.consumed + written.bytes.saturating_sub(at.carried));
        Some(match &written.end {
            RangeEnd::EarlyWarning | RangeEnd::Overflow | RangeEnd::Done => Stop::EndOfMedium,
            RangeEnd::Failed(error) => Stop::from_tape(error),
        })
    }

    fn write(&mut self, all: &Tail, bytes: u64, pad_last: bool, at: Place) -> RangeWritten {
        let request = RangeRequest {
            job: self.run.job.clone(),
            extents: all.first(bytes),
            record_size: self.run.record_size as u32,
            pad_last,
            ignore_early_warning: self.run.ignore_early_warning,
        };
        let (record, splice, counters) = (self.run.record_size as u64, self.splice, self.counters);
        let mut told = 0u64;
        let job = self.run.job.as_ref();
        if let (Some(job), Some(extent)) = (job, request.extents.last()) {
            job.reads(extent.generation);
        }
        let mut progress = |so_far: u64| {
            let so_far = so_far.max(told);
            counters.add(so_far - told, so_far.div_ceil(record) - told.div_ceil(record));
            told = so_far;
            if let Some(job) = job {
                job.progress(counters.get().0);
            }
            splice.consume(at.ticket, at.consumed + so_far.saturating_sub(at.carried));
        };
        let Some(target) = self.drive.range_target() else {
            let error = tape::TapeError::Lost("the drive was exchanged".into());
            return RangeWritten { end: RangeEnd::Failed(error), bytes: 0, early_warning: false };
        };
        let written = target.write_range(&request, &self.run.control, &mut progress);
        progress(written.bytes);
        written
    }

    /// The source has closed: the tail is the last record, padded.
    fn finish(&mut self, tail: &mut Tail) -> Stop {
        if tail.length() == 0 {
            return Stop::PeerClosed;
        }
        if self.past_early_warning {
            return Stop::EndOfMedium;
        }
        let length = tail.length();
        let nowhere = Place { ticket: 0, consumed: 0, carried: length };
        let written = self.write(&tail.clone(), length, true, nowhere);
        self.moved += written.bytes;
        *tail = tail.after(written.bytes);
        match written.end {
            RangeEnd::Failed(error) => Stop::from_tape(&error),
            // Written at early warning is written, and nothing follows.
            _ if tail.length() == 0 => Stop::PeerClosed,
            RangeEnd::Done | RangeEnd::EarlyWarning | RangeEnd::Overflow => Stop::EndOfMedium,
        }
    }
}
