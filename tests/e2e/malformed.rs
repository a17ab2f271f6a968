//! Ten thousand NDMP messages that are wrong: the server answers each with the protocol's own
//! error or closes the connection cleanly, goes on serving, and keeps its memory.
//!
//! The bytes are made by hand here and not by the codec under test, which would refuse to make
//! them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use tests::wait::PATIENCE;
use tests::{Pair, Rng, Scratch, full, seed};

const CONNECT_OPEN: u32 = 0x900;
const CLIENT_AUTH: u32 = 0x901;
const GET_SERVER_INFO: u32 = 0x108;
const GET_HOST_INFO: u32 = 0x100;
const TAPE_OPEN: u32 = 0x300;
const TAPE_MTIO: u32 = 0x303;
const TAPE_WRITE: u32 = 0x304;
const TAPE_READ: u32 = 0x305;
const SCSI_OPEN: u32 = 0x200;
const EXECUTE_CDB: u32 = 0x206;
const MOVER_LISTEN: u32 = 0xa01;
const MOVER_CONTINUE: u32 = 0xa02;
const MOVER_ABORT: u32 = 0xa03;
const MOVER_STOP: u32 = 0xa04;
const MOVER_SET_WINDOW: u32 = 0xa05;
const MOVER_READ: u32 = 0xa06;
const MOVER_CLOSE: u32 = 0xa07;
const SET_RECORD_SIZE: u32 = 0xa08;
const MOVER_CONNECT: u32 = 0xa09;

const NO_ERR: u32 = 0;
const NOT_AUTHORIZED: u32 = 4;
const LAST_FRAGMENT: u32 = 1 << 31;

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// A reply with this error, from its header or its body.
    Answered(u32),
    /// The server closed.
    Closed,
}

/// A raw control connection.
struct Wire {
    stream: TcpStream,
    sequence: u32,
}

/// XDR by hand.
fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = words(&[value.len() as u32]);
    bytes.extend_from_slice(value.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl Wire {
    /// Dials and takes the greeting.
    fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut wire = Self { stream, sequence: 0 };
        let greeting = wire.receive().expect("a greeting");
        assert_eq!(word(&greeting, 3), 0x502, "the first message is NOTIFY_CONNECTION_STATUS");
        wire
    }

    /// A session in which everything is allowed.
    fn session(address: SocketAddr, version: u32, password: &str) -> Self {
        let mut wire = Self::dial(address);
        assert_eq!(wire.request(CONNECT_OPEN, &words(&[version])), End::Answered(NO_ERR));
        let credentials = [words(&[1]), text("ndmp"), text(password)].concat();
        assert_eq!(wire.request(CLIENT_AUTH, &credentials), End::Answered(NO_ERR));
        wire
    }

    /// The next whole message, or nothing if the server closed. A server that does neither within
    /// the patience fails the test.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let mut mark = [0; 4];
            read_or_closed(&mut self.stream, &mut mark)?;
            let mark = u32::from_be_bytes(mark);
            let length = (mark & !LAST_FRAGMENT) as usize;
            assert!(length <= 4 << 20, "the server sends a fragment of {length} bytes");
            let mut fragment = vec![0; length];
            read_or_closed(&mut self.stream, &mut fragment)?;
            message.extend_from_slice(&fragment);
            if mark & LAST_FRAGMENT != 0 {
                assert!(message.len() >= 24, "the server sends a message without a header");
                return Some(message);
            }
        }
    }

    /// Bytes as they are. A server that has closed already can not be written to: that is seen
    /// when the answer is read.
    fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    fn header(&mut self, kind: u32, code: u32, reply_to: u32) -> Vec<u8> {
        self.sequence += 1;
        words(&[self.sequence, 0, kind, code, reply_to, 0])
    }

    /// A well-framed request, and what came of it.
    fn request(&mut self, code: u32, body: &[u8]) -> End {
        let message = [self.header(0, code, 0), body.to_vec()].concat();
        self.send(&framed(&message));
        self.outcome()
    }

    /// The answer to the last request, notifications passed over; or the close.
    fn outcome(&mut self) -> End {
        while let Some(message) = self.receive() {
            let (kind, reply_to, error) = (word(&message, 2), word(&message, 4), word(&message, 5));
            if kind == 1 && reply_to == self.sequence {
                // Tape and mover states of versions 3 and 4 have words before the error; nobody
                // asks for those here.
                let body = message.get(24..28).map_or(NO_ERR, |_| word(&message, 6));
                return End::Answered(if error == NO_ERR { body } else { error });
            }
        }
        End::Closed
    }

    /// Nothing more is sent: a server that waits for more sees the end now.
    fn finish(mut self) -> End {
        drop(self.stream.shutdown(Shutdown::Write));
        self.outcome()
    }
}

fn word(message: &[u8], index: usize) -> u32 {
    u32::from_be_bytes(message[index * 4..index * 4 + 4].try_into().expect("four bytes"))
}

fn framed(message: &[u8]) -> Vec<u8> {
    [words(&[message.len() as u32 | LAST_FRAGMENT]), message.to_vec()].concat()
}

/// Fills the buffer; `None` if the other side closed or reset before it was full.
fn read_or_closed(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<()> {
    match stream.read_exact(buffer) {
        Ok(()) => Some(()),
        Err(error) => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => None,
            other => panic!("the server neither answered nor closed: {other}"),
        },
    }
}

/// A request that would be right in a session with a tape, so that cutting it makes it wrong.
fn whole_request(rng: &mut Rng) -> (u32, Vec<u8>) {
    let quad = |v: u64| v.to_be_bytes().to_vec();
    match rng.below(9) {
        0 => (TAPE_OPEN, [text("vtl0/drive0"), words(&[1])].concat()),
        1 => (TAPE_MTIO, words(&[rng.below(8) as u32, 1])),
        2 => (TAPE_WRITE, text("0123456789abcdef")),
        3 => (TAPE_READ, words(&[10_240])),
        4 => (SCSI_OPEN, text("vtl0/changer")),
        5 => (EXECUTE_CDB, words(&[0, 1000, 0, 6, 0, 0, 0])),
        6 => (MOVER_SET_WINDOW, [quad(0), quad(1 << 20)].concat()),
        7 => (MOVER_READ, [quad(0), quad(u64::MAX)].concat()),
        _ => (SET_RECORD_SIZE, words(&[10_240])),
    }
}

/// Sends one wrong message, or a few, to the server with this password, and judges the answers.
type Kind = fn(SocketAddr, &str, &mut Rng);

const KINDS: [(&str, Kind); 8] = [
    ("truncated", truncated),
    ("overlong", overlong),
    ("wrong enum", wrong_enum),
    ("wrong state", wrong_state),
    ("wrong version", wrong_version),
    ("unauthenticated", unauthenticated),
    ("no message at all", noise),
    ("odd fragments", fragments),
];

/// An error, or the end of the connection, and never success.
fn refused(end: &End) {
    assert_ne!(*end, End::Answered(NO_ERR), "a wrong message was taken for a right one");
}

/// Cut off within its body, well framed; or cut off on the wire.
fn truncated(address: SocketAddr, password: &str, rng: &mut Rng) {
    let mut wire = Wire::session(address, rng.between(2, 4) as u32, password);
    let (code, body) = whole_request(rng);
    let kept = rng.below(body.len() as u64) as usize;
    if rng.chance(1, 2) {
        refused(&wire.request(code, &body[..kept]));
    } else {
        let message = framed(&[wire.header(0, code, 0), body].concat());
        let kept = rng.between(1, message.len() as u64 - 1) as usize;
        wire.send(&message[..kept]);
        assert_eq!(wire.finish(), End::Closed);
    }
}

/// Bytes behind the body, lengths that point beyond the message, fragments without end.
fn overlong(address: SocketAddr, password: &str, rng: &mut Rng) {
    let mut wire = Wire::session(address, rng.between(2, 4) as u32, password);
    match rng.below(4) {
        0 => {
            let (code, body) = whole_request(rng);
            let more = rng.between(1, 5000) as usize;
            let rest = rng.bytes(more.next_multiple_of(4));
            refused(&wire.request(code, &[body, rest].concat()));
        }
        1 => {
            let lie = rng.between(100, u64::from(u32::MAX)) as u32;
            refused(&wire.request(TAPE_WRITE, &[words(&[lie]), rng.bytes(64)].concat()));
        }
        2 => {
            let length = rng.between(16 << 20, (1 << 31) - 1) as u32;
            wire.send(&words(&[length | LAST_FRAGMENT, 1, 0, 0, TAPE_WRITE, 0, 0]));
            assert_eq!(wire.finish(), End::Closed);
        }
        _ => {
            // A message that goes on and on: closed when it is too long, before it ends.
            let fragment = [words(&[65_536]), vec![0; 65_536]].concat();
            for _ in 0..80 {
                wire.send(&fragment);
            }
            assert_eq!(wire.finish(), End::Closed);
        }
    }
}

fn wrong_enum(address: SocketAddr, password: &str, rng: &mut Rng) {
    let version = rng.between(2, 4) as u32;
    let odd = rng.between(100, u64::from(u32::MAX)) as u32;
    if rng.chance(1, 4) {
        let mut wire = Wire::dial(address);
        assert_eq!(wire.request(CONNECT_OPEN, &words(&[version])), End::Answered(NO_ERR));
        refused(&wire.request(CLIENT_AUTH, &[words(&[odd]), text("ndmp"), text("x")].concat()));
        return;
    }
    let mut wire = Wire::session(address, version, password);
    let end = match rng.below(5) {
        0 => wire.request(TAPE_OPEN, &[text("vtl0/drive0"), words(&[odd])].concat()),
        1 => wire.request(TAPE_MTIO, &words(&[odd, 1])),
        2 => wire.request(MOVER_LISTEN, &words(&[odd, 1])),
        3 => wire.request(MOVER_LISTEN, &words(&[0, odd])),
        _ => wire.request(MOVER_CONNECT, &words(&[0, odd])),
    };
    refused(&end);
}

/// Right messages at the wrong time, several in one session, which lives on.
fn wrong_state(address: SocketAddr, password: &str, rng: &mut Rng) {
    let mut wire = Wire::session(address, rng.between(2, 4) as u32, password);
    for _ in 0..rng.between(1, 6) {
        let end = match rng.below(8) {
            0 => wire.request(MOVER_CONTINUE, &[]),
            1 => wire.request(MOVER_ABORT, &[]),
            2 => wire.request(MOVER_STOP, &[]),
            3 => wire.request(MOVER_CLOSE, &[]),
            4 => wire.request(TAPE_READ, &words(&[512])),
            5 => wire.request(TAPE_MTIO, &words(&[4, 1])),
            6 => wire.request(MOVER_READ, &words(&[0, 0, 0, 512])),
            _ => wire.request(CONNECT_OPEN, &words(&[4])),
        };
        assert!(matches!(end, End::Answered(error) if error != NO_ERR), "{end:?}");
    }
    assert_eq!(wire.request(GET_HOST_INFO, &[]), End::Answered(NO_ERR));
}

fn wrong_version(address: SocketAddr, password: &str, rng: &mut Rng) {
    match rng.below(3) {
        0 => {
            let version = *rng.pick(&[0, 1, 5, 6, 1000, u32::MAX]);
            refused(&Wire::dial(address).request(CONNECT_OPEN, &words(&[version])));
        }
        1 => {
            // Tape copy is not in version 2.
            let mut wire = Wire::session(address, 2, password);
            refused(&wire.request(MOVER_CONNECT, &words(&[1, 1, 0x7f00_0001, 9])));
        }
        _ => {
            // SCSI_SET_TARGET was taken out of version 4.
            let mut wire = Wire::session(address, 4, password);
            let target = [text("vtl0/changer"), words(&[0, 0, 0])].concat();
            refused(&wire.request(0x203, &target));
        }
    }
}

fn unauthenticated(address: SocketAddr, _password: &str, rng: &mut Rng) {
    let mut wire = Wire::dial(address);
    let (code, body) = whole_request(rng);
    if rng.chance(1, 4) {
        return refused(&wire.request(code, &body));
    }
    let version = rng.between(2, 4) as u32;
    assert_eq!(wire.request(CONNECT_OPEN, &words(&[version])), End::Answered(NO_ERR));
    if rng.chance(1, 3) {
        let wrong = [words(&[1]), text("ndmp"), text("not the password")].concat();
        assert_eq!(wire.request(CLIENT_AUTH, &wrong), End::Answered(NOT_AUTHORIZED));
    }
    assert_eq!(wire.request(code, &body), End::Answered(NOT_AUTHORIZED));
}

/// Random bytes, unknown codes, answers to questions that nobody asked.
fn noise(address: SocketAddr, password: &str, rng: &mut Rng) {
    let mut wire = Wire::session(address, rng.between(2, 4) as u32, password);
    match rng.below(4) {
        0 => {
            let length = rng.between(1, 3000) as usize;
            let bytes = rng.bytes(length);
            wire.send(&bytes);
            assert_eq!(wire.finish(), End::Closed);
        }
        1 => {
            let length = rng.between(0, 200) as usize;
            let message = rng.bytes(length);
            wire.send(&framed(&message));
            refused(&wire.finish());
        }
        2 => {
            let code = *rng.pick(&[0, 0x1ff, 0x250, 0x399, 0x905, 0xa0b, 0xb00, 0xffff_ffff]);
            let body = rng.bytes(16);
            refused(&wire.request(code, &body));
        }
        _ => {
            let reply_to = rng.next_u64() as u32;
            let message = [wire.header(1, GET_HOST_INFO, reply_to), words(&[0])].concat();
            wire.send(&framed(&message));
            refused(&wire.finish());
        }
    }
}

/// A right message in many small pieces is right; empty pieces without end are not.
fn fragments(address: SocketAddr, password: &str, rng: &mut Rng) {
    let mut wire = Wire::session(address, rng.between(2, 4) as u32, password);
    if rng.chance(1, 2) {
        let message = wire.header(0, GET_HOST_INFO, 0);
        let last = message.len() - 1;
        for (i, byte) in message.iter().enumerate() {
            let mark = if i == last { 1 | LAST_FRAGMENT } else { 1 };
            wire.send(&[words(&[mark]), vec![*byte]].concat());
        }
        assert_eq!(wire.outcome(), End::Answered(NO_ERR));
    } else {
        wire.send(&vec![0; 4 * 100_000]);
        assert_eq!(wire.finish(), End::Closed);
    }
}

/// A whole right session, to see that the server goes on.
fn still_serves(address: SocketAddr, password: &str) {
    let mut wire = Wire::session(address, 4, password);
    assert_eq!(wire.request(GET_SERVER_INFO, &[]), End::Answered(NO_ERR));
}

#[test]
fn ten_thousand_wrong_messages_do_no_harm() {
    let scratch = Scratch::new("malformed");
    let mut rng = Rng::new(seed("ten_thousand_wrong_messages"));
    let mut pair = Pair::new(&scratch, |_, _| {});
    // Nobody here needs the other site, and what wrong clients do is worth a line each.
    pair.local.allow("the remote can not be reached");
    pair.local.allow("NDMP");
    pair.local.run();
    let (address, password) = (pair.ndmp(), pair.password());
    let count = full(10_000, 100_000);
    let mut resident = 0;
    for i in 0..count {
        let (name, kind) = KINDS[i % KINDS.len()];
        let mut own = rng.fork(&i.to_string());
        if i % 1000 == 0 {
            println!("message {i}: {name}");
        }
        kind(address, &password, &mut own);
        if i % 100 == 99 {
            still_serves(address, &password);
        }
        if i == count / 10 {
            resident = pair.local.resident_bytes();
        }
        rng.next_u64();
    }
    let grown = pair.local.resident_bytes().saturating_sub(resident);
    println!("{count} messages; resident {resident} bytes after a tenth, {grown} more at the end");
    assert!(grown <= 16 << 20, "memory grew by {grown} bytes after the first tenth");
}
