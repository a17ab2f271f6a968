//! Answers about the mount queue to the command line.

use std::sync::Arc;

use model::JobId;
use serde_json::{Value, json};
use service::admin::{AdminFault, FaultCode};
use svs::MountPriority;

use crate::engine::Engine;

/// Whether a method is answered here.
pub fn is_ours(method: &str) -> bool {
    matches!(method, "queue_cancel" | "queue_priority")
}

/// Answers it. Blocks on the catalogue.
///
/// # Errors
/// Why it can not be done.
pub fn call(engine: &Arc<Engine>, method: &str, params: &Value) -> Result<Value, AdminFault> {
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

fn bad(text: String) -> AdminFault {
    AdminFault::new(FaultCode::BadRequest, text)
}

fn conflict(text: String) -> AdminFault {
    AdminFault::new(FaultCode::Conflict, text)
}

fn text<'a>(params: &'a Value, key: &str) -> Result<&'a str, AdminFault> {
    let missing = || bad(format!("{key:?} is missing"));
    params.get(key).and_then(Value::as_str).ok_or_else(missing)
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
