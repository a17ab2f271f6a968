//! The side that lacks the bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use model::Digest;
use sha2::{Digest as _, Sha256};

use super::{STREAM_WINDOW, Stream, StreamBody, StreamError, StreamId};
use crate::replicate::{CHUNK_MAX, Chunk, ChunkData, Segment};

/// Credit is told after so many consumed bytes.
const CREDIT_STEP: u64 = STREAM_WINDOW / 16;
/// Chunks of the own store are read so far ahead.
const READ_AHEAD: u64 = 8 << 20;
/// The most runs of equal objects that wait to be consumed: a bound on memory that no tape of
/// records over 16 bytes meets within a window.
const MARKS_MAX: usize = 4 << 20;

/// What the shell of a [`StreamReceiver`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamReceiverOutput {
    /// Send it on the bulk connection.
    Send(Stream),
    /// Look which of these the store has and tell [`StreamReceiver::missing`].
    NeedMissing {
        /// The offer.
        sequence: u32,
        /// Names, in the order of the answer.
        digests: Vec<Digest>,
    },
    /// Read a chunk of the store and tell [`StreamReceiver::chunk`].
    ReadChunk {
        /// Its name.
        digest: Digest,
    },
    /// The stream is over before its end.
    Failed(StreamError),
}

/// An object of a stream of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(Bytes),
    /// A filemark.
    Filemark,
}

/// Where the bytes of a chunk are.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The store is asked.
    Asking,
    /// The peer is asked.
    Wanted,
    /// In the store.
    Here,
    /// Being read from the store.
    Reading,
    /// In memory.
    Ready(Bytes),
}

/// A chunk that is in the window, once or more often.
#[derive(Debug)]
struct Known {
    state: State,
    length: u32,
    /// Where the bytes are needed first.
    offset: u64,
    users: usize,
}

/// One chunk of the stream, in order.
#[derive(Debug)]
struct Slot {
    digest: Digest,
    /// The offset of its first byte.
    offset: u64,
    length: u32,
    /// How the sender of this connection knows it.
    offered: Option<(u32, u32)>,
}

/// The chunks of an offer while the store is asked.
#[derive(Debug)]
struct Asked {
    sequence: u32,
    /// Chunks of the offer.
    count: usize,
    /// Their indices whose names the store is asked for, with the names.
    new: Vec<(u32, Digest)>,
}

/// Receives one stream. Messages in, [`StreamReceiver::peek`] and [`StreamReceiver::consume`] out.
#[derive(Debug)]
pub struct StreamReceiver {
    stream: StreamId,
    /// The first byte not consumed; also the limit's base.
    consumed: u64,
    /// Behind the last offered byte.
    end: u64,
    told: u64,
    slots: VecDeque<Slot>,
    known: HashMap<Digest, Known>,
    /// The chunks that are in the store and not read yet, by where they are needed first. One that
    /// is not any more may be among them.
    unread: BTreeSet<(u64, Digest)>,
    asked: VecDeque<Asked>,
    marks: VecDeque<Segment>,
    next_sequence: u32,
    opened: bool,
    has_records: bool,
    finish: Option<u64>,
    over: bool,
    out: VecDeque<StreamReceiverOutput>,
}

impl StreamReceiver {
    /// Receives from offset `from` on: 0, or where a restarted drive proved to stand.
    pub fn new(stream: StreamId, from: u64) -> Self {
        Self {
            stream,
            consumed: from,
            end: from,
            told: from,
            slots: VecDeque::new(),
            known: HashMap::new(),
            unread: BTreeSet::new(),
            asked: VecDeque::new(),
            marks: VecDeque::new(),
            next_sequence: 0,
            opened: false,
            has_records: false,
            finish: None,
            over: false,
            out: VecDeque::new(),
        }
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The offset of the first byte not consumed.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Where the stream ends, once the sender told.
    pub fn finish(&self) -> Option<u64> {
        self.finish
    }

    /// The next `length` bytes, once all of them are in memory. They stay until consumed.
    pub fn peek(&self, length: usize) -> Option<Bytes> {
        let mut pieces = Vec::new();
        let (mut at, mut need) = (self.consumed, length);
        for slot in &self.slots {
            if need == 0 {
                break;
            }
            let State::Ready(bytes) = &self.known.get(&slot.digest)?.state else { return None };
            let start = usize::try_from(at - slot.offset).ok()?;
            let piece = bytes.slice(start..bytes.len().min(start.saturating_add(need)));
            need -= piece.len();
            at += piece.len() as u64;
            pieces.push(piece);
        }
        match (need, &pieces[..]) {
            (0, [one]) => Some(one.clone()),
            (0, _) => {
                let mut whole = BytesMut::with_capacity(length);
                pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
                Some(whole.freeze())
            }
            _ => None,
        }
    }

    /// The next object of a stream of records, once it is all in memory.
    pub fn peek_item(&self) -> Option<Item> {
        match self.marks.front()? {
            Segment::Filemarks(_) => Some(Item::Filemark),
            Segment::Records { size, .. } => self.peek(*size as usize).map(Item::Record),
        }
    }

    /// The next `length` bytes are written, or accepted: they are not needed again.
    ///
    /// # Errors
    /// [`StreamError::Misuse`] for more than was offered.
    pub fn consume(&mut self, length: u64) -> Result<(), StreamError> {
        if length > self.end - self.consumed {
            return Err(StreamError::Misuse("more consumed than offered"));
        }
        self.consumed += length;
        let consumed = self.consumed;
        let over = |slot: &Slot| slot.offset + u64::from(slot.length) <= consumed;
        while self.slots.front().is_some_and(over) {
            if let Some(slot) = self.slots.pop_front() {
                self.release(slot.digest);
            }
        }
        let last = self.finish == Some(consumed);
        if consumed - self.told >= CREDIT_STEP || last {
            self.credit();
        }
        Ok(())
    }

    /// The next object is written, or accepted.
    ///
    /// # Errors
    /// [`StreamError::Misuse`] if there is none.
    pub fn consume_item(&mut self) -> Result<(), StreamError> {
        let mark = self.marks.front_mut().ok_or(StreamError::Misuse("no object to consume"))?;
        let (size, left) = match mark {
            Segment::Filemarks(count) => {
                *count -= 1;
                (0, *count)
            }
            Segment::Records { size, count } => {
                *count -= 1;
                (*size, *count)
            }
        };
        if left == 0 {
            self.marks.pop_front();
        }
        self.consume(size.into())
    }

    /// Tells the sender how far it was consumed, so that it may forget: at a pause or an end. The
    /// end is told only when the filemarks behind the last byte are consumed too.
    pub fn credit(&mut self) {
        let marks_left = self.end == self.consumed && !self.marks.is_empty();
        if self.opened && !self.over && !marks_left {
            self.told = self.consumed;
            self.send(StreamBody::Credit { consumed: self.consumed, limit: self.limit() });
        }
    }

    /// The answer to `NeedMissing`: true for a chunk that the store lacks. An answer that was
    /// overtaken by a break means nothing.
    pub fn missing(&mut self, sequence: u32, missing: &[bool]) {
        let fits = |asked: &Asked| asked.sequence == sequence && asked.new.len() == missing.len();
        let Some(at) = self.asked.iter().position(fits) else { return };
        let Some(asked) = self.asked.remove(at) else { return };
        let mut wanted = vec![false; asked.count];
        for ((index, digest), lacks) in asked.new.iter().zip(missing) {
            let known = self.known.get_mut(digest);
            if let Some(known) = known.filter(|known| known.state == State::Asking) {
                known.state = if *lacks { State::Wanted } else { State::Here };
                wanted[*index as usize] = *lacks;
                if !*lacks {
                    self.unread.insert((known.offset, *digest));
                }
            }
        }
        self.send(StreamBody::Want { sequence, wanted });
    }

    /// The answer to `ReadChunk`: raw bytes, or `None` if the store can not give it (any more);
    /// then the sender is asked.
    pub fn chunk(&mut self, digest: Digest, bytes: Option<Bytes>) {
        let Some(known) = self.known.get_mut(&digest) else { return };
        if known.state != State::Reading {
            return;
        }
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() == known.length as usize) {
            known.state = State::Ready(bytes);
            return;
        }
        known.state = State::Wanted;
        let slot = self.slots.iter().find(|slot| slot.digest == digest && slot.offered.is_some());
        let Some((sequence, index)) = slot.and_then(|slot| slot.offered) else {
            let why = "a chunk is lost here and no longer offered";
            return self.fail(StreamError::Aborted(why.to_owned()));
        };
        let same_offer = |slot: &&Slot| slot.offered.is_some_and(|(it, _)| it == sequence);
        let last = self.slots.iter().filter(same_offer).filter_map(|slot| slot.offered).max();
        let count = last.map_or(index, |(_, last)| last) as usize + 1;
        let wanted = (0..count).map(|at| at == index as usize).collect();
        self.send(StreamBody::Want { sequence, wanted });
    }

    /// The receiving side gives the stream up.
    pub fn abort(&mut self, why: &str) {
        if !self.over {
            self.end_all();
            self.send(StreamBody::Abort(why.to_owned()));
        }
    }

    /// The link broke: what is in memory or in the store stays, the rest is offered again.
    pub fn on_disconnect(&mut self) {
        if self.over {
            return;
        }
        self.out.clear();
        self.asked.clear();
        let here = |slot: &Slot| match self.known.get(&slot.digest).map(|known| &known.state) {
            Some(State::Here | State::Reading | State::Ready(_)) => true,
            Some(State::Asking | State::Wanted) | None => false,
        };
        let kept = self.slots.iter().take_while(|slot| here(slot)).count();
        for slot in self.slots.split_off(kept) {
            self.end = self.end.min(slot.offset.max(self.consumed));
            self.release(slot.digest);
        }
        self.slots.iter_mut().for_each(|slot| slot.offered = None);
        // A read that was asked for may never be answered now.
        let reading = self.known.iter_mut().filter(|(_, known)| known.state == State::Reading);
        for (digest, known) in reading {
            known.state = State::Here;
            self.unread.insert((known.offset, *digest));
        }
    }

    /// Takes a message of the sender.
    ///
    /// # Errors
    /// The sender broke a rule; the stream is over.
    pub fn handle(&mut self, body: StreamBody) -> Result<(), StreamError> {
        match body {
            _ if self.over => Ok(()),
            StreamBody::Abort(why) => {
                self.fail_quietly(StreamError::Aborted(why));
                Ok(())
            }
            StreamBody::Open { base, opening } => self.open(base, opening),
            StreamBody::Offer { sequence, offset, chunks, marks } if self.opened => {
                self.offered(sequence, offset, &chunks, marks)
            }
            StreamBody::Data { sequence, chunks } if self.opened => self.data(sequence, chunks),
            StreamBody::Finish(at) if self.opened && at == self.end => {
                self.finish = Some(at);
                if self.consumed == at {
                    self.credit();
                }
                Ok(())
            }
            _ => self.broken("has a message out of turn"),
        }
    }

    /// The next thing to do, `None` if it waits.
    pub fn poll(&mut self) -> Option<StreamReceiverOutput> {
        self.out.pop_front().or_else(|| self.read_ahead())
    }

    fn limit(&self) -> u64 {
        self.told.saturating_add(STREAM_WINDOW)
    }

    fn open(&mut self, base: u64, opening: u32) -> Result<(), StreamError> {
        if base > self.end || (self.opened && self.has_records) {
            return self.broken("can not begin again there");
        }
        if self.opened {
            self.on_disconnect();
        }
        self.opened = true;
        (self.next_sequence, self.finish, self.told) = (0, None, self.consumed);
        self.send(StreamBody::Accept { from: self.end, limit: self.limit(), opening });
        Ok(())
    }

    fn offered(
        &mut self,
        sequence: u32,
        offset: u64,
        chunks: &[Chunk],
        marks: Vec<Segment>,
    ) -> Result<(), StreamError> {
        let length: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let reach = offset.checked_add(length);
        if sequence != self.next_sequence || self.finish.is_some() || offset > self.end {
            return self.broken("has an offer out of turn");
        }
        if reach.is_none_or(|reach| reach > self.limit()) {
            return self.broken("exceeds its credit");
        }
        self.next_sequence += 1;
        let (mut at, mut new) = (offset, Vec::new());
        for (index, chunk) in (0u32..).zip(chunks) {
            let next = at + u64::from(chunk.length);
            // What is here already is passed over; of one that lies across, the rest is used.
            if next > self.end {
                if self.admit(chunk, at)? {
                    new.push((index, chunk.digest));
                }
                let (digest, length) = (chunk.digest, chunk.length);
                let offered = Some((sequence, index));
                self.slots.push_back(Slot { digest, offset: at, length, offered });
                self.end = next;
            }
            at = next;
        }
        if self.marks.len() + marks.len() > MARKS_MAX {
            return self.broken("has too many objects under way");
        }
        self.has_records |= !marks.is_empty();
        self.marks.extend(marks);
        let digests: Vec<_> = new.iter().map(|(_, digest)| *digest).collect();
        self.asked.push_back(Asked { sequence, count: chunks.len(), new });
        match digests.is_empty() {
            true => self.missing(sequence, &[]),
            false => self.out.push_back(StreamReceiverOutput::NeedMissing { sequence, digests }),
        }
        Ok(())
    }

    /// Counts one more user of a chunk, at `offset`; true if it was not in the window before.
    fn admit(&mut self, chunk: &Chunk, offset: u64) -> Result<bool, StreamError> {
        let fresh = Known { state: State::Asking, length: chunk.length, offset, users: 0 };
        let known = self.known.entry(chunk.digest).or_insert(fresh);
        if known.length != chunk.length {
            self.broken("has two lengths for one chunk")?;
            return Ok(false);
        }
        known.users += 1;
        Ok(known.users == 1)
    }

    fn release(&mut self, digest: Digest) {
        if let Some(known) = self.known.get_mut(&digest) {
            known.users -= 1;
            if known.users == 0 {
                self.known.remove(&digest);
            }
        }
    }

    fn data(&mut self, sequence: u32, chunks: Vec<(u32, ChunkData)>) -> Result<(), StreamError> {
        for (index, data) in chunks {
            let slot = self.slots.iter().find(|slot| slot.offered == Some((sequence, index)));
            let digest = slot.map(|slot| slot.digest);
            let known = digest.and_then(|digest| Some((digest, self.known.get_mut(&digest)?)));
            let Some((digest, known)) = known.filter(|(_, known)| known.state == State::Wanted)
            else {
                return self.broken("sends what was not wanted");
            };
            match unpacked(data, digest, known.length) {
                Some(bytes) => known.state = State::Ready(bytes),
                None => return self.broken("sends a damaged chunk"),
            }
        }
        Ok(())
    }

    /// The next chunk of the store to be read, within the read-ahead.
    fn read_ahead(&mut self) -> Option<StreamReceiverOutput> {
        let reach = self.consumed.saturating_add(READ_AHEAD);
        while let Some((offset, digest)) = self.unread.first().copied() {
            if offset >= reach {
                return None;
            }
            self.unread.pop_first();
            // One that was released meanwhile, and perhaps offered again elsewhere, is passed over.
            let known = self.known.get_mut(&digest).filter(|known| known.offset == offset);
            if let Some(known) = known.filter(|known| known.state == State::Here) {
                known.state = State::Reading;
                return Some(StreamReceiverOutput::ReadChunk { digest });
            }
        }
        None
    }

    fn send(&mut self, body: StreamBody) {
        let stream = self.stream;
        self.out.push_back(StreamReceiverOutput::Send(Stream { stream, body }));
    }

    fn broken(&mut self, what: &'static str) -> Result<(), StreamError> {
        self.fail_quietly(StreamError::Peer(what));
        Err(StreamError::Peer(what))
    }

    fn fail(&mut self, error: StreamError) {
        self.fail_quietly(error.clone());
        self.send(StreamBody::Abort(error.to_string()));
    }

    fn fail_quietly(&mut self, error: StreamError) {
        self.end_all();
        self.out.push_back(StreamReceiverOutput::Failed(error));
    }

    fn end_all(&mut self) {
        self.over = true;
        self.out.clear();
        self.slots.clear();
        self.known.clear();
        self.unread.clear();
        self.asked.clear();
        self.marks.clear();
    }
}

/// The raw bytes of a chunk that arrived, if they are what was offered.
fn unpacked(data: ChunkData, digest: Digest, length: u32) -> Option<Bytes> {
    let room = (length as usize).min(CHUNK_MAX);
    let raw = match data.encoding {
        0 => data.bytes,
        1 => zstd::bulk::decompress(&data.bytes, room).ok()?.into(),
        _ => return None,
    };
    let fits = raw.len() == length as usize && data.raw_length == length;
    (fits && Sha256::digest(&raw)[..] == digest.0).then_some(raw)
}
