//! Chunks that are damaged in this store or in that of a remote engine, and what it holds.

use link::{Capabilities, ChunkData, Compare, CompareAsk, CompareBody, CompareTold, Heal, Message};
use model::{Digest, GenerationId, SiteName};
use service::comparing::{self, Held, Question};
use service::healing::{Answer, Elsewhere, fetch_from};
use service::shutdown::Shutdown;
use store::{Depth, Encoding, StoredChunk};

use super::{Links, RemoteSite};

impl Elsewhere for Links {
    fn fetch(
        &self,
        wanted: &[Digest],
        shutdown: &Shutdown,
    ) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
        let sites = self.sites().iter().filter(|site| site.can(Capabilities::HEAL));
        let up = sites.filter_map(|site| Some((site.name()?, (site, site.bulk()?))));
        fetch_from(up, wanted, |(site, way), wanted| {
            let question = Message::Heal(Heal::Want(wanted.to_vec())).encode();
            site.healing().ask(wanted, shutdown, || way.send_now(question).is_ok())
        })
    }

    fn compares_with(&self) -> Vec<SiteName> {
        let up = self.sites().iter().filter(|site| site.can(Capabilities::COMPARE));
        up.filter_map(|site| site.name()).collect()
    }

    fn ask_held(
        &self,
        site: &SiteName,
        question: &Question,
        shutdown: &Shutdown,
    ) -> Option<comparing::Answer> {
        let can = |it: &&std::sync::Arc<RemoteSite>| it.can(Capabilities::COMPARE);
        let mut up = self.sites().iter().filter(can);
        let site = up.find(|it| it.name().as_ref() == Some(site))?;
        let way = site.bulk()?;
        let body = CompareBody::Ask(CompareAsk {
            generation: question.generation,
            first: question.first,
            count: question.count,
            parts: question.parts,
            read: question.depth == Depth::Read,
        });
        site.comparing().ask(shutdown, |number| {
            way.send_now(Message::Compare(Compare { number, body }).encode()).is_ok()
        })
    }

    fn bring_again(&self, site: &SiteName, generation: GenerationId) {
        let Some(site) = self.sites().iter().find(|it| it.name().as_ref() == Some(site)) else {
            return;
        };
        match site.replicator().forget(generation) {
            Ok(()) => site.replicator().want(generation, "comparison"),
            Err(error) => tracing::warn!(%error, %generation, "it can not be replicated again"),
        }
    }
}

impl RemoteSite {
    /// The remote engine asks what is held here, or answers.
    pub(super) fn heard_of_comparing(&self, Compare { number, body }: Compare) {
        match body {
            CompareBody::Ask(ask) => {
                let Some(way) = self.bulk() else { return };
                let send = move |answer| {
                    let body = CompareBody::Told(answer);
                    // Without the connection there is nobody to tell.
                    let _ = way.send_now(Message::Compare(Compare { number, body }).encode());
                };
                let answer = move |held: comparing::Answer| send(held.map(told));
                self.comparing().answer(&self.ground().store, asked(ask), answer);
            }
            CompareBody::Told(answer) => self.comparing().arrived(number, answer.map(held)),
        }
    }

    /// The remote engine asks, or answers.
    pub(super) fn heard_of_healing(&self, message: Heal) {
        match message {
            Heal::Want(wanted) => {
                let Some(way) = self.bulk() else { return };
                let send = move |answer| way.send_now(Message::Heal(said(answer)).encode()).is_ok();
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

fn asked(ask: CompareAsk) -> Question {
    let CompareAsk { generation, first, count, parts, read } = ask;
    let depth = if read { Depth::Read } else { Depth::Present };
    Question { generation, first, count, parts, depth }
}

fn told(Held { chunks, objects, digests }: Held) -> CompareTold {
    CompareTold { chunks, objects, digests }
}

fn held(CompareTold { chunks, objects, digests }: CompareTold) -> Held {
    Held { chunks, objects, digests }
}
