//! Files with a key: 64 hexadecimal digits for 32 random bytes, of mode 0600. Stores and tapes have
//! theirs in the same form.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::KeyError;

/// Bytes of a key.
const LENGTH: usize = 32;
/// No key file is longer.
const LONGEST: usize = 256;

/// A key's bytes, wiped when they are dropped.
pub type KeyBytes = Zeroizing<[u8; LENGTH]>;

/// Sixty-four hexadecimal digits as bytes, without leaving copies behind.
fn decode(text: &[u8]) -> Option<KeyBytes> {
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

/// Reads a key file. What is in it is never told.
///
/// # Errors
/// [`KeyError::File`] where others than the owner may use it or it holds no key, or one that
/// nobody drew at random; [`KeyError::Io`].
pub fn read_key_file(path: &Path) -> Result<KeyBytes, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let unfit = |what| KeyError::File { path: path.to_owned(), what };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(unfit("it is not a plain file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(unfit("it may be read by others than its owner; run chmod 600 on it"));
    }
    // Of its full length from the beginning, so that it does not grow and leave copies.
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST));
    file.take(LONGEST as u64).read_to_end(&mut text).map_err(io)?;
    let key = decode(text.trim_ascii_end());
    let key = key.ok_or_else(|| unfit("it is no key, which is 64 hexadecimal digits"))?;
    match key.iter().all(|byte| *byte == key[0]) {
        true => Err(unfit("it is no key: all its bytes are the same")),
        false => Ok(key),
    }
}

/// Makes a file with a new random key, mode 0600, durably.
///
/// # Errors
/// [`KeyError::Io`]; also where there is a file of that name.
pub fn make_key_file(path: &Path) -> Result<KeyBytes, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut key = Zeroizing::new([0; LENGTH]);
    crate::vault::random(&mut *key).map_err(io)?;
    let mut text = Zeroizing::new(Vec::with_capacity(2 * LENGTH + 1));
    for byte in key.iter() {
        text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    text.push(b'\n');
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(io)?;
    dir.sync_all().map_err(io)?;
    Ok(key)
}
