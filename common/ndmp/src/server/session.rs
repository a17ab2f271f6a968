//! The session: what comes in, what goes out, and in which order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::config::SessionConfig;
use super::io::{DeviceReply, Output};
use crate::mover::MoverEvent;
use crate::wire::LogType;

/// One control connection of a tape server.
///
/// The owner calls [`Session::start`] once, then delivers events and carries out what
/// [`Session::poll`] gives until it gives nothing. A message is delivered only while
/// [`Session::is_busy`] says no; device and mover events are delivered as they come.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    challenge: [u8; 64],
    outputs: VecDeque<Output>,
    user: Option<String>,
}

impl Session {
    /// A session for a connection that was just accepted. `challenge` must be random and used for
    /// no other connection.
    pub fn new(config: Arc<SessionConfig>, challenge: [u8; 64]) -> Self {
        Self { config, challenge, outputs: VecDeque::new(), user: None }
    }

    /// Posts `NDMP_NOTIFY_CONNECTION_STATUS` (connected). `now` is the Unix time in seconds, here
    /// and in every other call.
    pub fn start(&mut self, now: u32) {
        let _ = (now, &self.config, self.challenge);
    }

    /// Instead of [`Session::start`]: tells the client that no session is free, and closes.
    pub fn refuse(&mut self, text: &str, now: u32) {
        let _ = (text, now);
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether an answer of a device or of the data plane is awaited: no message may be delivered.
    pub fn is_busy(&self) -> bool {
        false
    }

    /// Whether [`Output::Finished`] was given.
    pub fn is_finished(&self) -> bool {
        false
    }

    /// The user that logged in: `None` before that, and for `NDMP_AUTH_NONE`.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// A message of the client: one reassembled record.
    pub fn on_message(&mut self, record: &Bytes, now: u32) {
        let _ = (record, now);
    }

    /// The answer to the last [`Output::Device`].
    pub fn on_device(&mut self, reply: DeviceReply, now: u32) {
        let _ = (reply, now);
    }

    /// An event of the data plane.
    pub fn on_mover(&mut self, event: MoverEvent, now: u32) {
        let _ = (event, now);
    }

    /// The control connection is gone. The session aborts the mover, writes the filemark that is
    /// due, closes its devices and finishes.
    pub fn on_disconnect(&mut self, now: u32) {
        let _ = now;
    }

    /// Tells the client something (`NDMP_LOG_MESSAGE`; `NDMP_LOG_LOG` in version 2), at most
    /// 64 KiB of text. Before the version is settled nothing is sent.
    pub fn post_log(&mut self, kind: LogType, text: &str, now: u32) {
        let _ = (kind, text, now);
    }

    /// The server stops: posts `NDMP_NOTIFY_CONNECTION_STATUS` (shutdown), then ends as by
    /// [`Session::on_disconnect`].
    pub fn shut_down(&mut self, text: &str, now: u32) {
        let _ = (text, now);
    }
}
