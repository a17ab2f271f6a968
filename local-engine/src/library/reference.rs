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
            medium.own()?.image().write_extents(&extents, request.record_size).map_err(failed)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use service::config::LocalConfig;
    use tape::ReadEnd;

    use super::*;
    use crate::device::{Library, Opener};
    use crate::engine::{Engine, now_ms};
    use crate::library::{StoreShelf, VirtualLibrary};
    use crate::mover::{EngineDrive, Segment};
    use crate::testing::{PATIENCE, config, open_engine};

    const MANY: &str = "[[virtual_library]]\nname = \"big\"\ndrives = 1\nslots = 4\n\
        import_export = 0\ncapacity = \"16MB\"\nearly_warning = \"1MB\"\n\
        cartridges = { prefix = \"BIG\", count = 1 }\n";

    type Case = (u64, u64, bool, bool);

    fn control() -> Control {
        Control::within(PATIENCE)
    }

    /// A library of the configuration, over the engine's store.
    fn library(engine: &Engine, config: &LocalConfig, number: usize) -> VirtualLibrary {
        let configured = &config.virtual_libraries[number];
        let shelf = StoreShelf {
            store: engine.ground.store.clone(),
            catalogue: Arc::clone(&engine.ground.catalogue),
            site: config.site.name.clone(),
            library: configured.name.clone(),
            sealed: Arc::new(|_, _| {}),
            access: None,
        };
        VirtualLibrary::open(configured, &shelf, now_ms()).unwrap()
    }

    /// Drives of a library, each with the cartridge of its number in it.
    fn loaded(library: &VirtualLibrary, drives: u16) -> Vec<Box<dyn EngineDrive>> {
        let opener = Opener { nexus: 7, who: "a test".into() };
        let mut changer = library.open_changer(&opener, &control()).unwrap();
        let inventory = changer.inventory(&control()).unwrap();
        let of = |kind| inventory.elements.iter().filter(move |element| element.kind == kind);
        let bays = of(model::ElementType::DataTransfer);
        let full = of(model::ElementType::Storage).filter(|slot| slot.barcode.is_some());
        for (bay, slot) in bays.zip(full).take(drives.into()) {
            changer.move_medium(slot.address, bay.address, &control()).unwrap();
        }
        let drive = |index| {
            let mut drive = library.open_drive(index, &opener, &control()).unwrap();
            drive.load(&control()).unwrap();
            drive
        };
        (0..drives).map(drive).collect()
    }

    /// What a mover does record by record.
    fn by_bytes(
        drive: &mut dyn EngineDrive,
        stream: &[u8],
        request: &RangeRequest,
    ) -> RangeWritten {
        let size = request.record_size as usize;
        let mut written = RangeWritten { end: RangeEnd::Done, bytes: 0, early_warning: false };
        let mut records = stream.chunks(size).peekable();
        while let Some(record) = records.next() {
            if record.len() < size && !request.pad_last {
                break;
            }
            let mut padded = record.to_vec();
            padded.resize(size, 0);
            match drive.write(&padded, &control()).unwrap() {
                WriteEnd::Overflow => return RangeWritten { end: RangeEnd::Overflow, ..written },
                end => written.early_warning = end == WriteEnd::EarlyWarning,
            }
            written.bytes += record.len() as u64;
            let more = records.peek().is_some_and(|next| next.len() == size || request.pad_last);
            if written.early_warning && more && !request.ignore_early_warning {
                return RangeWritten { end: RangeEnd::EarlyWarning, ..written };
            }
        }
        written
    }

    fn objects(drive: &mut dyn EngineDrive) -> Vec<Option<Vec<u8>>> {
        drive.rewind(&control()).unwrap();
        let (mut all, mut buffer) = (Vec::new(), vec![0; 4 << 20]);
        loop {
            match drive.read(&mut buffer, &control()).unwrap() {
                ReadEnd::Record { length } => all.push(Some(buffer[..length].to_vec())),
                ReadEnd::Filemark => all.push(None),
                _ => return all,
            }
        }
    }

    /// A source of random records, and its one segment.
    fn source(drive: &mut dyn EngineDrive, seed: u64) -> (Vec<u8>, Segment) {
        let mut stream = Vec::new();
        let mut state = seed | 1;
        while stream.len() < 12_000_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let record: Vec<u8> = (0..200_000u64)
                .map(|n| (state.wrapping_add(n * n * (state >> 40)) >> 24) as u8)
                .collect();
            drive.write(&record, &control()).unwrap();
            stream.extend(record);
        }
        drive.write_filemarks(0, &control()).unwrap();
        drive.rewind(&control()).unwrap();
        let segment = drive.reference_source().unwrap().segment(0).unwrap();
        assert_eq!(segment.extent.length, stream.len() as u64);
        (stream, segment)
    }

    #[test]
    fn a_range_by_name_is_the_same_tape_and_the_same_answer_as_its_records() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open_engine(dir.path());
        let config = config(dir.path(), MANY);
        let (small, big) = (library(&engine, &config, 0), library(&engine, &config, 1));
        let mut from = loaded(&big, 1).remove(0);
        let (stream, segment) = source(from.as_mut(), 99);
        let mut drives = loaded(&small, 2);
        let (mut named, mut moved) = (drives.remove(0), drives.remove(0));
        // Record size, ranges of (offset, length, padded, beyond early warning); 3 MB to the
        // warning and 4 MB in all.
        let cases: [(u32, &[Case]); 6] = [
            (65_536, &[(0, 2_000_000, false, false), (1_966_080, 300_000, true, false)]),
            (1_000, &[(17, 2_999_500, true, false), (5, 900, true, false)]),
            (262_144, &[(3_333, 11_000_000, false, false), (0, 9_000_000, false, true)]),
            (4_194_304, &[(0, 12_000_000, false, false)]),
            (2_000_000, &[(1, 4_000_000, false, true), (1, 1, true, true)]),
            (10_240, &[(0, 3_000_320, false, false), (0, 5_000_000, false, false)]),
        ];
        for (record_size, ranges) in cases {
            for drive in [&mut named, &mut moved] {
                drive.rewind(&control()).unwrap();
            }
            for &(offset, length, pad_last, ignore_early_warning) in ranges {
                let extent = Extent { offset, length, ..segment.extent };
                // In two pieces, as a tail and an offer are.
                let extents = vec![extent.first(length / 3), extent.after(length / 3)];
                let request = RangeRequest {
                    job: None,
                    extents,
                    record_size,
                    pad_last,
                    ignore_early_warning,
                };
                let bytes = &stream[offset as usize..(offset + length) as usize];
                let expected = by_bytes(moved.as_mut(), bytes, &request);
                let target = named.range_target().unwrap();
                let mut told = 0;
                let written = target.write_range(&request, &control(), &mut |bytes| told = bytes);
                assert_eq!(written, expected, "{record_size} {offset} {length}");
                assert_eq!(told, written.bytes);
            }
            assert!(objects(named.as_mut()) == objects(moved.as_mut()), "{record_size}");
        }
    }
}
