//! What a data agent does: a stream of bytes into a mover, or out of one, over TCP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ndmp::wire::{Addr, AddrType, HaltReason, MoverMode, PauseReason};

use crate::{Client, DmaError, MoverNews, TO_THE_END};

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(20);
/// How often a long wait looks at the other thread.
const LOOK: Duration = Duration::from_millis(50);
/// How much is moved at once.
const CHUNK: usize = 256 * 1024;

/// Dials a mover that listens at `addr`: the first of its addresses that answers.
///
/// # Errors
/// [`DmaError::Connect`], with the last address tried.
pub fn connect(addr: &Addr) -> Result<TcpStream, DmaError> {
    let Addr::Tcp(list) = addr else {
        return Err(DmaError::Invalid(format!("a data connection over {addr} needs one server")));
    };
    let mut last = DmaError::Invalid("the mover listens at no address".to_owned());
    for address in list {
        match TcpStream::connect_timeout(&(*address).into(), DIAL) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = DmaError::Connect { address: address.to_string(), source },
        }
    }
    Err(last)
}

/// Sends everything that `reader` gives, then closes the sending side. Returns the bytes sent.
pub fn send(mut stream: &TcpStream, reader: &mut dyn Read) -> io::Result<u64> {
    let sent = pour(reader, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Takes everything until the mover closes. Returns the bytes received.
pub fn receive(mut stream: &TcpStream, writer: &mut dyn Write) -> io::Result<u64> {
    let received = pour(&mut stream, writer)?;
    writer.flush()?;
    Ok(received)
}

fn pour(reader: &mut dyn Read, writer: &mut dyn Write) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                writer.write_all(&chunk[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Changes the tape during [`backup`] and [`restore`].
pub trait ChangeTape {
    /// The tape in the client's drive is full (backup) or read to its end (restore), at this byte
    /// of the stream. On return the stream goes on where the tape in the open drive stands:
    /// `true`; or the stream ends here: `false`, which a backup does not take for an answer.
    fn change(&mut self, client: &mut Client, position: u64) -> Result<bool, DmaError>;
}

/// For streams that fit on one tape.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneTape;

impl ChangeTape for OneTape {
    fn change(&mut self, _: &mut Client, _: u64) -> Result<bool, DmaError> {
        Ok(false)
    }
}

/// Writes a stream to the tape in the client's open drive, from where it stands, in records of
/// `record_size` bytes; the last one is padded with zeros. The filemark behind it is the
/// caller's. Returns the bytes of the stream.
pub fn backup(
    client: &mut Client,
    record_size: u32,
    reader: &mut (dyn Read + Send),
    change: &mut dyn ChangeTape,
) -> Result<u64, DmaError> {
    client.mover_set_record_size(record_size)?;
    client.mover_set_window(0, TO_THE_END)?;
    let addr = client.mover_listen(MoverMode::Read, AddrType::Tcp)?;
    let stream = connect(&addr)?;
    let outcome = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&stream, reader));
        let watched = watch_backup(client, change);
        if watched.is_err() {
            // Whoever is blocked in a write is woken.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender failed")));
        watched.and_then(|()| Ok(sent?))
    });
    finish(client, outcome, |client, sent| {
        let moved = client.mover_state()?.bytes_moved;
        match moved == sent {
            true => Ok(()),
            false => Err(DmaError::Incomplete { expected: sent, moved }),
        }
    })
}

/// Waits until the mover has written the stream.
fn watch_backup(client: &mut Client, change: &mut dyn ChangeTape) -> Result<(), DmaError> {
    loop {
        match client.wait_mover(LOOK)? {
            None => {}
            Some(MoverNews::Halted { reason: HaltReason::ConnectClosed, .. }) => return Ok(()),
            Some(MoverNews::Halted { reason, text }) => {
                return Err(DmaError::Halted { side: "target", reason, text });
            }
            Some(MoverNews::Paused { reason: PauseReason::Eom, position }) => {
                if !change.change(client, position)? {
                    return Err(DmaError::EndOfMedium { position });
                }
                client.mover_set_window(position, TO_THE_END)?;
                client.mover_continue()?;
            }
            Some(MoverNews::Paused { reason, position }) => {
                return Err(DmaError::Paused { side: "target", reason, position });
            }
        }
    }
}

/// Reads a stream from the tape in the client's open drive, from where it stands to the next
/// filemark, or for `length` bytes if given, and gives it to `writer`. Pads of the last record
/// come with it unless `length` leaves them out. Returns the bytes of the stream.
pub fn restore(
    client: &mut Client,
    record_size: u32,
    length: Option<u64>,
    writer: &mut (dyn Write + Send),
    change: &mut dyn ChangeTape,
) -> Result<u64, DmaError> {
    client.mover_set_record_size(record_size)?;
    client.mover_set_window(0, TO_THE_END)?;
    let addr = client.mover_listen(MoverMode::Write, AddrType::Tcp)?;
    let stream = connect(&addr)?;
    let outcome = thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&stream, writer));
        let watched = watch_restore(client, length, change);
        if watched.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let received =
            receiver.join().unwrap_or_else(|_| Err(io::Error::other("the receiver failed")));
        watched.and_then(|expected| {
            let moved = received?;
            match moved == expected {
                true => Ok(moved),
                false => Err(DmaError::Incomplete { expected, moved }),
            }
        })
    });
    finish(client, outcome, |_, _| Ok(()))
}

/// Waits until the mover has sent the stream, and closes it. Returns the bytes it sent.
fn watch_restore(
    client: &mut Client,
    length: Option<u64>,
    change: &mut dyn ChangeTape,
) -> Result<u64, DmaError> {
    // The peer is there as soon as the server has taken the connection.
    let patience = Instant::now() + DIAL;
    while client.mover_state()?.state == ndmp::wire::MoverState::Listen {
        if Instant::now() > patience {
            return Err(DmaError::TimedOut("the data connection"));
        }
        if let Some(MoverNews::Halted { reason, text }) = client.wait_mover(LOOK / 10)? {
            return Err(DmaError::Halted { side: "source", reason, text });
        }
    }
    client.mover_read(0, length.unwrap_or(TO_THE_END))?;
    loop {
        let news = client.wait_mover(LOOK)?;
        match news {
            None => {
                let Some(length) = length else { continue };
                if client.mover_state()?.bytes_moved < length {
                    continue;
                }
                // ACTIVE with the read satisfied: only an abort ends it.
                client.mover_abort()?;
                return Ok(length);
            }
            Some(MoverNews::Paused {
                reason: PauseReason::Eof | PauseReason::Eom | PauseReason::Seek,
                position,
            }) => {
                if change.change(client, position)? {
                    client.mover_set_window(position, TO_THE_END)?;
                    client.mover_continue()?;
                    continue;
                }
                let moved = client.mover_state()?.bytes_moved;
                client.mover_close()?;
                return Ok(moved);
            }
            Some(MoverNews::Paused { reason, position }) => {
                return Err(DmaError::Paused { side: "source", reason, position });
            }
            Some(MoverNews::Halted { reason, text }) => {
                return Err(DmaError::Halted { side: "source", reason, text });
            }
        }
    }
}

/// Leaves the mover idle, whatever happened. The first error is the one that is told.
fn finish(
    client: &mut Client,
    outcome: Result<u64, DmaError>,
    check: impl FnOnce(&mut Client, u64) -> Result<(), DmaError>,
) -> Result<u64, DmaError> {
    let checked = outcome.and_then(|moved| check(client, moved).map(|()| moved));
    let reset = client.mover_reset();
    let moved = checked?;
    reset?;
    Ok(moved)
}
