//! Digests of what a sealed generation consists of, to compare it with what another store holds
//! under the same name.

use model::Digest;
use sha2::{Digest as _, Sha256};

use crate::reader::Recipes;
use crate::{ChunkRef, Result, Store, StoreError};

/// How closely chunks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Whether the index knows where they are.
    Present,
    /// They are read, and have the digest that they are called by.
    Read,
}

/// How many of `count` chunks are in one of `parts` parts.
pub fn part(count: u64, parts: u64) -> u64 {
    count.div_ceil(parts.max(1)).max(1)
}

fn add(hash: &mut Sha256, chunk: &ChunkRef, is_here: bool) {
    hash.update(chunk.digest.as_bytes());
    hash.update(chunk.len.to_le_bytes());
    hash.update([u8::from(is_here)]);
}

/// What [`Store::digests`] tells of a part that is this chunk alone.
pub fn chunk_digest(chunk: &ChunkRef, is_here: bool) -> Digest {
    let mut hash = Sha256::new();
    add(&mut hash, chunk, is_here);
    Digest(hash.finalize().into())
}

impl Recipes {
    /// A digest over everything that the generation is: names and lengths of its chunks and its
    /// runs of objects, in order. Equal at two sites exactly if they hold the same bytes, records
    /// and filemarks. Reads the lists, not the chunks.
    pub fn digest(&self) -> Result<Digest> {
        let mut hash = Sha256::new_with_prefix(b"twinreel generation 1");
        for chunk in self.chunks(0) {
            let chunk = chunk?;
            hash.update(chunk.digest.as_bytes());
            hash.update(chunk.len.to_le_bytes());
        }
        hash.update(self.info().chunks.to_le_bytes());
        hash.update(self.runs_digest()?.as_bytes());
        Ok(Digest(hash.finalize().into()))
    }

    /// A digest over records and filemarks: their lengths and order, however they are listed.
    pub fn runs_digest(&self) -> Result<Digest> {
        let mut hash = Sha256::new_with_prefix(b"twinreel objects 1");
        let mut add = |(size, count): (u32, u64)| {
            hash.update(size.to_le_bytes());
            hash.update(count.to_le_bytes());
        };
        let mut last: Option<(u32, u64)> = None;
        for run in self.runs(0) {
            let run = run?;
            match &mut last {
                Some((size, count)) if *size == run.size() => *count += run.count(),
                _ => last.replace((run.size(), run.count())).into_iter().for_each(&mut add),
            }
        }
        last.into_iter().for_each(add);
        Ok(Digest(hash.finalize().into()))
    }
}

impl Store {
    /// A digest for each of `parts` equal parts of the `count` chunks from `first` on, the last one
    /// shorter, over what this store really has of them. A chunk that is not here, or of another
    /// length or with [`Depth::Read`] of other bytes, changes the digest of its part. What is
    /// beyond the end does not: tell how long the list is beside it.
    ///
    /// # Errors
    /// The list can not be read, or chunks could not be looked up.
    pub fn digests(
        &self,
        lists: &Recipes,
        (first, count): (u64, u64),
        parts: u64,
        depth: Depth,
    ) -> Result<Vec<Digest>> {
        let step = part(count, parts);
        let end = first.saturating_add(count);
        let mut digests = Vec::new();
        let mut from = first;
        while from < end {
            let to = from.saturating_add(step).min(end);
            let mut hash = Sha256::new();
            for chunk in lists.chunks(from).take((to - from) as usize) {
                let chunk = chunk?;
                add(&mut hash, &chunk, self.has(&chunk, depth)?);
            }
            digests.push(Digest(hash.finalize().into()));
            from = to;
        }
        Ok(digests)
    }

    /// Whether a chunk is here, as far as was looked.
    fn has(&self, chunk: &ChunkRef, depth: Depth) -> Result<bool> {
        let known = self.0.containers.lookup(&chunk.digest)?;
        if known.is_none_or(|at| at.raw_len != chunk.len) {
            return Ok(false);
        }
        if depth == Depth::Present {
            return Ok(true);
        }
        match self.chunk(&chunk.digest) {
            Ok(_) => Ok(true),
            // Bytes that the disk does not give are not held either.
            Err(error) if error.is_damage() || matches!(error, StoreError::Vfs(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
