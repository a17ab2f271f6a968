//! Names of sites, libraries and NDMP devices.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not 1 to 32 characters of `a-z A-Z 0-9 _ -`, or beginning with `-`.
    #[error("{0:?} is not a name: 1 to 32 letters, digits, '_' or '-', not beginning with '-'")]
    Name(String),
    /// Not `LIBRARY/changer` or `LIBRARY/driveN`.
    #[error("{0:?} is not a device: write LIBRARY/changer or LIBRARY/drive0, LIBRARY/drive1, ...")]
    Device(String),
}

fn checked(text: &str) -> Result<String, NameError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let fits = (1..=32).contains(&text.len()) && text.chars().all(legal);
    match fits && !text.starts_with('-') {
        true => Ok(text.to_owned()),
        false => Err(NameError::Name(text.chars().take(64).collect())),
    }
}

macro_rules! name {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text and makes it a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}

name! {
    /// The name of a site, as its engine's configuration gives it.
    SiteName
    /// The name of a library; a ghost library is called `SITE-LIBRARY` ([`LibraryName::ghost`]).
    LibraryName
}

impl LibraryName {
    /// How the library `library` of the site `site` is called where it is a ghost.
    pub fn ghost(site: &SiteName, library: &Self) -> Result<Self, NameError> {
        Self::new(&format!("{site}-{library}"))
    }
}

/// Which device of a library is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceRole {
    /// The medium changer.
    Changer,
    /// The drive with this index, from 0, in the order of element addresses.
    Drive(u16),
}

/// An NDMP device name: `LIBRARY/changer`, `LIBRARY/drive0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName {
    /// The library.
    pub library: LibraryName,
    /// Its changer or one of its drives.
    pub role: DeviceRole,
}

impl DeviceName {
    /// The changer of `library`.
    pub fn changer(library: LibraryName) -> Self {
        Self { library, role: DeviceRole::Changer }
    }

    /// Drive `index` of `library`.
    pub fn drive(library: LibraryName, index: u16) -> Self {
        Self { library, role: DeviceRole::Drive(index) }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            DeviceRole::Changer => write!(f, "{}/changer", self.library),
            DeviceRole::Drive(index) => write!(f, "{}/drive{index}", self.library),
        }
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::Device(text.chars().take(80).collect());
        let (library, device) = text.split_once('/').ok_or_else(refuse)?;
        let library = LibraryName::new(library).map_err(|_| refuse())?;
        let role = match device.strip_prefix("drive") {
            None if device == "changer" => DeviceRole::Changer,
            Some(index) if index == "0" || !index.starts_with(['0', '+']) => {
                DeviceRole::Drive(index.parse().map_err(|_| refuse())?)
            }
            _ => return Err(refuse()),
        };
        Ok(Self { library, role })
    }
}

impl TryFrom<String> for DeviceName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_lead_back() {
        for text in ["vtl0/changer", "dr-ptl0/drive0", "x/drive65535"] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn odd_device_names_are_refused() {
        for text in [
            "",
            "vtl0",
            "vtl0/",
            "/drive0",
            "a/drive",
            "a/drive01",
            "a/drive+1",
            "a/drive65536",
            "a/b/drive0",
            "a/Changer",
        ] {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_ghost_is_called_after_its_site() {
        let (site, library) = (SiteName::new("dr").unwrap(), LibraryName::new("ptl0").unwrap());
        assert_eq!(LibraryName::ghost(&site, &library).unwrap().as_str(), "dr-ptl0");
    }
}
