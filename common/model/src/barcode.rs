//! Volume tags (barcodes) as SMC-3 carries them: up to 32 characters, blank padded on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest volume tag that an element descriptor can hold (SMC-3, primary volume tag).
pub const BARCODE_MAX: usize = 32;

/// A volume tag: 1 to 32 characters of `A-Z a-z 0-9 - _ . $`, compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Barcode(String);

/// Why a text is not a barcode; the fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BarcodeError {
    /// Empty, or longer than 32 characters.
    #[error("a barcode has 1 to 32 characters, this one has {0}")]
    Length(usize),
    /// A character that no volume tag may carry.
    #[error("a barcode may not contain {0:?}; use letters, digits, '-', '_', '.' or '$'")]
    Character(char),
    /// A cartridge set whose prefix and count do not fit six characters.
    #[error("prefix {prefix:?} leaves no room for {count} numbers in six characters")]
    Set {
        /// The configured prefix.
        prefix: String,
        /// The configured count.
        count: u32,
    },
}

impl Barcode {
    /// Checks `text` (surrounding blanks are padding and dropped) and makes it a barcode.
    pub fn new(text: &str) -> Result<Self, BarcodeError> {
        let text = text.trim_matches([' ', '\0']);
        if text.is_empty() || text.len() > BARCODE_MAX {
            return Err(BarcodeError::Length(text.len()));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.$".contains(c);
        match text.chars().find(|c| !legal(*c)) {
            Some(c) => Err(BarcodeError::Character(c)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The tag as text, without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Barcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Barcode {
    type Error = BarcodeError;
    fn try_from(text: String) -> Result<Self, BarcodeError> {
        Self::new(&text)
    }
}

impl From<Barcode> for String {
    fn from(barcode: Barcode) -> Self {
        barcode.0
    }
}

/// `cartridges = { prefix, count }` of a configuration: barcodes numbered from 1, prefix and
/// number together six characters, suffix `L8` (`VTA001L8`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CartridgeSet {
    /// Leading characters, 1 to 5.
    pub prefix: String,
    /// How many cartridges there are.
    pub count: u32,
}

impl CartridgeSet {
    /// The barcodes of the set in order.
    pub fn barcodes(&self) -> Result<Vec<Barcode>, BarcodeError> {
        let too_small = || BarcodeError::Set { prefix: self.prefix.clone(), count: self.count };
        let digits = 6usize.checked_sub(self.prefix.len()).filter(|d| *d > 0);
        let digits = digits.ok_or_else(too_small)?;
        if self.prefix.is_empty() || u64::from(self.count) >= 10u64.pow(digits as u32) {
            return Err(too_small());
        }
        (1..=self.count).map(|n| Barcode::new(&format!("{}{n:0digits$}L8", self.prefix))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_numbers_from_one_in_six_characters() {
        let set = CartridgeSet { prefix: "VTA".into(), count: 2 };
        let names: Vec<_> = set.barcodes().unwrap().into_iter().map(String::from).collect();
        assert_eq!(names, ["VTA001L8", "VTA002L8"]);
    }

    #[test]
    fn a_set_that_does_not_fit_is_refused() {
        for (prefix, count) in [("VTA", 1000), ("ABCDEF", 1), ("", 5), ("ABCDE", 10)] {
            assert!(CartridgeSet { prefix: prefix.into(), count }.barcodes().is_err());
        }
    }

    #[test]
    fn padding_is_not_part_of_a_barcode() {
        assert_eq!(Barcode::new("VL0000L6    ").unwrap().as_str(), "VL0000L6");
        assert_eq!(Barcode::new("   "), Err(BarcodeError::Length(0)));
        assert_eq!(Barcode::new("a/b"), Err(BarcodeError::Character('/')));
    }
}
