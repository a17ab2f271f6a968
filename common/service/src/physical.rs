//! From `[[physical_library]]` to the library itself, the same in both engines.

use std::sync::Arc;

use iscsi::{Credentials, Digests};
use model::{ElementType, SiteName};
use tape::DeviceIdentity;
use tape::driver::{IscsiOptions, Portal};
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::physical::{
    Found, FoundDrive, PhysicalLibrary, ScsiLibrary, ScsiLibrarySpec, Ways, find,
};
use vfs::Vfs;

use crate::cli::Failure;
use crate::config::{self, Backend, Chap, FileBackend, ScsiBackend, ScsiDevices, Secret};

/// Opens a library. The devices of one behind SCSI need not answer now.
///
/// # Errors
/// The files of an embedded library are not usable, or the system has no thread to give.
pub fn open(
    vfs: &Arc<dyn Vfs>,
    library: &config::PhysicalLibrary,
    site: &SiteName,
) -> Result<Arc<dyn PhysicalLibrary>, Failure> {
    let name = library.name.to_string();
    Ok(match &library.backend {
        Backend::File(file) => {
            let opened = FileLibrary::open(Arc::clone(vfs), &file.path, &file_spec(name, file))?;
            Arc::new(opened.with_keys(Arc::clone(&library.keys)))
        }
        Backend::Scsi(scsi) => {
            let options = options(scsi, site);
            let ways = ways(&scsi.devices);
            let keys = Arc::clone(&library.keys);
            let is_reserved = scsi.reserve;
            let spec = ScsiLibrarySpec { name, ways, options, keys, is_reserved };
            Arc::new(ScsiLibrary::open(spec)?)
        }
    })
}

fn file_spec(name: String, file: &FileBackend) -> FileLibrarySpec {
    FileLibrarySpec {
        name,
        drives: file.drives,
        slots: file.slots,
        import_export: file.import_export,
        capacity: file.capacity.0,
        early_warning: Some(file.early_warning_bytes()),
        barcodes: file.barcodes(),
    }
}

fn ways(devices: &ScsiDevices) -> Ways {
    match devices {
        ScsiDevices::Named { changer, drives } => {
            Ways::Named { changer: changer.clone(), drives: drives.clone() }
        }
        ScsiDevices::Discovered(Some(portal)) => Ways::Portal(portal.clone()),
        ScsiDevices::Discovered(None) => Ways::Nodes,
    }
}

/// The iSCSI name of an engine whose configuration gives none.
pub fn initiator(site: &str) -> String {
    format!("iqn.2026-01.local.twinreel:{}", site.to_ascii_lowercase())
}

fn options(scsi: &ScsiBackend, site: &SiteName) -> IscsiOptions {
    IscsiOptions {
        initiator: scsi.initiator.clone().unwrap_or_else(|| initiator(site.as_str())),
        credentials: scsi.chap.as_ref().map(credentials),
        digests: Digests { header: scsi.digests, data: scsi.digests },
    }
}

fn credentials(chap: &Chap) -> Credentials {
    let secret = |secret: &Option<Secret>| {
        let bytes = secret.as_ref().map_or("", Secret::expose).as_bytes();
        iscsi::Secret::new(bytes.to_vec())
    };
    Credentials {
        user: chap.user.clone(),
        secret: secret(&chap.secret),
        target: chap.target_user.clone().map(|user| (user, secret(&chap.target_secret))),
    }
}

/// Looks for libraries, and writes what a configuration says of them.
///
/// # Errors
/// The portal does not answer.
pub fn discover(looking: &Looking) -> Result<String, Failure> {
    let initiator = looking.initiator.clone().unwrap_or_else(|| initiator("discover"));
    let mut chap = looking.chap.clone();
    if let Some(chap) = &mut chap {
        config::read_chap(chap)?;
    }
    let options = IscsiOptions {
        initiator,
        credentials: chap.as_ref().map(credentials),
        digests: Digests { header: true, data: true },
    };
    let found = find(looking.portal.as_ref(), &options)?;
    let texts = found.iter().enumerate().map(|(number, found)| describe(number, found, looking));
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

/// Where to look for libraries, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Looking {
    /// An iSCSI portal; the nodes of this host without one.
    pub portal: Option<Portal>,
    /// Our iSCSI name.
    pub initiator: Option<String>,
    /// User and secret.
    pub chap: Option<Chap>,
}

/// A text as TOML writes it.
fn quoted(text: impl std::fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// What a device says of itself, in a comment: nothing in it ends the line.
fn comment(identity: &DeviceIdentity) -> String {
    let DeviceIdentity { vendor, product, revision, serial } = identity;
    let words = [vendor.as_str(), product, revision, "serial", serial].map(str::trim).join(" ");
    words.chars().filter(|c| !c.is_control()).collect()
}

fn describe(number: usize, found: &Found, looking: &Looking) -> String {
    let Found { changer, identity, inventory, drives } = found;
    let count = |kind| inventory.map.count(kind);
    let full = inventory.elements.iter().filter(|element| element.full).count();
    let mut text = format!(
        "# {}: {} drives, {} slots, {} import/export elements, {full} cartridges.\n",
        comment(identity),
        count(ElementType::DataTransfer),
        count(ElementType::Storage),
        count(ElementType::ImportExport),
    );
    text.push_str("[[physical_library]]\n");
    text.push_str(&format!("name = \"ptl{number}\"\nbackend = \"scsi\"\n"));
    text.push_str(&format!("changer = {}\ndrives = [\n", quoted(changer)));
    for (index, drive) in drives.iter().enumerate() {
        let FoundDrive { element, identity, address } = drive;
        let who = comment(identity);
        text.push_str(&match address {
            Some(at) => format!("    {},  # drive{index}, element {element}: {who}\n", quoted(at)),
            None => format!("    # drive{index}, element {element}, was not found: {who}\n"),
        });
    }
    text.push_str("]\n");
    if let Some(initiator) = &looking.initiator {
        text.push_str(&format!("initiator = {}\n", quoted(initiator)));
    }
    if let Some(chap) = &looking.chap {
        let (user, file) = (quoted(&chap.user), quoted(chap.secret_file.display()));
        text.push_str(&format!("chap = {{ user = {user}, secret_file = {file} }}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use model::ElementMap;
    use tape::Inventory;

    use super::*;

    #[test]
    fn what_was_found_is_a_configuration() {
        let named = |product: &str, serial: &str| DeviceIdentity {
            vendor: "TGT".into(),
            product: product.into(),
            revision: "1\n".into(),
            serial: serial.into(),
        };
        let drive = |element, address: Option<&str>| FoundDrive {
            element,
            identity: named("ULT3580", "D1"),
            address: address.map(|text| text.parse().unwrap()),
        };
        let found = Found {
            changer: "iscsi://10.0.0.7:3260/iqn.a/1".parse().unwrap(),
            identity: named("VTL", "C1"),
            inventory: Inventory { map: ElementMap::with_counts(2, 8, 0), elements: Vec::new() },
            drives: vec![drive(256, Some("/dev/sg3")), drive(257, None)],
        };
        let chap = Chap {
            user: "a\"b".into(),
            secret_file: "/etc/secret".into(),
            target_user: None,
            target_secret_file: None,
            secret: None,
            target_secret: None,
        };
        let looking = Looking { chap: Some(chap), ..Looking::default() };
        let text = describe(0, &found, &looking);
        #[derive(serde::Deserialize)]
        struct File {
            physical_library: Vec<config::PhysicalLibrary>,
        }
        let file: File = toml::from_str(&text).unwrap();
        let library = &file.physical_library[0];
        let Backend::Scsi(scsi) = &library.backend else { panic!("not behind SCSI") };
        let ScsiDevices::Named { changer, drives } = &scsi.devices else { panic!("not named") };
        assert_eq!((changer, drives.len()), (&found.changer, 1));
        assert_eq!(scsi.chap.as_ref().unwrap().user, "a\"b");
        assert!(text.contains("# drive1, element 257, was not found"), "{text}");
    }
}
