//! Golden bytes of the standard's own exchanges, and round trips of everything in all versions.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use proptest::prelude::*;
use xdr::{Reader, Writer};
use zeroize::Zeroizing;

use super::*;

fn words(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn header(sequence: u32, code: MessageCode) -> Header {
    Header {
        sequence,
        time_stamp: 0,
        is_reply: false,
        code,
        reply_sequence: 0,
        error: ErrorCode::NoErr,
    }
}

#[test]
fn notify_connected_is_golden() {
    let post = Post::ConnectionStatus {
        reason: ConnectionReason::Connected,
        version: 4,
        text: String::new(),
    };
    let bytes = header(1, post.code(Version::V4)).encode(|w| post.encode(Version::V4, w)).unwrap();
    assert_eq!(
        bytes,
        words(
            "80000024 00000001 00000000 00000000 00000502 00000000 00000000
             00000000 00000004 00000000"
        )
    );
}

#[test]
fn connect_open_and_its_reply_are_golden() {
    let request = Request::ConnectOpen(4);
    let bytes = header(1, request.code()).encode(|w| request.encode(Version::V4, w)).unwrap();
    assert_eq!(
        bytes,
        words("8000001c 00000001 00000000 00000000 00000900 00000000 00000000 00000004")
    );
    let reply = Reply::failed(MessageCode::ConnectOpen, ErrorCode::NoErr);
    let head = Header { is_reply: true, reply_sequence: 1, ..header(2, MessageCode::ConnectOpen) };
    let bytes = head.encode(|w| reply.encode(Version::V4, w)).unwrap();
    assert_eq!(
        bytes,
        words("8000001c 00000002 00000000 00000001 00000900 00000001 00000000 00000000")
    );
}

#[test]
fn set_window_is_golden() {
    let request = Request::MoverSetWindow { offset: 0, length: u64::MAX };
    let bytes = header(9, request.code()).encode(|w| request.encode(Version::V4, w)).unwrap();
    assert_eq!(
        bytes,
        words(
            "80000028 00000009 00000000 00000000 00000a05 00000000 00000000
             00000000 00000000 ffffffff ffffffff"
        )
    );
}

#[test]
fn md5_digests_are_golden() {
    let challenge: [u8; 64] = std::array::from_fn(|at| at as u8);
    for (password, digest) in [
        ("ndmp", "bc7d61077ebc1e1bf84a59827c26dd65"),
        ("correct horse battery staple", "eefa3afa1d76bb0672f24a2125027d22"),
    ] {
        let made = crate::auth::md5_digest(password.as_bytes(), &challenge).unwrap();
        assert_eq!(made.to_vec(), words(digest));
    }
    assert_eq!(crate::auth::md5_digest(b"", &challenge), None);
    assert_eq!(crate::auth::md5_digest(&[b'x'; 33], &challenge), None);
    assert!(crate::auth::md5_digest(&[b'x'; 32], &challenge).is_some());
}

#[test]
fn tape_state_has_its_mask_first_but_in_version_2() {
    let state = TapeState { unsupported: 0x22, file_num: 3, blockno: 7, ..TapeState::default() };
    let reply = Reply::ok(ReplyBody::TapeState(state));
    for (version, length) in [(Version::V2, 40), (Version::V3, 48), (Version::V4, 44)] {
        let mut writer = Writer::new(1000);
        reply.encode(version, &mut writer);
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len(), length, "{version}");
        let first = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(first, if version == Version::V2 { 0 } else { 0x22 });
    }
}

#[test]
fn later_errors_are_said_in_earlier_words() {
    assert_eq!(ErrorCode::Connect.in_version(Version::V2), ErrorCode::Io);
    assert_eq!(ErrorCode::Connect.in_version(Version::V3), ErrorCode::Connect);
    assert_eq!(ErrorCode::Precondition.in_version(Version::V3), ErrorCode::IllegalState);
    assert_eq!(ErrorCode::ClassNotSupported.in_version(Version::V2), ErrorCode::Undefined);
    assert_eq!(ErrorCode::Precondition.in_version(Version::V4), ErrorCode::Precondition);
}

#[test]
fn names_are_the_standards_own() {
    assert_eq!(ErrorCode::Eom.to_string(), "NDMP_EOM_ERR");
    assert_eq!(MessageCode::MoverSetWindow.to_string(), "NDMP_MOVER_SET_WINDOW");
    assert_eq!(MoverMode::from_wire(123).to_string(), "unknown mover mode 123");
    for code in MessageCode::ALL {
        assert_eq!(MessageCode::from_wire(code.to_wire()), *code);
        assert!(code.to_string().starts_with("NDMP_"));
    }
}

#[test]
fn data_replies_are_well_formed() {
    // NDMP2/3/4_DATA_GET_STATE: [mask] error operation state halt, 2 quads, time, addr, 2 quads
    for (version, length) in [(Version::V2, 56), (Version::V3, 60), (Version::V4, 60)] {
        let reply = Reply::failed(MessageCode::DataGetState, ErrorCode::NotSupported);
        let mut writer = Writer::new(1000);
        reply.encode(version, &mut writer);
        assert_eq!(writer.finish().unwrap().len(), length);
    }
}

fn sample_cdb() -> ExecuteCdb {
    ExecuteCdb {
        flags: 1,
        timeout_ms: 300_000,
        data_in_len: 8,
        cdb: Bytes::from_static(&[0xb8, 0x10, 0, 0, 0xff, 0xff]),
        data_out: Bytes::from_static(b"x"),
    }
}

fn tcp(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 4000)
}

fn requests(version: Version) -> Vec<Request> {
    let text = Zeroizing::new(b"pass".to_vec());
    let mut all = vec![
        Request::ConnectOpen(4),
        Request::ConnectClientAuth(AuthData::None),
        Request::ConnectClientAuth(AuthData::Text { id: "ndmp".into(), password: text }),
        Request::ConnectClientAuth(AuthData::Md5 { id: "a".into(), digest: [7; 16] }),
        Request::ConnectServerAuth(AuthAttr::Challenge([3; 64])),
        Request::ConfigGetButypeAttr("dump".into()),
        Request::ConfigGetAuthAttr(AuthType::Md5),
        Request::ConfigSetExtList(vec![(0x2050, 1)]),
        Request::ScsiOpen("vl/changer".into()),
        Request::ScsiSetTarget { device: "x".into(), target: [1, 2, 3] },
        Request::ScsiExecuteCdb(sample_cdb()),
        Request::TapeOpen { device: "vl/drive0".into(), mode: TapeOpenMode::Raw },
        Request::TapeMtio { op: MtioOp::Fsf, count: 2 },
        Request::TapeWrite(Bytes::from_static(b"record")),
        Request::TapeRead(32768),
        Request::TapeExecuteCdb(sample_cdb()),
        Request::Data { code: MessageCode::DataAbort, body: Bytes::new() },
        Request::MoverListen { mode: MoverMode::Read, addr_type: AddrType::Tcp },
        Request::MoverConnect { mode: MoverMode::Write, addr: Addr::tcp(tcp(1)) },
        Request::MoverConnect { mode: MoverMode::Unknown(9), addr: Addr::Local },
        Request::MoverSetWindow { offset: 1 << 40, length: u64::MAX },
        Request::MoverRead { offset: 5, length: 6 },
        Request::MoverSetRecordSize(10240),
    ];
    all.extend(MessageCode::ALL.iter().copied().filter_map(|code| {
        let bare = matches!(
            Request::decode(code, version, Reader::new(&Bytes::new())),
            Ok(Request::Bare(_))
        );
        bare.then_some(Request::Bare(code))
    }));
    all.retain(|request| request.code().exists_in(version));
    all
}

fn replies(version: Version) -> Vec<(MessageCode, Reply)> {
    let device = DeviceInfo {
        model: "TWINREEL VT".into(),
        devices: vec![DeviceCapability {
            device: "vl/drive0".into(),
            attributes: 4,
            capability: vec![Pair { name: "serial".into(), value: "1".into() }],
        }],
    };
    let report = MoverReport {
        mode: if version == Version::V4 { MoverMode::Write } else { MoverMode::NoAction },
        state: MoverState::Paused,
        pause_reason: PauseReason::Eow,
        record_size: 32768,
        record_num: 5,
        bytes_moved: 1 << 33,
        addr: if version == Version::V2 { Addr::Local } else { Addr::tcp(tcp(2)) },
        ..MoverReport::default()
    };
    let auth_types = vec![AuthType::Text, AuthType::Md5];
    let host = HostInfo {
        hostname: "h".into(),
        auth_types: if version == Version::V2 { auth_types.clone() } else { Vec::new() },
        ..HostInfo::default()
    };
    let cdb = CdbResult { status: 2, sense: Bytes::from_static(&[0x70; 18]), ..Default::default() };
    let mask = if version == Version::V2 { 0 } else { 2 };
    let tape = TapeState { unsupported: mask, file_num: 1, total_space: 9, ..Default::default() };
    let fs = FsInfo { kind: "ext4".into(), sizes: [1, 2, 3, 4, 5], ..FsInfo::default() };
    let bodies = vec![
        (MessageCode::ConnectServerAuth, ReplyBody::ServerAuth(AuthData::None)),
        (MessageCode::ConfigGetHostInfo, ReplyBody::HostInfo(host)),
        (MessageCode::ConfigGetButypeAttr, ReplyBody::ButypeAttr(4)),
        (MessageCode::ConfigGetConnectionType, ReplyBody::ConnectionType(vec![AddrType::Tcp])),
        (MessageCode::ConfigGetAuthAttr, ReplyBody::AuthAttr(AuthAttr::Challenge([1; 64]))),
        (MessageCode::ConfigGetButypeInfo, ReplyBody::ButypeInfo(vec![ButypeInfo::default()])),
        (MessageCode::ConfigGetFsInfo, ReplyBody::FsInfo(vec![fs])),
        (MessageCode::ConfigGetTapeInfo, ReplyBody::Devices(vec![device])),
        (
            MessageCode::ConfigGetServerInfo,
            ReplyBody::ServerInfo(ServerInfo { auth_types, ..ServerInfo::default() }),
        ),
        (
            MessageCode::ConfigGetExtList,
            ReplyBody::Extensions(vec![ExtensionClass { class: 1, versions: vec![1, 2] }]),
        ),
        (MessageCode::ScsiGetState, ReplyBody::ScsiState([-1, 0, 1])),
        (MessageCode::ScsiExecuteCdb, ReplyBody::Cdb(cdb)),
        (MessageCode::TapeGetState, ReplyBody::TapeState(tape)),
        (MessageCode::TapeMtio, ReplyBody::Residual(3)),
        (MessageCode::TapeWrite, ReplyBody::Written(512)),
        (MessageCode::TapeRead, ReplyBody::Data(Bytes::from_static(b"abc"))),
        (MessageCode::MoverGetState, ReplyBody::Mover(report)),
        (MessageCode::MoverListen, ReplyBody::Address(Addr::tcp(tcp(3)))),
    ];
    let mut all: Vec<_> = bodies.into_iter().map(|(code, body)| (code, Reply::ok(body))).collect();
    for code in MessageCode::ALL.iter().filter(|code| !code.is_post()) {
        all.push((*code, Reply::failed(*code, ErrorCode::NotAuthorized)));
    }
    all.retain(|(code, _)| code.exists_in(version));
    all
}

fn posts(version: Version) -> Vec<Post> {
    let text = if version == Version::V4 { String::new() } else { "why".to_owned() };
    let v4 = version == Version::V4;
    let log = |kind| Post::Log {
        kind,
        id: if version == Version::V2 { 0 } else { 7 },
        text: "line".into(),
        associated: v4.then_some(9),
    };
    vec![
        Post::ConnectionStatus {
            reason: ConnectionReason::Refused,
            version: 4,
            text: "full".into(),
        },
        Post::MoverHalted { reason: HaltReason::Aborted, text: text.clone() },
        Post::MoverPaused { reason: PauseReason::Eof, seek_position: 1 << 50 },
        Post::DataHalted { reason: DataHaltReason::Successful, text },
        Post::DataRead { offset: 1, length: 2 },
        log(LogType::Normal),
        log(LogType::Debug),
    ]
}

#[test]
fn everything_comes_back_as_it_went_in_every_version() {
    for version in Version::ALL {
        for request in requests(version) {
            let mut writer = Writer::new(bounds::MESSAGE);
            request.encode(version, &mut writer);
            let bytes = Bytes::from(writer.finish().unwrap());
            let back = Request::decode(request.code(), version, Reader::new(&bytes)).unwrap();
            assert_eq!(back, request, "{version}");
        }
        for (code, reply) in replies(version) {
            let mut writer = Writer::new(bounds::MESSAGE);
            reply.encode(version, &mut writer);
            let bytes = Bytes::from(writer.finish().unwrap());
            let back = Reply::decode(code, version, Reader::new(&bytes)).unwrap();
            assert_eq!(back, reply, "{version} {code}");
        }
        for post in posts(version) {
            let mut writer = Writer::new(bounds::MESSAGE);
            post.encode(version, &mut writer);
            let bytes = Bytes::from(writer.finish().unwrap());
            let back = Post::decode(post.code(version), version, Reader::new(&bytes)).unwrap();
            assert_eq!(back, post, "{version}");
        }
    }
}

#[test]
fn secrets_are_not_shown() {
    let password = Zeroizing::new(b"hunter2".to_vec());
    let request = Request::ConnectClientAuth(AuthData::Text { id: "bob".into(), password });
    assert!(!format!("{request:?}").contains("hunter2"));
    assert!(!format!("{request:?}").contains("104, 117"));
}

proptest! {
    /// Whatever arrives is decoded or refused, in bounded memory, and never panics.
    #[test]
    fn rubbish_is_refused(
        code in 0u32..0xb00,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = Bytes::from(bytes);
        let code = MessageCode::from_wire(code);
        for version in Version::ALL {
            let _ = Request::decode(code, version, Reader::new(&bytes));
            let _ = Reply::decode(code, version, Reader::new(&bytes));
            let _ = Post::decode(code, version, Reader::new(&bytes));
        }
        let _ = Header::decode(&mut Reader::new(&bytes));
    }

    /// A message that is cut anywhere is refused, never half taken.
    #[test]
    fn cut_messages_are_refused(cut in 0usize..2000) {
        for version in Version::ALL {
            for request in requests(version) {
                let mut writer = Writer::new(bounds::MESSAGE);
                request.encode(version, &mut writer);
                let bytes = writer.finish().unwrap();
                if matches!(request, Request::Data { .. }) || cut >= bytes.len() {
                    continue;
                }
                let bytes = Bytes::from(bytes).slice(..cut);
                let decoded = Request::decode(request.code(), version, Reader::new(&bytes));
                prop_assert!(decoded.is_err());
            }
        }
    }
}
