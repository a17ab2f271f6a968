//! What a changer tells about its elements, from a plain [`Inventory`]: the same for a library
//! that is here and for the last report of one that can not be reached.

use scsi::mode::{self, ModeParameters};
use scsi::{Cdb, DeviceType, ElementDescriptor, ElementRange, ElementReport, ModeForm, Sense};

use super::answer::{Reply, complete};
use super::common;
use crate::{CdbRequest, Completion, DeviceIdentity, ElementStatus, Inventory, TapeError};

fn descriptor(element: &ElementStatus) -> ElementDescriptor {
    ElementDescriptor {
        address: element.address,
        kind: element.kind,
        full: element.full,
        imported: element.imported,
        accessible: element.accessible,
        exception: element.exception,
        source: element.source,
        tag: element.barcode.as_ref().map(|barcode| barcode.as_str().to_owned()),
        identity: element.drive.as_ref().map(common::designator),
    }
}

/// The elements that a range selects (SMC-3 6.11): of its type, from its address on, at most its
/// count, ascending.
///
/// # Errors
/// 05/21/01: no element of the library has so high an address.
pub(super) fn select(
    inventory: &Inventory,
    range: &ElementRange,
) -> Result<Vec<ElementDescriptor>, Sense> {
    let highest = inventory.elements.iter().map(|element| element.address).max();
    if highest.is_some_and(|highest| range.start > highest) {
        return Err(Sense::INVALID_ELEMENT_ADDRESS);
    }
    let wanted = |element: &&ElementStatus| {
        element.address >= range.start && range.kind.is_none_or(|kind| kind == element.kind)
    };
    let chosen = inventory.elements.iter().filter(wanted).take(range.count.into());
    Ok(chosen.map(descriptor).collect())
}

/// MODE SENSE of a changer: pages 1Dh, 1Eh and 1Fh, no block descriptor.
pub(super) fn mode_sense(
    inventory: &Inventory,
    form: ModeForm,
    control: u8,
    page: u8,
    subpage: u8,
) -> Result<Vec<u8>, Sense> {
    if control == 3 {
        return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED);
    }
    if !matches!(subpage, 0x00 | 0xff) {
        return Err(Sense::bad_cdb_field(3, None));
    }
    let arms = inventory.map.count(model::ElementType::Transport);
    let mut pages = vec![
        mode::element_assignment(&inventory.map),
        mode::transport_geometry(arms),
        mode::device_capabilities(),
    ];
    if page != 0x3f {
        pages.retain(|own| own.code == page);
    }
    if pages.is_empty() {
        return Err(Sense::bad_cdb_field(2, Some(5)));
    }
    if control == 1 {
        pages.iter_mut().for_each(|own| own.data.fill(0));
    }
    Ok(ModeParameters { pages, ..ModeParameters::default() }.encode(form))
}

/// Commands that an inventory alone can answer; `None` for all others.
pub(super) fn from_inventory(inventory: &Inventory, cdb: &Cdb) -> Result<Option<Reply>, TapeError> {
    Ok(Some(match *cdb {
        Cdb::ReadElementStatus { tags, identities, range, allocation, .. } => {
            let elements = select(inventory, &range)?;
            Reply::data(ElementReport::encode(&elements, tags, identities), allocation)
        }
        Cdb::ModeSense { form, control, page, subpage, allocation, .. } => {
            Reply::data(mode_sense(inventory, form, control, page, subpage)?, allocation)
        }
        _ => return Ok(None),
    }))
}

/// READ ELEMENT STATUS answered from an inventory; `None` for another command.
pub(crate) fn element_status(inventory: &Inventory, request: &CdbRequest) -> Option<Completion> {
    let cdb = Cdb::parse(DeviceType::Changer, &request.cdb).ok()?;
    if !matches!(cdb, Cdb::ReadElementStatus { .. }) {
        return None;
    }
    let reply = from_inventory(inventory, &cdb);
    let reply = reply.and_then(|reply| reply.ok_or(Sense::INVALID_OPERATION_CODE.into()));
    complete(request, |transfer| transfer.answer(reply)).ok()
}

/// Answers a CDB for a device that can not be reached: INQUIRY, REPORT LUNS and REQUEST SENSE,
/// and for a changer READ ELEMENT STATUS and MODE SENSE from its last inventory. Everything else
/// that is legal gets 02/04/00, what is not gets its own sense data.
///
/// `inventory` is `None` for a drive, and for a library that was never heard of.
pub fn offline(
    kind: DeviceType,
    identity: &DeviceIdentity,
    inventory: Option<&Inventory>,
    request: &CdbRequest,
) -> Completion {
    let answered = complete(request, |transfer| {
        transfer.answer(offline_reply(kind, identity, inventory, &request.cdb))
    });
    answered.unwrap_or_else(|_| Completion::check(Sense::NOT_READY_NO_CAUSE))
}

fn offline_reply(
    kind: DeviceType,
    identity: &DeviceIdentity,
    inventory: Option<&Inventory>,
    cdb: &[u8],
) -> Result<Reply, TapeError> {
    let cdb = Cdb::parse(kind, cdb)?;
    match cdb {
        Cdb::Inquiry { page, allocation } => {
            Ok(Reply::data(common::inquiry(kind, identity, page)?, allocation))
        }
        Cdb::ReportLuns { select, allocation } => {
            Ok(Reply::data(common::report_luns(select)?, allocation))
        }
        Cdb::RequestSense { descriptor, allocation } => {
            let data = common::sense_data(Sense::NOT_READY_NO_CAUSE, descriptor);
            Ok(Reply::data(data, allocation))
        }
        _ => {
            let known = inventory.map(|inventory| from_inventory(inventory, &cdb)).transpose()?;
            known.flatten().ok_or(Sense::NOT_READY_NO_CAUSE.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use model::{Barcode, ElementMap};

    use super::*;

    fn request(cdb: Cdb) -> CdbRequest {
        CdbRequest {
            cdb: cdb.encode(),
            data_out: Bytes::new(),
            data_in_max: 4096,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn an_unreachable_library_still_tells_what_it_last_held() {
        let map = ElementMap::with_counts(1, 2, 0);
        let elements = map.elements().into_iter().map(|(address, element)| ElementStatus {
            address,
            kind: element.kind,
            full: address == 1024,
            barcode: (address == 1024).then(|| Barcode::new("PTA001L8").unwrap()),
            accessible: true,
            imported: false,
            source: None,
            exception: None,
            drive: None,
        });
        let inventory = Inventory { elements: elements.collect(), map: map.clone() };
        let identity = DeviceIdentity { serial: "X".into(), ..DeviceIdentity::default() };
        let ask = |cdb| offline(DeviceType::Changer, &identity, Some(&inventory), &request(cdb));

        let range = ElementRange { kind: None, start: 0, count: 100 };
        let status = ask(Cdb::ReadElementStatus {
            tags: true,
            identities: false,
            current_data: false,
            range,
            allocation: 4096,
        });
        let report = ElementReport::parse(&status.data_in).unwrap();
        assert_eq!(report.elements.len(), 4);
        assert!(report.elements.iter().any(|e| e.tag.as_deref() == Some("PTA001L8")));
        assert_eq!(ask(Cdb::Inquiry { page: Some(0x80), allocation: 64 }).data_in[4..], *b"X");

        for cdb in [
            Cdb::TestUnitReady,
            Cdb::MoveMedium { transport: 0, source: 1024, destination: 128, invert: false },
        ] {
            let refused = ask(cdb);
            assert_eq!(refused.status, 0x02);
            assert_eq!(Sense::parse(&refused.sense), Some(Sense::NOT_READY_NO_CAUSE));
        }
        let drive = offline(DeviceType::Tape, &identity, None, &request(Cdb::TestUnitReady));
        assert_eq!(Sense::parse(&drive.sense), Some(Sense::NOT_READY_NO_CAUSE));
    }
}
