//! Proof of a copy that this engine's own drive wrote: by position, or by reading it back.
//!
//! What another site's drive wrote is read back there, before its last answer; from here only its
//! position is looked at, since reading it back would bring the whole copy over the link.

use copy::Holder;
use model::GenerationId;
use sha2::{Digest, Sha256};
use svs::Verified;
use tape::{Control, ReadEnd};

use super::order::{Order, Stretch, stretches};
use crate::mounting::{Halt, past_attentions};
use crate::mover::{EngineDrive, RECORD_MAX};

/// What was written, counted, and folded into a digest where that is compared afterwards.
pub(super) struct Written {
    objects: u64,
    folded: Option<Sha256>,
}

impl Written {
    /// Nothing yet. Of a generation, which can be read again, and of what is not read back nothing
    /// is folded.
    pub(super) fn of(order: &Order) -> Self {
        let compared = order.verify == Some(Verified::Readback) && order.generation.is_none();
        Self { objects: 0, folded: compared.then(Sha256::new) }
    }

    /// Objects whose content is known elsewhere.
    pub(super) fn count(&mut self, objects: u64) {
        self.objects += objects;
    }

    /// A record.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        self.objects += 1;
        if let Some(folded) = &mut self.folded {
            fold(folded, Some(bytes));
        }
    }

    /// A filemark.
    pub(super) fn filemark(&mut self) {
        self.objects += 1;
        if let Some(folded) = &mut self.folded {
            fold(folded, None);
        }
    }
}

/// Folds an object so that no two different sequences are the same bytes.
fn fold(into: &mut Sha256, record: Option<&[u8]>) {
    match record {
        Some(bytes) => {
            into.update((bytes.len() as u64).to_le_bytes());
            into.update(bytes);
        }
        None => into.update(u64::MAX.to_le_bytes()),
    }
}

/// Proves what stands behind `order.begins`, as the order wants it; leaves the tape at its end.
pub(super) fn prove(
    store: &store::Store,
    order: &Order,
    written: &Written,
    drive: &mut dyn EngineDrive,
    control: &Control,
) -> Result<Verified, Halt> {
    let wanted = order.verify.unwrap_or(Verified::None);
    if wanted == Verified::None {
        return Ok(Verified::None);
    }
    let begins = order.begins.unwrap_or(0);
    let (end, here) = (begins + written.objects, drive.position(control)?.object);
    if here != end {
        let text = format!("the target stands at object {here}, and {end} were to be on it");
        return Err(Halt::Failed(text));
    }
    if wanted == Verified::Position || matches!(drive.holder(), Holder::RemoteDrive { .. }) {
        return Ok(Verified::Position);
    }
    past_attentions(|| drive.locate(begins, control))?;
    drive.begin_reading(RECORD_MAX as u32);
    let read = match order.generation {
        Some(generation) => compare(store, order, generation, drive, control),
        None => compare_folded(written, drive, control),
    };
    drive.end_reading(control)?;
    read.map(|()| Verified::Readback)
}

fn differs(object: u64) -> Halt {
    Halt::Failed(format!("what is on the target at object {object} is not what was written"))
}

/// Reads what a section of a generation has become, and compares it.
fn compare(
    store: &store::Store,
    order: &Order,
    generation: GenerationId,
    drive: &mut dyn EngineDrive,
    control: &Control,
) -> Result<(), Halt> {
    let failed = |error: store::StoreError| Halt::Failed(error.to_string());
    let recipes = store.recipe(generation).map_err(failed)?;
    let mut reader = store.reader(generation).map_err(failed)?;
    let (mut found, mut wanted) = (vec![0; RECORD_MAX], vec![0; RECORD_MAX]);
    let mut object = order.begins.unwrap_or(0);
    for stretch in stretches(recipes.runs(0), order.section) {
        let (count, size, mut offset) = match stretch.map_err(failed)? {
            Stretch::Records { size, count, offset } => (count, Some(size as usize), offset),
            Stretch::Filemarks { count } => (count, None, 0),
        };
        for _ in 0..count {
            match (drive.read(&mut found, control)?, size) {
                (ReadEnd::Record { length }, Some(size)) if length == size => {
                    let wanted = wanted.get_mut(..size).ok_or_else(|| differs(object))?;
                    let there = reader.read_stream(offset, wanted).map_err(failed)?;
                    if there != size || found[..size] != *wanted {
                        return Err(differs(object));
                    }
                    offset += size as u64;
                }
                (ReadEnd::Filemark, None) => {}
                _ => return Err(differs(object)),
            }
            object += 1;
        }
    }
    at_the_end(drive, object, control)
}

/// Reads as much as was written, and compares the digest of all of it.
fn compare_folded(
    written: &Written,
    drive: &mut dyn EngineDrive,
    control: &Control,
) -> Result<(), Halt> {
    let (mut buffer, mut folded) = (vec![0; RECORD_MAX], Sha256::new());
    for object in 0..written.objects {
        match drive.read(&mut buffer, control)? {
            ReadEnd::Record { length } => {
                fold(&mut folded, Some(buffer.get(..length).ok_or_else(|| differs(object))?));
            }
            ReadEnd::Filemark => fold(&mut folded, None),
            ReadEnd::EndOfData => return Err(differs(object)),
        }
    }
    let wanted = written.folded.clone().map(Sha256::finalize);
    match wanted == Some(folded.finalize()) {
        true => at_the_end(drive, written.objects, control),
        false => Err(Halt::Failed("what is on the target is not what was written".into())),
    }
}

fn at_the_end(drive: &mut dyn EngineDrive, object: u64, control: &Control) -> Result<(), Halt> {
    let mut buffer = [0; 1];
    match drive.read(&mut buffer, control)? {
        ReadEnd::EndOfData => Ok(()),
        _ => Err(differs(object)),
    }
}
