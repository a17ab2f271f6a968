//! What a start does with what a stop or a crash left behind.

use copy::generation_row;
use model::SiteName;
use service::messages;
use store::{Store, StoreError};
use svs::{Catalogue, Ending, EventKind, JobKind, JobState, ReplicationState, SvsError, Verified};

pub use copy::match_catalogue;

/// Ends what the last run left under way: engine-owned jobs go back to pending, copies of a DMA
/// fail, since their sessions are gone.
pub fn end_old_jobs(catalogue: &Catalogue) -> Result<(), SvsError> {
    let found = catalogue.recover_after_restart("the engine was restarted during the job")?;
    for job in &found {
        tracing::info!(job = %job.job.id, state = %job.state, "a job of the last run was found");
    }
    let ended = end_replications(catalogue)?;
    let failed = found.iter().filter(|job| job.state == JobState::Failed).count();
    let resumed = found.len().saturating_sub(failed + ended);
    if resumed + failed > 0 {
        let words: [(&str, &dyn std::fmt::Display); 2] =
            [("resumed", &resumed), ("failed", &failed)];
        messages::note(catalogue, EventKind::Engine, messages::ENGINE_RECOVERED, &words, None);
    }
    Ok(())
}

/// Ends the jobs of replications that nobody will resume: what is resumed is what the row of a
/// generation says, and it is written after its job is made and before its job ends. Returns how
/// many there were.
fn end_replications(catalogue: &Catalogue) -> Result<usize, SvsError> {
    let mut ended = 0;
    for job in catalogue.unfinished_jobs(Some(JobKind::Replication))? {
        let (Some(generation), Ok(site)) = (job.generation, SiteName::new(&job.target)) else {
            continue;
        };
        let row = catalogue.replication(generation, &site)?;
        let ending = match row.filter(|row| row.job == Some(job.id)) {
            None => Ending::cancelled("the engine ended before it was noted"),
            Some(row) => match row.state {
                ReplicationState::Done => Ending::done(row.bytes_logical, Verified::None),
                ReplicationState::Failed => Ending::failed(row.message.unwrap_or_default()),
                ReplicationState::Pending | ReplicationState::InProgress => continue,
            },
        };
        catalogue.transition(job.id, JobState::InProgress, None)?;
        catalogue.finish(job.id, &ending)?;
        ended += 1;
    }
    Ok(ended)
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

#[cfg(test)]
mod tests {
    use model::{Barcode, CartridgeId, GenerationId, JobId, LibraryName, Ulid};
    use svs::{Cartridge, Generation, GenerationState, JobOwner, NewJob, Replication};

    use super::*;

    fn sealed(id: GenerationId, cartridge: CartridgeId, number: u64) -> Generation {
        Generation {
            id,
            cartridge,
            number,
            state: GenerationState::Sealed,
            records: 0,
            filemarks: 0,
            logical_bytes: 7,
            unique_bytes: 0,
        }
    }

    /// The engine ended between the row of a generation and its job, at either end.
    #[test]
    fn a_replication_that_nobody_resumes_is_not_left_pending() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&dir.path().join("svs.db")).unwrap();
        let site = SiteName::new("dr").unwrap();
        let states = [
            (Some(ReplicationState::Done), JobState::Done),
            (Some(ReplicationState::Failed), JobState::Failed),
            (Some(ReplicationState::Pending), JobState::Pending),
            (Some(ReplicationState::InProgress), JobState::Pending),
            (None, JobState::Cancelled),
        ];
        let cartridge = Cartridge {
            id: CartridgeId(Ulid(1)),
            site: SiteName::new("hq").unwrap(),
            library: LibraryName::new("vtl0").unwrap(),
            barcode: Barcode::new("VTA001L8").unwrap(),
            capacity: 1,
            write_protected: false,
            element: None,
            home: None,
        };
        catalogue.put_cartridge(&cartridge).unwrap();
        let mut jobs = Vec::new();
        for (number, (state, after)) in (1..).zip(states) {
            let (generation, id) = (GenerationId(Ulid(number)), JobId(Ulid(100 + number)));
            catalogue.put_generation(&sealed(generation, cartridge.id, number as u64)).unwrap();
            let ends = ("vtl0/VTA001L8".to_owned(), site.to_string());
            let mut job =
                NewJob::new(id, JobKind::Replication, JobOwner::Engine, ends, "test".to_owned());
            job.generation = Some(generation);
            catalogue.create_job(&job).unwrap();
            catalogue.transition(id, JobState::InProgress, None).unwrap();
            jobs.push((id, after));
            let Some(state) = state else { continue };
            let row = Replication {
                generation,
                site: site.clone(),
                state,
                job: Some(id),
                bytes_logical: 7,
                bytes_unique: 0,
                bytes_wire: 0,
                message: Some("no room".to_owned()),
            };
            catalogue.put_replication(&row).unwrap();
        }
        end_old_jobs(&catalogue).unwrap();
        for (id, after) in jobs {
            let job = catalogue.job(id).unwrap().unwrap();
            assert_eq!(job.state, after);
        }
    }
}
