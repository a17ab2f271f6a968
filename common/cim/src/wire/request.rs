//! A request message (DSP0201 5.1, DSP0203).

use super::decode::{
    attributes, class_name, invalid, local_namespace, no_text, object, only, value,
};
use super::{Head, Raw};
use crate::Path;
use crate::xml::{Element, Limits, read};

/// A request that is refused at the level of HTTP (DSP0200 7.3.3): nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTP {status}, {cim_error}: {text}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The value of the header `CIMError`; empty for none.
    pub cim_error: &'static str,
    /// For the log.
    pub text: String,
}

impl Refusal {
    /// A refusal with its words for the log.
    pub fn new(status: u16, cim_error: &'static str, text: impl Into<String>) -> Self {
        Self { status, cim_error, text: text.into() }
    }

    /// Well-formed, and not what DSP0203 says.
    pub(super) fn not_valid(text: impl Into<String>) -> Self {
        Self::new(400, "request-not-valid", text)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// IMETHODCALL: an operation of DSP0200 in a namespace.
    Intrinsic {
        /// Its name as written.
        name: String,
        /// The namespace.
        namespace: String,
        /// IPARAMVALUE by name.
        parameters: Vec<(String, Raw)>,
    },
    /// METHODCALL: a method of a class.
    Extrinsic {
        /// Its name as written.
        name: String,
        /// The instance, or the class where there are no keys.
        target: Path,
        /// PARAMVALUE by name.
        parameters: Vec<(String, Raw)>,
    },
}

impl Call {
    /// The name of the operation or method.
    pub fn name(&self) -> &str {
        match self {
            Self::Intrinsic { name, .. } | Self::Extrinsic { name, .. } => name,
        }
    }

    /// The namespace that is spoken of.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Intrinsic { namespace, .. } => namespace,
            Self::Extrinsic { target, .. } => &target.namespace,
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// To be said again in the reply.
    pub id: String,
    /// What is asked for.
    pub call: Call,
}

impl Request {
    /// Reads a request, and looks whether the headers speak of the same.
    ///
    /// # Errors
    /// What HTTP is to say of it; see the table of DSP0200 7.3.3.
    pub fn parse(body: &[u8], head: &Head) -> Result<Self, Refusal> {
        let tree = read(body, &Limits::REQUEST)
            .map_err(|error| Refusal::new(400, "request-not-well-formed", error.0))?;
        let request = message(&tree)?;
        head.matches(&request.call)?;
        Ok(request)
    }
}

fn version(
    element: &Element,
    name: &str,
    wanted: &str,
    cim_error: &'static str,
) -> Result<(), Refusal> {
    let version = element.attribute(name).unwrap_or_default();
    let mut parts = version.split('.');
    let major = parts.next().unwrap_or_default();
    let numbers = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !numbers(major) || !parts.all(numbers) {
        return Err(invalid(format!("{name} {version:?}")));
    }
    match major == wanted {
        true => Ok(()),
        false => Err(Refusal::new(501, cim_error, format!("{name} {version}"))),
    }
}

fn message(root: &Element) -> Result<Request, Refusal> {
    if root.name != "CIM" {
        return Err(invalid(format!("{} instead of CIM", root.name)));
    }
    attributes(root, &["CIMVERSION", "DTDVERSION"], 2)?;
    version(root, "CIMVERSION", "2", "unsupported-cim-version")?;
    version(root, "DTDVERSION", "2", "unsupported-dtd-version")?;
    no_text(root)?;
    let message = only(root)?;
    if message.name != "MESSAGE" {
        return Err(invalid(format!("{} instead of MESSAGE", message.name)));
    }
    attributes(message, &["ID", "PROTOCOLVERSION"], 2)?;
    version(message, "PROTOCOLVERSION", "1", "unsupported-protocol-version")?;
    no_text(message)?;
    let request = only(message)?;
    match request.name.as_str() {
        "SIMPLEREQ" => {}
        "MULTIREQ" => {
            return Err(Refusal::new(501, "multiple-requests-unsupported", "MULTIREQ"));
        }
        other => return Err(invalid(format!("{other} instead of SIMPLEREQ"))),
    }
    no_text(request)?;
    let id = message.attribute("ID").unwrap_or_default().to_owned();
    // CORRELATOR (DTD 2.4) may stand before the call.
    let mut calls = request.children.iter().filter(|child| child.name != "CORRELATOR");
    match (calls.next(), calls.next()) {
        (Some(call), None) => Ok(Request { id, call: self::call(call)? }),
        _ => Err(invalid("SIMPLEREQ without one call")),
    }
}

fn call(element: &Element) -> Result<Call, Refusal> {
    attributes(element, &["NAME"], 1)?;
    no_text(element)?;
    let name = element.attribute("NAME").unwrap_or_default().to_owned();
    let (first, rest) = element
        .children
        .split_first()
        .ok_or_else(|| invalid(format!("{} of nothing", element.name)))?;
    match element.name.as_str() {
        "IMETHODCALL" => {
            if first.name != "LOCALNAMESPACEPATH" {
                return Err(invalid("IMETHODCALL without LOCALNAMESPACEPATH"));
            }
            let namespace = local_namespace(first)?;
            let parameters = parameters(rest, "IPARAMVALUE")?;
            Ok(Call::Intrinsic { name, namespace, parameters })
        }
        "METHODCALL" => {
            let target = match (first.name.as_str(), object(first)?) {
                ("LOCALINSTANCEPATH" | "LOCALCLASSPATH", Raw::Path(path) | Raw::Class(path)) => {
                    path
                }
                (other, _) => return Err(invalid(format!("METHODCALL of {other}"))),
            };
            let parameters = parameters(rest, "PARAMVALUE")?;
            Ok(Call::Extrinsic { name, target, parameters })
        }
        other => Err(invalid(format!("{other} in SIMPLEREQ"))),
    }
}

fn parameters(elements: &[Element], wanted: &str) -> Result<Vec<(String, Raw)>, Refusal> {
    const ATTRIBUTES: [&str; 6] =
        ["NAME", "PARAMTYPE", "TYPE", "EmbeddedObject", "EMBEDDEDOBJECT", "xml:lang"];
    let mut found: Vec<(String, Raw)> = Vec::new();
    for element in elements {
        if element.name != wanted {
            return Err(invalid(format!("{} instead of {wanted}", element.name)));
        }
        attributes(element, &ATTRIBUTES, 1)?;
        no_text(element)?;
        let name = element.attribute("NAME").unwrap_or_default();
        if found.iter().any(|(known, _)| crate::same_name(known, name)) {
            return Err(invalid(format!("two parameters {name}")));
        }
        // A class name is a parameter's own kind of value.
        let value = match element.children.as_slice() {
            [class] if class.name == "CLASSNAME" => Raw::Class(Path::new("", class_name(class)?)),
            children => value(children)?,
        };
        found.push((name.to_owned(), value));
    }
    Ok(found)
}
