//! The wire between two processes, with a hand on it: it counts, and it can be cut, stalled,
//! delayed and narrowed.
//!
//! Each connection has, for each direction, a thread that reads and one that delivers, joined by a
//! bounded queue, so that a delay does not narrow the wire and a stall fills buffers as a real one
//! would. A narrow wire is shared by all connections in the order in which they come to it, and is
//! never idle while one of them has bytes for it.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the side that dialled (the local engine) to the side that listens.
    Up = 0,
    /// Back.
    Down = 1,
}

/// The largest piece read at once.
const PIECE: usize = 32 * 1024;
/// Pieces on the way in one direction of one connection; with [`PIECE`] what a long fat pipe holds.
const IN_FLIGHT: usize = 64;
/// How long bytes wait at most before a narrowed wire: until then they stay with their sender.
const QUEUE: Duration = Duration::from_millis(5);

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    counted: [u64; 2],
    hooks: Vec<(Direction, u64, Hook)>,
    stalled: bool,
    refusing: bool,
    closed: bool,
    delay: Duration,
    /// Bytes per second, each direction by itself.
    bandwidth: Option<u64>,
    /// When the last byte so far of each direction has left a narrowed wire.
    busy_until: [Option<Instant>; 2],
    /// Both ends of every connection, to cut them.
    sockets: Vec<TcpStream>,
}

#[derive(Default)]
struct Wire {
    state: Mutex<State>,
    changed: Condvar,
}

/// A TCP relay on loopback.
pub struct Relay {
    address: SocketAddr,
    wire: Arc<Wire>,
}

impl Relay {
    /// A relay that dials `target` for each connection it accepts.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let wire = Arc::new(Wire::default());
        let for_accepting = wire.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if for_accepting.state().closed {
                    return;
                }
                for_accepting.connect(client, target);
            }
        });
        Self { address, wire }
    }

    /// Where to dial it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went one way so far, as TCP carried them (TLS and all).
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.wire.state().counted[direction as usize]
    }

    /// Bytes that went both ways so far.
    pub fn total(&self) -> u64 {
        self.wire.state().counted.iter().sum()
    }

    /// Calls `hook` once, when so many more bytes have gone that way, before any further byte is
    /// delivered. It may kill an engine or [`cut`](Self::cut) through a clone of this relay's
    /// [`scissors`](Self::scissors).
    pub fn at(&self, direction: Direction, bytes: u64, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.wire.state();
        let at = state.counted[direction as usize] + bytes;
        state.hooks.push((direction, at, Box::new(hook)));
    }

    /// Cuts every connection; new ones are accepted again.
    pub fn cut(&self) {
        self.wire.cut();
    }

    /// Cuts every connection and refuses new ones (closes them at once) until
    /// [`join`](Self::join).
    pub fn part(&self) {
        self.wire.state().refusing = true;
        self.wire.cut();
    }

    /// Accepts connections again after [`part`](Self::part).
    pub fn join(&self) {
        self.wire.state().refusing = false;
    }

    /// Nothing is delivered any more, yet nothing is closed.
    pub fn stall(&self) {
        self.wire.set(|s| s.stalled = true);
    }

    /// Delivers again after [`stall`](Self::stall).
    pub fn resume(&self) {
        self.wire.set(|s| s.stalled = false);
    }

    /// Every byte takes so long, each way.
    pub fn delay(&self, one_way: Duration) {
        self.wire.set(|s| s.delay = one_way);
    }

    /// At most so many bytes per second, each way; `None` for no limit.
    pub fn bandwidth(&self, bytes_per_second: Option<u64>) {
        self.wire.set(|s| {
            s.bandwidth = bytes_per_second;
            s.busy_until = [None; 2];
        });
    }

    /// Something that cuts this relay's connections from another thread or from a hook.
    pub fn scissors(&self) -> impl Fn() + Send + 'static {
        let wire = self.wire.clone();
        move || wire.cut()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.wire.set(|s| s.closed = true);
        self.wire.cut();
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay on {}, {} bytes", self.address, self.total())
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn cut(&self) {
        for socket in self.state().sockets.drain(..) {
            drop(socket.shutdown(Shutdown::Both));
        }
        self.changed.notify_all();
    }

    fn connect(self: &Arc<Self>, client: TcpStream, target: SocketAddr) {
        // A closed client is what a dialler meets when nobody listens behind a router.
        if self.state().refusing {
            return;
        }
        let Ok(server) = TcpStream::connect(target) else { return };
        let ends = [(&client, &server, Direction::Up), (&server, &client, Direction::Down)];
        for (from, to, direction) in ends {
            drop(from.set_nodelay(true));
            let clone = |s: &TcpStream| s.try_clone().expect("a socket can be cloned");
            let (reader, writer, kept) = (clone(from), clone(to), clone(from));
            self.state().sockets.push(kept);
            let (send, receive) = sync_channel(IN_FLIGHT);
            let wire = self.clone();
            thread::spawn(move || wire.take(reader, &send, direction));
            let wire = self.clone();
            thread::spawn(move || wire.deliver(writer, &receive, direction));
        }
    }

    /// Reads pieces as fast as the wire takes them, each with the time when its last byte is on it.
    fn take(
        &self,
        mut from: TcpStream,
        pieces: &SyncSender<(Instant, Vec<u8>)>,
        direction: Direction,
    ) {
        let mut buffer = vec![0; PIECE];
        loop {
            self.wait_free(direction);
            match from.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    let piece = (self.put_on(n, direction), buffer[..n].to_vec());
                    if pieces.send(piece).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Waits until little stands before a narrowed wire.
    fn wait_free(&self, direction: Direction) {
        let mut state = self.state();
        loop {
            let busy = state.busy_until[direction as usize];
            let left = busy.and_then(|busy| busy.checked_duration_since(Instant::now() + QUEUE));
            let Some(left) = left.filter(|_| !state.closed && state.bandwidth.is_some()) else {
                return;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When so many bytes that come now have left a narrowed wire.
    fn put_on(&self, length: usize, direction: Direction) -> Instant {
        let (mut state, now) = (self.state(), Instant::now());
        let Some(rate) = state.bandwidth else { return now };
        let busy = &mut state.busy_until[direction as usize];
        let start = busy.map_or(now, |busy| busy.max(now));
        let sent = start + Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
        *busy = Some(sent);
        sent
    }

    /// Writes pieces when they are due.
    fn deliver(
        &self,
        mut to: TcpStream,
        pieces: &Receiver<(Instant, Vec<u8>)>,
        direction: Direction,
    ) {
        while let Ok((sent, piece)) = pieces.recv() {
            self.wait_due(sent);
            for hook in self.count(piece.len(), direction) {
                hook();
            }
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    }

    /// Waits out delay and stall, whatever they become meanwhile.
    fn wait_due(&self, sent: Instant) {
        let mut state = self.state();
        loop {
            let left = (sent + state.delay).checked_duration_since(Instant::now());
            state = match left {
                _ if state.closed => return,
                None if !state.stalled => return,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Counts, and gives the hooks whose time has come.
    fn count(&self, length: usize, direction: Direction) -> Vec<Hook> {
        let mut state = self.state();
        let way = direction as usize;
        state.counted[way] += length as u64;
        let counted = state.counted[way];
        let due = |h: &mut (Direction, u64, Hook)| h.0 == direction && h.1 <= counted;
        state.hooks.extract_if(.., due).map(|(_, _, hook)| hook).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A server that sends back what it gets, and a relay before it.
    fn echo() -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut peer in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut back = peer.try_clone().unwrap();
                    std::io::copy(&mut peer, &mut back)
                });
            }
        });
        Relay::to(target)
    }

    fn dial(relay: &Relay) -> TcpStream {
        let stream = TcpStream::connect(relay.address()).unwrap();
        stream.set_read_timeout(Some(crate::wait::PATIENCE)).unwrap();
        stream
    }

    #[test]
    fn bytes_come_back_equal_and_are_counted_each_way() {
        let relay = echo();
        let sent = crate::Rng::new(5).bytes(3_000_000);
        let (mut out, mut back) = (dial(&relay), Vec::new());
        let mut reading = out.try_clone().unwrap();
        let to_send = sent.clone();
        let writer = thread::spawn(move || {
            out.write_all(&to_send).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        reading.read_to_end(&mut back).unwrap();
        writer.join().unwrap();
        assert!(back == sent);
        assert_eq!(relay.bytes(Direction::Up), 3_000_000);
        assert_eq!(relay.bytes(Direction::Down), 3_000_000);
    }

    #[test]
    fn a_hook_fires_once_at_its_byte_and_can_cut() {
        let relay = echo();
        let (fired, news) = channel();
        let cut = relay.scissors();
        relay.at(Direction::Up, 10, move || {
            cut();
            fired.send(()).unwrap();
        });
        let mut stream = dial(&relay);
        stream.write_all(b"12345678").unwrap();
        let mut eight = [0; 8];
        stream.read_exact(&mut eight).unwrap();
        assert!(news.try_recv().is_err());
        stream.write_all(b"90").unwrap();
        news.recv_timeout(crate::wait::PATIENCE).unwrap();
        assert!(matches!(stream.read(&mut eight), Ok(0) | Err(_)));
        assert!(dial(&relay).write_all(b"again").is_ok());
    }

    #[test]
    fn a_stall_holds_bytes_back_and_a_delay_and_a_narrow_wire_take_their_time() {
        let relay = echo();
        let mut stream = dial(&relay);
        relay.stall();
        stream.write_all(b"x").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let mut one = [0; 1];
        assert!(stream.read(&mut one).is_err());
        stream.set_read_timeout(Some(crate::wait::PATIENCE)).unwrap();
        relay.resume();
        stream.read_exact(&mut one).unwrap();

        relay.delay(Duration::from_millis(20));
        relay.bandwidth(Some(100_000));
        let begin = Instant::now();
        stream.write_all(&[7; 2000]).unwrap();
        stream.read_exact(&mut [0; 2000]).unwrap();
        // 20 ms each way for the delay and 20 ms each way for the width.
        assert!(begin.elapsed() >= Duration::from_millis(75), "{:?}", begin.elapsed());
    }

    /// With a long delay a second connection once took the wire for as long as the delay.
    #[test]
    fn a_narrow_wire_is_shared_in_the_order_of_coming_whatever_the_delay() {
        let relay = echo();
        relay.delay(Duration::from_secs(3600));
        relay.bandwidth(Some(1000));
        let first = relay.wire.put_on(1_000_000, Direction::Up);
        let second = relay.wire.put_on(500, Direction::Up);
        let third = relay.wire.put_on(2000, Direction::Up);
        assert_eq!(second - first, Duration::from_millis(500));
        assert_eq!(third - second, Duration::from_secs(2));
        assert!(relay.wire.put_on(500, Direction::Down) < first, "the other way is free");
    }

    #[test]
    fn parted_sides_meet_again_only_when_joined() {
        let relay = echo();
        relay.part();
        let mut stream = dial(&relay);
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
        relay.join();
        let mut stream = dial(&relay);
        stream.write_all(b"y").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
}
