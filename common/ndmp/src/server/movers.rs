//! MOVER: the requests, in terms of the mover's state machine.

use super::io::DeviceRequest;
use super::session::{Asked, Device, Session, Stage};
use crate::mover::Flow;
use crate::tape::{Next, TapeOp};
use crate::wire::{ErrorCode, MessageCode, Reply, ReplyBody, Request};

impl Session {
    pub(super) fn on_mover_request(&mut self, asked: Asked, request: Request, now: u32) {
        let tape = self.tape_access();
        let result = match request {
            Request::MoverSetRecordSize(size) => self.mover.set_record_size(size),
            Request::MoverSetWindow { offset, length } => self.mover.set_window(offset, length),
            Request::MoverRead { offset, length } => match self.mover.read(offset, length) {
                Ok(true) => Ok(()),
                Ok(false) => return self.begin_connection(asked, Ok(()), now),
                Err(error) => Err(error),
            },
            Request::MoverListen { mode, addr_type } => {
                let begun = self.mover.listen(mode, addr_type, tape);
                return self.begin_connection(asked, begun, now);
            }
            Request::MoverConnect { mode, addr } => {
                let begun = self.mover.connect(mode, addr, tape);
                return self.begin_connection(asked, begun, now);
            }
            Request::Bare(MessageCode::MoverGetState) => {
                let report = self.mover.report();
                return self.reply(asked, &Reply::ok(ReplyBody::Mover(report)), now);
            }
            Request::Bare(MessageCode::MoverContinue) => self.mover.resume(tape),
            Request::Bare(MessageCode::MoverStop) => self.mover.stop(),
            Request::Bare(MessageCode::MoverClose) => return self.begin_close(asked, now),
            Request::Bare(MessageCode::MoverAbort) => match self.mover.abort() {
                Ok(true) => Ok(()),
                Ok(false) => return self.begin_connection(asked, Ok(()), now),
                Err(error) => Err(error),
            },
            _ => Err(ErrorCode::NotSupported),
        };
        self.answer(asked, result, now);
        self.drain_mover(now);
    }

    /// The reply comes with an event of the data plane.
    fn begin_connection(&mut self, asked: Asked, begun: Result<(), ErrorCode>, now: u32) {
        match begun {
            Ok(()) => {
                self.await_mover(asked);
                self.drain_mover(now);
            }
            Err(error) => self.refuse_request(asked, error, now),
        }
    }

    /// `NDMP_MOVER_CLOSE`: what was written is on the medium before the client hears of the end.
    fn begin_close(&mut self, asked: Asked, now: u32) {
        if let Err(error) = self.mover.may_close() {
            return self.refuse_request(asked, error, now);
        }
        let next = match (&mut self.device, self.mover.flow()) {
            (Device::Tape(tape), Some(Flow::ToTape)) => Some(tape.begin(TapeOp::Flush)),
            _ => None,
        };
        match next {
            Some(Next::Step(step)) => {
                self.ask_device(asked, Stage::MoverFlush, DeviceRequest::Drive(step));
            }
            Some(Next::Done(_)) | None => self.close_mover(asked, true, now),
        }
    }

    /// `NDMP_MOVER_CLOSE`, once it is known whether what was written is on the medium.
    pub(super) fn close_mover(&mut self, asked: Asked, flushed: bool, now: u32) {
        // The other end may have closed the connection during the flush.
        if self.mover.may_close().is_ok() {
            self.mover.close(flushed);
        }
        self.answer(asked, Ok(()), now);
        self.drain_mover(now);
    }
}
