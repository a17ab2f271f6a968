//! An engine within a test: its files in a temporary directory, its server on loopback.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dma::{Client, Login};
use service::config::{EngineConfig, LocalConfig};
use service::shutdown::{self, ShutdownTrigger};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::engine::{self, Engine};

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Loads a configuration whose `[site]` is in `dir`, with `more` behind it.
pub(crate) fn config(dir: &Path, more: &str) -> LocalConfig {
    let state = dir.join("state");
    let text = format!(
        "[site]\nname = \"hq\"\nstate_dir = {state:?}\n\
         [ndmp]\nmax_sessions = 4\n\
         [[ndmp.user]]\nname = \"ndmp\"\npassword = \"a secret\"\nauth = [\"md5\", \"text\"]\n\
         [[virtual_library]]\nname = \"vtl0\"\ndrives = 2\nslots = 4\nimport_export = 1\n\
         capacity = \"4MB\"\nearly_warning = \"1MB\"\n\
         cartridges = {{ prefix = \"VTA\", count = 3 }}\n{more}"
    );
    let file = dir.join("local.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    LocalConfig::load(&file).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens an engine without a server over what is in `dir`.
pub(crate) fn open_engine(dir: &Path) -> Arc<Engine> {
    let config = config(dir, "");
    std::fs::create_dir_all(&config.site.state_dir).unwrap();
    engine::open(config).unwrap()
}

/// A server without links.
pub(crate) struct Server {
    pub(crate) engine: Arc<Engine>,
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
    trigger: ShutdownTrigger,
    listening: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it over what is in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {})
    }

    /// The same with a configuration that went through `change`, which may break its bounds.
    pub(crate) fn start_with(dir: &Path, change: impl FnOnce(&mut LocalConfig)) -> Self {
        let mut config = config(dir, "");
        change(&mut config);
        std::fs::create_dir_all(&config.site.state_dir).unwrap();
        let engine = engine::open(config).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let (shared, max) = (engine::shared(&engine), engine.ground.config.ndmp.max_sessions);
        let listening = runtime.spawn(async move {
            engine::listen(listener, shared, &shutdown, max).await;
        });
        let (runtime, listening) = (Some(runtime), Some(listening));
        Self { engine, address, runtime, trigger, listening }
    }

    /// A session that has logged in.
    pub(crate) fn dial(&self) -> Client {
        let login = Login::md5("ndmp", "a secret");
        let mut client = Client::connect(self.address, None, &login).unwrap();
        client.set_timeout(PATIENCE);
        client
    }

    /// Stops it as SIGTERM does.
    pub(crate) fn stop(mut self) {
        self.trigger.trigger();
        if let (Some(runtime), Some(listening)) = (&self.runtime, self.listening.take()) {
            runtime.block_on(listening).unwrap();
        }
    }
}

/// Tries until it works.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::yield_now();
    }
}
