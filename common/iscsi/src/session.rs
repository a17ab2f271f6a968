//! One session in the full feature phase: one command at a time.

use std::collections::VecDeque;
use std::ops::Range;

use crate::text::{Pairs, TEXT_MAX};
use crate::{
    AsyncMessage, Command, DataIn, DataOut, Limits, LogoutRequest, NO_TAG, NopIn, NopOut, Pdu,
    ReadyToTransfer, Response, TaskRequest, TextRequest, after,
};

/// Most bytes of sense data that are kept (SPC-5 4.4).
const SENSE_MAX: usize = 252;
/// Answers to pings of the target that may wait to be sent; a target with more is broken.
const ACTIONS_MAX: usize = 64;
const SIMPLE: u8 = 1;
const ABORT_TASK: u8 = 1;
const LOGICAL_UNIT_RESET: u8 = 5;

/// The data phase of a command, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// None.
    None,
    /// From the target, at most so many.
    In(usize),
    /// To the target.
    Out(usize),
}

/// The data segment that goes with a PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// These bytes of the command's data.
    Data(Range<usize>),
    /// Bytes of the session's own.
    Bytes(Vec<u8>),
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// SAM status.
    pub status: u8,
    /// Sense data, without their length.
    pub sense: Vec<u8>,
    /// Bytes of the data phase offered less bytes moved; negative when the device had more.
    pub residual: i64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Pdu, Payload),
    /// The command ended.
    Done(Completion),
    /// Task management was answered. `true`: it was done, and the command will not be answered.
    Managed(bool),
    /// Our ping was answered.
    Pong,
    /// The text was answered.
    Text(Pairs),
    /// The logout was answered.
    LoggedOut,
    /// The target wants the connection to end.
    Leave,
}

/// Something out of order. The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An answer is missing.
    #[error("an answer of the target is missing")]
    StatusOrder,
    /// Data are missing or out of order.
    #[error("data of the target are missing or out of order")]
    DataOrder,
    /// More data than were asked for.
    #[error("the target sends more data than it was asked for")]
    TooMuch,
    /// It asks for data that the command does not have, or not yet.
    #[error("the target asks for data that it must not ask for")]
    Transfer,
    /// For a command that is not there.
    #[error("the target answers what was not asked")]
    NoTask,
    /// A PDU that a target does not send now.
    #[error("the target sends what does not belong here")]
    Unexpected,
    /// It refused a PDU of ours.
    #[error("the target refuses a PDU (reason {0:02x}h)")]
    Rejected(u8),
    /// It could not execute the command, and does not say how far it came.
    #[error("the target failed in a command (response {0:02x}h)")]
    Failed(u8),
    /// A command while another one is under way, or without room in the target's window.
    #[error("the target takes no command now")]
    Closed,
}

/// A sequence of data to the target.
#[derive(Clone, Debug)]
struct Burst {
    transfer: u32,
    offset: usize,
    end: usize,
    data_sn: u32,
}

/// The command under way.
#[derive(Clone, Debug)]
struct Task {
    tag: u32,
    cmd_sn: u32,
    lun: u64,
    direction: Direction,
    /// Bytes that came, or that were sent or are about to be.
    moved: usize,
    /// DataSN or R2TSN of the next PDU.
    data_sn: u32,
    burst: Option<Burst>,
}

/// A session in the full feature phase.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    cmd_sn: u32,
    exp_stat_sn: u32,
    max_cmd_sn: u32,
    next_tag: u32,
    task: Option<Task>,
    /// Tags of task management requests without an answer.
    managing: Vec<u32>,
    ping: Option<u32>,
    asking: Option<u32>,
    text: Vec<u8>,
    leaving: Option<u32>,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session as a login left it.
    pub fn new(limits: Limits, cmd_sn: u32, exp_stat_sn: u32, max_cmd_sn: u32) -> Self {
        Self {
            limits,
            cmd_sn,
            exp_stat_sn,
            max_cmd_sn,
            next_tag: 1,
            task: None,
            managing: Vec::new(),
            ping: None,
            asking: None,
            text: Vec::new(),
            leaving: None,
            actions: VecDeque::new(),
        }
    }

    /// What was agreed.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn tag(&mut self) -> u32 {
        let tag = self.next_tag;
        // 0 is the login's, ffff_ffffh is none.
        self.next_tag = if tag >= NO_TAG - 1 { 1 } else { tag + 1 };
        tag
    }

    fn send(&mut self, pdu: impl Into<Pdu>, payload: Payload) {
        self.actions.push_back(Action::Send(pdu.into(), payload));
    }

    fn send_bare(&mut self, pdu: impl Into<Pdu>) {
        self.send(pdu, Payload::Bytes(Vec::new()));
    }

    /// Takes a command number.
    fn number(&mut self) -> u32 {
        let number = self.cmd_sn;
        self.cmd_sn = number.wrapping_add(1);
        number
    }

    /// Whether the target takes a command now (RFC 7143 4.2.2.1).
    pub fn is_open(&self) -> bool {
        self.task.is_none() && self.managing.is_empty() && !after(self.cmd_sn, self.max_cmd_sn)
    }

    /// Begins a command; a CDB of more than 16 bytes is cut off.
    ///
    /// # Errors
    /// [`Violation::Closed`]: nothing was sent.
    pub fn command(&mut self, lun: u64, cdb: &[u8], direction: Direction) -> Result<(), Violation> {
        if !self.is_open() {
            return Err(Violation::Closed);
        }
        let (tag, cmd_sn) = (self.tag(), self.number());
        let mut padded = [0; 16];
        let n = cdb.len().min(16);
        padded[..n].copy_from_slice(&cdb[..n]);
        let limits = &self.limits;
        let (expected, unasked) = match direction {
            Direction::None => (0, 0),
            Direction::In(length) => (length, 0),
            Direction::Out(length) if limits.initial_r2t => (length, 0),
            Direction::Out(length) => (length, length.min(limits.first_burst)),
        };
        let along = match direction {
            Direction::Out(length) if limits.immediate => {
                length.min(limits.first_burst).min(limits.send)
            }
            _ => 0,
        };
        let burst = (unasked > along).then_some(Burst {
            transfer: NO_TAG,
            offset: along,
            end: unasked,
            data_sn: 0,
        });
        let pdu = Command {
            immediate: false,
            last: burst.is_none(),
            read: matches!(direction, Direction::In(_)),
            write: matches!(direction, Direction::Out(_)),
            attribute: SIMPLE,
            lun,
            task: tag,
            expected: expected as u32,
            cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            cdb: padded,
        };
        let moved = unasked.max(along);
        self.task = Some(Task { tag, cmd_sn, lun, direction, moved, data_sn: 0, burst });
        self.send(pdu, Payload::Data(0..along));
        Ok(())
    }

    /// Asks the target whether it is there. One ping at a time.
    pub fn ping(&mut self) {
        if self.ping.is_some() {
            return;
        }
        let tag = self.tag();
        self.ping = Some(tag);
        let (cmd_sn, exp_stat_sn) = (self.cmd_sn, self.exp_stat_sn);
        self.send_bare(NopOut {
            immediate: true,
            last: true,
            lun: 0,
            task: tag,
            transfer: NO_TAG,
            cmd_sn,
            exp_stat_sn,
        });
    }

    /// Whether a ping waits for its answer.
    pub fn is_pinging(&self) -> bool {
        self.ping.is_some()
    }

    /// Asks the target to forget the command under way (ABORT TASK), and with `reset` to reset the
    /// logical unit (LOGICAL UNIT RESET), with or without a command. At most two in a session.
    pub fn manage(&mut self, lun: u64, reset: bool) {
        let tag = self.tag();
        self.managing.push(tag);
        let task = self.task.as_ref();
        let (lun, referenced, ref_cmd_sn) = match task {
            Some(task) if !reset => (task.lun, task.tag, task.cmd_sn),
            _ => (lun, NO_TAG, 0),
        };
        if let Some(task) = &mut self.task {
            task.burst = None;
        }
        let (cmd_sn, exp_stat_sn) = (self.cmd_sn, self.exp_stat_sn);
        self.send_bare(TaskRequest {
            immediate: true,
            last: true,
            function: if reset { LOGICAL_UNIT_RESET } else { ABORT_TASK },
            lun,
            task: tag,
            referenced,
            cmd_sn,
            exp_stat_sn,
            ref_cmd_sn,
        });
    }

    /// Asks in text (SendTargets).
    pub fn ask(&mut self, pairs: &Pairs) {
        let tag = self.tag();
        self.asking = Some(tag);
        self.text.clear();
        self.text_request(tag, NO_TAG, pairs.encode());
    }

    fn text_request(&mut self, task: u32, transfer: u32, text: Vec<u8>) {
        let (cmd_sn, exp_stat_sn) = (self.number(), self.exp_stat_sn);
        let request = TextRequest {
            immediate: false,
            last: true,
            more: false,
            lun: 0,
            task,
            transfer,
            cmd_sn,
            exp_stat_sn,
        };
        self.send(request, Payload::Bytes(text));
    }

    /// Ends the session.
    pub fn log_out(&mut self) {
        let tag = self.tag();
        self.leaving = Some(tag);
        let (cmd_sn, exp_stat_sn) = (self.number(), self.exp_stat_sn);
        self.send_bare(LogoutRequest {
            immediate: false,
            last: true,
            reason: 0,
            task: tag,
            connection: 0,
            cmd_sn,
            exp_stat_sn,
        });
    }

    /// What to do next.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.next_data())
    }

    /// The next PDU of data that the target may have.
    fn next_data(&mut self) -> Option<Action> {
        let task = self.task.as_mut()?;
        let burst = task.burst.as_mut()?;
        let end = burst.end.min(burst.offset + self.limits.send);
        let pdu = DataOut {
            last: end == burst.end,
            lun: task.lun,
            task: task.tag,
            transfer: burst.transfer,
            exp_stat_sn: self.exp_stat_sn,
            data_sn: burst.data_sn,
            offset: burst.offset as u32,
        };
        let range = burst.offset..end;
        burst.offset = end;
        burst.data_sn += 1;
        if end == burst.end {
            task.burst = None;
        }
        Some(Action::Send(pdu.into(), Payload::Data(range)))
    }

    /// Takes a PDU of the target; data of the command go into `into`.
    ///
    /// # Errors
    /// The session is over; whether a command that was under way was done is not known.
    pub fn receive(&mut self, pdu: &Pdu, data: &[u8], into: &mut [u8]) -> Result<(), Violation> {
        if self.actions.len() >= ACTIONS_MAX {
            return Err(Violation::Unexpected);
        }
        match pdu {
            Pdu::DataIn(pdu) => self.data_in(pdu, data, into),
            Pdu::ReadyToTransfer(pdu) => self.ready_to_transfer(pdu),
            Pdu::Response(pdu) => self.response(pdu, data),
            Pdu::NopIn(pdu) => self.nop_in(pdu, data),
            Pdu::TaskResponse(pdu) => {
                self.status(pdu.stat_sn)?;
                self.window(pdu.max_cmd_sn);
                let asked = self.managing.iter().position(|tag| *tag == pdu.task);
                self.managing.swap_remove(asked.ok_or(Violation::NoTask)?);
                // 1: there is no such task, which is as good.
                let done = matches!(pdu.response, 0 | 1);
                if done {
                    self.task = None;
                }
                self.actions.push_back(Action::Managed(done));
                Ok(())
            }
            Pdu::TextResponse(pdu) => {
                self.status(pdu.stat_sn)?;
                self.window(pdu.max_cmd_sn);
                self.text_response(pdu.task, pdu.last, pdu.transfer, data)
            }
            Pdu::LogoutResponse(pdu) => {
                self.status(pdu.stat_sn)?;
                if self.leaving.take() != Some(pdu.task) {
                    return Err(Violation::NoTask);
                }
                self.actions.push_back(Action::LoggedOut);
                Ok(())
            }
            Pdu::AsyncMessage(pdu) => self.asynchronous(pdu),
            Pdu::Reject(pdu) => Err(Violation::Rejected(pdu.reason)),
            _ => Err(Violation::Unexpected),
        }
    }

    /// Answers come in the order of their StatSN; one that is missing will not come again.
    fn status(&mut self, stat_sn: u32) -> Result<(), Violation> {
        if stat_sn != self.exp_stat_sn {
            return Err(Violation::StatusOrder);
        }
        self.exp_stat_sn = stat_sn.wrapping_add(1);
        Ok(())
    }

    fn window(&mut self, max_cmd_sn: u32) {
        if after(max_cmd_sn, self.max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
    }

    fn task_of(&mut self, tag: u32) -> Result<&mut Task, Violation> {
        self.task.as_mut().filter(|task| task.tag == tag).ok_or(Violation::NoTask)
    }

    fn data_in(&mut self, pdu: &DataIn, data: &[u8], into: &mut [u8]) -> Result<(), Violation> {
        self.window(pdu.max_cmd_sn);
        if pdu.has_status {
            self.status(pdu.stat_sn)?;
        }
        let task = self.task_of(pdu.task)?;
        let Direction::In(length) = task.direction else { return Err(Violation::TooMuch) };
        if pdu.data_sn != task.data_sn || pdu.offset as usize != task.moved {
            return Err(Violation::DataOrder);
        }
        let end = task.moved + data.len();
        if end > length || end > into.len() {
            return Err(Violation::TooMuch);
        }
        into[task.moved..end].copy_from_slice(data);
        task.moved = end;
        task.data_sn = task.data_sn.wrapping_add(1);
        if pdu.has_status {
            let residual = residual(pdu.overflow, pdu.underflow, pdu.residual);
            self.done(pdu.status, Vec::new(), residual);
        }
        Ok(())
    }

    fn ready_to_transfer(&mut self, pdu: &ReadyToTransfer) -> Result<(), Violation> {
        self.window(pdu.max_cmd_sn);
        let (burst, managing) = (self.limits.burst, !self.managing.is_empty());
        let task = self.task_of(pdu.task)?;
        let Direction::Out(length) = task.direction else { return Err(Violation::Transfer) };
        if pdu.r2t_sn != task.data_sn {
            return Err(Violation::DataOrder);
        }
        let (offset, wanted) = (pdu.offset as usize, pdu.length as usize);
        let end = offset.saturating_add(wanted);
        let in_order = task.burst.is_none() && offset == task.moved;
        if !in_order || wanted == 0 || wanted > burst || end > length {
            return Err(Violation::Transfer);
        }
        task.data_sn = task.data_sn.wrapping_add(1);
        task.moved = end;
        // What is about to be aborted gets no more data.
        if !managing {
            task.burst = Some(Burst { transfer: pdu.transfer, offset, end, data_sn: 0 });
        }
        Ok(())
    }

    fn response(&mut self, pdu: &Response, data: &[u8]) -> Result<(), Violation> {
        self.status(pdu.stat_sn)?;
        self.window(pdu.max_cmd_sn);
        let task = self.task_of(pdu.task)?;
        if pdu.response != 0 {
            return Err(Violation::Failed(pdu.response));
        }
        let is_in = matches!(task.direction, Direction::In(_));
        if is_in && pdu.exp_data_sn != task.data_sn && pdu.exp_data_sn != 0 {
            return Err(Violation::DataOrder);
        }
        let sense = match data {
            [high, low, rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest[..length.min(rest.len()).min(SENSE_MAX)].to_vec()
            }
            _ => Vec::new(),
        };
        self.done(pdu.status, sense, residual(pdu.overflow, pdu.underflow, pdu.residual));
        Ok(())
    }

    /// Of what came from the target, what really came decides, whatever it says about it.
    fn done(&mut self, status: u8, sense: Vec<u8>, said: i64) {
        let Some(task) = self.task.take() else { return };
        let residual = match task.direction {
            Direction::In(length) if task.moved < length => (length - task.moved) as i64,
            Direction::In(_) => said.min(0),
            Direction::None | Direction::Out(_) => said,
        };
        self.actions.push_back(Action::Done(Completion { status, sense, residual }));
    }

    fn nop_in(&mut self, pdu: &NopIn, data: &[u8]) -> Result<(), Violation> {
        self.window(pdu.max_cmd_sn);
        if pdu.task != NO_TAG {
            self.status(pdu.stat_sn)?;
            if self.ping.take() != Some(pdu.task) {
                return Err(Violation::NoTask);
            }
            self.actions.push_back(Action::Pong);
        } else if pdu.transfer != NO_TAG {
            let answer = NopOut {
                immediate: true,
                last: true,
                lun: pdu.lun,
                task: NO_TAG,
                transfer: pdu.transfer,
                cmd_sn: self.cmd_sn,
                exp_stat_sn: self.exp_stat_sn,
            };
            let back = data[..data.len().min(self.limits.send)].to_vec();
            self.send(answer, Payload::Bytes(back));
        }
        Ok(())
    }

    fn text_response(
        &mut self,
        tag: u32,
        last: bool,
        transfer: u32,
        data: &[u8],
    ) -> Result<(), Violation> {
        if self.asking != Some(tag) {
            return Err(Violation::NoTask);
        }
        if self.text.len() + data.len() > TEXT_MAX {
            return Err(Violation::TooMuch);
        }
        self.text.extend(data);
        if !last || transfer != NO_TAG {
            // An answer that never ends nor grows would go on for ever.
            if data.is_empty() {
                return Err(Violation::Unexpected);
            }
            self.text_request(tag, transfer, Vec::new());
            return Ok(());
        }
        self.asking = None;
        let pairs = Pairs::parse(&self.text).map_err(|_| Violation::Unexpected)?;
        self.actions.push_back(Action::Text(pairs));
        Ok(())
    }

    fn asynchronous(&mut self, pdu: &AsyncMessage) -> Result<(), Violation> {
        self.status(pdu.stat_sn)?;
        self.window(pdu.max_cmd_sn);
        // 0 is a SCSI event, whose sense data also come as unit attentions; 4 is a wish.
        if matches!(pdu.event, 1..=3) {
            self.actions.push_back(Action::Leave);
        }
        Ok(())
    }
}

fn residual(overflow: bool, underflow: bool, count: u32) -> i64 {
    match (overflow, underflow) {
        (true, _) => -i64::from(count),
        (false, true) => i64::from(count),
        (false, false) => 0,
    }
}

#[cfg(test)]
mod tests;
