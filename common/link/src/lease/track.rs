//! What the client knows of the drive's place: enough to tell the remote, before each operation,
//! where the drive must stand and where it will.

use model::ObjectNumber;
use tape::{Operation, Outcome, ReadEnd, SpaceKind, SpaceStop, TapeError, WriteEnd};

use super::settle::only_looks;
use super::{Answer, Expect, Work};

/// Place and flush state as the answers so far tell them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Track {
    /// The object number, `None` where it can not be told.
    pub(super) object: Option<ObjectNumber>,
    /// Acknowledged records may be in the drive's buffer only.
    pub(super) unflushed: bool,
}

impl Track {
    /// What to expect of this work.
    pub(super) fn expected(&self, work: &Work) -> Expect {
        let after = match work {
            Work::Operation(Operation::Write(_)) => self.object.map(|at| at.saturating_add(1)),
            Work::Operation(Operation::WriteFilemarks(count)) => {
                self.object.map(|at| at.saturating_add((*count).into()))
            }
            _ => None,
        };
        Expect { before: self.object, after, unflushed: self.unflushed }
    }

    /// Takes note of an answer and gives it back; but a position that contradicts what was
    /// acknowledged, while that may not be on the medium, is an error and not an answer.
    pub(super) fn learn(&mut self, work: &Work, answer: Answer) -> Answer {
        if matches!(work, Work::Operation(Operation::Cdb(request)) if only_looks(&request.cdb)) {
            return answer;
        }
        let before = *self;
        self.note(work, &answer);
        match (&answer, before.object) {
            (Answer::Outcome(Outcome::Position(position)), Some(object))
                if before.unflushed && position.object != object =>
            {
                self.unflushed = false;
                let lost = format!(
                    "the drive stands at object {}, not at {object}: its buffer is lost",
                    position.object
                );
                Answer::Failed(TapeError::PositionUnknown(lost))
            }
            _ => answer,
        }
    }

    fn note(&mut self, work: &Work, answer: &Answer) {
        self.object = match (work, answer) {
            (_, Answer::Failed(TapeError::Busy | TapeError::Unreachable(_))) => self.object,
            (Work::Operation(operation), Answer::Outcome(outcome)) => {
                self.after(operation, outcome)
            }
            (Work::Copy(_), Answer::Copied(result)) => Some(result.object),
            (Work::Read(_), Answer::Read(result)) => Some(result.object),
            _ => None,
        };
        self.unflushed = match (work, answer) {
            (Work::Operation(Operation::Write(_) | Operation::Cdb(_)), _) => true,
            (Work::Operation(operation), Answer::Outcome(_)) if flushes(operation) => false,
            (Work::Copy(_), Answer::Copied(result)) => {
                !result.flushed && (self.unflushed || result.records > 0)
            }
            (Work::Copy(_), _) => true,
            _ => self.unflushed,
        };
    }

    fn after(&self, operation: &Operation, outcome: &Outcome) -> Option<ObjectNumber> {
        let plus = |count: u64| self.object.map(|at| at.saturating_add(count));
        match (operation, outcome) {
            (Operation::State | Operation::Inventory, _) => self.object,
            (_, Outcome::Position(position)) => Some(position.object),
            (Operation::Rewind | Operation::Load, Outcome::Done) => Some(0),
            (Operation::Locate(object), Outcome::Done) => Some(*object),
            (Operation::Write(_), Outcome::Written(WriteEnd::Overflow)) => self.object,
            (Operation::Write(_), Outcome::Written(_)) => plus(1),
            (Operation::WriteFilemarks(0), Outcome::Written(_)) => self.object,
            (Operation::WriteFilemarks(_), Outcome::Written(WriteEnd::Overflow)) => None,
            (Operation::WriteFilemarks(count), Outcome::Written(_)) => plus((*count).into()),
            (Operation::Read(_), Outcome::Read(ReadEnd::EndOfData, _)) => self.object,
            (Operation::Read(_), Outcome::Read(_, _)) => plus(1),
            (Operation::Space(_, _), Outcome::Spaced(it))
                if it.stop == SpaceStop::BeginningOfTape =>
            {
                Some(0)
            }
            (Operation::Space(SpaceKind::Records, count), Outcome::Spaced(it))
                if it.stop == SpaceStop::Done =>
            {
                self.object.and_then(|at| at.checked_add_signed(*count))
            }
            _ => None,
        }
    }
}

/// Whether everything before is on the medium once this operation succeeded.
fn flushes(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::WriteFilemarks(_)
            | Operation::Rewind
            | Operation::Locate(_)
            | Operation::Load
            | Operation::Unload
    )
}
