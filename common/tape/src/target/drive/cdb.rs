//! The CDB face of a drive.

use scsi::{Cdb, DeviceType, PositionForm, PositionReport, Sense, SpaceCode};

use super::TargetDrive;
use crate::target::answer::{Answer, Reply, Transfer};
use crate::target::nexus::Access;
use crate::target::{MAX_BLOCK, Medium, common};
use crate::{Control, ReadEnd, SpaceKind, SpaceStop, TapeError, WriteEnd};

/// 0B/4B/00 DATA PHASE ERROR: fewer bytes came than the CDB speaks of.
const DATA_PHASE_ERROR: Sense = Sense::new(0x0b, 0x4b, 0x00);

fn access(cdb: &Cdb) -> Access {
    match cdb {
        Cdb::Release { .. }
        | Cdb::PersistentReserveIn { .. }
        | Cdb::PersistentReserveOut { .. }
        | Cdb::ReportSupportedOpcodes { .. }
        | Cdb::PreventAllow { prevent: false } => Access::Any,
        Cdb::TestUnitReady | Cdb::ReadBlockLimits { .. } | Cdb::ReportDensity { .. } => {
            Access::Status
        }
        Cdb::ModeSense { .. }
        | Cdb::LogSense { .. }
        | Cdb::Rewind { .. }
        | Cdb::Read { .. }
        | Cdb::Space { .. }
        | Cdb::Verify { .. }
        | Cdb::Locate { .. }
        | Cdb::ReadPosition { .. }
        | Cdb::ReadAttribute { .. }
        | Cdb::SecurityProtocolIn { .. } => Access::Read,
        _ => Access::Write,
    }
}

impl<M: Medium> TargetDrive<M> {
    /// Answers a CDB of the initiator `nexus`, as the device over a transport does.
    ///
    /// # Errors
    /// Only when the device does not answer: the control's end before the command began, or an
    /// injected fault (the command may then have been done).
    pub fn execute_cdb(
        &mut self,
        nexus: u64,
        cdb: &[u8],
        mut transfer: Transfer<'_>,
        control: &Control,
    ) -> Result<Answer, TapeError> {
        control.check()?;
        let reply = self.dispatch(nexus, cdb, &mut transfer, control);
        transfer.answer(reply)
    }

    fn dispatch(
        &mut self,
        nexus: u64,
        bytes: &[u8],
        transfer: &mut Transfer<'_>,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        let cdb = match Cdb::parse(DeviceType::Tape, bytes) {
            Ok(cdb) => cdb,
            Err(sense) => {
                self.enter(nexus, Access::Any, control)?;
                return Err(sense.into());
            }
        };
        match cdb {
            Cdb::Inquiry { page, allocation } => {
                let identity = &self.spec.identity;
                let data = common::inquiry(DeviceType::Tape, identity, page)?;
                return Ok(Reply::data(data, allocation));
            }
            Cdb::ReportLuns { select, allocation } => {
                return Ok(Reply::data(common::report_luns(select)?, allocation));
            }
            Cdb::RequestSense { descriptor, allocation } => {
                let idle = self.idle_sense();
                let sense = self.nexuses.take_attention(nexus).unwrap_or(idle);
                return Ok(Reply::data(common::sense_data(sense, descriptor), allocation));
            }
            _ => {}
        }
        self.enter(nexus, access(&cdb), control)?;
        if let Some(reply) =
            common::shared(DeviceType::Tape, &mut self.nexuses, nexus, &cdb, transfer)?
        {
            return Ok(reply);
        }
        match cdb {
            Cdb::TestUnitReady => self.ready().map(|_| Reply::Done),
            Cdb::Read { .. }
            | Cdb::Write { .. }
            | Cdb::Verify { .. }
            | Cdb::WriteFilemarks { .. } => self.transfer_command(&cdb, transfer, control),
            Cdb::Rewind { .. }
            | Cdb::Space { .. }
            | Cdb::Locate { .. }
            | Cdb::LoadUnload { .. }
            | Cdb::FormatMedium { .. }
            | Cdb::SetCapacity { .. }
            | Cdb::Erase { .. } => self.motion_command(nexus, bytes, &cdb, control),
            Cdb::ReadPosition { form, allocation } => self.read_position(form, allocation),
            Cdb::SecurityProtocolIn { .. } | Cdb::SecurityProtocolOut { .. } => {
                self.security_command(nexus, &cdb, transfer)
            }
            _ => self.data_command(nexus, &cdb, transfer),
        }
    }

    fn motion_command(
        &mut self,
        nexus: u64,
        bytes: &[u8],
        cdb: &Cdb,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        match *cdb {
            Cdb::Rewind { .. } => self.rewind(control)?,
            Cdb::Space { code, count } => return self.space_command(code, count, control),
            Cdb::Locate { partition, destination, .. } => {
                if partition.unwrap_or(0) != 0 {
                    let byte = if bytes.first() == Some(&0x92) { 3 } else { 8 };
                    return Err(Sense::bad_cdb_field(byte, None).into());
                }
                self.go_to(destination, control)?;
            }
            Cdb::LoadUnload { action, .. } => match action {
                0b0101 | 0b1101 | 0b0111 | 0b1111 => {
                    return Err(Sense::bad_cdb_field(4, Some(2)).into());
                }
                _ if action & 1 == 1 => self.load_for(nexus, control)?,
                _ => self.unload_for(control)?,
            },
            Cdb::FormatMedium { format, length, .. } => {
                self.at_bot()?;
                self.overwrite_to_format();
                if format != 0 {
                    return Err(Sense::bad_cdb_field(2, Some(3)).into());
                }
                if length != 0 {
                    return Err(Sense::bad_cdb_field(3, None).into());
                }
                self.erase_here(control)?;
            }
            Cdb::SetCapacity { proportion, .. } => {
                self.at_bot()?;
                // The capacity of a cartridge is configured; only "all of it" can be had.
                if proportion != 0xffff {
                    return Err(Sense::bad_cdb_field(3, None).into());
                }
                self.erase_here(control)?;
            }
            _ => self.erase_here(control)?,
        }
        Ok(Reply::Done)
    }

    fn at_bot(&mut self) -> Result<(), TapeError> {
        match self.writable()?.object() {
            0 => Ok(()),
            _ => Err(Sense::NOT_AT_BEGINNING_OF_MEDIUM.into()),
        }
    }

    fn space_command(
        &mut self,
        code: SpaceCode,
        count: i64,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        let kind = match code {
            SpaceCode::Blocks => SpaceKind::Records,
            SpaceCode::Filemarks => SpaceKind::Filemarks,
            SpaceCode::EndOfData => SpaceKind::EndOfData,
        };
        let spaced = self.space_over(kind, count, control)?;
        let sense = match spaced.stop {
            SpaceStop::Done => return Ok(Reply::Done),
            SpaceStop::Filemark => Sense::FILEMARK_DETECTED,
            SpaceStop::BeginningOfTape => Sense::BEGINNING_OF_MEDIUM,
            SpaceStop::EndOfData => Sense::END_OF_DATA,
        };
        let residual = i64::try_from(spaced.residual).unwrap_or(i64::MAX);
        Err(sense.with_information(residual).into())
    }

    fn transfer_command(
        &mut self,
        cdb: &Cdb,
        transfer: &mut Transfer<'_>,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        match *cdb {
            Cdb::Read { fixed: false, sili, length } => {
                self.read_variable(length, sili, transfer.incoming(), control)
            }
            Cdb::Read { fixed: true, length, .. } => {
                self.read_fixed(length, transfer.incoming(), control)
            }
            Cdb::Verify { fixed: false, length, .. } => {
                let mut scratch = vec![0; length.min(MAX_BLOCK) as usize];
                self.read_variable(length, false, &mut scratch, control).map(Reply::unmoved)
            }
            Cdb::Verify { fixed: true, length, .. } => self.verify_fixed(length, control),
            Cdb::Write { fixed: false, length } => {
                self.write_variable(length, transfer.outgoing(), control)
            }
            Cdb::Write { fixed: true, length } => {
                self.write_fixed(length, transfer.outgoing(), control)
            }
            Cdb::WriteFilemarks { immediate, count } => {
                let end = self.write_marks(count, immediate, control)?;
                written(end, 0, count.into())
            }
            _ => Err(Sense::INVALID_OPERATION_CODE.into()),
        }
    }

    /// READ in variable mode (SSC-4 7.3, table "READ semantics").
    fn read_variable(
        &mut self,
        length: u32,
        sili: bool,
        buffer: &mut [u8],
        control: &Control,
    ) -> Result<Reply, TapeError> {
        self.ready()?;
        if length > MAX_BLOCK {
            return Err(Sense::bad_cdb_field(2, None).into());
        }
        if length == 0 {
            return Ok(Reply::Moved { moved: 0, wanted: 0, sense: None });
        }
        let wanted = i64::from(length);
        let limit = buffer.len().min(length as usize);
        let ended = |sense: Sense| Reply::check(0, sense.with_information(wanted));
        let block = match self.read_record(&mut buffer[..limit], control)? {
            ReadEnd::Record { length } => length,
            ReadEnd::Filemark => return Ok(ended(Sense::FILEMARK_DETECTED)),
            ReadEnd::EndOfData => return Ok(ended(Sense::END_OF_DATA)),
        };
        let difference = wanted - block as i64;
        let quiet = sili && (difference > 0 || self.settings.block_length == 0);
        let sense = Sense::INCORRECT_LENGTH.with_information(difference);
        Ok(Reply::Moved {
            moved: block.min(limit),
            wanted: block.min(length as usize),
            sense: (difference != 0 && !quiet).then_some(sense),
        })
    }

    /// The fixed block length, or why FIXED can not be had.
    fn fixed_length(&mut self, blocks: u32) -> Result<(usize, usize), TapeError> {
        self.ready()?;
        let block = self.settings.block_length as usize;
        if block == 0 {
            return Err(Sense::bad_cdb_field(1, Some(0)).into());
        }
        let total = (blocks as usize).checked_mul(block);
        Ok((block, total.ok_or(Sense::bad_cdb_field(2, None))?))
    }

    fn read_fixed(
        &mut self,
        blocks: u32,
        buffer: &mut [u8],
        control: &Control,
    ) -> Result<Reply, TapeError> {
        let (block, total) = self.fixed_length(blocks)?;
        let Some(buffer) = buffer.get_mut(..total) else {
            return Err(Sense::bad_cdb_field(2, None).into());
        };
        let mut good = 0;
        for place in buffer.chunks_exact_mut(block) {
            match self.read_fixed_block(place, block, control)? {
                None => good += 1,
                Some(sense) => {
                    let left = i64::from(blocks) - good as i64;
                    return Ok(Reply::check(good * block, sense.with_information(left)));
                }
            }
        }
        Ok(Reply::Moved { moved: total, wanted: total, sense: None })
    }

    fn verify_fixed(&mut self, blocks: u32, control: &Control) -> Result<Reply, TapeError> {
        let (block, _) = self.fixed_length(blocks)?;
        let mut scratch = vec![0; block];
        for good in 0..blocks {
            if let Some(sense) = self.read_fixed_block(&mut scratch, block, control)? {
                return Err(sense.with_information((blocks - good).into()).into());
            }
        }
        Ok(Reply::Done)
    }

    /// One block of a fixed transfer; sense data if it is none.
    fn read_fixed_block(
        &mut self,
        place: &mut [u8],
        block: usize,
        control: &Control,
    ) -> Result<Option<Sense>, TapeError> {
        Ok(match self.read_record(place, control)? {
            ReadEnd::Record { length } if length == block => None,
            ReadEnd::Record { .. } => Some(Sense::INCORRECT_LENGTH),
            ReadEnd::Filemark => Some(Sense::FILEMARK_DETECTED),
            ReadEnd::EndOfData => Some(Sense::END_OF_DATA),
        })
    }

    fn write_variable(
        &mut self,
        length: u32,
        data: &[u8],
        control: &Control,
    ) -> Result<Reply, TapeError> {
        self.writable()?;
        if length > MAX_BLOCK {
            return Err(Sense::bad_cdb_field(2, None).into());
        }
        let record = data.get(..length as usize).ok_or(DATA_PHASE_ERROR)?;
        let end = self.write_record(record, control)?;
        written(end, record.len(), length.into())
    }

    fn write_fixed(
        &mut self,
        blocks: u32,
        data: &[u8],
        control: &Control,
    ) -> Result<Reply, TapeError> {
        let (block, total) = self.fixed_length(blocks)?;
        self.writable()?;
        let data = data.get(..total).ok_or(DATA_PHASE_ERROR)?;
        let mut last = WriteEnd::Written;
        for (good, record) in data.chunks_exact(block).enumerate() {
            last = self.write_record(record, control)?;
            if last == WriteEnd::Overflow {
                let left = i64::from(blocks) - good as i64;
                let sense = Sense::VOLUME_OVERFLOW.with_information(left);
                return Ok(Reply::check(good * block, sense));
            }
        }
        written(last, total, 0)
    }

    fn read_position(&mut self, form: PositionForm, allocation: u16) -> Result<Reply, TapeError> {
        let medium = self.ready()?;
        let (object, file) = (medium.object(), medium.file());
        let warned = self.past_early_warning();
        let (objects, bytes) = self.buffered;
        let report = PositionReport {
            at_bot: object == 0,
            at_end: warned,
            past_early_warning: warned,
            partition: 0,
            object: Some(object),
            medium_object: Some(object.saturating_sub(objects)),
            file: Some(file),
            buffered_objects: Some(objects.min(0xff_ffff) as u32),
            buffered_bytes: Some(bytes),
        };
        let data = report.encode(form);
        let limit = if form == PositionForm::Extended { allocation } else { 32 };
        Ok(Reply::data(data, limit))
    }
}

/// The reply to a write of `moved` bytes; `information` counts what an overflow left unwritten.
fn written(end: WriteEnd, moved: usize, information: i64) -> Result<Reply, TapeError> {
    Ok(match end {
        WriteEnd::Written => Reply::Moved { moved, wanted: moved, sense: None },
        WriteEnd::EarlyWarning => Reply::check(moved, Sense::EARLY_WARNING.with_information(0)),
        WriteEnd::Overflow => Reply::check(0, Sense::VOLUME_OVERFLOW.with_information(information)),
    })
}
