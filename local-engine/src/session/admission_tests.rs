//! Who comes in, and what they may do, played by applications over loopback.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use dma::{Client, DmaError, Login};
use ndmp::wire::{Addr, AddrType, ErrorCode, MessageCode, MoverMode, ReplyBody, TapeOpenMode};
use service::config::{LocalConfig, NdmpUser, Secret};
use service::messages;
use svs::EventFilter;

use crate::testing::{PATIENCE, Server, until};

fn try_to_log_in(server: &Server, password: &str) -> Result<Client, DmaError> {
    Client::connect(server.address, None, &Login::text("ndmp", password))
}

fn refused(server: &Server, password: &str) {
    match try_to_log_in(server, password) {
        Err(DmaError::NotAuthorized) => {}
        other => panic!("{other:?}"),
    }
}

/// The texts of all events with this number.
fn told(server: &Server, id: &str) -> Vec<String> {
    let events = server.engine.ground.catalogue.events(&EventFilter::default()).unwrap();
    events.into_iter().filter(|event| event.message_id == id).map(|event| event.text).collect()
}

fn user(name: &str, devices: &[&str]) -> NdmpUser {
    NdmpUser {
        name: name.into(),
        password: Some(Secret::new("a secret".into())),
        password_file: None,
        auth: vec![service::config::Auth::Md5],
        devices: Some(devices.iter().map(|device| device.parse().unwrap()).collect()),
    }
}

#[test]
fn a_host_that_guesses_is_locked_out_and_let_in_again_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| {
        (config.ndmp.login_attempts, config.ndmp.lockout_seconds) = (2, 2);
    });
    let mut inside = server.dial();
    refused(&server, "wrong");
    refused(&server, "wrong");
    // Also with the right password; who is in stays in.
    refused(&server, "a secret");
    inside.ask_bare(MessageCode::ConfigGetHostInfo).unwrap();
    assert_eq!(told(&server, messages::HOST_LOCKED_OUT).len(), 1);
    let refusals = told(&server, messages::LOGIN_REFUSED);
    assert_eq!(refusals.len(), 3);
    assert!(refusals[2].contains("locked out"), "{refusals:?}");
    until("the host may log in again", || try_to_log_in(&server, "a secret").ok());
    assert!(told(&server, messages::LOGGED_IN).len() >= 2);
    drop(inside);
    server.stop();
}

#[test]
fn a_user_sees_and_opens_the_own_devices() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| {
        config.ndmp.users.push(user("robot", &["vtl0/changer"]));
        config.ndmp.users.push(user("nobody", &[]));
    });
    let login = Login::md5("robot", "a secret");
    let mut robot = Client::connect(server.address, None, &login).unwrap();
    let names = |client: &mut Client| {
        let codes = [MessageCode::ConfigGetTapeInfo, MessageCode::ConfigGetScsiInfo];
        codes.map(|code| match client.ask_bare(code).unwrap() {
            ReplyBody::Devices(models) => {
                models.iter().map(|model| model.devices.len()).sum::<usize>()
            }
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(names(&mut robot), [0, 1]);
    let refused = robot.open_tape("vtl0/drive0", TapeOpenMode::Raw).unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Permission), "{refused}");
    assert_eq!(robot.open_scsi("vtl0/drive0").unwrap_err().code(), Some(ErrorCode::Permission));
    robot.open_scsi("vtl0/changer").unwrap();
    assert_eq!(robot.inventory().unwrap().iter().filter(|e| e.tag.is_some()).count(), 3);
    assert_eq!(told(&server, messages::DEVICE_DENIED).len(), 2);
    let login = Login::md5("nobody", "a secret");
    let mut nobody = Client::connect(server.address, None, &login).unwrap();
    assert_eq!(names(&mut nobody), [0, 0]);
    assert_eq!(nobody.open_scsi("vtl0/changer").unwrap_err().code(), Some(ErrorCode::Permission));
    drop((robot, nobody));
    server.stop();
}

#[test]
fn a_host_that_is_not_allowed_hears_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| {
        config.ndmp.allow = Some(vec!["192.0.2.0/24".parse().unwrap()]);
    });
    let mut stream = TcpStream::connect(server.address).unwrap();
    assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    let event = until("it is told", || told(&server, messages::HOST_REFUSED).pop());
    assert!(event.contains("127.0.0.1"), "{event}");
    server.stop();
}

/// A session with a tape whose mover is ready to be connected.
fn ready(server: &Server) -> Client {
    let mut robot = server.dial();
    robot.open_scsi("vtl0/changer").unwrap();
    let from = robot.find_cartridge("VTA001L8").unwrap().address;
    robot.move_medium(from, 128).unwrap();
    robot.close_scsi().unwrap();
    robot.open_tape("vtl0/drive0", TapeOpenMode::ReadWrite).unwrap();
    robot.mover_set_record_size(1024).unwrap();
    robot
}

#[test]
fn a_mover_does_not_dial_whom_the_application_names() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = ready(&server);
    let strangers = (1..=5).map(|last| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), 22));
    let dialled = client.mover_connect(MoverMode::Read, Addr::Tcp(strangers.collect()));
    assert_eq!(dialled.unwrap_err().code(), Some(ErrorCode::Connect));
    let events = until("it is told", || {
        Some(told(&server, messages::DIAL_DENIED)).filter(|e| !e.is_empty())
    });
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains("192.0.2.1:22"), "{events:?}");
    // Its own host is no stranger.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let Ok(std::net::SocketAddr::V4(own)) = listener.local_addr() else { panic!("not IPv4") };
    client.mover_connect(MoverMode::Read, Addr::tcp(own)).unwrap();
    listener.accept().unwrap();
    drop(client);
    server.stop();
}

#[test]
fn a_mover_listens_at_all_addresses_and_is_found_at_each() {
    let further = Ipv4Addr::new(127, 0, 0, 2);
    // Nobody has this one: it is left out.
    let missing = Ipv4Addr::new(192, 0, 2, 1);
    let addresses = move |config: &mut LocalConfig| {
        config.ndmp.mover_addresses = vec![missing, Ipv4Addr::LOCALHOST, further];
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), addresses);
    let mut client = ready(&server);
    for place in 0..2 {
        client.mover_set_window(0, u64::MAX).unwrap();
        let Addr::Tcp(list) = client.mover_listen(MoverMode::Read, AddrType::Tcp).unwrap() else {
            panic!("not TCP addresses");
        };
        let hosts: Vec<_> = list.iter().map(|address| *address.ip()).collect();
        assert_eq!(hosts, [Ipv4Addr::LOCALHOST, further]);
        let data = TcpStream::connect(list[place]).unwrap();
        // The next request finds the mover connected already.
        let state = client.mover_state().unwrap();
        assert_eq!(state.state, ndmp::wire::MoverState::Active);
        drop(data);
        client.wait_mover(PATIENCE).unwrap();
        client.mover_stop().unwrap();
    }
    drop(client);
    server.stop();
}

#[test]
fn a_silent_session_ends_and_gives_its_devices_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| config.ndmp.idle_seconds = 1);
    let mut copying = ready(&server);
    copying.mover_set_window(0, u64::MAX).unwrap();
    let Addr::Tcp(list) = copying.mover_listen(MoverMode::Read, AddrType::Tcp).unwrap() else {
        panic!("not a TCP address");
    };
    let data = TcpStream::connect(list[0]).unwrap();
    copying.mover_state().unwrap();
    let mut idle = server.dial();
    idle.open_scsi("vtl0/changer").unwrap();
    let mut stranger = TcpStream::connect(server.address).unwrap();
    let mut greeting = Vec::new();
    stranger.read_to_end(&mut greeting).unwrap();
    let ended = until("both are over", || {
        Some(told(&server, messages::SESSION_ENDED)).filter(|ended| ended.len() == 2)
    });
    assert!(ended.iter().any(|text| text.contains("nobody logged in")), "{ended:?}");
    assert!(ended.iter().any(|text| text.contains("idle_seconds")), "{ended:?}");
    idle.inventory().unwrap_err();
    let mut robot = server.dial();
    robot.open_scsi("vtl0/changer").unwrap();
    // One whose mover is connected has nothing to say.
    copying.mover_state().unwrap();
    drop((copying, data, robot));
    server.stop();
}
