//! Chunks as they travel: many in one piece, compressed together, as copies of old bytes where
//! there are some.

use std::cell::RefCell;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use model::Digest;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ResetDirective, compress_bound, get_error_name,
};

use super::delta::{self, Delta, Difference};
use super::{PACK_MAX, PackForm};

/// Both prefix and content are within reach of every match: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;
/// So many of the last old bytes help to say the literals: words that occur in both.
pub const OLD_TAIL: usize = 512 << 10;
/// An entry of the compressor's tables for each byte of the prefix.
const PREFIX_LOG: u32 = 19;
/// Operations and literals are few: they are compressed with this level, unless they are many.
const DELTA_LEVEL: i32 = 12;
const FEW: usize = 256 << 10;

/// A pack that is not what its offer promised. The peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It does not decode to as many bytes as its chunks have.
    #[error("a pack can not be unpacked: {0}")]
    Encoding(&'static str),
    /// A chunk is not what it is called, or the names do not add up to the proof.
    #[error("a pack holds other chunks than were promised")]
    Content,
}

/// Encodes `raw`, the chunks of a pack, as a difference to `old` where there is some; at this zstd
/// level, but for what is left of a difference; as it is where that is shorter. Both have at most
/// 4 MiB.
///
/// # Errors
/// There is no memory for it.
pub fn pack(old: &[u8], raw: &[u8], level: i32) -> io::Result<(PackForm, Bytes)> {
    let (form, bytes) = match old.is_empty() {
        true => (PackForm::Zstd, deflated(&[], raw, level)?.into()),
        false => {
            let difference = Difference::of(old, raw);
            (PackForm::Delta, pack_differences(old, &[(0, &difference)], level)?)
        }
    };
    Ok(match bytes.len() < raw.len() {
        true => (form, bytes),
        false => (PackForm::Plain, Bytes::copy_from_slice(raw)),
    })
}

/// Encodes the chunks of a pack in the form [`PackForm::Delta`]: differences, each with where its
/// old bytes begin among all. `old` are all old bytes, or the last [`OLD_TAIL`] of them.
///
/// # Errors
/// There is no memory for it.
pub fn pack_differences(
    old: &[u8],
    parts: &[(usize, &Difference)],
    level: i32,
) -> io::Result<Bytes> {
    let Delta { operations, literals } = delta::joined(parts);
    let level = if literals.len() <= FEW { DELTA_LEVEL } else { level };
    let operations = deflated(&[], &operations, DELTA_LEVEL)?;
    let literals = deflated(prefix(old), &literals, level)?;
    let mut bytes = BytesMut::with_capacity(4 + operations.len() + literals.len());
    bytes.put_u32_le(operations.len() as u32);
    bytes.put(&operations[..]);
    bytes.put(&literals[..]);
    Ok(bytes.freeze())
}

/// About how many bytes a pack of this difference alone would have.
///
/// # Errors
/// There is no memory for it.
pub fn left(difference: &Difference) -> io::Result<usize> {
    let operations = delta::joined(&[(0, difference)]).operations;
    Ok(operations.len() + deflated(&[], difference.literals(), 1)?.len())
}

fn prefix(old: &[u8]) -> &[u8] {
    &old[old.len().saturating_sub(OLD_TAIL)..]
}

thread_local! {
    /// To make a context costs more than to compress what is left of a gap.
    static CONTEXT: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
}

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

fn context<'a>() -> io::Result<CCtx<'a>> {
    CCtx::try_create().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// One zstd frame.
fn deflated(prefix: &[u8], raw: &[u8], level: i32) -> io::Result<Vec<u8>> {
    if !prefix.is_empty() {
        return deflated_by(&mut context()?, prefix, raw, level);
    }
    CONTEXT.with_borrow_mut(|kept| match kept {
        Some(context) => deflated_by(context, &[], raw, level),
        None => deflated_by(kept.insert(context()?), &[], raw, level),
    })
}

fn deflated_by<'a>(
    context: &mut CCtx<'a>,
    prefix: &'a [u8],
    raw: &[u8],
    level: i32,
) -> io::Result<Vec<u8>> {
    context.reset(ResetDirective::SessionAndParameters).map_err(failed)?;
    let bits = usize::BITS - (prefix.len() + raw.len()).leading_zeros();
    let window = bits.clamp(10, WINDOW_LOG_MAX);
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        CParameter::ContentSizeFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    if !prefix.is_empty() {
        // What the level would choose for the content alone forgets most of the prefix.
        let log = window.min(PREFIX_LOG);
        context.set_parameter(CParameter::HashLog(log)).map_err(failed)?;
        context.set_parameter(CParameter::ChainLog(log)).map_err(failed)?;
        context.ref_prefix(prefix).map_err(failed)?;
    }
    let mut out = Vec::with_capacity(compress_bound(raw.len()));
    context.compress2(&mut out, raw).map_err(failed)?;
    Ok(out)
}

/// Decodes a pack whose chunks have these raw lengths and, where they were told, names. Gives the
/// chunks and their names, all verified. Never makes more than the lengths add up to.
///
/// # Errors
/// [`PackError`]: nothing of it may be used.
pub fn unpack(
    chunks: &[(u32, Option<Digest>)],
    form: PackForm,
    (old, bytes): (&[u8], &Bytes),
    proved: &Digest,
) -> Result<Vec<(Digest, Bytes)>, PackError> {
    let total = chunks.iter().try_fold(0usize, |sum, it| sum.checked_add(it.0 as usize));
    let total = total.filter(|it| *it <= PACK_MAX && old.len() <= PACK_MAX);
    let total = total.ok_or(PackError::Encoding("it is too long"))?;
    let mut rest = match form {
        PackForm::Plain => bytes.clone(),
        PackForm::Zstd => inflated(&[], bytes, total)?.into(),
        PackForm::Delta => undone(old, bytes, total)?.into(),
    };
    if rest.len() != total {
        return Err(PackError::Encoding("its length is another"));
    }
    let raws: Vec<Bytes> = chunks.iter().map(|it| rest.split_to(it.0 as usize)).collect();
    let names = lanes::sha256(&raws.iter().map(|raw| &raw[..]).collect::<Vec<_>>());
    let all: Vec<_> = names.into_iter().map(Digest).zip(raws).collect();
    let same = |((_, told), (name, _)): (&(u32, Option<Digest>), &(Digest, Bytes))| {
        told.is_none_or(|told| told == *name)
    };
    if !chunks.iter().zip(&all).all(same) {
        return Err(PackError::Content);
    }
    match *proved == proof(all.iter().map(|(name, _)| name)) {
        true => Ok(all),
        false => Err(PackError::Content),
    }
}

fn undone(old: &[u8], bytes: &[u8], total: usize) -> Result<Vec<u8>, PackError> {
    const SENSELESS: PackError = PackError::Encoding("its operations make no sense");
    let (length, frames) = bytes.split_first_chunk::<4>().ok_or(SENSELESS)?;
    let operations = frames.split_at_checked(u32::from_le_bytes(*length) as usize);
    let (operations, literals) = operations.ok_or(SENSELESS)?;
    // There are never more bytes of operations than of what they say.
    let operations = inflated(&[], operations, total + 1)?;
    let literals = inflated(prefix(old), literals, total)?;
    delta::decode(old, &Delta { operations, literals }, total).ok_or(SENSELESS)
}

/// What a frame holds, `most` bytes at most.
fn inflated(prefix: &[u8], bytes: &[u8], most: usize) -> Result<Vec<u8>, PackError> {
    let mut context = DCtx::try_create().ok_or(PackError::Encoding("there is no memory"))?;
    let failed = |_| PackError::Encoding("it does not decompress");
    // A frame that asks for more than we would ever use is refused by zstd itself.
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failed)?;
    context.ref_prefix(prefix).map_err(failed)?;
    let mut out = Vec::with_capacity(most);
    context.decompress(&mut out, bytes).map_err(failed)?;
    Ok(out)
}

/// The proof of a pack of chunks with these names.
pub fn proof<'a>(names: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let mut all = Sha256::new();
    names.into_iter().for_each(|name| all.update(name.as_bytes()));
    Digest(all.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(raw: &[u8]) -> Digest {
        Digest(Sha256::digest(raw).into())
    }

    /// Bytes that do not compress.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let block = |n: u64| Sha256::digest([seed.to_le_bytes(), n.to_le_bytes()].concat());
        (0..length as u64 / 32 + 1).flat_map(block).take(length).collect()
    }

    /// Packs chunks of these bytes as a difference to `old` and unpacks them again.
    fn there_and_back(old: &[u8], chunks: &[Vec<u8>]) -> (PackForm, Bytes) {
        let raw = chunks.concat();
        let names: Vec<_> = chunks.iter().map(|raw| name(raw)).collect();
        let (form, bytes) = pack(old, &raw, 6).unwrap();
        // Half of them are named in the offer.
        let told: Vec<_> = (0..)
            .zip(chunks.iter().zip(&names))
            .map(|(i, (raw, name))| (raw.len() as u32, (i % 2 == 0).then_some(*name)))
            .collect();
        let back = unpack(&told, form, (old, &bytes), &proof(&names)).unwrap();
        let expected: Vec<_> =
            names.into_iter().zip(chunks.iter().cloned().map(Bytes::from)).collect();
        assert_eq!(back, expected);
        (form, bytes)
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            old in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec((0usize..2000, 1usize..600, any::<u8>()), 1..9),
        ) {
            let chunk = |(from, length, byte): &(usize, usize, u8)| {
                let mut raw: Vec<u8> = old.iter().skip(*from).take(*length).copied().collect();
                raw.push(*byte);
                raw
            };
            there_and_back(&old, &cuts.iter().map(chunk).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_damaged_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let old = noise(1, 5000);
            let mut raw = old.clone();
            raw[2500] ^= 1;
            let (form, bytes) = pack(&old, &raw, 3).unwrap();
            let mut bad = bytes.to_vec();
            bad[at.index(bytes.len())] ^= flip;
            let told = [(raw.len() as u32, None)];
            let proved = proof(&[name(&raw)]);
            let back = unpack(&told, form, (&old, &bad.into()), &proved);
            // Some bits of a frame mean nothing; the bytes are right or there are none.
            prop_assert!(back.is_err() || back.unwrap()[0].1 == raw);
        }
    }

    #[test]
    fn a_small_difference_in_much_is_small() {
        let old = noise(2, PACK_MAX);
        let mut raw = old.clone();
        (0..40).for_each(|n| raw[n * 100_000 + 5] ^= 1);
        let chunks: Vec<_> = raw.chunks(16 << 10).map(<[u8]>::to_vec).collect();
        let (form, bytes) = there_and_back(&old, &chunks);
        assert_eq!(form, PackForm::Delta);
        assert!(bytes.len() < 400, "{} bytes", bytes.len());
    }

    #[test]
    fn what_does_not_compress_is_left_as_it_is() {
        let (form, bytes) = there_and_back(&[], &[noise(3, 10_000)]);
        assert_eq!((form, bytes.len()), (PackForm::Plain, 10_000));
    }

    #[test]
    fn nothing_grows_beyond_what_was_told() {
        let bomb = Bytes::from(zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap());
        let refused = |told: &[(u32, Option<Digest>)], bytes: &Bytes| {
            unpack(told, PackForm::Zstd, (&[], bytes), &Digest([0; 32])).unwrap_err()
        };
        assert!(matches!(refused(&[(1000, None)], &bomb), PackError::Encoding(_)));
        assert!(matches!(refused(&[(u32::MAX, None); 2], &bomb), PackError::Encoding(_)));
        // The same as operations, and as literals.
        let none = zstd::bulk::compress(&[0], 3).unwrap();
        for frames in [[&bomb[..], &none], [&none, &bomb]] {
            let length = (frames[0].len() as u32).to_le_bytes();
            let bytes = Bytes::from([&length[..], frames[0], frames[1]].concat());
            let told = [(1000, None)];
            let unpacked = unpack(&told, PackForm::Delta, (b"old", &bytes), &Digest([0; 32]));
            assert!(matches!(unpacked, Err(PackError::Encoding(_))));
        }
        let small = Bytes::from(zstd::bulk::compress(&[0; 1000], 3).unwrap());
        assert!(matches!(refused(&[(1001, None)], &small), PackError::Encoding(_)));
        assert_eq!(refused(&[(1000, None)], &small), PackError::Content);
        let other = Some(Digest([9; 32]));
        assert_eq!(refused(&[(1000, other)], &small), PackError::Content);
    }
}
