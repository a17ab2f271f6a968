//! The remote's side: every lease, each number done once.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{DeviceName, DeviceRole, EngineId, LeaseId, SiteName};
use tape::TapeError;

use super::row::{RestoreError, Row};
use super::{
    Answer, Doubt, EndReason, LeaseBody, LeaseReply, LeaseReplyBody, LeaseRequest, Numbered,
    Refusal, RefusalWhy, Work,
};
use crate::connect::Peer;

/// The most leases that are kept, ended ones that are remembered included.
pub const LEASES_MAX: usize = 256;

/// How long an opening waits for the lease that is being given back, in milliseconds: a flush takes
/// less, and whoever opens has a minute.
pub const CLOSING_MS: u64 = 30_000;

/// What the remote engine does now, in the order given: a `Persist` is durable before a `Send`
/// behind it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// Take the device; tell [`LeaseTable::opened`].
    Open {
        /// For this lease.
        lease: LeaseId,
        /// Of this site: check that its configuration allows it.
        site: SiteName,
        /// The device.
        device: DeviceName,
    },
    /// Do it; tell [`LeaseTable::completed`].
    Perform {
        /// For this lease.
        lease: LeaseId,
        /// The number.
        number: u64,
        /// What to do; never a close.
        work: Work,
        /// This engine was restarted since the last: [`settle`](crate::settle) it first.
        settle: Option<Doubt>,
    },
    /// It is under way and was asked again: send its progress anew.
    Attach {
        /// The lease.
        lease: LeaseId,
        /// The number.
        number: u64,
    },
    /// End what is under way at a record boundary.
    Cancel {
        /// The lease.
        lease: LeaseId,
        /// The number.
        number: u64,
        /// Of a read range: objects taken; position the drive behind them.
        taken: Option<u64>,
    },
    /// Flush, free the device; tell [`LeaseTable::closed`].
    Close {
        /// The lease.
        lease: LeaseId,
        /// The device.
        device: DeviceName,
        /// Why.
        why: EndReason,
        /// This engine was restarted since the last: settle [`Work::Close`] first.
        settle: Option<Doubt>,
    },
    /// Make the row durable, in place of the lease's earlier one.
    Persist {
        /// The lease.
        lease: LeaseId,
        /// Its row.
        row: Bytes,
    },
    /// Remove the lease's row.
    Forget {
        /// The lease.
        lease: LeaseId,
    },
    /// Send it, if the site is connected.
    Send {
        /// To this site.
        site: SiteName,
        /// The reply.
        reply: LeaseReply,
    },
}

/// A peer that broke the rules of leases: the connection closes, a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It asks a number that is over.
    #[error("the peer asks number {number} of lease {lease}, but {last} was answered")]
    Older {
        /// The lease.
        lease: LeaseId,
        /// The number asked.
        number: u64,
        /// The last one answered.
        last: u64,
    },
    /// It leaves numbers out.
    #[error("the peer asks number {number} of lease {lease}, but {next} comes next")]
    Gap {
        /// The lease.
        lease: LeaseId,
        /// The number asked.
        number: u64,
        /// The one expected.
        next: u64,
    },
    /// It asks while something is under way, or before the device is open.
    #[error("the peer asks number {number} of lease {lease} too early")]
    Early {
        /// The lease.
        lease: LeaseId,
        /// The number asked.
        number: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its device is being given back by somebody else; at the deadline it is refused.
    Waiting,
    Opening,
    Open,
    /// To be closed, or being closed; with the number of the close that was asked.
    Closing(EndReason, Option<u64>),
    /// Closed and remembered.
    Gone(EndReason),
}

#[derive(Debug)]
struct Lease {
    site: SiteName,
    engine: EngineId,
    device: DeviceName,
    exclusive: bool,
    epoch: u32,
    state: State,
    /// When it expires, or is forgotten.
    deadline_ms: u64,
    /// The last answered number.
    last: u64,
    /// Its answer.
    answer: Option<Answer>,
    /// The last answer that must survive, as it is on record.
    recorded: Option<(u64, Answer)>,
    running: Option<(u64, Work)>,
    /// From a row: numbers may have been done that are not on record.
    restored: bool,
}

/// All leases of a remote engine.
#[derive(Debug)]
pub struct LeaseTable {
    leases: BTreeMap<LeaseId, Lease>,
    lease_ms: u64,
}

impl LeaseTable {
    /// A table that keeps a silent lease for `lease_ms` milliseconds.
    pub fn new(lease_ms: u64) -> Self {
        Self { leases: BTreeMap::new(), lease_ms }
    }

    /// Rebuilds the table after a start from the rows on record. Take the devices that are to be
    /// opened before any request is handed in.
    ///
    /// # Errors
    /// The first row that does not read; nothing of it was taken over, the others may be.
    pub fn restore<'a>(
        &mut self,
        now_ms: u64,
        rows: impl IntoIterator<Item = (LeaseId, &'a [u8])>,
    ) -> Result<Vec<LeaseAction>, RestoreError> {
        let mut actions = Vec::new();
        for (lease, bytes) in rows {
            let row = Row::decode(bytes).map_err(|why| RestoreError { lease, why })?;
            let state = row.ended.map_or(State::Open, State::Gone);
            if state == State::Open {
                let (site, device) = (row.site.clone(), row.device.clone());
                actions.push(LeaseAction::Open { lease, site, device });
            }
            let restored = Lease {
                site: row.site,
                engine: row.engine,
                device: row.device,
                exclusive: row.exclusive,
                epoch: row.epoch,
                state,
                deadline_ms: now_ms.saturating_add(self.lease_ms),
                last: row.last.as_ref().map_or(0, |(number, _)| *number),
                answer: row.last.as_ref().map(|(_, answer)| answer.clone()),
                recorded: row.last,
                running: None,
                restored: true,
            };
            self.leases.insert(lease, restored);
        }
        Ok(actions)
    }

    /// A peer connected: leases of an earlier run of it end, since their sessions are gone.
    pub fn on_peer(&mut self, now_ms: u64, peer: &Peer) -> Vec<LeaseAction> {
        let former = |lease: &Lease| lease.site == peer.site && lease.engine != peer.engine;
        // Nobody is there any more who would hear of it.
        self.leases.retain(|_, lease| !(former(lease) && lease.state == State::Waiting));
        self.close_where(now_ms, EndReason::PeerRestarted, former)
    }

    /// Takes a request.
    ///
    /// # Errors
    /// The peer broke a rule; nothing changed.
    pub fn handle(
        &mut self,
        now_ms: u64,
        peer: &Peer,
        request: LeaseRequest,
    ) -> Result<Vec<LeaseAction>, TableError> {
        let LeaseRequest { lease: id, epoch, body } = request;
        let known = self.leases.get_mut(&id).filter(|lease| lease.site == peer.site);
        let Some(lease) = known else {
            return Ok(match body {
                LeaseBody::Open { device, exclusive } if !self.leases.contains_key(&id) => {
                    self.open(now_ms, id, epoch, peer, device, exclusive)
                }
                _ => vec![send(&peer.site, id, epoch, LeaseReplyBody::Ended(EndReason::Unknown))],
            });
        };
        if epoch < lease.epoch {
            return Ok(Vec::new());
        }
        lease.epoch = epoch;
        if !matches!(lease.state, State::Gone(_) | State::Waiting) {
            lease.deadline_ms = now_ms.saturating_add(self.lease_ms);
        }
        let opened = LeaseReplyBody::Opened { lease_ms: self.lease_ms };
        match (body, lease.state) {
            (LeaseBody::Perform(numbered), _) => lease.perform(id, numbered),
            (_, State::Gone(why)) => Ok(vec![lease.send(id, LeaseReplyBody::Ended(why))]),
            (LeaseBody::Open { .. } | LeaseBody::Resume, State::Open) => {
                Ok(vec![lease.send(id, opened)])
            }
            (LeaseBody::Cancel { number, taken }, _) => {
                let running = lease.running.as_ref().is_some_and(|(now, _)| *now == number);
                let cancel = LeaseAction::Cancel { lease: id, number, taken };
                Ok(if running { vec![cancel] } else { Vec::new() })
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The device of an `Open` was taken, or not.
    pub fn opened(
        &mut self,
        now_ms: u64,
        id: LeaseId,
        result: Result<(), Refusal>,
    ) -> Vec<LeaseAction> {
        let Some(lease) = self.leases.get_mut(&id) else { return Vec::new() };
        match (result, lease.state) {
            (Ok(()), State::Opening) => {
                lease.state = State::Open;
                lease.deadline_ms = now_ms.saturating_add(self.lease_ms);
                let opened = LeaseReplyBody::Opened { lease_ms: self.lease_ms };
                vec![lease.persist(id), lease.send(id, opened)]
            }
            (Ok(()), State::Closing(why, _)) => vec![lease.close(id, why, None)],
            (Ok(()), State::Waiting | State::Open | State::Gone(_)) => Vec::new(),
            (Err(refusal), state) => {
                let body = match state {
                    State::Opening => LeaseReplyBody::Refused(refusal),
                    _ => LeaseReplyBody::Ended(EndReason::Revoked),
                };
                let (reply, device) = (lease.send(id, body), lease.device.clone());
                self.leases.remove(&id);
                let mut actions = vec![LeaseAction::Forget { lease: id }, reply];
                actions.extend(self.admit(now_ms, &device));
                actions
            }
        }
    }

    /// A device is free: whoever waits for it gets it.
    fn admit(&mut self, now_ms: u64, device: &DeviceName) -> Option<LeaseAction> {
        let asks = |lease: &Lease| lease.device == *device && lease.state == State::Waiting;
        let (id, waiting) = self.leases.iter().find(|(_, lease)| asks(lease))?;
        let (id, exclusive) = (*id, waiting.exclusive);
        let bars =
            |(other, lease): (&LeaseId, &Lease)| *other != id && lease.bars(device, exclusive);
        if self.leases.iter().any(bars) {
            return None;
        }
        let lease = self.leases.get_mut(&id)?;
        lease.state = State::Opening;
        lease.deadline_ms = now_ms.saturating_add(self.lease_ms);
        Some(LeaseAction::Open { lease: id, site: lease.site.clone(), device: device.clone() })
    }

    /// What is under way goes on: the reply to send, `None` if it is not under way any more.
    pub fn progress(
        &self,
        id: LeaseId,
        number: u64,
        bytes: u64,
        records: u64,
    ) -> Option<LeaseAction> {
        let lease = self.leases.get(&id)?;
        let running = lease.running.as_ref().is_some_and(|(now, _)| *now == number);
        let body = LeaseReplyBody::Progress { number, bytes, records };
        running.then(|| lease.send(id, body))
    }

    /// A work came to its end.
    pub fn completed(&mut self, id: LeaseId, number: u64, answer: Answer) -> Vec<LeaseAction> {
        let Some(lease) = self.leases.get_mut(&id) else { return Vec::new() };
        let Some((_, work)) = lease.running.take_if(|(now, _)| *now == number) else {
            return Vec::new();
        };
        let mut actions = lease.answer(id, number, answer, work.is_recorded());
        if let State::Closing(why, None) = lease.state {
            actions.push(lease.close(id, why, None));
        }
        actions
    }

    /// A device was flushed and freed, or the flush failed and it was freed all the same.
    pub fn closed(
        &mut self,
        now_ms: u64,
        id: LeaseId,
        result: Result<(), TapeError>,
    ) -> Vec<LeaseAction> {
        let Some(lease) = self.leases.get_mut(&id) else { return Vec::new() };
        let State::Closing(why, number) = lease.state else { return Vec::new() };
        lease.state = State::Gone(why);
        lease.deadline_ms = now_ms.saturating_add(self.lease_ms);
        let mut actions = match number {
            Some(number) => {
                let answer = result.map_or_else(Answer::Failed, |()| Answer::Closed);
                lease.answer(id, number, answer, true)
            }
            None => vec![lease.persist(id), lease.send(id, LeaseReplyBody::Ended(why))],
        };
        let device = lease.device.clone();
        actions.extend(self.admit(now_ms, &device));
        actions
    }

    /// The operator takes the device of a lease back.
    pub fn revoke(&mut self, now_ms: u64, id: LeaseId) -> Vec<LeaseAction> {
        match self.leases.get_mut(&id).filter(|lease| lease.is_live()) {
            Some(lease) => lease.begin_close(now_ms, id, EndReason::Revoked),
            None => Vec::new(),
        }
    }

    /// Ends what expired and forgets what was remembered long enough.
    pub fn tick(&mut self, now_ms: u64) -> Vec<LeaseAction> {
        let over = |lease: &Lease| lease.deadline_ms <= now_ms;
        let gone = |lease: &Lease| matches!(lease.state, State::Gone(_));
        let forget = |(id, lease): (&LeaseId, &mut Lease)| {
            (gone(lease) && over(lease)).then_some(LeaseAction::Forget { lease: *id })
        };
        let mut actions: Vec<_> = self.leases.iter_mut().filter_map(forget).collect();
        self.leases.retain(|_, lease| !(gone(lease) && over(lease)));
        for (id, lease) in &self.leases {
            if lease.state == State::Waiting && over(lease) {
                let text = format!("{} is still being given back", lease.device);
                let refusal = Refusal { why: RefusalWhy::Busy, text };
                actions.push(lease.send(*id, LeaseReplyBody::Refused(refusal)));
            }
        }
        self.leases.retain(|_, lease| !(lease.state == State::Waiting && over(lease)));
        actions.extend(self.close_where(now_ms, EndReason::Expired, over));
        actions
    }

    /// When [`LeaseTable::tick`] next has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let waits = |lease: &&Lease| !matches!(lease.state, State::Closing(..));
        self.leases.values().filter(waits).map(|lease| lease.deadline_ms).min()
    }

    /// Who holds a device open.
    pub fn holder(&self, device: &DeviceName) -> Option<(LeaseId, &SiteName)> {
        let holds = |lease: &Lease| {
            lease.device == *device && !matches!(lease.state, State::Gone(_) | State::Waiting)
        };
        let (id, lease) = self.leases.iter().find(|(_, lease)| holds(lease))?;
        Some((*id, &lease.site))
    }

    fn open(
        &mut self,
        now_ms: u64,
        id: LeaseId,
        epoch: u32,
        peer: &Peer,
        device: DeviceName,
        exclusive: bool,
    ) -> Vec<LeaseAction> {
        let refuse = |why, text: String| {
            let refusal = LeaseReplyBody::Refused(Refusal { why, text });
            vec![send(&peer.site, id, epoch, refusal)]
        };
        let mut barring = self.leases.values().filter(|lease| lease.bars(&device, exclusive));
        let is_free = barring.clone().next().is_none();
        // Who is about to let it go is waited for; by one, so that nobody overtakes.
        if let Some(other) = barring.find(|lease| !matches!(lease.state, State::Closing(..))) {
            return refuse(RefusalWhy::Busy, format!("{device} is in use by site {}", other.site));
        }
        let (state, patience) = match is_free {
            true => (State::Opening, self.lease_ms),
            false => (State::Waiting, CLOSING_MS),
        };
        let mut actions = Vec::new();
        if self.leases.len() >= LEASES_MAX {
            let gone = self.leases.iter().find(|(_, l)| matches!(l.state, State::Gone(_)));
            let Some(oldest) = gone.map(|(id, _)| *id) else {
                return refuse(RefusalWhy::TooMany, format!("{LEASES_MAX} devices are open"));
            };
            self.leases.remove(&oldest);
            actions.push(LeaseAction::Forget { lease: oldest });
        }
        let lease = Lease {
            site: peer.site.clone(),
            engine: peer.engine,
            device: device.clone(),
            exclusive,
            epoch,
            state,
            deadline_ms: now_ms.saturating_add(patience),
            last: 0,
            answer: None,
            recorded: None,
            running: None,
            restored: false,
        };
        self.leases.insert(id, lease);
        if is_free {
            actions.push(LeaseAction::Open { lease: id, site: peer.site.clone(), device });
        }
        actions
    }

    fn close_where(
        &mut self,
        now_ms: u64,
        why: EndReason,
        which: impl Fn(&Lease) -> bool,
    ) -> Vec<LeaseAction> {
        let chosen = self.leases.iter_mut().filter(|(_, lease)| lease.is_live() && which(lease));
        chosen.flat_map(|(id, lease)| lease.begin_close(now_ms, *id, why)).collect()
    }
}

impl Lease {
    /// Whether there is a device that has to be let go.
    fn is_live(&self) -> bool {
        matches!(self.state, State::Opening | State::Open)
    }

    /// Whether nobody else can have the device, or nobody else alone.
    fn bars(&self, device: &DeviceName, exclusive: bool) -> bool {
        let gone = matches!(self.state, State::Gone(_));
        !gone && self.device == *device && (exclusive || self.exclusive)
    }

    fn perform(&mut self, id: LeaseId, numbered: Numbered) -> Result<Vec<LeaseAction>, TableError> {
        let Numbered { number, repeated, expect, work } = numbered;
        if self.running.as_ref().is_some_and(|(running, _)| *running == number) {
            return Ok(vec![LeaseAction::Attach { lease: id, number }]);
        }
        if let Some(answer) = self.answer.as_ref().filter(|_| number == self.last) {
            let answer = answer.clone();
            return Ok(vec![self.send(id, LeaseReplyBody::Answered { number, answer })]);
        }
        match self.state {
            State::Gone(why) => return Ok(vec![self.send(id, LeaseReplyBody::Ended(why))]),
            // It will be answered or ended when the closing is over.
            State::Closing(..) => return Ok(Vec::new()),
            State::Waiting | State::Opening => {
                return Err(TableError::Early { lease: id, number });
            }
            State::Open => {}
        }
        let next = self.last.saturating_add(1);
        if number < next {
            return Err(TableError::Older { lease: id, number, last: self.last });
        }
        if self.running.is_some() {
            return Err(TableError::Early { lease: id, number });
        }
        // Numbers that need no record are missing in a row.
        if number > next && !self.restored {
            return Err(TableError::Gap { lease: id, number, next });
        }
        // Looking proves nothing, and a changer has no place that it could have lost.
        let doubtful = self.restored && work.has_effect();
        self.restored &= !doubtful;
        let drive = self.device.role != DeviceRole::Changer;
        let settle = (doubtful && (repeated || drive)).then_some(Doubt { expect, repeated });
        if work == Work::Close {
            self.state = State::Closing(EndReason::Closed, Some(number));
            return Ok(vec![self.close(id, EndReason::Closed, settle)]);
        }
        self.running = Some((number, work.clone()));
        Ok(vec![LeaseAction::Perform { lease: id, number, work, settle }])
    }

    /// Records an answer and sends it.
    fn answer(
        &mut self,
        id: LeaseId,
        number: u64,
        answer: Answer,
        record: bool,
    ) -> Vec<LeaseAction> {
        self.last = number;
        self.answer = Some(answer.clone());
        let reply = self.send(id, LeaseReplyBody::Answered { number, answer: answer.clone() });
        if !record {
            return vec![reply];
        }
        self.recorded = Some((number, answer));
        vec![self.persist(id), reply]
    }

    fn begin_close(&mut self, now_ms: u64, id: LeaseId, why: EndReason) -> Vec<LeaseAction> {
        let opening = self.state == State::Opening;
        self.state = State::Closing(why, None);
        self.deadline_ms = now_ms;
        match &self.running {
            // Its completion closes.
            Some((number, _)) => {
                vec![LeaseAction::Cancel { lease: id, number: *number, taken: None }]
            }
            // Its opening closes.
            None if opening => Vec::new(),
            None => vec![self.close(id, why, None)],
        }
    }

    fn close(&self, id: LeaseId, why: EndReason, settle: Option<Doubt>) -> LeaseAction {
        LeaseAction::Close { lease: id, device: self.device.clone(), why, settle }
    }

    fn persist(&self, id: LeaseId) -> LeaseAction {
        let row = Row {
            site: self.site.clone(),
            engine: self.engine,
            device: self.device.clone(),
            exclusive: self.exclusive,
            epoch: self.epoch,
            last: self.recorded.clone(),
            ended: match self.state {
                State::Gone(why) => Some(why),
                _ => None,
            },
        };
        LeaseAction::Persist { lease: id, row: row.encode() }
    }

    fn send(&self, id: LeaseId, body: LeaseReplyBody) -> LeaseAction {
        send(&self.site, id, self.epoch, body)
    }
}

fn send(site: &SiteName, lease: LeaseId, epoch: u32, body: LeaseReplyBody) -> LeaseAction {
    LeaseAction::Send { site: site.clone(), reply: LeaseReply { lease, epoch, body } }
}
