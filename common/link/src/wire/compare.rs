//! Comparing.

use bytes::Bytes;
use model::{Digest, GenerationId};

use super::{DecodeError, id_bytes, within};
use crate::compare::{
    COMPARE_CHUNKS_MAX, COMPARE_PARTS_MAX, Compare, CompareAsk, CompareBody, CompareTold,
};
use crate::proto::{self, compare as wire, compare::Body};

pub(super) fn compare(message: &Compare) -> proto::Compare {
    let body = match &message.body {
        CompareBody::Ask(CompareAsk { generation, first, count, parts, read }) => {
            let generation = id_bytes(generation.to_bytes());
            let (first, count, parts, read) = (*first, *count, *parts, *read);
            Body::Ask(wire::Ask { generation, first, count, parts, read })
        }
        CompareBody::Told(None) => Body::Told(wire::Told::default()),
        CompareBody::Told(Some(CompareTold { chunks, objects, digests })) => {
            let objects = objects.map(|digest| Bytes::copy_from_slice(digest.as_bytes()));
            Body::Told(wire::Told {
                here: true,
                chunks: *chunks,
                objects: objects.unwrap_or_default(),
                digests: digests.iter().flat_map(|digest| *digest.as_bytes()).collect(),
            })
        }
    };
    proto::Compare { number: message.number, body: Some(body) }
}

pub(super) fn read_compare(message: proto::Compare) -> Result<Compare, DecodeError> {
    let body = match message.body.ok_or(DecodeError::Missing("what is to be compared"))? {
        Body::Ask(wire::Ask { generation, first, count, parts, read }) => {
            let generation = GenerationId::from_slice(&generation);
            let generation = generation.ok_or(DecodeError::Invalid("generation"))?;
            within("chunks to compare", count as usize, COMPARE_CHUNKS_MAX as usize)?;
            within("parts", parts as usize, COMPARE_PARTS_MAX as usize)?;
            if parts == 0 {
                return Err(DecodeError::Invalid("number of parts"));
            }
            CompareBody::Ask(CompareAsk { generation, first, count, parts, read })
        }
        Body::Told(told) if !told.here => CompareBody::Told(None),
        Body::Told(wire::Told { chunks, objects, digests, .. }) => {
            let (digests, rest) = digests.as_chunks::<32>();
            within("digests", digests.len(), COMPARE_PARTS_MAX as usize)?;
            if !rest.is_empty() {
                return Err(DecodeError::Invalid("list of digests"));
            }
            let digests = digests.iter().map(|digest| Digest(*digest)).collect();
            let objects = match objects.is_empty() {
                true => None,
                false => {
                    let digest = Digest::from_slice(&objects);
                    Some(digest.ok_or(DecodeError::Invalid("digest"))?)
                }
            };
            CompareBody::Told(Some(CompareTold { chunks, objects, digests }))
        }
    };
    Ok(Compare { number: message.number, body })
}
