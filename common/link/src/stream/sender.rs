//! The side that has the bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use model::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    Chunker, DATA_TARGET, OFFER_CHUNKS_MAX, OFFER_MARKS_MAX, STREAM_WINDOW, Stream, StreamBody,
    StreamError, StreamId,
};
use crate::replicate::{Chunk, ChunkData, Segment};

/// So many chunks are worth an offer while others are under way.
const OFFER_CHUNKS_GOOD: u64 = 64;
/// zstd level of chunks that are sent.
const LEVEL: i32 = 1;

/// What the shell of a [`StreamSender`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSenderOutput {
    /// Send it on the bulk connection.
    Send(Stream),
    /// The stream is finished and all of it was consumed.
    Done,
    /// The stream is over; what was not consumed is lost.
    Failed(StreamError),
}

/// A chunk that was not consumed.
#[derive(Debug)]
struct Held {
    offset: u64,
    chunk: Chunk,
    bytes: Bytes,
}

/// An offer of this connection whose chunks were not all consumed.
#[derive(Debug)]
struct Offered {
    sequence: u32,
    first: u64,
    count: u64,
    answered: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Not connected, or the receiver did not say yet where to begin.
    Waiting,
    Streaming,
    Over,
}

/// Sends one stream. Push bytes, poll messages.
#[derive(Debug)]
pub struct StreamSender {
    stream: StreamId,
    state: State,
    /// The last opening, counted from 0.
    opening: u32,
    chunker: Chunker,
    /// Bytes pushed and bytes cut, as stream offsets.
    pushed: u64,
    cut: u64,
    consumed: u64,
    limit: u64,
    held: VecDeque<Held>,
    /// The number of the first held chunk, and of the first not offered on this connection.
    first: u64,
    unoffered: u64,
    /// Objects not offered yet, with the offset where they end.
    marks: VecDeque<(Segment, u64)>,
    has_records: bool,
    offers: VecDeque<Offered>,
    next_sequence: u32,
    to_send: VecDeque<(u32, u32)>,
    finished: bool,
    finish_sent: bool,
    /// The receiver told after the end was sent that it consumed everything.
    all_consumed: bool,
    /// Offer what is there, however little.
    urgent: bool,
    wire: u64,
    out: VecDeque<StreamSenderOutput>,
}

impl StreamSender {
    /// Begins a stream at offset 0; [`StreamSender::poll`] gives the first message.
    pub fn new(stream: StreamId) -> Self {
        let open = Stream { stream, body: StreamBody::Open { base: 0, opening: 0 } };
        Self {
            stream,
            state: State::Waiting,
            opening: 0,
            chunker: Chunker::default(),
            pushed: 0,
            cut: 0,
            consumed: 0,
            limit: 0,
            held: VecDeque::new(),
            first: 0,
            unoffered: 0,
            marks: VecDeque::new(),
            has_records: false,
            offers: VecDeque::new(),
            next_sequence: 0,
            to_send: VecDeque::new(),
            finished: false,
            finish_sent: false,
            all_consumed: false,
            urgent: false,
            wire: 0,
            out: VecDeque::from([StreamSenderOutput::Send(open)]),
        }
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// How many bytes may be pushed now: 64 MiB ahead of what was consumed.
    pub fn room(&self) -> u64 {
        match self.state {
            State::Over => 0,
            _ if self.finished => 0,
            _ => (self.consumed + STREAM_WINDOW).saturating_sub(self.pushed),
        }
    }

    /// Bytes pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Bytes that the receiver consumed, as far as it told.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Bytes of chunks sent.
    pub fn wire(&self) -> u64 {
        self.wire
    }

    /// Appends bytes, at most [`StreamSender::room`].
    ///
    /// # Errors
    /// [`StreamError::Misuse`] without room; nothing was taken.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if bytes.len() as u64 > self.room() {
            return Err(StreamError::Misuse("more bytes than there is room for"));
        }
        self.pushed += bytes.len() as u64;
        self.chunker.push(bytes);
        self.cut(false);
        Ok(())
    }

    /// Appends one record, so that the receiver gets it as such.
    ///
    /// # Errors
    /// As [`StreamSender::push`].
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.push(bytes)?;
        let size = u32::try_from(bytes.len()).map_err(|_| StreamError::Misuse("record size"))?;
        self.mark(Segment::Records { size, count: 1 });
        Ok(())
    }

    /// Appends a filemark. A chunk ends here, as it does in the store.
    pub fn filemark(&mut self) {
        self.cut(true);
        self.mark(Segment::Filemarks(1));
    }

    /// Lets everything pushed so far go out, though the last chunk is cut short by it: when the
    /// receiver must get it before more comes.
    pub fn flush(&mut self) {
        self.cut(true);
        self.urgent = true;
    }

    /// The stream ends here.
    pub fn finish(&mut self) {
        self.flush();
        self.finished = true;
    }

    /// Whether [`StreamSender::finish`] was called.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Gives the stream up.
    pub fn abort(&mut self, why: &str) {
        if self.state != State::Over {
            self.over();
            self.send(StreamBody::Abort(why.to_owned()));
        }
    }

    /// The link broke. What was not consumed is kept.
    pub fn on_disconnect(&mut self) {
        if self.state != State::Over {
            self.state = State::Waiting;
            self.offers.clear();
            self.to_send.clear();
            self.out.clear();
        }
    }

    /// The link is back.
    ///
    /// # Errors
    /// [`StreamError::Aborted`] for a stream of records, which is read again instead: begin a new
    /// one behind the last object taken.
    pub fn on_reconnect(&mut self) -> Result<(), StreamError> {
        if self.has_records {
            self.over();
            return Err(StreamError::Aborted("the link broke".to_owned()));
        }
        if self.state != State::Over {
            self.opening = self.opening.wrapping_add(1);
            self.send(StreamBody::Open { base: self.consumed, opening: self.opening });
        }
        Ok(())
    }

    /// Takes a message of the receiver.
    ///
    /// # Errors
    /// The receiver broke a rule; the stream is over.
    pub fn handle(&mut self, body: StreamBody) -> Result<(), StreamError> {
        match (body, &self.state) {
            (_, State::Over) => Ok(()),
            (StreamBody::Abort(why), _) => {
                self.over();
                self.out.push_back(StreamSenderOutput::Failed(StreamError::Aborted(why)));
                Ok(())
            }
            // Of an opening that another one has followed.
            (StreamBody::Accept { opening, .. }, _) if opening != self.opening => Ok(()),
            (StreamBody::Accept { from, limit, .. }, State::Waiting) => self.accepted(from, limit),
            (StreamBody::Want { sequence, wanted }, State::Streaming) => {
                self.wanted(sequence, &wanted)
            }
            (StreamBody::Credit { consumed, limit }, State::Streaming) => {
                self.credited(consumed, limit)
            }
            // Left over from before a break.
            (StreamBody::Want { .. } | StreamBody::Credit { .. }, State::Waiting) => Ok(()),
            _ => self.broken("has a message out of turn"),
        }
    }

    /// The next thing to do, `None` if it waits for bytes or for the receiver.
    pub fn poll(&mut self) -> Option<StreamSenderOutput> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        if self.state != State::Streaming {
            return None;
        }
        if let Some(data) = self.data() {
            return Some(data);
        }
        if let Some(offer) = self.offer() {
            return Some(offer);
        }
        let all_offered = self.all_offered();
        if self.finished && all_offered && !std::mem::replace(&mut self.finish_sent, all_offered) {
            return Some(self.message(StreamBody::Finish(self.pushed)));
        }
        if self.all_consumed {
            self.over();
            return Some(StreamSenderOutput::Done);
        }
        None
    }

    fn cut(&mut self, end: bool) {
        while let Some(bytes) = self.chunker.next(end) {
            let digest = Digest(Sha256::digest(&bytes).into());
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let (offset, chunk) = (self.cut, Chunk { digest, length });
            self.cut += u64::from(length);
            self.held.push_back(Held { offset, chunk, bytes });
        }
    }

    fn mark(&mut self, segment: Segment) {
        self.has_records = true;
        self.marks.push_back((segment, self.pushed));
    }

    fn accepted(&mut self, from: u64, limit: u64) -> Result<(), StreamError> {
        if from < self.consumed || from > self.cut || limit < from {
            return self.broken("begins where the sender has nothing");
        }
        let before = self.held.partition_point(|it| it.offset + u64::from(it.chunk.length) <= from);
        self.unoffered = self.first + before as u64;
        (self.limit, self.next_sequence, self.finish_sent) = (limit, 0, false);
        self.urgent = true;
        self.state = State::Streaming;
        Ok(())
    }

    fn wanted(&mut self, sequence: u32, wanted: &[bool]) -> Result<(), StreamError> {
        let offer = self.offers.iter_mut().find(|offer| offer.sequence == sequence);
        let Some(offer) = offer.filter(|offer| wanted.len() as u64 <= offer.count) else {
            return self.broken("wants what was not offered");
        };
        offer.answered = true;
        let indices = (0u32..).zip(wanted).filter(|(_, wanted)| **wanted);
        self.to_send.extend(indices.map(|(index, _)| (sequence, index)));
        Ok(())
    }

    fn credited(&mut self, consumed: u64, limit: u64) -> Result<(), StreamError> {
        let offered = self.offered_to();
        if consumed < self.consumed || consumed > offered || limit < self.limit {
            return self.broken("has an impossible credit");
        }
        (self.consumed, self.limit) = (consumed, limit);
        self.all_consumed = self.finish_sent && consumed == self.pushed;
        let over = |held: &Held| held.offset + u64::from(held.chunk.length) <= consumed;
        while self.held.front().is_some_and(over) {
            self.held.pop_front();
            self.first += 1;
        }
        let first = self.first;
        self.offers.retain(|offer| !offer.answered || offer.first + offer.count > first);
        Ok(())
    }

    /// The offset up to which chunks are offered.
    fn offered_to(&self) -> u64 {
        let next = usize::try_from(self.unoffered.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.held.get(next).map_or(self.cut, |held| held.offset)
    }

    fn all_offered(&self) -> bool {
        self.unoffered == self.first + self.held.len() as u64
            && self.marks.is_empty()
            && self.chunker.pending() == 0
    }

    /// A message of wanted chunks, all of one offer.
    fn data(&mut self) -> Option<StreamSenderOutput> {
        let (sequence, _) = *self.to_send.front()?;
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        while let Some((_, index)) = self.to_send.front().copied().filter(|it| it.0 == sequence) {
            if bytes >= DATA_TARGET {
                break;
            }
            self.to_send.pop_front();
            if let Some(held) = self.find(sequence, index) {
                let chunk = packed(&held.bytes);
                bytes += chunk.bytes.len();
                chunks.push((index, chunk));
            }
        }
        self.wire += bytes as u64;
        Some(self.message(StreamBody::Data { sequence, chunks }))
    }

    fn find(&self, sequence: u32, index: u32) -> Option<&Held> {
        let offer = self.offers.iter().find(|offer| offer.sequence == sequence)?;
        let number = (offer.first + u64::from(index)).checked_sub(self.first)?;
        self.held.get(usize::try_from(number).ok()?)
    }

    /// The next offer: not for every single chunk while others are under way.
    fn offer(&mut self) -> Option<StreamSenderOutput> {
        let ready = self.first + self.held.len() as u64 - self.unoffered;
        let under_way = self.offers.iter().any(|offer| !offer.answered);
        let worth = ready >= OFFER_CHUNKS_GOOD || self.urgent || !under_way;
        let offset = self.offered_to();
        let mut end = offset;
        let start = usize::try_from(self.unoffered - self.first).unwrap_or(usize::MAX);
        let mut chunks = Vec::new();
        for held in self.held.iter().skip(start).take(OFFER_CHUNKS_MAX) {
            let next = held.offset + u64::from(held.chunk.length);
            if !worth || next > self.limit {
                break;
            }
            chunks.push(held.chunk);
            end = next;
        }
        let marks = if worth { self.marks_to(end) } else { Vec::new() };
        if chunks.is_empty() && marks.is_empty() {
            return None;
        }
        let (sequence, count) = (self.next_sequence, chunks.len() as u64);
        self.next_sequence += 1;
        self.offers.push_back(Offered { sequence, first: self.unoffered, count, answered: false });
        self.unoffered += count;
        self.urgent = self.urgent && !self.all_offered();
        Some(self.message(StreamBody::Offer { sequence, offset, chunks, marks }))
    }

    /// Takes the marks of objects that end up to `end`, equal ones as one run.
    fn marks_to(&mut self, end: u64) -> Vec<Segment> {
        let mut marks: Vec<Segment> = Vec::new();
        while let Some((mark, _)) = self.marks.front().copied().filter(|(_, at)| *at <= end) {
            let joined = marks.last_mut().is_some_and(|last| join(last, mark));
            if !joined && marks.len() == OFFER_MARKS_MAX {
                break;
            }
            if !joined {
                marks.push(mark);
            }
            self.marks.pop_front();
        }
        marks
    }

    fn message(&self, body: StreamBody) -> StreamSenderOutput {
        StreamSenderOutput::Send(Stream { stream: self.stream, body })
    }

    fn send(&mut self, body: StreamBody) {
        let message = self.message(body);
        self.out.push_back(message);
    }

    fn broken(&mut self, what: &'static str) -> Result<(), StreamError> {
        self.over();
        self.out.push_back(StreamSenderOutput::Failed(StreamError::Peer(what)));
        Err(StreamError::Peer(what))
    }

    fn over(&mut self) {
        self.state = State::Over;
        self.out.clear();
        self.held.clear();
        self.marks.clear();
        self.offers.clear();
        self.to_send.clear();
    }
}

/// Counts `mark` into `last` if both are of one kind.
fn join(last: &mut Segment, mark: Segment) -> bool {
    match (last, mark) {
        (Segment::Records { size: a, count }, Segment::Records { size: b, count: more })
            if *a == b =>
        {
            *count += more;
            true
        }
        (Segment::Filemarks(count), Segment::Filemarks(more)) => {
            *count += more;
            true
        }
        _ => false,
    }
}

/// A chunk for the wire: compressed where that makes it shorter.
fn packed(raw: &Bytes) -> ChunkData {
    let raw_length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    match zstd::bulk::compress(raw, LEVEL) {
        Ok(short) if short.len() < raw.len() => {
            ChunkData { encoding: 1, raw_length, bytes: short.into() }
        }
        _ => ChunkData { encoding: 0, raw_length, bytes: raw.clone() },
    }
}
