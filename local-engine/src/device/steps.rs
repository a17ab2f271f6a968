//! NDMP's drive steps as calls of a drive, one to one.

use std::sync::{Arc, Mutex, PoisonError};

use ndmp::tape::{DriveStep, Failure, FailureKind, Loaded, SpaceEnd, StepResult};
use tape::{
    Control, DriveState, Position, ReadEnd, SpaceKind, SpaceStop, Spaced, TapeDrive, TapeError,
    WriteEnd,
};

/// What was last seen of a drive, so that TAPE_GET_STATE is answered while a mover runs on it.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<(Option<StepResult>, Option<StepResult>)>>);

impl Watched {
    /// Looks at the drive now.
    pub fn refresh(&self, drive: &mut dyn TapeDrive, control: &Control) {
        let state = run_step(drive, DriveStep::State, control);
        let position = run_step(drive, DriveStep::Position, control);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Some(state), Some(position));
    }

    /// What a State or Position step would have answered then, with `moved` bytes written since.
    pub fn answer(&self, step: &DriveStep, moved: u64) -> Option<StepResult> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (step, seen) {
            (DriveStep::State, (Some(StepResult::State(mut loaded)), _)) => {
                loaded.remaining = loaded.remaining.map(|left| left.saturating_sub(moved));
                Some(StepResult::State(loaded))
            }
            (DriveStep::State, (state, _)) => state,
            (DriveStep::Position, (_, position)) => position,
            _ => None,
        }
    }
}

/// Does one step.
pub fn run_step(drive: &mut dyn TapeDrive, step: DriveStep, control: &Control) -> StepResult {
    let result = match step {
        DriveStep::Rewind => drive.rewind(control).map(|()| StepResult::Done),
        DriveStep::SpaceRecords(n) => drive.space(SpaceKind::Records, n, control).map(spaced),
        DriveStep::SpaceFilemarks(n) => drive.space(SpaceKind::Filemarks, n, control).map(spaced),
        DriveStep::Read { max } => read(drive, max as usize, control),
        DriveStep::Write(record) => drive.write(&record, control).map(written),
        DriveStep::Filemarks(count) => drive.write_filemarks(count, control).map(written),
        DriveStep::Unload => drive.unload(control).map(|()| StepResult::Done),
        DriveStep::State => drive.state(control).map(loaded),
        DriveStep::Position => drive.position(control).map(position),
    };
    result.unwrap_or_else(|error| StepResult::Failed(failure(&error)))
}

fn read(drive: &mut dyn TapeDrive, max: usize, control: &Control) -> Result<StepResult, TapeError> {
    let mut data = vec![0; max];
    Ok(match drive.read(&mut data, control)? {
        ReadEnd::Record { length } => {
            data.truncate(length);
            StepResult::Record { length: length as u64, data: data.into() }
        }
        ReadEnd::Filemark => StepResult::Filemark,
        ReadEnd::EndOfData => StepResult::EndOfData,
    })
}

fn written(end: WriteEnd) -> StepResult {
    match end {
        WriteEnd::Written => StepResult::Written,
        WriteEnd::EarlyWarning => StepResult::EarlyWarning,
        WriteEnd::Overflow => StepResult::Overflow,
    }
}

fn spaced(spaced: Spaced) -> StepResult {
    let stop = match spaced.stop {
        SpaceStop::Done => SpaceEnd::Done,
        SpaceStop::Filemark => SpaceEnd::Filemark,
        SpaceStop::BeginningOfTape => SpaceEnd::BeginningOfTape,
        SpaceStop::EndOfData => SpaceEnd::EndOfData,
    };
    StepResult::Spaced { residual: spaced.residual, stop }
}

fn loaded(state: DriveState) -> StepResult {
    let medium = state.medium.as_ref();
    StepResult::State(Loaded {
        medium: medium.is_some(),
        write_protected: medium.is_some_and(|medium| medium.write_protected),
        block_length: state.block_length,
        capacity: medium.and_then(|medium| medium.capacity),
        remaining: medium.and_then(|medium| medium.remaining),
    })
}

fn position(position: Position) -> StepResult {
    StepResult::Position { file: position.file, at_bot: position.at_bot }
}

/// What a failed call is to NDMP.
pub fn failure(error: &TapeError) -> Failure {
    let kind = match error {
        TapeError::Check(sense) => match (sense.key, sense.asc) {
            (0x02, _) => FailureKind::NoMedium,
            (0x03 | 0x08, _) => FailureKind::Medium,
            (0x05, _) => FailureKind::Refused,
            (0x06, 0x28) => FailureKind::MediumChanged,
            (0x06, 0x29) => FailureKind::Reset,
            (0x07, _) => FailureKind::WriteProtected,
            _ => FailureKind::Io,
        },
        TapeError::Busy | TapeError::ReservationConflict => FailureKind::Busy,
        TapeError::TimedOut => FailureKind::TimedOut,
        TapeError::Cancelled => FailureKind::Cancelled,
        TapeError::PositionUnknown(_) | TapeError::Unreachable(_) | TapeError::Lost(_) => {
            FailureKind::Io
        }
    };
    Failure::new(kind, error.to_string())
}
