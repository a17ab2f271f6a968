//! SHA-256 names of data.

use std::fmt;

/// The SHA-256 of a chunk's bytes: its name at every site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads a digest from exactly 32 bytes, `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    /// The first eight characters: enough to tell digests apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_prints_as_hex_and_takes_only_32_bytes() {
        let digest = Digest::from_slice(&[0xab; 32]).unwrap();
        assert_eq!(digest.to_string(), "ab".repeat(32));
        assert_eq!(format!("{digest:?}"), "abababab");
        assert!(Digest::from_slice(&[0; 31]).is_none());
    }
}
