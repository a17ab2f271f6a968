//! Elements to values, paths and instances (DSP0201 5.2).

use super::Refusal;
use crate::xml::{Element, Limits, read};
use crate::{CimError, Instance, KeyValue, Path, Scalar, Type, Value, namespace};

/// Embedded instances within each other.
const EMBEDDED_MAX: usize = 4;

/// A value as it is written; its type is known to whoever asked for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// NULL.
    Null,
    /// VALUE.
    Text(String),
    /// VALUE.ARRAY; `None` for an element that is NULL.
    Texts(Vec<Option<String>>),
    /// CLASSNAME, or a class path in a reference.
    Class(Path),
    /// INSTANCENAME, or a reference.
    Path(Path),
    /// VALUE.REFARRAY.
    Paths(Vec<Path>),
    /// INSTANCE, VALUE.NAMEDINSTANCE.
    Instance(Instance),
}

pub(super) fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::not_valid(text)
}

/// The attributes that an element may have; the first ones, up to `needed`, it must have.
pub(super) fn attributes(element: &Element, known: &[&str], needed: usize) -> Result<(), Refusal> {
    if let Some((name, _)) = element.attributes.iter().find(|(n, _)| !known.contains(&n.as_str())) {
        return Err(invalid(format!("{} with an attribute {name}", element.name)));
    }
    match known.iter().take(needed).find(|name| element.attribute(name).is_none()) {
        Some(name) => Err(invalid(format!("{} without {name}", element.name))),
        None => Ok(()),
    }
}

/// The one child of an element.
pub(super) fn only(element: &Element) -> Result<&Element, Refusal> {
    match element.children.as_slice() {
        [only] => Ok(only),
        _ => Err(invalid(format!("{} with {} children", element.name, element.children.len()))),
    }
}

/// An element that holds other ones has no text of its own.
pub(super) fn no_text(element: &Element) -> Result<(), Refusal> {
    match element.text.trim().is_empty() {
        true => Ok(()),
        false => Err(invalid(format!("text in {}", element.name))),
    }
}

fn leaf(element: &Element) -> Result<&str, Refusal> {
    match element.children.is_empty() {
        true => Ok(&element.text),
        false => Err(invalid(format!("elements in {}", element.name))),
    }
}

/// LOCALNAMESPACEPATH.
pub(super) fn local_namespace(element: &Element) -> Result<String, Refusal> {
    attributes(element, &[], 0)?;
    let part = |child: &Element| match child.name.as_str() {
        "NAMESPACE" => {
            attributes(child, &["NAME"], 1)?;
            Ok(child.attribute("NAME").unwrap_or_default().to_owned())
        }
        other => Err(invalid(format!("{other} in LOCALNAMESPACEPATH"))),
    };
    let parts: Result<Vec<_>, _> = element.children.iter().map(part).collect();
    match parts? {
        parts if parts.is_empty() => Err(invalid("LOCALNAMESPACEPATH without NAMESPACE")),
        parts => Ok(namespace(&parts.join("/"))),
    }
}

/// NAMESPACEPATH; whatever host it names, this one was asked.
fn namespace_path(element: &Element) -> Result<String, Refusal> {
    match element.children.as_slice() {
        [host, local] if host.name == "HOST" && local.name == "LOCALNAMESPACEPATH" => {
            local_namespace(local)
        }
        _ => Err(invalid("NAMESPACEPATH without HOST and LOCALNAMESPACEPATH")),
    }
}

/// CLASSNAME.
pub(super) fn class_name(element: &Element) -> Result<String, Refusal> {
    attributes(element, &["NAME"], 1)?;
    leaf(element)?;
    Ok(element.attribute("NAME").unwrap_or_default().to_owned())
}

/// INSTANCENAME.
pub(super) fn instance_name(element: &Element) -> Result<Path, Refusal> {
    attributes(element, &["CLASSNAME"], 1)?;
    no_text(element)?;
    let class = element.attribute("CLASSNAME").unwrap_or_default().to_owned();
    let mut path = Path::new("", class);
    for child in &element.children {
        let (name, value) = match child.name.as_str() {
            "KEYBINDING" => {
                attributes(child, &["NAME"], 1)?;
                (child.attribute("NAME").unwrap_or_default().to_owned(), key_value(only(child)?)?)
            }
            // One key whose name everybody knows (DSP0201 5.2.4.5).
            "KEYVALUE" | "VALUE.REFERENCE" => (String::new(), key_value(child)?),
            other => return Err(invalid(format!("{other} in INSTANCENAME"))),
        };
        if path.key(&name).is_some() {
            return Err(invalid(format!("two keys {name:?}")));
        }
        path.keys.push((name.into(), value));
    }
    Ok(path)
}

fn key_value(element: &Element) -> Result<KeyValue, Refusal> {
    match element.name.as_str() {
        "KEYVALUE" => {
            attributes(element, &["VALUETYPE", "TYPE"], 0)?;
            let text = leaf(element)?;
            let text = match element.attribute("VALUETYPE").unwrap_or("string") {
                "string" => text.to_owned(),
                "boolean" => text.trim().to_ascii_lowercase(),
                "numeric" => {
                    let number = text.trim();
                    let parsed = integer(number).map(|number| number.to_string());
                    parsed.unwrap_or_else(|| number.to_owned())
                }
                other => return Err(invalid(format!("a VALUETYPE {other:?}"))),
            };
            Ok(KeyValue::Text(text.into()))
        }
        "VALUE.REFERENCE" => match reference(element)? {
            Raw::Path(path) => Ok(KeyValue::Reference(Box::new(path))),
            _ => Err(invalid("a class as a key")),
        },
        other => Err(invalid(format!("{other} as a key"))),
    }
}

/// What stands in a VALUE.REFERENCE, an OBJECTPATH or a method's target.
pub(super) fn object(element: &Element) -> Result<Raw, Refusal> {
    let pair = || match element.children.as_slice() {
        [space, name] => Ok((space, name)),
        _ => Err(invalid(format!("{} without its two parts", element.name))),
    };
    let with = |space: String, name: &Element| {
        let mut path = instance_name(name)?;
        path.settle(&space);
        Ok(Raw::Path(path))
    };
    match element.name.as_str() {
        "INSTANCENAME" => Ok(Raw::Path(instance_name(element)?)),
        "CLASSNAME" => Ok(Raw::Class(Path::new("", class_name(element)?))),
        "LOCALINSTANCEPATH" => {
            let (space, name) = pair()?;
            with(local_namespace(space)?, name)
        }
        "INSTANCEPATH" => {
            let (space, name) = pair()?;
            with(namespace_path(space)?, name)
        }
        "LOCALCLASSPATH" => {
            let (space, name) = pair()?;
            Ok(Raw::Class(Path::new(local_namespace(space)?, class_name(name)?)))
        }
        "CLASSPATH" => {
            let (space, name) = pair()?;
            Ok(Raw::Class(Path::new(namespace_path(space)?, class_name(name)?)))
        }
        other => Err(invalid(format!("{other} as an object"))),
    }
}

fn reference(element: &Element) -> Result<Raw, Refusal> {
    attributes(element, &[], 0)?;
    no_text(element)?;
    object(only(element)?)
}

/// The value in a parameter or a property: at most one child that is none of the qualifiers.
pub(super) fn value(children: &[Element]) -> Result<Raw, Refusal> {
    let mut values = children.iter().filter(|child| child.name != "QUALIFIER");
    let Some(element) = values.next() else { return Ok(Raw::Null) };
    if values.next().is_some() {
        return Err(invalid("two values"));
    }
    match element.name.as_str() {
        "VALUE" => Ok(Raw::Text(leaf(element)?.to_owned())),
        "VALUE.NULL" => Ok(Raw::Null),
        "VALUE.ARRAY" => {
            no_text(element)?;
            let one = |child: &Element| match child.name.as_str() {
                "VALUE" => Ok(Some(leaf(child)?.to_owned())),
                "VALUE.NULL" => Ok(None),
                other => Err(invalid(format!("{other} in VALUE.ARRAY"))),
            };
            Ok(Raw::Texts(element.children.iter().map(one).collect::<Result<_, _>>()?))
        }
        "VALUE.REFERENCE" => reference(element),
        "VALUE.REFARRAY" => {
            let one = |child: &Element| match reference(child)? {
                Raw::Path(path) if child.name == "VALUE.REFERENCE" => Ok(path),
                _ => Err(invalid("no instance in VALUE.REFARRAY")),
            };
            Ok(Raw::Paths(element.children.iter().map(one).collect::<Result<_, _>>()?))
        }
        "INSTANCENAME" | "CLASSNAME" => object(element),
        "INSTANCE" => Ok(Raw::Instance(instance(element, 0)?)),
        "VALUE.NAMEDINSTANCE" => match element.children.as_slice() {
            [name, body] if body.name == "INSTANCE" && name.name == "INSTANCENAME" => {
                let mut instance = instance(body, 0)?;
                instance.path = instance_name(name)?;
                Ok(Raw::Instance(instance))
            }
            _ => Err(invalid("VALUE.NAMEDINSTANCE without its two parts")),
        },
        other => Err(invalid(format!("{other} as a value"))),
    }
}

/// INSTANCE.
pub(super) fn instance(element: &Element, nested: usize) -> Result<Instance, Refusal> {
    attributes(element, &["CLASSNAME", "xml:lang"], 1)?;
    no_text(element)?;
    let class = element.attribute("CLASSNAME").unwrap_or_default().to_owned();
    let mut instance = Instance { path: Path::new("", class), properties: Vec::new() };
    const ATTRIBUTES: [&str; 9] = [
        "NAME",
        "TYPE",
        "CLASSORIGIN",
        "PROPAGATED",
        "EmbeddedObject",
        "EMBEDDEDOBJECT",
        "xml:lang",
        "ARRAYSIZE",
        "REFERENCECLASS",
    ];
    for child in &element.children {
        let (array, needed) = match child.name.as_str() {
            "QUALIFIER" => continue,
            "PROPERTY" => (false, 2),
            "PROPERTY.ARRAY" => (true, 2),
            "PROPERTY.REFERENCE" => (false, 1),
            other => return Err(invalid(format!("{other} in INSTANCE"))),
        };
        attributes(child, &ATTRIBUTES, needed)?;
        let name = child.attribute("NAME").unwrap_or_default().to_owned();
        let kind = match child.name.as_str() {
            "PROPERTY.REFERENCE" => Type::Reference,
            _ => {
                let word = child.attribute("TYPE").unwrap_or_default();
                Type::parse(word).ok_or_else(|| invalid(format!("a type {word:?}")))?
            }
        };
        let embedded =
            ["EmbeddedObject", "EMBEDDEDOBJECT"].iter().any(|a| child.attribute(a).is_some());
        let raw = value(&child.children)?;
        let value = convert(&raw, kind, array, embedded, nested).map_err(invalid)?;
        if instance.properties.iter().any(|(known, _)| crate::same_name(known, &name)) {
            return Err(invalid(format!("two properties {name}")));
        }
        instance.properties.push((name.into(), value));
    }
    Ok(instance)
}

/// Gives a raw value the type that is expected.
///
/// # Errors
/// [`crate::Status::InvalidParameter`]: it is of another type, or out of its range.
pub fn typed(raw: &Raw, kind: Type, array: bool, embedded: bool) -> Result<Value, CimError> {
    convert(raw, kind, array, embedded, 0).map_err(CimError::parameter)
}

fn convert(
    raw: &Raw,
    kind: Type,
    array: bool,
    embedded: bool,
    nested: usize,
) -> Result<Value, String> {
    let one = |text: &str| match embedded {
        true => embedded_instance(text, nested + 1).map(Scalar::from),
        false => scalar(text, kind),
    };
    let wrong = || format!("a value that is no {}", kind.as_str());
    match raw {
        Raw::Null => Ok(Value::Null),
        Raw::Text(text) if !array && kind != Type::Reference => one(text).map(Value::One),
        Raw::Texts(texts) if array && kind != Type::Reference => {
            let all = texts.iter().map(|text| one(text.as_deref().ok_or("NULL in an array")?));
            Ok(Value::Many(all.collect::<Result<_, _>>()?))
        }
        Raw::Path(path) if kind == Type::Reference && !array => Ok(path.clone().into()),
        Raw::Paths(paths) if kind == Type::Reference && array => Ok(paths.clone().into()),
        Raw::Instance(instance) if embedded && !array => Ok(instance.clone().into()),
        _ => Err(wrong()),
    }
}

/// Reads an INSTANCE that was written before ([`super::Encoder::instance`]).
///
/// # Errors
/// The text is none; in words.
pub fn read_instance(text: &str) -> Result<Instance, String> {
    embedded_instance(text, 1)
}

/// The text of an embedded instance.
pub(super) fn embedded_instance(text: &str, nested: usize) -> Result<Instance, String> {
    if nested > EMBEDDED_MAX {
        return Err(format!("instances embedded deeper than {EMBEDDED_MAX}"));
    }
    let tree = read(text.as_bytes(), &Limits::REQUEST).map_err(|error| error.0)?;
    match tree.name.as_str() {
        "INSTANCE" => instance(&tree, nested).map_err(|refusal| refusal.text),
        other => Err(format!("{other} embedded; only INSTANCE is taken")),
    }
}

/// An integer as DSP0201 writes it: decimal, hexadecimal or binary.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let number = match (lower.strip_prefix("0x"), lower.strip_suffix('b')) {
        (Some(hex), _) => i128::from_str_radix(hex, 16),
        (None, Some(binary)) => i128::from_str_radix(binary, 2),
        _ => digits.parse(),
    };
    // A second sign is none of ours.
    let number = number.ok().filter(|_| !digits.starts_with(['+', '-']))?;
    Some(if negative { -number } else { number })
}

fn scalar(text: &str, kind: Type) -> Result<Scalar, String> {
    let wrong =
        || format!("{:?} is no {}", text.chars().take(40).collect::<String>(), kind.as_str());
    match kind {
        Type::Boolean => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Scalar::Boolean(true)),
            "false" => Ok(Scalar::Boolean(false)),
            _ => Err(wrong()),
        },
        Type::Integer(bits, signed) => {
            let value = integer(text.trim()).ok_or_else(wrong)?;
            let (low, high) = match signed {
                true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
                false => (0, (1i128 << bits) - 1),
            };
            if (low..=high).contains(&value) { Ok(Scalar::Integer(value)) } else { Err(wrong()) }
        }
        Type::Real(_) => text.trim().parse().map(Scalar::Real).map_err(|_| wrong()),
        Type::Datetime => match is_datetime(text.trim()) {
            true => Ok(Scalar::Text(text.trim().to_owned().into())),
            false => Err(wrong()),
        },
        Type::Char16 | Type::String => Ok(Scalar::Text(text.to_owned().into())),
        Type::Reference => Err(wrong()),
    }
}

/// 25 characters: `yyyymmddhhmmss.mmmmmmsutc` or `ddddddddhhmmss.mmmmmm:000` (DSP0004 5.2.4).
fn is_datetime(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.as_bytes()
            .get(range)
            .is_some_and(|b| b.iter().all(|c| c.is_ascii_digit() || *c == b'*'))
    };
    text.len() == 25
        && digits(0..14)
        && text.as_bytes()[14] == b'.'
        && digits(15..21)
        && matches!(text.as_bytes()[21], b'+' | b'-' | b':')
        && digits(22..25)
}
