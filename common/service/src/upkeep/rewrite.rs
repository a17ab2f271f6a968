//! How scattered generations lie in the store, and writing them together anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{CartridgeId, GenerationId};
use serde_json::{Value, json};
use store::{Fragmentation, GenerationInfo};
use svs::{JobKind, JobState};

use super::{Config, Pace, Upkeep};
use crate::messages;

/// Looking how scattered generations lie ends after so long.
const LOOK: Duration = Duration::from_secs(5);
/// Of each generation so many parts of 64 MiB are looked at.
const PARTS: u64 = 16;
/// So many of the generations that lie most scattered are named.
const WORST: usize = 5;

fn figures(found: &Fragmentation) -> Value {
    let rounded = (found.read_over_given() * 100.0).round() / 100.0;
    json!({
        "reads_per_gib": found.reads_per_gib(),
        "containers_per_gib": found.containers_per_gib(),
        "container_changes_per_gib": found.changes_per_gib(),
        "read_over_given": rounded,
    })
}

impl Upkeep {
    /// How scattered the generations lie, the newest first, as far as there is time to look.
    pub(super) fn fragmentation(&self) -> Value {
        let begun = Instant::now();
        let mut infos = self.store.all_generations();
        infos.sort_by_key(|info| std::cmp::Reverse(info.created_ms));
        let (mut all, mut each) = (Fragmentation::default(), Vec::new());
        for info in infos {
            if begun.elapsed() > LOOK {
                break;
            }
            // Gone meanwhile, or damaged, which the check tells.
            let Ok(found) = self.store.fragmentation(info.id, Some(PARTS)) else { continue };
            all = all.and(found);
            each.push((found, info));
        }
        let mut value = figures(&all);
        value["generations"] = each.len().into();
        each.sort_by_key(|(found, _)| std::cmp::Reverse(found.reads_per_gib()));
        let named = each.iter().take(WORST).map(|(found, info)| {
            let mut value = figures(found);
            value["cartridge"] = self.cartridge_name(info.cartridge).into();
            value["generation"] = info.id.to_string().into();
            value
        });
        value["worst"] = named.collect::<Vec<_>>().into();
        value
    }

    /// Whether a copy reads the store now.
    pub(super) fn is_copying(&self) -> bool {
        [JobKind::Copy, JobKind::Migration].into_iter().any(|kind| {
            let jobs = self.catalogue.unfinished_jobs(Some(kind)).unwrap_or_default();
            jobs.iter().any(|job| job.state == JobState::InProgress)
        })
    }

    /// The newest generation of each cartridge, what was written last first: what is moved for one
    /// is not moved once more for another.
    fn newest(&self) -> Vec<GenerationInfo> {
        let mut newest: BTreeMap<CartridgeId, GenerationInfo> = BTreeMap::new();
        for info in self.store.all_generations() {
            newest.insert(info.cartridge, info);
        }
        let mut newest: Vec<_> = newest.into_values().collect();
        newest.sort_by_key(|info| std::cmp::Reverse(info.created_ms));
        newest
    }

    fn is_rewritten(&self, info: &GenerationInfo) -> bool {
        let last = self.catalogue.meta(&rewritten(info.cartridge)).ok().flatten();
        last.and_then(|text| text.parse::<GenerationId>().ok()) == Some(info.id)
    }

    /// Writes newest generations together anew where they lie too scattered. The schedule passes
    /// over those that it has been through, and ends when a copy begins to read. Blocks.
    pub(super) fn rewrite(&self, by: &str) -> Result<Value, String> {
        let scheduled = by == "schedule";
        self.as_upkeep((JobKind::Collect, "rewrite"), by, |job| {
            let text = |error: store::StoreError| error.to_string();
            let config = &self.config;
            let reads = match config.rewrite_reads {
                0 => Config::default().rewrite_reads,
                reads => reads,
            };
            let begun = self.store.rewriting(reads, config.rewrite_room);
            let mut rewriting = begun.map_err(text)?;
            let mut pace = Pace::new(config.rewrite_rate.0, &self.shutdown);
            let (mut windows, mut generations) = (0_u64, 0);
            let mut step = |moved: u64| {
                windows += 1;
                let yields = scheduled && windows.is_multiple_of(8) && self.is_copying();
                pace.wait(2 * moved) && !yields
            };
            for info in self.newest() {
                if scheduled && self.is_rewritten(&info) {
                    continue;
                }
                let before = rewriting.done().moved;
                let whole = rewriting.generation(info.id, &mut step).map_err(text)?;
                generations += u64::from(rewriting.done().moved > before);
                if !whole {
                    break;
                }
                let (key, id) = (rewritten(info.cartridge), info.id.to_string());
                self.log(self.catalogue.set_meta(&key, &id));
            }
            let done = rewriting.done();
            if done.moved > 0 {
                let words: [(&str, &dyn std::fmt::Display); 2] =
                    [("moved", &done.moved), ("count", &generations)];
                self.say(messages::STORE_REWRITTEN, &words, job);
            }
            if done.full {
                let room = u32::from(config.rewrite_room);
                self.say(messages::STORE_SCATTERED, &[("percent", &room)], job);
            }
            let value = json!({
                "job": job.to_string(),
                "generations": generations,
                "bytes_looked_at": done.looked,
                "chunks_moved": done.chunks,
                "bytes_moved": done.moved,
                "no_more_room": done.full,
            });
            Ok((value, done.moved))
        })
    }
}

/// Under which name it is kept how far a cartridge was seen to.
fn rewritten(cartridge: CartridgeId) -> String {
    format!("upkeep/rewritten/{cartridge}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use model::{Digest, JobId, SiteName, Ulid};
    use store::{ChunkParams, Options, Store, StoredChunk};
    use svs::{Catalogue, JobOwner, NewJob};
    use vfs::{CrashVfs, Vfs};

    use super::*;
    use crate::healing::Elsewhere;
    use crate::shutdown::{self, Shutdown};

    struct Nowhere;

    impl Elsewhere for Nowhere {
        fn fetch(
            &self,
            _: &[Digest],
            _: &Shutdown,
        ) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
            None
        }
    }

    const CARTRIDGE: CartridgeId = CartridgeId(Ulid(1));
    const LENGTH: usize = 2 << 20;

    /// An image that changes in many places each time that it is backed up.
    struct Image {
        state: u64,
        bytes: Vec<u8>,
    }

    impl Image {
        fn new() -> Self {
            let mut image = Self { state: 7, bytes: Vec::new() };
            image.bytes = (0..LENGTH).map(|_| image.next() as u8).collect();
            image
        }

        fn next(&mut self) -> u64 {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.state >> 33
        }

        fn back_up(&mut self, store: &Store) {
            let mut image = store.image(CARTRIDGE).unwrap();
            self.bytes.chunks(65_536).for_each(|record| image.write(record).unwrap());
            image.seal().unwrap().unwrap();
            for _ in 0..100 {
                let at = self.next() as usize % LENGTH;
                self.bytes[at] ^= 1;
            }
        }
    }

    #[test]
    fn it_is_done_once_for_each_generation_and_not_while_a_copy_reads() {
        let chunk = ChunkParams { min: 128, average: 256, max: 1024, ..ChunkParams::default() };
        let options = Options { chunk, container_bytes: 1 << 20, ..Options::default() };
        let disk: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (store, _) = Store::open(disk, Path::new("/store"), &options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Arc::new(Catalogue::open(&dir.path().join("svs.db")).unwrap());
        let (_trigger, shutdown) = shutdown::channel();
        // A window of this store is 128 KiB: 8 reads.
        let zero = model::ByteSize(0);
        let config = Config {
            rewrite_reads: 65_536,
            rewrite_rate: zero,
            rewrite_room: 50,
            ..Config::default()
        };
        let upkeep =
            Upkeep::new(store.clone(), catalogue.clone(), config, shutdown, Arc::new(Nowhere));
        let mut image = Image::new();
        (0..12).for_each(|_| image.back_up(&store));
        let newest = || store.latest(CARTRIDGE).unwrap().id.to_string();
        let worst = upkeep.fragmentation()["worst"][0].clone();
        assert_eq!(worst["generation"], newest().as_str(), "{worst:#}");
        let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
        assert!(number(&worst, "reads_per_gib") > 65_536, "{worst:#}");

        let done = upkeep.rewrite("schedule").unwrap();
        assert!(number(&done, "bytes_moved") > 0 && number(&done, "generations") == 1, "{done:#}");
        assert_eq!(number(&done, "bytes_looked_at"), LENGTH as u64);
        let found = upkeep.fragmentation();
        assert!(number(&found["worst"][0], "reads_per_gib") < number(&worst, "reads_per_gib"));
        assert_eq!(number(&found, "generations"), 12);
        assert_eq!(number(&upkeep.rewrite("schedule").unwrap(), "bytes_looked_at"), 0);
        assert_eq!(number(&upkeep.rewrite("admin").unwrap(), "bytes_looked_at"), LENGTH as u64);

        image.back_up(&store);
        let id = JobId(Ulid(9));
        let mut job = NewJob::new(id, JobKind::Copy, JobOwner::Engine, ("a", "b"), "test");
        job.state = JobState::InProgress;
        catalogue.create_job(&job).unwrap();
        let ended = number(&upkeep.rewrite("schedule").unwrap(), "bytes_looked_at");
        assert!(ended > 0 && ended < LENGTH as u64, "{ended}");
        catalogue.finish(id, &svs::Ending::cancelled("it is over".to_owned())).unwrap();
        // What was not seen to wholly is seen to again.
        let whole = number(&upkeep.rewrite("schedule").unwrap(), "bytes_looked_at");
        assert_eq!(whole, LENGTH as u64);
    }
}
