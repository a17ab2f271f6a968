//! The page over a socket, with what strangers may write on a label.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use super::*;
use crate::shutdown;

const HOSTILE: &str = "<script>alert('1')</script>\"><img src=x onerror=alert(1)>&amp;";

fn hostile() -> Status {
    let text = || HOSTILE.to_owned();
    let row = || MapRow {
        source: text(),
        target: text(),
        policy: "always".into(),
        status: "pending".into(),
        message: Some(text()),
    };
    Status {
        program: "local-engine",
        version: "1",
        site: text(),
        at: text(),
        links: vec![Link { site: text(), up: false, waiting: Some(3) }],
        libraries: vec![Library {
            name: text(),
            role: "ghost",
            serial: text(),
            report_age_seconds: Some(7300),
            drives: vec![Drive {
                name: text(),
                address: 128,
                cartridge: Some(text()),
                holder: Some(text()),
            }],
            slots: vec![Slot { address: 1024, cartridge: Some(text()), ..Slot::default() }],
            more_slots: 5,
            ..Library::default()
        }],
        queue: vec![Turn {
            number: 17,
            state: "waiting".into(),
            priority: "restore".into(),
            tapes: text(),
            drives: text(),
            age_seconds: 240,
            who: text(),
            job: Some(text()),
            reason: Some(text()),
        }],
        jobs: vec![Job {
            id: text(),
            kind: text(),
            source: text(),
            target: text(),
            state: "in_progress".into(),
            percent: Some(41.5),
            bytes: 1_500_000,
            rate: Some(999),
            message: text(),
            requested_by: text(),
            ..Job::default()
        }],
        maps: Maps {
            frontend_backend: vec![FrontendRow { backend_device: text(), ..Default::default() }],
            copy: vec![row()],
            migration: vec![row()],
        },
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

fn get(address: SocketAddr, path: &str, host: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

async fn served(source: Source, look: impl FnOnce(SocketAddr) + Send + 'static) {
    let (trigger, shutdown) = shutdown::channel();
    let (address, task) = start(([127, 0, 0, 1], 0).into(), source, &shutdown).await.unwrap();
    tokio::task::spawn_blocking(move || look(address)).await.unwrap();
    trigger.trigger();
    task.await.unwrap();
}

#[tokio::test]
async fn what_strangers_write_is_text_and_nothing_else() {
    let source: Source = Arc::new(|| Ok(hostile()));
    served(source, |address| {
        let page = get(address, "/", "localhost");
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        for word in ["<script", "<img", "onerror=alert(1)>"] {
            assert!(!page.contains(word), "{word} in {page}");
        }
        assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
        for word in ["ghost of a library", "reported 2 h ago", "41.5 %", "1.5 MB", "in progress"] {
            assert!(page.contains(word), "no {word} in {page}");
        }
        for word in ["id=\"turn-17\"", "<td>restore", "<td>4 min</td>"] {
            assert!(page.contains(word), "no {word} in {page}");
        }
        assert!(page.contains("default-src 'none'"), "{page}");
        let json = get(address, "/status.json", "127.0.0.1");
        let (_, body) = json.split_once("\r\n\r\n").unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["libraries"][0]["slots"][0]["cartridge"], HOSTILE);
        assert_eq!(value["jobs"][0]["percent"], 41.5);
        assert_eq!(value["queue"][0]["age_seconds"], 240);
    })
    .await;
}

#[tokio::test]
async fn only_reading_at_two_paths_by_an_address_is_answered() {
    let source: Source = Arc::new(|| Ok(Status::default()));
    served(source, |address| {
        let rows = [
            ("/", "localhost:80", "200"),
            ("/", "[::1]:80", "200"),
            ("/", "127.0.0.1:80", "200"),
            ("/", "evil.example", "421"),
            ("/", "localhost.evil.example:80", "421"),
            ("/status.json", "evil.example", "421"),
            ("/other", "localhost", "404"),
            ("/../etc/passwd", "localhost", "404"),
        ];
        for (path, host, status) in rows {
            let reply = get(address, path, host);
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{path} {host}: {reply}");
        }
        let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
        let reply = ask(address, post);
        assert!(reply.starts_with("HTTP/1.1 405") && reply.contains("GET, HEAD"), "{reply}");
        let reply = ask(address, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("\r\n\r\n"), "{reply}");
        let long =
            format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(50_000));
        assert!(!ask(address, &long).starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_can_not_be_looked_at_says_so_without_the_cause() {
    let source: Source = Arc::new(|| Err("a path of the catalogue".into()));
    served(source, |address| {
        let reply = get(address, "/", "localhost");
        assert!(reply.starts_with("HTTP/1.1 500") && !reply.contains("catalogue"), "{reply}");
    })
    .await;
}

#[tokio::test]
async fn units_are_for_people() {
    let job = |bytes| Job { bytes, ..Job::default() };
    let source: Source = Arc::new(move || {
        Ok(Status { jobs: [0, 999, 1000, 1_234_567].map(job).into(), ..Status::default() })
    });
    served(source, |address| {
        let page = get(address, "/", "localhost");
        for words in [">0 B", ">999 B", ">1 kB", ">1.2 MB"] {
            assert!(page.contains(words), "{words}: {page}");
        }
    })
    .await;
}

#[test]
fn the_queue_is_told_in_its_order_with_how_long_each_waits() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = svs::Catalogue::open(&dir.path().join("svs.db")).unwrap();
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let row = |ticket, rank, state, reason: Option<&str>| svs::Mount {
        ticket,
        job: None,
        who: "hq".into(),
        tapes: "ptl0:PTA001L8".into(),
        priority: svs::MountPriority::Copy,
        since: now - 90_000,
        rank,
        state,
        drives: String::new(),
        reason: reason.map(str::to_owned),
    };
    let late = row(1, 20, svs::MountState::Waiting, Some("a drive of ptl0"));
    let early = row(2, 10, svs::MountState::Mounted, None);
    catalogue.put_mounts(&[late, early], &[]).unwrap();
    let queue = queue(&catalogue).unwrap();
    let told: Vec<_> = queue.iter().map(|turn| (turn.number, turn.reason.as_deref())).collect();
    assert_eq!(told, [(2, None), (1, Some("a drive of ptl0"))]);
    assert!(queue.iter().all(|turn| (90..150).contains(&turn.age_seconds)), "{queue:?}");
}
