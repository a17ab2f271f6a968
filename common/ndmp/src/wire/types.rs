//! The structures inside messages.

use std::fmt;

use bytes::Bytes;
use xdr::{Reader, Writer, XdrError};
use zeroize::Zeroizing;

use super::bounds;
use super::enums::{AuthType, Version};

/// `ndmp_auth_data`: how a client proves who it is. Secrets are wiped when dropped and not shown.
#[derive(Clone, PartialEq, Eq)]
pub enum AuthData {
    /// Not at all.
    None,
    /// By the password itself.
    Text {
        /// User.
        id: String,
        /// Password, as the bytes sent.
        password: Zeroizing<Vec<u8>>,
    },
    /// By a digest of password and challenge.
    Md5 {
        /// User.
        id: String,
        /// MD5, see [`crate::auth::md5_digest`].
        digest: [u8; 16],
    },
    /// By something that the standard does not know.
    Unknown(u32),
}

impl fmt::Debug for AuthData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text { id, .. } => f.debug_struct("Text").field("id", id).finish_non_exhaustive(),
            Self::Md5 { id, .. } => f.debug_struct("Md5").field("id", id).finish_non_exhaustive(),
            Self::Unknown(kind) => f.debug_tuple("Unknown").field(kind).finish(),
        }
    }
}

impl AuthData {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        match AuthType::from_wire(reader.u32()?) {
            AuthType::None => Ok(Self::None),
            AuthType::Text => Ok(Self::Text {
                id: reader.string(bounds::NAME)?,
                password: Zeroizing::new(reader.opaque(bounds::NAME)?.to_vec()),
            }),
            AuthType::Md5 => {
                Ok(Self::Md5 { id: reader.string(bounds::NAME)?, digest: reader.fixed()? })
            }
            AuthType::Unknown(kind) => {
                reader.skip_rest();
                Ok(Self::Unknown(kind))
            }
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        match self {
            Self::None => writer.u32(AuthType::None.to_wire()),
            Self::Text { id, password } => {
                writer.u32(AuthType::Text.to_wire());
                writer.string(id);
                writer.opaque(password);
            }
            Self::Md5 { id, digest } => {
                writer.u32(AuthType::Md5.to_wire());
                writer.string(id);
                writer.fixed(digest);
            }
            Self::Unknown(kind) => writer.u32(*kind),
        }
    }
}

/// `ndmp_auth_attr`: what an authentication type needs to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthAttr {
    /// Nothing (`NDMP_AUTH_NONE`, `NDMP_AUTH_TEXT`).
    Plain(AuthType),
    /// The challenge for MD5.
    Challenge([u8; 64]),
}

impl AuthAttr {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        match AuthType::from_wire(reader.u32()?) {
            AuthType::Md5 => reader.fixed().map(Self::Challenge),
            kind @ AuthType::Unknown(_) => {
                reader.skip_rest();
                Ok(Self::Plain(kind))
            }
            kind => Ok(Self::Plain(kind)),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Plain(kind) => writer.u32(kind.to_wire()),
            Self::Challenge(challenge) => {
                writer.u32(AuthType::Md5.to_wire());
                writer.fixed(challenge);
            }
        }
    }
}

/// `ndmp_pval`: a name and a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pair {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

impl Pair {
    pub(crate) fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, XdrError> {
        reader.array(bounds::ENVIRONMENT, 8, |reader| {
            Ok(Self { name: reader.string(bounds::NAME)?, value: reader.string(bounds::TEXT)? })
        })
    }

    pub(crate) fn encode_list(list: &[Self], writer: &mut Writer) {
        writer.array(list, |writer, pair| {
            writer.string(&pair.name);
            writer.string(&pair.value);
        });
    }
}

/// `ndmp_device_info`: devices of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Vendor and product.
    pub model: String,
    /// Its devices.
    pub devices: Vec<DeviceCapability>,
}

/// `ndmp_device_capability`: one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceCapability {
    /// The name to open it by.
    pub device: String,
    /// `NDMP_TAPE_ATTR_*`: 1 rewinds, 2 unloads at close, 4 may be opened raw (version 4).
    pub attributes: u32,
    /// Pairs of name and value.
    pub capability: Vec<Pair>,
}

impl DeviceInfo {
    pub(crate) fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, XdrError> {
        reader.array(bounds::DEVICES, 8, |reader| {
            let model = reader.string(bounds::NAME)?;
            let devices = reader.array(bounds::DEVICES, 12, |reader| {
                Ok::<_, XdrError>(DeviceCapability {
                    device: reader.string(bounds::NAME)?,
                    attributes: reader.u32()?,
                    capability: Pair::decode_list(reader)?,
                })
            })?;
            Ok(Self { model, devices })
        })
    }

    pub(crate) fn encode_list(list: &[Self], writer: &mut Writer) {
        writer.array(list, |writer, info| {
            writer.string(&info.model);
            writer.array(&info.devices, |writer, device| {
                writer.string(&device.device);
                writer.u32(device.attributes);
                Pair::encode_list(&device.capability, writer);
            });
        });
    }
}

/// `ndmp_butype_info` (version 3 on).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ButypeInfo {
    /// Name of the backup type.
    pub name: String,
    /// Environment that it starts from.
    pub default_environment: Vec<Pair>,
    /// `NDMP_BUTYPE_*`.
    pub attributes: u32,
}

impl ButypeInfo {
    pub(crate) fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, XdrError> {
        reader.array(bounds::DEVICES, 12, |reader| {
            Ok(Self {
                name: reader.string(bounds::NAME)?,
                default_environment: Pair::decode_list(reader)?,
                attributes: reader.u32()?,
            })
        })
    }

    pub(crate) fn encode_list(list: &[Self], writer: &mut Writer) {
        writer.array(list, |writer, info| {
            writer.string(&info.name);
            Pair::encode_list(&info.default_environment, writer);
            writer.u32(info.attributes);
        });
    }
}

/// `ndmp_fs_info` (version 3 on).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsInfo {
    /// `NDMP_FS_INFO_*_UNS`: which sizes mean nothing.
    pub unsupported: u32,
    /// Kind of file system.
    pub kind: String,
    /// Its name for users.
    pub logical_device: String,
    /// Its name for the system.
    pub physical_device: String,
    /// Total, used and free bytes, then total and used inodes.
    pub sizes: [u64; 5],
    /// Environment.
    pub environment: Vec<Pair>,
    /// Status, in words.
    pub status: String,
}

impl FsInfo {
    pub(crate) fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, XdrError> {
        reader.array(bounds::DEVICES, 64, |reader| {
            let mut info = Self {
                unsupported: reader.u32()?,
                kind: reader.string(bounds::NAME)?,
                logical_device: reader.string(bounds::NAME)?,
                physical_device: reader.string(bounds::NAME)?,
                ..Self::default()
            };
            for size in &mut info.sizes {
                *size = reader.u64()?;
            }
            info.environment = Pair::decode_list(reader)?;
            info.status = reader.string(bounds::TEXT)?;
            Ok(info)
        })
    }

    pub(crate) fn encode_list(list: &[Self], writer: &mut Writer) {
        writer.array(list, |writer, info| {
            writer.u32(info.unsupported);
            writer.string(&info.kind);
            writer.string(&info.logical_device);
            writer.string(&info.physical_device);
            info.sizes.iter().for_each(|size| writer.u64(*size));
            Pair::encode_list(&info.environment, writer);
            writer.string(&info.status);
        });
    }
}

/// `ndmp_class_list` (version 4): an extension and its versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtensionClass {
    /// Class.
    pub class: u32,
    /// Versions of it.
    pub versions: Vec<u32>,
}

impl ExtensionClass {
    pub(crate) fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, XdrError> {
        reader.array(bounds::TYPES, 8, |reader| {
            let class = reader.u32()?;
            let versions = reader.array(bounds::TYPES, 4, Reader::u32)?;
            Ok(Self { class, versions })
        })
    }

    pub(crate) fn encode_list(list: &[Self], writer: &mut Writer) {
        writer.array(list, |writer, class| {
            writer.u32(class.class);
            writer.array(&class.versions, |writer, version| writer.u32(*version));
        });
    }
}

/// `ndmp_execute_cdb_request`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecuteCdb {
    /// `NDMP_SCSI_DATA_IN` 1, `NDMP_SCSI_DATA_OUT` 2. Clients leave it 0 for commands with data
    /// of either kind, so the lengths decide, not this.
    pub flags: u32,
    /// Milliseconds, 0 for no limit.
    pub timeout_ms: u32,
    /// Most bytes to take from the device.
    pub data_in_len: u32,
    /// The command.
    pub cdb: Bytes,
    /// Bytes for the device.
    pub data_out: Bytes,
}

impl ExecuteCdb {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(Self {
            flags: reader.u32()?,
            timeout_ms: reader.u32()?,
            data_in_len: reader.u32()?,
            cdb: reader.opaque(bounds::CDB)?,
            data_out: reader.opaque(bounds::DATA)?,
        })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u32(self.flags);
        writer.u32(self.timeout_ms);
        writer.u32(self.data_in_len);
        writer.opaque(&self.cdb);
        writer.opaque(&self.data_out);
    }
}

/// `ndmp_execute_cdb_reply`, after the error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CdbResult {
    /// SAM status byte.
    pub status: u8,
    /// Bytes that the device took.
    pub data_out_len: u32,
    /// Bytes from the device.
    pub data_in: Bytes,
    /// Sense data.
    pub sense: Bytes,
}

impl CdbResult {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(Self {
            status: u8::try_from(reader.u32()?).map_err(|_| XdrError::Invalid)?,
            data_out_len: reader.u32()?,
            data_in: reader.opaque(bounds::DATA)?,
            sense: reader.opaque(bounds::SENSE)?,
        })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u32(u32::from(self.status));
        writer.u32(self.data_out_len);
        writer.opaque(&self.data_in);
        writer.opaque(&self.sense);
    }
}

/// `ndmp_tape_get_state_reply`, after the error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapeState {
    /// Which fields mean nothing, [`TapeState::SOFT_ERRORS`] and so on (version 3 on; version 2
    /// has no such field and reads as 0).
    pub unsupported: u32,
    /// [`TapeState::WRITE_PROTECTED`] and so on.
    pub flags: u32,
    /// Filemarks before this place.
    pub file_num: u32,
    /// Errors that were repaired.
    pub soft_errors: u32,
    /// 0 for variable blocks.
    pub block_size: u32,
    /// Records since the last filemark, [`TapeState::UNKNOWN`] if that is not known.
    pub blockno: u32,
    /// Capacity in bytes.
    pub total_space: u64,
    /// Bytes left.
    pub space_remain: u64,
}

impl TapeState {
    /// `unsupported`: the file number.
    pub const FILE_NUM: u32 = 0x01;
    /// `unsupported`: soft errors.
    pub const SOFT_ERRORS: u32 = 0x02;
    /// `unsupported`: block size.
    pub const BLOCK_SIZE: u32 = 0x04;
    /// `unsupported`: block number.
    pub const BLOCKNO: u32 = 0x08;
    /// `unsupported`: capacity.
    pub const TOTAL_SPACE: u32 = 0x10;
    /// `unsupported`: bytes left.
    pub const SPACE_REMAIN: u32 = 0x20;
    /// `unsupported`: partition (version 3).
    pub const PARTITION: u32 = 0x40;
    /// `flags`: does not rewind at close.
    pub const NO_REWIND: u32 = 0x08;
    /// `flags`: write protected.
    pub const WRITE_PROTECTED: u32 = 0x10;
    /// `flags`: the medium failed.
    pub const MEDIA_ERROR: u32 = 0x20;
    /// `flags`: unloads at close.
    pub const UNLOADS: u32 = 0x40;
    /// A number that is not known.
    pub const UNKNOWN: u32 = u32::MAX;

    /// After the mask and the error.
    pub(crate) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, XdrError> {
        let state = Self {
            unsupported: 0,
            flags: reader.u32()?,
            file_num: reader.u32()?,
            soft_errors: reader.u32()?,
            block_size: reader.u32()?,
            blockno: reader.u32()?,
            total_space: reader.u64()?,
            space_remain: reader.u64()?,
        };
        if version == Version::V3 {
            reader.u32()?;
        }
        Ok(state)
    }

    /// After the mask and the error.
    pub(crate) fn encode(&self, writer: &mut Writer, version: Version) {
        writer.u32(self.flags);
        writer.u32(self.file_num);
        writer.u32(self.soft_errors);
        writer.u32(self.block_size);
        writer.u32(self.blockno);
        writer.u64(self.total_space);
        writer.u64(self.space_remain);
        if version == Version::V3 {
            writer.u32(0);
        }
    }
}
