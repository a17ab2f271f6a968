//! What a start does with what a stop or a crash left behind.

use model::GenerationId;
use store::{GenerationInfo, OpenReport, Store};
use svs::{
    Catalogue, Ending, Job, JobKind, JobState, Replication, ReplicationState, SvsError, Verified,
};

use crate::jobs::Jobs;

/// Matches rows with the store, and ends or resumes the jobs of the last run. Leases come later:
/// copies that have none any more are ended then.
///
/// # Errors
/// The catalogue can not be read or written.
pub fn recover(
    store: &Store,
    report: &OpenReport,
    catalogue: &Catalogue,
    jobs: &Jobs,
) -> Result<(), SvsError> {
    copy::match_catalogue(store, report, catalogue)?;
    for found in catalogue.recover_after_restart("the engine was restarted during the job")? {
        let (job, state) = (found.job.id, found.state);
        tracing::warn!(%job, %state, "a job of the last run was found");
        if found.job.state == JobState::PausedEom {
            jobs.waited(found.job.id);
        }
    }
    for job in catalogue.unfinished_jobs(Some(JobKind::Replication))? {
        let generation = job.resume.as_deref().and_then(|id| id.parse::<GenerationId>().ok());
        if let Some(info) = generation.and_then(|id| store.generation(id)) {
            arrived(catalogue, &job, &info)?;
        }
    }
    // Transfers begin anew with their sender; none is under way now.
    for mut row in catalogue.replications(&[ReplicationState::InProgress])? {
        row.state = ReplicationState::Pending;
        row.message = Some("the engine was restarted".to_owned());
        catalogue.put_replication(&row)?;
    }
    Ok(())
}

/// The store had committed a generation when the engine ended; its rows follow.
fn arrived(catalogue: &Catalogue, job: &Job, info: &GenerationInfo) -> Result<(), SvsError> {
    let known = catalogue.generation(info.id)?;
    if let (Some(row), Some(cartridge)) = (known, catalogue.cartridge(info.cartridge)?)
        && catalogue.replication(info.id, &cartridge.site)?.is_none()
    {
        catalogue.put_replication(&Replication {
            generation: info.id,
            site: cartridge.site,
            state: ReplicationState::Done,
            job: Some(job.id),
            bytes_logical: info.bytes,
            bytes_unique: row.unique_bytes,
            bytes_wire: 0,
            message: None,
        })?;
    }
    catalogue.transition(job.id, JobState::InProgress, None)?;
    catalogue.finish(job.id, &Ending::done(info.bytes, Verified::Readback))
}
