//! The vocabulary of `tape`, both ways and complete. Data (a record, CDB data) is the payload.

use std::time::Duration;

use bytes::Bytes;
use model::{Barcode, ElementMap, ElementType};
use prost::Message as _;
use scsi::{FieldPointer, Sense};
use tape::{
    CdbRequest, Completion, DeviceIdentity, DriveState, ElementStatus, Inventory, KeyError,
    MediumState, Operation, Outcome, Position, ReadEnd, SpaceKind, SpaceStop, Spaced, TapeError,
    WriteEnd,
};

use super::{DecodeError, malformed, narrow, outermost, read_text, text, within};
use crate::proto::{self, operation::Kind as Asked, outcome::Kind as Came};
use crate::report::ELEMENTS_MAX;

/// Elements that an inventory has in the structure of its frame; more are its payload.
const ELEMENTS_INSIDE: usize = 2048;

const SENSE_MAX: usize = 252;
/// The longest CDB that is carried; SPC-5 variable length CDBs are not used with tape.
const CDB_MAX: usize = 16;
const IDENTITY_MAX: usize = 64;
/// The longest record: 24 bits of a transfer length (SSC-4 READ(6), WRITE(6)).
pub(super) const RECORD_MAX: u32 = 0xff_ffff;

const EMPTY: proto::Empty = proto::Empty {};

pub(super) fn sense(sense: &Sense) -> proto::Sense {
    proto::Sense {
        key: sense.key.into(),
        asc: sense.asc.into(),
        ascq: sense.ascq.into(),
        filemark: sense.filemark,
        eom: sense.eom,
        ili: sense.ili,
        information: sense.information,
        deferred: sense.deferred,
        field: sense.field.map(|field| proto::FieldPointer {
            in_cdb: field.in_cdb,
            byte: field.byte.into(),
            bit: field.bit.map(u32::from),
        }),
        progress: sense.progress.map(u32::from),
    }
}

pub(super) fn read_sense(sense: proto::Sense) -> Result<Sense, DecodeError> {
    let field = |field: proto::FieldPointer| {
        Ok(FieldPointer {
            in_cdb: field.in_cdb,
            byte: narrow(field.byte, "field pointer")?,
            bit: field.bit.map(|bit| narrow(bit, "field pointer")).transpose()?,
        })
    };
    Ok(Sense {
        key: narrow(sense.key, "sense key")?,
        asc: narrow(sense.asc, "sense code")?,
        ascq: narrow(sense.ascq, "sense code")?,
        filemark: sense.filemark,
        eom: sense.eom,
        ili: sense.ili,
        information: sense.information,
        deferred: sense.deferred,
        field: sense.field.map(field).transpose()?,
        progress: sense.progress.map(|part| narrow(part, "progress")).transpose()?,
    })
}

pub(super) fn error(error: &TapeError) -> proto::TapeError {
    use proto::tape_error::Kind;
    let kind = match error {
        TapeError::Check(check) => Kind::Check(sense(check)),
        TapeError::Busy => Kind::Busy(EMPTY),
        TapeError::ReservationConflict => Kind::ReservationConflict(EMPTY),
        TapeError::TimedOut => Kind::TimedOut(EMPTY),
        TapeError::Cancelled => Kind::Cancelled(EMPTY),
        TapeError::PositionUnknown(why) => Kind::PositionUnknown(text(why)),
        TapeError::Unreachable(why) => Kind::Unreachable(text(why)),
        TapeError::Lost(why) => Kind::Lost(text(why)),
        TapeError::Key(error) => Kind::Key(key_error(error)),
    };
    proto::TapeError { kind: Some(kind) }
}

pub(super) fn read_error(error: proto::TapeError) -> Result<TapeError, DecodeError> {
    use proto::tape_error::Kind;
    Ok(match error.kind.ok_or(DecodeError::Missing("an error's kind"))? {
        Kind::Check(check) => TapeError::Check(read_sense(check)?),
        Kind::Busy(_) => TapeError::Busy,
        Kind::ReservationConflict(_) => TapeError::ReservationConflict,
        Kind::TimedOut(_) => TapeError::TimedOut,
        Kind::Cancelled(_) => TapeError::Cancelled,
        Kind::PositionUnknown(why) => TapeError::PositionUnknown(read_text(why)?),
        Kind::Unreachable(why) => TapeError::Unreachable(read_text(why)?),
        Kind::Lost(why) => TapeError::Lost(read_text(why)?),
        Kind::Key(error) => TapeError::Key(read_key_error(error)?),
    })
}

fn key_error(error: &KeyError) -> proto::KeyError {
    use proto::key_error::Kind;
    let kind = match error {
        KeyError::Unknown(key) => Kind::Unknown(text(key)),
        KeyError::Wrong(key) => Kind::Wrong(text(key)),
        KeyError::Unsupported(why) => Kind::Unsupported(text(why)),
        KeyError::Lost(key) => Kind::Lost(text(key)),
    };
    proto::KeyError { kind: Some(kind) }
}

fn read_key_error(error: proto::KeyError) -> Result<KeyError, DecodeError> {
    use proto::key_error::Kind;
    Ok(match error.kind.ok_or(DecodeError::Missing("what is wrong with a key"))? {
        Kind::Unknown(key) => KeyError::Unknown(read_text(key)?),
        Kind::Wrong(key) => KeyError::Wrong(read_text(key)?),
        Kind::Unsupported(why) => KeyError::Unsupported(read_text(why)?),
        Kind::Lost(key) => KeyError::Lost(read_text(key)?),
    })
}

pub(super) fn identity(identity: &DeviceIdentity) -> proto::Identity {
    proto::Identity {
        vendor: identity.vendor.clone(),
        product: identity.product.clone(),
        revision: identity.revision.clone(),
        serial: identity.serial.clone(),
    }
}

pub(super) fn read_identity(identity: proto::Identity) -> Result<DeviceIdentity, DecodeError> {
    let proto::Identity { vendor, product, revision, serial } = identity;
    for text in [&vendor, &product, &revision, &serial] {
        within("characters of an identity", text.len(), IDENTITY_MAX)?;
    }
    Ok(DeviceIdentity { vendor, product, revision, serial })
}

pub(super) fn barcode(barcode: Option<&Barcode>) -> String {
    barcode.map_or_else(String::new, Barcode::to_string)
}

pub(super) fn read_barcode(text: &str) -> Result<Option<Barcode>, DecodeError> {
    let read = |text| Barcode::new(text).map_err(|_| DecodeError::Invalid("barcode"));
    (!text.is_empty()).then(|| read(text)).transpose()
}

pub(super) fn drive_state(state: &DriveState) -> proto::DriveState {
    let medium = state.medium.as_ref().map(|medium| proto::Medium {
        barcode: barcode(medium.barcode.as_ref()),
        write_protected: medium.write_protected,
        capacity: medium.capacity,
        remaining: medium.remaining,
    });
    proto::DriveState { medium, block_length: state.block_length }
}

pub(super) fn read_drive_state(state: proto::DriveState) -> Result<DriveState, DecodeError> {
    let medium = |medium: proto::Medium| {
        Ok(MediumState {
            barcode: read_barcode(&medium.barcode)?,
            write_protected: medium.write_protected,
            capacity: medium.capacity,
            remaining: medium.remaining,
        })
    };
    let medium = state.medium.map(medium).transpose()?;
    Ok(DriveState { medium, block_length: state.block_length })
}

fn position(position: &Position) -> proto::Position {
    proto::Position {
        object: position.object,
        file: position.file,
        at_bot: position.at_bot,
        past_early_warning: position.past_early_warning,
        buffered_objects: position.buffered_objects,
    }
}

fn read_position(position: proto::Position) -> Position {
    Position {
        object: position.object,
        file: position.file,
        at_bot: position.at_bot,
        past_early_warning: position.past_early_warning,
        buffered_objects: position.buffered_objects,
    }
}

pub(super) fn inventory(inventory: &Inventory) -> proto::Inventory {
    let range = |kind| {
        let (first, count) = inventory.map.range(kind);
        proto::ElementRange { first: first.into(), count: count.into() }
    };
    let element = |status: &ElementStatus| proto::Element {
        address: status.address.into(),
        kind: status.kind as u32,
        full: status.full,
        barcode: barcode(status.barcode.as_ref()),
        accessible: status.accessible,
        imported: status.imported,
        source: status.source.map(u32::from),
        exception: status.exception.map(|(asc, ascq)| u32::from(asc) << 8 | u32::from(ascq)),
        drive: status.drive.as_ref().map(identity),
    };
    proto::Inventory {
        map: ElementType::ALL.into_iter().map(range).collect(),
        elements: inventory.elements.iter().map(element).collect(),
    }
}

pub(super) fn read_inventory(inventory: proto::Inventory) -> Result<Inventory, DecodeError> {
    within("elements", inventory.elements.len(), ELEMENTS_MAX)?;
    let mut ranges = [(0, 0); 4];
    if inventory.map.len() != ranges.len() {
        return Err(DecodeError::Invalid("element map"));
    }
    for (to, from) in ranges.iter_mut().zip(&inventory.map) {
        *to = (narrow(from.first, "element address")?, narrow(from.count, "element count")?);
    }
    let elements = inventory.elements.into_iter().map(read_element).collect::<Result<_, _>>()?;
    Ok(Inventory { map: ElementMap::from_ranges(ranges), elements })
}

/// The elements of an inventory that came as data. Counted before they are decoded: what is two
/// bytes there is some hundred in memory.
fn read_elements(bytes: Bytes) -> Result<Vec<proto::Element>, DecodeError> {
    let mut count = 0;
    outermost(&bytes, |_, _| {
        count += 1;
        within("elements", count, ELEMENTS_MAX)
    })?;
    Ok(proto::Inventory::decode(bytes).map_err(malformed)?.elements)
}

fn read_element(element: proto::Element) -> Result<ElementStatus, DecodeError> {
    let kind = u8::try_from(element.kind).ok().and_then(ElementType::from_code);
    let exception = |code: u32| {
        let [asc, ascq] = narrow::<u16>(code, "exception").map(u16::to_be_bytes)?;
        Ok((asc, ascq))
    };
    Ok(ElementStatus {
        address: narrow(element.address, "element address")?,
        kind: kind.ok_or(DecodeError::Invalid("element type"))?,
        full: element.full,
        barcode: read_barcode(&element.barcode)?,
        accessible: element.accessible,
        imported: element.imported,
        source: element.source.map(|s| narrow(s, "element address")).transpose()?,
        exception: element.exception.map(exception).transpose()?,
        drive: element.drive.map(read_identity).transpose()?,
    })
}

/// An operation and its payload. A time limit travels in milliseconds, rounded up.
pub(super) fn operation(operation: &Operation) -> (proto::Operation, Bytes) {
    let mut payload = Bytes::new();
    let kind = match operation {
        Operation::State => Asked::State(EMPTY),
        Operation::Position => Asked::Position(EMPTY),
        Operation::Rewind => Asked::Rewind(EMPTY),
        Operation::Locate(object) => Asked::Locate(*object),
        Operation::Space(kind, count) => {
            Asked::Space(proto::Space { kind: *kind as u32, count: *count })
        }
        Operation::Read(max) => Asked::Read(*max),
        Operation::Write(record) => {
            payload = record.clone();
            Asked::Write(EMPTY)
        }
        Operation::WriteFilemarks(count) => Asked::WriteFilemarks(*count),
        Operation::Load => Asked::Load(EMPTY),
        Operation::Unload => Asked::Unload(EMPTY),
        Operation::Cdb(request) => {
            payload = request.data_out.clone();
            let millis = request.timeout.as_nanos().div_ceil(1_000_000);
            Asked::Cdb(proto::Cdb {
                cdb: Bytes::copy_from_slice(&request.cdb),
                data_in_max: request.data_in_max,
                timeout_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            })
        }
        Operation::Inventory => Asked::Inventory(EMPTY),
        Operation::Initialize => Asked::Initialize(EMPTY),
        Operation::Move { from, to } => {
            Asked::Move(proto::Move { from: (*from).into(), to: (*to).into() })
        }
    };
    (proto::Operation { kind: Some(kind) }, payload)
}

pub(super) fn read_operation(
    operation: proto::Operation,
    payload: &mut Bytes,
) -> Result<Operation, DecodeError> {
    Ok(match operation.kind.ok_or(DecodeError::Missing("an operation"))? {
        Asked::State(_) => Operation::State,
        Asked::Position(_) => Operation::Position,
        Asked::Rewind(_) => Operation::Rewind,
        Asked::Locate(object) => Operation::Locate(object),
        Asked::Space(space) => Operation::Space(read_space_kind(space.kind)?, space.count),
        Asked::Read(max) => {
            within("bytes to read", max as usize, RECORD_MAX as usize)?;
            Operation::Read(max)
        }
        Asked::Write(_) => {
            within("bytes of a record", payload.len(), RECORD_MAX as usize)?;
            Operation::Write(std::mem::take(payload))
        }
        Asked::WriteFilemarks(count) => Operation::WriteFilemarks(count),
        Asked::Load(_) => Operation::Load,
        Asked::Unload(_) => Operation::Unload,
        Asked::Cdb(cdb) => {
            within("bytes of a CDB", cdb.cdb.len(), CDB_MAX)?;
            within("bytes to read", cdb.data_in_max as usize, super::PAYLOAD_MAX)?;
            Operation::Cdb(CdbRequest {
                cdb: cdb.cdb.to_vec(),
                data_out: std::mem::take(payload),
                data_in_max: cdb.data_in_max,
                timeout: Duration::from_millis(cdb.timeout_ms),
            })
        }
        Asked::Inventory(_) => Operation::Inventory,
        Asked::Initialize(_) => Operation::Initialize,
        Asked::Move(it) => Operation::Move {
            from: narrow(it.from, "element address")?,
            to: narrow(it.to, "element address")?,
        },
    })
}

fn read_space_kind(code: u32) -> Result<SpaceKind, DecodeError> {
    match code {
        0 => Ok(SpaceKind::Records),
        1 => Ok(SpaceKind::Filemarks),
        3 => Ok(SpaceKind::EndOfData),
        _ => Err(DecodeError::Invalid("space code")),
    }
}

/// An outcome and its payload.
pub(super) fn outcome(outcome: &Outcome) -> (proto::Outcome, Bytes) {
    let mut payload = Bytes::new();
    let kind = match outcome {
        Outcome::Done => Came::Done(EMPTY),
        Outcome::State(state) => Came::State(drive_state(state)),
        Outcome::Position(at) => Came::Position(position(at)),
        Outcome::Spaced(it) => Came::Spaced(spaced(*it)),
        Outcome::Read(end, data) => {
            use proto::read_end::Kind;
            payload = data.clone();
            let kind = match end {
                ReadEnd::Record { length } => Kind::Record(*length as u64),
                ReadEnd::Filemark => Kind::Filemark(EMPTY),
                ReadEnd::EndOfData => Kind::EndOfData(EMPTY),
            };
            Came::Read(proto::ReadEnd { kind: Some(kind) })
        }
        Outcome::Written(end) => {
            let end = match end {
                WriteEnd::Written => proto::WriteEnd::Written,
                WriteEnd::EarlyWarning => proto::WriteEnd::EarlyWarning,
                WriteEnd::Overflow => proto::WriteEnd::Overflow,
            };
            Came::Written(end.into())
        }
        Outcome::Completion(completion) => {
            payload = Bytes::copy_from_slice(&completion.data_in);
            Came::Completion(proto::Completion {
                status: completion.status.into(),
                sense: Bytes::copy_from_slice(&completion.sense),
                residual: completion.residual,
            })
        }
        Outcome::Inventory(it) => {
            let mut whole = inventory(it);
            if whole.elements.len() > ELEMENTS_INSIDE {
                let elements = std::mem::take(&mut whole.elements);
                payload = proto::Inventory { map: Vec::new(), elements }.encode_to_vec().into();
            }
            Came::Inventory(whole)
        }
    };
    (proto::Outcome { kind: Some(kind) }, payload)
}

pub(super) fn read_outcome(
    outcome: proto::Outcome,
    payload: &mut Bytes,
) -> Result<Outcome, DecodeError> {
    Ok(match outcome.kind.ok_or(DecodeError::Missing("an outcome"))? {
        Came::Done(_) => Outcome::Done,
        Came::State(state) => Outcome::State(read_drive_state(state)?),
        Came::Position(at) => Outcome::Position(read_position(at)),
        Came::Spaced(it) => Outcome::Spaced(read_spaced(it)?),
        Came::Read(end) => {
            use proto::read_end::Kind;
            let end = match end.kind.ok_or(DecodeError::Missing("the end of a read"))? {
                Kind::Record(length) => ReadEnd::Record {
                    length: usize::try_from(length).map_err(|_| DecodeError::Invalid("length"))?,
                },
                Kind::Filemark(_) => ReadEnd::Filemark,
                Kind::EndOfData(_) => ReadEnd::EndOfData,
            };
            Outcome::Read(end, std::mem::take(payload))
        }
        Came::Written(end) => Outcome::Written(match proto::WriteEnd::try_from(end) {
            Ok(proto::WriteEnd::Written) => WriteEnd::Written,
            Ok(proto::WriteEnd::EarlyWarning) => WriteEnd::EarlyWarning,
            Ok(proto::WriteEnd::Overflow) => WriteEnd::Overflow,
            _ => return Err(DecodeError::Invalid("end of a write")),
        }),
        Came::Completion(completion) => {
            within("bytes of sense data", completion.sense.len(), SENSE_MAX)?;
            Outcome::Completion(Completion {
                status: narrow(completion.status, "status")?,
                sense: completion.sense.to_vec(),
                residual: completion.residual,
                data_in: std::mem::take(payload).to_vec(),
            })
        }
        Came::Inventory(mut it) => {
            if !payload.is_empty() {
                it.elements = read_elements(std::mem::take(payload))?;
            }
            Outcome::Inventory(read_inventory(it)?)
        }
    })
}

fn spaced(spaced: Spaced) -> proto::Spaced {
    use proto::spaced::Stop;
    let stop = match spaced.stop {
        SpaceStop::Done => Stop::Done,
        SpaceStop::Filemark => Stop::Filemark,
        SpaceStop::BeginningOfTape => Stop::BeginningOfTape,
        SpaceStop::EndOfData => Stop::EndOfData,
    };
    proto::Spaced { residual: spaced.residual, stop: stop.into() }
}

fn read_spaced(spaced: proto::Spaced) -> Result<Spaced, DecodeError> {
    use proto::spaced::Stop;
    let stop = match spaced.stop() {
        Stop::Done => SpaceStop::Done,
        Stop::Filemark => SpaceStop::Filemark,
        Stop::BeginningOfTape => SpaceStop::BeginningOfTape,
        Stop::EndOfData => SpaceStop::EndOfData,
        Stop::Unspecified => return Err(DecodeError::Invalid("end of a space")),
    };
    Ok(Spaced { residual: spaced.residual, stop })
}
