//! Somebody at the console of a small backup application: sessions, the robot, tapes in drives.
//!
//! A session has one device open at a time, so the robot gets a session of its own for each
//! handful of moves, and gives it back at once.

use dma::{Client, DmaError, Login, TapeOpenMode, Version};
use model::{Barcode, DeviceName, DeviceRole, ElementAddress, ElementType, LibraryName};
use ndmp::wire::MtioOp;
use scsi::ElementDescriptor;

use super::place::Place;

/// Whom to talk to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    /// `HOST:PORT`.
    pub(crate) server: String,
    /// The version to speak; the server's highest if `None`.
    pub(crate) version: Option<Version>,
    pub(crate) login: Login,
}

/// A drive with a tape in it, and whether the tape was brought there.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    drive: DeviceName,
    /// The element of the drive, if a cartridge was asked for by its barcode.
    element: Option<ElementAddress>,
    /// Brought here by us, so that it is taken back when it is done with.
    brought: bool,
}

impl Console {
    /// A session.
    pub(crate) fn dial(&self) -> Result<Client, DmaError> {
        Client::connect(&self.server, self.version, &self.login)
    }

    /// Every element of a library.
    pub(crate) fn inventory(
        &self,
        library: &LibraryName,
    ) -> Result<Vec<ElementDescriptor>, DmaError> {
        self.with_robot(library, Client::inventory)
    }

    fn with_robot<T>(
        &self,
        library: &LibraryName,
        work: impl FnOnce(&mut Client) -> Result<T, DmaError>,
    ) -> Result<T, DmaError> {
        let mut robot = self.dial()?;
        robot.open_scsi(&DeviceName::changer(library.clone()).to_string())?;
        let result = work(&mut robot);
        // The session ends here in any case, and the device with it.
        let closed = robot.close_scsi();
        robot.close();
        let value = result?;
        closed?;
        Ok(value)
    }

    /// A session with a drive open in which the tape of this place lies, the first one if the
    /// place has several; it stands at its beginning.
    pub(crate) fn take(
        &self,
        place: &Place,
        mode: TapeOpenMode,
    ) -> Result<(Seat, Client), DmaError> {
        let (seat, mut client) = match place {
            Place::Drive(drive) => {
                let seat = Seat { drive: drive.clone(), element: None, brought: false };
                let client = self.open(drive, mode)?;
                (seat, client)
            }
            Place::Cartridges(library, barcodes) => {
                let first = barcodes.first();
                let first = first.ok_or_else(|| DmaError::Invalid("no cartridge".to_owned()))?;
                self.mount(library, first, mode)?
            }
        };
        match client.rewind() {
            Ok(()) => Ok((seat, client)),
            Err(error) => {
                // The first error is the one that is told.
                let _ = self.release(seat, client);
                Err(error)
            }
        }
    }

    fn open(&self, drive: &DeviceName, mode: TapeOpenMode) -> Result<Client, DmaError> {
        let mut client = self.dial()?;
        client.open_tape(&drive.to_string(), mode)?;
        Ok(client)
    }

    /// Puts a cartridge into a free drive and opens that; one that is in a drive already is used
    /// there.
    fn mount(
        &self,
        library: &LibraryName,
        barcode: &Barcode,
        mode: TapeOpenMode,
    ) -> Result<(Seat, Client), DmaError> {
        let elements = self.inventory(library)?;
        let here = find(&elements, library, barcode)?;
        let seat = |index: usize, brought| {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let drive = DeviceName::drive(library.clone(), index);
            (drive, brought)
        };
        let mut refused = None;
        for (index, drive) in drives(&elements).enumerate() {
            let element = Some(drive.address);
            let (name, brought) = seat(index, drive.address != here.address);
            let there = || Seat { drive: name.clone(), element, brought };
            if !brought {
                let client = self.open(&name, mode)?;
                return Ok((there(), client));
            }
            if drive.full || here.kind == ElementType::DataTransfer {
                continue;
            }
            let (from, to) = (here.address, drive.address);
            let moved = self.with_robot(library, |robot| robot.move_medium(from, to));
            match moved.and_then(|()| self.open(&name, mode)) {
                Ok(client) => return Ok((there(), client)),
                Err(error) => {
                    // Somebody else took the drive, perhaps; if the tape went there it goes back.
                    let _ = self.with_robot(library, |robot| robot.move_medium(to, from));
                    refused = Some(error);
                }
            }
        }
        let busy = || DmaError::Invalid(format!("every drive of {library} holds a cartridge"));
        Err(refused.unwrap_or_else(busy))
    }

    /// Changes the tape in an open drive for another cartridge of the library, which then stands
    /// at its beginning.
    pub(crate) fn change(
        &self,
        seat: &mut Seat,
        client: &mut Client,
        next: &Barcode,
    ) -> Result<(), DmaError> {
        let library = seat.drive.library.clone();
        let drive = self.element(seat)?;
        client.mtio(MtioOp::Off, 1)?;
        self.with_robot(&library, |robot| {
            put_away(robot, drive)?;
            let from = find(&robot.inventory()?, &library, next)?.address;
            robot.move_medium(from, drive)
        })?;
        seat.brought = true;
        client.rewind()
    }

    /// Closes the drive; a tape that was brought goes back to where it came from.
    pub(crate) fn release(&self, seat: Seat, mut client: Client) -> Result<(), DmaError> {
        if !seat.brought {
            let closed = client.close_tape();
            client.close();
            return closed;
        }
        let unloaded = client.mtio(MtioOp::Off, 1).and_then(|_| client.close_tape());
        client.close();
        let drive = self.element(&seat)?;
        let away = self.with_robot(&seat.drive.library, |robot| put_away(robot, drive).map(|_| ()));
        unloaded.and(away)
    }

    fn element(&self, seat: &Seat) -> Result<ElementAddress, DmaError> {
        let DeviceRole::Drive(index) = seat.drive.role else {
            return Err(DmaError::Invalid(format!("{} is no drive", seat.drive)));
        };
        match seat.element {
            Some(element) => Ok(element),
            None => {
                let elements = self.inventory(&seat.drive.library)?;
                let drive = drives(&elements).nth(usize::from(index)).map(|drive| drive.address);
                drive.ok_or_else(|| DmaError::Invalid(format!("no drive {}", seat.drive)))
            }
        }
    }
}

fn drives(elements: &[ElementDescriptor]) -> impl Iterator<Item = &ElementDescriptor> {
    elements.iter().filter(|element| element.kind == ElementType::DataTransfer)
}

fn find<'a>(
    elements: &'a [ElementDescriptor],
    library: &LibraryName,
    barcode: &Barcode,
) -> Result<&'a ElementDescriptor, DmaError> {
    let found = elements.iter().find(|it| it.tag.as_deref() == Some(barcode.as_str()));
    found.ok_or_else(|| DmaError::Invalid(format!("no cartridge {barcode} in library {library}")))
}

/// Takes what is in a drive back to its slot, or to the first one that is free.
fn put_away(robot: &mut Client, drive: ElementAddress) -> Result<(), DmaError> {
    let elements = robot.inventory()?;
    let Some(held) = elements.iter().find(|it| it.address == drive && it.full) else {
        return Ok(());
    };
    let empty =
        |address: &ElementAddress| elements.iter().any(|it| it.address == *address && !it.full);
    let slot = |it: &&ElementDescriptor| it.kind == ElementType::Storage && !it.full;
    let home = held.source.filter(empty);
    let home = home.or_else(|| elements.iter().find(slot).map(|it| it.address));
    let home = home.ok_or_else(|| DmaError::Invalid("no slot is free".to_owned()))?;
    robot.move_medium(drive, home)
}
