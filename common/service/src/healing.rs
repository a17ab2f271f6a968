//! Chunks that are damaged in one store and may be whole in that of a peer: who asks, who answers.
//! How it is said to a peer is the engine's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Digest, GenerationId, SiteName};
use store::{Result, Store, StoredChunk};

use crate::asking::Asking;
use crate::comparing::{self, Question};
use crate::shutdown::Shutdown;

/// Chunks that are asked for at once.
pub const AT_ONCE: usize = 16;
/// So long without an answer is none.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer: a chunk, or that it is not there.
pub type Answer = (Digest, Option<StoredChunk>);

/// What asks peers for chunks, and for what they hold.
pub trait Elsewhere: Send + Sync {
    /// Asks the peers that are connected, one after the other, for up to [`AT_ONCE`] chunks, until
    /// all have come. `None` if no peer answered. Nothing of what comes is proven yet. Blocks.
    fn fetch(
        &self,
        wanted: &[Digest],
        shutdown: &Shutdown,
    ) -> Option<Vec<(SiteName, Digest, StoredChunk)>>;

    /// The sites that are connected now and can be asked what they hold.
    fn compares_with(&self) -> Vec<SiteName> {
        Vec::new()
    }

    /// Asks a site what it holds. `None` if it did not answer. Blocks.
    fn ask_held(
        &self,
        _site: &SiteName,
        _question: &Question,
        _shutdown: &Shutdown,
    ) -> Option<comparing::Answer> {
        None
    }

    /// A site does not hold a generation that was replicated to it: it is brought there again.
    fn bring_again(&self, _site: &SiteName, _generation: GenerationId) {}
}

/// Asks each peer for what the former ones did not have; `ask` is one question to one peer.
pub fn fetch_from<P>(
    peers: impl IntoIterator<Item = (SiteName, P)>,
    wanted: &[Digest],
    mut ask: impl FnMut(&P, &[Digest]) -> Option<Vec<Answer>>,
) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
    let mut wanted = wanted.to_vec();
    let (mut found, mut answered) = (Vec::new(), false);
    for (site, peer) in peers {
        if wanted.is_empty() {
            break;
        }
        let Some(answers) = ask(&peer, &wanted) else { continue };
        answered = true;
        for (digest, chunk) in answers {
            let Some(chunk) = chunk else { continue };
            wanted.retain(|other| *other != digest);
            found.push((site.clone(), digest, chunk));
        }
    }
    answered.then_some(found)
}

/// The questions and answers of an engine.
#[derive(Debug, Default)]
pub struct Healing(Asking<Answer>);

impl Healing {
    /// Asks one peer, by `send`, which says whether it could be sent; the answers once all are
    /// there. Blocks.
    pub fn ask(
        &self,
        wanted: &[Digest],
        shutdown: &Shutdown,
        send: impl FnOnce() -> bool,
    ) -> Option<Vec<Answer>> {
        let mut open: BTreeSet<_> = wanted.iter().copied().collect();
        let mut found = Vec::new();
        let take = |(digest, chunk): Answer| {
            if open.remove(&digest) {
                found.push((digest, chunk));
            }
            open.is_empty()
        };
        let all = self.0.ask((wanted.len(), PATIENCE), shutdown, |_| send(), take);
        all.then_some(found)
    }

    /// An answer came. One that nobody waits for is dropped. Never waits.
    pub fn arrived(&self, answer: Answer) {
        self.0.arrived(None, answer);
    }

    /// No answer will come any more: the link is down.
    pub fn give_up(&self) {
        self.0.give_up();
    }

    /// A peer asks: its answers are read from the store and sent in the background, until `send`
    /// says that it can not.
    pub fn answer(
        self: &Arc<Self>,
        store: &Store,
        wanted: Vec<Digest>,
        send: impl Fn(Answer) -> bool + Send + 'static,
    ) {
        if !self.0.begin_answer() {
            return;
        }
        let (this, store) = (Arc::clone(self), store.clone());
        tokio::task::spawn_blocking(move || {
            for digest in wanted {
                // What is damaged here as well is not here.
                if !send((digest, store.stored_chunk(&digest).ok())) {
                    break;
                }
            }
            this.0.end_answer();
        });
    }
}

/// What came of healing.
#[derive(Debug, Default)]
pub struct Healed {
    /// Chunks that came from each site and are durable.
    pub from: BTreeMap<SiteName, u64>,
    /// Generations that lack something all the same.
    pub incomplete: Vec<GenerationId>,
}

/// Puts chunks that peers sent, and counts for each site those that were new. What is something
/// else than it is called is told, and left.
///
/// # Errors
/// The store can not be written.
pub(crate) fn put_found(
    store: &Store,
    found: Vec<(SiteName, Digest, StoredChunk)>,
    from: &mut BTreeMap<SiteName, u64>,
) -> Result<()> {
    for (site, digest, chunk) in found {
        match store.put_stored_chunk(&digest, chunk.encoding, chunk.raw_len, &chunk.bytes) {
            Ok(true) => *from.entry(site).or_default() += 1,
            Ok(false) => {}
            Err(error @ store::StoreError::WrongChunk { .. }) => {
                tracing::warn!(%site, %error, "a peer sent something else");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gets chunks that are lost from elsewhere, as far as they are there. Blocks.
///
/// # Errors
/// The store can not be read or written.
pub fn heal(
    store: &Store,
    elsewhere: &dyn Elsewhere,
    mut lost: Vec<Digest>,
    shutdown: &Shutdown,
) -> Result<Healed> {
    let _hold = store.hold();
    let mut healed = Healed::default();
    loop {
        let before = healed.chunks();
        for wanted in lost.chunks(AT_ONCE) {
            // Nobody answers: it is tried again by the next check.
            let Some(found) = elsewhere.fetch(wanted, shutdown) else { break };
            put_found(store, found, &mut healed.from)?;
        }
        store.sync()?;
        (healed.incomplete, lost) = store.lost()?;
        if lost.is_empty() || healed.chunks() == before {
            return Ok(healed);
        }
    }
}

impl Healed {
    /// Chunks that are whole again.
    pub fn chunks(&self) -> u64 {
        self.from.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::{CartridgeId, Ulid};
    use store::Options;
    use vfs::{CrashVfs, Vfs};

    use super::*;
    use crate::shutdown;

    /// Another store, asked in the way of a peer.
    struct Other {
        store: Store,
        /// Answers with other bytes.
        lies: bool,
    }

    impl Elsewhere for Other {
        fn fetch(
            &self,
            wanted: &[Digest],
            shutdown: &Shutdown,
        ) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
            assert!(wanted.len() <= AT_ONCE);
            let healing = Healing::default();
            let site = SiteName::new("dr").unwrap();
            fetch_from([(site, ())], wanted, |(), wanted| {
                healing.ask(wanted, shutdown, || {
                    for digest in wanted {
                        let mut chunk = self.store.stored_chunk(digest).ok();
                        if let Some(chunk) = chunk.as_mut().filter(|_| self.lies) {
                            chunk.bytes = vec![1; chunk.bytes.len()].into();
                        }
                        healing.arrived((*digest, chunk));
                    }
                    true
                })
            })
        }
    }

    fn filled(disk: &CrashVfs) -> (Store, GenerationId) {
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        let (store, _) = Store::open(shared, Path::new("/store"), &Options::default()).unwrap();
        let mut image = store.image(CartridgeId(Ulid(1))).unwrap();
        let mut state = 7u64;
        for _ in 0..200 {
            let next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            };
            image.write(&std::iter::repeat_with(next).take(10_000).collect::<Vec<_>>()).unwrap();
        }
        let id = image.seal().unwrap().unwrap();
        (store, id)
    }

    /// Damages every other chunk.
    fn damaged(disk: &CrashVfs, store: &Store, id: GenerationId) -> u64 {
        let dir = Path::new("/store/containers");
        let path = dir.join(&disk.list(dir).unwrap()[0]);
        let file = disk.open(&path).unwrap();
        let chunks: Vec<_> = store.recipe(id).unwrap().chunks(0).map(|it| it.unwrap()).collect();
        let mut at = 32;
        let mut bad = BTreeSet::new();
        for (n, chunk) in chunks.iter().enumerate() {
            let stored = store.stored_chunk(&chunk.digest).unwrap().bytes.len() as u64;
            if n % 2 == 0 {
                file.write_all_at(&[0xaa; 8], at + 56).unwrap();
                bad.insert(chunk.digest);
            }
            at += 56 + stored;
        }
        for digest in &bad {
            assert!(store.stored_chunk(digest).is_err());
        }
        bad.len() as u64
    }

    #[test]
    fn what_is_damaged_comes_from_elsewhere_and_is_proven() {
        let (disk, other) = (CrashVfs::new(), CrashVfs::new());
        let ((store, id), (theirs, _)) = (filled(&disk), filled(&other));
        let (_trigger, shutdown) = shutdown::channel();
        let bad = damaged(&disk, &store, id);
        assert!(bad > AT_ONCE as u64);
        let (incomplete, lost) = store.lost().unwrap();
        assert_eq!((incomplete.as_slice(), lost.len() as u64), (&[id][..], bad));
        let liar = Other { store: theirs.clone(), lies: true };
        let none = heal(&store, &liar, lost.clone(), &shutdown).unwrap();
        assert_eq!((none.chunks(), none.incomplete.len()), (0, 1));
        let honest = Other { store: theirs, lies: false };
        let healed = heal(&store, &honest, lost, &shutdown).unwrap();
        assert_eq!((healed.chunks(), healed.incomplete.len()), (bad, 0));
        assert_eq!(store.reader(id).unwrap().verify().unwrap(), 2_000_000);
    }

    #[test]
    fn what_nobody_has_stays_lost_and_is_named() {
        let disk = CrashVfs::new();
        let (store, id) = filled(&disk);
        let (_trigger, shutdown) = shutdown::channel();
        let bad = damaged(&disk, &store, id);
        let (_, lost) = store.lost().unwrap();
        let empty: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (empty, _) = Store::open(empty, Path::new("/store"), &Options::default()).unwrap();
        let healed = heal(&store, &Other { store: empty, lies: false }, lost, &shutdown).unwrap();
        assert_eq!((healed.chunks(), healed.incomplete), (0, vec![id]));
        assert_eq!(store.lost().unwrap().1.len() as u64, bad);
    }
}
