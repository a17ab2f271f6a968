//! Chunks that are damaged in this store or in that of a remote engine.

use link::{ChunkData, Heal, Message};
use model::{Digest, SiteName};
use service::healing::{Answer, Elsewhere, fetch_from};
use service::shutdown::Shutdown;
use store::{Encoding, StoredChunk};

use super::{Links, RemoteSite};

impl Elsewhere for Links {
    fn fetch(
        &self,
        wanted: &[Digest],
        shutdown: &Shutdown,
    ) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
        let sites = self.sites().iter();
        let up = sites.filter_map(|site| Some((site.name()?, (site, site.bulk()?))));
        fetch_from(up, wanted, |(site, way), wanted| {
            let question = Message::Heal(Heal::Want(wanted.to_vec())).encode();
            site.healing().ask(wanted, shutdown, || way.send(true, question).is_ok())
        })
    }
}

impl RemoteSite {
    /// The remote engine asks, or answers.
    pub(super) fn heard_of_healing(&self, message: Heal) {
        match message {
            Heal::Want(wanted) => {
                let Some(way) = self.bulk() else { return };
                let send =
                    move |answer| way.send(true, Message::Heal(said(answer)).encode()).is_ok();
                self.healing().answer(&self.ground().store, wanted, send);
            }
            Heal::Chunk { digest, data } => self.healing().arrived((digest, data.and_then(stored))),
        }
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
