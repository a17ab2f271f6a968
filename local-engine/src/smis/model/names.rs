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

/// Classes of which every instance, and every end of an association, is of one library.
pub(super) fn is_of_one_library(class: &str) -> bool {
    const CLASSES: [&str; 16] = [
        "CIM_ChangerDevice",
        "CIM_TapeDrive",
        "CIM_LimitedAccessPort",
        "CIM_Chassis",
        "CIM_ComputerSystemPackage",
        "CIM_PhysicalTape",
        "CIM_TapePartition",
        "CIM_SystemDevice",
        "CIM_StorageMediaLocation",
        "CIM_PhysicalMediaInLocation",
        "CIM_Container",
        "CIM_PackagedComponent",
        "CIM_RealizesTapePartition",
        "CIM_MediaPresent",
        "CIM_Realizes",
        "CIM_DeviceServicesLocation",
    ];
    CLASSES.contains(&class)
}

/// The system that a path, or the first reference in its keys, is a part of.
pub(super) fn system_of(path: &Path) -> Option<&str> {
    let inner = path.keys.iter().find_map(|(name, _)| path.reference(name));
    let path = inner.unwrap_or(path);
    let (name, tag) = (path.text("SystemName"), path.text("Tag"));
    match (name, tag) {
        ("", "") if cim::same_name(&path.class, "CIM_ComputerSystem") => Some(path.text("Name")),
        ("", "") => None,
        // SITE:LIBRARY, and the part of it behind another colon.
        ("", tag) => match tag.match_indices(':').nth(1) {
            Some((end, _)) => tag.get(..end),
            None => Some(tag),
        },
        (name, _) => Some(name),
    }
}

/// Whether a path can be that of this tape, of its place or of something else that is not named by
/// either; an association's, whether its ends can.
pub(super) fn may_be_tape(path: &Path, names: &Names, tag: &str, place: ElementAddress) -> bool {
    let is_part = |text: &str, part: &str| {
        let rest = text.strip_prefix(names.system.as_str());
        rest.and_then(|rest| rest.strip_prefix(':')) == Some(part)
    };
    match path.class.as_ref() {
        "CIM_PhysicalTape" => is_part(path.text("Tag"), tag),
        "CIM_TapePartition" => path.text("DeviceID").strip_prefix("tape:") == Some(tag),
        "CIM_StorageMediaLocation" => is_part(path.text("Tag"), &place.to_string()),
        _ => path.keys.iter().all(|(name, _)| {
            path.reference(name).is_none_or(|end| may_be_tape(end, names, tag, place))
        }),
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
