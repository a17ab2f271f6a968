//! Leases over a link that is played by hand.

use std::sync::Arc;
use std::time::Duration;

use link::{Answer, LeaseBody, LeaseReply, LeaseReplyBody, LeaseRequest, Message, Peer, Work};
use model::{EngineId, LeaseId, SiteName, Ulid};
use store::Store;
use svs::Catalogue;
use tape::{CancelToken, Control, Operation, Outcome, TapeError};

use super::bulk::Bulk;
use super::outbox::{ControlQueue, ControlWay};
use super::site::{OpenError, RemoteSite};
use super::{Ground, LeaseHandle};
use crate::device::Registry;
use crate::testing::{PATIENCE, config, until};

struct Play {
    site: Arc<RemoteSite>,
    queue: Option<ControlQueue>,
    seen: Vec<LeaseRequest>,
    _dir: tempfile::TempDir,
}

impl Play {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vfs = Arc::new(vfs::RealVfs);
        let config = config(dir.path(), "");
        std::fs::create_dir_all(&config.site.state_dir).unwrap();
        let catalogue = Arc::new(Catalogue::open(&config.site.catalogue()).unwrap());
        let options = store::Options::default();
        let (store, _) = Store::open(vfs, &config.site.store(), &options).unwrap();
        let registry = Arc::new(Registry::default());
        let (config, policy) = (Arc::new(config), Arc::default());
        let ground = Arc::new(Ground { config, store, catalogue, registry, policy });
        let to = service::config::LinkTo {
            connect: "127.0.0.1:1".into(),
            server_name: None,
            ca: "ca.pem".into(),
            certificate: "hq.pem".into(),
            key: "hq.key".into(),
            lease_seconds: 0,
        };
        let site = RemoteSite::new(&ground, to);
        Self { site, queue: None, seen: Vec::new(), _dir: dir }
    }

    fn up(&mut self) {
        let (control, queue) = ControlWay::new();
        let (bulk, _) = Bulk::new();
        let site = SiteName::new("dr").unwrap();
        let peer = Peer {
            site,
            engine: EngineId(Ulid(7)),
            version: 1,
            capabilities: link::Capabilities::ALL,
        };
        self.site.up(&peer, control, bulk);
        self.queue = Some(queue);
    }

    fn down(&mut self) {
        self.site.down();
        self.queue = None;
    }

    /// The next request.
    fn next(&mut self) -> LeaseRequest {
        until("a request", || {
            let queue = self.queue.as_mut().unwrap();
            let asked = queue.drain().into_iter().filter_map(|message| match message {
                Message::Lease(request) if request.body != LeaseBody::Renew => Some(request),
                _ => None,
            });
            self.seen.extend(asked);
            (!self.seen.is_empty()).then(|| self.seen.remove(0))
        })
    }

    fn is_quiet(&mut self) -> bool {
        let more = self.queue.as_mut().map(|queue| queue.drain()).unwrap_or_default();
        self.seen.is_empty() && more.iter().all(|message| !matches!(message, Message::Lease(_)))
    }

    fn reply(&self, to: &LeaseRequest, body: LeaseReplyBody) {
        self.site.lease_reply(LeaseReply { lease: to.lease, epoch: to.epoch, body });
    }

    fn answer(&self, to: &LeaseRequest, answer: Answer) {
        let LeaseBody::Perform(numbered) = &to.body else { panic!("not asked: {to:?}") };
        let number = numbered.number;
        self.reply(to, LeaseReplyBody::Answered { number, answer });
    }

    fn open(&mut self) -> LeaseHandle {
        let site = Arc::clone(&self.site);
        let opening = std::thread::spawn(move || {
            site.open("ptl0/drive0".parse().unwrap(), &Control::within(PATIENCE))
        });
        let asked = self.next();
        assert!(matches!(asked.body, LeaseBody::Open { .. }));
        self.reply(&asked, LeaseReplyBody::Opened { lease_ms: 120_000 });
        opening.join().unwrap().unwrap()
    }
}

fn rewind() -> Work {
    Work::Operation(Operation::Rewind)
}

fn work_of(request: &LeaseRequest) -> &Work {
    match &request.body {
        LeaseBody::Perform(numbered) => &numbered.work,
        other => panic!("no work: {other:?}"),
    }
}

#[test]
fn a_holder_that_goes_cancels_its_work_and_the_device_is_freed_behind_it() {
    let mut play = Play::new();
    play.up();
    let lease = play.open();
    lease.submit(&rewind(), &Control::within(PATIENCE)).unwrap();
    let asked = play.next();
    drop(lease);
    assert!(matches!(play.next().body, LeaseBody::Cancel { .. }));
    assert!(play.is_quiet(), "one thing at a time");
    play.answer(&asked, Answer::Failed(TapeError::Cancelled));
    let close = play.next();
    assert_eq!(*work_of(&close), Work::Close);
    play.answer(&close, Answer::Closed);
    play.site.tick();
    assert!(play.is_quiet(), "nothing is left of it");
}

#[test]
fn a_device_is_asked_for_behind_what_its_last_holder_left_under_way() {
    let mut play = Play::new();
    play.up();
    let lease = play.open();
    lease.submit(&rewind(), &Control::within(PATIENCE)).unwrap();
    let asked = play.next();
    drop(lease);
    assert!(matches!(play.next().body, LeaseBody::Cancel { .. }));
    // Nothing is asked while it is not known when the device is given back.
    let impatient = Control::within(Duration::ZERO);
    let refused = play.site.open("ptl0/drive0".parse().unwrap(), &impatient).err();
    assert_eq!(refused, Some(OpenError::Failed(TapeError::TimedOut)));
    assert!(play.is_quiet(), "it was asked for too early");
    play.answer(&asked, Answer::Failed(TapeError::Cancelled));
    assert_eq!(*work_of(&play.next()), Work::Close);
    // From here on the site knows, and puts the opening behind it.
    drop(play.open());
}

#[test]
fn what_is_under_way_when_the_link_breaks_is_closed_when_it_is_back() {
    let mut play = Play::new();
    play.up();
    let mut lease = play.open();
    lease.submit(&rewind(), &Control::within(PATIENCE)).unwrap();
    drop(play.next());
    play.down();
    // A client that goes does not wait for the link.
    let cancel = CancelToken::new();
    cancel.cancel();
    let control = Control::new(PATIENCE, cancel);
    let given_up = lease.await_answer(&control, &mut |_, _| {});
    assert!(matches!(given_up, Err(TapeError::PositionUnknown(_))), "{given_up:?}");
    assert!(lease.is_useless());
    drop(lease);
    play.up();
    assert!(matches!(play.next().body, LeaseBody::Resume));
    let again = play.next();
    assert_eq!(*work_of(&again), rewind());
    assert!(matches!(play.next().body, LeaseBody::Cancel { .. }));
    play.answer(&again, Answer::Outcome(Outcome::Done));
    assert_eq!(*work_of(&play.next()), Work::Close);
}

#[test]
fn a_lease_ends_by_itself_while_the_link_is_down() {
    let mut play = Play::new();
    play.up();
    let mut lease = play.open();
    play.down();
    let begun = std::time::Instant::now();
    // The configuration of the test gives it no time at all; the clock counts milliseconds.
    until("the lease ends", || {
        play.site.tick();
        lease.check().is_err().then_some(())
    });
    let lost = lease.perform(rewind(), &Control::within(PATIENCE), &mut |_, _| {});
    assert!(matches!(lost, Err(TapeError::Lost(_))), "{lost:?}");
    assert!(begun.elapsed() < PATIENCE / 2);
    play.up();
    assert!(matches!(play.next().body, LeaseBody::Resume));
}

#[test]
fn an_opening_that_nobody_waits_for_is_given_back() {
    let mut play = Play::new();
    assert_eq!(
        play.site.open("ptl0/drive0".parse().unwrap(), &Control::within(PATIENCE)).err(),
        Some(OpenError::Down)
    );
    play.up();
    let control = Control::within(Duration::ZERO);
    let opened = play.site.open("ptl0/drive0".parse().unwrap(), &control).err();
    assert_eq!(opened, Some(OpenError::Failed(TapeError::TimedOut)));
    let asked = play.next();
    play.reply(&asked, LeaseReplyBody::Opened { lease_ms: 120_000 });
    assert_eq!(*work_of(&play.next()), Work::Close);
    let unknown = LeaseReply {
        lease: LeaseId(Ulid(1)),
        epoch: 1,
        body: LeaseReplyBody::Opened { lease_ms: 1 },
    };
    play.site.lease_reply(unknown);
}
