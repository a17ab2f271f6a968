//! SMI-S: the same libraries, copies and jobs as over NDMP, for management applications.
//!
//! ```text
//!   http     sockets, TLS, limits; bytes to `cim` and back
//!   auth     who may come in
//!   model    libraries, tapes, jobs and profiles as CIM instances, made when they are asked for
//!   copying  methods: copies that the engine runs by itself, and their jobs
//!   capabilities  what the service of copies can, when its capabilities are asked
//!   wishes   what a client made: filters, destinations, subscriptions
//!   indications  what has changed, sent to whoever asked
//! ```

mod auth;
mod capabilities;
mod copying;
mod http;
mod indications;
mod model;
mod wishes;

use std::sync::Arc;

use cim::{
    Caller, CimError, Instance, Invoked, Method, Path, Repository, Schema, Server, Status, Take,
    Value,
};
use service::cli::Failure;
use service::shutdown::Shutdown;
use tokio::task::JoinHandle;

use crate::engine::Engine;
use model::{Look, Model};
use wishes::{Wishes, is_wish};

/// The namespace of the server and its profiles.
const INTEROP: &str = "interop";
/// The namespace of libraries, tapes and jobs.
const ROOT: &str = "root/twinreel";

/// The engine as CIM instances.
struct EngineRepository {
    engine: Arc<Engine>,
    wishes: Arc<Wishes>,
}

impl Repository for EngineRepository {
    type Look = Look;

    fn visit(
        &self,
        look: &Look,
        class: &str,
        like: Option<&Path>,
        take: &mut Take<'_>,
    ) -> Result<(), CimError> {
        match is_wish(class) {
            true => self.wishes.of(class).into_iter().try_for_each(take),
            false => Model::visit((&self.engine, look), class, like, take),
        }
    }

    fn create(&self, instance: Instance, caller: &Caller) -> Result<Path, CimError> {
        match is_wish(instance.class()) && instance.path.namespace == INTEROP {
            true => {
                let host = model::appliance_name(&self.engine);
                self.wishes.create(instance, &host, caller)
            }
            false => Err(read_only(instance.class())),
        }
    }

    fn modify(&self, path: &Path, properties: Vec<(String, Value)>) -> Result<(), CimError> {
        match is_wish(&path.class) {
            true => self.wishes.modify(path, properties),
            false => Err(read_only(&path.class)),
        }
    }

    fn delete(&self, path: &Path) -> Result<(), CimError> {
        match is_wish(&path.class) {
            true => self.wishes.delete(path),
            false if cim::same_name(&path.class, "Twinreel_ConcreteJob") => {
                copying::forget(&self.engine, path)
            }
            false => Err(read_only(&path.class)),
        }
    }

    fn invoke(
        &self,
        path: &Path,
        method: &Method,
        inputs: Vec<(String, Value)>,
        caller: &Caller,
    ) -> Result<Invoked, CimError> {
        copying::invoke(&self.engine, path, method, inputs, caller)
    }
}

fn read_only(class: &str) -> CimError {
    let text = format!("instances of {class} are not made, changed or removed by clients");
    CimError::new(Status::NotSupported, text)
}

fn not_available(path: &Path, method: &Method) -> CimError {
    let text = format!("{} does not offer {}", path.class, method.feature.name);
    CimError::new(Status::MethodNotAvailable, text)
}

/// Listens as the configuration says, until the shutdown. Nothing where it is off.
///
/// # Errors
/// A socket or a certificate can not be used.
pub async fn start(
    engine: &Arc<Engine>,
    shutdown: &Shutdown,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    let config = &engine.ground.config.smis;
    if !config.is_on() {
        return Ok(Vec::new());
    }
    let schema = Arc::new(Schema::served().map_err(|error| error.to_string())?);
    let catalogue = Arc::clone(&engine.ground.catalogue);
    let tls = config.indication_ca.as_deref().map(service::tls::https_client_config).transpose();
    let tls = tls.map_err(|error| error.to_string())?;
    let rules = (config.indication_hosts.clone(), tls.is_some());
    let known = Arc::clone(&schema);
    let open = move || Wishes::open(&known, &catalogue, rules);
    let wishes = Arc::new(tokio::task::spawn_blocking(open).await??);
    let repository = EngineRepository { engine: Arc::clone(engine), wishes: Arc::clone(&wishes) };
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy().into_owned();
    let indications =
        indications::run(Arc::clone(engine), Arc::clone(&schema), wishes, tls, shutdown.clone());
    let server = Server::new(schema, vec![INTEROP, ROOT], host, repository);
    let mut tasks = http::listen(server, config, shutdown).await?;
    tasks.push(tokio::spawn(indications));
    Ok(tasks)
}
