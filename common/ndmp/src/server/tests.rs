//! The session: versions, logging in, order of replies and notifications, devices, and the end.

use bytes::Bytes;
use xdr::Reader;
use zeroize::Zeroizing;

use super::rig::{DRIVE, Pipe, Rig, Seen, challenge, config};
use super::*;
use crate::mover::{MoverCommand, MoverEvent, StopReason};
use crate::tape::{DriveStep, Failure, FailureKind};
use crate::testing::{ListDrive, Object};
use crate::wire::ErrorCode::*;
use crate::wire::*;

fn text(id: &str, password: &str) -> Request {
    let password = Zeroizing::new(password.as_bytes().to_vec());
    Request::ConnectClientAuth(AuthData::Text { id: id.into(), password })
}

fn md5(id: &str, password: &str) -> Request {
    let digest = crate::auth::md5_digest(password.as_bytes(), &challenge()).unwrap();
    Request::ConnectClientAuth(AuthData::Md5 { id: id.into(), digest })
}

#[test]
fn the_server_speaks_first() {
    let mut rig = Rig::raw();
    let status = Post::ConnectionStatus {
        reason: ConnectionReason::Connected,
        version: 4,
        text: String::new(),
    };
    assert_eq!(rig.post(), status);
    assert_eq!(rig.seen, []);
}

#[test]
fn a_full_server_says_so_and_closes() {
    let mut session = Session::new(config().into(), challenge());
    session.refuse("too many sessions", 0);
    let mut sent = None;
    let mut rest = Vec::new();
    while let Some(output) = session.poll() {
        match output {
            Output::Send(bytes) => sent = Some(bytes),
            other => rest.push(other),
        }
    }
    let record = sent.unwrap().slice(4..);
    let mut reader = Reader::new(&record);
    let header = Header::decode(&mut reader).unwrap();
    let post = Post::decode(header.code, Version::V4, reader).unwrap();
    let Post::ConnectionStatus { reason, .. } = post else { panic!("{post:?}") };
    assert_eq!(reason, ConnectionReason::Refused);
    assert_eq!(rest, [Output::Close, Output::Finished]);
    assert!(session.is_finished());
}

#[test]
fn versions_are_negotiated_before_anything_else() {
    for (wanted, error) in [(4, NoErr), (3, NoErr), (2, NoErr), (5, IllegalArgs), (0, IllegalArgs)]
    {
        let mut rig = Rig::raw();
        rig.seen.clear();
        assert_eq!(rig.ask(Request::ConnectOpen(wanted)), error);
    }
    // one that is not spoken can be followed by a lower one
    let mut rig = Rig::raw();
    rig.seen.clear();
    assert_eq!(rig.ask(Request::ConnectOpen(9)), IllegalArgs);
    assert_eq!(rig.ask(Request::ConnectOpen(3)), NoErr);
    rig.version = Version::V3;
    assert_eq!(rig.ask(Request::ConnectOpen(3)), IllegalState);
    // and the highest is spoken with who does not ask
    let mut rig = Rig::raw();
    rig.seen.clear();
    assert_eq!(rig.ask(text("ndmp", "ndmp")), NoErr);
    assert_eq!(rig.ask(Request::ConnectOpen(4)), IllegalState);
    assert_eq!(rig.bare(MessageCode::ConfigGetTapeInfo), NoErr);
}

#[test]
fn nothing_but_logging_in_goes_before_logging_in() {
    for version in Version::ALL {
        let mut rig = Rig::raw();
        rig.seen.clear();
        rig.ask(Request::ConnectOpen(version.to_wire()));
        rig.version = version;
        for code in MessageCode::ALL.iter().copied() {
            if !code.exists_in(version) || code.is_post() {
                continue;
            }
            let Ok(request) = Request::decode(code, version, Reader::new(&Bytes::new())) else {
                continue;
            };
            let open = [MessageCode::ConnectClose, MessageCode::ConfigGetServerInfo];
            if !open.contains(&code) {
                // in the body, well-formed
                assert_eq!(rig.ask(request), NotAuthorized, "{version} {code}");
            }
        }
        assert_eq!(rig.ask(Request::TapeRead(1)), NotAuthorized);
        let read = MoverMode::Read;
        let listen = Request::MoverListen { mode: read, addr_type: AddrType::Tcp };
        assert_eq!(rig.ask(listen), NotAuthorized);
        if version > Version::V2 {
            assert_eq!(rig.bare(MessageCode::ConfigGetServerInfo), NoErr);
        }
        assert_eq!(rig.ask(Request::ConfigGetAuthAttr(AuthType::Md5)), NoErr);
        assert!(rig.asked.is_empty());
    }
}

#[test]
fn logging_in() {
    for (request, expected) in [
        (text("ndmp", "ndmp"), NoErr),
        (text("ndmp", "hunter2"), NotAuthorized),
        (text("ndmp", ""), NotAuthorized),
        (text("nobody", "nobody"), NotAuthorized),
        (md5("ndmp", "ndmp"), NoErr),
        (md5("ndmp", "hunter2"), NotAuthorized),
        (md5("nobody", "nobody"), NotAuthorized),
        (Request::ConnectClientAuth(AuthData::None), NotAuthorized),
        (Request::ConnectClientAuth(AuthData::Unknown(7)), IllegalArgs),
    ] {
        let mut rig = Rig::raw();
        rig.seen.clear();
        assert_eq!(rig.ask(request), expected);
        let user = (expected == NoErr).then_some("ndmp");
        assert_eq!(rig.session.user(), user);
        let after = if expected == NoErr { NoErr } else { NotAuthorized };
        assert_eq!(rig.bare(MessageCode::ConfigGetHostInfo), after);
    }
}

#[test]
fn guessing_ends() {
    let mut rig = Rig::raw();
    rig.seen.clear();
    for _ in 0..7 {
        assert_eq!(rig.ask(text("ndmp", "hunter2")), NotAuthorized);
    }
    rig.send(&text("ndmp", "hunter2"));
    assert!(matches!(rig.seen.pop_front(), Some(Seen::Reply(..))));
    assert_eq!(rig.seen.pop_front(), Some(Seen::Closed));
    assert!(rig.finished);
}

#[test]
fn methods_are_those_of_the_users() {
    let mut users = Users::new();
    assert_eq!(users.methods(), []);
    users.allow_none();
    let user = User { secret: Secret::new("x"), methods: vec![AuthType::Md5] };
    assert!(!format!("{user:?}").contains('x'));
    users.insert("a", user);
    assert_eq!(users.methods(), [AuthType::None, AuthType::Md5]);
    let config = SessionConfig { users, ..config() };
    let mut rig = Rig::raw();
    rig.seen.clear();
    rig.session = Session::new(config.into(), challenge());
    let attr = |kind| Request::ConfigGetAuthAttr(kind);
    assert_eq!(rig.ask(attr(AuthType::Text)), NotSupported);
    assert_eq!(rig.ask(attr(AuthType::Unknown(9))), IllegalArgs);
    let reply = rig.call(attr(AuthType::Md5));
    assert_eq!(reply.body, ReplyBody::AuthAttr(AuthAttr::Challenge(challenge())));
    assert_eq!(rig.ask(text("a", "x")), NotAuthorized, "not a method of this user");
    assert_eq!(rig.ask(Request::ConnectClientAuth(AuthData::None)), NoErr);
    assert_eq!(rig.session.user(), None);
}

#[test]
fn what_the_version_does_not_know_is_refused_in_the_header() {
    for version in Version::ALL {
        let mut rig = Rig::new(version);
        for code in [0x110, 0x20f, 0x306, 0x501, 0x603, 0xa10, 0xf000, 0x2052_0001] {
            rig.send(&Request::Bare(MessageCode::from_wire(code)));
            let Some(Seen::Reply(header, None)) = rig.seen.pop_front() else { panic!() };
            assert_eq!(header.error, NotSupported);
            assert_eq!(header.code, MessageCode::from_wire(code));
        }
    }
    let mut rig = Rig::new(Version::V2);
    rig.send(&Request::Bare(MessageCode::ConfigGetTapeInfo));
    assert!(matches!(
        rig.seen.pop_front(),
        Some(Seen::Reply(Header { error: NotSupported, .. }, None))
    ));
}

#[test]
fn bodies_that_can_not_be_decoded_are_refused_in_the_header() {
    let mut rig = Rig::new(Version::V4);
    for (code, body) in [(0xa05u32, vec![0u8; 12]), (0xa05, vec![0; 20]), (0x304, vec![0xff; 8])] {
        let mut record = vec![0, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0];
        record.extend(code.to_be_bytes());
        record.extend([0; 8]);
        record.extend(body);
        rig.deliver(&record.into());
        let Some(Seen::Reply(header, None)) = rig.seen.pop_front() else { panic!() };
        assert_eq!((header.error, header.reply_sequence), (XdrDecode, 50));
    }
    assert_eq!(rig.bare(MessageCode::ConfigGetHostInfo), NoErr);
    rig.deliver(&Bytes::from_static(&[1, 2, 3]));
    assert_eq!(rig.seen.pop_front(), Some(Seen::Closed));
    assert!(rig.finished);
}

#[test]
fn replies_to_nothing_are_passed_over() {
    let mut rig = Rig::new(Version::V4);
    let mut record = vec![0, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 1];
    record.extend([0; 12]);
    rig.deliver(&record.into());
    assert_eq!(rig.seen, []);
    assert_eq!(rig.bare(MessageCode::ConfigGetHostInfo), NoErr);
}

#[test]
fn lists_and_the_data_interface() {
    for version in Version::ALL {
        let mut rig = Rig::new(version);
        let types = rig.call(Request::Bare(MessageCode::ConfigGetConnectionType)).body;
        assert_eq!(types, ReplyBody::ConnectionType(vec![AddrType::Local, AddrType::Tcp]));
        let ReplyBody::HostInfo(host) =
            rig.call(Request::Bare(MessageCode::ConfigGetHostInfo)).body
        else {
            panic!()
        };
        assert_eq!(host.auth_types.is_empty(), version != Version::V2);
        for code in [MessageCode::DataGetState, MessageCode::DataAbort, MessageCode::DataGetEnv] {
            let data = Request::Data { code, body: Bytes::new() };
            assert_eq!(rig.ask(data), NotSupported);
        }
        let cdb = Request::TapeExecuteCdb(ExecuteCdb::default());
        assert_eq!(rig.ask(cdb), NotSupported);
        if version == Version::V2 {
            assert_eq!(rig.ask(Request::ConfigGetButypeAttr("dump".into())), NotSupported);
            continue;
        }
        let reply = rig.call(Request::Bare(MessageCode::ConfigGetTapeInfo));
        let ReplyBody::Devices(list) = reply.body else { panic!() };
        assert_eq!(list.len(), 1, "one model");
        assert_eq!(list[0].devices[0].device, DRIVE);
        assert_eq!(list[0].devices[0].attributes, if version == Version::V4 { 4 } else { 0 });
        for code in [MessageCode::ConfigGetFsInfo, MessageCode::ConfigGetButypeInfo] {
            assert_eq!(rig.call(Request::Bare(code)), Reply::ok(ReplyBody::empty(code)));
        }
    }
    let mut rig = Rig::new(Version::V4);
    assert_eq!(rig.bare(MessageCode::ConfigGetExtList), NoErr);
    assert_eq!(rig.ask(Request::ConfigSetExtList(vec![])), NoErr);
    assert_eq!(rig.ask(Request::ConfigSetExtList(vec![(1, 1)])), ClassNotSupported);
}

#[test]
fn one_device_at_a_time() {
    let mut rig = Rig::new(Version::V3);
    let scsi = || Request::ScsiOpen("vl/changer".into());
    assert_eq!(rig.bare(MessageCode::ScsiClose), DevNotOpen);
    assert_eq!(rig.ask(Request::ScsiOpen("bogus".into())), NoDevice);
    assert_eq!(rig.ask(scsi()), NoErr);
    assert_eq!(rig.ask(scsi()), DeviceOpened);
    assert_eq!(rig.open(TapeOpenMode::Read), DeviceOpened);
    assert_eq!(rig.bare(MessageCode::TapeClose), DevNotOpen);
    assert_eq!(rig.bare(MessageCode::ScsiGetState), NoErr);
    assert_eq!(rig.bare(MessageCode::ScsiResetDevice), NoErr);
    assert_eq!(rig.bare(MessageCode::ScsiResetBus), NotSupported);
    let cdb = ExecuteCdb { cdb: vec![0x12].into(), data_in_len: 4, ..ExecuteCdb::default() };
    // CHECK CONDITION is an answer, not an error
    let reply = rig.call(Request::ScsiExecuteCdb(cdb));
    let ReplyBody::Cdb(result) = reply.body else { panic!() };
    assert_eq!((reply.error, result.status, result.data_in.len()), (NoErr, 2, 4));
    assert_eq!(rig.ask(Request::ScsiExecuteCdb(ExecuteCdb::default())), IllegalArgs);
    assert_eq!(rig.bare(MessageCode::ScsiClose), NoErr);
    assert_eq!(rig.open(TapeOpenMode::Read), NoErr);
    assert_eq!(rig.ask(scsi()), DeviceOpened);
    assert_eq!(rig.open(TapeOpenMode::Raw), IllegalArgs, "version 4 only");
}

#[test]
fn a_drive_that_can_not_be_opened_is_given_back() {
    let mut rig = Rig::new(Version::V4);
    rig.drive = ListDrive::default();
    assert_eq!(rig.open(TapeOpenMode::ReadWrite), NoTapeLoaded);
    assert_eq!(rig.asked.last(), Some(&DeviceRequest::CloseTape));
    assert_eq!(rig.open(TapeOpenMode::Raw), NoErr);
}

fn objects(rig: &Rig) -> usize {
    rig.drive.objects.len()
}

#[test]
fn a_lost_client_leaves_a_finished_tape_and_no_device() {
    let mut rig = Rig::new(Version::V4);
    rig.open(TapeOpenMode::ReadWrite);
    rig.ask(Request::TapeWrite(vec![1; 10].into()));
    rig.session.on_disconnect(0);
    rig.settle();
    assert_eq!(rig.drive.objects.last(), Some(&Object::Mark));
    assert_eq!(rig.asked.last(), Some(&DeviceRequest::CloseTape));
    assert_eq!(rig.seen, [Seen::Closed]);
    assert!(rig.finished && rig.session.is_finished());
    // and nothing more comes of it
    rig.deliver(&Bytes::from_static(&[0; 24]));
    rig.session.on_disconnect(0);
    rig.settle();
    assert_eq!(rig.seen, [Seen::Closed]);
}

#[test]
fn a_client_that_says_good_bye_gets_no_reply() {
    let mut rig = Rig::new(Version::V4);
    rig.ask(Request::ScsiOpen("vl/changer".into()));
    rig.send(&Request::Bare(MessageCode::ConnectClose));
    assert_eq!(rig.seen, [Seen::Closed]);
    assert_eq!(rig.asked.last(), Some(&DeviceRequest::CloseScsi));
    assert!(rig.finished);
}

#[test]
fn a_client_lost_during_a_device_request_is_cleaned_up_after_it() {
    for request in [
        Request::TapeWrite(vec![1; 10].into()),
        Request::TapeMtio { op: MtioOp::Rew, count: 1 },
        Request::TapeRead(10),
        Request::Bare(MessageCode::TapeClose),
    ] {
        let mut rig = Rig::new(Version::V4);
        rig.open(TapeOpenMode::ReadWrite);
        rig.ask(Request::TapeWrite(vec![1; 10].into()));
        rig.hold = true;
        rig.send(&request);
        assert!(rig.session.is_busy());
        rig.session.on_disconnect(0);
        rig.settle();
        assert!(!rig.finished);
        rig.hold = false;
        while !rig.held.is_empty() {
            rig.release();
        }
        assert!(rig.finished, "{:?}", request.code());
        assert_eq!(rig.asked.last(), Some(&DeviceRequest::CloseTape));
        let closes = rig.asked.iter().filter(|asked| **asked == DeviceRequest::CloseTape);
        assert_eq!(closes.count(), 1, "{:?}", request.code());
        let marks = rig.drive.objects.iter().filter(|object| **object == Object::Mark).count();
        assert_eq!(marks, 1, "{:?}", request.code());
    }
    // while opening
    let mut rig = Rig::new(Version::V4);
    rig.hold = true;
    rig.send(&Request::TapeOpen { device: DRIVE.into(), mode: TapeOpenMode::ReadWrite });
    rig.session.on_disconnect(0);
    rig.hold = false;
    rig.settle();
    while !rig.held.is_empty() {
        rig.release();
    }
    assert!(rig.finished);
    assert_eq!(rig.asked.last(), Some(&DeviceRequest::CloseTape));
}

#[test]
fn a_client_lost_while_data_moves_stops_the_mover_first() {
    let mut rig = Rig::with_tape(Version::V4, TapeOpenMode::ReadWrite);
    rig.plane.pipe = Some(Default::default());
    rig.ask(Request::MoverSetWindow { offset: 0, length: u64::MAX });
    rig.ask(Request::MoverListen { mode: MoverMode::Read, addr_type: AddrType::Tcp });
    rig.event(MoverEvent::Connected);
    if let Some(pipe) = &rig.plane.pipe {
        pipe.borrow_mut().bytes.extend([5; 25]);
    }
    rig.pump();
    assert_eq!(objects(&rig), 2);
    rig.hold = true;
    rig.session.on_disconnect(0);
    rig.settle();
    assert_eq!(rig.held, [Output::Mover(MoverCommand::Cancel)]);
    rig.hold = false;
    rig.release();
    assert!(rig.finished);
    assert_eq!(rig.drive.objects.last(), Some(&Object::Mark));
    assert_eq!(rig.seen, [Seen::Closed], "no notification to nobody");
}

#[test]
fn a_client_lost_while_listening_or_dialling_closes_the_connection() {
    for dial in [false, true] {
        let mut rig = Rig::with_tape(Version::V4, TapeOpenMode::ReadWrite);
        rig.hold = true;
        rig.send(&match dial {
            true => Request::MoverConnect { mode: MoverMode::Read, addr: Addr::Local },
            false => Request::MoverListen { mode: MoverMode::Read, addr_type: AddrType::Tcp },
        });
        rig.held.clear();
        rig.session.on_disconnect(0);
        rig.settle();
        assert_eq!(rig.held[0], Output::Mover(MoverCommand::CloseConnection { orderly: false }));
        rig.hold = false;
        while !rig.held.is_empty() {
            rig.release();
        }
        assert!(rig.finished);
    }
}

#[test]
fn the_server_says_when_it_stops() {
    let mut rig = Rig::new(Version::V4);
    rig.open(TapeOpenMode::Read);
    rig.session.shut_down("maintenance", 0);
    rig.settle();
    let Post::ConnectionStatus { reason, text, .. } = rig.post() else { panic!() };
    assert_eq!((reason, text.as_str()), (ConnectionReason::Shutdown, "maintenance"));
    assert!(rig.finished);
    rig.session.shut_down("again", 0);
    rig.settle();
    assert_eq!(rig.seen, [Seen::Closed]);
}

#[test]
fn log_lines_take_the_form_of_the_version() {
    for version in Version::ALL {
        let mut rig = Rig::new(version);
        rig.session.post_log(LogType::Normal, &"é".repeat(100_000), 0);
        rig.settle();
        let Post::Log { text, .. } = rig.post() else { panic!() };
        assert_eq!(text.chars().count(), bounds::TEXT / 4);
    }
    let mut rig = Rig::raw();
    rig.seen.clear();
    rig.session.post_log(LogType::Normal, "too early", 0);
    rig.settle();
    assert_eq!(rig.seen, []);
}

fn copying(version: Version) -> Rig {
    let mut rig = Rig::with_tape(version, TapeOpenMode::ReadWrite);
    rig.plane.pipe = Some(Default::default());
    assert_eq!(rig.ask(Request::MoverSetWindow { offset: 0, length: 20 }), NoErr);
    let listen = Request::MoverListen { mode: MoverMode::Read, addr_type: AddrType::Tcp };
    assert_eq!(rig.ask(listen), NoErr);
    rig.event(MoverEvent::Connected);
    rig
}

fn feed(rig: &Rig, count: usize) {
    let fill = |pipe: &mut Pipe| pipe.bytes.extend(vec![5; count]);
    fill(&mut rig.plane.pipe.as_ref().unwrap().borrow_mut());
}

#[test]
fn abort_is_answered_when_the_data_stands_still() {
    let mut rig = copying(Version::V4);
    rig.hold = true;
    rig.send(&Request::Bare(MessageCode::MoverAbort));
    assert!(rig.session.is_busy());
    assert_eq!(rig.seen, []);
    rig.hold = false;
    rig.release();
    assert!(matches!(rig.seen.pop_front(), Some(Seen::Reply(_, Some(Reply { error: NoErr, .. })))));
    let halted = Post::MoverHalted { reason: HaltReason::Aborted, text: String::new() };
    assert_eq!(rig.post(), halted);
    // a second abort has no second notification
    assert_eq!(rig.bare(MessageCode::MoverAbort), NoErr);
    assert_eq!(rig.seen, []);
    assert_eq!(rig.bare(MessageCode::MoverStop), NoErr);
}

#[test]
fn an_abort_that_crosses_the_end_of_the_run_is_still_an_abort() {
    let mut rig = copying(Version::V4);
    rig.hold = true;
    rig.send(&Request::Bare(MessageCode::MoverAbort));
    rig.event(MoverEvent::Stopped(StopReason::WindowFull, Default::default()));
    assert!(matches!(rig.seen.pop_front(), Some(Seen::Reply(..))));
    assert!(matches!(rig.post(), Post::MoverHalted { reason: HaltReason::Aborted, .. }));
}

#[test]
fn while_the_mover_has_the_tape_only_its_state_is_told() {
    for version in Version::ALL {
        let mut rig = copying(version);
        feed(&rig, 25);
        assert_eq!(rig.ask(Request::TapeRead(10)), IllegalState);
        assert_eq!(rig.ask(Request::TapeWrite(vec![1].into())), IllegalState);
        assert_eq!(rig.bare(MessageCode::TapeClose), IllegalState);
        assert_eq!(rig.tape_state().blockno, 0);
        while rig.pump() {}
        let reason = if version == Version::V2 { PauseReason::Eom } else { PauseReason::Eow };
        assert_eq!(rig.post(), Post::MoverPaused { reason, seek_position: 20 });
        assert_eq!(rig.tape_state().blockno, 2);
        // in a pause everything is legal, even another tape
        assert_eq!(rig.ask(Request::TapeMtio { op: MtioOp::Eof, count: 1 }), NoErr);
        assert_eq!(rig.bare(MessageCode::TapeClose), NoErr);
        assert_eq!(rig.bare(MessageCode::MoverContinue), DevNotOpen);
        assert_eq!(rig.open(TapeOpenMode::Read), NoErr);
        assert_eq!(rig.bare(MessageCode::MoverContinue), Permission);
        assert_eq!(rig.bare(MessageCode::TapeClose), NoErr);
        assert_eq!(rig.open(TapeOpenMode::ReadWrite), NoErr);
        assert_eq!(rig.ask(Request::MoverSetWindow { offset: 20, length: 20 }), NoErr);
        assert_eq!(rig.bare(MessageCode::MoverContinue), NoErr);
        rig.plane.pipe.as_ref().unwrap().borrow_mut().writer_closed = true;
        while rig.pump() {}
        assert!(matches!(rig.post(), Post::MoverHalted { reason: HaltReason::ConnectClosed, .. }));
        let report = rig.mover();
        assert_eq!((report.bytes_moved, report.record_num), (25, 3));
        assert_eq!(rig.bare(MessageCode::MoverStop), NoErr);
        let report = rig.mover();
        assert_eq!((report.bytes_moved, report.record_size), (0, 10));
        assert_eq!(rig.bare(MessageCode::TapeClose), NoErr);
    }
}

#[test]
fn close_flushes_before_the_client_hears_of_the_end() {
    for (fails, reason) in [(false, HaltReason::ConnectClosed), (true, HaltReason::MediaError)] {
        let mut rig = copying(Version::V4);
        feed(&rig, 30);
        while rig.pump() {}
        rig.post();
        rig.asked.clear();
        if fails {
            rig.drive.failures = vec![FailureKind::Medium];
        }
        assert_eq!(rig.bare(MessageCode::MoverClose), NoErr);
        assert_eq!(rig.asked, [DeviceRequest::Drive(DriveStep::Filemarks(0))]);
        let Post::MoverHalted { reason: told, .. } = rig.post() else { panic!() };
        assert_eq!(told, reason);
        assert!(rig.plane.pipe.is_none(), "the connection is closed");
    }
}

#[test]
fn a_peer_that_can_not_be_reached() {
    for (version, error) in [(Version::V3, Connect), (Version::V4, Connect)] {
        let mut rig = Rig::with_tape(version, TapeOpenMode::ReadWrite);
        rig.plane.dial_fails = true;
        let connect =
            |mode| Request::MoverConnect { mode, addr: Addr::tcp("127.0.0.1:9".parse().unwrap()) };
        assert_eq!(rig.ask(connect(MoverMode::Write)), error);
        assert_eq!(rig.mover().state, MoverState::Idle);
        rig.plane.dial_fails = false;
        assert_eq!(rig.ask(connect(MoverMode::Write)), NoErr);
        assert_eq!(rig.mover().state, MoverState::Active);
    }
}

#[test]
fn answers_that_nobody_waits_for_are_passed_over() {
    let mut rig = Rig::new(Version::V4);
    rig.session.on_device(DeviceReply::Done, 0);
    rig.event(MoverEvent::Connected);
    rig.event(MoverEvent::PeerClosed);
    rig.event(MoverEvent::Listening(Addr::Local));
    rig.event(MoverEvent::Stopped(StopReason::WindowFull, Default::default()));
    rig.event(MoverEvent::ConnectionLost(Failure::new(FailureKind::Io, "gone")));
    assert_eq!(rig.seen, []);
    assert_eq!(rig.mover().state, MoverState::Idle);
}

#[test]
fn a_message_out_of_turn_ends_the_session_cleanly() {
    let mut rig = Rig::new(Version::V4);
    rig.open(TapeOpenMode::Read);
    rig.hold = true;
    rig.send(&Request::TapeRead(10));
    rig.send(&Request::TapeRead(10));
    assert_eq!(rig.seen, [Seen::Closed]);
    rig.hold = false;
    rig.release();
    assert!(rig.finished);
}
