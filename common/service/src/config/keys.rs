//! `[[tape_key]]`: keys for the data on tapes, and which library writes which tape with which.

use std::path::PathBuf;
use std::sync::Arc;

use model::Barcode;
use serde::Deserialize;
use store::read_key_file;
use tape::{KeyRing, TapeKey};

use super::PhysicalLibrary;

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
        let secret = read_key_file(&self.file).map_err(|error| error.to_string())?;
        Ok(TapeKey::new(&self.name, secret))
    }
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
    use std::path::Path;

    use store::make_key_file;

    use super::*;

    fn file(path: &Path) -> TapeKeyFile {
        TapeKeyFile { name: "site-1".into(), file: path.to_owned() }
    }

    #[test]
    fn a_key_is_made_once_and_read_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        make_key_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.trim_end().len()), (65, 64));
        let key = file(&path).read().unwrap();
        assert!(!format!("{key:?} {:?}", file(&path)).contains(text.trim_end()));
        assert!(make_key_file(&path).is_err(), "a key must never be overwritten");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        make_key_file(&dir.path().join("b.key")).unwrap();
        assert_ne!(file(&dir.path().join("b.key")).read().unwrap().id(), key.id());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(file(&path).read().unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        for text in
            ["", "abc", &"f0".repeat(31), &"f0".repeat(33), &"g0".repeat(32), &"f0".repeat(32)]
        {
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
