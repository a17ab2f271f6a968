//! The key of a store, which is kept in a file of its own, and the key that it wraps.

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use super::random;
use crate::keyfile::{make_key_file, read_key_file};

const LENGTH: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;
/// A wrapped data key: key id, nonce, the data key encrypted, tag.
pub(crate) const WRAPPED: usize = KeyId::LENGTH + NONCE + LENGTH + TAG;

/// Which key it is, without telling the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; Self::LENGTH]);

impl KeyId {
    const LENGTH: usize = 8;
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A store's key can not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store is encrypted and no key was given. The operator's fault: the configuration lost
    /// its key file.
    #[error(
        "the store {} is encrypted with key {id}, and no key file is configured",
        dir.display()
    )]
    Missing {
        /// The store.
        dir: PathBuf,
        /// The key it needs.
        id: KeyId,
    },
    /// Another key was given. The operator's fault.
    #[error(
        "the store {} is encrypted with key {id}, but the key file has key {given}",
        dir.display()
    )]
    Wrong {
        /// The store.
        dir: PathBuf,
        /// The key it needs.
        id: KeyId,
        /// The key that was given.
        given: KeyId,
    },
    /// A key was given for a store that is not encrypted. A store is encrypted when it is made,
    /// so the operator makes a new one and brings the data over.
    #[error("the store {} is not encrypted, but a key file is configured", .0.display())]
    NotEncrypted(PathBuf),
    /// The wrapped key in the store's header is not what was written.
    #[error("the key in the header of the store {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// The key file can not be used. The operator's fault.
    #[error("the key file {} can not be used: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The key file can not be read or written.
    #[error("the key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The key of a store. Wiped from memory when it is dropped.
pub struct Key(Zeroizing<[u8; LENGTH]>);

/// A length of derived bytes.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key file, see [`read_key_file`].
    ///
    /// # Errors
    /// [`KeyError::File`] where the file is not as it must be, [`KeyError::Io`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        read_key_file(path).map(Self)
    }

    /// Makes a new key in a file that must not be there yet, see [`make_key_file`].
    ///
    /// # Errors
    /// [`KeyError::Io`]; also where the file is there.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        make_key_file(path).map(Self)
    }

    /// Which key it is.
    pub fn id(&self) -> KeyId {
        let mut id = [0; KeyId::LENGTH];
        derive(&*self.0, &[], b"twinreel key id", Bytes(KeyId::LENGTH), |okm| {
            okm.fill(&mut id).ok()
        });
        KeyId(id)
    }

    fn wrapping(&self) -> Option<LessSafeKey> {
        cipher(&*self.0, &[], b"twinreel key wrap")
    }

    /// The data key in a form that only this key opens. `place` is what it must stand beside.
    pub(crate) fn wrap(&self, secret: &Secret, place: &[u8]) -> std::io::Result<[u8; WRAPPED]> {
        let mut out = [0; WRAPPED];
        let (id, rest) = out.split_at_mut(KeyId::LENGTH);
        id.copy_from_slice(&self.id().0);
        let (nonce, rest) = rest.split_at_mut(NONCE);
        let (text, tag) = rest.split_at_mut(LENGTH);
        random(nonce)?;
        text.copy_from_slice(&*secret.0);
        let sealed = self.wrapping().zip(Nonce::try_assume_unique_for_key(nonce).ok());
        let sealed = sealed.and_then(|(key, nonce)| {
            key.seal_in_place_separate_tag(nonce, Aad::from(place), text).ok()
        });
        let sealed = sealed.ok_or_else(|| std::io::Error::other("a key can not be wrapped"))?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(out)
    }

    /// The data key that was wrapped for the store in `dir`.
    pub(crate) fn unwrap(
        &self,
        dir: &Path,
        wrapped: &[u8; WRAPPED],
        place: &[u8],
    ) -> Result<Secret, KeyError> {
        let (id, given) = (wrapped_for(wrapped), self.id());
        if id != given {
            return Err(KeyError::Wrong { dir: dir.to_owned(), id, given });
        }
        let (nonce, sealed) = wrapped[KeyId::LENGTH..].split_at(NONCE);
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = self.wrapping().zip(Nonce::try_assume_unique_for_key(nonce).ok());
        let opened = opened.and_then(|(key, nonce)| {
            let text = key.open_in_place(nonce, Aad::from(place), &mut sealed).ok()?;
            Some(Secret(Zeroizing::new((&*text).try_into().ok()?)))
        });
        opened.ok_or_else(|| KeyError::Damaged(dir.to_owned()))
    }
}

/// The key that opens a wrapped data key.
pub(crate) fn wrapped_for(wrapped: &[u8; WRAPPED]) -> KeyId {
    let mut id = [0; KeyId::LENGTH];
    id.copy_from_slice(&wrapped[..KeyId::LENGTH]);
    KeyId(id)
}

/// The data key of a store: keys of files are made of it. Wiped when it is dropped.
pub(crate) struct Secret(Zeroizing<[u8; LENGTH]>);

impl Secret {
    /// A new one.
    pub(crate) fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        random(&mut *bytes)?;
        Ok(Self(bytes))
    }

    /// A known one.
    #[cfg(test)]
    pub(super) fn of(bytes: [u8; LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    #[cfg(test)]
    pub(super) fn is(&self, bytes: [u8; LENGTH]) -> bool {
        *self.0 == bytes
    }

    /// The cipher of the file that has this salt.
    pub(super) fn file_cipher(&self, salt: &[u8]) -> Option<LessSafeKey> {
        cipher(&*self.0, salt, b"twinreel store file")
    }
}

fn cipher(key: &[u8], salt: &[u8], use_for: &[u8]) -> Option<LessSafeKey> {
    derive(key, salt, use_for, &AES_256_GCM, |okm| Some(LessSafeKey::new(UnboundKey::from(okm))))
}

/// HKDF with SHA-256.
fn derive<L: KeyType, T>(
    key: &[u8],
    salt: &[u8],
    use_for: &[u8],
    len: L,
    take: impl FnOnce(aws_lc_rs::hkdf::Okm<'_, L>) -> Option<T>,
) -> Option<T> {
    let parts = [use_for];
    let prk = Salt::new(HKDF_SHA256, salt).extract(key);
    take(prk.expand(&parts, len).ok()?)
}
