//! The bytes of an encrypted file: `docs/formats/store.md` has the tables.
//!
//! Each file has a key of its own, made of the store's data key and a random salt at the file's
//! head. Everything is AES-256-GCM with random nonces: no counter that a crash or a copy of the
//! disk could set back, and a file never has so many writes that two nonces could meet.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

use super::key::Secret;
use super::random;

/// Bytes of a block as the formats see it.
pub(super) const BLOCK: usize = 4096;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Bytes of a block on disk.
pub(super) const STRIDE: usize = NONCE + BLOCK + TAG;

const MAGIC: &[u8; 8] = b"TRREELX1";
const SALT: usize = 32;
pub(super) const HEAD: usize = 8 + SALT + NONCE + TAG;
/// Where the two copies of the head are.
pub(super) const HEADS: [usize; 2] = [0, 512];
/// Where the two slots are: each may be torn without harm to the other.
pub(super) const SLOTS: [usize; 2] = [4096, 12288];
const SLOT_TEXT: usize = 16 + BLOCK;
pub(super) const SLOT: usize = NONCE + SLOT_TEXT + TAG;
/// Where the first block is.
pub(super) const AREA: usize = 20480;

/// What is authenticated beside the bytes: what they are, and which.
#[derive(Clone, Copy)]
enum Place {
    Head,
    Slot(usize),
    Block(u64),
}

impl Place {
    fn aad(self) -> Aad<[u8; 9]> {
        let (kind, number) = match self {
            Self::Head => (0, 0),
            Self::Slot(which) => (1, which as u64),
            Self::Block(number) => (2, number),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&u64::to_le_bytes(number));
        Aad::from(bytes)
    }
}

/// The end of a file: its length, and what is behind the last whole block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Slots written before it.
    pub(super) sequence: u64,
    pub(super) len: u64,
    pub(super) tail: Vec<u8>,
}

impl Slot {
    /// The block that its tail is the beginning of.
    pub(super) fn block(&self) -> u64 {
        self.len / BLOCK as u64
    }
}

/// The cipher of one file.
pub(super) struct FileCipher(LessSafeKey);

impl FileCipher {
    /// A cipher for a new file, and the head that tells its salt.
    pub(super) fn generate(secret: &Secret) -> std::io::Result<(Self, Vec<u8>)> {
        let mut head = vec![0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        random(&mut head[8..8 + SALT + NONCE])?;
        let unusable = || std::io::Error::other("a key can not be made");
        let cipher = secret.file_cipher(&head[8..8 + SALT]).ok_or_else(unusable)?;
        let cipher = Self(cipher);
        cipher.seal(Place::Head, &mut head[8 + SALT..])?;
        Ok((cipher, head))
    }

    /// The cipher of a file with this head, `None` if it is no head or one of another store.
    pub(super) fn of(secret: &Secret, head: &[u8]) -> Option<Self> {
        let (salt, proof) = head.strip_prefix(MAGIC)?.split_at_checked(SALT)?;
        let cipher = Self(secret.file_cipher(salt)?);
        let mut proof = proof.get(..NONCE + TAG)?.to_vec();
        cipher.open(Place::Head, &mut proof)?;
        Some(cipher)
    }

    /// Encrypts what stands between room for a tag and the nonce, which must be random.
    fn seal(&self, place: Place, sealed: &mut [u8]) -> std::io::Result<()> {
        let failed = || std::io::Error::other("it can not be encrypted");
        let (nonce, rest) = sealed.split_at_mut(NONCE);
        let (text, tag) = rest.split_at_mut(rest.len() - TAG);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let sealed = self.0.seal_in_place_separate_tag(nonce, place.aad(), text);
        tag.copy_from_slice(sealed.map_err(|_| failed())?.as_ref());
        Ok(())
    }

    fn open<'a>(&self, place: Place, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, text) = sealed.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.0.open_in_place(nonce, place.aad(), text).ok().map(|text| &*text)
    }

    /// The blocks from `first` on that `plain`, whole blocks, is on disk.
    pub(super) fn seal_blocks(&self, first: u64, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let count = plain.len() / BLOCK;
        let mut nonces = vec![0; count * NONCE];
        random(&mut nonces)?;
        let mut out = Vec::with_capacity(count * STRIDE);
        let pairs = plain.chunks_exact(BLOCK).zip(nonces.chunks_exact(NONCE));
        for (number, (block, nonce)) in (first..).zip(pairs) {
            let start = out.len();
            out.extend_from_slice(nonce);
            out.extend_from_slice(block);
            out.resize(start + STRIDE, 0);
            self.seal(Place::Block(number), &mut out[start..])?;
        }
        Ok(out)
    }

    /// What block `number` holds, `None` if these bytes are not that block.
    pub(super) fn open_block<'a>(&self, number: u64, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        self.open(Place::Block(number), sealed).filter(|text| text.len() == BLOCK)
    }

    /// A slot as it is on disk.
    pub(super) fn seal_slot(&self, which: usize, slot: &Slot) -> std::io::Result<Vec<u8>> {
        let mut out = vec![0; SLOT];
        random(&mut out[..NONCE])?;
        let text = &mut out[NONCE..NONCE + SLOT_TEXT];
        text[..8].copy_from_slice(&slot.sequence.to_le_bytes());
        text[8..16].copy_from_slice(&slot.len.to_le_bytes());
        text[16..16 + slot.tail.len()].copy_from_slice(&slot.tail);
        self.seal(Place::Slot(which), &mut out)?;
        Ok(out)
    }

    /// The slot that these bytes are.
    pub(super) fn open_slot(&self, which: usize, sealed: &[u8]) -> Option<Slot> {
        let mut sealed = sealed.to_vec();
        let (sequence, rest) = self.open(Place::Slot(which), &mut sealed)?.split_first_chunk()?;
        let (len, tail) = rest.split_first_chunk()?;
        let len = u64::from_le_bytes(*len);
        let tail = tail.get(..(len % BLOCK as u64) as usize)?.to_vec();
        Some(Slot { sequence: u64::from_le_bytes(*sequence), len, tail })
    }
}

/// What is on disk is what `docs/formats/store.md` says: the values are those of another program
/// (Python's `cryptography`) that was written after it.
#[cfg(test)]
mod golden {
    use std::path::Path;

    use super::*;
    use crate::vault::Key;

    fn counting<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|i| from + i as u8)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn keys_are_named_and_wrapped_in_this_form() {
        let key = Key::new(counting(0));
        assert_eq!(key.id().to_string(), "2f5a2a8383bf3f55");
        let wrapped = "2f5a2a8383bf3f55c8c9cacbcccdcecfd0d1d2d3b475da2f7a628314745ff0cccc5714c6\
            b1be66a25e88e893b58d7059e967c695241be2051731046307c9922b30a9f476";
        let bytes = (0..wrapped.len()).step_by(2).map(|at| &wrapped[at..at + 2]);
        let bytes: Vec<_> = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let secret = key.unwrap(Path::new("s"), &bytes.try_into().unwrap(), b"place").unwrap();
        assert!(secret.is(counting(100)));
    }

    #[test]
    fn heads_slots_and_blocks_are_sealed_in_this_form() {
        let salt: [u8; SALT] = counting(50);
        let nonce: [u8; NONCE] = counting(200);
        let mut head = [MAGIC.as_slice(), &salt, &nonce].concat();
        head.extend([
            0x51, 0x96, 0x07, 0x20, 0x22, 0x56, 0x2c, 0x11, 0xc5, 0x0e, 0x51, 0x86, 0x2d, 0x7e,
            0x88, 0xbb,
        ]);
        let cipher = FileCipher::of(&Secret::of(counting(100)), &head).unwrap();
        let sealed = |place, text: &[u8]| {
            let mut all = [&nonce, text, &[0; TAG]].concat();
            cipher.seal(place, &mut all).unwrap();
            hex(&all[NONCE..NONCE + 8]) + " " + &hex(&all[all.len() - TAG..])
        };
        let block: Vec<u8> = (0..BLOCK).map(|i| (i % 251) as u8).collect();
        let expected = "87edd8340f5befdd 638b40865667471f2b52cfc1a7a7938b";
        assert_eq!(sealed(Place::Block(5), &block), expected);
        let mut slot = [&9u64.to_le_bytes()[..], &4100u64.to_le_bytes(), b"tail"].concat();
        slot.resize(SLOT_TEXT, 0);
        let expected = "8eecda370b5ee9da 7771d701d129b0d1abd4a0c79f6c1c77";
        assert_eq!(sealed(Place::Slot(1), &slot), expected);
        let written = cipher.seal_slot(1, &Slot { sequence: 9, len: 4100, tail: b"tail".into() });
        let found = cipher.open_slot(1, &written.unwrap()).unwrap();
        assert_eq!((found.sequence, found.len, found.tail), (9, 4100, b"tail".to_vec()));
    }
}
