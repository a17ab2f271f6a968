//! Answers to the command line about the mount queue and import/export stations.

use std::sync::Arc;

use model::{Barcode, JobId, LibraryName};
use serde_json::{Value, json};
use service::admin::{AdminFault, FaultCode};
use svs::MountPriority;

use super::Door;
use crate::admin::{bad, conflict, text};
use crate::engine::Engine;

/// Whether a method is answered here.
pub fn is_ours(method: &str) -> bool {
    const OURS: [&str; 4] = ["queue_cancel", "queue_priority", "library_export", "library_import"];
    OURS.contains(&method)
}

/// Answers it. Blocks on the catalogue.
///
/// # Errors
/// Why it can not be done.
pub fn call(engine: &Arc<Engine>, method: &str, params: &Value) -> Result<Value, AdminFault> {
    if method.starts_with("library_") {
        return door(engine, method, params);
    }
    let job = job(engine, params)?;
    match method {
        "queue_cancel" => match engine.end_copy(job) {
            true => Ok(json!({ "job": job })),
            false => Err(conflict(format!("job {job} does not run or wait here"))),
        },
        "queue_priority" => {
            let priority: MountPriority = text(params, "priority")?
                .parse()
                .map_err(|_| bad("write restore, copy, policy, migration or verify".to_owned()))?;
            let registry = &engine.ground.registry;
            match registry.mounts().set_priority(registry, job, priority) {
                true => Ok(json!({ "job": job, "priority": priority })),
                false => Err(conflict(format!("job {job} does not wait for a drive"))),
            }
        }
        other => Err(bad(format!("no method {other:?}"))),
    }
}

/// Cartridges through the import/export station.
fn door(engine: &Engine, method: &str, params: &Value) -> Result<Value, AdminFault> {
    let library = LibraryName::new(text(params, "library")?).map_err(|e| bad(e.to_string()))?;
    let barcode = params.get("barcode").and_then(Value::as_str).map(Barcode::new).transpose();
    let barcode = barcode.map_err(|error| bad(error.to_string()))?;
    let mut door = Door::open(engine, &library).map_err(conflict)?;
    let moved = match (method, &barcode) {
        ("library_export", Some(barcode)) => vec![door.export(barcode).map_err(conflict)?],
        ("library_export", None) => return Err(bad("\"barcode\" is missing".to_owned())),
        _ => door.import(barcode.as_ref()).map_err(conflict)?,
    };
    Ok(json!(moved))
}

/// A job by its id, or by its number in the queue.
fn job(engine: &Engine, params: &Value) -> Result<JobId, AdminFault> {
    let named = text(params, "job")?;
    if let Ok(job) = named.parse() {
        return Ok(job);
    }
    let ticket = named.parse().map_err(|_| bad(format!("{named:?} is no job and no number")))?;
    let job = engine.ground.registry.mounts().job_of(ticket);
    let text =
        format!("number {named} of the queue is no job; a host that mounts a tape ends by itself");
    job.ok_or_else(|| AdminFault::new(FaultCode::NotFound, text))
}
