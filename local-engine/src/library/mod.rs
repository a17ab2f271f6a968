//! The libraries of this site.

mod cartridge;
mod drive;
mod forgetting;
mod physical;
mod reference;
mod virtuals;

pub use cartridge::{Sealed, StoreMedium, StoreShelf};
pub use drive::VirtualDrive;
pub use physical::LocalPhysical;
pub use virtuals::{SetUpError, VirtualLibrary};
