//! Sessions over loopback, played by an application.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use dma::{Client, DmaError, Login, MoverNews, TapeObject};
use ndmp::wire::{
    Addr, AddrType, ErrorCode, HaltReason, MessageCode, MoverMode, MtioOp, PauseReason,
    TapeOpenMode,
};
use service::messages;
use svs::EventFilter;
use tape::Control;

use crate::device::{Device, Opener};
use crate::testing::{PATIENCE, Server, open_engine, until};

const RECORD: usize = 1024;

fn load(server: &Server, barcode: &str, drive: u16) {
    let mut robot = server.dial();
    robot.open_scsi("vtl0/changer").unwrap();
    let from = robot.find_cartridge(barcode).unwrap().address;
    robot.move_medium(from, 128 + drive).unwrap();
    robot.close_scsi().unwrap();
}

fn open(server: &Server, drive: &str) -> Client {
    let mut client = server.dial();
    client.open_tape(drive, TapeOpenMode::ReadWrite).unwrap();
    client
}

/// A server with a cartridge in drive 0.
fn loaded(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(dir.path());
    load(&server, "VTA001L8", 0);
    server
}

fn listen(client: &mut Client, mode: MoverMode, window: u64) -> TcpStream {
    client.mover_set_record_size(RECORD as u32).unwrap();
    client.mover_set_window(0, window).unwrap();
    let Addr::Tcp(list) = client.mover_listen(mode, AddrType::Tcp).unwrap() else {
        panic!("not a TCP address");
    };
    TcpStream::connect(list[0]).unwrap()
}

fn paused(client: &mut Client) -> PauseReason {
    match client.wait_mover(PATIENCE).unwrap() {
        Some(MoverNews::Paused { reason, .. }) => reason,
        other => panic!("the mover says {other:?}"),
    }
}

fn halted(client: &mut Client) -> HaltReason {
    match client.wait_mover(PATIENCE).unwrap() {
        Some(MoverNews::Halted { reason, .. }) => reason,
        other => panic!("the mover says {other:?}"),
    }
}

fn objects(server: &Server, drive: &str) -> Vec<TapeObject> {
    let mut client = open(server, drive);
    client.rewind().unwrap();
    let objects = client.read_all(RECORD as u32).unwrap();
    client.close_tape().unwrap();
    objects
}

#[test]
fn a_client_that_goes_leaves_its_drive_free_with_its_filemark() {
    let dir = tempfile::tempdir().unwrap();
    let server = loaded(&dir);
    let mut client = open(&server, "vtl0/drive0");
    client.write_block(Bytes::from_static(&[1; RECORD])).unwrap();
    let _data = listen(&mut client, MoverMode::Read, u64::MAX);
    drop(client);
    let mut next = until("the drive is free", || {
        let mut next = server.dial();
        next.open_tape("vtl0/drive0", TapeOpenMode::ReadWrite).ok().map(|()| next)
    });
    next.rewind().unwrap();
    let found = next.read_all(RECORD as u32).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(matches!(found[1], TapeObject::Filemark));
    drop(next);
    server.stop();
}

#[test]
fn a_paused_source_hears_that_its_peer_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = loaded(&dir);
    let mut client = open(&server, "vtl0/drive0");
    let block = Bytes::from_static(&[7; RECORD]);
    client.write_block(block.clone()).unwrap();
    client.write_filemarks(1).unwrap();
    client.rewind().unwrap();
    let mut data = listen(&mut client, MoverMode::Write, u64::MAX);
    client.mover_read(0, u64::MAX).unwrap();
    assert_eq!(paused(&mut client), PauseReason::Eof);
    let mut got = [0; RECORD];
    data.read_exact(&mut got).unwrap();
    assert_eq!(got, block[..]);
    drop(data);
    assert_eq!(halted(&mut client), HaltReason::ConnectClosed);
    client.mover_stop().unwrap();
    client.close_tape().unwrap();
    server.stop();
}

#[test]
fn a_stream_that_is_reset_has_not_come_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = loaded(&dir);
    let mut client = open(&server, "vtl0/drive0");
    let mut data = listen(&mut client, MoverMode::Read, u64::MAX);
    data.write_all(&[3; RECORD + RECORD / 2]).unwrap();
    until("the first record is written", || {
        (client.mover_state().unwrap().bytes_moved == RECORD as u64).then_some(())
    });
    let at_once = Some(std::time::Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&data, at_once).unwrap();
    drop(data);
    assert_eq!(halted(&mut client), HaltReason::ConnectError);
    drop(client);
    server.stop();
}

#[test]
fn a_mover_does_not_go_on_on_a_tape_that_was_changed_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = loaded(&dir);
    let mut client = open(&server, "vtl0/drive0");
    let mut data = listen(&mut client, MoverMode::Read, 4 * RECORD as u64);
    data.write_all(&[5; 8 * RECORD]).unwrap();
    assert_eq!(paused(&mut client), PauseReason::Eow);
    let mut robot = server.dial();
    robot.open_scsi("vtl0/changer").unwrap();
    robot.move_medium(128, 1027).unwrap();
    let other = robot.find_cartridge("VTA002L8").unwrap().address;
    robot.move_medium(other, 128).unwrap();
    robot.close_scsi().unwrap();
    client.mover_set_window(4 * RECORD as u64, 4 * RECORD as u64).unwrap();
    client.mover_continue().unwrap();
    assert_eq!(halted(&mut client), HaltReason::MediaError);
    client.mover_stop().unwrap();
    // Nor is the filemark of the one tape written on the other.
    client.close_tape().unwrap();
    assert!(objects(&server, "vtl0/drive0").is_empty());
    server.stop();
}

#[test]
fn a_device_is_open_once_and_a_reset_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = loaded(&dir);
    let tape = open(&server, "vtl0/drive0");
    let mut other = server.dial();
    let busy = other.open_scsi("vtl0/drive0").unwrap_err();
    assert_eq!(busy.code(), Some(ErrorCode::DeviceBusy));
    let told = other.next_log().unwrap();
    assert!(told.contains("in use by 127.0.0.1"), "{told}");
    drop(tape);
    until("the drive is free", || other.open_scsi("vtl0/drive0").ok());
    let ready = scsi::Cdb::TestUnitReady;
    other.scsi_command(&ready, 0).unwrap();
    other.ask_bare(MessageCode::ScsiResetDevice).unwrap();
    let told = other.execute_cdb(&ready.encode(), Bytes::new(), 0).unwrap();
    assert_eq!(told.status, 2);
    assert!(scsi::Sense::parse(&told.sense).unwrap().is(scsi::Sense::POWER_ON_RESET));
    other.scsi_command(&ready, 0).unwrap();
    other.close_scsi().unwrap();
    server.stop();
}

#[test]
fn sessions_are_counted_and_logins_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let wrong = Login::text("ndmp", "not it");
    let refused = Client::connect(server.address, None, &wrong).unwrap_err();
    assert!(matches!(refused, DmaError::NotAuthorized), "{refused}");
    let told = |id: &str| {
        let events = server.engine.ground.catalogue.events(&EventFilter::default()).unwrap();
        events.into_iter().find(|event| event.message_id == id)
    };
    let event = until("the login is told", || told(messages::LOGIN_REFUSED));
    assert!(event.text.contains("ndmp") && !event.text.contains("not it"), "{}", event.text);
    let login = Login::md5("ndmp", "a secret");
    let mut sessions = Vec::new();
    let refused =
        until("all sessions are taken", || match Client::connect(server.address, None, &login) {
            Ok(session) => {
                sessions.push(session);
                None
            }
            Err(error) => Some(error),
        });
    assert!(sessions.len() <= 4, "{}", sessions.len());
    assert!(matches!(refused, DmaError::ServerRefused(_)), "{refused}");
    assert!(told(messages::TOO_MANY_SESSIONS).is_some());
    drop(sessions);
    server.stop();
}

#[test]
fn what_was_flushed_outlives_a_crash_with_the_cartridge_in_its_drive() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::within(PATIENCE);
    let opener = Opener { nexus: 1, who: "test".into() };
    {
        let engine = open_engine(dir.path());
        let registry = &engine.ground.registry;
        let changer = registry.open_scsi("vtl0/changer", &opener, &control).unwrap();
        let (_claim, Device::Changer(mut changer)) = changer else { panic!("no changer") };
        changer.move_medium(1024, 128, &control).unwrap();
        let (_claim, mut drive) = registry.open_tape("vtl0/drive0", &opener, &control).unwrap();
        drive.write(&[1; RECORD], &control).unwrap();
        drive.write_filemarks(1, &control).unwrap();
        drive.write(&[2; RECORD], &control).unwrap();
        // Dropped without a flush or an unload.
    }
    let server = Server::start(dir.path());
    let ground = &server.engine.ground;
    assert!(ground.catalogue.all_generations().unwrap().is_empty());
    // It is in its drive, at its beginning, with what was flushed.
    let mut client = open(&server, "vtl0/drive0");
    let found = client.read_all(RECORD as u32).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    client.mtio(MtioOp::Off, 1).unwrap();
    client.close_tape().unwrap();
    let rows = ground.catalogue.all_generations().unwrap();
    assert_eq!((rows.len(), rows[0].records, rows[0].filemarks), (1, 1, 1));
    assert!(ground.store.latest(rows[0].cartridge).is_some());
    server.stop();
}
