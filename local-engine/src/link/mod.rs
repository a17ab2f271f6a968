//! The links to remote engines.
//!
//! ```text
//!   connection   dialling, TLS, greeting; reader and writer tasks of the two connections
//!   outbox       what waits for the control connection
//!   bulk         what waits for the bulk connection, and what of it goes first
//!   site         what is known of a remote site: up or down, leases, the last report
//!   lease        one open device, as the thread that owns it uses it
//!   replicate    generations on their way to a site: what is wanted, what runs
//!   attempt      one attempt at one generation, with its rows
//!   transfer     one generation: the store's side of link's sender
//!   recipe       what a generation consists of, told in batches
//!   packing      its chunks, put into packs
//!   facts        what the remote knows of jobs
//!   heal         chunks that are damaged at one side
//! ```
//!
//! Devices of a remote site are in [`crate::ghost`].

mod attempt;
mod bulk;
mod connection;
mod facts;
mod heal;
mod lease;
mod outbox;
mod packing;
mod recipe;
mod replicate;
mod site;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::Arc;

use model::{CartridgeId, GenerationId, JobId, SiteName};
use service::config::{LocalConfig, ReplicationStart};
use service::shutdown::Shutdown;
use store::Store;
use svs::Catalogue;
use tokio::task::JoinSet;

pub use lease::LeaseHandle;
pub use replicate::Replicator;
pub use site::{DeviceEvent, OpenError, RemoteSite};

use crate::device::Registry;
use crate::policy::Bell;

/// What a link needs of the engine.
pub struct Ground {
    /// The configuration.
    pub config: Arc<LocalConfig>,
    /// The chunks and recipes.
    pub store: Store,
    /// The rows.
    pub catalogue: Arc<Catalogue>,
    /// Where ghost libraries are entered.
    pub registry: Arc<Registry>,
    /// Rung when something happened that an entry of the maps may wait for.
    pub policy: Arc<Bell>,
}

/// All links; clones share them.
#[derive(Clone)]
pub struct Links {
    sites: Arc<Vec<Arc<RemoteSite>>>,
    start: ReplicationStart,
}

impl Links {
    /// Makes a place for each configured link.
    pub fn new(ground: &Arc<Ground>) -> Self {
        let links = ground.config.links.iter();
        let sites: Vec<_> = links.map(|link| RemoteSite::new(ground, link.clone())).collect();
        Self { sites: Arc::new(sites), start: ground.config.replication.start }
    }

    /// Lists the ghost libraries that were reported before this start.
    pub fn list_former(&self) {
        self.sites.iter().for_each(RemoteSite::list_former);
    }

    /// Keeps the links up until the shutdown; ends when they are down.
    pub async fn run(&self, shutdown: Shutdown) {
        let mut tasks = JoinSet::new();
        for site in self.sites.iter() {
            tasks.spawn(connection::keep_up(Arc::clone(site), shutdown.clone()));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// The links.
    pub fn sites(&self) -> &[Arc<RemoteSite>] {
        &self.sites
    }

    /// The link to a site that was met at least once.
    pub fn site(&self, name: &SiteName) -> Option<&Arc<RemoteSite>> {
        self.sites.iter().find(|site| site.name().as_ref() == Some(name))
    }

    /// Whether cartridges may be replicated to a site: a copy that needs it starts it anyway.
    pub fn replicates_to(&self, site: &SiteName) -> bool {
        self.site(site).is_some()
    }

    /// A copy has ended here: a site that wrote it, or was to go on writing, need not wait.
    pub fn job_ended(&self, job: JobId) {
        self.sites.iter().for_each(|site| site.job_ended(job));
    }

    /// A generation was sealed: by policy it is replicated to every site.
    pub fn sealed(&self, _cartridge: CartridgeId, generation: GenerationId) {
        let policy = match self.start {
            ReplicationStart::WhileWriting => "policy while-writing",
            ReplicationStart::OnUnload => "policy on-unload",
            ReplicationStart::Manual => return,
        };
        self.sites.iter().for_each(|site| site.replicator().want(generation, policy));
    }
}
