//! A virtual drive that is told to write data by name: both cartridges are in one store.

use store::StoreError;
use tape::target::{MediumError, WriteRun};
use tape::{Control, TapeDrive, TapeError, WriteEnd};

use super::VirtualDrive;
use crate::mover::{Extent, RangeEnd, RangeRequest, RangeTarget, RangeWritten};

/// Bytes that are named in one step: a cancel waits for it, and progress is seen behind it.
const STEP: u64 = 64 << 20;
/// Fewer bytes than this are read and written: a small range is mostly the two chunks that its ends
/// cut apart, and what is left of those would not be found again.
const SMALL: u64 = 1 << 20;

/// Bytes written, and how the last write ended.
type Step = (u64, Result<WriteEnd, TapeError>);

/// The bytes `from..from + length` of extents that stand one behind the other.
fn part(extents: &[Extent], mut from: u64, mut length: u64) -> Vec<Extent> {
    let mut part = Vec::new();
    for extent in extents {
        let skip = from.min(extent.length);
        from -= skip;
        let taken = extent.after(skip).first(length);
        length -= taken.length;
        if taken.length > 0 {
            part.push(taken);
        }
    }
    part
}

fn named(extent: &Extent) -> store::Extent {
    let Extent { generation, offset, length } = *extent;
    store::Extent { generation, offset, length }
}

impl RangeTarget for VirtualDrive {
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten {
        let total: u64 = request.extents.iter().map(|extent| extent.length).sum();
        let size = u64::from(request.record_size.max(1));
        let whole = total - total % size;
        let asked = if request.pad_last { total } else { whole };
        let mut written = RangeWritten { end: RangeEnd::Done, bytes: 0, early_warning: false };
        while written.bytes < asked {
            let left = whole.saturating_sub(written.bytes);
            let step = control.check().and_then(|()| match left < SMALL.max(size) {
                true => self.write_bytes(request, (written.bytes, asked), control),
                false => self.write_names(request, (written.bytes, left.min(STEP)), control),
            });
            let (bytes, end) = step.unwrap_or_else(|error| (0, Err(error)));
            let end = match end {
                Ok(WriteEnd::Overflow) => RangeEnd::Overflow,
                Ok(end) => {
                    written.early_warning = end == WriteEnd::EarlyWarning;
                    RangeEnd::Done
                }
                Err(error) => RangeEnd::Failed(error),
            };
            written.bytes += bytes;
            progress(written.bytes);
            written.end = match end {
                RangeEnd::Done if !written.early_warning || request.ignore_early_warning => {
                    continue;
                }
                RangeEnd::Done if written.bytes < asked => RangeEnd::EarlyWarning,
                end => end,
            };
            break;
        }
        written
    }
}

impl VirtualDrive {
    /// Names records for a step, from byte `from` of the request on. The bytes written.
    fn write_names(
        &mut self,
        request: &RangeRequest,
        (from, length): (u64, u64),
        control: &Control,
    ) -> Result<Step, TapeError> {
        let size = u64::from(request.record_size);
        let run = WriteRun {
            length: request.record_size,
            count: (length / size).max(1),
            past_warning: request.ignore_early_warning,
        };
        let (records, end) = self.handle().write_run(run, control, |medium, records| {
            let extents = part(&request.extents, from, records * size);
            let extents: Vec<_> = extents.iter().map(named).collect();
            medium.image().write_extents(&extents, request.record_size).map_err(failed)
        })?;
        Ok((records * size, Ok(end)))
    }

    /// Writes what is left as bytes, the last record padded with zeros if it is not whole.
    fn write_bytes(
        &mut self,
        request: &RangeRequest,
        (from, to): (u64, u64),
        control: &Control,
    ) -> Result<Step, TapeError> {
        let size = request.record_size as usize;
        let bytes = self.bytes(&part(&request.extents, from, to - from))?;
        let (mut done, mut last) = (0, WriteEnd::Written);
        for record in bytes.chunks(size) {
            let end = match record.len() == size {
                true => self.write(record, control),
                false => {
                    let mut padded = record.to_vec();
                    padded.resize(size, 0);
                    self.write(&padded, control)
                }
            };
            match end {
                Ok(WriteEnd::Written) => last = WriteEnd::Written,
                Ok(WriteEnd::EarlyWarning) if request.ignore_early_warning => {
                    last = WriteEnd::EarlyWarning;
                }
                Ok(WriteEnd::EarlyWarning) => {
                    return Ok((done + record.len() as u64, Ok(WriteEnd::EarlyWarning)));
                }
                Ok(WriteEnd::Overflow) | Err(_) => return Ok((done, end)),
            }
            done += record.len() as u64;
        }
        Ok((done, Ok(last)))
    }

    fn bytes(&self, extents: &[Extent]) -> Result<Vec<u8>, TapeError> {
        let mut all = Vec::new();
        for extent in extents {
            let read = || -> Result<Vec<u8>, StoreError> {
                let mut bytes = vec![0; extent.length as usize];
                let mut reader = self.store().reader(extent.generation)?;
                let there = reader.read_stream(extent.offset, &mut bytes)?;
                bytes.truncate(there);
                Ok(bytes)
            };
            match read() {
                Ok(bytes) if bytes.len() as u64 == extent.length => all.extend(bytes),
                Ok(_) => return Err(TapeError::Lost("the source ends too early".into())),
                Err(error) => {
                    tracing::error!(%error, "the source of a copy can not be read");
                    return Err(TapeError::Check(failed(error).read_sense()));
                }
            }
        }
        Ok(all)
    }
}

fn failed(error: StoreError) -> MediumError {
    match error {
        StoreError::Damaged { .. } => MediumError::Corrupt(error.to_string()),
        other => MediumError::Io(other.to_string()),
    }
}
