//! Answers to the command line.

use std::sync::Arc;

use model::{Barcode, DeviceName, LibraryName};
use serde_json::{Value, json};
use service::admin::{AdminFault, AdminHandler, AdminServer, FaultCode, blocking};
use service::health::HealthBook;
use service::shutdown::Shutdown;
use service::upkeep::Upkeep;
use tokio::task::JoinHandle;

use crate::device::Library;
use crate::engine::Engine;
use crate::{mounting, policy};

struct Handler {
    engine: Arc<Engine>,
    upkeep: Arc<Upkeep>,
}

/// Serves the admin socket.
pub fn start(
    engine: &Arc<Engine>,
    upkeep: Arc<Upkeep>,
    shutdown: &Shutdown,
) -> std::io::Result<JoinHandle<()>> {
    let server = AdminServer::bind(&engine.ground.config.site.admin_socket())?;
    let handler = Arc::new(Handler { engine: Arc::clone(engine), upkeep });
    Ok(tokio::spawn(server.serve(handler, shutdown.clone())))
}

impl AdminHandler for Handler {
    async fn call(&self, method: &str, params: Value) -> Result<Value, AdminFault> {
        let (engine, named) = (Arc::clone(&self.engine), method.to_owned());
        match method {
            "status" => Ok(self.status()),
            "replicate" => blocking(move || replicate(&engine, &params)).await,
            ours if HealthBook::answers(ours) => {
                blocking(move || {
                    engine.health.call(&named, &params, |drive| drives_here(&engine, drive))
                })
                .await
            }
            ours if mounting::admin::is_ours(ours) => {
                blocking(move || mounting::admin::call(&engine, &named, &params)).await
            }
            ours if policy::admin::is_ours(ours) => {
                blocking(move || policy::admin::call(&engine, &named, params)).await
            }
            "seed_write" => {
                let me = self.engine.ground.config.site.name.clone();
                self.upkeep.seed_write(params, me).await
            }
            other => self.upkeep.call(other, params).await.unwrap_or_else(|| {
                Err(AdminFault::new(FaultCode::BadRequest, format!("no method {other:?}")))
            }),
        }
    }
}

/// A parameter that must be there.
pub(crate) fn text<'a>(params: &'a Value, key: &str) -> Result<&'a str, AdminFault> {
    let missing = || bad(format!("{key:?} is missing"));
    params.get(key).and_then(Value::as_str).ok_or_else(missing)
}

/// What was asked for makes no sense.
pub(crate) fn bad(error: impl ToString) -> AdminFault {
    AdminFault::new(FaultCode::BadRequest, error.to_string())
}

/// It can not be done as things are.
pub(crate) fn conflict(error: impl ToString) -> AdminFault {
    AdminFault::new(FaultCode::Conflict, error.to_string())
}

/// Wants the newest generation of a cartridge at every site. Blocks on the catalogue.
fn replicate(engine: &Engine, params: &Value) -> Result<Value, AdminFault> {
    let failed = |error: svs::SvsError| AdminFault::new(FaultCode::Failed, error.to_string());
    let library = LibraryName::new(text(params, "library")?).map_err(|e| bad(e.to_string()))?;
    let barcode = Barcode::new(text(params, "barcode")?).map_err(|e| bad(e.to_string()))?;
    let ground = &engine.ground;
    if engine.links.sites().is_empty() {
        let text = "there is no [[link]] in the configuration, so nowhere to replicate to";
        return Err(conflict(text));
    }
    let site = &ground.config.site.name;
    let row = ground.catalogue.find_cartridge(site, &library, &barcode).map_err(failed)?;
    let unknown = || {
        let text = format!("no cartridge {library}:{barcode}; see: twinreel cartridges");
        AdminFault::new(FaultCode::NotFound, text)
    };
    let row = row.ok_or_else(unknown)?;
    let Some(newest) = ground.store.latest(row.id) else {
        let text = match ground.store.open_generation(row.id) {
            Some(_) => format!("{library}:{barcode} is being written; unload it first"),
            None => format!("{library}:{barcode} was never written"),
        };
        return Err(conflict(text));
    };
    for site in engine.links.sites() {
        site.replicator().want(newest.id, "admin");
    }
    let sites: Vec<_> = engine.links.sites().iter().map(|site| site.name()).collect();
    Ok(json!({ "generation": newest.id, "bytes": newest.bytes, "sites": sites }))
}

/// Whether this engine drives it: a ghost drive is asked for at its own site.
fn drives_here(engine: &Engine, drive: &DeviceName) -> bool {
    let library = engine.physical.iter().find(|it| *it.name() == drive.library);
    library.is_some_and(|library| library.has(drive.role))
}

impl Handler {
    fn links(&self) -> Vec<Value> {
        let sites = self.engine.links.sites().iter();
        sites
            .map(|site| {
                json!({
                    "connect": site.address(),
                    "site": site.name(),
                    "up": site.is_up(),
                    "replications_pending": site.replicator().pending(),
                })
            })
            .collect()
    }

    fn status(&self) -> Value {
        let statistics = self.engine.ground.store.statistics();
        json!({
            "program": "local-engine",
            "version": env!("CARGO_PKG_VERSION"),
            "site": self.engine.ground.config.site.name,
            "links": self.links(),
            "store": {
                "chunks": statistics.chunks,
                "raw_bytes": statistics.raw_bytes,
                "stored_bytes": statistics.stored_bytes,
                "containers": statistics.containers,
            },
        })
    }
}
