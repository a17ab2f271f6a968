//! Tapes of one library, from a first to a last volume tag.

use std::fmt;
use std::str::FromStr;

use model::Barcode;
use serde::{Deserialize, Serialize};

use super::{MediumRef, ReferenceError, refuse, serial};

/// Tapes that one range may name.
const TAPES_MAX: u64 = 100_000;
const FORMS: &str =
    "range of media: write `lib SERIAL tape VOLSER` or `lib SERIAL tape FIRST-LAST`";

/// Tapes whose volume tags differ in one number: `lib SERIAL tape A12345-A23456`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TapeRange {
    /// Serial number of the library.
    pub library: String,
    /// The first volume tag.
    pub first: Barcode,
    /// The last one; the first itself for a single tape.
    pub last: Barcode,
}

/// A volume tag around its number: what stands before it, the number, what stands behind it.
fn parts<'a>(first: &'a str, last: &'a str) -> Option<(&'a str, u64, u64, &'a str)> {
    let (a, b) = (first.as_bytes(), last.as_bytes());
    if a.len() != b.len() || !first.is_ascii() || !last.is_ascii() {
        return None;
    }
    let differs: Vec<_> = (0..a.len()).filter(|i| a[*i] != b[*i]).collect();
    let (from, to) = match (differs.first(), differs.last()) {
        (Some(from), Some(to)) => (*from, *to + 1),
        _ => return None,
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
    let (low, high) = (number(&first[from..to])??, number(&last[from..to])??);
    Some((&first[..from], low, high, &first[to..]))
}

impl TapeRange {
    /// The tapes from `first` to `last` of a library; `None` where the two are not the ends of one
    /// range: of one length, different in one number, which grows, at most 100 000 tapes.
    pub fn new(library: &str, first: Barcode, last: Barcode) -> Option<Self> {
        let library = serial(library)?;
        if first != last {
            let (_, low, high, _) = parts(first.as_str(), last.as_str())?;
            (low < high && high - low < TAPES_MAX).then_some(())?;
        }
        Some(Self { library, first, last })
    }

    /// Whether a tape is in it.
    pub fn contains(&self, tape: &MediumRef) -> bool {
        let MediumRef::Tape { library, volser } = tape else { return false };
        if *library != self.library {
            return false;
        }
        let (text, first, last) = (volser.as_str(), self.first.as_str(), self.last.as_str());
        if text.len() != first.len() {
            return false;
        }
        match parts(first, last) {
            None => volser == &self.first,
            Some((before, _, _, behind)) => {
                let middle = before.len()..text.len() - behind.len();
                // Digits of one width sort as their numbers do.
                let digits = text.is_char_boundary(middle.start)
                    && text.is_char_boundary(middle.end)
                    && text[middle.clone()].bytes().all(|b| b.is_ascii_digit());
                digits
                    && text.starts_with(before)
                    && text.ends_with(behind)
                    && (first..=last).contains(&text)
            }
        }
    }

    /// Its tapes in order.
    pub fn tapes(&self) -> impl Iterator<Item = MediumRef> + '_ {
        let (first, last) = (self.first.as_str(), self.last.as_str());
        let (before, low, high, behind) = parts(first, last).unwrap_or((first, 0, 0, ""));
        let width = first.len() - before.len() - behind.len();
        let number = move |n: u64| match width {
            0 => String::new(),
            _ => format!("{n:0width$}"),
        };
        (low..=high)
            .filter_map(move |n| Barcode::new(&format!("{before}{}{behind}", number(n))).ok())
            .map(|volser| MediumRef::Tape { library: self.library.clone(), volser })
    }

    /// The fewest ranges that name these tapes, in order; disks are left out.
    pub fn of(tapes: &[MediumRef]) -> Vec<Self> {
        let mut sorted: Vec<_> = tapes.iter().collect();
        sorted.sort();
        sorted.dedup();
        let mut ranges: Vec<Self> = Vec::new();
        for tape in sorted {
            let MediumRef::Tape { library, volser } = tape else { continue };
            let longer = ranges.last().and_then(|last| {
                let grown = Self::new(library, last.first.clone(), volser.clone())?;
                let same =
                    last.library == *library && grown.tapes().count() == last.tapes().count() + 1;
                same.then_some(grown)
            });
            match (longer, ranges.last_mut()) {
                (Some(longer), Some(last)) => *last = longer,
                _ => ranges.push(Self {
                    library: library.clone(),
                    first: volser.clone(),
                    last: volser.clone(),
                }),
            }
        }
        ranges
    }
}

impl FromStr for TapeRange {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let words: Vec<_> = text.split(' ').take(5).collect();
        let ["lib", library, "tape", tapes] = words[..] else { return Err(refuse(text, FORMS)) };
        // A volume tag may have a hyphen of its own: what can be a range is one.
        let halves = tapes.match_indices('-').filter_map(|(at, _)| {
            let (first, last) =
                (Barcode::new(&tapes[..at]).ok()?, Barcode::new(&tapes[at + 1..]).ok()?);
            Self::new(library, first, last).filter(|range| range.first != range.last)
        });
        let single = || {
            let volser = Barcode::new(tapes).ok()?;
            Self::new(library, volser.clone(), volser)
        };
        let mut halves = halves;
        halves.next().or_else(single).ok_or_else(|| refuse(text, FORMS))
    }
}

impl fmt::Display for TapeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lib {} tape {}", self.library, self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

impl TryFrom<String> for TapeRange {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<TapeRange> for String {
    fn from(range: TapeRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> TapeRange {
        text.parse().unwrap()
    }

    fn tape(volser: &str) -> MediumRef {
        format!("lib L tape {volser}").parse().unwrap()
    }

    #[test]
    fn a_range_is_written_and_read() {
        for text in ["lib L tape A12345-A23456", "lib L tape A1", "lib L tape B10000-B10010"] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range("lib L tape A12345-A23456").tapes().count(), 11_112);
        let names: Vec<_> = range("lib L tape VTA098L8-VTA101L8").tapes().collect();
        assert_eq!(names, ["VTA098L8", "VTA099L8", "VTA100L8", "VTA101L8"].map(tape));
        // Not the ends of one range: a tag with a hyphen.
        for text in ["lib L tape A2-A1", "lib L tape A1-B2", "lib L tape A1-A10"] {
            let single = range(text);
            assert_eq!(single.first, single.last, "{text}");
        }
        assert!("lib L tape A1-A2 x".parse::<TapeRange>().is_err());
        assert!("lib L tape 0000000-9999999".parse::<TapeRange>().is_ok_and(|r| r.first == r.last));
    }

    #[test]
    fn what_is_in_a_range_is_what_it_lists() {
        let range = range("lib L tape VTA098L8-VTA101L8");
        let inside: Vec<_> = range.tapes().collect();
        for volser in [
            "VTA097L8", "VTA098L8", "VTA100L8", "VTA101L8", "VTA102L8", "VTA100L9", "VTA1",
            "VTAxxxL8",
        ] {
            assert_eq!(range.contains(&tape(volser)), inside.contains(&tape(volser)), "{volser}");
        }
        assert!(!range.contains(&"lib M tape VTA100L8".parse().unwrap()));
        assert!(TapeRange::of(&[tape("A")])[0].contains(&tape("A")));
    }

    #[test]
    fn tapes_are_gathered_into_the_fewest_ranges() {
        let tapes = ["A3", "A1", "A2", "A5", "B1", "B2", "A2"].map(tape);
        let ranges: Vec<_> = TapeRange::of(&tapes).iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["lib L tape A1-A3", "lib L tape A5", "lib L tape B1-B2"]);
    }
}
