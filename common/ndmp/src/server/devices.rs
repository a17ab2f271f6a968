//! SCSI and TAPE: opening, closing, and everything in between.

use super::io::{Cdb, CdbOutcome, DeviceReply, DeviceRequest, LogLevel};
use super::session::{Asked, Device, Leaving, Session, Stage};
use crate::tape::{Failure, FailureKind, Next, StepResult, Tape, TapeOp, error_of};
use crate::wire::{
    CdbResult, ErrorCode, ExecuteCdb, LogType, MessageCode, Reply, ReplyBody, Request,
    TapeOpenMode, Version, bounds,
};

impl Session {
    pub(super) fn on_scsi(&mut self, asked: Asked, request: Request, now: u32) {
        let opened = matches!(self.device, Device::Scsi);
        match request {
            Request::ScsiOpen(_) if !matches!(self.device, Device::None) => {
                self.refuse_request(asked, ErrorCode::DeviceOpened, now);
            }
            Request::ScsiOpen(name) => {
                self.ask_device(asked, Stage::ScsiOpen, DeviceRequest::OpenScsi { name });
            }
            _ if !opened => self.refuse_request(asked, ErrorCode::DevNotOpen, now),
            Request::ScsiExecuteCdb(cdb) => match cdb_of(cdb) {
                Some(cdb) => {
                    self.ask_device(asked, Stage::Device, DeviceRequest::ExecuteCdb(cdb));
                }
                None => self.refuse_request(asked, ErrorCode::IllegalArgs, now),
            },
            Request::Bare(MessageCode::ScsiClose) => {
                self.ask_device(asked, Stage::ScsiClose, DeviceRequest::CloseScsi);
            }
            Request::Bare(MessageCode::ScsiResetDevice) => {
                self.ask_device(asked, Stage::Device, DeviceRequest::ResetScsi);
            }
            // The device was opened by name: there is no controller, id or logical unit to tell.
            Request::Bare(MessageCode::ScsiGetState) => {
                self.reply(asked, &Reply::ok(ReplyBody::ScsiState([-1, -1, -1])), now);
            }
            _ => self.refuse_request(asked, ErrorCode::NotSupported, now),
        }
    }

    pub(super) fn on_tape(&mut self, asked: Asked, request: Request, now: u32) {
        let op = match request {
            Request::TapeOpen { device, mode } => return self.open_tape(asked, device, mode, now),
            Request::TapeExecuteCdb(_) => {
                return self.refuse_request(asked, ErrorCode::NotSupported, now);
            }
            Request::TapeMtio { op, count } => TapeOp::Mtio { op, count },
            Request::TapeWrite(data) => TapeOp::Write(data),
            Request::TapeRead(count) => TapeOp::Read(count),
            Request::Bare(MessageCode::TapeClose) => TapeOp::Close,
            _ => TapeOp::GetState,
        };
        let held = self.mover.holds_tape();
        let Device::Tape(tape) = &mut self.device else {
            return self.refuse_request(asked, ErrorCode::DevNotOpen, now);
        };
        match (held, op) {
            (true, TapeOp::GetState) => {
                let reply = tape.state_reply();
                self.reply(asked, &reply, now);
            }
            (true, _) => self.refuse_request(asked, ErrorCode::IllegalState, now),
            (false, op) => {
                let next = tape.begin(op);
                self.next_step(asked, next, now);
            }
        }
    }

    fn open_tape(&mut self, asked: Asked, name: String, mode: TapeOpenMode, now: u32) {
        let refusal = match mode {
            TapeOpenMode::Unknown(_) => Some(ErrorCode::IllegalArgs),
            TapeOpenMode::Raw if self.version < Version::V4 => Some(ErrorCode::IllegalArgs),
            _ if !matches!(self.device, Device::None) => Some(ErrorCode::DeviceOpened),
            _ => None,
        };
        match refusal {
            Some(error) => self.refuse_request(asked, error, now),
            None => {
                let request = DeviceRequest::OpenTape { name, mode };
                self.ask_device(asked, Stage::TapeOpen(mode), request);
            }
        }
    }

    fn next_step(&mut self, asked: Asked, next: Next, now: u32) {
        match next {
            Next::Step(step) => {
                self.ask_device(asked, Stage::TapeStep, DeviceRequest::Drive(step));
            }
            Next::Done(reply) => {
                let failed_open =
                    asked.code == MessageCode::TapeOpen && reply.error != ErrorCode::NoErr;
                if failed_open || asked.code == MessageCode::TapeClose {
                    // Whatever came of it, the drive is given back before the client hears.
                    self.ask_device(asked, Stage::TapeClose(reply), DeviceRequest::CloseTape);
                } else {
                    self.reply(asked, &reply, now);
                }
            }
        }
    }

    /// A device answered a request.
    pub(super) fn on_device_answer(
        &mut self,
        asked: Asked,
        stage: Stage,
        reply: DeviceReply,
        now: u32,
    ) {
        match stage {
            Stage::TapeOpen(mode) => match reply {
                DeviceReply::Failed(failure) => {
                    self.tell_holder(&failure, now);
                    self.refuse_request(asked, error_of(failure.kind), now);
                }
                _ => {
                    let mut tape = Tape::new(self.version, mode);
                    let next = tape.begin(TapeOp::Open);
                    self.device = Device::Tape(tape);
                    self.next_step(asked, next, now);
                }
            },
            Stage::TapeStep => match self.feed_tape(reply) {
                Some(next) => self.next_step(asked, next, now),
                None => self.refuse_request(asked, ErrorCode::Undefined, now),
            },
            Stage::TapeClose(mut answer) => {
                self.device = Device::None;
                if let (DeviceReply::Failed(failure), ErrorCode::NoErr) = (reply, answer.error) {
                    answer.error = error_of(failure.kind);
                }
                self.reply(asked, &answer, now);
            }
            Stage::ScsiOpen => {
                match &reply {
                    DeviceReply::Failed(failure) => self.tell_holder(failure, now),
                    _ => self.device = Device::Scsi,
                }
                self.on_plain_answer(asked, reply, now);
            }
            Stage::ScsiClose => {
                self.device = Device::None;
                self.on_plain_answer(asked, reply, now);
            }
            Stage::Device => self.on_plain_answer(asked, reply, now),
            Stage::MoverFlush => {
                let flushed = match self.feed_tape(reply) {
                    Some(Next::Done(reply)) => reply.error == ErrorCode::NoErr,
                    Some(Next::Step(_)) | None => false,
                };
                self.close_mover(asked, flushed, now);
            }
            Stage::Mover | Stage::Leaving(_) => {}
        }
    }

    /// The error code says that a device is in use; who has it only words can say.
    fn tell_holder(&mut self, failure: &Failure, now: u32) {
        if failure.kind == FailureKind::Busy {
            self.post_log(LogType::Error, &failure.text, now);
        }
    }

    fn feed_tape(&mut self, reply: DeviceReply) -> Option<Next> {
        let result = match reply {
            DeviceReply::Step(result) => result,
            DeviceReply::Failed(failure) => StepResult::Failed(failure),
            _ => {
                let text = "a step was answered with something else";
                StepResult::Failed(Failure::new(FailureKind::Io, text))
            }
        };
        if let StepResult::Failed(failure) = &result {
            self.log(LogLevel::Warn, format!("tape: {failure}"));
        }
        match &mut self.device {
            Device::Tape(tape) => Some(tape.on_step(result)),
            Device::None | Device::Scsi => None,
        }
    }

    /// A device answered, and the client is gone.
    pub(super) fn on_device_left(&mut self, stage: Stage, reply: DeviceReply, now: u32) {
        let failed = matches!(reply, DeviceReply::Failed(_));
        match stage {
            Stage::TapeOpen(mode) if !failed => {
                self.device = Device::Tape(Tape::new(self.version, mode));
            }
            Stage::ScsiOpen if !failed => self.device = Device::Scsi,
            // The step counts; what would have followed is not done any more.
            Stage::TapeStep | Stage::MoverFlush => drop(self.feed_tape(reply)),
            Stage::Leaving(Leaving::TapeStep) => {
                if let Some(next) = self.feed_tape(reply) {
                    return self.leave_tape(next);
                }
            }
            Stage::TapeClose(_)
            | Stage::ScsiClose
            | Stage::Leaving(Leaving::TapeClose | Leaving::ScsiClose) => {
                self.device = Device::None;
            }
            Stage::TapeOpen(_) | Stage::ScsiOpen | Stage::Device | Stage::Mover => {}
        }
        self.leave(now);
    }

    pub(super) fn leave_tape(&mut self, next: Next) {
        match next {
            Next::Step(step) => self.leave_by(Leaving::TapeStep, DeviceRequest::Drive(step)),
            Next::Done(reply) => {
                if reply.error != ErrorCode::NoErr {
                    let text = format!("the tape could not be finished: {}", reply.error);
                    self.log(LogLevel::Warn, text);
                }
                self.leave_by(Leaving::TapeClose, DeviceRequest::CloseTape);
            }
        }
    }
}

/// A CDB for the device. What the flags say of the data does not count: clients leave them out.
fn cdb_of(cdb: ExecuteCdb) -> Option<Cdb> {
    if cdb.cdb.is_empty() {
        return None;
    }
    Some(Cdb {
        cdb: cdb.cdb,
        data_out: cdb.data_out,
        data_in_max: cdb.data_in_len.min(bounds::DATA as u32),
        timeout_ms: Some(cdb.timeout_ms).filter(|timeout| *timeout > 0),
    })
}

impl From<CdbOutcome> for CdbResult {
    fn from(outcome: CdbOutcome) -> Self {
        Self {
            status: outcome.status,
            data_out_len: outcome.data_out_moved,
            data_in: outcome.data_in,
            sense: outcome.sense,
        }
    }
}
