//! The remote crashed between doing and recording: what a repeated number means now.

use model::{ElementAddress, ObjectNumber};
use scsi::Sense;
use tape::{Inventory, Operation, Outcome, Position, TapeError, WriteEnd};

use super::{Answer, Doubt, Expect, Work};
use crate::range::{CopyRange, RangeSource};

/// What a position proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The drive stands where it stood before: the operation was not done.
    NotDone,
    /// The drive stands where it stands after: it was done.
    Done,
    /// Anything else.
    PositionUnknown,
}

/// Compares the drive's object number with the one before an operation and the one after it.
/// Equal to before is *not done*, also when before and after are equal (doing it again is then
/// the same as once); equal to after is *done*; anything else, and an unknown before, proves
/// nothing.
pub fn after_crash(
    before: Option<ObjectNumber>,
    after: Option<ObjectNumber>,
    actual: ObjectNumber,
) -> Proof {
    match (before, after) {
        (Some(before), _) if actual == before => Proof::NotDone,
        (Some(_), Some(after)) if actual == after => Proof::Done,
        _ => Proof::PositionUnknown,
    }
}

/// What to do with a repeated number that has no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was not done (or doing it again changes nothing): do it.
    Execute,
    /// It was perhaps done but changes no medium, or all that it changes is written anew: locate to
    /// this object first, then do it.
    LocateThenExecute(ObjectNumber),
    /// A copy range of which so many records are written: go on behind them.
    ContinueCopy {
        /// Whole records written.
        records: u64,
    },
    /// Do nothing: complete it with this answer.
    Answer(Answer),
}

/// Settles a doubtful number on a drive. `probe` reads the drive's position; it is asked again when
/// it meets a unit attention 06/29 (reset: the buffer and the place are lost).
pub fn settle(
    work: &Work,
    doubt: Doubt,
    mut probe: impl FnMut() -> Result<Position, TapeError>,
) -> Settled {
    let expect = doubt.expect;
    let unclaimed = !doubt.repeated && expect.before.is_none() && !expect.unflushed;
    if unclaimed || needs_no_proof(work, expect) {
        return Settled::Execute;
    }
    let (position, reset) = match probe() {
        Err(TapeError::Check(sense)) if sense.key == 0x06 && sense.asc == 0x29 => {
            (probe(), Some(sense))
        }
        other => (other, None),
    };
    match (position, reset) {
        (Ok(position), None) if doubt.repeated => proven(work, expect, &position),
        (Ok(position), None) if expect.before == Some(position.object) => Settled::Execute,
        (Ok(position), None) => misplaced(expect, position.object),
        (Ok(position), Some(attention)) => {
            let done = doubt.repeated && writes(work) && expect.before != Some(position.object);
            after_reset(work, expect, done, attention)
        }
        (Err(error), _) => {
            unknown(&format!("after a restart its position can not be read: {error}"))
        }
    }
}

/// What can be done again at any time: looking, and going to an absolute place while nothing that
/// was acknowledged is at stake.
fn needs_no_proof(work: &Work, expect: Expect) -> bool {
    match work {
        Work::Operation(operation) => match operation {
            Operation::Rewind | Operation::Locate(_) => !expect.unflushed,
            Operation::Load | Operation::Unload => !expect.unflushed,
            Operation::Initialize => true,
            Operation::Cdb(request) => only_looks(&request.cdb),
            other => !other.has_effect(),
        },
        Work::Close => !expect.unflushed,
        Work::Copy(_) | Work::Read(_) => false,
    }
}

/// CDBs that change nothing: TEST UNIT READY, REQUEST SENSE, READ BLOCK LIMITS, INQUIRY, MODE
/// SENSE, READ POSITION, REPORT DENSITY, LOG SENSE, READ ATTRIBUTE, REPORT LUNS, MAINTENANCE IN,
/// READ ELEMENT STATUS.
pub(super) fn only_looks(cdb: &[u8]) -> bool {
    const LOOKS: [u8; 13] =
        [0x00, 0x03, 0x05, 0x12, 0x1a, 0x34, 0x44, 0x4d, 0x5a, 0x8c, 0xa0, 0xa3, 0xb8];
    cdb.first().is_some_and(|code| LOOKS.contains(code))
}

fn proven(work: &Work, expect: Expect, position: &Position) -> Settled {
    let proof = after_crash(expect.before, expect.after, position.object);
    match (work, proof) {
        (Work::Operation(Operation::Cdb(_)), _) => {
            unknown("whether the command was executed before the restart can not be told")
        }
        (_, Proof::NotDone) => Settled::Execute,
        (Work::Operation(operation), Proof::Done) if operation.has_effect() => {
            let end = match position.past_early_warning {
                true => WriteEnd::EarlyWarning,
                false => WriteEnd::Written,
            };
            Settled::Answer(Answer::Outcome(Outcome::Written(end)))
        }
        (Work::Copy(range), _) => copy_proven(range, expect, position.object),
        (Work::Read(_) | Work::Operation(Operation::Read(_) | Operation::Space(_, _)), _)
            if !expect.unflushed =>
        {
            match expect.before {
                Some(before) => Settled::LocateThenExecute(before),
                None => misplaced(expect, position.object),
            }
        }
        _ => misplaced(expect, position.object),
    }
}

/// Each record of a range moves the drive by one object, so its place tells how many are written.
fn copy_proven(range: &CopyRange, expect: Expect, actual: ObjectNumber) -> Settled {
    let bytes = match &range.source {
        RangeSource::Extents(list) => list.iter().map(|extent| extent.length).sum(),
        RangeSource::Stream { length, .. } => *length,
    };
    let size = u64::from(range.record_size.max(1));
    let most = if range.pad_last { bytes.div_ceil(size) } else { bytes / size };
    match expect.before.and_then(|before| actual.checked_sub(before)) {
        Some(records) if records <= most => Settled::ContinueCopy { records },
        _ => misplaced(expect, actual),
    }
}

/// Whether the medium differs when it was done.
fn writes(work: &Work) -> bool {
    match work {
        Work::Operation(operation) => matches!(
            operation,
            Operation::Write(_) | Operation::WriteFilemarks(_) | Operation::Cdb(_)
        ),
        Work::Copy(_) => true,
        Work::Read(_) | Work::Close => false,
    }
}

/// The drive itself restarted: it stands at BOT whatever was done, and its buffer is gone. With
/// nothing at stake its attention is the answer, as from a drive that did not do the command. A
/// range of a copy names where it begins, so that it goes there: a copy that waited for its data,
/// or for its next tape, does not end with a restart of the engine beside the drive.
fn after_reset(work: &Work, expect: Expect, perhaps_done: bool, attention: Sense) -> Settled {
    match (work, expect.before) {
        _ if expect.unflushed || perhaps_done => {
            unknown("the drive was reset; what was in its buffer is lost")
        }
        (Work::Copy(CopyRange { source: RangeSource::Extents(_), .. }), Some(before)) => {
            Settled::LocateThenExecute(before)
        }
        _ => Settled::Answer(Answer::Failed(TapeError::Check(attention))),
    }
}

fn misplaced(expect: Expect, actual: ObjectNumber) -> Settled {
    let before = expect.before.map_or("an unknown object".into(), |at| format!("object {at}"));
    unknown(&format!("after a restart the drive stands at object {actual}, not at {before}"))
}

fn unknown(why: &str) -> Settled {
    Settled::Answer(Answer::Failed(TapeError::PositionUnknown(why.to_owned())))
}

/// Settles a repeated move of a changer by the inventory: source full and destination empty is not
/// done, the other way round is done.
pub fn settle_move(from: ElementAddress, to: ElementAddress, inventory: &Inventory) -> Settled {
    let full = |address| {
        let element = inventory.elements.iter().find(|element| element.address == address);
        element.map(|element| element.full)
    };
    match (full(from), full(to)) {
        _ if from == to => Settled::Execute,
        (Some(true), Some(false)) | (None, _) | (_, None) => Settled::Execute,
        (Some(false), Some(true)) => Settled::Answer(Answer::Outcome(Outcome::Done)),
        _ => unknown("whether the cartridge was moved before the restart can not be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn at(object: u64) -> impl FnMut() -> Result<Position, TapeError> {
        move || Ok(Position { object, ..Position::default() })
    }

    fn after_attention(object: u64) -> impl FnMut() -> Result<Position, TapeError> {
        let mut met = false;
        move || match std::mem::replace(&mut met, true) {
            false => Err(TapeError::Check(Sense::POWER_ON_RESET)),
            true => Ok(Position { object, ..Position::default() }),
        }
    }

    fn again(before: u64, after: Option<u64>, unflushed: bool) -> Doubt {
        let expect = Expect { before: Some(before), after, unflushed };
        Doubt { expect, repeated: true }
    }

    fn is_unknown(settled: &Settled) -> bool {
        matches!(settled, Settled::Answer(Answer::Failed(TapeError::PositionUnknown(_))))
    }

    #[test]
    fn a_position_proves_not_done_done_or_nothing() {
        for (before, after, actual, proof) in [
            (Some(5), Some(6), 5, Proof::NotDone),
            (Some(5), Some(6), 6, Proof::Done),
            (Some(5), Some(6), 7, Proof::PositionUnknown),
            (Some(5), Some(6), 0, Proof::PositionUnknown),
            (Some(5), None, 6, Proof::PositionUnknown),
            (Some(5), Some(5), 5, Proof::NotDone),
            (None, Some(6), 6, Proof::PositionUnknown),
        ] {
            assert_eq!(after_crash(before, after, actual), proof);
        }
    }

    #[test]
    fn a_write_is_settled_by_its_place() {
        let write = Work::Operation(Operation::Write(Bytes::from_static(b"x")));
        let expect = again(5, Some(6), true);
        assert_eq!(settle(&write, expect, at(5)), Settled::Execute);
        let done = Answer::Outcome(Outcome::Written(WriteEnd::Written));
        assert_eq!(settle(&write, expect, at(6)), Settled::Answer(done));
        assert!(is_unknown(&settle(&write, expect, at(0))));
        assert!(is_unknown(&settle(&write, expect, after_attention(5))));
    }

    #[test]
    fn going_somewhere_is_safe_only_while_nothing_is_at_stake() {
        for work in [Work::Operation(Operation::Rewind), Work::Close] {
            let never = || -> Result<Position, TapeError> { panic!("no need to look") };
            assert_eq!(settle(&work, again(5, None, false), never), Settled::Execute);
            assert_eq!(settle(&work, again(5, None, true), at(5)), Settled::Execute);
            assert!(is_unknown(&settle(&work, again(5, None, true), at(0))));
            assert!(is_unknown(&settle(&work, again(5, None, true), after_attention(0))));
        }
    }

    #[test]
    fn a_new_number_only_needs_the_drive_in_its_place() {
        let write = Work::Operation(Operation::Write(Bytes::from_static(b"x")));
        let fresh = |doubt: Doubt| Doubt { repeated: false, ..doubt };
        let doubt = fresh(again(5, Some(6), true));
        assert_eq!(settle(&write, doubt, at(5)), Settled::Execute);
        assert!(is_unknown(&settle(&write, doubt, at(6))));
        assert!(is_unknown(&settle(&write, doubt, at(0))));
        assert!(is_unknown(&settle(&write, doubt, after_attention(0))));
        let attention = Answer::Failed(TapeError::Check(Sense::POWER_ON_RESET));
        let clean = fresh(again(5, Some(6), false));
        assert_eq!(settle(&write, clean, after_attention(0)), Settled::Answer(attention));
        let unknown = Expect { before: None, after: None, unflushed: false };
        let doubt = Doubt { expect: unknown, repeated: false };
        assert_eq!(settle(&write, doubt, at(9)), Settled::Execute);
    }

    #[test]
    fn reading_begins_again_where_it_began() {
        let read = Work::Operation(Operation::Read(512));
        let locate = Settled::LocateThenExecute(5);
        assert_eq!(settle(&read, again(5, None, false), at(6)), locate);
        assert_eq!(settle(&read, again(5, None, false), at(5)), Settled::Execute);
        let attention = TapeError::Check(Sense::POWER_ON_RESET);
        assert_eq!(
            settle(&read, again(5, None, false), after_attention(0)),
            Settled::Answer(Answer::Failed(attention))
        );
    }

    #[test]
    fn a_range_goes_on_behind_its_last_record() {
        let job = model::JobId(model::Ulid(1));
        let stream = crate::stream::StreamId(model::Ulid(2));
        let range = |pad_last| {
            let source = RangeSource::Stream { stream, from: 0, length: 25 };
            let (record_size, flush, expected_object) = (10, false, 7);
            let ignore_early_warning = false;
            Work::Copy(CopyRange {
                job,
                source,
                record_size,
                pad_last,
                flush,
                ignore_early_warning,
                verify: None,
                expected_object,
            })
        };
        let expect = again(7, None, true);
        let go_on = |records| Settled::ContinueCopy { records };
        assert_eq!(settle(&range(false), expect, at(7)), Settled::Execute);
        assert_eq!(settle(&range(false), expect, at(9)), go_on(2));
        assert!(is_unknown(&settle(&range(false), expect, at(10))));
        assert_eq!(settle(&range(true), expect, at(10)), go_on(3));
        assert!(is_unknown(&settle(&range(true), expect, at(6))));
        assert!(is_unknown(&settle(&range(true), expect, after_attention(0))));
    }

    #[test]
    fn a_range_finds_its_place_after_a_reset_if_nothing_is_at_stake() {
        let source = RangeSource::Extents(Vec::new());
        let (job, record_size, expected_object) = (model::JobId(model::Ulid(1)), 10, 7);
        let range = Work::Copy(CopyRange {
            job,
            source,
            record_size,
            pad_last: false,
            flush: false,
            ignore_early_warning: false,
            expected_object,
            verify: None,
        });
        let fresh = |doubt: Doubt| Doubt { repeated: false, ..doubt };
        let go = Settled::LocateThenExecute;
        assert_eq!(settle(&range, fresh(again(7, None, false)), after_attention(0)), go(7));
        assert!(is_unknown(&settle(&range, fresh(again(7, None, true)), after_attention(0))));
        // Some of it may be on the medium; from the beginning of the tape all is written anew.
        assert!(is_unknown(&settle(&range, again(7, None, false), after_attention(0))));
        assert_eq!(settle(&range, again(0, None, false), after_attention(0)), go(0));
    }

    #[test]
    fn a_move_is_settled_by_the_inventory() {
        let map = model::ElementMap::with_counts(1, 2, 0);
        let inventory = |slot0, slot1| {
            let element = |address, full| tape::ElementStatus {
                address,
                kind: model::ElementType::Storage,
                full,
                barcode: None,
                accessible: true,
                imported: false,
                source: None,
                exception: None,
                drive: None,
            };
            Inventory {
                map: map.clone(),
                elements: vec![element(1024, slot0), element(1025, slot1)],
            }
        };
        let done = Settled::Answer(Answer::Outcome(Outcome::Done));
        assert_eq!(settle_move(1024, 1025, &inventory(true, false)), Settled::Execute);
        assert_eq!(settle_move(1024, 1025, &inventory(false, true)), done);
        assert!(is_unknown(&settle_move(1024, 1025, &inventory(true, true))));
        assert!(is_unknown(&settle_move(1024, 1025, &inventory(false, false))));
    }
}
