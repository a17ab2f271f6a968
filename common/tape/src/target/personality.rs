//! Personalities: whom virtual libraries and drives claim to be.
//!
//! Applications look devices up in a table of their own and refuse, or handle badly, what they do
//! not find there. A personality is what INQUIRY, MODE SENSE and REPORT DENSITY SUPPORT say of a
//! library and drives that they know. Behaviour does not change with it: no vendor's commands are
//! added. Where each value comes from, and what could not be confirmed, stands in
//! `docs/personalities.md`.

use scsi::{Density, MediumType};

use crate::DeviceIdentity;

/// What a generation of LTO tells of its tapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Density code.
    pub density: u8,
    /// MEDIUM TYPE of a data cartridge.
    pub medium_type: u8,
    /// Bits per millimetre.
    bits_per_mm: u32,
    /// Tracks.
    tracks: u16,
    /// Capacity of a cartridge where none is loaded, in megabytes.
    capacity_mb: u32,
    /// Density name.
    name: &'static str,
    /// Description.
    description: &'static str,
}

const LTO7: Format = Format {
    density: 0x5c,
    medium_type: 0x78,
    bits_per_mm: 19_107,
    tracks: 3584,
    capacity_mb: 6_000_000,
    name: "U-732",
    description: "Ultrium 7/32T",
};

const LTO8: Format = Format {
    density: 0x5e,
    medium_type: 0x88,
    bits_per_mm: 20_669,
    tracks: 6656,
    capacity_mb: 12_000_000,
    name: "U-832",
    description: "Ultrium 8/32T",
};

const LTO9: Format = Format {
    density: 0x60,
    medium_type: 0x98,
    bits_per_mm: 21_456,
    tracks: 8960,
    capacity_mb: 18_000_000,
    name: "U-932",
    description: "Ultrium 9/32T",
};

impl Format {
    /// The format of a drive by what it claims to be; LTO-8 where that says nothing.
    pub fn of(drive: &DeviceIdentity) -> Self {
        let same = |p: &&Personality| p.drive.0 == drive.vendor && p.drive.1 == drive.product;
        PERSONALITIES.iter().find(same).map_or(LTO8, |personality| personality.format)
    }

    /// The data cartridge, as REPORT DENSITY SUPPORT has it.
    pub fn medium(&self) -> MediumType {
        MediumType {
            code: self.medium_type,
            densities: vec![self.density],
            width: 127,
            length: 960,
            organisation: "LTO-CVE".to_owned(),
            name: self.name.to_owned(),
            description: "Ultrium data".to_owned(),
        }
    }

    /// As REPORT DENSITY SUPPORT has it, for a cartridge of so many bytes.
    pub fn density(&self, capacity: Option<u64>) -> Density {
        let megabytes = |bytes: u64| u32::try_from(bytes / 1_000_000).unwrap_or(u32::MAX);
        Density {
            code: self.density,
            writable: true,
            default: true,
            bits_per_mm: self.bits_per_mm,
            width: 127,
            tracks: self.tracks,
            capacity_mb: capacity.map_or(self.capacity_mb, megabytes),
            organisation: "LTO-CVE".to_owned(),
            name: self.name.to_owned(),
            description: self.description.to_owned(),
        }
    }
}

/// Vendor, product and revision.
type Claim = (&'static str, &'static str, &'static str);

/// A library with its drives.
#[derive(Clone, Copy, Debug)]
pub struct Personality {
    /// Its name in the configuration.
    pub name: &'static str,
    changer: Claim,
    drive: Claim,
    format: Format,
}

/// All that there are.
pub static PERSONALITIES: &[Personality] = &[
    Personality {
        name: "twinreel",
        changer: ("TWINREEL", "VIRTUAL-LIBRARY", "1"),
        drive: ("TWINREEL", "VIRTUAL-DRIVE", "1"),
        format: LTO8,
    },
    Personality {
        name: "ibm-ts4500-lto7",
        changer: ("IBM", "03584L32", "1B00"),
        drive: ("IBM", "ULT3580-TD7", "FA14"),
        format: LTO7,
    },
    Personality {
        name: "ibm-ts4500-lto8",
        changer: ("IBM", "03584L32", "1B00"),
        drive: ("IBM", "ULT3580-TD8", "N4Q0"),
        format: LTO8,
    },
    Personality {
        name: "ibm-ts4500-lto9",
        changer: ("IBM", "03584L32", "1B00"),
        drive: ("IBM", "ULT3580-TD9", "PA60"),
        format: LTO9,
    },
    Personality {
        name: "hpe-msl-lto8",
        changer: ("HPE", "MSL3040", "3350"),
        drive: ("HPE", "Ultrium 8-SCSI", "N9M3"),
        format: LTO8,
    },
    Personality {
        name: "quantum-scalar-lto8",
        changer: ("QUANTUM", "Scalar i3-i6", "225G"),
        drive: ("IBM", "ULTRIUM-HH8", "K4K1"),
        format: LTO8,
    },
    Personality {
        name: "oracle-sl150-lto8",
        changer: ("STK", "SL150", "0350"),
        // The library takes drives of half height only.
        drive: ("IBM", "ULTRIUM-HH8", "K4K1"),
        format: LTO8,
    },
];

impl Personality {
    /// The one of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PERSONALITIES.iter().find(|personality| personality.name == name)
    }

    /// The changer, with a serial number of its own.
    pub fn changer(&self, serial: String) -> DeviceIdentity {
        identity(self.changer, serial)
    }

    /// A drive, with a serial number of its own.
    pub fn drive(&self, serial: String) -> DeviceIdentity {
        identity(self.drive, serial)
    }
}

fn identity((vendor, product, revision): Claim, serial: String) -> DeviceIdentity {
    DeviceIdentity {
        vendor: vendor.to_owned(),
        product: product.to_owned(),
        revision: revision.to_owned(),
        serial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was seen on devices and stands in their manuals, see docs/personalities.md.
    #[test]
    fn claims_are_those_of_the_devices() {
        let claims = |name| Personality::find(name).map(|it| (it.changer, it.drive)).unwrap();
        let ts4500 = ("IBM", "03584L32", "1B00");
        assert_eq!(claims("ibm-ts4500-lto7"), (ts4500, ("IBM", "ULT3580-TD7", "FA14")));
        assert_eq!(claims("ibm-ts4500-lto8"), (ts4500, ("IBM", "ULT3580-TD8", "N4Q0")));
        assert_eq!(claims("ibm-ts4500-lto9"), (ts4500, ("IBM", "ULT3580-TD9", "PA60")));
        assert_eq!(claims("hpe-msl-lto8").0, ("HPE", "MSL3040", "3350"));
        let (vendor, product, _) = claims("hpe-msl-lto8").1;
        assert_eq!((vendor, product), ("HPE", "Ultrium 8-SCSI"));
        let half = ("IBM", "ULTRIUM-HH8", "K4K1");
        let scalar = ("QUANTUM", "Scalar i3-i6", "225G");
        assert_eq!(claims("quantum-scalar-lto8"), (scalar, half));
        let (changer, drive) = claims("oracle-sl150-lto8");
        assert_eq!((changer.0, changer.1, drive), ("STK", "SL150", half));
    }

    #[test]
    fn formats_are_those_of_the_generations() {
        let told = |format: Format| {
            let Density { code, bits_per_mm, tracks, capacity_mb, name, description, .. } =
                format.density(None);
            (code, format.medium_type, bits_per_mm, tracks, capacity_mb, name, description)
        };
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        for (format, code, medium, bits, tracks, capacity, (name, description)) in [
            (LTO7, 0x5c, 0x78, 19_107, 3584, 6_000_000, text("U-732", "Ultrium 7/32T")),
            (LTO8, 0x5e, 0x88, 20_669, 6656, 12_000_000, text("U-832", "Ultrium 8/32T")),
            (LTO9, 0x60, 0x98, 21_456, 8960, 18_000_000, text("U-932", "Ultrium 9/32T")),
        ] {
            let expected = (code, medium, bits, tracks, capacity, name, description);
            assert_eq!(told(format), expected);
        }
    }

    #[test]
    fn claims_fit_their_fields_and_a_drive_leads_back_to_its_format() {
        for personality in PERSONALITIES {
            for (vendor, product, revision) in [personality.changer, personality.drive] {
                assert!(
                    vendor.len() <= 8 && product.len() <= 16 && revision.len() <= 4,
                    "{product}"
                );
            }
            assert_eq!(Format::of(&personality.drive("S".into())), personality.format);
            assert_eq!(
                PERSONALITIES.iter().filter(|other| other.name == personality.name).count(),
                1
            );
        }
        assert_eq!(Format::of(&DeviceIdentity::default()), LTO8);
        assert_eq!(Personality::find("ibm-ts4500-lto9").map(|it| it.format.density), Some(0x60));
        assert!(Personality::find("ibm").is_none());
    }
}
