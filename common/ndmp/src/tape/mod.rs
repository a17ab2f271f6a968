//! NDMP's tape semantics over the elementary steps of a drive.
//!
//! [`Tape`] is one open drive as the TAPE interface shows it: it turns each request into
//! [`DriveStep`]s, one at a time, and their results into the reply. What is NDMP's own lives
//! here: on which side of a filemark the versions leave the tape, what is known of the position,
//! the filemark that is written for a client that forgot it, and the early warning that fails
//! exactly one write.

mod machine;
mod motion;
mod position;
mod step;

#[cfg(test)]
mod tests;

pub(crate) use machine::error_of;
pub use machine::{Next, Tape, TapeOp};
pub use step::{DriveStep, Failure, FailureKind, Loaded, SpaceEnd, StepResult};
