//! A tape drive behind a transport.

use std::time::Duration;

use model::{Barcode, ObjectNumber};
use scsi::log::{LogPage, page as log_page};
use scsi::mam::{Attribute, id as attribute};
use scsi::{Cdb, Destination, DeviceType, PositionForm, PositionReport, Sense, SpaceCode};

use super::channel::{ATTENTIONS_MAX, Channel, Fault, Reply, TRANSFER_MAX, malformed};
use super::ends::{read_end, spaced, write_end};
use super::keys::{Keys, is_locked};
use super::place::Place;
use super::reserve::Reservation;
use super::transport::{Data, ScsiTransport};
use crate::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, MediumState, Position, ReadEnd,
    SpaceKind, SpaceStop, Spaced, TapeDrive, TapeError, WriteEnd,
};

/// How long a drive that is let go has to give up its key.
const FAREWELL: Duration = Duration::from_secs(10);

/// What to do about a command of which it is not known whether it was executed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Redo {
    /// Doing it twice is doing it once: send it again.
    Repeat,
    /// Go back to where it began and send it again.
    Return,
    /// It writes so many objects: it was done if the position says so.
    Wrote(u64),
}

/// A [`TapeDrive`] that sends CDBs (SSC-4) over a transport.
#[derive(Debug)]
pub struct ScsiDrive<T: ScsiTransport> {
    pub(super) channel: Channel<T>,
    identity: DeviceIdentity,
    /// The object number that the drive stands at as far as every answer so far tells.
    pub(super) expected: Option<ObjectNumber>,
    /// READ POSITION has no long form here.
    is_short: bool,
    /// Whether READ POSITION has ever told a position, once it was asked. Of a drive that has, it
    /// is a fault when it does not.
    is_telling: Option<bool>,
    /// LOCATE is not there at all.
    is_without_locate: bool,
    /// The filemark that was read last.
    mark: Option<ObjectNumber>,
    /// Nothing was sent yet that moves or writes.
    is_fresh: bool,
    /// Where a drive without positions was left, for who opens it next.
    place: Place,
    /// How often a cartridge had been moved when it was last counted.
    moves: u64,
    pub(super) keys: Keys,
    pub(super) reservation: Option<Reservation>,
}

impl<T: ScsiTransport> Drop for ScsiDrive<T> {
    fn drop(&mut self) {
        self.forget_key(&Control::within(FAREWELL));
        self.let_go(&Control::within(FAREWELL));
        self.place.leave(self.moves, self.expected.filter(|_| self.is_telling == Some(false)));
    }
}

impl<T: ScsiTransport> ScsiDrive<T> {
    /// Asks a device who it is. Neither waits for it to be ready nor takes unit attentions.
    pub fn open(transport: T, control: &Control) -> Result<Self, TapeError> {
        let mut channel = Channel::new(transport);
        let identity = channel.identify(DeviceType::Tape, control)?;
        Ok(Self {
            channel,
            identity,
            expected: None,
            is_short: false,
            is_telling: None,
            is_without_locate: false,
            mark: None,
            is_fresh: true,
            place: Place::default(),
            moves: 0,
            keys: Keys::default(),
            reservation: None,
        })
    }

    /// Goes on counting where the last user of the drive left it. Whoever moves a cartridge clears
    /// the place.
    pub fn resuming(mut self, place: Place) -> Self {
        (self.moves, self.expected) = place.look();
        self.place = place;
        self
    }

    /// How often a cartridge was moved.
    pub(super) fn moves(&self) -> u64 {
        self.place.look().0
    }

    /// What was counted before a cartridge was moved was counted on another tape.
    fn follow_moves(&mut self) {
        let (moves, _) = self.place.look();
        if moves != self.moves {
            self.moves = moves;
            self.expected = None;
            self.is_fresh = true;
        }
    }

    /// Sets how long to wait between two looks at a device that is not ready yet; at first 1 s.
    pub fn set_poll(&mut self, poll: Duration) {
        self.channel.set_poll(poll);
    }

    /// Waits until a medium is loaded and ready, passing over unit attentions: what they would
    /// tell is asked for anew afterwards. An empty drive is `Check` 02/3A/00.
    pub fn ready(&mut self, control: &Control) -> Result<(), TapeError> {
        self.expected = None;
        self.channel.ask_anew(Cdb::TestUnitReady, Data::None, control)?.done()
    }

    fn report(&mut self, control: &Control) -> Result<PositionReport, TapeError> {
        let report = self.any_report(control)?;
        let tells = report.object.is_some() || self.is_telling == Some(true);
        self.is_telling = Some(tells);
        Ok(report)
    }

    fn any_report(&mut self, control: &Control) -> Result<PositionReport, TapeError> {
        let mut read = |form, length: usize| {
            let cdb = Cdb::ReadPosition { form, allocation: 0 };
            let bytes = self.channel.fetch(cdb, length, control)?;
            PositionReport::parse(&bytes, form).map_err(malformed)
        };
        if !self.is_short {
            match read(PositionForm::Long, 32) {
                Err(TapeError::Check(sense)) if sense.is(Sense::INVALID_FIELD_IN_CDB) => {
                    self.is_short = true;
                }
                // Object 0 that is not the beginning is an answer without a position in it.
                Ok(report) if report.object == Some(0) && !report.at_bot => self.is_short = true,
                report => return report,
            }
        }
        read(PositionForm::Short, 20)
    }

    /// To an object without LOCATE: from the beginning, over record after record and filemark after
    /// filemark.
    fn walk_to(&mut self, object: ObjectNumber, control: &Control) -> Result<(), TapeError> {
        const STEP: u64 = 0x7f_ffff;
        self.rewind(control)?;
        let mut left = object;
        while left > 0 {
            let step = left.min(STEP);
            let spaced = self.space(SpaceKind::Records, step as i64, control)?;
            // A filemark that stopped it was passed, so every step passes something.
            left -= match spaced.stop {
                SpaceStop::Done => step,
                SpaceStop::Filemark if spaced.residual < step => step - spaced.residual + 1,
                SpaceStop::Filemark => 1,
                _ => return Err(TapeError::Check(Sense::END_OF_DATA)),
            };
        }
        self.expected = Some(object);
        Ok(())
    }

    /// Over filemarks of a drive without positions: by reading, since somebody has to count.
    fn read_over(&mut self, filemarks: u64, control: &Control) -> Result<Spaced, TapeError> {
        let mut left = filemarks;
        let stop = loop {
            if left == 0 {
                break SpaceStop::Done;
            }
            match self.read(&mut [0], control)? {
                ReadEnd::Record { .. } => {}
                ReadEnd::Filemark => left -= 1,
                ReadEnd::EndOfData => break SpaceStop::EndOfData,
            }
        };
        Ok(Spaced { residual: left, stop })
    }

    /// Where a tape stands after SPACE, as far as that can be counted.
    fn spaced_to(
        before: Option<ObjectNumber>,
        kind: SpaceKind,
        count: i64,
        spaced: Spaced,
    ) -> Option<ObjectNumber> {
        let passed = count.unsigned_abs().saturating_sub(spaced.residual);
        let mark = u64::from(spaced.stop == SpaceStop::Filemark);
        match (kind, spaced.stop) {
            (_, SpaceStop::BeginningOfTape) => Some(0),
            (SpaceKind::Records, SpaceStop::Done | SpaceStop::Filemark) if count < 0 => {
                before?.checked_sub(passed + mark)
            }
            (SpaceKind::Records, SpaceStop::Done | SpaceStop::Filemark) => {
                before?.checked_add(passed + mark)
            }
            _ => None,
        }
    }

    /// The position before a command. Unknown where the drive does not tell: then the command
    /// itself will say what is wrong. A unit attention met here is the caller's.
    pub(super) fn before(&mut self, control: &Control) -> Result<Option<ObjectNumber>, TapeError> {
        self.follow_moves();
        self.hold(control)?;
        if self.expected.is_none() {
            self.expected = match self.report(control) {
                Ok(report) => report.object,
                Err(TapeError::Check(sense)) if !sense.is_unit_attention() => None,
                Err(error) => return Err(error),
            };
        }
        Ok(self.expected)
    }

    /// Sends a command that moves or writes. Afterwards the position is unknown, until the caller
    /// notes it.
    pub(super) fn act(
        &mut self,
        cdb: Cdb,
        mut data: Data<'_>,
        redo: Redo,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        let before = match redo {
            Redo::Repeat => None,
            Redo::Return | Redo::Wrote(_) => self.before(control)?,
        };
        self.expected = None;
        self.is_fresh = false;
        self.hold(control)?;
        self.key_for(redo, control)?;
        let cause = match self.channel.send(cdb, &mut data, control) {
            Ok(reply) => return Ok(reply),
            Err(Fault::Told(error)) => return Err(error),
            Err(Fault::Unknown(cause)) => cause,
        };
        tracing::warn!(serial = self.identity.serial, cause, "a command got no answer");
        if self.was_done(before, redo, &cause, control)? {
            return Ok(Reply::default());
        }
        self.hold(control)?;
        self.key_for(redo, control)?;
        match self.channel.send(cdb, &mut data, control) {
            Ok(reply) => Ok(reply),
            Err(Fault::Told(error)) => Err(error),
            Err(Fault::Unknown(text)) => Err(TapeError::PositionUnknown(text)),
        }
    }

    /// Finds out by the position whether a command was executed. `false`: it was not, and the tape
    /// stands where it has to be sent again.
    fn was_done(
        &mut self,
        before: Option<ObjectNumber>,
        redo: Redo,
        cause: &str,
        control: &Control,
    ) -> Result<bool, TapeError> {
        control.check()?;
        if matches!(redo, Redo::Repeat) {
            return Ok(false);
        }
        let unknown = |text: String| TapeError::PositionUnknown(format!("{cause}; {text}"));
        let before = before.ok_or_else(|| unknown("where the tape stood is not known".into()))?;
        let actual = self.proven_position(control).map_err(|error| unknown(error.to_string()))?;
        match redo {
            _ if actual == before => Ok(false),
            Redo::Wrote(objects) if actual == before + objects => Ok(true),
            Redo::Return => {
                let cdb = locate(before);
                let reply = self.channel.ask(cdb, Data::None, control);
                let reply = reply.map_err(|error| unknown(error.to_string()))?;
                reply.done().map_err(|error| unknown(error.to_string()))?;
                Ok(false)
            }
            _ => Err(unknown(format!("expected at object {before}, the tape stands at {actual}"))),
        }
    }

    /// The position after the way broke. A reset shows in the position; a changed medium would
    /// not, so that is an error.
    fn proven_position(&mut self, control: &Control) -> Result<ObjectNumber, TapeError> {
        for _ in 0..ATTENTIONS_MAX {
            match self.report(control) {
                Err(TapeError::Check(sense)) if sense.is_unit_attention() && sense.asc != 0x28 => {}
                report => {
                    let object = report?.object;
                    return object.ok_or(TapeError::Check(Sense::MECHANICAL_POSITIONING_ERROR));
                }
            }
        }
        Err(TapeError::Check(Sense::POWER_ON_RESET))
    }

    /// Notes where the tape stands after a command that began at `before`.
    fn note(&mut self, before: Option<ObjectNumber>, objects: u64) {
        self.expected = before.map(|before| before + objects);
    }

    fn attributes(&mut self, control: &Control) -> Result<Vec<Attribute>, TapeError> {
        const LENGTH: usize = 32 << 10;
        let allocation = LENGTH as u32;
        let cdb = Cdb::ReadAttribute { action: 0, partition: 0, first: 0, allocation };
        let bytes = optional(self.channel.fetch(cdb, LENGTH, control))?;
        let list = bytes.map(|bytes| Attribute::parse_list(&bytes).map_err(malformed));
        Ok(list.transpose()?.unwrap_or_default())
    }

    /// Capacity and what is left of it, in bytes, by the log page that older drives have.
    fn logged_capacity(
        &mut self,
        control: &Control,
    ) -> Result<(Option<u64>, Option<u64>), TapeError> {
        let cdb = Cdb::LogSense {
            control: 1,
            page: log_page::TAPE_CAPACITY,
            subpage: 0,
            parameter: 0,
            allocation: 512,
        };
        let Some(bytes) = optional(self.channel.fetch(cdb, 512, control))? else {
            return Ok((None, None));
        };
        let page = LogPage::parse(&bytes).map_err(malformed)?;
        let bytes = |code| page.number(code).map(|mebibytes| mebibytes.saturating_mul(1 << 20));
        Ok((bytes(3), bytes(1)))
    }

    fn medium(&mut self, write_protected: bool, control: &Control) -> MediumResult {
        let list = self.attributes(control)?;
        let value = |id| list.iter().find(|a| a.id == id).map(|a| a.value.as_slice());
        let text = |id| value(id).and_then(|value| std::str::from_utf8(value).ok());
        let mebibytes = |id| {
            let value = value(id).and_then(|value| value.first_chunk::<8>())?;
            u64::from_be_bytes(*value).checked_mul(1 << 20)
        };
        let barcode = text(attribute::BARCODE).and_then(|text| Barcode::new(text).ok());
        let mut capacity = mebibytes(attribute::MAXIMUM_CAPACITY);
        let mut remaining = mebibytes(attribute::REMAINING_CAPACITY);
        if capacity.is_none() || remaining.is_none() {
            let (logged_capacity, logged_remaining) = self.logged_capacity(control)?;
            capacity = capacity.or(logged_capacity);
            remaining = remaining.or(logged_remaining);
        }
        Ok(MediumState { barcode, write_protected, capacity, remaining })
    }
}

type MediumResult = Result<MediumState, TapeError>;

/// `None` for what a device does not support.
pub(super) fn optional<V>(result: Result<V, TapeError>) -> Result<Option<V>, TapeError> {
    match result {
        Err(TapeError::Check(sense)) if sense.key == 0x05 => Ok(None),
        result => result.map(Some),
    }
}

/// Whether a command may leave the tape elsewhere: every one that is not known to only ask.
fn may_move(cdb: &[u8]) -> bool {
    const ASKS: [u8; 15] =
        [0x00, 0x03, 0x05, 0x12, 0x1a, 0x1e, 0x34, 0x44, 0x4d, 0x5a, 0x5e, 0x8c, 0xa0, 0xa2, 0xa3];
    !cdb.first().is_some_and(|code| ASKS.contains(code))
}

fn locate(object: ObjectNumber) -> Cdb {
    let destination = Destination::Object(object);
    Cdb::Locate { immediate: false, partition: None, destination }
}

impl<T: ScsiTransport> TapeDrive for ScsiDrive<T> {
    fn identity(&self) -> DeviceIdentity {
        self.identity.clone()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        self.hold(control)?;
        let empty = DriveState { medium: None, block_length: 0 };
        match self.channel.ask(Cdb::TestUnitReady, Data::None, control) {
            Ok(reply) => reply.done()?,
            Err(TapeError::Check(sense)) if sense.key == 0x02 && sense.asc == 0x3a => {
                return Ok(empty);
            }
            Err(TapeError::Check(sense)) if sense.is(Sense::INITIALIZING_COMMAND_REQUIRED) => {
                return Ok(empty);
            }
            Err(error) => return Err(error),
        }
        let mode = self.channel.mode_sense(0x3f, false, control)?;
        let medium = self.medium(mode.write_protected(), control)?;
        let block_length = mode.block.map_or(0, |block| block.length);
        Ok(DriveState { medium: Some(medium), block_length })
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        self.follow_moves();
        self.hold(control)?;
        let report = self.report(control)?;
        let unknown = || TapeError::PositionUnknown("the drive does not know it".to_owned());
        // For a drive that never knows is counted, from the last REWIND on.
        let counted = self.expected.filter(|_| self.is_telling == Some(false));
        let object = match report.object.or(counted) {
            Some(object) => object,
            // Nobody can know where it stands, and nothing was done yet that this could undo.
            None if self.is_fresh && self.is_telling == Some(false) => {
                self.rewind(control)?;
                0
            }
            None => return Err(unknown()),
        };
        self.expected = Some(object);
        let in_flight = report.medium_object.map_or(0, |on_tape| object.saturating_sub(on_tape));
        Ok(Position {
            object,
            file: report.file.unwrap_or(0),
            at_bot: report.at_bot,
            past_early_warning: report.at_end,
            buffered_objects: report.buffered_objects.map_or(in_flight, u64::from),
        })
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        let cdb = Cdb::Rewind { immediate: false };
        self.act(cdb, Data::None, Redo::Repeat, control)?.done()?;
        self.expected = Some(0);
        Ok(())
    }

    fn locate(&mut self, object: ObjectNumber, control: &Control) -> Result<(), TapeError> {
        if !self.is_without_locate {
            let reply = match self.act(locate(object), Data::None, Redo::Repeat, control) {
                Err(TapeError::Check(sense)) if sense.is(Sense::INVALID_OPERATION_CODE) => {
                    self.is_without_locate = true;
                    return self.walk_to(object, control);
                }
                reply => reply?,
            };
            reply.done()?;
            self.expected = Some(object);
            return Ok(());
        }
        self.walk_to(object, control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        let code = match kind {
            SpaceKind::Records => SpaceCode::Blocks,
            SpaceKind::Filemarks => SpaceCode::Filemarks,
            SpaceKind::EndOfData => SpaceCode::EndOfData,
        };
        let cdb = Cdb::Space { code, count };
        let before = self.before(control)?;
        if self.is_telling == Some(false) && before.is_some() && kind == SpaceKind::Filemarks {
            match count {
                1.. => return self.read_over(count.unsigned_abs(), control),
                // Back over the filemark that was just read: one object.
                -1 if before.is_some_and(|at| at.checked_sub(1) == self.mark) => {
                    self.space(SpaceKind::Records, -1, control)?;
                    return Ok(Spaced { residual: 0, stop: SpaceStop::Done });
                }
                _ => {}
            }
        }
        let reply = self.act(cdb, Data::None, Redo::Return, control)?;
        let spaced = spaced(&reply, kind, count)?;
        self.expected = Self::spaced_to(before, kind, count, spaced);
        Ok(spaced)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        // A READ of 0 bytes would not move the tape.
        let mut one = [0];
        let buffer = if buffer.is_empty() { &mut one } else { buffer };
        let longest = self.channel.longest();
        let asked = buffer.len().min(TRANSFER_MAX).min(longest);
        let buffer = &mut buffer[..asked];
        let cdb = Cdb::Read { fixed: false, sili: false, length: asked as u32 };
        let before = self.before(control)?;
        let reply = match self.act(cdb, Data::In(&mut *buffer), Redo::Return, control) {
            Err(TapeError::Check(sense)) if is_locked(sense) => {
                self.unlock(sense, before, control)?;
                self.act(cdb, Data::In(buffer), Redo::Return, control)?
            }
            reply => reply?,
        };
        let end = read_end(&reply, asked)?;
        self.note(before, u64::from(end != ReadEnd::EndOfData));
        self.mark = before.filter(|_| end == ReadEnd::Filemark);
        match end {
            ReadEnd::Record { length } if asked == longest && length > asked => {
                Err(TapeError::Unreachable(format!(
                    "a record of {length} bytes is passed; the way to the drive takes {longest}"
                )))
            }
            end => Ok(end),
        }
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        if record.is_empty() || record.len() > TRANSFER_MAX {
            return Err(TapeError::Check(Sense::bad_cdb_field(2, None)));
        }
        let cdb = Cdb::Write { fixed: false, length: record.len() as u32 };
        let before = self.before(control)?;
        let reply = self.act(cdb, Data::Out(record), Redo::Wrote(1), control)?;
        let end = write_end(&reply)?;
        self.note(before, u64::from(end != WriteEnd::Overflow));
        Ok(end)
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        if count as usize > TRANSFER_MAX {
            return Err(TapeError::Check(Sense::bad_cdb_field(2, None)));
        }
        let cdb = Cdb::WriteFilemarks { immediate: false, count };
        let before = self.before(control)?;
        let reply = self.act(cdb, Data::None, Redo::Wrote(count.into()), control)?;
        let end = write_end(&reply)?;
        if end != WriteEnd::Overflow {
            self.note(before, count.into());
        }
        self.key_was_kept(control)?;
        Ok(end)
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        let cdb = Cdb::LoadUnload { immediate: false, action: 1 };
        self.act(cdb, Data::None, Redo::Repeat, control)?.done()?;
        self.expected = Some(0);
        Ok(())
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.key_was_kept(control)?;
        self.forget_key(control);
        let cdb = Cdb::LoadUnload { immediate: false, action: 0 };
        self.act(cdb, Data::None, Redo::Repeat, control)?.done()
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        if may_move(&request.cdb) {
            self.hold(control)?;
        }
        let completion = self.pass_with_keys(request, control);
        let attention = completion.as_ref().is_ok_and(|it| Sense::tell_unit_attention(&it.sense));
        if attention || completion.is_err() || may_move(&request.cdb) {
            self.expected = None;
        }
        self.is_fresh &= !may_move(&request.cdb);
        completion
    }
}
