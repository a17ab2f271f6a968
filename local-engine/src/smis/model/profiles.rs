//! The profiles that are followed, and who follows them.

use cim::Path;

use super::{Model, Sink};
use crate::smis::INTEROP;

/// SNIA as RegisteredOrganization.
const SNIA: u16 = 11;
/// The version of SMI-S whose profiles these are.
const VERSION: &str = "1.8.0";

/// The specification, and the profiles that stand alone.
const SPECIFICATION: &str = "SMI-S";
const SERVER: &str = "Server";
const LIBRARY: &str = "Storage Library";

/// Parts: their name, and the profile that they are a part of.
const PARTS: [(&str, &str); 9] = [
    ("Profile Registration", SERVER),
    ("Indication", SERVER),
    ("Storage Library Limited Access Port Elements", LIBRARY),
    ("Storage Library Element Counting", LIBRARY),
    ("Physical Package", LIBRARY),
    ("Software", LIBRARY),
    ("Health", LIBRARY),
    ("Job Control", LIBRARY),
    ("Replication Services", LIBRARY),
];

fn profile(name: &str) -> Path {
    let part = PARTS.iter().any(|(known, _)| *known == name);
    let class = if part { "CIM_RegisteredSubProfile" } else { "CIM_RegisteredProfile" };
    Path::new(INTEROP, class).with("InstanceID", format!("SNIA:{name}:{VERSION}"))
}

impl Model<'_> {
    /// Whether the class is one of these.
    pub(super) fn profile_instances(&self, class: &str, sink: &mut Sink<'_>) -> bool {
        match class {
            "CIM_RegisteredProfile" => {
                for name in [SPECIFICATION, SERVER, LIBRARY] {
                    registered(name, sink);
                }
            }
            "CIM_RegisteredSubProfile" => PARTS.iter().for_each(|(name, _)| registered(name, sink)),
            "CIM_SubProfileRequiresProfile" => {
                for (part, whole) in PARTS {
                    // In the direction of SNIA.
                    let ends = [("Antecedent", profile(whole)), ("Dependent", profile(part))];
                    sink.join("CIM_SubProfileRequiresProfile", ends);
                }
            }
            "CIM_ElementConformsToProfile" => {
                let mut conforms = |standard: Path, element: Path| {
                    let ends = [("ConformantStandard", standard), ("ManagedElement", element)];
                    sink.join("CIM_ElementConformsToProfile", ends);
                };
                for name in [SERVER, LIBRARY] {
                    conforms(profile(SPECIFICATION), profile(name));
                }
                for (name, element) in self.central() {
                    conforms(profile(name), element);
                }
            }
            _ => return false,
        }
        true
    }

    /// The profiles and their central instances.
    fn central(&self) -> Vec<(&'static str, Path)> {
        let mut all = vec![
            (SERVER, self.manager()),
            ("Indication", self.indication_service()),
            ("Profile Registration", profile(SERVER)),
            ("Profile Registration", profile(LIBRARY)),
            ("Software", self.engine_software()),
        ];
        for library in self.libraries() {
            let names = &library.names;
            all.push((LIBRARY, names.system()));
            all.push(("Health", names.system()));
            all.push(("Physical Package", names.chassis()));
            all.push(("Storage Library Element Counting", names.chassis()));
            all.push(("Software", names.software()));
            let ports = library.elements(model::ElementType::ImportExport);
            let port = "Storage Library Limited Access Port Elements";
            all.extend(ports.map(|element| (port, names.port(element.address))));
            if library.has_replication() {
                all.push(("Replication Services", names.replication()));
                all.push(("Job Control", names.replication()));
            }
        }
        all
    }
}

fn registered(name: &'static str, sink: &mut Sink<'_>) {
    sink.add(profile(name), |instance| {
        instance
            .with("RegisteredOrganization", SNIA)
            .with("RegisteredName", name)
            .with("RegisteredVersion", VERSION)
            .with("ElementName", name)
            // Not advertised.
            .with("AdvertiseTypes", vec![2u16])
    });
}
