//! `[[virtual_library]]`, `[[physical_library]]` and `[[frontend_library]]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Barcode, ByteSize, CartridgeSet, DeviceName, ElementMap, LibraryName};
use serde::Deserialize;
use tape::KeyRing;
use tape::driver::Portal;
use tape::physical::Address;
use tape::target::{PERSONALITIES, Personality};

use super::check::{read_password, resolve};
use super::{KeyPool, Secret};

fn two() -> u16 {
    2
}

fn eight() -> u16 {
    8
}

fn four() -> u16 {
    4
}

/// `[[virtual_library]]` of the local engine: cartridges in the store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualLibrary {
    /// Its name, the first part of its device names.
    pub name: LibraryName,
    /// Number of drives, 1 to 64; 2 if not given.
    #[serde(default = "two")]
    pub drives: u16,
    /// Number of storage slots, 1 to 10000; 8 if not given.
    #[serde(default = "eight")]
    pub slots: u16,
    /// Number of import/export elements, 0 to 16; 4 if not given.
    #[serde(default = "four")]
    pub import_export: u16,
    /// Bytes that fit on each cartridge.
    pub capacity: ByteSize,
    /// How long before the end of a cartridge a drive warns; a twentieth of the
    /// capacity, at most 1 GiB, if not given.
    pub early_warning: Option<ByteSize>,
    /// The cartridges that it is made with; none if not given.
    pub cartridges: Option<CartridgeSet>,
    /// Whom its changer and drives claim to be; a name of
    /// [`tape::target::PERSONALITIES`].
    #[serde(default)]
    pub personality: Claimed,
}

/// The name of a [`Personality`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Claimed(pub &'static Personality);

impl Default for Claimed {
    fn default() -> Self {
        Self(&PERSONALITIES[0])
    }
}

impl TryFrom<String> for Claimed {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = || PERSONALITIES.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
        let found = Personality::find(&name);
        found
            .map(Self)
            .ok_or_else(|| format!("there is no personality {name:?}; it is one of {}", names()))
    }
}

/// `[[frontend_library]]` of the local engine: shows tapes of other libraries, as the
/// frontend-backend map says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontendLibrary {
    /// Its name, the first part of its device names.
    pub name: LibraryName,
    /// Number of drives, 1 to 64; 2 if not given.
    #[serde(default = "two")]
    pub drives: u16,
    /// Number of storage slots, 1 to 10000; 8 if not given.
    #[serde(default = "eight")]
    pub slots: u16,
    /// Number of import/export elements, 0 to 16; 4 if not given.
    #[serde(default = "four")]
    pub import_export: u16,
    /// The serial number of its changer, 1 to 24 letters, digits, `-` and `_`; made of site and
    /// name if not given. Its drives have the same one with three digits behind it.
    pub serial: Option<String>,
}

impl FrontendLibrary {
    /// The element addresses, as those of a virtual library.
    pub fn element_map(&self) -> ElementMap {
        ElementMap::with_counts(self.drives, self.slots, self.import_export)
    }
}

/// `[[physical_library]]`, valid in both engines.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct PhysicalLibrary {
    /// Its name; at the other site it is called `SITE-NAME`.
    pub name: LibraryName,
    /// How copies onto its tapes are proven; by their position if not given.
    pub verify: Verify,
    /// The name of the [`super::TapeKeyFile`] that its tapes are written with; in the clear if not
    /// given.
    pub key: Option<String>,
    /// Tapes that are written with another one.
    pub key_pools: Vec<KeyPool>,
    /// After loading: all keys of the engine, and which tape has which.
    pub keys: Arc<KeyRing>,
    /// What drives it.
    pub backend: Backend,
}

/// How the data of a copy is proven on tape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Not at all, beyond the drive's GOOD.
    None,
    /// The position behind the last flush is what it must be.
    #[default]
    Position,
    /// It is read back and compared.
    Readback,
}

/// What drives a physical library.
#[derive(Clone, Debug)]
pub enum Backend {
    /// `backend = "file"`: the embedded library.
    File(FileBackend),
    /// `backend = "scsi"`: a changer and drives.
    Scsi(ScsiBackend),
}

impl Backend {
    /// The word in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Scsi(_) => "scsi",
        }
    }
}

/// The embedded library: changer, drives and cartridges as files under `path`.
#[derive(Clone, Debug)]
pub struct FileBackend {
    /// Where the embedded library keeps its files. Absolute after loading.
    pub path: PathBuf,
    /// Number of drives, 1 to 64; 2 if not given.
    pub drives: u16,
    /// Number of storage slots, 1 to 10000; 8 if not given.
    pub slots: u16,
    /// Number of import/export elements, 0 to 16; 4 if not given.
    pub import_export: u16,
    /// Bytes that fit on each cartridge.
    pub capacity: ByteSize,
    /// How long before the end of a cartridge a drive warns; a twentieth of the
    /// capacity, at most 1 GiB, if not given.
    pub early_warning: Option<ByteSize>,
    /// The cartridges that it is made with; none if not given.
    pub cartridges: Option<CartridgeSet>,
}

/// A library behind SCSI.
#[derive(Clone, Debug)]
pub struct ScsiBackend {
    /// Its devices.
    pub devices: ScsiDevices,
    /// How we prove who we are to iSCSI targets.
    pub chap: Option<Chap>,
    /// Our iSCSI name; `iqn.2026-01.local.twinreel:SITE` if not given.
    pub initiator: Option<String>,
    /// Whether iSCSI PDUs carry CRC32C digests where the target has them; yes if not given.
    pub digests: bool,
    /// Whether drives are reserved while they are used; no if not given.
    pub reserve: bool,
}

/// Where the devices of a library are.
#[derive(Clone, Debug)]
pub enum ScsiDevices {
    /// Named.
    Named {
        /// The changer.
        changer: Address,
        /// The drives, in any order: they are matched by their serial numbers.
        drives: Vec<Address>,
    },
    /// To be found behind an iSCSI portal, or without one among the nodes of this host.
    Discovered(Option<Portal>),
}

/// `chap`: user and secret for iSCSI targets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chap {
    /// The name that the target knows.
    pub user: String,
    /// A file with the secret, mode 0600. Absolute after loading.
    pub secret_file: PathBuf,
    /// The name by which the target proves itself; not asked for if not given.
    pub target_user: Option<String>,
    /// A file with the target's secret, mode 0600. Absolute after loading.
    pub target_secret_file: Option<PathBuf>,
    /// After loading: the secret.
    #[serde(skip)]
    pub secret: Option<Secret>,
    /// After loading: the target's secret.
    #[serde(skip)]
    pub target_secret: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendName {
    File,
    Scsi,
}

/// How many drives, or which.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "drives is a number, or a list of devices")]
enum Drives {
    Count(u16),
    Named(Vec<String>),
}

/// The keys as they are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: LibraryName,
    backend: BackendName,
    #[serde(default)]
    verify: Verify,
    key: Option<String>,
    #[serde(default)]
    key_pools: Vec<KeyPool>,
    path: Option<PathBuf>,
    drives: Option<Drives>,
    slots: Option<u16>,
    import_export: Option<u16>,
    capacity: Option<ByteSize>,
    early_warning: Option<ByteSize>,
    cartridges: Option<CartridgeSet>,
    changer: Option<String>,
    discover: Option<bool>,
    portal: Option<String>,
    chap: Option<Chap>,
    initiator: Option<String>,
    digests: Option<bool>,
    reserve: Option<bool>,
}

impl TryFrom<Written> for PhysicalLibrary {
    type Error = String;

    fn try_from(mut written: Written) -> Result<Self, String> {
        let (name, verify) = (written.name.clone(), written.verify);
        let (key, key_pools) = (written.key.take(), std::mem::take(&mut written.key_pools));
        let backend = match written.backend {
            BackendName::File => written.file().map(Backend::File),
            BackendName::Scsi => written.scsi().map(Backend::Scsi),
        };
        let backend = backend.map_err(|text| format!("physical_library {name}: {text}"))?;
        Ok(Self { name, verify, key, key_pools, keys: Arc::default(), backend })
    }
}

impl Written {
    fn file(self) -> Result<FileBackend, String> {
        let foreign = [
            ("changer", self.changer.is_some()),
            ("discover", self.discover.is_some()),
            ("portal", self.portal.is_some()),
            ("chap", self.chap.is_some()),
            ("initiator", self.initiator.is_some()),
            ("digests", self.digests.is_some()),
            ("reserve", self.reserve.is_some()),
        ];
        only("file", "scsi", &foreign)?;
        let drives = match self.drives {
            None => 2,
            Some(Drives::Count(count)) => count,
            Some(Drives::Named(_)) => {
                return Err("drives is a number with backend \"file\"".to_owned());
            }
        };
        Ok(FileBackend {
            path: self.path.ok_or("missing field `path`")?,
            drives,
            slots: self.slots.unwrap_or(8),
            import_export: self.import_export.unwrap_or(4),
            capacity: self.capacity.ok_or("missing field `capacity`")?,
            early_warning: self.early_warning,
            cartridges: self.cartridges,
        })
    }

    fn scsi(self) -> Result<ScsiBackend, String> {
        let foreign = [
            ("path", self.path.is_some()),
            ("slots", self.slots.is_some()),
            ("import_export", self.import_export.is_some()),
            ("capacity", self.capacity.is_some()),
            ("early_warning", self.early_warning.is_some()),
            ("cartridges", self.cartridges.is_some()),
        ];
        only("scsi", "file", &foreign)?;
        let address = |text: &String| text.parse::<Address>().map_err(|error| error.to_string());
        let discover = self.discover.unwrap_or(false);
        let devices = match (discover, self.changer, self.drives) {
            (true, None, None) => {
                let portal = self.portal.map(|text| {
                    text.parse().map_err(|()| {
                        format!("portal {text:?} is not HOST:PORT, such as \"10.0.0.7:3260\"")
                    })
                });
                ScsiDevices::Discovered(portal.transpose()?)
            }
            (false, Some(changer), Some(Drives::Named(drives))) if self.portal.is_none() => {
                ScsiDevices::Named {
                    changer: address(&changer)?,
                    drives: drives.iter().map(address).collect::<Result<_, _>>()?,
                }
            }
            _ => {
                return Err("backend \"scsi\" has changer = \"...\" and drives = [\"...\"], or \
                            discover = true with or without portal = \"HOST:PORT\""
                    .to_owned());
            }
        };
        Ok(ScsiBackend {
            devices,
            chap: self.chap,
            initiator: self.initiator,
            digests: self.digests.unwrap_or(true),
            reserve: self.reserve.unwrap_or(false),
        })
    }
}

/// Refuses the keys of the other backend.
fn only(backend: &str, other: &str, foreign: &[(&str, bool)]) -> Result<(), String> {
    match foreign.iter().find(|(_, is_there)| *is_there) {
        None => Ok(()),
        Some((key, _)) => {
            Err(format!("`{key}` belongs to backend \"{other}\", this one is \"{backend}\""))
        }
    }
}

impl PhysicalLibrary {
    /// The embedded library, if it is one.
    pub fn file(&self) -> Option<&FileBackend> {
        match &self.backend {
            Backend::File(file) => Some(file),
            Backend::Scsi(_) => None,
        }
    }

    /// Makes its paths absolute.
    pub(crate) fn resolve(&mut self, base: &Path) {
        match &mut self.backend {
            Backend::File(file) => resolve(base, [&mut file.path]),
            Backend::Scsi(ScsiBackend { chap: Some(chap), .. }) => {
                resolve(base, [&mut chap.secret_file]);
                resolve(base, chap.target_secret_file.as_mut());
            }
            Backend::Scsi(_) => {}
        }
    }

    /// Reads its secrets.
    pub(crate) fn read_secrets(&mut self) -> Result<(), String> {
        let Backend::Scsi(ScsiBackend { chap: Some(chap), .. }) = &mut self.backend else {
            return Ok(());
        };
        let name = &self.name;
        read_chap(chap).map_err(|text| format!("physical_library {name}: chap: {text}"))
    }
}

/// Reads the secrets of `chap` out of their files.
pub(crate) fn read_chap(chap: &mut Chap) -> Result<(), String> {
    if chap.target_user.is_some() != chap.target_secret_file.is_some() {
        return Err("target_user and target_secret_file go together".to_owned());
    }
    let target = chap.target_secret_file.as_deref();
    read_password(&mut chap.secret, Some(&chap.secret_file))?;
    read_password(&mut chap.target_secret, target)?;
    let both = [Some(&chap.secret), target.map(|_| &chap.target_secret)];
    for secret in both.into_iter().flatten() {
        // RFC 7143 9.2.1 wants 96 bits; that is what targets refuse as well.
        let length = secret.as_ref().map_or(0, |secret| secret.expose().len());
        if !(12..=255).contains(&length) {
            return Err(format!("a secret has 12 to 255 bytes, this one {length}"));
        }
    }
    let exposed = |secret: &Option<Secret>| secret.as_ref().map(|it| it.expose().to_owned());
    if target.is_some() && exposed(&chap.secret) == exposed(&chap.target_secret) {
        return Err("both directions need secrets of their own".to_owned());
    }
    Ok(())
}

/// The distance from early warning to the end of a cartridge: as configured, else a twentieth of
/// the capacity, at most 1 GiB.
pub(crate) fn early_warning_bytes(capacity: ByteSize, given: Option<ByteSize>) -> u64 {
    given.map_or((capacity.0 / 20).min(1 << 30), |size| size.0)
}

macro_rules! geometry {
    ($($library:ident)*) => {$(
        impl $library {
            /// The element addresses: import/export 0, transport 16, drives 128, slots 1024.
            pub fn element_map(&self) -> ElementMap {
                ElementMap::with_counts(self.drives, self.slots, self.import_export)
            }

            /// The barcodes of its cartridges in order; loading has checked that they fit.
            pub fn barcodes(&self) -> Vec<Barcode> {
                let set = self.cartridges.as_ref();
                set.and_then(|set| set.barcodes().ok()).unwrap_or_default()
            }

            /// Bytes between early warning and the end of a cartridge.
            pub fn early_warning_bytes(&self) -> u64 {
                early_warning_bytes(self.capacity, self.early_warning)
            }
        }
    )*};
}

geometry! { VirtualLibrary FileBackend }

impl VirtualLibrary {
    /// The NDMP device names: the changer, then the drives.
    pub fn device_names(&self) -> Vec<DeviceName> {
        let drives = (0..self.drives).map(|i| DeviceName::drive(self.name.clone(), i));
        std::iter::once(DeviceName::changer(self.name.clone())).chain(drives).collect()
    }
}
