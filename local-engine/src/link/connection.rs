//! Keeping a link up: dialling, TLS, greeting, and the tasks of the two connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::{Channel, Hello, Meeting, Message, Peer, Token, greet};
use model::{EngineId, SiteName};
use service::bandwidth::{Bandwidth, Counted, Counters};
use service::config::{LocalConfig, Replication, rate_at};
use service::framing::{FrameReader, FrameWriter};
use service::shutdown::Shutdown;
use service::{messages, tls};
use svs::EventKind;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::bulk::{Bulk, write_bulk};
use super::outbox::{ControlWay, write_control};
use super::site::{RemoteSite, name_key};
use crate::engine::now_ms;

/// The first and the longest pause between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A sign of life is sent so often, and one is expected within the silence.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);
/// How often leases are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long dialling may take, and a greeting.
const DIALLING: Duration = Duration::from_secs(20);
const GREETING: Duration = Duration::from_secs(10);

type Stream = TlsStream<Counted<TcpStream>>;
/// Why a connection ended, for people.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why the engines did not meet.
#[derive(Debug, thiserror::Error)]
enum NotMet {
    /// Nobody answers, or not in time: it is tried again.
    #[error("{0}")]
    Unreachable(Failure),
    /// One does not accept the other: it is tried again, and somebody has to change something.
    #[error("{0}")]
    Refused(Failure),
}

impl NotMet {
    fn unreachable(error: impl Into<Failure>) -> Self {
        Self::Unreachable(error.into())
    }

    fn refused(error: impl Into<Failure>) -> Self {
        Self::Refused(error.into())
    }
}

struct Half {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
    peer: Peer,
}

/// Keeps the link to a site up until the shutdown.
pub(super) async fn keep_up(site: Arc<RemoteSite>, shutdown: Shutdown) {
    // Leases end by time whether the link is up or down.
    let mut ticks = tokio::time::interval(TICK);
    let ticking = async {
        loop {
            ticks.tick().await;
            site.tick();
        }
    };
    tokio::select! {
        () = ticking => {}
        () = meet_again(&site, shutdown) => {}
    }
}

async fn meet_again(site: &Arc<RemoteSite>, shutdown: Shutdown) {
    let engine = EngineId::generate(now_ms());
    let counters = Arc::new(Counters::default());
    let mut pause = RETRY.0;
    // The last cause that was told: the same one is told once.
    let mut told = None;
    loop {
        let attempt = tokio::select! {
            () = shutdown.requested() => return,
            attempt = meet(site, engine, &counters) => attempt,
        };
        match attempt {
            Ok((control, bulk)) => {
                (pause, told) = (RETRY.0, None);
                let name = control.peer.site.clone();
                let ended = tokio::select! {
                    () = shutdown.requested() => {
                        site.down();
                        return;
                    }
                    ended = run(site, control, bulk) => ended.to_string(),
                };
                site.down();
                tracing::info!(site = %name, cause = ended, "link down");
                note(site, messages::LINK_DOWN, "site", name.to_string(), ended).await;
            }
            Err(error) => {
                let cause = Some(error.to_string());
                if std::mem::replace(&mut told, cause.clone()) != cause {
                    tell(site, &error).await;
                }
            }
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
        }
    }
}

async fn tell(site: &Arc<RemoteSite>, error: &NotMet) {
    let address = site.address().to_owned();
    match error {
        NotMet::Unreachable(error) => {
            tracing::warn!(address, %error, "the remote can not be reached; trying on");
        }
        NotMet::Refused(error) => {
            note(site, messages::LINK_REFUSED, "peer", address, error.to_string()).await;
        }
    }
}

/// Says a message about a peer; its event waits for the catalogue's disk.
async fn note(
    site: &Arc<RemoteSite>,
    id: &'static str,
    word: &'static str,
    peer: String,
    cause: String,
) {
    let ground = Arc::clone(&site.ground);
    let noted = tokio::task::spawn_blocking(move || {
        let words: [(&str, &dyn std::fmt::Display); 2] = [(word, &peer), ("cause", &cause)];
        messages::note(&ground.catalogue, EventKind::Link, id, &words, Some(&peer));
    });
    // A panic there was reported when it happened.
    drop(noted.await);
}

async fn meet(
    site: &Arc<RemoteSite>,
    engine: EngineId,
    counters: &Arc<Counters>,
) -> Result<(Half, Half), NotMet> {
    let config = tls::client_config(site.link.tls()).map_err(NotMet::refused)?;
    let token = Token(EngineId::generate(now_ms()).to_bytes());
    let mut halves = Vec::new();
    for channel in [Channel::Control, Channel::Bulk] {
        let dialling = TcpStream::connect(&site.link.connect);
        let tcp = tokio::time::timeout(DIALLING, dialling).await;
        let tcp = tcp.map_err(|_| NotMet::unreachable("no answer to dialling"))?;
        let tcp = tcp.map_err(NotMet::unreachable)?;
        tcp.set_nodelay(true).map_err(NotMet::unreachable)?;
        let name = tls::server_name(site.link.expected_name()).map_err(NotMet::refused)?;
        let counted = Counted::new(tcp, Arc::clone(counters));
        let secured = tls::connect(counted, &config, name).await;
        let secured = secured.map_err(|error| match error {
            tls::TlsError::TimedOut | tls::TlsError::Handshake(_) => NotMet::unreachable(error),
            error => NotMet::refused(error),
        })?;
        let certificate = secured.site();
        let certificate = certificate
            .ok_or_else(|| NotMet::refused("the certificate of the remote names no site"))?;
        let hello = Hello::new(site.ground.config.site.name.clone(), engine, channel, token);
        let greeting = introduce(secured.stream, &hello, &certificate);
        let greeting = tokio::time::timeout(GREETING, greeting).await;
        halves.push(greeting.map_err(|_| NotMet::unreachable("no answer to the greeting"))??);
    }
    match (halves.pop(), halves.pop()) {
        (Some(bulk), Some(control)) => Ok((control, bulk)),
        _ => Err(NotMet::unreachable("two connections were to be made")),
    }
}

async fn introduce(stream: Stream, hello: &Hello, certificate: &SiteName) -> Result<Half, NotMet> {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader, link::FRAME_MAX);
    let mut writer = FrameWriter::new(writer, link::FRAME_MAX);
    let hello_frame = Message::Hello(hello.clone()).encode();
    writer.write(&[&hello_frame]).await.map_err(NotMet::unreachable)?;
    writer.flush().await.map_err(NotMet::unreachable)?;
    let answer = reader.next().await.map_err(NotMet::unreachable)?;
    let answer = answer.ok_or_else(|| NotMet::unreachable("the remote closed the connection"))?;
    match Message::decode(answer).map_err(NotMet::refused)? {
        Message::Hello(theirs) => {
            let peer = greet(hello, &theirs, certificate).map_err(NotMet::refused)?;
            Ok(Half { reader, writer, peer })
        }
        Message::Goodbye(goodbye) => Err(NotMet::refused(goodbye.text)),
        _ => Err(NotMet::refused("the remote did not greet")),
    }
}

/// Runs a pair of connections until one of them ends; why it did.
async fn run(site: &Arc<RemoteSite>, control: Half, bulk: Half) -> Failure {
    let mut tasks: JoinSet<Failure> = JoinSet::new();
    let (control_way, control_queue) = ControlWay::new();
    let (bulk_way, bulk_queues) = Bulk::new();
    let peer = control.peer.clone();
    let bandwidth = bandwidth(&site.ground.config);
    // Before anything is read: a report or an answer must find the site up.
    let (meeting, renamed) = site.up(&peer, control_way.clone(), bulk_way.clone());
    greeted(site, &peer, meeting, renamed).await;
    site.replicator().up(&peer.site, bulk_way.clone());
    tasks.spawn(write_control(control.writer, control_queue));
    tasks.spawn(write_bulk(bulk.writer, bulk_queues, bandwidth));
    tasks.spawn(read_control(Arc::clone(site), control.reader, control_way.clone()));
    tasks.spawn(read_bulk(Arc::clone(site), bulk.reader));
    tasks.spawn(keep_alive(control_way, bulk_way));
    let ended = match tasks.join_next().await {
        Some(Ok(cause)) => cause,
        Some(Err(error)) => error.into(),
        None => "nothing ran".into(),
    };
    site.replicator().down();
    tasks.shutdown().await;
    ended
}

/// What may go: of what a copy waits for, and of the rest.
fn bandwidth(config: &Arc<LocalConfig>) -> (Bandwidth, Bandwidth) {
    let all = Arc::clone(config);
    let rest = Bandwidth::by(Arc::new(move || {
        let Replication { bandwidth, calendar, .. } = &all.replication;
        rate_at(*bandwidth, calendar, jiff::Zoned::now().datetime())
    }));
    match config.replication.copies_unlimited {
        true => (Bandwidth::unlimited(), rest),
        false => (rest.clone(), rest),
    }
}

/// Writes down whom we met.
async fn greeted(site: &Arc<RemoteSite>, peer: &Peer, meeting: Meeting, renamed: bool) {
    let name = peer.site.to_string();
    tracing::info!(site = name, address = site.address(), "link up");
    if renamed {
        let (site, name) = (Arc::clone(site), name.clone());
        let kept = tokio::task::spawn_blocking(move || {
            if let Err(error) = site.ground.catalogue.set_meta(&name_key(&site.link), &name) {
                tracing::warn!(%error, "the name of a site could not be kept");
            }
        });
        drop(kept.await);
    }
    note(site, messages::LINK_UP, "site", name.clone(), String::new()).await;
    if meeting == Meeting::Restarted {
        note(site, messages::PEER_RESTARTED, "site", name, String::new()).await;
    }
}

/// The next message, or why there is none.
async fn next(
    reader: &mut FrameReader<ReadHalf<Stream>>,
    channel: Channel,
) -> Result<Message, Failure> {
    let frame: Bytes = tokio::time::timeout(SILENCE, reader.next())
        .await
        .map_err(|_| "nothing was heard for too long")??
        .ok_or("the remote closed the connection")?;
    match Message::decode_on(frame, channel)? {
        Message::Goodbye(goodbye) => Err(goodbye.text.into()),
        message => Ok(message),
    }
}

async fn read_control(
    site: Arc<RemoteSite>,
    mut reader: FrameReader<ReadHalf<Stream>>,
    control: ControlWay,
) -> Failure {
    loop {
        let message = match next(&mut reader, Channel::Control).await {
            Ok(message) => message,
            Err(cause) => return cause,
        };
        match message {
            Message::LeaseReply(reply) => site.lease_reply(reply),
            Message::Ping(nonce) => control.send(Message::Pong(nonce)),
            Message::Report(report) => {
                let site = Arc::clone(&site);
                // In order with what follows; a report waits for the catalogue's disk.
                drop(tokio::task::spawn_blocking(move || site.reported(report)).await);
            }
            Message::Job(report) => {
                let (site, control) = (Arc::clone(&site), control.clone());
                let done = tokio::task::spawn_blocking(move || {
                    if super::facts::reconcile(&site.ground.catalogue, &report) {
                        control.send(Message::JobAck(report.job));
                    }
                });
                drop(done.await);
            }
            Message::JobProof(job, how) => {
                let site = Arc::clone(&site);
                let kept = tokio::task::spawn_blocking(move || {
                    super::facts::proven(&site.ground.catalogue, job, how);
                    site.ground.policy.ring();
                });
                drop(kept.await);
            }
            Message::Pong(_) => {}
            _ => return "the remote sent a message that is not its own".into(),
        }
    }
}

async fn read_bulk(site: Arc<RemoteSite>, mut reader: FrameReader<ReadHalf<Stream>>) -> Failure {
    loop {
        match next(&mut reader, Channel::Bulk).await {
            Ok(Message::Replicate(message)) => site.replicator().message(message).await,
            Ok(Message::Stream(message)) => site.stream_message(message),
            Ok(Message::Heal(message)) => site.heard_of_healing(message),
            Ok(Message::Compare(message)) => site.heard_of_comparing(message),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(_) => return "the remote sent a message on the wrong connection".into(),
            Err(cause) => return cause,
        }
    }
}

async fn keep_alive(control: ControlWay, bulk: Bulk) -> Failure {
    let mut ticks = tokio::time::interval(PING);
    loop {
        ticks.tick().await;
        if control.is_over() {
            return "the link is taken down".into();
        }
        control.send(Message::Ping(0));
        bulk.ping();
    }
}
