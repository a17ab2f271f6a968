//! From what the engines know to what is told.

use model::{ElementType, LibraryName};
use svs::{Catalogue, JobFilter, JobStatus, SvsError};
use tape::Inventory;

use super::{Drive, FrontendRow, Job, Library, MapRow, Maps, Slot, Turn};

/// Elements of one library that are drawn.
const SLOTS_MAX: usize = 4096;
/// Jobs that have ended and are told.
const ENDED_MAX: u32 = 30;
/// Jobs that have not ended and are told.
const UNFINISHED_MAX: u32 = 500;
/// Rows of the queue that are told.
const TURNS_MAX: usize = 500;
/// Rows of one map that are told.
const ROWS_MAX: usize = 1000;

/// The time, RFC 3339 UTC with whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long ago a time of a row was.
pub fn age_seconds(at: &str) -> Option<u64> {
    let at: jiff::Timestamp = at.parse().ok()?;
    Some(u64::try_from(jiff::Timestamp::now().as_second() - at.as_second()).unwrap_or(0))
}

/// A library out of its inventory; `holder` tells who has a drive open.
pub fn library(
    name: &LibraryName,
    role: &'static str,
    online: bool,
    inventory: &Inventory,
    holder: impl Fn(u16) -> Option<String>,
) -> Library {
    let tag = |element: &tape::ElementStatus| {
        let tag = || element.barcode.as_ref().map(|tag| tag.to_string()).unwrap_or_default();
        element.full.then(tag)
    };
    let of = |kinds: &'static [ElementType]| {
        inventory.elements.iter().filter(move |element| kinds.contains(&element.kind))
    };
    let drives = (0u16..).zip(of(&[ElementType::DataTransfer])).map(|(index, element)| Drive {
        name: format!("{name}/drive{index}"),
        address: element.address,
        cartridge: tag(element),
        holder: holder(index),
    });
    const PLACES: &[ElementType] = &[ElementType::Storage, ElementType::ImportExport];
    let mut slots: Vec<_> = of(PLACES)
        .map(|element| Slot {
            address: element.address,
            import_export: element.kind == ElementType::ImportExport,
            cartridge: tag(element),
            exception: element.exception.is_some(),
        })
        .collect();
    slots.sort_by_key(|slot| slot.address);
    let more_slots = slots.len().saturating_sub(SLOTS_MAX);
    slots.truncate(SLOTS_MAX);
    Library {
        name: name.to_string(),
        role,
        online,
        drives: drives.collect(),
        slots,
        more_slots,
        cartridges: inventory.elements.iter().filter(|element| element.full).count(),
        ..Library::default()
    }
}

/// Who has drives or waits for them, in the order of the queue.
pub fn queue(catalogue: &Catalogue) -> Result<Vec<Turn>, SvsError> {
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    let turn = |row: svs::Mount| Turn {
        number: row.ticket,
        state: row.state.to_string(),
        priority: row.priority.to_string(),
        tapes: row.tapes,
        drives: row.drives,
        age_seconds: now.saturating_sub(row.since) / 1000,
        who: row.who,
        job: row.job,
        reason: row.reason,
    };
    Ok(catalogue.mounts()?.into_iter().take(TURNS_MAX).map(turn).collect())
}

fn job(row: JobStatus) -> Job {
    Job {
        id: row.id.to_string(),
        kind: row.kind.to_string(),
        source: row.source,
        target: row.target,
        state: row.state.to_string(),
        ended: row.state.is_final(),
        percent: row.percent,
        bytes: row.bytes,
        rate: row.rate,
        message: row.message.unwrap_or_default(),
        requested_by: row.requested_by,
    }
}

/// Jobs that have not ended, then the newest that have; each from new to old.
pub fn jobs(catalogue: &Catalogue) -> Result<Vec<Job>, SvsError> {
    let open = JobFilter { limit: UNFINISHED_MAX, ..JobFilter::unfinished() };
    let states = svs::JobState::ALL.iter().copied().filter(|state| state.is_final()).collect();
    let ended = JobFilter { states, limit: ENDED_MAX, ..JobFilter::default() };
    let open = catalogue.jobs(&open)?.into_iter().rev();
    let ended = catalogue.jobs(&ended)?.into_iter().rev();
    Ok(open.chain(ended).map(job).collect())
}

/// The rows of the three maps, at most a thousand of each.
pub fn maps(catalogue: &Catalogue) -> Result<Maps, SvsError> {
    let frontend = catalogue.frontend_backends()?.into_iter().take(ROWS_MAX);
    let frontend = frontend.map(|row| FrontendRow {
        backend_device: row.backend_device.to_string(),
        frontend_device: row.frontend_device.map(|device| device.to_string()),
        alternative_backend_device: row.alternative_backend_device.map(|it| it.to_string()),
        backend_tapes: {
            let tapes: Vec<_> = row.backend_tapes.iter().map(ToString::to_string).collect();
            tapes.join(", ")
        },
    });
    let copies = catalogue.copy_entries()?.into_iter().take(ROWS_MAX).map(|row| MapRow {
        source: row.source_medium.to_string(),
        target: row.target_medium.to_string(),
        policy: row.policy.to_string(),
        status: row.status.to_string(),
        message: row.message,
    });
    let migrations = catalogue.migration_entries()?.into_iter().take(ROWS_MAX).map(|row| MapRow {
        source: row.source_medium.to_string(),
        target: row.migration_medium.to_string(),
        policy: row.policy.to_string(),
        status: row.status.to_string(),
        message: row.message,
    });
    Ok(Maps {
        frontend_backend: frontend.collect(),
        copy: copies.collect(),
        migration: migrations.collect(),
    })
}
