//! Indications on their way to a listener (DSP0200 5.3.6, DSP0203 EXPMETHODCALL).

use super::{Encoder, Shape};
use crate::Instance;
use crate::xml::{Limits, Writer, read};

/// The message that delivers an indication.
pub fn export(encoder: &Encoder<'_>, id: &str, indication: &Instance) -> String {
    let mut w = Writer::new();
    w.raw("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    w.within("CIM", &[("CIMVERSION", "2.0"), ("DTDVERSION", "2.0")], |w| {
        w.within("MESSAGE", &[("ID", id), ("PROTOCOLVERSION", "1.0")], |w| {
            w.within("SIMPLEEXPREQ", &[], |w| {
                w.within("EXPMETHODCALL", &[("NAME", "ExportIndication")], |w| {
                    w.within("EXPPARAMVALUE", &[("NAME", "NewIndication")], |w| {
                        encoder.instance(w, indication, &Shape::default());
                    });
                });
            });
        });
    });
    w.raw("\n");
    w.finish()
}

/// What a listener said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportReply {
    /// It has it.
    Taken,
    /// It does not want it, or can not have it now; in its words.
    Refused(String),
}

/// Reads a listener's reply.
///
/// # Errors
/// It is no reply to an export; in words.
pub fn export_reply(body: &[u8]) -> Result<ExportReply, String> {
    let mut element = read(body, &Limits::REQUEST).map_err(|error| error.0)?;
    for name in ["CIM", "MESSAGE", "SIMPLEEXPRSP", "EXPMETHODRESPONSE"] {
        if element.name != name {
            return Err(format!("{} instead of {name}", element.name));
        }
        match (name, element.children.into_iter().next()) {
            (_, Some(child)) => element = child,
            ("EXPMETHODRESPONSE", None) => return Ok(ExportReply::Taken),
            (name, None) => return Err(format!("nothing in {name}")),
        }
    }
    match element.name.as_str() {
        "ERROR" => {
            let code = element.attribute("CODE").unwrap_or_default();
            let text = element.attribute("DESCRIPTION").unwrap_or_default();
            let text: String = format!("error {code}: {text}").chars().take(256).collect();
            Ok(ExportReply::Refused(text))
        }
        _ => Ok(ExportReply::Taken),
    }
}
