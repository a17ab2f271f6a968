//! Frontend libraries: what a host sees of tapes that lie in other libraries.
//!
//! ```text
//!   library   the changer and drives that the host sees; its slots follow the map
//!   drive     a drive of it, as the engine holds one
//!   medium    a tape in a backend drive as the medium of a frontend drive
//!   access    which copy is mounted, and where; what failed is avoided for a while
//!   left      tapes that have to go back to their slots
//! ```
//!
//! A mount at the frontend is a mount at a backend, a dismount a dismount. The host sees the volume
//! that it asked for, whichever copy of it is used.

mod access;
mod drive;
mod left;
mod library;
mod medium;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::engine::Engine;

pub use access::{Access, Place, Reached};
pub use drive::FrontendDrive;
pub use library::FrontendLibrary;
pub use medium::Switched;

/// The frontend libraries of an engine.
pub struct Frontends {
    /// The way to the backends.
    pub access: Arc<Access>,
    /// All of them.
    pub libraries: Vec<Arc<FrontendLibrary>>,
}

impl Frontends {
    /// What is mounted stays where it is; who waits for a mount is told that there is none.
    pub fn stop(&self) {
        self.access.stop();
    }
}

impl Engine {
    /// Shows what the frontend-backend map says now. To be called after a change of it; blocks on
    /// the catalogue, and on mounts that are under way. Tapes in drives stay until they are
    /// dismounted.
    pub fn maps_changed(&self) {
        for library in &self.frontends.libraries {
            library.refresh();
        }
        self.policy.ring();
    }
}
