//! Cartridges that come and go by themselves.

use std::collections::BTreeSet;

use model::{Barcode, ElementAddress, ElementType};
use scsi::Sense;

use super::{Cell, TargetLibrary};
use crate::target::{Medium, MediumError};

impl<M: Medium> TargetLibrary<M> {
    /// Makes `cartridges` what the library holds: those that are not among them leave their slots
    /// and import/export elements, those that are not there go into free slots in order. A
    /// cartridge in a drive stays. Every initiator of the changer finds 06/28/00 if something
    /// changed. Gives the cartridges for which there was no slot.
    ///
    /// # Errors
    /// It could not be saved; everything is as it was.
    pub fn restock(&mut self, cartridges: &[Barcode]) -> Result<Vec<Barcode>, MediumError> {
        let before = self.cells.clone();
        let wanted: BTreeSet<_> = cartridges.iter().collect();
        let drives: BTreeSet<_> = self.bays.iter().map(|bay| bay.address).collect();
        self.cells
            .retain(|address, cell| drives.contains(address) || wanted.contains(&cell.barcode));
        let mut held: BTreeSet<_> = self.cells.values().map(|cell| cell.barcode.clone()).collect();
        // The home of a cartridge that is in a drive is kept for it.
        let homes: BTreeSet<_> = drives
            .iter()
            .filter_map(|address| self.cells.get(address).and_then(|cell| cell.source))
            .collect();
        let (first, count) = self.map.range(ElementType::Storage);
        let slots = (0..count).map(|index| first.saturating_add(index));
        let taken = |slot: &ElementAddress| self.cells.contains_key(slot) || homes.contains(slot);
        let free: Vec<_> = slots.filter(|slot| !taken(slot)).collect();
        let (mut free, mut left) = (free.into_iter(), Vec::new());
        for barcode in cartridges {
            if !held.insert(barcode.clone()) {
                continue;
            }
            match free.next() {
                None => left.push(barcode.clone()),
                Some(slot) => {
                    let cell = Cell { barcode: barcode.clone(), source: None, imported: false };
                    self.cells.insert(slot, cell);
                }
            }
        }
        if self.cells != before {
            if let Err(error) = self.save() {
                self.cells = before;
                return Err(error);
            }
            self.nexuses.raise(Sense::MEDIUM_MAY_HAVE_CHANGED, None);
        }
        Ok(left)
    }
}
