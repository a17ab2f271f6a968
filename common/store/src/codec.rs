//! From a chunk's bytes to its stored form and back, checked.

use std::borrow::Cow;
use std::ops::Range;

use model::Digest;
use sha2::{Digest as _, Sha256};

use crate::{Encoding, MAX_CHUNK};

/// The names of chunks. Many at once take little more than half of the time.
pub(crate) fn names(chunks: &[&[u8]]) -> Vec<Digest> {
    lanes::sha256(chunks).into_iter().map(Digest).collect()
}

/// What is said of a chunk that has another name than it should.
pub(crate) const OTHER_NAME: &str = "its SHA-256 is another";

/// How much of a chunk is tried first when the chunk before it did not compress.
const SAMPLE: usize = 4 << 10;

/// The name of a chunk.
pub(crate) fn name(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Compresses chunks with one zstd context. Each writer has its own.
pub(crate) struct Compressor {
    context: Option<zstd::bulk::Compressor<'static>>,
    output: Vec<u8>,
    /// The last chunk did not compress, so the next probably will not.
    incompressible: bool,
}

impl Compressor {
    pub(crate) fn new(level: i32) -> Self {
        // Without a context (out of memory) chunks are stored as they are: correct, only larger.
        let context = zstd::bulk::Compressor::new(level).ok();
        Self { context, output: Vec::new(), incompressible: false }
    }

    /// The form in which to store `raw`: compressed only if that saves a sixteenth at least.
    pub(crate) fn encode<'a>(&'a mut self, raw: &'a [u8]) -> (Encoding, &'a [u8]) {
        if self.incompressible && raw.len() > 2 * SAMPLE && !self.shrinks(&raw[..SAMPLE]) {
            return (Encoding::Raw, raw);
        }
        self.incompressible = !self.shrinks(raw);
        match self.incompressible {
            true => (Encoding::Raw, raw),
            false => (Encoding::Zstd, &self.output),
        }
    }

    /// Compresses into `output`; whether that saved a sixteenth.
    fn shrinks(&mut self, bytes: &[u8]) -> bool {
        let Some(context) = &mut self.context else { return false };
        self.output.clear();
        self.output.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let packed = context.compress_to_buffer(bytes, &mut self.output);
        packed.is_ok_and(|len| len < bytes.len() - bytes.len() / 16)
    }
}

/// Chunks in the form in which they are to be kept, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Packed(Vec<u8>);

impl Packed {
    /// Where the chunk is in here, if it becomes smaller.
    pub(crate) fn add(&mut self, compressor: &mut Compressor, raw: &[u8]) -> Option<Range<usize>> {
        let (Encoding::Zstd, stored) = compressor.encode(raw) else { return None };
        let start = self.0.len();
        self.0.extend_from_slice(stored);
        Some(start..self.0.len())
    }

    /// The form of the chunk that lies there.
    pub(crate) fn form<'a>(
        &'a self,
        at: &Option<Range<usize>>,
        raw: &'a [u8],
    ) -> (Encoding, &'a [u8]) {
        match at.clone().and_then(|at| self.0.get(at)) {
            Some(stored) => (Encoding::Zstd, stored),
            None => (Encoding::Raw, raw),
        }
    }
}

/// Decompresses chunks. Each reader has its own.
pub(crate) struct Decompressor(Option<zstd::bulk::Decompressor<'static>>);

impl Decompressor {
    pub(crate) fn new() -> Self {
        Self(zstd::bulk::Decompressor::new().ok())
    }

    /// The chunk of this name and length, or why `stored` is not it. Never makes more than
    /// `raw_len` bytes, and none where it is stored as it is.
    pub(crate) fn decode<'a>(
        &mut self,
        digest: &Digest,
        encoding: Encoding,
        raw_len: u32,
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, &'static str> {
        let raw = self.unpack(encoding, raw_len, stored)?;
        match name(&raw) == *digest {
            true => Ok(raw),
            false => Err(OTHER_NAME),
        }
    }

    /// The same, but for its name.
    pub(crate) fn unpack<'a>(
        &mut self,
        encoding: Encoding,
        raw_len: u32,
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, &'static str> {
        let raw_len = raw_len as usize;
        if raw_len == 0 || raw_len > MAX_CHUNK {
            return Err("its length is out of bounds");
        }
        let raw = match encoding {
            Encoding::Raw => Cow::Borrowed(stored),
            Encoding::Zstd => {
                let context = self.0.as_mut().ok_or("there is no memory to decompress it")?;
                let raw = context.decompress(stored, raw_len);
                Cow::Owned(raw.map_err(|_| "it does not decompress")?)
            }
        };
        if raw.len() != raw_len {
            return Err("its length is another");
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn what_is_encoded_decodes_and_only_compresses_when_it_pays() {
        let mut random = Random::new(3);
        let (mut packer, mut unpacker) = (Compressor::new(1), Decompressor::new());
        for round in 0..40 {
            let len = random.below(60_000) as usize + 1;
            let text = round % 3 != 0;
            let raw = if text { random.text(len) } else { random.bytes(len) };
            let (encoding, stored) = packer.encode(&raw);
            assert!(stored.len() <= raw.len());
            assert!(!text || len < 1000 || encoding == Encoding::Zstd);
            let digest = name(&raw);
            let back = unpacker.decode(&digest, encoding, len as u32, stored).unwrap();
            assert_eq!(back[..], raw);
        }
    }

    #[test]
    fn what_is_not_the_chunk_is_refused_within_bounds() {
        let raw = vec![7; 100_000];
        let mut packer = Compressor::new(1);
        let (encoding, stored) = packer.encode(&raw);
        let stored = stored.to_vec();
        let mut unpacker = Decompressor::new();
        let mut decode = |digest, len, bytes: &[u8]| {
            unpacker.decode(&digest, encoding, len, bytes).map(Cow::into_owned)
        };
        assert!(decode(name(&raw), 100_000, &stored).is_ok());
        assert!(decode(name(&raw), 99_999, &stored).is_err());
        assert!(decode(name(&raw), 100_001, &stored).is_err());
        assert!(decode(name(&raw), 0, &stored).is_err());
        assert!(decode(name(&raw), u32::MAX, &stored).is_err());
        assert!(decode(name(b"other"), 100_000, &stored).is_err());
        assert!(decode(name(&raw), 100_000, &stored[..stored.len() - 1]).is_err());
    }
}
