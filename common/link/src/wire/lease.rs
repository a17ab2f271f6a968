//! Lease requests and replies.

use bytes::Bytes;
use model::LeaseId;

use super::{DecodeError, emptied, id_bytes, range, read_text, tape, text};
use crate::lease::{
    Answer, EndReason, Expect, LeaseBody, LeaseReply, LeaseReplyBody, LeaseRequest, Numbered,
    Refusal, RefusalWhy, Work,
};
use crate::proto::{
    self,
    answer::Kind as Came,
    lease_reply::{self, Body as ReplyBody, refused::Why},
    lease_request::{self, Body as RequestBody, numbered::Work as Asked},
};

const EMPTY: proto::Empty = proto::Empty {};

fn lease_id(bytes: &[u8]) -> Result<LeaseId, DecodeError> {
    LeaseId::from_slice(bytes).ok_or(DecodeError::Invalid("lease"))
}

pub(super) fn request(request: &LeaseRequest) -> (proto::LeaseRequest, Bytes) {
    let mut payload = Bytes::new();
    let body = match &request.body {
        LeaseBody::Open { device, exclusive } => RequestBody::Open(lease_request::Open {
            device: device.to_string(),
            exclusive: *exclusive,
        }),
        LeaseBody::Resume => RequestBody::Resume(EMPTY),
        LeaseBody::Perform(numbered) => {
            let (perform, data) = perform(numbered);
            payload = data;
            RequestBody::Perform(perform)
        }
        LeaseBody::Renew => RequestBody::Renew(EMPTY),
        LeaseBody::Cancel { number, taken } => {
            RequestBody::Cancel(lease_request::Cancel { number: *number, taken: *taken })
        }
    };
    let lease = id_bytes(request.lease.to_bytes());
    (proto::LeaseRequest { lease, epoch: request.epoch, body: Some(body) }, payload)
}

fn perform(numbered: &Numbered) -> (lease_request::Numbered, Bytes) {
    let mut payload = Bytes::new();
    let work = match &numbered.work {
        Work::Operation(operation) => {
            let (operation, data) = tape::operation(operation);
            payload = data;
            Asked::Operation(operation)
        }
        Work::Copy(copy) => Asked::Copy(range::copy(copy)),
        Work::Read(read) => Asked::Read(range::read(read)),
        Work::Close => Asked::Close(EMPTY),
    };
    let perform = lease_request::Numbered {
        number: numbered.number,
        repeated_send: numbered.repeated,
        before: numbered.expect.before,
        after: numbered.expect.after,
        unflushed: numbered.expect.unflushed,
        work: Some(work),
    };
    (perform, payload)
}

pub(super) fn read_request(
    request: proto::LeaseRequest,
    mut payload: Bytes,
) -> Result<LeaseRequest, DecodeError> {
    let body = match request.body.ok_or(DecodeError::Missing("a lease request"))? {
        RequestBody::Open(open) => LeaseBody::Open {
            device: open.device.parse().map_err(|_| DecodeError::Invalid("device name"))?,
            exclusive: open.exclusive,
        },
        RequestBody::Resume(_) => LeaseBody::Resume,
        RequestBody::Perform(perform) => LeaseBody::Perform(read_perform(perform, &mut payload)?),
        RequestBody::Renew(_) => LeaseBody::Renew,
        RequestBody::Cancel(it) => LeaseBody::Cancel { number: it.number, taken: it.taken },
    };
    emptied(&payload)?;
    Ok(LeaseRequest { lease: lease_id(&request.lease)?, epoch: request.epoch, body })
}

fn read_perform(
    perform: lease_request::Numbered,
    payload: &mut Bytes,
) -> Result<Numbered, DecodeError> {
    let work = match perform.work.ok_or(DecodeError::Missing("work"))? {
        Asked::Operation(operation) => Work::Operation(tape::read_operation(operation, payload)?),
        Asked::Copy(copy) => Work::Copy(range::read_copy(copy)?),
        Asked::Read(read) => Work::Read(range::read_read(read)?),
        Asked::Close(_) => Work::Close,
    };
    if perform.number == 0 {
        return Err(DecodeError::Invalid("number"));
    }
    Ok(Numbered {
        number: perform.number,
        repeated: perform.repeated_send,
        expect: Expect {
            before: perform.before,
            after: perform.after,
            unflushed: perform.unflushed,
        },
        work,
    })
}

pub(super) fn reply(reply: &LeaseReply) -> (proto::LeaseReply, Bytes) {
    let mut payload = Bytes::new();
    let body = match &reply.body {
        LeaseReplyBody::Opened { lease_ms } => {
            ReplyBody::Opened(lease_reply::Opened { lease_ms: *lease_ms })
        }
        LeaseReplyBody::Refused(refusal) => ReplyBody::Refused(refused(refusal)),
        LeaseReplyBody::Answered { number, answer: came } => {
            let (answer, data) = answer(came);
            payload = data;
            ReplyBody::Answered(lease_reply::Answered { number: *number, answer: Some(answer) })
        }
        LeaseReplyBody::Progress { number, bytes, records } => {
            let (number, bytes, records) = (*number, *bytes, *records);
            ReplyBody::Progress(lease_reply::Progress { number, bytes, records })
        }
        LeaseReplyBody::Ended(why) => {
            ReplyBody::Ended(lease_reply::Ended { why: end_reason(*why).into() })
        }
    };
    let lease = id_bytes(reply.lease.to_bytes());
    (proto::LeaseReply { lease, epoch: reply.epoch, body: Some(body) }, payload)
}

pub(super) fn read_reply(
    reply: proto::LeaseReply,
    mut payload: Bytes,
) -> Result<LeaseReply, DecodeError> {
    let body = match reply.body.ok_or(DecodeError::Missing("a lease reply"))? {
        ReplyBody::Opened(opened) => LeaseReplyBody::Opened { lease_ms: opened.lease_ms },
        ReplyBody::Refused(refused) => LeaseReplyBody::Refused(read_refused(refused)?),
        ReplyBody::Answered(answered) => {
            let answer = answered.answer.ok_or(DecodeError::Missing("an answer"))?;
            let answer = read_answer(answer, &mut payload)?;
            LeaseReplyBody::Answered { number: answered.number, answer }
        }
        ReplyBody::Progress(it) => {
            LeaseReplyBody::Progress { number: it.number, bytes: it.bytes, records: it.records }
        }
        ReplyBody::Ended(ended) => LeaseReplyBody::Ended(
            read_end_reason(ended.why()).ok_or(DecodeError::Invalid("end of a lease"))?,
        ),
    };
    emptied(&payload)?;
    Ok(LeaseReply { lease: lease_id(&reply.lease)?, epoch: reply.epoch, body })
}

fn refused(refusal: &Refusal) -> lease_reply::Refused {
    let why = match refusal.why {
        RefusalWhy::Busy => Why::Busy,
        RefusalWhy::NoSuchDevice => Why::NoSuchDevice,
        RefusalWhy::NotAllowed => Why::NotAllowed,
        RefusalWhy::TooMany => Why::TooMany,
        RefusalWhy::Device => Why::Device,
    };
    lease_reply::Refused { why: why.into(), text: text(&refusal.text) }
}

fn read_refused(refused: lease_reply::Refused) -> Result<Refusal, DecodeError> {
    let why = match refused.why() {
        Why::Busy => RefusalWhy::Busy,
        Why::NoSuchDevice => RefusalWhy::NoSuchDevice,
        Why::NotAllowed => RefusalWhy::NotAllowed,
        Why::TooMany => RefusalWhy::TooMany,
        Why::Device => RefusalWhy::Device,
        Why::Unspecified => return Err(DecodeError::Invalid("refusal")),
    };
    Ok(Refusal { why, text: read_text(refused.text)? })
}

pub(crate) fn end_reason(why: EndReason) -> proto::LeaseEnd {
    match why {
        EndReason::Closed => proto::LeaseEnd::Closed,
        EndReason::Expired => proto::LeaseEnd::Expired,
        EndReason::Revoked => proto::LeaseEnd::Revoked,
        EndReason::Unknown => proto::LeaseEnd::Unknown,
        EndReason::PeerRestarted => proto::LeaseEnd::PeerRestarted,
    }
}

pub(crate) fn read_end_reason(why: proto::LeaseEnd) -> Option<EndReason> {
    Some(match why {
        proto::LeaseEnd::Closed => EndReason::Closed,
        proto::LeaseEnd::Expired => EndReason::Expired,
        proto::LeaseEnd::Revoked => EndReason::Revoked,
        proto::LeaseEnd::Unknown => EndReason::Unknown,
        proto::LeaseEnd::PeerRestarted => EndReason::PeerRestarted,
        proto::LeaseEnd::Unspecified => return None,
    })
}

/// An answer and its payload.
pub(crate) fn answer(answer: &Answer) -> (proto::Answer, Bytes) {
    let mut payload = Bytes::new();
    let kind = match answer {
        Answer::Outcome(outcome) => {
            let (outcome, data) = tape::outcome(outcome);
            payload = data;
            Came::Outcome(outcome)
        }
        Answer::Copied(result) => Came::Copied(range::result(result)),
        Answer::Read(result) => Came::Read(range::read_result(result)),
        Answer::Closed => Came::Closed(EMPTY),
        Answer::Failed(error) => Came::Failed(tape::error(error)),
    };
    (proto::Answer { kind: Some(kind) }, payload)
}

pub(crate) fn read_answer(
    answer: proto::Answer,
    payload: &mut Bytes,
) -> Result<Answer, DecodeError> {
    Ok(match answer.kind.ok_or(DecodeError::Missing("an answer"))? {
        Came::Outcome(outcome) => Answer::Outcome(tape::read_outcome(outcome, payload)?),
        Came::Copied(result) => Answer::Copied(range::read_result_of_copy(result)?),
        Came::Read(result) => Answer::Read(range::read_result_of_read(result)?),
        Came::Closed(_) => Answer::Closed,
        Came::Failed(error) => Answer::Failed(tape::read_error(error)?),
    })
}
