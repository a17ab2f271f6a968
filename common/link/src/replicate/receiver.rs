//! The side that lacks the generation.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use bytes::Bytes;
use model::Digest;

use super::{
    Bases, Begin, CREDIT, Chunk, Counters, Entry, FailWhy, Failure, OFFER_RANGES_MAX, OFFERS_MAX,
    Offer, PACK_MAX, Pack, PackForm, Replicate, ReplicateBody, Segment, Totals, TransferError,
    TransferId,
};

/// Credit is told after so many stored bytes.
const CREDIT_STEP: u64 = CREDIT / 8;

/// What the shell of a [`Receiver`] does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverOutput {
    /// Send it on the bulk connection.
    Send(Replicate),
    /// Look whether the generation is committed here, and which of its bases; begin an import, and
    /// tell [`Receiver::begun`].
    Begin(Begin),
    /// Append a batch to the import: segments and pieces, in the order of the batches. Their chunks
    /// are all here. Nothing to tell unless it fails.
    Append {
        /// Runs of objects.
        segments: Vec<Segment>,
        /// The chunk list.
        pieces: Vec<Piece>,
    },
    /// Look which of these the store has and tell [`Receiver::missing`].
    NeedMissing {
        /// The batch.
        sequence: u32,
        /// Names, in the order of the answer.
        digests: Vec<Digest>,
    },
    /// Read the old bytes, unpack ([`unpack`](super::unpack)) and store the chunks, then tell
    /// [`Receiver::stored`]; in the order given.
    Unpack(Unpack),
    /// Commit the import if it has these totals and all chunks, make it durable, then tell
    /// [`Receiver::committed`].
    Commit(Totals),
    /// Committed and told; the machine is finished.
    Done(Counters),
    /// Given up; drop the import. Stored chunks stay for the next attempt.
    Failed(Failure),
}

/// A piece of the recipe as the import takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `count` chunks of the base from its chunk `first` on.
    Run {
        /// Index in the base's recipe.
        first: u64,
        /// How many.
        count: u64,
    },
    /// `count` chunks of the import itself from its chunk `first` on, one by one.
    Again {
        /// Index in the import.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One chunk.
    Chunk(Chunk),
}

/// A pack that arrived, and what it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// Raw lengths, and the names that were told.
    pub chunks: Vec<(u32, Option<Digest>)>,
    /// Runs of the base's chunks (first, count), nothing known of their lengths: their bytes,
    /// at most 4 MiB together, are what the pack is a difference to.
    pub olds: Vec<(u64, u64)>,
    /// How `bytes` are encoded.
    pub form: PackForm,
    /// Of the names of the chunks.
    pub proof: Digest,
    /// The chunks, encoded.
    pub bytes: Bytes,
}

/// What the store says to a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The generation is committed here already.
    Already,
    /// An import is open.
    Import {
        /// Which of the bases is committed here.
        base: Option<u32>,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Beginning,
    Receiving,
    Committing,
    Over,
}

/// A batch that is not appended.
#[derive(Debug)]
struct Batch {
    segments: Vec<Segment>,
    entries: Vec<Entry>,
    olds: Vec<(u64, u64)>,
    /// Raw length and name of each chunk; those that are not named are known when they are stored.
    chunks: Vec<(u32, Option<Digest>)>,
    /// Those that were named in the offer, by index; emptied when the peer was told what to send.
    named: Vec<u32>,
    /// To come from the peer, by index.
    outstanding: BTreeSet<u32>,
    /// Packs that arrived and are not stored.
    storing: usize,
}

impl Batch {
    fn new(offer: Offer) -> Self {
        let chunks: Vec<_> = offer.chunks().collect();
        let of_kind = |named: bool| {
            let all = (0u32..).zip(&chunks).filter(move |(_, it)| it.1.is_some() == named);
            all.map(|(index, _)| index)
        };
        let (named, outstanding) = (of_kind(true).collect(), of_kind(false).collect());
        let olds = offer.olds().collect();
        let Offer { segments, entries } = offer;
        Self { segments, entries, olds, chunks, named, outstanding, storing: 0 }
    }

    /// The names of those in `named`.
    fn names(&self) -> Vec<Digest> {
        let name = |index: &u32| self.chunks.get(*index as usize)?.1;
        self.named.iter().filter_map(name).collect()
    }

    /// Everything that the peer is to send has arrived.
    fn here(&self) -> bool {
        self.named.is_empty() && self.outstanding.is_empty()
    }

    fn complete(&self) -> bool {
        self.here() && self.storing == 0
    }

    /// The recipe's pieces, with every chunk's name.
    fn pieces(&self) -> Vec<Piece> {
        let mut chunks = self.chunks.iter();
        let mut next = |length| {
            let digest = chunks.next().and_then(|(_, name)| *name)?;
            Some(Piece::Chunk(Chunk { digest, length }))
        };
        let piece = |entry: &Entry| match entry {
            Entry::Run { first, count } => Some(Piece::Run { first: *first, count: *count }),
            Entry::Again { first, count } => Some(Piece::Again { first: *first, count: *count }),
            Entry::Old { .. } => None,
            Entry::Chunk(chunk) => next(chunk.length),
            Entry::Fresh(length) => next(*length),
        };
        self.entries.iter().filter_map(piece).collect()
    }
}

/// A pack that the shell stores.
#[derive(Debug)]
struct Storing {
    sequence: u32,
    chunks: Vec<u32>,
    bytes: u64,
}

/// Receives one generation.
#[derive(Debug)]
pub struct Receiver {
    transfer: TransferId,
    state: State,
    /// The sender tells it by its base without waiting for an answer.
    sure: bool,
    base: bool,
    batches: BTreeMap<u32, Batch>,
    next_sequence: u32,
    /// Batches finished, counted from the first without a gap.
    finished: u32,
    /// Asked from the peer and not stored: not asked again by a later batch.
    pending: HashSet<Digest>,
    /// Handed to the shell and not stored.
    storing: VecDeque<Storing>,
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
            sure: matches!(begin.bases, Bases::Sure(_)),
            base: false,
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
        let (already, base) = match begun {
            Begun::Already => (true, None),
            Begun::Import { base } => (false, base),
        };
        if self.sure && !already && base.is_none() {
            let text = "the base is not here".to_owned();
            self.fail(Failure { why: FailWhy::Base, text });
            return Ok(());
        }
        self.base = base.is_some();
        self.send(ReplicateBody::Ready { already, base });
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
        let batch = self.batches.get_mut(&sequence).filter(|it| !it.named.is_empty());
        let Some(batch) = batch.filter(|it| it.named.len() == missing.len()) else {
            return self.not_asked("what is missing");
        };
        let names = batch.names();
        let named = std::mem::take(&mut batch.named).into_iter().zip(names);
        let mut wanted = Vec::with_capacity(missing.len());
        for ((index, name), lacks) in named.zip(missing) {
            let wants = *lacks && self.pending.insert(name);
            wanted.push(wants);
            if wants {
                batch.outstanding.insert(index);
            }
        }
        self.send(ReplicateBody::Want { sequence, wanted });
        self.advance();
        Ok(())
    }

    /// The chunks of the oldest [`Unpack`] are stored, under these names.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`].
    pub fn stored(&mut self, names: &[Digest]) -> Result<(), TransferError> {
        let fits = self.storing.front().is_some_and(|it| it.chunks.len() == names.len());
        let Some(stored) = self.storing.pop_front().filter(|_| fits) else {
            return self.not_asked("a stored pack");
        };
        self.stored += stored.bytes;
        if let Some(batch) = self.batches.get_mut(&stored.sequence) {
            batch.storing -= 1;
            for (index, name) in stored.chunks.iter().zip(names) {
                let Some(chunk) = batch.chunks.get_mut(*index as usize) else { continue };
                if chunk.1.replace(*name).is_some() {
                    self.pending.remove(name);
                }
            }
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
            (ReplicateBody::Pack { sequence, pack }, State::Receiving) => {
                self.arrived(sequence, pack)
            }
            (ReplicateBody::Commit(totals), State::Receiving) if self.totals.is_none() => {
                self.totals = Some(totals);
                if !self.batches.values().all(Batch::here) {
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
        let of_base = |it: &Entry| matches!(it, Entry::Run { .. } | Entry::Old { .. });
        if !self.base && offer.entries.iter().any(of_base) {
            return self.broken(TransferError::Mismatch("run of a base that is not here"));
        }
        let ranges = offer.entries.iter().map(|entry| match entry {
            Entry::Run { count, .. } | Entry::Again { count, .. } => *count,
            Entry::Old { .. } | Entry::Chunk(_) | Entry::Fresh(_) => 0,
        });
        let ranges = ranges.fold(0u64, u64::saturating_add);
        if ranges > OFFER_RANGES_MAX {
            return self.broken(TransferError::Exceeded("length of runs in an offer"));
        }
        let batch = Batch::new(offer);
        self.next_sequence += 1;
        self.counters.offered += batch.chunks.iter().map(|it| u64::from(it.0)).sum::<u64>();
        if !batch.named.is_empty() {
            let digests = batch.names();
            self.out.push_back(ReceiverOutput::NeedMissing { sequence, digests });
        }
        self.batches.insert(sequence, batch);
        self.advance();
        Ok(())
    }

    fn arrived(&mut self, sequence: u32, pack: Pack) -> Result<(), TransferError> {
        let Some(batch) = self.batches.get_mut(&sequence) else {
            return self.broken(TransferError::Mismatch("pack"));
        };
        // What is removed can not come twice, so a pack is never longer than its batch.
        let taken = |index: &u32| {
            let asked = batch.outstanding.remove(index);
            batch.chunks.get(*index as usize).filter(|_| asked).copied()
        };
        let chunks: Option<Vec<_>> = pack.chunks.iter().map(taken).collect();
        let olds: Option<Vec<_>> =
            pack.olds.iter().map(|index| batch.olds.get(*index as usize).copied()).collect();
        let (Some(chunks), Some(olds)) = (chunks.filter(|it| !it.is_empty()), olds) else {
            return self.broken(TransferError::Mismatch("pack"));
        };
        let raw = chunks.iter().map(|it| u64::from(it.0)).sum::<u64>();
        let ascending = pack.olds.is_sorted_by(|a, b| a < b);
        if raw > PACK_MAX as u64 || pack.bytes.len() > PACK_MAX || !ascending {
            return self.broken(TransferError::Exceeded("length of a pack"));
        }
        batch.storing += 1;
        let bytes = pack.bytes.len() as u64;
        // The sender looks at its credit before each pack and not into it.
        if self.arrived - self.told.0 > CREDIT {
            return self.broken(TransferError::Exceeded("credit"));
        }
        self.arrived += bytes;
        self.counters.unique += raw;
        self.counters.wire += bytes;
        self.storing.push_back(Storing { sequence, chunks: pack.chunks, bytes });
        let (form, proof, bytes) = (pack.form, pack.proof, pack.bytes);
        self.out.push_back(ReceiverOutput::Unpack(Unpack { chunks, olds, form, proof, bytes }));
        Ok(())
    }

    /// Counts finished batches, tells credit, and commits when all is stored.
    fn advance(&mut self) {
        while self.batches.get(&self.finished).is_some_and(Batch::complete) {
            if let Some(batch) = self.batches.remove(&self.finished) {
                let (pieces, segments) = (batch.pieces(), batch.segments);
                self.out.push_back(ReceiverOutput::Append { segments, pieces });
            }
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
