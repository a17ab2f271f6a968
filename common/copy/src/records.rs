//! Rows for what the store holds: the store commits first, the catalogue follows.

use std::collections::BTreeSet;

use model::GenerationId;
use store::{OpenReport, Store};
use svs::{Catalogue, Generation, GenerationState, SvsError};

/// The catalogue row of a sealed generation; `number` counts the generations of the cartridge, also
/// those that were deleted.
///
/// # Errors
/// The catalogue can not be read.
pub fn generation_row(
    store: &Store,
    catalogue: &Catalogue,
    id: GenerationId,
) -> Result<Option<Generation>, SvsError> {
    let Some(info) = store.generation(id) else { return Ok(None) };
    let rows = catalogue.generations(info.cartridge)?;
    let number = match rows.iter().find(|row| row.id == id) {
        Some(row) => row.number,
        None => rows.iter().map(|row| row.number).max().unwrap_or(0) + 1,
    };
    Ok(Some(Generation {
        id,
        cartridge: info.cartridge,
        number,
        state: GenerationState::Sealed,
        records: info.objects - info.filemarks,
        filemarks: info.filemarks,
        logical_bytes: info.bytes,
        unique_bytes: info.unique_bytes,
    }))
}

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
            catalogue.put_generation(&Generation { state: GenerationState::Missing, ..row })?;
        }
    }
    for info in report.generations.iter().filter(|info| !known.contains(&info.id)) {
        match (catalogue.cartridge(info.cartridge)?, generation_row(store, catalogue, info.id)?) {
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
