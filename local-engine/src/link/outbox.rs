//! The ways out: messages that wait for one of the two connections.

use std::sync::Arc;

use bytes::Bytes;
use link::Message;
use service::bandwidth::Bandwidth;
use service::framing::FrameWriter;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, mpsc};

use super::connection::Failure;

/// Control messages that wait. There are few at a time: one request and one renewal a second for
/// each lease, and pings.
const CONTROL_QUEUE: usize = 4096;
/// Frames that wait for the bulk connection, in each of its two queues: about 1 MiB each.
const BULK_QUEUE: usize = 8;

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

/// The way to the bulk connection: an urgent queue and one for the rest.
#[derive(Clone)]
pub(super) struct Bulk {
    urgent: mpsc::Sender<Bytes>,
    rest: mpsc::Sender<Bytes>,
}

/// The other end of a [`Bulk`].
pub(super) struct BulkQueues {
    urgent: mpsc::Receiver<Bytes>,
    rest: mpsc::Receiver<Bytes>,
}

impl Bulk {
    pub(super) fn new() -> (Self, BulkQueues) {
        let (urgent, urgent_out) = mpsc::channel(BULK_QUEUE);
        let (rest, rest_out) = mpsc::channel(BULK_QUEUE);
        (Self { urgent, rest }, BulkQueues { urgent: urgent_out, rest: rest_out })
    }

    /// Queues a frame, waiting for room; an error when the link is down. Blocks.
    pub(super) fn send(&self, urgent: bool, frame: Bytes) -> Result<(), ()> {
        let queue = if urgent { &self.urgent } else { &self.rest };
        queue.blocking_send(frame).map_err(|_| ())
    }

    /// Queues an urgent frame if there is room. Never waits.
    pub(super) fn offer(&self, frame: Bytes) {
        drop(self.urgent.try_send(frame));
    }

    /// A sign of life; data under way is one too.
    pub(super) fn ping(&self) {
        // Urgent, since the rest may have to wait for its hour.
        drop(self.urgent.try_send(Message::Ping(0).encode()));
    }

    /// Whether both are the way to the same connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.urgent.same_channel(&other.urgent)
    }
}

/// Writes what is queued, urgent frames first. Of `bandwidth` the first counts for these, the
/// second for the rest: while those wait for their time the urgent ones go.
pub(super) async fn write_bulk<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    mut queues: BulkQueues,
    (urgent, rest): (Bandwidth, Bandwidth),
) -> Failure {
    let mut waiting: Option<Bytes> = None;
    loop {
        let length = waiting.as_ref().map_or(0, Bytes::len);
        let frame = tokio::select! {
            biased;
            Some(frame) = queues.urgent.recv() => {
                urgent.take(frame.len()).await;
                Some(frame)
            }
            () = rest.take(length), if waiting.is_some() => waiting.take(),
            Some(frame) = queues.rest.recv(), if waiting.is_none() => {
                // What goes before it is not to wait for its time.
                if rest.is_limited()
                    && let Err(error) = writer.flush().await
                {
                    return error.into();
                }
                waiting = Some(frame);
                None
            }
            else => return "the link is taken down".into(),
        };
        let Some(frame) = frame else { continue };
        if let Err(error) = writer.write(&[&frame]).await {
            return error.into();
        }
        if queues.urgent.is_empty()
            && (queues.rest.is_empty() || waiting.is_some())
            && let Err(error) = writer.flush().await
        {
            return error.into();
        }
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

    #[test]
    fn ways_to_different_connections_differ() {
        let ((one, _a), (other, _b)) = (Bulk::new(), Bulk::new());
        assert!(one.is_same(&one.clone()) && !one.is_same(&other));
    }
}
