//! The messages of versions 2, 3 and 4 as they travel. Whatever differs between the versions on
//! the wire differs here and nowhere else.
//!
//! A message is a [`Header`] and then, unless the header carries an error, a [`Request`], a
//! [`Reply`] or a [`Post`]. All three are encoded and decoded, so that both ends are served.

mod addr;
pub mod bounds;
mod code;
mod enums;
mod header;
mod post;
mod reply;
mod request;
mod types;

#[cfg(test)]
mod tests;

pub use addr::Addr;
pub use code::MessageCode;
pub use enums::{
    AddrType, AuthType, ConnectionReason, DataHaltReason, ErrorCode, HaltReason, LogType,
    MoverMode, MoverState, MtioOp, PauseReason, TapeOpenMode, Version,
};
pub use header::Header;
pub use post::Post;
pub use reply::{HostInfo, MoverReport, Reply, ReplyBody, ServerInfo};
pub use request::{DecodeError, Request};
pub use types::{
    AuthAttr, AuthData, ButypeInfo, CdbResult, DeviceCapability, DeviceInfo, ExecuteCdb,
    ExtensionClass, FsInfo, Pair, TapeState,
};
