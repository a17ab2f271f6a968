//! A place on records and filemarks: moving, looking and reading. What [`crate::Image`] and
//! [`crate::GenerationReader`] have in common.

use std::sync::Arc;

use model::ObjectNumber;

use crate::layout::{Layout, Place, Segment};
use crate::readahead::ReadAhead;
use crate::store::Inner;
use crate::{ObjectRun, Result, StoreError};

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A record of `length` bytes.
    Record {
        /// Its length.
        length: u32,
    },
    /// A filemark.
    Filemark,
    /// Nothing: the end of data.
    EndOfData,
}

/// What spacing counts (SSC-4 SPACE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Records; a filemark in the way stops the motion.
    Records,
    /// Filemarks; records are passed.
    Filemarks,
    /// To the end of data, whatever the count.
    EndOfData,
}

/// Why spacing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceStop {
    /// The count was reached.
    Done,
    /// A filemark in the way of records: passed forwards, not passed backwards.
    Filemark,
    /// The beginning of the cartridge.
    Beginning,
    /// The end of data.
    EndOfData,
}

/// How spacing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spaced {
    /// Objects of the kind asked for that were not spaced over.
    pub residual: u64,
    /// Why it ended.
    pub stop: SpaceStop,
}

/// A position on the content of one generation, sealed or open.
pub struct Reel {
    pub(crate) inner: Arc<Inner>,
    pub(crate) layout: Layout,
    pub(crate) place: Place,
    pub(crate) ahead: ReadAhead,
    /// The segment at `place` or just passed: successive records are found without a search.
    segment: Option<Segment>,
}

impl std::fmt::Debug for Reel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reel").field("place", &self.place).field("end", &self.layout.end).finish()
    }
}

impl Reel {
    pub(crate) fn new(inner: Arc<Inner>, layout: Layout) -> Self {
        let ahead = ReadAhead::new(&inner);
        Self { inner, layout, place: Place::default(), ahead, segment: None }
    }

    /// The content changed from some place on, or is kept in another form.
    pub(crate) fn changed(&mut self) {
        self.segment = None;
        self.ahead.clear();
    }

    /// The current place; 0 of everything at the beginning.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Records and filemarks before the current place.
    pub fn object(&self) -> ObjectNumber {
        self.place.object
    }

    /// Filemarks before the current place.
    pub fn file(&self) -> u64 {
        self.place.file
    }

    /// Bytes of records before the current place.
    pub fn bytes_before(&self) -> u64 {
        self.place.byte
    }

    /// The end of data: all objects, bytes and filemarks.
    pub fn end(&self) -> Place {
        self.layout.end
    }

    /// Moves to an object, or to the end of data if there are fewer; returns where it stands.
    pub fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber> {
        self.place = self.layout.place_of(object)?;
        Ok(self.place.object)
    }

    /// What stands at the current place.
    pub fn peek(&mut self) -> Result<Object> {
        Ok(match self.segment_here()?.map(|segment| segment.run) {
            Some(ObjectRun::Records { size, .. }) => Object::Record { length: size },
            Some(ObjectRun::Filemarks { .. }) => Object::Filemark,
            None => Object::EndOfData,
        })
    }

    /// Reads the object here and passes it: of a record its first `buffer.len()` bytes at most.
    /// At the end of data nothing moves. On an error nothing moves either, and `buffer` may hold
    /// anything.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Object> {
        let Some(segment) = self.segment_here()? else { return Ok(Object::EndOfData) };
        let object = match segment.run {
            ObjectRun::Records { size, .. } => {
                let len = buffer.len().min(size as usize);
                self.bytes(self.place.byte, &mut buffer[..len])?;
                Object::Record { length: size }
            }
            ObjectRun::Filemarks { .. } => Object::Filemark,
        };
        self.place = segment.place(self.place.object + 1 - segment.object);
        Ok(object)
    }

    /// Spaces over `count` records or filemarks, towards the beginning if it is negative, as
    /// SSC-4 has it: over records a filemark stops the motion, behind it forwards and before it
    /// backwards; over filemarks it ends behind the last one forwards, before it backwards.
    pub fn space(&mut self, kind: Space, count: i64) -> Result<Spaced> {
        let wanted = count.unsigned_abs();
        let (place, residual, stop) = match (kind, count < 0) {
            (Space::EndOfData, _) => (self.layout.end, 0, SpaceStop::EndOfData),
            (Space::Records, false) => self.records_forwards(wanted)?,
            (Space::Records, true) => self.records_backwards(wanted)?,
            (Space::Filemarks, false) => self.filemarks_forwards(wanted)?,
            (Space::Filemarks, true) => self.filemarks_backwards(wanted)?,
        };
        self.place = place;
        Ok(Spaced { residual, stop })
    }

    fn records_forwards(&self, wanted: u64) -> Result<(Place, u64, SpaceStop)> {
        let (mut place, mut left) = (self.place, wanted);
        let found = if left == 0 { None } else { self.layout.segment_of(place.object)? };
        let first = found.map_or(self.layout.segments.len(), |(index, _)| index);
        for index in first..self.layout.segments.len() {
            if left == 0 {
                break;
            }
            let segment = self.layout.segments.get(index)?;
            let passed = place.object - segment.object;
            if segment.is_filemarks() {
                return Ok((segment.place(passed + 1), left, SpaceStop::Filemark));
            }
            let step = left.min(segment.run.count() - passed);
            place = segment.place(passed + step);
            left -= step;
        }
        let stop = if left == 0 { SpaceStop::Done } else { SpaceStop::EndOfData };
        Ok((place, left, stop))
    }

    fn records_backwards(&self, wanted: u64) -> Result<(Place, u64, SpaceStop)> {
        let (mut place, mut left) = (self.place, wanted);
        let found = match place.object.checked_sub(1) {
            Some(object) => self.layout.segment_of(object)?,
            None => None,
        };
        let behind = found.map_or(0, |(index, _)| index + 1);
        for index in (0..behind).rev() {
            if left == 0 {
                break;
            }
            let segment = self.layout.segments.get(index)?;
            let passed = place.object - segment.object;
            if segment.is_filemarks() {
                return Ok((segment.place(passed - 1), left, SpaceStop::Filemark));
            }
            let step = left.min(passed);
            place = segment.place(passed - step);
            left -= step;
        }
        let stop = if left == 0 { SpaceStop::Done } else { SpaceStop::Beginning };
        Ok((place, left, stop))
    }

    fn filemarks_forwards(&self, wanted: u64) -> Result<(Place, u64, SpaceStop)> {
        let there = self.layout.end.file - self.place.file;
        match wanted {
            0 => Ok((self.place, 0, SpaceStop::Done)),
            _ if wanted > there => Ok((self.layout.end, wanted - there, SpaceStop::EndOfData)),
            _ => {
                let last = self.filemark(self.place.file + wanted - 1)?;
                let behind = Place { object: last.object + 1, file: last.file + 1, ..last };
                Ok((behind, 0, SpaceStop::Done))
            }
        }
    }

    fn filemarks_backwards(&self, wanted: u64) -> Result<(Place, u64, SpaceStop)> {
        match self.place.file.checked_sub(wanted) {
            Some(number) => Ok((self.filemark(number)?, 0, SpaceStop::Done)),
            None => Ok((Place::default(), wanted - self.place.file, SpaceStop::Beginning)),
        }
    }

    /// The place before the filemark with this number, from 0; it must exist.
    fn filemark(&self, number: u64) -> Result<Place> {
        let behind = self.layout.segments.partition_point(|s| s.file <= number)?;
        let segment = self.layout.segments.get(behind.saturating_sub(1))?;
        Ok(segment.place(number - segment.file))
    }

    /// The place before an object; an error beyond the end of data.
    pub fn place_of(&self, object: ObjectNumber) -> Result<Place> {
        match object > self.layout.end.object {
            true => Err(StoreError::BeyondEnd { object, end: self.layout.end.object }),
            false => self.layout.place_of(object),
        }
    }

    /// The place before the first filemark at or behind `object`; the end of data if there is
    /// none. Subtracting [`Reel::place_of`] gives the distance in objects and bytes.
    pub fn filemark_after(&self, object: ObjectNumber) -> Result<Place> {
        let file = self.place_of(object)?.file;
        match file < self.layout.end.file {
            true => self.filemark(file),
            false => Ok(self.layout.end),
        }
    }

    /// Where a reader stands that began with `object` and took `bytes` bytes of records, filemarks
    /// passed only where bytes from behind them are needed: the place before the record that it is
    /// in or comes to, and the offset in that record (0 between two objects). Rounding progress up
    /// to a record is the place's object, plus one if the offset is not 0.
    pub fn after_bytes(&self, object: ObjectNumber, bytes: u64) -> Result<(Place, u32)> {
        let start = self.place_of(object)?;
        let Some(byte) = start.byte.checked_add(bytes).filter(|b| *b <= self.layout.end.byte)
        else {
            return Err(StoreError::BeyondEnd { object, end: self.layout.end.object });
        };
        if bytes == 0 {
            return Ok((start, 0));
        }
        // The record that holds the last byte taken.
        let behind = self.layout.segments.partition_point(|s| s.byte < byte)?;
        let segment = self.layout.segments.get(behind.saturating_sub(1))?;
        let (within, size) = (byte - segment.byte, u64::from(segment.run.size()).max(1));
        Ok((segment.place(within / size), (within % size) as u32))
    }

    /// Reads bytes of successive records, from `offset` bytes behind the start of `object` on,
    /// however many records that spans, but not beyond the next filemark: returns how many bytes
    /// that were, 0 at the filemark or the end of data. Does not move the current place.
    pub fn read_at(
        &mut self,
        object: ObjectNumber,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let limit = self.filemark_after(object)?;
        let byte = self.place_of(object)?.byte.checked_add(offset).filter(|b| *b <= limit.byte);
        let beyond = StoreError::BeyondEnd { object: limit.object + 1, end: limit.object };
        let byte = byte.ok_or(beyond)?;
        let len = buffer.len().min(usize::try_from(limit.byte - byte).unwrap_or(usize::MAX));
        self.bytes(byte, &mut buffer[..len])?;
        Ok(len)
    }

    /// Reads the byte stream of all records from its byte `byte` on, over records and filemarks,
    /// which have no bytes: returns how many bytes that were, 0 at the end of data only. Does not
    /// move the current place.
    pub fn read_stream(&mut self, byte: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.layout.end.byte.saturating_sub(byte);
        let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.bytes(byte, &mut buffer[..len])?;
        Ok(len)
    }

    /// The runs of objects from `object` to the end of data, the first one cut to begin there.
    pub fn runs(&self, object: ObjectNumber) -> Runs<'_> {
        self.layout.runs(object)
    }

    fn bytes(&mut self, byte: u64, buffer: &mut [u8]) -> Result<()> {
        self.ahead.read(&self.layout, byte, buffer)
    }

    fn segment_here(&mut self) -> Result<Option<Segment>> {
        let object = self.place.object;
        let here = |s: &Segment| (s.object..s.end().object).contains(&object);
        if self.segment.as_ref().is_none_or(|segment| !here(segment)) {
            self.segment = self.layout.segment_of(object)?.map(|(_, segment)| segment);
        }
        Ok(self.segment)
    }
}

/// Iterates over runs of objects; see [`Reel::runs`].
pub struct Runs<'a> {
    layout: &'a Layout,
    next: Option<u64>,
    object: ObjectNumber,
}

impl<'a> Runs<'a> {
    pub(crate) fn new(layout: &'a Layout, object: ObjectNumber) -> Self {
        Self { layout, next: None, object }
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<ObjectRun>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.next {
            Some(index) if index >= self.layout.segments.len() => return None,
            Some(index) => self.layout.segments.get(index).map(|segment| (index, segment)),
            None => match self.layout.segment_of(self.object) {
                Ok(found) => Ok(found?),
                Err(error) => Err(error),
            },
        };
        if found.is_err() {
            self.next = Some(u64::MAX);
        }
        Some(found.map(|(index, segment)| {
            let skip = self.object.saturating_sub(segment.object).min(segment.run.count());
            self.next = Some(index + 1);
            match segment.run {
                ObjectRun::Records { size, count } => {
                    ObjectRun::Records { size, count: count - skip }
                }
                ObjectRun::Filemarks { count } => ObjectRun::Filemarks { count: count - skip },
            }
        }))
    }
}
