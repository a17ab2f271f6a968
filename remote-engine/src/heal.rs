//! Chunks that are damaged in this store or in that of a local engine.

use std::sync::Arc;

use link::{ChunkData, Heal, Message};
use model::{Digest, SiteName};
use service::healing::{Answer, Elsewhere, fetch_from};
use service::shutdown::Shutdown;
use store::{Encoding, StoredChunk};
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
        fetch_from(ground.peers.bulk_ways(), wanted, |way, wanted| {
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
