//! Requests: what a client asks.

use bytes::Bytes;
use xdr::{Reader, Writer, XdrError};

use super::addr::Addr;
use super::bounds;
use super::code::MessageCode;
use super::enums::{AddrType, AuthType, MoverMode, MtioOp, TapeOpenMode, Version};
use super::types::{AuthAttr, AuthData, ExecuteCdb};

/// A message that could not be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// This version has no such message: answered `NDMP_NOT_SUPPORTED_ERR` in the header.
    #[error("{0} is not a message of this version")]
    NoSuchMessage(MessageCode),
    /// The body is not what the message has: answered `NDMP_XDR_DECODE_ERR` in the header.
    #[error(transparent)]
    Xdr(#[from] XdrError),
}

/// What a client asks. Values of enumerations that the standard does not know are kept as
/// `Unknown`, so that they can be answered with `NDMP_ILLEGAL_ARGS_ERR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `NDMP_CONNECT_OPEN` of this version, as the number sent.
    ConnectOpen(u32),
    /// `NDMP_CONNECT_CLIENT_AUTH`.
    ConnectClientAuth(AuthData),
    /// `NDMP_CONNECT_SERVER_AUTH`.
    ConnectServerAuth(AuthAttr),
    /// `NDMP_CONFIG_GET_BUTYPE_ATTR` of this type.
    ConfigGetButypeAttr(String),
    /// `NDMP_CONFIG_GET_AUTH_ATTR`.
    ConfigGetAuthAttr(AuthType),
    /// `NDMP_CONFIG_SET_EXT_LIST`: pairs of class and version.
    ConfigSetExtList(Vec<(u32, u32)>),
    /// `NDMP_SCSI_OPEN`.
    ScsiOpen(String),
    /// `NDMP_SCSI_SET_TARGET`.
    ScsiSetTarget {
        /// Device.
        device: String,
        /// Controller, id and logical unit.
        target: [u32; 3],
    },
    /// `NDMP_SCSI_EXECUTE_CDB`.
    ScsiExecuteCdb(ExecuteCdb),
    /// `NDMP_TAPE_OPEN`.
    TapeOpen {
        /// Device.
        device: String,
        /// What for.
        mode: TapeOpenMode,
    },
    /// `NDMP_TAPE_MTIO`.
    TapeMtio {
        /// What.
        op: MtioOp,
        /// How often.
        count: u32,
    },
    /// `NDMP_TAPE_WRITE` of one record.
    TapeWrite(Bytes),
    /// `NDMP_TAPE_READ` of at most so many bytes.
    TapeRead(u32),
    /// `NDMP_TAPE_EXECUTE_CDB`.
    TapeExecuteCdb(ExecuteCdb),
    /// Any request of the DATA interface, its body not looked at.
    Data {
        /// Which.
        code: MessageCode,
        /// Its body.
        body: Bytes,
    },
    /// `NDMP_MOVER_LISTEN`.
    MoverListen {
        /// Which way.
        mode: MoverMode,
        /// Where.
        addr_type: AddrType,
    },
    /// `NDMP_MOVER_CONNECT`.
    MoverConnect {
        /// Which way.
        mode: MoverMode,
        /// Where to.
        addr: Addr,
    },
    /// `NDMP_MOVER_SET_WINDOW`.
    MoverSetWindow {
        /// First byte of the stream in the window.
        offset: u64,
        /// How many, all ones for no end.
        length: u64,
    },
    /// `NDMP_MOVER_READ`.
    MoverRead {
        /// First byte of the stream.
        offset: u64,
        /// How many, all ones for no end.
        length: u64,
    },
    /// `NDMP_MOVER_SET_RECORD_SIZE`.
    MoverSetRecordSize(u32),
    /// A request without a body: `CONNECT_CLOSE`, the lists of CONFIG, `SCSI_CLOSE`,
    /// `SCSI_GET_STATE`, the resets, `TAPE_CLOSE`, `TAPE_GET_STATE`, and `MOVER_GET_STATE`,
    /// `_CONTINUE`, `_ABORT`, `_STOP`, `_CLOSE`.
    Bare(MessageCode),
}

impl Request {
    /// What it is about.
    pub fn code(&self) -> MessageCode {
        match self {
            Self::ConnectOpen(_) => MessageCode::ConnectOpen,
            Self::ConnectClientAuth(_) => MessageCode::ConnectClientAuth,
            Self::ConnectServerAuth(_) => MessageCode::ConnectServerAuth,
            Self::ConfigGetButypeAttr(_) => MessageCode::ConfigGetButypeAttr,
            Self::ConfigGetAuthAttr(_) => MessageCode::ConfigGetAuthAttr,
            Self::ConfigSetExtList(_) => MessageCode::ConfigSetExtList,
            Self::ScsiOpen(_) => MessageCode::ScsiOpen,
            Self::ScsiSetTarget { .. } => MessageCode::ScsiSetTarget,
            Self::ScsiExecuteCdb(_) => MessageCode::ScsiExecuteCdb,
            Self::TapeOpen { .. } => MessageCode::TapeOpen,
            Self::TapeMtio { .. } => MessageCode::TapeMtio,
            Self::TapeWrite(_) => MessageCode::TapeWrite,
            Self::TapeRead(_) => MessageCode::TapeRead,
            Self::TapeExecuteCdb(_) => MessageCode::TapeExecuteCdb,
            Self::MoverListen { .. } => MessageCode::MoverListen,
            Self::MoverConnect { .. } => MessageCode::MoverConnect,
            Self::MoverSetWindow { .. } => MessageCode::MoverSetWindow,
            Self::MoverRead { .. } => MessageCode::MoverRead,
            Self::MoverSetRecordSize(_) => MessageCode::MoverSetRecordSize,
            Self::Data { code, .. } | Self::Bare(code) => *code,
        }
    }

    /// Decodes the body of a request. All of it must be used up.
    pub fn decode(
        code: MessageCode,
        version: Version,
        mut reader: Reader<'_>,
    ) -> Result<Self, DecodeError> {
        if !code.exists_in(version) || code.is_post() {
            return Err(DecodeError::NoSuchMessage(code));
        }
        let request = Self::decode_body(code, version, &mut reader)?;
        reader.finish()?;
        Ok(request)
    }

    fn decode_body(
        code: MessageCode,
        version: Version,
        r: &mut Reader<'_>,
    ) -> Result<Self, XdrError> {
        Ok(match code {
            MessageCode::ConnectOpen => Self::ConnectOpen(r.u32()?),
            MessageCode::ConnectClientAuth => Self::ConnectClientAuth(AuthData::decode(r)?),
            MessageCode::ConnectServerAuth => Self::ConnectServerAuth(AuthAttr::decode(r)?),
            MessageCode::ConfigGetButypeAttr => Self::ConfigGetButypeAttr(r.string(bounds::NAME)?),
            MessageCode::ConfigGetAuthAttr => {
                Self::ConfigGetAuthAttr(AuthType::from_wire(r.u32()?))
            }
            MessageCode::ConfigSetExtList => {
                Self::ConfigSetExtList(
                    r.array(bounds::TYPES, 8, |r| Ok::<_, XdrError>((r.u32()?, r.u32()?)))?,
                )
            }
            MessageCode::ScsiOpen => Self::ScsiOpen(r.string(bounds::NAME)?),
            MessageCode::ScsiSetTarget => Self::ScsiSetTarget {
                device: r.string(bounds::NAME)?,
                target: [r.u32()?, r.u32()?, r.u32()?],
            },
            MessageCode::ScsiExecuteCdb => Self::ScsiExecuteCdb(ExecuteCdb::decode(r)?),
            MessageCode::TapeOpen => Self::TapeOpen {
                device: r.string(bounds::NAME)?,
                mode: TapeOpenMode::from_wire(r.u32()?),
            },
            MessageCode::TapeMtio => {
                Self::TapeMtio { op: MtioOp::from_wire(r.u32()?), count: r.u32()? }
            }
            MessageCode::TapeWrite => Self::TapeWrite(r.opaque(bounds::DATA)?),
            MessageCode::TapeRead => Self::TapeRead(r.u32()?),
            MessageCode::TapeExecuteCdb => Self::TapeExecuteCdb(ExecuteCdb::decode(r)?),
            MessageCode::MoverListen => Self::MoverListen {
                mode: MoverMode::from_wire(r.u32()?),
                addr_type: AddrType::from_wire(r.u32()?),
            },
            MessageCode::MoverConnect => Self::MoverConnect {
                mode: MoverMode::from_wire(r.u32()?),
                addr: Addr::decode(r, version)?,
            },
            MessageCode::MoverSetWindow => {
                Self::MoverSetWindow { offset: r.u64()?, length: r.u64()? }
            }
            MessageCode::MoverRead => Self::MoverRead { offset: r.u64()?, length: r.u64()? },
            MessageCode::MoverSetRecordSize => Self::MoverSetRecordSize(r.u32()?),
            code if code.is_data() => {
                let body = r.rest();
                r.skip_rest();
                Self::Data { code, body }
            }
            code => Self::Bare(code),
        })
    }

    /// Encodes the body.
    pub fn encode(&self, version: Version, writer: &mut Writer) {
        match self {
            Self::ConnectOpen(value) | Self::TapeRead(value) | Self::MoverSetRecordSize(value) => {
                writer.u32(*value);
            }
            Self::ConnectClientAuth(data) => data.encode(writer),
            Self::ConnectServerAuth(attr) => attr.encode(writer),
            Self::ConfigGetButypeAttr(name) | Self::ScsiOpen(name) => writer.string(name),
            Self::ConfigGetAuthAttr(kind) => writer.u32(kind.to_wire()),
            Self::ConfigSetExtList(list) => writer.array(list, |writer, (class, version)| {
                writer.u32(*class);
                writer.u32(*version);
            }),
            Self::ScsiSetTarget { device, target } => {
                writer.string(device);
                target.iter().for_each(|part| writer.u32(*part));
            }
            Self::ScsiExecuteCdb(cdb) | Self::TapeExecuteCdb(cdb) => cdb.encode(writer),
            Self::TapeOpen { device, mode } => {
                writer.string(device);
                writer.u32(mode.to_wire());
            }
            Self::TapeMtio { op, count } => {
                writer.u32(op.to_wire());
                writer.u32(*count);
            }
            Self::TapeWrite(data) => writer.opaque(data),
            Self::Data { body, .. } => writer.fixed(body),
            Self::MoverListen { mode, addr_type } => {
                writer.u32(mode.to_wire());
                writer.u32(addr_type.to_wire());
            }
            Self::MoverConnect { mode, addr } => {
                writer.u32(mode.to_wire());
                addr.encode(writer, version);
            }
            Self::MoverSetWindow { offset, length } | Self::MoverRead { offset, length } => {
                writer.u64(*offset);
                writer.u64(*length);
            }
            Self::Bare(_) => {}
        }
    }
}
