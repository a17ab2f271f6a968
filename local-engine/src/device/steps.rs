//! NDMP's drive steps as calls of a drive, one to one.

use ndmp::tape::{DriveStep, Failure, FailureKind, Loaded, SpaceEnd, StepResult};
use tape::{
    Control, DriveState, Position, ReadEnd, SpaceKind, SpaceStop, Spaced, TapeDrive, TapeError,
    WriteEnd,
};

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
        TapeError::Check(sense) => match (sense.key, sense.asc, sense.ascq) {
            // The site of a ghost drive can not be reached: nothing is said about its medium.
            (0x02, 0x04, 0x00) => FailureKind::Io,
            (0x02, ..) => FailureKind::NoMedium,
            (0x03 | 0x08, ..) => FailureKind::Medium,
            (0x05, ..) => FailureKind::Refused,
            (0x06, 0x28, _) => FailureKind::MediumChanged,
            (0x06, 0x29, _) => FailureKind::Reset,
            (0x07, ..) => FailureKind::WriteProtected,
            _ => FailureKind::Io,
        },
        TapeError::Busy | TapeError::ReservationConflict => FailureKind::Busy,
        TapeError::TimedOut => FailureKind::TimedOut,
        TapeError::Cancelled => FailureKind::Cancelled,
        TapeError::PositionUnknown(_)
        | TapeError::Unreachable(_)
        | TapeError::Lost(_)
        | TapeError::Key(_) => FailureKind::Io,
    };
    Failure::new(kind, error.to_string())
}
