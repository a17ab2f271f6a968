//! Answers to the command line.

use std::sync::Arc;

use serde_json::{Value, json};
use service::admin::{AdminFault, AdminHandler, AdminServer, FaultCode};
use service::shutdown::Shutdown;
use tokio::task::JoinHandle;

use crate::engine::Engine;

struct Handler {
    engine: Arc<Engine>,
}

/// Serves the admin socket.
pub fn start(engine: &Arc<Engine>, shutdown: &Shutdown) -> std::io::Result<JoinHandle<()>> {
    let server = AdminServer::bind(&engine.ground.config.site.admin_socket())?;
    let handler = Arc::new(Handler { engine: Arc::clone(engine) });
    Ok(tokio::spawn(server.serve(handler, shutdown.clone())))
}

impl AdminHandler for Handler {
    async fn call(&self, method: &str, _params: Value) -> Result<Value, AdminFault> {
        match method {
            "status" => Ok(self.status()),
            other => Err(AdminFault::new(FaultCode::BadRequest, format!("no method {other:?}"))),
        }
    }
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
