//! Who is connected, and how to send to them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use link::{Capabilities, Goodbye, GoodbyeReason, Message, Peer};
use model::SiteName;
use tokio::sync::{mpsc, watch};

/// Messages that wait for one connection. A peer that does not take them is cut off.
pub(crate) const QUEUE: usize = 1024;

/// The sending side of one pair of connections.
pub(crate) struct Pair {
    pub(crate) peer: Peer,
    pub(crate) control: mpsc::Sender<Message>,
    pub(crate) bulk: mpsc::Sender<Message>,
    /// Takes the pair down, with these words.
    pub(crate) end: watch::Sender<Option<Goodbye>>,
}

/// The newest pair of each site.
#[derive(Default)]
pub struct Peers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pairs: BTreeMap<SiteName, (u64, Pair)>,
    next: u64,
}

/// The words of a pair's end.
pub(crate) fn goodbye(reason: GoodbyeReason, text: impl Into<String>) -> Goodbye {
    Goodbye { reason, text: text.into() }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pair takes the place of an older one of the same site, which is told so.
    pub(crate) fn add(&self, pair: Pair) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        if let Some((_, old)) = state.pairs.insert(pair.peer.site.clone(), (number, pair)) {
            let words = goodbye(GoodbyeReason::Replaced, "a newer pair took over");
            old.end.send_replace(Some(words));
        }
        number
    }

    /// A pair is over.
    pub(crate) fn remove(&self, site: &SiteName, number: u64) {
        let mut state = self.lock();
        if state.pairs.get(site).is_some_and(|(known, _)| *known == number) {
            state.pairs.remove(site);
        }
    }

    /// Whether no newer pair took over.
    pub(crate) fn is_newest(&self, site: &SiteName, number: u64) -> bool {
        self.lock().pairs.get(site).is_some_and(|(known, _)| *known == number)
    }

    /// Sends on the control connection of a site, if it is connected. Never waits.
    pub fn send(&self, site: &SiteName, message: Message) {
        let state = self.lock();
        let Some((_, pair)) = state.pairs.get(site) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = pair.control.try_send(message) {
            let words = goodbye(GoodbyeReason::Protocol, "the peer does not read");
            pair.end.send_replace(Some(words));
        }
    }

    /// Takes the pair of a site down because the peer broke a rule.
    pub fn end(&self, site: &SiteName, why: &str) {
        if let Some((_, pair)) = self.lock().pairs.get(site) {
            tracing::warn!(%site, why, "the peer broke a rule of the link");
            pair.end.send_replace(Some(goodbye(GoodbyeReason::Protocol, why)));
        }
    }

    /// The bulk connections of the sites that are connected and understand these.
    pub(crate) fn bulk_ways(&self, these: Capabilities) -> Vec<(SiteName, mpsc::Sender<Message>)> {
        let state = self.lock();
        let can = state.pairs.iter().filter(|(_, (_, pair))| pair.peer.capabilities.has(these));
        can.map(|(site, (_, pair))| (site.clone(), pair.bulk.clone())).collect()
    }

    /// The connected sites.
    pub fn connected(&self) -> Vec<Peer> {
        self.lock().pairs.values().map(|(_, pair)| pair.peer.clone()).collect()
    }
}
