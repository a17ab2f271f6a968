//! From messages to frames and back. A frame is one body (structure, at most 1 MiB) and one
//! payload (data, at most 16 MiB); both caps hold before anything is decoded, so that a small
//! frame can not grow into a large one in memory.

mod compare;
mod connect;
mod entries;
mod heal;
mod lease;
mod range;
mod replicate;
mod stream;
mod tape;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::compare::Compare;
use crate::connect::{Channel, Goodbye, Hello};
use crate::heal::Heal;
use crate::lease::{LeaseReply, LeaseRequest};
use crate::proto::{self, frame::Body};
use crate::range::Verify;
use crate::replicate::Replicate;
use crate::report::{JobReport, SiteReport};
use crate::stream::Stream;
use model::JobId;

/// The most bytes of a frame's structure.
pub const BODY_MAX: usize = 1 << 20;
/// The most bytes of a frame's data.
pub const PAYLOAD_MAX: usize = 16 << 20;
/// The most bytes of a frame, without its length prefix.
pub const FRAME_MAX: usize = PAYLOAD_MAX + BODY_MAX + 64;
/// The most bytes of a text for people; longer ones are cut when sent.
const TEXT_MAX: usize = 1024;

/// Everything that one engine says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First on each connection, both ways.
    Hello(Hello),
    /// Last on a connection.
    Goodbye(Goodbye),
    /// Asks for a sign of life; answered by a pong with the same number.
    Ping(u64),
    /// The sign of life.
    Pong(u64),
    /// Remote to local, control.
    Report(SiteReport),
    /// Remote to local, control.
    Job(JobReport),
    /// Local to remote, control.
    JobAck(JobId),
    /// The originator of a copy has ended it.
    JobOver(JobId),
    /// Remote to local, control: how a copy that is done was proven.
    JobProof(JobId, Verify),
    /// Local to remote, control.
    Lease(LeaseRequest),
    /// Remote to local, control.
    LeaseReply(LeaseReply),
    /// Both ways, bulk.
    Replicate(Replicate),
    /// Both ways, bulk.
    Stream(Stream),
    /// Both ways, bulk.
    Heal(Heal),
    /// Both ways, bulk.
    Compare(Compare),
}

/// A frame that is no message. The peer is at fault and a retry does not help: say goodbye
/// ([`GoodbyeReason::Protocol`](crate::GoodbyeReason)) and close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not encoded as the schema says.
    #[error("a frame of the peer is malformed: {0}")]
    Malformed(String),
    /// Something that must be there is not.
    #[error("a frame of the peer lacks {0}")]
    Missing(&'static str),
    /// A list or text exceeds its limit.
    #[error("a frame of the peer has {length} of {what}, the limit is {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A value out of its range.
    #[error("a frame of the peer has an impossible {0}")]
    Invalid(&'static str),
    /// The message belongs on the other connection.
    #[error("the peer sent a message on the wrong connection")]
    Channel,
}

impl Message {
    /// The connection that the message belongs on, `None` for either.
    pub fn channel(&self) -> Option<Channel> {
        match self {
            Self::Hello(_) | Self::Goodbye(_) | Self::Ping(_) | Self::Pong(_) => None,
            Self::Report(_) | Self::Job(_) | Self::JobProof(..) => Some(Channel::Control),
            Self::JobAck(_) | Self::JobOver(_) => Some(Channel::Control),
            Self::Lease(_) | Self::LeaseReply(_) => Some(Channel::Control),
            Self::Replicate(_) | Self::Stream(_) => Some(Channel::Bulk),
            Self::Heal(_) | Self::Compare(_) => Some(Channel::Bulk),
        }
    }

    /// The frame, without its length prefix.
    ///
    /// The machines of this crate keep to the limits; a message made by hand that exceeds them is
    /// encoded all the same and refused by the peer.
    pub fn encode(&self) -> Bytes {
        let (body, payload) = match self {
            Self::Hello(hello) => (Body::Hello(connect::hello(hello)), Bytes::new()),
            Self::Goodbye(goodbye) => (Body::Goodbye(connect::goodbye(goodbye)), Bytes::new()),
            Self::Ping(nonce) => (Body::Ping(proto::Ping { nonce: *nonce }), Bytes::new()),
            Self::Pong(nonce) => (Body::Pong(proto::Pong { nonce: *nonce }), Bytes::new()),
            Self::Report(report) => (Body::Report(connect::report(report)), Bytes::new()),
            Self::Job(report) => (Body::Job(connect::job(report)), Bytes::new()),
            Self::JobOver(job) => {
                (Body::JobOver(proto::JobOver { job: id_bytes(job.to_bytes()) }), Bytes::new())
            }
            Self::JobProof(job, how) => {
                let verified = range::verify(*how).into();
                let job = id_bytes(job.to_bytes());
                (Body::JobProof(proto::JobProof { job, verified }), Bytes::new())
            }
            Self::JobAck(job) => {
                (Body::JobAck(proto::JobAck { job: id_bytes(job.to_bytes()) }), Bytes::new())
            }
            Self::Lease(request) => {
                let (request, payload) = lease::request(request);
                (Body::LeaseRequest(request), payload)
            }
            Self::LeaseReply(reply) => {
                let (reply, payload) = lease::reply(reply);
                (Body::LeaseReply(reply), payload)
            }
            Self::Replicate(message) => {
                let (message, payload) = replicate::replicate(message);
                (Body::Replicate(message), payload)
            }
            Self::Stream(message) => {
                let (message, payload) = stream::stream(message);
                (Body::Stream(message), payload)
            }
            Self::Heal(message) => {
                let (message, payload) = heal::heal(message);
                (Body::Heal(message), payload)
            }
            Self::Compare(message) => (Body::Compare(compare::compare(message)), Bytes::new()),
        };
        let frame = proto::Frame { body: Some(body), payload };
        Bytes::from(frame.encode_to_vec())
    }

    /// Reads a frame that came without its length prefix.
    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        check_caps(&frame)?;
        let frame = proto::Frame::decode(frame).map_err(malformed)?;
        let payload = frame.payload;
        let body = frame.body.ok_or(DecodeError::Missing("a body"))?;
        let carries = match body {
            Body::LeaseRequest(_) | Body::LeaseReply(_) => true,
            Body::Replicate(_) | Body::Stream(_) | Body::Heal(_) => true,
            _ => payload.is_empty(),
        };
        if !carries {
            return Err(DecodeError::Invalid("payload"));
        }
        match body {
            Body::Hello(hello) => connect::read_hello(hello).map(Self::Hello),
            Body::Goodbye(goodbye) => connect::read_goodbye(goodbye).map(Self::Goodbye),
            Body::Ping(ping) => Ok(Self::Ping(ping.nonce)),
            Body::Pong(pong) => Ok(Self::Pong(pong.nonce)),
            Body::Report(report) => connect::read_report(report).map(Self::Report),
            Body::Job(report) => connect::read_job(report).map(Self::Job),
            Body::JobOver(over) => {
                JobId::from_slice(&over.job).map(Self::JobOver).ok_or(DecodeError::Invalid("job"))
            }
            Body::JobProof(proof) => {
                let job = JobId::from_slice(&proof.job).ok_or(DecodeError::Invalid("job"))?;
                let how = range::read_verify(proof.verified());
                Ok(Self::JobProof(job, how.ok_or(DecodeError::Invalid("a proof"))?))
            }
            Body::JobAck(ack) => {
                JobId::from_slice(&ack.job).map(Self::JobAck).ok_or(DecodeError::Invalid("job"))
            }
            Body::LeaseRequest(request) => lease::read_request(request, payload).map(Self::Lease),
            Body::LeaseReply(reply) => lease::read_reply(reply, payload).map(Self::LeaseReply),
            Body::Replicate(message) => {
                replicate::read_replicate(message, payload).map(Self::Replicate)
            }
            Body::Stream(message) => stream::read_stream(message, payload).map(Self::Stream),
            Body::Heal(message) => heal::read_heal(message, payload).map(Self::Heal),
            Body::Compare(message) => compare::read_compare(message).map(Self::Compare),
        }
    }

    /// Reads a frame that came on this connection: one that belongs on the other is refused.
    pub fn decode_on(frame: Bytes, channel: Channel) -> Result<Self, DecodeError> {
        let message = Self::decode(frame)?;
        match message.channel() {
            Some(other) if other != channel => Err(DecodeError::Channel),
            _ => Ok(message),
        }
    }
}

/// Looks at the outermost fields only: one body within its cap, at most one payload within its.
fn check_caps(frame: &[u8]) -> Result<(), DecodeError> {
    within("bytes", frame.len(), FRAME_MAX)?;
    const PAYLOAD_TAG: u64 = 15;
    let (mut bodies, mut payloads) = (0, 0);
    outermost(frame, |tag, length| {
        if tag == PAYLOAD_TAG {
            payloads += 1;
            return within("payload bytes", length, PAYLOAD_MAX);
        }
        bodies += 1;
        within("body bytes", length, BODY_MAX)
    })?;
    match bodies == 1 && payloads <= 1 {
        true => Ok(()),
        false => Err(DecodeError::Malformed("not one body and at most one payload".into())),
    }
}

/// Shows the tag and the length of each outermost field, which has to have a length, before
/// anything is decoded.
fn outermost(
    mut rest: &[u8],
    mut show: impl FnMut(u64, usize) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while !rest.is_empty() {
        let key = prost::encoding::decode_varint(&mut rest).map_err(malformed)?;
        let length = prost::encoding::decode_varint(&mut rest).map_err(malformed)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Invalid("length"))?;
        if key & 7 != 2 {
            return Err(DecodeError::Malformed("an outermost field of no length".into()));
        }
        show(key >> 3, length)?;
        rest = rest.get(length..).ok_or(DecodeError::Malformed("it ends too early".into()))?;
    }
    Ok(())
}

fn malformed(error: prost::DecodeError) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

fn within(what: &'static str, length: usize, limit: usize) -> Result<(), DecodeError> {
    match length <= limit {
        true => Ok(()),
        false => Err(DecodeError::TooLong { what, length, limit }),
    }
}

fn id_bytes(id: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&id)
}

fn ulid(bytes: &[u8], what: &'static str) -> Result<model::Ulid, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| DecodeError::Invalid(what))?;
    Ok(model::Ulid(u128::from_be_bytes(bytes)))
}

/// A number that must fit a smaller type.
fn narrow<T: TryFrom<u32>>(value: u32, what: &'static str) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::Invalid(what))
}

/// Cuts a text for people at a character boundary.
fn text(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn read_text(text: String) -> Result<String, DecodeError> {
    within("bytes of text", text.len(), TEXT_MAX).map(|()| text)
}

/// Takes `length` bytes from the front of what is left of a payload.
fn split(payload: &mut Bytes, length: usize) -> Result<Bytes, DecodeError> {
    match length <= payload.len() {
        true => Ok(payload.split_to(length)),
        false => Err(DecodeError::Invalid("payload length")),
    }
}

/// A payload must be used up by its body.
fn emptied(payload: &Bytes) -> Result<(), DecodeError> {
    match payload.is_empty() {
        true => Ok(()),
        false => Err(DecodeError::Invalid("payload length")),
    }
}

/// Pieces behind one another, without a copy where there is only one.
fn join(pieces: &[&Bytes]) -> Bytes {
    if let [one] = pieces {
        return (*one).clone();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

pub(crate) use lease::{answer, end_reason, read_answer, read_end_reason};

#[cfg(test)]
mod tests;
