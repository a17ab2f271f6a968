//! Where movers of this server find each other.
//!
//! A listening mover is entered here under the address that its session announced. A mover that
//! dials such an address is spliced to it in memory instead of opening a connection to ourselves.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndmp::mover::Flow;
use tokio::sync::oneshot;

use crate::mover::Splice;

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
    caller: oneshot::Sender<Arc<Splice>>,
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
    pub called: oneshot::Receiver<Arc<Splice>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.rendezvous.lock().listeners.retain(|listener| listener.ticket != self.ticket);
    }
}

/// How a dial to one of our own addresses went.
pub enum Dialled {
    /// Spliced.
    Spliced(Arc<Splice>),
    /// The mover there wants data to go the other way.
    WrongWay,
    /// Nobody of ours listens there.
    NotOurs,
}

impl Rendezvous {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a listening mover.
    pub fn wait_at(&self, place: Place, flow: Flow) -> Waiting {
        let (caller, called) = oneshot::channel();
        let mut state = self.lock();
        state.next += 1;
        let ticket = state.next;
        state.listeners.push(Listener { ticket, place, flow, caller });
        Waiting { ticket, rendezvous: self.clone(), called }
    }

    /// Dials: the youngest listener at `place` whose data goes the other way is spliced.
    pub fn dial(&self, place: &Place, flow: Flow) -> Dialled {
        let mut state = self.lock();
        let here = |listener: &&Listener| listener.place == *place;
        if !state.listeners.iter().any(|listener| here(&listener)) {
            return Dialled::NotOurs;
        }
        let fits = |listener: &Listener| here(&listener) && listener.flow != flow;
        let Some(index) = state.listeners.iter().rposition(fits) else {
            return Dialled::WrongWay;
        };
        let splice = Splice::new();
        match state.listeners.remove(index).caller.send(Arc::clone(&splice)) {
            Ok(()) => Dialled::Spliced(splice),
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
        let mut waiting = rendezvous.wait_at(at(7), Flow::ToTape);
        assert!(matches!(rendezvous.dial(&at(8), Flow::FromTape), Dialled::NotOurs));
        assert!(matches!(rendezvous.dial(&at(7), Flow::ToTape), Dialled::WrongWay));
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape), Dialled::Spliced(_)));
        assert!(waiting.called.try_recv().is_ok());
        assert!(matches!(rendezvous.dial(&at(7), Flow::FromTape), Dialled::NotOurs));
    }

    #[test]
    fn a_mover_that_stops_listening_is_not_found() {
        let rendezvous = Rendezvous::default();
        drop(rendezvous.wait_at(Place::Local, Flow::ToTape));
        assert!(matches!(rendezvous.dial(&Place::Local, Flow::FromTape), Dialled::NotOurs));
    }
}
