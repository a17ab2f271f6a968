//! Two movers of one copy, spliced: which range comes next, and what each of them shows.
//!
//! The stream between the movers is what the source would have sent. Of it
//!
//! * the first `written` bytes are on the destination, their WRITE answered GOOD;
//! * the *tail* behind them, less than one record, was taken from the source but waits for the
//!   rest of its record; it is kept as extents, over filemarks and changes of tape;
//! * everything behind that is still in the source.
//!
//! A range is tail and fresh bytes up to the nearest of filemark, source window and destination
//! window. However it ends, the three parts again make up the stream: no byte is lost or doubled.

use model::{GenerationId, JobId, ObjectNumber};

use super::{
    CopyRange, EXTENTS_MAX, Extent, Layout, Mark, RangeEnd, RangeResult, RangeSource, SourcePoint,
};

/// Both movers as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// Bytes that the source mover may still send: to the end of its window or of its read,
    /// whichever is nearer; `u64::MAX` for no end.
    pub source_left: u64,
    /// Bytes from the first unwritten one to the end of the destination's window; `u64::MAX` for
    /// no end.
    pub destination_left: u64,
    /// The source mover is closed: what is left is padded, written and flushed.
    pub closed: bool,
    /// Where the destination drive stands.
    pub destination_object: ObjectNumber,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This range is to be done; hand its result to [`Splice::ended`].
    Range(CopyRange),
    /// Nothing can be moved now.
    At(Boundary),
}

/// Why nothing can be moved now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The source stands at a filemark: it pauses (EOF).
    Filemark,
    /// The source stands at the end of data: it pauses (EOM).
    EndOfData,
    /// The source's window or read is used up.
    SourceWindow,
    /// The destination's window is used up and more data is there: it pauses (EOW).
    DestinationWindow,
    /// The source was closed and everything is written and flushed.
    Finished,
}

/// What the two movers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// Bytes moved, as the destination counts: answered GOOD.
    pub destination_bytes: u64,
    /// Bytes moved, as the source counts: the destination's, rounded up to a source record, and
    /// the tail.
    pub source_bytes: u64,
    /// Where the source stands: the first record not shown as read.
    pub source: SourcePoint,
}

/// A splice that can not go on this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError<E> {
    /// The source can not tell its layout.
    #[error("the layout of the source can not be read")]
    Layout(E),
    /// A record would be made of more than 4096 pieces. Move the bytes themselves instead.
    #[error("a record would be made of too many pieces of the source")]
    Fragmented,
    /// The result does not fit the range: the remote is at fault; what is on tape is not known.
    #[error("the remote reports {bytes} bytes in {records} records for a range of {total} bytes")]
    Impossible {
        /// Bytes reported.
        bytes: u64,
        /// Records reported.
        records: u64,
        /// Bytes of the range.
        total: u64,
    },
    /// A range is under way, or none is: a defect of the caller.
    #[error("a range is {0}")]
    Misuse(&'static str),
}

#[derive(Clone, Debug)]
struct Running {
    /// Tail and fresh bytes, in order.
    extents: Vec<Extent>,
    /// Bytes of them that come from the tail.
    tail: u64,
    /// Bytes of them that are fresh.
    fresh: u64,
    closing: bool,
}

/// The state of one copy between two movers. Nothing in it depends on NDMP.
#[derive(Clone, Debug)]
pub struct Splice {
    job: JobId,
    record_size: u32,
    generation: GenerationId,
    /// The first byte of the source that was not taken.
    at: SourcePoint,
    tail: Vec<Extent>,
    tail_bytes: u64,
    /// Where the tail ends, so that fresh bytes behind it need no new extent.
    tail_end: Option<(GenerationId, SourcePoint)>,
    written: u64,
    taken: u64,
    source_left: u64,
    running: Option<Running>,
    finished: bool,
}

impl Splice {
    /// Begins with an empty stream. `record_size` is the destination's, at least 1.
    pub fn new(job: JobId, record_size: u32, generation: GenerationId, at: SourcePoint) -> Self {
        Self {
            job,
            record_size: record_size.max(1),
            generation,
            at,
            tail: Vec::new(),
            tail_bytes: 0,
            tail_end: None,
            written: 0,
            taken: 0,
            source_left: 0,
            running: None,
            finished: false,
        }
    }

    /// The application moved the source, or changed its tape. The tail stays.
    ///
    /// # Errors
    /// [`SpliceError::Misuse`] while a range is under way.
    pub fn set_source<E>(
        &mut self,
        generation: GenerationId,
        at: SourcePoint,
    ) -> Result<(), SpliceError<E>> {
        if self.running.is_some() {
            return Err(SpliceError::Misuse("under way"));
        }
        (self.generation, self.at) = (generation, at);
        Ok(())
    }

    /// Bytes answered GOOD: the destination's bytes moved, and the stream offset of the first
    /// unwritten byte.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes taken from the source and not written: less than one record.
    pub fn held(&self) -> u64 {
        self.tail_bytes
    }

    /// The next step. Bytes that do not fill a record are taken into the tail on the way.
    ///
    /// # Errors
    /// [`SpliceError::Misuse`] while a range is under way; [`SpliceError::Fragmented`] and
    /// [`SpliceError::Layout`] leave everything as it was.
    pub fn next<L: Layout>(
        &mut self,
        layout: &L,
        view: SourceView,
    ) -> Result<Step, SpliceError<L::Error>> {
        if self.running.is_some() {
            return Err(SpliceError::Misuse("under way"));
        }
        self.source_left = view.source_left;
        let (to_mark, mark) = layout.to_mark(self.at).map_err(SpliceError::Layout)?;
        let fresh = if view.closed { 0 } else { to_mark.min(view.source_left) };
        let offered = self.tail_bytes.saturating_add(fresh);
        let room = view.destination_left;
        let total = offered.min(room);
        let size = u64::from(self.record_size);
        let closing = view.closed && offered <= room;
        if closing && self.finished {
            return Ok(Step::At(Boundary::Finished));
        }
        if closing || total >= size {
            let fresh = total.saturating_sub(self.tail_bytes);
            return self.range(fresh, closing, view.destination_object).map(Step::Range);
        }
        let absorbed = total.saturating_sub(self.tail_bytes);
        if absorbed > 0 {
            self.absorb(layout, absorbed)?;
        }
        Ok(Step::At(match mark {
            _ if offered > room => Boundary::DestinationWindow,
            _ if to_mark > view.source_left => Boundary::SourceWindow,
            Mark::Filemark => Boundary::Filemark,
            Mark::EndOfData => Boundary::EndOfData,
        }))
    }

    /// What the movers show after `bytes` of the range under way (0 between ranges).
    pub fn visible<L: Layout>(
        &self,
        layout: &L,
        bytes: u64,
    ) -> Result<Visible, SpliceError<L::Error>> {
        let fresh = match &self.running {
            Some(running) => bytes.saturating_sub(running.tail).min(running.fresh),
            None => 0,
        };
        let exact = layout.advance(self.at, fresh).map_err(SpliceError::Layout)?;
        let rest = layout.to_record_end(exact).map_err(SpliceError::Layout)?;
        let rest = rest.min(self.source_left.saturating_sub(fresh));
        let source = layout.advance(exact, rest).map_err(SpliceError::Layout)?;
        Ok(Visible {
            destination_bytes: self.written + if self.running.is_some() { bytes } else { 0 },
            source_bytes: self.taken + fresh + rest,
            source,
        })
    }

    /// Takes the result of the range under way. What a range left unwritten comes first in the
    /// next one, or is still in the source.
    ///
    /// # Errors
    /// [`SpliceError::Impossible`] for a result that the range can not have.
    pub fn ended<L: Layout>(
        &mut self,
        layout: &L,
        result: &RangeResult,
    ) -> Result<Visible, SpliceError<L::Error>> {
        let running = self.running.as_ref().ok_or(SpliceError::Misuse("not under way"))?;
        let Running { tail, fresh, closing, .. } = *running;
        self.check(running, result)?;
        let done = result.end == RangeEnd::Done;
        // Unless all was done, fresh bytes are taken only as far as they are written.
        let taken = if done { fresh } else { result.bytes.saturating_sub(tail) };
        let at = layout.advance(self.at, taken).map_err(SpliceError::Layout)?;
        let mut extents = self.running.take().map(|running| running.extents).unwrap_or_default();
        let left = (tail + taken).saturating_sub(result.bytes);
        truncate(&mut extents, tail + taken);
        skip(&mut extents, result.bytes);
        if taken > 0 {
            self.tail_end = Some((self.generation, at));
        }
        (self.tail, self.tail_bytes, self.at) = (extents, left, at);
        self.written += result.bytes;
        self.taken += taken;
        self.source_left = self.source_left.saturating_sub(taken);
        self.finished = closing && done;
        self.visible(layout, 0)
    }

    fn check<E>(&self, running: &Running, result: &RangeResult) -> Result<(), SpliceError<E>> {
        let (size, total) = (u64::from(self.record_size), running.tail + running.fresh);
        let whole = total / size;
        let RangeResult { bytes, records, .. } = *result;
        // Padding is possible in the last record only, and only when closing.
        let padded = running.closing && bytes == total && records == total.div_ceil(size);
        let counted = records <= whole && records.checked_mul(size) == Some(bytes);
        let all = if running.closing { padded } else { records == whole };
        let fits = match result.end {
            RangeEnd::Done => (counted || padded) && all,
            RangeEnd::NotReplicated | RangeEnd::NotMine => bytes == 0 && records == 0,
            _ => counted || padded,
        };
        match fits {
            true => Ok(()),
            false => Err(SpliceError::Impossible { bytes, records, total }),
        }
    }

    fn range<E>(
        &mut self,
        fresh: u64,
        closing: bool,
        expected_object: ObjectNumber,
    ) -> Result<CopyRange, SpliceError<E>> {
        let extents = self.with_fresh(fresh)?;
        let source = RangeSource::Extents(extents.clone());
        self.running = Some(Running { extents, tail: self.tail_bytes, fresh, closing });
        Ok(CopyRange {
            job: self.job,
            source,
            record_size: self.record_size,
            pad_last: closing,
            flush: closing,
            ignore_early_warning: false,
            expected_object,
            verify: None,
        })
    }

    fn absorb<L: Layout>(&mut self, layout: &L, fresh: u64) -> Result<(), SpliceError<L::Error>> {
        let at = layout.advance(self.at, fresh).map_err(SpliceError::Layout)?;
        self.tail = self.with_fresh(fresh)?;
        self.tail_bytes += fresh;
        self.tail_end = Some((self.generation, at));
        self.at = at;
        self.taken += fresh;
        self.source_left = self.source_left.saturating_sub(fresh);
        Ok(())
    }

    /// The tail with fresh bytes behind it.
    fn with_fresh<E>(&self, fresh: u64) -> Result<Vec<Extent>, SpliceError<E>> {
        let mut extents = self.tail.clone();
        let joined = self.tail_end == Some((self.generation, self.at));
        match extents.last_mut().filter(|_| joined) {
            Some(last) => last.length += fresh,
            None if fresh == 0 => {}
            None => extents.push(Extent {
                generation: self.generation,
                first_object: self.at.object,
                offset_in_object: self.at.offset,
                length: fresh,
            }),
        }
        match extents.len() <= EXTENTS_MAX {
            true => Ok(extents),
            false => Err(SpliceError::Fragmented),
        }
    }
}

/// Keeps the first `bytes`.
fn truncate(extents: &mut Vec<Extent>, bytes: u64) {
    let mut room = bytes;
    for extent in extents.iter_mut() {
        extent.length = extent.length.min(room);
        room -= extent.length;
    }
    extents.retain(|extent| extent.length > 0);
}

/// Drops the first `bytes`.
fn skip(extents: &mut Vec<Extent>, bytes: u64) {
    let mut rest = bytes;
    for extent in extents.iter_mut() {
        let gone = extent.length.min(rest);
        extent.offset_in_object += gone;
        extent.length -= gone;
        rest -= gone;
    }
    extents.retain(|extent| extent.length > 0);
}

#[cfg(test)]
mod tests;
