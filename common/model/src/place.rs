//! Places in a library: element types, addresses and the address map (SMC-3, mode page 1Dh).

use serde::{Deserialize, Serialize};

/// An element address as SMC-3 numbers them.
pub type ElementAddress = u16;

/// The four element types with their SMC-3 codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// Medium transport element (the arm), code 1.
    Transport = 1,
    /// Storage element (slot), code 2.
    Storage = 2,
    /// Import/export element, code 3.
    ImportExport = 3,
    /// Data transfer element (drive), code 4.
    DataTransfer = 4,
}

impl ElementType {
    /// All four in the order of their codes.
    pub const ALL: [Self; 4] =
        [Self::Transport, Self::Storage, Self::ImportExport, Self::DataTransfer];

    /// The type with this SMC-3 code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u8 == code)
    }
}

/// One element: its type and its index (from 0) among those of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Element {
    /// What kind of place it is.
    pub kind: ElementType,
    /// Which one of its kind.
    pub index: u16,
}

/// How many elements of each type a library has and where their addresses begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementMap {
    /// (first address, count) by type, in the order of [`ElementType::ALL`].
    ranges: [(ElementAddress, u16); 4],
}

impl ElementMap {
    /// The default addresses: import/export 0, transport 16, drives 128, slots 1024; one transport.
    ///
    /// At most 16 import/export elements, 896 drives and 31744 slots fit; more are cut off.
    pub fn with_counts(drives: u16, slots: u16, import_export: u16) -> Self {
        Self {
            ranges: [
                (16, 1),
                (1024, slots.min(31_744)),
                (0, import_export.min(16)),
                (128, drives.min(896)),
            ],
        }
    }

    /// A map with the ranges a device reported, in the order of [`ElementType::ALL`].
    pub fn from_ranges(ranges: [(ElementAddress, u16); 4]) -> Self {
        Self { ranges }
    }

    /// First address and count of a type.
    pub fn range(&self, kind: ElementType) -> (ElementAddress, u16) {
        self.ranges[kind as usize - 1]
    }

    /// How many elements of a type there are.
    pub fn count(&self, kind: ElementType) -> u16 {
        self.range(kind).1
    }

    /// The element at an address.
    pub fn element(&self, address: ElementAddress) -> Option<Element> {
        ElementType::ALL.into_iter().find_map(|kind| {
            let (first, count) = self.range(kind);
            let index = address.checked_sub(first).filter(|i| *i < count)?;
            Some(Element { kind, index })
        })
    }

    /// The address of an element, `None` for one that the library does not have.
    pub fn address(&self, element: Element) -> Option<ElementAddress> {
        let (first, count) = self.range(element.kind);
        (element.index < count).then(|| first.saturating_add(element.index))
    }

    /// All elements in ascending order of address.
    pub fn elements(&self) -> Vec<(ElementAddress, Element)> {
        let mut all: Vec<_> = ElementType::ALL
            .into_iter()
            .flat_map(|kind| {
                let (first, count) = self.range(kind);
                (0..count).map(move |i| (first.saturating_add(i), Element { kind, index: i }))
            })
            .collect();
        all.sort_unstable_by_key(|(address, _)| *address);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_addresses_are_those_documented() {
        let map = ElementMap::with_counts(2, 8, 4);
        let at = |kind, index| map.address(Element { kind, index });
        assert_eq!(at(ElementType::ImportExport, 0), Some(0));
        assert_eq!(at(ElementType::Transport, 0), Some(16));
        assert_eq!(at(ElementType::DataTransfer, 1), Some(129));
        assert_eq!(at(ElementType::Storage, 7), Some(1031));
        assert_eq!(at(ElementType::Storage, 8), None);
    }

    #[test]
    fn address_and_element_lead_back_and_ascend() {
        let map = ElementMap::with_counts(3, 20, 2);
        let all = map.elements();
        assert_eq!(all.len(), 3 + 20 + 2 + 1);
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0));
        for (address, element) in all {
            assert_eq!(map.element(address), Some(element));
        }
        assert_eq!(map.element(5), None);
    }
}
