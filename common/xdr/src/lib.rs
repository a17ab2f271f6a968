//! XDR (RFC 4506) and ONC record marking (RFC 5531 section 11), bounded.
//!
//! [`Reader`] takes values off bytes that somebody else sent: every variable length is checked
//! against the bound that its type has and against what is really there, *before* anything is
//! allocated. [`Writer`] builds the same encoding and refuses to grow beyond its limit.
//! [`Reassembler`] turns a byte stream into records and [`frame`] does the reverse.
//!
//! Invariants: no input makes a call panic, loop without progress, or allocate more than the
//! bounds given to it. What this crate does not do: sockets, and any knowledge of a protocol.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod reader;
mod record;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::Reader;
pub use record::{Limits, Reassembler, RecordError, frame, mark};
pub use writer::Writer;

/// Bytes that are not the XDR they should be, or values that do not fit the encoding. The sender
/// is at fault; a retry does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XdrError {
    /// The input ended inside a value.
    #[error("the message is cut short")]
    Truncated,
    /// A counted value is longer than its type allows.
    #[error("a length of {length} where at most {max} is allowed")]
    TooLong {
        /// The length found.
        length: u64,
        /// The bound of the type.
        max: u64,
    },
    /// A boolean, or the pad of an opaque, has a value that RFC 4506 does not know.
    #[error("a value that XDR does not allow")]
    Invalid,
    /// Bytes are left after the last value.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
}

/// How many zero bytes follow `length` bytes of opaque data (RFC 4506 section 4.9).
fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}
