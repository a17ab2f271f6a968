//! The status page of both engines of a running pair.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tests::wait::{self, PATIENCE};
use tests::{Content, Operator, Pair, Scratch, Texture, free_port, seed, twinreel};
use toml::{Table, Value as Toml};

fn configure(engine: &mut Table) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let http = Toml::String(address.to_string());
    engine.insert("admin".into(), Toml::Table(Table::from_iter([("http".to_owned(), http)])));
    address
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the page is there");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it is text");
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    reply.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

fn json(address: SocketAddr) -> Value {
    serde_json::from_str(&get(address, "/status.json")).expect("JSON")
}

fn library<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["libraries"].as_array().expect("a list");
    all.iter().find(|library| library["name"] == name).unwrap_or_else(|| panic!("{status}"))
}

#[test]
fn the_page_shows_what_is_there_and_what_is_done() {
    let scratch = Scratch::new("page");
    let mut pages = None;
    let mut pair = Pair::new(&scratch, |local, remote| {
        pages = Some((configure(local), configure(remote)));
    });
    pair.local.allow("the remote can not be reached");
    // The link is cut at the end.
    pair.local.allow("TWR-2002-W");
    pair.remote.allow("TWR-2002-W");
    pair.run();
    let (local, remote) = pages.expect("configured");
    let operator = Operator::of(&pair);
    operator.wait_for("dr-ptl0");
    operator.load("vtl0", "VTA001L8", 0);
    let content = Content::new(Texture::Compressible, seed("page"), 1_000_000);
    operator.backup("vtl0/drive0", 32_768, content.reader());

    let status = json(local);
    assert_eq!((&status["site"], &status["links"][0]["up"]), (&"hq".into(), &true.into()));
    let own = library(&status, "vtl0");
    assert_eq!(
        (&own["role"], &own["drives"][0]["cartridge"]),
        (&"virtual".into(), &"VTA001L8".into())
    );
    let ghost = library(&status, "dr-ptl0");
    assert_eq!((&ghost["role"], &ghost["online"]), (&"ghost".into(), &true.into()));
    assert!(ghost["report_age_seconds"].is_u64(), "{ghost}");
    assert_eq!(library(&json(remote), "ptl0")["role"], "physical");

    operator.unload("vtl0", 0);
    let config = pair.local.config().to_str().expect("text").to_owned();
    let ends = ["--source", "vtl0:VTA001L8", "--target", "dr-ptl0:PTA001L8"];
    let (code, _, errors) = twinreel([&["dma", "copy", "--config", &config], &ends[..]].concat());
    assert_eq!(code, 0, "{errors}");
    for address in [local, remote] {
        let page = get(address, "/");
        for word in ["PTA001L8", "done", "100 %", "Copy map", "Migration map"] {
            assert!(page.contains(word), "no {word} in {page}");
        }
    }
    // What is no secret there is none here.
    let page = get(local, "/");
    assert!(!page.contains(&pair.password()) && page.contains("ghost of a library"));

    pair.relay.part();
    wait::until_within(PATIENCE, "the ghost is shown as lost", || {
        let status = json(local);
        (library(&status, "dr-ptl0")["online"] == false).then_some(())
    });
    assert!(get(local, "/").contains("can not be reached: as last seen"));
}
