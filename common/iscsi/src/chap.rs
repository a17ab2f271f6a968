//! CHAP with MD5 (RFC 7143 12.1.3, RFC 1994): who knows the secret proves it without sending it.

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::text::{Pairs, binary, to_hex};

/// Bytes of the challenges that we make.
pub const CHALLENGE: usize = 16;
/// The longest challenge that is taken (RFC 7143 12.1.3).
const CHALLENGE_MAX: usize = 1024;

/// A secret that both sides know. Printing it prints that there is one.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes a secret over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why CHAP did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChapError {
    /// The target does not speak CHAP with MD5.
    #[error("the target does not offer CHAP with MD5")]
    Algorithm,
    /// An answer without what it must have, or not in its form.
    #[error("the target's part of CHAP has no good {0}")]
    Missing(&'static str),
    /// The target sends our own challenge back: whoever it is wants us to answer for it.
    #[error("the target sends our own challenge back")]
    Reflected,
    /// The target does not know its secret, or says it is somebody else.
    #[error("the target does not prove that it is who it should be")]
    Target,
}

/// What answers a challenge.
pub fn chap_response(identifier: u8, secret: &Secret, challenge: &[u8]) -> [u8; 16] {
    let mut sum = Md5::new();
    sum.update([identifier]);
    sum.update(&*secret.0);
    sum.update(challenge);
    sum.finalize().into()
}

/// The secrets of a login, and the challenge for the target.
#[derive(Clone, Debug)]
pub(crate) struct Chap {
    pub(crate) user: String,
    pub(crate) secret: Secret,
    /// The name and secret by which the target proves itself, where that is wanted.
    pub(crate) target: Option<(String, Secret)>,
    pub(crate) identifier: u8,
    pub(crate) challenge: [u8; CHALLENGE],
}

impl Chap {
    /// The answer to the target's challenge, and the challenge to the target.
    pub(crate) fn answer(&self, from: &Pairs) -> Result<Pairs, ChapError> {
        if from.get("CHAP_A") != Some("5") {
            return Err(ChapError::Algorithm);
        }
        let identifier = number(from.get("CHAP_I")).ok_or(ChapError::Missing("CHAP_I"))?;
        let challenge = from.get("CHAP_C").and_then(|text| binary(text, CHALLENGE_MAX));
        let challenge = challenge.filter(|bytes| !bytes.is_empty());
        let challenge = challenge.ok_or(ChapError::Missing("CHAP_C"))?;
        if challenge == self.challenge {
            return Err(ChapError::Reflected);
        }
        let mut pairs = Pairs::default();
        pairs.add("CHAP_N", self.user.clone());
        pairs.add("CHAP_R", to_hex(&chap_response(identifier, &self.secret, &challenge)));
        if self.target.is_some() {
            pairs.add("CHAP_I", self.identifier.to_string());
            pairs.add("CHAP_C", to_hex(&self.challenge));
        }
        Ok(pairs)
    }

    /// Whether the target proved itself.
    pub(crate) fn check(&self, from: &Pairs) -> Result<(), ChapError> {
        let Some((name, secret)) = &self.target else { return Ok(()) };
        let found = from.get("CHAP_R").and_then(|text| binary(text, CHALLENGE_MAX));
        let found = found.ok_or(ChapError::Missing("CHAP_R"))?;
        let expected = chap_response(self.identifier, secret, &self.challenge);
        let same = bool::from(expected[..].ct_eq(&found));
        match same && from.get("CHAP_N") == Some(name.as_str()) {
            true => Ok(()),
            false => Err(ChapError::Target),
        }
    }
}

fn number(text: Option<&str>) -> Option<u8> {
    let text = text?;
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chap() -> Chap {
        Chap {
            user: "twin".into(),
            secret: Secret::new(b"reel-reel-reel".to_vec()),
            target: Some(("lib".into(), Secret::new(b"tape-tape-tape".to_vec()))),
            identifier: 7,
            challenge: [9; CHALLENGE],
        }
    }

    fn challenge(a: &str, i: &str, c: &str) -> Pairs {
        let mut pairs = Pairs::default();
        pairs.add("CHAP_A", a).add("CHAP_I", i).add("CHAP_C", c);
        pairs
    }

    #[test]
    fn the_response_is_md5_of_identifier_secret_and_challenge() {
        // By `printf '\x01secretchal' | md5sum`.
        let secret = Secret::new(b"secret".to_vec());
        let sum = to_hex(&chap_response(1, &secret, b"chal"));
        assert_eq!(sum, "0xb9059299ca393c22704efa29e3fd0f49");
    }

    #[test]
    fn a_challenge_is_answered_and_one_made() {
        let pairs = chap().answer(&challenge("5", "0x1F", "0x0102")).unwrap();
        let expected = chap_response(0x1f, &Secret::new(b"reel-reel-reel".to_vec()), &[1, 2]);
        assert_eq!(pairs.get("CHAP_N"), Some("twin"));
        assert_eq!(pairs.get("CHAP_R"), Some(to_hex(&expected).as_str()));
        assert_eq!(pairs.get("CHAP_I"), Some("7"));
        assert_eq!(pairs.get("CHAP_C"), Some(to_hex(&[9; CHALLENGE]).as_str()));
        let one_way = Chap { target: None, ..chap() };
        let pairs = one_way.answer(&challenge("5", "1", "0bAQI=")).unwrap();
        assert_eq!((pairs.get("CHAP_I"), pairs.get("CHAP_C")), (None, None));
        assert_eq!(one_way.check(&Pairs::default()), Ok(()));
    }

    #[test]
    fn bad_challenges_are_refused() {
        let long = to_hex(&[1; CHALLENGE_MAX + 1]);
        let same = to_hex(&[9; CHALLENGE]);
        for (pairs, error) in [
            (challenge("6", "1", "0x01"), ChapError::Algorithm),
            (challenge("5", "256", "0x01"), ChapError::Missing("CHAP_I")),
            (challenge("5", "1", "0x"), ChapError::Missing("CHAP_C")),
            (challenge("5", "1", &long), ChapError::Missing("CHAP_C")),
            (challenge("5", "1", &same), ChapError::Reflected),
        ] {
            assert_eq!(chap().answer(&pairs), Err(error));
        }
    }

    #[test]
    fn the_target_must_prove_itself() {
        let response = |name: &str, secret: &[u8]| {
            let sum = chap_response(7, &Secret::new(secret.to_vec()), &[9; CHALLENGE]);
            let mut pairs = Pairs::default();
            pairs.add("CHAP_N", name).add("CHAP_R", to_hex(&sum));
            pairs
        };
        assert_eq!(chap().check(&response("lib", b"tape-tape-tape")), Ok(()));
        assert_eq!(chap().check(&response("lib", b"tape")), Err(ChapError::Target));
        assert_eq!(chap().check(&response("other", b"tape-tape-tape")), Err(ChapError::Target));
        assert_eq!(chap().check(&Pairs::default()), Err(ChapError::Missing("CHAP_R")));
        assert_eq!(format!("{:?}", chap().secret), "Secret(..)");
    }
}
