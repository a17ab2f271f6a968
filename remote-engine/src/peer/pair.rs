//! A pair of connections at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use link::{Channel, Goodbye, GoodbyeReason, Message, Peer};
use service::bandwidth::Counters;
use service::messages;
use service::shutdown::Shutdown;
use svs::EventKind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::outbox::{Pair, QUEUE};
use super::{Door, Half, Reader, Writer, channel_name, goodbye, say_goodbye};
use crate::engine::Ground;
use crate::lease::Event;
use crate::replica::Transfers;

/// A silent connection is asked for a sign of life so often.
const PING: Duration = Duration::from_secs(5);
/// So much silence is the end.
const SILENCE: Duration = Duration::from_secs(20);
/// How often silence is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bulk messages that wait for the connection: wants, credits and chunks of streams.
const BULK_QUEUE: usize = 64;

/// Runs a pair until either side ends it.
pub(super) async fn run(door: &Door, control: Half, bulk: Half, shutdown: Shutdown) {
    let ground = &door.ground;
    let peer = control.peer.clone();
    let (control_out, control_queue) = mpsc::channel(QUEUE);
    let (bulk_out, bulk_queue) = mpsc::channel(BULK_QUEUE);
    let (end, mut ended) = watch::channel(None);
    let ways = (control_out.clone(), bulk_out.clone());
    let pair = Pair { peer: peer.clone(), control: ways.0, bulk: ways.1, end: end.clone() };
    let number = ground.peers.add(pair);
    say(ground, messages::LINK_UP, &peer, String::new()).await;
    if door.leases.send(Event::Met(peer.clone())).await.is_err() {
        return;
    }
    ground.reporter.greet(&peer.site);
    let mut writers: JoinSet<Result<(), String>> = JoinSet::new();
    writers.spawn(write(control.writer, control_queue, end.subscribe()));
    writers.spawn(write(bulk.writer, bulk_queue, end.subscribe()));
    // Before anything is read: a message of this pair must not meet what a former one left.
    let (met, way) = ((Arc::clone(ground), peer.clone()), bulk_out.clone());
    let up = tokio::task::spawn_blocking(move || met.0.streams.up(&met.1, number, way));
    // A panic there was reported when it happened.
    let _ = up.await;
    let mut tasks: JoinSet<Goodbye> = JoinSet::new();
    let busy = Arc::new(AtomicBool::new(false));
    tasks.spawn(listen(control.counters, Arc::default(), control_out.clone()));
    tasks.spawn(listen(bulk.counters, Arc::clone(&busy), bulk_out.clone()));
    let leases = door.leases.clone();
    let from = From { ground: Arc::clone(ground), peer: peer.clone(), number };
    tasks.spawn(read_control(from.clone(), control.reader, leases, control_out));
    tasks.spawn(read_bulk(from, bulk.reader, bulk_out, busy));
    let words = tokio::select! {
        () = shutdown.requested() => goodbye(GoodbyeReason::Shutdown, "the engine stops"),
        _ = ended.changed() => {
            let replaced = || goodbye(GoodbyeReason::Replaced, "a newer pair took over");
            ended.borrow().clone().unwrap_or_else(replaced)
        }
        Some(first) = tasks.join_next() => {
            first.unwrap_or_else(|_| goodbye(GoodbyeReason::Shutdown, "a task failed"))
        }
        Some(first) = writers.join_next() => {
            let cause = match first {
                Ok(Err(cause)) => cause,
                _ => "nothing more is to be said".to_owned(),
            };
            goodbye(GoodbyeReason::Shutdown, cause)
        }
    };
    tasks.shutdown().await;
    ground.streams.down(&peer.site, number);
    ground.peers.remove(&peer.site, number);
    let cause = words.text.clone();
    end.send_replace(Some(words));
    let last = async { while writers.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, last).await.is_err() {
        writers.shutdown().await;
    }
    // That the engine stops is said once, and not for each link.
    if !shutdown.is_requested() {
        say(ground, messages::LINK_DOWN, &peer, cause).await;
    }
}

async fn say(ground: &Arc<Ground>, id: &'static str, peer: &Peer, cause: String) {
    let (ground, site) = (Arc::clone(ground), peer.site.clone());
    let noted = tokio::task::spawn_blocking(move || {
        let words: [(&str, &dyn std::fmt::Display); 2] = [("site", &site), ("cause", &cause)];
        let subject = Some(site.as_str());
        messages::note(&ground.catalogue, EventKind::Link, id, &words, subject);
    });
    // A panic there was reported when it happened.
    let _ = noted.await;
}

/// Where a message comes from.
#[derive(Clone)]
struct From {
    ground: Arc<Ground>,
    peer: Peer,
    number: u64,
}

/// Watches the bytes that arrive: asks a silent peer for a sign of life, and gives it up. While
/// this side is busy with what came, nothing is read and nothing can be heard.
async fn listen(
    counters: Arc<Counters>,
    busy: Arc<AtomicBool>,
    out: mpsc::Sender<Message>,
) -> Goodbye {
    let mut ticks = tokio::time::interval(LOOK);
    let (mut heard, mut since, mut asked) = (counters.read(), Instant::now(), Instant::now());
    let mut nonce = 0;
    loop {
        ticks.tick().await;
        if counters.read() != heard || busy.load(Ordering::Relaxed) {
            (heard, since) = (counters.read(), Instant::now());
        }
        if since.elapsed() >= SILENCE {
            return goodbye(GoodbyeReason::Shutdown, "nothing was heard of the peer");
        }
        if since.elapsed() >= PING && asked.elapsed() >= PING {
            (nonce, asked) = (nonce + 1, Instant::now());
            // A full queue means that the peer does not read; the silence will tell.
            let _ = out.try_send(Message::Ping(nonce));
        }
    }
}

/// The next message of a connection and its length on the wire, or why there is none.
async fn next(reader: &mut Reader, channel: Channel) -> Result<(Message, u64), Goodbye> {
    let frame = match reader.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => {
            let text = format!("the peer closed its {} connection", channel_name(channel));
            return Err(goodbye(GoodbyeReason::Shutdown, text));
        }
        Err(error) => return Err(goodbye(GoodbyeReason::Protocol, error.to_string())),
    };
    let length = frame.len() as u64 + 4;
    match Message::decode_on(frame, channel) {
        Ok(Message::Goodbye(theirs)) => {
            let text = format!("the peer says goodbye: {}", theirs.text);
            Err(goodbye(GoodbyeReason::Shutdown, text))
        }
        Ok(message) => Ok((message, length)),
        Err(error) => Err(goodbye(GoodbyeReason::Protocol, error.to_string())),
    }
}

async fn read_control(
    from: From,
    mut reader: Reader,
    leases: mpsc::Sender<Event>,
    out: mpsc::Sender<Message>,
) -> Goodbye {
    loop {
        let message = match next(&mut reader, Channel::Control).await {
            Ok((message, _)) => message,
            Err(words) => return words,
        };
        match message {
            // What an older pair still asks is asked again by the newer one.
            Message::Lease(_) if !from.ground.peers.is_newest(&from.peer.site, from.number) => {}
            Message::Lease(request) => {
                let asked = Event::Asked(from.peer.clone(), request);
                if leases.send(asked).await.is_err() {
                    return goodbye(GoodbyeReason::Shutdown, "the engine stops");
                }
            }
            Message::JobAck(_) | Message::JobOver(_) => {
                let from = from.clone();
                let noted = tokio::task::spawn_blocking(move || match message {
                    Message::JobOver(job) => {
                        from.ground.jobs.over(&from.peer.site, job);
                        from.ground.send_proof(&from.peer.site, job);
                    }
                    Message::JobAck(job) => from.ground.jobs.acknowledged(&from.peer.site, job),
                    _ => {}
                });
                // A panic there was reported when it happened.
                let _ = noted.await;
            }
            Message::Ping(nonce) => {
                if out.send(Message::Pong(nonce)).await.is_err() {
                    return goodbye(GoodbyeReason::Shutdown, "the connection is over");
                }
            }
            Message::Pong(_) => {}
            _ => return goodbye(GoodbyeReason::Protocol, "a message of the other side"),
        }
    }
}

async fn read_bulk(
    from: From,
    mut reader: Reader,
    out: mpsc::Sender<Message>,
    busy: Arc<AtomicBool>,
) -> Goodbye {
    let mut transfers = Transfers::new(Arc::clone(&from.ground), from.peer.clone(), out.clone());
    loop {
        busy.store(false, Ordering::Relaxed);
        let (message, length) = match next(&mut reader, Channel::Bulk).await {
            Ok(found) => found,
            Err(words) => return words,
        };
        busy.store(true, Ordering::Relaxed);
        match message {
            Message::Replicate(message) => transfers.message(message, length).await,
            Message::Heal(message) => crate::heal::heard(&from.ground, message, &out),
            Message::Compare(message) => crate::heal::asked(&from.ground, message, &out),
            Message::Stream(message) => {
                let from = from.clone();
                let handled = tokio::task::spawn_blocking(move || {
                    let ground = &from.ground;
                    ground.streams.message(&from.peer.site, message, &ground.store)
                });
                if let Ok(Err(cause)) = handled.await {
                    return goodbye(GoodbyeReason::Protocol, cause);
                }
            }
            Message::Ping(nonce) => {
                if out.send(Message::Pong(nonce)).await.is_err() {
                    return goodbye(GoodbyeReason::Shutdown, "the connection is over");
                }
            }
            Message::Pong(_) => {}
            _ => return goodbye(GoodbyeReason::Protocol, "a message of the other side"),
        }
    }
}

/// Writes what is queued until the pair ends; then the last words.
async fn write(
    mut writer: Writer,
    mut queue: mpsc::Receiver<Message>,
    mut end: watch::Receiver<Option<Goodbye>>,
) -> Result<(), String> {
    loop {
        let message = tokio::select! {
            message = queue.recv() => message,
            _ = end.wait_for(Option::is_some) => None,
        };
        let Some(message) = message else { break };
        writer.write(&[&message.encode()]).await.map_err(|error| error.to_string())?;
        if queue.is_empty() {
            writer.flush().await.map_err(|error| error.to_string())?;
        }
    }
    let words = end.borrow().clone();
    if let Some(words) = words {
        say_goodbye(&mut writer, words).await;
    }
    Ok(())
}
