//! Storing chunks that others bring.

use bytes::Bytes;
use model::Digest;

use crate::codec::Packed;
use crate::crew::{side_by_side, threads};
use crate::{MAX_CHUNK, Result, Store, StoreError};

/// So many chunks are worth another thread.
const WORTH: usize = 32;

impl Store {
    /// Stores chunks whose names were verified by whoever brings them: in their order, compressed
    /// as written ones would be, on several processors where there are many; those that are here
    /// are passed over. They are durable when the import that needs them has committed, or after
    /// [`Store::sync`]. After an error some of them may be stored.
    pub fn put_chunks(&self, chunks: &[(Digest, Bytes)]) -> Result<()> {
        let inner = &*self.0;
        let mut new = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if chunk.1.is_empty() || chunk.1.len() > MAX_CHUNK {
                return Err(StoreError::WrongChunk { digest: chunk.0, what: "its length" });
            }
            if inner.containers.known(&chunk.0)?.is_none() {
                new.push(chunk);
            }
        }
        let each = new.len().div_ceil(threads()).max(WORTH);
        let parts: Vec<&[&(Digest, Bytes)]> = new.chunks(each).collect();
        let packed = side_by_side(&parts, 1, |part| {
            inner.pack(|compressor| {
                let mut packed = Packed::default();
                let at: Vec<_> = part.iter().map(|(_, raw)| packed.add(compressor, raw)).collect();
                (packed, at)
            })
        });
        for (part, (packed, places)) in parts.iter().zip(packed) {
            for ((digest, raw), at) in part.iter().zip(places) {
                let (encoding, stored) = packed.form(&at, raw);
                inner.containers.append(digest, encoding, raw.len() as u32, stored)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use vfs::CrashVfs;

    use super::*;
    use crate::testing::{Random, digest_of};
    use crate::{ChunkRef, Encoding, Options};

    #[test]
    fn chunks_of_any_number_are_there_once_and_as_they_were() {
        let vfs = Arc::new(CrashVfs::new());
        let (store, _) = Store::open(vfs, Path::new("/s"), &Options::default()).unwrap();
        let mut random = Random::new(3);
        for count in [0, 1, 31, 33, 300] {
            let mut chunks: Vec<(Digest, Bytes)> = Vec::new();
            for n in 0..count {
                let len = random.below(20_000) as usize + 1;
                let raw = match n % 3 {
                    0 => random.bytes(len),
                    1 => vec![n as u8; len],
                    // Once more what came before.
                    _ => chunks[random.below(n) as usize].1.to_vec(),
                };
                chunks.push((digest_of(&raw), raw.into()));
            }
            store.put_chunks(&chunks).unwrap();
            let stored = store.statistics().chunks;
            store.put_chunks(&chunks).unwrap();
            assert_eq!(store.statistics().chunks, stored, "nothing is stored twice");
            let refs: Vec<_> = chunks
                .iter()
                .map(|(digest, raw)| ChunkRef { digest: *digest, len: raw.len() as u32 })
                .collect();
            let mut all = Vec::new();
            store.chunks(&refs, &mut all).unwrap();
            let expected: Vec<u8> = chunks.iter().flat_map(|(_, raw)| raw.to_vec()).collect();
            assert!(all == expected, "{count} chunks, seed 3");
            let smaller = |chunk: &ChunkRef| {
                let (encoding, stored) = store.form(chunk).unwrap();
                (encoding == Encoding::Zstd) == (stored < chunk.len)
            };
            assert!(refs.iter().all(smaller));
        }
    }

    #[test]
    fn a_chunk_of_a_wrong_length_is_refused_before_anything_is_stored() {
        let vfs = Arc::new(CrashVfs::new());
        let (store, _) = Store::open(vfs, Path::new("/s"), &Options::default()).unwrap();
        let good = Bytes::from_static(b"good");
        for bad in [Bytes::new(), vec![7; MAX_CHUNK + 1].into()] {
            let chunks = [(digest_of(&good), good.clone()), (digest_of(&bad), bad)];
            assert!(matches!(store.put_chunks(&chunks), Err(StoreError::WrongChunk { .. })));
            assert_eq!(store.missing(&[chunks[0].0]), [true]);
        }
    }
}
