//! Which generations are kept.

use std::collections::{BTreeMap, BTreeSet};

use model::{CartridgeId, GenerationId};
use store::{GenerationInfo, Store, StoreError};
use svs::{Catalogue, ReplicationState, SvsError};

/// How long generations are kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The newest of each cartridge, at least 1.
    pub newest: usize,
    /// Others until they are so old, in milliseconds.
    pub younger_than_ms: u64,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// The catalogue could not be read or written.
    #[error(transparent)]
    Catalogue(#[from] SvsError),
    /// The store could not delete.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Generations that [`Keep`] does not want, oldest first. What an unfinished job names, and what is
/// being replicated or is the base of that, or locked, is wanted.
fn unwanted(
    all: Vec<GenerationInfo>,
    keep: Keep,
    now_ms: u64,
    wanted: &BTreeSet<GenerationId>,
) -> Vec<GenerationId> {
    let mut cartridges: BTreeMap<CartridgeId, Vec<GenerationInfo>> = BTreeMap::new();
    for info in all {
        cartridges.entry(info.cartridge).or_default().push(info);
    }
    let old = |info: &&GenerationInfo| {
        now_ms.saturating_sub(info.created_ms) >= keep.younger_than_ms && !wanted.contains(&info.id)
    };
    let superseded = cartridges.values().flat_map(|generations| {
        let rest = generations.len().saturating_sub(keep.newest.max(1));
        generations[..rest].iter().filter(old).map(|info| info.id)
    });
    superseded.collect()
}

/// Deletes the generations that are not to be kept, with their rows. How many those were.
///
/// # Errors
/// The first one that could not be deleted.
pub fn retire(
    store: &Store,
    catalogue: &Catalogue,
    keep: Keep,
    now_ms: u64,
) -> Result<usize, RetireError> {
    // What is sealed behind this look is newest, and so kept.
    let all = store.all_generations();
    let wanted = wanted(store, catalogue)?;
    delete(store, catalogue, unwanted(all, keep, now_ms, &wanted))
}

/// Deletes all but the newest generation of a cartridge, with their rows, as far as nothing needs
/// them. How many those were.
///
/// # Errors
/// The first one that could not be deleted.
pub fn retire_superseded(
    store: &Store,
    catalogue: &Catalogue,
    cartridge: CartridgeId,
) -> Result<usize, RetireError> {
    let all = store.generations(cartridge);
    let keep = Keep { newest: 1, younger_than_ms: 0 };
    let wanted = wanted(store, catalogue)?;
    delete(store, catalogue, unwanted(all, keep, u64::MAX, &wanted))
}

/// What replications and jobs need, and what is locked.
fn wanted(store: &Store, catalogue: &Catalogue) -> Result<BTreeSet<GenerationId>, RetireError> {
    let mut wanted = BTreeSet::new();
    let under_way = [ReplicationState::Pending, ReplicationState::InProgress];
    for row in catalogue.replications(&under_way)? {
        wanted.insert(row.generation);
        let parent = store.generation(row.generation).and_then(|info| info.parent);
        wanted.extend(parent);
    }
    // Of what is locked not even the rows are touched.
    let all = store.all_generations().into_iter();
    wanted.extend(all.filter(|info| store.is_locked(info.cartridge)).map(|info| info.id));
    let jobs = catalogue.unfinished_jobs(None)?;
    wanted.extend(jobs.iter().filter_map(|job| job.generation));
    Ok(wanted)
}

fn delete(
    store: &Store,
    catalogue: &Catalogue,
    ids: Vec<GenerationId>,
) -> Result<usize, RetireError> {
    let mut deleted = 0;
    for id in ids {
        // The row first: one without its recipe would look like a loss.
        let row = catalogue.generation(id)?;
        if row.is_some() {
            catalogue.remove_generation(id)?;
        }
        match (store.delete_generation(id), row) {
            (Ok(()), _) => deleted += 1,
            (Err(StoreError::NoGeneration(_)), _) => {}
            (Err(error), row) => {
                row.map_or(Ok(()), |row| catalogue.put_generation(&row))?;
                if !matches!(error, StoreError::Pinned(_) | StoreError::Retained { .. }) {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use model::Ulid;

    use super::*;

    fn generation(number: u64, cartridge: u64, created_ms: u64) -> GenerationInfo {
        GenerationInfo {
            id: GenerationId(Ulid::from_parts(number, 0)),
            cartridge: CartridgeId(Ulid::from_parts(cartridge, 1)),
            parent: None,
            created_ms,
            objects: 0,
            filemarks: 0,
            bytes: 0,
            chunks: 0,
            unique_bytes: 0,
            stored_bytes: 0,
        }
    }

    #[test]
    fn the_newest_the_young_and_the_wanted_are_kept() {
        let all: Vec<_> = (1..=6).map(|n| generation(n, n % 2, n * 100)).collect();
        let id = |n: u64| all[n as usize - 1].id;
        let unwanted = |newest, younger_than_ms, wanted: &[u64]| -> Vec<u64> {
            let wanted = wanted.iter().map(|n| id(*n)).collect();
            let keep = Keep { newest, younger_than_ms };
            let mut found: Vec<_> = unwanted(all.clone(), keep, 1000, &wanted)
                .iter()
                .map(|found| (1..=6).find(|n| id(*n) == *found).unwrap())
                .collect();
            found.sort_unstable();
            found
        };
        // Cartridge 1 has 1, 3, 5 and cartridge 0 has 2, 4, 6.
        for (newest, young, wanted, expected) in [
            (1, 0, &[][..], &[1, 2, 3, 4][..]),
            (0, 0, &[], &[1, 2, 3, 4]),
            (2, 0, &[], &[1, 2]),
            (3, 0, &[], &[]),
            (1, 700, &[], &[1, 2, 3]),
            (1, 901, &[], &[]),
            (1, 0, &[1, 4], &[2, 3]),
        ] {
            assert_eq!(unwanted(newest, young, wanted), expected, "{newest} {young} {wanted:?}");
        }
    }
}
