//! Both engines as processes of this same program.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use service::shutdown::{self, Shutdown, ShutdownTrigger};

use crate::cli::Failed;

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How long an engine may take to come up, or to take note of what it is waited for.
const START: Duration = Duration::from_secs(60);
/// How long an engine may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(15);
/// Lines of a log that are shown when something failed.
const TAIL: usize = 15;

struct Engine {
    name: &'static str,
    child: Child,
}

impl Drop for Engine {
    /// No process is left behind; one that was stopped in order is not there any more.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The engines that run.
#[derive(Clone)]
pub(super) struct Engines(Arc<Mutex<Vec<Engine>>>);

impl Engines {
    /// None yet. Ctrl-C stops those that there are then.
    pub(super) fn new(interrupt: &Interrupt) -> Self {
        let engines = Self(Arc::default());
        let to_stop = engines.clone();
        interrupt.then(move || to_stop.signal());
        engines
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Engine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `twinreel NAME serve --config FILE`, its log beside the configuration, and waits
    /// until it says that it is ready.
    pub(super) fn start(&self, name: &'static str, config: &Path) -> Result<(), Failed> {
        let program = std::env::current_exe().map_err(Failed::new)?;
        let log = config.with_file_name(format!("{name}.log"));
        let output = File::create(&log).map_err(Failed::new)?;
        let child = Command::new(program)
            .args([name, "serve", "--config"])
            .arg(config)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|error| Failed::new(format!("{name} can not be started: {error}")))?;
        self.lock().push(Engine { name, child });
        let ready = format!("{name} ready");
        self.wait("an engine to be ready", || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(said.contains(&ready).then_some(()))
        })
    }

    /// Waits until `look` has something. An engine that ends meanwhile is a failure.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, Failed>,
    ) -> Result<T, Failed> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            for engine in self.lock().iter_mut() {
                if let Ok(Some(status)) = engine.child.try_wait() {
                    return Err(Failed::new(format!("{} has ended: {status}", engine.name)));
                }
            }
            if Instant::now() > deadline {
                return Err(Failed::new(format!("waited too long for {what}")));
            }
            sleep(LOOK);
        }
    }

    /// Asks every engine that runs to stop.
    fn signal(&self) {
        for engine in self.lock().iter_mut() {
            // Not yet waited for, so the number is still its own.
            if matches!(engine.child.try_wait(), Ok(None)) {
                let _ = kill_process(Pid::from_child(&engine.child), Signal::TERM);
            }
        }
    }

    /// Stops every engine and waits for its end. Whether all ended in order.
    pub(super) fn stop(&self) -> Result<(), Failed> {
        self.signal();
        let deadline = Instant::now() + STOP;
        let engines = std::mem::take(&mut *self.lock());
        let mut outcome = Ok(());
        for mut engine in engines {
            let fault = loop {
                match engine.child.try_wait() {
                    Ok(Some(status)) if status.success() => break None,
                    Ok(Some(status)) => break Some(status.to_string()),
                    Ok(None) if Instant::now() < deadline => sleep(LOOK),
                    _ => break Some("it does not stop and is killed".to_owned()),
                }
            };
            if let Some(fault) = fault {
                outcome = Err(Failed::new(format!("{}: {fault}", engine.name)));
            }
        }
        outcome
    }
}

/// The last lines of an engine's log.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// Ctrl-C and SIGTERM, taken note of instead of obeyed at once: the engines come first.
pub(super) struct Interrupt {
    runtime: tokio::runtime::Runtime,
    shutdown: Shutdown,
    // Dropped, it would be a wish to stop.
    _trigger: ShutdownTrigger,
}

impl Interrupt {
    pub(super) fn new() -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Failed::new)?;
        let (trigger, shutdown) =
            runtime.block_on(async { shutdown::on_signals() }).map_err(Failed::new)?;
        Ok(Self { runtime, shutdown, _trigger: trigger })
    }

    fn then(&self, work: impl FnOnce() + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.runtime.spawn(async move {
            shutdown.requested().await;
            work();
        });
    }

    pub(super) fn is_requested(&self) -> bool {
        self.shutdown.is_requested()
    }

    /// A failure once somebody wishes to stop.
    pub(super) fn check(&self) -> Result<(), Failed> {
        match self.is_requested() {
            true => Err(Failed::new("interrupted")),
            false => Ok(()),
        }
    }
}
