//! Streams with a peer: a foreign mover's bytes on their way to a drive here, and what a drive
//! here reads on its way back. They belong to the site, not to a connection or a lease: what was
//! received and is on no tape yet waits here for the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use link::{
    Message, Peer, Stream, StreamBody, StreamId, StreamReceiver, StreamReceiverOutput,
    StreamSender, StreamSenderOutput,
};
use model::{EngineId, SiteName};
use store::Store;
use tape::CancelToken;
use tokio::sync::mpsc;

/// The most streams of one site that are kept; the oldest goes first.
const STREAMS_MAX: usize = 64;
/// How often a waiting drive looks at its cancel token.
const LOOK: Duration = Duration::from_millis(100);

/// The streams of every site.
#[derive(Default)]
pub struct Streams {
    sites: Mutex<BTreeMap<SiteName, OfSite>>,
}

#[derive(Default)]
struct OfSite {
    engine: Option<EngineId>,
    /// The pair that the bulk connection belongs to.
    pair: u64,
    way: Arc<Way>,
    open: BTreeMap<StreamId, Arc<Entry>>,
}

/// Where messages of a site go, while it is connected.
#[derive(Default)]
struct Way(Mutex<Option<mpsc::Sender<Message>>>);

impl Way {
    fn set(&self, out: Option<mpsc::Sender<Message>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = out;
    }

    /// Sends, and waits while the connection has enough to do. Without one the message is dropped:
    /// both ends of a stream begin anew then.
    fn send(&self, message: Stream) {
        let out = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(out) = out {
            let _ = out.blocking_send(Message::Stream(message));
        }
    }
}

/// One stream. Its machine is worked by whoever has something for it.
pub struct Entry {
    side: Mutex<Side>,
    changed: Condvar,
    way: Arc<Way>,
    store: Store,
}

enum Side {
    Receiving(Box<StreamReceiver>),
    Sending(Box<StreamSender>),
    Over(String),
}

/// What a receiving stream has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes as were asked.
    Whole(Bytes),
    /// The stream ends with these fewer bytes; none of them for a stream that is all consumed.
    Rest(Bytes),
    /// The token was cancelled.
    Cancelled,
    /// The stream is over before its end.
    Failed(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    fn new(side: Side, way: &Arc<Way>, store: &Store) -> Arc<Self> {
        let (way, store) = (Arc::clone(way), store.clone());
        Arc::new(Self { side: Mutex::new(side), changed: Condvar::new(), way, store })
    }

    /// Does what the machine asks for. Messages leave in their order, since the lock is held.
    fn pump(&self, side: &mut Side) {
        let mut failed = None;
        match side {
            Side::Receiving(receiver) => {
                while let Some(output) = receiver.poll() {
                    match output {
                        StreamReceiverOutput::Send(message) => self.way.send(message),
                        StreamReceiverOutput::NeedMissing { sequence, digests } => {
                            receiver.missing(sequence, &self.store.missing(&digests));
                        }
                        StreamReceiverOutput::ReadChunk { digest } => {
                            // One that can not be read is asked for.
                            let bytes = self.store.chunk(&digest).ok().map(Bytes::from);
                            receiver.chunk(digest, bytes);
                        }
                        StreamReceiverOutput::Failed(error) => failed = Some(error.to_string()),
                    }
                }
            }
            Side::Sending(sender) => {
                while let Some(output) = sender.poll() {
                    match output {
                        StreamSenderOutput::Send(message) => self.way.send(message),
                        StreamSenderOutput::Done => failed = Some("it is finished".to_owned()),
                        StreamSenderOutput::Failed(error) => failed = Some(error.to_string()),
                    }
                }
            }
            Side::Over(_) => {}
        }
        if let Some(why) = failed {
            *side = Side::Over(why);
        }
        self.changed.notify_all();
    }

    fn handle(&self, body: StreamBody) -> Result<(), String> {
        let mut side = lock(&self.side);
        let result = match &mut *side {
            Side::Receiving(receiver) => receiver.handle(body),
            Side::Sending(sender) => sender.handle(body),
            Side::Over(_) => Ok(()),
        };
        self.pump(&mut side);
        result.map_err(|error| error.to_string())
    }

    fn down(&self) {
        match &mut *lock(&self.side) {
            Side::Receiving(receiver) => receiver.on_disconnect(),
            Side::Sending(sender) => sender.on_disconnect(),
            Side::Over(_) => {}
        }
    }

    fn up(&self) {
        let mut side = lock(&self.side);
        // The sender of a received one opens it again; a read one is read again.
        if let Side::Sending(sender) = &mut *side
            && let Err(error) = sender.on_reconnect()
        {
            *side = Side::Over(error.to_string());
        }
        self.pump(&mut side);
    }

    /// Ends the stream here.
    pub fn abort(&self, why: &str) {
        let mut side = lock(&self.side);
        match &mut *side {
            Side::Receiving(receiver) => receiver.abort(why),
            Side::Sending(sender) => sender.abort(why),
            Side::Over(_) => {}
        }
        self.pump(&mut side);
        *side = Side::Over(why.to_owned());
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        match &*lock(&self.side) {
            Side::Receiving(receiver) => receiver.finish() == Some(receiver.consumed()),
            Side::Sending(_) => false,
            Side::Over(_) => true,
        }
    }

    /// Waits for a change, a little while at most.
    fn wait<'a>(&self, side: MutexGuard<'a, Side>) -> MutexGuard<'a, Side> {
        let waited = self.changed.wait_timeout(side, LOOK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Passes over what is before `from`, which is on tape already.
    ///
    /// # Errors
    /// It is gone, or behind `from` already: those bytes are not here any more.
    pub fn seek(&self, from: u64, cancel: &CancelToken) -> Result<(), String> {
        let mut side = lock(&self.side);
        loop {
            let receiver = match &mut *side {
                Side::Receiving(receiver) => receiver,
                Side::Sending(_) => return Err("it goes the other way".to_owned()),
                Side::Over(why) => return Err(why.clone()),
            };
            let at = receiver.consumed();
            if at == from {
                return Ok(());
            }
            if at > from {
                return Err(format!("it stands at byte {at}, behind {from}"));
            }
            if cancel.is_cancelled() {
                return Err("cancelled".to_owned());
            }
            // In steps, since no more can be passed over than was offered.
            let step = usize::try_from(from - at).unwrap_or(usize::MAX).min(64 << 10);
            match receiver.peek(step).map(|_| receiver.consume(step as u64)) {
                Some(_) => self.pump(&mut side),
                None => side = self.wait(side),
            }
        }
    }

    /// The next `length` bytes, or what is left of the stream. They stay until consumed.
    pub fn next(&self, length: usize, cancel: &CancelToken) -> Next {
        let mut side = lock(&self.side);
        loop {
            let receiver = match &*side {
                Side::Receiving(receiver) => receiver,
                Side::Sending(_) => return Next::Failed("it goes the other way".to_owned()),
                Side::Over(why) => return Next::Failed(why.clone()),
            };
            if cancel.is_cancelled() {
                return Next::Cancelled;
            }
            if let Some(bytes) = receiver.peek(length) {
                return Next::Whole(bytes);
            }
            let left = receiver.finish().map(|end| end.saturating_sub(receiver.consumed()));
            let left = left.and_then(|left| usize::try_from(left).ok());
            if let Some(rest) = left.filter(|left| *left < length)
                && let Some(bytes) = receiver.peek(rest)
            {
                return Next::Rest(bytes);
            }
            side = self.wait(side);
        }
    }

    /// The next `length` bytes are on tape.
    pub fn consume(&self, length: u64) {
        let mut side = lock(&self.side);
        if let Side::Receiving(receiver) = &mut *side
            && let Err(error) = receiver.consume(length)
        {
            tracing::error!(%error, "a stream was consumed beyond its end");
        }
        self.pump(&mut side);
    }

    /// Tells the sender how far it was consumed.
    pub fn credit(&self) {
        let mut side = lock(&self.side);
        if let Side::Receiving(receiver) = &mut *side {
            receiver.credit();
        }
        self.pump(&mut side);
    }

    /// Waits until a record of this length may be sent. `false`: the stream is over, or the token
    /// was cancelled.
    pub fn room(&self, length: u64, cancel: &CancelToken) -> bool {
        let mut side = lock(&self.side);
        loop {
            match &*side {
                Side::Sending(sender) if sender.room() >= length => return !cancel.is_cancelled(),
                Side::Sending(_) if !cancel.is_cancelled() => side = self.wait(side),
                _ => return false,
            }
        }
    }

    /// Sends a record; there was room.
    ///
    /// # Errors
    /// The stream is over.
    pub fn record(&self, bytes: &[u8]) -> Result<(), String> {
        let mut side = lock(&self.side);
        let result = match &mut *side {
            Side::Sending(sender) => sender.record(bytes).map_err(|error| error.to_string()),
            Side::Receiving(_) => Err("it goes the other way".to_owned()),
            Side::Over(why) => Err(why.clone()),
        };
        self.pump(&mut side);
        result
    }

    /// The bytes that the other side took, of a stream that is sent.
    pub fn taken(&self) -> u64 {
        match &*lock(&self.side) {
            Side::Sending(sender) => sender.consumed(),
            _ => 0,
        }
    }

    /// Nothing more is sent behind what was.
    pub fn finish(&self) {
        let mut side = lock(&self.side);
        if let Side::Sending(sender) = &mut *side {
            sender.finish();
        }
        self.pump(&mut side);
    }
}

impl OfSite {
    fn add(&mut self, id: StreamId, entry: &Arc<Entry>) {
        self.open.retain(|_, entry| !entry.is_over());
        if self.open.len() >= STREAMS_MAX
            && let Some((_, oldest)) = self.open.pop_first()
        {
            oldest.abort("too many streams are open");
        }
        self.open.insert(id, Arc::clone(entry));
    }
}

impl Streams {
    /// A pair of a site is up. Streams with an earlier run of its engine are over. Blocks.
    pub(crate) fn up(&self, peer: &Peer, pair: u64, bulk: mpsc::Sender<Message>) {
        let open: Vec<_> = {
            let mut sites = lock(&self.sites);
            let site = sites.entry(peer.site.clone()).or_default();
            if site.engine.replace(peer.engine) != Some(peer.engine) {
                site.way.set(None);
                for entry in std::mem::take(&mut site.open).into_values() {
                    entry.abort("the peer was restarted");
                }
            }
            site.pair = pair;
            site.way.set(Some(bulk));
            site.open.values().cloned().collect()
        };
        for entry in open {
            // Whatever a former pair left half said.
            entry.down();
            entry.up();
        }
    }

    /// A pair of a site is over.
    pub(crate) fn down(&self, site: &SiteName, pair: u64) {
        let mut sites = lock(&self.sites);
        let Some(site) = sites.get_mut(site).filter(|site| site.pair == pair) else { return };
        site.way.set(None);
        site.open.values().for_each(|entry| entry.down());
    }

    /// A message of a site. Blocks on the store.
    ///
    /// # Errors
    /// The peer broke a rule.
    pub(crate) fn message(
        &self,
        site: &SiteName,
        message: Stream,
        store: &Store,
    ) -> Result<(), String> {
        let Stream { stream, body } = message;
        let entry = {
            let mut sites = lock(&self.sites);
            let of_site = sites.entry(site.clone()).or_default();
            match (of_site.open.get(&stream), &body) {
                (Some(entry), _) => Arc::clone(entry),
                (None, StreamBody::Open { base, .. }) => {
                    let receiver = Box::new(StreamReceiver::new(stream, *base));
                    let entry = Entry::new(Side::Receiving(receiver), &of_site.way, store);
                    of_site.add(stream, &entry);
                    entry
                }
                // Left over from a stream that has ended.
                (None, _) => return Ok(()),
            }
        };
        entry.handle(body)
    }

    /// A stream that is to be received from `from` on, if it is not here already.
    pub(crate) fn receive(
        &self,
        site: &SiteName,
        id: StreamId,
        from: u64,
        store: &Store,
    ) -> Arc<Entry> {
        let new = || Side::Receiving(Box::new(StreamReceiver::new(id, from)));
        self.entry(site, id, store, new)
    }

    /// A stream that is to be sent.
    pub(crate) fn send(&self, site: &SiteName, id: StreamId, store: &Store) -> Arc<Entry> {
        let new = || Side::Sending(Box::new(StreamSender::new(id)));
        let entry = self.entry(site, id, store, new);
        entry.pump(&mut lock(&entry.side));
        entry
    }

    fn entry(
        &self,
        site: &SiteName,
        id: StreamId,
        store: &Store,
        new: impl FnOnce() -> Side,
    ) -> Arc<Entry> {
        let mut sites = lock(&self.sites);
        let of_site = sites.entry(site.clone()).or_default();
        if let Some(entry) = of_site.open.get(&id) {
            return Arc::clone(entry);
        }
        let entry = Entry::new(new(), &of_site.way, store);
        of_site.add(id, &entry);
        entry
    }

    /// Ends every stream: the engine stops.
    pub(crate) fn clear(&self) {
        for (_, site) in std::mem::take(&mut *lock(&self.sites)) {
            site.way.set(None);
            site.open.values().for_each(|entry| entry.abort("the engine stops"));
        }
    }
}
