//! The configuration of the remote engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{LibraryName, SiteName};
use serde::Deserialize;

use super::check::{Findings, directory_of, libraries, resolve};
use super::local::default_lease;
use super::{
    Admin, ConfigError, EngineConfig, Log, PhysicalLibrary, Site, TapeKeyFile, TlsFiles, Upkeep,
    keys, parse,
};

/// The configuration of `remote-engine`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// `[site]`.
    pub site: Site,
    /// `[link]`.
    pub link: LinkListen,
    /// `[[peer]]`: who may connect.
    #[serde(default, rename = "peer")]
    pub peers: Vec<Peer>,
    /// `[[physical_library]]`.
    #[serde(default, rename = "physical_library")]
    pub physical_libraries: Vec<PhysicalLibrary>,
    /// `[[tape_key]]`.
    #[serde(default, rename = "tape_key")]
    pub tape_keys: Vec<TapeKeyFile>,
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

/// `[link]`: where local engines come in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkListen {
    /// Where it listens.
    pub listen: SocketAddr,
    /// PEM: the certificate authority of the pair. Absolute after loading.
    pub ca: PathBuf,
    /// PEM: the certificate of this engine. Absolute after loading.
    pub certificate: PathBuf,
    /// PEM: its private key, mode 0600. Absolute after loading.
    pub key: PathBuf,
    /// How long a device is kept for a holder that is not heard of, 5 to 86400 seconds; 120 if not
    /// given.
    #[serde(default = "default_lease")]
    pub lease_seconds: u32,
}

impl LinkListen {
    /// The three files.
    pub fn tls(&self) -> TlsFiles<'_> {
        TlsFiles { ca: &self.ca, certificate: &self.certificate, key: &self.key }
    }
}

/// `[[peer]]`: a local engine that may connect, and what it may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its site, as its certificate says (common name, or a DNS name in it).
    pub name: SiteName,
    /// The libraries that belong to it. A library has one owner.
    pub libraries: Vec<LibraryName>,
}

impl RemoteConfig {
    /// The peer that a certificate with these names stands for.
    pub fn peer(&self, names: &[String]) -> Option<&Peer> {
        self.peers.iter().find(|peer| names.iter().any(|name| name == peer.name.as_str()))
    }

    fn check(&self) -> Vec<String> {
        let mut findings = Findings::default();
        findings.state_dir(&self.site.state_dir);
        findings.log(&self.log);
        self.store.check(&mut findings);
        self.admin.check(&mut findings);
        findings.lease("link", self.link.lease_seconds);
        findings.tls("link", crate::tls::server_config(self.link.tls()));
        let names = self.physical_libraries.iter().map(|library| &library.name);
        libraries(names, &[], &self.physical_libraries, &mut findings);
        for library in &self.physical_libraries {
            let (site, name) = (&self.site.name, &library.name);
            findings.require(LibraryName::ghost(site, name).is_ok(), || {
                format!(
                    "physical_library {name}: at the other site it would be called {site}-{name}, \
                     which is longer than 32 characters; shorten one of the names"
                )
            });
        }
        self.check_peers(&mut findings);
        findings.into_texts()
    }

    fn check_peers(&self, findings: &mut Findings) {
        findings.require(
            !self.peers.is_empty(),
            || "nobody may connect; add [[peer]] with the name of the local engine's site",
        );
        findings.unique("peer", self.peers.iter().map(|peer| peer.name.as_str()));
        let mut owners: BTreeMap<&LibraryName, &SiteName> = BTreeMap::new();
        for peer in &self.peers {
            let name = &peer.name;
            findings.require(*name != self.site.name, || {
                format!("peer {name}: is the name of this site; each site has its own")
            });
            for library in &peer.libraries {
                let known = self.physical_libraries.iter().any(|own| own.name == *library);
                findings.require(known, || {
                    format!("peer {name}: there is no [[physical_library]] called {library}")
                });
                if let Some(owner) = owners.insert(library, name) {
                    findings.add(format!(
                        "peer {name}: library {library} belongs to peer {owner} already; a library \
                         has one owner"
                    ));
                }
            }
        }
    }
}

impl EngineConfig for RemoteConfig {
    const PROGRAM: &'static str = "remote-engine";

    fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = parse::read(path)?;
        let base = directory_of(path);
        let link = &mut config.link;
        resolve(
            &base,
            [&mut config.site.state_dir, &mut link.ca, &mut link.certificate, &mut link.key],
        );
        config.physical_libraries.iter_mut().for_each(|library| library.resolve(&base));
        config.store.resolve(&base);
        let libraries = config.physical_libraries.iter_mut();
        let mut texts: Vec<_> = libraries.filter_map(|it| it.read_secrets().err()).collect();
        resolve(&base, config.tape_keys.iter_mut().map(|key| &mut key.file));
        texts.extend(keys::settle(&config.tape_keys, &mut config.physical_libraries));
        // A secret that could not be read is one problem, not two.
        if texts.is_empty() {
            texts = config.check();
        }
        if texts.is_empty() { Ok(config) } else { Err(ConfigError::new(path, texts)) }
    }

    fn example() -> &'static str {
        include_str!("../../../../schemas/examples/remote.toml")
    }

    fn site(&self) -> &Site {
        &self.site
    }

    fn log(&self) -> &Log {
        &self.log
    }
}
