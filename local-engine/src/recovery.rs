//! What a start does with what a stop or a crash left behind.

use std::collections::BTreeSet;

use model::GenerationId;
use store::{OpenReport, Store};
use svs::{Catalogue, GenerationState, SvsError};

use crate::library::generation_row;

/// Brings the catalogue in line with the store, which commits first: a recipe without a row is
/// adopted if its cartridge is known, a row without its recipe is marked missing.
pub fn match_catalogue(
    store: &Store,
    report: &OpenReport,
    catalogue: &Catalogue,
) -> Result<(), SvsError> {
    for damage in &report.damage {
        tracing::warn!(?damage, "the store found something that is not as it was written");
    }
    let rows = catalogue.all_generations()?;
    let sealed: BTreeSet<GenerationId> = report.generations.iter().map(|info| info.id).collect();
    let known: BTreeSet<GenerationId> =
        rows.iter().filter(|row| row.state == GenerationState::Sealed).map(|row| row.id).collect();
    for row in rows {
        if row.state == GenerationState::Sealed && !sealed.contains(&row.id) {
            tracing::error!(generation = %row.id, "the store has no recipe for this generation");
            catalogue
                .put_generation(&svs::Generation { state: GenerationState::Missing, ..row })?;
        }
    }
    for info in report.generations.iter().filter(|info| !known.contains(&info.id)) {
        match (catalogue.cartridge(info.cartridge)?, generation_row(store, info.id)) {
            (Some(_), Some(row)) => {
                catalogue.put_generation(&row)?;
                tracing::warn!(generation = %info.id, "a generation without a row was adopted");
            }
            _ => tracing::warn!(
                generation = %info.id,
                cartridge = %info.cartridge,
                "a generation of an unknown cartridge is in the store"
            ),
        }
    }
    Ok(())
}

/// Ends what the last run left under way: engine-owned jobs go back to pending, copies of a DMA
/// fail, since their sessions are gone.
pub fn end_old_jobs(catalogue: &Catalogue) -> Result<(), SvsError> {
    for job in catalogue.recover_after_restart("the engine was restarted during the job")? {
        tracing::warn!(job = %job.job.id, state = %job.state, "a job of the last run was found");
    }
    Ok(())
}
