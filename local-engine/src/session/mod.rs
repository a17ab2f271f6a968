//! One NDMP control connection: its socket, its devices, its data plane.
//!
//! `ndmp::server::Session` knows the protocol; this shell carries out what it asks. A reader task
//! hands records over one by one; device work happens on owner threads; runs of the mover come back
//! as events. When the client is gone the session's own clean-up runs to its end: the filemark
//! that is due is written, devices are freed, and a copy that was under way ends failed.

mod admission;
#[cfg(test)]
mod admission_tests;
mod devices;
mod listen;
mod mover;
mod reader;
mod rendezvous;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use model::JobId;
use ndmp::mover::{Flow, Grant, MoverCommand, MoverEvent, StopReason};
use ndmp::server::{LogLevel, Login, Output, Session, SessionConfig};
use ndmp::wire::{LogType, MoverState};
use service::messages;
use svs::EventKind;
use tape::CancelToken;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use crate::device::{Claim, Device, Opener, Owner, Registry};
use crate::engine::now_ms;
use crate::mover::{EngineDrive, JobHandle, Surroundings};

pub use admission::{Admission, LoginGate};
use devices::gone;
use listen::keep_alive;
use mover::{DataPlane, Happened, Plane, What};
use reader::read_records;
pub use rendezvous::Rendezvous;

/// How long the client may take to accept what we send.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a client that is turned away may take to hear so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may be silent whose mover is connected: longer than any tape takes to fill.
const COPY_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A silent host is asked for a sign of life after the first, then so often, so many times.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// What all sessions of the server share.
pub struct Shared {
    /// Users and identity.
    pub config: Arc<SessionConfig>,
    /// Who may come in and use what.
    pub admission: Arc<Admission>,
    /// Further addresses of this host for data connections.
    pub mover_addresses: Vec<Ipv4Addr>,
    /// The range of their ports.
    pub mover_ports: Option<(u16, u16)>,
    /// The devices.
    pub registry: Arc<Registry>,
    /// Where movers meet.
    pub rendezvous: Rendezvous,
    /// For destinations that work by reference.
    pub surroundings: Surroundings,
    /// Job rows.
    pub catalogue: Arc<svs::Catalogue>,
    /// Told of copies that have ended, once their drive is free.
    pub job_ended: Arc<dyn Fn(JobId) + Send + Sync>,
}

type Drive = (Box<dyn EngineDrive>, Claim);

struct Shell {
    shared: Arc<Shared>,
    session: Session,
    writer: OwnedWriteHalf,
    opener: Opener,
    /// Ends what the client waits for; another one for the clean-up behind it.
    cancel: CancelToken,
    drive: Option<Owner<Drive>>,
    scsi: Option<Owner<(Device, Claim)>>,
    plane: DataPlane,
    flow: Flow,
    job: Option<JobHandle>,
    /// Copies of former connections whose drive is still open.
    past: Vec<JobHandle>,
    told: mpsc::UnboundedSender<String>,
    writable: bool,
    /// The client does not take what is sent.
    stuck: bool,
    /// Nobody waits for answers any more.
    leaving: bool,
    /// What a copy that is under way fails of then.
    cause: &'static str,
    /// The client's host.
    client: IpAddr,
    logged_in: bool,
    /// When the client last said something that may keep the session alive.
    heard: Instant,
    /// How long the answer to a failed login waits.
    penalty: Duration,
}

/// Serves one connection to its end.
pub async fn serve(
    stream: TcpStream,
    nexus: u64,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) {
    let peer = stream.peer_addr().ok();
    let local = local_address(&stream);
    // A host that is gone without a word must not keep its devices.
    if let Err(error) = keep_alive(&stream, KEEP_ALIVE) {
        tracing::debug!(%error, "NDMP: TCP keep-alive");
    }
    let (reader, writer) = stream.into_split();
    let (happen, mut happened) = mpsc::unbounded_channel();
    let (told, mut tells) = mpsc::unbounded_channel();
    let (records_in, mut records) = mpsc::channel(1);
    let cancel = CancelToken::new();
    let mut reading = tokio::spawn(read_records(reader, records_in, cancel.clone()));
    let stop_watch = tokio::spawn(cancel_at_stop(stopping.clone(), cancel.clone()));
    let mut shell = Shell::new(shared, (nexus, peer, local), writer, cancel, (happen, told));
    shell.session.start(now());
    let (mut connected, mut serving) = (true, true);
    let mut waiting = None;
    loop {
        shell.wait_out_penalty(&mut stopping, &mut serving).await;
        if !shell.carry_out().await {
            break;
        }
        if connected && shell.stuck {
            connected = false;
            shell.disconnected("the application does not take answers");
            continue;
        }
        let busy = shell.session.is_busy();
        // What happened before the client sent its message comes before it.
        if let Some(record) = waiting.take_if(|_| connected && !busy) {
            waiting = shell.message_behind(record, &mut happened).await;
            continue;
        }
        tokio::select! {
            biased;
            Some(event) = happened.recv() => shell.happened(event),
            Some(text) = tells.recv() => shell.session.post_log(LogType::Normal, &text, now()),
            record = records.recv(), if connected && !busy => match record {
                Some(record) => waiting = Some(record),
                None => {
                    connected = false;
                    shell.read_to_end((&mut reading).await.ok().flatten()).await;
                }
            },
            () = tokio::time::sleep_until(shell.silent_until().into()), if connected && !busy => {
                connected = false;
                shell.was_silent().await;
            }
            ended = &mut reading, if connected && busy => {
                connected = false;
                shell.read_to_end(ended.ok().flatten()).await;
            }
            Ok(()) = stopping.changed(), if serving => {
                serving = false;
                shell.stopped();
            }
            else => break,
        }
    }
    reading.abort();
    stop_watch.abort();
    shell.end().await;
}

/// A step that waits for a device must not hold up the end of the engine.
async fn cancel_at_stop(mut stopping: watch::Receiver<bool>, cancel: CancelToken) {
    // An error says that the server is gone, which is a stop as well.
    drop(stopping.wait_for(|stop| *stop).await);
    cancel.cancel();
}

/// Tells a client that there is no room for another session.
/// There are `max`; with `tell` the operator hears of it.
pub async fn refuse(stream: TcpStream, shared: Arc<Shared>, max: u32, tell: bool) {
    let address = stream.peer_addr().map_or_else(|_| "?".to_owned(), |peer| peer.to_string());
    if tell {
        let words = vec![("address", address), ("max", max.to_string())];
        note(&shared, messages::TOO_MANY_SESSIONS, words).await;
    }
    let (_, mut writer) = stream.into_split();
    let mut session = Session::new(Arc::clone(&shared.config), challenge());
    session.refuse("too many sessions", now());
    while let Some(output) = session.poll() {
        if let Output::Send(bytes) = output {
            let sent = tokio::time::timeout(REFUSAL_TIMEOUT, writer.write_all(&bytes)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }
    // It may have gone already.
    let _ = writer.shutdown().await;
}

/// Makes a word about an address that a mover was not let dial.
fn tell_denied(shared: &Arc<Shared>, who: &str) -> Arc<dyn Fn(SocketAddrV4) + Send + Sync> {
    let (shared, who) = (Arc::clone(shared), who.to_owned());
    Arc::new(move |address| {
        let words = vec![("target", address.to_string()), ("address", who.clone())];
        let shared = Arc::clone(&shared);
        drop(tokio::spawn(async move { note(&shared, messages::DIAL_DENIED, words).await }));
    })
}

/// Says a message about a client; its event waits for the catalogue's disk.
async fn note(shared: &Arc<Shared>, id: &'static str, words: Vec<(&'static str, String)>) {
    let catalogue = Arc::clone(&shared.catalogue);
    let noted = tokio::task::spawn_blocking(move || {
        let words: Vec<(&str, &dyn Display)> =
            words.iter().map(|(name, value)| (*name, value as &dyn Display)).collect();
        messages::note(&catalogue, EventKind::Security, id, &words, None);
    });
    // A panic there was reported when it happened.
    drop(noted.await);
}

/// Tells a client whose host may not connect, and closes; with `tell` the operator hears of it.
pub async fn turn_away(stream: TcpStream, host: IpAddr, shared: Arc<Shared>, tell: bool) {
    drop(stream);
    if tell {
        note(&shared, messages::HOST_REFUSED, vec![("address", host.to_string())]).await;
    }
}

/// The address by which the client reached us, where a mover can listen for others too.
fn local_address(stream: &TcpStream) -> Option<Ipv4Addr> {
    match stream.local_addr().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V4(address)) => Some(address),
        Ok(IpAddr::V6(address)) if address.is_loopback() => Some(Ipv4Addr::LOCALHOST),
        _ => None,
    }
}

fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn challenge() -> [u8; 64] {
    let mut bytes = [0; 64];
    if getrandom::fill(&mut bytes).is_err() {
        // Two random identifiers for every 16 bytes: weaker, never repeated.
        for part in bytes.chunks_mut(16) {
            part.copy_from_slice(&JobId::generate(now_ms()).to_bytes());
        }
    }
    bytes
}

impl Shell {
    fn new(
        shared: Arc<Shared>,
        (nexus, peer, local): (u64, Option<SocketAddr>, Option<Ipv4Addr>),
        writer: OwnedWriteHalf,
        cancel: CancelToken,
        (happen, told): (mpsc::UnboundedSender<Happened>, mpsc::UnboundedSender<String>),
    ) -> Self {
        let who = peer.map_or_else(|| "an unknown address".into(), |peer| peer.ip().to_string());
        let client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let plane = DataPlane::new(Plane {
            addresses: shared.mover_addresses.clone(),
            ports: shared.mover_ports,
            admission: Arc::clone(&shared.admission),
            denied: tell_denied(&shared, &who),
            client,
            events: happen,
            rendezvous: shared.rendezvous.clone(),
            surroundings: shared.surroundings.clone(),
            local,
            who: who.clone(),
        });
        Self {
            session: Session::new(Arc::clone(&shared.config), challenge()),
            writer,
            opener: Opener { nexus, who },
            cancel,
            drive: None,
            scsi: None,
            plane,
            flow: Flow::ToTape,
            job: None,
            past: Vec::new(),
            told,
            writable: true,
            stuck: false,
            leaving: false,
            cause: "the session ended before the copy was complete",
            client,
            logged_in: false,
            heard: Instant::now(),
            penalty: Duration::ZERO,
            shared,
        }
    }

    /// The answer to a failed login waits.
    async fn wait_out_penalty(&mut self, stopping: &mut watch::Receiver<bool>, serving: &mut bool) {
        let penalty = std::mem::take(&mut self.penalty);
        if penalty.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(penalty) => {}
            Ok(()) = stopping.changed(), if *serving => {
                *serving = false;
                self.stopped();
            }
        }
    }

    /// Takes a message in, or first what happened before the client sent it; then the message
    /// comes back.
    async fn message_behind(
        &mut self,
        record: Bytes,
        happened: &mut mpsc::UnboundedReceiver<Happened>,
    ) -> Option<Bytes> {
        self.plane.look();
        match happened.try_recv() {
            Ok(event) => {
                self.happened(event);
                Some(record)
            }
            Err(_) => {
                self.message(&record).await;
                None
            }
        }
    }

    async fn message(&mut self, record: &Bytes) {
        // GET_STATE must tell the truth, so progress comes before every message.
        self.session.on_mover(MoverEvent::Moved(self.plane.progress()), now());
        let gate = &self.shared.admission.gate;
        let barred = gate.is_locked_out(self.client, Instant::now());
        self.session.bar_logins(barred);
        self.session.on_message(record, now());
        match self.session.take_login() {
            Some(Login::Accepted) => {
                gate.succeeded(self.client);
                self.logged_in = true;
                let user = self.session.user().unwrap_or("anybody").to_owned();
                let words = vec![("user", user), ("address", self.opener.who.clone())];
                note(&self.shared, messages::LOGGED_IN, words).await;
            }
            Some(Login::Refused(user)) => self.login_failed(user, barred).await,
            None => {}
        }
        // Who is not logged in does not gain time by talking.
        if self.logged_in {
            self.heard = Instant::now();
        }
    }

    async fn login_failed(&mut self, user: String, barred: bool) {
        if std::mem::take(&mut self.logged_in) {
            self.heard = Instant::now();
        }
        let penalty = self.shared.admission.gate.failed(self.client, Instant::now());
        self.penalty = penalty.delay;
        let cause = match barred {
            true => "its host is locked out",
            false => "unknown user, wrong password, or a way to log in that is not allowed",
        };
        let address = self.opener.who.clone();
        let words = vec![("user", user), ("address", address.clone()), ("cause", cause.to_owned())];
        note(&self.shared, messages::LOGIN_REFUSED, words).await;
        if penalty.locked_out {
            note(&self.shared, messages::HOST_LOCKED_OUT, vec![("address", address)]).await;
        }
    }

    /// When a client that says nothing has been silent for too long. One whose mover is connected
    /// has nothing to say.
    fn silent_until(&self) -> Instant {
        let copying = matches!(self.session.mover_state(), MoverState::Active | MoverState::Paused);
        let patience = match self.logged_in {
            false => LOGIN_TIMEOUT.min(self.shared.admission.idle),
            true if copying => COPY_TIMEOUT,
            true => self.shared.admission.idle,
        };
        self.heard + patience
    }

    async fn was_silent(&mut self) {
        let cause = match self.logged_in {
            true => "nothing was heard of it for longer than idle_seconds",
            false => "nobody logged in in time",
        };
        let words = vec![("address", self.opener.who.clone()), ("cause", cause.to_owned())];
        note(&self.shared, messages::SESSION_ENDED, words).await;
        self.leave("the application was silent for too long");
        self.session.shut_down(cause, now());
    }

    /// Nobody waits for answers any more. The clean-up is not to be cancelled with what the client
    /// had asked for.
    fn leave(&mut self, cause: &'static str) {
        if !self.leaving {
            (self.leaving, self.cause) = (true, cause);
            self.cancel = CancelToken::new();
        }
    }

    async fn read_to_end(&mut self, wrong: Option<String>) {
        match wrong {
            // A stranger's noise is no event; the log tells of it.
            Some(cause) if self.session.user().is_none() => {
                tracing::warn!(who = %self.opener.who, cause, "NDMP: not made of messages");
            }
            Some(cause) => {
                let words = vec![("address", self.opener.who.clone()), ("cause", cause)];
                note(&self.shared, messages::SESSION_ENDED, words).await;
            }
            None => {}
        }
        self.disconnected("the application closed its session before the copy was complete");
    }

    fn disconnected(&mut self, cause: &'static str) {
        tracing::debug!(who = %self.opener.who, cause, "NDMP: the session ends");
        self.writable = false;
        self.leave(cause);
        self.session.on_disconnect(now());
    }

    fn stopped(&mut self) {
        self.leave("the engine was stopped before the copy was complete");
        self.session.shut_down("the server stops", now());
    }

    fn happened(&mut self, event: Happened) {
        let is_connected = matches!(event.what, What::Connected(_));
        if let Some(event) = self.plane.happened(event) {
            if is_connected && self.flow == Flow::ToTape {
                self.job = Some(self.new_job());
            }
            if let MoverEvent::Stopped(reason, _) = &event {
                log_stop(&self.opener.who, reason);
            }
            self.session.on_mover(event, now());
        }
    }

    fn new_job(&self) -> JobHandle {
        let user = self.session.user().unwrap_or("anybody");
        let requested_by = format!("ndmp {user} at {}", self.opener.who);
        let told = self.told.clone();
        let tell = Arc::new(move |text| drop(told.send(text)));
        let catalogue = Arc::clone(&self.shared.catalogue);
        JobHandle::new(JobId::generate(now_ms()), catalogue, requested_by, tell)
    }

    /// Does everything the session asks for now; false when it is over.
    async fn carry_out(&mut self) -> bool {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => self.send(&bytes).await,
                Output::Close => {
                    self.writable = false;
                    self.leave("the application closed its session before the copy was complete");
                }
                Output::Device(request) => {
                    let reply = self.device(request).await;
                    self.session.on_device(reply, now());
                }
                Output::Mover(command) => self.mover(command).await,
                Output::Log { level, text } => self.log(level, &text),
                Output::Finished => return false,
            }
        }
        true
    }

    async fn send(&mut self, bytes: &[u8]) {
        if !self.writable {
            return;
        }
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.writer.write_all(bytes)).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.writable = false;
            self.stuck = true;
        }
    }

    fn log(&self, level: LogLevel, text: &str) {
        let who = &self.opener.who;
        match level {
            LogLevel::Warn => tracing::warn!(%who, "NDMP: {text}"),
            LogLevel::Info => tracing::info!(%who, "NDMP: {text}"),
            LogLevel::Debug => tracing::debug!(%who, "NDMP: {text}"),
        }
    }

    async fn mover(&mut self, command: MoverCommand) {
        match &command {
            MoverCommand::Run(grant) => return self.run(*grant),
            MoverCommand::Listen { flow, .. } | MoverCommand::Connect { flow, .. } => {
                self.flow = *flow;
            }
            // A client that is gone: the copy fails once what it wrote is flushed.
            MoverCommand::CloseConnection { .. } if !self.leaving => {
                self.end_job("the application ended the copy").await;
            }
            MoverCommand::CloseConnection { .. } | MoverCommand::Cancel => {}
        }
        if let Some(event) = self.plane.command(command).await {
            self.session.on_mover(event, now());
        }
    }

    /// Fails the copy that is under way; one that is done is left alone by this.
    async fn end_job(&mut self, cause: &'static str) {
        if let Some(job) = self.job.take() {
            self.past.push(job.clone());
            // The row waits for the disk. A panic there was reported when it happened.
            drop(tokio::task::spawn_blocking(move || job.failed(cause)).await);
        }
    }

    /// The drive is free: who helped with the copies that have ended need not keep them.
    fn tell_ended(&mut self) {
        self.past.extend(self.job.clone());
        for job in self.past.drain(..).filter(JobHandle::is_ended) {
            (self.shared.job_ended)(job.id());
        }
    }

    fn run(&mut self, grant: Grant) {
        // What goes on behind a failure, as versions 2 and 3 let it, is another job.
        if self.job.as_ref().is_some_and(JobHandle::is_ended) {
            self.past.extend(self.job.take());
            self.job = Some(self.new_job());
        }
        match (self.plane.order(grant, self.job.clone()), &self.drive) {
            // An order that nobody carries out says so by itself.
            (Some(order), Some(owner)) => {
                let _ = owner.send(move |(drive, _)| order.carry_out(&mut **drive));
            }
            (Some(order), None) => drop(order),
            (None, _) => {
                let reason = StopReason::Internal(gone());
                self.session.on_mover(MoverEvent::Stopped(reason, self.plane.progress()), now());
            }
        }
    }

    async fn end(mut self) {
        self.plane.close();
        if let Some(drive) = self.drive.take() {
            drive.close().await;
        }
        if let Some(scsi) = self.scsi.take() {
            scsi.close().await;
        }
        self.end_job(self.cause).await;
        self.tell_ended();
        // The client may have gone first.
        let _ = self.writer.shutdown().await;
    }
}

fn log_stop(who: &str, reason: &StopReason) {
    match reason {
        StopReason::MediaError(failure)
        | StopReason::ConnectionError(failure)
        | StopReason::Internal(failure) => {
            tracing::warn!(%who, cause = %failure.text, "NDMP: the mover has failed");
        }
        other => tracing::debug!(%who, reason = ?other, "NDMP: a run of the mover has ended"),
    }
}
