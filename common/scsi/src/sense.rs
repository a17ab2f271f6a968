//! Sense data (SPC-5 4.4): what a device says about a command that did not simply end.

use std::fmt;

/// Sense data reduced to what tape needs. `Display` names key and code, as `05/20/00`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Sense key, 0 to 15.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// A filemark was met.
    pub filemark: bool,
    /// End of medium: at or beyond early warning, or BOT when spacing back.
    pub eom: bool,
    /// Incorrect length indicator.
    pub ili: bool,
    /// INFORMATION, `None` where VALID is 0.
    pub information: Option<i64>,
    /// Response code 71h or 73h: an earlier command failed, this one was not executed.
    pub deferred: bool,
}

impl Sense {
    /// 05/20/00.
    pub const INVALID_OPERATION_CODE: Self = Self::new(0x05, 0x20, 0x00);

    /// Current sense data with no bits and no INFORMATION.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self {
            key,
            asc,
            ascq,
            filemark: false,
            eom: false,
            ili: false,
            information: None,
            deferred: false,
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sense {:02x}/{:02x}/{:02x}", self.key, self.asc, self.ascq)
    }
}
