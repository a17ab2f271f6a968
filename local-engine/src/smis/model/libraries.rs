//! Systems, changers, drives, ports, cabinets, software and capacities of the libraries.

use cim::{Instance, Path};
use model::ElementType;
use svs::LibraryRole;
use tape::ElementStatus;

use super::health::Health;
use super::names::system;
use super::{LibraryFacts, Model, Sink};
use crate::engine::Engine;
use crate::smis::ROOT;

impl LibraryFacts {
    /// Whether it has a service that copies its tapes: a virtual library has.
    pub(super) fn has_replication(&self) -> bool {
        self.view.role == LibraryRole::Virtual
    }

    pub(super) fn health(&self) -> Health {
        if self.view.online { Health::Good } else { Health::Lost }
    }

    /// How an element is: what SMC reports as abnormal is an error of that element, and a tape that
    /// is frozen one of its place too.
    pub(super) fn element_health(&self, element: &ElementStatus) -> Health {
        let frozen = |tag| self.view.conditions.frozen.iter().any(|(barcode, _)| barcode == tag);
        match (self.view.online, element.exception) {
            (false, _) => Health::Lost,
            (true, Some(_)) => Health::Degraded,
            // It is read and not written on any more.
            (true, None) if element.barcode.as_ref().is_some_and(frozen) => Health::Degraded,
            (true, None) => Health::Good,
        }
    }

    pub(super) fn elements(&self, kind: ElementType) -> impl Iterator<Item = &ElementStatus> {
        self.view.inventory.elements.iter().filter(move |element| element.kind == kind)
    }

    /// The drives with their numbers.
    pub(super) fn drives(&self) -> impl Iterator<Item = (u16, &ElementStatus)> {
        (0u16..).zip(self.elements(ElementType::DataTransfer))
    }

    fn kind(&self) -> &'static str {
        match self.view.role {
            LibraryRole::Virtual => "virtual tape library",
            LibraryRole::Ghost => "ghost of a tape library at another site",
            LibraryRole::Physical => "tape library",
            LibraryRole::Frontend => "frontend of other tape libraries",
        }
    }

    fn computer_system(&self, instance: Instance, site: &str) -> Instance {
        let library = self.names.library().to_string();
        // 22: Media Library, 34: Virtual Tape Library.
        let dedicated: Vec<u16> = match self.view.role {
            LibraryRole::Virtual => vec![22, 34],
            LibraryRole::Ghost | LibraryRole::Physical | LibraryRole::Frontend => vec![22],
        };
        let identity = &self.view.identity;
        let serial = format!("{} {} {}", identity.vendor, identity.product, identity.serial);
        let instance = instance
            .with("NameFormat", "Other")
            .with("ElementName", library.clone())
            .with("Caption", format!("{library}: a {}", self.kind()))
            .with("Description", format!("The {} {library}, shown at {site}", self.kind()))
            .with("Dedicated", dedicated)
            .with("OtherIdentifyingInfo", vec![serial])
            .with("IdentifyingDescriptions", vec!["Vendor, product and serial number"]);
        self.health().enabled(instance)
    }

    fn changer(&self, instance: Instance) -> Instance {
        let identity = &self.view.identity;
        let instance = instance
            .with("Name", identity.serial.clone())
            .with("ElementName", format!("{}/changer", self.names.library()))
            .with("Description", format!("{} {}", identity.vendor, identity.product))
            .with("MediaFlipSupported", false)
            .with("Availability", if self.view.online { 3u16 } else { 2 });
        self.health().enabled(instance)
    }

    fn drive(&self, instance: Instance, index: u16, element: &ElementStatus) -> Instance {
        let identity = element.drive.clone().unwrap_or_default();
        let instance = instance
            .with("Name", identity.serial)
            .with("ElementName", format!("{}/drive{index}", self.names.library()))
            .with("Description", format!("{} {}", identity.vendor, identity.product))
            // Sequential Access, Supports Writing, Supports Removeable Media.
            .with("Capabilities", vec![2u16, 4, 7])
            .with("NeedsCleaning", false)
            .with("Availability", if self.view.online { 3u16 } else { 2 });
        let down = self.view.condition(index).down.filter(|_| self.view.online);
        match down {
            Some(why) => {
                let mut instance = Health::Stopped.enabled(instance);
                instance.set("StatusDescriptions", vec![format!("Stopped: {why}")].into());
                // Off line.
                instance.set("Availability", 8u16.into());
                instance
            }
            None => self.element_health(element).enabled(instance),
        }
    }

    fn port(&self, instance: Instance, element: &ElementStatus) -> Instance {
        let instance = instance
            .with("Name", format!("port{}", element.address))
            .with("ElementName", format!("{}/port{}", self.names.library(), element.address))
            .with("Locked", false)
            .with("Extended", false);
        self.element_health(element).enabled(instance)
    }

    fn chassis(&self, instance: Instance) -> Instance {
        let identity = &self.view.identity;
        let instance = instance
            .with("ElementName", self.names.library().to_string())
            .with("Manufacturer", identity.vendor.clone())
            .with("Model", identity.product.clone())
            .with("SerialNumber", identity.serial.clone())
            .with("LockPresent", false)
            .with("SecurityBreach", 2u16)
            .with("IsLocked", false);
        self.health().of(instance)
    }

    fn firmware(&self, instance: Instance) -> Instance {
        let identity = &self.view.identity;
        let instance = instance
            .with("ElementName", format!("{} firmware", self.names.library()))
            .with("VersionString", identity.revision.clone())
            .with("Manufacturer", identity.vendor.clone())
            .with("SerialNumber", identity.serial.clone())
            .with("IsEntity", true)
            // Firmware.
            .with("Classifications", vec![10u16]);
        self.health().of(instance)
    }

    /// How many drives, slots, ports and changers there are: (object type, count).
    fn counts(&self) -> [(u16, u64); 4] {
        let count = |kind| self.elements(kind).count() as u64;
        [
            (7, count(ElementType::DataTransfer)),
            (8, count(ElementType::Storage)),
            (12, count(ElementType::ImportExport)),
            (15, 1),
        ]
    }

    fn capacity_path(&self, kind: u16) -> Path {
        let path = Path::new(ROOT, "CIM_ConfigurationCapacity");
        path.with("Name", self.names.system_name().to_owned()).with("ObjectType", kind.to_string())
    }

    /// The devices that are not tapes.
    fn devices(&self) -> Vec<Path> {
        let drives = self.drives().map(|(index, _)| self.names.drive(index));
        let ports = self.elements(ElementType::ImportExport).map(|e| self.names.port(e.address));
        std::iter::once(self.names.changer()).chain(drives).chain(ports).collect()
    }
}

/// The name of the engine's own system.
pub(in crate::smis) fn appliance_name(engine: &Engine) -> String {
    format!("{}:engine", engine.ground.config.site.name)
}

impl Model<'_> {
    /// The system of this engine itself.
    pub(super) fn appliance(&self) -> Path {
        system(&self.appliance_name())
    }

    pub(super) fn appliance_name(&self) -> String {
        appliance_name(self.engine)
    }

    pub(super) fn engine_software(&self) -> Path {
        let id = format!("twinreel:{}:engine", self.site());
        Path::new(ROOT, "CIM_SoftwareIdentity").with("InstanceID", id)
    }

    /// Whether the class is one of these.
    pub(super) fn library_instances(&self, class: &str, sink: &mut Sink<'_>) -> bool {
        match class {
            "CIM_ComputerSystem" => {
                sink.add(self.appliance(), |instance| self.appliance_system(instance));
                sink.add(self.host(), |instance| self.appliance_system(instance));
            }
            "CIM_SoftwareIdentity" => {
                sink.add(self.engine_software(), |instance| {
                    let version = env!("CARGO_PKG_VERSION");
                    let instance = instance
                        .with("ElementName", "Twinreel local engine")
                        .with("VersionString", version)
                        .with("Manufacturer", "Twinreel")
                        .with("IsEntity", true)
                        // Operating system and application software are 5 and 4.
                        .with("Classifications", vec![4u16]);
                    Health::Good.of(instance)
                });
            }
            "CIM_InstalledSoftwareIdentity" => {
                let ends =
                    [("System", self.appliance()), ("InstalledSoftware", self.engine_software())];
                sink.join("CIM_InstalledSoftwareIdentity", ends);
            }
            "CIM_ComponentCS"
            | "CIM_ChangerDevice"
            | "CIM_TapeDrive"
            | "CIM_LimitedAccessPort"
            | "CIM_Chassis"
            | "CIM_ConfigurationCapacity"
            | "CIM_ElementCapacity"
            | "CIM_ComputerSystemPackage"
            | "CIM_ElementSoftwareIdentity" => {}
            _ => return false,
        }
        for library in self.libraries() {
            self.of_library(class, library, sink);
        }
        true
    }

    fn appliance_system(&self, instance: Instance) -> Instance {
        let instance = instance
            .with("NameFormat", "Other")
            .with("ElementName", format!("Twinreel engine at {}", self.site()))
            .with("Caption", "A Twinreel engine")
            .with("Description", "The engine that serves virtual tape libraries and ghosts")
            // 35: Virtual Library System.
            .with("Dedicated", vec![35u16])
            .with("OtherIdentifyingInfo", vec![self.site().to_owned()])
            .with("IdentifyingDescriptions", vec!["Site"]);
        Health::Good.enabled(instance)
    }

    fn of_library(&self, class: &str, library: &LibraryFacts, sink: &mut Sink<'_>) {
        let names = &library.names;
        match class {
            "CIM_ComputerSystem" => {
                sink.add(names.system(), |i| library.computer_system(i, self.site()));
            }
            "CIM_ComponentCS" => {
                let ends =
                    [("GroupComponent", self.appliance()), ("PartComponent", names.system())];
                sink.join("CIM_ComponentCS", ends);
            }
            "CIM_ChangerDevice" => sink.add(names.changer(), |i| library.changer(i)),
            "CIM_TapeDrive" => {
                for (index, element) in library.drives() {
                    sink.add(names.drive(index), |i| {
                        let holder = self.engine.ground.registry.holder(&names.drive_name(index));
                        // Idle and busy of Usage states are not there; the words are for people.
                        let words =
                            holder.map_or("free".to_owned(), |who| format!("in use by {who}"));
                        library.drive(i, index, element).with("OtherIdentifyingInfo", vec![words])
                    });
                }
            }
            "CIM_LimitedAccessPort" => {
                for element in library.elements(ElementType::ImportExport) {
                    sink.add(names.port(element.address), |i| library.port(i, element));
                }
            }
            "CIM_Chassis" => sink.add(names.chassis(), |i| library.chassis(i)),
            "CIM_SoftwareIdentity" => sink.add(names.software(), |i| library.firmware(i)),
            "CIM_ElementSoftwareIdentity" => {
                for device in library.devices().into_iter().take(1) {
                    let ends = [("Antecedent", names.software()), ("Dependent", device)];
                    sink.join("CIM_ElementSoftwareIdentity", ends);
                }
            }
            "CIM_ComputerSystemPackage" => {
                let ends = [("Antecedent", names.chassis()), ("Dependent", names.system())];
                sink.join("CIM_ComputerSystemPackage", ends);
            }
            "CIM_ConfigurationCapacity" => {
                for (kind, count) in library.counts() {
                    sink.add(library.capacity_path(kind), |mut i| {
                        i.set("ObjectType", kind.into());
                        i.with("ElementName", format!("{} capacity", names.library()))
                            .with("MinimumCapacity", count)
                            .with("MaximumCapacity", count)
                    });
                }
            }
            "CIM_ElementCapacity" => {
                for (kind, _) in library.counts() {
                    let ends =
                        [("Capacity", library.capacity_path(kind)), ("Element", names.chassis())];
                    sink.join("CIM_ElementCapacity", ends);
                }
            }
            _ => {}
        }
    }

    /// The association of systems and all their devices, tapes included.
    pub(super) fn system_devices(&self, sink: &mut Sink<'_>) {
        for library in self.libraries() {
            let names = &library.names;
            let join = |sink: &mut Sink<'_>, device| {
                let ends = [("GroupComponent", names.system()), ("PartComponent", device)];
                sink.join("CIM_SystemDevice", ends);
            };
            library.devices().into_iter().for_each(|device| join(sink, device));
            for tape in library.tapes() {
                if sink.may_be_tape(names, &tape.tag, tape.address()) {
                    join(sink, names.partition(&tape.tag));
                }
            }
        }
    }
}
