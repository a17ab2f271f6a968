//! From what a command did to status, sense, residual and data.

use scsi::Sense;

use crate::{CdbRequest, Completion, TapeError};

/// Longest data-in of a CDB that is passed through, in bytes.
const DATA_IN_MAX: usize = 32 << 20;

/// The data phase of a command: what the host gives, or where it wants data.
pub enum Transfer<'a> {
    /// No data.
    None,
    /// To the device.
    Out(&'a [u8]),
    /// From the device; as many bytes as the host expects at most.
    In(&'a mut [u8]),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SAM status byte.
    pub status: u8,
    /// Sense data, with CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Bytes that went over, in either direction.
    pub moved: usize,
    /// Bytes that the host expected less those that went over; negative when there were more.
    pub residual: i64,
}

impl Answer {
    fn ended(status: u8, sense: Option<Sense>, moved: usize, expected: usize) -> Self {
        Self { status, sense, moved, residual: expected as i64 - moved as i64 }
    }
}

/// What the execution of a command hands back; CHECK CONDITION without data is a `TapeError`.
pub(super) enum Reply {
    /// GOOD, no data.
    Done,
    /// GOOD with data made for it, cut to the allocation length already.
    Data(Vec<u8>),
    /// `moved` bytes went over, in or out, where the host could have had `wanted`.
    Moved { moved: usize, wanted: usize, sense: Option<Sense> },
}

impl Reply {
    /// GOOD with data, cut to an allocation length.
    pub(super) fn data(mut data: Vec<u8>, allocation: impl Into<u32>) -> Self {
        data.truncate(allocation.into() as usize);
        Self::Data(data)
    }

    /// CHECK CONDITION after so many bytes.
    pub(super) fn check(moved: usize, sense: Sense) -> Self {
        Self::Moved { moved, wanted: moved, sense: Some(sense) }
    }

    /// The same without data.
    pub(super) fn unmoved(self) -> Self {
        match self {
            Self::Moved { sense, .. } => Self::Moved { moved: 0, wanted: 0, sense },
            other => other,
        }
    }
}

impl Transfer<'_> {
    pub(super) fn outgoing(&self) -> &[u8] {
        match self {
            Self::Out(data) => data,
            _ => &[],
        }
    }

    pub(super) fn incoming(&mut self) -> &mut [u8] {
        match self {
            Self::In(buffer) => buffer,
            _ => &mut [],
        }
    }

    fn expected(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Out(data) => data.len(),
            Self::In(buffer) => buffer.len(),
        }
    }

    /// Puts the reply into words of SAM, and its data into the buffer.
    pub(super) fn answer(mut self, reply: Result<Reply, TapeError>) -> Result<Answer, TapeError> {
        let expected = self.expected();
        Ok(match reply {
            Ok(Reply::Done) => Answer::ended(0x00, None, 0, expected),
            Ok(Reply::Data(data)) => {
                let buffer = self.incoming();
                let moved = data.len().min(buffer.len());
                buffer[..moved].copy_from_slice(&data[..moved]);
                let residual = expected as i64 - data.len() as i64;
                Answer { status: 0x00, sense: None, moved, residual }
            }
            Ok(Reply::Moved { moved, wanted, sense }) => {
                let status = if sense.is_some() { 0x02 } else { 0x00 };
                let residual = expected as i64 - wanted as i64;
                Answer { status, sense, moved, residual }
            }
            Err(TapeError::Check(sense)) => Answer::ended(0x02, Some(sense), 0, expected),
            Err(TapeError::Busy) => Answer::ended(0x08, None, 0, expected),
            Err(TapeError::ReservationConflict) => Answer::ended(0x18, None, 0, expected),
            Err(unanswered) => return Err(unanswered),
        })
    }
}

/// Executes a CDB that came as a [`CdbRequest`] and makes a [`Completion`] of the answer.
pub(super) fn complete(
    request: &CdbRequest,
    execute: impl FnOnce(Transfer<'_>) -> Result<Answer, TapeError>,
) -> Result<Completion, TapeError> {
    let mut data_in = vec![0; (request.data_in_max as usize).min(DATA_IN_MAX)];
    let transfer = match (data_in.is_empty(), request.data_out.is_empty()) {
        (false, _) => Transfer::In(&mut data_in),
        (true, false) => Transfer::Out(&request.data_out),
        (true, true) => Transfer::None,
    };
    let is_in = matches!(transfer, Transfer::In(_));
    let answer = execute(transfer)?;
    data_in.truncate(if is_in { answer.moved } else { 0 });
    let sense = answer.sense.map_or_else(Vec::new, |sense| sense.to_fixed().to_vec());
    Ok(Completion { status: answer.status, sense, residual: answer.residual, data_in })
}
