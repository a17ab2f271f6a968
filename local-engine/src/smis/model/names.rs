//! Keys: how things are called, and back.

use cim::Path;
use model::{Barcode, DeviceName, DeviceRole, ElementAddress, LibraryName};

use crate::smis::ROOT;

/// The names of one library's parts.
#[derive(Clone, Debug)]
pub(in crate::smis) struct Names {
    system: String,
    library: LibraryName,
}

/// A tape: its library's name and its volume tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::smis) struct TapeName {
    pub(in crate::smis) library: LibraryName,
    pub(in crate::smis) barcode: Barcode,
}

/// The path of a computer system.
pub(in crate::smis) fn system(name: &str) -> Path {
    let path = Path::new(ROOT, "CIM_ComputerSystem");
    path.with("CreationClassName", "CIM_ComputerSystem").with("Name", name.to_owned())
}

/// The path of something that a system has, by the four keys of devices and services.
pub(in crate::smis) fn of_system(
    system: &str,
    class: &'static str,
    (key, name): (&'static str, String),
) -> Path {
    Path::new(ROOT, class)
        .with("SystemCreationClassName", "CIM_ComputerSystem")
        .with("SystemName", system.to_owned())
        .with("CreationClassName", class)
        .with(key, name)
}

impl Names {
    pub(super) fn new(site: &str, library: LibraryName) -> Self {
        Self { system: format!("{site}:{library}"), library }
    }

    pub(in crate::smis) fn library(&self) -> &LibraryName {
        &self.library
    }

    pub(in crate::smis) fn system_name(&self) -> &str {
        &self.system
    }

    pub(in crate::smis) fn system(&self) -> Path {
        system(&self.system)
    }

    fn device(&self, class: &'static str, id: String) -> Path {
        of_system(&self.system, class, ("DeviceID", id))
    }

    pub(super) fn changer(&self) -> Path {
        self.device("CIM_ChangerDevice", "changer".into())
    }

    pub(super) fn drive(&self, index: u16) -> Path {
        self.device("CIM_TapeDrive", format!("drive{index}"))
    }

    pub(super) fn drive_name(&self, index: u16) -> DeviceName {
        DeviceName { library: self.library.clone(), role: DeviceRole::Drive(index) }
    }

    pub(super) fn port(&self, address: ElementAddress) -> Path {
        self.device("CIM_LimitedAccessPort", format!("port{address}"))
    }

    pub(in crate::smis) fn partition(&self, tape: &str) -> Path {
        self.device("CIM_TapePartition", format!("tape:{tape}"))
    }

    pub(in crate::smis) fn replication(&self) -> Path {
        let class = "Twinreel_ReplicationService";
        of_system(&self.system, class, ("Name", "replication".into()))
    }

    pub(super) fn physical(&self, class: &'static str, tag: &str) -> Path {
        let tag =
            if tag.is_empty() { self.system.clone() } else { format!("{}:{tag}", self.system) };
        Path::new(ROOT, class).with("CreationClassName", class).with("Tag", tag)
    }

    pub(super) fn chassis(&self) -> Path {
        self.physical("CIM_Chassis", "")
    }

    pub(super) fn location(&self, address: ElementAddress) -> Path {
        self.physical("CIM_StorageMediaLocation", &address.to_string())
    }

    pub(super) fn tape(&self, tape: &str) -> Path {
        self.physical("CIM_PhysicalTape", tape)
    }

    pub(super) fn software(&self) -> Path {
        let id = format!("twinreel:{}:firmware", self.system);
        Path::new(ROOT, "CIM_SoftwareIdentity").with("InstanceID", id)
    }
}

/// The tape that a partition's path names, if it names one of a library by volume tag.
pub(in crate::smis) fn tape_of(path: &Path) -> Option<TapeName> {
    if !cim::same_name(&path.class, "CIM_TapePartition") {
        return None;
    }
    let (_, library) = path.text("SystemName").split_once(':')?;
    let barcode = path.text("DeviceID").strip_prefix("tape:")?;
    Some(TapeName {
        library: LibraryName::new(library).ok()?,
        barcode: Barcode::new(barcode).ok()?,
    })
}
