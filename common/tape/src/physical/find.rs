//! Which libraries there are behind a portal, or among the nodes of this host.

use std::time::Duration;

use model::{ElementAddress, ElementType};
use scsi::{Cdb, StandardInquiry};

use super::Address;
use super::matching::match_drives;
use crate::driver::{
    Data, IscsiOptions, Portal, ScsiChanger, ScsiDrive, ScsiTransport, discover, sg_nodes,
};
use crate::{Control, DeviceIdentity, Inventory, MediumChanger, TapeDrive, TapeError};

/// How long one question may take.
const ASK: Duration = Duration::from_secs(10);
/// How long an inventory may take; the arm may be at work.
const INVENTORY: Duration = Duration::from_secs(300);

/// A drive of a library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDrive {
    /// Its element.
    pub element: ElementAddress,
    /// Who it is, by its own word if there is a way to it, else by the changer's.
    pub identity: DeviceIdentity,
    /// The way to it; `None` if none of the devices is this drive.
    pub address: Option<Address>,
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The way to the changer.
    pub changer: Address,
    /// Who it is.
    pub identity: DeviceIdentity,
    /// Its elements.
    pub inventory: Inventory,
    /// Its drives, in the order of their elements.
    pub drives: Vec<FoundDrive>,
}

fn unreachable(error: impl std::fmt::Display) -> TapeError {
    TapeError::Unreachable(error.to_string())
}

/// Looks for changers and their drives behind a portal, or without one among the nodes of this
/// host. A device that does not answer is passed over with a warning.
///
/// # Errors
/// The portal does not answer.
pub fn find(portal: Option<&Portal>, options: &IscsiOptions) -> Result<Vec<Found>, TapeError> {
    let devices: Vec<_> = match portal {
        Some(portal) => {
            let found = discover(portal, options).map_err(unreachable)?;
            found.into_iter().map(Address::Iscsi).collect()
        }
        None => sg_nodes().into_iter().map(|node| Address::Node(node.path)).collect(),
    };
    let (mut changers, mut drives) = (Vec::new(), Vec::new());
    for address in devices {
        match kind(&address, options) {
            Ok(0x01) => {
                let way = address.transport(options).map_err(unreachable);
                let drive = way.and_then(|way| ScsiDrive::open(way, &Control::within(ASK)));
                drives.push((address, drive.map(|drive| drive.identity()).ok()));
            }
            Ok(0x08) => changers.push(address),
            Ok(_) => {}
            Err(error) => tracing::warn!(%address, %error, "a device is passed over"),
        }
    }
    let mut found = Vec::new();
    for changer in changers {
        match library(&changer, &drives, options) {
            Ok(library) => found.push(library),
            Err(error) => tracing::warn!(%changer, %error, "a changer is passed over"),
        }
    }
    Ok(found)
}

/// A changer with the drives that it says are its own.
fn library(
    address: &Address,
    drives: &[(Address, Option<DeviceIdentity>)],
    options: &IscsiOptions,
) -> Result<Found, TapeError> {
    let way = address.transport(options).map_err(unreachable)?;
    let mut changer = ScsiChanger::open(way, &Control::within(ASK))?;
    let inventory = changer.inventory(&Control::within(INVENTORY))?;
    let elements = inventory.elements.iter();
    let bays: Vec<_> =
        elements.filter(|it| it.kind == ElementType::DataTransfer).cloned().collect();
    let identities: Vec<_> = drives.iter().map(|(_, identity)| identity.clone()).collect();
    let matched = match_drives(&bays, &identities).into_iter().zip(&bays);
    let drives = matched.map(|(matched, bay)| {
        let way = matched.way.and_then(|way| drives.get(way));
        let own = way.and_then(|(_, identity)| identity.clone());
        FoundDrive {
            element: matched.element,
            identity: own.or_else(|| bay.drive.clone()).unwrap_or_default(),
            address: way.map(|(address, _)| address.clone()),
        }
    });
    let drives = drives.collect();
    Ok(Found { changer: address.clone(), identity: changer.identity(), inventory, drives })
}

/// The peripheral device type.
fn kind(address: &Address, options: &IscsiOptions) -> Result<u8, TapeError> {
    let mut way = address.transport(options).map_err(unreachable)?;
    let mut bytes = [0; 36];
    let cdb = Cdb::Inquiry { page: None, allocation: 36 }.encode();
    way.execute(&cdb, Data::In(&mut bytes), ASK).map_err(unreachable)?;
    Ok(StandardInquiry::parse(&bytes).map_err(unreachable)?.device_type)
}
