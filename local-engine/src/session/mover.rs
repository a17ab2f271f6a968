//! The data plane of one session: its listener, its data connection, its runs.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ndmp::mover::{FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, StopReason};
use ndmp::tape::{Failure, FailureKind};
use ndmp::wire::{Addr, AddrType};
use tape::{CancelToken, Control};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::admission::Admission;
use super::devices::gone;
use super::listen::{Bell, Doors, MayCall, dial, listen_at};
use super::rendezvous::{Place, Rendezvous};
use crate::mover::{
    Closer, Connection, Counters, EngineDrive, Inbound, JobHandle, Outbound, Run, Stop,
    Surroundings,
};

/// Addresses where one mover listens at most.
const MOVER_ADDRESSES: usize = 16;
/// How long a single run may take: longer than any tape takes to fill.
const RUN_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What comes back from listeners, dials and runs. `epoch` names the connection it belongs to:
/// events of one that was closed are dropped.
pub(super) struct Happened {
    pub(super) epoch: u64,
    pub(super) what: What,
}

pub(super) enum What {
    /// The peer is there.
    Connected(Connection),
    ConnectFailed(Failure),
    ListenerLost(Failure),
    /// A run ended; the end of the connection comes back, unless it was lost with the drive.
    Stopped(Stop, Option<End>),
    /// The other side has closed the connection of a mover that reads a tape.
    PeerClosed,
}

/// One end of the data connection.
pub(super) enum End {
    ToTape(Box<Inbound>),
    FromTape(Outbound),
}

/// A run for the drive's owner: what to do, and with what. It reports exactly once that it has
/// stopped, also when nobody carries it out or the drive's thread fails.
pub(super) struct Order {
    end: Option<End>,
    run: Run,
    counters: Counters,
    epoch: u64,
    events: UnboundedSender<Happened>,
    reported: bool,
}

impl Order {
    /// Does it. Blocks until something stops it.
    pub(super) fn carry_out(mut self, drive: &mut dyn EngineDrive) {
        let mut end = self.end.take();
        let stop = match &mut end {
            Some(End::ToTape(inbound)) => inbound.run(drive, &self.run, &self.counters),
            Some(End::FromTape(outbound)) => outbound.run(drive, &self.run, &self.counters),
            None => Stop::internal("there is no data connection"),
        };
        self.report(stop, end);
    }

    fn report(&mut self, stop: Stop, end: Option<End>) {
        self.reported = true;
        let what = What::Stopped(stop, end);
        // A session that is gone needs no news.
        drop(self.events.send(Happened { epoch: self.epoch, what }));
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if !self.reported {
            let end = self.end.take();
            self.report(Stop::Internal(gone()), end);
        }
    }
}

/// What a data plane is made of.
pub(super) struct Plane {
    /// Where it tells what happens.
    pub(super) events: UnboundedSender<Happened>,
    pub(super) rendezvous: Rendezvous,
    pub(super) surroundings: Surroundings,
    /// The address by which the client reached the server, if a mover can have it.
    pub(super) local: Option<Ipv4Addr>,
    /// Further addresses of this host, and the ports for data connections.
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) admission: Arc<Admission>,
    /// Told of addresses that a mover may not dial.
    pub(super) denied: Arc<dyn Fn(SocketAddrV4) + Send + Sync>,
    /// The client's host, and the same for people.
    pub(super) client: IpAddr,
    pub(super) who: String,
}

/// The data plane.
pub(super) struct DataPlane {
    plane: Plane,
    epoch: u64,
    flow: Flow,
    doors: Option<Doors>,
    dialling: Option<JoinHandle<()>>,
    watching: Option<JoinHandle<()>>,
    end: Option<End>,
    closer: Option<Closer>,
    running: Option<CancelToken>,
    /// Seen while a run was under way, which may have ended for another reason.
    peer_closed: bool,
    pub(super) counters: Counters,
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if let Some(closer) = &self.closer {
            closer.break_off();
        }
        self.close();
    }
}

impl DataPlane {
    pub(super) fn new(plane: Plane) -> Self {
        Self {
            plane,
            epoch: 0,
            flow: Flow::ToTape,
            doors: None,
            dialling: None,
            watching: None,
            end: None,
            closer: None,
            running: None,
            peer_closed: false,
            counters: Counters::default(),
        }
    }

    /// What moved since the connection began.
    pub(super) fn progress(&self) -> Progress {
        let (bytes, records) = self.counters.get();
        Progress { bytes, records }
    }

    /// Starts anew for another connection.
    fn begin(&mut self, flow: Flow) {
        self.close();
        self.flow = flow;
        self.counters = Counters::default();
    }

    /// Carries out a command other than `Run`; an event that is known at once is returned.
    pub(super) async fn command(&mut self, command: MoverCommand) -> Option<MoverEvent> {
        match command {
            MoverCommand::Listen { flow, addr_type } => {
                self.begin(flow);
                Some(match self.listen(addr_type) {
                    Ok(addr) => MoverEvent::Listening(addr),
                    Err(failure) => MoverEvent::ListenFailed(failure),
                })
            }
            MoverCommand::Connect { flow, addr } => {
                self.begin(flow);
                self.connect(addr);
                None
            }
            MoverCommand::Cancel => {
                if let Some(cancel) = &self.running {
                    cancel.cancel();
                }
                // A run that waits for its peer hears of it by the closed connection.
                if let Some(closer) = &self.closer {
                    closer.break_off();
                }
                None
            }
            MoverCommand::CloseConnection { orderly } => {
                if let Some(closer) = self.closer.as_ref().filter(|_| !orderly) {
                    closer.break_off();
                }
                self.close();
                None
            }
            MoverCommand::Run(_) => None,
        }
    }

    /// Ends listener, connection and run. What comes from them later is dropped.
    pub(super) fn close(&mut self) {
        self.epoch += 1;
        self.peer_closed = false;
        self.doors = None;
        for task in [self.dialling.take(), self.watching.take()].into_iter().flatten() {
            task.abort();
        }
        if let Some(cancel) = self.running.take() {
            cancel.cancel();
        }
        if let Some(closer) = self.closer.take() {
            closer.close();
        }
        self.end = None;
    }

    /// Waits for the peer; the addresses where it can dial.
    fn listen(&mut self, addr_type: AddrType) -> Result<Addr, Failure> {
        let Plane { rendezvous, who, admission, client, .. } = &self.plane;
        let (epoch, events) = (self.epoch, self.plane.events.clone());
        let bell = Bell::new(Box::new(move |came| {
            let what = match came {
                Ok(connection) => What::Connected(connection),
                Err(failure) => What::ListenerLost(failure),
            };
            // A session that is gone needs no news.
            drop(events.send(Happened { epoch, what }));
        }));
        let (sockets, addresses) = match addr_type {
            AddrType::Local => (Vec::new(), Vec::new()),
            _ => self.sockets()?,
        };
        let mut places: Vec<_> = addresses.iter().copied().map(Place::Tcp).collect();
        if addr_type == AddrType::Local {
            places.push(Place::Local);
        }
        let wait = |place| rendezvous.wait_at(place, self.flow, who, bell.clone());
        let waiting = places.into_iter().map(wait).collect();
        let (admission, client) = (Arc::clone(admission), *client);
        let may_call: MayCall = Arc::new(move |host| admission.caller(client, host));
        let doors = Doors::open(sockets, waiting, &bell, &may_call);
        self.doors = Some(doors.map_err(|e| Failure::new(FailureKind::Io, e.to_string()))?);
        Ok(match addr_type {
            AddrType::Local => Addr::Local,
            _ => Addr::Tcp(addresses),
        })
    }

    /// A socket at each of our addresses that there is, the one first by which the application
    /// reached us.
    fn sockets(&self) -> Result<(Vec<TcpListener>, Vec<SocketAddrV4>), Failure> {
        let Plane { local, addresses, ports, .. } = &self.plane;
        let further = addresses.iter().filter(|address| Some(**address) != *local);
        let mut bound = Vec::new();
        let text = "NDMP has no IPv6 addresses for data; name IPv4 ones in ndmp.mover_addresses";
        let mut last = text.to_owned();
        for address in local.iter().chain(further).take(MOVER_ADDRESSES) {
            match listen_at(*address, *ports) {
                Ok(one) => bound.push(one),
                Err(error) => {
                    tracing::warn!(%address, %error, "NDMP: a mover can not listen here");
                    last = format!("{address}: {error}");
                }
            }
        }
        match bound.is_empty() {
            true => Err(Failure::new(FailureKind::Io, last)),
            false => Ok(bound.into_iter().unzip()),
        }
    }

    /// Notices a peer that has connected, before the application is told anything that depends on
    /// it.
    pub(super) fn look(&self) {
        if let Some(doors) = &self.doors {
            doors.look();
        }
    }

    fn connect(&mut self, addr: Addr) {
        let (epoch, events, flow) = (self.epoch, self.plane.events.clone(), self.flow);
        let (rendezvous, who) = (self.plane.rendezvous.clone(), self.plane.who.clone());
        let (admission, client) = (Arc::clone(&self.plane.admission), self.plane.client);
        let mut denied = Some(Arc::clone(&self.plane.denied));
        let may = move |address| {
            let may = admission.dial(client, address);
            // One event for a list of addresses.
            if !may && let Some(denied) = denied.take() {
                denied(address);
            }
            may
        };
        self.dialling = Some(tokio::spawn(async move {
            let what = match dial(&rendezvous, &addr, (flow, &who), may).await {
                Ok(connection) => What::Connected(connection),
                Err(failure) => What::ConnectFailed(failure),
            };
            drop(events.send(Happened { epoch, what }));
        }));
    }

    /// Takes an event in; what the session should hear of it.
    pub(super) fn happened(&mut self, event: Happened) -> Option<MoverEvent> {
        if event.epoch != self.epoch {
            return None;
        }
        match event.what {
            What::Connected(connection) => Some(self.connected(connection)),
            What::ConnectFailed(failure) => Some(MoverEvent::ConnectFailed(failure)),
            What::ListenerLost(failure) => Some(MoverEvent::ConnectionLost(failure)),
            What::Stopped(stop, end) => {
                self.running = None;
                self.end = end;
                if self.peer_closed {
                    let again = Happened { epoch: self.epoch, what: What::PeerClosed };
                    drop(self.plane.events.send(again));
                }
                Some(MoverEvent::Stopped(reason(stop, self.flow), self.progress()))
            }
            What::PeerClosed => {
                self.peer_closed = true;
                // A run meets it by itself, or ends for another reason.
                self.running.is_none().then_some(MoverEvent::PeerClosed)
            }
        }
    }

    fn connected(&mut self, connection: Connection) -> MoverEvent {
        (self.doors, self.dialling) = (None, None);
        let prepared = connection.closer().and_then(|closer| {
            // A mover that writes a tape meets the end of its stream in a run, behind the data.
            let watching = match self.flow {
                Flow::FromTape => self.watch(&connection)?,
                Flow::ToTape => None,
            };
            Ok((closer, watching))
        });
        match prepared {
            Ok((closer, watching)) => (self.closer, self.watching) = (Some(closer), watching),
            Err(error) => {
                let failure = Failure::new(FailureKind::Io, error.to_string());
                return MoverEvent::ConnectionLost(failure);
            }
        }
        let surroundings = self.plane.surroundings.clone();
        self.end = Some(match self.flow {
            Flow::ToTape => End::ToTape(Box::new(Inbound::new(connection, surroundings))),
            Flow::FromTape => End::FromTape(Outbound::new(connection)),
        });
        MoverEvent::Connected
    }

    /// Tells when the other side of a mover that reads a tape has closed, for a mover that is
    /// paused meets nothing by itself.
    fn watch(&self, connection: &Connection) -> std::io::Result<Option<JoinHandle<()>>> {
        let (epoch, events) = (self.epoch, self.plane.events.clone());
        let tell = move || drop(events.send(Happened { epoch, what: What::PeerClosed }));
        match connection {
            Connection::Splice(splice) => {
                let closed = splice.closed();
                Ok(Some(tokio::spawn(async move {
                    closed.await;
                    tell();
                })))
            }
            Connection::Tcp(stream) => {
                // Ends with the connection, which is always shut down in the end.
                let stream = stream.try_clone()?;
                let thread = std::thread::Builder::new().name("hang-up".into());
                thread.spawn(move || {
                    until_closed(stream);
                    tell();
                })?;
                Ok(None)
            }
        }
    }

    /// Makes an order of a grant; `None` without a connection.
    pub(super) fn order(&mut self, grant: Grant, job: Option<JobHandle>) -> Option<Order> {
        let end = self.end.take()?;
        let cancel = CancelToken::new();
        self.running = Some(cancel.clone());
        let run = Run {
            record_size: grant.record_size as usize,
            limit: grant.limit,
            ignore_early_warning: grant.past_early_warning,
            reposition: grant.reposition.map(|r| (r.records, r.skip)),
            back_over_filemark: grant.at_filemark == FilemarkSide::BeginningOfTape,
            job,
            control: Control::new(RUN_TIMEOUT, cancel),
        };
        let (counters, events) = (self.counters.clone(), self.plane.events.clone());
        let (end, epoch) = (Some(end), self.epoch);
        Some(Order { end, run, counters, epoch, events, reported: false })
    }
}

/// Blocks until the peer has closed its side. What it sends is dropped: nothing is due from there.
fn until_closed(mut stream: TcpStream) {
    let mut dropped = [0; 512];
    loop {
        match stream.read(&mut dropped) {
            Ok(n) if n > 0 => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn reason(stop: Stop, flow: Flow) -> StopReason {
    match (stop, flow) {
        (Stop::Limit, Flow::ToTape) => StopReason::WindowFull,
        (Stop::Limit, Flow::FromTape) => StopReason::LimitReached,
        (Stop::EndOfMedium, _) => StopReason::EndOfMedium,
        (Stop::Filemark, _) => StopReason::Filemark,
        (Stop::EndOfData, _) => StopReason::EndOfData,
        (Stop::PeerClosed, _) => StopReason::PeerClosed,
        (Stop::Media(failure), _) => StopReason::MediaError(failure),
        (Stop::Connection(text), _) => {
            StopReason::ConnectionError(Failure::new(FailureKind::Io, text))
        }
        (Stop::Internal(failure), _) => StopReason::Internal(failure),
        (Stop::Cancelled, _) => StopReason::Cancelled,
    }
}
