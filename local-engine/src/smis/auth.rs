//! Basic authentication (RFC 7617) against passwords or argon2 hashes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use service::config::{Secret, Smis};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::session::LoginGate;

/// The longest header that is looked at.
const HEADER_MAX: usize = 1024;
/// Hashes computed at a time; each takes some 20 MiB and as many milliseconds.
const HASHES: usize = 2;

type Fingerprint = [u8; 32];

struct Known {
    hash: Option<Secret>,
    /// Of the password, or of the one that the hash was last found to be of.
    fingerprint: Mutex<Option<Fingerprint>>,
}

/// Who may come in.
pub(super) struct Gatekeeper {
    users: BTreeMap<String, Known>,
    /// Of this run: a fingerprint is good for nothing elsewhere.
    key: [u8; 32],
    gate: LoginGate,
    hashing: Semaphore,
}

/// Somebody who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User(pub(super) String);

/// Somebody who is not, and how long that is to take.
pub(super) struct Denied(pub(super) Duration);

impl Gatekeeper {
    /// The users of `[smis]`.
    pub(super) fn new(config: &Smis) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let users = config.users.iter().map(|user| {
            let password = user.password.as_ref().map(Secret::expose);
            let known = Known {
                hash: user.password_hash.clone(),
                fingerprint: Mutex::new(password.map(|text| fingerprint(&key, text))),
            };
            (user.name.clone(), known)
        });
        Ok(Self {
            users: users.collect(),
            key,
            gate: LoginGate::new(
                config.login_attempts,
                Duration::from_secs(config.lockout_seconds.into()),
            ),
            hashing: Semaphore::new(HASHES),
        })
    }

    /// Looks at an `Authorization` header; a request without one is denied at once and costs
    /// nothing.
    pub(super) async fn admit(&self, host: IpAddr, header: Option<&[u8]>) -> Result<User, Denied> {
        let Some(header) = header else { return Err(Denied(Duration::ZERO)) };
        let now = Instant::now();
        if self.gate.is_locked_out(host, now) {
            return Err(Denied(self.gate.failed(host, now).delay));
        }
        if let Some((name, password)) = credentials(header)
            && self.knows(&name, &password).await
        {
            self.gate.succeeded(host);
            return Ok(User(name));
        }
        let penalty = self.gate.failed(host, now);
        if penalty.locked_out {
            tracing::warn!(%host, "SMI-S: locked out after too many failed logins");
        }
        Err(Denied(penalty.delay))
    }

    async fn knows(&self, name: &str, password: &Secret) -> bool {
        let given = fingerprint(&self.key, password.expose());
        let known = self.users.get(name);
        // A name that is not there takes as long as one that is.
        let stored = known.and_then(Known::fingerprint);
        let same = bool::from(stored.unwrap_or([0; 32]).ct_eq(&given)) && stored.is_some();
        if same {
            return true;
        }
        let any_hash = || self.users.values().find_map(|user| user.hash.clone());
        let Some(hash) = known.and_then(|user| user.hash.clone()).or_else(any_hash) else {
            return false;
        };
        let Ok(_turn) = self.hashing.acquire().await else { return false };
        let password = password.clone();
        let verified = tokio::task::spawn_blocking(move || verified(&hash, &password)).await;
        match known.filter(|user| user.hash.is_some() && verified.unwrap_or(false)) {
            Some(user) => {
                *user.fingerprint.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
                true
            }
            None => false,
        }
    }
}

impl Known {
    fn fingerprint(&self) -> Option<Fingerprint> {
        *self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprint(key: &[u8; 32], password: &str) -> Fingerprint {
    Sha256::new().chain_update(key).chain_update(password).finalize().into()
}

fn verified(hash: &Secret, password: &Secret) -> bool {
    let hash = PasswordHash::new(hash.expose());
    hash.is_ok_and(|hash| {
        Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok()
    })
}

/// Name and password of a Basic header; as UTF-8, or else as Latin-1.
fn credentials(header: &[u8]) -> Option<(String, Secret)> {
    if header.len() > HEADER_MAX {
        return None;
    }
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, rest) = text.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = STANDARD.decode(rest.trim()).ok()?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    };
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), Secret::new(password.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQxMjM0$";

    fn header(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    fn keeper(text: &str) -> Gatekeeper {
        let table: toml::Table = text.parse().unwrap();
        Gatekeeper::new(&table.try_into().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn passwords_let_in_and_everything_else_does_not() {
        let keeper = keeper("login_attempts = 0\n[[user]]\nname = \"a\"\npassword = \"s:e\"");
        let host = "192.0.2.1".parse().unwrap();
        let user = keeper.admit(host, Some(&header("a:s:e"))).await.ok().unwrap();
        assert_eq!(user, User("a".into()));
        for wrong in ["a:", "a:s", "b:s:e", ":", "a", ""] {
            assert!(keeper.admit(host, Some(&header(wrong))).await.is_err(), "{wrong}");
        }
        for wrong in ["Basic", "Basic ???", "Bearer YTpz", "", "Basic \u{ff}"] {
            assert!(keeper.admit(host, Some(wrong.as_bytes())).await.is_err(), "{wrong}");
        }
        assert!(keeper.admit(host, None).await.is_err());
    }

    #[tokio::test]
    async fn a_hash_lets_in_and_is_computed_once() {
        use argon2::{Algorithm, Params, Version};
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut out = [0; 32];
        argon.hash_password_into(b"secret", b"somesalt1234", &mut out).unwrap();
        let hash = format!("{HASH}{}", STANDARD.encode(out).trim_end_matches('='));
        let keeper = keeper(&format!("[[user]]\nname = \"h\"\npassword_hash = \"{hash}\""));
        let host = "192.0.2.1".parse().unwrap();
        assert!(keeper.admit(host, Some(&header("h:wrong"))).await.is_err());
        assert!(keeper.users["h"].fingerprint().is_none());
        assert!(keeper.admit(host, Some(&header("h:secret"))).await.is_ok());
        assert!(keeper.users["h"].fingerprint().is_some());
        assert!(keeper.admit(host, Some(&header("h:secret"))).await.is_ok());
        assert!(keeper.admit(host, Some(&header("h:wrong"))).await.is_err());
    }

    #[tokio::test]
    async fn who_guesses_is_locked_out() {
        let keeper = keeper("login_attempts = 2\n[[user]]\nname = \"a\"\npassword = \"right\"");
        let host = "192.0.2.1".parse().unwrap();
        for _ in 0..2 {
            assert!(keeper.admit(host, Some(&header("a:x"))).await.is_err());
        }
        assert!(keeper.admit(host, Some(&header("a:right"))).await.is_err());
        let other = "192.0.2.2".parse().unwrap();
        assert!(keeper.admit(other, Some(&header("a:right"))).await.is_ok());
    }
}
