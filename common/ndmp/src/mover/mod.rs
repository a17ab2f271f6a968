//! The mover: the state machine behind the MOVER interface, and its contract with the data plane.
//!
//! [`Mover`] knows states, windows, reads and counters, and what each version calls the end of
//! each; it never sees a byte. The data plane gets leave to move data one [`Grant`] at a time and
//! reports how each run ended.

mod command;
mod machine;
mod window;

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

pub use command::{
    FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, Reposition, StopReason,
};
pub use machine::{Mover, MoverEffect, TapeAccess};
