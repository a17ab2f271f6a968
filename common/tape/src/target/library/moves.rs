//! Moving cartridges.

use model::{Barcode, ElementAddress, ElementType};
use scsi::Sense;

use super::{Cell, TargetLibrary, lock};
use crate::target::fault::{FaultOperation, answer};
use crate::target::{Medium, MediumError};
use crate::{Control, TapeError};

impl<M: Medium> TargetLibrary<M> {
    /// MOVE MEDIUM. A loaded drive is flushed, rewound and unthreaded first.
    pub(super) fn move_cartridge(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.movable(&[from, to])?;
        if !self.cells.contains_key(&from) {
            return Err(Sense::SOURCE_ELEMENT_EMPTY.into());
        }
        if self.cells.contains_key(&to) {
            return Err(Sense::DESTINATION_ELEMENT_FULL.into());
        }
        let lost = self.faults.before(FaultOperation::Move, control)?;
        self.relocate(&[(from, to)])?;
        answer(lost, ())
    }

    /// EXCHANGE MEDIUM: the cartridge of `first` goes to `second`, that of `source` to `first`.
    pub(super) fn exchange_cartridges(
        &mut self,
        source: ElementAddress,
        first: ElementAddress,
        second: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.movable(&[source, first, second])?;
        if !self.cells.contains_key(&source) || !self.cells.contains_key(&first) {
            return Err(Sense::SOURCE_ELEMENT_EMPTY.into());
        }
        let room = second == source || !self.cells.contains_key(&second);
        if !room || source == first {
            return Err(Sense::DESTINATION_ELEMENT_FULL.into());
        }
        let lost = self.faults.before(FaultOperation::Move, control)?;
        self.relocate(&[(first, second), (source, first)])?;
        answer(lost, ())
    }

    /// Whether every address is an element that holds cartridges, and none is locked.
    fn movable(&self, addresses: &[ElementAddress]) -> Result<(), Sense> {
        for address in addresses {
            let element = self.map.element(*address);
            match element.map(|element| element.kind) {
                None | Some(ElementType::Transport) => {
                    return Err(Sense::INVALID_ELEMENT_ADDRESS);
                }
                Some(ElementType::ImportExport) if self.nexuses.removal_prevented() => {
                    return Err(Sense::MEDIUM_REMOVAL_PREVENTED);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes cartridges up, all of them, and puts them down elsewhere; saved before any drive
    /// threads its new cartridge. If it can not be done everything is where it was.
    fn relocate(&mut self, moves: &[(ElementAddress, ElementAddress)]) -> Result<(), TapeError> {
        let before = self.cells.clone();
        let mut ejected = Vec::new();
        for (from, _) in moves {
            if let Err(sense) = self.eject(*from) {
                self.put_back(&ejected);
                return Err(sense.into());
            }
            ejected.push(*from);
        }
        let taken: Vec<_> =
            moves.iter().map(|(from, to)| (*from, *to, self.cells.remove(from))).collect();
        for (from, to, cell) in taken {
            let Some(cell) = cell else { continue };
            let stored = self.map.element(from).is_some_and(|e| e.kind == ElementType::Storage);
            let source = if stored { Some(from) } else { cell.source };
            self.cells.insert(to, Cell { source, imported: false, ..cell });
        }
        if let Err(error) = self.save() {
            tracing::error!(%error, "a move could not be saved and is undone");
            self.cells = before;
            self.put_back(&ejected);
            return Err(Sense::INTERNAL_TARGET_FAILURE.into());
        }
        let landed: Vec<_> = moves.iter().map(|(_, to)| *to).collect();
        self.put_back(&landed);
        Ok(())
    }

    /// Takes the cartridge out of an element, if that is a drive.
    fn eject(&self, address: ElementAddress) -> Result<(), Sense> {
        match self.bays.iter().find(|bay| bay.address == address) {
            Some(bay) => lock(&bay.drive).eject().map(|_| ()),
            None => Ok(()),
        }
    }

    /// Gives drives among `addresses` the cartridge that the inventory has in them.
    fn put_back(&self, addresses: &[ElementAddress]) {
        for bay in self.bays.iter().filter(|bay| addresses.contains(&bay.address)) {
            let Some(cell) = self.cells.get(&bay.address) else { continue };
            if let Err(sense) = lock(&bay.drive).insert(&cell.barcode) {
                tracing::error!(barcode = %cell.barcode, %sense, "a drive refused its cartridge");
            }
        }
    }

    /// An operator puts a cartridge into the lowest empty import/export element: 06/28/01 for
    /// every initiator. Gives the element.
    ///
    /// # Errors
    /// 05/3B/0D: no element is free, or the library has that cartridge. 05/53/02: an initiator
    /// keeps the door shut. 04/44/00: it could not be saved.
    pub fn import(&mut self, barcode: &Barcode) -> Result<ElementAddress, Sense> {
        if self.nexuses.removal_prevented() {
            return Err(Sense::MEDIUM_REMOVAL_PREVENTED);
        }
        let (first, count) = self.map.range(ElementType::ImportExport);
        let mut places = (0..count).map(|index| first.saturating_add(index));
        let place = places.find(|place| !self.cells.contains_key(place));
        let place = place.filter(|_| self.find(barcode).is_none());
        let place = place.ok_or(Sense::DESTINATION_ELEMENT_FULL)?;
        let cell = Cell { barcode: barcode.clone(), source: None, imported: true };
        self.cells.insert(place, cell);
        if let Err(error) = self.save() {
            self.cells.remove(&place);
            return Err(unsaved(&error));
        }
        self.nexuses.raise(Sense::IMPORT_EXPORT_ACCESSED, None);
        Ok(place)
    }

    /// An operator takes the cartridge out of an import/export element: 06/28/01 for every
    /// initiator.
    ///
    /// # Errors
    /// 05/21/01: no such element. 05/3B/0E: it is empty. 05/53/02 and 04/44/00 as in
    /// [`TargetLibrary::import`].
    pub fn export(&mut self, address: ElementAddress) -> Result<Barcode, Sense> {
        let element = self.map.element(address);
        if element.is_none_or(|element| element.kind != ElementType::ImportExport) {
            return Err(Sense::INVALID_ELEMENT_ADDRESS);
        }
        if self.nexuses.removal_prevented() {
            return Err(Sense::MEDIUM_REMOVAL_PREVENTED);
        }
        let cell = self.cells.remove(&address).ok_or(Sense::SOURCE_ELEMENT_EMPTY)?;
        let barcode = cell.barcode.clone();
        if let Err(error) = self.save() {
            self.cells.insert(address, cell);
            return Err(unsaved(&error));
        }
        self.nexuses.raise(Sense::IMPORT_EXPORT_ACCESSED, None);
        Ok(barcode)
    }
}

fn unsaved(error: &MediumError) -> Sense {
    tracing::error!(%error, "a change of the inventory could not be saved and is undone");
    Sense::INTERNAL_TARGET_FAILURE
}
