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
    fn begin(id: &str) -> Self {
        let mut w = Writer::new();
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

    /// The answer to an operation. `inside` writes what is in IMETHODRESPONSE.
    pub fn intrinsic(id: &str, name: &str, inside: impl FnOnce(&mut Writer)) -> String {
        let mut reply = Self::begin(id);
        reply.w.within("IMETHODRESPONSE", &[("NAME", name)], inside);
        reply.end()
    }

    /// The answer to a method.
    pub fn extrinsic(
        id: &str,
        name: &str,
        encoder: &Encoder<'_>,
        returned: ReturnValue<'_>,
        outputs: &[(&Feature, &Value)],
    ) -> String {
        let mut reply = Self::begin(id);
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

    /// An error in place of either.
    pub fn error(id: &str, name: &str, intrinsic: bool, error: &CimError) -> String {
        let mut reply = Self::begin(id);
        let element = if intrinsic { "IMETHODRESPONSE" } else { "METHODRESPONSE" };
        let code = (error.status as u8).to_string();
        reply.w.within(element, &[("NAME", name)], |w| {
            w.leaf("ERROR", &[("CODE", &code), ("DESCRIPTION", &error.text)], "");
        });
        reply.end()
    }
}
