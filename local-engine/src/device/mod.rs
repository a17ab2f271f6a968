//! Open devices: the names they are opened by and who has them.

mod bell;
mod registry;
mod steps;
mod watch;

pub use bell::Bell;
pub use registry::{
    Claim, Conditions, Device, DeviceLine, DriveCondition, EngineChanger, Library, LibraryView,
    Opener, Registry,
};
pub(crate) use registry::{ENGINE_NEXUS, drive_state};
pub use service::owner::{Gone, Owner};
pub use steps::{failure, run_step};
pub use watch::Watch;
