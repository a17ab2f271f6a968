//! Replication services, their capabilities, and the pairs that are being copied.

use cim::{CimError, Path};
use svs::LibraryRole;

use super::health::Health;
use super::{LibraryFacts, Model, Sink, TapeName};
use crate::smis::{ROOT, capabilities, copying};

fn capabilities_of(library: &LibraryFacts) -> Path {
    let id = format!("twinreel:{}:replication", library.names.system_name());
    Path::new(ROOT, "CIM_ReplicationServiceCapabilities").with("InstanceID", id)
}

impl Model<'_> {
    /// Whether the class is one of these.
    pub(super) fn replication_instances(
        &self,
        class: &str,
        sink: &mut Sink<'_>,
    ) -> Result<bool, CimError> {
        let services = self.libraries().filter(|library| library.has_replication());
        match class {
            "Twinreel_ReplicationService" => {
                for library in services {
                    sink.add(library.names.replication(), |instance| {
                        let name = format!("Copies of tapes of {}", library.names.library());
                        let instance = instance.with("ElementName", name).with("Started", true);
                        Health::Good.enabled(instance)
                    });
                }
            }
            "CIM_ReplicationServiceCapabilities" => {
                for library in services {
                    sink.add(capabilities_of(library), |instance| {
                        instance
                            .with("ElementName", "Copies of tapes")
                            // Asynchronous Clone Local.
                            .with("SupportedReplicationTypes", vec![capabilities::TYPE])
                            // No value speaks of tapes: ours.
                            .with("SupportedStorageObjects", vec![0x8001u16])
                            // CreateElementReplica, ModifyReplicaSynchronization,
                            // CreateListReplica.
                            .with("SupportedAsynchronousActions", vec![2u16, 5, 19])
                            .with("SupportedSynchronousActions", vec![8u16, 10, 21])
                    });
                }
            }
            "CIM_ElementCapabilities" => {
                for library in services {
                    let ends = [
                        ("ManagedElement", library.names.replication()),
                        ("Capabilities", capabilities_of(library)),
                    ];
                    sink.join("CIM_ElementCapabilities", ends);
                }
            }
            "CIM_StorageSynchronized" => self.pairs(sink)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn pairs(&self, sink: &mut Sink<'_>) -> Result<(), CimError> {
        for job in copying::unfinished(self.engine)? {
            let ends = (self.partition(&job.source), self.partition(&job.target));
            let (Some(source), Some(target)) = ends else { continue };
            sink.add(copying::synchronized(source, target), |i| {
                copying::pair(i, &job, self.engine.copies.is_suspended(job.id))
            });
        }
        Ok(())
    }

    /// The partition of a tape by the name that rows give it.
    pub(super) fn partition(&self, name: &str) -> Option<Path> {
        let (library, tag) = name.split_once('/')?;
        let library = self.libraries().find(|l| l.names.library().as_str() == library)?;
        library.tapes().any(|tape| tape.tag == tag).then(|| library.names.partition(tag))
    }

    /// The tapes that a tape can be copied to: those of other libraries that are free. From a
    /// virtual tape those are ghost and physical ones, and from these the virtual ones.
    pub(in crate::smis) fn free_tapes(&self, source: &TapeName) -> Result<Vec<Path>, CimError> {
        let virtual_one = |library: &LibraryFacts| library.view.role == LibraryRole::Virtual;
        let mut all = self.libraries();
        let from = all.find(|library| *library.names.library() == source.library);
        let from = from.map(virtual_one).unwrap_or_default();
        let busy = self.busy()?;
        let mut found = Vec::new();
        for library in self.libraries().filter(|l| virtual_one(l) != from && l.view.online) {
            for tape in library.tapes() {
                let name = format!("{}/{}", library.names.library(), tape.tag);
                if !busy.contains(&name) {
                    found.push(library.names.partition(&tape.tag));
                }
            }
        }
        Ok(found)
    }
}
