//! The side that has the generation.

use std::collections::{BTreeMap, VecDeque};

use model::Digest;

use super::{
    Begin, CHUNKS_TARGET, CREDIT, ChunkData, Counters, FailWhy, Failure, OFFER_ENTRIES_MAX,
    OFFER_SEGMENTS_MAX, OFFERS_MAX, Offer, Replicate, ReplicateBody, Totals, TransferError,
    TransferId,
};

/// What the shell of a [`Sender`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderOutput {
    /// Send it on the bulk connection.
    Send(Replicate),
    /// Read the next batch of the recipe and hand it to [`Sender::batch`], or the totals to
    /// [`Sender::end`].
    NeedBatch {
        /// Whether runs of the parent may be in it.
        runs: bool,
    },
    /// Read a chunk as stored and hand it to [`Sender::chunk`]. Asked in the order in which the
    /// answers are best given; several may be under way.
    ReadChunk {
        /// The batch.
        sequence: u32,
        /// Index among its chunk entries.
        index: u32,
        /// Its name.
        digest: Digest,
    },
    /// The generation is committed and durable at the receiver.
    Done(Counters),
    /// It failed, here or there. What was stored there stays and is not sent again.
    Failed(Failure),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Begun,
    Offering,
    Committing,
    Over,
}

/// An offered batch whose chunks are not all stored there.
#[derive(Debug)]
struct Batch {
    chunks: Vec<(Digest, u32)>,
    /// The wanted indices that are still to be sent; `None` until the receiver told.
    wanted: Option<usize>,
}

/// Sends one generation.
#[derive(Debug)]
pub struct Sender {
    transfer: TransferId,
    state: State,
    runs: bool,
    batches: BTreeMap<u32, Batch>,
    next_sequence: u32,
    batch_asked: bool,
    totals: Option<Totals>,
    /// Wanted chunks that were not read yet: (batch, index).
    to_read: VecDeque<(u32, u32)>,
    /// Chunks asked from the shell, and their raw bytes.
    reading: BTreeMap<(u32, u32), u32>,
    reading_bytes: u64,
    /// Chunks of one batch on their way into a message.
    gathered: Vec<(u32, ChunkData)>,
    gathered_batch: u32,
    gathered_bytes: usize,
    sent: u64,
    credited: u64,
    counters: Counters,
    out: VecDeque<SenderOutput>,
}

impl Sender {
    /// Begins; [`Sender::poll`] gives the first message.
    pub fn new(transfer: TransferId, begin: Begin) -> Self {
        let body = ReplicateBody::Begin(begin);
        let first = SenderOutput::Send(Replicate { transfer, body });
        Self {
            transfer,
            state: State::Begun,
            runs: false,
            batches: BTreeMap::new(),
            next_sequence: 0,
            batch_asked: false,
            totals: None,
            to_read: VecDeque::new(),
            reading: BTreeMap::new(),
            reading_bytes: 0,
            gathered: Vec::new(),
            gathered_batch: 0,
            gathered_bytes: 0,
            sent: 0,
            credited: 0,
            counters: Counters::default(),
            out: VecDeque::from([first]),
        }
    }

    /// The transfer.
    pub fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// What was moved so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The next thing to do, `None` if it waits for the receiver or the shell. Poll while the bulk
    /// connection has room; with several transfers, the most urgent one first.
    pub fn poll(&mut self) -> Option<SenderOutput> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        if let Some(read) = self.next_read() {
            return Some(read);
        }
        if self.reading.is_empty()
            && let Some(message) = self.flush()
        {
            return Some(message);
        }
        if self.state != State::Offering {
            return None;
        }
        match self.totals {
            Some(totals) if self.all_sent() => {
                self.state = State::Committing;
                Some(self.send(ReplicateBody::Commit(totals)))
            }
            None if !self.batch_asked && self.batches.len() < OFFERS_MAX as usize => {
                self.batch_asked = true;
                Some(SenderOutput::NeedBatch { runs: self.runs })
            }
            _ => None,
        }
    }

    /// The next batch of the recipe, asked for by `NeedBatch`.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`] for a batch that was not asked for or exceeds the limits.
    pub fn batch(&mut self, offer: Offer) -> Result<(), TransferError> {
        if self.state == State::Over {
            return Ok(());
        }
        let fits =
            offer.entries.len() <= OFFER_ENTRIES_MAX && offer.segments.len() <= OFFER_SEGMENTS_MAX;
        if !std::mem::take(&mut self.batch_asked) || !fits {
            return Err(TransferError::NotAsked("this batch"));
        }
        let chunks: Vec<_> = offer.chunks().map(|chunk| (chunk.digest, chunk.length)).collect();
        self.counters.offered += chunks.iter().map(|(_, length)| u64::from(*length)).sum::<u64>();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.batches.insert(sequence, Batch { chunks, wanted: None });
        let message = self.send(ReplicateBody::Offer { sequence, offer });
        self.out.push_back(message);
        Ok(())
    }

    /// The recipe has no more batches, in answer to `NeedBatch`.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn end(&mut self, totals: Totals) -> Result<(), TransferError> {
        match std::mem::take(&mut self.batch_asked) || self.state == State::Over {
            true => {
                self.totals = Some(totals);
                Ok(())
            }
            false => Err(TransferError::NotAsked("the end of the recipe")),
        }
    }

    /// A chunk asked for by `ReadChunk`.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn chunk(
        &mut self,
        sequence: u32,
        index: u32,
        chunk: ChunkData,
    ) -> Result<(), TransferError> {
        if self.state == State::Over {
            return Ok(());
        }
        let raw = self.reading.remove(&(sequence, index));
        let raw = raw.ok_or(TransferError::NotAsked("this chunk"))?;
        self.reading_bytes = self.reading_bytes.saturating_sub(raw.into());
        if self.gathered_batch != sequence {
            let message = self.flush();
            self.out.extend(message);
            self.gathered_batch = sequence;
        }
        self.counters.unique += u64::from(raw);
        self.counters.wire += chunk.bytes.len() as u64;
        self.sent += chunk.bytes.len() as u64;
        self.gathered_bytes += chunk.bytes.len();
        self.gathered.push((index, chunk));
        if self.gathered_bytes >= CHUNKS_TARGET {
            let message = self.flush();
            self.out.extend(message);
        }
        Ok(())
    }

    /// The shell can not go on (a chunk does not read, the transfer is not wanted any more).
    pub fn fail(&mut self, failure: Failure) {
        if self.state != State::Over {
            let message = self.send(ReplicateBody::Failed(failure.clone()));
            self.over();
            self.out.extend([message, SenderOutput::Failed(failure)]);
        }
    }

    /// Takes a message of the receiver.
    ///
    /// # Errors
    /// The receiver broke a rule: the transfer is over.
    pub fn handle(&mut self, body: ReplicateBody) -> Result<(), TransferError> {
        match (body, &self.state) {
            (_, State::Over) => Ok(()),
            (ReplicateBody::Failed(failure), _) => {
                self.over();
                self.out.push_back(SenderOutput::Failed(failure));
                Ok(())
            }
            (ReplicateBody::Ready { already: true, .. }, State::Begun)
            | (ReplicateBody::Committed, State::Committing) => {
                self.over();
                self.out.push_back(SenderOutput::Done(self.counters));
                Ok(())
            }
            (ReplicateBody::Ready { parent, .. }, State::Begun) => {
                self.runs = parent;
                self.state = State::Offering;
                Ok(())
            }
            (ReplicateBody::Want { sequence, wanted }, State::Offering) => {
                self.wanted(sequence, &wanted)
            }
            (ReplicateBody::Credit { stored, offers }, State::Offering | State::Committing) => {
                self.credit(stored, offers)
            }
            (ReplicateBody::Want { .. }, _) => self.broken(TransferError::OutOfTurn("a want")),
            _ => self.broken(TransferError::OutOfTurn("a transfer message")),
        }
    }

    fn wanted(&mut self, sequence: u32, wanted: &[bool]) -> Result<(), TransferError> {
        let batch = self.batches.get_mut(&sequence).filter(|batch| batch.wanted.is_none());
        let Some(batch) = batch.filter(|batch| batch.chunks.len() == wanted.len()) else {
            return self.broken(TransferError::Mismatch("want"));
        };
        let indices = (0u32..).zip(wanted).filter(|(_, wanted)| **wanted);
        let before = self.to_read.len();
        self.to_read.extend(indices.map(|(index, _)| (sequence, index)));
        batch.wanted = Some(self.to_read.len() - before);
        Ok(())
    }

    fn credit(&mut self, stored: u64, offers: u32) -> Result<(), TransferError> {
        if stored > self.sent || stored < self.credited || offers > self.next_sequence {
            return self.broken(TransferError::Mismatch("credit"));
        }
        self.credited = stored;
        self.batches.retain(|sequence, _| *sequence >= offers);
        Ok(())
    }

    /// A read, if what is sent, being read and gathered leaves credit for it.
    fn next_read(&mut self) -> Option<SenderOutput> {
        let (sequence, index) = *self.to_read.front()?;
        let (digest, length) = *self.batches.get(&sequence)?.chunks.get(index as usize)?;
        let under_way = self.sent - self.credited + self.reading_bytes;
        // Stored form is never longer than raw by more than a frame header; CREDIT has that slack.
        if under_way + u64::from(length) > CREDIT && under_way > 0 {
            return None;
        }
        self.to_read.pop_front();
        self.reading.insert((sequence, index), length);
        self.reading_bytes += u64::from(length);
        Some(SenderOutput::ReadChunk { sequence, index, digest })
    }

    fn flush(&mut self) -> Option<SenderOutput> {
        let chunks = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let sequence = self.gathered_batch;
        (!chunks.is_empty()).then(|| self.send(ReplicateBody::Chunks { sequence, chunks }))
    }

    fn all_sent(&self) -> bool {
        let told = self.batches.values().all(|batch| batch.wanted.is_some());
        told && self.to_read.is_empty() && self.reading.is_empty() && self.gathered.is_empty()
    }

    fn broken(&mut self, error: TransferError) -> Result<(), TransferError> {
        let failure = Failure { why: FailWhy::Refused, text: error.to_string() };
        self.over();
        self.out.push_back(SenderOutput::Failed(failure));
        Err(error)
    }

    fn over(&mut self) {
        self.state = State::Over;
        self.out.clear();
        self.batches.clear();
        self.to_read.clear();
        self.reading.clear();
        self.gathered.clear();
    }

    fn send(&self, body: ReplicateBody) -> SenderOutput {
        SenderOutput::Send(Replicate { transfer: self.transfer, body })
    }
}
