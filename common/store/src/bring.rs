//! Bringing a generation from another store that is open in this process: the one on a disk that
//! is shipped.

use std::collections::BTreeSet;

use model::GenerationId;

use crate::{Import, Store, StoreError};

/// So many files are named as damaged.
const NAMED: usize = 100;
/// `pace` is called each time that so many bytes of chunks were looked at.
const STEP: u64 = 4 << 20;

/// What came of bringing the chunks of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Chunks that were new.
    pub chunks: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Chunks that could not be read over there, and are not here.
    pub lacking: u64,
    /// Why, each cause once: the files with what is wrong with them.
    pub damage: BTreeSet<String>,
}

/// Why bringing ended early.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// The lists of the generation can not be read over there.
    #[error(transparent)]
    There(StoreError),
    /// This store can not be written, or what the lists say can not be.
    #[error(transparent)]
    Here(StoreError),
    /// `pace` said so.
    #[error("it was stopped")]
    Stopped,
}

impl Store {
    /// Begins to take over `id` from another store, and puts every chunk of it that can be read
    /// there and is not here. Nothing of the other store is believed: a chunk has the digest that
    /// it is called by or is not put. Where nothing lacks, [`Import::commit`] makes the generation
    /// exist; else what lacks ([`Import::missing`]) may come from elsewhere before that.
    ///
    /// `pace` is called with the bytes that were looked at since the last time; it may wait, and
    /// ends everything when it says false. What was put stays for the next time.
    ///
    /// # Errors
    /// [`BringError`]; a chunk that can not be read there is none.
    pub fn bring(
        &self,
        other: &Store,
        id: GenerationId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Import, Brought), BringError> {
        let lists = other.recipe(id).map_err(BringError::There)?;
        let mut import = self.import(*lists.info()).map_err(BringError::Here)?;
        let (mut brought, mut looked) = (Brought::default(), 0);
        for chunk in lists.chunks(0) {
            let chunk = chunk.map_err(BringError::There)?;
            import.append_chunk(chunk).map_err(BringError::Here)?;
            if self.missing(&[chunk.digest])[0] {
                self.bring_chunk(other, &chunk.digest, &mut brought)?;
            }
            looked += u64::from(chunk.len);
            if looked >= STEP && !pace(std::mem::take(&mut looked)) {
                return Err(BringError::Stopped);
            }
        }
        for run in lists.runs(0) {
            let run = run.map_err(BringError::There)?;
            import.append_objects(run).map_err(BringError::Here)?;
        }
        match pace(looked) {
            true => Ok((import, brought)),
            false => Err(BringError::Stopped),
        }
    }

    fn bring_chunk(
        &self,
        other: &Store,
        digest: &model::Digest,
        brought: &mut Brought,
    ) -> Result<(), BringError> {
        let put = other.stored_chunk(digest).map(|chunk| {
            let length = chunk.bytes.len() as u64;
            let put = self.put_stored_chunk(digest, chunk.encoding, chunk.raw_len, &chunk.bytes);
            put.map(|new| (new, length))
        });
        match put {
            Ok(Ok((new, length))) => {
                brought.chunks += u64::from(new);
                brought.bytes += if new { length } else { 0 };
            }
            Err(cause) | Ok(Err(cause @ StoreError::WrongChunk { .. })) => {
                brought.lacking += 1;
                if brought.damage.len() < NAMED {
                    brought.damage.insert(cause.to_string());
                }
            }
            Ok(Err(error)) => return Err(BringError::Here(error)),
        }
        Ok(())
    }
}
