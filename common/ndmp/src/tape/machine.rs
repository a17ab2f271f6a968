//! One open drive: requests in, steps out, replies.

use bytes::Bytes;

use super::motion::Motion;
use super::position::Place;
use super::step::{DriveStep, Failure, FailureKind, Loaded, StepResult};
use crate::mover::{FilemarkSide, Flow, Grant, Progress, StopReason};
use crate::wire::{
    ErrorCode, MessageCode, MtioOp, Reply, ReplyBody, TapeOpenMode, TapeState, Version, bounds,
};

/// How often a step that does not depend on the position is repeated after a unit attention:
/// one for a changed medium, one for a reset, one to spare.
const ATTENTIONS: u8 = 3;

/// A request of the TAPE interface for the drive that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapeOp {
    /// The rest of `NDMP_TAPE_OPEN`, once the drive is ours.
    Open,
    /// `NDMP_TAPE_GET_STATE`.
    GetState,
    /// `NDMP_TAPE_MTIO`.
    Mtio {
        /// What.
        op: MtioOp,
        /// How often.
        count: u32,
    },
    /// `NDMP_TAPE_WRITE`.
    Write(Bytes),
    /// `NDMP_TAPE_READ` of at most so many bytes.
    Read(u32),
    /// What has to be written before `NDMP_TAPE_CLOSE`, or after a disconnect.
    Close,
    /// Puts what was written on the medium, before a mover's end is told.
    Flush,
}

/// What comes next for the request under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Do this and tell [`Tape::on_step`] what came of it.
    Step(DriveStep),
    /// The reply.
    Done(Reply),
}

/// What the client knows of the end of the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndOfMedium {
    /// Far away.
    Far,
    /// A write went beyond early warning: the next one fails once.
    Near,
    /// The client was told: writes go on until the medium is full.
    Told,
}

/// What the step under way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    OpenState,
    OpenPosition,
    State,
    StatePosition,
    Ready,
    Read,
    ReadStepBack,
    Write {
        length: u32,
    },
    Motion(Motion),
    /// The mark that a client forgot, before what follows.
    MarkThen(After),
    Rewind,
    Unload,
    Marks {
        count: u32,
    },
    Flush,
}

/// What follows a forgotten mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Rewind,
    Unload,
    Close,
}

/// The drive that a session has open.
#[derive(Debug)]
pub struct Tape {
    version: Version,
    mode: TapeOpenMode,
    place: Place,
    loaded: Loaded,
    end: EndOfMedium,
    media_error: bool,
    /// Data was written here and no filemark behind it.
    unmarked: bool,
    /// Something was written that no flush followed.
    unflushed: bool,
    task: Option<Task>,
    attentions: u8,
    /// Place and records at the start of the mover's run.
    run_start: Option<(Place, u64)>,
}

impl Tape {
    /// A drive that was just taken for a session of `version`. [`TapeOp::Open`] has to be done
    /// first.
    pub fn new(version: Version, mode: TapeOpenMode) -> Self {
        Self {
            version,
            mode,
            place: Place::UNKNOWN,
            loaded: Loaded::default(),
            end: EndOfMedium::Far,
            media_error: false,
            unmarked: false,
            unflushed: false,
            task: None,
            attentions: 0,
            run_start: None,
        }
    }

    /// Whether the client may write.
    pub fn is_writable(&self) -> bool {
        self.mode != TapeOpenMode::Read
    }

    /// Whether the client knows that this tape is beyond early warning.
    pub fn is_past_early_warning(&self) -> bool {
        self.end == EndOfMedium::Told
    }

    /// Begins a request. The one before must be done.
    pub fn begin(&mut self, op: TapeOp) -> Next {
        self.attentions = 0;
        match op {
            TapeOp::Open => self.step(Task::OpenState),
            TapeOp::GetState => self.step(Task::State),
            TapeOp::Mtio { op, count } => self.begin_mtio(op, count),
            TapeOp::Write(data) => self.begin_write(data),
            TapeOp::Read(count) => self.begin_read(count),
            TapeOp::Close => self.finish_writing(After::Close),
            TapeOp::Flush if self.unflushed => self.step(Task::Flush),
            TapeOp::Flush => Next::Done(Reply::ok(ReplyBody::Empty)),
        }
    }

    /// Goes on after a step.
    pub fn on_step(&mut self, result: StepResult) -> Next {
        let Some(task) = self.task.take() else {
            return self.fail(None, ErrorCode::Undefined);
        };
        match result {
            StepResult::Failed(failure) => self.on_failure(task, &failure),
            result => self.on_result(task, result),
        }
    }

    fn step(&mut self, task: Task) -> Next {
        let step = match task {
            Task::OpenState | Task::State | Task::Ready => DriveStep::State,
            Task::OpenPosition | Task::StatePosition => DriveStep::Position,
            Task::ReadStepBack => DriveStep::SpaceFilemarks(-1),
            Task::Motion(motion) => motion.step(),
            Task::MarkThen(_) => DriveStep::Filemarks(u32::from(self.unmarked)),
            Task::Flush => DriveStep::Filemarks(0),
            Task::Rewind => DriveStep::Rewind,
            Task::Unload => DriveStep::Unload,
            Task::Marks { count } => DriveStep::Filemarks(count),
            // Begun with what the request brings; never repeated.
            Task::Read | Task::Write { .. } => return self.fail(Some(task), ErrorCode::Undefined),
        };
        self.task = Some(task);
        Next::Step(step)
    }

    fn begin_write(&mut self, data: Bytes) -> Next {
        let length = data.len() as u32;
        if !self.is_writable() {
            return self.fail(Some(Task::Write { length }), ErrorCode::Permission);
        }
        if data.is_empty() {
            return Next::Done(Reply::ok(ReplyBody::Written(0)));
        }
        if self.end == EndOfMedium::Near {
            self.end = EndOfMedium::Told;
            return self.fail(Some(Task::Write { length }), ErrorCode::Eom);
        }
        self.task = Some(Task::Write { length });
        Next::Step(DriveStep::Write(data))
    }

    fn begin_read(&mut self, count: u32) -> Next {
        if count > i32::MAX as u32 {
            return self.fail(Some(Task::Read), ErrorCode::IllegalArgs);
        }
        if count == 0 {
            return Next::Done(Reply::ok(ReplyBody::Data(Bytes::new())));
        }
        self.task = Some(Task::Read);
        Next::Step(DriveStep::Read { max: count.min(bounds::DATA as u32) })
    }

    fn begin_mtio(&mut self, op: MtioOp, count: u32) -> Next {
        let done = Next::Done(Reply::ok(ReplyBody::Residual(0)));
        match op {
            MtioOp::Tur if self.version == Version::V4 => self.step(Task::Ready),
            MtioOp::Tur | MtioOp::Unknown(_) => self.fail_mtio(ErrorCode::IllegalArgs, count),
            MtioOp::Rew => self.finish_writing(After::Rewind),
            MtioOp::Off => self.finish_writing(After::Unload),
            MtioOp::Eof if !self.is_writable() => self.fail_mtio(ErrorCode::Permission, count),
            MtioOp::Eof if count > u32::from(u16::MAX) => {
                self.fail_mtio(ErrorCode::IllegalArgs, count)
            }
            _ if count == 0 => done,
            MtioOp::Eof => self.step(Task::Marks { count }),
            MtioOp::Fsf | MtioOp::Bsf | MtioOp::Fsr | MtioOp::Bsr => match Motion::new(op, count) {
                Some(motion) => self.step(Task::Motion(motion)),
                None => self.fail_mtio(ErrorCode::IllegalArgs, count),
            },
        }
    }

    /// Writes the mark that is due, or flushes, then goes on. Nothing is written without need: a
    /// tape that is only read is never touched.
    fn finish_writing(&mut self, after: After) -> Next {
        match self.unmarked || self.unflushed {
            true => self.step(Task::MarkThen(after)),
            false => self.after_mark(after),
        }
    }

    fn after_mark(&mut self, after: After) -> Next {
        match after {
            After::Rewind => self.step(Task::Rewind),
            After::Unload => self.step(Task::Unload),
            After::Close => Next::Done(Reply::ok(ReplyBody::Empty)),
        }
    }

    fn on_result(&mut self, task: Task, result: StepResult) -> Next {
        match (task, result) {
            (Task::OpenState, StepResult::State(loaded)) => self.on_open_state(loaded),
            (Task::OpenPosition, StepResult::Position { file, at_bot }) => {
                self.learn_position(file, at_bot);
                Next::Done(Reply::ok(ReplyBody::Empty))
            }
            (Task::State, StepResult::State(loaded)) => self.on_state(loaded),
            (Task::StatePosition, StepResult::Position { file, at_bot }) => {
                self.learn_position(file, at_bot);
                Next::Done(self.state_reply())
            }
            (Task::Ready, StepResult::State(loaded)) => {
                self.loaded = loaded;
                match loaded.medium {
                    true => Next::Done(Reply::ok(ReplyBody::Residual(0))),
                    false => self.fail_mtio(ErrorCode::NoTapeLoaded, 0),
                }
            }
            (Task::Read, result) => self.on_read(result),
            (Task::ReadStepBack, StepResult::Spaced { .. }) => {
                self.place.block = None;
                self.fail(Some(Task::Read), ErrorCode::Eof)
            }
            (Task::Write { length }, result) => self.on_write(length, &result),
            (Task::Motion(motion), StepResult::Spaced { residual, stop }) => {
                self.on_spaced(motion, residual, stop)
            }
            (Task::MarkThen(after), result) => self.on_final_mark(after, &result),
            (Task::Flush, StepResult::Written | StepResult::EarlyWarning) => {
                self.unflushed = false;
                Next::Done(Reply::ok(ReplyBody::Empty))
            }
            (Task::Rewind, StepResult::Done) => {
                self.place = Place::START;
                self.end = EndOfMedium::Far;
                Next::Done(Reply::ok(ReplyBody::Residual(0)))
            }
            (Task::Unload, StepResult::Done) => {
                self.forget_medium();
                Next::Done(Reply::ok(ReplyBody::Residual(0)))
            }
            (Task::Marks { count }, result) => self.on_marks(count, &result),
            // An answer to another question: the drive and we no longer agree.
            (task, _) => {
                self.place = Place::UNKNOWN;
                self.fail(Some(task), ErrorCode::Undefined)
            }
        }
    }

    fn on_open_state(&mut self, loaded: Loaded) -> Next {
        self.loaded = loaded;
        let refusal = match (loaded.medium, self.mode) {
            (false, TapeOpenMode::Raw) => return Next::Done(Reply::ok(ReplyBody::Empty)),
            (false, _) => Some(ErrorCode::NoTapeLoaded),
            (true, TapeOpenMode::ReadWrite) if loaded.write_protected => {
                Some(ErrorCode::WriteProtect)
            }
            (true, _) => None,
        };
        match refusal {
            Some(error) => self.fail(Some(Task::OpenState), error),
            None => self.step(Task::OpenPosition),
        }
    }

    fn on_state(&mut self, loaded: Loaded) -> Next {
        self.loaded = loaded;
        match (loaded.medium, self.place.file) {
            (false, _) => {
                self.forget_medium();
                self.fail(Some(Task::State), ErrorCode::NoTapeLoaded)
            }
            (true, None) => self.step(Task::StatePosition),
            (true, Some(_)) => Next::Done(self.state_reply()),
        }
    }

    fn on_read(&mut self, result: StepResult) -> Next {
        match result {
            StepResult::Record { data, .. } => {
                self.place.pass_records(1);
                Next::Done(Reply::ok(ReplyBody::Data(data)))
            }
            StepResult::Filemark if self.version == Version::V4 => self.step(Task::ReadStepBack),
            StepResult::Filemark => {
                self.place.pass_marks(1);
                self.fail(Some(Task::Read), ErrorCode::Eof)
            }
            StepResult::EndOfData if self.version == Version::V4 => {
                self.fail(Some(Task::Read), ErrorCode::Eom)
            }
            StepResult::EndOfData => self.fail(Some(Task::Read), ErrorCode::Eof),
            _ => self.fail(Some(Task::Read), ErrorCode::Undefined),
        }
    }

    fn on_write(&mut self, length: u32, result: &StepResult) -> Next {
        match result {
            StepResult::Written | StepResult::EarlyWarning => {
                self.place.pass_records(1);
                self.unmarked = true;
                self.unflushed = true;
                self.note_warning(result);
                Next::Done(Reply::ok(ReplyBody::Written(length)))
            }
            // Without an early warning before it, the first overflow is that warning.
            StepResult::Overflow if self.end != EndOfMedium::Told => {
                self.end = EndOfMedium::Told;
                self.fail(Some(Task::Write { length }), ErrorCode::Eom)
            }
            StepResult::Overflow => self.fail(Some(Task::Write { length }), ErrorCode::Io),
            _ => self.fail(Some(Task::Write { length }), ErrorCode::Undefined),
        }
    }

    fn on_marks(&mut self, count: u32, result: &StepResult) -> Next {
        match result {
            StepResult::Written | StepResult::EarlyWarning => {
                self.place.pass_marks(u64::from(count));
                self.unmarked = false;
                self.unflushed = false;
                self.note_warning(result);
                Next::Done(Reply::ok(ReplyBody::Residual(0)))
            }
            StepResult::Overflow => self.fail_mtio(ErrorCode::Io, count),
            _ => self.fail_mtio(ErrorCode::Undefined, count),
        }
    }

    fn on_final_mark(&mut self, after: After, result: &StepResult) -> Next {
        let marks = u64::from(self.unmarked);
        self.unmarked = false;
        self.unflushed = false;
        match result {
            StepResult::Written | StepResult::EarlyWarning => {
                if marks > 0 {
                    self.place.pass_marks(marks);
                }
                self.after_mark(after)
            }
            _ => self.fail(Some(Task::MarkThen(after)), ErrorCode::Io),
        }
    }

    fn note_warning(&mut self, result: &StepResult) {
        if *result == StepResult::EarlyWarning && self.end == EndOfMedium::Far {
            self.end = EndOfMedium::Near;
        }
    }

    fn on_spaced(&mut self, motion: Motion, residual: u64, stop: super::SpaceEnd) -> Next {
        if motion.is_backward() {
            // The end of what was written is left: a mark written from here on would cut it off.
            self.unmarked = false;
            self.end = EndOfMedium::Far;
        }
        let residual = residual.min(u64::from(motion.count()));
        match motion.land(&mut self.place, residual, stop, self.version) {
            Some(correction) => self.step(Task::Motion(correction)),
            None => Next::Done(Reply::ok(ReplyBody::Residual(motion.residual(residual)))),
        }
    }

    fn on_failure(&mut self, task: Task, failure: &Failure) -> Next {
        let attention = matches!(failure.kind, FailureKind::MediumChanged | FailureKind::Reset);
        let placeless = matches!(
            task,
            Task::OpenState
                | Task::OpenPosition
                | Task::State
                | Task::StatePosition
                | Task::Ready
                | Task::Rewind
                | Task::Unload
        );
        self.note_failure(failure.kind);
        if attention && placeless && self.attentions < ATTENTIONS {
            self.attentions += 1;
            return self.step(task);
        }
        self.fail(Some(task), error_of(failure.kind))
    }

    fn note_failure(&mut self, kind: FailureKind) {
        self.media_error |= kind == FailureKind::Medium;
        match kind {
            FailureKind::MediumChanged
            | FailureKind::Reset
            | FailureKind::NoMedium
            | FailureKind::TimedOut
            | FailureKind::Io => {
                // A mark must not be written at a place that nobody knows, or on another tape.
                self.place = Place::UNKNOWN;
                self.unmarked = false;
                self.unflushed = false;
                self.end = EndOfMedium::Far;
            }
            FailureKind::NoDevice
            | FailureKind::Busy
            | FailureKind::Denied
            | FailureKind::WriteProtected
            | FailureKind::Medium
            | FailureKind::Refused
            | FailureKind::Cancelled => {}
        }
    }

    /// A failed reply in the shape of the request that `task` belongs to.
    fn fail(&mut self, task: Option<Task>, error: ErrorCode) -> Next {
        let code = match task {
            None | Some(Task::OpenState | Task::OpenPosition) => MessageCode::TapeOpen,
            Some(Task::State | Task::StatePosition) => MessageCode::TapeGetState,
            Some(Task::Read | Task::ReadStepBack) => MessageCode::TapeRead,
            Some(Task::Write { .. }) => MessageCode::TapeWrite,
            Some(Task::MarkThen(After::Close)) => MessageCode::TapeClose,
            Some(Task::Flush) => MessageCode::MoverClose,
            Some(Task::Motion(motion)) => {
                return self.fail_mtio(error, motion.count());
            }
            Some(Task::Marks { count }) => return self.fail_mtio(error, count),
            Some(Task::Ready | Task::Rewind | Task::Unload | Task::MarkThen(_)) => {
                return self.fail_mtio(error, 0);
            }
        };
        Next::Done(Reply::failed(code, error))
    }

    fn fail_mtio(&mut self, error: ErrorCode, residual: u32) -> Next {
        Next::Done(Reply { error, body: ReplyBody::Residual(residual) })
    }

    fn forget_medium(&mut self) {
        self.place = Place::UNKNOWN;
        self.loaded = Loaded::default();
        self.end = EndOfMedium::Far;
        self.media_error = false;
        self.unmarked = false;
        self.unflushed = false;
    }

    fn learn_position(&mut self, file: u64, at_bot: bool) {
        self.place = Place { file: Some(file), block: at_bot.then_some(0) };
    }

    /// `NDMP_TAPE_GET_STATE` from what is known, without a step: for a drive that the mover uses.
    pub fn state_reply(&self) -> Reply {
        let mut unsupported = TapeState::SOFT_ERRORS;
        let mut unless = |known: bool, bit: u32| {
            if !known {
                unsupported |= bit;
            }
        };
        unless(self.place.file.is_some(), TapeState::FILE_NUM);
        unless(self.loaded.capacity.is_some(), TapeState::TOTAL_SPACE);
        unless(self.loaded.remaining.is_some(), TapeState::SPACE_REMAIN);
        unless(self.version != Version::V3, TapeState::PARTITION);
        let mut flags = TapeState::NO_REWIND;
        if self.loaded.write_protected {
            flags |= TapeState::WRITE_PROTECTED;
        }
        if self.media_error {
            flags |= TapeState::MEDIA_ERROR;
        }
        Reply::ok(ReplyBody::TapeState(TapeState {
            unsupported,
            flags,
            file_num: self.place.file_number(),
            soft_errors: 0,
            block_size: self.loaded.block_length,
            blockno: self.place.block_number(),
            total_space: self.loaded.capacity.unwrap_or(0),
            space_remain: self.loaded.remaining.unwrap_or(0),
        }))
    }

    /// The mover takes the drive for a run that begins after `progress`.
    pub fn run_started(&mut self, grant: &Grant, progress: Progress) {
        if let Some(reposition) = grant.reposition {
            self.place.pass_records(reposition.records);
        }
        self.run_start = Some((self.place, progress.records));
    }

    /// The mover has moved on.
    pub fn run_moved(&mut self, progress: Progress) {
        if let Some((mut place, records)) = self.run_start {
            let moved = progress.records.saturating_sub(records);
            place.pass_records(i64::try_from(moved).unwrap_or(i64::MAX));
            self.place = place;
        }
    }

    /// The mover gives the drive back.
    pub fn run_stopped(&mut self, grant: &Grant, reason: &StopReason, progress: Progress) {
        self.run_moved(progress);
        let wrote = self.run_start.take().is_some_and(|(_, start)| progress.records > start);
        if grant.flow == Flow::ToTape && wrote {
            self.unmarked = true;
            self.unflushed = true;
        }
        match reason {
            StopReason::EndOfMedium => self.end = EndOfMedium::Told,
            StopReason::Filemark if grant.at_filemark == FilemarkSide::EndOfTape => {
                self.place.pass_marks(1);
            }
            StopReason::MediaError(failure) => {
                self.note_failure(failure.kind);
                self.place = Place::UNKNOWN;
            }
            // Also a drive that is no longer ours, or whose place nobody knows: no mark is written
            // there by itself.
            StopReason::Internal(failure) => self.note_failure(failure.kind),
            _ => {}
        }
    }
}

/// How a failure of a device is said in NDMP.
pub(crate) fn error_of(kind: FailureKind) -> ErrorCode {
    match kind {
        FailureKind::NoDevice => ErrorCode::NoDevice,
        FailureKind::Busy => ErrorCode::DeviceBusy,
        FailureKind::Denied => ErrorCode::Permission,
        FailureKind::NoMedium => ErrorCode::NoTapeLoaded,
        FailureKind::WriteProtected => ErrorCode::WriteProtect,
        FailureKind::TimedOut => ErrorCode::Timeout,
        FailureKind::MediumChanged
        | FailureKind::Reset
        | FailureKind::Medium
        | FailureKind::Refused
        | FailureKind::Cancelled
        | FailureKind::Io => ErrorCode::Io,
    }
}
