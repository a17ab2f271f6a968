//! `key=value` pairs of login and text negotiation (RFC 7143 6.1).

/// The longest text of one negotiation step that is taken, however many PDUs it comes in.
pub const TEXT_MAX: usize = 64 << 10;
/// Most pairs in a text. A target with more than this many names is asked by name.
const PAIRS_MAX: usize = 4096;

/// A text that is no list of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Longer than [`TEXT_MAX`], or more pairs than are taken.
    #[error("a text of the target is too long")]
    TooLong,
    /// Not UTF-8, no `=`, or no end.
    #[error("a text of the target is no list of key=value")]
    NoPair,
}

/// Pairs in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Adds a pair.
    pub fn add(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.0.push((key.to_owned(), value.into()));
        self
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Each pair with a zero byte behind it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in &self.0 {
            bytes.extend(key.as_bytes());
            bytes.push(b'=');
            bytes.extend(value.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// Reads a whole text; empty pairs (zeros at the end) are passed over.
    ///
    /// # Errors
    /// See [`TextError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        if bytes.len() > TEXT_MAX {
            return Err(TextError::TooLong);
        }
        if bytes.last().is_some_and(|last| *last != 0) {
            return Err(TextError::NoPair);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TextError::NoPair)?;
        let mut pairs = Self::default();
        for pair in text.split('\0').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or(TextError::NoPair)?;
            if pairs.0.len() == PAIRS_MAX {
                return Err(TextError::TooLong);
            }
            pairs.add(key, value);
        }
        Ok(pairs)
    }
}

/// The targets and their portals (`HOST:PORT`, the group tag cut off) that SendTargets answers
/// (RFC 7143 Appendix C).
pub fn targets(pairs: &Pairs) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in pairs.iter() {
        match (key, found.last_mut()) {
            ("TargetName", _) => found.push((value.to_owned(), Vec::new())),
            ("TargetAddress", Some((_, portals))) => {
                let portal = value.rsplit_once(',').map_or(value, |(portal, _)| portal);
                portals.push(portal.to_owned());
            }
            _ => {}
        }
    }
    found
}

/// Bytes of a binary value: `0x...` or `0b...` (base 64), of at most `most` bytes.
pub(crate) fn binary(text: &str, most: usize) -> Option<Vec<u8>> {
    let bytes = match text.as_bytes() {
        [b'0', b'x' | b'X', digits @ ..] => hex(digits)?,
        [b'0', b'b' | b'B', digits @ ..] => base64(digits)?,
        _ => return None,
    };
    (bytes.len() <= most).then_some(bytes)
}

/// The `0x` form of bytes.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = "0x".to_owned();
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    // A leading zero may be missing (RFC 7143 6.1: a hexadecimal constant is a number).
    let (first, rest) = digits.split_at(digits.len() % 2);
    let mut bytes = Vec::new();
    if let [digit] = first {
        bytes.push(value(*digit)? as u8);
    }
    for pair in rest.chunks_exact(2) {
        bytes.push((value(pair[0])? << 4 | value(pair[1])?) as u8);
    }
    Some(bytes)
}

fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let end = digits.iter().position(|digit| *digit == b'=').unwrap_or(digits.len());
    if !digits.len().is_multiple_of(4)
        || digits.len() - end > 2
        || digits[end..].iter().any(|d| *d != b'=')
    {
        return None;
    }
    let (mut bytes, mut held, mut count) = (Vec::new(), 0u32, 0);
    for digit in &digits[..end] {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count) as u8);
            held &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pairs_lead_back(
            list in prop::collection::vec(("[A-Z][a-zA-Z]{0,9}", "[ -~]{0,20}"), 0..9),
        ) {
            let mut pairs = Pairs::default();
            for (key, value) in &list {
                pairs.add(key, value.clone());
            }
            prop_assert_eq!(Pairs::parse(&pairs.encode()), Ok(pairs));
        }

        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>, text: String) {
            let _ = Pairs::parse(&bytes).map(|pairs| targets(&pairs));
            let _ = binary(&text, 100);
            let _ = binary(&format!("0b{text}"), 100);
            let _ = binary(&format!("0x{text}"), 100);
        }

        #[test]
        fn hexadecimal_leads_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(binary(&to_hex(&bytes), 40), Some(bytes));
        }
    }

    #[test]
    fn texts_are_read_as_they_are() {
        let pairs = Pairs::parse(b"A=1\0B=x=y\0\0\0").unwrap();
        assert_eq!(
            (pairs.get("A"), pairs.get("B"), pairs.get("C")),
            (Some("1"), Some("x=y"), None)
        );
        assert_eq!(Pairs::parse(b""), Ok(Pairs::default()));
        for wrong in [&b"A=1"[..], b"A\0", b"\xff=1\0"] {
            assert_eq!(Pairs::parse(wrong), Err(TextError::NoPair));
        }
        assert_eq!(Pairs::parse(&vec![0; TEXT_MAX + 1]), Err(TextError::TooLong));
        assert_eq!(Pairs::parse(&b"A=\0".repeat(PAIRS_MAX + 1)), Err(TextError::TooLong));
    }

    #[test]
    fn binary_values_come_in_two_forms() {
        assert_eq!(binary("0x0aFf", 9), Some(vec![0x0a, 0xff]));
        assert_eq!(binary("0xaFf", 9), Some(vec![0x0a, 0xff]));
        assert_eq!(binary("0bTWFu", 9), Some(b"Man".to_vec()));
        assert_eq!(binary("0bTWE=", 9), Some(b"Ma".to_vec()));
        assert_eq!(binary("0bTQ==", 9), Some(b"M".to_vec()));
        for wrong in ["17", "0xg0", "0bTW", "0bT===", "0bT=E=", "0x112233"] {
            assert_eq!(binary(wrong, 2), None, "{wrong}");
        }
    }

    #[test]
    fn targets_have_their_portals() {
        let mut pairs = Pairs::default();
        pairs.add("TargetName", "iqn.a").add("TargetAddress", "10.0.0.1:3260,1");
        pairs.add("TargetAddress", "[fe80::1]:3260,1").add("TargetName", "iqn.b");
        let portals = vec!["10.0.0.1:3260".to_owned(), "[fe80::1]:3260".to_owned()];
        let expected = [("iqn.a".to_owned(), portals), ("iqn.b".to_owned(), Vec::new())];
        assert_eq!(targets(&pairs), expected);
    }
}
