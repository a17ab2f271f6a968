//! Which server, and who asks.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use dma::{Login, Version};
use service::config::{Auth, EngineConfig, LocalConfig, NdmpUser};
use zeroize::Zeroizing;

use super::Console;
use crate::cli::Failed;

/// An NDMP server and a user of it.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The NDMP server.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "config")]
    server: Option<String>,
    /// The NDMP user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the password in its first line.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// How the user proves who it is.
    #[arg(long, value_enum, default_value_t = Way::Md5)]
    auth: Way,
    /// The version of NDMP [default: the highest that the server speaks].
    #[arg(long, value_name = "2..4", value_parser = clap::value_parser!(u32).range(2..=4))]
    protocol: Option<u32>,
    /// Take server, user and password from the configuration of a local engine on this machine.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "user", "password_file"])]
    config: Option<PathBuf>,
}

/// A way of NDMP to prove who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// A digest of the password.
    Md5,
    /// The password in clear.
    Text,
    /// Not at all.
    None,
}

impl Server {
    /// The configuration that was named instead of a server.
    pub(crate) fn config(&self) -> Result<Option<LocalConfig>, Failed> {
        self.config.as_deref().map(LocalConfig::load).transpose().map_err(Failed::usage)
    }

    /// Whether the password may cross a network as it is.
    pub(crate) fn sends_in_clear(&self) -> bool {
        self.auth == Way::Text
    }

    /// Whom to talk to.
    pub(crate) fn console(&self) -> Result<Console, Failed> {
        let version = self.protocol.and_then(Version::from_wire);
        if let Some(config) = self.config()? {
            let login = login_of(&config)?;
            return Ok(Console { server: config.ndmp.listen.to_string(), version, login });
        }
        let server = self.server.clone().unwrap_or_default();
        Ok(Console { server, version, login: self.login()? })
    }

    fn login(&self) -> Result<Login, Failed> {
        if self.auth == Way::None {
            return Ok(Login::None);
        }
        let missing = |what| Failed::usage(format!("{what} is missing (or say --auth none)"));
        let user = self.user.as_deref().ok_or_else(|| missing("--user"))?;
        let file = self.password_file.as_deref().ok_or_else(|| missing("--password-file"))?;
        let password = password(file)?;
        Ok(match self.auth {
            Way::Text => Login::text(user, password.as_str()),
            _ => Login::md5(user, password.as_str()),
        })
    }
}

fn password(file: &Path) -> Result<Zeroizing<String>, Failed> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| Failed::usage(format!("{}: {error}", file.display())))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// As the first user with a password, or else the first one.
pub(crate) fn login_of(config: &LocalConfig) -> Result<Login, Failed> {
    let users = &config.ndmp.users;
    let proven = |user: &&NdmpUser| user.auth.iter().any(|auth| *auth != Auth::None);
    let first = users.iter().find(proven).or_else(|| users.first());
    let user = first.ok_or_else(|| Failed::usage("the configuration has no [[ndmp.user]]"))?;
    let NdmpUser { name, auth, .. } = user;
    Ok(match () {
        () if auth.contains(&Auth::Md5) => Login::md5(name, user.secret()),
        () if auth.contains(&Auth::Text) => Login::text(name, user.secret()),
        () => Login::None,
    })
}
