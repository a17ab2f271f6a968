//! Data connections: a TCP connection, or a splice of two movers of this server.
//!
//! A *splice* hands over one piece at a time: the source waits until the destination has taken it.
//! So the source is never ahead of what the destination accepted into its window, and the next
//! record is read while the last one is written. Where the engine beside the destination's drive
//! can get the data itself, the source *offers* a reference instead and no byte passes here.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use copy::Holder;
use model::{Barcode, CartridgeId};
use tokio::sync::watch;

use super::Stop;
use super::reference::Extent;

/// What came from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// At least one byte.
    Data,
    /// The other side has closed; nothing follows.
    End,
}

/// One end of a data connection. Dropped, it is broken off, so that nobody waits for its other end
/// in vain.
#[derive(Debug)]
pub enum Connection {
    /// A mover or data service of another host.
    Tcp(TcpStream),
    /// The other mover is in this server.
    Splice(Arc<Splice>),
}

impl Connection {
    /// Appends what is there to `buffer`, not beyond `wanted` bytes in it. Waits for a first byte.
    pub(super) fn receive(
        &mut self,
        buffer: &mut Vec<u8>,
        wanted: usize,
    ) -> Result<Received, Stop> {
        match self {
            Self::Tcp(stream) => receive_tcp(stream, buffer, wanted),
            Self::Splice(splice) => splice.take(buffer, wanted),
        }
    }

    /// Hands a piece to the other side and returns what it did not take: empty, but where a
    /// splice's destination wants a reference for the rest.
    pub(super) fn send(&mut self, piece: Bytes, taken: &mut dyn FnMut()) -> Result<Bytes, Stop> {
        match self {
            Self::Tcp(stream) => match stream.write_all(&piece) {
                Ok(()) => {
                    taken();
                    Ok(Bytes::new())
                }
                Err(error) => Err(stop_of(&error)),
            },
            Self::Splice(splice) => splice.give(piece, taken),
        }
    }

    /// A handle that ends the connection from another thread.
    pub fn closer(&self) -> std::io::Result<Closer> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Closer::Tcp),
            Self::Splice(splice) => Ok(Closer::Splice(Arc::clone(splice))),
        }
    }

    /// The splice, if it is one.
    pub fn splice(&self) -> Option<&Arc<Splice>> {
        match self {
            Self::Tcp(_) => None,
            Self::Splice(splice) => Some(splice),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match self {
            Self::Tcp(stream) => end_tcp(stream),
            Self::Splice(splice) => splice.break_off(),
        }
    }
}

/// Ends a connection for both sides; blocked calls return. Closing it again changes nothing.
#[derive(Debug)]
pub enum Closer {
    /// Of a TCP connection.
    Tcp(TcpStream),
    /// Of a splice.
    Splice(Arc<Splice>),
}

impl Closer {
    /// The stream has come to its end.
    pub fn close(&self) {
        match self {
            Self::Tcp(stream) => end_tcp(stream),
            Self::Splice(splice) => splice.close(),
        }
    }

    /// The stream is broken off, and the other end can tell: over TCP by a reset instead of an end.
    pub fn break_off(&self) {
        match self {
            Self::Tcp(stream) => reset_tcp(stream),
            Self::Splice(splice) => splice.break_off(),
        }
    }
}

fn end_tcp(stream: &TcpStream) {
    // A connection that is gone already needs no shutting down.
    drop(stream.shutdown(Shutdown::Both));
}

/// Blocked calls return as with [`end_tcp`].
fn reset_tcp(stream: &TcpStream) {
    // What the other end has not taken yet is not to be taken for the whole.
    if rustix::net::connect_unspec(stream).is_err() {
        end_tcp(stream);
    }
}

fn receive_tcp(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    wanted: usize,
) -> Result<Received, Stop> {
    let have = buffer.len();
    buffer.resize(wanted, 0);
    let read = loop {
        match stream.read(&mut buffer[have..]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    buffer.truncate(have + *read.as_ref().unwrap_or(&0));
    match read {
        Ok(0) => Ok(Received::End),
        Ok(_) => Ok(Received::Data),
        // Also a reset: what was sent may not all be here, so that this is no end of the stream.
        Err(error) => Err(Stop::Connection(error.to_string())),
    }
}

fn stop_of(error: &std::io::Error) -> Stop {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
            Stop::PeerClosed
        }
        _ => Stop::Connection(error.to_string()),
    }
}

/// What the destination of a splice takes while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// It does not run.
    Nothing,
    /// Bytes.
    Bytes,
    /// A reference to the data.
    Reference,
}

/// What the source has to send next, by name: no filemark is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The cartridge.
    pub cartridge: CartridgeId,
    /// Its volume tag, for the job row.
    pub barcode: Barcode,
    /// The bytes on offer.
    pub extent: Extent,
}

/// What the destination may know of a source that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEnd {
    /// Where its data is.
    pub holder: Holder,
    /// Its medium, for people.
    pub medium: String,
}

#[derive(Debug)]
struct State {
    demand: Demand,
    source: Option<SourceEnd>,
    piece: Option<Bytes>,
    offer: Option<Offer>,
    /// Counts the offers, so that a late word about one is not taken for the next.
    ticket: u64,
    consumed: u64,
    closed: bool,
    /// Closed by a side that did not come to its end.
    broken: bool,
}

/// The meeting point of a source and a destination mover.
#[derive(Debug)]
pub struct Splice {
    state: Mutex<State>,
    changed: Condvar,
    closing: watch::Sender<bool>,
}

/// What the destination finds when it looks for a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It runs, holding data in this way.
    Running(SourceEnd),
    /// It has closed; nothing follows.
    Closed,
}

/// What a destination that asked for a reference gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The offer, its ticket, and how much of it is consumed already.
    Offer(Offer, u64, u64),
    /// The source has closed; nothing follows.
    Closed,
    /// Another source runs now, which may have no references to give: it has to be planned anew.
    OtherSource,
}

impl Splice {
    /// A splice with neither side running.
    pub fn new() -> Arc<Self> {
        let state = State {
            demand: Demand::Nothing,
            source: None,
            piece: None,
            offer: None,
            ticket: 0,
            consumed: 0,
            closed: false,
            broken: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            closing: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection without coming to the end of the stream; nothing changes where it has
    /// ended already.
    pub fn break_off(&self) {
        self.end(true);
    }

    /// Whether a side broke the stream off: what the destination has is not the whole.
    pub fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Ends the connection. The destination still gets what was handed over.
    pub fn close(&self) {
        self.end(false);
    }

    fn end(&self, broken: bool) {
        {
            let mut state = self.lock();
            state.broken |= broken && !state.closed;
            state.closed = true;
        }
        self.changed.notify_all();
        self.closing.send_replace(true);
    }

    /// Ends when either side has closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            // An error says that the splice itself is gone.
            drop(closing.wait_for(|closed| *closed).await);
        }
    }

    // ---- the source's side ----

    /// The source begins to run (`Some`) or stops.
    pub fn source_runs(&self, end: Option<SourceEnd>) {
        self.lock().source = end;
        self.changed.notify_all();
    }

    /// Waits until the destination runs; true if it wants a reference.
    pub fn wants_reference(&self) -> Result<bool, Stop> {
        let mut state = self.lock();
        loop {
            match state.demand {
                _ if state.closed => return Err(Stop::PeerClosed),
                Demand::Nothing => state = self.wait(state),
                Demand::Bytes => return Ok(false),
                Demand::Reference => return Ok(true),
            }
        }
    }

    /// Hands over a piece, waiting until all of it is taken or a reference is wanted; returns the
    /// rest. `taken` is called when the first byte is.
    fn give(&self, piece: Bytes, taken: &mut dyn FnMut()) -> Result<Bytes, Stop> {
        let length = piece.len();
        let mut told = false;
        let mut state = self.lock();
        state.piece = Some(piece);
        self.changed.notify_all();
        loop {
            let left = state.piece.as_ref().map_or(0, Bytes::len);
            if !told && left < length {
                taken();
                told = true;
            }
            match state.demand {
                _ if left == 0 => return Ok(Bytes::new()),
                _ if state.closed => {
                    state.piece = None;
                    return Err(Stop::PeerClosed);
                }
                Demand::Reference => return Ok(state.piece.take().unwrap_or_default()),
                Demand::Nothing | Demand::Bytes => state = self.wait(state),
            }
        }
    }

    /// Offers a reference and waits until the destination has consumed more than `seen` of it,
    /// wants bytes instead, or all is consumed: (bytes consumed, whether the offer still stands).
    pub fn offer(&self, offer: &Offer, seen: u64) -> Result<(u64, bool), Stop> {
        let mut state = self.lock();
        if state.offer.as_ref() != Some(offer) {
            state.offer = Some(offer.clone());
            state.ticket += 1;
            state.consumed = 0;
            self.changed.notify_all();
        }
        loop {
            let consumed = state.consumed;
            let over = consumed >= offer.extent.length || state.demand == Demand::Bytes;
            if over || state.closed {
                state.offer = None;
            }
            match () {
                () if over => return Ok((consumed, false)),
                () if state.closed => return Err(Stop::PeerClosed),
                () if consumed > seen => return Ok((consumed, true)),
                () => state = self.wait(state),
            }
        }
    }

    // ---- the destination's side ----

    /// Waits until the source runs or has closed. Bytes that it handed over count as running.
    pub fn source(&self) -> Source {
        let mut state = self.lock();
        loop {
            match &state.source {
                Some(end) if !state.closed || state.piece.is_some() => {
                    return Source::Running(end.clone());
                }
                _ if state.closed => return Source::Closed,
                _ => state = self.wait(state),
            }
        }
    }

    /// The destination stops running.
    pub fn destination_stops(&self) {
        self.lock().demand = Demand::Nothing;
        self.changed.notify_all();
    }

    /// Takes bytes until `buffer` has `wanted`, at least one; waits for the source.
    fn take(&self, buffer: &mut Vec<u8>, wanted: usize) -> Result<Received, Stop> {
        let mut state = self.lock();
        state.demand = Demand::Bytes;
        self.changed.notify_all();
        loop {
            if let Some(piece) = state.piece.as_mut() {
                let now = piece.split_to(piece.len().min(wanted.saturating_sub(buffer.len())));
                buffer.extend_from_slice(&now);
                if piece.is_empty() {
                    state.piece = None;
                }
                self.changed.notify_all();
                return Ok(Received::Data);
            }
            if state.closed {
                return Ok(Received::End);
            }
            state = self.wait(state);
        }
    }

    /// Asks the source that was planned with for a reference, and waits for it.
    pub fn take_reference(&self, planned: &SourceEnd) -> Taken {
        let mut state = self.lock();
        state.demand = Demand::Reference;
        self.changed.notify_all();
        loop {
            match (&state.offer, &state.source) {
                (Some(offer), _) if state.consumed < offer.extent.length => {
                    return Taken::Offer(offer.clone(), state.ticket, state.consumed);
                }
                _ if state.closed => return Taken::Closed,
                (_, Some(source)) if source != planned => return Taken::OtherSource,
                _ => state = self.wait(state),
            }
        }
    }

    /// Tells the source how much of the offer with this ticket has been consumed.
    pub fn consume(&self, ticket: u64, consumed: u64) {
        let mut state = self.lock();
        if state.ticket == ticket {
            state.consumed = state.consumed.max(consumed);
            self.changed.notify_all();
        }
    }
}
