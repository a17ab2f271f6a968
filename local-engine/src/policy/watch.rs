//! Writes and dismounts, noted for the maps.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use model::{Barcode, LibraryName};
use svs::{MapStatus, MediumRef, ReplicationState, SvsError};

use super::names;
use crate::copies::TapeAt;
use crate::device::Watch;
use crate::engine::{Engine, now_ms};

/// The watch of an engine.
pub(super) struct MapWatch(Weak<Engine>);

impl MapWatch {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        Self(Arc::downgrade(engine))
    }

    /// The medium of the maps that a drive's `LIBRARY/BARCODE` is.
    fn medium(&self, name: &str) -> Option<(Arc<Engine>, MediumRef)> {
        let engine = self.0.upgrade()?;
        let (library, barcode) = name.split_once('/')?;
        let tape = TapeAt {
            library: LibraryName::new(library).ok()?,
            barcode: Barcode::new(barcode).ok()?,
        };
        let medium = names::medium(&engine, &tape)?;
        Some((engine, medium))
    }
}

/// The source whose copy a write of this initiator is.
fn source_of(
    engine: &Engine,
    medium: &MediumRef,
    nexus: u64,
) -> Result<Option<MediumRef>, SvsError> {
    let Some(job) = engine.copies.job_of(nexus) else { return Ok(None) };
    let mut entries = engine.ground.catalogue.copy_entries()?.into_iter();
    let own = entries.find(|entry| entry.job == Some(job) && entry.target_medium == *medium);
    Ok(own.map(|entry| entry.source_medium))
}

impl Watch for MapWatch {
    fn orders(&self) -> u64 {
        self.0.upgrade().map_or(0, |engine| engine.policy.orders())
    }

    fn will_write(&self, medium: &str, object: u64, nexus: u64) -> Result<(), String> {
        let Some((engine, medium)) = self.medium(medium) else { return Ok(()) };
        let source = source_of(&engine, &medium, nexus).map_err(|error| error.to_string())?;
        let catalogue = &engine.ground.catalogue;
        catalogue
            .touch(&medium, object, source.as_ref(), now_ms())
            .map_err(|error| error.to_string())?;
        hold(&engine, &medium);
        Ok(())
    }

    fn written(&self, medium: &str, records: u64, bytes: u64) {
        let Some((engine, medium)) = self.medium(medium) else { return };
        let counted = engine.ground.catalogue.count_written(&medium, records, bytes);
        counted.unwrap_or_else(|error| tracing::warn!(%medium, %error, "writes are not counted"));
        engine.policy.ring();
    }

    fn full(&self, medium: &str) {
        let Some((engine, medium)) = self.medium(medium) else { return };
        let noted = engine.ground.catalogue.set_full(&medium);
        noted.unwrap_or_else(|error| tracing::warn!(%medium, %error, "an end is not noted"));
    }

    fn dismounted(&self, library: &LibraryName, tapes: &[Barcode]) {
        let Some(engine) = self.0.upgrade() else { return };
        engine.policy.ring();
        for barcode in tapes {
            let tape = TapeAt { library: library.clone(), barcode: barcode.clone() };
            if let Some(medium) = names::medium(&engine, &tape) {
                engine.wait_for_copies(&medium);
            }
        }
    }
}

/// Delays a write to the source of a copy whose entry locks it, until what is copied is at the
/// other site, at most as long as the entry says.
fn hold(engine: &Engine, medium: &MediumRef) {
    let catalogue = &engine.ground.catalogue;
    let locking = || -> Result<Vec<(u64, model::GenerationId)>, SvsError> {
        let mut found = Vec::new();
        for entry in catalogue.copies_of(medium)? {
            let locks = entry.rule.lock_source > 0 && entry.status == MapStatus::InProgress;
            let Some(job) = entry.job.filter(|_| locks) else { continue };
            if let Some(generation) = catalogue.job(job)?.and_then(|job| job.generation) {
                found.push((entry.rule.lock_source, generation));
            }
        }
        Ok(found)
    };
    let begin = Instant::now();
    let Some(longest) = locking().unwrap_or_default().iter().map(|(seconds, _)| *seconds).max()
    else {
        return;
    };
    let under_way = [ReplicationState::Pending, ReplicationState::InProgress];
    let released = engine.policy.wait(begin + Duration::from_secs(longest), || {
        let replicating = catalogue.replications(&under_way).unwrap_or_default();
        let held = locking().unwrap_or_default().into_iter().any(|(seconds, generation)| {
            seconds > begin.elapsed().as_secs()
                && replicating.iter().any(|row| row.generation == generation)
        });
        engine.is_stopping() || !held
    });
    if !released {
        tracing::warn!(%medium, longest, "a locked source is written: its time is up");
    }
}
