//! Comparing what was replicated, by schedule and by command.

use std::collections::{BTreeMap, BTreeSet};

use model::{GenerationId, JobId, SiteName};
use serde_json::{Value, json};
use store::{Depth, StoreError};
use svs::{JobKind, Replication, ReplicationState};

use super::{Compared, Question, compare};
use crate::healing::heal;
use crate::messages;
use crate::upkeep::{Pace, Upkeep, now};

/// Where the outcome of the last comparison is kept.
const LAST: &str = "compare/last";

/// What is compared.
struct Wanted {
    depth: Depth,
    site: Option<String>,
    cartridge: Option<String>,
}

impl Wanted {
    fn asks(&self, site: &SiteName) -> bool {
        self.site.as_ref().is_none_or(|it| it == site.as_str())
    }
}

/// What came of it, over all sites.
#[derive(Default)]
struct Outcome {
    /// By site: generations that are the same, and their chunks.
    same: BTreeMap<SiteName, (u64, u64)>,
    differing: Vec<Value>,
    /// Older generations that a site does not keep.
    not_kept: u64,
    unanswered: u64,
    /// Something lacks here.
    lacking: bool,
    bytes: u64,
}

impl Upkeep {
    /// Compares what was replicated with what the sites hold. Blocks.
    pub(crate) fn compare(&self, by: &str, params: &Value) -> Result<Value, String> {
        let word = |key: &str| params[key].as_str().map(str::to_owned);
        let depth = match params["read"].as_bool() {
            Some(true) => Depth::Read,
            _ => Depth::Present,
        };
        let wanted = Wanted { depth, site: word("site"), cartridge: word("cartridge") };
        if !self.elsewhere().compares_with().iter().any(|site| wanted.asks(site)) {
            return Err("no site is connected that can compare: the link is down, or its engine \
                        is older than this one"
                .to_owned());
        }
        self.as_upkeep((JobKind::Scrub, "compare"), by, |job| {
            let outcome = self.compare_all(&wanted, job)?;
            for (site, (count, chunks)) in &outcome.same {
                let words: [(&str, &dyn std::fmt::Display); 3] =
                    [("count", count), ("site", site), ("chunks", chunks)];
                self.say(messages::SITES_SAME, &words, job);
            }
            if outcome.lacking {
                self.heal_lost(job)?;
            }
            let same: u64 = outcome.same.values().map(|(count, _)| count).sum();
            let chunks: u64 = outcome.same.values().map(|(_, chunks)| chunks).sum();
            let value = json!({
                "job": job.to_string(),
                "same_generations": same,
                "same_chunks": chunks,
                "sites": outcome.same.keys().collect::<Vec<_>>(),
                "read": wanted.depth == Depth::Read,
                "not_kept_there": outcome.not_kept,
                "unanswered": outcome.unanswered,
                "differing": outcome.differing,
            });
            let at = jiff::Timestamp::from_second(now().as_secs() as i64);
            let mut last = value.clone();
            last["at"] = json!(at.map(|at| at.to_string()).ok());
            self.log(self.catalogue().set_meta(LAST, &last.to_string()));
            Ok((value, outcome.bytes))
        })
    }

    /// What the last comparison found, if there was one.
    pub(crate) fn last_comparison(&self) -> Value {
        let text = self.catalogue().meta(LAST).ok().flatten();
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    fn compare_all(&self, wanted: &Wanted, job: JobId) -> Result<Outcome, String> {
        let sites: BTreeSet<_> = self.elsewhere().compares_with().into_iter().collect();
        let rows = self.catalogue().replications(&[ReplicationState::Done]);
        let rows = rows.map_err(|error| error.to_string())?;
        let mut pace = Pace::new(self.check_rate(), self.shutdown());
        let mut outcome = Outcome::default();
        for row in rows.iter().filter(|row| wanted.asks(&row.site)) {
            let Some(info) = self.store().generation(row.generation) else { continue };
            let name = self.cartridge_name(info.cartridge);
            if wanted.cartridge.as_ref().is_some_and(|it| *it != name) {
                continue;
            }
            if self.shutdown().is_requested() {
                return Err("the engine stops".to_owned());
            }
            let compared = match sites.contains(&row.site) {
                true => self.compare_one(row, wanted.depth, &mut pace, job),
                false => Ok(Compared::Unanswered),
            };
            let newest = self.store().latest(info.cartridge).is_some_and(|it| it.id == info.id);
            self.take(&mut outcome, (row, &name, newest), compared, job);
        }
        outcome.bytes = pace.bytes();
        Ok(outcome)
    }

    fn compare_one(
        &self,
        row: &Replication,
        depth: Depth,
        pace: &mut Pace<'_>,
        job: JobId,
    ) -> Result<Compared, StoreError> {
        let mut ask =
            |question: &Question| self.elsewhere().ask_held(&row.site, question, self.shutdown());
        let mut pace = |bytes| {
            let done = svs::Progress { bytes: pace.bytes() + bytes, bytes_total: None };
            self.log(self.catalogue().progress(job, done));
            pace.wait(bytes)
        };
        compare(self.store(), row.generation, depth, &mut ask, &mut pace)
    }

    fn take(
        &self,
        outcome: &mut Outcome,
        (row, name, newest): (&Replication, &str, bool),
        compared: Result<Compared, StoreError>,
        job: JobId,
    ) {
        let cause = match compared {
            Ok(Compared::Unanswered) => return outcome.unanswered += 1,
            Ok(Compared::NotThere) if !newest => return outcome.not_kept += 1,
            Ok(Compared::NotThere) => {
                self.elsewhere().bring_again(&row.site, row.generation);
                "it is not there, or can not be read there; it is replicated again".to_owned()
            }
            Ok(Compared::Found(found)) if found.is_same() => {
                let (count, chunks) = outcome.same.entry(row.site.clone()).or_default();
                (*count, *chunks) = (*count + 1, *chunks + found.chunks);
                return;
            }
            Ok(Compared::Found(found)) => {
                outcome.lacking |= found.lacking_here > 0;
                found.to_string()
            }
            // It was deleted meanwhile.
            Err(StoreError::NoGeneration(_)) => return,
            Err(error) => error.to_string(),
        };
        let words: [(&str, &dyn std::fmt::Display); 4] = [
            ("cartridge", &name),
            ("generation", &row.generation),
            ("site", &row.site),
            ("cause", &cause),
        ];
        self.say(messages::SITES_DIFFER, &words, job);
        let generation: GenerationId = row.generation;
        outcome.differing.push(json!({
            "cartridge": name, "generation": generation, "site": row.site, "cause": cause,
        }));
    }

    /// Gets what lacks here from the other sites.
    fn heal_lost(&self, job: JobId) -> Result<(), String> {
        let (_, lost) = self.store().lost().map_err(|error| error.to_string())?;
        let healed = heal(self.store(), self.elsewhere(), lost, self.shutdown());
        let healed = healed.map_err(|error| error.to_string())?;
        self.tell_damage(0, &healed, job);
        Ok(())
    }
}
