//! One open device of a remote site, as the thread that owns it uses it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use link::{ClientError, ClientEvent, LeaseClient, Message, Stream, StreamId, Work};
use model::LeaseId;
use tape::{CancelToken, Control, TapeError};

use super::site::{DeviceEvent, OpenError, RemoteSite};

/// How long a device that was asked for may wait between two looks at its cancel token.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// One open device of a remote site; dropping it frees the device there, as soon as what is under
/// way has ended and the link is up.
pub struct LeaseHandle {
    site: Arc<RemoteSite>,
    lease: LeaseId,
    events: Receiver<DeviceEvent>,
    /// The stream that is written or read through this lease.
    stream: Cell<Option<StreamId>>,
    /// What came for that stream while something else was awaited.
    kept: RefCell<VecDeque<DeviceEvent>>,
}

impl LeaseHandle {
    pub(super) fn new(
        site: Arc<RemoteSite>,
        lease: LeaseId,
        events: Receiver<DeviceEvent>,
    ) -> Self {
        let (stream, kept) = (Cell::new(None), RefCell::default());
        Self { site, lease, events, stream, kept }
    }

    /// Waits until the device is open there.
    pub(super) fn opened(self, control: &Control) -> Result<Self, OpenError> {
        loop {
            match self.next_event(control).map_err(OpenError::Failed)? {
                DeviceEvent::Lease(ClientEvent::Opened) => return Ok(self),
                DeviceEvent::Lease(ClientEvent::Refused(refusal)) => {
                    return Err(OpenError::Refused(refusal));
                }
                DeviceEvent::Lease(ClientEvent::Ended { why, .. }) => {
                    return Err(OpenError::Failed(TapeError::Lost(why.to_string())));
                }
                DeviceEvent::Down => return Err(OpenError::Down),
                _ => {}
            }
        }
    }

    /// The lease.
    pub fn id(&self) -> LeaseId {
        self.lease
    }

    /// The site.
    pub fn site(&self) -> &Arc<RemoteSite> {
        &self.site
    }

    /// Where the drive stands behind the last answer, if that can be told.
    pub fn expected_object(&self) -> Option<u64> {
        self.with(|client| client.expected_object()).flatten()
    }

    /// Whether the lease still stands, the link being up or not.
    ///
    /// # Errors
    /// [`TapeError::Lost`], with the reason.
    pub fn check(&self) -> Result<(), TapeError> {
        match self.with(|client| client.ended()) {
            Some(None) => Ok(()),
            Some(Some(why)) => Err(TapeError::Lost(why.to_string())),
            None => Err(TapeError::Lost("the lease is gone".into())),
        }
    }

    /// Whether nothing more can be asked: the lease is over, or what was asked last was given up
    /// without its answer.
    pub fn is_useless(&self) -> bool {
        let useless =
            |client: &mut LeaseClient| client.ended().is_some() || client.outstanding().is_some();
        self.with(useless).unwrap_or(true)
    }

    fn with<T>(&self, work: impl FnOnce(&mut LeaseClient) -> T) -> Option<T> {
        self.site.with_client(self.lease, work)
    }

    /// The next event, at most as long as the control allows: it is looked at before every event,
    /// since progress may come without a gap.
    pub fn next_event(&self, control: &Control) -> Result<DeviceEvent, TapeError> {
        let kept = self.kept.borrow_mut().pop_front();
        kept.map_or_else(|| self.receive(control), Ok)
    }

    /// Keeps for the stream what came between two of its runs, which is bounded by its credit. Of a
    /// link that broke nothing counts that came before.
    fn keep(&self, event: DeviceEvent) {
        let mut kept = self.kept.borrow_mut();
        if matches!(event, DeviceEvent::Down) {
            kept.clear();
        }
        if self.stream.get().is_some() {
            kept.push_back(event);
        }
    }

    fn receive(&self, control: &Control) -> Result<DeviceEvent, TapeError> {
        loop {
            control.check()?;
            match self.events.recv_timeout(LOOK.min(control.remaining())) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(TapeError::Lost("the lease is gone".into()));
                }
            }
        }
    }

    /// Lets the messages of a stream come here.
    pub fn join_stream(&self, stream: StreamId) {
        if self.stream.replace(Some(stream)) != Some(stream) {
            self.kept.borrow_mut().clear();
        }
        self.site.join_stream(self.lease, stream);
    }

    /// The stream is over, or goes on elsewhere.
    pub fn leave_stream(&self, stream: StreamId) {
        self.stream.set(None);
        self.kept.borrow_mut().clear();
        self.site.leave_stream(stream);
    }

    /// Wakes whoever waits for the next event.
    pub fn waker(&self) -> Option<Box<dyn Fn() + Send>> {
        let events = self.site.events_of(self.lease)?;
        Some(Box::new(move || drop(events.send(DeviceEvent::Woken))))
    }

    /// Sends a stream message, waiting for room; one that finds the link down is lost with it.
    pub fn send_stream(&self, message: Stream) {
        self.site.send_stream(message);
    }

    /// Numbers a work and sends it; its answer comes as an event. While the link is down it waits
    /// for it, as long as the lease stands.
    ///
    /// # Errors
    /// [`TapeError::Lost`] when the lease is over; what the control says.
    pub fn submit(&self, work: &Work, control: &Control) -> Result<(), TapeError> {
        let mut state = self.site.lock();
        loop {
            match state.submit(self.lease, work) {
                Ok(()) => return Ok(()),
                Err(Some(ClientError::Disconnected)) => {}
                Err(Some(ClientError::Ended(why))) => return Err(TapeError::Lost(why.to_string())),
                Err(Some(error)) => return Err(TapeError::Lost(error.to_string())),
                Err(None) => return Err(TapeError::Lost("the lease is gone".into())),
            }
            control.check()?;
            let wait = LOOK.min(control.remaining());
            let waited = self.site.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Does one thing at the remote site, exactly once, and waits for its answer. A cancelled
    /// control asks the remote to end at a record boundary and still waits for the answer, unless
    /// the link is down; `progress` hears of bytes and records on the way.
    pub fn perform(
        &mut self,
        work: Work,
        control: &Control,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<link::Answer, TapeError> {
        self.submit(&work, control)?;
        self.await_answer(control, progress)
    }

    /// Waits for the answer to what was submitted; see [`LeaseHandle::perform`]. After an error
    /// the lease [is useless](LeaseHandle::is_useless).
    pub fn await_answer(
        &mut self,
        control: &Control,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<link::Answer, TapeError> {
        let mut cancelled = false;
        loop {
            let patient = Control::new(control.remaining(), patience(cancelled, control));
            let event = match self.receive(&patient) {
                Err(TapeError::Cancelled) => {
                    cancelled = true;
                    self.cancel(None);
                    if !self.site.is_up() {
                        return Err(given_up());
                    }
                    continue;
                }
                event => event?,
            };
            match event {
                DeviceEvent::Lease(ClientEvent::Answered { answer, .. }) => return Ok(answer),
                DeviceEvent::Lease(ClientEvent::Progress { bytes, records, .. }) => {
                    progress(bytes, records);
                }
                DeviceEvent::Lease(ClientEvent::Ended { why, .. }) => {
                    return Err(TapeError::Lost(why.to_string()));
                }
                DeviceEvent::Lease(ClientEvent::Refused(refusal)) => {
                    return Err(TapeError::Lost(refusal.to_string()));
                }
                DeviceEvent::Down if cancelled => return Err(given_up()),
                event @ (DeviceEvent::Stream(_) | DeviceEvent::Down | DeviceEvent::Up) => {
                    self.keep(event);
                }
                DeviceEvent::Lease(_) | DeviceEvent::Woken => {}
            }
        }
    }

    /// Asks for the end of what was submitted, at a record boundary; `taken` tells of a read range
    /// how many objects were taken.
    pub fn cancel(&self, taken: Option<u64>) {
        let request = self.with(|client| client.cancel(taken)).flatten();
        if let Some(request) = request {
            self.site.send(Message::Lease(request));
        }
    }

    /// Flushes and frees the device; what the flush said. If the link is or goes down, the device
    /// is freed when it is back.
    pub fn close(mut self, control: &Control) -> Result<(), TapeError> {
        if self.with(|client| client.outstanding().is_some()) == Some(true) {
            let over = Control::within(control.remaining());
            over.cancel.cancel();
            // Whatever it answers, what counts is the flush.
            let _ = self.await_answer(&over, &mut |_, _| {});
        }
        match self.site.lock().submit(self.lease, &Work::Close) {
            Ok(()) => {}
            Err(Some(ClientError::Disconnected)) => return Err(freed_later()),
            Err(Some(error)) => return Err(TapeError::Lost(error.to_string())),
            Err(None) => return Ok(()),
        }
        loop {
            match self.next_event(control)? {
                DeviceEvent::Lease(ClientEvent::Answered { answer, .. }) => {
                    return match answer {
                        link::Answer::Failed(error) => Err(error),
                        _ => Ok(()),
                    };
                }
                DeviceEvent::Lease(ClientEvent::Ended { why, .. }) => {
                    return Err(TapeError::Lost(why.to_string()));
                }
                DeviceEvent::Down => return Err(freed_later()),
                _ => {}
            }
        }
    }
}

impl Drop for LeaseHandle {
    fn drop(&mut self) {
        self.site.leave(self.lease);
    }
}

/// Once the remote was asked to stop, only its answer or the deadline ends the wait.
fn patience(cancelled: bool, control: &Control) -> CancelToken {
    if cancelled { CancelToken::new() } else { control.cancel.clone() }
}

fn given_up() -> TapeError {
    TapeError::PositionUnknown("given up while the link was down; open the device anew".into())
}

fn freed_later() -> TapeError {
    TapeError::Unreachable("the link is down; the device is freed when it is back".into())
}
