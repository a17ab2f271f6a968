//! One control connection, as the tape server sees it.

mod config;
mod io;
mod session;

pub use config::{Identity, Secret, SessionConfig, User, Users};
pub use io::{Cdb, CdbOutcome, DeviceEntry, DeviceReply, DeviceRequest, LogLevel, Output};
pub use session::Session;
