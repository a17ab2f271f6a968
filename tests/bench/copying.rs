//! The copy from mover to mover, joined directly or through a forwarder.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use dma::{Client, MoverNews, TO_THE_END};
use ndmp::wire::{Addr, AddrType, HaltReason, MoverMode, PauseReason};
use tests::Operator;
use tests::wait::PATIENCE;

/// Bytes of a record on every tape.
pub(crate) const RECORD: u32 = 65_536;

/// How the two movers are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The source dials the address of the target's mover: both are in one server, which sees it.
    Directly,
    /// The source dials somebody who passes everything on. The server can not see that the other
    /// mover is its own, so it takes both for foreign ones and the bytes go over TCP.
    ByForwarder,
}

/// Copies the first file of the tape in `source` to the beginning of the one in `target`. One
/// sequence of messages for both ways; only the address differs.
pub(crate) fn copy(operator: &Operator, source: &str, target: &str, joined: Joined, bytes: u64) {
    let (mut from, mut to) = (operator.tape(source), operator.tape(target));
    from.rewind().expect("the source rewinds");
    to.rewind().expect("the target rewinds");
    to.mover_set_record_size(RECORD).expect("the record size");
    to.mover_set_window(0, TO_THE_END).expect("the window");
    let mut address = to.mover_listen(MoverMode::Read, AddrType::Tcp).expect("the mover listens");
    if joined == Joined::ByForwarder {
        address = forward(&address);
    }
    from.mover_set_record_size(RECORD).expect("the record size");
    from.mover_set_window(0, TO_THE_END).expect("the window");
    from.mover_connect(MoverMode::Write, address).expect("the movers are joined");
    from.mover_read(0, TO_THE_END).expect("the source reads");

    match news(&mut from) {
        MoverNews::Paused { reason: PauseReason::Eof, position } => assert_eq!(position, bytes),
        other => panic!("the source says {other:?}"),
    }
    from.mover_close().expect("the source closes");
    for mover in [&mut to, &mut from] {
        match news(mover) {
            MoverNews::Halted { reason: HaltReason::ConnectClosed, .. } => {}
            other => panic!("a mover says {other:?}"),
        }
    }
    assert_eq!(to.mover_state().expect("a state").bytes_moved, bytes);
    to.write_filemarks(1).expect("the filemark is written");
    for mut mover in [to, from] {
        mover.mover_stop().expect("the mover stops");
        mover.close_tape().expect("the drive closes");
    }
}

/// What a mover says next. A GiB takes long on a slow disk, so it is asked several times.
fn news(client: &mut Client) -> MoverNews {
    let said = (0..30).find_map(|_| client.wait_mover(PATIENCE).expect("a notification"));
    said.expect("the mover says something")
}

/// An address in front of this one: whoever dials it has its bytes passed on, one connection.
fn forward(address: &Addr) -> Addr {
    let Addr::Tcp(list) = address else { panic!("not a TCP address: {address}") };
    let behind = list[0];
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let SocketAddr::V4(front) = listener.local_addr().expect("an address") else {
        panic!("an IPv4 address was asked for")
    };
    thread::spawn(move || {
        let (from, _) = listener.accept().expect("the source dials");
        let to = TcpStream::connect(behind).expect("the mover accepts");
        let back = (to.try_clone().unwrap(), from.try_clone().unwrap());
        thread::spawn(move || pass(back.0, back.1));
        pass(from, to);
    });
    Addr::Tcp(vec![front])
}

/// Everything, in pieces as large as the movers' own, then the end.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    drop(to.shutdown(Shutdown::Write));
}
