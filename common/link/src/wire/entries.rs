//! The long lists of a transfer, column by column and compressed: they are the larger part of what
//! is sent for a generation that hardly changed.

use bytes::Bytes;
use model::Digest;

use super::{BODY_MAX, DecodeError, malformed, within};
use crate::proto::{self, replicate as wire};
use crate::replicate::{CHUNK_MAX, Chunk, Entry, OFFER_ENTRIES_MAX, PACK_MAX, Pack, PackForm};

/// Spends a little time: there are some ten thousand bytes of it in a batch.
const LEVEL: i32 = 9;

const RUN: u8 = 0;
const AGAIN: u8 = 1;
const OLD: u8 = 2;
const NAMED: u8 = 3;
const FRESH: u8 = 4;

/// As one zstd frame if that is shorter.
fn squeezed(message: &impl prost::Message) -> proto::Squeezed {
    let plain = message.encode_to_vec();
    let raw_length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    match zstd::bulk::compress(&plain, LEVEL) {
        Ok(short) if short.len() < plain.len() => {
            proto::Squeezed { bytes: short.into(), raw_length }
        }
        _ => proto::Squeezed { bytes: plain.into(), raw_length: 0 },
    }
}

fn read_squeezed<M: prost::Message + Default>(from: proto::Squeezed) -> Result<M, DecodeError> {
    let length = from.raw_length as usize;
    within("bytes of a compressed list", length, BODY_MAX)?;
    let plain = match length {
        0 => from.bytes,
        _ => {
            let plain = zstd::bulk::decompress(&from.bytes, length);
            let plain = plain.map_err(|_| DecodeError::Invalid("compressed list"))?;
            Bytes::from(plain)
        }
    };
    match length == 0 || plain.len() == length {
        true => M::decode(plain).map_err(malformed),
        false => Err(DecodeError::Invalid("compressed list")),
    }
}

/// The distance from where it was expected. Wraps: reading it wraps back.
fn from_expected(first: u64, expected: u64) -> i64 {
    first.wrapping_sub(expected).cast_signed()
}

/// The columns, and the names apart: they do not compress.
pub(super) fn entries(entries: &[Entry]) -> (proto::Squeezed, Bytes) {
    let mut columns = proto::Entries::default();
    let (mut kinds, mut digests) = (Vec::with_capacity(entries.len()), Vec::new());
    let (mut base, mut again) = (0u64, 0u64);
    for entry in entries {
        kinds.push(match entry {
            Entry::Run { first, count } | Entry::Old { first, count } => {
                columns.firsts.push(from_expected(*first, base));
                columns.counts.push(*count);
                base = first.wrapping_add(*count);
                if matches!(entry, Entry::Run { .. }) { RUN } else { OLD }
            }
            Entry::Again { first, count } => {
                columns.again_firsts.push(from_expected(*first, again));
                columns.counts.push(*count);
                again = first.wrapping_add(*count);
                AGAIN
            }
            Entry::Chunk(chunk) => {
                columns.lengths.push(chunk.length);
                digests.extend_from_slice(chunk.digest.as_bytes());
                NAMED
            }
            Entry::Fresh(length) => {
                columns.lengths.push(*length);
                FRESH
            }
        });
    }
    columns.kinds = kinds.into();
    (squeezed(&columns), digests.into())
}

pub(super) fn read_entries(
    list: proto::Squeezed,
    digests: &[u8],
) -> Result<Vec<Entry>, DecodeError> {
    const UNEVEN: DecodeError = DecodeError::Invalid("list of entries");
    let columns: proto::Entries = read_squeezed(list)?;
    within("entries", columns.kinds.len(), OFFER_ENTRIES_MAX)?;
    let (digests, rest) = digests.as_chunks::<32>();
    let mut digests = digests.iter();
    let (mut firsts, mut agains) = (columns.firsts.iter(), columns.again_firsts.iter());
    let (mut counts, mut lengths) = (columns.counts.iter(), columns.lengths.iter());
    let (mut base, mut again) = (0u64, 0u64);
    let mut range = |from: Option<&i64>, at: &mut u64| {
        let first = at.wrapping_add(from.ok_or(UNEVEN)?.cast_unsigned());
        let count = *counts.next().ok_or(UNEVEN)?;
        *at = first.wrapping_add(count);
        let possible = count > 0 && first.checked_add(count).is_some();
        possible.then_some((first, count)).ok_or(DecodeError::Invalid("run"))
    };
    let mut length = || {
        let length = *lengths.next().ok_or(UNEVEN)?;
        let possible = (1..=CHUNK_MAX as u32).contains(&length);
        possible.then_some(length).ok_or(DecodeError::Invalid("chunk length"))
    };
    let mut entries = Vec::with_capacity(columns.kinds.len());
    for kind in &columns.kinds {
        entries.push(match *kind {
            RUN => {
                let (first, count) = range(firsts.next(), &mut base)?;
                Entry::Run { first, count }
            }
            OLD => {
                let (first, count) = range(firsts.next(), &mut base)?;
                Entry::Old { first, count }
            }
            AGAIN => {
                let (first, count) = range(agains.next(), &mut again)?;
                Entry::Again { first, count }
            }
            NAMED => {
                let digest = Digest(*digests.next().ok_or(UNEVEN)?);
                Entry::Chunk(Chunk { digest, length: length()? })
            }
            FRESH => Entry::Fresh(length()?),
            _ => return Err(DecodeError::Invalid("kind of entry")),
        });
    }
    let left = firsts.len() + agains.len() + counts.len() + lengths.len() + digests.len();
    match left + rest.len() {
        0 => Ok(entries),
        _ => Err(UNEVEN),
    }
}

/// Ascending numbers as what is left out between them.
fn gaps(numbers: &[u32]) -> Vec<u32> {
    let mut next = 0u32;
    let gap =
        |number: &u32| number.wrapping_sub(std::mem::replace(&mut next, number.wrapping_add(1)));
    numbers.iter().map(gap).collect()
}

fn read_gaps(gaps: &[u32]) -> Result<Vec<u32>, DecodeError> {
    within("chunks", gaps.len(), OFFER_ENTRIES_MAX)?;
    let mut next = 0u32;
    let number = |gap: &u32| {
        let number = next.checked_add(*gap).filter(|it| (*it as usize) < OFFER_ENTRIES_MAX);
        let number = number.ok_or(DecodeError::Invalid("chunk of a pack"))?;
        next = number + 1;
        Ok(number)
    };
    gaps.iter().map(number).collect()
}

pub(super) fn pack(sequence: u32, pack: &Pack) -> wire::Pack {
    let head = proto::PackHead { chunks: gaps(&pack.chunks), olds: gaps(&pack.olds) };
    wire::Pack {
        sequence,
        head: Some(squeezed(&head)),
        proof: Bytes::copy_from_slice(pack.proof.as_bytes()),
        form: match pack.form {
            PackForm::Plain => wire::pack::Form::Plain,
            PackForm::Zstd => wire::pack::Form::Zstd,
            PackForm::Delta => wire::pack::Form::Delta,
        }
        .into(),
    }
}

pub(super) fn read_pack(pack: wire::Pack, bytes: Bytes) -> Result<Pack, DecodeError> {
    within("bytes of a pack", bytes.len(), PACK_MAX)?;
    let form = match wire::pack::Form::try_from(pack.form) {
        Ok(wire::pack::Form::Plain) => PackForm::Plain,
        Ok(wire::pack::Form::Zstd) => PackForm::Zstd,
        Ok(wire::pack::Form::Delta) => PackForm::Delta,
        Err(_) => return Err(DecodeError::Invalid("form of a pack")),
    };
    let head: proto::PackHead = read_squeezed(pack.head.unwrap_or_default())?;
    let proof = <[u8; 32]>::try_from(&pack.proof[..]).map_err(|_| DecodeError::Invalid("proof"))?;
    Ok(Pack {
        chunks: read_gaps(&head.chunks)?,
        olds: read_gaps(&head.olds)?,
        form,
        proof: Digest(proof),
        bytes,
    })
}
