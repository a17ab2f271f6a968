//! What a start does with what a stop or a crash left behind.

use svs::{Catalogue, SvsError};

pub use copy::match_catalogue;

/// Ends what the last run left under way: engine-owned jobs go back to pending, copies of a DMA
/// fail, since their sessions are gone.
pub fn end_old_jobs(catalogue: &Catalogue) -> Result<(), SvsError> {
    for job in catalogue.recover_after_restart("the engine was restarted during the job")? {
        tracing::warn!(job = %job.job.id, state = %job.state, "a job of the last run was found");
    }
    Ok(())
}
