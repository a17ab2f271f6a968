//! A look at a library that waits for nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use model::ElementAddress;

use super::lock;
use crate::Inventory;

/// The drives by their elements, and whether a medium is threaded in each.
type Flags = Vec<(ElementAddress, Arc<AtomicBool>)>;

/// What lies where in a library, as it was last saved. The library itself is locked as long as a
/// cartridge is moved and threaded; this is not.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Option<(Inventory, Flags)>>>);

impl Seen {
    pub(super) fn show(&self, inventory: Inventory, flags: Flags) {
        *lock(&self.0) = Some((inventory, flags));
    }

    /// All elements; `None` only while the library is being set up.
    pub fn inventory(&self) -> Option<Inventory> {
        let (mut inventory, flags) = lock(&self.0).clone()?;
        for (address, threaded) in flags {
            let element = inventory.elements.iter_mut().find(|e| e.address == address);
            if let Some(element) = element {
                element.accessible = !threaded.load(Ordering::Acquire);
            }
        }
        Some(inventory)
    }
}
