//! A cartridge of the store as the medium of a virtual drive.

use std::sync::Arc;

use copy::generation_row;
use model::{Barcode, CartridgeId, GenerationId, LibraryName, ObjectNumber, SiteName};
use store::{Image, Object, Space, Store, StoreError};
use svs::{Catalogue, SvsError};
use tape::target::{Medium, MediumError, Shelf};
use tape::{ReadEnd, SpaceKind, SpaceStop, Spaced};

use crate::frontend::Access;

/// Told about every generation that is sealed, after its catalogue row is written.
pub type Sealed = Arc<dyn Fn(CartridgeId, GenerationId) + Send + Sync>;

/// Where the virtual cartridges of one library are: store, catalogue, and who wants to know.
#[derive(Clone)]
pub struct StoreShelf {
    /// The chunks and recipes.
    pub store: Store,
    /// The rows.
    pub catalogue: Arc<Catalogue>,
    /// This site.
    pub site: SiteName,
    /// The library.
    pub library: LibraryName,
    /// Told of sealed generations.
    pub sealed: Sealed,
    /// The way to tapes whose content was moved elsewhere; without it they are read here.
    pub access: Option<Arc<Access>>,
}

/// One mount of a virtual cartridge.
pub struct StoreMedium {
    shelf: StoreShelf,
    row: svs::Cartridge,
    image: Image,
}

impl Shelf<StoreMedium> for StoreShelf {
    fn open(&self, barcode: &Barcode) -> Result<StoreMedium, MediumError> {
        let row = self.catalogue.find_cartridge(&self.site, &self.library, barcode);
        let row = row.map_err(catalogue_error)?;
        let row = row.ok_or_else(|| MediumError::Missing(barcode.clone()))?;
        let image = self.store.image(row.id).map_err(store_error)?;
        Ok(StoreMedium { shelf: self.clone(), row, image })
    }
}

fn catalogue_error(error: SvsError) -> MediumError {
    MediumError::Io(error.to_string())
}

fn store_error(error: StoreError) -> MediumError {
    match error {
        StoreError::Damaged { .. } => MediumError::Corrupt(error.to_string()),
        StoreError::InUse(_) => MediumError::InUse(error.to_string()),
        other => MediumError::Io(other.to_string()),
    }
}

impl StoreMedium {
    /// The cartridge.
    pub fn cartridge(&self) -> CartridgeId {
        self.row.id
    }

    /// The image, for reading by bytes.
    pub fn image(&mut self) -> &mut Image {
        &mut self.image
    }

    /// Seals what was written, writes its row and tells of it. The newest sealed generation, if
    /// there is one.
    pub fn seal(&mut self) -> Result<Option<GenerationId>, MediumError> {
        if let Some(id) = self.image.seal().map_err(store_error)? {
            // The store has it; a row that can not be written now is adopted at the next start.
            let row = generation_row(&self.shelf.store, &self.shelf.catalogue, id);
            match row.map_err(catalogue_error)? {
                Some(row) => self.shelf.catalogue.put_generation(&row).map_err(catalogue_error)?,
                None => return Err(MediumError::Io(format!("generation {id} is not there"))),
            }
            tracing::info!(barcode = %self.row.barcode, generation = %id, "generation sealed");
            (self.shelf.sealed)(self.row.id, id);
        }
        Ok(self.image.sealed_generation())
    }

    fn attribute_key(&self, id: u16) -> String {
        format!("mam/{}/{id:04x}", self.row.id)
    }
}

impl Medium for StoreMedium {
    fn barcode(&self) -> Barcode {
        self.row.barcode.clone()
    }

    fn capacity(&self) -> u64 {
        self.row.capacity
    }

    fn write_protected(&self) -> bool {
        self.row.write_protected
    }

    fn set_write_protected(&mut self, protect: bool) -> Result<(), MediumError> {
        // The row as it is now: the changer notes there where the cartridge lies.
        let row = self.shelf.catalogue.cartridge(self.row.id).map_err(catalogue_error)?;
        let row = row.unwrap_or_else(|| self.row.clone());
        let row = svs::Cartridge { write_protected: protect, ..row };
        self.shelf.catalogue.put_cartridge(&row).map_err(catalogue_error)?;
        self.row = row;
        Ok(())
    }

    fn object(&self) -> ObjectNumber {
        self.image.object()
    }

    fn file(&self) -> u64 {
        self.image.file()
    }

    fn used(&self) -> u64 {
        self.image.bytes_before()
    }

    fn recorded(&self) -> u64 {
        self.image.end().byte
    }

    fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber, MediumError> {
        self.image.locate(object).map_err(store_error)
    }

    fn space(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, MediumError> {
        let kind = match kind {
            SpaceKind::Records => Space::Records,
            SpaceKind::Filemarks => Space::Filemarks,
            SpaceKind::EndOfData => Space::EndOfData,
        };
        let spaced = self.image.space(kind, count).map_err(store_error)?;
        let stop = match spaced.stop {
            store::SpaceStop::Done => SpaceStop::Done,
            store::SpaceStop::Filemark => SpaceStop::Filemark,
            store::SpaceStop::Beginning => SpaceStop::BeginningOfTape,
            store::SpaceStop::EndOfData => SpaceStop::EndOfData,
        };
        Ok(Spaced { residual: spaced.residual, stop })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, MediumError> {
        Ok(match self.image.read(buffer).map_err(store_error)? {
            Object::Record { length } => ReadEnd::Record { length: length as usize },
            Object::Filemark => ReadEnd::Filemark,
            Object::EndOfData => ReadEnd::EndOfData,
        })
    }

    fn write(&mut self, record: &[u8]) -> Result<(), MediumError> {
        self.image.write(record).map_err(store_error)
    }

    fn write_filemarks(&mut self, count: u32) -> Result<(), MediumError> {
        self.image.write_filemarks(count).map_err(store_error)
    }

    fn erase(&mut self) -> Result<(), MediumError> {
        self.image.erase().map_err(store_error)
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.image.flush().map_err(store_error)
    }

    fn attribute(&self, id: u16) -> Option<Vec<u8>> {
        let text = self.shelf.catalogue.meta(&self.attribute_key(id)).ok().flatten()?;
        let byte = |i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
        let value: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        value.filter(|value| !value.is_empty())
    }

    fn set_attribute(&mut self, id: u16, value: &[u8]) -> Result<(), MediumError> {
        let text: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        self.shelf.catalogue.set_meta(&self.attribute_key(id), &text).map_err(catalogue_error)
    }

    fn close(&mut self) -> Result<(), MediumError> {
        self.seal().map(drop)
    }
}
