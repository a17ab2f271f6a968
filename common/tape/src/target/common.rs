//! What drives and changers answer alike.

use scsi::{Cdb, Designator, DeviceType, Sense, StandardInquiry, VitalPage};

use super::answer::{Reply, Transfer};
use super::nexus::{Nexuses, ReserveOut};
use crate::{DeviceIdentity, TapeError};

/// The width of a serial number in T10 identifiers; hosts compare ten characters.
const SERIAL_WIDTH: usize = 10;

/// The T10 identifier of a device: page 83h, and READ ELEMENT STATUS for drives.
pub(super) fn designator(identity: &DeviceIdentity) -> Designator {
    let width = identity.serial.chars().count().max(SERIAL_WIDTH);
    Designator::t10(&identity.vendor, &identity.product, &identity.serial, width)
}

/// INQUIRY data; an unknown page is 05/24/00 at its byte.
pub(super) fn inquiry(
    kind: DeviceType,
    identity: &DeviceIdentity,
    page: Option<u8>,
) -> Result<Vec<u8>, Sense> {
    let Some(page) = page else {
        let DeviceIdentity { vendor, product, revision, .. } = identity;
        return Ok(StandardInquiry::new(kind, vendor, product, revision).encode());
    };
    let mut pages = vec![0x00, 0x80, 0x83];
    if kind == DeviceType::Tape {
        pages.extend([0xb0, 0xb1, 0xb2]);
    }
    if !pages.contains(&page) {
        return Err(Sense::bad_cdb_field(2, None));
    }
    let page = match page {
        0x80 => VitalPage::SerialNumber(identity.serial.clone()),
        0x83 => VitalPage::Identification(vec![designator(identity)]),
        0xb0 => VitalPage::Capabilities { worm: false },
        0xb1 => VitalPage::ManufacturerSerial(identity.serial.clone()),
        0xb2 => VitalPage::Other(0xb2, supported_alerts()),
        _ => VitalPage::Supported(pages),
    };
    Ok(page.encode(kind))
}

/// TapeAlert supported flags (SSC-4 8.4.4): 64 bits, flag 1 first.
fn supported_alerts() -> Vec<u8> {
    let flags = scsi::alert::ALERTS.iter().map(|alert| alert.flag);
    let bits = flags.fold(0u64, |bits, flag| bits | 1 << (64 - u32::from(flag.clamp(1, 64))));
    bits.to_be_bytes().to_vec()
}

/// REPORT LUNS of a target with the unit 0 alone.
pub(super) fn report_luns(select: u8) -> Result<Vec<u8>, Sense> {
    match select {
        0x00 | 0x02 => Ok(scsi::luns(&[0])),
        0x01 => Ok(scsi::luns(&[])),
        _ => Err(Sense::bad_cdb_field(2, None)),
    }
}

/// The data of REQUEST SENSE.
pub(super) fn sense_data(sense: Sense, descriptor: bool) -> Vec<u8> {
    if descriptor { sense.to_descriptor() } else { sense.to_fixed().to_vec() }
}

/// Reservations, prevention and supported commands; `None` for any other command.
pub(super) fn shared(
    kind: DeviceType,
    nexuses: &mut Nexuses,
    nexus: u64,
    cdb: &Cdb,
    transfer: &Transfer<'_>,
) -> Result<Option<Reply>, TapeError> {
    match *cdb {
        Cdb::Reserve { .. } => nexuses.reserve(nexus)?,
        Cdb::Release { .. } => nexuses.release(nexus),
        Cdb::PreventAllow { prevent } => nexuses.prevent(nexus, prevent),
        Cdb::PersistentReserveIn { action, allocation } => {
            return Ok(Some(Reply::data(nexuses.reserve_in(action), allocation)));
        }
        Cdb::PersistentReserveOut { action, scope, kind, length } => {
            let list = transfer.outgoing();
            let list = list.get(..length as usize).filter(|list| list.len() == 24);
            let list = list.ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
            if list[20] != 0 {
                return Err(Sense::bad_parameter(20, None).into());
            }
            let key = |at: usize| list[at..at + 8].iter().fold(0, |k, b| k << 8 | u64::from(*b));
            let out = ReserveOut { action, scope, kind, key: key(0), service_key: key(8) };
            nexuses.reserve_out(nexus, out)?;
        }
        Cdb::ReportSupportedOpcodes { query, timeouts, allocation } => {
            let data = scsi::supported_opcodes(kind, query, timeouts);
            let data = data.ok_or(Sense::bad_cdb_field(2, Some(2)))?;
            return Ok(Some(Reply::data(data, allocation)));
        }
        _ => return Ok(None),
    }
    Ok(Some(Reply::Done))
}

/// The parameter list of a command, whole.
pub(super) fn parameters<'a>(transfer: &'a Transfer<'_>, length: usize) -> Result<&'a [u8], Sense> {
    transfer.outgoing().get(..length).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)
}
