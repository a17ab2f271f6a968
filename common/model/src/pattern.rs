//! Which devices somebody may use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DeviceName, LibraryName, NameError};

/// Some devices: `*` all, `LIBRARY` or `LIBRARY/*` those of one library, `LIBRARY/changer` or
/// `LIBRARY/drive0` one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DevicePattern {
    /// All.
    All,
    /// The changer and all drives of a library.
    Library(LibraryName),
    /// One device.
    Device(DeviceName),
}

impl DevicePattern {
    /// Whether the device is one of these.
    pub fn contains(&self, device: &DeviceName) -> bool {
        match self {
            Self::All => true,
            Self::Library(library) => *library == device.library,
            Self::Device(one) => one == device,
        }
    }
}

impl FromStr for DevicePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None if text == "*" => Ok(Self::All),
            None => LibraryName::new(text).map(Self::Library),
            Some((library, "*")) => LibraryName::new(library).map(Self::Library),
            Some(_) => text.parse().map(Self::Device),
        }
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Library(library) => write!(f, "{library}/*"),
            Self::Device(device) => device.fmt(f),
        }
    }
}

impl TryFrom<String> for DevicePattern {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DevicePattern> for String {
    fn from(pattern: DevicePattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_all_or_one_library_or_one_device() {
        let rows = [
            ("*", [true, true, true]),
            ("vtl0", [true, true, false]),
            ("vtl0/*", [true, true, false]),
            ("vtl0/drive1", [false, true, false]),
            ("dr-ptl0/changer", [false, false, true]),
        ];
        for (text, expected) in rows {
            let pattern: DevicePattern = text.parse().unwrap();
            let found = ["vtl0/changer", "vtl0/drive1", "dr-ptl0/changer"]
                .map(|device| pattern.contains(&device.parse().unwrap()));
            assert_eq!(found, expected, "{text}");
            assert_eq!(pattern.to_string().parse::<DevicePattern>().unwrap(), pattern);
        }
        for text in ["", "*/drive0", "vtl0/drive", "vtl0/", "**"] {
            assert!(text.parse::<DevicePattern>().is_err(), "{text}");
        }
    }
}
