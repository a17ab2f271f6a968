//! The way out to the control connection.

use std::sync::Arc;

use link::Message;
use service::framing::FrameWriter;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, mpsc};

use super::connection::Failure;

/// Control messages that wait. There are few at a time: one request and one renewal a second for
/// each lease, and pings.
const CONTROL_QUEUE: usize = 4096;

/// The way to the control connection.
#[derive(Clone)]
pub(super) struct ControlWay {
    messages: mpsc::Sender<Message>,
    stuck: Arc<Notify>,
}

/// The other end of a [`ControlWay`].
pub(super) struct ControlQueue {
    messages: mpsc::Receiver<Message>,
    stuck: Arc<Notify>,
}

impl ControlWay {
    pub(super) fn new() -> (Self, ControlQueue) {
        let (messages, queue) = mpsc::channel(CONTROL_QUEUE);
        let stuck = Arc::new(Notify::new());
        let other = Arc::clone(&stuck);
        (Self { messages, stuck }, ControlQueue { messages: queue, stuck: other })
    }

    /// Queues a message and never waits. A connection that does not take so many is ended; what
    /// must not be lost is sent again over the next one.
    pub(super) fn send(&self, message: Message) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.messages.try_send(message) {
            self.stuck.notify_one();
        }
    }

    /// Whether the connection is over.
    pub(super) fn is_over(&self) -> bool {
        self.messages.is_closed()
    }
}

#[cfg(test)]
impl ControlQueue {
    /// What waits now.
    pub(super) fn drain(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }
}

/// Writes what is queued until the connection fails.
pub(super) async fn write_control<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    mut queue: ControlQueue,
) -> Failure {
    let stuck = Arc::clone(&queue.stuck);
    let writing = async {
        while let Some(message) = queue.messages.recv().await {
            if let Err(error) = writer.write(&[&message.encode()]).await {
                return error.into();
            }
            if queue.messages.is_empty()
                && let Err(error) = writer.flush().await
            {
                return error.into();
            }
        }
        Failure::from("the link is taken down")
    };
    tokio::select! {
        ended = writing => ended,
        () = stuck.notified() => "the remote does not read".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_does_not_take_messages_is_ended() {
        let (way, queue) = ControlWay::new();
        // Nobody reads the other end.
        let (ours, _theirs) = tokio::io::duplex(64);
        let writing = tokio::spawn(write_control(FrameWriter::new(ours, link::FRAME_MAX), queue));
        while !way.is_over() {
            way.send(Message::Ping(1));
            tokio::task::yield_now().await;
        }
        assert_eq!(writing.await.unwrap().to_string(), "the remote does not read");
    }
}
