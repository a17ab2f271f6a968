//! What is known of a remote site, shared by its connection and the devices that use it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use link::{
    ClientError, ClientEvent, LeaseClient, LeaseReply, Message, PeerMemory, ReportWatch,
    SiteReport, Stream, StreamBody, StreamId, Work,
};
use model::{DeviceName, EngineId, LeaseId, LibraryName, SiteName};
use service::config::LinkTo;
use service::messages;
use svs::{Device, EventKind, Library, LibraryRole};
use tape::{Control, TapeError};
use tokio::sync::mpsc::UnboundedSender;

use super::replicate::Bulk;
use super::{Ground, Replicator};
use crate::engine::now_ms;
use crate::ghost::GhostLibrary;

/// How long a device that was asked for may wait between two looks at its cancel token.
const LOOK: Duration = Duration::from_millis(200);

/// One remote site.
pub struct RemoteSite {
    pub(super) ground: Arc<Ground>,
    pub(super) link: LinkTo,
    state: Mutex<State>,
    changed: Condvar,
    replicator: Replicator,
    begun: Instant,
}

/// What a device hears of its lease and of the link.
#[derive(Debug)]
pub enum DeviceEvent {
    /// Of the lease.
    Lease(ClientEvent),
    /// Of a stream that belongs to it.
    Stream(StreamBody),
    /// The link broke.
    Down,
    /// The link is back.
    Up,
    /// Bytes wait elsewhere; see [`LeaseHandle::waker`].
    Woken,
}

struct Slot {
    client: LeaseClient,
    events: Sender<DeviceEvent>,
}

#[derive(Default)]
struct State {
    name: Option<SiteName>,
    /// Where control messages go, while the link is up.
    control: Option<UnboundedSender<Message>>,
    leases: BTreeMap<LeaseId, Slot>,
    /// Streams and the devices that they belong to.
    streams: BTreeMap<StreamId, Sender<DeviceEvent>>,
    /// Where stream messages go, while the link is up.
    bulk: Option<Bulk>,
    memory: PeerMemory,
    watch: ReportWatch,
    engine: Option<EngineId>,
    /// How often the remote engine was restarted since this start.
    restarts: u64,
    libraries: BTreeMap<LibraryName, Arc<GhostLibrary>>,
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
            begun: Instant::now(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
                Ok(report) => self.list(&name, report),
                Err(error) => tracing::warn!(library = %row.library, %error, "an old report"),
            }
        }
    }

    fn list(self: &Arc<Self>, site: &SiteName, report: link::LibraryReport) {
        let own = report.name.clone();
        if let Some(ghost) = self.lock().libraries.get(&own) {
            ghost.renew(report);
            return;
        }
        match self.ground.config.ghost_name(site, &own) {
            Ok(name) => {
                let ghost = Arc::new(GhostLibrary::new(name, Arc::clone(self), report));
                self.lock().libraries.insert(own, Arc::clone(&ghost));
                self.ground.registry.add(ghost);
            }
            Err(cause) => {
                let words: [(&str, &dyn std::fmt::Display); 3] =
                    [("library", &own), ("site", site), ("cause", &cause)];
                let catalogue = &self.ground.catalogue;
                messages::note(catalogue, EventKind::Link, messages::GHOST_REFUSED, &words, None);
            }
        }
    }

    /// A report came. Blocks on the catalogue.
    pub(super) fn reported(self: &Arc<Self>, report: SiteReport) {
        let site = {
            let mut state = self.lock();
            let Some(engine) = state.engine else { return };
            if !state.watch.accept(engine, report.sequence) {
                return;
            }
            match state.name.clone() {
                Some(site) => site,
                None => return,
            }
        };
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
            let state = match medium.map(|medium| medium.barcode.as_ref()) {
                Some(Some(barcode)) => format!("loaded {barcode}"),
                Some(None) => "loaded".to_owned(),
                None => "empty".to_owned(),
            };
            let name = DeviceName::drive(report.name.clone(), index);
            devices.push(device(name, &drive.identity, state));
        }
        let library = Library {
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

    /// The link is up: leases go on over it.
    pub(super) fn up(&self, peer: &link::Peer, control: UnboundedSender<Message>, bulk: Bulk) {
        let mut state = self.lock();
        if state.name.as_ref() != Some(&peer.site) {
            state.name = Some(peer.site.clone());
            let (key, name) = (name_key(&self.link), peer.site.as_str());
            if let Err(error) = self.ground.catalogue.set_meta(&key, name) {
                tracing::warn!(%error, "the name of a site could not be kept");
            }
        }
        if state.memory.meet(peer.engine) == link::Meeting::Restarted {
            tracing::warn!(site = %peer.site, "the remote engine was restarted");
            state.restarts += 1;
        }
        state.engine = Some(peer.engine);
        for slot in state.leases.values_mut() {
            for request in slot.client.on_reconnect() {
                // A connection that has ended already is told by its own task.
                drop(control.send(Message::Lease(request)));
            }
            drop(slot.events.send(DeviceEvent::Up));
        }
        state.control = Some(control);
        state.bulk = Some(bulk);
        drop(state);
        self.changed.notify_all();
    }

    /// The link is down.
    pub(super) fn down(&self) {
        let now = self.clock_ms();
        let mut state = self.lock();
        state.control = None;
        state.bulk = None;
        for slot in state.leases.values_mut() {
            slot.client.on_disconnect(now);
            drop(slot.events.send(DeviceEvent::Down));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a reply to the lease it belongs to.
    pub(super) fn lease_reply(&self, reply: LeaseReply) {
        let mut state = self.lock();
        if let Some(slot) = state.leases.get_mut(&reply.lease)
            && let Some(event) = slot.client.handle(reply)
        {
            // A device that was dropped needs no news.
            drop(slot.events.send(DeviceEvent::Lease(event)));
        }
    }

    /// Takes a stream message to the device that it belongs to.
    pub(super) fn stream_message(&self, message: Stream) {
        if let Some(events) = self.lock().streams.get(&message.stream) {
            // A device that was dropped needs no news.
            drop(events.send(DeviceEvent::Stream(message.body)));
        }
    }

    /// Ends leases that waited too long, and tells the remote that the others live.
    pub(super) fn tick(&self) {
        let now = self.clock_ms();
        let mut state = self.lock();
        let control = state.control.clone();
        for slot in state.leases.values_mut() {
            if let Some(event) = slot.client.tick(now) {
                drop(slot.events.send(DeviceEvent::Lease(event)));
            }
            if let (Some(control), Some(request)) = (&control, slot.client.renew()) {
                drop(control.send(Message::Lease(request)));
            }
        }
    }

    /// Sends a control message, if the link is up.
    pub(super) fn send(&self, message: Message) {
        if let Some(control) = &self.lock().control {
            drop(control.send(message));
        }
    }

    // ---- the devices' side ----

    /// Opens a device of the site. Blocks.
    pub fn open(
        self: &Arc<Self>,
        device: DeviceName,
        control: &Control,
    ) -> Result<LeaseHandle, TapeError> {
        let lease = LeaseId::generate(now_ms());
        let (events, inbox) = channel();
        {
            let mut state = self.lock();
            let Some(way) = state.control.clone() else {
                return Err(TapeError::Unreachable("the link is down".into()));
            };
            let (client, request) = LeaseClient::open(lease, device, true);
            state.leases.insert(lease, Slot { client, events });
            drop(way.send(Message::Lease(request)));
        }
        let handle = LeaseHandle { site: Arc::clone(self), lease, events: inbox };
        match handle.next(control)? {
            ClientEvent::Opened => Ok(handle),
            ClientEvent::Refused(refusal) => Err(match refusal.why {
                link::RefusalWhy::Busy => TapeError::Busy,
                _ => TapeError::Unreachable(refusal.to_string()),
            }),
            ClientEvent::Ended { why, .. } => Err(TapeError::Lost(why.to_string())),
            _ => Err(TapeError::Lost("the remote answered out of turn".into())),
        }
    }

    /// Waits until the link is up, at most as the control says.
    fn wait_up(&self, control: &Control) -> Result<(), TapeError> {
        let mut state = self.lock();
        while state.control.is_none() {
            control.check()?;
            let wait = self.changed.wait_timeout(state, LOOK);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

fn name_key(link: &LinkTo) -> String {
    format!("link/{}", link.connect)
}

/// One open device of a remote site; dropping it frees the device there.
pub struct LeaseHandle {
    site: Arc<RemoteSite>,
    lease: LeaseId,
    events: Receiver<DeviceEvent>,
}

impl LeaseHandle {
    /// The site.
    pub fn site(&self) -> &Arc<RemoteSite> {
        &self.site
    }

    /// Where the drive stands behind the last answer, if that can be told.
    pub fn expected_object(&self) -> Option<u64> {
        self.with(|client| client.expected_object()).flatten()
    }

    fn with<T>(&self, work: impl FnOnce(&mut LeaseClient) -> T) -> Option<T> {
        self.site.lock().leases.get_mut(&self.lease).map(|slot| work(&mut slot.client))
    }

    /// The next event of the lease; a link that is down is waited for.
    fn next(&self, control: &Control) -> Result<ClientEvent, TapeError> {
        loop {
            if let DeviceEvent::Lease(event) = self.next_event(control)? {
                return Ok(event);
            }
        }
    }

    /// The next event.
    pub fn next_event(&self, control: &Control) -> Result<DeviceEvent, TapeError> {
        loop {
            match self.events.recv_timeout(LOOK.min(control.remaining())) {
                Ok(event) => return Ok(event),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => control.check()?,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(TapeError::Lost("the lease is gone".into()));
                }
            }
        }
    }

    /// Lets the messages of a stream come here.
    pub fn join_stream(&self, stream: StreamId) {
        let mut state = self.site.lock();
        if let Some(events) = state.leases.get(&self.lease).map(|slot| slot.events.clone()) {
            state.streams.insert(stream, events);
        }
    }

    /// Wakes whoever waits for the next event.
    pub fn waker(&self) -> Option<Box<dyn Fn() + Send>> {
        let events = self.site.lock().leases.get(&self.lease).map(|slot| slot.events.clone())?;
        Some(Box::new(move || drop(events.send(DeviceEvent::Woken))))
    }

    /// The stream is over.
    pub fn leave_stream(&self, stream: StreamId) {
        self.site.lock().streams.remove(&stream);
    }

    /// Sends a stream message, waiting for room; one that finds the link down is lost with it.
    pub fn send_stream(&self, message: Stream) {
        let bulk = self.site.lock().bulk.clone();
        if let Some(bulk) = bulk {
            let _ = bulk.send(true, Message::Stream(message).encode());
        }
    }

    /// Numbers a work and sends it; its answer comes as an event.
    pub fn submit(&self, work: &Work, control: &Control) -> Result<(), TapeError> {
        loop {
            let mut state = self.site.lock();
            let way = state.control.clone();
            let Some(slot) = state.leases.get_mut(&self.lease) else {
                return Err(TapeError::Lost("the lease is gone".into()));
            };
            match slot.client.submit(work.clone()) {
                Ok(request) => {
                    if let Some(way) = way {
                        // A connection that breaks now sends it again when it is back.
                        drop(way.send(Message::Lease(request)));
                    }
                    return Ok(());
                }
                Err(ClientError::Disconnected) => {}
                Err(ClientError::Ended(why)) => return Err(TapeError::Lost(why.to_string())),
                Err(error) => return Err(TapeError::Lost(error.to_string())),
            }
            drop(state);
            self.site.wait_up(control)?;
        }
    }

    /// Does one thing at the remote site, exactly once, and waits for its answer. A cancelled
    /// control asks the remote to end at a record boundary and still waits for the answer;
    /// `progress` hears of bytes and records on the way.
    pub fn perform(
        &mut self,
        work: Work,
        control: &Control,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<link::Answer, TapeError> {
        self.submit(&work, control)?;
        self.await_answer(control, progress)
    }

    /// Waits for the answer to what was submitted; see [`LeaseHandle::perform`].
    pub fn await_answer(
        &mut self,
        control: &Control,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<link::Answer, TapeError> {
        let mut cancelled = false;
        loop {
            let event =
                match self.next(&Control::new(control.remaining(), patience(cancelled, control))) {
                    Ok(event) => event,
                    Err(TapeError::Cancelled) => {
                        cancelled = true;
                        self.cancel(None);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
            match event {
                ClientEvent::Answered { answer, .. } => return Ok(answer),
                ClientEvent::Progress { bytes, records, .. } => progress(bytes, records),
                ClientEvent::Opened | ClientEvent::Resumed => {}
                ClientEvent::Ended { why, .. } => return Err(TapeError::Lost(why.to_string())),
                ClientEvent::Refused(refusal) => {
                    return Err(TapeError::Lost(refusal.to_string()));
                }
            }
        }
    }

    /// Asks for the end of what was submitted, at a record boundary; `taken` tells of a read range
    /// how many objects were taken.
    pub fn cancel(&self, taken: Option<u64>) {
        let request = self.with(|client| client.cancel(taken)).flatten();
        if let Some(request) = request {
            self.site.send(Message::Lease(request));
        }
    }

    /// Flushes and frees the device; what the flush said.
    pub fn close(mut self, control: &Control) -> Result<(), TapeError> {
        match self.perform(Work::Close, control, &mut |_, _| {})? {
            link::Answer::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Once the remote was asked to stop, only its answer or the deadline ends the wait.
fn patience(cancelled: bool, control: &Control) -> tape::CancelToken {
    if cancelled { tape::CancelToken::new() } else { control.cancel.clone() }
}

impl Drop for LeaseHandle {
    fn drop(&mut self) {
        let mut state = self.site.lock();
        let way = state.control.clone();
        let Some(mut slot) = state.leases.remove(&self.lease) else { return };
        // Without an answer the lease runs out at the remote by itself.
        if let (Ok(request), Some(way)) = (slot.client.submit(Work::Close), way) {
            drop(way.send(Message::Lease(request)));
        }
    }
}
