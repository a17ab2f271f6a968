//! A cartridge of a virtual library, or the medium where its content is since a migration.

use std::fmt::Display;

use model::{Barcode, ObjectNumber};
use scsi::Sense;
use service::messages;
use svs::MediumRef;
use tape::target::{Medium, MediumError, Shelf, Told};
use tape::{ReadEnd, SpaceKind, Spaced};

use super::cartridge::{StoreMedium, StoreShelf};
use super::virtuals::serial;
use crate::frontend::{Place, Switched};

/// One mount in a virtual drive.
pub enum VirtualMedium {
    /// A cartridge of the store.
    Own(Box<StoreMedium>),
    /// A tape elsewhere, which the host sees under the name of the cartridge.
    Moved(Box<Switched>),
}

impl VirtualMedium {
    /// The cartridge of the store.
    ///
    /// # Errors
    /// Its content is elsewhere; nothing of it can be named.
    pub fn own(&mut self) -> Result<&mut StoreMedium, MediumError> {
        match self {
            Self::Own(medium) => Ok(medium.as_mut()),
            Self::Moved(_) => Err(MediumError::Device(Sense::ABORTED_COMMAND)),
        }
    }

    fn medium(&self) -> &dyn Medium {
        match self {
            Self::Own(medium) => medium.as_ref(),
            Self::Moved(medium) => medium.as_ref(),
        }
    }

    fn medium_mut(&mut self) -> &mut dyn Medium {
        match self {
            Self::Own(medium) => medium.as_mut(),
            Self::Moved(medium) => medium.as_mut(),
        }
    }
}

impl Shelf<VirtualMedium> for StoreShelf {
    fn open(&self, barcode: &Barcode) -> Result<VirtualMedium, MediumError> {
        let own = || {
            let medium = Shelf::<StoreMedium>::open(self, barcode)?;
            Ok(VirtualMedium::Own(Box::new(medium)))
        };
        let Some(access) = &self.access else { return own() };
        let serial = serial(&self.site, &self.library, 0);
        let medium = MediumRef::Tape { library: serial.clone(), volser: barcode.clone() };
        let facts = self.catalogue.medium_facts(&medium);
        let facts = facts.map_err(|error| MediumError::Io(error.to_string()))?;
        let Some(moved_to) = facts.moved_to else { return own() };
        let name = format!("{}/{barcode}", self.library);
        if let MediumRef::Tape { library, .. } = &moved_to
            && *library == serial
        {
            // The changer that is to bring it is moving this one.
            let cause = format!("its content was moved to {moved_to}, in the same library");
            let words: [(&str, &dyn Display); 2] = [("tape", &name), ("cause", &cause)];
            access.tell(messages::FRONTEND_NO_COPY, &words, &name);
            return Err(MediumError::Io(cause));
        }
        let place = Place { name, medium, row: None };
        let moved = Switched::open(access, place, barcode.clone())?;
        Ok(VirtualMedium::Moved(Box::new(moved)))
    }
}

/// Everything is that of the one or of the other.
impl Medium for VirtualMedium {
    fn barcode(&self) -> Barcode {
        self.medium().barcode()
    }

    fn capacity(&self) -> u64 {
        self.medium().capacity()
    }

    fn write_protected(&self) -> bool {
        self.medium().write_protected()
    }

    fn set_write_protected(&mut self, protect: bool) -> Result<(), MediumError> {
        self.medium_mut().set_write_protected(protect)
    }

    fn object(&self) -> ObjectNumber {
        self.medium().object()
    }

    fn file(&self) -> u64 {
        self.medium().file()
    }

    fn used(&self) -> u64 {
        self.medium().used()
    }

    fn recorded(&self) -> u64 {
        self.medium().recorded()
    }

    fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber, MediumError> {
        self.medium_mut().locate(object)
    }

    fn space(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, MediumError> {
        self.medium_mut().space(kind, count)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, MediumError> {
        self.medium_mut().read(buffer)
    }

    fn write(&mut self, record: &[u8]) -> Result<(), MediumError> {
        self.medium_mut().write(record)
    }

    fn write_filemarks(&mut self, count: u32) -> Result<(), MediumError> {
        self.medium_mut().write_filemarks(count)
    }

    fn erase(&mut self) -> Result<(), MediumError> {
        self.medium_mut().erase()
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.medium_mut().flush()
    }

    fn warned(&self) -> Option<bool> {
        self.medium().warned()
    }

    fn told(&mut self) -> Option<Told> {
        self.medium_mut().told()
    }

    fn rest(&mut self) {
        self.medium_mut().rest();
    }

    fn attribute(&self, id: u16) -> Option<Vec<u8>> {
        self.medium().attribute(id)
    }

    fn set_attribute(&mut self, id: u16, value: &[u8]) -> Result<(), MediumError> {
        self.medium_mut().set_attribute(id, value)
    }

    fn close(&mut self) -> Result<(), MediumError> {
        self.medium_mut().close()
    }
}
