//! The status page: what an engine holds and does, for people in front of a browser. Read-only.
//!
//! ```text
//!   mod      what is told, as data: `/status.json`
//!   facts    libraries, the queue, jobs and maps made into it
//!   page     the same as HTML, and the listener
//! ```
//!
//! Nothing here is a secret, and nobody logs in; so it listens on loopback only, and answers only
//! who asked for it by an address or as `localhost`: else any page in the same browser could read
//! it by a name of its own.

mod facts;
mod page;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use facts::{age_seconds, jobs, library, maps, now, queue};
pub use page::{Source, start};

/// Everything that is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// `local-engine` or `remote-engine`.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its site.
    pub site: String,
    /// When this was true, RFC 3339 UTC.
    pub at: String,
    /// The other engines.
    pub links: Vec<Link>,
    /// The libraries.
    pub libraries: Vec<Library>,
    /// Who has drives or waits for them, at most 500; who is next comes first.
    pub queue: Vec<Turn>,
    /// Jobs that have not ended, and the newest that have.
    pub jobs: Vec<Job>,
    /// The three maps.
    pub maps: Maps,
}

/// The way to another engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The other site, or its address while it was never met.
    pub site: String,
    /// Whether it is up.
    pub up: bool,
    /// Generations that wait to be replicated there, where that is known.
    pub waiting: Option<u64>,
}

/// A library as it is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Library {
    /// Its name here.
    pub name: String,
    /// `virtual`, `ghost` or `physical`.
    pub role: &'static str,
    /// Serial number of the changer.
    pub serial: String,
    /// Whether it answers.
    pub online: bool,
    /// Of a ghost: how old the last report of it is.
    pub report_age_seconds: Option<u64>,
    /// The drives in order.
    pub drives: Vec<Drive>,
    /// Storage and import/export elements in the order of their addresses, at most 4096.
    pub slots: Vec<Slot>,
    /// Elements that are not among them.
    pub more_slots: usize,
    /// Cartridges in all.
    pub cartridges: usize,
}

/// A drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// `vtl0/drive0`.
    pub name: String,
    /// Element address.
    pub address: u16,
    /// What is in it: its volume tag, or empty for a cartridge without one.
    pub cartridge: Option<String>,
    /// Who has it open.
    pub holder: Option<String>,
}

/// A place for a cartridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Element address.
    pub address: u16,
    /// Whether it is for import and export.
    pub import_export: bool,
    /// What is in it: its volume tag, or empty for a cartridge without one.
    pub cartridge: Option<String>,
    /// The changer says that something is wrong with it.
    pub exception: bool,
}

/// One who has drives or waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// The number in the queue.
    pub number: u64,
    /// `waiting` or `mounted`.
    pub state: String,
    /// What the tapes are wanted for: `restore`, `copy`, ...
    pub priority: String,
    /// The tapes, separated by ", ".
    pub tapes: String,
    /// The drives that he has, separated by ", ".
    pub drives: String,
    /// How long he has been in the queue.
    pub age_seconds: u64,
    /// Who.
    pub who: String,
    /// The job, if it is one.
    pub job: Option<String>,
    /// What is waited for.
    pub reason: Option<String>,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Job {
    /// Its id, the same at both sites.
    pub id: String,
    /// What kind of work it is.
    pub kind: String,
    /// What is read.
    pub source: String,
    /// What is written.
    pub target: String,
    /// Where it stands.
    pub state: String,
    /// Whether it has ended.
    pub ended: bool,
    /// 0 to 100, where the total is known.
    pub percent: Option<f64>,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes a second while it was in progress.
    pub rate: Option<u64>,
    /// Why it stands where it stands.
    pub message: String,
    /// Who asked for it.
    pub requested_by: String,
}

/// The three maps, as the words of their rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Maps {
    /// `frontend_backend_map`.
    pub frontend_backend: Vec<FrontendRow>,
    /// `copy_map`.
    pub copy: Vec<MapRow>,
    /// `migration_map`.
    pub migration: Vec<MapRow>,
}

/// A row of the frontend-backend map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrontendRow {
    /// The device that does the work.
    pub backend_device: String,
    /// The device that the host sees.
    pub frontend_device: Option<String>,
    /// The device that is used in the backend's place.
    pub alternative_backend_device: Option<String>,
    /// The media that belong to it.
    pub backend_tapes: String,
}

/// A row of the copy map or of the migration map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MapRow {
    /// The source.
    pub source: String,
    /// The target.
    pub target: String,
    /// When.
    pub policy: String,
    /// How far it has come.
    pub status: String,
    /// Why it stands where it stands.
    pub message: Option<String>,
}
