//! How a data connection comes about: a mover that listens, and one that dials.
//!
//! A backup application that has connected to a listening mover, or has let another mover dial it,
//! goes on at once; no message tells it that the connection was noticed here. So it has to be
//! noticed before the next request is looked at, else that would be refused in state LISTEN:
//! [`Doors::look`] takes in what stands at the door.

use std::future::poll_fn;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ndmp::mover::Flow;
use ndmp::tape::{Failure, FailureKind};
use ndmp::wire::Addr;
use tokio::task::JoinHandle;

use super::KEEP_ALIVE;
use super::rendezvous::{Dialled, Place, Rendezvous, Waiting};
use crate::mover::Connection;

/// Hosts that may not call and are turned away before the next message is looked at.
const STRANGERS: usize = 64;
/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// What becomes of a listening mover: the one who came, or why nobody can.
pub(super) type Came = Result<Connection, Failure>;

/// Tells it; called at most once.
pub(super) type Tell = Box<dyn FnOnce(Came) + Send>;

/// Who is told, until somebody came.
#[derive(Clone)]
pub(super) struct Bell(Arc<Mutex<Option<Tell>>>);

impl Bell {
    pub(super) fn new(tell: Tell) -> Self {
        Self(Arc::new(Mutex::new(Some(tell))))
    }

    /// Tells what `came` finds, if it finds something and nobody was faster. To find and to tell is
    /// one step: who looks after another one has found, finds it told.
    pub(super) fn ring(&self, came: impl FnOnce() -> Option<Came>) -> bool {
        let mut tell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tell.is_some()
            && let Some(came) = came()
            && let Some(tell) = tell.take()
        {
            tell(came);
            return true;
        }
        false
    }
}

/// Who may call, by address.
pub(super) type MayCall = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A listening socket, for those who look; its watcher has another handle of it.
struct Door {
    socket: TcpListener,
    bell: Bell,
    may_call: MayCall,
}

/// The listening sockets of one mover.
pub(super) struct Doors {
    doors: Vec<Arc<Door>>,
    watchers: Vec<JoinHandle<()>>,
    /// Entries under which movers of this server find this one.
    _waiting: Vec<Waiting>,
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}

impl Doors {
    /// Waits at the sockets, and as entered; `bell` rings for the first who comes.
    pub(super) fn open(
        sockets: Vec<TcpListener>,
        waiting: Vec<Waiting>,
        bell: &Bell,
        may_call: &MayCall,
    ) -> std::io::Result<Self> {
        let mut doors = Self { doors: Vec::new(), watchers: Vec::new(), _waiting: waiting };
        for socket in sockets {
            let watched = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
            let (bell, may_call) = (bell.clone(), Arc::clone(may_call));
            let door = Arc::new(Door { socket, bell, may_call });
            doors.doors.push(Arc::clone(&door));
            doors.watchers.push(tokio::spawn(poll_fn(move |context| door.poll(&watched, context))));
        }
        Ok(doors)
    }

    /// Takes in who stands at the door already.
    pub(super) fn look(&self) {
        for door in &self.doors {
            door.look();
        }
    }
}

impl Door {
    /// Waits for the one who is let in, by whomever.
    fn poll(&self, watched: &tokio::net::TcpListener, context: &mut Context<'_>) -> Poll<()> {
        let mut nobody = false;
        self.bell.ring(|| {
            loop {
                let Poll::Ready(accepted) = watched.poll_accept(context) else {
                    nobody = true;
                    return None;
                };
                let accepted = accepted.and_then(|(stream, host)| Ok((stream.into_std()?, host)));
                if let came @ Some(_) = self.judge(accepted) {
                    return came;
                }
            }
        });
        if nobody { Poll::Pending } else { Poll::Ready(()) }
    }

    fn look(&self) {
        self.bell.ring(|| {
            for _ in 0..STRANGERS {
                let accepted = self.socket.accept();
                if accepted.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                    return None;
                }
                if let came @ Some(_) = self.judge(accepted) {
                    return came;
                }
            }
            None
        });
    }

    /// What becomes of one who came; nothing of a stranger, and of one who has gone again.
    fn judge(&self, accepted: std::io::Result<(TcpStream, SocketAddr)>) -> Option<Came> {
        match accepted {
            Ok((stream, caller)) if (self.may_call)(caller.ip()) => {
                let taken = blocking(stream).map(Connection::Tcp);
                Some(taken.map_err(|error| failed(&error)))
            }
            Ok((_, caller)) => {
                tracing::warn!(%caller, "NDMP: a data connection of a host that may not is closed");
                None
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted => None,
                _ => Some(Err(failed(&error))),
            },
        }
    }
}

/// Listens at the address, at a free port of the range, or at any.
pub(super) fn listen_at(
    address: Ipv4Addr,
    ports: Option<(u16, u16)>,
) -> std::io::Result<(TcpListener, SocketAddrV4)> {
    let bound = match ports {
        None => TcpListener::bind((address, 0))?,
        Some((first, last)) => bind_within(address, first, last)?,
    };
    bound.set_nonblocking(true)?;
    let port = bound.local_addr()?.port();
    Ok((bound, SocketAddrV4::new(address, port)))
}

fn bind_within(address: Ipv4Addr, first: u16, last: u16) -> std::io::Result<TcpListener> {
    for port in first..=last {
        match TcpListener::bind((address, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    let text = format!("no port from {first} to {last} is free at {address}; widen mover_ports");
    Err(Error::new(ErrorKind::AddrInUse, text))
}

/// Dials the first of the addresses that answers and that `may` be dialled, one of this server's
/// movers without a connection.
pub(super) async fn dial(
    rendezvous: &Rendezvous,
    addr: &Addr,
    (flow, who): (Flow, &str),
    mut may: impl FnMut(SocketAddrV4) -> bool,
) -> Result<Connection, Failure> {
    let refuse = |text: String| Failure::new(FailureKind::Io, text);
    let places: Vec<Place> = match addr {
        Addr::Local => vec![Place::Local],
        Addr::Tcp(list) => list.iter().copied().map(Place::Tcp).collect(),
        Addr::Other(kind) => return Err(refuse(format!("no data connections by {kind}"))),
    };
    let mut last = refuse("no address to dial".into());
    for place in places {
        last = match (rendezvous.dial(&place, flow, who), place) {
            (Dialled::Spliced(connection), _) => return Ok(connection),
            (Dialled::WrongWay, _) => refuse("both movers want to send the same way".into()),
            (Dialled::Ambiguous, _) => {
                refuse("several movers listen locally; use TCP addresses".into())
            }
            (Dialled::NotOurs, Place::Local) => refuse("no mover listens here".into()),
            (Dialled::NotOurs, Place::Tcp(address)) if !may(address) => {
                refuse(format!("{address}: a mover may not dial that; see ndmp.mover_peers"))
            }
            (Dialled::NotOurs, Place::Tcp(address)) => match dial_tcp(address).await {
                Ok(stream) => return Ok(Connection::Tcp(stream)),
                Err(error) => refuse(format!("{address}: {error}")),
            },
        };
    }
    Err(last)
}

async fn dial_tcp(address: SocketAddrV4) -> std::io::Result<TcpStream> {
    let stream = tokio::net::TcpStream::connect(address);
    blocking(tokio::time::timeout(DIAL_TIMEOUT, stream).await??.into_std()?)
}

/// A data connection is read and written by the drive's owner thread.
fn blocking(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    // Little may be under way unseen: a DMA takes what was sent for what was accepted.
    for result in [
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 64 << 10),
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 << 10),
    ] {
        result?;
    }
    keep_alive(&stream, KEEP_ALIVE)?;
    Ok(stream)
}

/// Asks a silent peer for a sign of life after the first time, then so often, so many times.
pub(super) fn keep_alive(
    socket: impl AsFd,
    (idle, interval, probes): (Duration, Duration, u32),
) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, idle)?;
    sockopt::set_tcp_keepintvl(&socket, interval)?;
    sockopt::set_tcp_keepcnt(&socket, probes)?;
    Ok(())
}

fn failed(error: &Error) -> Failure {
    Failure::new(FailureKind::Io, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn doors(count: usize, may_call: bool) -> (Doors, Vec<SocketAddrV4>, Receiver<Came>) {
        let (told, came) = channel();
        let bell = Bell::new(Box::new(move |who| drop(told.send(who))));
        let bound = (0..count).map(|_| listen_at(Ipv4Addr::LOCALHOST, None).unwrap());
        let (sockets, addresses): (Vec<_>, Vec<_>) = bound.unzip();
        let may_call: MayCall = Arc::new(move |_| may_call);
        (Doors::open(sockets, Vec::new(), &bell, &may_call).unwrap(), addresses, came)
    }

    /// The runtime has one thread, and it is busy here: nobody but `look` can notice.
    #[tokio::test]
    async fn who_stands_at_the_door_is_noticed_at_once() {
        let (doors, addresses, came) = doors(2, true);
        doors.look();
        assert!(came.try_recv().is_err());
        let _first = TcpStream::connect(addresses[1]).unwrap();
        let _second = TcpStream::connect(addresses[0]).unwrap();
        doors.look();
        assert!(came.try_recv().unwrap().is_ok());
        doors.look();
        assert!(came.try_recv().is_err(), "only one is let in");
    }

    #[tokio::test]
    async fn a_stranger_is_not_let_in() {
        let (doors, addresses, came) = doors(1, false);
        let mut stranger = TcpStream::connect(addresses[0]).unwrap();
        doors.look();
        assert!(came.try_recv().is_err());
        assert_eq!(std::io::Read::read(&mut stranger, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn ports_are_of_the_range() {
        let (first, at) = listen_at(Ipv4Addr::LOCALHOST, None).unwrap();
        let range = Some((at.port(), at.port()));
        let full = listen_at(Ipv4Addr::LOCALHOST, range).unwrap_err();
        assert!(full.to_string().contains("mover_ports"), "{full}");
        drop(first);
        assert_eq!(listen_at(Ipv4Addr::LOCALHOST, range).unwrap().1, at);
    }
}
