//! What the status page tells of this engine.

use std::sync::Arc;

use service::shutdown::Shutdown;
use service::status::{self, Link, Status};
use svs::SvsError;
use tokio::task::JoinHandle;

use crate::engine::Ground;

/// Listens as the configuration says, until the shutdown. Nothing where it is off.
///
/// # Errors
/// The address can not be bound.
pub async fn start(
    ground: &Arc<Ground>,
    shutdown: &Shutdown,
) -> std::io::Result<Option<JoinHandle<()>>> {
    let Some(address) = ground.config.admin.http else { return Ok(None) };
    let ground = Arc::clone(ground);
    let source = Arc::new(move || look(&ground).map_err(|error| error.to_string()));
    let (_, task) = status::start(address, source, shutdown).await?;
    Ok(Some(task))
}

fn look(ground: &Ground) -> Result<Status, SvsError> {
    let connected = ground.peers.connected();
    let links = ground.config.peers.iter().map(|peer| Link {
        site: peer.name.to_string(),
        up: connected.iter().any(|it| it.site == peer.name),
        waiting: None,
    });
    let reports = ground.libraries.names().filter_map(|name| ground.report(name));
    let libraries = reports.map(|report| {
        let holder = |index: u16| {
            let in_use = report.drives.get(usize::from(index)).is_some_and(|drive| drive.in_use);
            in_use.then(|| "another site".to_owned())
        };
        let (name, inventory) = (&report.name, &report.inventory);
        let mut picture = status::library(name, "physical", report.online, inventory, holder);
        picture.serial = report.identity.serial.clone();
        picture
    });
    Ok(Status {
        program: "remote-engine",
        version: env!("CARGO_PKG_VERSION"),
        site: ground.config.site.name.to_string(),
        at: status::now(),
        links: links.collect(),
        libraries: libraries.collect(),
        queue: status::queue(&ground.catalogue)?,
        jobs: status::jobs(&ground.catalogue)?,
        maps: status::maps(&ground.catalogue)?,
    })
}
