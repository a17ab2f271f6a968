//! Proof on tape: what was written is read back and compared.
//!
//! While records are written their digests are folded into one for each stretch of records that
//! follow each other. After a flush the stretches are read from the tape, folded in the same way,
//! and compared. What is kept does not grow with the copy.

use model::ObjectNumber;
use sha2::{Digest, Sha256};
use tape::{Control, ReadEnd, TapeDrive, TapeError};

/// Stretches kept between two flushes; with more than that the rest is not proven.
const STRETCHES_MAX: usize = 4096;

/// The digest of one record.
pub type RecordDigest = [u8; 32];

/// The digest of a record.
pub fn digest(record: &[u8]) -> RecordDigest {
    Sha256::digest(record).into()
}

/// Records that follow each other on the tape.
#[derive(Clone, Debug)]
struct Stretch {
    first: ObjectNumber,
    records: u64,
    longest: usize,
    folded: Sha256,
}

impl Stretch {
    fn fold(&mut self, length: usize, digest: &RecordDigest) {
        self.records += 1;
        self.longest = self.longest.max(length);
        self.folded.update((length as u64).to_le_bytes());
        self.folded.update(digest);
    }
}

/// What has been written since the last proof.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    stretches: Vec<Stretch>,
    /// Something was written that is not in the stretches.
    is_partial: bool,
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The drive can not read it back.
    #[error("what was written can not be read back: {0}")]
    Drive(TapeError),
    /// What is on the tape is something else than what was written.
    #[error("what is on the tape at objects {first} to {last} is not what was written: {what}")]
    Differs {
        /// The first object of the stretch.
        first: ObjectNumber,
        /// Its last one.
        last: ObjectNumber,
        /// What was seen.
        what: &'static str,
    },
}

impl Proof {
    /// Notes a record of `length` bytes that the drive has taken as this object.
    pub fn wrote(&mut self, object: ObjectNumber, length: usize, digest: &RecordDigest) {
        let is_full = self.stretches.len() == STRETCHES_MAX;
        match self.stretches.last_mut() {
            Some(last) if last.first + last.records == object => last.fold(length, digest),
            _ if is_full => self.is_partial = true,
            _ => {
                let folded = Sha256::new();
                let mut new = Stretch { first: object, records: 0, longest: 0, folded };
                new.fold(length, digest);
                self.stretches.push(new);
            }
        }
    }

    /// Records were written whose digests are not known.
    pub fn miss(&mut self) {
        self.is_partial = true;
    }

    /// Whether nothing was written since the last proof.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty() && !self.is_partial
    }

    /// Reads back what was written since the last proof, and compares. `false`: it is right as far
    /// as it was noted, and not all was noted. The tape is left behind the last record read.
    /// `progress` is told the bytes read.
    ///
    /// # Errors
    /// Why it is not proven; it stays to be proven.
    pub fn read_back(
        &mut self,
        drive: &mut dyn TapeDrive,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, Unproven> {
        let longest = self.stretches.iter().map(|stretch| stretch.longest).max().unwrap_or(0);
        let (mut buffer, mut bytes) = (vec![0; longest], 0);
        for stretch in &self.stretches {
            drive.locate(stretch.first, control).map_err(Unproven::Drive)?;
            read_stretch(stretch, drive, control, &mut buffer, &mut |length| {
                bytes += length;
                progress(bytes);
            })?;
        }
        let whole = !std::mem::take(&mut self.is_partial);
        self.stretches.clear();
        Ok(whole)
    }
}

fn read_stretch(
    stretch: &Stretch,
    drive: &mut dyn TapeDrive,
    control: &Control,
    buffer: &mut [u8],
    progress: &mut dyn FnMut(u64),
) -> Result<(), Unproven> {
    let last = stretch.first + stretch.records.saturating_sub(1);
    let differs = |what| Unproven::Differs { first: stretch.first, last, what };
    let mut found = Stretch { records: 0, longest: 0, folded: Sha256::new(), ..*stretch };
    while found.records < stretch.records {
        control.check().map_err(Unproven::Drive)?;
        let length = match drive.read(buffer, control).map_err(Unproven::Drive)? {
            ReadEnd::Record { length } => length,
            ReadEnd::Filemark => return Err(differs("there is a filemark among them")),
            ReadEnd::EndOfData => return Err(differs("the data ends among them")),
        };
        let record = buffer.get(..length).ok_or_else(|| differs("a record is longer"))?;
        found.fold(length, &digest(record));
        progress(length as u64);
    }
    match found.folded.finalize() == stretch.folded.clone().finalize() {
        true => Ok(()),
        false => Err(differs("the digests differ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use model::Barcode;
    use tape::DeviceIdentity;
    use tape::target::{
        DriveHandle, DriveSpec, MemoryMedium, MemoryShelf, TapeObject, TargetDrive,
    };

    use super::*;

    fn control() -> Control {
        Control::within(Duration::from_secs(60))
    }

    fn tape() -> (DriveHandle<MemoryMedium>, MemoryShelf, Barcode) {
        let (shelf, barcode) = (MemoryShelf::default(), Barcode::new("A00001L8").unwrap());
        shelf.add(&barcode, 1 << 20);
        let spec = DriveSpec {
            index: 0,
            identity: DeviceIdentity::default(),
            early_warning: None,
            power_on_attention: false,
        };
        let mut drive = TargetDrive::new(spec, Arc::new(shelf.clone()));
        drive.insert(&barcode).unwrap();
        let mut drive = DriveHandle::new(Arc::new(Mutex::new(drive)), 1);
        // The unit attention of the load.
        let _ = drive.rewind(&control());
        (drive, shelf, barcode)
    }

    /// Two stretches with a filemark between them, as they are written and noted.
    fn write(drive: &mut dyn TapeDrive) -> Proof {
        let mut proof = Proof::default();
        let mut object = 0;
        for (count, length) in [(3u8, 100), (2, 500)] {
            for number in 0..count {
                let record = vec![number; length];
                drive.write(&record, &control()).unwrap();
                proof.wrote(object, length, &digest(&record));
                object += 1;
            }
            drive.write_filemarks(1, &control()).unwrap();
            object += 1;
        }
        proof
    }

    #[test]
    fn what_was_written_is_proven_once() {
        let (mut drive, ..) = tape();
        let mut proof = write(&mut drive);
        let mut told = 0;
        let done = proof.read_back(&mut drive, &control(), &mut |bytes| told = bytes);
        assert_eq!((done, told), (Ok(true), 1300));
        assert!(proof.is_empty());
        assert_eq!(drive.position(&control()).unwrap().object, 6);
        proof.miss();
        assert_eq!(proof.read_back(&mut drive, &control(), &mut |_| {}), Ok(false));
    }

    #[test]
    fn whatever_is_changed_on_the_tape_is_found() {
        type Change = fn(&mut Vec<TapeObject>);
        let changes: [(Change, u64); 6] = [
            (|objects| objects[1] = TapeObject::Record(vec![9; 100]), 0),
            (|objects| objects[4] = TapeObject::Record(vec![0; 499]), 4),
            (|objects| objects[4] = TapeObject::Record(vec![0; 501]), 4),
            (|objects| objects[2] = TapeObject::Filemark, 0),
            (|objects| objects.swap(0, 1), 0),
            (|objects| objects.truncate(5), 4),
        ];
        for (change, first) in changes {
            let (mut drive, shelf, barcode) = tape();
            let mut proof = write(&mut drive);
            shelf.alter(&barcode, |tape| change(&mut tape.objects));
            match proof.read_back(&mut drive, &control(), &mut |_| {}) {
                Err(Unproven::Differs { first: found, .. }) => assert_eq!(found, first),
                other => panic!("{other:?}"),
            }
            assert!(!proof.is_empty(), "it stays to be proven");
        }
    }
}
