//! Tables for the boundaries, and random copies: whatever the windows, filemarks and results, the
//! destination holds the stream, no byte lost or doubled.

use std::convert::Infallible;

use model::Ulid;
use proptest::prelude::*;

use super::*;
use crate::range::SegmentLayout;
use crate::replicate::Segment;

const GENERATION: GenerationId = GenerationId(Ulid(1));
const NO_END: u64 = u64::MAX;

fn splice(record_size: u32) -> Splice {
    Splice::new(JobId(Ulid(9)), record_size, GENERATION, SourcePoint::default())
}

fn view(source_left: u64, destination_left: u64, closed: bool) -> SourceView {
    SourceView { source_left, destination_left, closed, destination_object: 0 }
}

fn records(size: u32, count: u64) -> Segment {
    Segment::Records { size, count }
}

fn extents(step: Step) -> Vec<(u64, u64, u64)> {
    match step {
        Step::Range(CopyRange { source: RangeSource::Extents(list), .. }) => {
            list.iter().map(|it| (it.first_object, it.offset_in_object, it.length)).collect()
        }
        other => panic!("no range: {other:?}"),
    }
}

fn result(end: RangeEnd, bytes: u64, records: u64) -> RangeResult {
    RangeResult { end, bytes, records, object: 0, flushed: false }
}

type Outcome<T> = Result<T, SpliceError<Infallible>>;

#[test]
fn a_rest_is_carried_over_a_filemark_and_written_first() -> Outcome<()> {
    let layout = SegmentLayout::new([records(10, 3), Segment::Filemarks(1), records(7, 4)]);
    let mut splice = splice(8);
    let free = view(NO_END, NO_END, false);
    assert_eq!(extents(splice.next(&layout, free)?), [(0, 0, 30)]);
    let visible = splice.visible(&layout, 16)?;
    assert_eq!((visible.destination_bytes, visible.source_bytes), (16, 20));
    assert_eq!(visible.source, SourcePoint { object: 2, offset: 0 });
    splice.ended(&layout, &result(RangeEnd::Done, 24, 3))?;
    assert_eq!((splice.written(), splice.held()), (24, 6));
    assert_eq!(splice.next(&layout, free)?, Step::At(Boundary::Filemark));
    // The application spaces over the filemark and the first record behind it.
    splice.set_source::<Infallible>(GENERATION, SourcePoint { object: 5, offset: 0 })?;
    assert_eq!(extents(splice.next(&layout, free)?), [(0, 24, 6), (5, 0, 21)]);
    splice.ended(&layout, &result(RangeEnd::Done, 24, 3))?;
    assert_eq!(splice.next(&layout, free)?, Step::At(Boundary::EndOfData));
    let closing = splice.next(&layout, view(0, NO_END, true))?;
    let Step::Range(range) = closing else { panic!("the rest is to be written") };
    assert!(range.pad_last && range.flush);
    splice.ended(&layout, &result(RangeEnd::Done, 3, 1))?;
    assert_eq!(splice.written(), 51);
    assert_eq!(splice.next(&layout, view(0, NO_END, true))?, Step::At(Boundary::Finished));
    Ok(())
}

#[test]
fn a_window_ends_only_when_more_data_is_there() -> Outcome<()> {
    let layout = SegmentLayout::new([records(10, 2), Segment::Filemarks(1)]);
    // Empty window and data: EOW at once.
    let mut empty = splice(10);
    let none = view(NO_END, 0, false);
    assert_eq!(empty.next(&layout, none)?, Step::At(Boundary::DestinationWindow));
    // Filled exactly at the filemark: the source pauses, the destination does not.
    let mut exact = splice(10);
    assert_eq!(extents(exact.next(&layout, view(NO_END, 20, false))?), [(0, 0, 20)]);
    exact.ended(&layout, &result(RangeEnd::Done, 20, 2))?;
    assert_eq!(exact.next(&layout, none)?, Step::At(Boundary::Filemark));
    // Filled before it.
    let mut early = splice(5);
    assert_eq!(extents(early.next(&layout, view(NO_END, 15, false))?), [(0, 0, 15)]);
    let visible = early.ended(&layout, &result(RangeEnd::Done, 15, 3))?;
    assert_eq!((visible.destination_bytes, visible.source_bytes), (15, 20));
    assert_eq!(early.next(&layout, none)?, Step::At(Boundary::DestinationWindow));
    // The source's own window.
    let mut short = splice(5);
    assert_eq!(extents(short.next(&layout, view(12, NO_END, false))?), [(0, 0, 12)]);
    let visible = short.ended(&layout, &result(RangeEnd::Done, 10, 2))?;
    assert_eq!((visible.source_bytes, short.held()), (12, 2));
    assert_eq!(short.next(&layout, view(0, NO_END, false))?, Step::At(Boundary::SourceWindow));
    Ok(())
}

#[test]
fn the_end_of_a_medium_keeps_what_is_not_on_it() -> Outcome<()> {
    let layout = SegmentLayout::new([records(10, 10), Segment::Filemarks(1)]);
    let mut splice = splice(8);
    let free = view(NO_END, NO_END, false);
    splice.next(&layout, free)?;
    let visible = splice.ended(&layout, &result(RangeEnd::Overflow, 32, 4))?;
    assert_eq!((visible.destination_bytes, visible.source_bytes), (32, 40));
    assert_eq!(extents(splice.next(&layout, free)?), [(3, 2, 68)]);
    let visible = splice.ended(&layout, &result(RangeEnd::EarlyWarning, 64, 8))?;
    assert_eq!(visible.destination_bytes, 96);
    // The last bytes, less than a record, were not asked for yet: they are still in the source.
    assert_eq!(splice.held(), 0);
    assert_eq!(splice.next(&layout, free)?, Step::At(Boundary::Filemark));
    assert_eq!(splice.held(), 4);
    Ok(())
}

#[test]
fn refusals_change_nothing_and_lies_are_found() -> Outcome<()> {
    let layout = SegmentLayout::new([records(10, 3)]);
    let mut splice = splice(8);
    let free = view(NO_END, NO_END, false);
    let first = splice.next(&layout, free)?;
    splice.ended(&layout, &result(RangeEnd::NotReplicated, 0, 0))?;
    assert_eq!(splice.next(&layout, free)?, first);
    for lie in [
        result(RangeEnd::Done, 16, 2),
        result(RangeEnd::Overflow, 15, 2),
        result(RangeEnd::Overflow, 32, 4),
        result(RangeEnd::NotMine, 8, 1),
        result(RangeEnd::Done, 30, 4),
    ] {
        assert!(matches!(splice.ended(&layout, &lie), Err(SpliceError::Impossible { .. })));
    }
    assert!(matches!(splice.next(&layout, free), Err(SpliceError::Misuse(_))));
    Ok(())
}

#[test]
fn too_many_pieces_are_refused() -> Outcome<()> {
    let files = (0..5000).flat_map(|_| [records(1, 1), Segment::Filemarks(1)]);
    let layout = SegmentLayout::new(files);
    let mut splice = splice(1 << 20);
    let free = view(NO_END, NO_END, false);
    for file in 0..5000 {
        splice.set_source::<Infallible>(GENERATION, SourcePoint { object: 2 * file, offset: 0 })?;
        match splice.next(&layout, free) {
            Err(SpliceError::Fragmented) => {
                assert_eq!(file, 4096);
                return Ok(());
            }
            step => assert_eq!(step?, Step::At(Boundary::Filemark)),
        }
    }
    panic!("never refused");
}

/// The bytes of a source by their number in it, and where each object begins.
fn content(segments: &[Segment]) -> (Vec<u32>, Vec<u64>) {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for segment in segments {
        match segment {
            Segment::Records { size, count } => {
                for _ in 0..*count {
                    starts.push(bytes.len() as u64);
                    let first = bytes.len() as u32;
                    bytes.extend(first..first + size);
                }
            }
            Segment::Filemarks(count) => {
                (0..*count).for_each(|_| starts.push(bytes.len() as u64));
            }
        }
    }
    starts.push(bytes.len() as u64);
    (bytes, starts)
}

/// A destination: takes a range and ends it as it is told.
fn perform(
    range: &CopyRange,
    fate: u8,
    limit: u64,
    tape: &mut Vec<u32>,
    starts: &[u64],
) -> RangeResult {
    let RangeSource::Extents(list) = &range.source else { panic!("extents") };
    let mut bytes = Vec::new();
    for extent in list {
        let first = starts[extent.first_object as usize] + extent.offset_in_object;
        bytes.extend(first as u32..(first + extent.length) as u32);
    }
    let size = range.record_size as usize;
    let whole = bytes.len() / size;
    let most = if range.pad_last { bytes.len().div_ceil(size) } else { whole };
    let (end, records) = match fate {
        0..4 => (RangeEnd::Done, most),
        4 => (RangeEnd::EarlyWarning, most.min(1 + limit as usize)),
        5 => (RangeEnd::Overflow, most.min(limit as usize)),
        6 => (RangeEnd::Cancelled, most.min(limit as usize)),
        _ => (RangeEnd::NotReplicated, 0),
    };
    let length = bytes.len().min(records * size);
    tape.extend(&bytes[..length]);
    RangeResult { end, bytes: length as u64, records: records as u64, object: 0, flushed: false }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn no_byte_is_lost_or_doubled(
        parts in prop::collection::vec((1u32..30, 1u64..5, prop::bool::weighted(0.3)), 1..8),
        record_size in 1u32..40,
        moves in prop::collection::vec((0u8..8, 0u64..4, 0u64..120, 0u64..120, 0u64..3), 1..60),
    ) {
        let segments: Vec<_> = parts.iter().map(|(size, count, mark)| match mark {
            true => Segment::Filemarks((*count).min(2)),
            false => records(*size, *count),
        }).collect();
        let layout = SegmentLayout::new(segments.iter().copied());
        let (bytes, starts) = content(&segments);
        let mut splice = splice(record_size);
        let (mut tape, mut stream) = (Vec::new(), Vec::<u32>::new());
        let (mut from, mut at) = (0u64, 0u64);
        // Windows as the two movers keep them: stream offsets.
        let (mut source_end, mut window_end) = (0u64, 0u64);
        let mut shown = 0;
        for (fate, limit, source, window, skip) in moves {
            let view = view(source_end - at, window_end - splice.written(), false);
            let before = splice.written();
            // A window may be set smaller than what is held already; nothing is added then.
            let reach = window_end.max(before + splice.held());
            match splice.next(&layout, view).unwrap() {
                Step::Range(range) => {
                    for done in (0..3).map(|i| i * u64::from(record_size)) {
                        let visible = splice.visible(&layout, done).unwrap();
                        prop_assert!(visible.source_bytes <= source_end);
                    }
                    let result = perform(&range, fate, limit, &mut tape, &starts);
                    let visible = splice.ended(&layout, &result).unwrap();
                    prop_assert_eq!(visible.destination_bytes, before + result.bytes);
                    prop_assert!(visible.source_bytes >= visible.destination_bytes);
                }
                Step::At(Boundary::DestinationWindow) => window_end = splice.written() + window,
                Step::At(Boundary::SourceWindow) => source_end = splice.taken + source,
                Step::At(Boundary::Filemark | Boundary::EndOfData) => {
                    // What was read so far is stream; the application goes on further behind.
                    let here = starts[splice.at.object as usize] + splice.at.offset;
                    stream.extend(&bytes[from as usize..here as usize]);
                    let next = (splice.at.object + 1 + skip).min(layout.objects());
                    let point = SourcePoint { object: next, offset: 0 };
                    splice.set_source::<Infallible>(GENERATION, point).unwrap();
                    from = starts[next as usize];
                }
                Step::At(Boundary::Finished) => prop_assert!(false, "not closed"),
            }
            at = splice.taken;
            let visible = splice.visible(&layout, 0).unwrap();
            prop_assert!(visible.source_bytes >= shown, "the source went back");
            shown = visible.source_bytes;
            prop_assert!(visible.source_bytes <= source_end);
            prop_assert!(splice.held() < u64::from(record_size));
            prop_assert!(splice.written() + splice.held() <= reach);
        }
        // Close: the rest is padded and written, whatever comes between.
        let here = starts[splice.at.object as usize] + splice.at.offset;
        stream.extend(&bytes[from as usize..here as usize]);
        for fate in [5, 6, 4, 0, 0, 0] {
            match splice.next(&layout, view(0, NO_END, true)).unwrap() {
                Step::Range(range) => {
                    let result = perform(&range, fate, 0, &mut tape, &starts);
                    splice.ended(&layout, &result).unwrap();
                }
                Step::At(boundary) => prop_assert_eq!(boundary, Boundary::Finished),
            }
        }
        prop_assert_eq!(tape, stream);
    }
}
