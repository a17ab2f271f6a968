//! One NDMP control connection: its socket, its devices, its data plane.
//!
//! `ndmp::server::Session` knows the protocol; this shell carries out what it asks. A reader task
//! hands records over one by one; device work happens on owner threads; runs of the mover come back
//! as events. When the client is gone the session's own clean-up runs to its end: the filemark
//! that is due is written, devices are freed, and a copy that was under way ends failed.

mod mover;
mod rendezvous;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use model::{DeviceRole, JobId};
use ndmp::mover::{Flow, Grant, MoverCommand, MoverEvent, StopReason};
use ndmp::server::{
    Cdb, CdbOutcome, DeviceEntry, DeviceReply, DeviceRequest, LogLevel, Output, Session,
    SessionConfig,
};
use ndmp::tape::{DriveStep, Failure, FailureKind, StepResult};
use ndmp::wire::LogType;
use tape::{CancelToken, CdbRequest, Completion, Control};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use xdr::{Limits, Reassembler};

use crate::device::{
    Claim, Device, DeviceLine, Opener, Owner, Registry, Watched, failure, run_step,
};
use crate::mover::{EngineDrive, JobHandle, Surroundings};

use mover::{DataPlane, End, Happened, Order, What};
pub use rendezvous::Rendezvous;

/// What a client may send in one message.
const LIMITS: Limits = Limits { record: ndmp::wire::bounds::MESSAGE, fragments: 1024 };
/// How long the client may take to accept what we send.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
/// How long one step of a drive may take: a LOCATE over a whole tape, a wait for a site to return.
const STEP_TIMEOUT: Duration = Duration::from_secs(3600);
/// The time limit of a CDB whose sender set none.
const CDB_TIMEOUT: Duration = Duration::from_secs(3600);

/// What all sessions of the server share.
pub struct Shared {
    /// Users and identity.
    pub config: Arc<SessionConfig>,
    /// The devices.
    pub registry: Arc<Registry>,
    /// Where movers meet.
    pub rendezvous: Rendezvous,
    /// For destinations that work by reference.
    pub surroundings: Surroundings,
    /// Job rows.
    pub catalogue: Arc<svs::Catalogue>,
}

type Drive = (Box<dyn EngineDrive>, Claim);

struct Shell {
    shared: Arc<Shared>,
    session: Session,
    writer: OwnedWriteHalf,
    opener: Opener,
    cancel: CancelToken,
    drive: Option<Owner<Drive>>,
    scsi: Option<Owner<(Device, Claim)>>,
    watched: Watched,
    plane: DataPlane,
    flow: Flow,
    job: Option<JobHandle>,
    told: mpsc::UnboundedSender<String>,
    moved_at_run: u64,
    writable: bool,
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
    let (reader, writer) = stream.into_split();
    let (happen, mut happened) = mpsc::unbounded_channel();
    let (told, mut tells) = mpsc::unbounded_channel();
    let cancel = CancelToken::new();
    let (records_in, mut records) = mpsc::channel(2);
    let reading = tokio::spawn(read_records(reader, records_in, cancel.clone()));
    let mut shell = Shell::new(&shared, nexus, peer, writer, cancel, told);
    shell.plane =
        DataPlane::new(happen, shared.rendezvous.clone(), shared.surroundings.clone(), local);
    shell.session.start(now());
    let mut connected = true;
    let mut serving = true;
    while shell.carry_out().await {
        let busy = shell.session.is_busy();
        tokio::select! {
            biased;
            Some(event) = happened.recv() => shell.happened(event),
            Some(text) = tells.recv() => shell.session.post_log(LogType::Normal, &text, now()),
            record = records.recv(), if connected && !busy => match record {
                Some(record) => shell.message(&record),
                None => {
                    connected = false;
                    shell.disconnected();
                }
            },
            Ok(()) = stopping.changed(), if serving => {
                serving = false;
                shell.session.shut_down("the server stops", now());
            }
            else => break,
        }
    }
    reading.abort();
    shell.end().await;
}

/// Tells a client that there is no room for another session.
pub async fn refuse(stream: TcpStream, shared: Arc<Shared>) {
    let peer = stream.peer_addr().ok();
    tracing::warn!(?peer, "NDMP: too many sessions");
    let (_, mut writer) = stream.into_split();
    let mut session = Session::new(Arc::clone(&shared.config), challenge());
    session.refuse("too many sessions", now());
    while let Some(output) = session.poll() {
        if let Output::Send(bytes) = output {
            let sent = tokio::time::timeout(SEND_TIMEOUT, writer.write_all(&bytes)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }
    // It may have gone already.
    let _ = writer.shutdown().await;
}

/// The address that a peer can dial to reach this session's mover.
fn local_address(stream: &TcpStream) -> Ipv4Addr {
    match stream.local_addr().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

async fn read_records(
    mut reader: OwnedReadHalf,
    records: mpsc::Sender<Bytes>,
    cancel: CancelToken,
) {
    let mut assembler = Reassembler::new(LIMITS);
    loop {
        match assembler.next_record() {
            Ok(Some(record)) => {
                if records.send(record).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "NDMP: the client's stream is not made of records");
                break;
            }
        }
        if !matches!(reader.read_buf(assembler.buffer()).await, Ok(n) if n > 0) {
            break;
        }
    }
    // What the client waited for is for nobody now.
    cancel.cancel();
}

fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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

fn gone() -> Failure {
    Failure::new(FailureKind::Io, "the device is gone")
}

impl Shell {
    fn new(
        shared: &Arc<Shared>,
        nexus: u64,
        peer: Option<SocketAddr>,
        writer: OwnedWriteHalf,
        cancel: CancelToken,
        told: mpsc::UnboundedSender<String>,
    ) -> Self {
        let from = peer.map_or_else(|| "an unknown address".into(), |peer| peer.ip().to_string());
        let (nowhere, _) = mpsc::unbounded_channel();
        Self {
            session: Session::new(Arc::clone(&shared.config), challenge()),
            writer,
            opener: Opener { nexus, who: from },
            cancel,
            drive: None,
            scsi: None,
            watched: Watched::default(),
            plane: DataPlane::new(
                nowhere,
                shared.rendezvous.clone(),
                shared.surroundings.clone(),
                Ipv4Addr::LOCALHOST,
            ),
            flow: Flow::ToTape,
            job: None,
            told,
            moved_at_run: 0,
            writable: true,
            shared: Arc::clone(shared),
        }
    }

    fn control(&self, timeout: Duration) -> Control {
        Control::new(timeout, self.cancel.clone())
    }

    fn message(&mut self, record: &Bytes) {
        // GET_STATE must tell the truth, so progress comes before every message.
        self.session.on_mover(MoverEvent::Moved(self.plane.progress()), now());
        self.session.on_message(record, now());
    }

    fn disconnected(&mut self) {
        tracing::debug!(who = %self.opener.who, "NDMP: the client has closed the connection");
        // The clean-up is not to be cancelled with what the client had asked for.
        self.cancel = CancelToken::new();
        self.writable = false;
        if let Some(job) = &self.job {
            job.failed("the application closed its session before the copy was complete");
        }
        self.session.on_disconnect(now());
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
                Output::Close => self.writable = false,
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
            // The reader sees the end of the connection and the session cleans up.
            let _ = self.writer.shutdown().await;
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
        match command {
            MoverCommand::Run(grant) => self.run(grant),
            other => {
                if let MoverCommand::Listen { flow, .. } | MoverCommand::Connect { flow, .. } =
                    &other
                {
                    self.flow = *flow;
                }
                if matches!(other, MoverCommand::CloseConnection { .. })
                    && let Some(job) = self.job.take()
                {
                    // A job that was done is left alone by this.
                    job.failed("the application ended the copy");
                }
                if let Some(event) = self.plane.command(other).await {
                    self.session.on_mover(event, now());
                }
            }
        }
    }

    fn run(&mut self, grant: Grant) {
        self.moved_at_run = self.plane.progress().bytes;
        let order = self.plane.order(grant, self.job.clone());
        let watched = self.watched.clone();
        let started = match (order, &self.drive) {
            (Some(order), Some(owner)) => {
                owner.send(move |(drive, _)| run_order(order, &mut **drive, &watched)).is_ok()
            }
            _ => false,
        };
        if !started {
            let reason = StopReason::Internal(gone());
            self.session.on_mover(MoverEvent::Stopped(reason, self.plane.progress()), now());
        }
    }

    async fn device(&mut self, request: DeviceRequest) -> DeviceReply {
        match request {
            DeviceRequest::OpenTape { name, .. } => self.open_tape(name).await,
            DeviceRequest::CloseTape => {
                if let Some(drive) = self.drive.take() {
                    drive.close().await;
                }
                DeviceReply::Done
            }
            DeviceRequest::Drive(step) => DeviceReply::Step(self.step(step).await),
            DeviceRequest::OpenScsi { name } => self.open_scsi(name).await,
            DeviceRequest::CloseScsi => {
                if let Some(scsi) = self.scsi.take() {
                    scsi.close().await;
                }
                DeviceReply::Done
            }
            // Every command is answered before the next is sent: there is nothing to abort.
            DeviceRequest::ResetScsi => DeviceReply::Done,
            DeviceRequest::ExecuteCdb(cdb) => self.execute(cdb).await,
            DeviceRequest::ListTapes => self.devices(|role| matches!(role, DeviceRole::Drive(_))),
            DeviceRequest::ListScsi => self.devices(|role| role == DeviceRole::Changer),
        }
    }

    fn devices(&self, filter: impl Fn(DeviceRole) -> bool) -> DeviceReply {
        let lines = self.shared.registry.devices(filter);
        DeviceReply::Devices(lines.into_iter().map(entry).collect())
    }

    async fn open_tape(&mut self, name: String) -> DeviceReply {
        let (registry, opener) = (Arc::clone(&self.shared.registry), self.opener.clone());
        let opened = blocking(move || registry.open_tape(&name, &opener)).await;
        let started = opened.and_then(|(claim, drive)| {
            Owner::start("tape", (drive, claim))
                .map_err(|error| Failure::new(FailureKind::Io, error.to_string()))
        });
        match started {
            Ok(owner) => {
                self.drive = Some(owner);
                DeviceReply::Done
            }
            Err(failure) => DeviceReply::Failed(failure),
        }
    }

    async fn open_scsi(&mut self, name: String) -> DeviceReply {
        let (registry, opener) = (Arc::clone(&self.shared.registry), self.opener.clone());
        let opened = blocking(move || registry.open_scsi(&name, &opener)).await;
        let started = opened.and_then(|(claim, device)| {
            Owner::start("scsi", (device, claim))
                .map_err(|error| Failure::new(FailureKind::Io, error.to_string()))
        });
        match started {
            Ok(owner) => {
                self.scsi = Some(owner);
                DeviceReply::Done
            }
            Err(failure) => DeviceReply::Failed(failure),
        }
    }

    async fn step(&mut self, step: DriveStep) -> StepResult {
        if self.plane.is_running() {
            let moved = self.plane.progress().bytes - self.moved_at_run;
            if let Some(answer) = self.watched.answer(&step, moved) {
                return answer;
            }
        }
        let control = self.control(STEP_TIMEOUT);
        let Some(owner) = &self.drive else { return StepResult::Failed(gone()) };
        let answer = owner.call(move |(drive, _)| run_step(drive.tape(), step, &control)).await;
        answer.unwrap_or_else(|_| StepResult::Failed(gone()))
    }

    async fn execute(&mut self, cdb: Cdb) -> DeviceReply {
        let timeout = cdb.timeout_ms.map_or(CDB_TIMEOUT, |ms| Duration::from_millis(ms.into()));
        let sent = cdb.data_out.len();
        let request = CdbRequest {
            cdb: cdb.cdb.to_vec(),
            data_out: cdb.data_out,
            data_in_max: cdb.data_in_max,
            timeout,
        };
        let control = self.control(timeout);
        let Some(owner) = &self.scsi else { return DeviceReply::Failed(gone()) };
        match owner.call(move |(device, _)| device.execute(&request, &control)).await {
            Ok(Ok(completion)) => DeviceReply::Cdb(outcome(completion, sent)),
            Ok(Err(error)) => DeviceReply::Failed(failure(&error)),
            Err(_) => DeviceReply::Failed(gone()),
        }
    }

    async fn end(mut self) {
        self.plane.close();
        if let Some(job) = self.job.take() {
            job.failed("the application closed its session before the copy was complete");
        }
        if let Some(drive) = self.drive.take() {
            drive.close().await;
        }
        if let Some(scsi) = self.scsi.take() {
            scsi.close().await;
        }
        // The client may have gone first.
        let _ = self.writer.shutdown().await;
    }
}

fn run_order(order: Order, drive: &mut dyn EngineDrive, watched: &Watched) {
    let Order { mut end, run, counters, epoch, events } = order;
    watched.refresh(drive.tape(), &run.control);
    let stop = match &mut end {
        End::ToTape(inbound) => inbound.run(drive, &run, &counters),
        End::FromTape(outbound) => outbound.run(drive, &run, &counters),
    };
    // A session that is gone needs no news.
    drop(events.send(Happened { epoch, what: What::Stopped(stop, end) }));
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::new(FailureKind::Io, error.to_string())),
    }
}

fn outcome(completion: Completion, sent: usize) -> CdbOutcome {
    CdbOutcome {
        status: completion.status,
        data_out_moved: u32::try_from(sent).unwrap_or(u32::MAX),
        data_in: completion.data_in.into(),
        sense: completion.sense.into(),
    }
}

fn entry(line: DeviceLine) -> DeviceEntry {
    DeviceEntry {
        model: line.model,
        properties: vec![
            ("serial".into(), line.serial),
            ("library".into(), line.name.library.to_string()),
        ],
        device: line.name.to_string(),
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
