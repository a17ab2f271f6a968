//! Data encryption in the drive (SSC-4 8.5): the pages of SECURITY PROTOCOL IN and OUT, protocol
//! 20h. Key material is borrowed where it is read, zeroed where it is written, and not printed.

use std::fmt;

use zeroize::Zeroizing;

use crate::Malformed;
use crate::wire::{be16, be32, be64, bit, need};

/// SECURITY PROTOCOL of tape data encryption.
pub const PROTOCOL: u8 = 0x20;

/// SECURITY ALGORITHM CODE of AES-256-GCM with a 16 byte MAC (SPC-5, table of codes).
pub const AES_256_GCM: u32 = 0x0001_0014;

/// Bytes of a key of [`AES_256_GCM`].
pub const KEY_LENGTH: usize = 32;

/// The longest page that is looked at.
pub const PAGE_MAX: usize = 1024;

/// Page codes: SECURITY PROTOCOL SPECIFIC of protocol [`PROTOCOL`].
pub mod page {
    /// In: which pages SECURITY PROTOCOL IN has.
    pub const IN_SUPPORT: u16 = 0x0000;
    /// In: which pages SECURITY PROTOCOL OUT has.
    pub const OUT_SUPPORT: u16 = 0x0001;
    /// In: data encryption capabilities.
    pub const CAPABILITIES: u16 = 0x0010;
    /// In: supported key formats.
    pub const KEY_FORMATS: u16 = 0x0011;
    /// In: data encryption management capabilities.
    pub const MANAGEMENT: u16 = 0x0012;
    /// In: data encryption status.
    pub const STATUS: u16 = 0x0020;
    /// In: next block encryption status.
    pub const NEXT_BLOCK: u16 = 0x0021;
    /// Out: set data encryption.
    pub const SET: u16 = 0x0010;
}

/// For whom encryption parameters hold (SSC-4 8.5.3.2, SCOPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What is used by those who have set nothing.
    Public = 0,
    /// The initiator that sets them.
    Local = 1,
    /// All initiators.
    All = 2,
}

impl Scope {
    fn of(code: u8) -> Option<Self> {
        [Self::Public, Self::Local, Self::All].into_iter().find(|scope| *scope as u8 == code)
    }
}

/// ENCRYPTION MODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Blocks are written as they come.
    Disable = 0,
    /// The host has encrypted them.
    External = 1,
    /// The drive encrypts them.
    Encrypt = 2,
}

/// DECRYPTION MODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decryption {
    /// An encrypted block is an error.
    Disable = 0,
    /// Encrypted blocks come as they are on tape.
    Raw = 1,
    /// An unencrypted block is an error.
    Decrypt = 2,
    /// Both kinds can be read.
    Mixed = 3,
}

fn encryption(code: u8) -> Option<Encryption> {
    use Encryption::{Disable, Encrypt, External};
    [Disable, External, Encrypt].into_iter().find(|mode| *mode as u8 == code)
}

fn decryption(code: u8) -> Option<Decryption> {
    use Decryption::{Decrypt, Disable, Mixed, Raw};
    [Disable, Raw, Decrypt, Mixed].into_iter().find(|mode| *mode as u8 == code)
}

/// Key-associated data: what is known of a key to everybody, on the tape with each block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kads {
    /// U-KAD (type 00h): not protected by the block's MAC. Empty: there is none.
    pub unauthenticated: Vec<u8>,
    /// A-KAD (type 01h): covered by the block's MAC. Empty: there is none.
    pub authenticated: Vec<u8>,
}

impl Kads {
    fn encode(&self, authenticated: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let each = [(0x00, 0, &self.unauthenticated), (0x01, authenticated, &self.authenticated)];
        for (kind, state, value) in each.into_iter().filter(|it| !it.2.is_empty()) {
            bytes.extend([kind, state]);
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value);
        }
        bytes
    }

    /// Descriptors of other types are passed over; `None` where one is cut off.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut kads = Self::default();
        while !bytes.is_empty() {
            let length = usize::from(be16(bytes.get(..4)?, 2));
            let value = bytes.get(4..4 + length)?;
            match bytes[0] {
                0x00 => kads.unauthenticated = value.to_vec(),
                0x01 => kads.authenticated = value.to_vec(),
                _ => {}
            }
            bytes = &bytes[4 + length..];
        }
        Some(kads)
    }
}

fn page(code: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend(code.to_be_bytes());
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The whole page in `bytes`, with its header, if it has this code and at least so many bytes.
fn open<'a>(
    bytes: &'a [u8],
    code: u16,
    least: usize,
    what: &'static str,
) -> Result<&'a [u8], Malformed> {
    let head = need(bytes, 4, what)?;
    let wrong = Malformed { what, needed: least, found: 0 };
    if be16(head, 0) != code {
        return Err(wrong);
    }
    let bytes = need(bytes, 4 + usize::from(be16(head, 2)), what)?;
    need(bytes, least, what)?;
    Ok(bytes)
}

/// SECURITY PROTOCOL IN, protocol 00h: which protocols there are.
pub fn protocols(list: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    bytes.extend((list.len() as u16).to_be_bytes());
    bytes.extend(list);
    bytes
}

/// A page that lists page codes ([`page::IN_SUPPORT`], [`page::OUT_SUPPORT`]).
pub fn support(code: u16, codes: &[u16]) -> Vec<u8> {
    let body: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
    page(code, &body)
}

/// The page of supported key formats: 00h, plain text.
pub fn key_formats() -> Vec<u8> {
    page(page::KEY_FORMATS, &[0x00])
}

/// Data encryption management capabilities: clear key on demount, all three scopes.
pub fn management() -> Vec<u8> {
    let mut body = [0; 12];
    body[1] = 0x04;
    body[3] = 0x07;
    page(page::MANAGEMENT, &body)
}

/// An algorithm that a drive has (SSC-4 8.5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// ALGORITHM INDEX: how the drive calls it.
    pub index: u8,
    /// SECURITY ALGORITHM CODE.
    pub code: u32,
    /// Whether the drive itself encrypts and decrypts with it.
    pub is_capable: bool,
    /// Whether it can be used with the tape in the drive (AVFMV).
    pub is_valid_here: bool,
    /// The longest U-KAD, and whether each must be as long.
    pub unauthenticated: (u16, bool),
    /// The longest A-KAD, and whether each must be as long.
    pub authenticated: (u16, bool),
    /// Bytes of a key.
    pub key_length: u16,
}

const ALGORITHM: usize = 24;

impl Algorithm {
    /// The data encryption capabilities page with these algorithms.
    pub fn encode_page(list: &[Self]) -> Vec<u8> {
        let mut body = vec![0; 16];
        for it in list {
            let mut one = [0; ALGORITHM];
            one[0] = it.index;
            one[2..4].copy_from_slice(&(ALGORITHM as u16 - 4).to_be_bytes());
            // DELB_C: encrypted blocks are told from others. 2: in hardware.
            let capable = if it.is_capable { 0x1a } else { 0x10 };
            one[4] = u8::from(it.is_valid_here) << 7 | capable;
            // NONCE_C 1: the drive makes its nonces. KADF_C: no.
            one[5] = 0x10 | u8::from(it.unauthenticated.1) << 1 | u8::from(it.authenticated.1);
            one[6..8].copy_from_slice(&it.unauthenticated.0.to_be_bytes());
            one[8..10].copy_from_slice(&it.authenticated.0.to_be_bytes());
            one[10..12].copy_from_slice(&it.key_length.to_be_bytes());
            // RDMC_C 1: raw decryption is never allowed.
            one[12] = 0x02;
            one[20..24].copy_from_slice(&it.code.to_be_bytes());
            body.extend(one);
        }
        page(page::CAPABILITIES, &body)
    }

    /// Reads the data encryption capabilities page.
    ///
    /// # Errors
    /// It is none, or cut off.
    pub fn parse_page(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let what = "data encryption capabilities page";
        let bytes = open(bytes, page::CAPABILITIES, 20, what)?;
        let (mut rest, mut list) = (&bytes[20..], Vec::new());
        while !rest.is_empty() {
            let one = need(rest, ALGORITHM, what)?;
            let length = 4 + usize::from(be16(one, 2));
            list.push(Self {
                index: one[0],
                code: be32(one, 20),
                is_capable: one[4] & 0x03 != 0 && one[4] & 0x0c != 0,
                is_valid_here: bit(one[4], 7),
                unauthenticated: (be16(one, 6), bit(one[5], 1)),
                authenticated: (be16(one, 8), bit(one[5], 0)),
                key_length: be16(one, 10),
            });
            rest = rest.get(length.max(ALGORITHM)..).unwrap_or_default();
        }
        Ok(list)
    }
}

/// The set data encryption page (SSC-4 8.5.3.2).
#[derive(Clone, PartialEq, Eq)]
pub struct SetEncryption<'a> {
    /// For whom it holds.
    pub scope: Scope,
    /// CKOD: the key goes when the tape goes.
    pub clear_on_demount: bool,
    /// How blocks are written.
    pub encryption: Encryption,
    /// How blocks are read.
    pub decryption: Decryption,
    /// ALGORITHM INDEX.
    pub algorithm: u8,
    /// The key in plain text (KEY FORMAT 00h), empty where both modes are off.
    pub key: &'a [u8],
    /// What goes onto the tape with each block.
    pub kads: Kads,
}

impl fmt::Debug for SetEncryption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetEncryption")
            .field("scope", &self.scope)
            .field("encryption", &self.encryption)
            .field("decryption", &self.decryption)
            .field("kads", &self.kads)
            .finish_non_exhaustive()
    }
}

const SET: usize = 20;

impl<'a> SetEncryption<'a> {
    /// The page. It holds the key, so it is zeroed when dropped, and made at once in its full
    /// length, so that no part of it stays where it grew.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let kads = self.kads.encode(0);
        let length = SET + self.key.len() + kads.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend(page::SET.to_be_bytes());
        bytes.extend((length as u16 - 4).to_be_bytes());
        bytes.extend([(self.scope as u8) << 5, u8::from(self.clear_on_demount) << 2]);
        bytes.extend([self.encryption as u8, self.decryption as u8, self.algorithm]);
        bytes.extend([0; 9]);
        bytes.extend((self.key.len() as u16).to_be_bytes());
        bytes.extend(self.key);
        bytes.extend(kads);
        bytes
    }

    /// Reads the page. An error is the byte of the first field that is not known here, and where
    /// it is smaller than a byte its highest bit.
    ///
    /// # Errors
    /// A field that is wrong or asks for what is not known here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, (u16, Option<u8>)> {
        let head = bytes.get(..SET).ok_or((2, None))?;
        if be16(head, 0) != page::SET {
            return Err((0, None));
        }
        if usize::from(be16(head, 2)) + 4 != bytes.len() {
            return Err((2, None));
        }
        let scope = Scope::of(head[4] >> 5).ok_or((4, Some(7)))?;
        // LOCK; CEEM, SDK, CKORP and CKORL are not known.
        for (at, known) in [(4, 0xe0), (5, 0x34), (9, 0), (10, 0)] {
            let stray = head[at] & !known;
            if stray != 0 {
                return Err((at as u16, Some(7 - stray.leading_zeros() as u8)));
            }
        }
        let encryption = encryption(head[6]).ok_or((6, None))?;
        let decryption = decryption(head[7]).ok_or((7, None))?;
        let length = usize::from(be16(head, 18));
        let key = bytes.get(SET..SET + length).ok_or((18, None))?;
        let at = SET + length;
        let kads = Kads::parse(&bytes[at..]).ok_or((at as u16, None))?;
        Ok(Self {
            scope,
            clear_on_demount: bit(head[5], 2),
            encryption,
            decryption,
            algorithm: head[8],
            key,
            kads,
        })
    }
}

/// The data encryption status page (SSC-4 8.5.2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionStatus {
    /// Whose parameters hold for who asks.
    pub scope: Scope,
    /// How blocks are written.
    pub encryption: Encryption,
    /// How blocks are read.
    pub decryption: Decryption,
    /// ALGORITHM INDEX.
    pub algorithm: u8,
    /// KEY INSTANCE COUNTER: another one with each change.
    pub instance: u32,
    /// What goes onto the tape with each block.
    pub kads: Kads,
}

impl EncryptionStatus {
    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; 20];
        body[0] = (self.scope as u8) << 5 | self.scope as u8;
        body[1] = self.encryption as u8;
        body[2] = self.decryption as u8;
        body[3] = self.algorithm;
        body[4..8].copy_from_slice(&self.instance.to_be_bytes());
        // PARAMETERS CONTROL 1: whoever sends SECURITY PROTOCOL OUT. RDMD: no raw decryption.
        body[8] = 0x11;
        body.extend(self.kads.encode(1));
        page(page::STATUS, &body)
    }

    /// Reads the page.
    ///
    /// # Errors
    /// It is none, or cut off.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let what = "data encryption status page";
        let bytes = open(bytes, page::STATUS, 24, what)?;
        let wrong = Malformed { what, needed: 24, found: bytes.len() };
        Ok(Self {
            scope: Scope::of(bytes[4] >> 5).ok_or(wrong)?,
            encryption: encryption(bytes[5]).ok_or(wrong)?,
            decryption: decryption(bytes[6]).ok_or(wrong)?,
            algorithm: bytes[7],
            instance: be32(bytes, 8),
            kads: Kads::parse(&bytes[24..]).ok_or(wrong)?,
        })
    }
}

/// ENCRYPTION STATUS of the next block (SSC-4 8.5.2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEncryption {
    /// The drive does not tell, or not now.
    Unknown = 1,
    /// The next object is no block.
    NotABlock = 2,
    /// It is not encrypted.
    Plain = 3,
    /// Encrypted by an algorithm that the drive does not have.
    Foreign = 4,
    /// Encrypted, and the drive has the key.
    Readable = 5,
    /// Encrypted, and the drive does not have the key.
    Locked = 6,
}

/// The next block encryption status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextBlock {
    /// The object that it speaks of.
    pub object: u64,
    /// How it is encrypted.
    pub encryption: BlockEncryption,
    /// ALGORITHM INDEX.
    pub algorithm: u8,
    /// What lies on the tape with it.
    pub kads: Kads,
}

impl NextBlock {
    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.object.to_be_bytes().to_vec();
        // RDMDS: it can not be read raw.
        let raw = u8::from(self.algorithm != 0);
        body.extend([self.encryption as u8, self.algorithm, raw, 0]);
        body.extend(self.kads.encode(if self.algorithm == 0 { 0 } else { 1 }));
        page(page::NEXT_BLOCK, &body)
    }

    /// Reads the page.
    ///
    /// # Errors
    /// It is none, or cut off.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        use BlockEncryption::{Foreign, Locked, NotABlock, Plain, Readable, Unknown};
        let what = "next block encryption status page";
        let bytes = open(bytes, page::NEXT_BLOCK, 16, what)?;
        let known = [NotABlock, Plain, Foreign, Readable, Locked];
        let found = known.into_iter().find(|it| *it as u8 == bytes[12] & 0x0f);
        let kads = Kads::parse(&bytes[16..]);
        Ok(Self {
            object: be64(bytes, 4),
            encryption: found.unwrap_or(Unknown),
            algorithm: bytes[13],
            kads: kads.ok_or(Malformed { what, needed: 20, found: bytes.len() })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kads() -> impl Strategy<Value = Kads> {
        (prop::collection::vec(any::<u8>(), 0..32), prop::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(unauthenticated, authenticated)| Kads { unauthenticated, authenticated })
    }

    proptest! {
        #[test]
        fn pages_lead_back(
            kads in kads(),
            key: [u8; KEY_LENGTH],
            scope in 0u8..3,
            modes in (0u8..3, 0u8..4),
            object: u64,
            block in 1usize..7,
        ) {
            let scope = Scope::of(scope).unwrap();
            let (encryption, decryption) =
                (encryption(modes.0).unwrap(), decryption(modes.1).unwrap());
            let set = SetEncryption {
                scope, clear_on_demount: true, encryption, decryption, algorithm: 1,
                key: &key, kads: kads.clone(),
            };
            let bytes = set.encode();
            prop_assert_eq!(SetEncryption::parse(&bytes), Ok(set.clone()));
            let status = EncryptionStatus {
                scope, encryption, decryption, algorithm: 1, instance: 7, kads: kads.clone(),
            };
            prop_assert_eq!(EncryptionStatus::parse(&status.encode()), Ok(status));
            use BlockEncryption as B;
            let block = [B::Unknown, B::NotABlock, B::Plain, B::Foreign, B::Readable, B::Locked]
                [block - 1];
            let next = NextBlock { object, encryption: block, algorithm: 1, kads };
            prop_assert_eq!(NextBlock::parse(&next.encode()), Ok(next));
        }

        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, code in 0u16..0x22) {
            let framed = page(code, &bytes);
            for bytes in [&bytes, &framed] {
                let _ = Algorithm::parse_page(bytes);
                let _ = SetEncryption::parse(bytes);
                let _ = EncryptionStatus::parse(bytes);
                let _ = NextBlock::parse(bytes);
            }
        }
    }

    #[test]
    fn known_bytes_of_the_standard() {
        let set = SetEncryption {
            scope: Scope::All,
            clear_on_demount: true,
            encryption: Encryption::Encrypt,
            decryption: Decryption::Mixed,
            algorithm: 1,
            key: &[0xaa; 32],
            kads: Kads { unauthenticated: b"k1".to_vec(), authenticated: Vec::new() },
        };
        let bytes = set.encode();
        let head = [0, 0x10, 0, 54, 0x40, 4, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32];
        assert_eq!(bytes[..20], head);
        assert_eq!(bytes[52..], [0, 0, 0, 2, b'k', b'1']);
        let shown = format!("{set:?}");
        assert!(!shown.contains("170") && !shown.contains("aa"), "{shown}");
        let mut wrong = bytes.to_vec();
        wrong[5] |= 0x08;
        assert_eq!(SetEncryption::parse(&wrong), Err((5, Some(3))));
        assert_eq!(SetEncryption::parse(&bytes[..40]), Err((2, None)));
    }

    #[test]
    fn algorithms_lead_back() {
        let one = Algorithm {
            index: 1,
            code: AES_256_GCM,
            is_capable: true,
            is_valid_here: true,
            unauthenticated: (32, false),
            authenticated: (12, false),
            key_length: 32,
        };
        let other = Algorithm { index: 2, is_valid_here: false, authenticated: (12, true), ..one };
        let bytes = Algorithm::encode_page(&[one, other]);
        assert_eq!(bytes.len(), 68);
        assert_eq!(Algorithm::parse_page(&bytes), Ok(vec![one, other]));
        assert!(Algorithm::parse_page(&bytes[..60]).is_err());
    }
}
