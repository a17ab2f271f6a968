//! The form of `schemas/cim/*.cim`, line by line; described in `schemas/cim/README.md`.

use super::{Class, Declaration, Feature, Method, Parameter, Qualifier};
use crate::Type;

/// The schema files do not fit; a fault of the build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// What the `=` lines that follow belong to.
enum Open {
    Nothing,
    Property,
    Method,
    Parameter,
}

/// A class as read, with the place where it begins; what it inherits is still missing.
pub(super) type Read = (String, Class);

pub(super) fn file(
    declarations: &mut Vec<Declaration>,
    file: &str,
    text: &str,
) -> Result<Vec<Read>, SchemaError> {
    let mut reading = Reading { declarations, read: Vec::new(), class: None, open: Open::Nothing };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = format!("{file}:{}", index + 1);
        let read = reading.line(line, &at);
        read.map_err(|error| SchemaError(format!("{at}: {error}")))?;
    }
    reading.finish();
    Ok(reading.read)
}

struct Reading<'a> {
    declarations: &'a mut Vec<Declaration>,
    read: Vec<Read>,
    class: Option<Read>,
    open: Open,
}

impl Reading<'_> {
    fn line(&mut self, line: &str, at: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "qualifier" => {
                let declaration = declaration(rest)?;
                self.declarations.push(declaration);
            }
            "class" => {
                self.finish();
                self.class = Some((at.to_owned(), class(rest)?));
                self.open = Open::Nothing;
            }
            "version" => self.class()?.qualifiers.push(text("Version", rest)),
            "about" => self.class()?.qualifiers.push(text("Description", rest)),
            "property" => {
                let class = self.class()?;
                let feature = feature(rest, &class.name, &mut |_| false)?;
                class.properties.push(feature);
                self.open = Open::Property;
            }
            "method" => {
                let class = self.class()?;
                let feature = feature(rest, &class.name, &mut |_| false)?;
                class.methods.push(Method { feature, parameters: Vec::new() });
                self.open = Open::Method;
            }
            "parameter" => {
                let class = self.class()?;
                let parameter = parameter(rest, &class.name)?;
                let method = class.methods.last_mut().ok_or("a parameter without a method")?;
                method.parameters.push(parameter);
                self.open = Open::Parameter;
            }
            "=" => self.value(rest)?,
            other => return Err(format!("unknown word {other:?}")),
        }
        Ok(())
    }

    fn class(&mut self) -> Result<&mut Class, String> {
        let open = self.class.as_mut().map(|(_, class)| class);
        open.ok_or_else(|| "no class is open".to_owned())
    }

    fn value(&mut self, rest: &str) -> Result<(), String> {
        let (value, word) = rest.split_once('|').ok_or("a value without |")?;
        let pair = (value.trim().to_owned(), word.trim().to_owned());
        let feature = match (&self.open, &mut self.class) {
            (Open::Property, Some((_, class))) => class.properties.last_mut(),
            (Open::Method, Some((_, class))) => class.methods.last_mut().map(|m| &mut m.feature),
            (Open::Parameter, Some((_, class))) => {
                let method = class.methods.last_mut();
                method.and_then(|m| m.parameters.last_mut()).map(|p| &mut p.feature)
            }
            _ => None,
        };
        feature.ok_or("a value of nothing")?.values.push(pair);
        Ok(())
    }

    fn finish(&mut self) {
        let Some((at, mut class)) = self.class.take() else { return };
        class.properties.iter_mut().for_each(value_map);
        for method in &mut class.methods {
            value_map(&mut method.feature);
            method.parameters.iter_mut().for_each(|p| value_map(&mut p.feature));
        }
        self.read.push((at, class));
    }
}

fn text(name: &str, value: &str) -> Qualifier {
    let values = vec![value.trim().to_owned()];
    Qualifier { name: name.into(), kind: Type::String, values, array: false }
}

fn yes(name: &str) -> Qualifier {
    Qualifier { name: name.into(), kind: Type::Boolean, values: vec!["true".into()], array: false }
}

/// The values of a feature as its qualifiers ValueMap and Values.
fn value_map(feature: &mut Feature) {
    if feature.values.is_empty() {
        return;
    }
    let (values, words): (Vec<_>, Vec<_>) = feature.values.iter().cloned().unzip();
    let list = |name: &str, values: Vec<String>| Qualifier {
        name: name.into(),
        kind: Type::String,
        values,
        array: true,
    };
    if values.iter().any(|value| !value.is_empty()) {
        feature.qualifiers.push(list("ValueMap", values));
    }
    if words.iter().any(|word| !word.is_empty()) {
        feature.qualifiers.push(list("Values", words));
    }
}

/// `NAME TYPE[] [default=...] scopes=a,b`
fn declaration(rest: &str) -> Result<Declaration, String> {
    let mut words = rest.split_whitespace();
    let name = words.next().ok_or("a qualifier without a name")?.to_owned();
    let (kind, array, _) = kind(words.next().ok_or("a qualifier without a type")?)?;
    let mut declaration = Declaration { name, kind, array, default: None, scopes: Vec::new() };
    for word in words {
        match word.split_once('=') {
            Some(("default", value)) => declaration.default = Some(value.to_owned()),
            Some(("scopes", list)) => {
                declaration.scopes = list.split(',').map(str::to_ascii_uppercase).collect();
            }
            _ => return Err(format!("unknown word {word:?}")),
        }
    }
    Ok(declaration)
}

/// `NAME [: SUPERCLASS] [flags]`
fn class(rest: &str) -> Result<Class, String> {
    let mut words = rest.split_whitespace().peekable();
    let name = words.next().ok_or("a class without a name")?.to_owned();
    let mut class = Class {
        name: name.into(),
        superclass: None,
        is_abstract: false,
        association: false,
        indication: false,
        properties: Vec::new(),
        methods: Vec::new(),
        qualifiers: Vec::new(),
    };
    if words.next_if_eq(&":").is_some() {
        class.superclass = Some(words.next().ok_or("no superclass behind :")?.to_owned());
    }
    for word in words {
        let name = match word {
            "abstract" => {
                class.is_abstract = true;
                "Abstract"
            }
            "association" => {
                class.association = true;
                "Association"
            }
            "indication" => {
                class.indication = true;
                "Indication"
            }
            "aggregation" => "Aggregation",
            "composition" => "Composition",
            "terminal" => "Terminal",
            other => return Err(format!("unknown word {other:?}")),
        };
        class.qualifiers.push(yes(name));
    }
    Ok(class)
}

/// `TYPE`, `ref:CLASS`, each with `[]` behind for an array.
fn kind(word: &str) -> Result<(Type, bool, Option<String>), String> {
    let (word, array) = match word.strip_suffix("[]") {
        Some(word) => (word, true),
        None => (word, false),
    };
    match word.strip_prefix("ref:") {
        Some(class) => Ok((Type::Reference, array, Some(class.to_owned()))),
        None => {
            let kind = Type::parse(word).ok_or_else(|| format!("no type {word:?}"))?;
            Ok((kind, array, None))
        }
    }
}

/// `NAME TYPE [flags]`; `more` takes words that only some features have.
fn feature(
    rest: &str,
    origin: &str,
    more: &mut dyn FnMut(&str) -> bool,
) -> Result<Feature, String> {
    let mut words = rest.split_whitespace();
    let name = words.next().ok_or("a feature without a name")?.to_owned();
    let (kind, array, class) = kind(words.next().ok_or("a feature without a type")?)?;
    let mut feature = Feature {
        name: name.into(),
        kind,
        array,
        class,
        key: false,
        required: false,
        embedded: None,
        values: Vec::new(),
        origin: origin.to_owned(),
        default: None,
        qualifiers: Vec::new(),
    };
    for word in words {
        if !more(word) {
            flag(&mut feature, word)?;
        }
    }
    Ok(feature)
}

fn flag(feature: &mut Feature, word: &str) -> Result<(), String> {
    let number = |name: &str, kind, value: &str| Qualifier {
        name: name.into(),
        kind,
        values: vec![value.to_owned()],
        array: false,
    };
    let (wide, count) = (Type::Integer(64, true), Type::Integer(32, false));
    let qualifier = match word.split_once('=') {
        Some(("override", name)) => text("Override", name),
        Some(("propagated", name)) => text("Propagated", name),
        Some(("order", name)) => text("ArrayType", name),
        Some(("unit", name)) => text("PUnit", name),
        Some(("maxlen", value)) => number("MaxLen", count, value),
        Some(("min", value)) => number("Min", count, value),
        Some(("max", value)) => number("Max", count, value),
        Some(("minvalue", value)) => number("MinValue", wide, value),
        Some(("maxvalue", value)) => number("MaxValue", wide, value),
        Some(("instance", class)) => {
            feature.embedded = Some(class.to_owned());
            text("EmbeddedInstance", class)
        }
        Some(("default", value)) => {
            feature.default = Some(value.to_owned());
            return Ok(());
        }
        None => match word {
            "key" => {
                feature.key = true;
                yes("Key")
            }
            "required" => {
                feature.required = true;
                yes("Required")
            }
            "object" => {
                feature.embedded = Some(String::new());
                yes("EmbeddedObject")
            }
            "write" => yes("Write"),
            "weak" => yes("Weak"),
            "aggregate" => yes("Aggregate"),
            "octets" => yes("Octetstring"),
            "static" => yes("Static"),
            other => return Err(format!("unknown word {other:?}")),
        },
        Some(_) => return Err(format!("unknown word {word:?}")),
    };
    feature.qualifiers.push(qualifier);
    Ok(())
}

fn parameter(rest: &str, origin: &str) -> Result<Parameter, String> {
    let (mut input, mut output) = (false, false);
    let mut feature = feature(rest, origin, &mut |word| {
        input |= word == "in";
        output |= word == "out";
        matches!(word, "in" | "out")
    })?;
    // In is true where nothing is said (DSP0004 5.6.3.21).
    if !input {
        let mut no = yes("In");
        no.values = vec!["false".into()];
        feature.qualifiers.push(no);
    }
    if output {
        feature.qualifiers.push(yes("Out"));
    }
    Ok(Parameter { feature, input, output })
}
