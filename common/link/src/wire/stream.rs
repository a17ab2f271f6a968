//! Streams.

use bytes::Bytes;

use super::replicate::{
    chunk_list, chunks, read_chunk_list, read_chunks, read_segment, read_want, segment, want,
};
use super::{DecodeError, emptied, id_bytes, read_text, text, ulid, within};
use crate::proto::{self, stream as wire, stream::Body};
use crate::stream::{OFFER_CHUNKS_MAX, OFFER_MARKS_MAX, Stream, StreamBody, StreamId};

pub(super) fn stream(message: &Stream) -> (proto::Stream, Bytes) {
    let mut payload = Bytes::new();
    let body = match &message.body {
        StreamBody::Open { base, opening } => {
            Body::Open(wire::Open { base: *base, opening: *opening })
        }
        StreamBody::Accept { from, limit, opening } => {
            Body::Accept(wire::Accept { from: *from, limit: *limit, opening: *opening })
        }
        StreamBody::Offer { sequence, offset, chunks, marks } => Body::Offer(wire::Offer {
            sequence: *sequence,
            offset: *offset,
            chunks: Some(chunk_list(chunks.iter())),
            marks: marks.iter().map(segment).collect(),
        }),
        StreamBody::Want { sequence, wanted } => Body::Want(want(*sequence, wanted)),
        StreamBody::Data { sequence, chunks: list } => {
            let (list, data) = chunks(*sequence, list);
            payload = data;
            Body::Data(list)
        }
        StreamBody::Credit { consumed, limit } => {
            Body::Credit(wire::Credit { consumed: *consumed, limit: *limit })
        }
        StreamBody::Finish(length) => Body::Finish(*length),
        StreamBody::Abort(why) => Body::Abort(text(why)),
    };
    let stream = id_bytes(message.stream.0.0.to_be_bytes());
    (proto::Stream { stream, body: Some(body) }, payload)
}

pub(super) fn read_stream(
    message: proto::Stream,
    mut payload: Bytes,
) -> Result<Stream, DecodeError> {
    let stream = StreamId(ulid(&message.stream, "stream")?);
    let body = match message.body.ok_or(DecodeError::Missing("a stream message"))? {
        Body::Open(it) => StreamBody::Open { base: it.base, opening: it.opening },
        Body::Accept(it) => {
            StreamBody::Accept { from: it.from, limit: it.limit, opening: it.opening }
        }
        Body::Offer(offer) => {
            within("marks", offer.marks.len(), OFFER_MARKS_MAX)?;
            let list = offer.chunks.unwrap_or_default();
            StreamBody::Offer {
                sequence: offer.sequence,
                offset: offer.offset,
                chunks: read_chunk_list(&list, OFFER_CHUNKS_MAX)?,
                marks: offer.marks.iter().map(read_segment).collect::<Result<_, _>>()?,
            }
        }
        Body::Want(it) => {
            let (sequence, wanted) = read_want(&it)?;
            StreamBody::Want { sequence, wanted }
        }
        Body::Data(list) => {
            let sequence = list.sequence;
            StreamBody::Data { sequence, chunks: read_chunks(list, &mut payload)? }
        }
        Body::Credit(it) => StreamBody::Credit { consumed: it.consumed, limit: it.limit },
        Body::Finish(length) => StreamBody::Finish(length),
        Body::Abort(why) => StreamBody::Abort(read_text(why)?),
    };
    emptied(&payload)?;
    Ok(Stream { stream, body })
}
