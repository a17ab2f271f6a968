//! Random work through both faces against the plainest model of a tape.

use proptest::collection::vec;
use proptest::prelude::*;
use scsi::SpaceCode;

use super::*;
use crate::{ReadEnd, SpaceKind, SpaceStop, Spaced, TapeDrive, TapeError, WriteEnd};

const CAPACITY: u64 = 4000;

#[derive(Clone, Debug)]
enum Step {
    Write(u16, u8),
    Filemarks(u8),
    Read(u16),
    Space(bool, i8),
    Locate(u8),
    Rewind,
    EndOfData,
    Erase,
    Reload,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u16..600, any::<u8>()).prop_map(|(length, fill)| Step::Write(length, fill)),
        2 => (0u8..4).prop_map(Step::Filemarks),
        4 => (0u16..700).prop_map(Step::Read),
        4 => (any::<bool>(), -6i8..7).prop_map(|(marks, count)| Step::Space(marks, count)),
        2 => (0u8..20).prop_map(Step::Locate),
        1 => Just(Step::Rewind),
        1 => Just(Step::EndOfData),
        1 => Just(Step::Erase),
        1 => Just(Step::Reload),
    ]
}

/// `None` is a filemark.
#[derive(Default)]
struct Tape {
    objects: Vec<Option<Vec<u8>>>,
    at: usize,
}

impl Tape {
    fn used(&self) -> u64 {
        self.objects[..self.at].iter().flatten().map(|record| record.len() as u64).sum()
    }

    fn write(&mut self, record: Vec<u8>) -> WriteEnd {
        if self.used() + record.len() as u64 > CAPACITY {
            return WriteEnd::Overflow;
        }
        self.put(Some(record));
        self.end()
    }

    fn put(&mut self, object: Option<Vec<u8>>) {
        self.objects.truncate(self.at);
        self.objects.push(object);
        self.at += 1;
    }

    fn end(&self) -> WriteEnd {
        if self.used() >= CAPACITY - 100 { WriteEnd::EarlyWarning } else { WriteEnd::Written }
    }

    fn space(&mut self, marks: bool, count: i64) -> Spaced {
        let forwards = count > 0;
        let mut residual = count.unsigned_abs();
        while residual > 0 {
            if forwards && self.at == self.objects.len() {
                return Spaced { residual, stop: SpaceStop::EndOfData };
            }
            if !forwards && self.at == 0 {
                return Spaced { residual, stop: SpaceStop::BeginningOfTape };
            }
            let index = if forwards { self.at } else { self.at - 1 };
            self.at = if forwards { self.at + 1 } else { self.at - 1 };
            let mark = self.objects[index].is_none();
            if mark && !marks {
                return Spaced { residual, stop: SpaceStop::Filemark };
            }
            residual -= u64::from(mark == marks);
        }
        Spaced { residual: 0, stop: SpaceStop::Done }
    }
}

/// What a CDB answered in the words of the trait.
fn write_end(answer: Answer) -> WriteEnd {
    match answer.sense {
        None => WriteEnd::Written,
        Some(sense) if sense.is(Sense::EARLY_WARNING) => WriteEnd::EarlyWarning,
        Some(sense) => {
            assert!(sense.is(Sense::VOLUME_OVERFLOW));
            WriteEnd::Overflow
        }
    }
}

struct Pair {
    handle: DriveHandle<MemoryMedium>,
    tape: Tape,
}

impl Pair {
    fn step(&mut self, step: &Step, by_cdb: bool) {
        let c = control();
        match *step {
            Step::Write(length, fill) => {
                let record = vec![fill; length.into()];
                let expected = self.tape.write(record.clone());
                let end = match by_cdb {
                    true => write_end(write(&mut self.handle.lock(), &record)),
                    false => self.handle.write(&record, &c).unwrap(),
                };
                assert_eq!(end, expected);
            }
            Step::Filemarks(count) => {
                (0..count).for_each(|_| self.tape.put(None));
                let cdb = Cdb::WriteFilemarks { immediate: false, count: count.into() };
                let end = match by_cdb {
                    true => write_end(send(&mut self.handle.lock(), cdb, &[])),
                    false => self.handle.write_filemarks(count.into(), &c).unwrap(),
                };
                assert_eq!(end, self.tape.end());
            }
            Step::Read(length) => self.read(length.into(), by_cdb),
            Step::Space(marks, count) => self.space(marks, count.into(), by_cdb),
            Step::Locate(object) => {
                let reached = self.tape.objects.len().min(object.into());
                self.tape.at = reached;
                let found = self.handle.locate(object.into(), &c);
                match reached == usize::from(object) {
                    true => assert_eq!(found, Ok(())),
                    false => assert_eq!(found, Err(Sense::END_OF_DATA.into())),
                }
            }
            Step::Rewind => {
                self.tape.at = 0;
                self.handle.rewind(&c).unwrap();
            }
            Step::EndOfData => {
                self.tape.at = self.tape.objects.len();
                self.handle.space(SpaceKind::EndOfData, 1, &c).unwrap();
            }
            Step::Erase => {
                self.tape.objects.truncate(self.tape.at);
                good(&mut self.handle.lock(), Cdb::Erase { long: true, immediate: false });
            }
            Step::Reload => {
                self.tape.at = 0;
                self.handle.unload(&c).unwrap();
                self.handle.load(&c).unwrap();
            }
        }
        let position = self.handle.position(&c).unwrap();
        let marks = self.tape.objects[..self.tape.at].iter().filter(|o| o.is_none()).count();
        assert_eq!(position.object, self.tape.at as u64);
        assert_eq!(position.file, marks as u64);
    }

    fn read(&mut self, length: usize, by_cdb: bool) {
        let object = self.tape.objects.get(self.tape.at).cloned();
        if by_cdb && length == 0 {
            return;
        }
        self.tape.at += usize::from(object.is_some());
        let mut buffer = vec![0; length];
        let got = match by_cdb {
            false => self.handle.read(&mut buffer, &control()).unwrap(),
            true => {
                let cdb = Cdb::Read { fixed: false, sili: false, length: length as u32 };
                let ended = ask(&mut self.handle.lock(), cdb, length);
                buffer[..ended.data.len()].copy_from_slice(&ended.data);
                match ended.sense {
                    None => ReadEnd::Record { length },
                    Some(sense) if sense.filemark => ReadEnd::Filemark,
                    Some(sense) if sense.is(Sense::END_OF_DATA) => ReadEnd::EndOfData,
                    Some(sense) => {
                        let length = length as i64 - sense.information.unwrap();
                        ReadEnd::Record { length: length as usize }
                    }
                }
            }
        };
        match object {
            None => assert_eq!(got, ReadEnd::EndOfData),
            Some(None) => assert_eq!(got, ReadEnd::Filemark),
            Some(Some(record)) => {
                assert_eq!(got, ReadEnd::Record { length: record.len() });
                let shared = record.len().min(length);
                assert_eq!(buffer[..shared], record[..shared]);
            }
        }
    }

    fn space(&mut self, marks: bool, count: i64, by_cdb: bool) {
        let expected = self.tape.space(marks, count);
        let (kind, code) = match marks {
            true => (SpaceKind::Filemarks, SpaceCode::Filemarks),
            false => (SpaceKind::Records, SpaceCode::Blocks),
        };
        if !by_cdb {
            assert_eq!(self.handle.space(kind, count, &control()), Ok(expected));
            return;
        }
        let ended = ask(&mut self.handle.lock(), Cdb::Space { code, count }, 0);
        let left = expected.residual as i64;
        let sense = match expected.stop {
            SpaceStop::Done => None,
            SpaceStop::Filemark => Some(Sense::FILEMARK_DETECTED.with_information(left)),
            SpaceStop::BeginningOfTape => Some(Sense::BEGINNING_OF_MEDIUM.with_information(left)),
            SpaceStop::EndOfData => Some(Sense::END_OF_DATA.with_information(left)),
        };
        assert_eq!(ended.sense, sense);
    }
}

/// Bytes, how many of them, whether data goes out, and how much.
fn any_command() -> impl Strategy<Value = ([u8; 16], usize, bool, usize)> {
    (any::<[u8; 16]>(), 0usize..17, any::<bool>(), 0usize..300)
}

proptest! {
    #[test]
    fn a_drive_is_its_model(steps in vec((any_step(), any::<bool>()), 1..80)) {
        let handle = DriveHandle::new(shared(loaded(CAPACITY).0), 1);
        let mut pair = Pair { handle, tape: Tape::default() };
        for (step, by_cdb) in &steps {
            pair.step(step, *by_cdb);
        }
    }

    #[test]
    fn no_bytes_break_a_drive(
        commands in vec(any_command(), 1..40),
        legal: bool,
    ) {
        let (mut drive, _) = loaded(CAPACITY);
        let table: Vec<_> = scsi::commands(scsi::DeviceType::Tape).collect();
        for (bytes, length, out, room) in commands {
            let mut cdb = bytes.to_vec();
            cdb.truncate(length);
            if legal {
                let usage = table[usize::from(bytes[0]) % table.len()].usage;
                cdb = usage.iter().zip(bytes).map(|(usage, byte)| usage & (byte & 0x83)).collect();
                cdb[0] = usage[0];
                cdb[1] |= usage[1] & bytes[15];
            }
            let mut data = vec![bytes[3]; room];
            let transfer = if out { Transfer::Out(&data) } else { Transfer::In(&mut data) };
            match drive.execute_cdb(1, &cdb, transfer, &control()) {
                Ok(answer) => prop_assert!(answer.moved <= room),
                Err(error) => prop_assert!(matches!(error, TapeError::TimedOut)),
            }
        }
    }
}
