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

/// How much may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As much as goes.
    Unlimited,
    /// So many bytes a second, at least 1.
    PerSecond(u64),
    /// Nothing.
    Stopped,
}

/// A token bucket: so many bytes a second, shared by all clones, served in order. The rate may be
/// another one from time to time.
///
/// An amount above the bucket is let through as a debt that the next ones wait for, so that one
/// frame never has to be cut.
#[derive(Clone)]
pub struct Bandwidth {
    rate: Arc<dyn Fn() -> Rate + Send + Sync>,
    /// Held while waiting: who comes first goes first.
    owed: Arc<Mutex<Owed>>,
}

/// What went and was not waited for.
struct Owed {
    bytes: u64,
    since: Instant,
}

/// What may go at once after a pause: this much time's worth.
const BURST: Duration = Duration::from_millis(250);
/// The rate is looked at again after so long.
const LOOK: Duration = Duration::from_secs(5);

impl std::fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bandwidth").field(&(self.rate)()).finish()
    }
}

impl Bandwidth {
    /// No limit.
    pub fn unlimited() -> Self {
        Self::by(Arc::new(|| Rate::Unlimited))
    }

    /// At most so many bytes a second; 0 is no limit.
    pub fn per_second(rate: u64) -> Self {
        let rate = if rate > 0 { Rate::PerSecond(rate) } else { Rate::Unlimited };
        Self::by(Arc::new(move || rate))
    }

    /// What `rate` says at the time.
    pub fn by(rate: Arc<dyn Fn() -> Rate + Send + Sync>) -> Self {
        let owed = Owed { bytes: 0, since: Instant::now() };
        Self { rate, owed: Arc::new(Mutex::new(owed)) }
    }

    /// Whether there is a limit now.
    pub fn is_limited(&self) -> bool {
        (self.rate)() != Rate::Unlimited
    }

    /// Waits until `bytes` may go. Dropped before, nothing was taken.
    pub async fn take(&self, bytes: usize) {
        let mut owed = self.owed.lock().await;
        loop {
            let wait = match (self.rate)() {
                Rate::Unlimited => {
                    owed.bytes = 0;
                    return;
                }
                Rate::Stopped => LOOK,
                Rate::PerSecond(rate) => match owed.wait(rate.max(1)) {
                    Duration::ZERO => break,
                    wait => wait.min(LOOK),
                },
            };
            tokio::time::sleep(wait).await;
        }
        owed.bytes = owed.bytes.saturating_add(bytes as u64);
    }
}

impl Owed {
    /// How long until something may go at this rate.
    fn wait(&mut self, rate: u64) -> Duration {
        let rate = u128::from(rate);
        let passed = self.since.elapsed().as_nanos() * rate / 1_000_000_000;
        let paid = u128::from(self.bytes).min(passed);
        self.bytes -= paid as u64;
        // What is less than a byte's time counts the next time.
        self.since = match self.bytes {
            0 => Instant::now(),
            _ => self.since + nanos(paid * 1_000_000_000 / rate),
        };
        let burst = rate * BURST.as_nanos() / 1_000_000_000;
        let above = u128::from(self.bytes).saturating_sub(burst);
        nanos((above * 1_000_000_000).div_ceil(rate))
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
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
    async fn a_rate_that_changes_counts_for_what_waits() {
        let rate = Arc::new(std::sync::Mutex::new(Rate::Stopped));
        let now = Arc::clone(&rate);
        let line = Bandwidth::by(Arc::new(move || *now.lock().unwrap()));
        let stopped = tokio::time::timeout(Duration::from_secs(100_000), line.take(1));
        assert!(stopped.await.is_err(), "nothing goes");
        *rate.lock().unwrap() = Rate::PerSecond(1000);
        line.take(1_000_000).await;
        let debt = tokio::time::timeout(Duration::from_secs(500), line.take(1));
        assert!(debt.await.is_err(), "a debt of a thousand seconds");
        *rate.lock().unwrap() = Rate::PerSecond(1_000_000);
        let start = Instant::now();
        line.take(1).await;
        assert!(start.elapsed() < Duration::from_secs(1));
        *rate.lock().unwrap() = Rate::Unlimited;
        (0..100).for_each(|_| assert!(futures_now(&line)));
    }

    /// Whether a lot may go without waiting.
    fn futures_now(line: &Bandwidth) -> bool {
        let mut taking = Box::pin(line.take(1 << 30));
        let waker = std::task::Waker::noop();
        taking.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
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
