//! Frames on a stream: a length of 4 bytes, big-endian, and so many bytes.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest frame of the link: 16 MiB of data and what surrounds it.
pub const FRAME_MAX: usize = (16 << 20) + (64 << 10);
/// Room that is made at once for a frame; more is made as bytes arrive, so that a length alone
/// costs no memory.
const STEP: usize = 256 << 10;

/// Why no frame came or went.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announces, or we would send, a frame above the cap. The connection is useless.
    #[error("a frame of {length} bytes exceeds the limit of {max}")]
    TooLong {
        /// The length announced.
        length: usize,
        /// The cap of this connection.
        max: usize,
    },
    /// The stream ended inside a frame; a new connection helps.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The stream failed; a new connection may help.
    #[error("{}", crate::tls::explain_io(.0))]
    Io(#[from] std::io::Error),
}

/// Reads frames. Not safe to drop inside of [`FrameReader::next`]: give the reader a task of its
/// own.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    max: usize,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `max` bytes from a stream.
    pub fn new(stream: R, max: usize) -> Self {
        Self { stream, max, buffer: BytesMut::new() }
    }

    /// The next frame; `None` when the peer ended the stream between two frames.
    ///
    /// # Errors
    /// [`FrameError`]; nothing can be read after one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let mut head = [0u8; 4];
        if self.stream.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut head[1..]).await.map_err(truncated)?;
        let length = u32::from_be_bytes(head) as usize;
        if length > self.max {
            return Err(FrameError::TooLong { length, max: self.max });
        }
        self.buffer.clear();
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            self.buffer.reserve(missing.min(STEP.max(self.buffer.len())));
            let mut limited = (&mut self.stream).take(missing as u64);
            if limited.read_buf(&mut self.buffer).await? == 0 {
                return Err(FrameError::Truncated);
            }
        }
        Ok(Some(self.buffer.split().freeze()))
    }
}

/// A part from this size on is written from where it is; smaller ones are gathered, so that they
/// share TLS records and packets.
const GATHER: usize = 16 << 10;

/// Writes frames. Small frames are held back until [`FrameWriter::flush`], so flush before waiting
/// for an answer. Not safe to drop inside of a call: give the writer a task of its own.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    max: usize,
    gathered: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames of at most `max` bytes to a stream.
    pub fn new(stream: W, max: usize) -> Self {
        Self { stream, max, gathered: BytesMut::new() }
    }

    /// Writes one frame made of parts, without copying large ones.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] before anything was written; [`FrameError::Io`].
    pub async fn write(&mut self, parts: &[&[u8]]) -> Result<(), FrameError> {
        let length = parts.iter().map(|part| part.len()).sum();
        let too_long = || FrameError::TooLong { length, max: self.max };
        let head = u32::try_from(length).ok().filter(|_| length <= self.max);
        let head = head.ok_or_else(too_long)?.to_be_bytes();
        for part in std::iter::once(&&head[..]).chain(parts) {
            if self.gathered.len() + part.len() >= GATHER {
                self.write_gathered().await?;
            }
            match part.len() >= GATHER {
                true => self.stream.write_all(part).await?,
                false => self.gathered.extend_from_slice(part),
            }
        }
        Ok(())
    }

    async fn write_gathered(&mut self) -> Result<(), FrameError> {
        self.stream.write_all(&self.gathered).await?;
        self.gathered.clear();
        Ok(())
    }

    /// Sends everything on its way.
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.write_gathered().await?;
        Ok(self.stream.flush().await?)
    }

    /// Flushes and ends the stream, so that the peer's reader sees its end.
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.write_gathered().await?;
        Ok(self.stream.shutdown().await?)
    }
}

fn truncated(error: std::io::Error) -> FrameError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_lead_back_and_the_end_is_seen() {
        let (a, b) = tokio::io::duplex(100);
        let sender = tokio::spawn(async move {
            let mut writer = FrameWriter::new(a, 1 << 20);
            writer.write(&[b"he", b"", b"llo"]).await.unwrap();
            writer.write(&[]).await.unwrap();
            writer.write(&[&vec![7; 600_000]]).await.unwrap();
            writer.finish().await.unwrap();
        });
        let mut reader = FrameReader::new(b, 1 << 20);
        assert_eq!(reader.next().await.unwrap().unwrap(), &b"hello"[..]);
        assert_eq!(reader.next().await.unwrap().unwrap(), &b""[..]);
        assert_eq!(reader.next().await.unwrap().unwrap().len(), 600_000);
        assert!(reader.next().await.unwrap().is_none());
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn small_frames_go_together_and_large_parts_in_their_place() {
        let mut writer = FrameWriter::new(Vec::new(), 1 << 20);
        let large = vec![9; GATHER];
        let sizes = [1, 3, GATHER - 8, 5, 20, GATHER, 7];
        for size in sizes {
            writer.write(&[&large[..size]]).await.unwrap();
            assert!(writer.gathered.len() < GATHER);
        }
        writer.write(&[b"ab", &large, b"c"]).await.unwrap();
        writer.flush().await.unwrap();
        let mut reader = FrameReader::new(&writer.stream[..], 1 << 20);
        for size in sizes {
            assert_eq!(reader.next().await.unwrap().unwrap(), &large[..size]);
        }
        let last = reader.next().await.unwrap().unwrap();
        assert_eq!((&last[..2], last.len(), last[GATHER + 2]), (&b"ab"[..], GATHER + 3, b'c'));
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_long_frame_is_refused_on_both_sides() {
        let mut reader = FrameReader::new(&b"\x00\x00\x00\x05hello"[..], 4);
        let refused = reader.next().await;
        assert!(matches!(refused, Err(FrameError::TooLong { length: 5, max: 4 })));
        let mut writer = FrameWriter::new(Vec::new(), 4);
        assert!(writer.write(&[b"he", b"llo"]).await.is_err());
        writer.flush().await.unwrap();
        assert!(writer.stream.is_empty());
    }

    #[tokio::test]
    async fn a_frame_cut_anywhere_is_truncated() {
        let whole = b"\x00\x00\x00\x05hello";
        for cut in 1..whole.len() {
            let result = FrameReader::new(&whole[..cut], 100).next().await;
            assert!(matches!(result, Err(FrameError::Truncated)), "cut at {cut}");
        }
    }
}
