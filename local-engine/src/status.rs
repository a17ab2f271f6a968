//! What the status page tells of this engine.

use std::sync::Arc;

use model::{DeviceName, LibraryName};
use service::shutdown::Shutdown;
use service::status::{self, Library, Link, Status};
use svs::{LibraryRole, SvsError};
use tokio::task::JoinHandle;

use crate::device::LibraryView;
use crate::engine::Engine;

/// Listens as the configuration says, until the shutdown. Nothing where it is off.
///
/// # Errors
/// The address can not be bound.
pub async fn start(
    engine: &Arc<Engine>,
    shutdown: &Shutdown,
) -> std::io::Result<Option<JoinHandle<()>>> {
    let Some(address) = engine.ground.config.admin.http else { return Ok(None) };
    let engine = Arc::clone(engine);
    let source = Arc::new(move || look(&engine).map_err(|error| error.to_string()));
    let (_, task) = status::start(address, source, shutdown).await?;
    Ok(Some(task))
}

fn look(engine: &Engine) -> Result<Status, SvsError> {
    let ground = &engine.ground;
    let links = engine.links.sites().iter().map(|site| Link {
        site: site.name().map_or_else(|| site.address().to_owned(), |name| name.to_string()),
        up: site.is_up(),
        waiting: Some(site.replicator().pending() as u64),
    });
    let mut libraries = Vec::new();
    for library in ground.registry.libraries() {
        if let Some(view) = library.view() {
            libraries.push(picture(engine, library.name(), &view)?);
        }
    }
    Ok(Status {
        program: "local-engine",
        version: env!("CARGO_PKG_VERSION"),
        site: ground.config.site.name.to_string(),
        at: status::now(),
        links: links.collect(),
        libraries,
        queue: status::queue(&ground.catalogue)?,
        jobs: status::jobs(&ground.catalogue)?,
        maps: status::maps(&ground.catalogue)?,
    })
}

fn picture(engine: &Engine, name: &LibraryName, view: &LibraryView) -> Result<Library, SvsError> {
    let ground = &engine.ground;
    let role = match view.role {
        LibraryRole::Virtual => "virtual",
        LibraryRole::Ghost => "ghost",
        LibraryRole::Physical => "physical",
        LibraryRole::Frontend => "frontend",
    };
    let holder = |index| ground.registry.holder(&DeviceName::drive(name.clone(), index));
    let mut picture = status::library(name, role, view.online, &view.inventory, holder);
    picture.serial = view.identity.serial.clone();
    if view.role == LibraryRole::Ghost {
        picture.report_age_seconds = report_age(engine, name)?;
    }
    Ok(picture)
}

/// How long ago the last report of a ghost library came.
fn report_age(engine: &Engine, name: &LibraryName) -> Result<Option<u64>, SvsError> {
    for site in engine.links.sites().iter().filter_map(|site| site.name()) {
        let own = name.as_str().strip_prefix(site.as_str()).and_then(|it| it.strip_prefix('-'));
        let Some(own) = own.and_then(|own| LibraryName::new(own).ok()) else { continue };
        if let Some(report) = engine.ground.catalogue.inventory(&site, &own)? {
            return Ok(status::age_seconds(&report.at));
        }
    }
    Ok(None)
}
