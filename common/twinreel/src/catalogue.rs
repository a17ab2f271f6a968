//! What is read from an engine's catalogue, whether it runs or not.

use std::path::Path;
use std::time::Duration;

use model::{ByteSize, DeviceName, LibraryName};
use serde::Serialize;
use service::config::{EngineConfig, LocalConfig, RemoteConfig, Site, Upkeep};
use svs::{Catalogue, Device, JobFilter, JobStatus, Library, LibraryRole};

use crate::cli::{Failed, Which};
use crate::output::{Output, or_dash, table};

/// How often a watched list is renewed.
const EVERY: Duration = Duration::from_secs(1);

/// The site that a configuration of either engine describes.
pub(crate) fn site(which: &Which) -> Result<Site, Failed> {
    Ok(site_and_store(which)?.0)
}

/// The same with what it says of the store.
pub(crate) fn site_and_store(which: &Which) -> Result<(Site, Upkeep), Failed> {
    let local = match LocalConfig::load(&which.config) {
        Ok(config) => return Ok((config.site, config.store)),
        Err(error) => error,
    };
    match RemoteConfig::load(&which.config) {
        Ok(config) => Ok((config.site, config.store)),
        Err(remote) if is_remote(&which.config) => Err(Failed::usage(remote)),
        Err(_) => Err(Failed::usage(local)),
    }
}

/// Whether a configuration with faults is meant for a remote engine: there `[link]` is a table,
/// at the local one a list.
fn is_remote(config: &Path) -> bool {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    text.lines().any(|line| line.trim() == "[link]")
}

pub(crate) fn open(which: &Which) -> Result<(Site, Catalogue), Failed> {
    let site = site(which)?;
    let catalogue = Catalogue::open_read_only(&site.catalogue()).map_err(Failed::new)?;
    Ok((site, catalogue))
}

pub(crate) fn jobs(
    which: &Which,
    watch: bool,
    active: bool,
    output: &Output,
) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let filter = if active { JobFilter::unfinished() } else { JobFilter::default() };
    loop {
        let jobs = catalogue.jobs(&filter).map_err(Failed::new)?;
        let read = match watch {
            true => output.show_anew(&jobs, |jobs| job_table(jobs))?,
            false => output.print(&jobs, |jobs| job_table(jobs))?,
        };
        if !watch || !read {
            return Ok(());
        }
        std::thread::sleep(EVERY);
    }
}

fn job_table(jobs: &[JobStatus]) -> String {
    let row = |job: &JobStatus| {
        [
            job.id.to_string(),
            job.kind.to_string(),
            job.source.clone(),
            job.target.clone(),
            job.state.to_string(),
            or_dash(job.percent),
            ByteSize(job.bytes).to_string(),
            or_dash(job.rate.map(|rate| format!("{}/s", ByteSize(rate)))),
            or_dash(job.path),
            or_dash(job.started.as_deref()),
            or_dash(job.message.as_deref()),
        ]
    };
    let header = [
        "id", "kind", "source", "target", "state", "percent", "bytes", "rate", "path", "started",
        "message",
    ];
    table(header, jobs.iter().map(row).collect())
}

pub(crate) fn libraries(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let mut all = Vec::new();
    for library in catalogue.libraries().map_err(Failed::new)? {
        let devices = catalogue.devices(&library.site, &library.name).map_err(Failed::new)?;
        let devices = devices.into_iter().map(|device| {
            let ndmp_name = ndmp_name(&library, &device);
            ListedDevice { ndmp_name, device }
        });
        all.push(Listed { devices: devices.collect(), library });
    }
    output.show(&all, |all| library_table(all))
}

/// A library as it is listed.
#[derive(Serialize)]
struct Listed {
    library: Library,
    devices: Vec<ListedDevice>,
}

#[derive(Serialize)]
struct ListedDevice {
    /// What a backup application calls it; null if it has no name there.
    ndmp_name: Option<DeviceName>,
    #[serde(flatten)]
    device: Device,
}

/// A ghost is called by its site and its own name.
fn ndmp_name(library: &Library, device: &Device) -> Option<DeviceName> {
    let name = match library.role {
        LibraryRole::Ghost => LibraryName::ghost(&library.site, &library.name).ok()?,
        LibraryRole::Virtual | LibraryRole::Physical | LibraryRole::Frontend => {
            library.name.clone()
        }
    };
    Some(DeviceName { library: name, role: device.name.role })
}

fn library_table(all: &[Listed]) -> String {
    let row = |library: &Library, it: &ListedDevice| {
        [
            library.site.to_string(),
            library.name.to_string(),
            library.role.to_string(),
            library.state.clone(),
            or_dash(it.ndmp_name.as_ref()),
            it.device.serial.clone(),
            it.device.state.clone(),
        ]
    };
    let rows = all.iter().flat_map(|it| it.devices.iter().map(|device| row(&it.library, device)));
    let header = ["site", "library", "role", "state", "NDMP device", "serial", "device state"];
    table(header, rows.collect())
}

pub(crate) fn cartridges(which: &Which, output: &Output) -> Result<(), Failed> {
    let (site, catalogue) = open(which)?;
    let mut all = catalogue.cartridge_status().map_err(Failed::new)?;
    // Replicas are another site's cartridges, and listed there.
    all.retain(|cartridge| cartridge.site == site.name);
    output.show(&all, |all| {
        let row = |c: &svs::CartridgeStatus| {
            [
                c.site.to_string(),
                c.library.to_string(),
                c.barcode.to_string(),
                or_dash(c.element),
                or_dash(c.number),
                or_dash(c.logical_bytes.map(ByteSize)),
                or_dash(c.unique_bytes.map(ByteSize)),
                or_dash(c.peer.as_ref()),
                or_dash(c.replication),
            ]
        };
        let header = [
            "site",
            "library",
            "barcode",
            "element",
            "generation",
            "bytes",
            "unique",
            "peer",
            "replication",
        ];
        table(header, all.iter().map(row).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_of_the_configuration_that_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("x.toml");
        for (head, key) in [("[link]", "lissten"), ("[ndmp]", "lissten")] {
            std::fs::write(&config, format!("{head}\n{key} = \"127.0.0.1:1\"\n")).unwrap();
            let failed = site(&Which { config: config.clone() }).unwrap_err();
            assert_eq!(failed.code, 2);
            assert!(failed.text.contains(key) && failed.text.contains("listen"), "{failed:?}");
        }
    }

    #[test]
    fn a_ghost_is_listed_by_the_name_that_applications_use() {
        let mut library = Library {
            site: model::SiteName::new("dr").unwrap(),
            name: LibraryName::new("ptl0").unwrap(),
            serial: "S0".into(),
            role: LibraryRole::Ghost,
            backend: "file".into(),
            state: "ready".into(),
        };
        let device = Device {
            name: "ptl0/drive1".parse().unwrap(),
            serial: "S2".into(),
            vendor: String::new(),
            product: String::new(),
            revision: String::new(),
            state: "empty".into(),
        };
        let ghost = ndmp_name(&library, &device).unwrap();
        assert_eq!(ghost.to_string(), "dr-ptl0/drive1");
        library.role = LibraryRole::Physical;
        assert_eq!(ndmp_name(&library, &device).unwrap(), device.name);
        let listed = ListedDevice { ndmp_name: Some(ghost), device };
        let listed = Listed { library, devices: vec![listed] };
        let value = serde_json::to_value(&listed).unwrap();
        assert_eq!(value["devices"][0]["ndmp_name"], "dr-ptl0/drive1");
        assert_eq!(value["devices"][0]["serial"], "S2");
        assert!(library_table(&[listed]).contains("dr-ptl0/drive1"));
    }
}
