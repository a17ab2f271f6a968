//! States, requests and events.

use std::collections::VecDeque;

use super::command::{
    FilemarkSide, Flow, Grant, MoverCommand, MoverEvent, Progress, Reposition, StopReason,
};
use super::window::{Reading, Window};
use crate::wire::{
    Addr, AddrType, ErrorCode, HaltReason, MessageCode, MoverMode, MoverReport, MoverState,
    PauseReason, Post, Reply, ReplyBody, Version,
};

/// What follows from a request, after its reply and in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoverEffect {
    /// For the data plane.
    Command(MoverCommand),
    /// For the client.
    Notify(Post),
}

/// What the session has in the way of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapeAccess {
    /// No drive is open.
    None,
    /// Open for reading.
    ReadOnly,
    /// Open for reading and writing.
    Writable,
}

/// The request that waits for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Listen(Flow),
    Connect(Flow),
    /// A `MOVER_READ` that came while the run of the one before was ending.
    Read(u64, u64),
    Abort,
}

/// The mover of one control connection.
///
/// Methods that begin a request return its error, or its whole reply if it can be given at once.
/// What else follows is taken from [`Mover::next_effect`], after the reply.
#[derive(Debug)]
pub struct Mover {
    version: Version,
    state: MoverState,
    pause: PauseReason,
    halt: HaltReason,
    flow: Option<Flow>,
    record_size: u32,
    window: Window,
    /// What had moved when the window was set.
    window_start: Progress,
    /// Where the tape stands, in records from the start of the window.
    tape_record: i64,
    /// The next run must not go on with what the last one kept of a record.
    displaced: bool,
    /// Stream offset of the next byte when `base_bytes` had moved.
    base: u64,
    base_bytes: u64,
    progress: Progress,
    seek_position: u64,
    reading: Option<Reading>,
    addr: Option<Addr>,
    run: Option<Grant>,
    /// Records that had moved when the run began.
    run_records: u64,
    waiting: Option<Waiting>,
    effects: VecDeque<MoverEffect>,
}

impl Mover {
    /// An idle mover.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            state: MoverState::Idle,
            pause: PauseReason::NotApplicable,
            halt: HaltReason::NotApplicable,
            flow: None,
            record_size: 0,
            window: Window::default(),
            window_start: Progress::default(),
            tape_record: 0,
            displaced: true,
            base: 0,
            base_bytes: 0,
            progress: Progress::default(),
            seek_position: 0,
            reading: None,
            addr: None,
            run: None,
            run_records: 0,
            waiting: None,
            effects: VecDeque::new(),
        }
    }

    /// What follows next.
    pub fn next_effect(&mut self) -> Option<MoverEffect> {
        self.effects.pop_front()
    }

    /// Whether the tape belongs to the mover: requests of the TAPE interface but the state are
    /// illegal (NDMP version 4, 2.11.4).
    pub fn holds_tape(&self) -> bool {
        matches!(self.state, MoverState::Listen | MoverState::Active)
            || matches!(self.waiting, Some(Waiting::Listen(_) | Waiting::Connect(_)))
    }

    /// The run under way.
    pub fn run(&self) -> Option<&Grant> {
        self.run.as_ref()
    }

    /// What has moved since the mover left IDLE.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether a request waits for an event.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The state.
    pub fn state(&self) -> MoverState {
        self.state
    }

    /// Which way, once that is known.
    pub fn flow(&self) -> Option<Flow> {
        self.flow
    }

    /// `NDMP_MOVER_GET_STATE`.
    pub fn report(&self) -> MoverReport {
        let record = u64::from(self.record_size.max(1));
        let records = self.progress.records.saturating_sub(self.window_start.records);
        let record_num = (self.window.offset / record).saturating_add(records);
        MoverReport {
            mode: match self.flow {
                None => MoverMode::NoAction,
                Some(Flow::ToTape) => MoverMode::Read,
                Some(Flow::FromTape) => MoverMode::Write,
            },
            state: self.state,
            pause_reason: self.pause,
            halt_reason: self.halt,
            record_size: self.record_size,
            record_num: u32::try_from(record_num).unwrap_or(u32::MAX),
            bytes_moved: self.progress.bytes,
            seek_position: self.seek_position,
            // Nothing is left when the run is over: what is seen of its progress is rounded up.
            bytes_left_to_read: self
                .reading
                .map_or(0, |read| read.left(self.position()).max(self.run.is_some().into())),
            window_offset: self.window.offset,
            window_length: self.window.length,
            addr: self.addr.clone().unwrap_or(Addr::Local),
        }
    }

    /// Stream offset of the next byte.
    fn position(&self) -> u64 {
        self.base.saturating_add(self.progress.bytes.saturating_sub(self.base_bytes))
    }

    fn set_position(&mut self, position: u64) {
        self.base = position;
        self.base_bytes = self.progress.bytes;
    }

    /// `NDMP_MOVER_SET_RECORD_SIZE`.
    pub fn set_record_size(&mut self, size: u32) -> Result<(), ErrorCode> {
        if self.state != MoverState::Idle {
            return Err(ErrorCode::IllegalState);
        }
        if size == 0 || size as usize > crate::wire::bounds::DATA {
            return Err(ErrorCode::IllegalArgs);
        }
        self.record_size = size;
        self.put_window(Window::default());
        Ok(())
    }

    /// `NDMP_MOVER_SET_WINDOW`.
    pub fn set_window(&mut self, offset: u64, length: u64) -> Result<(), ErrorCode> {
        let before_start = match self.state {
            MoverState::Idle => true,
            MoverState::Listen if self.version < Version::V4 => true,
            MoverState::Paused => false,
            _ => return Err(ErrorCode::IllegalState),
        };
        let window = Window { offset, length };
        window.check(self.record_size, self.flow, before_start)?;
        self.put_window(window);
        Ok(())
    }

    fn put_window(&mut self, window: Window) {
        self.window = window;
        self.window_start = self.progress;
        self.tape_record = 0;
        self.displaced = true;
        if self.flow != Some(Flow::FromTape) {
            self.set_position(window.offset);
        }
    }

    /// Begins `NDMP_MOVER_LISTEN`; the reply comes with an event.
    pub fn listen(
        &mut self,
        mode: MoverMode,
        addr_type: AddrType,
        tape: TapeAccess,
    ) -> Result<(), ErrorCode> {
        let served = matches!(addr_type, AddrType::Local | AddrType::Tcp);
        let flow = self.check_start(mode, served, tape)?;
        self.waiting = Some(Waiting::Listen(flow));
        self.command(MoverCommand::Listen { flow, addr_type });
        Ok(())
    }

    /// Begins `NDMP_MOVER_CONNECT`; the reply comes with an event.
    pub fn connect(
        &mut self,
        mode: MoverMode,
        addr: Addr,
        tape: TapeAccess,
    ) -> Result<(), ErrorCode> {
        let served = match &addr {
            Addr::Local => true,
            Addr::Tcp(list) => !list.is_empty(),
            Addr::Other(_) => false,
        };
        let flow = self.check_start(mode, served, tape)?;
        self.addr = Some(addr.clone());
        self.waiting = Some(Waiting::Connect(flow));
        self.command(MoverCommand::Connect { flow, addr });
        Ok(())
    }

    /// In the order that ndmjob's test set wants.
    fn check_start(
        &mut self,
        mode: MoverMode,
        addr_served: bool,
        tape: TapeAccess,
    ) -> Result<Flow, ErrorCode> {
        let flow = match mode {
            MoverMode::Read => Flow::ToTape,
            MoverMode::Write => Flow::FromTape,
            MoverMode::NoAction | MoverMode::Unknown(_) => return Err(ErrorCode::IllegalArgs),
        };
        match (tape, flow) {
            _ if !addr_served => Err(ErrorCode::IllegalArgs),
            _ if self.state != MoverState::Idle => Err(ErrorCode::IllegalState),
            (TapeAccess::None, _) => Err(ErrorCode::DevNotOpen),
            (TapeAccess::ReadOnly, Flow::ToTape) => Err(ErrorCode::Permission),
            _ if self.record_size == 0 => Err(ErrorCode::Precondition),
            _ => Ok(flow),
        }
    }

    fn start(&mut self, flow: Flow, state: MoverState) {
        self.flow = Some(flow);
        self.state = state;
        self.progress = Progress::default();
        self.put_window(self.window);
        if flow == Flow::FromTape {
            self.set_position(self.window.offset);
        }
    }

    /// `NDMP_MOVER_READ`. Where everything of the one before is sent and only its run has not
    /// ended yet, the reply waits for that: `false`.
    pub fn read(&mut self, offset: u64, length: u64) -> Result<bool, ErrorCode> {
        if self.state != MoverState::Active || self.flow != Some(Flow::FromTape) {
            return Err(ErrorCode::IllegalState);
        }
        let reading = Reading::new(offset, length)?;
        if let Some(before) = self.reading {
            if self.run.is_none() || before.left(self.position()) > 0 {
                return Err(ErrorCode::ReadInProgress);
            }
            self.waiting = Some(Waiting::Read(offset, length));
            return Ok(false);
        }
        self.displaced |= offset != self.position();
        self.reading = Some(reading);
        self.seek_position = offset;
        self.set_position(offset);
        self.proceed();
        Ok(true)
    }

    /// `NDMP_MOVER_CONTINUE`.
    pub fn resume(&mut self, tape: TapeAccess) -> Result<(), ErrorCode> {
        match (self.state, self.flow, tape) {
            (MoverState::Paused, _, TapeAccess::None) => return Err(ErrorCode::DevNotOpen),
            (MoverState::Paused, Some(Flow::ToTape), TapeAccess::ReadOnly) => {
                return Err(ErrorCode::Permission);
            }
            (MoverState::Paused, ..) => {}
            _ => return Err(ErrorCode::IllegalState),
        }
        self.pause = PauseReason::NotApplicable;
        self.state = MoverState::Active;
        self.proceed();
        Ok(())
    }

    /// Whether `NDMP_MOVER_CLOSE` is legal now.
    pub fn may_close(&self) -> Result<(), ErrorCode> {
        match self.state {
            MoverState::Paused => Ok(()),
            _ => Err(ErrorCode::IllegalState),
        }
    }

    /// `NDMP_MOVER_CLOSE`, once what was written is flushed, which `flushed` says.
    pub fn close(&mut self, flushed: bool) {
        match (flushed, self.version) {
            (true, _) => self.halt(HaltReason::ConnectClosed, ""),
            (false, Version::V4) => self.halt(HaltReason::MediaError, ""),
            (false, _) => {
                self.halt(HaltReason::InternalError, "what was written could not be flushed");
            }
        }
    }

    /// `NDMP_MOVER_ABORT`. While data moves the reply waits until it has stopped: `false`.
    pub fn abort(&mut self) -> Result<bool, ErrorCode> {
        match self.state {
            MoverState::Listen | MoverState::Active | MoverState::Paused => {}
            MoverState::Halted => return Ok(true),
            _ => return Err(ErrorCode::IllegalState),
        }
        if self.run.is_some() {
            self.waiting = Some(Waiting::Abort);
            self.command(MoverCommand::Cancel);
            return Ok(false);
        }
        self.halt(HaltReason::Aborted, "aborted by the client");
        Ok(true)
    }

    /// `NDMP_MOVER_STOP`.
    pub fn stop(&mut self) -> Result<(), ErrorCode> {
        if self.state != MoverState::Halted {
            return Err(ErrorCode::IllegalState);
        }
        let record_size = self.record_size;
        let effects = std::mem::take(&mut self.effects);
        *self = Self { record_size, effects, ..Self::new(self.version) };
        Ok(())
    }

    /// The client is gone: ends the data connection. Whether a run has to stop first: then
    /// [`MoverEvent::Stopped`] is still to come.
    pub fn abandon(&mut self) -> bool {
        if self.run.is_some() {
            if self.waiting.replace(Waiting::Abort) != Some(Waiting::Abort) {
                self.command(MoverCommand::Cancel);
            }
            return true;
        }
        let open =
            matches!(self.state, MoverState::Listen | MoverState::Active | MoverState::Paused);
        if open || self.waiting.take().is_some() {
            self.command(MoverCommand::CloseConnection { orderly: false });
            self.state = MoverState::Halted;
        }
        false
    }

    /// An event of the data plane. Returns the reply of the request that waited for it.
    pub fn on_event(&mut self, event: MoverEvent) -> Option<Reply> {
        match (event, self.waiting) {
            (MoverEvent::Moved(progress), _) => match self.state {
                // Counts of a connection that was stopped.
                MoverState::Idle | MoverState::Listen => {}
                _ => self.advance(progress),
            },
            (MoverEvent::Listening(addr), Some(Waiting::Listen(flow))) => {
                self.waiting = None;
                self.start(flow, MoverState::Listen);
                self.addr = Some(addr.clone());
                return Some(Reply::ok(ReplyBody::Address(addr)));
            }
            (MoverEvent::ListenFailed(_), Some(Waiting::Listen(_))) => {
                self.waiting = None;
                return Some(Reply::failed(MessageCode::MoverListen, ErrorCode::Connect));
            }
            (MoverEvent::Connected, Some(Waiting::Connect(flow))) => {
                self.waiting = None;
                self.start(flow, MoverState::Active);
                self.proceed();
                return Some(Reply::ok(ReplyBody::Empty));
            }
            (MoverEvent::ConnectFailed(_), Some(Waiting::Connect(_))) => {
                self.waiting = None;
                self.addr = None;
                return Some(Reply::failed(MessageCode::MoverConnect, ErrorCode::Connect));
            }
            (MoverEvent::Connected, None) if self.state == MoverState::Listen => {
                self.state = MoverState::Active;
                self.proceed();
            }
            (MoverEvent::Stopped(reason, progress), waiting) => {
                return self.on_run_ended(&reason, progress, waiting);
            }
            (MoverEvent::PeerClosed, None) if self.is_resting() => {
                self.halt(HaltReason::ConnectClosed, "the other end closed the connection");
            }
            (MoverEvent::ConnectionLost(failure), None)
                if self.is_resting() || self.state == MoverState::Listen =>
            {
                self.halt(HaltReason::ConnectError, &failure.text);
            }
            // Of a connection that is no more, or an answer that nobody waits for.
            _ => {}
        }
        None
    }

    fn on_run_ended(
        &mut self,
        reason: &StopReason,
        progress: Progress,
        waiting: Option<Waiting>,
    ) -> Option<Reply> {
        if !self.finish_run(progress) {
            return None;
        }
        if waiting == Some(Waiting::Abort) {
            self.waiting = None;
            self.halt(HaltReason::Aborted, "aborted by the client");
            return Some(Reply::failed(MessageCode::MoverAbort, ErrorCode::NoErr));
        }
        self.on_stopped(reason);
        let Some(Waiting::Read(offset, length)) = waiting else { return None };
        self.waiting = None;
        Some(match self.read(offset, length) {
            Ok(_) => Reply::ok(ReplyBody::Empty),
            Err(error) => Reply::failed(MessageCode::MoverRead, error),
        })
    }

    /// Connected, and no data is moving.
    fn is_resting(&self) -> bool {
        matches!(self.state, MoverState::Active | MoverState::Paused) && self.run.is_none()
    }

    fn advance(&mut self, progress: Progress) {
        self.progress.bytes = self.progress.bytes.max(progress.bytes);
        self.progress.records = self.progress.records.max(progress.records);
    }

    /// Takes the counts of a run that ended; whether there was one.
    fn finish_run(&mut self, progress: Progress) -> bool {
        self.advance(progress);
        let Some(grant) = self.run.take() else { return false };
        let moved = self.progress.records.saturating_sub(self.run_records);
        let spaced = grant.reposition.map_or(0, |reposition| reposition.records);
        let moved = spaced.saturating_add(i64::try_from(moved).unwrap_or(i64::MAX));
        self.tape_record = self.tape_record.saturating_add(moved);
        true
    }

    fn on_stopped(&mut self, reason: &StopReason) {
        let flow = self.flow.unwrap_or(Flow::ToTape);
        match (reason, flow) {
            (StopReason::WindowFull | StopReason::LimitReached, Flow::ToTape) => {
                self.pause(match self.version {
                    Version::V2 => PauseReason::Eom,
                    Version::V3 | Version::V4 => PauseReason::Eow,
                });
            }
            (StopReason::WindowFull | StopReason::LimitReached, Flow::FromTape) => {
                let left = self.reading.map_or(0, |read| read.left(self.position()));
                match left {
                    0 => self.reading = None,
                    _ => self.pause(PauseReason::Seek),
                }
            }
            (StopReason::EndOfMedium | StopReason::EndOfData, _) => self.pause(PauseReason::Eom),
            (StopReason::Filemark, _) => self.pause(PauseReason::Eof),
            (StopReason::PeerClosed, _) => {
                self.halt(HaltReason::ConnectClosed, "the other end closed the connection");
            }
            (StopReason::MediaError(failure), _) => match self.version {
                Version::V4 => self.halt(HaltReason::MediaError, &failure.text),
                Version::V2 | Version::V3 => self.pause(PauseReason::MediaError),
            },
            (StopReason::ConnectionError(failure), _) => {
                self.halt(HaltReason::ConnectError, &failure.text);
            }
            (StopReason::Internal(failure), _) => {
                self.halt(HaltReason::InternalError, &failure.text);
            }
            (StopReason::Cancelled, _) => self.halt(HaltReason::InternalError, "cancelled"),
        }
    }

    /// In ACTIVE: lets data move, if any may.
    fn proceed(&mut self) {
        let Some(flow) = self.flow else { return };
        let position = self.position();
        let grant = match flow {
            Flow::ToTape => self.grant_to_tape(),
            Flow::FromTape => {
                let Some(reading) = self.reading else { return };
                if !self.window.contains(position) {
                    return self.pause(PauseReason::Seek);
                }
                self.grant_from_tape(reading)
            }
        };
        self.displaced = false;
        self.run_records = self.progress.records;
        self.run = Some(grant);
        self.command(MoverCommand::Run(grant));
    }

    fn grant_to_tape(&self) -> Grant {
        let record = u64::from(self.record_size.max(1));
        let moved = self.progress.bytes.saturating_sub(self.window_start.bytes);
        let left = self.window.length.saturating_sub(moved);
        Grant {
            flow: Flow::ToTape,
            record_size: self.record_size,
            offset: self.position(),
            limit: self.window.end().map(|_| left - left % record),
            reposition: None,
            at_filemark: FilemarkSide::EndOfTape,
            past_early_warning: false,
        }
    }

    fn grant_from_tape(&self, reading: Reading) -> Grant {
        let record = u64::from(self.record_size.max(1));
        let position = self.position();
        let until_window = self.window.end().map(|end| end.saturating_sub(position));
        let until_read = reading.end.map(|end| end.saturating_sub(position));
        let into = position.saturating_sub(self.window.offset);
        let target = i64::try_from(into / record).unwrap_or(i64::MAX);
        Grant {
            flow: Flow::FromTape,
            record_size: self.record_size,
            offset: position,
            limit: match (until_window, until_read) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            reposition: self.displaced.then(|| Reposition {
                records: target.saturating_sub(self.tape_record),
                skip: (into % record) as u32,
            }),
            at_filemark: match self.version {
                Version::V4 => FilemarkSide::BeginningOfTape,
                Version::V2 | Version::V3 => FilemarkSide::EndOfTape,
            },
            past_early_warning: false,
        }
    }

    fn pause(&mut self, reason: PauseReason) {
        self.state = MoverState::Paused;
        self.pause = reason;
        let seek_position = self.position();
        if self.flow == Some(Flow::ToTape) {
            self.seek_position = seek_position;
        }
        self.effects.push_back(MoverEffect::Notify(Post::MoverPaused { reason, seek_position }));
    }

    fn halt(&mut self, reason: HaltReason, text: &str) {
        self.state = MoverState::Halted;
        self.pause = PauseReason::NotApplicable;
        self.halt = reason;
        self.reading = None;
        let orderly = reason == HaltReason::ConnectClosed;
        self.command(MoverCommand::CloseConnection { orderly });
        let post = Post::MoverHalted { reason, text: text.to_owned() };
        self.effects.push_back(MoverEffect::Notify(post));
    }

    fn command(&mut self, command: MoverCommand) {
        self.effects.push_back(MoverEffect::Command(command));
    }
}
