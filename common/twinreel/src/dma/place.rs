//! Where a stream or a copy comes from and goes to.

use std::fmt;
use std::str::FromStr;

use model::{Barcode, DeviceName, DeviceRole, LibraryName};

/// Cartridges that one order may name.
const CARTRIDGES: usize = 1000;

/// `LIB/driveN`: what is loaded there; `LIB:BARCODE,...`: these cartridges, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Whatever the drive holds.
    Drive(DeviceName),
    /// At least one cartridge.
    Cartridges(LibraryName, Vec<Barcode>),
}

impl Place {
    /// The media, as people and results name them.
    pub(crate) fn media(&self) -> Vec<String> {
        match self {
            Self::Drive(device) => vec![device.to_string()],
            Self::Cartridges(library, barcodes) => {
                barcodes.iter().map(|barcode| format!("{library}:{barcode}")).collect()
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drive(device) => device.fmt(f),
            Self::Cartridges(library, barcodes) => {
                let barcodes: Vec<_> = barcodes.iter().map(Barcode::as_str).collect();
                write!(f, "{library}:{}", barcodes.join(","))
            }
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((library, barcodes)) = text.split_once(':') else {
            let device: DeviceName =
                text.parse().map_err(|_| "write LIBRARY:BARCODE or LIBRARY/driveN".to_owned())?;
            return match device.role {
                DeviceRole::Drive(_) => Ok(Self::Drive(device)),
                DeviceRole::Changer => Err("a changer has no tape; name a drive".to_owned()),
            };
        };
        let library = LibraryName::new(library).map_err(|error| error.to_string())?;
        let barcodes: Result<Vec<_>, _> = barcodes.split(',').map(Barcode::new).collect();
        let barcodes = barcodes.map_err(|error| error.to_string())?;
        if barcodes.len() > CARTRIDGES {
            return Err(format!("at most {CARTRIDGES} cartridges"));
        }
        match barcodes.iter().enumerate().find(|(at, it)| barcodes[..*at].contains(it)) {
            Some((_, twice)) => Err(format!("{twice} is named twice")),
            None => Ok(Self::Cartridges(library, barcodes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_drives_or_cartridges() {
        for good in ["vtl0/drive0", "vtl0/drive12", "vtl0:VTA001L8", "dr-ptl0:PTA001L8,PTA002L8"] {
            let place: Place = good.parse().unwrap();
            assert_eq!(place.to_string(), good);
        }
        let place: Place = "dr-ptl0:A,B".parse().unwrap();
        assert_eq!(place.media(), ["dr-ptl0:A", "dr-ptl0:B"]);
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_reason() {
        let cases = [
            ("vtl0", "write LIBRARY:BARCODE"),
            ("vtl0/changer", "name a drive"),
            ("vtl0/drive-1", "write LIBRARY:BARCODE"),
            ("vtl0:", "1 to 32 characters"),
            ("vtl0:A,,B", "1 to 32 characters"),
            ("vtl0:A,B,A", "A is named twice"),
            (":A", "is not a name"),
            ("a b:A", "is not a name"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
