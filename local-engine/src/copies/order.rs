//! What is to be copied, checked and written down.

use std::fmt;
use std::time::Duration;

use copy::generation_row;
use model::{Barcode, GenerationId, JobId, LibraryName};
use serde::{Deserialize, Serialize};
use store::ObjectRun;
use svs::{Cartridge, JobFilter, JobKind, JobOwner, LibraryRole, NewJob, SvsError, Verified};
use tape::{Control, ElementStatus};

use crate::device::{LibraryView, Opener};
use crate::engine::{Engine, now_ms};

/// How long sealing a tape that is in a drive may take.
const SEAL: Duration = Duration::from_secs(120);

/// A tape by its library and its volume tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapeAt {
    /// The library, by its name here.
    pub library: LibraryName,
    /// The volume tag.
    pub barcode: Barcode,
}

impl fmt::Display for TapeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.library, self.barcode)
    }
}

/// A part of a tape in objects: records and filemarks, counted from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The first object.
    pub start: u64,
    /// How many; to the end of data if not given.
    pub count: Option<u64>,
}

/// A copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is read.
    pub source: TapeAt,
    /// What is written.
    pub target: TapeAt,
    /// Which part.
    pub section: Section,
    /// Behind what is on the target, instead of over it.
    pub append: bool,
    /// How it is proven on tape; as the library of the target says if not given.
    #[serde(default)]
    pub verify: Option<Verified>,
    /// For people: `smis admin at 192.0.2.1`.
    pub requested_by: String,
    /// Of a virtual source, what is read. Known when it is written down.
    #[serde(default)]
    pub generation: Option<GenerationId>,
    /// Where on the target it begins, once that is known.
    #[serde(default)]
    pub begins: Option<u64>,
}

/// Why a copy was not begun.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It can not be, as it is asked for; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// A tape is in use; once it is free a retry helps.
    #[error("{0} is in use")]
    InUse(String),
    /// Too many copies run or wait; a retry helps.
    #[error("too many copies run or wait")]
    TooMany,
    /// Something of the engine's own failed.
    #[error("{0}")]
    Failed(String),
    /// The job can not be written down.
    #[error(transparent)]
    Catalogue(#[from] SvsError),
}

fn invalid(text: impl Into<String>) -> Refused {
    Refused::Invalid(text.into())
}

/// A tape where it was found.
pub(super) struct Found {
    pub(super) view: LibraryView,
    pub(super) element: ElementStatus,
}

pub(super) fn find(engine: &Engine, tape: &TapeAt) -> Result<Found, Refused> {
    let mut all = engine.ground.registry.libraries().into_iter();
    let library = all.find(|library| *library.name() == tape.library);
    let unknown = || invalid(format!("there is no tape {tape}"));
    let library = library.ok_or_else(unknown)?;
    let view = library.view().ok_or_else(unknown)?;
    let there =
        |element: &&ElementStatus| element.full && element.barcode.as_ref() == Some(&tape.barcode);
    let element = view.inventory.elements.iter().find(there).cloned().ok_or_else(unknown)?;
    Ok(Found { view, element })
}

/// Checks a copy and writes its job.
pub(super) fn write_down(engine: &Engine, mut order: Order) -> Result<(JobId, Order), Refused> {
    if order.source == order.target {
        return Err(invalid("a tape is not copied to itself"));
    }
    let (source, target) = (find(engine, &order.source)?, find(engine, &order.target)?);
    for tape in [&order.source, &order.target] {
        if is_busy(engine, tape)? {
            return Err(Refused::InUse(tape.to_string()));
        }
    }
    for (tape, found) in [(&order.source, &source), (&order.target, &target)] {
        if let Some(index) = drive_of(&found.view, &found.element)
            && engine.ground.registry.holder(&drive_name(tape, index)).is_some()
        {
            return Err(Refused::InUse(tape.to_string()));
        }
    }
    if let Some(row) = own(engine, &order.target, &target)?
        && row.write_protected
    {
        return Err(invalid(format!("{} is write-protected", order.target)));
    }
    let id = JobId::generate(now_ms());
    let ends = (order.source.to_string(), order.target.to_string());
    let by = order.requested_by.clone();
    let mut job = NewJob::new(id, JobKind::Copy, JobOwner::Engine, ends, by);
    if let Some(row) = own(engine, &order.source, &source)? {
        let generation = sealed(engine, &order, &source, &row)?;
        let bytes = section_bytes(engine, generation, order.section)?;
        let capacity = target.view.capacity.unwrap_or(u64::MAX);
        if !order.append && bytes > capacity {
            return Err(invalid(format!("{bytes} bytes do not fit on {}", order.target)));
        }
        order.generation = Some(generation);
        job.cartridge = Some(row.id);
        job.generation = Some(generation);
        job.bytes_total = Some(bytes);
    }
    let note = serde_json::to_string(&order).map_err(|error| Refused::Failed(error.to_string()))?;
    job.resume = Some(note);
    engine.ground.catalogue.create_job(&job)?;
    Ok((id, order))
}

/// Whether a copy that has not ended reads or writes the tape.
pub(super) fn is_busy(engine: &Engine, tape: &TapeAt) -> Result<bool, SvsError> {
    let name = tape.to_string();
    let filter = JobFilter { kinds: vec![JobKind::Copy], ..JobFilter::unfinished() };
    let jobs = engine.ground.catalogue.jobs(&filter)?;
    Ok(jobs.iter().any(|job| job.source == name || job.target.split(", ").any(|t| t == name)))
}

/// The number of the drive that an element is.
pub(super) fn drive_of(view: &LibraryView, element: &ElementStatus) -> Option<u16> {
    let drives = view.inventory.elements.iter();
    let drives = drives.filter(|e| e.kind == model::ElementType::DataTransfer);
    (0u16..).zip(drives).find(|(_, e)| e.address == element.address).map(|(index, _)| index)
}

pub(super) fn drive_name(tape: &TapeAt, index: u16) -> model::DeviceName {
    model::DeviceName::drive(tape.library.clone(), index)
}

/// The row of a virtual tape.
fn own(engine: &Engine, tape: &TapeAt, found: &Found) -> Result<Option<Cartridge>, SvsError> {
    if found.view.role != LibraryRole::Virtual {
        return Ok(None);
    }
    let site = &engine.ground.config.site.name;
    engine.ground.catalogue.find_cartridge(site, &tape.library, &tape.barcode)
}

/// The newest generation of a virtual tape, once what was written to it is sealed.
fn sealed(
    engine: &Engine,
    order: &Order,
    found: &Found,
    row: &Cartridge,
) -> Result<GenerationId, Refused> {
    let store = &engine.ground.store;
    if store.open_generation(row.id).is_some() {
        match drive_of(&found.view, &found.element) {
            Some(index) => seal_in_drive(engine, &order.source, index)?,
            None => {
                let sealed = store.image(row.id).and_then(|mut image| image.seal());
                let catalogue = &engine.ground.catalogue;
                if let Some(id) = sealed.map_err(|error| Refused::Failed(error.to_string()))? {
                    let new = generation_row(store, catalogue, id)?;
                    new.map_or(Ok(()), |new| catalogue.put_generation(&new))?;
                }
            }
        }
    }
    let newest = store.latest(row.id);
    newest.map(|info| info.id).ok_or_else(|| invalid(format!("{} was never written", order.source)))
}

fn seal_in_drive(engine: &Engine, tape: &TapeAt, index: u16) -> Result<(), Refused> {
    let opener = Opener { nexus: super::NEXUS - 1, who: "a copy that begins".into() };
    let control = Control::within(SEAL);
    let name = drive_name(tape, index).to_string();
    let opened = engine.ground.registry.open_tape(&name, &opener, &control);
    let (_claim, mut drive) = opened.map_err(|_| Refused::InUse(tape.to_string()))?;
    let Some(source) = drive.reference_source() else { return Ok(()) };
    // The first look meets the attention of whatever happened to the drive before.
    let sealed = source.segment(0).or_else(|_| source.segment(0));
    sealed.map(drop).map_err(|error| Refused::Failed(error.to_string()))
}

/// A stretch of a section: objects of one kind, with where their bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Records of one size.
    Records { size: u32, count: u64, offset: u64 },
    /// Filemarks.
    Filemarks { count: u64 },
}

/// Cuts runs of objects to a section.
pub(super) fn stretches<E>(
    runs: impl Iterator<Item = Result<ObjectRun, E>>,
    section: Section,
) -> impl Iterator<Item = Result<Stretch, E>> {
    let end = section.count.map_or(u64::MAX, |count| section.start.saturating_add(count));
    let (mut object, mut byte) = (0u64, 0u64);
    runs.filter_map(move |run| {
        let run = match run {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let (ObjectRun::Records { count, .. } | ObjectRun::Filemarks { count }) = run;
        let (first, last) = (object.max(section.start), (object + count).min(end));
        let (begin, offset) = (object, byte);
        object += count;
        if let ObjectRun::Records { size, .. } = run {
            byte += u64::from(size) * count;
        }
        if first >= last {
            return None;
        }
        let count = last - first;
        Some(Ok(match run {
            ObjectRun::Records { size, .. } => {
                let offset = offset + (first - begin) * u64::from(size);
                Stretch::Records { size, count, offset }
            }
            ObjectRun::Filemarks { .. } => Stretch::Filemarks { count },
        }))
    })
}

fn section_bytes(
    engine: &Engine,
    generation: GenerationId,
    section: Section,
) -> Result<u64, Refused> {
    let failed = |error: store::StoreError| Refused::Failed(error.to_string());
    let recipes = engine.ground.store.recipe(generation).map_err(failed)?;
    let objects = recipes.info().objects;
    let beyond = section.count.and_then(|count| section.start.checked_add(count));
    if section.start > objects || beyond.is_some_and(|end| end > objects) {
        let text = format!("the section ends behind the tape's {objects} objects");
        return Err(invalid(text));
    }
    if section.count == Some(0) || section.start == objects {
        return Err(invalid("the section is empty"));
    }
    let mut bytes = 0;
    for stretch in stretches(recipes.runs(0), section) {
        if let Stretch::Records { size, count, .. } = stretch.map_err(failed)? {
            bytes += u64::from(size) * count;
        }
    }
    Ok(bytes)
}
