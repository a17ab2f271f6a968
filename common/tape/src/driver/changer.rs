//! A medium changer behind a transport.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Barcode, ElementAddress, ElementMap, ElementType};
use scsi::mode::parse_element_assignment;
use scsi::{Cdb, DeviceType, ElementDescriptor, ElementRange, ElementReport, Sense};

use super::channel::{ATTENTIONS_MAX, Channel, Fault, TRANSFER_MAX, anew, malformed};
use super::reserve::{self, ReservationKey};
use super::transport::{Data, ScsiTransport};
use crate::{
    CdbRequest, Completion, Control, DeviceIdentity, ElementStatus, Inventory, MediumChanger,
    TapeError,
};

/// Mode page of the element addresses (SMC-3 7.3.4).
const ELEMENT_ASSIGNMENT: u8 = 0x1d;
/// Elements asked for at once: with tag and identifier they stay below the 64 KiB that some
/// changers can send.
const BATCH: u16 = 400;
/// Bytes for a batch; some changers look at no more than 16 bits of it.
const ROOM: usize = 0xffff;

/// A [`MediumChanger`] that sends CDBs (SMC-3) over a transport.
#[derive(Debug)]
pub struct ScsiChanger<T> {
    channel: Channel<T>,
    /// Second ways to drives, for the UNLOAD before a move.
    drives: BTreeMap<ElementAddress, Channel<T>>,
    /// The key by which drives are reserved.
    reservation: Option<ReservationKey>,
    identity: DeviceIdentity,
    /// The changer can not report volume tags and drive identifiers in one answer.
    is_separate: bool,
    /// READ ELEMENT STATUS that is passed through is answered from [`MediumChanger::inventory`].
    is_composing: bool,
}

impl<T: ScsiTransport> ScsiChanger<T> {
    /// Asks a device who it is. Takes no unit attentions.
    pub fn open(transport: T, control: &Control) -> Result<Self, TapeError> {
        let mut channel = Channel::new(transport);
        let identity = channel.identify(DeviceType::Changer, control)?;
        Ok(Self {
            channel,
            drives: BTreeMap::new(),
            reservation: None,
            identity,
            is_separate: false,
            is_composing: false,
        })
    }

    /// Gives the changer a way to the drive at an element. A move out of it then sends UNLOAD
    /// first; without, the library itself has to unload (most do, some answer 05/3A/00).
    pub fn with_drive(mut self, address: ElementAddress, transport: T) -> Self {
        self.drives.insert(address, Channel::new(transport));
        self
    }

    /// Drives may be reserved by this engine: what unloads them is let in by this key.
    pub fn reserving(mut self, key: ReservationKey) -> Self {
        self.reservation = Some(key);
        self
    }

    /// READ ELEMENT STATUS that is passed through is answered from what was asked type by type.
    /// Changers differ in what they can say in one answer, and some say it wrong; applications ask
    /// for all at once.
    pub fn composing(mut self) -> Self {
        self.is_composing = true;
        self
    }

    /// An answer to READ ELEMENT STATUS from a fresh inventory; `None` for another command. A unit
    /// attention is the answer first, as it would be without us.
    fn composed(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Option<Completion>, TapeError> {
        const READ_ELEMENT_STATUS: u8 = 0xb8;
        if !self.is_composing || request.cdb.first() != Some(&READ_ELEMENT_STATUS) {
            return Ok(None);
        }
        match self.channel.ask(Cdb::TestUnitReady, Data::None, control) {
            Err(TapeError::Check(sense)) if sense.is_unit_attention() => {
                let sense = sense.to_fixed().to_vec();
                let residual = request.data_in_max.into();
                return Ok(Some(Completion { status: 0x02, sense, residual, data_in: Vec::new() }));
            }
            // A changer that is not ready still knows its elements, or says no to that.
            Ok(_) | Err(TapeError::Check(_)) => {}
            Err(error) => return Err(error),
        }
        let inventory = self.inventory(control)?;
        Ok(crate::target::element_status(&inventory, request))
    }

    /// Sets how long to wait between two looks at a device that is not ready yet; at first 1 s.
    pub fn set_poll(&mut self, poll: Duration) {
        self.channel.set_poll(poll);
        self.drives.values_mut().for_each(|drive| drive.set_poll(poll));
    }

    /// The elements of a type, in several questions if there are many.
    fn elements(
        &mut self,
        map: &ElementMap,
        kind: ElementType,
        tags: bool,
        identities: bool,
        control: &Control,
    ) -> Result<Vec<ElementDescriptor>, TapeError> {
        let (first, count) = map.range(kind);
        let mut found: Vec<ElementDescriptor> = Vec::new();
        let mut asked = 0;
        while asked < count {
            let Some(start) = first.checked_add(asked) else { break };
            let batch = BATCH.min(count - asked);
            let range = ElementRange { kind: Some(kind), start, count: batch };
            let cdb = |allocation: usize| Cdb::ReadElementStatus {
                tags,
                identities,
                current_data: false,
                range,
                allocation: allocation as u32,
            };
            // Room for a whole batch: where a device has more to say than it may, some kernels call
            // what is left over missing, and of a question for the header alone nothing remains.
            let mut bytes = self.channel.fetch_anew(cdb(ROOM), ROOM, control)?;
            let mut size = whole(&bytes)?;
            if size > ROOM {
                size = size.min(TRANSFER_MAX);
                bytes = self.channel.fetch_anew(cdb(size), size, control)?;
            }
            // Some changers count their header into the bytes that follow it, and leave out the
            // last eight: of a tag nothing is lost by that, of an identifier its end.
            let is_cut = bytes.len() + 8 == size;
            if is_cut {
                bytes.resize(size, 0);
            }
            let mut report = ElementReport::parse(&bytes).map_err(malformed)?;
            if is_cut && identities {
                report.elements.last_mut().map(|last| last.identity.take());
            }
            // Some changers answer with more than was asked for.
            let wanted = start..=start.saturating_add(batch - 1);
            let elements = report.elements.into_iter();
            found.extend(elements.filter(|e| e.kind == kind && wanted.contains(&e.address)));
            asked += batch;
        }
        Ok(found)
    }

    /// The elements of a type with volume tags, and identifiers for drives.
    fn described(
        &mut self,
        map: &ElementMap,
        kind: ElementType,
        control: &Control,
    ) -> Result<Vec<ElementDescriptor>, TapeError> {
        if kind != ElementType::DataTransfer {
            return self.elements(map, kind, true, false, control);
        }
        if !self.is_separate {
            match self.elements(map, kind, true, true, control) {
                Err(TapeError::Check(sense)) if sense.is(Sense::INVALID_FIELD_IN_CDB) => {
                    self.is_separate = true;
                }
                result => return result,
            }
        }
        let mut elements = self.elements(map, kind, true, false, control)?;
        let identified = self.elements(map, kind, false, true, control)?;
        for element in &mut elements {
            let same = identified.iter().find(|other| other.address == element.address);
            element.identity = same.and_then(|other| other.identity.clone());
        }
        Ok(elements)
    }

    /// Unloads the drive at an element, if there is a way to it and something is loaded.
    fn unload(&mut self, address: ElementAddress, control: &Control) -> Result<(), TapeError> {
        let key = self.reservation;
        let Some(drive) = self.drives.get_mut(&address) else { return Ok(()) };
        if let Some(key) = key {
            anew(|| reserve::register(drive, key, control))?;
        }
        let unloaded = Self::unload_by(drive, control);
        if let Some(key) = key
            && let Err(error) = anew(|| reserve::unregister(drive, key, control))
        {
            tracing::debug!(%error, "a registration could not be taken back");
        }
        unloaded
    }

    fn unload_by(drive: &mut Channel<T>, control: &Control) -> Result<(), TapeError> {
        let cdb = Cdb::LoadUnload { immediate: false, action: 0 };
        for _ in 0..ATTENTIONS_MAX {
            // Unloading twice is unloading once, so a lost answer may be asked for again.
            match drive.ask(cdb, Data::None, control) {
                Ok(reply) => return reply.done(),
                Err(TapeError::Check(sense)) if sense.key == 0x02 && sense.asc == 0x3a => {
                    return Ok(());
                }
                Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
                Err(error) => return Err(error),
            }
        }
        Err(TapeError::Check(Sense::DRIVE_NOT_UNLOADED))
    }

    /// Whether a move of unknown fate was done, by what lies where.
    fn was_moved(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<bool, TapeError> {
        let inventory = self.inventory(control)?;
        let full = |address| {
            let element = inventory.elements.iter().find(|e| e.address == address);
            element.map(|element| element.full)
        };
        match (full(from), full(to)) {
            (Some(true), Some(false)) => Ok(false),
            (Some(false), Some(true)) => Ok(true),
            _ => Err(TapeError::PositionUnknown(format!(
                "whether the cartridge of element {from} was moved to {to} can not be told"
            ))),
        }
    }
}

/// How long a report is, with its header.
fn whole(report: &[u8]) -> Result<usize, TapeError> {
    Ok(ElementReport::parse(report).map_err(malformed)?.byte_count as usize + 8)
}

fn status(element: ElementDescriptor) -> ElementStatus {
    let parts = element.identity.as_ref().and_then(scsi::Designator::t10_parts);
    let drive = parts.map(|(vendor, product, serial)| DeviceIdentity {
        vendor,
        product,
        revision: String::new(),
        serial,
    });
    ElementStatus {
        address: element.address,
        kind: element.kind,
        full: element.full,
        barcode: element.tag.as_deref().and_then(|tag| Barcode::new(tag).ok()),
        accessible: element.accessible,
        imported: element.imported,
        source: element.source,
        exception: element.exception,
        drive,
    }
}

impl<T: ScsiTransport> MediumChanger for ScsiChanger<T> {
    fn identity(&self) -> DeviceIdentity {
        self.identity.clone()
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        let mode = self.channel.mode_sense(ELEMENT_ASSIGNMENT, true, control)?;
        let page = mode.page(ELEMENT_ASSIGNMENT, 0);
        let page = page.ok_or(TapeError::Check(Sense::INTERNAL_TARGET_FAILURE))?;
        let map = parse_element_assignment(page).map_err(malformed)?;
        let mut elements = Vec::new();
        for kind in ElementType::ALL {
            elements.extend(self.described(&map, kind, control)?.into_iter().map(status));
        }
        elements.sort_unstable_by_key(|element| element.address);
        Ok(Inventory { map, elements })
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        self.channel.ask_anew(Cdb::InitializeElementStatus, Data::None, control)?.done()
    }

    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.unload(from, control)?;
        let cdb = Cdb::MoveMedium { transport: 0, source: from, destination: to, invert: false };
        let cause = match self.channel.send(cdb, &mut Data::None, control) {
            Ok(reply) => return reply.done(),
            Err(Fault::Told(error)) => return Err(error),
            Err(Fault::Unknown(cause)) => cause,
        };
        tracing::warn!(serial = self.identity.serial, cause, "a move got no answer");
        control.check()?;
        if self.was_moved(from, to, control)? {
            return Ok(());
        }
        match self.channel.send(cdb, &mut Data::None, control) {
            Ok(reply) => reply.done(),
            Err(Fault::Told(error)) => Err(error),
            Err(Fault::Unknown(text)) => Err(TapeError::PositionUnknown(text)),
        }
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        match self.composed(request, control)? {
            Some(completion) => Ok(completion),
            None => self.channel.pass(request, control),
        }
    }
}
