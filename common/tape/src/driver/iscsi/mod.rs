//! The way to a device over iSCSI: one TCP connection for each opened device, so that each is an
//! initiator of its own.
//!
//! - A command is sent once. When the connection breaks under it its fate is unknown, and that is
//!   the answer; the next command connects anew.
//! - A connection that broke while nobody waited is told once
//!   ([`TransportError::NotSent`]): reservations and positions may have gone with it.
//! - A command without an answer in time is aborted (ABORT TASK, then LOGICAL UNIT RESET); when
//!   even that gets no answer the connection is given up.
//! - While a device is idle a thread answers the target's pings and sends some.

mod connection;
mod discover;

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use iscsi::{Credentials, Digests, Kind, Url};

use self::connection::{Connection, Ended};
use super::transport::{Data, ScsiCompletion, ScsiTransport, TransportError};

pub use discover::{Portal, discover};

/// How long connecting and logging in may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often an idle connection is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// How we come to a target.
#[derive(Clone, Debug)]
pub struct IscsiOptions {
    /// Our iSCSI name.
    pub initiator: String,
    /// CHAP, or nothing.
    pub credentials: Option<Credentials>,
    /// The digests that we wish.
    pub digests: Digests,
}

/// The part that the idle thread shares.
#[derive(Debug)]
struct Line {
    url: Url,
    options: IscsiOptions,
    isid: [u8; 6],
    connection: Option<Connection>,
    /// Why an idle connection is gone; told by the next command.
    lost: Option<String>,
}

/// A [`ScsiTransport`] to a logical unit over iSCSI.
#[derive(Debug)]
pub struct IscsiTransport {
    line: Arc<Mutex<Line>>,
    /// Dropped, it ends the idle thread.
    keeper: Option<SyncSender<()>>,
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IscsiTransport {
    /// The way to a logical unit; the first command connects.
    ///
    /// # Errors
    /// The system has no random bytes to give.
    pub fn new(url: Url, options: IscsiOptions) -> Result<Self, TransportError> {
        // Type 10b, random (RFC 7143 11.12.5): two openings are two initiators.
        let mut isid = [0x80; 6];
        getrandom::fill(&mut isid[1..])
            .map_err(|error| TransportError::NotSent(error.to_string()))?;
        let line = Line { url, options, isid, connection: None, lost: None };
        Ok(Self { line: Arc::new(Mutex::new(line)), keeper: None })
    }

    fn keep(&mut self) {
        if self.keeper.is_some() {
            return;
        }
        let (stop, stopped) = sync_channel(0);
        let line = Arc::clone(&self.line);
        let keeper = std::thread::Builder::new().name("iscsi-idle".to_owned());
        let started = keeper.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(IDLE) {
                // A line in use looks after itself.
                match line.try_lock() {
                    Ok(mut line) => line.look(),
                    Err(TryLockError::Poisoned(line)) => line.into_inner().look(),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
        });
        match started {
            Ok(_) => self.keeper = Some(stop),
            Err(error) => tracing::warn!(%error, "an idle iSCSI connection is not looked after"),
        }
    }
}

impl Line {
    /// Looks after an idle connection.
    fn look(&mut self) {
        if let Some(connection) = &mut self.connection
            && let Err(text) = connection.look()
        {
            tracing::warn!(url = %self.url, cause = text, "an idle iSCSI connection was lost");
            self.connection = None;
            self.lost = Some(text);
        }
    }

    /// The connection, made if there is none.
    fn connect(&mut self, deadline: Instant) -> Result<&mut Connection, TransportError> {
        self.look();
        if let Some(text) = self.lost.take() {
            return Err(TransportError::NotSent(format!("the connection was lost: {text}")));
        }
        if self.connection.is_none() {
            let deadline = deadline.min(Instant::now() + CONNECT);
            let kind = Kind::Normal { target: self.url.target.clone() };
            let portal = self.url.portal();
            let opened = Connection::open(&portal, &kind, &self.options, self.isid, deadline);
            let opened =
                opened.map_err(|text| TransportError::NotSent(format!("{}: {text}", self.url)))?;
            tracing::debug!(url = %self.url, "connected");
            self.connection = Some(opened);
        }
        let none = || TransportError::NotSent("there is no connection".to_owned());
        self.connection.as_mut().ok_or_else(none)
    }

    /// Nothing more is to be had from the connection.
    fn give_up(&mut self, text: String) -> TransportError {
        tracing::warn!(url = %self.url, cause = text, "an iSCSI connection broke");
        self.connection = None;
        TransportError::Broken(text)
    }

    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        deadline: Instant,
    ) -> Result<ScsiCompletion, TransportError> {
        let lun = self.url.lun_field();
        let connection = self.connect(deadline)?;
        if let Err(text) = connection.await_room(deadline) {
            self.give_up(text.clone());
            return Err(TransportError::NotSent(text));
        }
        let ended = match data {
            Data::None => connection.execute(lun, cdb, &[], &mut [], deadline),
            Data::In(buffer) => connection.execute(lun, cdb, &[], buffer, deadline),
            Data::Out(bytes) => connection.execute(lun, cdb, bytes, &mut [], deadline),
        };
        match ended {
            Ok(Ended::Done(iscsi::Completion { status, sense, residual })) => {
                Ok(ScsiCompletion { status, sense, residual })
            }
            Ok(Ended::TimedOut) => Err(TransportError::TimedOut),
            Err(text) => Err(self.give_up(text)),
        }
    }
}

impl ScsiTransport for IscsiTransport {
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        let result = lock(&self.line).execute(cdb, data, Instant::now() + timeout);
        self.keep();
        result
    }

    /// Every initiator finds 06/29, and what a drive had in its buffer may be lost.
    fn reset(&mut self) -> Result<(), TransportError> {
        let mut line = lock(&self.line);
        let lun = line.url.lun_field();
        let result = line.connect(Instant::now() + CONNECT)?.reset(lun);
        result.map_err(|text| line.give_up(text))
    }
}

impl Drop for IscsiTransport {
    fn drop(&mut self) {
        self.keeper = None;
        if let Some(connection) = lock(&self.line).connection.take() {
            connection.close();
        }
    }
}
