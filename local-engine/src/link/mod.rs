//! The links to remote engines.

use std::sync::Arc;

use model::SiteName;
use service::shutdown::Shutdown;

use crate::engine::Engine;

/// All links; clones share them.
#[derive(Clone, Default)]
pub struct Links {}

/// Starts a task for each configured link.
pub fn start(_engine: &Arc<Engine>, _shutdown: &Shutdown) -> Links {
    Links::default()
}

impl Links {
    /// Whether cartridges may be replicated to a site.
    pub fn replicates_to(&self, _site: &SiteName) -> bool {
        false
    }

    /// Ends when every link has stopped.
    pub async fn stopped(&self) {}
}
