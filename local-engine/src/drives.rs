//! The drives of the libraries that stand here: those that ask for it are cleaned, and the
//! catalogue says how they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::{DeviceName, DeviceRole, LibraryName};
use service::cleaning::{Cleaner, Workshop};
use service::health::HealthBook;
use service::unit::OpenUnit;
use tape::Control;

use crate::device::Library;
use crate::engine::Engine;

/// How long is waited for a change before it is looked without one.
const LOOK: Duration = Duration::from_secs(1);

/// Who cleans is an initiator of his own at each device. Sessions count up from 1, the engine's
/// copies from above this.
static NEXUS: AtomicU64 = AtomicU64::new(1 << 47);

impl Workshop for Engine {
    fn health(&self) -> &HealthBook {
        &self.health
    }

    fn open(&self, device: &DeviceName, control: &Control) -> Result<OpenUnit, String> {
        let library = self.physical.iter().find(|it| *it.name() == device.library);
        let library = library.ok_or_else(|| format!("there is no device {device}"))?;
        let nexus = NEXUS.fetch_add(1, Ordering::Relaxed);
        let opened = library.open_unit(device.role, nexus, control);
        opened.map_err(|error| format!("{device}: {error}"))
    }

    fn is_used(&self, drive: &DeviceName) -> bool {
        let DeviceRole::Drive(index) = drive.role else { return true };
        let library = self.physical.iter().find(|it| *it.name() == drive.library);
        let is_empty = library.is_some_and(|library| library.is_empty(index));
        !is_empty || self.ground.registry.holder(drive).is_some()
    }

    fn moved(&self) {
        self.ground.registry.bell().ring();
    }
}

/// What was written into the catalogue last.
type Kept = BTreeMap<LibraryName, (svs::Library, Vec<svs::Device>)>;

/// Looks after the drives, on a thread of its own, while the engine lives.
///
/// # Errors
/// The system has no thread to give.
pub(crate) fn follow(engine: &Arc<Engine>) -> std::io::Result<()> {
    if engine.physical.is_empty() {
        return Ok(());
    }
    let (weak, bell) = (Arc::downgrade(engine), engine.ground.registry.bell().clone());
    let thread = std::thread::Builder::new().name("drives".into());
    thread.spawn(move || {
        let (mut cleaner, mut kept) = (Cleaner::default(), Kept::default());
        loop {
            let heard = bell.rings();
            let Some(engine) = Weak::upgrade(&weak).filter(|engine| !engine.is_stopping()) else {
                return;
            };
            cleaner.look(&engine);
            keep(&engine, &mut kept);
            drop(engine);
            bell.wait(heard, LOOK);
        }
    })?;
    Ok(())
}

/// Writes what has changed of the libraries into the catalogue.
fn keep(engine: &Engine, kept: &mut Kept) {
    for library in &engine.physical {
        let now = library.row(&engine.ground.config.site.name);
        if kept.get(library.name()) == Some(&now) {
            continue;
        }
        match engine.ground.catalogue.put_library(&now.0, &now.1) {
            Ok(()) => drop(kept.insert(library.name().clone(), now)),
            Err(error) => {
                tracing::warn!(library = %library.name(), %error, "a library could not be kept");
            }
        }
    }
}
