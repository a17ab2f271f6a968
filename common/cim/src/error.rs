//! What an operation answers instead of a result (DSP0200 table 3).

/// A CIM status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Something went wrong that no other code names.
    Failed = 1,
    /// The caller may not do that.
    AccessDenied = 2,
    /// There is no such namespace.
    InvalidNamespace = 3,
    /// A parameter is missing, wrong or unknown.
    InvalidParameter = 4,
    /// The class does not exist (not for GetClass, which answers [`Status::NotFound`]).
    InvalidClass = 5,
    /// There is no such object.
    NotFound = 6,
    /// The operation, or this use of it, is not offered.
    NotSupported = 7,
    /// It exists already.
    AlreadyExists = 11,
    /// The query language is not known.
    QueryLanguageNotSupported = 14,
    /// The query can not be.
    InvalidQuery = 15,
    /// A known method that is not offered here.
    MethodNotAvailable = 16,
    /// The class has no such method.
    MethodNotFound = 17,
    /// The enumeration is over, or never was.
    InvalidEnumerationContext = 21,
    /// Filters of pull operations are not offered.
    FilteredEnumerationNotSupported = 25,
    /// The server has no room for it now.
    ServerLimitsExceeded = 27,
}

/// A failed operation: the code, and words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CIM error {}: {text}", *status as u8)]
pub struct CimError {
    /// The code.
    pub status: Status,
    /// What to tell.
    pub text: String,
}

impl CimError {
    /// An error with its words.
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// A parameter that can not be.
    pub fn parameter(text: impl Into<String>) -> Self {
        Self::new(Status::InvalidParameter, text)
    }

    /// There is no such object.
    pub fn not_found(path: &crate::Path) -> Self {
        Self::new(Status::NotFound, format!("there is no {path}"))
    }

    /// Something of the server's own failed.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::new(Status::Failed, error.to_string())
    }
}
