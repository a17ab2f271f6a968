//! Requests that are malformed or malicious: each gets its error, and the next good one its answer.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use tests::{Pair, Rng, Scratch, full, seed};

use crate::wire::{BASIC, SPACE, ask, class, configure, headers, message, operation, post, send};

/// What may come of a request.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// This HTTP status.
    Http(u16),
    /// This error of CIM.
    Cim(u16),
    /// Any refusal, or nothing at all; but no 5xx of ours.
    Refused,
    /// Anything but an internal error: chance may have left it right.
    Any,
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    wanted: Wanted,
}

fn case(name: impl Into<String>, bytes: Vec<u8>, wanted: Wanted) -> Case {
    Case { name: name.into(), bytes, wanted }
}

/// A body that is sent as GetClass.
fn body(name: &str, text: &str, wanted: Wanted) -> Case {
    case(name, post(&headers("GetClass"), text), wanted)
}

fn heads() -> Vec<Case> {
    let good = operation("GetClass", &class("CIM_Job"));
    let plain = headers("GetClass");
    let with = |name: &'static str, value: &'static str| {
        let mut changed: Vec<_> = plain.iter().filter(|(n, _)| *n != name).copied().collect();
        changed.push((name, value));
        post(&changed, &good)
    };
    let without = |name: &str| {
        let kept: Vec<_> = plain.iter().filter(|(n, _)| *n != name).copied().collect();
        post(&kept, &good)
    };
    let raw = |head: &str, body: &str| format!("{head}\r\n\r\n{body}").into_bytes();
    vec![
        case("no credentials", without("Authorization"), Wanted::Http(401)),
        case("a wrong password", with("Authorization", "Basic c21pczp4"), Wanted::Http(401)),
        case("no Basic", with("Authorization", "Bearer x"), Wanted::Http(401)),
        case("no base64", with("Authorization", "Basic ****"), Wanted::Http(401)),
        case("no CIMOperation", without("CIMOperation"), Wanted::Http(400)),
        case("another CIMOperation", with("CIMOperation", "MethodResponse"), Wanted::Http(400)),
        case("no CIMMethod", without("CIMMethod"), Wanted::Http(400)),
        case("another CIMMethod", with("CIMMethod", "GetInstance"), Wanted::Http(400)),
        case("no CIMObject", without("CIMObject"), Wanted::Http(400)),
        case("another CIMObject", with("CIMObject", "interop"), Wanted::Http(400)),
        case("a percent without digits", with("CIMObject", "root%2"), Wanted::Http(400)),
        case("a picture", with("Content-Type", "image/png"), Wanted::Http(415)),
        case("UTF-16", with("Content-Type", "text/xml; charset=utf-16"), Wanted::Http(415)),
        case("GET", raw("GET /cimom HTTP/1.1\r\nHost: h", ""), Wanted::Http(405)),
        case("an unknown method", raw("BREW /cimom HTTP/1.1\r\nHost: h", ""), Wanted::Http(405)),
        case(
            "another path",
            raw("POST /other HTTP/1.1\r\nHost: h\r\nContent-Length: 0", ""),
            Wanted::Http(404),
        ),
    ]
}

/// What is wrong with lengths and lines.
fn lengths() -> Vec<Case> {
    let raw = |head: &str, body: &str| format!("{head}\r\n\r\n{body}").into_bytes();
    let line = "POST /cimom HTTP/1.1\r\nHost: h";
    let auth = format!(
        "{line}\r\nAuthorization: {BASIC}\r\nCIMOperation: MethodCall\r\n\
                        CIMMethod: GetClass\r\nCIMObject: root/twinreel"
    );
    let mut all = vec![
        case("no length", raw(&auth, ""), Wanted::Http(411)),
        case(
            "a length of 10^15",
            raw(&format!("{auth}\r\nContent-Length: 1000000000000000"), "x"),
            Wanted::Http(413),
        ),
        case(
            "a length that is no number",
            raw(&format!("{auth}\r\nContent-Length: x"), ""),
            Wanted::Refused,
        ),
        case(
            "a negative length",
            raw(&format!("{auth}\r\nContent-Length: -1"), ""),
            Wanted::Refused,
        ),
        case(
            "two lengths",
            raw(&format!("{auth}\r\nContent-Length: 1\r\nContent-Length: 2"), "x"),
            Wanted::Refused,
        ),
        case(
            "length and chunks",
            raw(
                &format!(
                    "{auth}\r\nContent-Length: 5\r\n\
             Transfer-Encoding: chunked"
                ),
                "0\r\n\r\n",
            ),
            Wanted::Refused,
        ),
        case(
            "a chunk without a size",
            raw(&format!("{auth}\r\nTransfer-Encoding: chunked"), "zz\r\n\r\n"),
            Wanted::Refused,
        ),
        case(
            "a huge chunk",
            raw(&format!("{auth}\r\nTransfer-Encoding: chunked"), "fffffffffffffffff\r\nx"),
            Wanted::Refused,
        ),
        case("an M-POST of nothing", raw(&auth.replace("POST", "M-POST"), ""), Wanted::Http(501)),
        case("no HTTP", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec(), Wanted::Refused),
        case("a name with a space", raw(&format!("{auth}\r\nA b: c"), ""), Wanted::Refused),
        case("a line that is folded", raw(&format!("{auth}\r\n c: d"), ""), Wanted::Refused),
        case("nothing", Vec::new(), Wanted::Refused),
        case("half a head", line.as_bytes().to_vec(), Wanted::Refused),
    ];
    let many: String = (0..200).map(|i| format!("\r\nX-{i}: y")).collect();
    all.push(case("200 headers", raw(&format!("{auth}{many}"), ""), Wanted::Refused));
    let long = "x".repeat(100_000);
    all.push(case("a long header", raw(&format!("{auth}\r\nX: {long}"), ""), Wanted::Refused));
    all.push(case("a long path", raw(&format!("POST /{long} HTTP/1.1"), ""), Wanted::Refused));
    all
}

fn documents() -> Vec<Case> {
    let bad = Wanted::Http(400);
    let good = operation("GetClass", &class("CIM_Job"));
    let bomb = "<!DOCTYPE CIM [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">\
                <!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\">]>";
    vec![
        body("nothing", "", bad),
        body("no XML", "hello", bad),
        body("an entity bomb", &good.replace("<CIM ", &format!("{bomb}<CIM ")), bad),
        body(
            "an outside entity",
            &good.replace(
                "<CIM ",
                "<!DOCTYPE CIM [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><CIM ",
            ),
            bad,
        ),
        body(
            "an outside document type",
            &good.replace("<CIM ", "<!DOCTYPE CIM SYSTEM \"http://127.0.0.1:1/x.dtd\"><CIM "),
            bad,
        ),
        body("an unknown entity", &good.replace("CIM_Job", "&x;"), bad),
        body("a NUL", &good.replace("CIM_Job", "\u{0}"), bad),
        body("a NUL by number", &good.replace("CIM_Job", "&#0;"), bad),
        body("an instruction", &good.replace("<CIM ", "<?php x?><CIM "), bad),
        body("deep", &"<a>".repeat(5000), bad),
        body("deep and whole", &format!("{}{}", "<a>".repeat(200), "</a>".repeat(200)), bad),
        body("30000 elements", &format!("<CIM>{}</CIM>", "<a/>".repeat(30_000)), bad),
        body(
            "many attributes",
            &format!("<CIM {}/>", (0..100).map(|i| format!("a{i}='' ")).collect::<String>()),
            bad,
        ),
        body("the same attribute twice", &good.replace("ID=\"1\"", "ID=\"1\" ID=\"2\""), bad),
        body("a long name", &format!("<{}/>", "a".repeat(5000)), bad),
        body("two documents", &format!("{good}{}", good.split_once("?>").unwrap().1), bad),
        body("a comment that does not end", &good.replace("<CIM ", "<!-- <CIM "), bad),
        body("CDATA that does not end", &good.replace("<SIMPLEREQ>", "<![CDATA[<SIMPLEREQ>"), bad),
        body(
            "an array of 60000",
            &operation(
                "GetClass",
                &format!(
                    "{}<IPARAMVALUE \
             NAME=\"PropertyList\"><VALUE.ARRAY>{}</VALUE.ARRAY></IPARAMVALUE>",
                    class("CIM_Job"),
                    "<VALUE>a</VALUE>".repeat(60_000)
                ),
            ),
            bad,
        ),
        body("two megabytes", &"x".repeat(2 << 20), Wanted::Http(413)),
    ]
}

/// Well-formed, and wrong.
fn messages() -> Vec<Case> {
    let bad = Wanted::Http(400);
    let good = operation("GetClass", &class("CIM_Job"));
    let mut all = vec![
        body("many requests", &good.replace("SIMPLEREQ", "MULTIREQ"), Wanted::Http(501)),
        body("CIM 3", &good.replace("CIMVERSION=\"2.0\"", "CIMVERSION=\"3.0\""), Wanted::Http(501)),
        body("no call", &message(""), bad),
        body(
            "two calls",
            &message(&format!("<IMETHODCALL NAME=\"GetClass\">{SPACE}</IMETHODCALL>").repeat(2)),
            bad,
        ),
        body("a response", &message("<IMETHODRESPONSE NAME=\"GetClass\"/>"), bad),
        body("an export", &message("<EXPMETHODCALL NAME=\"ExportIndication\"/>"), bad),
    ];
    let mut latin = post(&headers("GetClass"), &good);
    let at = latin.windows(7).position(|w| w == b"CIM_Job").unwrap();
    latin[at] = 0xff;
    all.push(case("no UTF-8", latin, bad));
    // Cut anywhere, a document is none.
    all.extend((1..good.len()).step_by(7).map(|end| body("cut", &good[..end], bad)));
    all
}

fn operations() -> Vec<Case> {
    let name = "<IPARAMVALUE NAME=\"InstanceName\"><INSTANCENAME CLASSNAME=\"CIM_TapeDrive\">\
                <KEYBINDING NAME=\"DeviceID\"><KEYVALUE>x</KEYVALUE></KEYBINDING></INSTANCENAME>\
                </IPARAMVALUE>";
    let nested = (0..12).fold("<KEYVALUE>x</KEYVALUE>".to_owned(), |inner, _| {
        format!(
            "<VALUE.REFERENCE><INSTANCENAME CLASSNAME=\"CIM_SystemDevice\"><KEYBINDING \
                 NAME=\"k\">{inner}</KEYBINDING></INSTANCENAME></VALUE.REFERENCE>"
        )
    });
    let nested = format!("<IPARAMVALUE NAME=\"InstanceName\">{nested}</IPARAMVALUE>");
    let rows: Vec<(&str, String, Wanted)> = vec![
        ("GetClass", class("Nothing"), Wanted::Cim(6)),
        ("GetClass", String::new(), Wanted::Cim(4)),
        ("GetClass", class(&"x".repeat(100_000)), Wanted::Cim(6)),
        ("GetClass", class("../../etc/passwd"), Wanted::Cim(6)),
        ("GetClass", class("CIM_Job' OR '1'='1"), Wanted::Cim(6)),
        ("GetClass", format!("{}{}", class("CIM_Job"), text("Odd", "1")), Wanted::Cim(4)),
        ("GetClass", format!("{}{}", class("CIM_Job"), text("LocalOnly", "2")), Wanted::Cim(4)),
        ("EnumerateInstances", class("Nothing"), Wanted::Cim(5)),
        ("EnumerateInstances", text("ClassName", "CIM_Job"), Wanted::Cim(4)),
        ("GetInstance", name.to_owned(), Wanted::Cim(4)),
        ("GetInstance", nested, Wanted::Refused),
        ("DeleteInstance", name.to_owned(), Wanted::Cim(4)),
        (
            "CreateInstance",
            "<IPARAMVALUE NAME=\"NewInstance\"><INSTANCE \
         CLASSNAME=\"CIM_TapeDrive\"/></IPARAMVALUE>"
                .to_owned(),
            Wanted::Cim(7),
        ),
        (
            "CreateInstance",
            "<IPARAMVALUE NAME=\"NewInstance\"><INSTANCE CLASSNAME=\"Odd\"/>\
         </IPARAMVALUE>"
                .to_owned(),
            Wanted::Cim(5),
        ),
        ("CreateClass", String::new(), Wanted::Cim(7)),
        ("DeleteClass", class("CIM_Job"), Wanted::Cim(7)),
        ("ExecQuery", text("Query", "x"), Wanted::Cim(7)),
        ("Associators", String::new(), Wanted::Cim(4)),
        ("GetQualifier", text("QualifierName", "Odd"), Wanted::Cim(6)),
        ("Odd", String::new(), Wanted::Cim(7)),
    ];
    rows.into_iter().map(asked).collect()
}

fn pulls() -> Vec<Case> {
    let context = "<IPARAMVALUE NAME=\"EnumerationContext\"><VALUE>99</VALUE></IPARAMVALUE>\
                   <IPARAMVALUE NAME=\"MaxObjectCount\"><VALUE>1</VALUE></IPARAMVALUE>";
    let rows: Vec<(&str, String, Wanted)> = vec![
        ("OpenQueryInstances", String::new(), Wanted::Cim(7)),
        ("PullInstancesWithPath", context.to_owned(), Wanted::Cim(21)),
        ("PullInstancePaths", context.to_owned(), Wanted::Cim(21)),
        ("PullInstancesWithPath", text("EnumerationContext", "-1"), Wanted::Cim(4)),
        ("CloseEnumeration", text("EnumerationContext", "x"), Wanted::Cim(21)),
        (
            "OpenEnumerateInstances",
            format!("{}{}", class("CIM_TapeDrive"), text("MaxObjectCount", "-1")),
            Wanted::Cim(4),
        ),
        (
            "OpenEnumerateInstances",
            format!("{}{}", class("CIM_TapeDrive"), text("MaxObjectCount", "99999999999")),
            Wanted::Cim(4),
        ),
        (
            "OpenEnumerateInstances",
            format!("{}{}", class("CIM_TapeDrive"), text("ContinueOnError", "true")),
            Wanted::Cim(7),
        ),
    ];
    rows.into_iter().map(asked).collect()
}

/// A row of the tables above: operation, parameters, what is wanted.
fn asked((method, parameters, wanted): (&str, String, Wanted)) -> Case {
    let bytes = post(&headers(method), &operation(method, &parameters));
    case(format!("{method} {}", &parameters[..parameters.len().min(60)]), bytes, wanted)
}

/// A parameter with a text.
fn text(name: &str, value: &str) -> String {
    format!("<IPARAMVALUE NAME=\"{name}\"><VALUE>{value}</VALUE></IPARAMVALUE>")
}

/// Good requests with bytes changed, taken out and put in.
fn mutations(rng: &mut Rng, count: usize) -> Vec<Case> {
    let good = [
        post(&headers("GetClass"), &operation("GetClass", &class("CIM_Job"))),
        post(
            &headers("EnumerateInstances"),
            &operation("EnumerateInstances", &class("CIM_TapeDrive")),
        ),
        post(
            &headers("OpenEnumerateInstances"),
            &operation("OpenEnumerateInstances", &class("CIM_ChangerDevice")),
        ),
    ];
    let mutate = |number: usize| {
        let mut rng = rng.fork(&number.to_string());
        let mut bytes = rng.pick(&good).clone();
        for _ in 0..rng.between(1, 6) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes[at] = rng.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *rng.pick(b"<>&\"'/ \r\n\0")),
                _ => bytes.truncate(at.max(1)),
            }
        }
        case(format!("mutation {number}"), bytes, Wanted::Any)
    };
    (0..count).map(mutate).collect()
}

fn judge(address: SocketAddr, case: &Case) {
    let reply = send(address, &case.bytes, true);
    let (name, text) = (&case.name, &reply.text[..reply.text.len().min(600)]);
    match case.wanted {
        Wanted::Http(status) => assert_eq!(reply.status, status, "{name}: {text}"),
        Wanted::Cim(code) => {
            assert_eq!((reply.status, reply.error()), (200, Some(code)), "{name}: {text}");
        }
        Wanted::Refused => {
            let refused = reply.status == 0 || (400..500).contains(&reply.status);
            assert!(refused || reply.error().is_some(), "{name}: {text}");
        }
        Wanted::Any => assert_ne!(reply.status, 500, "{name}: {text}"),
    }
}

#[test]
fn every_hostile_request_is_refused_and_the_next_good_one_answered() {
    let scratch = Scratch::new("smis_hostile");
    let rng = &mut Rng::new(seed("smis_hostile"));
    let mut smis = None;
    let mut pair = Pair::new(&scratch, |local, _| smis = Some(configure(local)));
    pair.local.allow("the remote can not be reached");
    pair.local.run();
    let address = smis.expect("configured");
    let mut cases =
        [heads(), lengths(), documents(), messages(), operations(), pulls()].concat_all();
    let by_hand = cases.len();
    cases.extend(mutations(rng, full(500, 20_000)));
    let (mut slowest, mut resident) = (std::time::Duration::ZERO, 0);
    for (number, case) in cases.iter().enumerate() {
        judge(address, case);
        let begun = Instant::now();
        let reply = ask(address, "EnumerateInstanceNames", &class("CIM_ChangerDevice"));
        assert_eq!((reply.status, reply.error()), (200, None), "after {}", case.name);
        slowest = slowest.max(begun.elapsed());
        if number == by_hand {
            resident = pair.local.resident_bytes();
        }
    }
    let grown = pair.local.resident_bytes().saturating_sub(resident);
    println!(
        "{} requests ({by_hand} by hand); the slowest good answer took {slowest:?}; resident \
         {resident} bytes, then {grown} more",
        cases.len()
    );
    assert!(grown <= 16 << 20, "memory grew by {grown} bytes");
}

/// Concatenation of lists that can not be cloned.
trait ConcatAll {
    fn concat_all(self) -> Vec<Case>;
}

impl<const N: usize> ConcatAll for [Vec<Case>; N] {
    fn concat_all(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn who_sends_slowly_or_not_at_all_holds_up_nobody() {
    let scratch = Scratch::new("smis_slow");
    let mut smis = None;
    let mut pair = Pair::new(&scratch, |local, _| smis = Some(configure(local)));
    pair.local.allow("the remote can not be reached");
    pair.local.run();
    let address = smis.expect("configured");
    // Fewer than there are places; each says a part of a request and then nothing.
    let good = post(&headers("GetClass"), &operation("GetClass", &class("CIM_Job")));
    let slow: Vec<_> = (0..24)
        .map(|i| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            stream.write_all(&good[..good.len() * i / 24]).expect("it takes it");
            stream
        })
        .collect();
    let reply = ask(address, "GetClass", &class("CIM_Job"));
    assert_eq!(reply.status, 200);
    // All places taken: one more waits, and is served when the silent ones were shown out.
    let more: Vec<_> = (0..16).filter_map(|_| TcpStream::connect(address).ok()).collect();
    let reply = ask(address, "GetClass", &class("CIM_Job"));
    assert_eq!(reply.status, 200);
    drop((slow, more));
}
