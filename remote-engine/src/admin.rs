//! Answers to the command line.

use std::sync::Arc;

use model::{DeviceName, DeviceRole};
use serde_json::{Value, json};
use service::admin::{AdminFault, AdminHandler, AdminServer, FaultCode};
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
        match method {
            "status" => Ok(status(&self.0)),
            "health_clear" => health_clear(&self.0, &params),
            "drive_down" | "drive_up" => drive(&self.0, method, &params),
            "seed_read" => {
                let config = &self.0.config;
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

/// Somebody says that a drive or a cartridge is well again.
fn health_clear(ground: &Ground, params: &Value) -> Result<Value, AdminFault> {
    let subject = params.get("subject").and_then(Value::as_str).unwrap_or_default();
    match ground.health.clear(subject) {
        true => Ok(json!({ "subject": subject })),
        false => {
            let text = format!("nothing is known of {subject:?}");
            Err(AdminFault::new(FaultCode::BadRequest, text))
        }
    }
}

/// A drive is taken out of use, or is brought back.
fn drive(ground: &Ground, method: &str, params: &Value) -> Result<Value, AdminFault> {
    let text = |key| params.get(key).and_then(Value::as_str).unwrap_or_default();
    let named = text("drive");
    let parsed = named.parse::<DeviceName>().ok().filter(|name| match name.role {
        DeviceRole::Drive(index) => {
            let report = ground.libraries.report(&name.library);
            report.is_some_and(|report| usize::from(index) < report.drives.len())
        }
        DeviceRole::Changer => false,
    });
    let unknown = || AdminFault::new(FaultCode::NotFound, format!("there is no drive {named:?}"));
    let drive = parsed.ok_or_else(unknown)?;
    match method {
        "drive_down" => ground.health.take_down(&drive, text("reason")),
        // One of which nothing is known is well.
        _ => drop(ground.health.clear(named)),
    }
    Ok(json!({ "drive": named }))
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
