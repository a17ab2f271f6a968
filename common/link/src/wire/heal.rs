//! Healing.

use bytes::Bytes;
use model::Digest;

use super::{DecodeError, emptied, narrow, within};
use crate::heal::{HEAL_MAX, Heal};
use crate::proto::{self, heal as wire, heal::Body};
use crate::replicate::{CHUNK_MAX, ChunkData};

pub(super) fn heal(message: &Heal) -> (proto::Heal, Bytes) {
    let (body, payload) = match message {
        Heal::Want(digests) => {
            let digests = digests.iter().flat_map(|digest| *digest.as_bytes()).collect();
            (Body::Want(wire::Want { digests }), Bytes::new())
        }
        Heal::Chunk { digest, data } => {
            let digest = Bytes::copy_from_slice(digest.as_bytes());
            let here = data.is_some();
            let encoding = data.as_ref().map_or(0, |data| data.encoding.into());
            let raw_length = data.as_ref().map_or(0, |data| data.raw_length);
            let chunk = wire::Chunk { digest, here, encoding, raw_length };
            (Body::Chunk(chunk), data.as_ref().map_or_else(Bytes::new, |data| data.bytes.clone()))
        }
    };
    (proto::Heal { body: Some(body) }, payload)
}

pub(super) fn read_heal(message: proto::Heal, payload: Bytes) -> Result<Heal, DecodeError> {
    match message.body.ok_or(DecodeError::Missing("what is to be healed"))? {
        Body::Want(want) => {
            emptied(&payload)?;
            let (digests, rest) = want.digests.as_chunks::<32>();
            within("digests", digests.len(), HEAL_MAX)?;
            match digests.is_empty() || !rest.is_empty() {
                true => Err(DecodeError::Invalid("list of digests")),
                false => Ok(Heal::Want(digests.iter().map(|digest| Digest(*digest)).collect())),
            }
        }
        Body::Chunk(chunk) => {
            let digest = chunk.digest.as_ref().try_into().map(Digest);
            let digest = digest.map_err(|_| DecodeError::Invalid("digest"))?;
            let data = if chunk.here {
                within("bytes of a chunk", chunk.raw_length as usize, CHUNK_MAX)?;
                within("bytes of a chunk", payload.len(), CHUNK_MAX)?;
                let (encoding, raw_length) =
                    (narrow(chunk.encoding, "encoding")?, chunk.raw_length);
                Some(ChunkData { encoding, raw_length, bytes: payload })
            } else {
                emptied(&payload)?;
                None
            };
            Ok(Heal::Chunk { digest, data })
        }
    }
}
