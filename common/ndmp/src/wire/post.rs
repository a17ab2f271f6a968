//! Posts: what a server says on its own.

use bytes::Bytes;
use xdr::{Reader, Writer, XdrError};

use super::bounds;
use super::code::MessageCode;
use super::enums::{ConnectionReason, DataHaltReason, HaltReason, LogType, PauseReason, Version};
use super::request::DecodeError;

/// What a server says on its own. It has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Post {
    /// `NDMP_NOTIFY_CONNECTION_STATUS`.
    ConnectionStatus {
        /// Welcome, refused or going down.
        reason: ConnectionReason,
        /// The highest version that the server speaks, as the number sent.
        version: u32,
        /// In words.
        text: String,
    },
    /// `NDMP_NOTIFY_MOVER_HALTED`.
    MoverHalted {
        /// Why.
        reason: HaltReason,
        /// In words (versions 2 and 3).
        text: String,
    },
    /// `NDMP_NOTIFY_MOVER_PAUSED`.
    MoverPaused {
        /// Why.
        reason: PauseReason,
        /// Where in the stream.
        seek_position: u64,
    },
    /// `NDMP_NOTIFY_DATA_HALTED`.
    DataHalted {
        /// Why.
        reason: DataHaltReason,
        /// In words (versions 2 and 3).
        text: String,
    },
    /// `NDMP_NOTIFY_DATA_READ`.
    DataRead {
        /// First byte of the stream.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// `NDMP_LOG_MESSAGE`; in version 2 `NDMP_LOG_LOG`, or `NDMP_LOG_DEBUG` for debug lines.
    Log {
        /// What kind.
        kind: LogType,
        /// Number of the message (version 3 on).
        id: u32,
        /// The line.
        text: String,
        /// The message that it belongs to (version 4).
        associated: Option<u32>,
    },
    /// A post of the data server's that is not looked into: `NDMP_LOG_FILE` and file history.
    Other {
        /// Which.
        code: MessageCode,
        /// Its body.
        body: Bytes,
    },
}

impl Post {
    /// What it is about, in `version`.
    pub fn code(&self, version: Version) -> MessageCode {
        match self {
            Self::ConnectionStatus { .. } => MessageCode::NotifyConnectionStatus,
            Self::MoverHalted { .. } => MessageCode::NotifyMoverHalted,
            Self::MoverPaused { .. } => MessageCode::NotifyMoverPaused,
            Self::DataHalted { .. } => MessageCode::NotifyDataHalted,
            Self::DataRead { .. } => MessageCode::NotifyDataRead,
            Self::Log { kind, .. } => match (version, kind) {
                (Version::V2, LogType::Debug) => MessageCode::LogDebug,
                (Version::V2, _) => MessageCode::LogLog,
                (Version::V3 | Version::V4, _) => MessageCode::LogMessage,
            },
            Self::Other { code, .. } => *code,
        }
    }

    /// Decodes the body of a post. All of it must be used up.
    pub fn decode(
        code: MessageCode,
        version: Version,
        mut reader: Reader<'_>,
    ) -> Result<Self, DecodeError> {
        if !code.exists_in(version) || !code.is_post() {
            return Err(DecodeError::NoSuchMessage(code));
        }
        let post = Self::decode_body(code, version, &mut reader)?;
        reader.finish()?;
        Ok(post)
    }

    fn decode_body(
        code: MessageCode,
        version: Version,
        r: &mut Reader<'_>,
    ) -> Result<Self, XdrError> {
        Ok(match code {
            MessageCode::NotifyConnectionStatus => Self::ConnectionStatus {
                reason: ConnectionReason::from_wire(r.u32()?),
                version: r.u32()?,
                text: r.string(bounds::TEXT)?,
            },
            MessageCode::NotifyMoverHalted => Self::MoverHalted {
                reason: HaltReason::from_wire(r.u32()?),
                text: halt_text(version, r)?,
            },
            MessageCode::NotifyMoverPaused => Self::MoverPaused {
                reason: PauseReason::from_wire(r.u32()?),
                seek_position: r.u64()?,
            },
            MessageCode::NotifyDataHalted => Self::DataHalted {
                reason: DataHaltReason::from_wire(r.u32()?),
                text: halt_text(version, r)?,
            },
            MessageCode::NotifyDataRead => Self::DataRead { offset: r.u64()?, length: r.u64()? },
            MessageCode::LogLog => plain_log(LogType::Normal, r.string(bounds::TEXT)?),
            MessageCode::LogDebug => {
                r.u32()?;
                plain_log(LogType::Debug, r.string(bounds::TEXT)?)
            }
            MessageCode::LogMessage => Self::Log {
                kind: LogType::from_wire(r.u32()?),
                id: r.u32()?,
                text: r.string(bounds::TEXT)?,
                associated: match version {
                    Version::V4 => {
                        let valid = r.bool()?;
                        Some(r.u32()?).filter(|_| valid)
                    }
                    Version::V2 | Version::V3 => None,
                },
            },
            code => {
                let body = r.rest();
                r.skip_rest();
                Self::Other { code, body }
            }
        })
    }

    /// Encodes the body.
    pub fn encode(&self, version: Version, writer: &mut Writer) {
        let halt_text = |writer: &mut Writer, text: &str| {
            if version < Version::V4 {
                writer.string(text);
            }
        };
        match self {
            Self::ConnectionStatus { reason, version, text } => {
                writer.u32(reason.to_wire());
                writer.u32(*version);
                writer.string(text);
            }
            Self::MoverHalted { reason, text } => {
                writer.u32(reason.to_wire());
                halt_text(writer, text);
            }
            Self::MoverPaused { reason, seek_position } => {
                writer.u32(reason.to_wire());
                writer.u64(*seek_position);
            }
            Self::DataHalted { reason, text } => {
                writer.u32(reason.to_wire());
                halt_text(writer, text);
            }
            Self::DataRead { offset, length } => {
                writer.u64(*offset);
                writer.u64(*length);
            }
            Self::Log { kind, id, text, associated } => {
                match (version, kind) {
                    // NDMP2_DBG_USER_INFO
                    (Version::V2, LogType::Debug) => writer.u32(0),
                    (Version::V2, _) => {}
                    (Version::V3 | Version::V4, _) => {
                        writer.u32(kind.to_wire());
                        writer.u32(*id);
                    }
                }
                writer.string(text);
                if version == Version::V4 {
                    writer.bool(associated.is_some());
                    writer.u32(associated.unwrap_or(0));
                }
            }
            Self::Other { body, .. } => writer.fixed(body),
        }
    }
}

fn halt_text(version: Version, reader: &mut Reader<'_>) -> Result<String, XdrError> {
    match version {
        Version::V2 | Version::V3 => reader.string(bounds::TEXT),
        Version::V4 => Ok(String::new()),
    }
}

fn plain_log(kind: LogType, text: String) -> Post {
    Post::Log { kind, id: 0, text, associated: None }
}
