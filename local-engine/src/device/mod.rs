//! Open devices: one owner thread for each, and the names they are opened by.

mod owner;
mod registry;
mod steps;

pub use owner::{Gone, Owner};
pub use registry::{Claim, Device, DeviceLine, Library, OpenError, Opener, Registry};
pub use steps::{Watched, failure, run_step};
