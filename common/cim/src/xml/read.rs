//! Bytes to a tree (XML 1.0 without document types).

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// What a document may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all.
    pub bytes: usize,
    /// Elements in all.
    pub elements: usize,
    /// Elements within each other.
    pub depth: usize,
    /// Attributes of one element.
    pub attributes: usize,
    /// Bytes of a name.
    pub name: usize,
}

impl Limits {
    /// What a request may hold.
    pub const REQUEST: Self =
        Self { bytes: 1 << 20, elements: 20_000, depth: 32, attributes: 16, name: 256 };
}

/// The bytes are no XML that is read here. Whose fault: the sender's; it is to send something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotXml(pub String);

fn fault(text: impl Into<String>) -> NotXml {
    NotXml(text.into())
}

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name as written.
    pub name: String,
    /// Its attributes in their order.
    pub attributes: Vec<(String, String)>,
    /// The elements in it.
    pub children: Vec<Element>,
    /// All text directly in it.
    pub text: String,
}

impl Element {
    /// An attribute by name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a document.
///
/// # Errors
/// It is not well-formed, is not UTF-8, has a document type or an entity, or exceeds the limits.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Element, NotXml> {
    if bytes.len() > limits.bytes {
        return Err(fault(format!("more than {} bytes", limits.bytes)));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| fault("it is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(wrong) = text.chars().find(|c| !is_char(*c)) {
        return Err(fault(format!("the character U+{:04X}", u32::from(wrong))));
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_comments = true;
    let mut tree = Tree { limits, open: Vec::new(), root: None, elements: 0 };
    let mut first = true;
    loop {
        let event = reader.read_event().map_err(|error| fault(error.to_string()))?;
        match event {
            Event::Decl(declaration) if first => {
                let encoding = declaration.encoding().transpose();
                let encoding = encoding.map_err(|error| fault(error.to_string()))?;
                if encoding.is_some_and(|name| !name.eq_ignore_ascii_case("utf-8")) {
                    return Err(fault("an encoding that is not UTF-8"));
                }
            }
            Event::Decl(_) => return Err(fault("a second XML declaration")),
            Event::DocType(_) => return Err(fault("a document type; none is read here")),
            Event::PI(_) => return Err(fault("a processing instruction")),
            Event::Comment(_) => {}
            Event::Start(start) => tree.start(&start)?,
            Event::Empty(start) => {
                tree.start(&start)?;
                tree.end()?;
            }
            Event::End(_) => tree.end()?,
            Event::Text(text) => tree.text(&text.xml10_content())?,
            Event::CData(text) => tree.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => tree.text(&resolved(&reference)?)?,
            Event::Eof => break,
        }
        first = false;
    }
    match tree.root {
        Some(root) if tree.open.is_empty() => Ok(root),
        _ => Err(fault("it ends too early")),
    }
}

/// XML 1.0 production 2.
fn is_char(c: char) -> bool {
    // A `char` is no surrogate.
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

/// XML 1.0 production 5, for the names that occur.
fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let begins = |c: char| c.is_alphabetic() || matches!(c, '_' | ':');
    chars.next().is_some_and(begins)
        && chars.all(|c| begins(c) || c.is_alphanumeric() || matches!(c, '-' | '.'))
}

fn resolved(reference: &BytesRef<'_>) -> Result<String, NotXml> {
    let resolved = reference.resolve_char_ref().map_err(|error| fault(error.to_string()))?;
    if let Some(c) = resolved {
        return match is_char(c) {
            true => Ok(c.to_string()),
            false => Err(fault(format!("the character U+{:04X}", u32::from(c)))),
        };
    }
    let name: &str = reference;
    let known = resolve_predefined_entity(name);
    known.map(str::to_owned).ok_or_else(|| fault(format!("an entity: {}", shown(name))))
}

fn shown(text: &str) -> String {
    text.chars().take(32).collect()
}

struct Tree<'a> {
    limits: &'a Limits,
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Tree<'_> {
    fn name(&self, name: &str) -> Result<String, NotXml> {
        if name.len() > self.limits.name {
            return Err(fault(format!("a name of more than {} bytes", self.limits.name)));
        }
        match is_name(name) {
            true => Ok(name.to_owned()),
            false => Err(fault(format!("a name {:?}", shown(name)))),
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), NotXml> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(fault("a second document"));
        }
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(fault(format!("more than {} elements", self.limits.elements)));
        }
        if self.open.len() >= self.limits.depth {
            return Err(fault(format!("elements deeper than {}", self.limits.depth)));
        }
        let mut element = Element { name: self.name(start.name().0)?, ..Element::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| fault(error.to_string()))?;
            if element.attributes.len() >= self.limits.attributes {
                return Err(fault(format!("more than {} attributes", self.limits.attributes)));
            }
            let value = self.attribute(&attribute)?;
            element.attributes.push((self.name(attribute.key.0)?, value));
        }
        self.open.push(element);
        Ok(())
    }

    fn attribute(&self, attribute: &Attribute<'_>) -> Result<String, NotXml> {
        if attribute.value.contains('<') {
            return Err(fault("a < in an attribute"));
        }
        let value = attribute.normalized_value(XmlVersion::Explicit1_0);
        let value = value.map_err(|error| fault(error.to_string()))?;
        match value.chars().all(is_char) {
            true => Ok(value.into_owned()),
            false => Err(fault("a character that XML has not")),
        }
    }

    fn end(&mut self) -> Result<(), NotXml> {
        let element = self.open.pop().ok_or_else(|| fault("an end without a beginning"))?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), NotXml> {
        match self.open.last_mut() {
            Some(_) if text.contains("]]>") => Err(fault("]]> in text")),
            Some(element) => {
                element.text.push_str(text);
                Ok(())
            }
            None if text.trim().is_empty() => Ok(()),
            None => Err(fault("text outside of the document")),
        }
    }
}
