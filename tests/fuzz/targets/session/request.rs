//! Messages: well-formed requests, and ones that are not.

use bytes::Bytes;
use fuzz::Input;
use ndmp::wire::{
    Addr, AddrType, AuthAttr, AuthData, AuthType, ErrorCode, ExecuteCdb, Header, MessageCode,
    MoverMode, MtioOp, Request, TapeOpenMode, Version,
};

/// The only user.
pub(crate) const USER: &str = "ndmp";

fn name(input: &mut Input<'_>) -> String {
    ["vl/drive0", "vl/drive1", "vl/changer", "", "nonsense"][usize::from(input.below(5))].to_owned()
}

fn addr(input: &mut Input<'_>) -> Addr {
    let tcp = |port: u16| std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port);
    match input.below(4) {
        0 => Addr::Local,
        1 => Addr::tcp(tcp(input.u16())),
        2 => Addr::Tcp((0..input.below(3).into()).map(tcp).collect()),
        _ => Addr::Other(AddrType::from_wire(input.u8().into())),
    }
}

fn login(input: &mut Input<'_>) -> AuthData {
    match input.below(6) {
        0 => AuthData::None,
        1 => AuthData::Unknown(input.u32()),
        2 => AuthData::Md5 { id: USER.into(), digest: [7; 16] },
        3 => AuthData::Text { id: "\u{1b}[31mnobody".into(), password: vec![0; 3].into() },
        _ => AuthData::Text { id: USER.into(), password: b"ndmp".to_vec().into() },
    }
}

fn cdb(input: &mut Input<'_>) -> ExecuteCdb {
    ExecuteCdb {
        flags: input.u8().into(),
        timeout_ms: input.number() as u32,
        data_in_len: input.number() as u32,
        cdb: input.bytes(false),
        data_out: input.bytes(false),
    }
}

/// A request that can be understood, legal or not.
pub(crate) fn request(input: &mut Input<'_>) -> Request {
    let kind = input.below(22);
    match kind {
        0 => Request::ConnectOpen(input.number() as u32),
        1 => Request::ConnectClientAuth(login(input)),
        2 | 3 => Request::TapeOpen {
            device: name(input),
            mode: TapeOpenMode::from_wire(input.below(5).into()),
        },
        4 => Request::TapeMtio {
            op: MtioOp::from_wire(input.below(9).into()),
            count: input.number() as u32,
        },
        5 => Request::TapeWrite(input.bytes(false)),
        6 => Request::TapeRead(input.number() as u32),
        7 => Request::MoverListen {
            mode: MoverMode::from_wire(input.below(4).into()),
            addr_type: AddrType::from_wire(input.below(4).into()),
        },
        8 => Request::MoverConnect {
            mode: MoverMode::from_wire(input.below(4).into()),
            addr: addr(input),
        },
        9 | 10 => Request::MoverSetWindow { offset: input.number(), length: input.number() },
        11 | 12 => Request::MoverRead { offset: input.number(), length: input.number() },
        13 => Request::MoverSetRecordSize(input.number() as u32),
        14 => Request::ScsiOpen(name(input)),
        15 => Request::ScsiExecuteCdb(cdb(input)),
        16 => Request::ConfigGetAuthAttr(AuthType::from_wire(input.below(4).into())),
        17 => match input.below(5) {
            0 => Request::ConfigGetButypeAttr(name(input)),
            1 => Request::ConfigSetExtList(vec![(1, 2); input.below(2).into()]),
            2 => Request::ScsiSetTarget { device: name(input), target: [0, 1, 2] },
            3 => Request::ConnectServerAuth(AuthAttr::Plain(AuthType::None)),
            _ => Request::TapeExecuteCdb(cdb(input)),
        },
        18 => Request::Data { code: MessageCode::DataAbort, body: Bytes::new() },
        _ => Request::Bare(*input.pick(&[
            MessageCode::MoverContinue,
            MessageCode::MoverAbort,
            MessageCode::MoverStop,
            MessageCode::MoverClose,
            MessageCode::MoverGetState,
            MessageCode::TapeGetState,
            MessageCode::TapeClose,
            MessageCode::ScsiGetState,
            MessageCode::ScsiResetDevice,
            MessageCode::ScsiClose,
            MessageCode::ConfigGetHostInfo,
            MessageCode::ConfigGetServerInfo,
            MessageCode::ConfigGetConnectionType,
            MessageCode::ConfigGetTapeInfo,
            MessageCode::ConfigGetScsiInfo,
            MessageCode::ConfigGetExtList,
            MessageCode::ConnectClose,
        ])),
    }
}

/// A record as it arrives, most often a request as it should be.
pub(crate) fn message(input: &mut Input<'_>, sequence: u32, version: Version) -> Vec<u8> {
    let trouble = input.below(16);
    let request = request(input);
    let header = Header {
        sequence,
        time_stamp: 0,
        is_reply: trouble == 1,
        code: match trouble {
            2 => MessageCode::from_wire(input.u16().into()),
            3 => *input.pick(MessageCode::ALL),
            _ => request.code(),
        },
        reply_sequence: 0,
        error: ErrorCode::NoErr,
    };
    let framed = header.encode(|writer| request.encode(version, writer));
    let mut record = framed.map_or_else(|_| Vec::new(), |bytes| bytes[4..].to_vec());
    match trouble {
        4 => record.truncate(input.u8().into()),
        5 => record.extend_from_slice(input.block(false)),
        6 if !record.is_empty() => {
            let at = usize::from(input.u8()) % record.len();
            record[at] ^= input.u8();
        }
        7 => record = input.block(true).to_vec(),
        _ => {}
    }
    record
}
