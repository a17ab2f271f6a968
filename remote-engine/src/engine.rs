//! Putting the engine together: state, store, libraries, leases, the listener; and taking it down
//! again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use link::{LibraryReport, Message};
use model::{DeviceName, EngineId, JobId, LibraryName, SiteName};
use service::cleaning::Workshop;
use service::cli::Failure;
use service::comparing::Comparing;
use service::config::RemoteConfig;
use service::healing::Healing;
use service::health::HealthBook;
use service::messages;
use service::shutdown::{self, Shutdown, ShutdownTrigger};
use service::state::StateDir;
use service::unit::OpenUnit;
use service::upkeep::{Upkeep, open_store};
use store::Store;
use svs::{Catalogue, EventKind};
use tape::Control;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use vfs::{RealVfs, Vfs};

use crate::jobs::Jobs;
use crate::lease::{self, Desk, Event, Held};
use crate::library::Libraries;
use crate::peer::{self, Peers};
use crate::replica::Replicas;
use crate::report::{self, Reporter};
use crate::stream::Streams;
use crate::{admin, heal, recovery};

/// How long the connections get to say goodbye.
const GRACE: Duration = Duration::from_secs(5);

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the parts of the engine share.
pub struct Ground {
    /// The configuration.
    pub config: RemoteConfig,
    /// This run.
    pub engine: EngineId,
    /// Replicas: chunks and recipes.
    pub store: Store,
    /// The rows.
    pub catalogue: Arc<Catalogue>,
    /// The libraries of this site.
    pub libraries: Libraries,
    /// How drives and cartridges are.
    pub health: HealthBook,
    /// The devices that are open.
    pub held: Held,
    /// Drives that make a cartridge ready, and how far they are.
    pub readying: Mutex<BTreeMap<DeviceName, u16>>,
    /// Who is connected.
    pub peers: Peers,
    /// What is done for them.
    pub jobs: Jobs,
    /// What arrives from them.
    pub replicas: Replicas,
    /// Bytes on their way to and from drives.
    pub streams: Streams,
    /// Tells them of changes.
    pub reporter: Reporter,
    /// Chunks that are damaged here or there.
    pub healing: Arc<Healing>,
    /// Questions of peers about what is held here.
    pub comparing: Arc<Comparing>,
}

impl Ground {
    /// What a library looks like now, with how its drives and cartridges are.
    pub fn report(&self, name: &LibraryName) -> Option<LibraryReport> {
        let mut report = self.libraries.report(name)?;
        for (index, drive) in (0u16..).zip(&mut report.drives) {
            let device = DeviceName::drive(name.clone(), index);
            drive.in_use = self.held.contains(&device);
            drive.down = self.health.refuses(&device);
            drive.readying = self.readying().get(&device).copied();
        }
        report.frozen = self.health.frozen(name, link::FROZEN_MAX);
        Some(report)
    }

    fn readying(&self) -> MutexGuard<'_, BTreeMap<DeviceName, u16>> {
        self.readying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A drive makes a cartridge ready, or does not any more.
    pub fn note_readying(&self, drive: &DeviceName, part: Option<u16>) {
        let mut readying = self.readying();
        let before = match part {
            Some(part) => readying.insert(drive.clone(), part),
            None => readying.remove(drive),
        };
        if before != part {
            self.reporter.poke();
        }
    }

    /// Tells a site how a copy of it was proven, if it is done.
    pub fn send_proof(&self, site: &SiteName, job: JobId) {
        if let Some(how) = self.jobs.proof(job) {
            self.peers.send(site, Message::JobProof(job, how));
        }
    }

    /// Tells a site of copies that ended without it, again at each connection until it knows.
    pub fn send_job_reports(&self, site: &SiteName) {
        for report in self.jobs.reports_for(site) {
            self.peers.send(site, Message::Job(report));
        }
    }
}

impl Workshop for Ground {
    fn health(&self) -> &HealthBook {
        &self.health
    }

    fn open(&self, device: &DeviceName, control: &Control) -> Result<OpenUnit, String> {
        self.libraries.open_device(device, control).map_err(|refusal| refusal.text)
    }

    fn is_used(&self, drive: &DeviceName) -> bool {
        self.held.contains(drive) || self.libraries.medium(drive).is_some()
    }

    fn moved(&self) {
        self.reporter.poke();
    }
}

/// A running engine.
pub struct Running {
    ground: Arc<Ground>,
    address: SocketAddr,
    trigger: ShutdownTrigger,
    leases: mpsc::Sender<Event>,
    desk: std::thread::JoinHandle<()>,
    reporter: std::thread::JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    listener: JoinHandle<()>,
    _state: StateDir,
}

/// Runs the engine until the shutdown.
///
/// # Errors
/// Something without which it can not work failed.
pub async fn serve(config: RemoteConfig, shutdown: Shutdown) -> Result<(), Failure> {
    let running = Running::start(config).await?;
    shutdown.requested().await;
    running.stop().await;
    Ok(())
}

fn open(config: RemoteConfig, reporter: Reporter) -> Result<Arc<Ground>, Failure> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let catalogue = Arc::new(Catalogue::open(&config.site.catalogue())?);
    let (store, found) = open_store(Arc::clone(&vfs), &config.site, &config.store)?;
    let jobs = Jobs::open(Arc::clone(&catalogue))?;
    recovery::recover(&store, &found, &catalogue, &jobs)?;
    let libraries = Libraries::open(&vfs, &config)?;
    // The other side shows it at once.
    let told = reporter.clone();
    let health = HealthBook::open(Arc::clone(&catalogue), move || told.poke())?;
    Ok(Arc::new(Ground {
        engine: EngineId::generate(now_ms()),
        store,
        catalogue,
        libraries,
        health,
        held: Held::default(),
        readying: Mutex::default(),
        peers: Peers::default(),
        jobs,
        replicas: Replicas::default(),
        streams: Streams::default(),
        reporter,
        healing: Arc::default(),
        comparing: Arc::default(),
        config,
    }))
}

impl Running {
    /// Opens everything, takes the leases of the last run over, and listens.
    ///
    /// # Errors
    /// Something without which it can not work failed.
    pub async fn start(config: RemoteConfig) -> Result<Self, Failure> {
        let state = StateDir::claim(&config.site.state_dir)?;
        // Whoever connects from here on waits until everything is open.
        let tls = service::tls::server_config(config.link.tls())?;
        let listener = TcpListener::bind(config.link.listen).await?;
        let address = listener.local_addr()?;
        let (reporter, inbox) = report::channel();
        let opened = tokio::task::spawn_blocking(move || {
            let ground = open(config, reporter)?;
            let (leases, desk) = Desk::start(Arc::clone(&ground))?;
            let reporter = report::start(Arc::clone(&ground), inbox)?;
            Ok::<_, Failure>((ground, leases, desk, reporter))
        });
        let (ground, leases, desk, reporter) = opened.await??;
        let (trigger, shutdown) = shutdown::channel();
        let upkeep = Upkeep::new(
            ground.store.clone(),
            Arc::clone(&ground.catalogue),
            ground.config.store.clone(),
            shutdown.clone(),
            Arc::new(heal::Others(Arc::clone(&ground))),
        );
        let kept_up = tokio::spawn(Arc::clone(&upkeep).run());
        let admin = admin::start(&ground, upkeep, &shutdown)?;
        let status = crate::status::start(&ground, &shutdown).await?;
        let tick = tokio::spawn(lease::tick(leases.clone()));
        let door = peer::Door { ground: Arc::clone(&ground), leases: leases.clone(), tls };
        let listening = tokio::spawn(peer::listen(listener, Arc::new(door), shutdown));
        let site = &ground.config.site;
        say(&ground, messages::ENGINE_STARTED);
        tracing::info!(
            site = %site.name,
            link = %address,
            version = env!("CARGO_PKG_VERSION"),
            "remote-engine ready"
        );
        Ok(Self {
            ground,
            address,
            trigger,
            leases,
            desk,
            reporter,
            tasks: [admin, tick, kept_up].into_iter().chain(status).collect(),
            listener: listening,
            _state: state,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its parts share, to look at.
    pub fn ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// Stops in order: says goodbye, flushes every drive, and frees everything.
    pub async fn stop(self) {
        let ground = self.end(true).await;
        say(&ground, messages::ENGINE_STOPPED);
        tracing::info!(site = %ground.config.site.name, "remote-engine stopped");
    }

    /// Drops everything as it is: nothing is flushed, nobody is told.
    pub async fn abandon(self) {
        drop(self.end(false).await);
    }

    /// Ends every task and thread. What it returns is the last that anybody has of the engine.
    async fn end(self, in_order: bool) -> Arc<Ground> {
        if in_order {
            self.trigger.trigger();
            let mut listener = self.listener;
            if tokio::time::timeout(GRACE, &mut listener).await.is_err() {
                listener.abort();
            }
        } else {
            self.listener.abort();
            let _ = self.listener.await;
        }
        self.ground.health.stop();
        self.ground.streams.clear();
        let (done, stopped) = oneshot::channel();
        // An error means that the desk has ended already.
        if self.leases.send(Event::Stop { flush: in_order, done }).await.is_ok() {
            let _ = stopped.await;
        }
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.ground.reporter.stop();
        let (ground, desk, reporter) = (self.ground, self.desk, self.reporter);
        let held = Arc::clone(&ground);
        let joined = tokio::task::spawn_blocking(move || {
            // A panic there was reported when it happened.
            let _ = (desk.join(), reporter.join());
            held.replicas.wait_idle();
        });
        let _ = joined.await;
        // Calls that were cut off on blocking threads run to their end.
        let patience = tokio::time::Instant::now() + GRACE;
        while Arc::strong_count(&ground) > 1 && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ground
    }
}

fn say(ground: &Ground, id: &str) {
    let site = &ground.config.site;
    let (program, version) = ("remote-engine", env!("CARGO_PKG_VERSION"));
    let dir = site.state_dir.display();
    let words: [(&str, &dyn std::fmt::Display); 4] =
        [("program", &program), ("version", &version), ("site", &site.name), ("state_dir", &dir)];
    messages::note(&ground.catalogue, EventKind::Engine, id, &words, None);
}
