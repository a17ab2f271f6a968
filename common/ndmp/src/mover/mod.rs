//! The mover: the state machine behind the MOVER interface, and its contract with the data plane.

mod command;

pub use command::{
    FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, Reposition, StopReason,
};
