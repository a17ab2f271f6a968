//! How a command ended, by its sense data and residual.

use scsi::Sense;

use super::channel::{Reply, moved};
use crate::{ReadEnd, SpaceKind, SpaceStop, Spaced, TapeError, WriteEnd};

/// How a WRITE or WRITE FILEMARKS ended.
pub(super) fn write_end(reply: &Reply) -> Result<WriteEnd, TapeError> {
    match reply.sense {
        None => Ok(WriteEnd::Written),
        Some(sense) if sense.key == 0x0d => Ok(WriteEnd::Overflow),
        Some(sense) if sense.key > 1 => Err(TapeError::Check(sense)),
        Some(sense) if sense.eom => Ok(WriteEnd::EarlyWarning),
        Some(_) => Ok(WriteEnd::Written),
    }
}

/// How a READ of at most `asked` bytes ended (SSC-4 7.2, variable mode).
pub(super) fn read_end(reply: &Reply, asked: usize) -> Result<ReadEnd, TapeError> {
    let by_residual = moved(asked, reply.residual);
    let Some(sense) = reply.sense else {
        return Ok(ReadEnd::Record { length: by_residual });
    };
    match sense {
        Sense { key: 0x00 | 0x01, filemark: true, .. } => Ok(ReadEnd::Filemark),
        // 08/14/03, no end of data found, is damage; other blank checks are the end.
        Sense { key: 0x08, asc: 0x00, .. } => Ok(ReadEnd::EndOfData),
        Sense { key: 0x00 | 0x01, ili: true, information: Some(information), .. } => {
            let length = i64::try_from(asked).unwrap_or(i64::MAX).saturating_sub(information);
            Ok(ReadEnd::Record { length: usize::try_from(length).unwrap_or(0) })
        }
        Sense { key: 0x00 | 0x01, .. } => Ok(ReadEnd::Record { length: by_residual }),
        _ => Err(TapeError::Check(sense)),
    }
}

/// How a SPACE ended.
pub(super) fn spaced(reply: &Reply, kind: SpaceKind, count: i64) -> Result<Spaced, TapeError> {
    let Some(sense) = reply.sense else {
        return Ok(Spaced { residual: 0, stop: SpaceStop::Done });
    };
    let residual = sense.information.map_or(count.unsigned_abs(), i64::unsigned_abs);
    let stop = match sense {
        Sense { key: 0x00 | 0x01, filemark: true, .. } => SpaceStop::Filemark,
        Sense { key: 0x00 | 0x01, eom: true, .. } if count < 0 => SpaceStop::BeginningOfTape,
        Sense { key: 0x08, asc: 0x00, .. } if kind == SpaceKind::EndOfData => SpaceStop::Done,
        Sense { key: 0x08, asc: 0x00, .. } => SpaceStop::EndOfData,
        Sense { key: 0x00 | 0x01, .. } => SpaceStop::Done,
        _ => return Err(TapeError::Check(sense)),
    };
    Ok(Spaced { residual: if stop == SpaceStop::Done { 0 } else { residual }, stop })
}
