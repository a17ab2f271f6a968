//! HTTP and CIM-XML by hand, so that what is wrong can be sent as well.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use tests::free_port;
use tests::wait::PATIENCE;
use toml::{Table, Value};

/// `smis:peers` in Basic authentication.
pub(crate) const BASIC: &str = "Basic c21pczpwZWVycw==";

/// Adds `[smis]` to a configuration; where it listens.
pub(crate) fn configure(local: &mut Table) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = format!(
        "http = \"{address}\"\nlogin_attempts = 0\nmax_connections = 32\n\
         [[user]]\nname = \"smis\"\npassword = \"peers\"\n"
    );
    let table: Table = text.parse().expect("TOML");
    local.insert("smis".into(), Value::Table(table));
    address
}

/// What came back: the status, or 0 where the connection ended without one, and everything.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Reply {
    /// The code in `<ERROR CODE="..">`, if there is one.
    pub(crate) fn error(&self) -> Option<u16> {
        let (_, rest) = self.text.split_once("<ERROR CODE=\"")?;
        rest.split('"').next()?.parse().ok()
    }

    /// The text of the first VALUE behind a marker.
    pub(crate) fn value(&self, marker: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(marker)?;
        let (_, rest) = rest.split_once("<VALUE>")?;
        rest.split("</VALUE>").next()
    }
}

/// Sends bytes, and reads until the server has said all or has closed. With `finish` the sending
/// side is closed behind them.
pub(crate) fn send(address: SocketAddr, bytes: &[u8], finish: bool) -> Reply {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    // What the server does not want to hear it need not read.
    let _ = stream.write_all(bytes);
    if finish {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let (mut all, mut buffer) = (Vec::new(), [0; 64 << 10]);
    while !is_whole(&all) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
        }
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
    Reply { status, text }
}

/// Whether a reply has come to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("\r\n0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|n| n.trim().parse::<usize>().ok()).is_some_and(|n| body.len() >= n)
}

/// A POST with these headers besides Host and Content-Length.
pub(crate) fn post(headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("POST /cimom HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// The headers of an operation in `root/twinreel`.
pub(crate) fn headers(method: &str) -> Vec<(&str, &str)> {
    vec![
        ("Authorization", BASIC),
        ("Content-Type", "application/xml; charset=\"utf-8\""),
        ("CIMOperation", "MethodCall"),
        ("CIMMethod", method),
        ("CIMObject", "root/twinreel"),
    ]
}

pub(crate) const SPACE: &str = "<LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/>\
     <NAMESPACE NAME=\"twinreel\"/></LOCALNAMESPACEPATH>";

/// A message around a call.
pub(crate) fn message(call: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\">\
         <MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\"><SIMPLEREQ>{call}</SIMPLEREQ></MESSAGE></CIM>"
    )
}

/// The message of an operation.
pub(crate) fn operation(method: &str, parameters: &str) -> String {
    message(&format!("<IMETHODCALL NAME=\"{method}\">{SPACE}{parameters}</IMETHODCALL>"))
}

/// The parameter ClassName.
pub(crate) fn class(name: &str) -> String {
    format!("<IPARAMVALUE NAME=\"ClassName\"><CLASSNAME NAME=\"{name}\"/></IPARAMVALUE>")
}

/// An operation as it should be.
pub(crate) fn ask(address: SocketAddr, method: &str, parameters: &str) -> Reply {
    send(address, &post(&headers(method), &operation(method, parameters)), false)
}

/// The path of the partition of a tape.
pub(crate) fn tape(library: &str, barcode: &str) -> String {
    let key = |name: &str, value: &str| {
        format!(
            "<KEYBINDING NAME=\"{name}\"><KEYVALUE VALUETYPE=\"string\">{value}</KEYVALUE>\
             </KEYBINDING>"
        )
    };
    format!(
        "<LOCALINSTANCEPATH>{SPACE}<INSTANCENAME CLASSNAME=\"CIM_TapePartition\">{}{}{}{}\
         </INSTANCENAME></LOCALINSTANCEPATH>",
        key("SystemCreationClassName", "CIM_ComputerSystem"),
        key("SystemName", &format!("hq:{library}")),
        key("CreationClassName", "CIM_TapePartition"),
        key("DeviceID", &format!("tape:{barcode}")),
    )
}

/// INSTANCENAME.
pub(crate) fn instance(class: &str, keys: &[(&str, &str)]) -> String {
    let keys = keys.iter().map(|(name, value)| {
        format!("<KEYBINDING NAME=\"{name}\"><KEYVALUE>{value}</KEYVALUE></KEYBINDING>")
    });
    format!("<INSTANCENAME CLASSNAME=\"{class}\">{}</INSTANCENAME>", keys.collect::<String>())
}

/// The name of a job, by the id of its row.
pub(crate) fn job(id: impl std::fmt::Display) -> String {
    instance("Twinreel_ConcreteJob", &[("InstanceID", &format!("twinreel:job:{id}"))])
}

/// GetInstance.
pub(crate) fn get(address: SocketAddr, name: &str) -> Reply {
    let parameter = format!("<IPARAMVALUE NAME=\"InstanceName\">{name}</IPARAMVALUE>");
    ask(address, "GetInstance", &parameter)
}

/// Calls a method of the replication service of `vtl0`.
pub(crate) fn call(address: SocketAddr, method: &str, parameters: &str) -> Reply {
    let class = "Twinreel_ReplicationService";
    let service = instance(
        class,
        &[
            ("SystemCreationClassName", "CIM_ComputerSystem"),
            ("SystemName", "hq:vtl0"),
            ("CreationClassName", class),
            ("Name", "replication"),
        ],
    );
    call_of(address, &service, method, parameters)
}

/// Calls a method of an instance.
pub(crate) fn call_of(address: SocketAddr, name: &str, method: &str, parameters: &str) -> Reply {
    let class = name.split('"').nth(1).expect("a class");
    let body = message(&format!(
        "<METHODCALL NAME=\"{method}\"><LOCALINSTANCEPATH>{SPACE}{name}</LOCALINSTANCEPATH>\
         {parameters}</METHODCALL>"
    ));
    let object = format!("root/twinreel:{class}.Name=\"any\"");
    let mut headers = headers(method);
    headers[4].1 = &object;
    send(address, &post(&headers, &body), false)
}

/// A parameter that is a reference.
pub(crate) fn reference(name: &str, path: &str) -> String {
    format!(
        "<PARAMVALUE NAME=\"{name}\" PARAMTYPE=\"reference\"><VALUE.REFERENCE>{path}\
         </VALUE.REFERENCE></PARAMVALUE>"
    )
}

/// A parameter that is an array of references.
pub(crate) fn references(name: &str, paths: &[String]) -> String {
    let all = paths.iter().map(|path| format!("<VALUE.REFERENCE>{path}</VALUE.REFERENCE>"));
    format!(
        "<PARAMVALUE NAME=\"{name}\" PARAMTYPE=\"reference\"><VALUE.REFARRAY>{}</VALUE.REFARRAY>\
         </PARAMVALUE>",
        all.collect::<String>()
    )
}

/// The path of a pair that is being copied.
pub(crate) fn pair(source: &str, target: &str) -> String {
    let end = |name: &str, path: &str| {
        format!(
            "<KEYBINDING NAME=\"{name}\"><VALUE.REFERENCE>{path}</VALUE.REFERENCE></KEYBINDING>"
        )
    };
    format!(
        "<LOCALINSTANCEPATH>{SPACE}<INSTANCENAME CLASSNAME=\"CIM_StorageSynchronized\">{}{}\
         </INSTANCENAME></LOCALINSTANCEPATH>",
        end("SystemElement", source),
        end("SyncedElement", target)
    )
}

/// A parameter that is a number.
pub(crate) fn number(name: &str, value: u64) -> String {
    format!("<PARAMVALUE NAME=\"{name}\"><VALUE>{value}</VALUE></PARAMVALUE>")
}
