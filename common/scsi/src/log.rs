//! LOG SENSE pages (SPC-5 7.3, SSC-4 8.3).

use crate::Malformed;
use crate::wire::{be16, bit, need, number};

/// Log page codes that tape devices answer.
pub mod page {
    /// Supported log pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Write error counters.
    pub const WRITE_ERRORS: u8 = 0x02;
    /// Read error counters.
    pub const READ_ERRORS: u8 = 0x03;
    /// Sequential access device.
    pub const SEQUENTIAL_ACCESS: u8 = 0x0c;
    /// DT device status.
    pub const DEVICE_STATUS: u8 = 0x11;
    /// Volume statistics.
    pub const VOLUME_STATISTICS: u8 = 0x17;
    /// TapeAlert.
    pub const TAPE_ALERT: u8 = 0x2e;
    /// Tape capacity (LTO).
    pub const TAPE_CAPACITY: u8 = 0x31;
}

/// Highest TapeAlert flag.
pub const TAPE_ALERT_FLAGS: u16 = 64;

/// One parameter of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogParameter {
    /// PARAMETER CODE.
    pub code: u16,
    /// The control byte: format and linking in bits 1-0 (0 counter, 1 text, 3 binary).
    pub control: u8,
    /// The value, at most 255 bytes.
    pub value: Vec<u8>,
}

impl LogParameter {
    /// A bounded data counter of the given width in bytes, at most 8.
    pub fn counter(code: u16, width: usize, value: u64) -> Self {
        Self::with_control(code, 0x00, width, value)
    }

    /// A binary list parameter of the given width in bytes, at most 8.
    pub fn binary(code: u16, width: usize, value: u64) -> Self {
        Self::with_control(code, 0x03, width, value)
    }

    /// A text.
    pub fn text(code: u16, text: &str) -> Self {
        Self { code, control: 0x01, value: text.as_bytes().to_vec() }
    }

    fn with_control(code: u16, control: u8, width: usize, value: u64) -> Self {
        let width = width.clamp(1, 8);
        let value = value.min(u64::MAX >> (64 - 8 * width));
        Self { code, control, value: value.to_be_bytes()[8 - width..].to_vec() }
    }

    /// The value as a number, `None` where it is longer than 8 bytes.
    pub fn number(&self) -> Option<u64> {
        (self.value.len() <= 8).then(|| number(&self.value, 0, self.value.len()))
    }
}

/// A log page. Page 00h has no parameters but a list of codes: see [`LogPage::supported`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// PAGE CODE.
    pub code: u8,
    /// Parameters in ascending order of code.
    pub parameters: Vec<LogParameter>,
}

impl LogPage {
    /// The bytes of page 00h, whose body is the list of supported pages.
    pub fn supported(codes: &[u8]) -> Vec<u8> {
        let codes = &codes[..codes.len().min(64)];
        [&[0, 0, 0, codes.len() as u8], codes].concat()
    }

    /// The TapeAlert page with the given flags raised (numbers from 1 to 64).
    pub fn tape_alert(raised: &[u16]) -> Self {
        let flag = |code| LogParameter::counter(code, 1, u64::from(raised.contains(&code)));
        let parameters = (1..=TAPE_ALERT_FLAGS).map(flag).collect();
        Self { code: page::TAPE_ALERT, parameters }
    }

    /// The flags raised on a TapeAlert page.
    pub fn raised_alerts(&self) -> Vec<u16> {
        let known = self.parameters.iter().filter(|p| (1..=TAPE_ALERT_FLAGS).contains(&p.code));
        known.filter(|p| p.number().is_some_and(|flag| flag & 1 == 1)).map(|p| p.code).collect()
    }

    /// A parameter's value as a number.
    pub fn number(&self, code: u16) -> Option<u64> {
        self.parameters.iter().find(|p| p.code == code)?.number()
    }

    /// The page from the parameter `first` on.
    pub fn encode(&self, first: u16) -> Vec<u8> {
        let mut bytes = vec![self.code & 0x3f, 0, 0, 0];
        for parameter in self.parameters.iter().filter(|p| p.code >= first) {
            let value = &parameter.value[..parameter.value.len().min(255)];
            bytes.extend(parameter.code.to_be_bytes());
            bytes.extend([parameter.control, value.len() as u8]);
            bytes.extend(value);
        }
        let length = (bytes.len() - 4).min(u16::MAX.into()) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Reads a page other than 00h. What the allocation length cut off is left out.
    ///
    /// # Errors
    /// No page header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let head = need(bytes, 4, "log page")?;
        let end = bytes.len().min(4 + usize::from(be16(head, 2)));
        let mut page = Self { code: head[0] & 0x3f, parameters: Vec::new() };
        let mut rest = &bytes[4..end];
        while let [a, b, control, length, body @ ..] = rest {
            let Some(value) = body.get(..usize::from(*length)) else { break };
            page.parameters.push(LogParameter {
                code: u16::from_be_bytes([*a, *b]),
                control: *control,
                value: value.to_vec(),
            });
            rest = &body[value.len()..];
        }
        Ok(page)
    }

    /// The codes of page 00h.
    ///
    /// # Errors
    /// No page header.
    pub fn parse_supported(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let head = need(bytes, 4, "log page")?;
        let step = if bit(head[0], 6) { 2 } else { 1 };
        let end = bytes.len().min(4 + usize::from(be16(head, 2)));
        Ok(bytes[4..end].iter().step_by(step).map(|code| code & 0x3f).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_lead_back(
            code in 1u8..0x40,
            values: Vec<(u16, u8, u64)>,
        ) {
            let values = values.into_iter();
            let counters = values.map(|(c, w, v)| LogParameter::counter(c, w.into(), v));
            let page = LogPage { code, parameters: counters.collect() };
            prop_assert_eq!(LogPage::parse(&page.encode(0)), Ok(page));
        }

        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            let _ = LogPage::parse(&bytes).map(|page| page.raised_alerts());
            let _ = LogPage::parse_supported(&bytes);
        }
    }

    #[test]
    fn alerts_and_supported_pages_lead_back() {
        let page = LogPage::tape_alert(&[3, 20]);
        let bytes = page.encode(0);
        assert_eq!(bytes.len(), 4 + 64 * 5);
        assert_eq!(LogPage::parse(&bytes).unwrap().raised_alerts(), [3, 20]);
        assert_eq!(
            LogPage::parse_supported(&LogPage::supported(&[0, 2, 0x2e])).unwrap(),
            [0, 2, 46]
        );
        assert_eq!(LogParameter::counter(1, 2, 70_000).number(), Some(65_535));
    }
}
