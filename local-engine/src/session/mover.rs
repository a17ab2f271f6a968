//! The data plane of one session: its listener, its data connection, its runs.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use ndmp::mover::{FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, StopReason};
use ndmp::tape::{Failure, FailureKind};
use ndmp::wire::{Addr, AddrType};
use tape::{CancelToken, Control};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::KEEP_ALIVE;
use super::devices::gone;
use super::rendezvous::{Dialled, Place, Rendezvous};
use crate::mover::{
    Closer, Connection, Counters, EngineDrive, Inbound, JobHandle, Outbound, Run, Stop,
    Surroundings,
};

/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
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
    /// The address that peers can dial.
    pub(super) local: Ipv4Addr,
    /// The client's host.
    pub(super) who: String,
}

/// The data plane.
pub(super) struct DataPlane {
    plane: Plane,
    epoch: u64,
    flow: Flow,
    listening: Option<JoinHandle<()>>,
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
            listening: None,
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
                Some(match self.listen(addr_type).await {
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
        for task in [self.listening.take(), self.watching.take()].into_iter().flatten() {
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

    async fn listen(&mut self, addr_type: AddrType) -> Result<Addr, Failure> {
        let (epoch, events) = (self.epoch, self.plane.events.clone());
        let Plane { rendezvous, local, who, .. } = &self.plane;
        if addr_type == AddrType::Local {
            let mut waiting = rendezvous.wait_at(Place::Local, self.flow, who);
            self.listening = Some(tokio::spawn(async move {
                if let Ok(connection) = (&mut waiting.called).await {
                    let what = What::Connected(connection);
                    drop(events.send(Happened { epoch, what }));
                }
            }));
            return Ok(Addr::Local);
        }
        let io = |error: std::io::Error| Failure::new(FailureKind::Io, error.to_string());
        let listener = TcpListener::bind((*local, 0)).await.map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        let address = SocketAddrV4::new(*local, port);
        let mut waiting = rendezvous.wait_at(Place::Tcp(address), self.flow, who);
        self.listening = Some(tokio::spawn(async move {
            let what = tokio::select! {
                accepted = listener.accept() => match accepted.and_then(|(s, _)| blocking(s)) {
                    Ok(stream) => What::Connected(Connection::Tcp(stream)),
                    Err(error) => What::ListenerLost(io(error)),
                },
                Ok(connection) = &mut waiting.called => What::Connected(connection),
            };
            // A session that is gone needs no news.
            drop(events.send(Happened { epoch, what }));
        }));
        Ok(Addr::tcp(address))
    }

    fn connect(&mut self, addr: Addr) {
        let (epoch, events, flow) = (self.epoch, self.plane.events.clone(), self.flow);
        let (rendezvous, who) = (self.plane.rendezvous.clone(), self.plane.who.clone());
        self.listening = Some(tokio::spawn(async move {
            let what = match dial(&rendezvous, &addr, flow, &who).await {
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
        self.listening = None;
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

async fn dial(
    rendezvous: &Rendezvous,
    addr: &Addr,
    flow: Flow,
    who: &str,
) -> Result<Connection, Failure> {
    let refuse = |text: String| Failure::new(FailureKind::Io, text);
    let places: Vec<Place> = match addr {
        Addr::Local => vec![Place::Local],
        Addr::Tcp(list) => list.iter().copied().map(Place::Tcp).collect(),
        Addr::Other(kind) => return Err(refuse(format!("no data connections by {kind}"))),
    };
    let mut last = refuse("no address to dial".into());
    for place in places {
        last = match (rendezvous.dial(&place, flow, who), place) {
            (Dialled::Spliced(connection), _) => return Ok(connection),
            (Dialled::WrongWay, _) => refuse("both movers want to send the same way".into()),
            (Dialled::Ambiguous, _) => {
                refuse("several movers listen locally; use TCP addresses".into())
            }
            (Dialled::NotOurs, Place::Local) => refuse("no mover listens here".into()),
            (Dialled::NotOurs, Place::Tcp(address)) => match dial_tcp(address).await {
                Ok(stream) => return Ok(Connection::Tcp(stream)),
                Err(error) => refuse(format!("{address}: {error}")),
            },
        };
    }
    Err(last)
}

async fn dial_tcp(address: SocketAddrV4) -> std::io::Result<TcpStream> {
    let stream = tokio::net::TcpStream::connect(address);
    blocking(tokio::time::timeout(DIAL_TIMEOUT, stream).await??)
}

/// Asks a silent peer for a sign of life after the first time, then so often, so many times.
pub(super) fn keep_alive(
    socket: impl AsFd,
    (idle, interval, probes): (Duration, Duration, u32),
) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, idle)?;
    sockopt::set_tcp_keepintvl(&socket, interval)?;
    sockopt::set_tcp_keepcnt(&socket, probes)?;
    Ok(())
}

/// A data connection is read and written by the drive's owner thread.
fn blocking(stream: tokio::net::TcpStream) -> std::io::Result<TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    // Little may be under way unseen: a DMA takes what was sent for what was accepted.
    for result in [
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 64 << 10),
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 << 10),
    ] {
        result?;
    }
    keep_alive(&stream, KEEP_ALIVE)?;
    Ok(stream)
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
