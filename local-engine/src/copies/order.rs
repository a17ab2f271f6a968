//! What is to be copied, checked and written down.

use std::time::Duration;

use copy::generation_row;
use model::{ElementType, GenerationId, JobId};
use serde::{Deserialize, Serialize};
use store::ObjectRun;
use svs::{
    Cartridge, CopyStart, JobFilter, JobKind, JobOwner, LibraryRole, MediumRef, MountPriority,
    NewJob, SvsError, Verified,
};
use tape::Control;

use crate::device::Opener;
use crate::engine::{Engine, now_ms};
pub use crate::mounting::TapeAt;
use crate::mounting::{self, Found, drive_name, drive_of};

/// How long sealing a tape that is in a drive may take.
const SEAL: Duration = Duration::from_secs(120);

/// A part of a tape in objects: records and filemarks, counted from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The first object.
    pub start: u64,
    /// How many; to the end of data if not given.
    pub count: Option<u64>,
}

/// The priority of a copy that somebody asked for.
fn asked() -> MountPriority {
    MountPriority::Copy
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
    /// How urgent it is where drives are short.
    #[serde(default = "asked")]
    pub priority: MountPriority,
    /// Of a virtual source, what is read. Known when it is written down.
    #[serde(default)]
    pub generation: Option<GenerationId>,
    /// Where on the target it begins, once that is known.
    #[serde(default)]
    pub begins: Option<u64>,
}

/// Who wants a copy.
#[derive(Clone, Debug)]
pub enum Purpose<'a> {
    /// Somebody who asked for it.
    Asked,
    /// An entry of the copy map.
    Copy(CopyStart<'a>),
    /// The entry of the migration map for this source, at this version of it.
    Migration(&'a MediumRef, u64),
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

fn find(engine: &Engine, tape: &TapeAt) -> Result<Found, Refused> {
    let registry = &engine.ground.registry;
    let found = mounting::find(registry, tape);
    let there = found.filter(|found| found.element.kind != ElementType::ImportExport);
    there.ok_or_else(|| invalid(mounting::why_not(registry, tape)))
}

/// Checks a copy and writes its job.
pub(super) fn write_down(
    engine: &Engine,
    mut order: Order,
    purpose: &Purpose<'_>,
) -> Result<(JobId, Order), Refused> {
    if order.source == order.target {
        return Err(invalid("a tape is not copied to itself"));
    }
    let (source, target) = (find(engine, &order.source)?, find(engine, &order.target)?);
    for (tape, is_read) in [(&order.source, true), (&order.target, false)] {
        if is_busy(engine, tape, is_read)? {
            return Err(Refused::InUse(tape.to_string()));
        }
    }
    for (tape, found) in [(&order.source, &source), (&order.target, &target)] {
        // What a virtual tape holds is settled now; another one is waited for in the queue.
        if found.view.role == LibraryRole::Virtual
            && let Some(index) = drive_of(&found.view, &found.element)
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
    if crate::policy::holds_migrated(engine, &order.target)? {
        let text = format!("{} holds what was migrated there", order.target);
        return Err(invalid(text));
    }
    let id = JobId::generate(now_ms());
    let ends = (order.source.to_string(), order.target.to_string());
    let by = order.requested_by.clone();
    let kind = match purpose {
        Purpose::Asked | Purpose::Copy(_) => JobKind::Copy,
        Purpose::Migration(..) => JobKind::Migration,
    };
    let mut job = NewJob::new(id, kind, JobOwner::Engine, ends, by);
    if let Some(row) = own(engine, &order.source, &source)? {
        let generation = sealed(engine, &order, &source, &row)?;
        if matches!(purpose, Purpose::Copy(_)) {
            reach_back(engine, &mut order, generation);
        }
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
    let catalogue = &engine.ground.catalogue;
    match purpose {
        Purpose::Asked => catalogue.create_job(&job).map(drop)?,
        Purpose::Copy(start) => {
            catalogue
                .begin_copy(&job, &CopyStart { from: order.section.start, ..start.clone() })?;
        }
        Purpose::Migration(source, version) => catalogue.begin_migration(&job, source, *version)?,
    }
    Ok((id, order))
}

/// A source that ends where the copy is to begin was cut there: its last object is written again,
/// since only a write ends a tape.
fn reach_back(engine: &Engine, order: &mut Order, generation: GenerationId) {
    let info = engine.ground.store.generation(generation);
    let last = info.map_or(0, |info| info.objects).saturating_sub(1);
    if order.section.start > last {
        order.section.start = last;
        order.begins = (last > 0).then_some(last);
    }
}

/// Whether a copy that has not ended writes the tape, or reads what would be written over. Several
/// may read the same tape: it goes from one to the next.
fn is_busy(engine: &Engine, tape: &TapeAt, is_read: bool) -> Result<bool, SvsError> {
    let all = job_ends(engine, tape)?;
    Ok(all.iter().any(|(_, reads, writes)| *writes || (*reads && !is_read)))
}

/// A copy that has not ended and reads or writes the tape.
pub(crate) fn job_with(engine: &Engine, tape: &TapeAt) -> Result<Option<JobId>, SvsError> {
    let all = job_ends(engine, tape)?;
    Ok(all.iter().find(|(_, reads, writes)| *reads || *writes).map(|(job, ..)| *job))
}

/// The copies that have not ended, whether they read the tape, and whether they write it.
fn job_ends(engine: &Engine, tape: &TapeAt) -> Result<Vec<(JobId, bool, bool)>, SvsError> {
    let name = tape.to_string();
    let kinds = vec![JobKind::Copy, JobKind::Migration];
    let filter = JobFilter { kinds, ..JobFilter::unfinished() };
    let jobs = engine.ground.catalogue.jobs(&filter)?;
    let writes = |target: &str| target.split(", ").any(|it| it == name);
    Ok(jobs.iter().map(|job| (job.id, job.source == name, writes(&job.target))).collect())
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
