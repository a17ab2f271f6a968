//! Indications: what has changed is noticed, and sent to whoever asked.
//!
//! Whatever changes the state rings a bell ([`crate::device::Bell`]); then it is compared with what
//! it was, if somebody subscribes. Rings that come in fast are one look, so that looking takes a
//! small part of the time. Each destination has a bounded queue and a task of its own: a listener
//! that is away holds up nobody else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cim::wire::{Encoder, ExportReply, export, export_reply};
use cim::{Instance, Schema};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use service::shutdown::Shutdown;
use service::tls::explain_io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::model::{Look, Model, datetime};
use super::wishes::{Address, Subscription, Wishes};
use crate::engine::Engine;

/// The least time between two looks, and how many times as long as the last one took.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_SHARE: u32 = 10;
/// Indications that wait for one destination; more are dropped, and their numbers tell it.
const QUEUE: usize = 1024;
/// How long one delivery may take.
const DELIVERY: Duration = Duration::from_secs(10);
/// Attempts after the first, and the time between two; advertised by the service.
pub(super) const RETRIES: u16 = 20;
pub(super) const RETRY: Duration = Duration::from_secs(3);
/// Bytes of a listener's answer that are read.
const ANSWER_MAX: usize = 64 << 10;

/// The classes whose instances' life is told.
const WATCHED: [&str; 8] = [
    "CIM_ComputerSystem",
    "CIM_ChangerDevice",
    "CIM_TapeDrive",
    "CIM_PhysicalTape",
    "CIM_TapePartition",
    "CIM_PhysicalMediaInLocation",
    "CIM_StorageSynchronized",
    "Twinreel_ConcreteJob",
];

/// Properties that change all the time and are no news by themselves.
const RESTLESS: [&str; 2] = ["ElapsedTime", "BytesCopied"];

type Seen = HashMap<String, Instance>;

/// Looks and tells until the shutdown.
pub(super) async fn run(
    engine: Arc<Engine>,
    schema: Arc<Schema>,
    wishes: Arc<Wishes>,
    tls: Option<Arc<ClientConfig>>,
    shutdown: Shutdown,
) {
    let mut bell = engine.ground.registry.bell().listen();
    let mut watch = Watch { engine, schema, wishes, seen: HashMap::new() };
    let mut desks: HashMap<String, Desk> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            () = tokio::time::sleep(pause) => {}
        }
        // The first look is what there is to begin with.
        bell.mark_unchanged();
        let begun = Instant::now();
        while tasks.try_join_next().is_some() {}
        let looked = tokio::task::spawn_blocking(move || {
            let news = watch.look();
            (watch, news)
        });
        let Ok((back, (subscriptions, news))) = looked.await else {
            tracing::error!("SMI-S: indications ended");
            break;
        };
        watch = back;
        let wanted = |url: &str| subscriptions.iter().any(|s| s.destination == url);
        desks.retain(|url, _| wanted(url));
        for subscription in &subscriptions {
            for indication in &news {
                if subscription.query.chooses(&watch.schema, indication) {
                    let url = &subscription.destination;
                    let desk = desks.entry(url.clone());
                    let schema = &watch.schema;
                    let open = || Desk::open(url, schema, tls.clone(), &mut tasks);
                    desk.or_insert_with(open).send(indication);
                }
            }
        }
        pause = LOOK.max(begun.elapsed() * LOOK_SHARE);
        tokio::select! {
            () = shutdown.requested() => break,
            changed = bell.changed() => if changed.is_err() { break },
        }
    }
    tasks.shutdown().await;
}

struct Watch {
    engine: Arc<Engine>,
    schema: Arc<Schema>,
    wishes: Arc<Wishes>,
    /// By class, what was seen by path.
    seen: HashMap<&'static str, Seen>,
}

impl Watch {
    /// The subscriptions, and what has happened to instances that one of them may be about.
    fn look(&mut self) -> (Vec<Subscription>, Vec<Instance>) {
        let subscriptions = self.wishes.subscriptions();
        let look = Look::default();
        let model = Model::new(&self.engine, &look);
        let mut news = Vec::new();
        for class in WATCHED {
            let about = |s: &Subscription| {
                let named = s.query.classes();
                named.is_empty()
                    || named.iter().any(|named| {
                        self.schema.is_a(class, named) || self.schema.is_a(named, class)
                    })
            };
            if !subscriptions.iter().any(about) {
                self.seen.remove(class);
                continue;
            }
            let now = match model.instances(class) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(class, %error, "SMI-S: not looked at");
                    continue;
                }
            };
            let now: Seen = now.into_iter().map(|i| (i.path.to_string(), i)).collect();
            // The first look is what there is to begin with.
            if let Some(before) = self.seen.insert(class, now) {
                let now = self.seen.get(class);
                now.into_iter().for_each(|now| differences(&before, now, &mut news));
            }
        }
        (subscriptions, news)
    }
}

fn same(one: &Instance, other: &Instance) -> bool {
    let restless = |name: &str| RESTLESS.contains(&name);
    one.properties.len() == other.properties.len()
        && one
            .properties
            .iter()
            .zip(&other.properties)
            .all(|(one, other)| one.0 == other.0 && (one.1 == other.1 || restless(&one.0)))
}

/// A job that has ended, as it was when it was written down.
fn unfinished(job: &Instance) -> Option<Instance> {
    let ended = matches!(job.get("JobState").integer(), Some(7..=10));
    ended.then(|| {
        let mut begun = job.clone();
        for (name, value) in [
            ("JobState", 2u16.into()),
            ("OperationalStatus", vec![2u16].into()),
            ("HealthState", 5u16.into()),
            ("PercentComplete", 0u16.into()),
            ("JobStatus", "pending".into()),
            ("StateText", "pending".into()),
            ("ErrorCode", 0u16.into()),
            ("ErrorDescription", "".into()),
            ("BytesCopied", 0u64.into()),
        ] {
            begun.set(name, value);
        }
        begun
    })
}

fn differences(before: &Seen, now: &Seen, news: &mut Vec<Instance>) {
    let mut tell = |class, source: &Instance, previous: Option<&Instance>| {
        let indication = Instance::embedded(class)
            .with("IndicationTime", datetime(jiff::Timestamp::now()))
            .with(
                "IndicationIdentifier",
                model::Ulid::generate(crate::engine::now_ms()).to_string(),
            )
            .with("PerceivedSeverity", 2u16)
            .with("SourceInstance", source.clone())
            .with("SourceInstanceModelPath", source.path.to_string());
        news.push(match previous {
            Some(previous) => indication.with("PreviousInstance", previous.clone()),
            None => indication,
        });
    };
    for (path, instance) in now {
        match before.get(path) {
            None => match unfinished(instance) {
                // It came and ended between two looks: who waits for its end must hear of it.
                Some(begun) => {
                    tell("CIM_InstCreation", &begun, None);
                    tell("CIM_InstModification", instance, Some(&begun));
                }
                None => tell("CIM_InstCreation", instance, None),
            },
            Some(previous) if !same(previous, instance) => {
                tell("CIM_InstModification", instance, Some(previous));
            }
            Some(_) => {}
        }
    }
    for (path, instance) in before {
        if !now.contains_key(path) {
            tell("CIM_InstDeletion", instance, None);
        }
    }
}

/// The way to one destination.
struct Desk {
    queue: mpsc::Sender<Instance>,
    context: String,
    next: i64,
    url: String,
}

impl Desk {
    fn open(
        url: &str,
        schema: &Arc<Schema>,
        tls: Option<Arc<ClientConfig>>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let context = format!("twinreel:{}", model::Ulid::generate(crate::engine::now_ms()));
        tasks.spawn(deliver(url.to_owned(), Arc::clone(schema), tls, waiting));
        Self { queue, context, next: 0, url: url.to_owned() }
    }

    fn send(&mut self, indication: &Instance) {
        let indication = indication
            .clone()
            .with("SequenceContext", self.context.clone())
            .with("SequenceNumber", self.next);
        // The number is used up all the same: the listener sees that one is missing.
        self.next = self.next.checked_add(1).unwrap_or(0);
        if self.queue.try_send(indication).is_err() {
            tracing::warn!(destination = self.url, "SMI-S: an indication was dropped");
        }
    }
}

/// Delivers in order; one that can not be delivered holds up those behind it until it is given up.
async fn deliver(
    url: String,
    schema: Arc<Schema>,
    tls: Option<Arc<ClientConfig>>,
    mut waiting: mpsc::Receiver<Instance>,
) {
    let Some(address) = Address::parse(&url) else { return };
    let mut told = String::new();
    while let Some(indication) = waiting.recv().await {
        let id = model::Ulid::generate(crate::engine::now_ms()).to_string();
        let body = export(&Encoder { schema: &schema, host: "" }, &id, &indication);
        let body = Bytes::from(body);
        for attempt in 0..=RETRIES {
            let sent =
                tokio::time::timeout(DELIVERY, post(&address, tls.as_ref(), body.clone())).await;
            match sent.unwrap_or_else(|_| Err("it took too long".into())) {
                Ok(ExportReply::Taken) => {
                    told.clear();
                    break;
                }
                // It was understood and is not wanted: that does not change by itself.
                Ok(ExportReply::Refused(why)) => {
                    tracing::warn!(destination = url, why, "SMI-S: an indication was refused");
                    break;
                }
                Err(why) if attempt == RETRIES => {
                    tracing::warn!(destination = url, why, "SMI-S: an indication is given up");
                }
                Err(why) => {
                    // Once for each cause: a certificate that does not fit has to be heard of.
                    match why == told {
                        true => tracing::debug!(destination = url, why, attempt, "SMI-S: again"),
                        false => tracing::warn!(destination = url, why, "SMI-S: not delivered yet"),
                    }
                    told = why;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Delivers to a destination; what stood in its way, in words.
async fn post(
    to: &Address<'_>,
    tls: Option<&Arc<ClientConfig>>,
    body: Bytes,
) -> Result<ExportReply, String> {
    let stream = TcpStream::connect((to.host, to.port)).await.map_err(|error| error.to_string())?;
    match (to.secure, tls) {
        (false, _) => converse(stream, to, body).await,
        (true, Some(tls)) => {
            let connector = TlsConnector::from(Arc::clone(tls));
            let stream = connector.connect(ServerName::from(to.host), stream).await;
            converse(stream.map_err(|error| explain_io(&error))?, to, body).await
        }
        (true, None) => Err("https needs indication_ca in [smis]".into()),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    to: &Address<'_>,
    body: Bytes,
) -> Result<ExportReply, String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| say(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(to.path)
        .header(header::HOST, SocketAddr::new(to.host, to.port).to_string())
        .header(header::CONTENT_TYPE, "application/xml; charset=\"utf-8\"")
        .header("CIMExport", "MethodRequest")
        .header("CIMExportMethod", "ExportIndication")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| say(&error))?;
    let reply = sender.send_request(request).await.map_err(|error| say(&error))?;
    let status = reply.status();
    let answer = Limited::new(reply.into_body(), ANSWER_MAX).collect().await;
    connection.abort();
    let answer = answer.map_err(|error| say(&error))?.to_bytes();
    match status.is_success() {
        true => export_reply(&answer),
        false => Err(format!("HTTP {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::SiteName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const TAKEN: &str = "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" \
        PROTOCOLVERSION=\"1.0\"><SIMPLEEXPRSP><EXPMETHODRESPONSE NAME=\"ExportIndication\"/>\
        </SIMPLEEXPRSP></MESSAGE></CIM>";

    /// An authority, and a listener with a certificate of it that takes everything.
    async fn listener(dir: &Path) -> (Arc<ClientConfig>, u16) {
        let site = SiteName::new("listener").unwrap();
        let (ca, files) = service::pki::init(dir, &[(&site, &["127.0.0.1"])]).unwrap();
        let config = service::tls::https_config(&files[0].certificate, &files[0].key).unwrap();
        let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(config);
            while let Ok((stream, _)) = socket.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 4096];
                drop(stream.read(&mut buffer).await);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", TAKEN.len());
                drop(stream.write_all((head + TAKEN).as_bytes()).await);
                drop(stream.shutdown().await);
            }
        });
        (service::tls::https_client_config(&ca).unwrap(), port)
    }

    #[tokio::test]
    async fn indications_go_over_tls_to_whom_the_authority_vouches_for() {
        let dir = tempfile::tempdir().unwrap();
        let (known, port) = listener(&dir.path().join("a")).await;
        let (other, _) = listener(&dir.path().join("b")).await;
        let url = format!("https://127.0.0.1:{port}/x");
        let to = Address::parse(&url).unwrap();
        let body = Bytes::from_static(b"<CIM/>");
        let sent = post(&to, Some(&known), body.clone()).await;
        assert_eq!(sent, Ok(ExportReply::Taken));
        let refused = post(&to, Some(&other), body.clone()).await.unwrap_err();
        assert!(refused.contains("not made by the configured CA"), "{refused}");
        // An address that the certificate does not carry.
        let url = format!("https://127.0.0.2:{port}/x");
        let elsewhere = Address::parse(&url).unwrap();
        let refused = post(&elsewhere, Some(&known), body.clone()).await.unwrap_err();
        assert!(refused.contains("127.0.0.2"), "{refused}");
        let plain = format!("http://127.0.0.1:{port}/x");
        assert!(post(&Address::parse(&plain).unwrap(), Some(&known), body).await.is_err());
    }
}
