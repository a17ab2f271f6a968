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
            value["cartridge"] = self.name_of(info.cartridge).into();
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
