//! Where the records and filemarks of a source lie.

use std::convert::Infallible;

use model::ObjectNumber;

use crate::replicate::Segment;

/// A place in a source: `offset` bytes into the record `object`. The place behind the last byte of
/// a record is offset 0 of what follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourcePoint {
    /// The object.
    pub object: ObjectNumber,
    /// Bytes into it; 0 at a filemark and at the end of data.
    pub offset: u64,
}

/// What stops the reading of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A filemark.
    Filemark,
    /// The end of data.
    EndOfData,
}

/// What [`Splice`](crate::Splice) asks about a source.
pub trait Layout {
    /// Why the source can not tell; [`Infallible`] for a layout in memory.
    type Error;

    /// Bytes from a place to the next filemark or the end of data, and which of them it is.
    fn to_mark(&self, at: SourcePoint) -> Result<(u64, Mark), Self::Error>;

    /// The place `bytes` further on; `bytes` is at most what [`Layout::to_mark`] says.
    fn advance(&self, at: SourcePoint, bytes: u64) -> Result<SourcePoint, Self::Error>;

    /// Bytes from a place to the end of the record that it lies in, 0 at the beginning of one.
    fn to_record_end(&self, at: SourcePoint) -> Result<u64, Self::Error>;
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    first_object: u64,
    first_byte: u64,
    segment: Segment,
}

impl Placed {
    fn objects(&self) -> u64 {
        match self.segment {
            Segment::Records { count, .. } | Segment::Filemarks(count) => count,
        }
    }

    fn bytes(&self) -> u64 {
        match self.segment {
            Segment::Records { size, count } => u64::from(size).saturating_mul(count),
            Segment::Filemarks(_) => 0,
        }
    }
}

/// A layout in memory, made of runs. Look-ups are logarithmic in their number.
#[derive(Clone, Debug, Default)]
pub struct SegmentLayout {
    placed: Vec<Placed>,
    /// For each run the index of the first run of filemarks at or behind it, or how many there are.
    marks: Vec<usize>,
    objects: u64,
    bytes: u64,
}

impl SegmentLayout {
    /// The layout with these runs, in order. Empty ones are left out.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        let mut layout = Self::default();
        for segment in segments {
            let (first_object, first_byte) = (layout.objects, layout.bytes);
            let placed = Placed { first_object, first_byte, segment };
            if placed.objects() > 0 {
                layout.objects = layout.objects.saturating_add(placed.objects());
                layout.bytes = layout.bytes.saturating_add(placed.bytes());
                layout.placed.push(placed);
            }
        }
        let mut mark = layout.placed.len();
        layout.marks = vec![mark; mark];
        for (index, placed) in layout.placed.iter().enumerate().rev() {
            if matches!(placed.segment, Segment::Filemarks(_)) {
                mark = index;
            }
            layout.marks[index] = mark;
        }
        layout
    }

    /// How many objects there are.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The index of the run with this object, or how many runs there are.
    fn run(&self, object: ObjectNumber) -> usize {
        let before = self.placed.partition_point(|placed| placed.first_object <= object);
        match before.checked_sub(1) {
            Some(index) if object < self.objects => index,
            _ => self.placed.len(),
        }
    }

    /// Bytes of records before a place.
    fn byte(&self, at: SourcePoint) -> u64 {
        let Some(placed) = self.placed.get(self.run(at.object)) else { return self.bytes };
        let size = match placed.segment {
            Segment::Records { size, .. } => size.into(),
            Segment::Filemarks(_) => 0,
        };
        placed.first_byte + (at.object - placed.first_object) * size + at.offset
    }

    /// The first byte and object of the next run of filemarks, or of the end of data.
    fn mark(&self, at: SourcePoint) -> (u64, ObjectNumber, Mark) {
        let run = self.run(at.object);
        let mark = self.marks.get(run).copied().unwrap_or(run);
        match self.placed.get(mark) {
            // Within a run of filemarks the next one is right here.
            Some(placed) if mark == run => (placed.first_byte, at.object, Mark::Filemark),
            Some(placed) => (placed.first_byte, placed.first_object, Mark::Filemark),
            None => (self.bytes, self.objects, Mark::EndOfData),
        }
    }
}

impl Layout for SegmentLayout {
    type Error = Infallible;

    fn to_mark(&self, at: SourcePoint) -> Result<(u64, Mark), Infallible> {
        let (byte, _, mark) = self.mark(at);
        Ok((byte.saturating_sub(self.byte(at)), mark))
    }

    fn advance(&self, at: SourcePoint, bytes: u64) -> Result<SourcePoint, Infallible> {
        let (mark_byte, mark_object, _) = self.mark(at);
        let byte = self.byte(at).saturating_add(bytes);
        if byte >= mark_byte {
            return Ok(SourcePoint { object: mark_object, offset: 0 });
        }
        // Before the mark the last run that begins at or before the byte holds it.
        let run = self.placed.partition_point(|placed| placed.first_byte <= byte);
        let point = run.checked_sub(1).and_then(|run| match self.placed[run] {
            Placed { first_object, first_byte, segment: Segment::Records { size, .. } } => {
                let (past, size) = (byte - first_byte, u64::from(size.max(1)));
                Some(SourcePoint { object: first_object + past / size, offset: past % size })
            }
            Placed { segment: Segment::Filemarks(_), .. } => None,
        });
        Ok(point.unwrap_or(at))
    }

    fn to_record_end(&self, at: SourcePoint) -> Result<u64, Infallible> {
        let placed = self.placed.get(self.run(at.object));
        Ok(match placed.map(|placed| placed.segment) {
            Some(Segment::Records { size, .. }) if at.offset > 0 => {
                u64::from(size).saturating_sub(at.offset)
            }
            _ => 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(object: u64, offset: u64) -> SourcePoint {
        SourcePoint { object, offset }
    }

    fn unwrap<T>(result: Result<T, Infallible>) -> T {
        match result {
            Ok(value) => value,
        }
    }

    #[test]
    fn marks_and_ends_are_found() {
        let layout = SegmentLayout::new([
            Segment::Records { size: 10, count: 3 },
            Segment::Filemarks(2),
            Segment::Records { size: 7, count: 1 },
            Segment::Records { size: 5, count: 2 },
        ]);
        assert_eq!((layout.objects(), layout.bytes()), (8, 47));
        assert_eq!(unwrap(layout.to_mark(point(1, 4))), (16, Mark::Filemark));
        assert_eq!(unwrap(layout.to_mark(point(3, 0))), (0, Mark::Filemark));
        assert_eq!(unwrap(layout.to_mark(point(4, 0))), (0, Mark::Filemark));
        assert_eq!(unwrap(layout.to_mark(point(5, 0))), (17, Mark::EndOfData));
        assert_eq!(unwrap(layout.to_mark(point(8, 0))), (0, Mark::EndOfData));
        assert_eq!(unwrap(layout.advance(point(1, 4), 16)), point(3, 0));
        assert_eq!(unwrap(layout.advance(point(4, 0), 0)), point(4, 0));
        assert_eq!(unwrap(layout.advance(point(5, 0), 8)), point(6, 1));
        assert_eq!(unwrap(layout.advance(point(5, 0), 17)), point(8, 0));
        assert_eq!(unwrap(layout.to_record_end(point(5, 3))), 4);
        assert_eq!(unwrap(layout.to_record_end(point(6, 0))), 0);
    }

    proptest! {
        #[test]
        fn going_in_steps_is_going_at_once(
            sizes in prop::collection::vec((1u32..20, 1u64..4, prop::bool::ANY), 1..12),
            steps in prop::collection::vec(0u64..25, 0..20),
        ) {
            let segments = sizes.iter().map(|(size, count, mark)| match mark {
                true => Segment::Filemarks(*count),
                false => Segment::Records { size: *size, count: *count },
            });
            let layout = SegmentLayout::new(segments);
            let start = SourcePoint::default();
            let (room, mark) = unwrap(layout.to_mark(start));
            let (mut at, mut gone) = (start, 0);
            for step in steps {
                let step = step.min(room - gone);
                at = unwrap(layout.advance(at, step));
                gone += step;
                prop_assert_eq!(at, unwrap(layout.advance(start, gone)));
                prop_assert_eq!(unwrap(layout.to_mark(at)), (room - gone, mark));
            }
        }
    }
}
