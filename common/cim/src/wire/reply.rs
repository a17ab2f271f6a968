//! A reply message (DSP0201 5.1).

use super::Encoder;
use crate::xml::Writer;
use crate::{CimError, Feature, Value};

/// A reply under way.
#[derive(Debug)]
pub struct Reply {
    w: Writer,
}

/// What a method returned: its type's word, and its value.
pub type ReturnValue<'a> = (&'a Feature, &'a Value);

impl Reply {
    fn begin(mut w: Writer, id: &str) -> Self {
        w.raw("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
        w.open("CIM", &[("CIMVERSION", "2.0"), ("DTDVERSION", "2.0")]);
        w.open("MESSAGE", &[("ID", id), ("PROTOCOLVERSION", "1.0")]);
        w.open("SIMPLERSP", &[]);
        Self { w }
    }

    fn end(mut self) -> String {
        self.w.close("SIMPLERSP");
        self.w.close("MESSAGE");
        self.w.close("CIM");
        self.w.raw("\n");
        self.w.finish()
    }

    /// The answer to an operation, or its last part where `w` handed on some. `inside` writes what
    /// is in IMETHODRESPONSE; if it fails its error takes the place of what it wrote. `None` where
    /// that can not be taken back any more: the reply is to be cut off.
    pub fn intrinsic(
        w: Writer,
        id: &str,
        name: &str,
        inside: impl FnOnce(&mut Writer) -> Result<(), CimError>,
    ) -> Option<String> {
        let mut reply = Self::begin(w, id);
        reply.w.open("IMETHODRESPONSE", &[("NAME", name)]);
        let begun = reply.w.len();
        if let Err(error) = inside(&mut reply.w) {
            if reply.w.is_drained() {
                return None;
            }
            reply.w.truncate(begun);
            reply.fault(&error);
        }
        reply.w.close("IMETHODRESPONSE");
        Some(reply.end())
    }

    /// The answer to a method.
    pub fn extrinsic(
        id: &str,
        name: &str,
        encoder: &Encoder<'_>,
        returned: ReturnValue<'_>,
        outputs: &[(&Feature, &Value)],
    ) -> String {
        let mut reply = Self::begin(Writer::new(), id);
        reply.w.within("METHODRESPONSE", &[("NAME", name)], |w| {
            let (feature, value) = returned;
            w.within("RETURNVALUE", &[("PARAMTYPE", feature.kind.as_str())], |w| {
                encoder.value(w, value);
            });
            for (feature, value) in outputs {
                let mut attributes =
                    vec![("NAME", feature.name.as_ref()), ("PARAMTYPE", feature.kind.as_str())];
                if feature.embedded.is_some() {
                    attributes.push(("EmbeddedObject", "instance"));
                }
                w.within("PARAMVALUE", &attributes, |w| encoder.value(w, value));
            }
        });
        reply.end()
    }

    /// An error in place of what a method returns.
    pub fn error(id: &str, name: &str, error: &CimError) -> String {
        let mut reply = Self::begin(Writer::new(), id);
        reply.w.open("METHODRESPONSE", &[("NAME", name)]);
        reply.fault(error);
        reply.w.close("METHODRESPONSE");
        reply.end()
    }

    fn fault(&mut self, error: &CimError) {
        let code = (error.status as u8).to_string();
        self.w.leaf("ERROR", &[("CODE", &code), ("DESCRIPTION", &error.text)], "");
    }
}
