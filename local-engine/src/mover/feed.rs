//! Reading a data connection on a thread of its own, so that its bytes can be waited for together
//! with other events. At most [`PIECES`] pieces of [`PIECE`] bytes are held.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes of one piece, at most.
const PIECE: usize = 256 << 10;
/// Pieces that wait to be taken.
const PIECES: usize = 4;

/// Called when something arrived.
pub type Wake = Box<dyn Fn() + Send>;

/// What the feed has.
#[derive(Debug)]
pub enum Fed {
    /// Bytes.
    Piece(Bytes),
    /// Nothing yet.
    Nothing,
    /// The other side has closed; nothing follows.
    End,
    /// The connection failed.
    Broken(String),
}

/// The bytes of a connection as they come.
pub struct Feed {
    pieces: Receiver<Result<Bytes, String>>,
    wake: Arc<Mutex<Option<Wake>>>,
    over: Option<Option<String>>,
}

impl Feed {
    /// Starts reading. The thread ends with the connection.
    pub fn start(mut stream: TcpStream) -> std::io::Result<Self> {
        let (filled, pieces) = sync_channel(PIECES);
        let wake: Arc<Mutex<Option<Wake>>> = Arc::default();
        let waker = Arc::clone(&wake);
        std::thread::Builder::new().name("feed".into()).spawn(move || {
            let mut more = true;
            while more {
                let piece = read(&mut stream);
                more = matches!(&piece, Ok(bytes) if !bytes.is_empty());
                if filled.send(piece).is_err() {
                    return;
                }
                let waker = waker.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(wake) = waker.as_ref() {
                    wake();
                }
            }
        })?;
        Ok(Self { pieces, wake, over: None })
    }

    /// Who is to be woken from now on.
    pub fn wake_by(&self, wake: Option<Wake>) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = wake;
    }

    /// What is there now.
    pub fn take(&mut self) -> Fed {
        match &self.over {
            Some(None) => return Fed::End,
            Some(Some(cause)) => return Fed::Broken(cause.clone()),
            None => {}
        }
        match self.pieces.try_recv() {
            Ok(Ok(bytes)) if !bytes.is_empty() => return Fed::Piece(bytes),
            Ok(Ok(_)) | Err(TryRecvError::Disconnected) => self.over = Some(None),
            Ok(Err(cause)) => self.over = Some(Some(cause)),
            Err(TryRecvError::Empty) => return Fed::Nothing,
        }
        self.take()
    }
}

/// The next bytes, empty at the end.
fn read(stream: &mut TcpStream) -> Result<Bytes, String> {
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer.into());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_come_in_order_and_the_end_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut feed = Feed::start(listener.accept().unwrap().0).unwrap();
        let (wake, woken) = channel();
        feed.wake_by(Some(Box::new(move || wake.send(()).unwrap())));
        let sent: Vec<u8> = (0..600_000u32).map(|i| i as u8).collect();
        let writer = {
            let sent = sent.clone();
            std::thread::spawn(move || client.write_all(&sent).unwrap())
        };
        let mut got = Vec::new();
        loop {
            match feed.take() {
                Fed::Piece(bytes) => got.extend_from_slice(&bytes),
                Fed::Nothing => woken.recv_timeout(Duration::from_secs(20)).unwrap(),
                Fed::End => break,
                Fed::Broken(cause) => panic!("{cause}"),
            }
        }
        writer.join().unwrap();
        assert!(got == sent);
        assert!(matches!(feed.take(), Fed::End));
    }
}
