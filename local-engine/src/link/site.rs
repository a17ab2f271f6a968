//! What is known of a remote site, shared by its connection and the devices that use it.
//!
//! One lock guards it, held for moments only: never while the catalogue, a device or a connection
//! is waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use link::{
    Capabilities, ClientError, ClientEvent, EndReason, LeaseClient, LeaseReply, Meeting, Message,
    PeerMemory, Refusal, ReportWatch, SiteReport, Stream, StreamBody, StreamId, Work,
};
use model::{DeviceName, EngineId, JobId, LeaseId, LibraryName, SiteName};
use service::comparing::Comparing;
use service::config::LinkTo;
use service::healing::Healing;
use service::messages;
use svs::{Device, EventKind, LibraryRole};
use tape::{Control, TapeError};

use super::bulk::Bulk;
use super::lease::{LOOK, LeaseHandle};
use super::outbox::ControlWay;
use super::{Ground, Replicator};
use crate::device::{Library, drive_state};
use crate::engine::now_ms;
use crate::ghost::GhostLibrary;

/// One remote site.
pub struct RemoteSite {
    pub(super) ground: Arc<Ground>,
    pub(super) link: LinkTo,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    replicator: Replicator,
    healing: Arc<Healing>,
    comparing: Arc<Comparing>,
    begun: Instant,
}

/// What a device hears of its lease and of the link.
#[derive(Debug)]
pub enum DeviceEvent {
    /// Of the lease.
    Lease(ClientEvent),
    /// Of a stream that belongs to it.
    Stream(Stream),
    /// The link broke.
    Down,
    /// The link is back.
    Up,
    /// Bytes wait elsewhere; see [`LeaseHandle::waker`].
    Woken,
}

/// Why a device of the site was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The link is down; a retry helps when it is back.
    #[error("the link is down")]
    Down,
    /// The remote engine said no.
    #[error(transparent)]
    Refused(Refusal),
    /// No answer came, or the lease ended before it began.
    #[error(transparent)]
    Failed(TapeError),
}

/// Copies whose end is told again at every connection: more than can wait for a tape at once.
const ENDED: usize = 256;

struct Slot {
    client: LeaseClient,
    events: Sender<DeviceEvent>,
    /// Nobody uses it any more: what is under way is waited for, then the device is freed.
    leaving: bool,
    /// The close was asked for; it must not be cancelled.
    closing: bool,
}

impl Slot {
    /// Goes on with freeing the device; true when nothing is left to do.
    fn leave(&mut self, control: Option<&ControlWay>) -> bool {
        match self.client.submit(Work::Close) {
            Ok(request) => {
                self.closing = true;
                if let Some(control) = control {
                    control.send(Message::Lease(request));
                }
                false
            }
            Err(ClientError::Ended(_)) => true,
            // Goes on with the next event, or when the link is back.
            Err(_) => false,
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    name: Option<SiteName>,
    /// Where control messages go, while the link is up.
    control: Option<ControlWay>,
    leases: BTreeMap<LeaseId, Slot>,
    /// Streams and the leases that they belong to.
    streams: BTreeMap<StreamId, LeaseId>,
    /// Where stream messages go, while the link is up.
    bulk: Option<Bulk>,
    memory: PeerMemory,
    watch: ReportWatch,
    engine: Option<EngineId>,
    /// What it understands, while the link is up.
    capabilities: Capabilities,
    /// How often the remote engine was restarted since this start.
    restarts: u64,
    libraries: BTreeMap<LibraryName, Arc<GhostLibrary>>,
    /// Since when the link is down, after it was up.
    down_since_ms: Option<u64>,
    /// Libraries that can not be shown, told once.
    refused: BTreeSet<LibraryName>,
    /// Copies that ended here last.
    ended: VecDeque<JobId>,
}

impl State {
    /// Whether somebody who does not use a device any more has something under way there, and the
    /// site has not been asked to free it.
    fn is_being_left(&self, device: &DeviceName) -> bool {
        let unasked = |slot: &Slot| slot.leaving && !slot.closing && slot.client.ended().is_none();
        self.leases.values().any(|slot| slot.client.device() == device && unasked(slot))
    }

    /// Numbers a work of a lease and sends it. `None`: there is no such lease.
    pub(super) fn submit(
        &mut self,
        lease: LeaseId,
        work: &Work,
    ) -> Result<(), Option<ClientError>> {
        let slot = self.leases.get_mut(&lease).ok_or(None)?;
        if slot.leaving {
            return Err(Some(ClientError::Ended(EndReason::Expired)));
        }
        let request = slot.client.submit(work.clone())?;
        slot.closing |= *work == Work::Close;
        // A connection that breaks now sends it again when it is back.
        if let Some(control) = &self.control {
            control.send(Message::Lease(request));
        }
        Ok(())
    }
}

impl RemoteSite {
    pub(super) fn new(ground: &Arc<Ground>, link: LinkTo) -> Arc<Self> {
        // A catalogue that can not be read now says so where it matters.
        let known = ground.catalogue.meta(&name_key(&link)).ok().flatten();
        let name = known.and_then(|name| SiteName::new(&name).ok());
        let replicator = Replicator::new(ground, name.clone());
        Arc::new(Self {
            ground: Arc::clone(ground),
            link,
            state: Mutex::new(State { name, ..State::default() }),
            changed: Condvar::new(),
            replicator,
            healing: Arc::default(),
            comparing: Arc::default(),
            begun: Instant::now(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A steady clock for leases.
    fn clock_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The site's name, once it was met.
    pub fn name(&self) -> Option<SiteName> {
        self.lock().name.clone()
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.lock().control.is_some()
    }

    /// How often the remote engine was restarted since this start: its devices had a power-on then.
    pub fn restarts(&self) -> u64 {
        self.lock().restarts
    }

    /// Where the configuration says it is.
    pub fn address(&self) -> &str {
        &self.link.connect
    }

    /// Generations on their way there.
    pub fn replicator(&self) -> &Replicator {
        &self.replicator
    }

    /// Chunks that are damaged here or there.
    pub(super) fn healing(&self) -> &Arc<Healing> {
        &self.healing
    }

    pub(super) fn comparing(&self) -> &Arc<Comparing> {
        &self.comparing
    }

    /// Whether the link is up to an engine that understands these.
    pub(super) fn can(&self, these: Capabilities) -> bool {
        let state = self.lock();
        state.bulk.is_some() && state.capabilities.has(these)
    }

    /// What the engine shares.
    pub fn ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// Lists the libraries that the site reported before this start.
    pub(super) fn list_former(self: &Arc<Self>) {
        let Some(name) = self.name() else { return };
        let former = self.ground.catalogue.inventories().unwrap_or_default();
        for row in former.into_iter().filter(|row| row.site == name) {
            match serde_json::from_str(&row.report) {
                Ok(report) => {
                    self.list(&name, report);
                    self.lock().libraries.values().for_each(|ghost| ghost.forget_holders());
                }
                Err(error) => tracing::warn!(library = %row.library, %error, "an old report"),
            }
        }
    }

    fn list(self: &Arc<Self>, site: &SiteName, report: link::LibraryReport) {
        let own = report.name.clone();
        let known = self.lock().libraries.get(&own).cloned();
        if let Some(ghost) = known {
            ghost.renew(report);
            return self.ground.registry.bell().ring();
        }
        let entered = self.ground.config.ghost_name(site, &own).and_then(|name| {
            let ghost = Arc::new(GhostLibrary::new(name, Arc::clone(self), report));
            self.ground.registry.add(Arc::clone(&ghost) as Arc<dyn Library>)?;
            Ok(ghost)
        });
        match entered {
            Ok(ghost) => {
                let mut state = self.lock();
                state.refused.remove(&own);
                state.libraries.insert(own, ghost);
            }
            Err(cause) if self.lock().refused.insert(own.clone()) => {
                let words: [(&str, &dyn std::fmt::Display); 3] =
                    [("library", &own), ("site", site), ("cause", &cause)];
                let catalogue = &self.ground.catalogue;
                messages::note(catalogue, EventKind::Link, messages::GHOST_REFUSED, &words, None);
            }
            Err(_) => {}
        }
    }

    /// Takes libraries off the list that the site does not show to us any more.
    fn unlist(&self, site: &SiteName, reported: &BTreeSet<LibraryName>) {
        let gone: Vec<_> = {
            let mut state = self.lock();
            let names: Vec<_> = state.libraries.keys().cloned().collect();
            let gone = names.into_iter().filter(|name| !reported.contains(name));
            gone.filter_map(|name| Some((state.libraries.remove(&name)?, name))).collect()
        };
        for (ghost, name) in gone {
            tracing::info!(%site, library = %name, "a library is not reported any more");
            self.ground.registry.remove(ghost.name());
            if let Err(error) = self.ground.catalogue.remove_library(site, &name) {
                tracing::warn!(%error, library = %name, "a library's row could not be removed");
            }
        }
    }

    /// A report came, or a part of one. Blocks on the catalogue.
    pub(super) fn reported(self: &Arc<Self>, report: SiteReport) {
        let (site, report) = {
            let mut state = self.lock();
            let (Some(engine), Some(site)) = (state.engine, state.name.clone()) else { return };
            match state.watch.accept(engine, report) {
                Ok(Some(report)) => (site, report),
                Ok(None) => return,
                Err(error) => return tracing::warn!(%site, %error, "a report is not used"),
            }
        };
        self.unlist(&site, &report.libraries.iter().map(|it| it.name.clone()).collect());
        for library in report.libraries {
            if let Err(error) = self.keep(&site, &library) {
                tracing::warn!(%error, library = %library.name, "a report could not be kept");
            }
            self.list(&site, library);
        }
    }

    fn keep(&self, site: &SiteName, report: &link::LibraryReport) -> Result<(), svs::SvsError> {
        let device = |name: DeviceName, identity: &tape::DeviceIdentity, state: String| Device {
            name,
            serial: identity.serial.clone(),
            vendor: identity.vendor.clone(),
            product: identity.product.clone(),
            revision: identity.revision.clone(),
            state,
        };
        let mut devices =
            vec![device(DeviceName::changer(report.name.clone()), &report.identity, String::new())];
        for (index, drive) in (0u16..).zip(&report.drives) {
            let medium = drive.state.as_ref().and_then(|state| state.medium.as_ref());
            let barcode = medium.map(|medium| medium.barcode.as_ref());
            let state = drive_state(barcode, drive.down.as_deref());
            let name = DeviceName::drive(report.name.clone(), index);
            devices.push(device(name, &drive.identity, state));
        }
        let library = svs::Library {
            site: site.clone(),
            name: report.name.clone(),
            serial: report.identity.serial.clone(),
            role: LibraryRole::Ghost,
            backend: "link".into(),
            state: if report.online { "ready".into() } else { "offline".into() },
        };
        self.ground.catalogue.put_library(&library, &devices)?;
        let text = serde_json::to_string(report).unwrap_or_default();
        self.ground.catalogue.put_inventory(site, &report.name, &text)
    }

    // ---- the connection's side ----

    /// The link is up: leases go on over it. Must come before anything is read from it. Tells
    /// whether the remote engine was restarted, and whether the site's name is new.
    pub(super) fn up(&self, peer: &link::Peer, control: ControlWay, bulk: Bulk) -> (Meeting, bool) {
        let mut state = self.lock();
        let renamed = state.name.as_ref() != Some(&peer.site);
        state.name = Some(peer.site.clone());
        let meeting = state.memory.meet(peer.engine);
        state.restarts += u64::from(meeting == Meeting::Restarted);
        state.engine = Some(peer.engine);
        state.capabilities = peer.capabilities;
        state.leases.retain(|_, slot| {
            for request in slot.client.on_reconnect() {
                control.send(Message::Lease(request));
            }
            // A device that was dropped needs no news.
            drop(slot.events.send(DeviceEvent::Up));
            !(slot.leaving && slot.client.ended().is_some())
        });
        for job in &state.ended {
            control.send(Message::JobOver(*job));
        }
        state.control = Some(control);
        state.bulk = Some(bulk);
        state.down_since_ms = None;
        drop(state);
        self.changed.notify_all();
        self.ground.registry.bell().ring();
        (meeting, renamed)
    }

    /// The link is down.
    pub(super) fn down(&self) {
        let now = self.clock_ms();
        self.healing.give_up();
        self.comparing.give_up();
        let mut state = self.lock();
        state.control = None;
        state.bulk = None;
        state.down_since_ms.get_or_insert(now);
        for slot in state.leases.values_mut() {
            slot.client.on_disconnect(now);
            drop(slot.events.send(DeviceEvent::Down));
        }
        state.libraries.values().for_each(|ghost| ghost.forget_holders());
        drop(state);
        self.changed.notify_all();
        self.ground.registry.bell().ring();
    }

    /// Takes a reply to the lease it belongs to.
    pub(super) fn lease_reply(&self, reply: LeaseReply) {
        let mut state = self.lock();
        let (lease, control) = (reply.lease, state.control.clone());
        let Some(slot) = state.leases.get_mut(&lease) else { return };
        let Some(event) = slot.client.handle(reply) else { return };
        if !slot.leaving {
            drop(slot.events.send(DeviceEvent::Lease(event)));
            return;
        }
        if slot.leave(control.as_ref()) {
            state.leases.remove(&lease);
        }
        self.changed.notify_all();
    }

    /// Takes a stream message to the device that it belongs to.
    pub(super) fn stream_message(&self, message: Stream) {
        let state = self.lock();
        let slot = state.streams.get(&message.stream).and_then(|lease| state.leases.get(lease));
        if let Some(slot) = slot {
            drop(slot.events.send(DeviceEvent::Stream(message)));
        }
    }

    /// Ends leases that waited too long, and tells the remote that the others live. To be called
    /// whether the link is up or down.
    pub(super) fn tick(&self) {
        let now = self.clock_ms();
        let mut state = self.lock();
        let control = state.control.clone();
        let patience = u64::from(self.link.lease_seconds) * 1000;
        let too_long =
            state.down_since_ms.is_some_and(|since| now.saturating_sub(since) > patience);
        let mut ended = false;
        state.leases.retain(|_, slot| {
            // The remote may keep it longer; then it is given back when the link is up again.
            let given_up = (too_long && !slot.leaving)
                .then_some(ClientEvent::Ended { why: EndReason::Expired, unanswered: None });
            slot.leaving |= too_long;
            if let Some(event) = slot.client.tick(now).or(given_up) {
                ended = true;
                drop(slot.events.send(DeviceEvent::Lease(event)));
            }
            if let (Some(control), Some(request)) = (&control, slot.client.renew()) {
                control.send(Message::Lease(request));
            }
            !(slot.leaving && slot.client.ended().is_some())
        });
        drop(state);
        if ended {
            self.changed.notify_all();
        }
    }

    /// Sends a control message, if the link is up.
    pub(super) fn send(&self, message: Message) {
        if let Some(control) = &self.lock().control {
            control.send(message);
        }
    }

    // ---- the devices' side ----

    /// Tells the remote that a job has ended here: what it knows of it is not needed any more. The
    /// last ones are told again at every connection, since a link that breaks takes words with it.
    pub fn job_ended(&self, job: JobId) {
        let mut state = self.lock();
        if state.ended.len() == ENDED {
            state.ended.pop_front();
        }
        state.ended.push_back(job);
        if let Some(control) = &state.control {
            control.send(Message::JobOver(job));
        }
    }

    /// Whether a lease of this engine holds a device, or is about to let it go.
    pub fn holds(&self, device: &DeviceName) -> bool {
        self.lock().leases.values().any(|slot| slot.client.device() == device)
    }

    /// Opens a device of the site. Blocks; also for what somebody who has left it here has under
    /// way still, since until then the site is not asked to free it.
    pub fn open(
        self: &Arc<Self>,
        device: DeviceName,
        control: &Control,
    ) -> Result<LeaseHandle, OpenError> {
        let lease = LeaseId::generate(now_ms());
        let (events, inbox) = channel();
        {
            let mut state = self.lock();
            while state.control.is_some() && state.is_being_left(&device) {
                control.check().map_err(OpenError::Failed)?;
                let wait = LOOK.min(control.remaining());
                let waited = self.changed.wait_timeout(state, wait);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let Some(way) = state.control.clone() else { return Err(OpenError::Down) };
            let (client, request) = LeaseClient::open(lease, device, true);
            let slot = Slot { client, events, leaving: false, closing: false };
            state.leases.insert(lease, slot);
            way.send(Message::Lease(request));
        }
        LeaseHandle::new(Arc::clone(self), lease, inbox).opened(control)
    }

    pub(super) fn with_client<T>(
        &self,
        lease: LeaseId,
        work: impl FnOnce(&mut LeaseClient) -> T,
    ) -> Option<T> {
        let mut state = self.lock();
        let slot = state.leases.get_mut(&lease).filter(|slot| !slot.leaving);
        slot.map(|slot| work(&mut slot.client))
    }

    pub(super) fn events_of(&self, lease: LeaseId) -> Option<Sender<DeviceEvent>> {
        self.lock().leases.get(&lease).map(|slot| slot.events.clone())
    }

    /// Sends a stream message, waiting for room; one that finds the link down is lost with it.
    pub(super) fn send_stream(&self, message: Stream) {
        if let Some(bulk) = self.bulk() {
            let _ = bulk.send_now(Message::Stream(message).encode());
        }
    }

    /// Tells the site that a stream is given up. Never waits: what is not told now is forgotten
    /// there when too many streams are open.
    pub fn give_up_stream(&self, stream: StreamId, why: &str) {
        if let Some(bulk) = self.bulk() {
            let message = Stream { stream, body: StreamBody::Abort(why.to_owned()) };
            bulk.offer(Message::Stream(message).encode());
        }
    }

    pub(super) fn bulk(&self) -> Option<Bulk> {
        self.lock().bulk.clone()
    }

    pub(super) fn join_stream(&self, lease: LeaseId, stream: StreamId) {
        self.lock().streams.insert(stream, lease);
    }

    pub(super) fn leave_stream(&self, stream: StreamId) {
        self.lock().streams.remove(&stream);
    }

    /// The holder of a lease is gone: its work is cancelled, and the device freed behind it.
    pub(super) fn leave(&self, lease: LeaseId) {
        let mut state = self.lock();
        state.streams.retain(|_, owner| *owner != lease);
        let control = state.control.clone();
        let Some(slot) = state.leases.get_mut(&lease) else { return };
        slot.leaving = true;
        let cancel = if slot.closing { None } else { slot.client.cancel(None) };
        if let (Some(control), Some(cancel)) = (&control, cancel) {
            control.send(Message::Lease(cancel));
        }
        if slot.leave(control.as_ref()) {
            state.leases.remove(&lease);
        }
    }
}

/// Where the catalogue keeps the name of the site behind a configured link.
pub(super) fn name_key(link: &LinkTo) -> String {
    format!("link/{}", link.connect)
}
