//! Storing chunks that others bring.

use std::ops::Range;
use std::panic::resume_unwind;
use std::thread::{Builder, scope};

use bytes::Bytes;
use model::Digest;

use crate::codec::Compressor;
use crate::crew::threads;
use crate::store::Inner;
use crate::{Encoding, MAX_CHUNK, Result, Store, StoreError};

/// So many chunks are worth another thread.
const WORTH: usize = 32;

/// Chunks in the form in which they are to be kept.
#[derive(Default)]
struct Packed {
    /// Of each that becomes smaller where it is in `bytes`.
    forms: Vec<Option<Range<usize>>>,
    bytes: Vec<u8>,
}

impl Packed {
    fn of(inner: &Inner, chunks: &[&(Digest, Bytes)]) -> Self {
        inner.pack(|compressor| {
            let mut packed = Self::default();
            for (_, raw) in chunks {
                let form = packed.add(compressor, raw);
                packed.forms.push(form);
            }
            packed
        })
    }

    fn add(&mut self, compressor: &mut Compressor, raw: &[u8]) -> Option<Range<usize>> {
        let (Encoding::Zstd, stored) = compressor.encode(raw) else { return None };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(stored);
        Some(start..self.bytes.len())
    }
}

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
        for (part, packed) in parts.iter().zip(packed(inner, &parts)) {
            for ((digest, raw), form) in part.iter().zip(packed.forms) {
                let (encoding, stored) = match form.and_then(|at| packed.bytes.get(at)) {
                    Some(stored) => (Encoding::Zstd, stored),
                    None => (Encoding::Raw, &raw[..]),
                };
                inner.containers.append(digest, encoding, raw.len() as u32, stored)?;
            }
        }
        Ok(())
    }
}

/// Each part by a thread of its own; the first, and those for which there is none, by this one.
fn packed(inner: &Inner, parts: &[&[&(Digest, Bytes)]]) -> Vec<Packed> {
    scope(|scope| {
        let Some((first, rest)) = parts.split_first() else { return Vec::new() };
        let mut others = Vec::new();
        for part in rest {
            let work = || Packed::of(inner, part);
            others.push(Builder::new().name("putting".into()).spawn_scoped(scope, work).ok());
        }
        let mut all = vec![Packed::of(inner, first)];
        for (other, part) in others.into_iter().zip(rest) {
            all.push(match other.map(|other| other.join()) {
                Some(Ok(packed)) => packed,
                Some(Err(panic)) => resume_unwind(panic),
                None => Packed::of(inner, part),
            });
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use vfs::CrashVfs;

    use super::*;
    use crate::testing::{Random, digest_of};
    use crate::{ChunkRef, Options};

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
