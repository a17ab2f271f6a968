//! What the types of a configuration can not say.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::{Barcode, ByteSize, CartridgeSet, LibraryName};
use tape::physical::Address;

use super::library::early_warning_bytes;
use super::{
    Backend, FileBackend, FrontendLibrary, Log, PhysicalLibrary, ScsiDevices, Secret,
    VirtualLibrary,
};
use crate::tls::TlsError;

/// The smallest cartridge: room for a few records of the largest size.
const CAPACITY_MIN: u64 = 1 << 20;
/// The longest path of a Unix socket that the system takes, with its final zero: 108.
const SOCKET_PATH_MAX: usize = 107;

/// What was found wrong.
#[derive(Default)]
pub(crate) struct Findings(Vec<String>);

impl Findings {
    pub(crate) fn add(&mut self, text: String) {
        self.0.push(text);
    }

    pub(crate) fn require<T: Into<String>>(&mut self, good: bool, text: impl FnOnce() -> T) {
        if !good {
            self.0.push(text().into());
        }
    }

    pub(crate) fn into_texts(self) -> Vec<String> {
        self.0
    }

    /// Each name once.
    pub(crate) fn unique<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            self.require(seen.insert(name), || format!("{what} {name:?}: is there twice"));
        }
    }

    pub(crate) fn lease(&mut self, what: &str, seconds: u32) {
        self.require((5..=86_400).contains(&seconds), || {
            format!("{what}: lease_seconds is 5 to 86400, not {seconds}")
        });
    }

    /// Takes over why certificates can not be used.
    pub(crate) fn tls<T>(&mut self, what: &str, made: Result<T, TlsError>) {
        if let Err(error) = made {
            self.add(format!("{what}: {error}"));
        }
    }

    pub(crate) fn log(&mut self, log: &Log) {
        if let Err(error) = crate::logging::filter("log.level", &log.level) {
            self.add(error.to_string());
        }
    }

    pub(crate) fn state_dir(&mut self, path: &Path) {
        let socket = path.join(crate::admin::SOCKET);
        self.require(socket.as_os_str().len() <= SOCKET_PATH_MAX, || {
            format!(
                "site: state_dir {} is too long: a socket in it may have {SOCKET_PATH_MAX} \
                 characters",
                path.display()
            )
        });
    }
}

/// What both kinds of library have.
struct Shape<'a> {
    what: &'static str,
    name: &'a LibraryName,
    drives: u16,
    slots: u16,
    import_export: u16,
    capacity: ByteSize,
    early_warning: Option<ByteSize>,
    cartridges: Option<&'a CartridgeSet>,
}

impl<'a> Shape<'a> {
    fn of_virtual(library: &'a VirtualLibrary) -> Self {
        Self {
            what: "virtual_library",
            name: &library.name,
            drives: library.drives,
            slots: library.slots,
            import_export: library.import_export,
            capacity: library.capacity,
            early_warning: library.early_warning,
            cartridges: library.cartridges.as_ref(),
        }
    }

    fn of_file(name: &'a LibraryName, library: &'a FileBackend) -> Self {
        Self {
            what: "physical_library",
            name,
            drives: library.drives,
            slots: library.slots,
            import_export: library.import_export,
            capacity: library.capacity,
            early_warning: library.early_warning,
            cartridges: library.cartridges.as_ref(),
        }
    }
}

/// Checks the frontend libraries of an engine: counts and serial numbers.
pub(crate) fn frontends(libraries: &[FrontendLibrary], findings: &mut Findings) {
    for library in libraries {
        let at = format!("frontend_library {}", library.name);
        elements(&at, library.drives, library.slots, library.import_export, findings);
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let good = |serial: &String| (1..=24).contains(&serial.len()) && serial.bytes().all(legal);
        findings.require(library.serial.as_ref().is_none_or(good), || {
            format!("{at}: serial has 1 to 24 letters, digits, hyphens and underscores")
        });
    }
    let serials = libraries.iter().filter_map(|library| library.serial.as_deref());
    findings.unique("frontend_library serial", serials);
}

/// Checks all libraries of one engine: names, counts, sizes, barcodes and paths.
pub(crate) fn libraries<'a>(
    names: impl Iterator<Item = &'a LibraryName>,
    virtuals: &[VirtualLibrary],
    physicals: &[PhysicalLibrary],
    findings: &mut Findings,
) {
    findings.unique("library", names.map(LibraryName::as_str));
    let files = physicals.iter().filter_map(|it| Some(Shape::of_file(&it.name, it.file()?)));
    let shapes = virtuals.iter().map(Shape::of_virtual).chain(files);
    let mut barcodes: BTreeSet<Barcode> = BTreeSet::new();
    for shape in shapes {
        one_library(&shape, &mut barcodes, findings);
    }
    let mut paths = BTreeSet::new();
    let mut ways = BTreeSet::new();
    for library in physicals {
        let name = &library.name;
        match &library.backend {
            Backend::File(file) => findings.require(paths.insert(&file.path), || {
                let path = file.path.display();
                format!("physical_library {name}: another library has the path {path}")
            }),
            Backend::Scsi(scsi) => scsi_devices(name, &scsi.devices, &mut ways, findings),
        }
    }
}

fn scsi_devices<'a>(
    name: &LibraryName,
    devices: &'a ScsiDevices,
    ways: &mut BTreeSet<&'a Address>,
    findings: &mut Findings,
) {
    let ScsiDevices::Named { changer, drives } = devices else { return };
    findings.require((1..=64).contains(&drives.len()), || {
        format!("physical_library {name}: drives lists 1 to 64 devices")
    });
    for way in std::iter::once(changer).chain(drives) {
        findings
            .require(ways.insert(way), || format!("physical_library {name}: {way} is used twice"));
    }
}

fn elements(at: &str, drives: u16, slots: u16, import_export: u16, findings: &mut Findings) {
    findings.require((1..=64).contains(&drives), || format!("{at}: drives is 1 to 64"));
    findings.require((1..=10_000).contains(&slots), || format!("{at}: slots is 1 to 10000"));
    findings.require(import_export <= 16, || format!("{at}: import_export is 0 to 16"));
}

fn one_library(shape: &Shape<'_>, barcodes: &mut BTreeSet<Barcode>, findings: &mut Findings) {
    let at = format!("{} {}", shape.what, shape.name);
    elements(&at, shape.drives, shape.slots, shape.import_export, findings);
    findings.require((CAPACITY_MIN..=i64::MAX as u64).contains(&shape.capacity.0), || {
        format!("{at}: capacity is at least 1MiB")
    });
    let warning = early_warning_bytes(shape.capacity, shape.early_warning);
    findings.require(warning < shape.capacity.0.max(1), || {
        format!("{at}: early_warning is less than capacity")
    });
    let Some(set) = shape.cartridges else { return };
    let places = u32::from(shape.slots) + u32::from(shape.import_export);
    if set.count > places {
        findings.add(format!(
            "{at}: {} cartridges do not fit in {places} slots and import/export elements",
            set.count
        ));
        return;
    }
    match set.barcodes() {
        Err(error) => findings.add(format!("{at}: cartridges: {error}")),
        Ok(own) => {
            let twice = own.into_iter().filter(|code| !barcodes.insert(code.clone())).min();
            if let Some(barcode) = twice {
                findings.add(format!(
                    "{at}: another library has the barcode {barcode}; take another prefix"
                ));
            }
        }
    }
}

/// The directory of a configuration file, absolute.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Makes paths absolute: what is relative begins at the configuration file.
pub(crate) fn resolve<'a>(base: &Path, paths: impl IntoIterator<Item = &'a mut PathBuf>) {
    for path in paths {
        *path = base.join(&*path);
    }
}

/// Refuses a file with a secret that others may read.
pub(crate) fn private(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|e| format!("{shown} can not be read: {e}"))?;
    match metadata.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!(
            "{shown} may be read by others (mode {:04o}); run: chmod 600 {shown}",
            metadata.mode() & 0o7777
        )),
    }
}

/// Takes the password out of its file, if that is where it is: its first line.
pub(crate) fn read_password(
    password: &mut Option<Secret>,
    file: Option<&Path>,
) -> Result<(), String> {
    let Some(path) = file else { return Ok(()) };
    if password.is_some() {
        return Err("write password or password_file, not both".to_owned());
    }
    private(path)?;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(4096).read_to_string(&mut text))
        .map_err(|error| format!("{} can not be read: {error}", path.display()))?;
    text.truncate(text.find(['\n', '\r']).unwrap_or(text.len()));
    *password = Some(Secret::new(text));
    Ok(())
}
