//! `[smis]`: the server for management applications.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use argon2::PasswordHash;
use model::Network;
use serde::Deserialize;

use super::Secret;
use super::check::{Findings, read_password, resolve};
use crate::tls;

/// `[smis]`. Without `http` and `https` it is off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Smis {
    /// Where it listens without TLS, on loopback only; off if not given. The usual port is 5988.
    pub http: Option<SocketAddr>,
    /// Where it listens with TLS; off if not given. The usual port is 5989.
    pub https: Option<SocketAddr>,
    /// PEM: the certificate chain for `https`. Absolute after loading.
    pub certificate: Option<PathBuf>,
    /// PEM: its private key, mode 0600. Absolute after loading.
    pub key: Option<PathBuf>,
    /// Connections at once, 1 to 1024; 64 if not given.
    pub max_connections: u32,
    /// Hosts that may connect; all if not given.
    pub allow: Option<Vec<Network>>,
    /// Hosts that indications may be sent to. If not given, loopback and the host of the client
    /// that wants them.
    pub indication_hosts: Option<Vec<Network>>,
    /// PEM: the authorities whose certificates listeners at `https` destinations have to show;
    /// without it there are no such destinations. Absolute after loading.
    pub indication_ca: Option<PathBuf>,
    /// Failed logins after which a host is locked out, 0 for never, at most 1000; 10 if not given.
    pub login_attempts: u32,
    /// How long, in seconds, 1 to 86400; 300 if not given.
    pub lockout_seconds: u32,
    /// `[[smis.user]]`: who may come in.
    #[serde(rename = "user")]
    pub users: Vec<SmisUser>,
}

impl Default for Smis {
    fn default() -> Self {
        Self {
            http: None,
            https: None,
            certificate: None,
            key: None,
            max_connections: 64,
            allow: None,
            indication_hosts: None,
            indication_ca: None,
            login_attempts: 10,
            lockout_seconds: 300,
            users: Vec::new(),
        }
    }
}

/// `[[smis.user]]`: one of `password`, `password_file` and `password_hash`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmisUser {
    /// The name that the application gives; without a colon, as Basic authentication wants it.
    pub name: String,
    /// The password. After loading it is here even if it came from a file.
    pub password: Option<Secret>,
    /// A file with the password and nothing else, mode 0600. Absolute after loading.
    pub password_file: Option<PathBuf>,
    /// The argon2 hash of the password: `$argon2id$v=19$m=...`.
    pub password_hash: Option<Secret>,
}

impl Smis {
    /// Whether it listens anywhere.
    pub fn is_on(&self) -> bool {
        self.http.is_some() || self.https.is_some()
    }

    pub(super) fn settle(&mut self, base: &Path) -> Vec<String> {
        resolve(base, self.certificate.iter_mut().chain(&mut self.key));
        resolve(base, self.indication_ca.iter_mut());
        resolve(base, self.users.iter_mut().filter_map(|user| user.password_file.as_mut()));
        let read = self.users.iter_mut().filter_map(|user| {
            let read = read_password(&mut user.password, user.password_file.as_deref());
            read.err().map(|text| format!("smis.user {:?}: {text}", user.name))
        });
        read.collect()
    }

    pub(super) fn check(&self, findings: &mut Findings) {
        findings.require(
            (1..=1024).contains(&self.max_connections),
            || "smis: max_connections is 1 to 1024",
        );
        findings.require(self.login_attempts <= 1000, || "smis: login_attempts is 0 to 1000");
        findings.require(
            (1..=86_400).contains(&self.lockout_seconds),
            || "smis: lockout_seconds is 1 to 86400",
        );
        if let Some(http) = self.http {
            findings.require(http.ip().is_loopback(), || {
                format!(
                    "smis: http listens on {http}, which is not loopback, and passwords would \
                     travel as they are; use https"
                )
            });
        }
        if self.https.is_some() {
            match (&self.certificate, &self.key) {
                (Some(certificate), Some(key)) => {
                    findings.tls("smis", tls::https_config(certificate, key));
                }
                _ => findings.add("smis: https needs certificate and key".to_owned()),
            }
        }
        if let Some(ca) = &self.indication_ca {
            findings.tls("smis", tls::https_client_config(ca));
        }
        findings.require(
            !self.is_on() || !self.users.is_empty(),
            || "smis: nobody may come in; add [[smis.user]] with name and password_file",
        );
        findings.unique("smis.user", self.users.iter().map(|user| user.name.as_str()));
        self.users.iter().for_each(|user| user.check(findings));
    }
}

impl SmisUser {
    fn check(&self, findings: &mut Findings) {
        let name = &self.name;
        let fits = (1..=64).contains(&name.len()) && !name.contains(':');
        findings
            .require(fits, || format!("smis.user {name:?}: a name has 1 to 64 bytes and no colon"));
        match (&self.password, &self.password_hash) {
            (Some(password), None) => {
                let length = password.expose().len();
                findings.require((1..=128).contains(&length), || {
                    format!(
                        "smis.user {name:?}: the password has 1 to 128 bytes, this one {length}"
                    )
                });
            }
            (None, Some(hash)) => {
                let hash = PasswordHash::new(hash.expose());
                let fits = hash.is_ok_and(|hash| hash.algorithm.as_str().starts_with("argon2"));
                findings.require(fits, || {
                    format!("smis.user {name:?}: password_hash is no argon2 hash ($argon2id$...)")
                });
            }
            _ => findings.add(format!(
                "smis.user {name:?}: write one of password, password_file and password_hash"
            )),
        }
    }
}
