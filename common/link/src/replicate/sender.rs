//! The side that has the generation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Begin, CREDIT, Counters, FailWhy, Failure, OFFER_ENTRIES_MAX, OFFER_SEGMENTS_MAX, OFFERS_MAX,
    Offer, PACK_MAX, Pack, Replicate, ReplicateBody, Totals, TransferError, TransferId,
};

/// So many batches are told before the packs of the first of them.
const OFFERS_FIRST: u32 = 3;

/// What the shell of a [`Sender`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderOutput {
    /// Send it on the bulk connection.
    Send(Replicate),
    /// Read the next batch of the recipe and hand it to [`Sender::batch`], or the totals to
    /// [`Sender::end`].
    NeedBatch {
        /// Which of the bases it may refer to.
        base: Option<u32>,
    },
    /// Read some of these chunks and hand them to [`Sender::pack`]. What is left is asked for
    /// again.
    NeedPack {
        /// The batch.
        sequence: u32,
        /// Which of its chunks, ascending.
        chunks: Vec<u32>,
    },
    /// The generation is committed and durable at the receiver.
    Done(Counters),
    /// It failed, here or there. What was stored there stays and is not sent again.
    Failed(Failure),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Waits to hear which base is there.
    Begun,
    Offering,
    Committing,
    Over,
}

/// An offered batch whose chunks are not all stored there.
#[derive(Debug)]
struct Batch {
    /// Raw lengths.
    lengths: Vec<u32>,
    olds: usize,
    /// Those that were named; emptied when the receiver has told what it wants.
    named: Vec<u32>,
    /// To be sent.
    to_send: BTreeSet<u32>,
}

/// Sends one generation.
#[derive(Debug)]
pub struct Sender {
    transfer: TransferId,
    state: State,
    /// The receiver has answered the beginning.
    ready: bool,
    /// How many there are.
    bases: u32,
    /// The one that the receiver has.
    base: Option<u32>,
    batches: BTreeMap<u32, Batch>,
    next_sequence: u32,
    batch_asked: bool,
    totals: Option<Totals>,
    /// The batch of which a pack was asked from the shell.
    pack_asked: Option<u32>,
    sent: u64,
    credited: u64,
    counters: Counters,
    out: VecDeque<SenderOutput>,
}

impl Sender {
    /// Begins; [`Sender::poll`] gives the first message.
    pub fn new(transfer: TransferId, begin: Begin) -> Self {
        let bases = u32::try_from(begin.bases.list().len()).unwrap_or(u32::MAX);
        let state = if begin.bases.go_at_once() { State::Offering } else { State::Begun };
        let base = (state == State::Offering && bases > 0).then_some(0);
        let body = ReplicateBody::Begin(begin);
        let first = SenderOutput::Send(Replicate { transfer, body });
        Self {
            transfer,
            state,
            ready: false,
            bases,
            base,
            batches: BTreeMap::new(),
            next_sequence: 0,
            batch_asked: false,
            totals: None,
            pack_asked: None,
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
        if self.state != State::Offering {
            return None;
        }
        // What is wanted of a batch takes a round trip to know: some go before all packs.
        self.next_batch(OFFERS_FIRST).or_else(|| self.next_pack()).or_else(|| match self.totals {
            Some(totals) if self.all_sent() => {
                self.state = State::Committing;
                Some(self.send(ReplicateBody::Commit(totals)))
            }
            Some(_) => None,
            None => self.next_batch(OFFERS_MAX),
        })
    }

    /// Asks for a batch, if fewer than `most` are under way.
    fn next_batch(&mut self, most: u32) -> Option<SenderOutput> {
        let asks = self.totals.is_none() && !self.batch_asked && self.batches.len() < most as usize;
        self.batch_asked |= asks;
        asks.then_some(SenderOutput::NeedBatch { base: self.base })
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
        let chunks: Vec<_> = offer.chunks().collect();
        self.counters.offered += chunks.iter().map(|it| u64::from(it.0)).sum::<u64>();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let of_kind = |named: bool| {
            let all = (0u32..).zip(&chunks).filter(move |(_, it)| it.1.is_some() == named);
            all.map(|(index, _)| index)
        };
        let (named, to_send) = (of_kind(true).collect(), of_kind(false).collect());
        let lengths = chunks.iter().map(|it| it.0).collect();
        let batch = Batch { lengths, olds: offer.olds().count(), named, to_send };
        self.batches.insert(sequence, batch);
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

    /// Chunks asked for by `NeedPack`: one at least.
    ///
    /// # Errors
    /// [`TransferError::NotAsked`] for a pack that was not asked for or exceeds the limits.
    pub fn pack(&mut self, pack: Pack) -> Result<(), TransferError> {
        if self.state == State::Over {
            return Ok(());
        }
        let not_asked = TransferError::NotAsked("this pack");
        let sequence = self.pack_asked.take().ok_or(not_asked.clone())?;
        let batch = self.batches.get_mut(&sequence).ok_or(not_asked.clone())?;
        let mut raw = 0;
        for index in &pack.chunks {
            let length = batch.lengths.get(*index as usize);
            let length = length.filter(|_| batch.to_send.remove(index));
            raw += length.copied().map(u64::from).ok_or(not_asked.clone())?;
        }
        let olds = pack.olds.iter().all(|old| (*old as usize) < batch.olds);
        let short = raw <= PACK_MAX as u64 && pack.bytes.len() <= PACK_MAX;
        if pack.chunks.is_empty() || !olds || !short {
            return Err(not_asked);
        }
        self.counters.unique += raw;
        self.counters.wire += pack.bytes.len() as u64;
        self.sent += pack.bytes.len() as u64;
        let message = self.send(ReplicateBody::Pack { sequence, pack });
        self.out.push_back(message);
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
            (ReplicateBody::Ready { already, base }, _) if !self.ready => self.ready(already, base),
            (_, _) if !self.ready => self.broken(TransferError::OutOfTurn("a transfer message")),
            (ReplicateBody::Committed, State::Committing) => {
                self.done();
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

    /// The receiver's answer to the beginning.
    fn ready(&mut self, already: bool, base: Option<u32>) -> Result<(), TransferError> {
        self.ready = true;
        if already {
            self.done();
            return Ok(());
        }
        let fits = match self.state {
            State::Begun => base.is_none_or(|base| base < self.bases),
            // It was told by this one already.
            _ => base == self.base,
        };
        if !fits {
            return self.broken(TransferError::Mismatch("base"));
        }
        self.base = base;
        if self.state == State::Begun {
            self.state = State::Offering;
        }
        Ok(())
    }

    fn done(&mut self) {
        self.over();
        self.out.push_back(SenderOutput::Done(self.counters));
    }

    fn wanted(&mut self, sequence: u32, wanted: &[bool]) -> Result<(), TransferError> {
        let batch = self.batches.get_mut(&sequence);
        let fits = |it: &&mut Batch| !it.named.is_empty() && it.named.len() == wanted.len();
        let Some(batch) = batch.filter(fits) else {
            return self.broken(TransferError::Mismatch("want"));
        };
        let named = std::mem::take(&mut batch.named);
        let wanted = named.iter().zip(wanted).filter(|(_, wanted)| **wanted);
        batch.to_send.extend(wanted.map(|(index, _)| *index));
        Ok(())
    }

    fn credit(&mut self, stored: u64, offers: u32) -> Result<(), TransferError> {
        let done = |(_, batch): (&u32, &Batch)| batch.named.is_empty() && batch.to_send.is_empty();
        let fits = stored <= self.sent && stored >= self.credited && offers <= self.next_sequence;
        if !fits || !self.batches.range(..offers).all(done) {
            return self.broken(TransferError::Mismatch("credit"));
        }
        self.credited = stored;
        self.batches.retain(|sequence, _| *sequence >= offers);
        Ok(())
    }

    /// A pack of the first batch that has something to send, if there is credit.
    fn next_pack(&mut self) -> Option<SenderOutput> {
        if self.pack_asked.is_some() || self.sent - self.credited >= CREDIT {
            return None;
        }
        let (sequence, batch) = self.batches.iter().find(|(_, it)| !it.to_send.is_empty())?;
        self.pack_asked = Some(*sequence);
        let chunks = batch.to_send.iter().copied().collect();
        Some(SenderOutput::NeedPack { sequence: *sequence, chunks })
    }

    /// The oldest batch that is not done with: nothing of those before it is asked for any more.
    pub fn oldest(&self) -> u32 {
        self.batches.keys().next().copied().unwrap_or(self.next_sequence)
    }

    fn all_sent(&self) -> bool {
        self.batches.values().all(|it| it.named.is_empty() && it.to_send.is_empty())
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
        self.pack_asked = None;
    }

    fn send(&self, body: ReplicateBody) -> SenderOutput {
        SenderOutput::Send(Replicate { transfer: self.transfer, body })
    }
}
