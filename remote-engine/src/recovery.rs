//! What a start does with what a stop or a crash left behind.

use store::{OpenReport, Store};
use svs::{Catalogue, JobState, ReplicationState, SvsError};

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
    // Transfers begin anew with their sender; none is under way now.
    for mut row in catalogue.replications(&[ReplicationState::InProgress])? {
        row.state = ReplicationState::Pending;
        row.message = Some("the engine was restarted".to_owned());
        catalogue.put_replication(&row)?;
    }
    Ok(())
}
