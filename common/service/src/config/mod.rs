//! Configuration files: TOML, every key known, every finding with its place and a way out.

mod admin;
mod calendar;
mod check;
mod error;
mod keys;
mod library;
mod local;
mod mounts;
mod parse;
mod remote;
mod secret;
mod smis;
mod upkeep;

use std::path::{Path, PathBuf};

use model::SiteName;
use serde::Deserialize;

pub use admin::Admin;
pub use calendar::{CalendarRule, Clock, Day, rate_at};
pub(crate) use check::private;
pub use error::{ConfigError, Problem};
pub use keys::{KeyPool, TapeKeyFile};
pub(crate) use library::read_chap;
pub use library::{
    Backend, Chap, FileBackend, FrontendLibrary, PhysicalLibrary, ScsiBackend, ScsiDevices, Verify,
    VirtualLibrary,
};
pub use local::{Auth, LinkTo, LocalConfig, Ndmp, NdmpUser, Replication, ReplicationStart};
pub use mounts::Mounts;
pub use remote::{LinkListen, Peer, RemoteConfig};
pub use secret::Secret;
pub use smis::{Smis, SmisUser};
pub use upkeep::Upkeep;

/// A configuration of one of the engines.
pub trait EngineConfig: Sized + Send + 'static {
    /// The name of the program: `local-engine`.
    const PROGRAM: &'static str;

    /// Reads a file, resolves paths against its directory, reads the password files, and checks
    /// everything that can be checked without opening a socket. What comes back is usable.
    ///
    /// # Errors
    /// All problems at once, each with its place.
    fn load(path: &Path) -> Result<Self, ConfigError>;

    /// A commented file that loads once its certificates are there (`twinreel init` makes them).
    fn example() -> &'static str;

    /// `[site]`.
    fn site(&self) -> &Site;

    /// `[log]`.
    fn log(&self) -> &Log;
}

/// `[site]`: who this engine is and where it keeps what it knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The name of the site; the peer shows the libraries of this one as `NAME-LIBRARY`.
    pub name: SiteName,
    /// Catalogue, store and admin socket. Absolute after loading.
    pub state_dir: PathBuf,
}

impl Site {
    /// The catalogue: `STATE_DIR/svs.db`.
    pub fn catalogue(&self) -> PathBuf {
        self.state_dir.join("svs.db")
    }

    /// The deduplicating store: `STATE_DIR/store`.
    pub fn store(&self) -> PathBuf {
        self.state_dir.join("store")
    }

    /// The admin socket: `STATE_DIR/admin.sock`.
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir.join(crate::admin::SOCKET)
    }
}

/// `[log]`: what goes to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info` (the default), `debug`, `trace`, or a filter such as
    /// `info,link=debug`. The environment variable `TWINREEL_LOG` goes before it.
    pub level: String,
    /// Lines for people, or one JSON object for each.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The three files that prove who an engine is, and by whom its peer must be vouched for.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// PEM: the certificate authority of the pair.
    pub ca: &'a Path,
    /// PEM: the certificate chain of this engine, its own first.
    pub certificate: &'a Path,
    /// PEM: the private key of that certificate, readable by its owner only.
    pub key: &'a Path,
}
