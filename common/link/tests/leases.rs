//! Both sides of leases over a link that is cut, with crashes of either engine and resets of the
//! drive: every operation is done exactly once, or reported unknown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use link::{
    Answer, ClientEvent, CopyRange, Extent, LeaseAction, LeaseClient, LeaseTable, Message, Peer,
    RangeEnd, RangeResult, RangeSource, Settled, Work, settle,
};
use model::{DeviceName, EngineId, GenerationId, JobId, LeaseId, SiteName, Ulid};
use scsi::Sense;
use support::{Random, seeds};
use tape::{Operation, Outcome, Position, ReadEnd, TapeError, WriteEnd};

const LEASE_MS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Record(u64),
    Mark,
}

/// A drive that outlives the engine, unless it is reset: then its buffer is lost in part.
#[derive(Default)]
struct Drive {
    objects: Vec<Object>,
    at: usize,
    flushed: usize,
    attention: Option<Sense>,
    resets: u32,
}

impl Drive {
    fn put(&mut self, object: Object) {
        self.objects.truncate(self.at);
        self.flushed = self.flushed.min(self.at);
        self.objects.push(object);
        self.at += 1;
    }

    fn flush(&mut self) {
        self.flushed = self.objects.len();
    }

    fn reset(&mut self, random: &mut Random) {
        let buffered = (self.objects.len() - self.flushed) as u64;
        self.objects.truncate(self.flushed + random.below(buffered + 1) as usize);
        self.at = 0;
        self.resets += 1;
        self.attention = Some(Sense::POWER_ON_RESET);
    }

    fn position(&mut self) -> Result<Position, TapeError> {
        match self.attention.take() {
            Some(sense) => Err(TapeError::Check(sense)),
            None => Ok(Position { object: self.at as u64, ..Position::default() }),
        }
    }

    fn perform(&mut self, operation: &Operation) -> Result<Outcome, TapeError> {
        let position = self.position()?;
        Ok(match operation {
            Operation::Position => Outcome::Position(position),
            Operation::Write(record) => {
                self.put(Object::Record(u64::from_be_bytes(record[..].try_into().unwrap())));
                Outcome::Written(WriteEnd::Written)
            }
            Operation::WriteFilemarks(count) => {
                (0..*count).for_each(|_| self.put(Object::Mark));
                self.flush();
                Outcome::Written(WriteEnd::Written)
            }
            Operation::Rewind => {
                self.flush();
                self.at = 0;
                Outcome::Done
            }
            Operation::Locate(object) => {
                self.flush();
                let object = *object as usize;
                if object > self.objects.len() {
                    return Err(TapeError::Check(Sense::END_OF_DATA));
                }
                self.at = object;
                Outcome::Done
            }
            Operation::Read(_) => match self.objects.get(self.at) {
                None => Outcome::Read(ReadEnd::EndOfData, Bytes::new()),
                Some(Object::Mark) => {
                    self.at += 1;
                    Outcome::Read(ReadEnd::Filemark, Bytes::new())
                }
                Some(Object::Record(id)) => {
                    self.at += 1;
                    let data = Bytes::copy_from_slice(&id.to_be_bytes());
                    Outcome::Read(ReadEnd::Record { length: 8 }, data)
                }
            },
            other => panic!("{other:?} is not in the simulation"),
        })
    }
}

/// What the application may rely on.
#[derive(Default)]
struct Belief {
    /// Objects that must be on the tape.
    known: Vec<Object>,
    at: Option<usize>,
    flushed: usize,
}

impl Belief {
    /// Nothing is known of what was asked at this place, nor of what was in the buffer.
    fn doubt(&mut self) {
        let safe = self.flushed.min(self.at.unwrap_or(0));
        self.known.truncate(safe);
        self.at = None;
    }

    fn put(&mut self, object: Object) {
        let Some(at) = self.at else {
            // Written who knows where: what followed that place is gone.
            self.known.clear();
            self.flushed = 0;
            return;
        };
        if at <= self.known.len() {
            self.known.truncate(at);
            self.known.push(object);
        }
        self.flushed = self.flushed.min(at);
        self.at = Some(at + 1);
    }
}

/// What is at the device.
enum Job {
    Perform { lease: LeaseId, number: u64, work: Work, settle: Option<link::Doubt>, copied: u64 },
    Close { lease: LeaseId, settle: Option<link::Doubt> },
}

struct World {
    random: Random,
    now: u64,
    ids: u64,
    up: bool,
    local: EngineId,
    client: Option<LeaseClient>,
    open: bool,
    belief: Belief,
    table: LeaseTable,
    rows: BTreeMap<LeaseId, Bytes>,
    drive: Drive,
    job: Option<Job>,
    cancel: bool,
    to_remote: VecDeque<Bytes>,
    to_local: VecDeque<Bytes>,
    /// Where, and after how many resets, the effect of (lease, number, record) happened.
    done: HashMap<(LeaseId, u64, u64), (usize, u32)>,
    answered: u64,
}

fn device() -> DeviceName {
    "ptl0/drive0".parse().unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: 0,
            ids: 0,
            up: true,
            local: EngineId(Ulid(1)),
            client: None,
            open: false,
            belief: Belief::default(),
            table: LeaseTable::new(LEASE_MS),
            rows: BTreeMap::new(),
            drive: Drive::default(),
            job: None,
            cancel: false,
            to_remote: VecDeque::new(),
            to_local: VecDeque::new(),
            done: HashMap::new(),
            answered: 0,
        };
        world.drive.objects = vec![Object::Record(u64::MAX); 3];
        world.drive.flush();
        world
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn peer(&self) -> Peer {
        Peer {
            site: SiteName::new("hq").unwrap(),
            engine: self.local,
            version: 1,
            capabilities: link::Capabilities::ALL,
        }
    }

    fn send_remote(&mut self, requests: impl IntoIterator<Item = link::LeaseRequest>) {
        if self.up {
            self.to_remote
                .extend(requests.into_iter().map(|request| Message::Lease(request).encode()));
        }
    }

    // ---------------------------------------------------------------- the remote engine

    fn run(&mut self, actions: Vec<LeaseAction>, calm: bool) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            if !calm && self.random.chance(8) {
                return self.crash_remote();
            }
            match action {
                LeaseAction::Open { lease, .. } => {
                    actions.extend(self.table.opened(self.now, lease, Ok(())));
                }
                LeaseAction::Perform { lease, number, work, settle } => {
                    assert!(self.job.is_none(), "two things at one device");
                    self.job = Some(Job::Perform { lease, number, work, settle, copied: 0 });
                }
                LeaseAction::Close { lease, settle, .. } => {
                    assert!(self.job.is_none(), "closed under way");
                    self.job = Some(Job::Close { lease, settle });
                }
                LeaseAction::Attach { .. } => {}
                LeaseAction::Cancel { .. } => self.cancel = true,
                LeaseAction::Persist { lease, row } => {
                    self.rows.insert(lease, row);
                }
                LeaseAction::Forget { lease } => {
                    self.rows.remove(&lease);
                }
                LeaseAction::Send { reply, .. } => {
                    if self.up {
                        self.to_local.push_back(Message::LeaseReply(reply).encode());
                    }
                }
            }
        }
    }

    fn crash_remote(&mut self) {
        // What was at the drive may still be done by it.
        if self.random.chance(500) {
            self.at_device();
        }
        self.job = None;
        self.cancel = false;
        if self.random.chance(400) {
            self.drive.reset(&mut self.random);
            // Whoever looks at the drives first after a start may meet the attention.
            if self.random.chance(300) {
                self.drive.attention = None;
            }
        }
        self.cut();
        self.table = LeaseTable::new(LEASE_MS);
        let rows: Vec<_> = self.rows.iter().map(|(id, row)| (*id, row.clone())).collect();
        let rows = rows.iter().map(|(id, row)| (*id, &row[..]));
        let actions = self.table.restore(self.now, rows).unwrap();
        self.run(actions, true);
    }

    /// Once; but what a reset took back may be done again in the very place.
    fn count(&mut self, lease: LeaseId, number: u64, record: u64) {
        let now = (self.drive.at, self.drive.resets);
        if let Some(before) = self.done.insert((lease, number, record), now) {
            assert!(before.0 == now.0 && before.1 < now.1, "done twice: {before:?}, {now:?}");
        }
    }

    /// The device does one step of what it is to do; the answer when that was the last.
    fn at_device(&mut self) -> Option<(LeaseId, u64, Answer)> {
        let Some(Job::Perform { lease, number, work, settle: expect, copied }) = &mut self.job
        else {
            return None;
        };
        let (lease, number) = (*lease, *number);
        let settled = match expect.take() {
            Some(expect) => settle(work, expect, || self.drive.position()),
            None => Settled::Execute,
        };
        match settled {
            Settled::Execute => {}
            Settled::LocateThenExecute(object) => {
                if self.drive.perform(&Operation::Locate(object)).is_err() {
                    let lost = TapeError::PositionUnknown("gone".into());
                    return Some((lease, number, Answer::Failed(lost)));
                }
            }
            Settled::ContinueCopy { records } => *copied = records,
            Settled::Answer(answer) => return Some((lease, number, answer)),
        }
        match work.clone() {
            Work::Operation(operation) => {
                let result = self.drive.perform(&operation);
                let once = matches!(operation, Operation::Write(_))
                    || matches!(operation, Operation::WriteFilemarks(n) if n > 0);
                if once && result.is_ok() {
                    self.count(lease, number, 0);
                }
                Some((lease, number, result.map_or_else(Answer::Failed, Answer::Outcome)))
            }
            Work::Copy(range) => {
                self.copy_step(lease, number, &range).map(|answer| (lease, number, answer))
            }
            other => panic!("{other:?} at the device"),
        }
    }

    fn copy_step(&mut self, lease: LeaseId, number: u64, range: &CopyRange) -> Option<Answer> {
        let Some(Job::Perform { copied, .. }) = &mut self.job else { return None };
        let RangeSource::Extents(list) = &range.source else { panic!("extents") };
        let (first, most) = (list[0].first_object, list[0].length / 8);
        let result = |drive: &Drive, end, records| {
            let object = drive.at as u64;
            Some(Answer::Copied(RangeResult {
                end,
                bytes: records * 8,
                records,
                object,
                flushed: drive.flushed == drive.objects.len(),
            }))
        };
        if let Some(sense) = self.drive.attention.take() {
            return result(&self.drive, RangeEnd::MediaError(sense), *copied);
        }
        if self.drive.at as u64 != range.expected_object + *copied {
            let lost = TapeError::PositionUnknown("not where expected".into());
            return Some(Answer::Failed(lost));
        }
        if *copied == most || std::mem::take(&mut self.cancel) {
            let end = if *copied == most { RangeEnd::Done } else { RangeEnd::Cancelled };
            return result(&self.drive, end, *copied);
        }
        self.drive.put(Object::Record(first + *copied));
        let record = *copied;
        *copied += 1;
        self.count(lease, number, record);
        None
    }

    fn device_step(&mut self, calm: bool) {
        match &self.job {
            None => {}
            Some(Job::Close { lease, settle: expect }) => {
                let (lease, expect) = (*lease, *expect);
                let settled = match expect {
                    Some(expect) => settle(&Work::Close, expect, || self.drive.position()),
                    None => Settled::Execute,
                };
                let result = match settled {
                    Settled::Answer(Answer::Failed(error)) => Err(error),
                    // Attention at a close: whatever was in the buffer is lost.
                    _ if self.drive.attention.take().is_some() => {
                        Err(TapeError::Check(Sense::POWER_ON_RESET))
                    }
                    _ => {
                        self.drive.flush();
                        Ok(())
                    }
                };
                self.job = None;
                let actions = self.table.closed(self.now, lease, result);
                self.run(actions, calm);
            }
            Some(Job::Perform { .. }) => {
                let answer = self.at_device();
                if answer.is_some() {
                    self.job = None;
                    self.cancel = false;
                }
                if !calm && self.random.chance(20) {
                    return self.crash_remote();
                }
                if let Some((lease, number, answer)) = answer {
                    let actions = self.table.completed(lease, number, answer);
                    self.run(actions, calm);
                }
            }
        }
    }

    fn remote_step(&mut self, calm: bool) {
        if let Some(frame) = self.to_remote.pop_front() {
            let Message::Lease(request) = Message::decode(frame).unwrap() else { panic!() };
            let actions = self.table.handle(self.now, &self.peer(), request);
            self.run(actions.expect("our client keeps the rules"), calm);
        }
    }

    // ---------------------------------------------------------------- the local engine

    fn cut(&mut self) {
        self.up = false;
        self.to_remote.clear();
        self.to_local.clear();
        if let Some(client) = &mut self.client {
            client.on_disconnect(self.now);
        }
    }

    fn reconnect(&mut self, calm: bool) {
        if self.up {
            return;
        }
        self.up = true;
        let actions = self.table.on_peer(self.now, &self.peer());
        self.run(actions, calm);
        if let Some(client) = &mut self.client {
            let requests = client.on_reconnect();
            self.send_remote(requests);
        }
    }

    fn crash_local(&mut self) {
        self.cut();
        self.client = None;
        self.open = false;
        self.local = EngineId(Ulid(1000 + u128::from(self.id())));
        self.belief.doubt();
    }

    fn local_step(&mut self) {
        if let Some(frame) = self.to_local.pop_front() {
            let Message::LeaseReply(reply) = Message::decode(frame).unwrap() else { panic!() };
            let event = self.client.as_mut().and_then(|client| client.handle(reply));
            self.event(event);
        }
    }

    fn event(&mut self, event: Option<ClientEvent>) {
        match event {
            Some(ClientEvent::Opened) => self.open = true,
            Some(ClientEvent::Resumed | ClientEvent::Progress { .. }) | None => {}
            Some(ClientEvent::Refused(_)) => self.client = None,
            Some(ClientEvent::Ended { .. }) => {
                self.client = None;
                self.open = false;
                self.belief.doubt();
            }
            Some(ClientEvent::Answered { number, work, answer }) => {
                let lease = self.client.as_ref().unwrap().lease();
                self.answered += 1;
                self.judge(lease, number, &work, &answer);
                if work == Work::Close {
                    self.client = None;
                    self.open = false;
                }
            }
        }
    }

    /// The heart: an answer that says done means done once, and the tape holds what is believed.
    fn judge(&mut self, lease: LeaseId, number: u64, work: &Work, answer: &Answer) {
        let done = |record: u64| self.done.contains_key(&(lease, number, record));
        let mut flushed = false;
        match (work, answer) {
            (Work::Operation(Operation::Write(data)), Answer::Outcome(_)) => {
                assert!(done(0), "a write answered good was not done");
                let id = u64::from_be_bytes(data[..].try_into().unwrap());
                self.belief.put(Object::Record(id));
            }
            (Work::Operation(Operation::WriteFilemarks(count)), Answer::Outcome(_)) => {
                assert_eq!(done(0), *count > 0, "filemarks answered good");
                (0..*count).for_each(|_| self.belief.put(Object::Mark));
                flushed = true;
            }
            (Work::Operation(Operation::Rewind), Answer::Outcome(_)) => {
                (self.belief.at, flushed) = (Some(0), true);
            }
            (Work::Operation(Operation::Locate(at)), Answer::Outcome(_)) => {
                (self.belief.at, flushed) = (Some(*at as usize), true);
            }
            (Work::Operation(Operation::Position), Answer::Outcome(Outcome::Position(it))) => {
                // A reset drive says where it is; but then nothing unflushed may be lost.
                let moved = self.belief.at.is_some_and(|at| at as u64 != it.object);
                assert!(!moved || self.belief.flushed == self.belief.known.len());
                self.belief.at = Some(it.object as usize);
            }
            (Work::Operation(Operation::Read(_)), Answer::Outcome(Outcome::Read(end, data))) => {
                self.judge_read(*end, data);
            }
            (Work::Copy(range), Answer::Copied(result)) => {
                let RangeSource::Extents(list) = &range.source else { panic!("extents") };
                for record in 0..result.records {
                    assert!(done(record), "a record of a range was not written");
                }
                // Who asks to write here gives up what is here, even if nothing was written.
                self.belief.known.truncate(self.belief.at.unwrap_or(0));
                for record in 0..result.records {
                    self.belief.put(Object::Record(list[0].first_object + record));
                }
                if matches!(result.end, RangeEnd::MediaError(_)) {
                    self.belief.doubt();
                }
            }
            (Work::Close, Answer::Closed) => flushed = true,
            (_, Answer::Failed(_)) => self.belief.doubt(),
            other => panic!("an answer that does not fit: {other:?}"),
        }
        if flushed {
            let known = &self.belief.known;
            assert!(known.len() <= self.drive.flushed, "said to be flushed");
            assert_eq!(*known, self.drive.objects[..known.len()], "the tape is not as believed");
            self.belief.flushed = known.len();
        }
    }

    fn judge_read(&mut self, end: ReadEnd, data: &Bytes) {
        let Some(at) = self.belief.at else { return };
        let read = match end {
            ReadEnd::EndOfData => None,
            ReadEnd::Filemark => Some(Object::Mark),
            ReadEnd::Record { .. } => {
                Some(Object::Record(u64::from_be_bytes(data[..].try_into().unwrap())))
            }
        };
        if let Some(known) = self.belief.known.get(at) {
            assert_eq!(read, Some(*known), "read is not what was written");
        }
        self.belief.at = Some(at + usize::from(read.is_some()));
    }

    fn application_step(&mut self, calm: bool) {
        if self.client.is_none() {
            if self.up {
                let lease = LeaseId(Ulid(u128::from(self.id())));
                let (client, request) = LeaseClient::open(lease, device(), true);
                self.client = Some(client);
                self.belief.at = None;
                self.send_remote([request]);
            }
            return;
        }
        let idle = self.client.as_ref().is_some_and(|client| client.outstanding().is_none());
        if !self.open || !idle || calm {
            return;
        }
        let work = self.some_work();
        let client = self.client.as_mut().unwrap();
        if let Ok(request) = client.submit(work) {
            self.send_remote([request]);
        }
    }

    fn some_work(&mut self) -> Work {
        let expected = self.client.as_ref().and_then(LeaseClient::expected_object);
        let id = self.id();
        let operation = match self.random.below(20) {
            0..8 => Operation::Write(Bytes::copy_from_slice(&id.to_be_bytes())),
            8..10 => Operation::WriteFilemarks(self.random.below(3) as u32),
            10 => Operation::Rewind,
            11 => Operation::Locate(self.random.below(8)),
            12..14 => Operation::Read(8),
            14 => Operation::Position,
            15 => return Work::Close,
            _ => match expected {
                None => Operation::Position,
                Some(expected_object) => {
                    let length = 8 * (1 + self.random.below(5));
                    self.ids += 10;
                    let extent = Extent {
                        generation: GenerationId(Ulid(1)),
                        first_object: self.ids,
                        offset_in_object: 0,
                        length,
                    };
                    return Work::Copy(CopyRange {
                        job: JobId(Ulid(1)),
                        source: RangeSource::Extents(vec![extent]),
                        record_size: 8,
                        pad_last: false,
                        flush: false,
                        ignore_early_warning: false,
                        verify: None,
                        expected_object,
                    });
                }
            },
        };
        Work::Operation(operation)
    }

    fn time(&mut self, calm: bool) {
        self.now += self.random.below(300);
        let actions = self.table.tick(self.now);
        self.run(actions, calm);
        let now = self.now;
        let event = self.client.as_mut().and_then(|client| client.tick(now));
        self.event(event);
        let renew = self.client.as_ref().and_then(LeaseClient::renew);
        self.send_remote(renew);
    }

    fn step(&mut self, calm: bool) {
        match self.random.below(100) {
            0..25 => self.remote_step(calm),
            25..50 => self.local_step(),
            50..70 => self.device_step(calm),
            70..90 => self.application_step(calm),
            90..94 => self.time(calm),
            94..97 => self.reconnect(calm),
            _ if calm => {}
            97 => self.cut(),
            98 if self.random.chance(300) => self.crash_remote(),
            98 if self.random.chance(200) => self.crash_local(),
            _ => {
                let cancel = self.client.as_mut().and_then(|client| client.cancel(None));
                self.send_remote(cancel);
            }
        }
    }
}

#[test]
fn everything_is_done_once_or_reported_unknown() {
    seeds(4000, |seed| {
        let mut world = World::new(seed);
        (0..400).for_each(|_| world.step(false));
        // Quiet: what is outstanding is answered, whatever happened before.
        let outstanding =
            |world: &World| world.client.as_ref().is_some_and(|it| it.outstanding().is_some());
        for _ in 0..2000 {
            world.step(true);
        }
        assert!(!outstanding(&world), "never answered");
    });
}

#[test]
fn the_simulation_gets_somewhere() {
    let mut world = World::new(1);
    (0..5000).for_each(|_| world.step(false));
    assert!(world.answered > 100, "{} answers", world.answered);
}
