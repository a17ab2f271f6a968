//! The owner of a session, with a drive made of a list and a data plane that may do anything which
//! its contract allows; and what the session promises.

use std::sync::Arc;

use bytes::Bytes;
use fuzz::Input;
use ndmp::mover::{Flow, Grant, MoverCommand, MoverEvent, Progress, StopReason};
use ndmp::server::{
    CdbOutcome, DeviceEntry, DeviceReply, DeviceRequest, Identity, Output, Secret, Session,
    SessionConfig, User, Users,
};
use ndmp::tape::{DriveStep, Failure, FailureKind, SpaceEnd, StepResult};
use ndmp::testing::ListDrive;
use ndmp::wire::{
    Addr, AuthType, ErrorCode, Header, LogType, MessageCode, MoverState, Post, Reply, Request,
    TapeOpenMode, Version, bounds,
};
use xdr::Reader;

use crate::request::{USER, message};

/// Outputs that one event may cause.
const OUTPUTS_MAX: usize = 24;
/// Steps to the end, whatever was going on.
const ENDING_MAX: usize = 40;
/// Filemarks that the list drive is asked to write at once.
const MARKS_MAX: u32 = 64;

const FAILURES: [FailureKind; 12] = [
    FailureKind::NoDevice,
    FailureKind::Busy,
    FailureKind::Denied,
    FailureKind::NoMedium,
    FailureKind::WriteProtected,
    FailureKind::MediumChanged,
    FailureKind::Reset,
    FailureKind::Medium,
    FailureKind::Refused,
    FailureKind::TimedOut,
    FailureKind::Cancelled,
    FailureKind::Io,
];

/// The data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    None,
    /// LISTEN or CONNECT is not answered yet.
    Asked {
        listen: bool,
        flow: Flow,
    },
    Listening(Flow),
    Connected(Flow),
}

/// What the session has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    Tape { writable: bool },
    Scsi,
}

pub(crate) struct Model {
    session: Session,
    drive: ListDrive,
    /// The device request that is not answered yet.
    asked: Option<DeviceRequest>,
    held: Held,
    link: Link,
    run: Option<Grant>,
    /// Bytes of the run under way.
    moved: u64,
    progress: Progress,
    /// The request that has no reply yet.
    waiting: Option<(u32, MessageCode)>,
    sequence: u32,
    closed: bool,
    finished: bool,
    state: MoverState,
}

fn failure(input: &mut Input<'_>) -> Failure {
    Failure::new(*input.pick(&FAILURES), "made to fail")
}

fn config() -> SessionConfig {
    let mut users = Users::new();
    let methods = vec![AuthType::Text, AuthType::Md5];
    users.insert(USER, User { secret: Secret::new("ndmp"), methods });
    SessionConfig { versions: Version::ALL.to_vec(), users, identity: Identity::default() }
}

impl Model {
    /// A new connection; from 1 on somebody has logged in, in one of the versions.
    pub(crate) fn new(start: u8) -> Self {
        let mut model = Self {
            session: Session::new(Arc::new(config()), [9; 64]),
            drive: ListDrive { warning: Some((600, 900)), ..ListDrive::with_tape() },
            asked: None,
            held: Held::Nothing,
            link: Link::None,
            run: None,
            moved: 0,
            progress: Progress::default(),
            waiting: None,
            sequence: 0,
            closed: false,
            finished: false,
            state: MoverState::Idle,
        };
        model.session.start(0);
        model.settle();
        if start > 0 {
            let version = Version::ALL[usize::from(start - 1) % 3];
            model.ask(&Request::ConnectOpen(version.to_wire()));
            let data =
                ndmp::wire::AuthData::Text { id: USER.into(), password: b"ndmp".to_vec().into() };
            model.ask(&Request::ConnectClientAuth(data));
        }
        model
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    fn ask(&mut self, request: &Request) {
        let header = Header {
            sequence: self.sequence.wrapping_add(1),
            time_stamp: 0,
            is_reply: false,
            code: request.code(),
            reply_sequence: 0,
            error: ErrorCode::NoErr,
        };
        let version = self.session.version();
        let framed = header.encode(|writer| request.encode(version, writer)).expect("it is short");
        self.deliver(framed.slice(4..));
    }

    /// One thing that happens.
    pub(crate) fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0 => self.session.on_disconnect(0),
            1 => self.session.shut_down("the server stops", 0),
            2 => {
                let text = "\u{1f4fc}".repeat(usize::from(input.u8()) * 80);
                self.session.post_log(LogType::Normal, &text, 0);
            }
            3 => self.session.bar_logins(input.flag()),
            4..12 => self.plane(input),
            12..18 => self.answer(input),
            // An event that has nothing to do with anything.
            18 if !matches!(self.link, Link::Asked { .. }) => {
                let event = stray(input);
                self.session.on_mover(event, 0);
            }
            19 if self.asked.is_none() => self.session.on_device(DeviceReply::Done, 0),
            _ if self.session.is_busy() => self.answer(input),
            _ => {
                let version = self.session.version();
                let record = message(input, self.sequence.wrapping_add(1), version);
                return self.deliver(record.into());
            }
        }
        self.settle();
    }

    fn deliver(&mut self, record: Bytes) {
        if self.session.is_busy() || self.closed {
            return;
        }
        // The owner says how far the mover is before each message.
        if self.run.is_some() {
            self.session.on_mover(MoverEvent::Moved(self.progress), 0);
        }
        self.settle();
        let header = Header::decode(&mut Reader::new(&record));
        if let Ok(header) = header
            && !header.is_reply
        {
            self.sequence = header.sequence;
            self.waiting = Some((header.sequence, header.code));
        }
        self.session.on_message(&record, 0);
        self.settle();
        assert!(
            self.waiting.is_none() || self.session.is_busy() || self.closed,
            "{:?} has no answer",
            self.waiting
        );
    }

    /// The device answers what it was asked last.
    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(request) = self.asked.take() else { return self.plane(input) };
        let fails = input.below(6) == 1;
        let failed = || DeviceReply::Failed(Failure::new(FailureKind::Io, "made to fail"));
        let reply = match request {
            DeviceRequest::OpenTape { .. } | DeviceRequest::OpenScsi { .. } if fails => {
                DeviceReply::Failed(failure(input))
            }
            DeviceRequest::OpenTape { mode, .. } => {
                let writable = matches!(mode, TapeOpenMode::ReadWrite | TapeOpenMode::Raw);
                self.held = Held::Tape { writable };
                DeviceReply::Done
            }
            DeviceRequest::OpenScsi { .. } => {
                self.held = Held::Scsi;
                DeviceReply::Done
            }
            DeviceRequest::CloseTape | DeviceRequest::CloseScsi => {
                self.held = Held::Nothing;
                if fails { failed() } else { DeviceReply::Done }
            }
            DeviceRequest::Drive(_) if fails => match input.below(3) {
                0 => DeviceReply::Step(StepResult::Failed(failure(input))),
                1 => DeviceReply::Step(odd_result(input)),
                _ => failed(),
            },
            DeviceRequest::Drive(DriveStep::Filemarks(MARKS_MAX..)) => {
                let refused = Failure::new(FailureKind::Refused, "too many");
                DeviceReply::Step(StepResult::Failed(refused))
            }
            DeviceRequest::Drive(step) => DeviceReply::Step(self.drive.perform(&step)),
            _ if fails => failed(),
            DeviceRequest::ResetScsi => DeviceReply::Done,
            DeviceRequest::ExecuteCdb(cdb) => DeviceReply::Cdb(CdbOutcome {
                status: input.u8(),
                data_out_moved: cdb.data_out.len() as u32,
                data_in: vec![9; cdb.data_in_max.min(5000) as usize].into(),
                sense: input.bytes(false),
            }),
            DeviceRequest::ListTapes | DeviceRequest::ListScsi => {
                DeviceReply::Devices(vec![entry(); input.below(9).into()])
            }
        };
        self.session.on_device(reply, 0);
    }

    /// Carries out what the session wants, and checks it.
    fn settle(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.session.poll() {
            outputs += 1;
            assert!(outputs <= OUTPUTS_MAX, "an event causes more and more");
            assert!(!self.finished, "{output:?} after the end");
            match output {
                Output::Send(bytes) => self.sent(&bytes),
                Output::Close => {
                    assert!(!self.closed, "closed twice");
                    self.closed = true;
                    // Who is gone gets no answer.
                    self.waiting = None;
                }
                Output::Device(request) => self.on_device(request),
                Output::Mover(command) => self.on_command(command),
                Output::Log { text, .. } => {
                    assert!(text.len() < 10_000 && !text.contains('\u{1b}'), "{text}");
                }
                Output::Finished => {
                    let rest = (self.asked.clone(), self.held, self.link, self.run);
                    assert_eq!(rest, (None, Held::Nothing, Link::None, None), "still held");
                    self.finished = true;
                }
            }
        }
        let busy = self.session.is_busy();
        let asked = matches!(self.link, Link::Asked { .. }) || self.run.is_some();
        assert!(!busy || self.asked.is_some() || asked, "busy with nothing");
        assert!(busy || self.asked.is_none(), "a device is asked for nobody");
        self.check_state();
    }

    fn sent(&mut self, framed: &Bytes) {
        assert!(!self.closed, "sent behind the end");
        assert!(framed.len() <= bounds::MESSAGE + 4);
        let record = framed.slice(4..);
        assert_eq!(framed[..4], (record.len() as u32 | 0x8000_0000).to_be_bytes());
        let mut reader = Reader::new(&record);
        let header = Header::decode(&mut reader).expect("a header");
        let version = self.session.version();
        if !header.is_reply {
            Post::decode(header.code, version, reader).expect("a notification");
            return;
        }
        let answered = self.waiting.take();
        assert_eq!(answered, Some((header.reply_sequence, header.code)), "an answer to nothing");
        match header.error {
            ErrorCode::NoErr => drop(Reply::decode(header.code, version, reader).expect("a reply")),
            _ => reader.finish().expect("no body"),
        }
    }

    fn on_device(&mut self, request: DeviceRequest) {
        assert_eq!(self.asked, None, "two things at once");
        let list = matches!(request, DeviceRequest::ListTapes | DeviceRequest::ListScsi);
        assert!(list || self.run.is_none(), "{request:?} while the mover has the tape");
        let right = match &request {
            DeviceRequest::OpenTape { .. } | DeviceRequest::OpenScsi { .. } => {
                self.held == Held::Nothing
            }
            DeviceRequest::CloseTape => matches!(self.held, Held::Tape { .. }),
            DeviceRequest::Drive(step) => match (self.held, step) {
                (Held::Tape { writable }, DriveStep::Write(_) | DriveStep::Filemarks(1..)) => {
                    writable
                }
                (held, _) => matches!(held, Held::Tape { .. }),
            },
            DeviceRequest::CloseScsi | DeviceRequest::ResetScsi => self.held == Held::Scsi,
            DeviceRequest::ExecuteCdb(cdb) => {
                self.held == Held::Scsi
                    && (1..=bounds::CDB).contains(&cdb.cdb.len())
                    && cdb.data_in_max as usize <= bounds::DATA
            }
            DeviceRequest::ListTapes | DeviceRequest::ListScsi => true,
        };
        assert!(right, "{request:?} with {:?}", self.held);
        self.asked = Some(request);
    }

    /// Only the moves of the standard (NDMP version 4, figure 5), several of them if need be.
    fn check_state(&mut self) {
        use MoverState::{Active, Halted, Idle, Listen, Paused};
        let (from, to) = (self.state, self.session.mover_state());
        self.state = to;
        let legal = match (from, to) {
            (Idle, to) => matches!(to, Idle | Listen | Active | Paused),
            (Listen, to) => to != Idle,
            (Active | Paused, to) => matches!(to, Active | Paused | Halted),
            (Halted, to) => matches!(to, Halted | Idle),
            _ => false,
        };
        assert!(legal || self.closed, "{from:?} becomes {to:?}");
    }

    /// The client goes; the session comes to its end.
    pub(crate) fn end(&mut self, input: &mut Input<'_>) {
        self.session.on_disconnect(0);
        self.settle();
        for _ in 0..ENDING_MAX {
            if self.finished {
                return;
            }
            match (&self.asked, self.run.take()) {
                (Some(_), run) => {
                    self.run = run;
                    self.answer(input);
                }
                (None, Some(_)) => {
                    let stopped = MoverEvent::Stopped(StopReason::Cancelled, self.progress);
                    self.session.on_mover(stopped, 0);
                }
                (None, None) => {}
            }
            self.settle();
        }
        panic!("no end: {:?} {:?} {:?}", self.asked, self.held, self.link);
    }

    fn on_command(&mut self, command: MoverCommand) {
        match command {
            MoverCommand::Listen { flow, .. } | MoverCommand::Connect { flow, .. } => {
                assert_eq!((self.link, self.run), (Link::None, None));
                let listen = matches!(command, MoverCommand::Listen { .. });
                self.link = Link::Asked { listen, flow };
                self.progress = Progress::default();
            }
            MoverCommand::Run(grant) => {
                assert_eq!((self.link, self.run), (Link::Connected(grant.flow), None));
                assert!(grant.record_size > 0 && grant.record_size as usize <= bounds::DATA);
                if grant.flow == Flow::ToTape {
                    let record = u64::from(grant.record_size);
                    assert!(grant.limit.is_none_or(|limit| limit % record == 0), "{grant:?}");
                    assert_eq!(self.held, Held::Tape { writable: true });
                }
                assert!(matches!(self.held, Held::Tape { .. }));
                (self.run, self.moved) = (Some(grant), 0);
            }
            // One that crosses a `Stopped` is answered by that.
            MoverCommand::Cancel => {}
            MoverCommand::CloseConnection { .. } => {
                assert!(self.link != Link::None && self.run.is_none(), "{:?}", self.link);
                self.link = Link::None;
            }
        }
    }

    /// An event of the data plane that its contract allows now.
    fn plane(&mut self, input: &mut Input<'_>) {
        let fails = input.below(5) == 1;
        let event = match self.link {
            Link::None => return,
            Link::Asked { listen: true, flow: _ } if fails => {
                self.link = Link::None;
                MoverEvent::ListenFailed(failure(input))
            }
            Link::Asked { listen: true, flow } => {
                self.link = Link::Listening(flow);
                MoverEvent::Listening(Addr::tcp("127.0.0.1:4711".parse().expect("an address")))
            }
            Link::Asked { listen: false, flow: _ } if fails => {
                self.link = Link::None;
                MoverEvent::ConnectFailed(failure(input))
            }
            Link::Listening(_) if fails => MoverEvent::ConnectionLost(failure(input)),
            Link::Asked { listen: false, flow } | Link::Listening(flow) => {
                self.link = Link::Connected(flow);
                MoverEvent::Connected
            }
            Link::Connected(flow) => match self.run {
                Some(grant) => self.run_on(grant, input),
                None if fails => MoverEvent::ConnectionLost(failure(input)),
                None if flow == Flow::FromTape && input.flag() => MoverEvent::PeerClosed,
                None => return,
            },
        };
        self.session.on_mover(event, 0);
    }

    /// Data moves, and perhaps the run ends.
    fn run_on(&mut self, grant: Grant, input: &mut Input<'_>) -> MoverEvent {
        let room = grant.limit.map_or(u64::MAX, |limit| limit - self.moved);
        let records = u64::from(input.below(4));
        let bytes = match input.below(4) {
            // The last record of a stream is short; only the end of the stream follows.
            0 => (records * u64::from(grant.record_size)).min(room),
            _ => room.min(1 << 40),
        };
        let bytes = bytes.min(u64::MAX - self.progress.bytes);
        self.moved += bytes;
        self.progress.bytes += bytes;
        self.progress.records += records;
        let full = grant.limit == Some(self.moved);
        let reason = match (input.below(12), grant.flow) {
            (0..3, _) => return MoverEvent::Moved(self.progress),
            (3, Flow::ToTape) => StopReason::EndOfMedium,
            (4, Flow::FromTape) => StopReason::Filemark,
            (5, Flow::FromTape) => StopReason::EndOfData,
            (6, _) => StopReason::PeerClosed,
            (7, _) => StopReason::MediaError(failure(input)),
            (8, _) => StopReason::ConnectionError(failure(input)),
            (9, _) => StopReason::Internal(failure(input)),
            (10, _) => StopReason::Cancelled,
            (_, Flow::ToTape) if full => StopReason::WindowFull,
            (_, Flow::FromTape) if full => StopReason::LimitReached,
            _ => return MoverEvent::Moved(self.progress),
        };
        self.run = None;
        MoverEvent::Stopped(reason, self.progress)
    }
}

fn entry() -> DeviceEntry {
    DeviceEntry {
        model: "TWINREEL VT".into(),
        device: "vl/drive0".into(),
        properties: vec![("serial".into(), "1".into())],
    }
}

/// What belongs to another step.
fn odd_result(input: &mut Input<'_>) -> StepResult {
    match input.below(8) {
        0 => StepResult::Done,
        1 => StepResult::Filemark,
        2 => StepResult::EndOfData,
        3 => StepResult::Overflow,
        4 => StepResult::Spaced { residual: input.number(), stop: SpaceEnd::BeginningOfTape },
        5 => StepResult::Position { file: input.number(), at_bot: input.flag() },
        6 => StepResult::Record { length: input.number(), data: input.bytes(false) },
        _ => StepResult::EarlyWarning,
    }
}

/// What belongs to a connection that is no more.
fn stray(input: &mut Input<'_>) -> MoverEvent {
    match input.below(3) {
        0 => MoverEvent::Moved(Progress::default()),
        1 => MoverEvent::ListenFailed(failure(input)),
        _ => MoverEvent::ConnectFailed(failure(input)),
    }
}
