//! Instances, paths and values.

use std::borrow::Cow;
use std::fmt;

/// A name of a class, a property or a key. Names are equal without regard to case
/// ([`same_name`]).
pub type Name = Cow<'static, str>;

/// Whether two names are the same (DSP0004 annex A: case does not count).
pub fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// A namespace as it is compared: lower case, without slashes at its ends, and `root/interop` by
/// its shorter name.
pub fn namespace(text: &str) -> String {
    let text = text.trim_matches('/').to_ascii_lowercase();
    if text == "root/interop" { "interop".into() } else { text }
}

/// An intrinsic type (DSP0004 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `boolean`
    Boolean,
    /// An integer with its bits and whether it has a sign.
    Integer(u8, bool),
    /// A real with its bits.
    Real(u8),
    /// `string`
    String,
    /// `char16`
    Char16,
    /// `datetime`
    Datetime,
    /// `REF`; in XML the word is `reference`.
    Reference,
}

impl Type {
    /// The type of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "boolean" => Self::Boolean,
            "string" => Self::String,
            "char16" => Self::Char16,
            "datetime" => Self::Datetime,
            "reference" => Self::Reference,
            "real32" => Self::Real(32),
            "real64" => Self::Real(64),
            _ => {
                let (bits, signed) = match word.strip_prefix("uint") {
                    Some(bits) => (bits, false),
                    None => (word.strip_prefix("sint")?, true),
                };
                let bits = [8u8, 16, 32, 64].into_iter().find(|b| b.to_string() == bits)?;
                Self::Integer(bits, signed)
            }
        })
    }

    /// The word of the type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer(8, false) => "uint8",
            Self::Integer(16, false) => "uint16",
            Self::Integer(32, false) => "uint32",
            Self::Integer(_, false) => "uint64",
            Self::Integer(8, true) => "sint8",
            Self::Integer(16, true) => "sint16",
            Self::Integer(32, true) => "sint32",
            Self::Integer(_, true) => "sint64",
            Self::Real(32) => "real32",
            Self::Real(_) => "real64",
            Self::String => "string",
            Self::Char16 => "char16",
            Self::Datetime => "datetime",
            Self::Reference => "reference",
        }
    }

    /// The `VALUETYPE` of a key of this type.
    pub(crate) fn key_word(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer(..) | Self::Real(_) => "numeric",
            _ => "string",
        }
    }
}

/// One value that is not NULL.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `boolean`
    Boolean(bool),
    /// An integer of any width.
    Integer(i128),
    /// `real32`, `real64`
    Real(f64),
    /// `string`, `char16` and `datetime`, as written.
    Text(Cow<'static, str>),
    /// `REF`
    Reference(Box<Path>),
    /// An embedded instance.
    Instance(Box<Instance>),
}

/// A value: NULL, one, or an array.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// A scalar.
    One(Scalar),
    /// An array.
    Many(Vec<Scalar>),
}

impl Value {
    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::One(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// An integer.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Self::One(Scalar::Integer(value)) => Some(*value),
            _ => None,
        }
    }

    /// A boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Self::One(Scalar::Boolean(value)) => Some(*value),
            _ => None,
        }
    }

    /// A reference.
    pub fn reference(&self) -> Option<&Path> {
        match self {
            Self::One(Scalar::Reference(path)) => Some(path),
            _ => None,
        }
    }

    /// An embedded instance.
    pub fn instance(&self) -> Option<&Instance> {
        match self {
            Self::One(Scalar::Instance(instance)) => Some(instance),
            _ => None,
        }
    }

    /// The elements: of NULL none, of a scalar one.
    pub fn elements(&self) -> &[Scalar] {
        match self {
            Self::Null => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

macro_rules! from_integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Scalar {
            fn from(value: $type) -> Self {
                Self::Integer(i128::from(value))
            }
        }
    )*};
}

from_integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<&'static str> for Scalar {
    fn from(value: &'static str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Scalar {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl From<Path> for Scalar {
    fn from(value: Path) -> Self {
        Self::Reference(Box::new(value))
    }
}

impl From<Instance> for Scalar {
    fn from(value: Instance) -> Self {
        Self::Instance(Box::new(value))
    }
}

impl<T: Into<Scalar>> From<T> for Value {
    fn from(value: T) -> Self {
        Self::One(value.into())
    }
}

impl<T: Into<Scalar>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::Many(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Scalar>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, |value| Self::One(value.into()))
    }
}

/// The value of a key. Two are equal if they are written alike: a client may not know the type.
#[derive(Clone, Debug)]
pub enum KeyValue {
    /// Anything that is written as text: strings, numbers, booleans.
    Text(Cow<'static, str>),
    /// A reference.
    Reference(Box<Path>),
}

impl PartialEq for KeyValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Reference(one), Self::Reference(other)) => one.same(other),
            _ => false,
        }
    }
}

/// The path of an instance: namespace, class and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The namespace as [`namespace`] writes it; empty where it is the one spoken of.
    pub namespace: Name,
    /// The class that the instance was created with.
    pub class: Name,
    /// The keys in any order.
    pub keys: Vec<(Name, KeyValue)>,
}

impl Path {
    /// A path without keys.
    pub fn new(namespace: impl Into<Name>, class: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), class: class.into(), keys: Vec::new() }
    }

    /// With a key of a type that is written as text.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Name>) -> Self {
        self.keys.push((name.into(), KeyValue::Text(value.into())));
        self
    }

    /// With a key that is a reference.
    #[must_use]
    pub fn with_reference(mut self, name: &'static str, value: Path) -> Self {
        self.keys.push((name.into(), KeyValue::Reference(Box::new(value))));
        self
    }

    /// A key by name.
    pub fn key(&self, name: &str) -> Option<&KeyValue> {
        self.keys.iter().find(|(key, _)| same_name(key, name)).map(|(_, value)| value)
    }

    /// The text of a key; empty for one that is not there.
    pub fn text(&self, name: &str) -> &str {
        match self.key(name) {
            Some(KeyValue::Text(text)) => text,
            _ => "",
        }
    }

    /// The path in a key.
    pub fn reference(&self, name: &str) -> Option<&Path> {
        match self.key(name) {
            Some(KeyValue::Reference(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether both name the same instance. A namespace that is not given fits any.
    pub fn same(&self, other: &Path) -> bool {
        let spaces = self.namespace.is_empty()
            || other.namespace.is_empty()
            || self.namespace == other.namespace;
        let keys = |(name, value): &(Name, KeyValue)| other.key(name) == Some(value);
        spaces
            && same_name(&self.class, &other.class)
            && self.keys.len() == other.keys.len()
            && self.keys.iter().all(keys)
    }

    /// A text that is the same for two paths that are ([`Path::same`], both with a namespace).
    pub fn canonical(&self) -> String {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
        let mut text = format!("{}:{}", self.namespace, self.class.to_ascii_lowercase());
        for (name, value) in keys {
            text.push('\u{1}');
            text.push_str(&name.to_ascii_lowercase());
            text.push('\u{2}');
            match value {
                KeyValue::Text(value) => text.push_str(value),
                KeyValue::Reference(path) => text.push_str(&path.canonical()),
            }
        }
        text
    }

    /// Gives a namespace to the path, and to those in its keys, where none is given.
    pub fn settle(&mut self, space: &str) {
        if self.namespace.is_empty() {
            self.namespace = space.to_owned().into();
        }
        for (_, value) in &mut self.keys {
            if let KeyValue::Reference(path) = value {
                path.settle(space);
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}:", self.namespace)?;
        }
        f.write_str(&self.class)?;
        for (index, (name, value)) in self.keys.iter().enumerate() {
            f.write_str(if index == 0 { "." } else { "," })?;
            let text = match value {
                KeyValue::Text(text) => text.to_string(),
                KeyValue::Reference(path) => path.to_string(),
            };
            write!(f, "{name}=\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        Ok(())
    }
}

/// An instance: where it is and what it says. What is not among the properties is NULL.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its path; for an embedded one only the class counts.
    pub path: Path,
    /// Its properties.
    pub properties: Vec<(Name, Value)>,
}

impl Instance {
    /// The instance at a path, with the keys as properties already.
    pub fn at(path: Path) -> Self {
        let of = |(name, value): &(Name, KeyValue)| {
            let value = match value {
                KeyValue::Text(text) => Value::One(Scalar::Text(text.clone())),
                KeyValue::Reference(path) => Value::One(Scalar::Reference(path.clone())),
            };
            (name.clone(), value)
        };
        let properties = path.keys.iter().map(of).collect();
        Self { path, properties }
    }

    /// An instance that is embedded in another one.
    pub fn embedded(class: &'static str) -> Self {
        Self { path: Path::new("", class), properties: Vec::new() }
    }

    /// The class.
    pub fn class(&self) -> &str {
        &self.path.class
    }

    /// With a property.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Sets a property.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.properties.iter_mut().find(|(known, _)| same_name(known, name)) {
            Some((_, known)) => *known = value,
            None => self.properties.push((name.to_owned().into(), value)),
        }
    }

    /// A property; NULL for one that is not there.
    pub fn get(&self, name: &str) -> &Value {
        let found = self.properties.iter().find(|(known, _)| same_name(known, name));
        found.map_or(&Value::Null, |(_, value)| value)
    }
}
