//! The server itself: object manager, namespaces, ways to talk to it.

use cim::{Instance, Path};

use super::health::Health;
use super::names::of_system;
use super::{Model, Sink};
use crate::smis::indications::{RETRIES, RETRY};
use crate::smis::{INTEROP, ROOT};

const MANAGER: &str = "CIM_ObjectManager";
const SYSTEM: &str = "CIM_ComputerSystem";

/// The version of CIM-XML's protocol and of the server.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Model<'_> {
    /// The host of the server, in the namespace of the server.
    pub(in crate::smis) fn host(&self) -> Path {
        let path = Path::new(INTEROP, SYSTEM).with("CreationClassName", SYSTEM);
        path.with("Name", self.appliance_name())
    }

    fn of_host(&self, class: &'static str, name: (&'static str, String)) -> Path {
        let mut path = of_system(&self.appliance_name(), class, name);
        path.namespace = INTEROP.into();
        path
    }

    pub(super) fn manager(&self) -> Path {
        self.of_host(MANAGER, ("Name", format!("twinreel:{}", self.site())))
    }

    pub(super) fn indication_service(&self) -> Path {
        self.of_host("CIM_IndicationService", ("Name", "indications".into()))
    }

    fn mechanism(&self) -> Path {
        let class = "CIM_CIMXMLCommunicationMechanism";
        self.of_host(class, ("Name", "cim-xml".into()))
    }

    fn namespaces(&self) -> [(Path, &'static str); 2] {
        [INTEROP, ROOT].map(|name| {
            let path = Path::new(INTEROP, "CIM_Namespace")
                .with("SystemCreationClassName", SYSTEM)
                .with("SystemName", self.appliance_name())
                .with("ObjectManagerCreationClassName", MANAGER)
                .with("ObjectManagerName", format!("twinreel:{}", self.site()))
                .with("CreationClassName", "CIM_Namespace")
                .with("Name", name);
            (path, name)
        })
    }

    /// Whether the class is one of these. The host's system is one of `CIM_ComputerSystem`, which
    /// [`Model::library_instances`] adds to.
    pub(super) fn interop_instances(&self, class: &str, sink: &mut Sink<'_>) -> bool {
        match class {
            MANAGER => sink.add(self.manager(), manager),
            "CIM_Namespace" => {
                for (path, name) in self.namespaces() {
                    sink.add(path, |i| {
                        // Instances of classes of CIM.
                        i.with("ClassType", 2u16).with("ClassInfo", 0u16).with("ElementName", name)
                    });
                }
            }
            "CIM_NamespaceInManager" => {
                for (path, _) in self.namespaces() {
                    let ends = [("Antecedent", self.manager()), ("Dependent", path)];
                    sink.join("CIM_NamespaceInManager", ends);
                }
            }
            "CIM_CIMXMLCommunicationMechanism" => sink.add(self.mechanism(), mechanism),
            "CIM_CommMechanismForManager" => {
                let ends = [("Antecedent", self.manager()), ("Dependent", self.mechanism())];
                sink.join("CIM_CommMechanismForManager", ends);
            }
            "CIM_IndicationService" => sink.add(self.indication_service(), |i| {
                let i = i
                    .with("ElementName", "Indication service")
                    .with("FilterCreationEnabled", true)
                    .with("DeliveryRetryAttempts", RETRIES)
                    .with("DeliveryRetryInterval", RETRY.as_secs() as u32)
                    // Remove.
                    .with("SubscriptionRemovalAction", 2u16)
                    .with("SubscriptionRemovalTimeInterval", 2_592_000u32)
                    .with("Started", true);
                Health::Good.enabled(i)
            }),
            "CIM_HostedService" => {
                for service in [self.manager(), self.indication_service()] {
                    let ends = [("Antecedent", self.host()), ("Dependent", service)];
                    sink.join("CIM_HostedService", ends);
                }
                let ends = [("Antecedent", self.appliance()), ("Dependent", self.tape_server())];
                sink.join("CIM_HostedService", ends);
                for library in self.libraries().filter(|l| l.has_replication()) {
                    let ends = [
                        ("Antecedent", library.names.system()),
                        ("Dependent", library.names.replication()),
                    ];
                    sink.join("CIM_HostedService", ends);
                }
            }
            "CIM_HostedAccessPoint" => {
                let ends = [("Antecedent", self.host()), ("Dependent", self.mechanism())];
                sink.join("CIM_HostedAccessPoint", ends);
            }
            _ => return false,
        }
        true
    }
}

fn manager(instance: Instance) -> Instance {
    let instance = instance
        .with("ElementName", "Twinreel")
        .with("Description", format!("Twinreel CIM server version {VERSION}"))
        .with("Version", VERSION)
        .with("GatherStatisticalData", false)
        .with("Started", true)
        .with("StartMode", "Automatic");
    Health::Good.enabled(instance)
}

fn mechanism(instance: Instance) -> Instance {
    let instance = instance
        .with("ElementName", "CIM-XML")
        .with("CommunicationMechanism", 2u16)
        .with("CIMXMLProtocolVersion", 1u16)
        .with("CIMValidated", true)
        .with("Version", "1.0")
        // Basic Read, Schema Manipulation is none; Basic Write, Instance Manipulation,
        // Association Traversal, Qualifier Declaration, Indications.
        .with("FunctionalProfilesSupported", vec![2u16, 3, 5, 6, 8, 9])
        .with("MultipleOperationsSupported", false)
        .with("AuthenticationMechanismsSupported", vec![3u16])
        .with("AdvertiseTypes", vec![2u16]);
    Health::Good.enabled(instance)
}
