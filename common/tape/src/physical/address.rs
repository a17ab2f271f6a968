//! Where a device is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use iscsi::Url;

use crate::driver::{IscsiOptions, IscsiTransport, ScsiTransport, SgTransport, TransportError};

/// `/dev/sgN`, or `iscsi://HOST:PORT/TARGET/LUN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A node of the SCSI generic driver.
    Node(PathBuf),
    /// A logical unit of an iSCSI target.
    Iscsi(Url),
}

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither a node nor a URL.
    #[error("{0:?} is no device: it is /dev/sgN, or iscsi://HOST:PORT/IQN/LUN")]
    Unknown(String),
    /// A URL with something wrong.
    #[error(transparent)]
    Url(#[from] iscsi::UrlError),
}

impl Address {
    /// A way to the device, as an initiator of its own where the transport has such.
    ///
    /// # Errors
    /// The node can not be opened. An iSCSI target is only connected to by the first command.
    pub fn transport(
        &self,
        options: &IscsiOptions,
    ) -> Result<Box<dyn ScsiTransport>, TransportError> {
        match self {
            Self::Node(path) => Ok(Box::new(SgTransport::open(path)?)),
            Self::Iscsi(url) => Ok(Box::new(IscsiTransport::new(url.clone(), options.clone())?)),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            text if text.starts_with("iscsi://") => Ok(Self::Iscsi(text.parse()?)),
            text if text.starts_with("/dev/") && !text.ends_with('/') => {
                Ok(Self::Node(text.into()))
            }
            text => Err(AddressError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(path) => path.display().fmt(f),
            Self::Iscsi(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_back() {
        for text in ["/dev/sg3", "/dev/tape/by-id/x", "iscsi://10.0.0.7:3260/iqn.a/1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "sg3", "/dev/", "file:///x", "iscsi://host/iqn.a"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
