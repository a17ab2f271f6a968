//! Working configurations for a pair of engines on one machine.

use std::path::{Path, PathBuf};

use model::SiteName;

use crate::pki::{self, PkiError};

/// What [`init`] writes down; [`InitOptions::with_ports`] fits a first look.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The site of the local engine; `hq`.
    pub local_site: SiteName,
    /// The site of the remote engine; `dr`.
    pub remote_site: SiteName,
    /// The port of NDMP on loopback; 10000.
    pub ndmp_port: u16,
    /// The port of the link on loopback; 10001.
    pub link_port: u16,
    /// Capacity of the virtual cartridges, as the configuration writes it; `100GiB`.
    pub virtual_capacity: String,
    /// Capacity of the physical cartridges; `100GiB`.
    pub physical_capacity: String,
    /// Distance from early warning to the end of a cartridge; by default a part of the capacity.
    pub early_warning: Option<String>,
}

impl InitOptions {
    /// A pair with these ports and everything else as usual.
    ///
    /// # Errors
    /// None: the built-in names are names.
    pub fn with_ports(ndmp_port: u16, link_port: u16) -> Result<Self, model::NameError> {
        Ok(Self {
            local_site: SiteName::new("hq")?,
            remote_site: SiteName::new("dr")?,
            ndmp_port,
            link_port,
            virtual_capacity: "100GiB".to_owned(),
            physical_capacity: "100GiB".to_owned(),
            early_warning: None,
        })
    }
}

/// What [`init`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialised {
    /// The configuration of the local engine.
    pub local: PathBuf,
    /// The configuration of the remote engine.
    pub remote: PathBuf,
    /// The file with the password of the NDMP user `ndmp`, mode 0600.
    pub password_file: PathBuf,
}

/// Writes `local.toml`, `remote.toml`, `ndmp.password` and `pki/` into a directory: a pair that
/// runs as it is, on loopback, with the virtual library `vtl0` here and the embedded library
/// `ptl0` there (a ghost called `dr-ptl0`). Nothing that exists is overwritten.
///
/// # Errors
/// [`PkiError`]: a file that is there already, or can not be written.
pub fn init(dir: &Path, options: &InitOptions) -> Result<Initialised, PkiError> {
    pki::make_dir(dir)?;
    let made = Initialised {
        local: dir.join("local.toml"),
        remote: dir.join("remote.toml"),
        password_file: dir.join("ndmp.password"),
    };
    pki::write_new(&made.local, local_toml(options).as_bytes(), 0o600)?;
    pki::write_new(&made.remote, remote_toml(options).as_bytes(), 0o600)?;
    let password = password().map_err(|error| PkiError::File {
        file: made.password_file.clone(),
        source: std::io::Error::other(format!("no random numbers: {error}")),
    })?;
    pki::write_new(&made.password_file, format!("{password}\n").as_bytes(), 0o600)?;
    let hosts: &[&str] = &["localhost", "127.0.0.1", "::1"];
    pki::init(&dir.join("pki"), &[(&options.local_site, hosts), (&options.remote_site, hosts)])?;
    Ok(made)
}

/// 24 characters of 32: 120 random bits.
fn password() -> Result<String, getrandom::Error> {
    let mut random = [0u8; 24];
    getrandom::fill(&mut random)?;
    let alphabet = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(random.iter().map(|byte| char::from(alphabet[usize::from(byte % 32)])).collect())
}

fn early_warning(options: &InitOptions) -> String {
    let line = |size: &String| format!("early_warning = \"{size}\"\n");
    options.early_warning.as_ref().map(line).unwrap_or_default()
}

fn local_toml(options: &InitOptions) -> String {
    let InitOptions { local_site, ndmp_port, link_port, virtual_capacity, .. } = options;
    format!(
        r#"# The local engine of a pair on one machine; see `local-engine example-config`.

[site]
name = "{local_site}"
state_dir = "{local_site}"

[ndmp]
listen = "127.0.0.1:{ndmp_port}"

[[ndmp.user]]
name = "ndmp"
password_file = "ndmp.password"

[[link]]
connect = "127.0.0.1:{link_port}"
ca = "pki/ca.pem"
certificate = "pki/{local_site}.pem"
key = "pki/{local_site}.key"

[[virtual_library]]
name = "vtl0"
drives = 2
slots = 8
import_export = 4
capacity = "{virtual_capacity}"
{}cartridges = {{ prefix = "VTA", count = 6 }}
"#,
        early_warning(options)
    )
}

fn remote_toml(options: &InitOptions) -> String {
    let InitOptions { local_site, remote_site, link_port, physical_capacity, .. } = options;
    format!(
        r#"# The remote engine of a pair on one machine; see `remote-engine example-config`.

[site]
name = "{remote_site}"
state_dir = "{remote_site}"

[link]
listen = "127.0.0.1:{link_port}"
ca = "pki/ca.pem"
certificate = "pki/{remote_site}.pem"
key = "pki/{remote_site}.key"

[[peer]]
name = "{local_site}"
libraries = ["ptl0"]

[[physical_library]]
name = "ptl0"
backend = "file"
path = "ptl0"
drives = 2
slots = 8
import_export = 4
capacity = "{physical_capacity}"
{}cartridges = {{ prefix = "PTA", count = 6 }}
"#,
        early_warning(options)
    )
}
