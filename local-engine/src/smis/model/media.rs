//! Places, tapes and what can be written on them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use cim::{CimError, Instance, Path};
use model::{ElementAddress, ElementType, LibraryName};
use svs::{JobFilter, JobKind, JobState, LibraryRole, TapeFacts};
use tape::ElementStatus;

use super::health::Health;
use super::{LibraryFacts, Model, Sink};

/// A tape in a library.
pub(super) struct Tape<'a> {
    /// Its volume tag, or its place where it has none.
    pub(super) tag: Cow<'a, str>,
    element: &'a ElementStatus,
}

impl Tape<'_> {
    /// Where it is.
    pub(super) fn address(&self) -> ElementAddress {
        self.element.address
    }
}

/// What the catalogue knows of virtual tapes of a library, by volume tag.
type Known = HashMap<String, TapeFacts>;

/// Bytes of a block of a tape, for the properties that count in blocks.
const BLOCK: u64 = 1;

impl LibraryFacts {
    pub(super) fn tapes(&self) -> impl Iterator<Item = Tape<'_>> {
        let full = self.view.inventory.elements.iter().filter(|element| element.full);
        full.map(|element| {
            let tag = match &element.barcode {
                Some(barcode) => Cow::Borrowed(barcode.as_str()),
                None => Cow::Owned(format!("@{}", element.address)),
            };
            Tape { tag, element }
        })
    }

    /// Every place that holds a tape; the arm is no place.
    fn places(&self) -> impl Iterator<Item = &ElementStatus> {
        let elements = self.view.inventory.elements.iter();
        elements.filter(|element| element.kind != ElementType::Transport)
    }

    fn location(&self, instance: Instance, element: &ElementStatus) -> Instance {
        let kind: u16 = match element.kind {
            ElementType::Storage | ElementType::Transport => 2,
            ElementType::DataTransfer => 4,
            ElementType::ImportExport => 6,
        };
        let instance = instance
            .with("ElementName", format!("{} element {}", self.names.library(), element.address))
            .with("LocationType", kind)
            .with("LocationCoordinates", element.address.to_string())
            // Tape Cartridge.
            .with("MediaTypesSupported", vec![2u16])
            .with("MediaCapacity", 1u32);
        self.element_health(element).of(instance)
    }

    /// The generation that a volume tag names by its last two characters, such as `LTO-8`.
    fn media(tag: &str) -> String {
        let last = tag.len().checked_sub(2).and_then(|at| tag.get(at..)).unwrap_or_default();
        match last.strip_prefix('L') {
            Some(digit) if digit.chars().all(|c| c.is_ascii_digit()) => format!("LTO-{digit}"),
            _ => "tape".into(),
        }
    }

    fn physical_tape(
        &self,
        instance: Instance,
        tape: &Tape<'_>,
        known: Option<&TapeFacts>,
        busy: bool,
    ) -> Instance {
        let tag = tape.tag.to_string();
        let labelled = tape.element.barcode.is_some();
        let capacity = known.map(|known| known.capacity).or(self.view.capacity);
        let labels = if labelled { vec![tag.clone()] } else { Vec::new() };
        let instance = instance
            .with("ElementName", format!("{}/{tag}", self.names.library()))
            .with("Capacity", capacity)
            .with("MediaType", 2u16)
            .with("MediaDescription", Self::media(&tag))
            .with("CleanerMedia", tag.starts_with("CLN"))
            .with("DualSided", false)
            .with("Removable", true)
            .with("LabelFormats", vec![0u16; labels.len()])
            .with("LabelStates", vec![0u16; labels.len()])
            .with("PhysicalLabels", labels)
            .with("WriteProtectOn", known.map(|known| known.write_protected))
            .with("IsBasedOnDisk", self.view.role == LibraryRole::Virtual)
            // Unrestricted, or Reserved for Copy Services.
            .with("Usage", if busy { 3u16 } else { 2 });
        self.element_health(tape.element).of(instance)
    }

    fn partition(
        &self,
        instance: Instance,
        tape: &Tape<'_>,
        known: Option<&TapeFacts>,
    ) -> Instance {
        let capacity = known.map(|known| known.capacity).or(self.view.capacity);
        let used = known.and_then(|known| known.logical_bytes).unwrap_or(0);
        let instance = instance
            .with("Name", tape.tag.to_string())
            .with("ElementName", format!("{}/{}", self.names.library(), tape.tag))
            .with("BlockSize", BLOCK)
            .with("NumberOfBlocks", capacity)
            .with("SequentialAccess", true)
            // Variable Length; Read/Write Supported.
            .with("DataOrganization", 3u16)
            .with("Access", 3u16);
        match (self.view.role, capacity) {
            (LibraryRole::Virtual, Some(all)) => {
                instance.with("ConsumableBlocks", all.saturating_sub(used))
            }
            _ => instance,
        }
    }
}

impl Model<'_> {
    /// Whether the class is one of these.
    pub(super) fn media_instances(
        &self,
        class: &str,
        sink: &mut Sink<'_>,
    ) -> Result<bool, CimError> {
        match class {
            "CIM_PhysicalTape" | "CIM_TapePartition" => self.tape_instances(class, sink)?,
            "CIM_SystemDevice" => self.system_devices(sink),
            "CIM_StorageMediaLocation"
            | "CIM_PhysicalMediaInLocation"
            | "CIM_Container"
            | "CIM_PackagedComponent"
            | "CIM_RealizesTapePartition"
            | "CIM_MediaPresent"
            | "CIM_Realizes"
            | "CIM_DeviceServicesLocation" => {
                for library in self.libraries() {
                    of_library(class, library, sink);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn tape_instances(&self, class: &str, sink: &mut Sink<'_>) -> Result<(), CimError> {
        for library in self.libraries() {
            let names = &library.names;
            let mut tapes = library
                .tapes()
                .filter(|tape| sink.may_be_tape(names, &tape.tag, tape.element.address))
                .peekable();
            let Some(first) = tapes.peek() else { continue };
            // One tape is looked up by itself; the rows of ten thousand take their time.
            let one = sink.like.is_some().then(|| first.tag.to_string());
            let known = self.known(names.library(), one.as_deref())?;
            let (busy, broken) = (self.busy()?, self.broken(names.library(), one.as_deref())?);
            let tapes: Vec<_> = tapes.collect();
            for tape in tapes {
                let name = format!("{}/{}", names.library(), tape.tag);
                let row = known.get(tape.tag.as_ref());
                match class {
                    "CIM_PhysicalTape" => sink.add(names.tape(&tape.tag), |i| {
                        library.physical_tape(i, &tape, row, busy.contains(&name))
                    }),
                    _ => sink.add(names.partition(&tape.tag), |i| {
                        let health = match broken.contains(&name) {
                            true => Health::Failed,
                            false => library.element_health(tape.element),
                        };
                        health.enabled(library.partition(i, &tape, row))
                    }),
                }
            }
        }
        Ok(())
    }

    /// What the catalogue knows of a library's tapes, or of the one.
    fn known(&self, library: &LibraryName, one: Option<&str>) -> Result<Known, CimError> {
        let ground = &self.engine.ground;
        let site = &ground.config.site.name;
        let rows = ground.catalogue.tape_facts(site, library, one);
        let rows = rows.map_err(CimError::failed)?.into_iter();
        Ok(rows.map(|row| (row.barcode.clone(), row)).collect())
    }

    /// The tapes whose last copy by this engine failed or was ended.
    fn broken(
        &self,
        library: &LibraryName,
        one: Option<&str>,
    ) -> Result<HashSet<String>, CimError> {
        let kinds = vec![JobKind::Copy];
        let about = Some(format!("{library}/{}", one.unwrap_or_default()));
        let filter = JobFilter { kinds, about, ..JobFilter::default() };
        let jobs = self.engine.ground.catalogue.jobs(&filter).map_err(CimError::failed)?;
        let mut last = HashMap::new();
        for job in jobs {
            let target = job.target.rsplit(", ").next().unwrap_or_default().to_owned();
            let broken = matches!(job.state, JobState::Failed | JobState::Cancelled);
            let ours = job.requested_by.starts_with("smis ");
            last.insert(target, broken && ours && job.bytes > 0);
        }
        let broken = last.into_iter().filter(|(_, broken)| *broken);
        Ok(broken.map(|(target, _)| target).collect())
    }

    /// The tapes of copies that have not ended, as the rows name them.
    pub(super) fn busy(&self) -> Result<HashSet<String>, CimError> {
        let filter = JobFilter { kinds: vec![JobKind::Copy], ..JobFilter::unfinished() };
        let jobs = self.engine.ground.catalogue.jobs(&filter).map_err(CimError::failed)?;
        let ends = jobs.into_iter().flat_map(|job| {
            let target = job.target.rsplit(", ").next().unwrap_or_default().to_owned();
            [job.source, target]
        });
        Ok(ends.collect())
    }
}

fn of_library(class: &str, library: &LibraryFacts, sink: &mut Sink<'_>) {
    let names = &library.names;
    let by_place =
        |sink: &mut Sink<'_>, class, ends: &dyn Fn(&ElementStatus) -> [(&'static str, Path); 2]| {
            for element in library.places() {
                if sink.may_be_tape(names, "", element.address) {
                    sink.join(class, ends(element));
                }
            }
        };
    let by_tape =
        |sink: &mut Sink<'_>, class, ends: &dyn Fn(&Tape<'_>) -> [(&'static str, Path); 2]| {
            for tape in library.tapes() {
                if sink.may_be_tape(names, &tape.tag, tape.element.address) {
                    sink.join(class, ends(&tape));
                }
            }
        };
    match class {
        "CIM_StorageMediaLocation" => {
            for element in library.places() {
                if sink.may_be_tape(names, "", element.address) {
                    sink.add(names.location(element.address), |i| library.location(i, element));
                }
            }
        }
        "CIM_Container" => by_place(sink, "CIM_Container", &|element| {
            [
                ("GroupComponent", names.chassis()),
                ("PartComponent", names.location(element.address)),
            ]
        }),
        "CIM_DeviceServicesLocation" => by_place(sink, "CIM_DeviceServicesLocation", &|element| {
            [("Antecedent", names.changer()), ("Dependent", names.location(element.address))]
        }),
        "CIM_PackagedComponent" => by_tape(sink, "CIM_PackagedComponent", &|tape| {
            [("GroupComponent", names.chassis()), ("PartComponent", names.tape(&tape.tag))]
        }),
        "CIM_PhysicalMediaInLocation" => by_tape(sink, "CIM_PhysicalMediaInLocation", &|tape| {
            let place = names.location(tape.element.address);
            [("Antecedent", place), ("Dependent", names.tape(&tape.tag))]
        }),
        "CIM_RealizesTapePartition" => by_tape(sink, "CIM_RealizesTapePartition", &|tape| {
            [("Antecedent", names.tape(&tape.tag)), ("Dependent", names.partition(&tape.tag))]
        }),
        "CIM_MediaPresent" => {
            for (index, element) in library.drives().filter(|(_, element)| element.full) {
                let tag = element.barcode.as_ref().map(|barcode| barcode.to_string());
                let tag = tag.unwrap_or_else(|| format!("@{}", element.address));
                let ends =
                    [("Antecedent", names.drive(index)), ("Dependent", names.partition(&tag))];
                sink.join("CIM_MediaPresent", ends);
            }
        }
        "CIM_Realizes" => {
            let drives = library.drives().map(|(i, element)| (names.drive(i), element));
            let ports = library.elements(ElementType::ImportExport);
            let ports = ports.map(|element| (names.port(element.address), element));
            for (device, element) in drives.chain(ports) {
                let place = names.location(element.address);
                sink.join("CIM_Realizes", [("Antecedent", place), ("Dependent", device)]);
            }
        }
        _ => {}
    }
}
