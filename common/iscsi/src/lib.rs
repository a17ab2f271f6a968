//! iSCSI (RFC 7143) as an initiator speaks it: the bytes, the login, and one session. No socket,
//! no clock, no randomness: whoever owns the connection brings those.
//!
//! * [`Pdu`]: every PDU as a value, both directions; [`encode`] and [`Decoder`] put them into
//!   frames with their data, padding and digests.
//! * [`Login`]: from the first request to the full feature phase, with CHAP in both directions and
//!   the negotiation of limits ([`Limits`]).
//! * [`Session`]: one command at a time with its data in either direction, pings, task management,
//!   logout. What it wants sent comes out as [`Action`]s.
//! * [`Url`] is where a logical unit is: `iscsi://HOST:PORT/TARGET/LUN`.
//!
//! One connection, error recovery level 0: after anything out of order the session is over, and
//! nothing is ever sent a second time. Invariants: whatever bytes come in, reading them ends
//! without a panic; nothing that the other side says makes anything grow beyond a bound of ours.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod chap;
mod frame;
mod login;
mod pdu;
mod session;
mod text;
mod url;

pub use chap::{CHALLENGE, ChapError, Secret, chap_response};
pub use frame::{Decoder, Digests, FrameError, encode};
pub use login::{Credentials, Kind, Limits, Login, LoginError, LoginOptions, Step};
pub use pdu::{
    AsyncMessage, BHS, Command, DataIn, DataOut, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, NO_TAG, NopIn, NopOut, Pdu, ReadyToTransfer, Reject, Response, TaskRequest,
    TaskResponse, TextRequest, TextResponse,
};
pub use session::{Action, Completion, Direction, Payload, Session, Violation};
pub use text::{Pairs, TEXT_MAX, TextError, targets};
pub use url::{Url, UrlError};

/// Serial number arithmetic (RFC 1982) of 32 bits: whether `a` comes after `b`.
pub fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}
