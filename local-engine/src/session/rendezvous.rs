//! Where movers of this server find each other.
//!
//! A listening mover is entered here under the address that its session announced. A mover that
//! dials such an address is spliced to it in memory instead of opening a connection to ourselves.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::listen::Bell;
use crate::mover::{Connection, Splice};
use ndmp::mover::Flow;

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
    bell: Bell,
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
pub(super) struct Waiting {
    ticket: u64,
    rendezvous: Rendezvous,
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

    /// Enters a mover that listens for the client at host `who`. Its bell has rung when the one who
    /// dials is told that the connection stands.
    pub(super) fn wait_at(&self, place: Place, flow: Flow, who: &str, bell: Bell) -> Waiting {
        let mut state = self.lock();
        state.next += 1;
        let ticket = state.next;
        let who = who.to_owned();
        state.listeners.push(Listener { ticket, place, flow, who, bell });
        Waiting { ticket, rendezvous: self.clone() }
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
        // The one who listens may have been called another way, or be gone: then nobody is there.
        match state.listeners.remove(index).bell.ring(|| Some(Ok(theirs))) {
            true => Dialled::Spliced(Connection::Splice(ours)),
            false => Dialled::NotOurs,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::super::listen::Came;
    use super::*;

    fn at(port: u16) -> Place {
        Place::Tcp(SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))
    }

    fn wait(rendezvous: &Rendezvous, place: Place, who: &str) -> (Waiting, Receiver<Came>) {
        let (told, called) = channel();
        let bell = Bell::new(Box::new(move |came| drop(told.send(came))));
        (rendezvous.wait_at(place, Flow::ToTape, who, bell), called)
    }

    #[test]
    fn movers_meet_once_and_only_in_opposite_directions() {
        let rendezvous = Rendezvous::default();
        let (_waiting, called) = wait(&rendezvous, at(7), "a");
        assert!(matches!(rendezvous.dial(&at(8), Flow::FromTape, "b"), Dialled::NotOurs));
        assert!(matches!(rendezvous.dial(&at(7), Flow::ToTape, "b"), Dialled::WrongWay));
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape, "b"), Dialled::Spliced(_)));
        // Who listens knows it before who dials.
        assert!(called.try_recv().unwrap().is_ok());
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape, "b"), Dialled::NotOurs));
    }

    #[test]
    fn a_mover_that_stops_listening_is_not_found() {
        let rendezvous = Rendezvous::default();
        drop(wait(&rendezvous, Place::Local, "a"));
        assert!(matches!(rendezvous.dial(&Place::Local, Flow::FromTape, "a"), Dialled::NotOurs));
    }

    #[test]
    fn a_local_mover_is_never_guessed() {
        let rendezvous = Rendezvous::default();
        let _other = wait(&rendezvous, Place::Local, "b");
        let (_one, called) = wait(&rendezvous, Place::Local, "a");
        {
            let _two = wait(&rendezvous, Place::Local, "a");
            let dialled = rendezvous.dial(&Place::Local, Flow::FromTape, "a");
            assert!(matches!(dialled, Dialled::Ambiguous));
        }
        let dialled = rendezvous.dial(&Place::Local, Flow::FromTape, "a");
        assert!(matches!(dialled, Dialled::Spliced(_)));
        assert!(called.try_recv().unwrap().is_ok());
    }

    #[test]
    fn a_mover_of_two_addresses_is_called_once() {
        let rendezvous = Rendezvous::default();
        let bell = Bell::new(Box::new(drop));
        let both = [at(7), at(8)].map(|at| rendezvous.wait_at(at, Flow::ToTape, "a", bell.clone()));
        assert!(matches!(rendezvous.dial(&at(8), Flow::FromTape, "b"), Dialled::Spliced(_)));
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape, "b"), Dialled::NotOurs));
        drop(both);
    }

    #[test]
    fn a_mover_that_goes_while_it_is_dialled_is_a_closed_connection() {
        let rendezvous = Rendezvous::default();
        let (waiting, called) = wait(&rendezvous, at(7), "a");
        let Dialled::Spliced(ours) = rendezvous.dial(&at(7), Flow::FromTape, "b") else {
            panic!("nobody there");
        };
        // The call is never taken.
        drop((waiting, called));
        assert!(ours.splice().unwrap().is_broken());
    }
}
