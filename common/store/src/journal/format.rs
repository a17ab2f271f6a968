//! The bytes of a journal: a header, then frames, each with checksums of its own.

use model::{CartridgeId, Digest, GenerationId};

use crate::bytesio::{
    Fields, Put, open_with_crc, optional_id, read_optional_id, salted_crc, seal_with_crc,
};
use crate::layout::run_of;
use crate::{ChunkRef, MAX_CHUNK, ObjectRun};

pub(super) const HEADER: usize = 96;
pub(super) const FRAME_HEADER: usize = 40;
/// No payload is longer: a frame is ended long before.
pub(super) const MAX_PAYLOAD: usize = 16 * MAX_CHUNK;

const MAGIC: &[u8; 8] = b"TRREELJ1";
const VERSION: u32 = 1;
pub(super) const FRAME_MAGIC: &[u8; 4] = b"TRjf";

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalHeader {
    pub(crate) generation: GenerationId,
    pub(crate) cartridge: CartridgeId,
    pub(crate) parent: Option<GenerationId>,
    pub(crate) created_ms: u64,
}

/// The salt of all checksums in a journal, from the generation that its file is named after.
pub(super) fn salt(generation: GenerationId) -> u32 {
    crc32c::crc32c(&generation.to_bytes())
}

impl JournalHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.put(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(0);
        out.put(&self.generation.to_bytes());
        out.put(&self.cartridge.to_bytes());
        out.put(&optional_id(self.parent));
        out.put_u64(self.created_ms);
        out.resize(HEADER - 4, 0);
        seal_with_crc(salt(self.generation), &mut out);
        out
    }

    /// `None` if it is not the header of this generation's journal.
    pub(super) fn decode(generation: GenerationId, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(open_with_crc(salt(generation), bytes.get(..HEADER)?)?);
        let (magic, version) = (fields.array::<8>()?, fields.u32()?);
        fields.take(4)?;
        let id = GenerationId::from_slice(fields.take(16)?)?;
        let cartridge = CartridgeId::from_slice(fields.take(16)?)?;
        let parent = read_optional_id(fields.array()?);
        let header = Self { generation: id, cartridge, parent, created_ms: fields.u64()? };
        (magic == *MAGIC && version == VERSION && id == generation).then_some(header)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// What the frames up to this one say is acknowledged when this one is durable.
    pub(super) commit: bool,
    /// Frames before it.
    pub(super) sequence: u64,
    /// Frames that were durable when it was written. A bad frame among those is damage; a later
    /// one may be a write that a crash tore.
    pub(super) durable: u64,
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
}

impl FrameHeader {
    /// Frame and payload as they are written.
    pub(super) fn encode(
        generation: GenerationId,
        commit: bool,
        sequence: u64,
        durable: u64,
        payload: &[u8],
    ) -> Vec<u8> {
        let salt = salt(generation);
        let mut out = Vec::with_capacity(FRAME_HEADER + payload.len());
        out.put(FRAME_MAGIC);
        out.put_u8(commit.into());
        out.put(&[0; 3]);
        out.put_u64(sequence);
        out.put_u64(durable);
        out.put_u32(payload.len() as u32);
        out.put_u32(salted_crc(salt, payload));
        out.put_u32(0);
        seal_with_crc(salt, &mut out);
        out.put(payload);
        out
    }

    pub(super) fn decode(generation: GenerationId, bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(FRAME_MAGIC) {
            return None;
        }
        let mut fields = Fields(open_with_crc(salt(generation), bytes.get(..FRAME_HEADER)?)?);
        fields.take(4)?;
        let commit = fields.u8()? == 1;
        fields.take(3)?;
        let (sequence, durable) = (fields.u64()?, fields.u64()?);
        let (payload_len, payload_crc) = (fields.u32()?, fields.u32()?);
        let header = Self { commit, sequence, durable, payload_len, payload_crc };
        (payload_len as usize <= MAX_PAYLOAD).then_some(header)
    }
}

/// The whole good frame at the front of `bytes`.
pub(super) fn good_frame(generation: GenerationId, bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let header = FrameHeader::decode(generation, bytes)?;
    let payload = bytes.get(FRAME_HEADER..FRAME_HEADER + header.payload_len as usize)?;
    (salted_crc(salt(generation), payload) == header.payload_crc).then_some((header, payload))
}

/// Totals after a commit, to check what was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) unique_bytes: u64,
    pub(crate) stored_bytes: u64,
}

/// One thing that happened to an open generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Everything from this object on was dropped.
    Truncate(u64),
    /// These bytes are at the end of the stream, not yet in a chunk.
    Tail(&'a [u8]),
    /// A chunk was cut: it follows the last one and takes its bytes off the front of the tail.
    Chunk(ChunkRef),
    /// Objects were appended.
    Objects(ObjectRun),
    /// The state so far.
    Totals(Totals),
}

impl<'a> Event<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Truncate(object) => {
                out.put_u8(1);
                out.put_u64(*object);
            }
            Self::Tail(bytes) => {
                out.put_u8(2);
                out.put_u32(bytes.len() as u32);
                out.put(bytes);
            }
            Self::Chunk(chunk) => {
                out.put_u8(3);
                out.put_u32(chunk.len);
                out.put(chunk.digest.as_bytes());
            }
            Self::Objects(run) => {
                out.put_u8(4);
                out.put_u32(run.size());
                out.put_u64(run.count());
            }
            Self::Totals(totals) => {
                out.put_u8(5);
                let Totals { objects, bytes, chunks, unique_bytes, stored_bytes } = *totals;
                let all = [objects, bytes, chunks, unique_bytes, stored_bytes];
                all.into_iter().for_each(|value| out.put_u64(value));
            }
        }
    }

    pub(super) fn decode(fields: &mut Fields<'a>) -> Option<Self> {
        Some(match fields.u8()? {
            1 => Self::Truncate(fields.u64()?),
            2 => {
                let len = fields.u32()? as usize;
                Self::Tail(fields.take(len)?)
            }
            3 => {
                let len = fields.u32()?;
                let digest = Digest(fields.array()?);
                let fits = (1..=MAX_CHUNK as u32).contains(&len);
                Self::Chunk(fits.then_some(ChunkRef { digest, len })?)
            }
            4 => {
                let (size, count) = (fields.u32()?, fields.u64()?);
                Self::Objects(run_of(size, count)?)
            }
            5 => Self::Totals(Totals {
                objects: fields.u64()?,
                bytes: fields.u64()?,
                chunks: fields.u64()?,
                unique_bytes: fields.u64()?,
                stored_bytes: fields.u64()?,
            }),
            _ => return None,
        })
    }
}
