//! What an administrator asks of the maps. Every change is checked first and told afterwards.

use std::sync::Arc;

use copy::policy::{Schedule, Source, Verdict};
use model::ByteSize;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use service::admin::{AdminFault, FaultCode};
use service::messages;
use svs::{
    CopyEntry, CopyRule, EventKind, FrontendBackend, MapPolicy, MediumRef, MigrationEntry,
    MigrationRule, SvsError, TapeRange, Verified,
};

use super::check::{self, Maps};
use super::{names, now};
use crate::admin::{bad, conflict};
use crate::engine::{Engine, now_ms};

/// Entries that one call may write.
const ENTRIES_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CopySet {
    source: String,
    /// Tapes, or with `pool` the name of a pool.
    target: String,
    #[serde(default)]
    pool: bool,
    policy: MapPolicy,
    schedule: Option<String>,
    after_records: Option<u64>,
    after_bytes: Option<String>,
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    lock_source: u64,
    verify: Option<Verified>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationSet {
    source: String,
    target: String,
    #[serde(default)]
    pool: bool,
    policy: MapPolicy,
    days: Option<u32>,
    schedule: Option<String>,
    verify: Option<Verified>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    source: String,
    target: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapSet {
    backend: String,
    frontend: Option<String>,
    #[serde(default)]
    tapes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    device: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolSet {
    pool: Option<String>,
    tapes: Vec<String>,
}

type Answer = Result<Value, AdminFault>;

/// Whether a method is one of the maps.
pub(crate) fn is_ours(method: &str) -> bool {
    ["map_", "copy_", "migration_", "pool_"].iter().any(|prefix| method.starts_with(prefix))
}

/// Does what a call asks. Blocks on the catalogue.
pub(crate) fn call(engine: &Arc<Engine>, method: &str, params: Value) -> Answer {
    let answer = match method {
        "copy_set" => copy_set(engine, read(params)?),
        "copy_remove" => copy_remove(engine, read(params)?),
        "copy_run" => copy_run(engine, read(params)?),
        "copy_explain" => explain(engine, read(params)?),
        "migration_set" => migration_set(engine, read(params)?),
        "migration_remove" => migration_remove(engine, read(params)?),
        "migration_run" => migration_run(engine, read(params)?),
        "map_set" => map_set(engine, read(params)?),
        "map_remove" => map_remove(engine, read(params)?),
        "map_backends" => Ok(backends(engine)),
        "pool_set" => pool_set(engine, read(params)?),
        other => Err(AdminFault::new(FaultCode::BadRequest, format!("no method {other:?}"))),
    };
    engine.policy.ring();
    answer
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, AdminFault> {
    serde_json::from_value(params).map_err(bad)
}

fn failed(error: SvsError) -> AdminFault {
    let code = match error {
        SvsError::NotFound(_) => FaultCode::NotFound,
        SvsError::Conflict(_) => FaultCode::Conflict,
        _ => FaultCode::Failed,
    };
    AdminFault::new(code, error.to_string())
}

/// Tells of a change: in the log, as an event, and so in the view `audit`.
fn audit(engine: &Engine, what: &str) {
    let words: [(&str, &dyn std::fmt::Display); 1] = [("what", &what)];
    let catalogue = &engine.ground.catalogue;
    messages::note(catalogue, EventKind::Audit, messages::MAPS_CHANGED, &words, None);
}

fn tapes(engine: &Engine, text: &str) -> Result<Vec<MediumRef>, AdminFault> {
    let range = names::read_tapes(engine, text).map_err(bad)?;
    Ok(range.tapes().take(ENTRIES_MAX + 1).collect())
}

fn schedule(text: Option<&str>) -> Result<Option<String>, AdminFault> {
    let schedule = text.map(str::parse::<Schedule>).transpose().map_err(bad)?;
    Ok(schedule.map(|schedule| schedule.to_string()))
}

/// Sources with their targets: as many of each, or targets from a pool.
fn pairs(
    engine: &Engine,
    (source, target): (&str, &str),
    pool: bool,
) -> Result<Vec<(MediumRef, Option<MediumRef>)>, AdminFault> {
    let sources = tapes(engine, source)?;
    if sources.len() > ENTRIES_MAX {
        return Err(bad(format!("more than {ENTRIES_MAX} entries in one call")));
    }
    if pool {
        return Ok(sources.into_iter().map(|source| (source, None)).collect());
    }
    let targets = tapes(engine, target)?;
    if sources.len() != targets.len() {
        let (many, few) = (sources.len(), targets.len());
        return Err(bad(format!("{many} sources and {few} targets: name as many of both")));
    }
    Ok(sources.into_iter().zip(targets.into_iter().map(Some)).collect())
}

/// The target of an entry: the one that is named, or a free one of the pool.
fn target(engine: &Engine, named: Option<MediumRef>, pool: &str) -> Result<MediumRef, AdminFault> {
    if let Some(named) = named {
        return Ok(named);
    }
    let free = engine.ground.catalogue.free_in_pool(pool).map_err(failed)?;
    free.ok_or_else(|| conflict(format!("pool {pool:?} has no medium that is free")))
}

fn copy_set(engine: &Arc<Engine>, set: CopySet) -> Answer {
    check::policy(set.policy, false).map_err(bad)?;
    let bytes = set.after_bytes.as_deref().map(str::parse::<ByteSize>).transpose().map_err(bad)?;
    let rule = CopyRule {
        schedule: schedule(set.schedule.as_deref())?,
        after_records: set.after_records,
        after_bytes: bytes.map(|bytes| bytes.0),
        wait: set.wait,
        lock_source: set.lock_source,
        verify: set.verify.unwrap_or(CopyRule::default().verify),
    };
    let mut entered = Vec::new();
    let mut maps = Maps::read(engine).map_err(failed)?;
    for (source, named) in pairs(engine, (&set.source, &set.target), set.pool)? {
        let target = target(engine, named, &set.target)?;
        check::pair(engine, &maps, &source, &target).map_err(conflict)?;
        let mut entry = CopyEntry::new(source.clone(), target.clone(), set.policy);
        entry.rule = rule.clone();
        entry.changed_at = Some(now_ms());
        engine.ground.catalogue.put_copy_entry(&entry).map_err(failed)?;
        entered.push(json!({ "source": source, "target": target }));
        maps.copies.push((source, target));
    }
    let what = format!("{} copies to {}, {}", set.source, set.target, set.policy);
    audit(engine, &what);
    Ok(json!({ "entries": entered }))
}

fn migration_set(engine: &Arc<Engine>, set: MigrationSet) -> Answer {
    check::policy(set.policy, true).map_err(bad)?;
    if (set.policy == MapPolicy::AfterDays) != set.days.is_some() {
        return Err(bad("`after days` takes the days, and no other policy does"));
    }
    let rule = MigrationRule {
        days: set.days,
        schedule: schedule(set.schedule.as_deref())?,
        verify: set.verify.unwrap_or(MigrationRule::default().verify),
    };
    let mut entered = Vec::new();
    let mut maps = Maps::read(engine).map_err(failed)?;
    for (source, named) in pairs(engine, (&set.source, &set.target), set.pool)? {
        let target = target(engine, named, &set.target)?;
        check::pair(engine, &maps, &source, &target).map_err(conflict)?;
        let mut entry = MigrationEntry::new(source.clone(), target.clone(), set.policy);
        entry.rule = rule.clone();
        engine.ground.catalogue.put_migration_entry(&entry).map_err(failed)?;
        entered.push(json!({ "source": source, "target": target }));
        maps.migrations.push((source, target));
    }
    audit(engine, &format!("{} migrates to {}, {}", set.source, set.target, set.policy));
    Ok(json!({ "entries": entered }))
}

/// The entries of the copy map that a call means: those of all its sources, and its targets if it
/// names them.
fn meant(engine: &Engine, which: &Which) -> Result<Vec<CopyEntry>, AdminFault> {
    let sources = names::read_tapes(engine, &which.source).map_err(bad)?;
    let targets = which.target.as_deref().map(|text| names::read_tapes(engine, text));
    let targets = targets.transpose().map_err(bad)?;
    let mut entries = engine.ground.catalogue.copy_entries().map_err(failed)?;
    entries.retain(|entry| {
        let named = |range: &TapeRange| range.contains(&entry.target_medium);
        sources.contains(&entry.source_medium) && targets.as_ref().is_none_or(named)
    });
    match entries.is_empty() {
        true => {
            let text = format!("no copy of {}; see: twinreel copy show", which.source);
            Err(AdminFault::new(FaultCode::NotFound, text))
        }
        false => Ok(entries),
    }
}

fn listed(entries: &[CopyEntry]) -> Value {
    let pair = |e: &CopyEntry| json!({ "source": e.source_medium, "target": e.target_medium });
    json!({ "entries": entries.iter().map(pair).collect::<Vec<_>>() })
}

fn copy_remove(engine: &Arc<Engine>, which: Which) -> Answer {
    let entries = meant(engine, &which)?;
    for entry in &entries {
        let (source, target) = (&entry.source_medium, &entry.target_medium);
        engine.ground.catalogue.remove_copy_entry(source, target).map_err(failed)?;
    }
    audit(engine, &format!("{} is copied by {} entries less", which.source, entries.len()));
    Ok(listed(&entries))
}

fn copy_run(engine: &Arc<Engine>, which: Which) -> Answer {
    let entries = meant(engine, &which)?;
    for entry in &entries {
        let (source, target) = (&entry.source_medium, &entry.target_medium);
        engine.ground.catalogue.ask_copy(source, target).map_err(failed)?;
    }
    Ok(listed(&entries))
}

fn migrations_meant(engine: &Engine, which: &Which) -> Result<Vec<MigrationEntry>, AdminFault> {
    let sources = names::read_tapes(engine, &which.source).map_err(bad)?;
    let mut entries = engine.ground.catalogue.migration_entries().map_err(failed)?;
    entries.retain(|entry| sources.contains(&entry.source_medium));
    match entries.is_empty() {
        true => {
            let text = format!("no migration of {}; see: twinreel migrate show", which.source);
            Err(AdminFault::new(FaultCode::NotFound, text))
        }
        false => Ok(entries),
    }
}

fn migration_remove(engine: &Arc<Engine>, which: Which) -> Answer {
    let entries = migrations_meant(engine, &which)?;
    for entry in &entries {
        let source = &entry.source_medium;
        engine.ground.catalogue.remove_migration_entry(source).map_err(failed)?;
    }
    audit(engine, &format!("{} is not migrated any more", which.source));
    Ok(json!({ "entries": entries.len() }))
}

fn migration_run(engine: &Arc<Engine>, which: Which) -> Answer {
    let entries = migrations_meant(engine, &which)?;
    for entry in &entries {
        engine.ground.catalogue.ask_migration(&entry.source_medium).map_err(failed)?;
    }
    Ok(json!({ "entries": entries.len() }))
}

fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Wait { status, why, until } => {
            json!({ "would": "wait", "status": status, "why": why, "until_ms": until })
        }
        Verdict::Copy { from, why } => json!({ "would": "copy", "from": from, "why": why }),
        Verdict::Switch { proven } => {
            let why = format!("the target is a current copy, proven by: {proven}");
            json!({ "would": "switch", "why": why })
        }
    }
}

/// What would happen if the tape were dismounted now, and why; nothing is done.
fn explain(engine: &Arc<Engine>, which: Which) -> Answer {
    let sources = names::read_tapes(engine, &which.source).map_err(bad)?;
    let (catalogue, now, desk) = (&engine.ground.catalogue, now(), engine.desk());
    let copies = catalogue.copy_entries().map_err(failed)?;
    let mut entries = Vec::new();
    let shown = |medium| names::show(engine, medium);
    for entry in copies.iter().filter(|entry| sources.contains(&entry.source_medium)) {
        let found = desk.judge_copy(entry, Source::Dismounted, &now).map_err(failed)?;
        entries.push(json!({
            "map": "copy", "source": shown(&entry.source_medium),
            "target": shown(&entry.target_medium), "policy": entry.policy,
            "verdict": verdict(&found),
        }));
    }
    let migrations = catalogue.migration_entries().map_err(failed)?;
    for entry in migrations.iter().filter(|entry| sources.contains(&entry.source_medium)) {
        let copy = copies.iter().find(|copy| {
            copy.source_medium == entry.source_medium
                && copy.target_medium == entry.migration_medium
        });
        let found = desk.judge_migration(entry, copy, Source::Dismounted, &now).map_err(failed)?;
        entries.push(json!({
            "map": "migration", "source": shown(&entry.source_medium),
            "target": shown(&entry.migration_medium), "policy": entry.policy,
            "verdict": verdict(&found),
        }));
    }
    Ok(json!({ "tape": which.source, "entries": entries }))
}

fn map_set(engine: &Arc<Engine>, set: MapSet) -> Answer {
    let device = |text: &str| names::read_device(engine, text).map_err(bad);
    let ranges = set.tapes.iter().map(|text| names::read_tapes(engine, text).map_err(bad));
    let entry = FrontendBackend {
        backend_device: device(&set.backend)?,
        frontend_device: set.frontend.as_deref().map(device).transpose()?,
        alternative_backend_device: None,
        backend_tapes: ranges.collect::<Result<_, _>>()?,
    };
    check::frontend(engine, &entry).map_err(conflict)?;
    engine.ground.catalogue.put_frontend_backend(&entry).map_err(failed)?;
    let before = set.frontend.as_deref().unwrap_or("no frontend");
    audit(engine, &format!("{before} stands before {} with {:?}", set.backend, set.tapes));
    engine.maps_changed();
    Ok(json!({ "entry": entry }))
}

fn map_remove(engine: &Arc<Engine>, which: Device) -> Answer {
    let device = names::read_device(engine, &which.device).map_err(bad)?;
    engine.ground.catalogue.remove_frontend_backend(&device).map_err(failed)?;
    audit(engine, &format!("{} is not mapped any more", which.device));
    engine.maps_changed();
    Ok(json!({ "device": device }))
}

/// Every drive that could stand behind a frontend, and which does.
fn backends(engine: &Engine) -> Value {
    let map = engine.ground.catalogue.frontend_backends().unwrap_or_default();
    let libraries = engine.ground.registry.libraries().into_iter();
    let lines = libraries.flat_map(|library| library.devices());
    let drives = lines.filter(|line| line.name.role != model::DeviceRole::Changer);
    let rows = drives.filter_map(|line| {
        let device = names::device_ref(engine, &line.name)?;
        let row = map.iter().find(|row| row.backend_device == device);
        let frontend = row.and_then(|row| row.frontend_device.as_ref());
        Some(json!({
            "drive": line.name, "device": device, "model": line.model, "frontend": frontend,
            "in_map": row.is_some(),
        }))
    });
    json!({ "backends": rows.collect::<Vec<_>>() })
}

fn pool_set(engine: &Arc<Engine>, set: PoolSet) -> Answer {
    let mut all = Vec::new();
    for text in &set.tapes {
        all.extend(tapes(engine, text)?);
    }
    let catalogue = &engine.ground.catalogue;
    match &set.pool {
        Some(pool) => catalogue.put_in_pool(pool, &all).map_err(failed)?,
        None => catalogue.take_out_of_pools(&all).map_err(failed)?,
    }
    audit(engine, &format!("pool {:?} and {:?}", set.pool, set.tapes));
    Ok(json!({ "media": all.len() }))
}
