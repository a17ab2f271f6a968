//! The CIM headers of a request (DSP0200 7.2, and RFC 2774 for M-POST).

use super::{Call, Refusal};
use crate::{Path, namespace};

/// Headers of a request by lower-case name.
pub type Named<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

/// The head of a request as far as CIM is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    method: String,
    object: String,
    /// Of M-POST: the number before the header names.
    pub prefix: Option<String>,
}

/// What RFC 2774 wants M-POST to name.
const EXTENSION: &str = "http://www.dmtf.org/cim/mapping/http/v1.0";

impl Head {
    /// Reads the head of a POST or (`extended`) an M-POST.
    ///
    /// # Errors
    /// The request is refused before its body is read: 400, or 501 for an M-POST of something else.
    pub fn read(extended: bool, header: &Named<'_>) -> Result<Self, Refusal> {
        let prefix = if extended { Some(extension(header)?) } else { None };
        let named = |name: &str| {
            let full = match &prefix {
                Some(prefix) => format!("{prefix}-{name}"),
                None => name.to_owned(),
            };
            header(&full).map(|value| decoded(&value))
        };
        let operation = named("cimoperation").unwrap_or_default();
        if !operation.trim().eq_ignore_ascii_case("MethodCall") {
            let text = format!("CIMOperation {operation:?}");
            return Err(Refusal::new(400, "unsupported-operation", text));
        }
        let missing = |name: &str| Refusal::new(400, "header-mismatch", format!("no {name}"));
        let method = named("cimmethod").ok_or_else(|| missing("CIMMethod"))?;
        let object = named("cimobject").ok_or_else(|| missing("CIMObject"))?;
        Ok(Self { method: method.trim().into(), object: object.trim().into(), prefix })
    }

    /// Whether the body asks for what the headers say: the method, and the namespace and class of
    /// the object. Keys are not compared, since there are as many ways to write them as clients.
    pub(super) fn matches(&self, call: &Call) -> Result<(), Refusal> {
        let mismatch = |what: &str| {
            let text = format!("{what}: {:?} {:?}", self.method, self.object);
            Err(Refusal::new(400, "header-mismatch", text))
        };
        if !self.method.eq_ignore_ascii_case(call.name()) {
            return mismatch("CIMMethod");
        }
        match call {
            Call::Intrinsic { namespace: space, .. } => match namespace(&self.object) == *space {
                true => Ok(()),
                false => mismatch("CIMObject"),
            },
            Call::Extrinsic { target, .. } => match same_object(&self.object, target) {
                true => Ok(()),
                false => mismatch("CIMObject"),
            },
        }
    }
}

/// `namespace:Class.keys`, perhaps with `//host/` before it.
fn same_object(object: &str, target: &Path) -> bool {
    let object = match object.strip_prefix("//") {
        Some(rest) => rest.split_once('/').map_or("", |(_, rest)| rest),
        None => object,
    };
    let end = object.find('.').unwrap_or(object.len());
    let Some((space, class)) = object[..end].rsplit_once(':') else { return false };
    namespace(space) == target.namespace && crate::same_name(class, &target.class)
}

/// `Man: "http://...";ns=73`: the number.
fn extension(header: &Named<'_>) -> Result<String, Refusal> {
    let man = header("man").map(|value| decoded(&value)).unwrap_or_default();
    let (name, rest) = man.split_once(';').unwrap_or((&man, ""));
    let number = rest.trim().strip_prefix("ns=").unwrap_or_default().trim();
    let fits = number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit());
    match name.trim().trim_matches('"').eq_ignore_ascii_case(EXTENSION) && fits {
        true => Ok(number.to_owned()),
        // So a client that tries M-POST first goes on with POST.
        false => Err(Refusal::new(501, "", "M-POST of another extension")),
    }
}

/// Percent-decoded, then UTF-8 or else Latin-1: pywbem sends the bytes as they are.
fn decoded(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        let hex = |i: usize| behind.get(i).and_then(|c| char::from(*c).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}
