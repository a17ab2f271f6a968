//! Seeds: generations on a disk that is shipped, so that a first replication does not cross the
//! WAN.
//!
//! A seed is a store. What writes it is what replication does between two stores, only that both
//! are open here; so it may be ended and run again, is encrypted like a store, and nothing of it is
//! believed where it is read. See `docs/adr/0074-a-seed-is-a-store.md`.

mod list;
mod read;
mod tree;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{JobId, SiteName};
use serde::Deserialize;
use serde_json::Value;
use store::{Key, OpenReport, Store, StoreError};
use svs::{JobKind, JobState, Progress};
use vfs::{RealVfs, Vfs};

use crate::admin::{AdminFault, FaultCode};
use crate::upkeep::Upkeep;
use tree::Contents;

pub use write::Order;

/// What the rows of these jobs bear, so that a start finds those that a stop ended.
const MARK: &str = "seed";

/// Where a seed is, and what opens it.
#[derive(Clone, Debug, Deserialize)]
pub struct Disk {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// The file with its key, if it is encrypted. Absolute.
    pub key_file: Option<PathBuf>,
}

/// Whose a seed may be.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// This site.
    pub me: SiteName,
    /// Sites whose generations belong here.
    pub peers: Vec<SiteName>,
}

impl Disk {
    fn key(&self) -> Result<Option<Key>, String> {
        let key = self.key_file.as_deref().map(Key::read);
        key.transpose().map_err(|error| error.to_string())
    }

    fn contents(&self) -> Result<Contents, String> {
        if !self.dir.is_absolute() {
            return Err(format!("{} is no absolute path", self.dir.display()));
        }
        tree::look(&self.dir).map_err(|error| error.to_string())
    }

    fn open(&self, vfs: Arc<dyn Vfs>, key: Option<&Key>) -> Result<(Store, OpenReport), String> {
        let options = store::Options::default();
        let opened = Store::open_with_key(vfs, &self.dir, &options, key);
        opened.map_err(|error| match error {
            StoreError::Key(error) => format!("{error}; name the seed's key with --key-file"),
            other => other.to_string(),
        })
    }
}

fn real() -> Arc<dyn Vfs> {
    Arc::new(RealVfs)
}

impl Upkeep {
    /// Does something that takes long with a seed, on a thread that may block.
    async fn with_seed<T>(
        self: &Arc<Self>,
        params: T,
        work: impl FnOnce(&Self, T) -> Result<Value, String> + Send + 'static,
    ) -> Result<Value, AdminFault>
    where
        T: Send + 'static,
    {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&this, params)).await;
        let failed = |text: String| AdminFault::new(FaultCode::Failed, text);
        done.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }

    /// Writes what a site lacks to a disk, over the admin socket; `params` are an [`Order`].
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn seed_write(
        self: &Arc<Self>,
        params: Value,
        me: SiteName,
    ) -> Result<Value, AdminFault> {
        let order: Order = parse(params)?;
        self.with_seed(order, move |this, order| this.write_seed(&order, &me)).await
    }

    /// Takes in what is on a disk, over the admin socket; `params` are a [`Disk`].
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn seed_read(
        self: &Arc<Self>,
        params: Value,
        neighbours: Neighbours,
    ) -> Result<Value, AdminFault> {
        let disk: Disk = parse(params)?;
        self.with_seed(disk, move |this, disk| this.read_seed(&disk, &neighbours)).await
    }

    /// Jobs with seeds that a stop ended are over; whoever wanted them asks again.
    pub(crate) fn end_former_seeds(&self) {
        let jobs = self.catalogue().unfinished_jobs(Some(JobKind::Replication));
        for job in jobs.unwrap_or_default() {
            if job.resume.as_deref() == Some(MARK) && job.state == JobState::Pending {
                let text = "the engine was restarted; give the command again".to_owned();
                self.log(self.catalogue().finish(job.id, &svs::Ending::failed(text)));
            }
        }
    }

    /// Notes bytes that a job got through; false when it is to stop.
    fn pace(&self, job: JobId, done: &mut u64, bytes: u64) -> bool {
        *done += bytes;
        self.log(self.catalogue().progress(job, Progress { bytes: *done, bytes_total: None }));
        !self.shutdown().is_requested()
    }
}

fn parse<T: serde::de::DeserializeOwned>(params: Value) -> Result<T, AdminFault> {
    let bad = |error: serde_json::Error| AdminFault::new(FaultCode::BadRequest, error.to_string());
    serde_json::from_value(params).map_err(bad)
}

fn full(dir: &Path) -> String {
    format!(
        "{} is full; the generations that were written are whole. Give the command again with \
         more room there, or ship this one and go on with --cartridge on another",
        dir.display()
    )
}
