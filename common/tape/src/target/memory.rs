//! A medium in memory, for tests and as the plainest statement of what a [`Medium`] is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Barcode, ObjectNumber};

use super::{Medium, MediumError, Shelf};
use crate::{ReadEnd, SpaceKind, SpaceStop, Spaced};

/// One object on a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapeObject {
    /// A record with its bytes.
    Record(Vec<u8>),
    /// A filemark.
    Filemark,
}

impl TapeObject {
    fn bytes(&self) -> u64 {
        match self {
            Self::Record(data) => data.len() as u64,
            Self::Filemark => 0,
        }
    }
}

/// What is on a cartridge, mounted or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTape {
    /// Records and filemarks from BOT.
    pub objects: Vec<TapeObject>,
    /// Bytes of records from BOT to the physical end.
    pub capacity: u64,
    /// The tab.
    pub write_protected: bool,
    /// Stored attributes of the cartridge memory.
    pub attributes: BTreeMap<u16, Vec<u8>>,
    /// How often a mount was closed.
    pub closed: u32,
    /// How often it was flushed.
    pub flushed: u32,
}

type Cartridges = BTreeMap<Barcode, Arc<Mutex<MemoryTape>>>;

/// A shelf of cartridges in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryShelf(Arc<Mutex<Cartridges>>);

/// A mounted cartridge in memory.
#[derive(Debug)]
pub struct MemoryMedium {
    barcode: Barcode,
    tape: Arc<Mutex<MemoryTape>>,
    position: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryShelf {
    /// An empty shelf.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an empty cartridge of `capacity` bytes on the shelf; replaces one of that name.
    pub fn add(&self, barcode: &Barcode, capacity: u64) {
        let tape = MemoryTape { capacity, ..MemoryTape::default() };
        locked(&self.0).insert(barcode.clone(), Arc::new(Mutex::new(tape)));
    }

    /// What is on a cartridge now, `None` if there is none of that name.
    pub fn tape(&self, barcode: &Barcode) -> Option<MemoryTape> {
        locked(&self.0).get(barcode).map(|tape| locked(tape).clone())
    }

    /// Changes a cartridge behind everybody's back; `false` if there is none of that name.
    pub fn alter(&self, barcode: &Barcode, change: impl FnOnce(&mut MemoryTape)) -> bool {
        let tape = locked(&self.0).get(barcode).cloned();
        tape.map(|tape| change(&mut locked(&tape))).is_some()
    }
}

impl Shelf<MemoryMedium> for MemoryShelf {
    fn open(&self, barcode: &Barcode) -> Result<MemoryMedium, MediumError> {
        let tape = locked(&self.0).get(barcode).cloned();
        let tape = tape.ok_or_else(|| MediumError::Missing(barcode.clone()))?;
        Ok(MemoryMedium { barcode: barcode.clone(), tape, position: 0 })
    }
}

impl MemoryMedium {
    fn tape(&self) -> MutexGuard<'_, MemoryTape> {
        locked(&self.tape)
    }

    /// Looks at the next object in a direction: its kind, or `None` at that end of the tape.
    fn next_is_filemark(&self, forwards: bool) -> Option<bool> {
        let index = if forwards { Some(self.position) } else { self.position.checked_sub(1) };
        self.tape().objects.get(index?).map(|object| *object == TapeObject::Filemark)
    }

    fn step(&mut self, forwards: bool) {
        match forwards {
            true => self.position += 1,
            false => self.position -= 1,
        }
    }
}

impl Medium for MemoryMedium {
    fn barcode(&self) -> Barcode {
        self.barcode.clone()
    }

    fn capacity(&self) -> u64 {
        self.tape().capacity
    }

    fn write_protected(&self) -> bool {
        self.tape().write_protected
    }

    fn set_write_protected(&mut self, protect: bool) -> Result<(), MediumError> {
        self.tape().write_protected = protect;
        Ok(())
    }

    fn object(&self) -> ObjectNumber {
        self.position as ObjectNumber
    }

    fn file(&self) -> u64 {
        let tape = self.tape();
        let before = tape.objects.iter().take(self.position);
        before.filter(|object| **object == TapeObject::Filemark).count() as u64
    }

    fn used(&self) -> u64 {
        self.tape().objects.iter().take(self.position).map(TapeObject::bytes).sum()
    }

    fn recorded(&self) -> u64 {
        self.tape().objects.iter().map(TapeObject::bytes).sum()
    }

    fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber, MediumError> {
        let end = self.tape().objects.len();
        self.position = usize::try_from(object).unwrap_or(end).min(end);
        Ok(self.object())
    }

    fn space(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, MediumError> {
        if kind == SpaceKind::EndOfData {
            let end = self.tape().objects.len();
            self.position = end;
            return Ok(Spaced { residual: 0, stop: SpaceStop::Done });
        }
        let forwards = count > 0;
        let mut residual = count.unsigned_abs();
        while residual > 0 {
            let stop = match self.next_is_filemark(forwards) {
                None if forwards => Some(SpaceStop::EndOfData),
                None => Some(SpaceStop::BeginningOfTape),
                Some(true) if kind == SpaceKind::Records => Some(SpaceStop::Filemark),
                Some(filemark) => {
                    self.step(forwards);
                    let counted = filemark == (kind == SpaceKind::Filemarks);
                    residual -= u64::from(counted);
                    None
                }
            };
            if let Some(stop) = stop {
                if stop == SpaceStop::Filemark {
                    self.step(forwards);
                }
                return Ok(Spaced { residual, stop });
            }
        }
        Ok(Spaced { residual: 0, stop: SpaceStop::Done })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, MediumError> {
        let end = match self.tape().objects.get(self.position) {
            None => return Ok(ReadEnd::EndOfData),
            Some(TapeObject::Filemark) => ReadEnd::Filemark,
            Some(TapeObject::Record(data)) => {
                let length = data.len().min(buffer.len());
                buffer[..length].copy_from_slice(&data[..length]);
                ReadEnd::Record { length: data.len() }
            }
        };
        self.position += 1;
        Ok(end)
    }

    fn write(&mut self, record: &[u8]) -> Result<(), MediumError> {
        self.erase()?;
        self.tape().objects.push(TapeObject::Record(record.to_vec()));
        self.position += 1;
        Ok(())
    }

    fn write_filemarks(&mut self, count: u32) -> Result<(), MediumError> {
        if count > 0 {
            self.erase()?;
        }
        for _ in 0..count {
            self.tape().objects.push(TapeObject::Filemark);
        }
        self.position += count as usize;
        Ok(())
    }

    fn erase(&mut self) -> Result<(), MediumError> {
        let position = self.position;
        self.tape().objects.truncate(position);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.tape().flushed += 1;
        Ok(())
    }

    fn attribute(&self, id: u16) -> Option<Vec<u8>> {
        self.tape().attributes.get(&id).cloned()
    }

    fn set_attribute(&mut self, id: u16, value: &[u8]) -> Result<(), MediumError> {
        let mut tape = self.tape();
        match value.is_empty() {
            true => tape.attributes.remove(&id),
            false => tape.attributes.insert(id, value.to_vec()),
        };
        Ok(())
    }

    fn close(&mut self) -> Result<(), MediumError> {
        self.tape().closed += 1;
        Ok(())
    }
}
