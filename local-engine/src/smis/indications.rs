//! Indications: what has changed is noticed, and sent to whoever asked.
//!
//! The state that is shown has no bell of its own, so while somebody subscribes it is compared
//! with itself once a second; that bounds how often PercentComplete is told too. Each destination
//! has a bounded queue and a task of its own: a listener that is away holds up nobody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cim::wire::{Encoder, ExportReply, export, export_reply};
use cim::{Instance, Schema};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use service::shutdown::Shutdown;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::model::{Look, Model, datetime};
use super::wishes::{Subscription, Wishes, address};
use crate::engine::Engine;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_secs(1);
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
const RESTLESS: [&str; 1] = ["ElapsedTime"];

type Seen = HashMap<String, Instance>;

/// Looks and tells until the shutdown.
pub(super) async fn run(
    engine: Arc<Engine>,
    schema: Arc<Schema>,
    wishes: Arc<Wishes>,
    shutdown: Shutdown,
) {
    let mut watch = Watch { engine, schema, wishes, seen: HashMap::new() };
    let mut desks: HashMap<String, Desk> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            _ = looks.tick() => {}
        }
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
                    desk.or_insert_with(|| Desk::open(url, schema, &mut tasks)).send(indication);
                }
            }
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
    fn open(url: &str, schema: &Arc<Schema>, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let context = format!("twinreel:{}", model::Ulid::generate(crate::engine::now_ms()));
        tasks.spawn(deliver(url.to_owned(), Arc::clone(schema), waiting));
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
async fn deliver(url: String, schema: Arc<Schema>, mut waiting: mpsc::Receiver<Instance>) {
    let Some((host, port, path)) = address(&url) else { return };
    while let Some(indication) = waiting.recv().await {
        let id = model::Ulid::generate(crate::engine::now_ms()).to_string();
        let body = export(&Encoder { schema: &schema, host: "" }, &id, &indication);
        let body = Bytes::from(body);
        for attempt in 0..=RETRIES {
            let sent = tokio::time::timeout(DELIVERY, post(host, port, path, body.clone())).await;
            match sent.unwrap_or_else(|_| Err("it took too long".into())) {
                Ok(ExportReply::Taken) => break,
                // It was understood and is not wanted: that does not change by itself.
                Ok(ExportReply::Refused(why)) => {
                    tracing::warn!(destination = url, why, "SMI-S: an indication was refused");
                    break;
                }
                Err(why) if attempt == RETRIES => {
                    tracing::warn!(destination = url, why, "SMI-S: an indication is given up");
                }
                Err(why) => {
                    tracing::debug!(destination = url, why, attempt, "SMI-S: not delivered yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn post(host: IpAddr, port: u16, path: &str, body: Bytes) -> Result<ExportReply, String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect((host, port)).await.map_err(|error| say(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| say(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
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
