//! Keys for the data on tapes: which there are, and which tape is written with which.
//!
//! A key never leaves [`TapeKey`] but as the page that is sent to a drive. What may be told of it
//! is its name and its [`KeyId`].

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use model::Barcode;
use scsi::crypt::{KEY_LENGTH, Kads};
use zeroize::Zeroizing;

/// What names a key on the tapes that it was used for: a digest, from which the key does not
/// follow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 12]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key of AES-256-GCM. It is not printed, and wiped when it is dropped.
pub struct TapeKey {
    name: String,
    id: KeyId,
    secret: Zeroizing<[u8; KEY_LENGTH]>,
}

impl fmt::Debug for TapeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TapeKey({self})")
    }
}

impl fmt::Display for TapeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.name, self.id)
    }
}

impl TapeKey {
    /// A key and its name, of which the first 32 bytes go onto the tapes.
    pub fn new(name: &str, secret: Zeroizing<[u8; KEY_LENGTH]>) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(64));
        text.extend_from_slice(b"twinreel tape key id");
        text.extend_from_slice(&*secret);
        let mut id = [0; 12];
        id.iter_mut().zip(digest(&SHA256, &text).as_ref()).for_each(|(to, from)| *to = *from);
        Self { name: name.to_owned(), id: KeyId(id), secret }
    }

    /// What it is called in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What names it on tapes.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key itself, for the page that takes it to a drive.
    pub(crate) fn secret(&self) -> &[u8] {
        &*self.secret
    }

    /// What goes onto the tape with each block, as far as a drive has room for it.
    pub(crate) fn kads(&self) -> Kads {
        let name: Vec<u8> = self.name.bytes().take(32).collect();
        Kads { unauthenticated: name, authenticated: self.id.0.to_vec() }
    }
}

/// What keeps data from being written or read for the sake of a key. The texts name a key by its
/// name and identifier; none holds one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The block here was encrypted by a key that this engine does not have. The operator brings
    /// the key file and configures it.
    #[error("the data on the tape is encrypted by key {0}, which is not configured here")]
    Unknown(String),
    /// The key that the tape names does not decrypt it: the block is damaged or was altered.
    #[error("key {0} does not decrypt the data that the tape says it does")]
    Wrong(String),
    /// The tape is to be encrypted and its drive can not do that; nothing was written.
    #[error("the tape is to be encrypted, and that can not be done here: {0}")]
    Unsupported(String),
    /// The drive has lost its key while it wrote: what was written since the last flush may be on
    /// the tape without encryption.
    #[error("the drive did not keep key {0}: data may have been written without encryption")]
    Lost(String),
}

/// The keys of an engine, and the rule of one library for which tape is written with which.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: Vec<Arc<TapeKey>>,
    /// For every tape that no pool has.
    library: Option<Arc<TapeKey>>,
    /// First and last volume tag of a pool, and its key; `None` is written in the clear.
    pools: Vec<(Barcode, Barcode, Option<Arc<TapeKey>>)>,
}

impl KeyRing {
    /// Keys to read with; nothing is encrypted yet.
    pub fn new(keys: Vec<Arc<TapeKey>>) -> Self {
        Self { keys, ..Self::default() }
    }

    fn named(&self, name: &str) -> Option<Arc<TapeKey>> {
        self.keys.iter().find(|key| key.name == name).cloned()
    }

    /// Everything is written with the key of this name. `None`: there is none of it.
    pub fn for_library(mut self, name: &str) -> Option<Self> {
        self.library = Some(self.named(name)?);
        Some(self)
    }

    /// The tapes from `first` to `last` are written with the key of this name, without one in the
    /// clear; what is said first counts. `None`: there is no key of that name.
    pub fn for_pool(mut self, first: Barcode, last: Barcode, name: Option<&str>) -> Option<Self> {
        let key = match name {
            Some(name) => Some(self.named(name)?),
            None => None,
        };
        self.pools.push((first, last, key));
        Some(self)
    }

    /// Whether nothing was ever said about keys: drives are left as they are.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a tape is written with.
    ///
    /// # Errors
    /// It depends on the tape, and which tape it is nobody knows.
    pub(crate) fn for_tape(
        &self,
        tape: Option<&Barcode>,
    ) -> Result<Option<Arc<TapeKey>>, KeyError> {
        let Some(tape) = tape else {
            return match self.pools.is_empty() {
                true => Ok(self.library.clone()),
                false => Err(KeyError::Unsupported("nobody knows which tape it is".to_owned())),
            };
        };
        // Of the same length only: PTA1 is no tape between PTA000L8 and PTA999L8.
        let length = tape.as_str().len();
        let has = |first: &Barcode, last: &Barcode| {
            first.as_str().len() == length
                && last.as_str().len() == length
                && (first.as_str()..=last.as_str()).contains(&tape.as_str())
        };
        let pool = self.pools.iter().find(|(first, last, _)| has(first, last));
        Ok(pool.map_or(&self.library, |(_, _, key)| key).clone())
    }

    /// The key that a block was written with.
    pub(crate) fn find(&self, kads: &Kads) -> Option<Arc<TapeKey>> {
        let by_id = self.keys.iter().find(|key| key.id.0[..] == kads.authenticated);
        let named = || {
            let is_named = |key: &&Arc<TapeKey>| key.kads().unauthenticated == kads.unauthenticated;
            // Where the drive had no room for the identifier, the name has to do.
            let named = self.keys.iter().find(is_named);
            named.filter(|_| kads.authenticated.is_empty() && !kads.unauthenticated.is_empty())
        };
        by_id.or_else(named).cloned()
    }
}

/// Key-associated data for people: what another program wrote there may be anything.
pub(crate) fn describe(kads: &Kads) -> String {
    let name: String = String::from_utf8_lossy(&kads.unauthenticated)
        .trim_matches(['\0', ' '])
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let id: String = kads.authenticated.iter().map(|byte| format!("{byte:02x}")).collect();
    match (name.is_empty(), id.is_empty()) {
        (true, true) => "without a name".to_owned(),
        (true, false) => id,
        (false, true) => format!("{name:?}"),
        (false, false) => format!("{name:?} ({id})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, byte: u8) -> Arc<TapeKey> {
        Arc::new(TapeKey::new(name, Zeroizing::new([byte; KEY_LENGTH])))
    }

    fn tag(text: &str) -> Barcode {
        Barcode::new(text).unwrap()
    }

    #[test]
    fn a_key_is_not_printed_and_its_name_does_not_make_its_identifier() {
        let one = key("site", 0x5a);
        let shown = format!("{one:?} {one} {:?}", KeyRing::new(vec![Arc::clone(&one)]));
        assert!(shown.contains("site") && shown.contains(&one.id().to_string()), "{shown}");
        assert!(!shown.contains("5a5a5a") && !shown.contains("90, 90"), "{shown}");
        assert_eq!(key("other", 0x5a).id(), one.id());
        assert_ne!(key("site", 0x5b).id(), one.id());
    }

    #[test]
    fn a_tape_is_written_with_the_key_of_its_pool() {
        let ring = KeyRing::new(vec![key("site", 1), key("away", 2)]);
        assert!(ring.for_tape(None).unwrap().is_none());
        let ring = ring.for_library("site").unwrap();
        let name = |ring: &KeyRing, tape: &str| {
            let key = ring.for_tape(Some(&tag(tape))).unwrap();
            key.map(|key| key.name().to_owned())
        };
        assert_eq!(ring.for_tape(None).unwrap().unwrap().name(), "site");
        assert!(ring.clone().for_pool(tag("A"), tag("B"), Some("none")).is_none());
        let ring = ring.for_pool(tag("PTA010L8"), tag("PTA019L8"), Some("away")).unwrap();
        let ring = ring.for_pool(tag("PTA020L8"), tag("PTA020L8"), None).unwrap();
        assert_eq!(name(&ring, "PTA009L8").as_deref(), Some("site"));
        assert_eq!(name(&ring, "PTA010L8").as_deref(), Some("away"));
        assert_eq!(name(&ring, "PTA019L8").as_deref(), Some("away"));
        assert_eq!(name(&ring, "PTA0101L8").as_deref(), Some("site"));
        assert_eq!(name(&ring, "PTA020L8"), None);
        assert!(matches!(ring.for_tape(None), Err(KeyError::Unsupported(_))));
    }

    #[test]
    fn a_block_names_its_key() {
        let ring = KeyRing::new(vec![key("site", 1), key("away", 2)]);
        let away = key("away", 2);
        let found = |kads: Kads| ring.find(&kads).map(|key| key.name().to_owned());
        assert_eq!(found(away.kads()).as_deref(), Some("away"));
        let only_name = Kads { authenticated: Vec::new(), ..away.kads() };
        assert_eq!(found(only_name).as_deref(), Some("away"));
        // The name of a key that is configured, and the identifier of another one.
        assert_eq!(found(key("away", 3).kads()), None);
        assert_eq!(found(Kads::default()), None);
        assert_eq!(describe(&Kads::default()), "without a name");
        let strange = Kads { unauthenticated: b"a\nb\0".to_vec(), authenticated: vec![1, 2] };
        assert_eq!(describe(&strange), "\"a?b\" (0102)");
    }
}
