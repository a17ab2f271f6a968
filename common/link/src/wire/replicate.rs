//! Transfers of generations, and the lists of chunks that streams share with them.

use bytes::Bytes;
use model::{CartridgeId, Digest, GenerationId};

use super::entries::{entries, pack, read_entries, read_pack};
use super::tape::{RECORD_MAX, barcode, read_barcode};
use super::{DecodeError, emptied, id_bytes, join, narrow, read_text, split, text, ulid, within};
use crate::proto::{self, replicate as wire, replicate::Body, replicate::failed::Why};
use crate::replicate::{
    BASES_MAX, Bases, Begin, CHUNK_MAX, Chunk, ChunkData, FailWhy, Failure, OFFER_ENTRIES_MAX,
    OFFER_SEGMENTS_MAX, Offer, Replicate, ReplicateBody, Segment, Totals, TransferId,
};

const ATTRIBUTES_MAX: usize = 64 << 10;

pub(super) fn replicate(message: &Replicate) -> (proto::Replicate, Bytes) {
    let mut payload = Bytes::new();
    let body = match &message.body {
        ReplicateBody::Begin(begin) => Body::Begin(wire::Begin {
            generation: id_bytes(begin.generation.to_bytes()),
            cartridge: id_bytes(begin.cartridge.to_bytes()),
            parent: begin.parent.map_or_else(Bytes::new, |id| id_bytes(id.to_bytes())),
            barcode: barcode(begin.barcode.as_ref()),
            attributes: begin.attributes.clone(),
            bases: match &begin.bases {
                Bases::Any(bases) => bases.iter().map(|id| id_bytes(id.to_bytes())).collect(),
                Bases::Sure(_) => Vec::new(),
            },
            base: match &begin.bases {
                Bases::Any(_) => Bytes::new(),
                Bases::Sure(base) => id_bytes(base.to_bytes()),
            },
        }),
        ReplicateBody::Ready { already, base } => {
            let base = base.map_or(0, |base| base.saturating_add(1));
            Body::Ready(wire::Ready { already: *already, base })
        }
        ReplicateBody::Offer { sequence, offer } => {
            let (entries, digests) = entries(&offer.entries);
            Body::Offer(wire::Offer {
                sequence: *sequence,
                segments: offer.segments.iter().map(segment).collect(),
                entries: Some(entries),
                digests,
            })
        }
        ReplicateBody::Want { sequence, wanted } => Body::Want(want(*sequence, wanted)),
        ReplicateBody::Pack { sequence, pack: packed } => {
            payload = packed.bytes.clone();
            Body::Pack(pack(*sequence, packed))
        }
        ReplicateBody::Credit { stored, offers } => {
            Body::Credit(wire::Credit { stored: *stored, offers: *offers })
        }
        ReplicateBody::Commit(totals) => {
            let Totals { objects, bytes, chunks, unique, stored } = *totals;
            Body::Commit(wire::Commit { objects, bytes, chunks, unique, stored })
        }
        ReplicateBody::Committed => Body::Committed(proto::Empty {}),
        ReplicateBody::Failed(failure) => Body::Failed(failed(failure)),
    };
    let transfer = id_bytes(message.transfer.0.0.to_be_bytes());
    (proto::Replicate { transfer, body: Some(body) }, payload)
}

pub(super) fn read_replicate(
    message: proto::Replicate,
    mut payload: Bytes,
) -> Result<Replicate, DecodeError> {
    let transfer = TransferId(ulid(&message.transfer, "transfer")?);
    let body = match message.body.ok_or(DecodeError::Missing("a transfer message"))? {
        Body::Begin(begin) => ReplicateBody::Begin(read_begin(begin)?),
        Body::Ready(it) => {
            let (already, base) = (it.already, it.base.checked_sub(1));
            ReplicateBody::Ready { already, base }
        }
        Body::Offer(offer) => {
            let sequence = offer.sequence;
            within("segments", offer.segments.len(), OFFER_SEGMENTS_MAX)?;
            let segments = offer.segments.iter().map(read_segment).collect::<Result<_, _>>()?;
            let entries = read_entries(offer.entries.unwrap_or_default(), &offer.digests)?;
            ReplicateBody::Offer { sequence, offer: Offer { segments, entries } }
        }
        Body::Want(it) => {
            let (sequence, wanted) = read_want(&it)?;
            ReplicateBody::Want { sequence, wanted }
        }
        Body::Pack(packed) => {
            let (sequence, bytes) = (packed.sequence, std::mem::take(&mut payload));
            ReplicateBody::Pack { sequence, pack: read_pack(packed, bytes)? }
        }
        Body::Credit(it) => ReplicateBody::Credit { stored: it.stored, offers: it.offers },
        Body::Commit(wire::Commit { objects, bytes, chunks, unique, stored }) => {
            ReplicateBody::Commit(Totals { objects, bytes, chunks, unique, stored })
        }
        Body::Committed(_) => ReplicateBody::Committed,
        Body::Failed(failure) => ReplicateBody::Failed(read_failed(failure)?),
    };
    emptied(&payload)?;
    Ok(Replicate { transfer, body })
}

fn read_begin(begin: wire::Begin) -> Result<Begin, DecodeError> {
    within("bytes of attributes", begin.attributes.len(), ATTRIBUTES_MAX)?;
    within("bases", begin.bases.len(), BASES_MAX)?;
    let generation =
        |bytes: &[u8]| GenerationId::from_slice(bytes).ok_or(DecodeError::Invalid("generation"));
    let cartridge = CartridgeId::from_slice(&begin.cartridge);
    Ok(Begin {
        generation: generation(&begin.generation)?,
        cartridge: cartridge.ok_or(DecodeError::Invalid("cartridge"))?,
        parent: match begin.parent.is_empty() {
            true => None,
            false => Some(generation(&begin.parent)?),
        },
        barcode: read_barcode(&begin.barcode)?,
        bases: match (begin.base.is_empty(), begin.bases.is_empty()) {
            (true, _) => {
                let bases = begin.bases.iter().map(|id| generation(id));
                Bases::Any(bases.collect::<Result<_, _>>()?)
            }
            (false, true) => Bases::Sure(generation(&begin.base)?),
            (false, false) => return Err(DecodeError::Invalid("base")),
        },
        attributes: begin.attributes,
    })
}

fn failed(failure: &Failure) -> wire::Failed {
    let why = match failure.why {
        FailWhy::Store => Why::Store,
        FailWhy::Corrupt => Why::Corrupt,
        FailWhy::Cancelled => Why::Cancelled,
        FailWhy::Refused => Why::Refused,
        FailWhy::Gone => Why::Gone,
        FailWhy::Base => Why::Base,
    };
    wire::Failed { why: why.into(), text: text(&failure.text) }
}

fn read_failed(failed: wire::Failed) -> Result<Failure, DecodeError> {
    let why = match failed.why() {
        Why::Store => FailWhy::Store,
        Why::Corrupt => FailWhy::Corrupt,
        Why::Cancelled => FailWhy::Cancelled,
        Why::Refused => FailWhy::Refused,
        Why::Gone => FailWhy::Gone,
        Why::Base => FailWhy::Base,
        Why::Unspecified => return Err(DecodeError::Invalid("failure")),
    };
    Ok(Failure { why, text: read_text(failed.text)? })
}

pub(super) fn segment(segment: &Segment) -> proto::Segment {
    use proto::segment::{Kind, Records};
    let kind = match segment {
        Segment::Records { size, count } => Kind::Records(Records { size: *size, count: *count }),
        Segment::Filemarks(count) => Kind::Filemarks(*count),
    };
    proto::Segment { kind: Some(kind) }
}

pub(super) fn read_segment(segment: &proto::Segment) -> Result<Segment, DecodeError> {
    use proto::segment::Kind;
    let read = match segment.kind.as_ref().ok_or(DecodeError::Missing("a segment"))? {
        Kind::Records(it) => Segment::Records { size: it.size, count: it.count },
        Kind::Filemarks(count) => Segment::Filemarks(*count),
    };
    match read {
        Segment::Records { count: 0, .. } | Segment::Filemarks(0) => {
            Err(DecodeError::Invalid("segment count"))
        }
        Segment::Records { size, .. } if size > RECORD_MAX => {
            Err(DecodeError::Invalid("record size"))
        }
        fine => Ok(fine),
    }
}

pub(super) fn chunk_list<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> proto::ChunkList {
    let (mut digests, mut lengths) = (Vec::new(), Vec::new());
    for chunk in chunks {
        digests.extend_from_slice(chunk.digest.as_bytes());
        lengths.push(chunk.length);
    }
    proto::ChunkList { digests: digests.into(), lengths }
}

pub(super) fn read_chunk_list(
    list: &proto::ChunkList,
    limit: usize,
) -> Result<Vec<Chunk>, DecodeError> {
    within("chunks", list.lengths.len(), limit)?;
    let (digests, rest) = list.digests.as_chunks::<32>();
    if digests.len() != list.lengths.len() || !rest.is_empty() {
        return Err(DecodeError::Invalid("list of chunks"));
    }
    let chunk = |(digest, length): (&[u8; 32], &u32)| match (1..=CHUNK_MAX as u32).contains(length)
    {
        true => Ok(Chunk { digest: Digest(*digest), length: *length }),
        false => Err(DecodeError::Invalid("chunk length")),
    };
    digests.iter().zip(&list.lengths).map(chunk).collect()
}

/// One bit for each chunk, lowest first, and one more as the end, so that the count is kept.
pub(super) fn want(sequence: u32, wanted: &[bool]) -> proto::Want {
    let mut bitmap = vec![0u8; wanted.len() / 8 + 1];
    for (index, _) in wanted.iter().chain([&true]).enumerate().filter(|(_, wanted)| **wanted) {
        bitmap[index / 8] |= 1 << (index % 8);
    }
    proto::Want { sequence, bitmap: bitmap.into() }
}

pub(super) fn read_want(want: &proto::Want) -> Result<(u32, Vec<bool>), DecodeError> {
    within("bytes of a bitmap", want.bitmap.len(), OFFER_ENTRIES_MAX / 8 + 1)?;
    let bit = |index: usize| want.bitmap[index / 8] >> (index % 8) & 1 == 1;
    let last = want.bitmap.last().filter(|last| **last != 0);
    let last = last.ok_or(DecodeError::Invalid("bitmap"))?;
    let count = want.bitmap.len() * 8 - 1 - last.leading_zeros() as usize;
    Ok((want.sequence, (0..count).map(bit).collect()))
}

pub(super) fn chunks(sequence: u32, chunks: &[(u32, ChunkData)]) -> (proto::Chunks, Bytes) {
    let head = |(index, chunk): &(u32, ChunkData)| proto::chunks::Chunk {
        index: *index,
        encoding: chunk.encoding.into(),
        raw_length: chunk.raw_length,
        stored_length: u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX),
    };
    let heads = chunks.iter().map(head).collect();
    let pieces: Vec<_> = chunks.iter().map(|(_, chunk)| &chunk.bytes).collect();
    (proto::Chunks { sequence, heads }, join(&pieces))
}

pub(super) fn read_chunks(
    list: proto::Chunks,
    payload: &mut Bytes,
) -> Result<Vec<(u32, ChunkData)>, DecodeError> {
    within("chunks", list.heads.len(), OFFER_ENTRIES_MAX)?;
    let chunk = |head: proto::chunks::Chunk| {
        let (raw_length, stored) = (head.raw_length, head.stored_length as usize);
        within("bytes of a chunk", raw_length as usize, CHUNK_MAX)?;
        within("bytes of a chunk", stored, CHUNK_MAX)?;
        let encoding = narrow(head.encoding, "encoding")?;
        let bytes = split(payload, stored)?;
        Ok((head.index, ChunkData { encoding, raw_length, bytes }))
    };
    list.heads.into_iter().map(chunk).collect()
}
