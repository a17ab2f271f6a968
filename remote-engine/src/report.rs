//! What peers and the catalogue are told about libraries and drives: looked at after every change
//! and every second, told when it differs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use link::{LibraryReport, Message, SiteReport};
use model::{Barcode, DeviceName, ElementAddress, LibraryName, SiteName};
use service::cleaning::Cleaner;
use service::messages;
use svs::{Device, EventKind, Library, LibraryRole, SvsError};
use tape::{DeviceIdentity, DriveState};

use crate::engine::Ground;
use crate::library::belongs_to;

/// How often is looked without a cause.
const TICK: Duration = Duration::from_secs(1);

/// How long is waited for what a move changed to be told.
const TOLD: Duration = Duration::from_secs(5);

/// Wakes the reporter. Clones wake the same.
#[derive(Clone, Debug)]
pub struct Reporter(SyncSender<Wake>);

#[derive(Debug)]
enum Wake {
    Look,
    /// Look, and say when what was seen is told.
    Tell(SyncSender<()>),
    Greet(SiteName),
    Stop,
}

/// The other end of a [`Reporter`], for its thread.
#[derive(Debug)]
pub struct Inbox(Receiver<Wake>);

/// A reporter without a thread yet.
pub fn channel() -> (Reporter, Inbox) {
    let (wake, inbox) = sync_channel(256);
    (Reporter(wake), Inbox(inbox))
}

impl Reporter {
    /// Something may have changed. Never waits: with the queue full it looks soon anyway.
    pub fn poke(&self) {
        let _ = self.0.try_send(Wake::Look);
    }

    /// Something has changed that has to be told before whoever changed it gets an answer: else a
    /// site could believe what was before. Waits, though not for ever.
    pub fn tell(&self) {
        let (told, wait) = sync_channel(1);
        if self.0.try_send(Wake::Tell(told)).is_ok() {
            // A reporter that is slow, or stopped, tells later or never.
            let _ = wait.recv_timeout(TOLD);
        }
    }

    /// A site has connected and gets the whole report.
    pub fn greet(&self, site: &SiteName) {
        let _ = self.0.try_send(Wake::Greet(site.clone()));
    }

    /// Ends the thread.
    pub fn stop(&self) {
        let _ = self.0.send(Wake::Stop);
    }
}

/// What was told last.
#[derive(Default)]
struct Told {
    libraries: Vec<LibraryReport>,
    /// To each site: the number of its last report, and what it said.
    sites: BTreeMap<SiteName, (u64, Vec<LibraryReport>)>,
    cleaner: Cleaner,
}

/// The thread: looks and tells until it is stopped. The first look is done before it returns.
///
/// # Errors
/// The system has no thread to give.
pub fn start(ground: Arc<Ground>, inbox: Inbox) -> std::io::Result<std::thread::JoinHandle<()>> {
    let mut told = Told::default();
    told.look(&ground);
    let thread = std::thread::Builder::new().name("reporter".to_owned());
    thread.spawn(move || {
        loop {
            match inbox.0.recv_timeout(TICK) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Greet(site)) => {
                    told.look(&ground);
                    told.tell(&ground, &site, true);
                }
                Ok(Wake::Tell(done)) => {
                    told.look(&ground);
                    // Whoever waited may have given up.
                    let _ = done.try_send(());
                }
                Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => told.look(&ground),
            }
        }
    })
}

impl Told {
    fn look(&mut self, ground: &Arc<Ground>) {
        self.cleaner.look(ground);
        let names = ground.libraries.names();
        let now: Vec<_> = names.filter_map(|name| ground.report(name)).collect();
        for library in &now {
            let before = self.libraries.iter().find(|before| before.name == library.name);
            if before.is_none_or(|before| differs(before, library)) {
                note_moves(ground, before, library);
                if let Err(error) = keep(ground, library) {
                    tracing::warn!(%error, library = %library.name, "a report was not kept");
                }
            }
        }
        self.libraries = now;
        for peer in ground.peers.connected() {
            self.tell(ground, &peer.site, false);
        }
    }

    /// Tells a site what belongs to it, if that differs from what it knows or must be told.
    fn tell(&mut self, ground: &Ground, site: &SiteName, always: bool) {
        let its = self.libraries.iter().filter(|it| belongs_to(&ground.config, &it.name, site));
        let libraries: Vec<_> = its.cloned().collect();
        let (sequence, known) = self.sites.entry(site.clone()).or_default();
        let same = known.len() == libraries.len()
            && known.iter().zip(&libraries).all(|(a, b)| !differs(a, b));
        // Without a first report there is nothing that a change could refer to.
        if (*sequence == 0 || same) && !always {
            return;
        }
        *sequence += 1;
        known.clone_from(&libraries);
        let report = SiteReport { sequence: *sequence, libraries, more: false };
        for part in report.parts() {
            ground.peers.send(site, Message::Report(part));
        }
    }
}

/// Whether two reports of a library differ in more than what a running write changes all the time.
fn differs(a: &LibraryReport, b: &LibraryReport) -> bool {
    fn still(report: &LibraryReport) -> LibraryReport {
        let mut report = report.clone();
        for drive in report.drives.iter_mut().filter(|drive| drive.in_use) {
            if let Some(DriveState { medium: Some(medium), .. }) = &mut drive.state {
                medium.remaining = None;
            }
        }
        report
    }
    still(a) != still(b)
}

/// Where every cartridge of a library is.
fn places(report: &LibraryReport) -> BTreeMap<&Barcode, ElementAddress> {
    let elements = report.inventory.elements.iter();
    elements.filter_map(|element| Some((element.barcode.as_ref()?, element.address))).collect()
}

fn note_moves(ground: &Ground, before: Option<&LibraryReport>, now: &LibraryReport) {
    let Some(before) = before else {
        let cartridges = places(now).len();
        let slots = now.inventory.map.count(model::ElementType::Storage);
        let words: [(&str, &dyn std::fmt::Display); 4] = [
            ("library", &now.name),
            ("drives", &now.drives.len()),
            ("slots", &slots),
            ("cartridges", &cartridges),
        ];
        let id = messages::LIBRARY_READY;
        return messages::note(&ground.catalogue, EventKind::Device, id, &words, None);
    };
    let former = places(before);
    for (barcode, to) in places(now) {
        let Some(from) = former.get(barcode).filter(|from| **from != to) else { continue };
        let words: [(&str, &dyn std::fmt::Display); 4] =
            [("library", &now.name), ("barcode", barcode), ("from", from), ("to", &to)];
        let (id, subject) = (messages::CARTRIDGE_MOVED, barcode.as_str());
        messages::note(&ground.catalogue, EventKind::Device, id, &words, Some(subject));
    }
}

/// Writes a library, its devices and its inventory into the catalogue.
fn keep(ground: &Ground, report: &LibraryReport) -> Result<(), SvsError> {
    let site = &ground.config.site.name;
    let device = |name: DeviceName, identity: &DeviceIdentity, state: String| Device {
        name,
        serial: identity.serial.clone(),
        vendor: identity.vendor.clone(),
        product: identity.product.clone(),
        revision: identity.revision.clone(),
        state,
    };
    let changer = DeviceName::changer(report.name.clone());
    let mut devices = vec![device(changer, &report.identity, "ready".to_owned())];
    for (index, drive) in (0u16..).zip(&report.drives) {
        let medium = drive.state.as_ref().and_then(|state| state.medium.as_ref());
        let barcode = medium.and_then(|medium| medium.barcode.as_ref());
        let loaded = barcode.map_or("empty".to_owned(), |barcode| format!("loaded {barcode}"));
        let mut state = if drive.in_use { format!("{loaded}, in use") } else { loaded };
        if drive.down.is_some() {
            state.push_str(", down");
        }
        devices.push(device(drive_name(&report.name, index), &drive.identity, state));
    }
    let library = Library {
        site: site.clone(),
        name: report.name.clone(),
        serial: report.identity.serial.clone(),
        role: LibraryRole::Physical,
        backend: ground.libraries.backend(&report.name).to_owned(),
        state: if report.online { "ready".to_owned() } else { "offline".to_owned() },
    };
    ground.catalogue.put_library(&library, &devices)?;
    let text = serde_json::to_string(report).unwrap_or_default();
    ground.catalogue.put_inventory(site, &report.name, &text)
}

fn drive_name(library: &LibraryName, index: u16) -> DeviceName {
    DeviceName::drive(library.clone(), index)
}
