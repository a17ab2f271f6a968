//! How much may go, and how much went: a limiter and counters for streams.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A token bucket: so many bytes a second, shared by all clones, served in order.
///
/// An amount above the bucket is let through as a debt that the next ones wait for, so that one
/// frame never has to be cut.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth(Option<Arc<Bucket>>);

#[derive(Debug)]
struct Bucket {
    /// Bytes a second, at least 1.
    rate: u64,
    /// From when on the line is free. Held while waiting: who comes first goes first.
    free_at: Mutex<Instant>,
}

/// What may go at once after a pause: this much time's worth.
const BURST: Duration = Duration::from_millis(250);

impl Bandwidth {
    /// No limit.
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// At most so many bytes a second; 0 is no limit.
    pub fn per_second(rate: u64) -> Self {
        let free_at = burst_before(Instant::now());
        let bucket = || Arc::new(Bucket { rate, free_at: Mutex::new(free_at) });
        Self((rate > 0).then(bucket))
    }

    /// Waits until `bytes` may go.
    pub async fn take(&self, bytes: usize) {
        let Some(bucket) = &self.0 else { return };
        let mut free_at = bucket.free_at.lock().await;
        let from = (*free_at).max(burst_before(Instant::now()));
        tokio::time::sleep_until(from).await;
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(bucket.rate);
        *free_at = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }
}

fn burst_before(now: Instant) -> Instant {
    now.checked_sub(BURST).unwrap_or(now)
}

/// Bytes that went each way.
#[derive(Debug, Default)]
pub struct Counters {
    read: AtomicU64,
    written: AtomicU64,
}

impl Counters {
    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes both ways.
    pub fn total(&self) -> u64 {
        self.read().saturating_add(self.written())
    }
}

/// A stream that counts. Put it below TLS to count what is on the wire.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    counters: Arc<Counters>,
}

impl<S> Counted<S> {
    /// Counts a stream's bytes; several streams may share counters.
    pub fn new(stream: S, counters: Arc<Counters>) -> Self {
        Self { stream, counters }
    }

    /// The stream below, for its options.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before) as u64;
        self.counters.read.fetch_add(count, Ordering::Relaxed);
        result
    }
}

impl<S> Counted<S> {
    fn count_written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &result {
            self.counters.written.fetch_add(*count as u64, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.count_written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.count_written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_and_a_pause_gives_a_small_burst() {
        let line = Bandwidth::per_second(1000);
        let start = Instant::now();
        for _ in 0..10 {
            line.take(1000).await;
        }
        // Ten seconds' worth: the first is free at once, the burst makes it a little earlier.
        let passed = start.elapsed();
        assert!((Duration::from_millis(8700)..Duration::from_millis(9001)).contains(&passed));
        tokio::time::advance(Duration::from_secs(100)).await;
        let start = Instant::now();
        line.take(250).await;
        line.take(1).await;
        assert!(start.elapsed() < Duration::from_millis(10));
        line.take(1000).await;
        line.take(1).await;
        assert!(start.elapsed() >= Duration::from_millis(990));
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_never_waits() {
        let start = Instant::now();
        Bandwidth::unlimited().take(usize::MAX).await;
        Bandwidth::per_second(0).take(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn both_ways_are_counted() {
        let (a, mut b) = tokio::io::duplex(64);
        let counters = Arc::new(Counters::default());
        let mut a = Counted::new(a, counters.clone());
        a.write_all(b"hello").await.unwrap();
        b.write_all(b"abc").await.unwrap();
        a.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!((counters.written(), counters.read(), counters.total()), (5, 3, 8));
    }
}
