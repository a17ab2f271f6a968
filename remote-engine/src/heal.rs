//! Chunks that are damaged in this store or in that of a local engine, and what is held here.

use std::sync::Arc;

use link::{Capabilities, ChunkData, Compare, CompareAsk, CompareBody, CompareTold, Heal, Message};
use model::{Digest, SiteName};
use service::comparing::{Held, Question};
use service::healing::{Answer, Elsewhere, fetch_from};
use service::shutdown::Shutdown;
use store::{Depth, Encoding, StoredChunk};
use tokio::sync::mpsc;

use crate::engine::Ground;

/// The local engines that are connected.
pub(crate) struct Others(pub(crate) Arc<Ground>);

impl Elsewhere for Others {
    fn fetch(
        &self,
        wanted: &[Digest],
        shutdown: &Shutdown,
    ) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
        let ground = &self.0;
        fetch_from(ground.peers.bulk_ways(Capabilities::HEAL), wanted, |way, wanted| {
            let question = Message::Heal(Heal::Want(wanted.to_vec()));
            ground.healing.ask(wanted, shutdown, || way.blocking_send(question).is_ok())
        })
    }
}

/// A local engine asks, or answers.
pub(crate) fn heard(ground: &Arc<Ground>, message: Heal, out: &mpsc::Sender<Message>) {
    match message {
        Heal::Want(wanted) => {
            let out = out.clone();
            let send = move |answer| out.blocking_send(Message::Heal(said(answer))).is_ok();
            ground.healing.answer(&ground.store, wanted, send);
        }
        Heal::Chunk { digest, data } => ground.healing.arrived((digest, data.and_then(stored))),
    }
}

/// A local engine asks what is held here.
pub(crate) fn asked(ground: &Arc<Ground>, message: Compare, out: &mpsc::Sender<Message>) {
    let Compare { number, body } = message;
    // Nothing is asked from here.
    let CompareBody::Ask(ask) = body else { return };
    let CompareAsk { generation, first, count, parts, read } = ask;
    let depth = if read { Depth::Read } else { Depth::Present };
    let question = Question { generation, first, count, parts, depth };
    let out = out.clone();
    let told = |Held { chunks, objects, digests }| CompareTold { chunks, objects, digests };
    ground.comparing.answer(&ground.store, question, move |held| {
        let body = CompareBody::Told(held.map(told));
        // Without the connection there is nobody to tell.
        drop(out.blocking_send(Message::Compare(Compare { number, body })));
    });
}

fn said((digest, chunk): Answer) -> Heal {
    let data = chunk.map(|StoredChunk { encoding, raw_len, bytes }| ChunkData {
        encoding: encoding as u8,
        raw_length: raw_len,
        bytes,
    });
    Heal::Chunk { digest, data }
}

/// In a form that this version does not know it is as good as not there.
fn stored(data: ChunkData) -> Option<StoredChunk> {
    let ChunkData { encoding, raw_length, bytes } = data;
    Some(StoredChunk { encoding: Encoding::from_byte(encoding)?, raw_len: raw_length, bytes })
}
