//! What is kept of a lease over a crash of the remote: one opaque row each.

use bytes::Bytes;
use model::{DeviceName, EngineId, SiteName};
use prost::Message as _;
use tape::{Outcome, TapeError};

use super::{Answer, EndReason};
use crate::proto;
use crate::wire;

/// CDB data that is longer than this is not kept.
const DATA_KEPT_MAX: usize = 64 << 10;

/// A row that does not read back: the catalogue is damaged. The operator restores it or removes
/// the row; the device is free then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recorded lease {lease} can not be read: {why}")]
pub struct RestoreError {
    /// The lease.
    pub lease: model::LeaseId,
    /// What is wrong with it.
    pub why: String,
}

/// A lease on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) site: SiteName,
    pub(super) engine: EngineId,
    pub(super) device: DeviceName,
    pub(super) exclusive: bool,
    pub(super) epoch: u32,
    pub(super) last: Option<(u64, Answer)>,
    pub(super) ended: Option<EndReason>,
}

impl Row {
    pub(super) fn encode(&self) -> Bytes {
        let (answer, payload) = match &self.last {
            Some((_, answer)) => {
                let (answer, payload) = wire::answer(&kept(answer));
                (Some(answer), payload)
            }
            None => (None, Bytes::new()),
        };
        let row = proto::LeaseRow {
            site: self.site.to_string(),
            engine: Bytes::copy_from_slice(&self.engine.to_bytes()),
            device: self.device.to_string(),
            exclusive: self.exclusive,
            epoch: self.epoch,
            last_number: self.last.as_ref().map_or(0, |(number, _)| *number),
            answer,
            payload,
            ended: self.ended.map_or(0, |why| wire::end_reason(why).into()),
        };
        row.encode_to_vec().into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let row = proto::LeaseRow::decode(bytes).map_err(|error| error.to_string())?;
        let ended = wire::read_end_reason(row.ended());
        let mut payload = row.payload;
        let answer = row.answer.map(|answer| wire::read_answer(answer, &mut payload));
        let answer = answer.transpose().map_err(|error| error.to_string())?;
        Ok(Self {
            site: SiteName::new(&row.site).map_err(|error| error.to_string())?,
            engine: EngineId::from_slice(&row.engine).ok_or("engine")?,
            device: row.device.parse().map_err(|error: model::NameError| error.to_string())?,
            exclusive: row.exclusive,
            epoch: row.epoch,
            last: answer.map(|answer| (row.last_number, answer)),
            ended,
        })
    }
}

/// The answer as it is recorded: everything but bulky data, which only a CDB can bring here.
fn kept(answer: &Answer) -> Answer {
    match answer {
        Answer::Outcome(Outcome::Completion(completion))
            if completion.data_in.len() > DATA_KEPT_MAX =>
        {
            let why = "the command was executed, its data was lost in a restart";
            Answer::Failed(TapeError::PositionUnknown(why.to_owned()))
        }
        other => other.clone(),
    }
}
