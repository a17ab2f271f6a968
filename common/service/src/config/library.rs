//! `[[virtual_library]]` and `[[physical_library]]`.

use std::path::PathBuf;

use model::{Barcode, ByteSize, CartridgeSet, DeviceName, ElementMap, LibraryName};
use serde::Deserialize;

fn two() -> u16 {
    2
}

fn eight() -> u16 {
    8
}

fn four() -> u16 {
    4
}

/// `[[virtual_library]]` of the local engine: cartridges in the store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualLibrary {
    /// Its name, the first part of its device names.
    pub name: LibraryName,
    /// Number of drives, 1 to 64; 2 if not given.
    #[serde(default = "two")]
    pub drives: u16,
    /// Number of storage slots, 1 to 10000; 8 if not given.
    #[serde(default = "eight")]
    pub slots: u16,
    /// Number of import/export elements, 0 to 16; 4 if not given.
    #[serde(default = "four")]
    pub import_export: u16,
    /// Bytes that fit on each cartridge.
    pub capacity: ByteSize,
    /// How long before the end of a cartridge a drive warns; a twentieth of the
    /// capacity, at most 1 GiB, if not given.
    pub early_warning: Option<ByteSize>,
    /// The cartridges that it is made with; none if not given.
    pub cartridges: Option<CartridgeSet>,
}

/// What drives a physical library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The embedded library: changer, drives and cartridges as files under `path`.
    File,
}

impl Backend {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
        }
    }
}

/// `[[physical_library]]`, valid in both engines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhysicalLibrary {
    /// Its name; at the other site it is called `SITE-NAME`.
    pub name: LibraryName,
    /// What drives it.
    pub backend: Backend,
    /// Where the embedded library keeps its files. Absolute after loading.
    pub path: PathBuf,
    /// Number of drives, 1 to 64; 2 if not given.
    #[serde(default = "two")]
    pub drives: u16,
    /// Number of storage slots, 1 to 10000; 8 if not given.
    #[serde(default = "eight")]
    pub slots: u16,
    /// Number of import/export elements, 0 to 16; 4 if not given.
    #[serde(default = "four")]
    pub import_export: u16,
    /// Bytes that fit on each cartridge.
    pub capacity: ByteSize,
    /// How long before the end of a cartridge a drive warns; a twentieth of the
    /// capacity, at most 1 GiB, if not given.
    pub early_warning: Option<ByteSize>,
    /// The cartridges that it is made with; none if not given.
    pub cartridges: Option<CartridgeSet>,
}

/// The distance from early warning to the end of a cartridge: as configured, else a twentieth of
/// the capacity, at most 1 GiB.
pub(crate) fn early_warning_bytes(capacity: ByteSize, given: Option<ByteSize>) -> u64 {
    given.map_or((capacity.0 / 20).min(1 << 30), |size| size.0)
}

macro_rules! geometry {
    ($($library:ident)*) => {$(
        impl $library {
            /// The element addresses: import/export 0, transport 16, drives 128, slots 1024.
            pub fn element_map(&self) -> ElementMap {
                ElementMap::with_counts(self.drives, self.slots, self.import_export)
            }

            /// The barcodes of its cartridges in order; loading has checked that they fit.
            pub fn barcodes(&self) -> Vec<Barcode> {
                let set = self.cartridges.as_ref();
                set.and_then(|set| set.barcodes().ok()).unwrap_or_default()
            }

            /// Bytes between early warning and the end of a cartridge.
            pub fn early_warning_bytes(&self) -> u64 {
                early_warning_bytes(self.capacity, self.early_warning)
            }

            /// The NDMP device names: the changer, then the drives.
            pub fn device_names(&self) -> Vec<DeviceName> {
                let drives = (0..self.drives).map(|i| DeviceName::drive(self.name.clone(), i));
                std::iter::once(DeviceName::changer(self.name.clone())).chain(drives).collect()
            }
        }
    )*};
}

geometry! { VirtualLibrary PhysicalLibrary }
