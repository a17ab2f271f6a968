//! Text out. Elements are always opened and closed, never `<X/>`: a client's hand-written parser
//! would not know them.

use std::fmt;

/// Takes a part of a document that is too long to be held; `false` if nobody wants the rest.
pub type Drain = Box<dyn FnMut(String) -> bool + Send>;

/// Bytes that are held before the first part is handed on.
const PART: usize = 128 << 10;

/// Appends XML to a buffer, which is handed on in parts where there is somebody to take them.
#[derive(Default)]
pub struct Writer {
    out: String,
    drain: Option<Drain>,
    drained: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} bytes)", self.out.len())
    }
}

/// A byte that text may not hold as it is, or that begins a character which it may not.
fn is_special(byte: u8) -> bool {
    // 0xef begins U+FFFE and U+FFFF, among many others.
    matches!(byte, b'<' | b'>' | b'&' | b'"' | 0..=8 | 11 | 12 | 14..=31 | 0xef)
}

impl Writer {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty document that is handed on in parts once it is long.
    pub fn draining(drain: Drain) -> Self {
        Self { drain: Some(drain), ..Self::default() }
    }

    /// To be called where the document may be cut. Hands on what is there if that is much;
    /// `false` if nobody wants the rest.
    pub fn part(&mut self) -> bool {
        match &mut self.drain {
            Some(drain) if self.out.len() >= PART => {
                self.drained = true;
                let next = String::with_capacity(PART + PART / 4);
                drain(std::mem::replace(&mut self.out, next))
            }
            _ => true,
        }
    }

    /// Whether a part was handed on: what was written can not be taken back.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Takes back what was written behind the first `len` bytes that are still held.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// `<name a="b">`
    pub fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.begin(name);
        attributes.iter().for_each(|(name, value)| self.attribute(name, value));
        self.begun();
    }

    /// `<name`, for [`Writer::attribute`] and [`Writer::begun`] behind it.
    pub fn begin(&mut self, name: &str) {
        self.out.push('<');
        self.out.push_str(name);
    }

    /// ` name="value"`
    pub fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        self.text(value);
        self.out.push('"');
    }

    /// `>`
    pub fn begun(&mut self) {
        self.out.push('>');
    }

    /// `<VALUE>` with a number.
    pub fn number(&mut self, number: i128) {
        use fmt::Write;
        // Writing to a string does not fail.
        let _ = write!(self.out, "<VALUE>{number}</VALUE>");
    }

    /// `</name>`
    pub fn close(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    /// Text with what XML wants escaped. A character that XML has not becomes U+FFFD.
    pub fn text(&mut self, text: &str) {
        let Some(special) = text.bytes().position(is_special) else {
            return self.out.push_str(text);
        };
        let (plain, rest) = text.split_at(special);
        self.out.push_str(plain);
        for c in rest.chars() {
            match c {
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '&' => self.out.push_str("&amp;"),
                '"' => self.out.push_str("&quot;"),
                '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' => {
                    self.out.push('\u{fffd}');
                }
                '\u{fffe}' | '\u{ffff}' => self.out.push('\u{fffd}'),
                c => self.out.push(c),
            }
        }
    }

    /// XML that is written already.
    pub fn raw(&mut self, xml: &str) {
        self.out.push_str(xml);
    }

    /// An element with nothing but text.
    pub fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        self.text(text);
        self.close(name);
    }

    /// An element with what `inside` writes.
    pub fn within(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        inside: impl FnOnce(&mut Self),
    ) {
        self.open(name, attributes);
        inside(self);
        self.close(name);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What was written, without the parts that were handed on.
    pub fn finish(self) -> String {
        self.out
    }
}
