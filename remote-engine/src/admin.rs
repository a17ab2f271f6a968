//! Answers to the command line.

use std::sync::Arc;

use model::{DeviceName, DeviceRole};
use serde_json::{Value, json};
use service::admin::{AdminFault, AdminHandler, AdminServer, FaultCode, blocking};
use service::health::HealthBook;
use service::seed::Neighbours;
use service::shutdown::Shutdown;
use service::upkeep::Upkeep;
use tokio::task::JoinHandle;

use crate::engine::Ground;

struct Handler(Arc<Ground>, Arc<Upkeep>);

/// Serves the admin socket.
///
/// # Errors
/// It can not be bound.
pub fn start(
    ground: &Arc<Ground>,
    upkeep: Arc<Upkeep>,
    shutdown: &Shutdown,
) -> std::io::Result<JoinHandle<()>> {
    let server = AdminServer::bind(&ground.config.site.admin_socket())?;
    let handler = Arc::new(Handler(Arc::clone(ground), upkeep));
    Ok(tokio::spawn(server.serve(handler, shutdown.clone())))
}

impl AdminHandler for Handler {
    async fn call(&self, method: &str, params: Value) -> Result<Value, AdminFault> {
        let ground = &self.0;
        match method {
            ours if HealthBook::answers(ours) => {
                let (ground, method) = (Arc::clone(ground), ours.to_owned());
                blocking(move || ground.health.call(&method, &params, |drive| has(&ground, drive)))
                    .await
            }
            "status" => Ok(status(ground)),
            "seed_read" => {
                let config = &ground.config;
                let peers = config.peers.iter().map(|peer| peer.name.clone()).collect();
                let neighbours = Neighbours { me: config.site.name.clone(), peers };
                self.1.seed_read(params, neighbours).await
            }
            other => self.1.call(other, params).await.unwrap_or_else(|| {
                Err(AdminFault::new(FaultCode::BadRequest, format!("no method {other:?}")))
            }),
        }
    }
}

/// Whether a library of this site has this drive.
fn has(ground: &Ground, drive: &DeviceName) -> bool {
    let DeviceRole::Drive(index) = drive.role else { return false };
    let report = ground.libraries.report(&drive.library);
    report.is_some_and(|report| usize::from(index) < report.drives.len())
}

/// Who this is, what it holds, who is connected, what is open.
fn status(ground: &Ground) -> Value {
    let statistics = ground.store.statistics();
    let connected = ground.peers.connected();
    let links = ground.config.peers.iter().map(|peer| {
        let up = connected.iter().find(|it| it.site == peer.name);
        json!({
            "site": peer.name,
            "up": up.is_some(),
            "engine": up.map(|it| it.engine.to_string()),
            "libraries": peer.libraries,
        })
    });
    let reports = ground.libraries.names().filter_map(|name| ground.report(name));
    let libraries = reports.map(|report| {
        let drives = (0u16..).zip(&report.drives).map(|(index, drive)| {
            let medium = drive.state.as_ref().and_then(|state| state.medium.as_ref());
            json!({
                "device": format!("{}/drive{index}", report.name),
                "serial": drive.identity.serial,
                "barcode": medium.and_then(|medium| medium.barcode.clone()),
                "in_use": drive.in_use,
                "down": drive.down,
            })
        });
        let full = report.inventory.elements.iter().filter(|element| element.full).count();
        json!({
            "name": report.name,
            "serial": report.identity.serial,
            "online": report.online,
            "cartridges": full,
            "drives": drives.collect::<Vec<_>>(),
        })
    });
    json!({
        "program": "remote-engine",
        "version": env!("CARGO_PKG_VERSION"),
        "site": ground.config.site.name,
        "store": {
            "chunks": statistics.chunks,
            "raw_bytes": statistics.raw_bytes,
            "stored_bytes": statistics.stored_bytes,
            "containers": statistics.containers,
        },
        "links": links.collect::<Vec<_>>(),
        "libraries": libraries.collect::<Vec<_>>(),
        "leases": ground.held.names(),
    })
}
