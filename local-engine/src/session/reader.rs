//! The reading side of a control connection.

use bytes::Bytes;
use tape::CancelToken;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use xdr::{Limits, Reassembler};

/// What a client may send in one message.
const LIMITS: Limits = Limits { record: ndmp::wire::bounds::MESSAGE, fragments: 1024 };
/// Bytes behind a message that waits which are read all the same, so that the end of the
/// connection is seen although a client sends ahead.
const AHEAD: usize = 256 << 10;

/// Hands the client's messages over one by one until the connection ends, and then cancels what is
/// under way, for nobody waits for it any more. Returns what was wrong with the stream, if it was
/// not made of records.
pub(super) async fn read_records<R: AsyncRead + Unpin>(
    mut reader: R,
    records: mpsc::Sender<Bytes>,
    cancel: CancelToken,
) -> Option<String> {
    let mut assembler = Reassembler::new(LIMITS);
    let mut waiting = None;
    let wrong = loop {
        if waiting.is_none() {
            match assembler.next_record() {
                Ok(record) => waiting = record,
                Err(error) => break Some(error.to_string()),
            }
        }
        let room = waiting.is_none() || assembler.buffer().len() < AHEAD;
        tokio::select! {
            permit = records.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                (Ok(permit), Some(record)) => permit.send(record),
                _ => return None,
            },
            read = reader.read_buf(assembler.buffer()), if room => {
                if !matches!(read, Ok(n) if n > 0) {
                    break None;
                }
            }
        }
    };
    cancel.cancel();
    // What a client sent before it left is still looked at.
    if let Some(record) = waiting {
        drop(records.send(record).await);
    }
    while let Ok(Some(record)) = assembler.next_record() {
        if wrong.is_some() || records.send(record).await.is_err() {
            break;
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn framed(length: usize) -> Vec<u8> {
        xdr::frame(&vec![7; length]).unwrap()
    }

    #[tokio::test]
    async fn the_end_is_seen_although_messages_wait() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (sender, mut records) = mpsc::channel(1);
        let cancel = CancelToken::new();
        let reading = tokio::spawn(read_records(server, sender, cancel.clone()));
        for length in 1..=5 {
            client.write_all(&framed(length)).await.unwrap();
        }
        drop(client);
        // Nobody takes a message, and what is under way is cancelled all the same.
        while !cancel.is_cancelled() {
            tokio::task::yield_now().await;
        }
        for length in 1..=5 {
            assert_eq!(records.recv().await.unwrap().len(), length);
        }
        assert!(records.recv().await.is_none());
        assert_eq!(reading.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_client_that_sends_ahead_is_not_read_without_end() {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let (sender, records) = mpsc::channel(1);
        let reading = tokio::spawn(read_records(server, sender, CancelToken::new()));
        let message = framed(32 << 10);
        let mut sent = 0;
        // The pipe fills up when the reader has what it may have.
        loop {
            let patience = std::time::Duration::from_millis(500);
            match tokio::time::timeout(patience, client.write_all(&message)).await {
                Ok(written) => written.unwrap(),
                Err(_) => break,
            }
            sent += message.len();
            assert!(sent < 4 << 20, "the reader takes everything");
        }
        drop(records);
        assert_eq!(reading.await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_record_ends_the_stream() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (sender, mut records) = mpsc::channel(1);
        let cancel = CancelToken::new();
        let reading = tokio::spawn(read_records(server, sender, cancel.clone()));
        client.write_all(&[0xff; 64]).await.unwrap();
        assert!(records.recv().await.is_none());
        assert!(reading.await.unwrap().unwrap().contains("more than"));
        assert!(cancel.is_cancelled());
    }
}
