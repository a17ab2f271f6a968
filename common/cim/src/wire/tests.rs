use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Instance, Path, Schema, Value};

fn head(method: &str, object: &str) -> Head {
    let headers: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("cimoperation", b"MethodCall".to_vec()),
        ("cimmethod", method.as_bytes().to_vec()),
        ("cimobject", object.as_bytes().to_vec()),
    ]);
    Head::read(false, &|name| headers.get(name).cloned()).unwrap()
}

fn message(inside: &str) -> String {
    format!(
        "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"7\" PROTOCOLVERSION=\"1.0\">\
         {inside}</MESSAGE></CIM>"
    )
}

const SPACE: &str = "<LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"Twinreel\"/>\
                     </LOCALNAMESPACEPATH>";

fn simple(name: &str, parameters: &str) -> String {
    message(&format!(
        "<SIMPLEREQ><IMETHODCALL NAME=\"{name}\">{SPACE}{parameters}</IMETHODCALL></SIMPLEREQ>"
    ))
}

fn refused(body: &str) -> Refusal {
    Request::parse(body.as_bytes(), &head("GetClass", "root/twinreel")).unwrap_err()
}

#[test]
fn an_operation_is_read_with_its_parameters() {
    let body = simple(
        "GetClass",
        "\n <IPARAMVALUE NAME=\"ClassName\"><CLASSNAME NAME=\"CIM_Job\"/></IPARAMVALUE>\n\
         <IPARAMVALUE NAME=\"LocalOnly\"><VALUE>FALSE</VALUE></IPARAMVALUE>\
         <IPARAMVALUE NAME=\"PropertyList\"><VALUE.ARRAY/></IPARAMVALUE>",
    );
    let request = Request::parse(body.as_bytes(), &head("getclass", "root%2ftwinreel")).unwrap();
    assert_eq!(request.id, "7");
    let Call::Intrinsic { name, namespace, parameters } = request.call else { panic!() };
    assert_eq!((name.as_str(), namespace.as_str()), ("GetClass", "root/twinreel"));
    assert_eq!(parameters[0].1, Raw::Class(Path::new("", "CIM_Job")));
    assert_eq!(parameters[1].1, Raw::Text("FALSE".into()));
    assert_eq!(parameters[2].1, Raw::Texts(vec![]));
}

#[test]
fn a_method_is_read_with_references_in_every_form() {
    let name = "<INSTANCENAME CLASSNAME=\"A\"><KEYBINDING NAME=\"k\"><KEYVALUE \
                 VALUETYPE=\"numeric\" TYPE=\"uint16\"> 0x10 </KEYVALUE></KEYBINDING>\
                 </INSTANCENAME>";
    let local = format!("<LOCALINSTANCEPATH>{SPACE}{name}</LOCALINSTANCEPATH>");
    let far = format!(
        "<INSTANCEPATH><NAMESPACEPATH><HOST>h</HOST>{SPACE}</NAMESPACEPATH>{name}</INSTANCEPATH>"
    );
    let reference = |name: &str, path: &str| {
        format!(
            "<PARAMVALUE NAME=\"{name}\" PARAMTYPE=\"reference\"><VALUE.REFERENCE>{path}\
                 </VALUE.REFERENCE></PARAMVALUE>"
        )
    };
    let body = message(&format!(
        "<SIMPLEREQ><METHODCALL NAME=\"M\">{local}{}{}{}</METHODCALL></SIMPLEREQ>",
        reference("a", &local),
        reference("b", &far),
        reference("c", name)
    ));
    let request = Request::parse(body.as_bytes(), &head("M", "//h/root/twinreel:A.k=16")).unwrap();
    let Call::Extrinsic { target, parameters, .. } = request.call else { panic!() };
    assert_eq!(target.text("K"), "16");
    for (_, raw) in &parameters {
        let Raw::Path(path) = raw else { panic!("{raw:?}") };
        assert!(path.same(&target));
    }
}

#[test]
fn each_fault_has_its_status_and_its_word() {
    let good = "<IPARAMVALUE NAME=\"ClassName\"><CLASSNAME NAME=\"A\"/></IPARAMVALUE>";
    let simple_good = simple("GetClass", good);
    let rows = [
        ("<CIM", 400, "request-not-well-formed"),
        ("<!DOCTYPE CIM><CIM/>", 400, "request-not-well-formed"),
        ("<CIM/>", 400, "request-not-valid"),
        ("<A/>", 400, "request-not-valid"),
    ];
    for (body, status, word) in rows {
        let refusal = refused(body);
        assert_eq!((refusal.status, refusal.cim_error), (status, word), "{body}");
    }
    let changed = |from: &str, to: &str| refused(&simple_good.replace(from, to));
    let rows = [
        ("CIMVERSION=\"2.0\"", "CIMVERSION=\"3.0\"", 501, "unsupported-cim-version"),
        ("DTDVERSION=\"2.0\"", "DTDVERSION=\"1.0\"", 501, "unsupported-dtd-version"),
        ("PROTOCOLVERSION=\"1.0\"", "PROTOCOLVERSION=\"2.0\"", 501, "unsupported-protocol-version"),
        ("CIMVERSION=\"2.0\"", "CIMVERSION=\"two\"", 400, "request-not-valid"),
        ("CIMVERSION=\"2.0\"", "", 400, "request-not-valid"),
        ("ID=\"7\"", "", 400, "request-not-valid"),
        ("ID=\"7\"", "ID=\"7\" X=\"1\"", 400, "request-not-valid"),
        ("SIMPLEREQ", "MULTIREQ", 501, "multiple-requests-unsupported"),
        ("SIMPLEREQ", "SIMPLERSP", 400, "request-not-valid"),
        ("IMETHODCALL", "METHODCALL", 400, "request-not-valid"),
        ("IPARAMVALUE", "PARAMVALUE", 400, "request-not-valid"),
        ("<CLASSNAME", "text<CLASSNAME", 400, "request-not-valid"),
        ("NAME=\"GetClass\"", "NAME=\"DeleteClass\"", 400, "header-mismatch"),
        ("NAME=\"Twinreel\"", "NAME=\"other\"", 400, "header-mismatch"),
    ];
    for (from, to, status, word) in rows {
        let refusal = changed(from, to);
        assert_eq!((refusal.status, refusal.cim_error), (status, word), "{from} {to}");
    }
    let twice = simple("GetClass", &format!("{good}{good}"));
    assert_eq!(refused(&twice).cim_error, "request-not-valid");
}

#[test]
fn headers_are_looked_at_before_the_body() {
    let read = |extended, pairs: &[(&str, &str)]| {
        let all: BTreeMap<String, Vec<u8>> =
            pairs.iter().map(|(n, v)| (n.to_string(), v.as_bytes().to_vec())).collect();
        Head::read(extended, &|name| all.get(name).cloned())
    };
    let plain = [("cimoperation", "MethodCall"), ("cimmethod", "M"), ("cimobject", "o")];
    assert_eq!(read(false, &plain).unwrap().prefix, None);
    assert_eq!(read(false, &[]).unwrap_err().cim_error, "unsupported-operation");
    assert_eq!(read(false, &plain[..2]).unwrap_err().cim_error, "header-mismatch");
    assert_eq!(read(false, &plain[..1]).unwrap_err().cim_error, "header-mismatch");
    // RFC 2774: a client that is told 501 goes on with POST.
    let refusal = read(true, &plain).unwrap_err();
    assert_eq!((refusal.status, refusal.cim_error), (501, ""));
    let man = "http://www.dmtf.org/cim/mapping/http/v1.0;ns=11";
    let extended = [
        ("man", man),
        ("11-cimoperation", "MethodCall"),
        ("11-cimmethod", "M"),
        ("11-cimobject", "o"),
    ];
    assert_eq!(read(true, &extended).unwrap().prefix.as_deref(), Some("11"));
    assert!(read(true, &[("man", "http://other;ns=11")]).is_err());
}

#[test]
fn latin_1_and_percent_are_understood_in_headers() {
    for object in [b"root/twinreel:A.k=\"\xe9\"".to_vec(), b"root%2Ftwinreel%3AA.k=1".to_vec()] {
        let headers: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
            ("cimoperation", b"MethodCall".to_vec()),
            ("cimmethod", b"M".to_vec()),
            ("cimobject", object),
        ]);
        let head = Head::read(false, &|name| headers.get(name).cloned()).unwrap();
        let target = Path::new("root/twinreel", "a");
        let call = Call::Extrinsic { name: "M".into(), target, parameters: vec![] };
        head.matches(&call).unwrap();
    }
}

#[test]
fn an_instance_comes_back_as_it_was() {
    let schema = Schema::served().unwrap();
    let encoder = Encoder { schema: &schema, host: "h" };
    let tape = Path::new("root/twinreel", "CIM_PhysicalTape").with("Tag", "a \"b\" <&>");
    let instance = Instance::embedded("CIM_InstModification")
        .with("IndicationTime", "20261121070509.250000+000")
        .with("PerceivedSeverity", 2u16)
        .with("SequenceNumber", -3i64)
        .with("CorrelatedIndications", vec!["é", "", " x "])
        .with("SourceInstance", Instance::at(tape.clone()).with("WriteProtectOn", true))
        .with("OtherSeverity", Value::Null);
    let mut writer = crate::xml::Writer::new();
    encoder.instance(&mut writer, &instance, &Shape::default());
    let text = writer.finish();
    assert!(!text.contains("/>") && !text.contains("<!--"), "{text}");
    let mut back = read_instance(&text).unwrap();
    let Value::One(crate::Scalar::Instance(inner)) = back.get("SourceInstance").clone() else {
        panic!("{back:?}")
    };
    assert_eq!(inner.get("tag").text(), Some("a \"b\" <&>"));
    back.set("SourceInstance", instance.get("SourceInstance").clone());
    for (name, value) in &instance.properties {
        assert_eq!(back.get(name), value, "{name}");
    }
}

#[test]
fn instances_embedded_too_deep_are_refused() {
    let mut text = "<INSTANCE CLASSNAME=\"A\"></INSTANCE>".to_owned();
    for _ in 0..8 {
        let mut writer = crate::xml::Writer::new();
        writer.text(&text);
        text = format!(
            "<INSTANCE CLASSNAME=\"A\"><PROPERTY NAME=\"p\" TYPE=\"string\" \
             EmbeddedObject=\"instance\"><VALUE>{}</VALUE></PROPERTY></INSTANCE>",
            writer.finish()
        );
    }
    assert!(read_instance(&text).unwrap_err().contains("deeper"));
}

#[test]
fn values_have_the_range_of_their_type() {
    use crate::Type;
    let rows = [
        ("uint8", "255", true),
        ("uint8", "256", false),
        ("uint8", "-1", false),
        ("sint8", "-128", true),
        ("sint8", "128", false),
        ("uint64", "18446744073709551615", true),
        ("uint64", "18446744073709551616", false),
        ("uint16", "0xff", true),
        ("uint16", "101b", true),
        ("uint16", "+7", true),
        ("uint16", "--7", false),
        ("uint16", "", false),
        ("boolean", "True", true),
        ("boolean", "1", false),
        ("real32", "1.5e3", true),
        ("real32", "x", false),
        ("datetime", "20261121070509.250000+000", true),
        ("datetime", "00000001010001.500000:000", true),
        ("datetime", "2026", false),
        ("string", "", true),
    ];
    for (kind, text, good) in rows {
        let kind = Type::parse(kind).unwrap();
        let value = typed(&Raw::Text(text.into()), kind, false, false);
        assert_eq!(value.is_ok(), good, "{kind:?} {text:?}");
        assert_eq!(Type::parse(kind.as_str()), Some(kind));
    }
}

#[test]
fn a_listener_answers_in_three_ways() {
    let reply = |inside: &str| {
        let inside = format!(
            "<SIMPLEEXPRSP><EXPMETHODRESPONSE NAME=\"ExportIndication\">{inside}\
                              </EXPMETHODRESPONSE></SIMPLEEXPRSP>"
        );
        export_reply(message(&inside).as_bytes())
    };
    assert_eq!(reply(""), Ok(ExportReply::Taken));
    assert_eq!(reply("<IRETURNVALUE></IRETURNVALUE>"), Ok(ExportReply::Taken));
    let refused = reply("<ERROR CODE=\"1\" DESCRIPTION=\"full\"></ERROR>").unwrap();
    assert_eq!(refused, ExportReply::Refused("error 1: full".into()));
    assert!(export_reply(b"<html></html>").is_err() && export_reply(b"").is_err());
}

proptest! {
    #[test]
    fn a_broken_request_is_read_or_refused(cut in 0usize..400, byte in any::<u8>()) {
        let body = simple(
            "GetClass",
            "<IPARAMVALUE NAME=\"ClassName\"><CLASSNAME NAME=\"CIM_Job\"/></IPARAMVALUE>",
        );
        let mut bytes = body.into_bytes();
        let at = cut % bytes.len();
        bytes[at] = byte;
        let _ = Request::parse(&bytes, &head("GetClass", "root/twinreel"));
        bytes.truncate(at);
        prop_assert!(Request::parse(&bytes, &head("GetClass", "root/twinreel")).is_err());
    }
}
