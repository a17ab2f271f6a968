//! Replies: what a server answers.

use bytes::Bytes;
use xdr::{Reader, Writer, XdrError};

use super::addr::Addr;
use super::bounds;
use super::code::MessageCode;
use super::enums::{
    AddrType, AuthType, ErrorCode, HaltReason, MoverMode, MoverState, PauseReason, Version,
};
use super::request::DecodeError;
use super::types::{
    AuthAttr, AuthData, ButypeInfo, CdbResult, DeviceInfo, ExtensionClass, FsInfo, TapeState,
};

/// An answer: the error in the body, and the rest of the body.
///
/// The standard has one shape for each message, whether it failed or not. A failure made with
/// [`Reply::failed`] is sent in that shape with everything zero or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it went.
    pub error: ErrorCode,
    /// The rest.
    pub body: ReplyBody,
}

/// The body of a reply after its error, for each message that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// Nothing but the error.
    Empty,
    /// `NDMP_CONNECT_SERVER_AUTH`.
    ServerAuth(AuthData),
    /// `NDMP_CONFIG_GET_HOST_INFO`.
    HostInfo(HostInfo),
    /// `NDMP_CONFIG_GET_BUTYPE_ATTR` (version 2).
    ButypeAttr(u32),
    /// `NDMP_CONFIG_GET_CONNECTION_TYPE`.
    ConnectionType(Vec<AddrType>),
    /// `NDMP_CONFIG_GET_AUTH_ATTR`.
    AuthAttr(AuthAttr),
    /// `NDMP_CONFIG_GET_BUTYPE_INFO`.
    ButypeInfo(Vec<ButypeInfo>),
    /// `NDMP_CONFIG_GET_FS_INFO`.
    FsInfo(Vec<FsInfo>),
    /// `NDMP_CONFIG_GET_TAPE_INFO` and `_SCSI_INFO`.
    Devices(Vec<DeviceInfo>),
    /// `NDMP_CONFIG_GET_SERVER_INFO`.
    ServerInfo(ServerInfo),
    /// `NDMP_CONFIG_GET_EXT_LIST`.
    Extensions(Vec<ExtensionClass>),
    /// `NDMP_SCSI_GET_STATE`: controller, id and logical unit.
    ScsiState([i32; 3]),
    /// `NDMP_SCSI_EXECUTE_CDB` and `NDMP_TAPE_EXECUTE_CDB`.
    Cdb(CdbResult),
    /// `NDMP_TAPE_GET_STATE`.
    TapeState(TapeState),
    /// `NDMP_TAPE_MTIO`: what is left of the count.
    Residual(u32),
    /// `NDMP_TAPE_WRITE`: bytes written.
    Written(u32),
    /// `NDMP_TAPE_READ`.
    Data(Bytes),
    /// `NDMP_MOVER_GET_STATE`.
    Mover(MoverReport),
    /// `NDMP_MOVER_LISTEN` and `NDMP_DATA_LISTEN`.
    Address(Addr),
    /// `NDMP_DATA_GET_STATE` of a server without the DATA interface, everything zero.
    NoDataState,
    /// `NDMP_DATA_GET_ENV` of a server without the DATA interface, empty.
    NoEnvironment,
}

/// `ndmp_config_get_host_info_reply`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// Host name.
    pub hostname: String,
    /// Operating system.
    pub os_type: String,
    /// Its version.
    pub os_version: String,
    /// A name of the host that never changes.
    pub host_id: String,
    /// Authentication types (version 2 only; version 3 on have them in the server info).
    pub auth_types: Vec<AuthType>,
}

/// `ndmp_config_get_server_info_reply`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Vendor.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Revision.
    pub revision: String,
    /// Authentication types.
    pub auth_types: Vec<AuthType>,
}

/// `ndmp_mover_get_state_reply`, after the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoverReport {
    /// Which way (version 4; `NoAction` in others).
    pub mode: MoverMode,
    /// State.
    pub state: MoverState,
    /// Why it is paused.
    pub pause_reason: PauseReason,
    /// Why it is halted.
    pub halt_reason: HaltReason,
    /// Bytes of a record.
    pub record_size: u32,
    /// Number of the record in the stream.
    pub record_num: u32,
    /// Bytes moved since the mover left IDLE (`data_written` before version 4).
    pub bytes_moved: u64,
    /// Offset of the last read.
    pub seek_position: u64,
    /// What is left of the last read.
    pub bytes_left_to_read: u64,
    /// First byte of the window.
    pub window_offset: u64,
    /// Bytes of the window, all ones for no end.
    pub window_length: u64,
    /// The data connection (version 3 on; `Local` in version 2).
    pub addr: Addr,
}

impl Default for MoverReport {
    fn default() -> Self {
        Self {
            mode: MoverMode::NoAction,
            state: MoverState::Idle,
            pause_reason: PauseReason::NotApplicable,
            halt_reason: HaltReason::NotApplicable,
            record_size: 0,
            record_num: 0,
            bytes_moved: 0,
            seek_position: 0,
            bytes_left_to_read: 0,
            window_offset: 0,
            window_length: 0,
            addr: Addr::Local,
        }
    }
}

impl Reply {
    /// Done, with this body.
    pub fn ok(body: ReplyBody) -> Self {
        Self { error: ErrorCode::NoErr, body }
    }

    /// Only an error, or `NDMP_NO_ERR`, for a message of this code: in the shape of its reply.
    pub fn failed(code: MessageCode, error: ErrorCode) -> Self {
        Self { error, body: ReplyBody::empty(code) }
    }

    /// Decodes the body of a reply. All of it must be used up.
    pub fn decode(
        code: MessageCode,
        version: Version,
        mut reader: Reader<'_>,
    ) -> Result<Self, DecodeError> {
        if !code.exists_in(version) || code.is_post() {
            return Err(DecodeError::NoSuchMessage(code));
        }
        let masked = matches!(code, MessageCode::TapeGetState | MessageCode::DataGetState)
            && version > Version::V2;
        let mask = if masked { reader.u32()? } else { 0 };
        let error = ErrorCode::from_wire(reader.u32()?);
        let mut body = ReplyBody::decode(code, version, &mut reader)?;
        if let ReplyBody::TapeState(state) = &mut body {
            state.unsupported = mask;
        }
        reader.finish()?;
        Ok(Self { error, body })
    }

    /// Encodes the body, with the error in the words of `version`.
    pub fn encode(&self, version: Version, writer: &mut Writer) {
        let error = self.error.in_version(version);
        if version > Version::V2 {
            match &self.body {
                ReplyBody::TapeState(state) => writer.u32(state.unsupported),
                ReplyBody::NoDataState => writer.u32(0),
                _ => {}
            }
        }
        writer.u32(error.to_wire());
        self.body.encode(version, writer);
    }
}

fn auth_types(reader: &mut Reader<'_>) -> Result<Vec<AuthType>, XdrError> {
    reader.array(bounds::TYPES, 4, |reader| reader.u32().map(AuthType::from_wire))
}

impl ReplyBody {
    /// The body that a failed message of this code has.
    pub fn empty(code: MessageCode) -> Self {
        match code {
            MessageCode::ConnectServerAuth => Self::ServerAuth(AuthData::None),
            MessageCode::ConfigGetHostInfo => Self::HostInfo(HostInfo::default()),
            MessageCode::ConfigGetButypeAttr => Self::ButypeAttr(0),
            MessageCode::ConfigGetConnectionType => Self::ConnectionType(Vec::new()),
            MessageCode::ConfigGetAuthAttr => Self::AuthAttr(AuthAttr::Plain(AuthType::None)),
            MessageCode::ConfigGetButypeInfo => Self::ButypeInfo(Vec::new()),
            MessageCode::ConfigGetFsInfo => Self::FsInfo(Vec::new()),
            MessageCode::ConfigGetTapeInfo | MessageCode::ConfigGetScsiInfo => {
                Self::Devices(Vec::new())
            }
            MessageCode::ConfigGetServerInfo => Self::ServerInfo(ServerInfo::default()),
            MessageCode::ConfigGetExtList => Self::Extensions(Vec::new()),
            MessageCode::ScsiGetState => Self::ScsiState([0; 3]),
            MessageCode::ScsiExecuteCdb | MessageCode::TapeExecuteCdb => {
                Self::Cdb(CdbResult::default())
            }
            MessageCode::TapeGetState => Self::TapeState(TapeState::default()),
            MessageCode::TapeMtio => Self::Residual(0),
            MessageCode::TapeWrite => Self::Written(0),
            MessageCode::TapeRead => Self::Data(Bytes::new()),
            MessageCode::MoverGetState => Self::Mover(MoverReport::default()),
            MessageCode::MoverListen | MessageCode::DataListen => Self::Address(Addr::Local),
            MessageCode::DataGetState => Self::NoDataState,
            MessageCode::DataGetEnv => Self::NoEnvironment,
            _ => Self::Empty,
        }
    }

    fn decode(code: MessageCode, version: Version, r: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(match Self::empty(code) {
            Self::Empty => Self::Empty,
            Self::ServerAuth(_) => Self::ServerAuth(AuthData::decode(r)?),
            Self::HostInfo(_) => Self::HostInfo(HostInfo::decode(r, version)?),
            Self::ButypeAttr(_) => Self::ButypeAttr(r.u32()?),
            Self::ConnectionType(_) => Self::ConnectionType(
                r.array(bounds::TYPES, 4, |r| r.u32().map(AddrType::from_wire))?,
            ),
            Self::AuthAttr(_) => Self::AuthAttr(AuthAttr::decode(r)?),
            Self::ButypeInfo(_) => Self::ButypeInfo(ButypeInfo::decode_list(r)?),
            Self::FsInfo(_) => Self::FsInfo(FsInfo::decode_list(r)?),
            Self::Devices(_) => Self::Devices(DeviceInfo::decode_list(r)?),
            Self::ServerInfo(_) => Self::ServerInfo(ServerInfo {
                vendor: r.string(bounds::NAME)?,
                product: r.string(bounds::NAME)?,
                revision: r.string(bounds::NAME)?,
                auth_types: auth_types(r)?,
            }),
            Self::Extensions(_) => Self::Extensions(ExtensionClass::decode_list(r)?),
            Self::ScsiState(_) => Self::ScsiState([r.i32()?, r.i32()?, r.i32()?]),
            Self::Cdb(_) => Self::Cdb(CdbResult::decode(r)?),
            Self::TapeState(_) => Self::TapeState(TapeState::decode(r, version)?),
            Self::Residual(_) => Self::Residual(r.u32()?),
            Self::Written(_) => Self::Written(r.u32()?),
            Self::Data(_) => Self::Data(r.opaque(bounds::DATA)?),
            Self::Mover(_) => Self::Mover(MoverReport::decode(r, version)?),
            Self::Address(_) => Self::Address(Addr::decode(r, version)?),
            Self::NoDataState | Self::NoEnvironment => {
                r.skip_rest();
                Self::empty(code)
            }
        })
    }

    fn encode(&self, version: Version, writer: &mut Writer) {
        match self {
            Self::Empty => {}
            Self::ServerAuth(data) => data.encode(writer),
            Self::HostInfo(info) => info.encode(version, writer),
            Self::ButypeAttr(value) | Self::Residual(value) | Self::Written(value) => {
                writer.u32(*value);
            }
            Self::ConnectionType(list) => {
                writer.array(list, |writer, kind| writer.u32(kind.to_wire()));
            }
            Self::AuthAttr(attr) => attr.encode(writer),
            Self::ButypeInfo(list) => ButypeInfo::encode_list(list, writer),
            Self::FsInfo(list) => FsInfo::encode_list(list, writer),
            Self::Devices(list) => DeviceInfo::encode_list(list, writer),
            Self::ServerInfo(info) => {
                writer.string(&info.vendor);
                writer.string(&info.product);
                writer.string(&info.revision);
                writer.array(&info.auth_types, |writer, kind| writer.u32(kind.to_wire()));
            }
            Self::Extensions(list) => ExtensionClass::encode_list(list, writer),
            Self::ScsiState(target) => target.iter().for_each(|part| writer.i32(*part)),
            Self::Cdb(result) => result.encode(writer),
            Self::TapeState(state) => state.encode(writer, version),
            Self::Data(data) => writer.opaque(data),
            Self::Mover(report) => report.encode(version, writer),
            Self::Address(addr) => addr.encode(writer, version),
            Self::NoDataState => {
                // operation, state, halt reason; three quads' worth of estimates; address; read
                writer.fixed(&[0; 12 + 20 + 4 + 16]);
            }
            Self::NoEnvironment => writer.count(0),
        }
    }
}

impl HostInfo {
    fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, XdrError> {
        Ok(Self {
            hostname: reader.string(bounds::NAME)?,
            os_type: reader.string(bounds::NAME)?,
            os_version: reader.string(bounds::NAME)?,
            host_id: reader.string(bounds::NAME)?,
            auth_types: match version {
                Version::V2 => auth_types(reader)?,
                Version::V3 | Version::V4 => Vec::new(),
            },
        })
    }

    fn encode(&self, version: Version, writer: &mut Writer) {
        writer.string(&self.hostname);
        writer.string(&self.os_type);
        writer.string(&self.os_version);
        writer.string(&self.host_id);
        if version == Version::V2 {
            writer.array(&self.auth_types, |writer, kind| writer.u32(kind.to_wire()));
        }
    }
}

impl MoverReport {
    fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, XdrError> {
        Ok(Self {
            mode: match version {
                Version::V4 => MoverMode::from_wire(reader.u32()?),
                Version::V2 | Version::V3 => MoverMode::NoAction,
            },
            state: MoverState::from_wire(reader.u32()?),
            pause_reason: PauseReason::from_wire(reader.u32()?),
            halt_reason: HaltReason::from_wire(reader.u32()?),
            record_size: reader.u32()?,
            record_num: reader.u32()?,
            bytes_moved: reader.u64()?,
            seek_position: reader.u64()?,
            bytes_left_to_read: reader.u64()?,
            window_offset: reader.u64()?,
            window_length: reader.u64()?,
            addr: match version {
                Version::V2 => Addr::Local,
                Version::V3 | Version::V4 => Addr::decode(reader, version)?,
            },
        })
    }

    fn encode(&self, version: Version, writer: &mut Writer) {
        if version == Version::V4 {
            writer.u32(self.mode.to_wire());
        }
        writer.u32(self.state.to_wire());
        writer.u32(self.pause_reason.to_wire());
        writer.u32(self.halt_reason.to_wire());
        writer.u32(self.record_size);
        writer.u32(self.record_num);
        writer.u64(self.bytes_moved);
        writer.u64(self.seek_position);
        writer.u64(self.bytes_left_to_read);
        writer.u64(self.window_offset);
        writer.u64(self.window_length);
        if version != Version::V2 {
            self.addr.encode(writer, version);
        }
    }
}
