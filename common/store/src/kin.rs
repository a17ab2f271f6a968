//! Which generations are alike: by sketches of their beginnings.
//!
//! A sketch is the smallest of the keys of a generation's first chunks, so that two generations
//! with so many chunks in common have as large a part of their sketches in common, wherever the
//! chunks lie. It is made once while the store is open, from a few pages of a recipe.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::GenerationId;

use crate::compare::key;
use crate::follow::{Lists, Standing};
use crate::store::Inner;
use crate::{Result, Store};

/// Chunks at the beginning that are looked at: 64 MiB by default.
const BEGINNING: u64 = 4096;
/// Keys of a sketch.
const KEYS: usize = 128;
/// Sketches that are kept: half a MiB of them.
const KEPT: usize = 512;

/// Keys, ascending.
type Sketch = Arc<[u64]>;

/// The sketches made so far.
#[derive(Default)]
pub(crate) struct Sketches(Mutex<BTreeMap<GenerationId, Sketch>>);

impl Sketches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GenerationId, Sketch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, inner: &Arc<Inner>, id: GenerationId) -> Result<Sketch> {
        if let Some(sketch) = self.lock().get(&id) {
            return Ok(sketch.clone());
        }
        let mut lists = Lists::open(inner, id)?;
        let (standing, ..) = lists.advance()?;
        let list = &lists.layout.chunks;
        let chunks = 0..list.len().min(BEGINNING);
        let keys = chunks.map(|index| Ok(key(&list.get(index)?.chunk.digest)));
        let mut keys = keys.collect::<Result<Vec<_>>>()?;
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(KEYS);
        let sketch: Sketch = keys.into();
        if standing == Standing::Open && list.len() < BEGINNING {
            return Ok(sketch);
        }
        let mut known = self.lock();
        if known.len() >= KEPT {
            // The oldest is the least likely to be asked for again.
            known.pop_first();
        }
        known.insert(id, sketch.clone());
        Ok(sketch)
    }
}

/// How many of the smallest keys of both are in both.
fn shared(a: &[u64], b: &[u64]) -> usize {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut count = 0;
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let order = x.cmp(y);
        count += usize::from(order.is_eq());
        if order.is_le() {
            a.next();
        }
        if order.is_ge() {
            b.next();
        }
    }
    count
}

impl Store {
    /// Those of `among` that begin like `generation`, the most alike first; of those that are as
    /// much alike the one that stands first. Only the first 512 are looked at, and what can not be
    /// read is left out.
    pub fn most_alike(
        &self,
        generation: GenerationId,
        among: &[GenerationId],
    ) -> Result<Vec<GenerationId>> {
        let sketches = &self.0.sketches;
        let own = sketches.of(&self.0, generation)?;
        let others = among.iter().filter(|id| **id != generation).take(KEPT - 1);
        let mut alike: Vec<_> = others
            .filter_map(|id| Some((shared(&own, &sketches.of(&self.0, *id).ok()?), *id)))
            // One in sixteen is more than chance and less than nothing to gain.
            .filter(|(count, _)| count * 16 > own.len())
            .collect();
        alike.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        Ok(alike.into_iter().map(|(_, id)| id).collect())
    }
}
