//! The thread that owns the lease table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::{
    Answer, Doubt, EndReason, LeaseAction, LeaseReply, LeaseRequest, LeaseTable, Message, Peer,
    RangeEnd, RangeResult, Refusal, RefusalWhy, Work,
};
use model::{DeviceName, LeaseId, SiteName};
use scsi::Sense;
use scsi::advice::Action;
use service::messages;
use service::owner::Owner;
use svs::EventKind;
use tape::{CancelToken, Operation, TapeError};
use tokio::sync::{mpsc, oneshot};

use super::seat::{Run, Seat};
use crate::engine::Ground;
use crate::library;

/// Events that wait for the desk.
const QUEUE: usize = 1024;
/// How often expiry is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a drive has to end what it does when the engine stops.
const STOP: Duration = Duration::from_secs(15);

/// What the desk hears of.
#[derive(Debug)]
pub enum Event {
    /// A pair of connections is up; comes before its requests.
    Met(Peer),
    /// A peer asks.
    Asked(Peer, LeaseRequest),
    /// A device was taken, or not.
    Opened(LeaseId, Result<(), Refusal>),
    /// A range goes on: number, bytes, records.
    Progress(LeaseId, u64, u64, u64),
    /// A work came to its end.
    Completed(LeaseId, u64, Answer),
    /// A device was let go.
    Closed(LeaseId, Result<(), TapeError>),
    /// Time passes.
    Tick,
    /// The engine stops: with `flush`, every device is flushed first; leases stay on record.
    Stop {
        /// False drops everything as a crash would.
        flush: bool,
        /// Told when every device is free.
        done: oneshot::Sender<()>,
    },
}

/// The devices that are open, for the reports.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<BTreeSet<DeviceName>>>);

impl Held {
    /// Whether someone has the device open.
    pub fn contains(&self, name: &DeviceName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// All of them.
    pub fn names(&self) -> Vec<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(DeviceName::to_string).collect()
    }

    fn set(&self, names: BTreeSet<DeviceName>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

/// An open device.
struct Open {
    owner: Owner<Seat>,
    name: DeviceName,
    running: Option<Running>,
    /// Bytes and records of it.
    progress: (u64, u64),
    /// It may change what the reports say.
    tells: bool,
}

/// A work under way and how to end it.
struct Running {
    number: u64,
    token: CancelToken,
    /// What a cancelled reader took, in objects.
    taken: Arc<OnceLock<u64>>,
}

impl Running {
    fn cancel(&self, taken: Option<u64>) {
        if let Some(taken) = taken {
            // Said once, it counts.
            let _ = self.taken.set(taken);
        }
        self.token.cancel();
    }
}

/// A row that could not be written, and the answers that must not leave before it is.
struct Unwritten {
    row: Bytes,
    replies: Vec<(SiteName, LeaseReply)>,
}

/// The desk.
pub struct Desk {
    ground: Arc<Ground>,
    table: LeaseTable,
    open: BTreeMap<LeaseId, Open>,
    unwritten: BTreeMap<LeaseId, Unwritten>,
    events: mpsc::Sender<Event>,
    begun: Instant,
}

impl Desk {
    /// Takes the leases of the last run over, with their devices, and starts the desk's thread.
    /// Returns where its events go, and the thread.
    ///
    /// # Errors
    /// The catalogue can not be read, or the system has no thread to give.
    pub fn start(
        ground: Arc<Ground>,
    ) -> Result<(mpsc::Sender<Event>, std::thread::JoinHandle<()>), service::cli::Failure> {
        let (events, inbox) = mpsc::channel(QUEUE);
        let lease_ms = u64::from(ground.config.link.lease_seconds) * 1000;
        let mut desk = Self {
            ground,
            table: LeaseTable::new(lease_ms),
            open: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            events: events.clone(),
            begun: Instant::now(),
        };
        desk.restore()?;
        let thread = std::thread::Builder::new().name("leases".to_owned());
        let thread = thread.spawn(move || desk.run(inbox))?;
        Ok((events, thread))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn restore(&mut self) -> Result<(), service::cli::Failure> {
        let now = self.now_ms();
        let mut actions = Vec::new();
        for (lease, row) in self.ground.catalogue.lease_rows()? {
            match self.table.restore(now, [(lease, &row[..])]) {
                Ok(found) => actions.extend(found),
                Err(error) => {
                    tracing::error!(%error, "a lease of the last run is given up");
                    self.ground.catalogue.remove_lease_row(lease)?;
                }
            }
        }
        let mut live = BTreeSet::new();
        for action in actions {
            let LeaseAction::Open { lease, site, device } = action else { continue };
            let result = self.reopen(lease, &site, &device);
            if result.is_ok() {
                tracing::info!(%lease, %site, %device, "a lease of the last run goes on");
                live.insert(lease);
            }
            let answers = self.table.opened(now, lease, result);
            self.act(answers);
        }
        // What waits for its next tape has no lease and may be continued by its session.
        let lost = |owner: &crate::jobs::Owner| !owner.paused && !live.contains(&owner.lease);
        for (job, owner) in self.ground.jobs.copies(lost) {
            let why = "the engine was restarted and its lease was over";
            self.ground.jobs.abandon(&job, &owner.site, owner.whole, why);
        }
        Ok(())
    }

    /// Takes a device at the start, when nobody waits for it yet.
    fn reopen(
        &mut self,
        lease: LeaseId,
        site: &SiteName,
        name: &DeviceName,
    ) -> Result<(), Refusal> {
        self.allowed(site, name)?;
        let seat = Seat::new(Arc::clone(&self.ground), lease, site.clone(), name.clone());
        let mut seat = seat.restored();
        seat.open()?;
        self.seated(lease, name.clone(), seat)
    }

    fn allowed(&self, site: &SiteName, name: &DeviceName) -> Result<(), Refusal> {
        match library::belongs_to(&self.ground.config, &name.library, site) {
            true => Ok(()),
            false => {
                let text = format!("{name} is not for site {site}");
                Err(Refusal { why: RefusalWhy::NotAllowed, text })
            }
        }
    }

    fn seated(&mut self, lease: LeaseId, name: DeviceName, seat: Seat) -> Result<(), Refusal> {
        let owner = Owner::start("device", seat).map_err(|error| Refusal {
            why: RefusalWhy::Device,
            text: format!("no thread for {name}: {error}"),
        })?;
        let open = Open { owner, name, running: None, progress: (0, 0), tells: false };
        self.open.insert(lease, open);
        self.tell_held();
        Ok(())
    }

    fn tell_held(&self) {
        self.ground.held.set(self.open.values().map(|open| open.name.clone()).collect());
        self.ground.reporter.poke();
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        while let Some(event) = inbox.blocking_recv() {
            let now = self.now_ms();
            let actions = match event {
                Event::Met(peer) => {
                    let actions = self.table.on_peer(now, &peer);
                    let open: BTreeSet<LeaseId> = self.open.keys().copied().collect();
                    self.ground.jobs.peer_met(&peer, |lease| open.contains(&lease));
                    self.ground.send_job_reports(&peer.site);
                    actions
                }
                Event::Asked(peer, request) => match self.table.handle(now, &peer, request) {
                    Ok(actions) => actions,
                    Err(error) => {
                        self.ground.peers.end(&peer.site, &error.to_string());
                        continue;
                    }
                },
                Event::Opened(lease, result) => {
                    if result.is_err() {
                        self.open.remove(&lease);
                    }
                    self.tell_held();
                    self.table.opened(now, lease, result)
                }
                Event::Progress(lease, number, bytes, records) => {
                    self.progress(lease, number, bytes, records)
                }
                Event::Completed(lease, number, answer) => self.completed(lease, number, answer),
                Event::Closed(lease, result) => {
                    self.open.remove(&lease);
                    self.tell_held();
                    self.table.closed(now, lease, result)
                }
                Event::Tick => {
                    self.retry_rows();
                    self.table.tick(now)
                }
                Event::Stop { flush, done } => {
                    self.stop(flush);
                    // Nobody need wait for it.
                    let _ = done.send(());
                    return;
                }
            };
            self.act(actions);
        }
    }

    fn progress(
        &mut self,
        lease: LeaseId,
        number: u64,
        bytes: u64,
        records: u64,
    ) -> Vec<LeaseAction> {
        if let Some(open) = self.open.get_mut(&lease) {
            open.progress = (bytes, records);
        }
        self.table.progress(lease, number, bytes, records).into_iter().collect()
    }

    fn completed(&mut self, lease: LeaseId, number: u64, answer: Answer) -> Vec<LeaseAction> {
        if let Some(open) = self.open.get_mut(&lease) {
            open.running = None;
            if std::mem::take(&mut open.tells) {
                self.ground.reporter.poke();
            }
        }
        if let Answer::Failed(TapeError::PositionUnknown(cause)) = &answer
            && let Some(open) = self.open.get(&lease)
        {
            let operation = format!("operation {number}");
            let words: [(&str, &dyn std::fmt::Display); 3] =
                [("device", &open.name), ("operation", &operation), ("cause", cause)];
            let id = messages::POSITION_UNKNOWN;
            messages::note(&self.ground.catalogue, EventKind::Device, id, &words, None);
        }
        if let Answer::Failed(TapeError::Key(cause)) = &answer
            && let Some(open) = self.open.get(&lease)
        {
            let words: [(&str, &dyn std::fmt::Display); 2] =
                [("device", &open.name), ("cause", cause)];
            let id = messages::TAPE_KEY;
            messages::note(&self.ground.catalogue, EventKind::Device, id, &words, None);
        }
        if let (Some(sense), Some(open)) = (troubling(&answer), self.open.get(&lease)) {
            let (meaning, advice) = (sense.advice().meaning, sense.advice().action.words());
            let words: [(&str, &dyn std::fmt::Display); 4] = [
                ("device", &open.name),
                ("sense", &sense),
                ("meaning", &meaning),
                ("advice", &advice),
            ];
            let id = messages::DEVICE_SENSE;
            messages::note(&self.ground.catalogue, EventKind::Device, id, &words, None);
        }
        self.table.completed(lease, number, answer)
    }

    /// Does what the table says, in its order.
    fn act(&mut self, actions: Vec<LeaseAction>) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                LeaseAction::Open { lease, site, device } => {
                    if let Err(refusal) = self.take(lease, &site, device) {
                        let now = self.now_ms();
                        let more = self.table.opened(now, lease, Err(refusal));
                        actions.extend(more);
                    }
                }
                LeaseAction::Perform { lease, number, work, settle } => {
                    actions.extend(self.perform(lease, number, work, settle));
                }
                LeaseAction::Attach { lease, number } => {
                    let (bytes, records) =
                        self.open.get(&lease).map(|open| open.progress).unwrap_or_default();
                    actions.extend(self.table.progress(lease, number, bytes, records));
                }
                LeaseAction::Cancel { lease, number, taken } => {
                    let running = self.open.get(&lease).and_then(|open| open.running.as_ref());
                    if let Some(running) = running.filter(|running| running.number == number) {
                        running.cancel(taken);
                    }
                }
                LeaseAction::Close { lease, device, why, settle } => {
                    actions.extend(self.close(lease, &device, why, settle));
                }
                LeaseAction::Persist { lease, row } => self.persist(lease, row),
                LeaseAction::Forget { lease } => self.forget(lease),
                LeaseAction::Send { site, reply } => self.send(site, reply),
            }
        }
    }

    /// Takes a device on its own thread, since a device may be slow to answer.
    fn take(&mut self, lease: LeaseId, site: &SiteName, name: DeviceName) -> Result<(), Refusal> {
        self.allowed(site, &name)?;
        let seat = Seat::new(Arc::clone(&self.ground), lease, site.clone(), name.clone());
        self.seated(lease, name, seat)?;
        let events = self.events.clone();
        self.work(lease, move |seat| {
            tell(&events, Event::Opened(lease, seat.open()));
        });
        Ok(())
    }

    fn work(&self, lease: LeaseId, work: impl FnOnce(&mut Seat) + Send + 'static) {
        // A device that is gone was closed before; the table knows.
        if let Some(open) = self.open.get(&lease) {
            let _ = open.owner.send(work);
        }
    }

    fn perform(
        &mut self,
        lease: LeaseId,
        number: u64,
        work: Work,
        doubt: Option<Doubt>,
    ) -> Vec<LeaseAction> {
        let Some(open) = self.open.get_mut(&lease) else {
            let lost = TapeError::Lost("the device is not open".to_owned());
            return self.table.completed(lease, number, Answer::Failed(lost));
        };
        let (cancel, taken) = (CancelToken::new(), Arc::new(OnceLock::new()));
        open.running = Some(Running { number, token: cancel.clone(), taken: Arc::clone(&taken) });
        open.progress = (0, 0);
        open.tells = changes_report(&work);
        let (events, told) = (self.events.clone(), self.events.clone());
        self.work(lease, move |seat| {
            let progress = Box::new(move |bytes, records| {
                tell(&told, Event::Progress(lease, number, bytes, records));
            });
            let taken = Box::new(move || taken.get().copied());
            let answer = seat.perform(&work, doubt, Run { cancel, taken, progress });
            if moves_cartridges(&work) {
                seat.ground.reporter.tell();
            }
            tell(&events, Event::Completed(lease, number, answer));
        });
        Vec::new()
    }

    fn close(
        &mut self,
        lease: LeaseId,
        name: &DeviceName,
        why: EndReason,
        doubt: Option<Doubt>,
    ) -> Vec<LeaseAction> {
        if why != EndReason::Closed {
            let site = self.table.holder(name).map_or("?".to_owned(), |(_, site)| site.to_string());
            let words: [(&str, &dyn std::fmt::Display); 3] =
                [("device", name), ("site", &site), ("cause", &why)];
            let id = messages::LEASE_ENDED;
            messages::note(&self.ground.catalogue, EventKind::Device, id, &words, None);
        }
        if !self.open.contains_key(&lease) {
            let now = self.now_ms();
            return self.table.closed(now, lease, Ok(()));
        }
        let events = self.events.clone();
        self.work(lease, move |seat| {
            let result = seat.close(why, doubt);
            tell(&events, Event::Closed(lease, result));
            if why != EndReason::Closed {
                seat.ground.send_job_reports(&seat.site);
            }
        });
        Vec::new()
    }

    fn persist(&mut self, lease: LeaseId, row: Bytes) {
        match self.ground.catalogue.put_lease_row(lease, &row) {
            Ok(()) => {
                let held = self.unwritten.remove(&lease).map(|unwritten| unwritten.replies);
                for (site, reply) in held.into_iter().flatten() {
                    self.ground.peers.send(&site, Message::LeaseReply(reply));
                }
            }
            Err(error) => {
                tracing::error!(%lease, %error, "an answer waits until its row can be written");
                let unwritten = self.unwritten.entry(lease);
                let new = || Unwritten { row: Bytes::new(), replies: Vec::new() };
                unwritten.or_insert_with(new).row = row;
            }
        }
    }

    fn forget(&mut self, lease: LeaseId) {
        self.unwritten.remove(&lease);
        if let Err(error) = self.ground.catalogue.remove_lease_row(lease) {
            tracing::warn!(%lease, %error, "the row of a lease could not be removed");
        }
    }

    fn send(&mut self, site: SiteName, reply: LeaseReply) {
        match self.unwritten.get_mut(&reply.lease) {
            // The newest answer is the one that counts; older ones were to be asked again.
            Some(unwritten) => unwritten.replies = vec![(site, reply)],
            None => self.ground.peers.send(&site, Message::LeaseReply(reply)),
        }
    }

    fn retry_rows(&mut self) {
        for (lease, unwritten) in std::mem::take(&mut self.unwritten) {
            match self.ground.catalogue.put_lease_row(lease, &unwritten.row) {
                Ok(()) => {
                    for (site, reply) in unwritten.replies {
                        self.ground.peers.send(&site, Message::LeaseReply(reply));
                    }
                }
                Err(_) => drop(self.unwritten.insert(lease, unwritten)),
            }
        }
    }

    /// Lets every device go. Leases stay on record: their holders may come back to the next run.
    fn stop(&mut self, flush: bool) {
        let (told, free) = std::sync::mpsc::channel::<()>();
        for (_, open) in std::mem::take(&mut self.open) {
            if let Some(running) = &open.running {
                running.cancel(None);
            }
            let told = told.clone();
            // Gone already means free.
            let _ = open.owner.send(move |seat| {
                if flush {
                    seat.leave();
                }
                seat.farewell = Some(told);
            });
        }
        drop(told);
        // Nothing is ever sent: the last clone dropped ends the wait.
        if free.recv_timeout(STOP) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("a device did not end its work in time");
        }
    }
}

/// Tells the desk something from a device's thread. The desk being gone, nobody wants to know.
fn tell(events: &mpsc::Sender<Event>, event: Event) {
    let _ = events.blocking_send(event);
}

/// Whether a work may change what the site report says.
fn changes_report(work: &Work) -> bool {
    match work {
        Work::Operation(operation) => matches!(
            operation,
            Operation::Move { .. }
                | Operation::Initialize
                | Operation::Cdb(_)
                | Operation::Load
                | Operation::Unload
        ),
        Work::Copy(_) | Work::Read(_) | Work::Close => true,
    }
}

/// Whether a work may bring a cartridge elsewhere: MOVE MEDIUM, EXCHANGE MEDIUM, and INITIALIZE
/// ELEMENT STATUS, which may find it there.
fn moves_cartridges(work: &Work) -> bool {
    match work {
        Work::Operation(Operation::Move { .. } | Operation::Initialize) => true,
        Work::Operation(Operation::Cdb(request)) => {
            matches!(request.cdb.first(), Some(0xa5 | 0xa6 | 0x07))
        }
        _ => false,
    }
}

/// Lets time pass for the desk until it is gone.
pub async fn tick(events: mpsc::Sender<Event>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        if events.send(Event::Tick).await.is_err() {
            return;
        }
    }
}

/// Sense data that somebody at the library has to act upon.
fn troubling(answer: &Answer) -> Option<Sense> {
    let sense = match answer {
        Answer::Failed(TapeError::Check(sense)) => *sense,
        Answer::Copied(RangeResult { end: RangeEnd::MediaError(sense), .. }) => *sense,
        _ => return None,
    };
    let action = sense.advice().action;
    let acts = matches!(action, Action::Quarantine | Action::TakeOffline | Action::AskOperator);
    acts.then_some(sense)
}
