//! Where movers of this server find each other.
//!
//! A listening mover is entered here under the address that its session announced. A mover that
//! dials such an address is spliced to it in memory instead of opening a connection to ourselves.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndmp::mover::Flow;
use tokio::sync::oneshot;

use crate::mover::{Connection, Splice};

/// What identifies a listening mover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `NDMP_ADDR_LOCAL`: anybody of the same server.
    Local,
    /// A TCP address.
    Tcp(SocketAddrV4),
}

struct Listener {
    ticket: u64,
    place: Place,
    flow: Flow,
    /// The client's host.
    who: String,
    caller: oneshot::Sender<Connection>,
}

#[derive(Default)]
struct State {
    next: u64,
    listeners: Vec<Listener>,
}

/// The listening movers of this server; clones share them.
#[derive(Clone, Default)]
pub struct Rendezvous(Arc<Mutex<State>>);

/// An entry; dropping it takes it back.
pub struct Waiting {
    ticket: u64,
    rendezvous: Rendezvous,
    /// The splice, once somebody dialled.
    pub called: oneshot::Receiver<Connection>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.rendezvous.lock().listeners.retain(|listener| listener.ticket != self.ticket);
    }
}

/// How a dial to one of our own addresses went.
pub enum Dialled {
    /// Spliced.
    Spliced(Connection),
    /// The mover there wants data to go the other way.
    WrongWay,
    /// Several movers wait there, and a guess could be the wrong tape.
    Ambiguous,
    /// Nobody of ours listens there.
    NotOurs,
}

impl Rendezvous {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a mover that listens for the client at host `who`.
    pub fn wait_at(&self, place: Place, flow: Flow, who: &str) -> Waiting {
        let (caller, called) = oneshot::channel();
        let mut state = self.lock();
        state.next += 1;
        let ticket = state.next;
        let who = who.to_owned();
        state.listeners.push(Listener { ticket, place, flow, who, caller });
        Waiting { ticket, rendezvous: self.clone(), called }
    }

    /// Dials for the client at host `who`: a listener at `place` whose data goes the other way is
    /// spliced. The local place is shared by all: there it has to be the only one of that host.
    pub fn dial(&self, place: &Place, flow: Flow, who: &str) -> Dialled {
        let mut state = self.lock();
        let here = |listener: &Listener| {
            listener.place == *place && (*place != Place::Local || listener.who == who)
        };
        if !state.listeners.iter().any(here) {
            return Dialled::NotOurs;
        }
        let fits = |listener: &Listener| here(listener) && listener.flow != flow;
        let mut fitting = (0..state.listeners.len()).filter(|i| fits(&state.listeners[*i]));
        let index = match (fitting.next(), fitting.next()) {
            (None, _) => return Dialled::WrongWay,
            (Some(_), Some(_)) => return Dialled::Ambiguous,
            (Some(index), None) => index,
        };
        let splice = Splice::new();
        let (ours, theirs) = (Arc::clone(&splice), Connection::Splice(splice));
        match state.listeners.remove(index).caller.send(theirs) {
            Ok(()) => Dialled::Spliced(Connection::Splice(ours)),
            Err(_) => Dialled::NotOurs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Place {
        Place::Tcp(SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn movers_meet_once_and_only_in_opposite_directions() {
        let rendezvous = Rendezvous::default();
        let mut waiting = rendezvous.wait_at(at(7), Flow::ToTape, "a");
        assert!(matches!(rendezvous.dial(&at(8), Flow::FromTape, "b"), Dialled::NotOurs));
        assert!(matches!(rendezvous.dial(&at(7), Flow::ToTape, "b"), Dialled::WrongWay));
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape, "b"), Dialled::Spliced(_)));
        assert!(waiting.called.try_recv().is_ok());
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape, "b"), Dialled::NotOurs));
    }

    #[test]
    fn a_mover_that_stops_listening_is_not_found() {
        let rendezvous = Rendezvous::default();
        drop(rendezvous.wait_at(Place::Local, Flow::ToTape, "a"));
        assert!(matches!(rendezvous.dial(&Place::Local, Flow::FromTape, "a"), Dialled::NotOurs));
    }

    #[test]
    fn a_local_mover_is_never_guessed() {
        let rendezvous = Rendezvous::default();
        let _other = rendezvous.wait_at(Place::Local, Flow::ToTape, "b");
        let mut one = rendezvous.wait_at(Place::Local, Flow::ToTape, "a");
        {
            let _two = rendezvous.wait_at(Place::Local, Flow::ToTape, "a");
            let dialled = rendezvous.dial(&Place::Local, Flow::FromTape, "a");
            assert!(matches!(dialled, Dialled::Ambiguous));
        }
        let dialled = rendezvous.dial(&Place::Local, Flow::FromTape, "a");
        assert!(matches!(dialled, Dialled::Spliced(_)));
        assert!(one.called.try_recv().is_ok());
    }

    #[tokio::test]
    async fn a_mover_that_goes_while_it_is_dialled_is_a_closed_connection() {
        let rendezvous = Rendezvous::default();
        let waiting = rendezvous.wait_at(at(7), Flow::ToTape, "a");
        let Dialled::Spliced(ours) = rendezvous.dial(&at(7), Flow::FromTape, "b") else {
            panic!("nobody there");
        };
        // The call is never taken.
        drop(waiting);
        let splice = ours.splice().unwrap();
        splice.closed().await;
        assert!(splice.is_broken());
    }
}
