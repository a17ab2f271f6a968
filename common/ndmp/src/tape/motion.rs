//! Spacing, and where it leaves the tape in each version.

use super::position::Place;
use super::step::{DriveStep, SpaceEnd};
use crate::wire::{MtioOp, Version};

/// A spacing operation of `NDMP_TAPE_MTIO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Motion {
    op: Kind,
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ForwardMarks,
    BackMarks,
    ForwardRecords,
    BackRecords,
    /// Back over the mark that version 4 does not cross, `residual` records being left.
    UncrossForward,
    /// The same in the other direction.
    UncrossBackward,
}

impl Motion {
    pub(super) fn new(op: MtioOp, count: u32) -> Option<Self> {
        let op = match op {
            MtioOp::Fsf => Kind::ForwardMarks,
            MtioOp::Bsf => Kind::BackMarks,
            MtioOp::Fsr => Kind::ForwardRecords,
            MtioOp::Bsr => Kind::BackRecords,
            _ => return None,
        };
        Some(Self { op, count })
    }

    pub(super) fn count(self) -> u32 {
        self.count
    }

    pub(super) fn is_backward(self) -> bool {
        matches!(self.op, Kind::BackMarks | Kind::BackRecords)
    }

    pub(super) fn step(self) -> DriveStep {
        let count = i64::from(self.count);
        match self.op {
            Kind::ForwardMarks => DriveStep::SpaceFilemarks(count),
            Kind::BackMarks => DriveStep::SpaceFilemarks(-count),
            Kind::ForwardRecords => DriveStep::SpaceRecords(count),
            Kind::BackRecords => DriveStep::SpaceRecords(-count),
            Kind::UncrossForward => DriveStep::SpaceFilemarks(-1),
            Kind::UncrossBackward => DriveStep::SpaceFilemarks(1),
        }
    }

    /// What the client is told to be left: for a correction what the motion before it left.
    pub(super) fn residual(self, residual: u64) -> u32 {
        match self.op {
            Kind::UncrossForward | Kind::UncrossBackward => self.count,
            _ => u32::try_from(residual).unwrap_or(self.count),
        }
    }

    /// Notes where the tape stands after the drive's spacing, and says what has to follow: the
    /// drive crosses a filemark that it meets, version 4 does not (NDMP version 4, 3.4.5).
    pub(super) fn land(
        self,
        place: &mut Place,
        residual: u64,
        stop: SpaceEnd,
        version: Version,
    ) -> Option<Self> {
        let moved = u64::from(self.count) - residual;
        let records = i64::try_from(moved).unwrap_or(i64::MAX);
        let left = u32::try_from(residual).unwrap_or(self.count);
        match (self.op, stop) {
            (Kind::UncrossForward | Kind::UncrossBackward, _) => {}
            (Kind::BackMarks | Kind::BackRecords, SpaceEnd::BeginningOfTape) => {
                *place = Place::START;
            }
            (Kind::ForwardMarks, SpaceEnd::Done) => place.pass_marks(moved),
            (Kind::ForwardMarks, _) => {
                place.pass_marks(moved);
                place.block = None;
            }
            (Kind::BackMarks, _) => place.back_over_marks(moved),
            (Kind::ForwardRecords, SpaceEnd::Filemark) => {
                place.pass_records(records);
                if version == Version::V4 {
                    return Some(Self { op: Kind::UncrossForward, count: left });
                }
                place.pass_marks(1);
            }
            (Kind::ForwardRecords, _) => place.pass_records(records),
            (Kind::BackRecords, SpaceEnd::Filemark) if version == Version::V4 => {
                place.block = Some(0);
                return Some(Self { op: Kind::UncrossBackward, count: left });
            }
            (Kind::BackRecords, SpaceEnd::Filemark) => place.back_over_marks(1),
            (Kind::BackRecords, _) => place.pass_records(-records),
        }
        None
    }
}
