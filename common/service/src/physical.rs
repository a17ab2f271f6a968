//! From `[[physical_library]]` to the library itself, the same in both engines.

use std::sync::Arc;

use iscsi::{Credentials, Digests};
use model::SiteName;
use tape::driver::IscsiOptions;
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::physical::{PhysicalLibrary, ScsiLibrary, ScsiLibrarySpec, Ways};
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
            Arc::new(FileLibrary::open(Arc::clone(vfs), &file.path, &file_spec(name, file))?)
        }
        Backend::Scsi(scsi) => {
            let options = options(scsi, site);
            let ways = ways(&scsi.devices);
            Arc::new(ScsiLibrary::open(ScsiLibrarySpec { name, ways, options })?)
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
