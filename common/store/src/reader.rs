//! Sealed generations, read: as a tape ([`GenerationReader`]) or as lists ([`Recipes`]).

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use model::GenerationId;

use crate::recipe::{Recipe, layout_of};
use crate::reel::Reel;
use crate::store::{Inner, Pin};
use crate::{ChunkRef, GenerationInfo, ObjectRun, Place, Result};

/// A sealed generation, read; see [`Reel`] for moving and reading. Every chunk's SHA-256 is
/// verified. Keeps the generation pinned.
pub struct GenerationReader {
    reel: Reel,
    info: GenerationInfo,
    pin: Pin,
}

impl Deref for GenerationReader {
    type Target = Reel;
    fn deref(&self) -> &Reel {
        &self.reel
    }
}

impl DerefMut for GenerationReader {
    fn deref_mut(&mut self) -> &mut Reel {
        &mut self.reel
    }
}

impl std::fmt::Debug for GenerationReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationReader").field("id", &self.info.id).finish_non_exhaustive()
    }
}

impl GenerationReader {
    pub(crate) fn open(inner: &Arc<Inner>, id: GenerationId) -> Result<Self> {
        let (recipe, pin) = inner.recipe(id)?;
        let layout = layout_of(Some(&recipe), inner.params(), &inner.scratch);
        Ok(Self { reel: Reel::new(inner.clone(), layout), info: recipe.info, pin })
    }

    /// What is read.
    pub fn info(&self) -> &GenerationInfo {
        &self.info
    }

    /// The pin that keeps it; clone it to keep the generation longer than the reader.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Reads everything, and so verifies every checksum and that the lists add up to what the
    /// header says. Returns the bytes read. Does not move the current place.
    pub fn verify(&mut self) -> Result<u64> {
        let Reel { layout, ahead, .. } = &mut self.reel;
        let mut buffer = vec![0; 1 << 20];
        let mut byte = 0;
        while byte < self.info.bytes {
            let len = buffer.len().min((self.info.bytes - byte) as usize);
            ahead.read(layout, byte, &mut buffer[..len])?;
            byte += len as u64;
        }
        let mut end = Place::default();
        for index in 0..layout.segments.len() {
            let segment = layout.segments.get(index)?;
            if segment.place(0) != end {
                return Err(layout.damaged("its object map has a gap"));
            }
            end = segment.end();
        }
        match end == layout.end {
            true => Ok(byte),
            false => Err(layout.damaged("its object map is shorter or longer than it says")),
        }
    }
}

/// The lists of a sealed generation. Keeps it pinned.
pub struct Recipes {
    recipe: Recipe,
    _pin: Pin,
}

impl std::fmt::Debug for Recipes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipes").field("id", &self.recipe.info.id).finish_non_exhaustive()
    }
}

impl Recipes {
    pub(crate) fn open(inner: &Arc<Inner>, id: GenerationId) -> Result<Self> {
        let (recipe, pin) = inner.recipe(id)?;
        Ok(Self { recipe, _pin: pin })
    }

    /// Whose lists these are.
    pub fn info(&self) -> &GenerationInfo {
        &self.recipe.info
    }

    /// Chunk `index` of [`GenerationInfo::chunks`], `None` beyond them.
    pub fn chunk(&self, index: u64) -> Result<Option<ChunkRef>> {
        match index < self.recipe.chunks.len() {
            true => Ok(Some(self.recipe.chunks.get(index)?.chunk)),
            false => Ok(None),
        }
    }

    /// The chunks from `first` on, in the order of the byte stream.
    pub fn chunks(&self, first: u64) -> impl Iterator<Item = Result<ChunkRef>> + '_ {
        let all = first..self.recipe.chunks.len();
        all.map(|index| Ok(self.recipe.chunks.get(index)?.chunk))
    }

    /// How many runs of objects there are.
    pub fn runs_len(&self) -> u64 {
        self.recipe.segments.len()
    }

    /// The runs of objects from run `first` on.
    pub fn runs(&self, first: u64) -> impl Iterator<Item = Result<ObjectRun>> + '_ {
        let all = first..self.recipe.segments.len();
        all.map(|index| Ok(self.recipe.segments.get(index)?.run))
    }
}
