//! The messages of versions 2, 3 and 4 as they travel. Whatever differs between the versions
//! differs here and nowhere else.

mod addr;
pub mod bounds;
mod enums;

pub use addr::Addr;
pub use enums::{
    AddrType, AuthType, ConnectionReason, DataHaltReason, ErrorCode, HaltReason, LogType,
    MoverMode, MoverState, MtioOp, PauseReason, TapeOpenMode, Version,
};
