//! The side that lacks the generation.

use std::collections::{BTreeMap, HashSet, VecDeque};

use model::Digest;

use super::{
    Begin, CREDIT, Chunk, ChunkData, Counters, FailWhy, Failure, OFFERS_MAX, Offer, Replicate,
    ReplicateBody, Totals, TransferError, TransferId,
};

/// Credit is told after so many stored bytes.
const CREDIT_STEP: u64 = CREDIT / 8;

/// What the shell of a [`Receiver`] does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverOutput {
    /// Send it on the bulk connection.
    Send(Replicate),
    /// Look whether the generation, and its parent, are committed here, begin an import, and tell
    /// [`Receiver::begun`].
    Begin(Begin),
    /// Append a batch to the import: segments and entries. Nothing to tell unless it fails.
    Append(Offer),
    /// Look which of these the store has and tell [`Receiver::missing`].
    NeedMissing {
        /// The batch.
        sequence: u32,
        /// Names, in the order of the answer.
        digests: Vec<Digest>,
    },
    /// Verify and store a chunk, then tell [`Receiver::stored`]; in the order given.
    Store {
        /// Its name.
        digest: Digest,
        /// Its stored form.
        chunk: ChunkData,
    },
    /// Commit the import if it has these totals and all chunks, make it durable, then tell
    /// [`Receiver::committed`].
    Commit(Totals),
    /// Committed and told; the machine is finished.
    Done(Counters),
    /// Given up; drop the import. Stored chunks stay for the next attempt.
    Failed(Failure),
}

/// What the store says to a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The generation is committed here already.
    Already,
    /// An import is open.
    Import {
        /// The parent is committed here.
        parent: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Beginning,
    Receiving,
    Committing,
    Over,
}

/// A batch whose chunks are not all stored.
#[derive(Debug)]
struct Batch {
    chunks: Vec<Chunk>,
    /// Asked from the peer and not arrived, by index; `None` until the store told.
    wanted: Option<BTreeMap<u32, Chunk>>,
    /// Arrived and not stored.
    storing: usize,
}

impl Batch {
    fn complete(&self) -> bool {
        self.storing == 0 && self.wanted.as_ref().is_some_and(BTreeMap::is_empty)
    }
}

/// Receives one generation.
#[derive(Debug)]
pub struct Receiver {
    transfer: TransferId,
    state: State,
    parent: bool,
    batches: BTreeMap<u32, Batch>,
    next_sequence: u32,
    /// Batches finished, counted from the first without a gap.
    finished: u32,
    /// Asked from the peer and not stored: not asked again by a later batch.
    pending: HashSet<Digest>,
    /// Handed to the shell and not stored: (batch, digest, stored bytes).
    storing: VecDeque<(u32, Digest, u64)>,
    arrived: u64,
    stored: u64,
    told: (u64, u32),
    totals: Option<Totals>,
    counters: Counters,
    out: VecDeque<ReceiverOutput>,
}

impl Receiver {
    /// Begins with the sender's first message.
    pub fn new(transfer: TransferId, begin: Begin) -> Self {
        Self {
            transfer,
            state: State::Beginning,
            parent: false,
            batches: BTreeMap::new(),
            next_sequence: 0,
            finished: 0,
            pending: HashSet::new(),
            storing: VecDeque::new(),
            arrived: 0,
            stored: 0,
            told: (0, 0),
            totals: None,
            counters: Counters::default(),
            out: VecDeque::from([ReceiverOutput::Begin(begin)]),
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

    /// The next thing to do, `None` if it waits for the sender or the shell.
    pub fn poll(&mut self) -> Option<ReceiverOutput> {
        self.out.pop_front()
    }

    /// The answer to `Begin`.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn begun(&mut self, begun: Begun) -> Result<(), TransferError> {
        if self.state != State::Beginning {
            return self.not_asked("a beginning");
        }
        let (already, parent) = match begun {
            Begun::Already => (true, false),
            Begun::Import { parent } => (false, parent),
        };
        self.parent = parent;
        self.send(ReplicateBody::Ready { already, parent });
        self.state = if already { State::Over } else { State::Receiving };
        if already {
            self.out.push_back(ReceiverOutput::Done(self.counters));
        }
        Ok(())
    }

    /// The answer to `NeedMissing`: true for a chunk that the store lacks.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn missing(&mut self, sequence: u32, missing: &[bool]) -> Result<(), TransferError> {
        let batch = self.batches.get_mut(&sequence);
        let batch = batch.filter(|it| it.wanted.is_none() && it.chunks.len() == missing.len());
        let Some(batch) = batch else { return self.not_asked("what is missing") };
        let chunks = batch.chunks.iter().zip(missing);
        let wanted = chunks.map(|(it, lacks)| *lacks && self.pending.insert(it.digest));
        let wanted: Vec<bool> = wanted.collect();
        let asked = (0u32..).zip(&batch.chunks).zip(&wanted).filter(|(_, wanted)| **wanted);
        batch.wanted = Some(asked.map(|((index, chunk), _)| (index, *chunk)).collect());
        batch.chunks = Vec::new();
        self.send(ReplicateBody::Want { sequence, wanted });
        self.advance();
        Ok(())
    }

    /// The oldest chunk of `Store` is stored.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn stored(&mut self) -> Result<(), TransferError> {
        let Some((sequence, digest, bytes)) = self.storing.pop_front() else {
            return self.not_asked("a stored chunk");
        };
        self.pending.remove(&digest);
        self.stored += bytes;
        if let Some(batch) = self.batches.get_mut(&sequence) {
            batch.storing -= 1;
        }
        self.advance();
        Ok(())
    }

    /// The answer to `Commit`.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn committed(&mut self) -> Result<(), TransferError> {
        if self.state != State::Committing {
            return self.not_asked("a commit");
        }
        self.state = State::Over;
        self.send(ReplicateBody::Committed);
        self.out.push_back(ReceiverOutput::Done(self.counters));
        Ok(())
    }

    /// The shell can not go on (the store failed, a chunk is damaged, it is not allowed).
    pub fn fail(&mut self, failure: Failure) {
        if self.state != State::Over {
            self.over();
            self.send(ReplicateBody::Failed(failure.clone()));
            self.out.push_back(ReceiverOutput::Failed(failure));
        }
    }

    /// Takes a message of the sender.
    ///
    /// # Errors
    /// The sender broke a rule: the transfer is over.
    pub fn handle(&mut self, body: ReplicateBody) -> Result<(), TransferError> {
        match (body, &self.state) {
            (_, State::Over) => Ok(()),
            (ReplicateBody::Failed(failure), _) => {
                self.over();
                self.out.push_back(ReceiverOutput::Failed(failure));
                Ok(())
            }
            (ReplicateBody::Offer { sequence, offer }, State::Receiving) => {
                self.offered(sequence, offer)
            }
            (ReplicateBody::Chunks { sequence, chunks }, State::Receiving) => {
                self.arrived(sequence, chunks)
            }
            (ReplicateBody::Commit(totals), State::Receiving) if self.totals.is_none() => {
                self.totals = Some(totals);
                let waits = |batch: &Batch| batch.wanted.as_ref().is_none_or(|it| !it.is_empty());
                if self.batches.values().any(waits) {
                    return self.broken(TransferError::OutOfTurn("a commit"));
                }
                self.advance();
                Ok(())
            }
            _ => self.broken(TransferError::OutOfTurn("a transfer message")),
        }
    }

    fn offered(&mut self, sequence: u32, offer: Offer) -> Result<(), TransferError> {
        if sequence != self.next_sequence || self.totals.is_some() {
            return self.broken(TransferError::OutOfTurn("an offer"));
        }
        if sequence - self.told.1 >= OFFERS_MAX {
            return self.broken(TransferError::Exceeded("window of offers"));
        }
        let chunks: Vec<_> = offer.chunks().copied().collect();
        if !self.parent && chunks.len() != offer.entries.len() {
            return self.broken(TransferError::Mismatch("run of a parent that is not here"));
        }
        self.next_sequence += 1;
        self.counters.offered += chunks.iter().map(|it| u64::from(it.length)).sum::<u64>();
        let digests: Vec<_> = chunks.iter().map(|chunk| chunk.digest).collect();
        self.out.push_back(ReceiverOutput::Append(offer));
        self.batches.insert(sequence, Batch { chunks, wanted: None, storing: 0 });
        self.out.push_back(ReceiverOutput::NeedMissing { sequence, digests });
        Ok(())
    }

    fn arrived(
        &mut self,
        sequence: u32,
        chunks: Vec<(u32, ChunkData)>,
    ) -> Result<(), TransferError> {
        for (index, chunk) in chunks {
            let batch = self.batches.get_mut(&sequence);
            let wanted = batch.and_then(|batch| {
                let wanted = batch.wanted.as_mut()?.remove(&index)?;
                batch.storing += 1;
                Some(wanted)
            });
            let Some(wanted) = wanted.filter(|it| it.length == chunk.raw_length) else {
                return self.broken(TransferError::Mismatch("chunk"));
            };
            let bytes = chunk.bytes.len() as u64;
            // The sender counts raw lengths before it reads; stored ones may be a little longer.
            if self.arrived - self.told.0 > CREDIT + CREDIT_STEP {
                return self.broken(TransferError::Exceeded("credit"));
            }
            self.arrived += bytes;
            self.counters.unique += u64::from(chunk.raw_length);
            self.counters.wire += bytes;
            self.storing.push_back((sequence, wanted.digest, bytes));
            self.out.push_back(ReceiverOutput::Store { digest: wanted.digest, chunk });
        }
        Ok(())
    }

    /// Counts finished batches, tells credit, and commits when all is stored.
    fn advance(&mut self) {
        while self.batches.get(&self.finished).is_some_and(Batch::complete) {
            self.batches.remove(&self.finished);
            self.finished += 1;
        }
        let news = self.finished > self.told.1 || self.stored >= self.told.0 + CREDIT_STEP;
        if news && self.state == State::Receiving {
            self.told = (self.stored, self.finished);
            self.send(ReplicateBody::Credit { stored: self.stored, offers: self.finished });
        }
        if let (State::Receiving, Some(totals)) = (&self.state, self.totals)
            && self.batches.is_empty()
        {
            self.state = State::Committing;
            self.out.push_back(ReceiverOutput::Commit(totals));
        }
    }

    fn send(&mut self, body: ReplicateBody) {
        let transfer = self.transfer;
        self.out.push_back(ReceiverOutput::Send(Replicate { transfer, body }));
    }

    /// Answers of the shell after the end mean nothing; before, they are a defect of ours.
    fn not_asked(&self, what: &'static str) -> Result<(), TransferError> {
        match self.state {
            State::Over => Ok(()),
            _ => Err(TransferError::NotAsked(what)),
        }
    }

    fn broken(&mut self, error: TransferError) -> Result<(), TransferError> {
        self.over();
        let failure = Failure { why: FailWhy::Refused, text: error.to_string() };
        self.out.push_back(ReceiverOutput::Failed(failure));
        Err(error)
    }

    fn over(&mut self) {
        self.state = State::Over;
        self.out.clear();
        self.batches.clear();
        self.pending.clear();
        self.storing.clear();
    }
}
