//! What survives of a library: which cartridge lies where.

use std::sync::{Arc, Mutex, PoisonError};

use model::{Barcode, ElementAddress};
use serde::{Deserialize, Serialize};

use crate::target::MediumError;

/// One full element.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCell {
    /// Where.
    pub address: ElementAddress,
    /// Which cartridge.
    pub barcode: Barcode,
    /// The storage element that it last came from.
    pub source: Option<ElementAddress>,
    /// Import/export: put there by an operator.
    pub imported: bool,
}

/// Every full element, in ascending order of address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedInventory {
    /// The full elements.
    pub cells: Vec<SavedCell>,
}

/// Keeps a library's inventory over restarts.
pub trait InventoryStore: Send {
    /// What was saved last, `None` for a new library.
    fn load(&self) -> Result<Option<SavedInventory>, MediumError>;

    /// Replaces it, durably when it returns; after an error the old one may stand.
    fn save(&mut self, inventory: &SavedInventory) -> Result<(), MediumError>;
}

/// An inventory in memory, for tests; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryInventory(Arc<Mutex<Option<SavedInventory>>>);

impl InventoryStore for MemoryInventory {
    fn load(&self) -> Result<Option<SavedInventory>, MediumError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&mut self, inventory: &SavedInventory) -> Result<(), MediumError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(inventory.clone());
        Ok(())
    }
}
