//! Putting the engine together: state, store, libraries, listeners; and taking it down again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ndmp::server::{Identity, Secret, SessionConfig, User, Users};
use ndmp::wire::{AuthType, Version};
use service::cli::Failure;
use service::config::{Auth, LocalConfig};
use service::health::HealthBook;
use service::messages;
use service::shutdown::{self, Shutdown};
use service::state::StateDir;
use service::upkeep::{Upkeep, open_store};
use store::{GenerationReader, Store};
use svs::{Catalogue, EventKind, LibraryRole};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use vfs::{RealVfs, Vfs};

use crate::copies::Copies;
use crate::device::{DeviceLine, Library, Registry};
use crate::frontend::{Access, FrontendLibrary, Frontends};
use crate::library::{LocalPhysical, StoreShelf, VirtualLibrary};
use crate::link::{Ground, Links};
use crate::mover::{Extent, Resolve, Surroundings};
use crate::policy::{self, Bell};
use crate::recovery;
use crate::session::{self, Admission, Rendezvous, Shared};

/// How long sessions get to write what is due when the engine stops.
const GRACE: Duration = Duration::from_secs(20);
/// How long to wait for a descriptor where a connection can not be accepted, and no session ends.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);
/// Clients that are told at a time that all sessions are taken; more are only closed.
const REFUSALS: usize = 16;
/// How often the operator is told of it.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the parts of the engine share.
pub struct Engine {
    /// Configuration, store, catalogue and devices.
    pub ground: Arc<Ground>,
    /// The remote sites.
    pub links: Links,
    /// Copies that no session holds.
    pub copies: Copies,
    /// Wakes those who look at the maps.
    pub(crate) policy: Arc<Bell>,
    /// Libraries of tapes that lie in others.
    pub frontends: Frontends,
    /// How the drives and cartridges of the physical libraries here are.
    pub health: Arc<HealthBook>,
    /// The libraries that stand here.
    pub(crate) physical: Vec<Arc<LocalPhysical>>,
    /// One copy is checked and written down at a time.
    pub(crate) ordering: Mutex<()>,
    stopping: AtomicBool,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.policy.ring();
    }
}

impl Engine {
    /// Whether the engine was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Runs the engine until the shutdown.
pub async fn serve(config: LocalConfig, shutdown: Shutdown) -> Result<(), Failure> {
    let state_dir = config.site.state_dir.clone();
    let _state = StateDir::claim(&state_dir)?;
    let engine = tokio::task::spawn_blocking(move || open(config)).await??;
    let config = Arc::clone(&engine.ground.config);
    let listener = TcpListener::bind(config.ndmp.listen).await?;
    let address = listener.local_addr()?;
    // Sessions need the links until they have cleaned up.
    let (no_links, links_down) = shutdown::channel();
    let links = engine.links.clone();
    let linked = tokio::spawn(async move { links.run(links_down).await });
    let ground = &engine.ground;
    let upkeep = Upkeep::new(
        ground.store.clone(),
        Arc::clone(&ground.catalogue),
        ground.config.store.clone(),
        shutdown.clone(),
        Arc::new(engine.links.clone()),
    );
    let kept_up = tokio::spawn(Arc::clone(&upkeep).run());
    let admin = crate::admin::start(&engine, upkeep, &shutdown)?;
    let resumed = Arc::clone(&engine);
    tokio::task::spawn_blocking(move || resumed.resume_copies()).await??;
    let mut web = crate::smis::start(&engine, &shutdown).await?;
    web.extend(crate::status::start(&engine, &shutdown).await?);
    let shared = shared(&engine);
    let site = &config.site.name;
    say(&engine, messages::ENGINE_STARTED).await;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%site, ndmp = %address, version, "local-engine ready");
    listen(listener, shared, &shutdown, config.ndmp.max_sessions).await;
    for listener in web {
        drop(listener.await);
    }
    engine.stopping.store(true, Ordering::Release);
    engine.policy.ring();
    engine.copies.stop();
    engine.frontends.stop();
    let health = Arc::clone(&engine.health);
    health.stop();
    // A cleaning cartridge is put back.
    drop(tokio::task::spawn_blocking(move || health.wait_idle(GRACE)).await);
    no_links.trigger();
    drop(linked.await);
    admin.abort();
    drop(kept_up.await);
    say(&engine, messages::ENGINE_STOPPED).await;
    tracing::info!(%site, "local-engine stopped");
    Ok(())
}

/// Says a message about the engine; its event waits for the catalogue's disk.
async fn say(engine: &Arc<Engine>, id: &'static str) {
    let engine = Arc::clone(engine);
    let said = tokio::task::spawn_blocking(move || {
        let site = &engine.ground.config.site;
        let (program, version) = ("local-engine", env!("CARGO_PKG_VERSION"));
        let dir = site.state_dir.display();
        let words: [(&str, &dyn std::fmt::Display); 4] = [
            ("program", &program),
            ("version", &version),
            ("site", &site.name),
            ("state_dir", &dir),
        ];
        messages::note(&engine.ground.catalogue, EventKind::Engine, id, &words, None);
    });
    // A panic there was reported when it happened.
    drop(said.await);
}

/// Opens state, store and libraries. Blocks.
pub(crate) fn open(config: LocalConfig) -> Result<Arc<Engine>, Failure> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let catalogue = Arc::new(Catalogue::open(&config.site.catalogue())?);
    let (store, report) = open_store(Arc::clone(&vfs), &config.site, &config.store)?;
    recovery::match_catalogue(&store, &report, &catalogue)?;
    recovery::end_old_jobs(&catalogue)?;
    let registry = Arc::new(Registry::default());
    let bell = registry.bell().clone();
    catalogue.on_write(move || bell.ring());
    registry.mounts().begin(&catalogue, config.mounts.step_seconds)?;
    let (config, policy) = (Arc::new(config), Arc::default());
    let ground = Arc::new(Ground { config, store, catalogue, registry, policy });
    // Our own libraries first: of two with one name it is the ghost that is refused.
    let links = Links::new(&ground);
    let access = Access::new(&ground.registry, Arc::clone(&ground.catalogue))?;
    for library in &ground.config.virtual_libraries {
        let told = links.clone();
        let shelf = StoreShelf {
            store: ground.store.clone(),
            catalogue: Arc::clone(&ground.catalogue),
            site: ground.config.site.name.clone(),
            library: library.name.clone(),
            sealed: Arc::new(move |cartridge, generation| told.sealed(cartridge, generation)),
            access: Some(Arc::clone(&access)),
        };
        ground.registry.add(Arc::new(VirtualLibrary::open(library, &shelf, now_ms())?))?;
    }
    recovery::seal_abandoned(&ground.store, &ground.catalogue)?;
    for library in ground.registry.libraries() {
        list(&ground, library.as_ref())?;
    }
    let bell = ground.registry.bell().clone();
    let health = Arc::new(HealthBook::open(Arc::clone(&ground.catalogue), move || bell.ring())?);
    let mut physical = Vec::new();
    for library in &ground.config.physical_libraries {
        let site = &ground.config.site.name;
        let library = Arc::new(LocalPhysical::open(&vfs, library, site, Arc::clone(&health))?);
        ground.registry.add(library.clone())?;
        let (row, devices) = library.row(site);
        ground.catalogue.put_library(&row, &devices)?;
        physical.push(library);
    }
    links.list_former();
    let frontends = frontends(&ground, access)?;
    let policy = Arc::clone(&ground.policy);
    let (copies, ordering, stopping) = Default::default();
    let engine = Arc::new(Engine {
        ground,
        links,
        copies,
        policy,
        frontends,
        health,
        physical,
        ordering,
        stopping,
    });
    policy::start(&engine)?;
    crate::mounting::follow(&engine)?;
    crate::drives::follow(&engine)?;
    Ok(engine)
}

/// Sets the frontend libraries up, when those that they show are there.
fn frontends(ground: &Ground, access: Arc<Access>) -> Result<Frontends, Failure> {
    let mut libraries = Vec::new();
    let site = &ground.config.site.name;
    for config in &ground.config.frontend_libraries {
        let library = Arc::new(FrontendLibrary::open(config, site, &access)?);
        let (row, devices) = library.row(site);
        ground.catalogue.put_library(&row, &devices)?;
        library.refresh();
        ground.registry.add(library.clone())?;
        libraries.push(library);
    }
    access.put_back_left();
    Ok(Frontends { access, libraries })
}

/// Enters a virtual library in the catalogue, for people.
fn list(ground: &Ground, library: &dyn Library) -> Result<(), svs::SvsError> {
    let lines = library.devices();
    let devices: Vec<_> = lines.iter().map(DeviceLine::row).collect();
    let row = svs::Library {
        site: ground.config.site.name.clone(),
        name: library.name().clone(),
        serial: lines.first().map(|line| line.serial.clone()).unwrap_or_default(),
        role: LibraryRole::Virtual,
        backend: "store".into(),
        state: "ready".into(),
    };
    ground.catalogue.put_library(&row, &devices)
}

/// What the NDMP sessions share.
pub(crate) fn shared(engine: &Arc<Engine>) -> Arc<Shared> {
    let (ground, links) = (&engine.ground, engine.links.clone());
    Arc::new(Shared {
        config: Arc::new(session_config(&ground.config)),
        admission: Arc::new(Admission::new(&ground.config.ndmp)),
        mover_addresses: ground.config.ndmp.mover_addresses.clone(),
        mover_ports: ground.config.ndmp.mover_ports,
        registry: Arc::clone(&ground.registry),
        rendezvous: Rendezvous::default(),
        surroundings: surroundings(engine),
        catalogue: Arc::clone(&ground.catalogue),
        job_ended: Arc::new(move |job| links.job_ended(job)),
    })
}

fn surroundings(engine: &Arc<Engine>) -> Surroundings {
    let links = engine.links.clone();
    Surroundings {
        replicates_to: Arc::new(move |site| links.replicates_to(site)),
        resolve: Arc::new(FromStore(engine.ground.store.clone())),
    }
}

/// Reads extents from the store of this engine.
struct FromStore(Store);

impl Resolve for FromStore {
    fn read(&self, extent: Extent) -> Result<Vec<u8>, String> {
        let read = || -> Result<Vec<u8>, store::StoreError> {
            let mut reader: GenerationReader = self.0.reader(extent.generation)?;
            let mut bytes = vec![0; extent.length as usize];
            let there = reader.read_stream(extent.offset, &mut bytes)?;
            bytes.truncate(there);
            Ok(bytes)
        };
        match read() {
            Ok(bytes) if bytes.len() as u64 == extent.length => Ok(bytes),
            Ok(_) => Err(format!("generation {} ends too early", extent.generation)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Serves backup applications until the shutdown, and then lets them clean up.
pub(crate) async fn listen(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: &Shutdown,
    max: u32,
) {
    let places = Arc::new(Semaphore::new(max as usize));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let stopping = watch::Sender::new(false);
    let nexus = AtomicU64::new(1);
    let mut sessions = JoinSet::new();
    let (mut told, mut strangers) = (None, None);
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
        };
        let (stream, host) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "NDMP: a connection could not be accepted");
                // Out of descriptors: a session that ends frees some.
                tokio::select! {
                    () = shutdown.requested() => break,
                    Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
                    () = tokio::time::sleep(ACCEPT_AGAIN) => {}
                }
                continue;
            }
        };
        if !shared.admission.host(host) {
            if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                let (shared, tell) = (Arc::clone(&shared), again(&mut strangers));
                sessions.spawn(async move {
                    session::turn_away(stream, host, shared, tell).await;
                    drop(place);
                });
            }
            continue;
        }
        // A reply and the notification behind it are two small writes.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "NDMP: TCP_NODELAY");
        }
        let nexus = nexus.fetch_add(1, Ordering::Relaxed);
        let (shared, stopping) = (Arc::clone(&shared), stopping.subscribe());
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            sessions.spawn(async move {
                session::serve(stream, nexus, shared, stopping).await;
                drop(place);
            });
        } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
            let tell = again(&mut told);
            sessions.spawn(async move {
                session::refuse(stream, shared, max, tell).await;
                drop(place);
            });
        }
    }
    stopping.send_replace(true);
    let ending = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ending).await.is_err() {
        tracing::warn!("NDMP: sessions were cut off, their clean-up took too long");
    }
}

/// Whether the operator is to be told again.
fn again(told: &mut Option<Instant>) -> bool {
    let again = told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN);
    if again {
        *told = Some(Instant::now());
    }
    again
}

fn session_config(config: &LocalConfig) -> SessionConfig {
    let mut users = Users::new();
    for user in &config.ndmp.users {
        let methods = user.auth.iter().filter_map(|auth| match auth {
            Auth::None => None,
            Auth::Text => Some(AuthType::Text),
            Auth::Md5 => Some(AuthType::Md5),
        });
        let methods = methods.collect();
        users.insert(&user.name, User { secret: Secret::new(user.secret()), methods });
    }
    if config.ndmp.allows_none() {
        users.allow_none();
    }
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    SessionConfig {
        versions: vec![Version::V2, Version::V3, Version::V4],
        users,
        identity: Identity {
            hostname: text(name.nodename()),
            os_type: text(name.sysname()),
            os_version: text(name.release()),
            host_id: config.site.name.to_string(),
            vendor: "Twinreel".into(),
            product: "Twinreel local engine".into(),
            revision: env!("CARGO_PKG_VERSION").into(),
        },
    }
}
