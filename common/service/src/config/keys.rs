//! `[[tape_key]]`: keys for the data on tapes, and which library writes which tape with which.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Barcode;
use serde::Deserialize;
use tape::{KeyRing, TapeKey};
use zeroize::Zeroizing;

use super::PhysicalLibrary;
use super::check::private;

/// Bytes of a key.
const LENGTH: usize = 32;

/// `[[tape_key]]`: a key for AES-256 in the drive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapeKeyFile {
    /// What it is called here, and on the tapes: 1 to 32 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The file with the key, mode 0600. Absolute after loading.
    pub file: PathBuf,
}

/// Tapes of a library that are written with another key than its others, or in the clear.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPool {
    /// The first and the last volume tag: `PTA010L8-PTA019L8`, or one.
    pub tapes: String,
    /// The name of the key; in the clear if not given.
    pub key: Option<String>,
}

/// Sixty-four hexadecimal digits as bytes, without leaving copies behind.
fn decode(text: &[u8]) -> Option<Zeroizing<[u8; LENGTH]>> {
    let mut key = Zeroizing::new([0; LENGTH]);
    if text.len() != 2 * LENGTH {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| (pair[at] as char).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(key)
}

impl TapeKeyFile {
    /// Reads the key.
    ///
    /// # Errors
    /// The file is not there, may be read by others, or holds no key. What is in it is not told.
    pub fn read(&self) -> Result<TapeKey, String> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if !(1..=32).contains(&self.name.len()) || !self.name.bytes().all(legal) {
            return Err("name has 1 to 32 letters, digits, hyphens, underscores and dots".into());
        }
        private(&self.file)?;
        let shown = self.file.display();
        // Of its full length from the beginning, so that it does not grow and leave copies.
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        std::fs::File::open(&self.file)
            .and_then(|file| file.take(256).read_to_end(&mut text))
            .map_err(|error| format!("{shown} can not be read: {error}"))?;
        let secret = decode(text.trim_ascii_end()).ok_or_else(|| {
            format!("{shown} is no key: 64 hexadecimal digits (twinreel key new makes one)")
        })?;
        Ok(TapeKey::new(&self.name, secret))
    }
}

/// Makes a file with a new random key, mode 0600, durable.
///
/// # Errors
/// There is a file of that name already, or it can not be written.
pub fn make_key(path: &Path) -> std::io::Result<()> {
    let mut key = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *key).map_err(std::io::Error::other)?;
    let mut text = Zeroizing::new(Vec::with_capacity(2 * LENGTH + 1));
    for byte in key.iter() {
        text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    text.push(b'\n');
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&text)?;
    file.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads the keys and gives each library its own. What is wrong, in words.
pub(crate) fn settle(files: &[TapeKeyFile], libraries: &mut [PhysicalLibrary]) -> Vec<String> {
    let (mut keys, mut texts) = (Vec::<Arc<TapeKey>>::new(), Vec::new());
    for file in files {
        let name = &file.name;
        match file.read() {
            Err(text) => texts.push(format!("tape_key {name:?}: {text}")),
            Ok(key) => {
                if keys.iter().any(|other| other.name() == name) {
                    texts.push(format!("tape_key {name:?}: is there twice"));
                } else if let Some(other) = keys.iter().find(|other| other.id() == key.id()) {
                    let other = other.name();
                    texts.push(format!("tape_key {name:?}: is the same key as {other:?}"));
                }
                keys.push(Arc::new(key));
            }
        }
    }
    // A key that could not be read is one problem, not two.
    if texts.is_empty() {
        for library in libraries {
            match ring(KeyRing::new(keys.clone()), library) {
                Ok(ring) => library.keys = Arc::new(ring),
                Err(text) => texts.push(format!("physical_library {}: {text}", library.name)),
            }
        }
    }
    texts
}

fn ring(mut ring: KeyRing, library: &PhysicalLibrary) -> Result<KeyRing, String> {
    let none = |name: &str| format!("there is no [[tape_key]] called {name:?}");
    if let Some(name) = &library.key {
        ring = ring.for_library(name).ok_or_else(|| none(name))?;
    }
    for pool in &library.key_pools {
        let (first, last) = pool.range()?;
        let name = pool.key.as_deref();
        ring = ring.for_pool(first, last, name).ok_or_else(|| none(name.unwrap_or_default()))?;
    }
    Ok(ring)
}

impl KeyPool {
    fn range(&self) -> Result<(Barcode, Barcode), String> {
        let tapes = &self.tapes;
        let wrong = || format!("key_pools: {tapes:?} is not like PTA010L8-PTA019L8 or PTA010L8");
        let (first, last) = tapes.split_once('-').unwrap_or((tapes, tapes));
        let tag = |text| Barcode::new(text).map_err(|_| wrong());
        let (first, last) = (tag(first)?, tag(last)?);
        let fits = first.as_str().len() == last.as_str().len() && first <= last;
        if fits { Ok((first, last)) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(path: &Path) -> TapeKeyFile {
        TapeKeyFile { name: "site-1".into(), file: path.to_owned() }
    }

    #[test]
    fn a_key_is_made_once_and_read_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        make_key(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.trim_end().len()), (65, 64));
        let key = file(&path).read().unwrap();
        assert!(!format!("{key:?} {:?}", file(&path)).contains(text.trim_end()));
        assert!(make_key(&path).is_err(), "a key must never be overwritten");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        make_key(&dir.path().join("b.key")).unwrap();
        assert_ne!(file(&dir.path().join("b.key")).read().unwrap().id(), key.id());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(file(&path).read().unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        for text in ["", "abc", &"f0".repeat(31), &"f0".repeat(33), &"g0".repeat(32)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = file(&path).read().unwrap_err();
            assert!(error.contains("is no key"), "{error}");
            assert!(text.len() < 4 || !error.contains(text), "{error}");
        }
        let named = TapeKeyFile { name: "a b".into(), ..file(&path) };
        assert!(named.read().unwrap_err().contains("name has"));
    }

    #[test]
    fn pools_are_ranges_of_tags_of_one_length() {
        let range = |tapes: &str| KeyPool { tapes: tapes.into(), key: None }.range();
        assert!(range("PTA010L8-PTA019L8").is_ok() && range("PTA010L8").is_ok());
        for wrong in ["", "PTA019L8-PTA010L8", "PTA1-PTA010L8", "PTA010L8-"] {
            assert!(range(wrong).unwrap_err().contains("PTA010L8"), "{wrong}");
        }
    }
}
