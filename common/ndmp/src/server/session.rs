//! The session: what comes in, what goes out, and in which order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use xdr::Reader;

use super::config::SessionConfig;
use super::io::{DeviceReply, DeviceRequest, LogLevel, Output};
use crate::mover::{Mover, MoverCommand, MoverEffect, MoverEvent, TapeAccess};
use crate::tape::{Tape, TapeOp};
use crate::wire::{
    ConnectionReason, DecodeError, ErrorCode, Header, LogType, MessageCode, MoverState, Post,
    Reply, Request, TapeOpenMode, Version, bounds,
};

/// One control connection of a tape server.
///
/// The owner calls [`Session::start`] once, then delivers events and carries out what
/// [`Session::poll`] gives until it gives nothing. A message is delivered only while
/// [`Session::is_busy`] says no; device and mover events are delivered as they come.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<SessionConfig>,
    pub(super) challenge: [u8; 64],
    outputs: VecDeque<Output>,
    pub(super) version: Version,
    /// A message other than a refused `NDMP_CONNECT_OPEN` has come.
    pub(super) settled: bool,
    pub(super) authorized: bool,
    pub(super) user: Option<String>,
    pub(super) failed_logins: u32,
    /// Logins are refused unseen.
    pub(super) barred: bool,
    pub(super) login: Option<Login>,
    sequence: u32,
    log_id: u32,
    pub(super) device: Device,
    pub(super) mover: Mover,
    pending: Option<Pending>,
    ending: Ending,
}

/// What the session has open: at most one device (NDMP version 4, 2.11.4).
#[derive(Debug)]
pub(super) enum Device {
    None,
    Tape(Tape),
    Scsi,
}

/// The request being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) code: MessageCode,
    sequence: u32,
}

/// A request that waits for a device or for the data plane.
#[derive(Debug)]
struct Pending {
    asked: Asked,
    stage: Stage,
}

/// How an attempt to log in went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// It was good.
    Accepted,
    /// It was not; the name as the client wrote it, at most 64 characters of it.
    Refused(String),
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Stage {
    /// The drive, to be ours.
    TapeOpen(TapeOpenMode),
    /// A step of the request that the tape has under way.
    TapeStep,
    /// The drive, to be given back; then this reply.
    TapeClose(Reply),
    /// The SCSI device, to be ours.
    ScsiOpen,
    /// The SCSI device, to be given back.
    ScsiClose,
    /// Anything else of the SCSI device, or a list of devices.
    Device,
    /// An event of the data plane.
    Mover,
    /// The flush before the mover's end.
    MoverFlush,
    /// Nobody: the client is gone and the devices are being given back.
    Leaving(Leaving),
}

/// What is being done for a client that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    TapeStep,
    TapeClose,
    ScsiClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Leaving,
    Finished,
}

impl Session {
    /// A session for a connection that was just accepted. `challenge` must be random and used for
    /// no other connection.
    pub fn new(config: Arc<SessionConfig>, challenge: [u8; 64]) -> Self {
        let version = config.versions.iter().copied().max().unwrap_or(Version::V4);
        Self {
            config,
            challenge,
            outputs: VecDeque::new(),
            version,
            settled: false,
            authorized: false,
            user: None,
            failed_logins: 0,
            barred: false,
            login: None,
            sequence: 0,
            log_id: 0,
            device: Device::None,
            mover: Mover::new(version),
            pending: None,
            ending: Ending::No,
        }
    }

    /// Posts `NDMP_NOTIFY_CONNECTION_STATUS` (connected). `now` is the Unix time in seconds, here
    /// and in every other call.
    pub fn start(&mut self, now: u32) {
        self.post_status(ConnectionReason::Connected, "", now);
    }

    /// Instead of [`Session::start`]: tells the client that no session is free, and closes.
    pub fn refuse(&mut self, text: &str, now: u32) {
        self.post_status(ConnectionReason::Refused, text, now);
        self.leave(now);
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether an answer of a device or of the data plane is awaited: no message may be delivered.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the session holds nothing any more: [`Output::Finished`] is given, or next.
    pub fn is_finished(&self) -> bool {
        self.ending == Ending::Finished
    }

    /// The user that logged in: `None` before that, and for `NDMP_AUTH_NONE`.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// How the last attempt to log in went, once.
    pub fn take_login(&mut self) -> Option<Login> {
        self.login.take()
    }

    /// From now on logins are refused, or looked at again. Who is in stays in.
    pub fn bar_logins(&mut self, barred: bool) {
        self.barred = barred;
    }

    /// The version spoken, the highest until the client chooses.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The state of the mover.
    pub fn mover_state(&self) -> MoverState {
        self.mover.state()
    }

    /// A message of the client: one reassembled record. One that comes while the session is busy
    /// breaks the owner's side of the contract and ends the session.
    pub fn on_message(&mut self, record: &Bytes, now: u32) {
        if self.ending != Ending::No {
            return;
        }
        if self.is_busy() {
            self.log(LogLevel::Warn, "a message was delivered out of turn".to_owned());
            return self.leave(now);
        }
        let mut reader = Reader::new(record);
        let header = match Header::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => {
                self.log(LogLevel::Warn, format!("not an NDMP message: {error}"));
                return self.leave(now);
            }
        };
        if header.is_reply {
            return self.log(LogLevel::Debug, format!("{}: a reply to nothing", header.code));
        }
        let asked = Asked { code: header.code, sequence: header.sequence };
        match Request::decode(header.code, self.version, reader) {
            Ok(request) => self.dispatch(asked, request, now),
            Err(error) => {
                self.log(LogLevel::Debug, format!("{}: {error}", header.code));
                let code = match error {
                    DecodeError::NoSuchMessage(_) => ErrorCode::NotSupported,
                    DecodeError::Xdr(_) => ErrorCode::XdrDecode,
                };
                self.reply_header(asked, code, now);
            }
        }
    }

    fn dispatch(&mut self, asked: Asked, request: Request, now: u32) {
        if matches!(request, Request::ConnectOpen(_)) {
            return self.on_connect(asked, request, now);
        }
        self.settled = true;
        let open_to_all = matches!(
            asked.code,
            MessageCode::ConnectClientAuth
                | MessageCode::ConnectClose
                | MessageCode::ConfigGetServerInfo
                | MessageCode::ConfigGetAuthAttr
        );
        if !self.authorized && !open_to_all {
            return self.refuse_request(asked, ErrorCode::NotAuthorized, now);
        }
        match asked.code.to_wire() >> 8 {
            0x1 => self.on_config(asked, &request, now),
            0x2 => self.on_scsi(asked, request, now),
            0x3 => self.on_tape(asked, request, now),
            0x9 => self.on_connect(asked, request, now),
            0xa => self.on_mover_request(asked, request, now),
            // DATA
            _ => self.refuse_request(asked, ErrorCode::NotSupported, now),
        }
    }

    /// The answer to the last [`Output::Device`].
    pub fn on_device(&mut self, reply: DeviceReply, now: u32) {
        let Some(Pending { asked, stage }) = self.pending.take() else {
            return self.log(LogLevel::Warn, "a device answered nothing".to_owned());
        };
        if matches!(stage, Stage::Mover) {
            self.pending = Some(Pending { asked, stage });
            return self.log(LogLevel::Warn, "a device answered nothing".to_owned());
        }
        if let DeviceReply::Failed(failure) = &reply {
            self.log(LogLevel::Warn, format!("{}: {failure}", asked.code));
        }
        match self.ending {
            Ending::No => self.on_device_answer(asked, stage, reply, now),
            Ending::Leaving | Ending::Finished => self.on_device_left(stage, reply, now),
        }
    }

    /// An event of the data plane.
    pub fn on_mover(&mut self, event: MoverEvent, now: u32) {
        self.tell_tape(&event);
        self.log_event(&event);
        let reply = self.mover.on_event(event);
        if self.ending != Ending::No {
            self.drain_mover(now);
            return self.leave(now);
        }
        match (reply, self.pending.take()) {
            (Some(reply), Some(Pending { asked, stage: Stage::Mover })) => {
                self.reply(asked, &reply, now);
            }
            (_, pending) => self.pending = pending,
        }
        self.drain_mover(now);
    }

    fn tell_tape(&mut self, event: &MoverEvent) {
        let Device::Tape(tape) = &mut self.device else { return };
        match (event, self.mover.run()) {
            (MoverEvent::Moved(progress), Some(_)) => tape.run_moved(*progress),
            (MoverEvent::Stopped(reason, progress), Some(grant)) => {
                tape.run_stopped(grant, reason, *progress);
            }
            _ => {}
        }
    }

    fn log_event(&mut self, event: &MoverEvent) {
        use crate::mover::StopReason;
        let failure = match event {
            MoverEvent::ListenFailed(failure)
            | MoverEvent::ConnectFailed(failure)
            | MoverEvent::ConnectionLost(failure)
            | MoverEvent::Stopped(
                StopReason::MediaError(failure)
                | StopReason::ConnectionError(failure)
                | StopReason::Internal(failure),
                _,
            ) => failure,
            _ => return,
        };
        self.log(LogLevel::Warn, format!("mover: {failure}"));
    }

    /// The control connection is gone. The session aborts the mover, writes the filemark that is
    /// due, closes its devices and finishes.
    pub fn on_disconnect(&mut self, now: u32) {
        self.leave(now);
    }

    /// Tells the client something (`NDMP_LOG_MESSAGE`; `NDMP_LOG_LOG` in version 2), at most
    /// 16 KiB of text. Before the version is settled nothing is sent.
    pub fn post_log(&mut self, kind: LogType, text: &str, now: u32) {
        if self.ending != Ending::No || !self.settled {
            return;
        }
        self.log_id = self.log_id.wrapping_add(1);
        let post = Post::Log { kind, id: self.log_id, text: shortened(text), associated: None };
        self.post(&post, now);
    }

    /// The server stops: posts `NDMP_NOTIFY_CONNECTION_STATUS` (shutdown), then ends as by
    /// [`Session::on_disconnect`].
    pub fn shut_down(&mut self, text: &str, now: u32) {
        if self.ending == Ending::No {
            self.post_status(ConnectionReason::Shutdown, text, now);
        }
        self.leave(now);
    }

    /// Ends the session, one step further with every event until nothing is held.
    pub(super) fn leave(&mut self, now: u32) {
        if self.ending == Ending::Finished {
            return;
        }
        if self.ending == Ending::No {
            self.ending = Ending::Leaving;
            self.outputs.push_back(Output::Close);
        }
        let running = self.mover.abandon();
        self.drain_mover(now);
        // Nobody waits for the data plane's answer any more; a device's has to be awaited.
        if matches!(&self.pending, Some(Pending { stage: Stage::Mover, .. })) {
            self.pending = None;
        }
        if running || self.pending.is_some() {
            return;
        }
        match &mut self.device {
            Device::Tape(tape) => {
                let next = tape.begin(TapeOp::Close);
                self.leave_tape(next);
            }
            Device::Scsi => self.leave_by(Leaving::ScsiClose, DeviceRequest::CloseScsi),
            Device::None => {
                self.ending = Ending::Finished;
                self.outputs.push_back(Output::Finished);
            }
        }
    }

    pub(super) fn leave_by(&mut self, leaving: Leaving, request: DeviceRequest) {
        let asked = Asked { code: MessageCode::ConnectClose, sequence: 0 };
        self.ask_device(asked, Stage::Leaving(leaving), request);
    }

    /// The most that the mover may do with the tape.
    pub(super) fn tape_access(&self) -> TapeAccess {
        match &self.device {
            Device::Tape(tape) if tape.is_writable() => TapeAccess::Writable,
            Device::Tape(_) => TapeAccess::ReadOnly,
            Device::None | Device::Scsi => TapeAccess::None,
        }
    }

    pub(super) fn drain_mover(&mut self, now: u32) {
        while let Some(effect) = self.mover.next_effect() {
            match effect {
                MoverEffect::Command(MoverCommand::Run(mut grant)) => {
                    if let Device::Tape(tape) = &mut self.device {
                        grant.past_early_warning = tape.is_past_early_warning();
                        tape.run_started(&grant, self.mover.progress());
                    }
                    self.outputs.push_back(Output::Mover(MoverCommand::Run(grant)));
                }
                MoverEffect::Command(command) => self.outputs.push_back(Output::Mover(command)),
                MoverEffect::Notify(post) if self.ending == Ending::No => {
                    match &post {
                        Post::MoverPaused { reason, seek_position } => {
                            self.log(LogLevel::Debug, format!("{reason} at {seek_position}"));
                        }
                        Post::MoverHalted { reason, text } => {
                            self.log(LogLevel::Info, format!("{reason} {text}"));
                        }
                        _ => {}
                    }
                    self.post(&post, now);
                }
                MoverEffect::Notify(_) => {}
            }
        }
    }

    /// Waits for the data plane.
    pub(super) fn await_mover(&mut self, asked: Asked) {
        self.pending = Some(Pending { asked, stage: Stage::Mover });
    }

    /// Asks a device, and waits.
    pub(super) fn ask_device(&mut self, asked: Asked, stage: Stage, request: DeviceRequest) {
        self.pending = Some(Pending { asked, stage });
        self.outputs.push_back(Output::Device(request));
    }

    pub(super) fn log(&mut self, level: LogLevel, text: String) {
        self.outputs.push_back(Output::Log { level, text });
    }

    /// An error in the body, in the shape of the request's reply.
    pub(super) fn refuse_request(&mut self, asked: Asked, error: ErrorCode, now: u32) {
        self.reply(asked, &Reply::failed(asked.code, error), now);
    }

    /// An error, or that it is done, in the body.
    pub(super) fn answer(&mut self, asked: Asked, result: Result<(), ErrorCode>, now: u32) {
        self.refuse_request(asked, result.err().unwrap_or(ErrorCode::NoErr), now);
    }

    pub(super) fn reply(&mut self, asked: Asked, reply: &Reply, now: u32) {
        self.log(LogLevel::Debug, format!("{}: {}", asked.code, reply.error));
        let version = self.version;
        let header = self.reply_to(asked, ErrorCode::NoErr, now);
        match header.encode(|writer| reply.encode(version, writer)) {
            Ok(bytes) => self.outputs.push_back(Output::Send(bytes)),
            Err(error) => {
                self.log(LogLevel::Warn, format!("{}: can not be answered: {error}", asked.code));
                self.send_bare(Header { error: ErrorCode::XdrEncode, ..header });
            }
        }
    }

    fn reply_header(&mut self, asked: Asked, error: ErrorCode, now: u32) {
        let header = self.reply_to(asked, error, now);
        self.send_bare(header);
    }

    fn reply_to(&mut self, asked: Asked, error: ErrorCode, now: u32) -> Header {
        Header {
            is_reply: true,
            reply_sequence: asked.sequence,
            error: error.in_version(self.version),
            ..self.header(asked.code, now)
        }
    }

    fn header(&mut self, code: MessageCode, now: u32) -> Header {
        self.sequence = self.sequence.wrapping_add(1);
        Header {
            sequence: self.sequence,
            time_stamp: now,
            is_reply: false,
            code,
            reply_sequence: 0,
            error: ErrorCode::NoErr,
        }
    }

    /// A header can always be encoded.
    fn send_bare(&mut self, header: Header) {
        if let Ok(bytes) = header.encode(|_| {}) {
            self.outputs.push_back(Output::Send(bytes));
        }
    }

    fn post(&mut self, post: &Post, now: u32) {
        let version = self.version;
        let header = self.header(post.code(version), now);
        match header.encode(|writer| post.encode(version, writer)) {
            Ok(bytes) => self.outputs.push_back(Output::Send(bytes)),
            Err(error) => self.log(LogLevel::Warn, format!("{}: {error}", header.code)),
        }
    }

    fn post_status(&mut self, reason: ConnectionReason, text: &str, now: u32) {
        let version = self.version.to_wire();
        self.post(&Post::ConnectionStatus { reason, version, text: shortened(text) }, now);
    }
}

/// As much of a text as surely fits its bound, whatever its characters.
fn shortened(text: &str) -> String {
    text.chars().take(bounds::TEXT / 4).collect()
}
