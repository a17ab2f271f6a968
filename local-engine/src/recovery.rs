//! What a start does with what a stop or a crash left behind.

use copy::generation_row;
use service::messages;
use store::{Store, StoreError};
use svs::{Catalogue, EventKind, JobState, SvsError};

pub use copy::match_catalogue;

/// Ends what the last run left under way: engine-owned jobs go back to pending, copies of a DMA
/// fail, since their sessions are gone.
pub fn end_old_jobs(catalogue: &Catalogue) -> Result<(), SvsError> {
    let found = catalogue.recover_after_restart("the engine was restarted during the job")?;
    for job in &found {
        tracing::info!(job = %job.job.id, state = %job.state, "a job of the last run was found");
    }
    let failed = found.iter().filter(|job| job.state == JobState::Failed).count();
    let resumed = found.len() - failed;
    if resumed + failed > 0 {
        let words: [(&str, &dyn std::fmt::Display); 2] =
            [("resumed", &resumed), ("failed", &failed)];
        messages::note(catalogue, EventKind::Engine, messages::ENGINE_RECOVERED, &words, None);
    }
    Ok(())
}

/// Seals what was flushed to cartridges that are in no drive (any more): a generation that a crash
/// left open, and whose drive the configuration has taken away, would stay out of reach of copies
/// and replication. What is in a drive is gone on with there. To be called when drives are loaded.
///
/// # Errors
/// The catalogue can not be read or written. A cartridge that can not be opened is told in the
/// log, since the others are none the worse for it.
pub fn seal_abandoned(store: &Store, catalogue: &Catalogue) -> Result<(), SvsError> {
    for row in catalogue.cartridge_status()? {
        if store.open_generation(row.cartridge).is_none() {
            continue;
        }
        let sealed = store.image(row.cartridge).and_then(|mut image| image.seal());
        match sealed {
            Ok(Some(generation)) => {
                let found = generation_row(store, catalogue, generation)?;
                found.map_or(Ok(()), |found| catalogue.put_generation(&found))?;
                let cartridge = row.cartridge;
                tracing::info!(%generation, %cartridge, "an open generation was sealed");
            }
            Ok(None) | Err(StoreError::InUse(_)) => {}
            Err(error) => {
                let cartridge = row.cartridge;
                tracing::error!(%cartridge, %error, "an open generation can not be sealed");
            }
        }
    }
    Ok(())
}
