//! The configuration of the local engine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use model::{ByteSize, DevicePattern, LibraryName, Network, SiteName};
use serde::Deserialize;

use super::calendar::{self, CalendarRule};
use super::check::{Findings, frontends, libraries, read_password, resolve};
use super::{
    Admin, ConfigError, EngineConfig, FrontendLibrary, Log, Mounts, PhysicalLibrary, Secret, Site,
    Smis, TapeKeyFile, TlsFiles, Upkeep, VirtualLibrary, keys, parse,
};
use crate::tls;

/// The configuration of `local-engine`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalConfig {
    /// `[site]`.
    pub site: Site,
    /// `[ndmp]`.
    #[serde(default)]
    pub ndmp: Ndmp,
    /// `[smis]`.
    #[serde(default)]
    pub smis: Smis,
    /// `[[link]]`: the remote engines. None for a site alone.
    #[serde(default, rename = "link")]
    pub links: Vec<LinkTo>,
    /// `[replication]`.
    #[serde(default)]
    pub replication: Replication,
    /// `[[virtual_library]]`.
    #[serde(default, rename = "virtual_library")]
    pub virtual_libraries: Vec<VirtualLibrary>,
    /// `[[physical_library]]`: libraries that stand at this site.
    #[serde(default, rename = "physical_library")]
    pub physical_libraries: Vec<PhysicalLibrary>,
    /// `[[tape_key]]`.
    #[serde(default, rename = "tape_key")]
    pub tape_keys: Vec<TapeKeyFile>,
    /// `[[frontend_library]]`: libraries that show tapes of the others.
    #[serde(default, rename = "frontend_library")]
    pub frontend_libraries: Vec<FrontendLibrary>,
    /// `[mounts]`.
    #[serde(default)]
    pub mounts: Mounts,
    /// `[store]`.
    #[serde(default)]
    pub store: Upkeep,
    /// `[admin]`.
    #[serde(default)]
    pub admin: Admin,
    /// `[log]`.
    #[serde(default)]
    pub log: Log,
}

/// `[ndmp]`: the server for backup applications.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ndmp {
    /// Where it listens; 127.0.0.1:10000 if not given.
    pub listen: SocketAddr,
    /// Control sessions at once, 1 to 4096; 64 if not given.
    pub max_sessions: u32,
    /// Hosts that may connect; all if not given.
    pub allow: Option<Vec<Network>>,
    /// Where a mover listens besides the address that the application reached the server by.
    pub mover_addresses: Vec<Ipv4Addr>,
    /// The first and the last TCP port where a mover may listen; any if not given.
    pub mover_ports: Option<(u16, u16)>,
    /// Hosts, besides the application's own, that a mover dials and that may dial a mover. If not
    /// given, a mover dials the application's own host alone, and any allowed host may dial it.
    pub mover_peers: Option<Vec<Network>>,
    /// Failed logins after which a host is locked out, 0 for never, at most 1000; 10 if not given.
    pub login_attempts: u32,
    /// How long, in seconds, 1 to 86400; 300 if not given.
    pub lockout_seconds: u32,
    /// After how long a session is ended that says nothing while its mover is not connected, in
    /// seconds, 60 to 2592000; 86400 if not given.
    pub idle_seconds: u32,
    /// `[[ndmp.user]]`: who may come in.
    #[serde(rename = "user")]
    pub users: Vec<NdmpUser>,
}

impl Default for Ndmp {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000));
        Self {
            listen,
            max_sessions: 64,
            allow: None,
            mover_addresses: Vec::new(),
            mover_ports: None,
            mover_peers: None,
            login_attempts: 10,
            lockout_seconds: 300,
            idle_seconds: 86_400,
            users: Vec::new(),
        }
    }
}

impl Ndmp {
    /// Whether some user may come in without a password; never off loopback.
    pub fn allows_none(&self) -> bool {
        self.users.iter().any(|user| user.auth.contains(&Auth::None))
    }
}

/// `[[ndmp.user]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NdmpUser {
    /// The name that the backup application gives.
    pub name: String,
    /// The password, 1 to 32 bytes (NDMP's MD5 authentication has no room for more). After loading
    /// it is here even if it came from a file.
    pub password: Option<Secret>,
    /// A file with the password and nothing else, mode 0600. Absolute after loading.
    pub password_file: Option<PathBuf>,
    /// How this user may prove it; `["md5", "text"]` if not given.
    #[serde(default = "md5_and_text")]
    pub auth: Vec<Auth>,
    /// Devices that this user may list and open; all if not given.
    pub devices: Option<Vec<DevicePattern>>,
}

impl NdmpUser {
    /// The password; empty for a user who needs none.
    pub fn secret(&self) -> &str {
        self.password.as_ref().map_or("", Secret::expose)
    }
}

fn md5_and_text() -> Vec<Auth> {
    vec![Auth::Md5, Auth::Text]
}

/// A way of NDMP to prove who one is (CONNECT_CLIENT_AUTH).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Not at all; only on loopback.
    None,
    /// Name and password as they are.
    Text,
    /// A digest of password and challenge.
    Md5,
}

/// `[[link]]`: the way to one remote engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTo {
    /// `HOST:PORT` of the remote engine.
    pub connect: String,
    /// The name that its certificate must carry; the host of `connect` if not given.
    pub server_name: Option<String>,
    /// PEM: the certificate authority of the pair. Absolute after loading.
    pub ca: PathBuf,
    /// PEM: the certificate of this engine. Absolute after loading.
    pub certificate: PathBuf,
    /// PEM: its private key, mode 0600. Absolute after loading.
    pub key: PathBuf,
    /// How long a device is kept for a session while the link is down, 5 to 86400 seconds; 120 if
    /// not given. The shorter of both engines' counts.
    #[serde(default = "default_lease")]
    pub lease_seconds: u32,
}

pub(crate) fn default_lease() -> u32 {
    120
}

impl LinkTo {
    /// The three files.
    pub fn tls(&self) -> TlsFiles<'_> {
        TlsFiles { ca: &self.ca, certificate: &self.certificate, key: &self.key }
    }

    /// The host of `connect`, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.connect.rsplit_once(':').map_or(self.connect.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The name that the certificate of the remote engine must carry.
    pub fn expected_name(&self) -> &str {
        self.server_name.as_deref().unwrap_or_else(|| self.host())
    }
}

/// `[replication]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replication {
    /// When a written cartridge is replicated.
    pub start: ReplicationStart,
    /// Bytes a second on the link for bulk data, such as `"10MB"`; no limit if not given.
    pub bandwidth: Option<ByteSize>,
    /// `[[replication.calendar]]`: other rates at certain hours, the first that fits counts.
    pub calendar: Vec<CalendarRule>,
    /// What a waiting copy needs is sent as fast as it goes.
    pub copies_unlimited: bool,
    /// The zstd level of new data on the link, 1 to 19.
    pub compression: i32,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            start: ReplicationStart::default(),
            bandwidth: None,
            calendar: Vec::new(),
            copies_unlimited: false,
            compression: 5,
        }
    }
}

/// When a written cartridge is replicated. A copy that needs it starts it in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicationStart {
    /// While it is written (the default); what is left goes when it is unloaded.
    #[default]
    WhileWriting,
    /// When it is unloaded.
    OnUnload,
    /// When somebody asks for it.
    Manual,
}

impl LocalConfig {
    /// Whether a library of this site has this name, so that no ghost may have it.
    pub fn has_library(&self, name: &LibraryName) -> bool {
        self.library_names().any(|own| own == name)
    }

    /// The names of all libraries of this site.
    pub fn library_names(&self) -> impl Iterator<Item = &LibraryName> {
        let physical = self.physical_libraries.iter().map(|library| &library.name);
        let frontends = self.frontend_libraries.iter().map(|library| &library.name);
        let own = self.virtual_libraries.iter().map(|library| &library.name);
        own.chain(physical).chain(frontends)
    }

    /// Checks what the types do not: everything wrong, in the words of the file.
    fn check(&self) -> Vec<String> {
        let mut findings = Findings::default();
        findings.state_dir(&self.site.state_dir);
        findings.log(&self.log);
        self.store.check(&mut findings);
        self.mounts.check(&mut findings);
        self.admin.check(&mut findings);
        self.check_ndmp(&mut findings);
        self.smis.check(&mut findings);
        self.check_links(&mut findings);
        let (virtuals, physicals) = (&self.virtual_libraries, &self.physical_libraries);
        libraries(self.library_names(), virtuals, physicals, &mut findings);
        frontends(&self.frontend_libraries, &mut findings);
        findings.require(
            self.replication.bandwidth.is_none_or(|rate| rate.0 >= 1024),
            || "replication: bandwidth is at least 1024 bytes a second; leave it out for no limit",
        );
        calendar::check(&self.replication.calendar, &mut findings);
        findings.require(
            (1..=19).contains(&self.replication.compression),
            || "replication: compression is a zstd level, 1 to 19",
        );
        findings.into_texts()
    }

    fn check_ndmp(&self, findings: &mut Findings) {
        let ndmp = &self.ndmp;
        findings
            .require((1..=4096).contains(&ndmp.max_sessions), || "ndmp: max_sessions is 1 to 4096");
        findings.require(
            !ndmp.users.is_empty(),
            || "ndmp: nobody may come in; add [[ndmp.user]] with name and password_file",
        );
        findings.unique("ndmp.user", ndmp.users.iter().map(|user| user.name.as_str()));
        self.check_admission(findings);
        let loopback = ndmp.listen.ip().is_loopback();
        for user in &ndmp.users {
            let name = &user.name;
            let none = user.auth.contains(&Auth::None);
            findings.require(!name.is_empty() && name.len() <= 64, || {
                format!("ndmp.user {name:?}: a name has 1 to 64 bytes")
            });
            findings.require(!user.auth.is_empty(), || {
                format!("ndmp.user {name:?}: auth is empty; write [\"md5\", \"text\"]")
            });
            findings.require(!none || loopback, || {
                format!(
                    "ndmp.user {name:?}: auth \"none\" is refused because ndmp listens on {}, \
                     which is not loopback",
                    ndmp.listen
                )
            });
            let only_none = user.auth.iter().all(|auth| *auth == Auth::None);
            let length = user.secret().len();
            findings.require((1..=32).contains(&length) || (only_none && length == 0), || {
                format!("ndmp.user {name:?}: the password has 1 to 32 bytes, this one {length}")
            });
        }
    }

    fn check_admission(&self, findings: &mut Findings) {
        let ndmp = &self.ndmp;
        findings.require(ndmp.login_attempts <= 1000, || "ndmp: login_attempts is 0 to 1000");
        findings.require(
            (1..=86_400).contains(&ndmp.lockout_seconds),
            || "ndmp: lockout_seconds is 1 to 86400",
        );
        findings.require(
            (60..=2_592_000).contains(&ndmp.idle_seconds),
            || "ndmp: idle_seconds is 60 to 2592000",
        );
        let ports = ndmp.mover_ports.unwrap_or((1, 1));
        findings.require(
            0 < ports.0 && ports.0 <= ports.1,
            || "ndmp: mover_ports is the first and the last port, such as [10100, 10199]",
        );
        for address in &ndmp.mover_addresses {
            findings.require(!address.is_unspecified() && !address.is_multicast(), || {
                format!("ndmp: mover_addresses: nobody can reach {address}; name real addresses")
            });
        }
    }

    fn check_links(&self, findings: &mut Findings) {
        findings.unique("link", self.links.iter().map(|link| link.connect.as_str()));
        for link in &self.links {
            let at = &link.connect;
            let port = at.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            findings.require(port.is_some_and(|p| p != 0) && !link.host().is_empty(), || {
                format!("link {at:?}: connect is HOST:PORT, such as \"dr.example.com:10001\"")
            });
            findings.lease(&format!("link {at:?}"), link.lease_seconds);
            findings.tls(&format!("link {at:?}"), tls::client_config(link.tls()));
            findings.tls(&format!("link {at:?}"), tls::server_name(link.expected_name()));
        }
    }
}

impl EngineConfig for LocalConfig {
    const PROGRAM: &'static str = "local-engine";

    fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = parse::read(path)?;
        let base = super::check::directory_of(path);
        resolve(&base, [&mut config.site.state_dir]);
        for link in &mut config.links {
            resolve(&base, [&mut link.ca, &mut link.certificate, &mut link.key]);
        }
        config.physical_libraries.iter_mut().for_each(|library| library.resolve(&base));
        config.store.resolve(&base);
        resolve(&base, config.ndmp.users.iter_mut().filter_map(|u| u.password_file.as_mut()));
        let mut texts: Vec<_> = config
            .ndmp
            .users
            .iter_mut()
            .filter_map(|user| {
                let read = read_password(&mut user.password, user.password_file.as_deref());
                read.err().map(|text| format!("ndmp.user {:?}: {text}", user.name))
            })
            .collect();
        let libraries = config.physical_libraries.iter_mut();
        texts.extend(libraries.filter_map(|library| library.read_secrets().err()));
        resolve(&base, config.tape_keys.iter_mut().map(|key| &mut key.file));
        texts.extend(keys::settle(&config.tape_keys, &mut config.physical_libraries));
        texts.extend(config.smis.settle(&base));
        // A password that could not be read is one problem, not two.
        if texts.is_empty() {
            texts = config.check();
        }
        if texts.is_empty() { Ok(config) } else { Err(ConfigError::new(path, texts)) }
    }

    fn example() -> &'static str {
        include_str!("../../../../schemas/examples/local.toml")
    }

    fn site(&self) -> &Site {
        &self.site
    }

    fn log(&self) -> &Log {
        &self.log
    }
}

impl LocalConfig {
    /// The names under which the libraries of a remote site appear here, checked against the own
    /// ones.
    ///
    /// # Errors
    /// What clashes or does not fit, for the operator.
    pub fn ghost_name(
        &self,
        site: &SiteName,
        library: &LibraryName,
    ) -> Result<LibraryName, String> {
        let ghost = LibraryName::ghost(site, library)
            .map_err(|_| format!("{site}-{library} is too long for a library: 32 characters"))?;
        match self.has_library(&ghost) {
            true => Err(format!(
                "library {library} of site {site} would be called {ghost}, as one of this site is \
                 already (a ghost library is called SITE-LIBRARY); rename that"
            )),
            false => Ok(ghost),
        }
    }
}
