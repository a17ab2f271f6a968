//! Reading and writing: what both faces do once the command is let in.

use super::handle::WriteRun;
use super::{Overwrite, TargetDrive};
use crate::target::fault::{FaultOperation, answer};
use crate::target::{MAX_BLOCK, MAX_FILEMARKS, Medium, MediumError};
use crate::{Control, ReadEnd, SpaceKind, TapeError, WriteEnd};
use scsi::Sense;

impl<M: Medium> TargetDrive<M> {
    pub(super) fn read_record(
        &mut self,
        buffer: &mut [u8],
        control: &Control,
    ) -> Result<ReadEnd, TapeError> {
        self.ready()?;
        let lost = self.faults.before(FaultOperation::Read, control)?;
        self.flush()?;
        let end = self.read_object(buffer)?;
        if let ReadEnd::Record { length } = end {
            self.counters.bytes_read += length as u64;
        }
        answer(lost, end)
    }

    pub(super) fn write_record(
        &mut self,
        record: &[u8],
        control: &Control,
    ) -> Result<WriteEnd, TapeError> {
        if record.is_empty() {
            return self.writable().map(|_| WriteEnd::Written);
        }
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let run = WriteRun { length, count: 1, past_warning: true };
        let written = match self.crypt.encrypt(self.nexus, record)? {
            None => self.write_run(run, control, |medium, _| medium.write(record)),
            Some((seal, sealed)) => {
                self.write_run(run, control, |medium, _| medium.write_sealed(&seal, &sealed))
            }
        };
        written.map(|(_, end)| end)
    }

    /// Writes the records of a run at once: as many as fit, and as many as it takes to meet early
    /// warning. How many that were.
    pub(super) fn write_run(
        &mut self,
        run: WriteRun,
        control: &Control,
        write: impl FnOnce(&mut M, u64) -> Result<(), MediumError>,
    ) -> Result<(u64, WriteEnd), TapeError> {
        self.appends()?;
        let medium = self.writable()?;
        if !(1..=MAX_BLOCK).contains(&run.length) {
            return Err(Sense::bad_cdb_field(2, None).into());
        }
        let (size, used) = (u64::from(run.length), medium.used());
        let own_end = medium.warned().is_some();
        let fit = match own_end {
            true => u64::MAX,
            false => medium.capacity().saturating_sub(used) / size,
        };
        let to_warning = match self.warning_at().saturating_sub(used) {
            _ if run.past_warning || own_end => u64::MAX,
            left => left.div_ceil(size).max(1),
        };
        let records = run.count.min(fit).min(to_warning);
        if records == 0 {
            return Ok((0, WriteEnd::Overflow));
        }
        let lost = self.faults.before(FaultOperation::Write, control)?;
        match write(self.writable()?, records) {
            Ok(()) => {}
            Err(MediumError::Full) => {
                if !own_end {
                    let text = "no space is left behind a tape before its capacity is reached";
                    tracing::error!("{text}");
                }
                return Ok((0, WriteEnd::Overflow));
            }
            Err(error) => return Err(self.write_failed(&error).into()),
        }
        self.counters.bytes_written += records * size;
        self.note_buffered(records, records * size)?;
        answer(lost, (records, self.write_end()))
    }

    /// Writes filemarks; not immediate, everything is durable afterwards.
    pub(super) fn write_marks(
        &mut self,
        count: u32,
        immediate: bool,
        control: &Control,
    ) -> Result<WriteEnd, TapeError> {
        match count {
            0 => drop(self.ready()?),
            _ => self.appends()?,
        }
        if count > MAX_FILEMARKS {
            return Err(Sense::bad_cdb_field(2, None).into());
        }
        let operation = if count == 0 { FaultOperation::Flush } else { FaultOperation::Filemarks };
        let lost = self.faults.before(operation, control)?;
        if count > 0 {
            match self.writable()?.write_filemarks(count) {
                Ok(()) => {}
                Err(MediumError::Full) => return Ok(WriteEnd::Overflow),
                Err(error) => return Err(self.write_failed(&error).into()),
            }
            self.note_buffered(count.into(), 0)?;
        }
        if !immediate {
            self.flush()?;
        }
        answer(lost, self.write_end())
    }

    /// ERASE, FORMAT MEDIUM and SET CAPACITY: nothing follows the position any more, durably.
    pub(super) fn erase_here(&mut self, control: &Control) -> Result<(), TapeError> {
        control.check()?;
        self.flush()?;
        self.appends()?;
        let erased = self.writable()?.erase();
        erased.map_err(|error| self.write_failed(&error))?;
        let flushed = self.ready()?.flush();
        flushed.map_err(|error| self.write_failed(&error).into())
    }

    /// Whether what follows may be written over: in append-only mode nothing may, but for the one
    /// place that ALLOW OVERWRITE names.
    fn appends(&mut self) -> Result<(), TapeError> {
        let medium = self.writable()?;
        let here = medium.object();
        let allowed = std::mem::replace(&mut self.overwrite, Overwrite::No);
        if !self.settings.append_only || allowed == Overwrite::At(here) {
            return Ok(());
        }
        let medium = self.writable()?;
        let end = medium.space(SpaceKind::EndOfData, 0).map(|_| medium.object());
        let end = end.and_then(|end| medium.locate(here).map(|_| end));
        match end.map_err(|error| self.read_failed(&error))? == here {
            true => Ok(()),
            false => Err(Sense::APPEND_POSITION_ERROR.into()),
        }
    }

    /// ALLOW OVERWRITE (SSC-4 7.1).
    pub(super) fn allow_overwrite(
        &mut self,
        mode: u8,
        partition: u8,
        object: u64,
    ) -> Result<(), TapeError> {
        let here = self.writable()?.object();
        self.overwrite = match mode {
            0 => Overwrite::No,
            1 if partition != 0 => return Err(Sense::bad_cdb_field(3, None).into()),
            1 if object != here => return Err(Sense::bad_cdb_field(4, None).into()),
            1 => Overwrite::At(here),
            2 => Overwrite::Format,
            _ => return Err(Sense::bad_cdb_field(2, Some(3)).into()),
        };
        Ok(())
    }

    /// FORMAT MEDIUM at the beginning, if that was allowed.
    pub(super) fn overwrite_to_format(&mut self) {
        if self.overwrite == Overwrite::Format {
            self.overwrite = Overwrite::At(0);
        }
    }

    fn note_buffered(&mut self, objects: u64, bytes: u64) -> Result<(), TapeError> {
        self.buffered.0 += objects;
        self.buffered.1 += bytes;
        match self.settings.buffered {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn write_end(&self) -> WriteEnd {
        match self.past_early_warning() {
            true => WriteEnd::EarlyWarning,
            false => WriteEnd::Written,
        }
    }
}
