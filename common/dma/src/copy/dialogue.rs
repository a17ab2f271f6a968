//! The dialogue itself: which side waits for what.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ndmp::wire::{ErrorCode, HaltReason, MoverMode, MtioOp, PauseReason, Version};

use super::{CopyObserver, CopyPlan, CopyProgress, CopyReport, Literal, Part, write_block};
use crate::{BLOCK_MAX, Client, DmaError, MoverNews, TO_THE_END, TapeObject};

/// How long one side is listened to before the other.
const TURN: Duration = Duration::from_millis(2);
/// How long the target may take to say that it has halted as well.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How often the target is asked how far it is.
const ASK: Duration = Duration::from_millis(250);
/// Literals that may wait for the target: headers of parts without data pile up.
const LITERALS: usize = 4096;
/// The largest block asked for, from what is best to what every server gives.
const READ_SIZES: [u32; 3] = [BLOCK_MAX, 256 * 1024, 64 * 1024];

/// Where a mover is, as its notifications say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    Moving,
    Paused(PauseReason, u64),
    Halted(HaltReason, String),
}

impl From<MoverNews> for Side {
    fn from(news: MoverNews) -> Self {
        match news {
            MoverNews::Paused { reason, position } => Self::Paused(reason, position),
            MoverNews::Halted { reason, text } => Self::Halted(reason, text),
        }
    }
}

/// A data connection between the two movers.
#[derive(Debug)]
struct Joined {
    /// Bytes of the stream that earlier parts had.
    offset: u64,
    record: u64,
    /// End of the window that the target has.
    window_end: u64,
}

/// How one part ended.
struct Sent {
    bytes: u64,
    /// The connection goes on with the next part.
    keep: bool,
    /// A filemark ended it, not the end of the data.
    marked: bool,
}

/// Where the stream has come to with a part.
struct Reached {
    position: u64,
    marked: bool,
}

pub(super) struct Dialogue<'a> {
    source: &'a mut Client,
    target: &'a mut Client,
    plan: &'a CopyPlan,
    observer: &'a mut dyn CopyObserver,
    source_side: Side,
    target_side: Side,
    joined: Option<Joined>,
    literals: VecDeque<Literal>,
    report: CopyReport,
    /// Which of [`READ_SIZES`] the source takes.
    read_size: usize,
    /// Bytes of the connections before this one.
    before: u64,
    /// Bytes of the records that were copied one by one.
    one_by_one: u64,
    progress: CopyProgress,
    asked: Instant,
    moved: Instant,
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(
        source: &'a mut Client,
        target: &'a mut Client,
        plan: &'a CopyPlan,
        observer: &'a mut dyn CopyObserver,
    ) -> Self {
        let now = Instant::now();
        Self {
            source,
            target,
            plan,
            observer,
            source_side: Side::Moving,
            target_side: Side::Moving,
            joined: None,
            literals: VecDeque::new(),
            report: CopyReport::default(),
            read_size: 0,
            before: 0,
            one_by_one: 0,
            progress: CopyProgress::default(),
            asked: now,
            moved: now,
        }
    }

    /// Leaves both movers idle. The first error is the one that is told.
    pub(super) fn end(mut self, outcome: Result<(), DmaError>) -> Result<CopyReport, DmaError> {
        let resets = [self.source.mover_reset(), self.target.mover_reset()];
        self.listen_to_logs();
        outcome?;
        for reset in resets {
            reset?;
        }
        self.end_tape(self.before);
        Ok(self.report)
    }

    /// Record by record, without the movers.
    pub(super) fn copy_records(&mut self) -> Result<(), DmaError> {
        loop {
            let literal = match self.read_source()? {
                TapeObject::Block(data) => Literal::Block(data),
                TapeObject::Filemark => Literal::Filemark,
                TapeObject::EndOfData => return Ok(()),
            };
            if let Literal::Block(data) = &literal {
                self.progress.bytes += data.len() as u64;
            }
            self.literals.push_back(literal);
            self.write_literals()?;
            if self.asked.elapsed() >= ASK {
                self.asked = Instant::now();
                self.observer.progress(self.progress);
            }
        }
    }

    /// Every file to the end of the data.
    pub(super) fn copy_everything(&mut self, headers: u32) -> Result<(), DmaError> {
        loop {
            match self.copy_part(Part { headers, length: None })? {
                true => {}
                false => return self.write_literals(),
            }
        }
    }

    /// The files that the caller knows of.
    pub(super) fn copy_parts(&mut self, parts: &[Part]) -> Result<(), DmaError> {
        for part in parts {
            if !self.copy_part(*part)? {
                return Err(DmaError::Invalid("the source tape has fewer files".to_owned()));
            }
        }
        self.part_company()?;
        self.write_literals()
    }

    /// One file. `false` if the tape has no more.
    fn copy_part(&mut self, part: Part) -> Result<bool, DmaError> {
        for header in 0..part.headers {
            match self.read_source()? {
                TapeObject::Block(data) => self.keep(Literal::Block(data))?,
                TapeObject::Filemark => return self.end_part(0).map(|()| true),
                TapeObject::EndOfData if header == 0 => return Ok(false),
                TapeObject::EndOfData => {
                    // A last file without a filemark.
                    self.finish_last(0)?;
                    return Ok(true);
                }
            }
        }
        let Some(first) = self.peek()? else {
            return Ok(false);
        };
        let TapeObject::Block(first) = first else {
            return self.end_part(0).map(|()| true);
        };
        let sent = self.send_part(part.length, &first)?;
        if !sent.keep {
            self.part_company()?;
        }
        match sent.marked {
            true => self.end_part(sent.bytes)?,
            false => self.finish_last(sent.bytes)?,
        }
        Ok(true)
    }

    /// What is next on the source tape, which goes behind it. Servers differ in the largest
    /// block that they can be asked for.
    fn read_source(&mut self) -> Result<TapeObject, DmaError> {
        loop {
            let refused = match self.source.read_object(READ_SIZES[self.read_size]) {
                Err(error) if error.code() == Some(ErrorCode::IllegalArgs) => error,
                other => return other,
            };
            self.read_size += 1;
            if self.read_size >= READ_SIZES.len() {
                self.read_size = 0;
                return Err(refused);
            }
        }
    }

    /// What is next on the source tape, which stays before a block and goes behind a filemark.
    /// `None` at the end of the data.
    fn peek(&mut self) -> Result<Option<TapeObject>, DmaError> {
        let object = self.read_source()?;
        match &object {
            TapeObject::EndOfData => return Ok(None),
            TapeObject::Filemark => {}
            TapeObject::Block(_) => {
                let left = self.source.mtio(MtioOp::Bsr, 1)?;
                if left != 0 {
                    return Err(DmaError::Protocol("a block that can not be passed".to_owned()));
                }
            }
        }
        Ok(Some(object))
    }

    /// A part is complete and the source stands behind its filemark.
    fn end_part(&mut self, bytes: u64) -> Result<(), DmaError> {
        self.keep(Literal::Filemark)?;
        self.finish_last(bytes)
    }

    fn finish_last(&mut self, bytes: u64) -> Result<(), DmaError> {
        self.report.parts.push(bytes);
        self.progress.parts += 1;
        self.observer.progress(self.progress);
        if self.joined.is_none() { self.write_literals() } else { Ok(()) }
    }

    fn keep(&mut self, literal: Literal) -> Result<(), DmaError> {
        if self.literals.len() >= LITERALS {
            return Err(DmaError::Invalid("too many files without data".to_owned()));
        }
        self.literals.push_back(literal);
        // Without a connection the target's tape is free.
        if self.joined.is_none() { self.write_literals() } else { Ok(()) }
    }

    /// Puts what waited on the target tape.
    fn write_literals(&mut self) -> Result<(), DmaError> {
        while let Some(literal) = self.literals.pop_front() {
            match literal {
                Literal::Filemark => {
                    self.target.write_filemarks(1)?;
                    self.report.filemarks += 1;
                }
                Literal::Block(data) => {
                    let (length, position) = (data.len() as u64, self.progress.bytes);
                    if write_block(self.target, data, position, self.observer)? {
                        self.report.tape_changes += 1;
                        self.end_tape(self.before + self.joined.as_ref().map_or(0, |j| j.offset));
                    }
                    self.report.records += 1;
                    self.one_by_one += length;
                }
            }
        }
        Ok(())
    }

    /// Sends the data of one part through the movers. The source ends behind its filemark.
    fn send_part(&mut self, length: Option<u64>, first: &Bytes) -> Result<Sent, DmaError> {
        let joined = match self.joined.take() {
            Some(joined) => {
                self.go_on_source(joined.offset)?;
                joined
            }
            None => self.join(first.len() as u32)?,
        };
        let (offset, record) = (joined.offset, joined.record);
        let known = length.filter(|length| length % record == 0);
        self.joined = Some(joined);
        self.await_window(offset)?;
        self.write_literals()?;
        self.open_window(offset, known.map(|length| offset + length))?;
        let reached = self.drive_part(known.map(|length| offset + length))?;
        let bytes = reached.position.saturating_sub(offset);
        if known.is_some_and(|length| length != bytes)
            || length.is_some_and(|length| length > bytes)
        {
            let expected = length.unwrap_or(bytes);
            return Err(DmaError::Incomplete { expected, moved: bytes });
        }
        if let Some(joined) = &mut self.joined {
            joined.offset = reached.position;
        }
        Ok(Sent { bytes, keep: known.is_some(), marked: reached.marked })
    }

    /// Makes the data connection; the target's window is empty, so that its mover pauses with the
    /// first byte.
    fn join(&mut self, first_record: u32) -> Result<Joined, DmaError> {
        let record = self.plan.record_size.unwrap_or(first_record);
        let target_record = self.plan.target_record_size.unwrap_or(record);
        (self.source_side, self.target_side) = (Side::Moving, Side::Moving);
        self.moved = Instant::now();
        self.target.mover_set_record_size(target_record)?;
        self.target.mover_set_window(0, 0)?;
        let addr = self.target.mover_listen(MoverMode::Read, self.plan.addr_type)?;
        self.source.mover_set_record_size(record)?;
        self.source.mover_set_window(0, TO_THE_END)?;
        self.source.mover_connect(MoverMode::Write, addr)?;
        self.source.mover_read(0, TO_THE_END)?;
        Ok(Joined { offset: 0, record: u64::from(target_record), window_end: 0 })
    }

    fn go_on_source(&mut self, offset: u64) -> Result<(), DmaError> {
        self.source.mover_set_window(offset, TO_THE_END - offset)?;
        self.source_side = Side::Moving;
        self.source.mover_continue()
    }

    /// Waits until the target has met the end of its window, which the first byte of a part does,
    /// the one at `from`.
    fn await_window(&mut self, from: u64) -> Result<(), DmaError> {
        loop {
            match &self.target_side {
                Side::Paused(PauseReason::Eow, _) => return Ok(()),
                Side::Paused(PauseReason::Eom, position) => {
                    let position = *position;
                    self.change_tape(position)?;
                    let end = self.joined.as_ref().map_or(0, |joined| joined.window_end);
                    self.set_target_window(position, end.max(position))?;
                }
                Side::Paused(reason, position) => {
                    return Err(DmaError::Paused {
                        side: "target",
                        reason: *reason,
                        position: *position,
                    });
                }
                Side::Halted(reason, text) => {
                    let (reason, text) = (*reason, text.clone());
                    return Err(DmaError::Halted { side: "target", reason, text });
                }
                Side::Moving => match self.source_side.clone() {
                    Side::Halted(reason, text) => return Err(self.source_halted(reason, text)?),
                    // It has sent nothing, so the target will say nothing.
                    Side::Paused(reason, position) if position <= from => {
                        return Err(DmaError::Paused { side: "source", reason, position });
                    }
                    _ => self.listen()?,
                },
            }
        }
    }

    /// Gives the target the next window of a part that ends at `end`, if that is known.
    fn open_window(&mut self, from: u64, end: Option<u64>) -> Result<(), DmaError> {
        let until = match (self.plan.window, end) {
            (Some(window), Some(end)) => Some(end.min(from + window)),
            (Some(window), None) => Some(from + window),
            (None, end) => end,
        };
        match until {
            Some(until) => self.set_target_window(from, until),
            None => self.set_target_window(from, TO_THE_END),
        }
    }

    fn set_target_window(&mut self, from: u64, until: u64) -> Result<(), DmaError> {
        let length = if until == TO_THE_END { TO_THE_END } else { until - from };
        self.target.mover_set_window(from, length)?;
        if let Some(joined) = &mut self.joined {
            joined.window_end = until;
        }
        self.target_side = Side::Moving;
        self.target.mover_continue()
    }

    /// Until the source has met its filemark and the target has written everything before it.
    fn drive_part(&mut self, end: Option<u64>) -> Result<Reached, DmaError> {
        loop {
            match self.target_side.clone() {
                Side::Moving => {}
                Side::Paused(PauseReason::Eow, position) if Some(position) != end => {
                    self.open_window(position, end)?;
                }
                Side::Paused(PauseReason::Eow, _) => {}
                Side::Paused(PauseReason::Eom, position) => {
                    self.change_tape(position)?;
                    self.open_window(position, end)?;
                }
                Side::Paused(reason, position) => {
                    return Err(DmaError::Paused { side: "target", reason, position });
                }
                Side::Halted(reason, text) => {
                    return Err(DmaError::Halted { side: "target", reason, text });
                }
            }
            match self.source_side.clone() {
                Side::Moving => self.listen()?,
                Side::Paused(PauseReason::Eof, position) => {
                    self.pass_mark(position, end)?;
                    return Ok(Reached { position, marked: true });
                }
                // A last file without a filemark.
                Side::Paused(PauseReason::Eom, position) => {
                    return Ok(Reached { position, marked: false });
                }
                Side::Paused(reason, position) => {
                    return Err(DmaError::Paused { side: "source", reason, position });
                }
                Side::Halted(reason, text) => return Err(self.source_halted(reason, text)?),
            }
        }
    }

    /// What to tell of a source that has halted by itself. Most often that follows from what the
    /// target did, whose own news may come a moment later.
    fn source_halted(&mut self, reason: HaltReason, text: String) -> Result<DmaError, DmaError> {
        let begun = Instant::now();
        while self.target_side == Side::Moving && begun.elapsed() < AFTERMATH {
            self.listen()?;
        }
        Ok(match self.target_side.clone() {
            Side::Halted(reason, text) => DmaError::Halted { side: "target", reason, text },
            _ => DmaError::Halted { side: "source", reason, text },
        })
    }

    /// Takes the source behind the filemark that stopped it, on whichever side of it this version
    /// left it, once the target has written what came before.
    fn pass_mark(&mut self, position: u64, end: Option<u64>) -> Result<(), DmaError> {
        if let Some(end) = end {
            self.await_written(position.min(end))?;
        }
        if self.source.version() == Version::V4 {
            self.source.skip_filemarks(1)?;
        }
        Ok(())
    }

    /// Waits until the target counts `bytes`, changing its tape if it has to.
    fn await_written(&mut self, bytes: u64) -> Result<(), DmaError> {
        while self.target.mover_state()?.bytes_moved < bytes {
            match self.target_side.clone() {
                Side::Paused(PauseReason::Eom, position) => {
                    self.change_tape(position)?;
                    self.open_window(position, Some(bytes))?;
                }
                Side::Paused(PauseReason::Eow, position) if position < bytes => {
                    self.open_window(position, Some(bytes))?;
                }
                Side::Halted(reason, text) => {
                    return Err(DmaError::Halted { side: "target", reason, text });
                }
                _ => self.listen()?,
            }
        }
        Ok(())
    }

    fn change_tape(&mut self, position: u64) -> Result<(), DmaError> {
        self.observer.change_tape(self.target, position)?;
        self.report.tape_changes += 1;
        self.end_tape(self.before + position);
        self.moved = Instant::now();
        Ok(())
    }

    /// Notes what the target tape holds that was taken away, or is the last one; `moved` counts
    /// the bytes that the movers have copied by now.
    fn end_tape(&mut self, moved: u64) {
        let others: u64 = self.report.tapes.iter().sum();
        let all = moved + self.one_by_one;
        self.report.tapes.push(all.saturating_sub(others));
    }

    /// Ends the data connection: the source closes, the target writes what it still has.
    fn part_company(&mut self) -> Result<(), DmaError> {
        let Some(joined) = self.joined.take() else { return Ok(()) };
        let expected = self.source.mover_state()?.bytes_moved;
        self.source.mover_close()?;
        while !matches!(self.source_side, Side::Halted(..)) {
            self.listen()?;
        }
        self.source.mover_stop()?;
        loop {
            match self.target_side.clone() {
                Side::Halted(HaltReason::ConnectClosed, _) => break,
                Side::Halted(reason, text) => {
                    return Err(DmaError::Halted { side: "target", reason, text });
                }
                Side::Paused(PauseReason::Eom, position) => {
                    self.change_tape(position)?;
                    self.set_target_window(position, joined.window_end.max(position))?;
                }
                Side::Paused(PauseReason::Eow, position) if position < expected => {
                    self.open_window(position, None)?;
                }
                Side::Paused(PauseReason::Eow, _) => {
                    // Full to the byte, and told so early.
                    self.target.mover_close()?;
                    self.target_side = Side::Moving;
                }
                Side::Paused(reason, position) => {
                    return Err(DmaError::Paused { side: "target", reason, position });
                }
                Side::Moving => self.listen()?,
            }
        }
        let moved = self.target.mover_state()?.bytes_moved;
        self.target.mover_stop()?;
        self.before += moved;
        match moved == expected {
            true => Ok(()),
            false => Err(DmaError::Incomplete { expected, moved }),
        }
    }

    /// Hears what both sides have to say, for a moment each.
    fn listen(&mut self) -> Result<(), DmaError> {
        if let Some(news) = self.target.wait_mover(TURN)? {
            self.target_side = match news {
                // Some servers call the end of the window so, and do not say where.
                MoverNews::Paused { reason: PauseReason::Seek, .. } => {
                    let position = self.target.mover_state()?.bytes_moved;
                    Side::Paused(PauseReason::Eow, position)
                }
                news => news.into(),
            };
            self.moved = Instant::now();
        }
        if let Some(news) = self.source.wait_mover(TURN)? {
            self.source_side = news.into();
            self.moved = Instant::now();
        }
        self.listen_to_logs();
        if self.asked.elapsed() >= ASK {
            self.asked = Instant::now();
            let bytes = self.before + self.target.mover_state()?.bytes_moved;
            if bytes > self.progress.bytes {
                self.progress.bytes = bytes;
                self.moved = Instant::now();
            }
            self.observer.progress(self.progress);
        }
        match self.moved.elapsed() > self.plan.patience {
            true => Err(DmaError::TimedOut("the movers")),
            false => Ok(()),
        }
    }

    fn listen_to_logs(&mut self) {
        for line in std::iter::from_fn(|| self.target.next_log()) {
            self.observer.log(&line);
        }
        for line in std::iter::from_fn(|| self.source.next_log()) {
            self.observer.log(&line);
        }
    }
}
