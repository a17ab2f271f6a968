//! NDMP's tape semantics over the elementary steps of a drive.

mod step;

pub use step::{DriveStep, Failure, FailureKind, Loaded, SpaceEnd, StepResult};
