//! The way out to the bulk connection: urgent frames first, and those of one transfer in their
//! order, also when it becomes urgent on its way.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use link::{Message, TransferId};
use service::bandwidth::Bandwidth;
use service::framing::FrameWriter;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

use super::connection::Failure;

/// Frames that wait in each of the two queues, about 1 MiB. The urgent one may be longer by those
/// that waited in the other one when their transfer became urgent.
const QUEUE: usize = 8;

/// A frame that waits.
struct Frame {
    /// The transfer that it is of, if its order matters.
    of: Option<TransferId>,
    bytes: Bytes,
}

#[derive(Default)]
struct Queues {
    urgent: VecDeque<Frame>,
    rest: VecDeque<Frame>,
    /// One of both ends is gone.
    over: bool,
}

impl Queues {
    /// Takes a frame, behind those of its transfer that wait. Whether there was room.
    fn take(&mut self, urgent: bool, frame: &mut Option<Frame>) -> bool {
        let queue = if urgent { &mut self.urgent } else { &mut self.rest };
        let Some(frame) = frame.take_if(|_| queue.len() < QUEUE) else { return false };
        if !urgent || frame.of.is_none() {
            queue.push_back(frame);
            return true;
        }
        let waiting = std::mem::take(&mut self.rest).into_iter();
        let (before, others): (VecDeque<_>, _) = waiting.partition(|it| it.of == frame.of);
        self.rest = others;
        self.urgent.extend(before.into_iter().chain([frame]));
        true
    }
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// A queue has room, or it is over.
    room: Condvar,
    /// A frame came, or it is over. One waits for it.
    news: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().over = true;
        self.room.notify_all();
        self.news.notify_one();
    }
}

/// The senders' end; it is over with the last of them.
struct Senders(Arc<Shared>);

impl Drop for Senders {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The way to the bulk connection.
#[derive(Clone)]
pub(super) struct Bulk(Arc<Senders>);

/// The other end of a [`Bulk`].
pub(super) struct BulkQueues(Arc<Shared>);

impl Drop for BulkQueues {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Bulk {
    pub(super) fn new() -> (Self, BulkQueues) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::new(Senders(Arc::clone(&shared)))), BulkQueues(shared))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Queues a frame of a transfer, waiting for room; an error when the link is down. Blocks.
    /// Frames of one transfer go in the order in which they came, whether they are urgent or not:
    /// one that is takes those before it along.
    pub(super) fn send(&self, urgent: bool, of: TransferId, bytes: Bytes) -> Result<(), ()> {
        self.queue(urgent, Frame { of: Some(of), bytes })
    }

    /// The same with a frame of no transfer, before those of all that are not urgent.
    pub(super) fn send_now(&self, bytes: Bytes) -> Result<(), ()> {
        self.queue(true, Frame { of: None, bytes })
    }

    fn queue(&self, urgent: bool, frame: Frame) -> Result<(), ()> {
        let mut frame = Some(frame);
        let mut queues = self.shared().lock();
        while !queues.over {
            if queues.take(urgent, &mut frame) {
                drop(queues);
                self.shared().news.notify_one();
                return Ok(());
            }
            queues = self.shared().room.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
        Err(())
    }

    /// Queues an urgent frame of no transfer if there is room. Never waits.
    pub(super) fn offer(&self, bytes: Bytes) {
        if self.shared().lock().take(true, &mut Some(Frame { of: None, bytes })) {
            self.shared().news.notify_one();
        }
    }

    /// A sign of life; data under way is one too.
    pub(super) fn ping(&self) {
        // Urgent, since the rest may have to wait for its hour.
        self.offer(Message::Ping(0).encode());
    }

    /// Whether both are the way to the same connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the writer does next.
enum Next {
    /// Write it; it is urgent.
    Urgent(Bytes),
    /// Let a frame of the rest of this length go when it is its time.
    Rest(usize),
    Wait,
    Over,
}

impl BulkQueues {
    fn next(&self) -> Next {
        let mut queues = self.0.lock();
        if let Some(frame) = queues.urgent.pop_front() {
            self.0.room.notify_all();
            return Next::Urgent(frame.bytes);
        }
        match queues.rest.front() {
            Some(frame) => Next::Rest(frame.bytes.len()),
            None if queues.over => Next::Over,
            None => Next::Wait,
        }
    }

    /// The first frame of the rest, whose time has come; it may have become urgent meanwhile.
    fn rest(&self) -> Option<Bytes> {
        let mut queues = self.0.lock();
        let frame = queues.urgent.is_empty().then(|| queues.rest.pop_front()).flatten()?;
        self.0.room.notify_all();
        Some(frame.bytes)
    }

    fn is_empty(&self) -> bool {
        let queues = self.0.lock();
        queues.urgent.is_empty() && queues.rest.is_empty()
    }
}

/// Writes what is queued, urgent frames first. Of `bandwidth` the first counts for these, the
/// second for the rest: while those wait for their time the urgent ones go.
pub(super) async fn write_bulk<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    queues: BulkQueues,
    (urgent, rest): (Bandwidth, Bandwidth),
) -> Failure {
    loop {
        let frame = match queues.next() {
            Next::Over => return "the link is taken down".into(),
            Next::Wait => {
                queues.0.news.notified().await;
                continue;
            }
            Next::Urgent(frame) => {
                urgent.take(frame.len()).await;
                frame
            }
            Next::Rest(length) => {
                // What went before it is not to wait for its time.
                if rest.is_limited()
                    && let Err(error) = writer.flush().await
                {
                    return error.into();
                }
                tokio::select! {
                    biased;
                    () = queues.0.news.notified() => continue,
                    () = rest.take(length) => {}
                }
                let Some(frame) = queues.rest() else { continue };
                frame
            }
        };
        if let Err(error) = writer.write(&[&frame]).await {
            return error.into();
        }
        if queues.is_empty()
            && let Err(error) = writer.flush().await
        {
            return error.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::Ulid;
    use service::bandwidth::Rate;
    use service::framing::FrameReader;
    use tokio::io::DuplexStream;

    use super::*;

    fn frame(of: u8, number: u8) -> (TransferId, Bytes) {
        (TransferId(Ulid(of.into())), Bytes::copy_from_slice(&[of, number]))
    }

    /// A writer for these, the rest at this rate; what it writes.
    fn written(queues: BulkQueues, rest: Rate) -> FrameReader<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64);
        let rest = Bandwidth::by(Arc::new(move || rest));
        let writer = FrameWriter::new(ours, link::FRAME_MAX);
        tokio::spawn(write_bulk(writer, queues, (Bandwidth::unlimited(), rest)));
        FrameReader::new(theirs, link::FRAME_MAX)
    }

    #[test]
    fn ways_to_different_connections_differ() {
        let ((one, _a), (other, _b)) = (Bulk::new(), Bulk::new());
        assert!(one.is_same(&one.clone()) && !one.is_same(&other));
    }

    #[test]
    fn it_is_over_when_either_end_is_gone() {
        let (way, queues) = Bulk::new();
        let (of, bytes) = frame(1, 0);
        way.send(false, of, bytes.clone()).unwrap();
        drop(queues);
        way.send(false, of, bytes).unwrap_err();
        let (way, queues) = Bulk::new();
        drop(way);
        assert!(matches!(queues.next(), Next::Over));
    }

    #[tokio::test]
    async fn a_transfer_that_becomes_urgent_takes_what_waits_of_it_along() {
        let (way, queues) = Bulk::new();
        for (of, number) in [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)] {
            let (of, bytes) = frame(of, number);
            way.send(false, of, bytes).unwrap();
        }
        // The rest has to wait for its hour.
        let mut reader = written(queues, Rate::Stopped);
        let (of, bytes) = frame(1, 3);
        way.send(true, of, bytes).unwrap();
        for number in 0..4 {
            assert_eq!(*reader.next().await.unwrap().unwrap(), [1, number]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn frames_of_a_transfer_keep_their_order() {
        let (way, queues) = Bulk::new();
        let mut reader = written(queues, Rate::Unlimited);
        let mut senders = Vec::new();
        for transfer in 0..4u8 {
            let way = way.clone();
            senders.push(tokio::task::spawn_blocking(move || {
                for number in 0..200u8 {
                    let (of, bytes) = frame(transfer, number);
                    // Each changes its mind at its own pace.
                    let urgent = (number / (transfer + 1)) % 2 == 1;
                    way.send(urgent, of, bytes).unwrap();
                }
            }));
        }
        drop(way);
        let mut next = BTreeMap::new();
        while let Some(frame) = reader.next().await.unwrap() {
            let next = next.entry(frame[0]).or_insert(0u8);
            assert_eq!(frame[1], *next, "transfer {}", frame[0]);
            *next += 1;
        }
        assert_eq!(next, (0..4u8).map(|it| (it, 200)).collect());
    }
}
