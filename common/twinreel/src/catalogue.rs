//! What is read from an engine's catalogue, whether it runs or not.

use std::time::Duration;

use model::ByteSize;
use serde_json::{Value, json};
use service::config::{EngineConfig, LocalConfig, RemoteConfig, Site};
use svs::{Catalogue, JobFilter, JobStatus};

use crate::cli::{Failed, Which};
use crate::output::{Output, or_dash, table};

/// How often a watched list is renewed.
const EVERY: Duration = Duration::from_secs(1);

/// The site that a configuration of either engine describes.
pub(crate) fn site(which: &Which) -> Result<Site, Failed> {
    let local = LocalConfig::load(&which.config);
    match local {
        Ok(config) => Ok(config.site),
        Err(local) => match RemoteConfig::load(&which.config) {
            Ok(config) => Ok(config.site),
            Err(_) => Err(Failed::usage(local)),
        },
    }
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
            or_dash(job.path),
            or_dash(job.started.as_deref()),
            or_dash(job.message.as_deref()),
        ]
    };
    let header = [
        "id", "kind", "source", "target", "state", "percent", "bytes", "path", "started", "message",
    ];
    table(header, jobs.iter().map(row).collect())
}

pub(crate) fn libraries(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let mut all = Vec::new();
    for library in catalogue.libraries().map_err(Failed::new)? {
        let devices = catalogue.devices(&library.site, &library.name).map_err(Failed::new)?;
        all.push(json!({ "library": library, "devices": devices }));
    }
    output.show(&all, |all| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let row = |entry: &Value, device: &Value| {
            let library = &entry["library"];
            [
                text(&library["site"]),
                text(&library["name"]),
                text(&library["role"]),
                text(&library["state"]),
                text(&device["name"]),
                text(&device["serial"]),
            ]
        };
        let devices = |entry: &Value| entry["devices"].as_array().cloned().unwrap_or_default();
        let rows = all
            .iter()
            .flat_map(|entry| devices(entry).iter().map(|d| row(entry, d)).collect::<Vec<_>>());
        table(["site", "library", "role", "state", "device", "serial"], rows.collect())
    })
}

pub(crate) fn cartridges(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let all = catalogue.cartridge_status().map_err(Failed::new)?;
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
