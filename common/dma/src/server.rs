//! A tape server for the tests: real sessions of `ndmp::server` over TCP, drives made of lists,
//! movers that move real bytes. One thread for each connection.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use model::ElementType;
use ndmp::mover::{FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, StopReason};
use ndmp::server::{
    CdbOutcome, DeviceReply, DeviceRequest, Identity, Output, Secret, Session, SessionConfig, User,
    Users,
};
use ndmp::tape::{DriveStep, Failure, FailureKind, StepResult};
use ndmp::testing::ListDrive;
use ndmp::wire::{Addr, AuthType, Version};
use scsi::{ElementDescriptor, ElementReport};
use xdr::{Limits, Reassembler};

/// The drives of a server, by name.
#[derive(Clone, Default)]
pub(crate) struct Drives(Arc<Mutex<BTreeMap<String, ListDrive>>>);

impl Drives {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ListDrive>> {
        self.0.lock().unwrap()
    }

    pub(crate) fn put(&self, name: &str, drive: ListDrive) {
        self.lock().insert(name.to_owned(), drive);
    }

    pub(crate) fn take(&self, name: &str) -> ListDrive {
        self.lock().remove(name).unwrap()
    }
}

/// A server; its threads end with their connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drives: Drives,
    /// Movers can read no tape.
    pub(crate) worn: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let drives = Drives::default();
        let worn = Arc::new(AtomicBool::new(false));
        let shared = (drives.clone(), worn.clone());
        let mut users = Users::new();
        let methods = vec![AuthType::Text, AuthType::Md5];
        users.insert("ndmp", User { secret: Secret::new("ndmp"), methods });
        let config = Arc::new(SessionConfig {
            versions: Version::ALL.to_vec(),
            users,
            identity: Identity::default(),
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, shared) = (config.clone(), shared.clone());
                thread::spawn(move || Connection::new(stream.unwrap(), config, shared).serve());
            }
        });
        Self { address, drives, worn }
    }
}

/// The data plane of one session.
#[derive(Default)]
struct Plane {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
    run: Option<Grant>,
    moved: u64,
    progress: Progress,
    kept: VecDeque<u8>,
}

enum Got {
    Bytes,
    Nothing,
    End,
}

impl Plane {
    fn stop(&mut self, reason: StopReason) -> Option<MoverEvent> {
        self.run = None;
        Some(MoverEvent::Stopped(reason, self.progress))
    }

    fn command(&mut self, command: MoverCommand, drive: &mut ListDrive) -> Option<MoverEvent> {
        match command {
            MoverCommand::Listen { .. } => {
                *self = Self::default();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                listener.set_nonblocking(true).unwrap();
                let port = listener.local_addr().unwrap().port();
                self.listener = Some(listener);
                let address = SocketAddrV4::new([127, 0, 0, 1].into(), port);
                Some(MoverEvent::Listening(Addr::tcp(address)))
            }
            MoverCommand::Connect { addr, .. } => {
                *self = Self::default();
                match crate::data::connect(&addr) {
                    Ok(stream) => {
                        stream.set_nonblocking(true).unwrap();
                        self.stream = Some(stream);
                        Some(MoverEvent::Connected)
                    }
                    Err(error) => {
                        let failure = Failure::new(FailureKind::Io, error.to_string());
                        Some(MoverEvent::ConnectFailed(failure))
                    }
                }
            }
            MoverCommand::Run(grant) => {
                if let Some(place) = grant.reposition {
                    self.kept.clear();
                    drive.perform(&DriveStep::SpaceRecords(place.records));
                    assert_eq!(place.skip, 0, "not needed here");
                }
                (self.run, self.moved) = (Some(grant), 0);
                None
            }
            MoverCommand::Cancel => {
                self.run.is_some().then(|| self.stop(StopReason::Cancelled)).flatten()
            }
            MoverCommand::CloseConnection { .. } => {
                (self.run, self.stream, self.listener) = (None, None, None);
                None
            }
        }
    }

    fn pump(&mut self, drive: &mut ListDrive) -> Option<MoverEvent> {
        if let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            stream.set_nonblocking(true).unwrap();
            self.stream = Some(stream);
            self.listener = None;
            return Some(MoverEvent::Connected);
        }
        let grant = self.run?;
        match grant.flow {
            Flow::ToTape => self.pump_to_tape(&grant, drive),
            Flow::FromTape => self.pump_from_tape(&grant, drive),
        }
    }

    fn get(&mut self, want: usize) -> Got {
        let mut chunk = vec![0; want];
        match self.stream.as_mut().map(|stream| stream.read(&mut chunk)) {
            Some(Ok(0)) | None => Got::End,
            Some(Ok(count)) => {
                self.kept.extend(&chunk[..count]);
                Got::Bytes
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Got::Nothing,
            Some(Err(_)) => Got::End,
        }
    }

    fn pump_to_tape(&mut self, grant: &Grant, drive: &mut ListDrive) -> Option<MoverEvent> {
        let record = grant.record_size as usize;
        loop {
            let want = record - self.kept.len();
            let over = match if want > 0 { self.get(want) } else { Got::Bytes } {
                Got::End => true,
                Got::Nothing if self.kept.is_empty() => return None,
                _ => false,
            };
            if self.kept.is_empty() {
                return self.stop(StopReason::PeerClosed);
            }
            if grant.limit == Some(self.moved) {
                return self.stop(StopReason::WindowFull);
            }
            if self.kept.len() < record && !over {
                return None;
            }
            let real = self.kept.len() as u64;
            let mut data: Vec<u8> = self.kept.iter().copied().collect();
            data.resize(record, 0);
            let result = drive.perform(&DriveStep::Write(data.into()));
            if result == StepResult::Overflow {
                return self.stop(StopReason::EndOfMedium);
            }
            self.kept.clear();
            self.moved += real;
            self.progress.bytes += real;
            self.progress.records += 1;
            if result == StepResult::EarlyWarning && !grant.past_early_warning {
                return self.stop(StopReason::EndOfMedium);
            }
        }
    }

    fn pump_from_tape(&mut self, grant: &Grant, drive: &mut ListDrive) -> Option<MoverEvent> {
        loop {
            if grant.limit == Some(self.moved) {
                return self.stop(StopReason::LimitReached);
            }
            if self.kept.is_empty() {
                match drive.perform(&DriveStep::Read { max: grant.record_size }) {
                    StepResult::Record { data, .. } => {
                        self.kept.extend(data.iter());
                        self.progress.records += 1;
                    }
                    StepResult::Filemark => {
                        if grant.at_filemark == FilemarkSide::BeginningOfTape {
                            drive.perform(&DriveStep::SpaceFilemarks(-1));
                        }
                        return self.stop(StopReason::Filemark);
                    }
                    StepResult::EndOfData => return self.stop(StopReason::EndOfData),
                    other => panic!("{other:?}"),
                }
            }
            let left = grant.limit.map_or(usize::MAX, |limit| (limit - self.moved) as usize);
            let chunk: Vec<u8> = self.kept.iter().copied().take(left).collect();
            match self.stream.as_mut().map(|stream| stream.write(&chunk)) {
                Some(Ok(count)) => {
                    self.kept.drain(..count);
                    self.moved += count as u64;
                    self.progress.bytes += count as u64;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                _ => return self.stop(StopReason::PeerClosed),
            }
        }
    }
}

/// One control connection.
struct Connection {
    stream: TcpStream,
    session: Session,
    input: Reassembler,
    plane: Plane,
    drives: Drives,
    worn: Arc<AtomicBool>,
    open: String,
}

impl Connection {
    fn new(
        stream: TcpStream,
        config: Arc<SessionConfig>,
        (drives, worn): (Drives, Arc<AtomicBool>),
    ) -> Self {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let session = Session::new(config, [7; 64]);
        let (input, plane) = (Reassembler::new(Limits::default()), Plane::default());
        Self { stream, session, input, plane, drives, worn, open: String::new() }
    }

    fn serve(mut self) {
        self.session.start(0);
        self.settle();
        while !self.session.is_finished() {
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.session.on_disconnect(0),
                Ok(count) => self.input.push(&chunk[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => self.session.on_disconnect(0),
            }
            while let Ok(Some(record)) = self.input.next_record() {
                self.session.on_mover(MoverEvent::Moved(self.plane.progress), 0);
                self.session.on_message(&record, 0);
                self.settle();
            }
            let open = self.open.clone();
            let reads = self.plane.run.is_some_and(|run| run.flow == Flow::FromTape);
            let event = if reads && self.worn.load(Ordering::Relaxed) {
                let failure = Failure::new(FailureKind::Medium, "a worn tape");
                self.plane.stop(StopReason::MediaError(failure))
            } else {
                let mut spare = ListDrive::default();
                let mut drives = self.drives.lock();
                self.plane.pump(drives.get_mut(&open).unwrap_or(&mut spare))
            };
            if let Some(event) = event {
                self.session.on_mover(event, 0);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => drop(self.stream.write_all(&bytes)),
                Output::Device(request) => {
                    let reply = self.device(request);
                    self.session.on_device(reply, 0);
                }
                Output::Mover(command) => {
                    let mut spare = ListDrive::default();
                    let mut drives = self.drives.lock();
                    let drive = drives.get_mut(&self.open).unwrap_or(&mut spare);
                    let event = self.plane.command(command, drive);
                    drop(drives);
                    if let Some(event) = event {
                        self.session.on_mover(event, 0);
                    }
                }
                Output::Close | Output::Finished | Output::Log { .. } => {}
            }
        }
    }

    fn device(&mut self, request: DeviceRequest) -> DeviceReply {
        match request {
            DeviceRequest::OpenTape { name, .. } if self.drives.lock().contains_key(&name) => {
                self.open = name;
                DeviceReply::Done
            }
            DeviceRequest::OpenTape { .. } => {
                DeviceReply::Failed(Failure::new(FailureKind::NoDevice, "no such drive"))
            }
            DeviceRequest::Drive(step) => {
                let mut drives = self.drives.lock();
                DeviceReply::Step(drives.get_mut(&self.open).unwrap().perform(&step))
            }
            DeviceRequest::ExecuteCdb(cdb) => DeviceReply::Cdb(changer(&cdb.cdb, cdb.data_in_max)),
            DeviceRequest::ListTapes | DeviceRequest::ListScsi => DeviceReply::Devices(Vec::new()),
            _ => DeviceReply::Done,
        }
    }
}

/// A changer with one full slot; moves fail, since it has but one.
fn changer(cdb: &Bytes, allocation: u32) -> CdbOutcome {
    let slot = ElementDescriptor {
        address: 1024,
        kind: ElementType::Storage,
        full: true,
        imported: false,
        accessible: true,
        exception: None,
        source: None,
        tag: Some("VTA001L8".to_owned()),
        identity: None,
    };
    match cdb[0] {
        0xb8 => {
            let mut data = ElementReport::encode(&[slot], true, true);
            data.truncate(allocation as usize);
            CdbOutcome { data_in: data.into(), ..CdbOutcome::default() }
        }
        _ => CdbOutcome {
            status: 2,
            sense: scsi::Sense::SOURCE_ELEMENT_EMPTY.to_fixed().to_vec().into(),
            ..CdbOutcome::default()
        },
    }
}
