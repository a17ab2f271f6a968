//! One control connection, as the application sees it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ndmp::auth;
use ndmp::wire::{
    AuthAttr, AuthData, AuthType, ConnectionReason, ErrorCode, Header, MessageCode, Post, Reply,
    ReplyBody, Request, Version, bounds,
};
use xdr::{Limits, Reader, Reassembler};
use zeroize::Zeroizing;

use crate::DmaError;

/// How many notifications may wait: a server that posts more without being asked is broken.
const NOTICES: usize = 1024;
/// How many log lines are kept; older ones are forgotten.
const LOG_LINES: usize = 1000;
/// How much is read from the socket at once.
const CHUNK: usize = 64 * 1024;
/// What the server may send.
const LIMITS: Limits = Limits { record: bounds::MESSAGE, fragments: 1024 };
/// How long each address of the server may take to answer a dial.
const DIAL: Duration = Duration::from_secs(20);
/// How long the server may take to greet, and to negotiate.
const GREETING: Duration = Duration::from_secs(30);

/// How to log in.
#[derive(Clone)]
pub enum Login {
    /// Without a name.
    None,
    /// With the password in clear.
    Text(String, Zeroizing<String>),
    /// With a digest of the password.
    Md5(String, Zeroizing<String>),
}

impl Login {
    /// With a digest of `password`.
    pub fn md5(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Md5(user.into(), Zeroizing::new(password.into()))
    }

    /// With `password` in clear.
    pub fn text(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Text(user.into(), Zeroizing::new(password.into()))
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text(user, _) => write!(f, "Text({user:?})"),
            Self::Md5(user, _) => write!(f, "Md5({user:?})"),
        }
    }
}

/// A control connection to an NDMP server.
///
/// Everything blocks. Notifications that arrive while a reply is awaited are kept in a queue;
/// log messages in another.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: Reassembler,
    version: Version,
    offered: u32,
    time: Option<ServerTime>,
    sequence: u32,
    timeout: Duration,
    notices: VecDeque<Post>,
    logs: VecDeque<String>,
    /// The file number before the next read, where the version does not tell a filemark from the
    /// end of the data.
    pub(crate) file: Option<u32>,
}

/// What the server's clock said, and when that was by ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTime {
    /// The time stamp of a message, in seconds of Unix time.
    pub stamp: u32,
    /// When the message was read here.
    pub read: SystemTime,
}

/// What came in.
enum Incoming {
    Reply(Header, Bytes),
    Post(Post),
}

impl Client {
    /// Connects, settles the version (the server's highest if `version` is `None`) and logs in.
    ///
    /// # Errors
    /// [`DmaError::Connect`], [`DmaError::VersionRefused`], [`DmaError::ServerRefused`], and
    /// [`DmaError::NotAuthorized`].
    pub fn connect(
        address: impl ToSocketAddrs + std::fmt::Display,
        version: Option<Version>,
        login: &Login,
    ) -> Result<Self, DmaError> {
        let mut client = Self::greet(address, version)?;
        client.log_in(login)?;
        client.timeout = Duration::from_secs(3600);
        Ok(client)
    }

    /// Connects and settles the version, and does not log in: a session in which only
    /// [`Client::log_in`] and a few questions are legal.
    ///
    /// # Errors
    /// [`DmaError::Connect`], [`DmaError::VersionRefused`], [`DmaError::ServerRefused`].
    pub fn greet(
        address: impl ToSocketAddrs + std::fmt::Display,
        version: Option<Version>,
    ) -> Result<Self, DmaError> {
        let stream = dial(&address)
            .map_err(|source| DmaError::Connect { address: address.to_string(), source })?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            input: Reassembler::new(LIMITS),
            version: Version::V4,
            offered: 0,
            time: None,
            sequence: 0,
            timeout: GREETING,
            notices: VecDeque::new(),
            logs: VecDeque::new(),
            file: None,
        };
        client.offered = client.greeted()?;
        client.settle(version)?;
        Ok(client)
    }

    /// The highest version that the server announced, as the number sent.
    pub fn offered(&self) -> u32 {
        self.offered
    }

    /// The server's clock, as its latest message had it.
    pub fn server_time(&self) -> Option<ServerTime> {
        self.time
    }

    /// The server's end of the connection.
    pub fn server_address(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// The version spoken.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How long a reply may take, an hour at first: tapes are slow.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    fn greeted(&mut self) -> Result<u32, DmaError> {
        match self.wait_notification(GREETING)? {
            Some(Post::ConnectionStatus {
                reason: ConnectionReason::Connected, version, ..
            }) => Ok(version),
            Some(Post::ConnectionStatus { text, .. }) => Err(DmaError::ServerRefused(text)),
            Some(_) => Err(DmaError::Protocol("no greeting".to_owned())),
            None => Err(DmaError::TimedOut("the connection")),
        }
    }

    fn settle(&mut self, wanted: Option<Version>) -> Result<(), DmaError> {
        let offered = self.offered;
        let highest = Version::ALL.into_iter().rfind(|version| version.to_wire() <= offered);
        let version = wanted.or(highest).unwrap_or(Version::V4);
        let refused = DmaError::VersionRefused { wanted: version, offered };
        if version.to_wire() > offered {
            return Err(refused);
        }
        match self.ask(&Request::ConnectOpen(version.to_wire())) {
            Ok(_) => {
                self.version = version;
                Ok(())
            }
            Err(DmaError::Refused { error: ErrorCode::IllegalArgs, .. }) => Err(refused),
            Err(error) => Err(error),
        }
    }

    /// Says who asks. A server may take some failures, then closes.
    ///
    /// # Errors
    /// [`DmaError::NotAuthorized`].
    pub fn log_in(&mut self, login: &Login) -> Result<(), DmaError> {
        let data = match login {
            Login::None => AuthData::None,
            Login::Text(user, password) => AuthData::Text {
                id: user.clone(),
                password: Zeroizing::new(password.as_bytes().to_vec()),
            },
            Login::Md5(user, password) => {
                let body = self.ask(&Request::ConfigGetAuthAttr(AuthType::Md5))?;
                let ReplyBody::AuthAttr(AuthAttr::Challenge(challenge)) = body else {
                    return Err(DmaError::Protocol("no challenge".to_owned()));
                };
                let digest = auth::md5_digest(password.as_bytes(), &challenge);
                let digest = digest.ok_or_else(|| {
                    DmaError::Invalid("MD5 takes passwords of 1 to 32 bytes".to_owned())
                })?;
                AuthData::Md5 { id: user.clone(), digest }
            }
        };
        match self.ask(&Request::ConnectClientAuth(data)) {
            Err(error) if error.code() == Some(ErrorCode::NotAuthorized) => {
                Err(DmaError::NotAuthorized)
            }
            result => result.map(drop),
        }
    }

    /// Sends a request and waits for its reply, whatever it says.
    ///
    /// # Errors
    /// When there is no reply, or none that can be understood.
    pub fn call(&mut self, request: &Request) -> Result<Reply, DmaError> {
        let code = request.code();
        if !code.exists_in(self.version) {
            return Err(DmaError::NotInVersion(code, self.version));
        }
        let sequence = self.send(request)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.receive(deadline)? {
                None => return Err(DmaError::TimedOut("a request")),
                Some(Incoming::Post(post)) => self.keep(post)?,
                Some(Incoming::Reply(header, _)) if header.reply_sequence != sequence => {
                    tracing::debug!(code = %header.code, "a reply to an earlier request");
                }
                Some(Incoming::Reply(header, _)) if header.error != ErrorCode::NoErr => {
                    return Ok(Reply::failed(code, header.error));
                }
                Some(Incoming::Reply(_, body)) => {
                    return Reply::decode(code, self.version, Reader::new(&body))
                        .map_err(|error| DmaError::Protocol(format!("{code}: {error}")));
                }
            }
        }
    }

    /// [`Client::call`], with every error but `NDMP_NO_ERR` as [`DmaError::Refused`].
    pub fn ask(&mut self, request: &Request) -> Result<ReplyBody, DmaError> {
        let message = request.code();
        match self.call(request)? {
            Reply { error: ErrorCode::NoErr, body } => Ok(body),
            Reply { error, .. } => Err(DmaError::Refused { message, error }),
        }
    }

    /// [`Client::ask`] for a request that opens a device.
    pub(crate) fn ask_open(&mut self, device: &str, request: &Request) -> Result<(), DmaError> {
        self.ask(request).map(drop).map_err(|error| match error {
            DmaError::Refused { error, .. } => {
                DmaError::NotOpened { device: device.to_owned(), error }
            }
            error => error,
        })
    }

    /// [`Client::ask`] for a request without a body.
    pub fn ask_bare(&mut self, code: MessageCode) -> Result<ReplyBody, DmaError> {
        self.ask(&Request::Bare(code))
    }

    /// The next notification, waiting at most `timeout` for it. Log messages are not among them.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn wait_notification(&mut self, timeout: Duration) -> Result<Option<Post>, DmaError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(post) = self.notices.pop_front() {
                return Ok(Some(post));
            }
            match self.receive(deadline)? {
                None => return Ok(None),
                Some(Incoming::Post(post)) => self.keep(post)?,
                Some(Incoming::Reply(header, _)) => {
                    tracing::debug!(code = %header.code, "a reply to an earlier request");
                }
            }
        }
    }

    /// A log message of the server, oldest first.
    pub fn next_log(&mut self) -> Option<String> {
        self.logs.pop_front()
    }

    /// Says good bye (`NDMP_CONNECT_CLOSE`).
    pub fn close(mut self) {
        // The server closes the connection whether it hears this or not.
        let _ = self.send(&Request::Bare(MessageCode::ConnectClose));
    }

    fn keep(&mut self, post: Post) -> Result<(), DmaError> {
        match post {
            Post::Log { text, .. } => {
                tracing::debug!(%text, "the server says");
                if self.logs.len() >= LOG_LINES {
                    self.logs.pop_front();
                }
                self.logs.push_back(text);
            }
            Post::ConnectionStatus { reason: ConnectionReason::Shutdown, text, .. } => {
                return Err(DmaError::Closed(text));
            }
            post if self.notices.len() < NOTICES => self.notices.push_back(post),
            _ => return Err(DmaError::Protocol("too many notifications".to_owned())),
        }
        Ok(())
    }

    /// Sends a request and returns its sequence number.
    fn send(&mut self, request: &Request) -> Result<u32, DmaError> {
        self.sequence = self.sequence.wrapping_add(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            sequence: self.sequence,
            time_stamp: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            is_reply: false,
            code: request.code(),
            reply_sequence: 0,
            error: ErrorCode::NoErr,
        };
        let bytes = header
            .encode(|writer| request.encode(self.version, writer))
            .map_err(|error| DmaError::Invalid(format!("{}: {error}", request.code())))?;
        self.stream.write_all(&bytes)?;
        Ok(self.sequence)
    }

    /// The next message, `None` at the deadline.
    fn receive(&mut self, deadline: Instant) -> Result<Option<Incoming>, DmaError> {
        loop {
            let record = self.input.next_record();
            if let Some(record) = record.map_err(|error| DmaError::Protocol(error.to_string()))? {
                return self.decode(&record).map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; CHUNK];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(DmaError::Closed(String::new())),
                Ok(count) => self.input.push(&chunk[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        return Err(DmaError::Closed(error.to_string()));
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }

    fn decode(&mut self, record: &Bytes) -> Result<Incoming, DmaError> {
        let mut reader = Reader::new(record);
        let header = Header::decode(&mut reader)
            .map_err(|error| DmaError::Protocol(format!("a header: {error}")))?;
        self.time = Some(ServerTime { stamp: header.time_stamp, read: SystemTime::now() });
        if header.is_reply {
            return Ok(Incoming::Reply(header, reader.rest()));
        }
        Post::decode(header.code, self.version, reader)
            .map(Incoming::Post)
            .map_err(|error| DmaError::Protocol(format!("{}: {error}", header.code)))
    }
}

/// The first of the addresses that answers.
fn dial(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, DIAL) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
