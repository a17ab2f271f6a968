//! Identifiers: ULIDs (48 bits of milliseconds since 1970, 80 random bits), each wrapped in the
//! name of what it identifies so that a job can not be taken for a cartridge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A ULID: 128 bits, written as 26 characters of Crockford's base 32, sortable by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ulid(pub u128);

/// A text that is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an identifier: 26 characters of 0-9 A-Z without I, L, O and U")]
pub struct IdError(pub String);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Ulid {
    /// Puts a time (milliseconds since 1970, 48 bits used) and randomness (80 bits used) together.
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
        Self(time | (random & ((1 << 80) - 1)))
    }

    /// A new identifier for the time given, its randomness from the operating system.
    ///
    /// Without a source of randomness the process id and a counter stand in: still unique on this
    /// machine, and no caller has to handle an error that does not happen.
    pub fn generate(unix_ms: u64) -> Self {
        let mut random = [0u8; 16];
        if getrandom::fill(&mut random).is_err() {
            use std::sync::atomic::{AtomicU64, Ordering};
            static COUNTER: AtomicU64 = AtomicU64::new(0);
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let unique = (u128::from(std::process::id()) << 40) | u128::from(count);
            random = unique.to_be_bytes();
        }
        Self::from_parts(unix_ms, u128::from_be_bytes(random))
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for i in (0..26).rev() {
            let digit = (self.0 >> (5 * i)) & 31;
            f.write_str(char::from(ALPHABET[digit as usize]).encode_utf8(&mut [0; 4]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ulid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError(text.chars().take(40).collect());
        if text.len() != 26 || text.as_bytes()[0] > b'7' {
            return Err(refuse());
        }
        text.bytes()
            .try_fold(0u128, |value, byte| {
                let digit = ALPHABET.iter().position(|a| *a == byte.to_ascii_uppercase());
                Ok((value << 5) | digit.ok_or_else(refuse)? as u128)
            })
            .map(Self)
    }
}

macro_rules! identifier {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub Ulid);

        impl $name {
            /// A new one for the time given (milliseconds since 1970).
            pub fn generate(unix_ms: u64) -> Self {
                Self(Ulid::generate(unix_ms))
            }

            /// The 16 bytes, big-endian: the form on disk and on the wire.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.0.to_be_bytes()
            }

            /// Reads the 16 bytes back, `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(Ulid(u128::from_be_bytes(bytes.try_into().ok()?))))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    )*};
}

identifier! {
    /// A virtual cartridge, whatever its barcode says. The same at both sites.
    CartridgeId
    /// One generation of a cartridge: what a mount that wrote left behind. The same at both sites.
    GenerationId
    /// A job, made by whoever started it and used at both sites.
    JobId
    /// The right to one open ghost device.
    LeaseId
    /// One run of an engine process: a new one tells the peer that it was restarted.
    EngineId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_lead_back() {
        let id = JobId::generate(1_700_000_000_000);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(JobId::from_slice(&id.to_bytes()).unwrap(), id);
        assert_eq!(id.to_string().len(), 26);
    }

    #[test]
    fn ids_sort_by_time() {
        let early = Ulid::from_parts(1, u128::MAX);
        let late = Ulid::from_parts(2, 0);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "0000000000000000000000000U", "é"] {
            assert!(text.parse::<Ulid>().is_err(), "{text}");
        }
    }
}
