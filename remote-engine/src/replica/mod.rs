//! Generations that arrive from a peer: `link::Receiver` with the store and the rows around it.

mod arrival;
mod base;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use link::{
    Begin, FailWhy, Failure, Message, Peer, Receiver, Replicate, ReplicateBody, TransferId,
};
use model::GenerationId;
use tokio::sync::mpsc;

use crate::engine::Ground;
use arrival::Arrival;

/// Transfers of one pair at once.
const TRANSFERS_MAX: usize = 16;
/// Messages of one transfer that wait for the store. Its credit bounds their bytes.
const QUEUE: usize = 256;

/// The transfers under way, over all pairs.
#[derive(Default)]
pub struct Replicas {
    /// The newest attempt for each generation: only that one writes its state.
    newest: Mutex<HashMap<GenerationId, TransferId>>,
    threads: Mutex<usize>,
    idle: Condvar,
}

impl Replicas {
    fn newest(&self) -> MutexGuard<'_, HashMap<GenerationId, TransferId>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, generation: GenerationId, transfer: TransferId) {
        self.newest().insert(generation, transfer);
    }

    fn is_newest(&self, generation: GenerationId, transfer: TransferId) -> bool {
        self.newest().get(&generation) == Some(&transfer)
    }

    fn end(&self, generation: GenerationId, transfer: TransferId) {
        let mut newest = self.newest();
        if newest.get(&generation) == Some(&transfer) {
            newest.remove(&generation);
        }
    }

    fn threads(&self) -> MutexGuard<'_, usize> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no transfer has a thread; its connections are gone. Blocks.
    pub fn wait_idle(&self) {
        let threads = self.threads();
        drop(self.idle.wait_while(threads, |threads| *threads > 0));
    }
}

/// Counts a thread while it lives.
struct Counted(Arc<Ground>);

impl Counted {
    fn new(ground: Arc<Ground>) -> Self {
        *ground.replicas.threads() += 1;
        Self(ground)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.replicas.threads() -= 1;
        self.0.replicas.idle.notify_all();
    }
}

/// A message of a transfer and its length on the wire.
type Incoming = (ReplicateBody, u64);

/// The transfers of one pair. Dropped, it ends them all; chunks that arrived stay.
pub(crate) struct Transfers {
    ground: Arc<Ground>,
    peer: Peer,
    bulk: mpsc::Sender<Message>,
    open: BTreeMap<TransferId, mpsc::Sender<Incoming>>,
}

impl Transfers {
    pub(crate) fn new(ground: Arc<Ground>, peer: Peer, bulk: mpsc::Sender<Message>) -> Self {
        Self { ground, peer, bulk, open: BTreeMap::new() }
    }

    /// Hands a message to its transfer; waits while that has enough to do.
    pub(crate) async fn message(&mut self, message: Replicate, length: u64) {
        let Replicate { transfer, body } = message;
        match body {
            ReplicateBody::Begin(begin) if !self.open.contains_key(&transfer) => {
                self.open.retain(|_, inbox| !inbox.is_closed());
                if let Err(cause) = self.begin(transfer, begin, length) {
                    let failure = Failure { why: FailWhy::Refused, text: cause };
                    let body = ReplicateBody::Failed(failure);
                    // Without the connection there is nobody to tell.
                    let _ = self.bulk.send(Message::Replicate(Replicate { transfer, body })).await;
                }
            }
            body => {
                let Some(inbox) = self.open.get(&transfer) else { return };
                // A transfer that has ended says so itself.
                if inbox.send((body, length)).await.is_err() {
                    self.open.remove(&transfer);
                }
            }
        }
    }

    fn begin(&mut self, transfer: TransferId, begin: Begin, length: u64) -> Result<(), String> {
        if self.open.len() >= TRANSFERS_MAX {
            return Err(format!("{TRANSFERS_MAX} transfers are under way"));
        }
        let (inbox, messages) = mpsc::channel(QUEUE);
        let (ground, bulk) = (Arc::clone(&self.ground), self.bulk.clone());
        let peer = self.peer.clone();
        let counted = Counted::new(Arc::clone(&ground));
        let thread = std::thread::Builder::new().name("replica".to_owned());
        let receiver = Receiver::new(transfer, begin.clone());
        thread
            .spawn(move || {
                let arrival = Arrival::new(ground, peer, begin, receiver, bulk, length);
                arrival.run(messages);
                drop(counted);
            })
            .map_err(|error| format!("no thread: {error}"))?;
        self.open.insert(transfer, inbox);
        Ok(())
    }
}
