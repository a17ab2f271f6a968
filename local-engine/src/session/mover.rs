//! The data plane of one session: its listener, its data connection, its runs.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use ndmp::mover::{FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, StopReason};
use ndmp::tape::{Failure, FailureKind};
use ndmp::wire::{Addr, AddrType};
use tape::{CancelToken, Control};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use super::rendezvous::{Dialled, Place, Rendezvous};
use crate::mover::{Connection, Counters, Inbound, JobHandle, Outbound, Run, Stop, Surroundings};

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
    /// A run ended; the end of the connection comes back.
    Stopped(Stop, End),
    /// The splice's other side has closed it.
    PeerClosed,
}

/// One end of the data connection.
pub(super) enum End {
    ToTape(Box<Inbound>),
    FromTape(Outbound),
}

/// A run handed to the drive's owner: what to do, and with what.
pub(super) struct Order {
    pub(super) end: End,
    pub(super) run: Run,
    pub(super) counters: Counters,
    pub(super) epoch: u64,
    pub(super) events: UnboundedSender<Happened>,
}

/// The data plane.
pub(super) struct DataPlane {
    events: UnboundedSender<Happened>,
    rendezvous: Rendezvous,
    surroundings: Surroundings,
    local: Ipv4Addr,
    epoch: u64,
    flow: Flow,
    listening: Option<tokio::task::JoinHandle<()>>,
    end: Option<End>,
    closer: Option<Connection>,
    running: Option<CancelToken>,
    pub(super) counters: Counters,
}

impl DataPlane {
    pub(super) fn new(
        events: UnboundedSender<Happened>,
        rendezvous: Rendezvous,
        surroundings: Surroundings,
        local: Ipv4Addr,
    ) -> Self {
        Self {
            events,
            rendezvous,
            surroundings,
            local,
            epoch: 0,
            flow: Flow::ToTape,
            listening: None,
            end: None,
            closer: None,
            running: None,
            counters: Counters::default(),
        }
    }

    /// Whether a run is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
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
                match &self.closer {
                    Some(Connection::Splice(splice)) => splice.break_off(),
                    Some(connection) => connection.close(),
                    None => {}
                }
                None
            }
            MoverCommand::CloseConnection { orderly } => {
                if let Some(splice) = self.closer.as_ref().and_then(Connection::splice)
                    && !orderly
                {
                    splice.break_off();
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
        if let Some(listening) = self.listening.take() {
            listening.abort();
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
        let (epoch, events) = (self.epoch, self.events.clone());
        if addr_type == AddrType::Local {
            let mut waiting = self.rendezvous.wait_at(Place::Local, self.flow);
            self.listening = Some(tokio::spawn(async move {
                if let Ok(splice) = (&mut waiting.called).await {
                    let what = What::Connected(Connection::Splice(splice));
                    drop(events.send(Happened { epoch, what }));
                }
            }));
            return Ok(Addr::Local);
        }
        let io = |error: std::io::Error| Failure::new(FailureKind::Io, error.to_string());
        let listener = TcpListener::bind((self.local, 0)).await.map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        let address = SocketAddrV4::new(self.local, port);
        let mut waiting = self.rendezvous.wait_at(Place::Tcp(address), self.flow);
        self.listening = Some(tokio::spawn(async move {
            let what = tokio::select! {
                accepted = listener.accept() => match accepted.and_then(|(s, _)| blocking(s)) {
                    Ok(stream) => What::Connected(Connection::Tcp(stream)),
                    Err(error) => What::ListenerLost(io(error)),
                },
                Ok(splice) = &mut waiting.called => What::Connected(Connection::Splice(splice)),
            };
            // A session that is gone needs no news.
            drop(events.send(Happened { epoch, what }));
        }));
        Ok(Addr::tcp(address))
    }

    fn connect(&mut self, addr: Addr) {
        let (epoch, events, flow) = (self.epoch, self.events.clone(), self.flow);
        let rendezvous = self.rendezvous.clone();
        self.listening = Some(tokio::spawn(async move {
            let what = match dial(&rendezvous, &addr, flow).await {
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
                self.end = Some(end);
                Some(MoverEvent::Stopped(reason(stop, self.flow), self.progress()))
            }
            What::PeerClosed if self.running.is_none() => Some(MoverEvent::PeerClosed),
            What::PeerClosed => None,
        }
    }

    fn connected(&mut self, connection: Connection) -> MoverEvent {
        self.listening = None;
        match connection.closer() {
            Ok(closer) => self.closer = Some(closer),
            Err(error) => {
                return MoverEvent::ConnectionLost(Failure::new(
                    FailureKind::Io,
                    error.to_string(),
                ));
            }
        }
        if let (Flow::FromTape, Some(splice)) = (self.flow, connection.splice()) {
            let (epoch, events, closed) = (self.epoch, self.events.clone(), splice.closed());
            tokio::spawn(async move {
                closed.await;
                drop(events.send(Happened { epoch, what: What::PeerClosed }));
            });
        }
        self.end = Some(match self.flow {
            Flow::ToTape => {
                End::ToTape(Box::new(Inbound::new(connection, self.surroundings.clone())))
            }
            Flow::FromTape => End::FromTape(Outbound::new(connection)),
        });
        MoverEvent::Connected
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
        let (counters, epoch) = (self.counters.clone(), self.epoch);
        Some(Order { end, run, counters, epoch, events: self.events.clone() })
    }
}

async fn dial(rendezvous: &Rendezvous, addr: &Addr, flow: Flow) -> Result<Connection, Failure> {
    let refuse = |text: String| Failure::new(FailureKind::Io, text);
    let places: Vec<Place> = match addr {
        Addr::Local => vec![Place::Local],
        Addr::Tcp(list) => list.iter().copied().map(Place::Tcp).collect(),
        Addr::Other(kind) => return Err(refuse(format!("no data connections by {kind}"))),
    };
    let mut last = refuse("no address to dial".into());
    for place in places {
        last = match (rendezvous.dial(&place, flow), place) {
            (Dialled::Spliced(splice), _) => return Ok(Connection::Splice(splice)),
            (Dialled::WrongWay, _) => refuse("both movers want to send the same way".into()),
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
    Ok(stream)
}

fn reason(stop: Stop, flow: Flow) -> StopReason {
    let failure = |kind, text| Failure::new(kind, text);
    match (stop, flow) {
        (Stop::Limit, Flow::ToTape) => StopReason::WindowFull,
        (Stop::Limit, Flow::FromTape) => StopReason::LimitReached,
        (Stop::EndOfMedium, _) => StopReason::EndOfMedium,
        (Stop::Filemark, _) => StopReason::Filemark,
        (Stop::EndOfData, _) => StopReason::EndOfData,
        (Stop::PeerClosed, _) => StopReason::PeerClosed,
        (Stop::Media(text), _) => StopReason::MediaError(failure(FailureKind::Medium, text)),
        (Stop::Connection(text), _) => StopReason::ConnectionError(failure(FailureKind::Io, text)),
        (Stop::Internal(text), _) => StopReason::Internal(failure(FailureKind::Io, text)),
        (Stop::Cancelled, _) => StopReason::Cancelled,
    }
}
