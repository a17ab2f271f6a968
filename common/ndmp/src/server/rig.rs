//! A session with a drive made of a list and a data plane made of a queue, and a client that
//! speaks real messages to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use xdr::Reader;

use super::*;
use crate::mover::{FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, StopReason};
use crate::tape::{DriveStep, Failure, FailureKind, StepResult};
use crate::testing::ListDrive;
use crate::wire::*;

/// The one drive of the rig.
pub(super) const DRIVE: &str = "vl/drive0";
/// The time of all tests.
pub(super) const NOW: u32 = 1_700_000_000;

/// A data connection: bytes on their way, and who has closed it.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) writer_closed: bool,
    pub(super) reader_closed: bool,
}

/// The data plane of one session, as the contract wants it.
#[derive(Debug, Default)]
pub(super) struct Plane {
    pub(super) pipe: Option<Rc<RefCell<Pipe>>>,
    flow: Option<Flow>,
    run: Option<Grant>,
    moved: u64,
    progress: Progress,
    kept: VecDeque<u8>,
    /// What the next dial fails with.
    pub(super) dial_fails: bool,
    /// Ends the next run like this.
    pub(super) stop_with: Option<StopReason>,
}

impl Plane {
    fn start(&mut self, flow: Flow) {
        *self = Self {
            pipe: self.pipe.take(),
            flow: Some(flow),
            stop_with: self.stop_with.take(),
            ..Self::default()
        };
    }

    fn stop(&mut self, reason: StopReason) -> Option<MoverEvent> {
        self.run = None;
        Some(MoverEvent::Stopped(reason, self.progress))
    }

    fn command(&mut self, command: MoverCommand, drive: &mut ListDrive) -> Option<MoverEvent> {
        match command {
            MoverCommand::Listen { flow, addr_type } => {
                self.start(flow);
                Some(MoverEvent::Listening(match addr_type {
                    AddrType::Tcp => Addr::tcp("127.0.0.1:4711".parse().unwrap()),
                    _ => Addr::Local,
                }))
            }
            MoverCommand::Connect { flow, .. } if self.dial_fails => {
                self.start(flow);
                Some(MoverEvent::ConnectFailed(Failure::new(FailureKind::Io, "nobody there")))
            }
            MoverCommand::Connect { flow, .. } => {
                self.start(flow);
                Some(MoverEvent::Connected)
            }
            MoverCommand::Run(grant) => {
                assert!(self.run.is_none(), "two runs at once");
                assert_eq!(Some(grant.flow), self.flow);
                if let Some(place) = grant.reposition {
                    self.kept.clear();
                    drive.perform(&DriveStep::SpaceRecords(place.records));
                    if place.skip > 0 {
                        self.read(&grant, drive);
                        self.kept.drain(..place.skip as usize);
                    }
                }
                (self.run, self.moved) = (Some(grant), 0);
                self.stop_with.take().and_then(|reason| self.stop(reason))
            }
            MoverCommand::Cancel => {
                self.run.is_some().then(|| self.stop(StopReason::Cancelled)).flatten()
            }
            MoverCommand::CloseConnection { .. } => {
                self.run = None;
                if let Some(pipe) = self.pipe.take() {
                    let mut pipe = pipe.borrow_mut();
                    match self.flow {
                        Some(Flow::ToTape) => pipe.reader_closed = true,
                        _ => pipe.writer_closed = true,
                    }
                }
                None
            }
        }
    }

    /// Bytes on their way: a change means that something moved.
    fn waiting(&self) -> Option<usize> {
        self.pipe.as_ref().map(|pipe| pipe.borrow().bytes.len())
    }

    /// Moves what can be moved now.
    fn pump(&mut self, drive: &mut ListDrive) -> Option<MoverEvent> {
        let grant = self.run?;
        let pipe = self.pipe.clone()?;
        match grant.flow {
            Flow::ToTape => self.pump_to_tape(&grant, &mut pipe.borrow_mut(), drive),
            Flow::FromTape => self.pump_from_tape(&grant, &mut pipe.borrow_mut(), drive),
        }
    }

    fn pump_to_tape(
        &mut self,
        grant: &Grant,
        pipe: &mut Pipe,
        drive: &mut ListDrive,
    ) -> Option<MoverEvent> {
        let record = grant.record_size as usize;
        loop {
            let want = record - self.kept.len();
            let take = want.min(pipe.bytes.len());
            self.kept.extend(pipe.bytes.drain(..take));
            let over = pipe.writer_closed && pipe.bytes.is_empty();
            if self.kept.is_empty() {
                return over.then(|| self.stop(StopReason::PeerClosed)).flatten();
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

    fn read(&mut self, grant: &Grant, drive: &mut ListDrive) -> StepResult {
        let result = drive.perform(&DriveStep::Read { max: grant.record_size });
        if let StepResult::Record { data, .. } = &result {
            self.kept.extend(data.iter());
            self.progress.records += 1;
        }
        result
    }

    fn pump_from_tape(
        &mut self,
        grant: &Grant,
        pipe: &mut Pipe,
        drive: &mut ListDrive,
    ) -> Option<MoverEvent> {
        loop {
            if pipe.reader_closed {
                return self.stop(StopReason::PeerClosed);
            }
            // nothing is read ahead of what the other end has taken
            if !pipe.bytes.is_empty() {
                return None;
            }
            if grant.limit == Some(self.moved) {
                return self.stop(StopReason::LimitReached);
            }
            if self.kept.is_empty() {
                match self.read(grant, drive) {
                    StepResult::Record { .. } => {}
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
            let left = grant.limit.map_or(u64::MAX, |limit| limit - self.moved);
            let take = left.min(self.kept.len() as u64);
            pipe.bytes.extend(self.kept.drain(..take as usize));
            self.moved += take;
            self.progress.bytes += take;
        }
    }
}

/// What the client saw.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Reply(Header, Option<Reply>),
    Post(Post),
    Closed,
}

pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) drive: ListDrive,
    pub(super) plane: Plane,
    pub(super) version: Version,
    /// What was sent and not looked at.
    pub(super) seen: VecDeque<Seen>,
    /// Device requests in order, for tests that look.
    pub(super) asked: Vec<DeviceRequest>,
    pub(super) finished: bool,
    /// Answers are held back, for tests of what happens meanwhile.
    pub(super) hold: bool,
    pub(super) held: VecDeque<Output>,
    sequence: u32,
}

pub(super) fn config() -> SessionConfig {
    let mut users = Users::new();
    users.insert(
        "ndmp",
        User { secret: Secret::new("ndmp"), methods: vec![AuthType::Text, AuthType::Md5] },
    );
    let identity =
        Identity { hostname: "alpha".into(), vendor: "Twinreel".into(), ..Identity::default() };
    SessionConfig { versions: Version::ALL.to_vec(), users, identity }
}

pub(super) fn challenge() -> [u8; 64] {
    std::array::from_fn(|at| at as u8)
}

impl Rig {
    /// A connection that nothing was said on.
    pub(super) fn raw() -> Self {
        let mut rig = Self {
            session: Session::new(Arc::new(config()), challenge()),
            drive: ListDrive::with_tape(),
            plane: Plane::default(),
            version: Version::V4,
            seen: VecDeque::new(),
            asked: Vec::new(),
            finished: false,
            hold: false,
            held: VecDeque::new(),
            sequence: 0,
        };
        rig.session.start(NOW);
        rig.settle();
        rig
    }

    /// A connection that is logged in.
    pub(super) fn new(version: Version) -> Self {
        let mut rig = Self::raw();
        rig.seen.clear();
        assert_eq!(rig.ask(Request::ConnectOpen(version.to_wire())), ErrorCode::NoErr);
        rig.version = version;
        let digest = crate::auth::md5_digest(b"ndmp", &challenge()).unwrap();
        let data = AuthData::Md5 { id: "ndmp".into(), digest };
        assert_eq!(rig.ask(Request::ConnectClientAuth(data)), ErrorCode::NoErr);
        rig
    }

    /// Logged in, with the drive open and a record size set.
    pub(super) fn with_tape(version: Version, mode: TapeOpenMode) -> Self {
        let mut rig = Self::new(version);
        assert_eq!(rig.open(mode), ErrorCode::NoErr);
        assert_eq!(rig.ask(Request::MoverSetRecordSize(10)), ErrorCode::NoErr);
        rig
    }

    pub(super) fn open(&mut self, mode: TapeOpenMode) -> ErrorCode {
        self.ask(Request::TapeOpen { device: DRIVE.into(), mode })
    }

    /// Sends a request and returns the sequence it had.
    pub(super) fn send(&mut self, request: &Request) -> u32 {
        self.sequence += 1;
        let header = Header {
            sequence: self.sequence,
            time_stamp: NOW,
            is_reply: false,
            code: request.code(),
            reply_sequence: 0,
            error: ErrorCode::NoErr,
        };
        let framed = header.encode(|writer| request.encode(self.version, writer)).unwrap();
        self.deliver(&framed.slice(4..));
        self.sequence
    }

    pub(super) fn deliver(&mut self, record: &Bytes) {
        self.session.on_message(record, NOW);
        self.settle();
    }

    /// The reply to a request. It must be the first thing that was sent since.
    pub(super) fn call(&mut self, request: Request) -> Reply {
        assert_eq!(self.seen, [], "unexpected before {:?}", request.code());
        let sequence = self.send(&request);
        match self.seen.pop_front() {
            Some(Seen::Reply(header, Some(reply))) => {
                assert_eq!(header.reply_sequence, sequence);
                assert_eq!(header.code, request.code());
                reply
            }
            other => panic!("{:?}: {other:?}", request.code()),
        }
    }

    /// The error of the reply.
    pub(super) fn ask(&mut self, request: Request) -> ErrorCode {
        self.call(request).error
    }

    pub(super) fn bare(&mut self, code: MessageCode) -> ErrorCode {
        self.ask(Request::Bare(code))
    }

    pub(super) fn mover(&mut self) -> MoverReport {
        self.session.on_mover(MoverEvent::Moved(self.plane.progress), NOW);
        let reply = self.call(Request::Bare(MessageCode::MoverGetState));
        let ReplyBody::Mover(report) = reply.body else { panic!("{reply:?}") };
        report
    }

    pub(super) fn tape_state(&mut self) -> TapeState {
        let reply = self.call(Request::Bare(MessageCode::TapeGetState));
        let ReplyBody::TapeState(state) = reply.body else { panic!("{reply:?}") };
        state
    }

    /// The notification that must have come.
    pub(super) fn post(&mut self) -> Post {
        match self.seen.pop_front() {
            Some(Seen::Post(post)) => post,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn event(&mut self, event: MoverEvent) {
        self.session.on_mover(event, NOW);
        self.settle();
    }

    /// Lets the data plane move what it can. Whether anything moved or happened.
    pub(super) fn pump(&mut self) -> bool {
        let waiting = self.plane.waiting();
        match self.plane.pump(&mut self.drive) {
            Some(event) => {
                self.event(event);
                true
            }
            None => self.plane.waiting() != waiting,
        }
    }

    /// Carries out everything that the session wants.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => self.receive(&bytes),
                Output::Close => self.seen.push_back(Seen::Closed),
                Output::Finished => self.finished = true,
                Output::Log { text, .. } => assert!(!text.contains("hunter2")),
                output if self.hold => self.held.push_back(output),
                output => self.carry_out(output),
            }
        }
    }

    /// Carries out one thing that was held back.
    pub(super) fn release(&mut self) {
        let output = self.held.pop_front().unwrap();
        self.carry_out(output);
        self.settle();
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Device(request) => {
                self.asked.push(request.clone());
                let reply = self.device(request);
                self.session.on_device(reply, NOW);
            }
            Output::Mover(command) => {
                if let Some(event) = self.plane.command(command, &mut self.drive) {
                    self.session.on_mover(event, NOW);
                }
            }
            _ => unreachable!(),
        }
    }

    fn device(&mut self, request: DeviceRequest) -> DeviceReply {
        let entry = |name: &str| DeviceEntry {
            model: "TWINREEL VT".into(),
            device: name.into(),
            properties: vec![("serial".into(), "1".into())],
        };
        match request {
            DeviceRequest::OpenTape { name, .. } if name == DRIVE => DeviceReply::Done,
            DeviceRequest::OpenScsi { name } if name == "vl/changer" => DeviceReply::Done,
            DeviceRequest::OpenTape { .. } | DeviceRequest::OpenScsi { .. } => {
                DeviceReply::Failed(Failure::new(FailureKind::NoDevice, "no such device"))
            }
            DeviceRequest::CloseTape | DeviceRequest::CloseScsi | DeviceRequest::ResetScsi => {
                DeviceReply::Done
            }
            DeviceRequest::Drive(step) => DeviceReply::Step(self.drive.perform(&step)),
            DeviceRequest::ExecuteCdb(cdb) => DeviceReply::Cdb(CdbOutcome {
                status: 2,
                data_in: vec![9; cdb.data_in_max as usize].into(),
                sense: Bytes::from_static(&[0x70]),
                ..CdbOutcome::default()
            }),
            DeviceRequest::ListTapes => DeviceReply::Devices(vec![entry(DRIVE), entry("x")]),
            DeviceRequest::ListScsi => DeviceReply::Devices(vec![entry("vl/changer")]),
        }
    }

    fn receive(&mut self, framed: &Bytes) {
        let record = framed.slice(4..);
        assert_eq!(framed[..4], (record.len() as u32 | 0x8000_0000).to_be_bytes());
        let mut reader = Reader::new(&record);
        let header = Header::decode(&mut reader).unwrap();
        let version = self.session.version();
        let seen = if !header.is_reply {
            Seen::Post(Post::decode(header.code, version, reader).unwrap())
        } else if header.error == ErrorCode::NoErr {
            let reply = Reply::decode(header.code, version, reader).unwrap();
            Seen::Reply(header, Some(reply))
        } else {
            reader.finish().unwrap();
            Seen::Reply(header, None)
        };
        self.seen.push_back(seen);
    }
}
