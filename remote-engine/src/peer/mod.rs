//! Connections of local engines: who may come in, and how two connections become a pair.

mod outbox;
mod pair;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::{Channel, Goodbye, GoodbyeReason, GreetError, Hello, Message, Pairing, Peer, greet};
use service::bandwidth::{Counted, Counters};
use service::framing::{FrameReader, FrameWriter};
use service::messages;
use service::shutdown::Shutdown;
use service::tls;
use svs::EventKind;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::engine::Ground;
use crate::lease::Event;
pub use outbox::Peers;
pub(crate) use outbox::goodbye;

/// Connections that have not greeted yet.
const STRANGERS: usize = 64;
/// How long a greeting may take, and how long half a pair waits for its other half.
const GREETING: Duration = Duration::from_secs(15);

type Stream = TlsStream<Counted<TcpStream>>;
pub(crate) type Reader = FrameReader<ReadHalf<Stream>>;
pub(crate) type Writer = FrameWriter<WriteHalf<Stream>>;

/// What a connection needs to come in.
pub struct Door {
    /// The engine.
    pub ground: Arc<Ground>,
    /// The desk of the leases.
    pub leases: mpsc::Sender<Event>,
    /// This engine's certificate and authority.
    pub tls: Arc<ServerConfig>,
}

/// Why a connection did not come in.
enum NotIn {
    /// Something has to be changed at one of the sites: certificates, names, versions.
    Refused(String),
    /// The network, or a peer that ended; it tries again by itself.
    Broken(String),
}

impl NotIn {
    fn refused(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }

    fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A greeted connection.
struct Half {
    reader: Reader,
    writer: Writer,
    peer: Peer,
    /// Counts what is on the wire, to hear whether the peer lives.
    counters: Arc<Counters>,
}

/// Takes connections in until the shutdown; pairs say goodbye before it returns.
pub async fn listen(listener: TcpListener, door: Arc<Door>, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(STRANGERS));
    let pairing = Arc::new(Mutex::new(Pairing::<Half>::default()));
    let mut strangers: JoinSet<Option<(Half, Half)>> = JoinSet::new();
    let mut pairs: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = pairs.join_next(), if !pairs.is_empty() => {}
            Some(ended) = strangers.join_next(), if !strangers.is_empty() => {
                if let Ok(Some((control, bulk))) = ended {
                    let (door, shutdown) = (Arc::clone(&door), shutdown.clone());
                    pairs.spawn(async move { pair::run(&door, control, bulk, shutdown).await });
                }
            }
            accepted = accept(&listener, &places) => {
                let Some((stream, address, place)) = accepted else { continue };
                let (door, pairing) = (Arc::clone(&door), Arc::clone(&pairing));
                strangers.spawn(async move {
                    let both = come_in(&door, stream, address, &pairing).await;
                    drop(place);
                    both
                });
            }
        }
    }
    strangers.shutdown().await;
    // Pairs hear of the shutdown themselves.
    while pairs.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // Out of descriptors: let somebody else end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Greets a connection, and waits for its other half if it is the first of a pair.
async fn come_in(
    door: &Door,
    stream: TcpStream,
    address: SocketAddr,
    pairing: &Arc<Mutex<Pairing<Half>>>,
) -> Option<(Half, Half)> {
    let greeting = tokio::time::timeout(GREETING, introduce(door, stream, address)).await;
    let (hello, half) = match greeting {
        Ok(Ok(found)) => found,
        Ok(Err(NotIn::Refused(cause))) => {
            refused(door, address, cause).await;
            return None;
        }
        Ok(Err(NotIn::Broken(cause))) => {
            tracing::info!(%address, cause, "a connection broke before it was greeted");
            return None;
        }
        Err(_) => {
            tracing::warn!(%address, "a connection did not greet in time");
            return None;
        }
    };
    let site = half.peer.site.clone();
    let lock = || pairing.lock().unwrap_or_else(PoisonError::into_inner);
    let both = lock().add(site.clone(), &hello, half);
    if both.is_none() {
        tokio::time::sleep(GREETING).await;
        drop(lock().forget(&site, hello.token));
    }
    both
}

async fn refused(door: &Door, address: SocketAddr, cause: String) {
    let ground = Arc::clone(&door.ground);
    let noted = tokio::task::spawn_blocking(move || {
        let words: [(&str, &dyn std::fmt::Display); 2] = [("peer", &address), ("cause", &cause)];
        let id = messages::LINK_REFUSED;
        messages::note(&ground.catalogue, EventKind::Link, id, &words, None);
    });
    // A panic there was reported when it happened.
    let _ = noted.await;
}

async fn introduce(
    door: &Door,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(Hello, Half), NotIn> {
    stream.set_nodelay(true).map_err(NotIn::broken)?;
    let counters = Arc::new(Counters::default());
    let counted = Counted::new(stream, Arc::clone(&counters));
    let secured = tls::accept(counted, &door.tls).await.map_err(not_secured)?;
    let names = secured.peer_names.clone();
    let (reader, writer) = tokio::io::split(secured.stream);
    let mut reader = FrameReader::new(reader, link::FRAME_MAX);
    let mut writer = FrameWriter::new(writer, link::FRAME_MAX);
    let Some(known) = door.ground.config.peer(&names) else {
        let cause = format!("no [[peer]] has the name of its certificate ({})", names.join(", "));
        say_goodbye(&mut writer, goodbye(GoodbyeReason::NotAllowed, "unknown here")).await;
        stranger(door, names, address).await;
        return Err(NotIn::Refused(cause));
    };
    let frame = reader.next().await.map_err(NotIn::broken)?;
    let closed = || NotIn::broken("it closed the connection before it greeted");
    let frame = frame.ok_or_else(closed)?;
    let theirs = match Message::decode(frame) {
        Ok(Message::Hello(hello)) => hello,
        Ok(_) => {
            say_goodbye(&mut writer, goodbye(GoodbyeReason::Protocol, "no greeting")).await;
            return Err(NotIn::refused("its first message is no greeting"));
        }
        Err(error) => {
            say_goodbye(&mut writer, goodbye(GoodbyeReason::Protocol, error.to_string())).await;
            return Err(NotIn::refused(error));
        }
    };
    let (site, engine) = (door.ground.config.site.name.clone(), door.ground.engine);
    let mine = Hello::new(site, engine, theirs.channel, theirs.token);
    let peer = match greet(&mine, &theirs, &known.name) {
        Ok(peer) => peer,
        Err(error) => {
            say_goodbye(&mut writer, goodbye(reason(&error), error.to_string())).await;
            return Err(NotIn::refused(error));
        }
    };
    let answer = Message::Hello(mine).encode();
    writer.write(&[&answer]).await.map_err(NotIn::broken)?;
    writer.flush().await.map_err(NotIn::broken)?;
    Ok((theirs, Half { reader, writer, peer, counters }))
}

/// A handshake that the network cut short is nobody's refusal.
fn not_secured(error: tls::TlsError) -> NotIn {
    match error {
        tls::TlsError::TimedOut | tls::TlsError::Handshake(_) => NotIn::broken(error),
        error => NotIn::refused(error),
    }
}

fn reason(error: &GreetError) -> GoodbyeReason {
    match error {
        GreetError::Version { .. } => GoodbyeReason::Version,
        GreetError::Site { .. } | GreetError::Myself(_) => GoodbyeReason::NotAllowed,
        GreetError::Mixed => GoodbyeReason::Protocol,
    }
}

async fn stranger(door: &Door, names: Vec<String>, address: SocketAddr) {
    let ground = Arc::clone(&door.ground);
    let noted = tokio::task::spawn_blocking(move || {
        let names = names.join(", ");
        let words: [(&str, &dyn std::fmt::Display); 2] = [("names", &names), ("address", &address)];
        let id = messages::PEER_UNKNOWN;
        messages::note(&ground.catalogue, EventKind::Security, id, &words, None);
    });
    // A panic there was reported when it happened.
    let _ = noted.await;
}

/// The last words on a connection; whether they arrive does not matter any more.
async fn say_goodbye(writer: &mut Writer, goodbye: Goodbye) {
    let frame = Message::Goodbye(goodbye).encode();
    if writer.write(&[&frame]).await.is_ok() {
        let _ = writer.finish().await;
    }
}

/// Which of the two a connection is, for the log.
fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Control => "control",
        Channel::Bulk => "bulk",
    }
}
