//! Keeping a link up: dialling, TLS, greeting, and the tasks of the two connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::{Channel, Hello, Message, Peer, Token, greet};
use model::{EngineId, SiteName};
use service::bandwidth::{Bandwidth, Counted, Counters};
use service::framing::{FrameReader, FrameWriter};
use service::shutdown::Shutdown;
use service::tls;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::replicate::Bulk;
use super::site::RemoteSite;
use crate::engine::now_ms;

/// The first and the longest pause between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A sign of life is sent so often, and one is expected within the silence.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);
/// How often leases are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(10);

type Stream = TlsStream<Counted<TcpStream>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Half {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
    peer: Peer,
}

/// Keeps the link to a site up until the shutdown.
pub(super) async fn keep_up(site: Arc<RemoteSite>, shutdown: Shutdown) {
    let engine = EngineId::generate(now_ms());
    let counters = Arc::new(Counters::default());
    let mut pause = RETRY.0;
    let mut told = false;
    loop {
        let attempt = tokio::select! {
            () = shutdown.requested() => return,
            attempt = meet(&site, engine, &counters) => attempt,
        };
        match attempt {
            Ok((control, bulk)) => {
                (pause, told) = (RETRY.0, false);
                let name = control.peer.site.clone();
                tracing::info!(site = %name, address = site.address(), "link up");
                let ended = tokio::select! {
                    () = shutdown.requested() => {
                        site.down();
                        return;
                    }
                    ended = run(&site, control, bulk, &counters) => ended,
                };
                site.down();
                tracing::warn!(site = %name, cause = %ended, "link down");
            }
            Err(error) if told => {
                tracing::debug!(address = site.address(), %error, "the remote can not be reached");
            }
            Err(error) => {
                told = true;
                tracing::warn!(address = site.address(), %error, "the remote can not be reached");
            }
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
        }
    }
}

async fn meet(
    site: &Arc<RemoteSite>,
    engine: EngineId,
    counters: &Arc<Counters>,
) -> Result<(Half, Half), Failure> {
    let config = tls::client_config(site.link.tls())?;
    let token = Token(EngineId::generate(now_ms()).to_bytes());
    let mut halves = Vec::new();
    for channel in [Channel::Control, Channel::Bulk] {
        let tcp = TcpStream::connect(&site.link.connect).await?;
        tcp.set_nodelay(true)?;
        let name = tls::server_name(site.link.expected_name())?;
        let counted = Counted::new(tcp, Arc::clone(counters));
        let secured = tls::connect(counted, &config, name).await?;
        let certificate = secured.site().ok_or("the certificate of the remote names no site")?;
        let hello = Hello::new(site.ground.config.site.name.clone(), engine, channel, token);
        let greeting = introduce(secured.stream, &hello, &certificate);
        halves.push(tokio::time::timeout(GREETING, greeting).await??);
    }
    match (halves.pop(), halves.pop()) {
        (Some(bulk), Some(control)) => Ok((control, bulk)),
        _ => Err("two connections were to be made".into()),
    }
}

async fn introduce(stream: Stream, hello: &Hello, certificate: &SiteName) -> Result<Half, Failure> {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader, link::FRAME_MAX);
    let mut writer = FrameWriter::new(writer, link::FRAME_MAX);
    writer.write(&[&Message::Hello(hello.clone()).encode()]).await?;
    writer.flush().await?;
    let answer = reader.next().await?.ok_or("the remote closed the connection")?;
    match Message::decode(answer)? {
        Message::Hello(theirs) => {
            let peer = greet(hello, &theirs, certificate)?;
            Ok(Half { reader, writer, peer })
        }
        Message::Goodbye(goodbye) => Err(goodbye.text.into()),
        _ => Err("the remote did not greet".into()),
    }
}

/// Runs a pair of connections until one of them ends; why it did.
async fn run(
    site: &Arc<RemoteSite>,
    control: Half,
    bulk: Half,
    counters: &Arc<Counters>,
) -> Failure {
    let mut tasks: JoinSet<Failure> = JoinSet::new();
    let (to_control, control_out) = mpsc::unbounded_channel();
    let (bulk_way, bulk_out) = Bulk::new();
    let peer = control.peer.clone();
    let limit = site.ground.config.replication.bandwidth;
    let bandwidth = limit.map_or_else(Bandwidth::unlimited, |rate| Bandwidth::per_second(rate.0));
    tasks.spawn(write_control(control.writer, control_out));
    tasks.spawn(super::replicate::write_bulk(bulk.writer, bulk_out, bandwidth));
    tasks.spawn(read_control(Arc::clone(site), control.reader, to_control.clone()));
    tasks.spawn(read_bulk(Arc::clone(site), bulk.reader));
    tasks.spawn(keep_alive(Arc::clone(site), to_control.clone(), bulk_way.clone()));
    site.up(&peer, to_control, bulk_way.clone());
    site.replicator().up(&peer.site, bulk_way, Arc::clone(counters));
    let ended = match tasks.join_next().await {
        Some(Ok(cause)) => cause,
        Some(Err(error)) => error.into(),
        None => "nothing ran".into(),
    };
    site.replicator().down();
    tasks.shutdown().await;
    ended
}

async fn write_control(
    mut writer: FrameWriter<WriteHalf<Stream>>,
    mut messages: mpsc::UnboundedReceiver<Message>,
) -> Failure {
    while let Some(message) = messages.recv().await {
        if let Err(error) = writer.write(&[&message.encode()]).await {
            return error.into();
        }
        if messages.is_empty()
            && let Err(error) = writer.flush().await
        {
            return error.into();
        }
    }
    "the link is taken down".into()
}

/// The next message, or why there is none.
async fn next(reader: &mut FrameReader<ReadHalf<Stream>>) -> Result<Message, Failure> {
    let frame: Bytes = tokio::time::timeout(SILENCE, reader.next())
        .await
        .map_err(|_| "nothing was heard for too long")??
        .ok_or("the remote closed the connection")?;
    match Message::decode(frame)? {
        Message::Goodbye(goodbye) => Err(goodbye.text.into()),
        message => Ok(message),
    }
}

async fn read_control(
    site: Arc<RemoteSite>,
    mut reader: FrameReader<ReadHalf<Stream>>,
    control: mpsc::UnboundedSender<Message>,
) -> Failure {
    loop {
        let message = match next(&mut reader).await {
            Ok(message) => message,
            Err(cause) => return cause,
        };
        match message {
            Message::LeaseReply(reply) => site.lease_reply(reply),
            Message::Ping(nonce) => drop(control.send(Message::Pong(nonce))),
            Message::Report(report) => {
                let site = Arc::clone(&site);
                // In order with what follows; a report waits for the catalogue's disk.
                drop(tokio::task::spawn_blocking(move || site.reported(report)).await);
            }
            Message::Job(report) => {
                let (site, control) = (Arc::clone(&site), control.clone());
                let done = tokio::task::spawn_blocking(move || {
                    if super::replicate::reconcile(&site.ground, &report) {
                        drop(control.send(Message::JobAck(report.job)));
                    }
                });
                drop(done.await);
            }
            Message::Pong(_) => {}
            _ => return "the remote sent a message that is not its own".into(),
        }
    }
}

async fn read_bulk(site: Arc<RemoteSite>, mut reader: FrameReader<ReadHalf<Stream>>) -> Failure {
    loop {
        match next(&mut reader).await {
            Ok(Message::Replicate(message)) => site.replicator().message(message).await,
            Ok(Message::Stream(message)) => site.stream_message(message),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(_) => return "the remote sent a message on the wrong connection".into(),
            Err(cause) => return cause,
        }
    }
}

async fn keep_alive(
    site: Arc<RemoteSite>,
    control: mpsc::UnboundedSender<Message>,
    bulk: Bulk,
) -> Failure {
    let mut ticks = tokio::time::interval(TICK);
    let mut pinged = Instant::now();
    loop {
        ticks.tick().await;
        let held = Arc::clone(&site);
        drop(tokio::task::spawn_blocking(move || held.tick()).await);
        if pinged.elapsed() >= PING {
            pinged = Instant::now();
            if control.send(Message::Ping(0)).is_err() {
                return "the link is taken down".into();
            }
            bulk.ping();
        }
    }
}
