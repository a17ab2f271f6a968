//! The holder's side of one lease.

use model::{DeviceName, LeaseId, ObjectNumber};

use super::track::Track;
use super::{
    Answer, EndReason, LeaseBody, LeaseReply, LeaseReplyBody, LeaseRequest, Numbered, Refusal, Work,
};

/// How long a lease is kept while the remote has not yet said it, in milliseconds.
const LEASE_MS_DEFAULT: u64 = 120_000;

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The remote has not answered the opening yet.
    #[error("the device is still being opened")]
    Opening,
    /// Something is under way; one thing at a time. A defect of the caller.
    #[error("number {0} is not answered yet")]
    Outstanding(u64),
    /// The link is down; a retry helps when it is back, nothing was sent.
    #[error("the link is down")]
    Disconnected,
    /// The lease is over; the device must be opened anew.
    #[error("the device is no longer open: {0}")]
    Ended(EndReason),
}

/// What a message meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The device is open.
    Opened,
    /// The lease goes on over the new connection.
    Resumed,
    /// The device was not opened; the client is finished.
    Refused(Refusal),
    /// The outstanding work came to its end.
    Answered {
        /// Its number.
        number: u64,
        /// What was asked.
        work: Work,
        /// What came of it. After a `Close` the client is finished, whatever the answer.
        answer: Answer,
    },
    /// The outstanding range goes on. Counts never go back.
    Progress {
        /// Its number.
        number: u64,
        /// Bytes so far.
        bytes: u64,
        /// Records so far.
        records: u64,
    },
    /// The lease is over; the client is finished.
    Ended {
        /// Why.
        why: EndReason,
        /// What was asked and never answered: whether it was done is unknown.
        unanswered: Option<Work>,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Ended(EndReason),
}

/// The outstanding work.
#[derive(Debug)]
struct Outstanding {
    sent: Numbered,
    progress: (u64, u64),
    /// A cancel to be sent again with it.
    cancel: Option<Option<u64>>,
}

/// One open ghost device. Feed it replies and the ups and downs of the link; send what it returns.
#[derive(Debug)]
pub struct LeaseClient {
    lease: LeaseId,
    device: DeviceName,
    exclusive: bool,
    epoch: u32,
    next: u64,
    state: State,
    outstanding: Option<Outstanding>,
    track: Track,
    /// Since when the link is down, `None` while it is up.
    down_since_ms: Option<u64>,
    lease_ms: u64,
}

impl LeaseClient {
    /// The device, by the name it has at the remote site.
    pub fn device(&self) -> &DeviceName {
        &self.device
    }

    /// Begins; gives the request to send. `device` carries the name it has at the remote site.
    pub fn open(lease: LeaseId, device: DeviceName, exclusive: bool) -> (Self, LeaseRequest) {
        let client = Self {
            lease,
            device,
            exclusive,
            epoch: 1,
            next: 1,
            state: State::Opening,
            outstanding: None,
            track: Track::default(),
            down_since_ms: None,
            lease_ms: LEASE_MS_DEFAULT,
        };
        let open = client.opening();
        (client, open)
    }

    /// The lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Where the drive stands behind the last answer, `None` if that can not be told (then ask
    /// for `Operation::Position`).
    pub fn expected_object(&self) -> Option<ObjectNumber> {
        self.track.object
    }

    /// Whether acknowledged records may be in the drive's buffer only.
    pub fn unflushed(&self) -> bool {
        self.track.unflushed
    }

    /// The number that is not answered yet.
    pub fn outstanding(&self) -> Option<u64> {
        self.outstanding.as_ref().map(|it| it.sent.number)
    }

    /// Whether the lease is over.
    pub fn ended(&self) -> Option<EndReason> {
        match self.state {
            State::Ended(why) => Some(why),
            State::Opening | State::Open => None,
        }
    }

    /// Numbers a work and gives the request to send.
    ///
    /// # Errors
    /// Nothing was numbered; see [`ClientError`].
    pub fn submit(&mut self, work: Work) -> Result<LeaseRequest, ClientError> {
        match self.state {
            State::Ended(why) => return Err(ClientError::Ended(why)),
            State::Opening => return Err(ClientError::Opening),
            State::Open => {}
        }
        if let Some(number) = self.outstanding() {
            return Err(ClientError::Outstanding(number));
        }
        if self.down_since_ms.is_some() {
            return Err(ClientError::Disconnected);
        }
        let expect = self.track.expected(&work);
        let sent = Numbered { number: self.next, repeated: false, expect, work };
        self.next += 1;
        let request = self.request(LeaseBody::Perform(sent.clone()));
        self.outstanding = Some(Outstanding { sent, progress: (0, 0), cancel: None });
        Ok(request)
    }

    /// Asks for the end of the outstanding work at a record boundary; it is answered all the same.
    /// `taken` tells for a read range how many objects were taken. While the link is down the
    /// request is kept; `None` if there is nothing to send now.
    pub fn cancel(&mut self, taken: Option<u64>) -> Option<LeaseRequest> {
        let outstanding = self.outstanding.as_mut()?;
        outstanding.cancel = Some(taken);
        let number = outstanding.sent.number;
        let up = self.down_since_ms.is_none();
        up.then(|| self.request(LeaseBody::Cancel { number, taken }))
    }

    /// A sign of life for the remote, to be sent at least four times in a lease time.
    pub fn renew(&self) -> Option<LeaseRequest> {
        let alive = self.state == State::Open && self.down_since_ms.is_none();
        alive.then(|| self.request(LeaseBody::Renew))
    }

    /// Takes a reply for this lease; `None` if it means nothing (left over, or said before).
    pub fn handle(&mut self, reply: LeaseReply) -> Option<ClientEvent> {
        let over = matches!(self.state, State::Ended(_));
        if over || reply.lease != self.lease || reply.epoch != self.epoch {
            return None;
        }
        match reply.body {
            LeaseReplyBody::Opened { lease_ms } => {
                self.lease_ms = lease_ms;
                match std::mem::replace(&mut self.state, State::Open) {
                    State::Opening => Some(ClientEvent::Opened),
                    _ => Some(ClientEvent::Resumed),
                }
            }
            LeaseReplyBody::Refused(refusal) => {
                self.state = State::Ended(EndReason::Closed);
                Some(ClientEvent::Refused(refusal))
            }
            LeaseReplyBody::Answered { number, answer } => self.answered(number, answer),
            LeaseReplyBody::Progress { number, bytes, records } => {
                let outstanding = self.outstanding.as_mut()?;
                let newer = number == outstanding.sent.number && bytes > outstanding.progress.0;
                newer.then(|| {
                    outstanding.progress = (bytes, records);
                    ClientEvent::Progress { number, bytes, records }
                })
            }
            LeaseReplyBody::Ended(why) => Some(self.end(why)),
        }
    }

    /// The link broke at this time.
    pub fn on_disconnect(&mut self, now_ms: u64) {
        self.down_since_ms.get_or_insert(now_ms);
    }

    /// The link is back: what to send on it, in order, before anything else of this lease.
    pub fn on_reconnect(&mut self) -> Vec<LeaseRequest> {
        self.down_since_ms = None;
        match self.state {
            State::Ended(_) => return Vec::new(),
            State::Opening => {
                self.epoch += 1;
                return vec![self.opening()];
            }
            State::Open => self.epoch += 1,
        }
        let mut requests = vec![self.request(LeaseBody::Resume)];
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.sent.repeated = true;
            let (again, cancel) = (outstanding.sent.clone(), outstanding.cancel);
            let number = again.number;
            requests.push(self.request(LeaseBody::Perform(again)));
            if let Some(taken) = cancel {
                requests.push(self.request(LeaseBody::Cancel { number, taken }));
            }
        }
        requests
    }

    /// Ends the lease when the link was down for longer than the remote keeps it.
    pub fn tick(&mut self, now_ms: u64) -> Option<ClientEvent> {
        let since = self.down_since_ms.filter(|_| self.ended().is_none())?;
        let over = now_ms.saturating_sub(since) > self.lease_ms;
        over.then(|| self.end(EndReason::Expired))
    }

    fn answered(&mut self, number: u64, answer: Answer) -> Option<ClientEvent> {
        let Outstanding { sent, .. } =
            self.outstanding.take_if(|outstanding| outstanding.sent.number == number)?;
        let answer = self.track.learn(&sent.work, answer);
        if sent.work == Work::Close {
            self.state = State::Ended(EndReason::Closed);
        }
        Some(ClientEvent::Answered { number, work: sent.work, answer })
    }

    fn end(&mut self, why: EndReason) -> ClientEvent {
        self.state = State::Ended(why);
        let unanswered = self.outstanding.take().map(|outstanding| outstanding.sent.work);
        ClientEvent::Ended { why, unanswered }
    }

    fn opening(&self) -> LeaseRequest {
        let (device, exclusive) = (self.device.clone(), self.exclusive);
        self.request(LeaseBody::Open { device, exclusive })
    }

    fn request(&self, body: LeaseBody) -> LeaseRequest {
        LeaseRequest { lease: self.lease, epoch: self.epoch, body }
    }
}
