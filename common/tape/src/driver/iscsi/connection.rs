//! A TCP connection with a session on it.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use iscsi::{
    Action, Completion, Decoder, Digests, Direction, Kind, Limits, Login, LoginError, LoginOptions,
    Pairs, Payload, Pdu, Session, Step, encode,
};

use super::IscsiOptions;

/// A read looks this often at what else there is to do.
const SLICE: Duration = Duration::from_secs(1);
/// After this long without a word the target is asked whether it is there.
const QUIET: Duration = Duration::from_secs(10);
/// How long it may take to answer that.
const PONG: Duration = Duration::from_secs(20);
/// How long the network may take no byte of ours.
const STALLED: Duration = Duration::from_secs(60);
/// How long a request of task management may take.
const MANAGE: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often a target may send us elsewhere.
const MOVES_MAX: usize = 2;

/// Why a connection is of no more use.
pub(super) type Broken = String;

/// How a command ended.
pub(super) enum Ended {
    /// With an answer.
    Done(Completion),
    /// The target was made to forget it in time; whether it was done is unknown.
    TimedOut,
}

/// What came of a wait.
enum Came {
    Pdu(Pdu),
    Nothing,
}

pub(super) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    session: Session,
    /// The digests of what we send.
    digests: Digests,
    timeout: Duration,
    /// When the target was last heard of.
    heard: Instant,
    /// The target wants the connection to end.
    is_leaving: bool,
    /// The data segment of the last PDU.
    data: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("session", &self.session).finish_non_exhaustive()
    }
}

fn broken(error: impl std::fmt::Display) -> Broken {
    error.to_string()
}

impl Connection {
    /// Connects and logs in.
    pub(super) fn open(
        portal: &str,
        kind: &Kind,
        options: &IscsiOptions,
        isid: [u8; 6],
        deadline: Instant,
    ) -> Result<Self, Broken> {
        let mut portal = portal.to_owned();
        for _ in 0..=MOVES_MAX {
            let stream = connect(&portal, deadline)?;
            match Self::log_in(stream, kind, options, isid, deadline)? {
                Ok(connection) => return Ok(connection),
                Err(LoginError::Moved(elsewhere)) => portal = elsewhere,
                Err(error) => return Err(broken(error)),
            }
        }
        Err(broken("the target sends us from one address to the other"))
    }

    fn log_in(
        stream: TcpStream,
        kind: &Kind,
        options: &IscsiOptions,
        isid: [u8; 6],
        deadline: Instant,
    ) -> Result<Result<Self, LoginError>, Broken> {
        stream.set_nodelay(true).map_err(broken)?;
        stream.set_write_timeout(Some(STALLED)).map_err(broken)?;
        stream.set_read_timeout(Some(SLICE)).map_err(broken)?;
        let mut random = [0; iscsi::CHALLENGE + 1];
        getrandom::fill(&mut random).map_err(broken)?;
        let (mut login, mut request, mut text) = Login::new(LoginOptions {
            initiator: options.initiator.clone(),
            kind: kind.clone(),
            credentials: options.credentials.clone(),
            digests: options.digests,
            isid,
            random,
        });
        let mut connection = Self {
            stream,
            decoder: Decoder::new(Digests::default(), Limits::INITIAL.take),
            session: Session::new(Limits::INITIAL, 1, 0, 0),
            digests: Digests::default(),
            timeout: SLICE,
            heard: Instant::now(),
            is_leaving: false,
            data: Vec::new(),
        };
        loop {
            connection.write(&request.into(), &text)?;
            let Came::Pdu(Pdu::LoginResponse(response)) = connection.wait(deadline)? else {
                return Err(broken("the target does not answer the login"));
            };
            match login.receive(&response, &connection.data) {
                Ok(Step::Send(next, with)) => (request, text) = (next, with),
                Ok(Step::Done(session)) => {
                    let limits = *session.limits();
                    connection.decoder.agree(limits.digests, limits.take);
                    connection.digests = limits.digests;
                    connection.session = *session;
                    return Ok(Ok(connection));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Sends one PDU with its data.
    fn write(&mut self, pdu: &Pdu, data: &[u8]) -> Result<(), Broken> {
        let (head, tail) = encode(pdu, data, self.digests);
        let mut parts = [IoSlice::new(&head), IoSlice::new(data), IoSlice::new(&tail)];
        let mut rest = &mut parts[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.stream.write_vectored(rest) {
                Ok(0) => return Err(broken("the target takes no more bytes")),
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(())
    }

    /// Waits for a PDU until `deadline`; its data segment is then in `data`.
    fn wait(&mut self, deadline: Instant) -> Result<Came, Broken> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Came::Nothing);
            }
            // Less than a slice is worth a system call only near the end.
            let timeout = left.min(SLICE);
            if timeout != self.timeout {
                self.stream.set_read_timeout(Some(timeout)).map_err(broken)?;
                self.timeout = timeout;
            }
            if let Some(pdu) = self.read()? {
                return Ok(Came::Pdu(pdu));
            }
        }
    }

    /// One read; the PDU that it made whole.
    fn read(&mut self) -> Result<Option<Pdu>, Broken> {
        let count = match self.stream.read(self.decoder.space()) {
            Ok(0) => return Err(broken("the target closed the connection")),
            Ok(count) => count,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        Ok(None)
                    }
                    _ => Err(broken(error)),
                };
            }
        };
        self.heard = Instant::now();
        match self.decoder.filled(count).map_err(broken)? {
            None => Ok(None),
            Some((pdu, data)) => {
                self.data.clear();
                self.data.extend_from_slice(data);
                Ok(Some(pdu))
            }
        }
    }

    /// Sends what the session wants sent; what else it has to say comes back.
    fn flush(&mut self, out: &[u8]) -> Result<Option<Action>, Broken> {
        while let Some(action) = self.session.next_action() {
            match action {
                Action::Send(pdu, Payload::Data(range)) => {
                    let data = out.get(range).ok_or_else(|| broken("data out of range"))?;
                    self.write(&pdu, data)?;
                }
                Action::Send(pdu, Payload::Bytes(bytes)) => self.write(&pdu, &bytes)?,
                Action::Leave => self.is_leaving = true,
                Action::Pong => {}
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    /// The next thing that the session has to say until `deadline`. While the target is silent it
    /// is asked whether it is there: a LOCATE may take an hour, a dead host does not answer.
    fn next(
        &mut self,
        out: &[u8],
        into: &mut [u8],
        deadline: Instant,
    ) -> Result<Option<Action>, Broken> {
        loop {
            if let Some(action) = self.flush(out)? {
                return Ok(Some(action));
            }
            let quiet = self.heard + if self.session.is_pinging() { QUIET + PONG } else { QUIET };
            match self.wait(deadline.min(quiet))? {
                Came::Pdu(pdu) => {
                    self.session.receive(&pdu, &self.data, into).map_err(broken)?;
                }
                Came::Nothing if Instant::now() >= deadline => return Ok(None),
                Came::Nothing if self.session.is_pinging() => {
                    return Err(broken("the target does not answer a ping"));
                }
                Came::Nothing => self.session.ping(),
            }
        }
    }

    /// Looks what came while nobody waited for anything, without waiting.
    pub(super) fn look(&mut self) -> Result<(), Broken> {
        self.stream.set_nonblocking(true).map_err(broken)?;
        let looked = self.look_without_waiting();
        self.stream.set_nonblocking(false).map_err(broken)?;
        looked?;
        if self.session.is_pinging() && self.heard.elapsed() > QUIET + PONG {
            return Err(broken("the target does not answer a ping"));
        }
        if self.heard.elapsed() > QUIET {
            self.session.ping();
        }
        self.flush(&[])?;
        match self.is_leaving {
            true => Err(broken("the target ends the connection")),
            false => Ok(()),
        }
    }

    fn look_without_waiting(&mut self) -> Result<(), Broken> {
        loop {
            let heard = self.heard;
            match self.read()? {
                Some(pdu) => {
                    self.session.receive(&pdu, &self.data, &mut []).map_err(broken)?;
                }
                None if self.heard == heard => return Ok(()),
                None => {}
            }
        }
    }

    /// Waits until the target takes a command.
    pub(super) fn await_room(&mut self, deadline: Instant) -> Result<(), Broken> {
        self.heard = Instant::now();
        while !self.session.is_open() {
            if self.next(&[], &mut [], deadline.min(Instant::now() + SLICE))?.is_none()
                && Instant::now() >= deadline
            {
                return Err(broken("the target takes no command"));
            }
        }
        Ok(())
    }

    /// Sends a command and waits for its end.
    pub(super) fn execute(
        &mut self,
        lun: u64,
        cdb: &[u8],
        out: &[u8],
        into: &mut [u8],
        deadline: Instant,
    ) -> Result<Ended, Broken> {
        let direction = match (out.is_empty(), into.is_empty()) {
            (false, _) => Direction::Out(out.len()),
            (true, false) => Direction::In(into.len()),
            (true, true) => Direction::None,
        };
        self.heard = Instant::now();
        self.session.command(lun, cdb, direction).map_err(broken)?;
        // First the command alone, then with ABORT TASK, then with LOGICAL UNIT RESET.
        let mut deadline = deadline;
        for attempt in 0..3 {
            loop {
                match self.next(out, into, deadline)? {
                    Some(Action::Done(completion)) => return Ok(Ended::Done(completion)),
                    Some(Action::Managed(true)) => return Ok(Ended::TimedOut),
                    Some(Action::Managed(false)) | None => break,
                    Some(_) => {}
                }
            }
            if attempt < 2 {
                tracing::warn!(attempt, "a command got no answer in time and is aborted");
                self.session.manage(lun, attempt == 1);
                deadline = Instant::now() + MANAGE;
            }
        }
        Err(broken("the target does not answer task management"))
    }

    /// LOGICAL UNIT RESET.
    pub(super) fn reset(&mut self, lun: u64) -> Result<(), Broken> {
        self.heard = Instant::now();
        self.session.manage(lun, true);
        let deadline = Instant::now() + MANAGE;
        while let Some(action) = self.next(&[], &mut [], deadline)? {
            match action {
                Action::Managed(true) => return Ok(()),
                Action::Managed(false) => return Err(broken("the target does not reset")),
                _ => {}
            }
        }
        Err(broken("the target does not answer task management"))
    }

    /// Asks in text.
    pub(super) fn ask(&mut self, pairs: &Pairs, deadline: Instant) -> Result<Pairs, Broken> {
        self.session.ask(pairs);
        while let Some(action) = self.next(&[], &mut [], deadline)? {
            if let Action::Text(pairs) = action {
                return Ok(pairs);
            }
        }
        Err(broken("the target does not answer"))
    }

    /// Logs out; whoever does not answer is left anyway.
    pub(super) fn close(mut self) {
        self.session.log_out();
        let deadline = Instant::now() + GOODBYE;
        while let Ok(Some(action)) = self.next(&[], &mut [], deadline) {
            if action == Action::LoggedOut {
                break;
            }
        }
    }
}

fn connect(portal: &str, deadline: Instant) -> Result<TcpStream, Broken> {
    let mut last = format!("{portal} has no address");
    for address in portal.to_socket_addrs().map_err(|error| format!("{portal}: {error}"))? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}
