//! The libraries of this site.

mod cartridge;
mod drive;
pub(crate) mod forgetting;
mod moved;
mod physical;
mod reference;
pub(crate) mod virtuals;

pub use cartridge::{Sealed, StoreMedium, StoreShelf};
pub use drive::VirtualDrive;
pub use moved::VirtualMedium;
pub use physical::LocalPhysical;
pub use virtuals::{SetUpError, VirtualLibrary};
