//! How fast the server for management applications answers, and what that costs in memory.
//!
//! ```text
//! cargo bench -p tests --bench wbem                     one library of 10000 tapes, 3 s a figure
//! cargo bench -p tests --bench wbem -- --tapes 50000
//! cargo bench -p tests --bench wbem -- --quick          100 tapes, 0.2 s: whether it runs
//! ```
//!
//! The engine is a process of its own; the clients are threads of this one, over http with
//! keep-alive, and read replies without looking into them. Nothing passes or fails by a figure, but
//! every reply has to be one without an error.
//!
//! Under `cargo test` it runs as `--quick` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../smis/wire.rs"]
#[allow(dead_code)]
mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tests::{Pair, Scratch};
use toml::Value;

/// What to do.
struct Options {
    tapes: u64,
    time: Duration,
}

/// An operation that is measured, as the bytes of its request.
struct Asked {
    name: &'static str,
    request: Vec<u8>,
}

fn asked(name: &'static str, method: &str, parameters: &str) -> Asked {
    let request = wire::post(&wire::headers(method), &wire::operation(method, parameters));
    Asked { name, request }
}

/// The same in the namespace of the server itself.
fn in_interop(name: &'static str, method: &str, class: &str) -> Asked {
    let body = wire::operation(method, &wire::class(class)).replace(
        wire::SPACE,
        "<LOCALNAMESPACEPATH><NAMESPACE NAME=\"interop\"/></LOCALNAMESPACEPATH>",
    );
    let mut headers = wire::headers(method);
    headers[4].1 = "interop";
    Asked { name, request: wire::post(&headers, &body) }
}

fn operations() -> Vec<Asked> {
    let path = |name: &str| {
        let path = wire::tape("vtl0", "V00007L8").replace("LOCALINSTANCEPATH", "X");
        let (_, rest) = path.split_once("<INSTANCENAME").expect("a name");
        let (inner, _) = rest.rsplit_once("</X>").expect("an end");
        format!("<IPARAMVALUE NAME=\"{name}\"><INSTANCENAME{inner}</IPARAMVALUE>")
    };
    let names = "EnumerateInstanceNames";
    vec![
        in_interop("EnumerateInstanceNames, one instance", names, "CIM_ObjectManager"),
        in_interop(
            "EnumerateInstances, 12 profiles",
            "EnumerateInstances",
            "CIM_RegisteredProfile",
        ),
        asked("GetInstance, one tape", "GetInstance", &path("InstanceName")),
        asked("Associators, one tape", "Associators", &path("ObjectName")),
        asked("EnumerateInstanceNames, all tapes", names, &wire::class("CIM_PhysicalTape")),
        asked(
            "EnumerateInstances, all tapes",
            "EnumerateInstances",
            &wire::class("CIM_PhysicalTape"),
        ),
    ]
}

/// A connection that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("it is TCP");
        Self(BufReader::with_capacity(256 << 10, stream))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server answers");
        line.trim_end().to_ascii_lowercase()
    }

    fn take(&mut self, length: usize, found: &mut Found) {
        let mut left = length;
        while left > 0 {
            let held = self.0.fill_buf().expect("the server answers");
            assert!(!held.is_empty(), "the reply ends too early");
            let taken = held.len().min(left);
            found.bytes += taken;
            if found.head.len() < 4096 {
                found.head.extend_from_slice(&held[..taken.min(4096)]);
            }
            self.0.consume(taken);
            left -= taken;
        }
    }

    /// Sends a request and reads the reply; its bytes.
    fn ask(&mut self, request: &[u8]) -> usize {
        self.0.get_mut().write_all(request).expect("it is taken");
        let status = self.line();
        assert!(status.starts_with("http/1.1 200"), "{status}");
        let (mut length, mut found) = (None, Found::default());
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = Some(value.parse::<usize>().expect("a number"));
            }
        }
        match length {
            Some(length) => self.take(length, &mut found),
            None => loop {
                let size = usize::from_str_radix(&self.line(), 16).expect("a chunk");
                self.take(size, &mut found);
                let mut end = [0; 2];
                self.0.read_exact(&mut end).expect("the end of a chunk");
                if size == 0 {
                    break;
                }
            },
        }
        let head = String::from_utf8_lossy(&found.head);
        assert!(!head.contains("<ERROR "), "{head}");
        found.bytes
    }
}

/// What came of a reply.
#[derive(Default)]
struct Found {
    bytes: usize,
    head: Vec<u8>,
}

/// How many a second, and the bytes of one.
fn measure(address: SocketAddr, request: &[u8], clients: usize, time: Duration) -> (f64, usize) {
    let one = Client::connect(address).ask(request);
    let begun = Instant::now();
    let count: usize = std::thread::scope(|scope| {
        let run = || {
            let (mut client, mut count) = (Client::connect(address), 0);
            while count == 0 || begun.elapsed() < time {
                client.ask(request);
                count += 1;
            }
            count
        };
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(run)).collect();
        all.into_iter().map(|client| client.join().expect("it ends")).sum()
    });
    (count as f64 / begun.elapsed().as_secs_f64(), one)
}

fn main() {
    let options = options(std::env::args().skip(1));
    let scratch = Scratch::new("wbem");
    let mut smis = None;
    let mut pair = Pair::new(&scratch, |local, _| {
        smis = Some(wire::configure(local));
        let library = local["virtual_library"].as_array_mut().and_then(|all| all.first_mut());
        let library = library.and_then(Value::as_table_mut).expect("a library");
        library.insert("slots".into(), Value::Integer(options.tapes as i64));
        let cartridges = format!("prefix = \"V\"\ncount = {}", options.tapes);
        library.insert("cartridges".into(), cartridges.parse().map(Value::Table).unwrap());
    });
    pair.local.allow("the remote can not be reached");
    pair.local.spawn();
    // Each cartridge is made durable by itself when the library is first set up.
    let ready = pair.local.log().find(0, "local-engine ready", Duration::from_secs(1200));
    ready.expect("the library is set up");
    let address = smis.expect("configured");
    let resident = |what: &str| {
        println!("{what}: {} MiB resident", pair.local.resident_bytes() >> 20);
    };
    resident("\nstarted");
    println!("\n| operation | connections | a second | bytes of a reply |\n|---|---|---|---|");
    for asked in operations() {
        for clients in [1, 8] {
            let (rate, bytes) = measure(address, &asked.request, clients, options.time);
            println!("| {} | {clients} | {rate:.1} | {bytes} |", asked.name);
        }
    }
    resident("\nafter all of it");
    println!("highest: {} MiB", highest(pair.local.pid()) >> 20);
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// The most memory that a process had at a time (`VmHWM` of proc(5)), in bytes.
fn highest(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a VmHWM line");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// `cargo bench` says `--bench`; without it this is a trial of the benchmark itself.
fn options(mut arguments: impl Iterator<Item = String>) -> Options {
    let mut chosen = Options { tapes: 10_000, time: Duration::from_secs(3) };
    let (mut is_quick, mut bench) = (false, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--bench" => bench = true,
            "--tapes" => {
                let count = arguments.next().and_then(|count| count.parse().ok());
                chosen.tapes = count.expect("--tapes NUMBER");
            }
            // What `cargo test` passes on to everything.
            "--show-output" | "--nocapture" | "-q" => {}
            other => panic!("{other}: see the head of tests/wbem/main.rs"),
        }
    }
    match is_quick || !bench {
        true => Options { tapes: 100, time: Duration::from_millis(200) },
        false => chosen,
    }
}
