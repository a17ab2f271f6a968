//! Looking after the store, in the background and when asked: superseded generations are deleted,
//! their space is given back, what lies scattered is written together anew, and everything is read
//! and checked now and then.

mod rewrite;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copy::upkeep::{Keep, retire};
use model::{CartridgeId, JobId};
use serde_json::{Value, json};
use store::{Checked, Collected, Key, OpenReport, Store, StoreError};
use svs::{Catalogue, Ending, EventKind, JobKind, JobOwner, JobState, NewJob, Verified};

use crate::admin::{AdminFault, FaultCode};
use crate::config::{Site, Upkeep as Config};
use crate::healing::{Elsewhere, Healed, heal};
use crate::messages;
use crate::shutdown::Shutdown;

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_secs(3600);
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// The store of an engine, and how it is looked after.
pub struct Upkeep {
    store: Store,
    catalogue: Arc<Catalogue>,
    config: Config,
    shutdown: Shutdown,
    elsewhere: Arc<dyn Elsewhere>,
}

pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Opens the store of an engine, with its key if it has one.
///
/// # Errors
/// The key file can not be used, or the store can not be opened; nothing was touched then.
pub fn open_store(
    vfs: Arc<dyn vfs::Vfs>,
    site: &Site,
    config: &Config,
) -> Result<(Store, OpenReport), StoreError> {
    let key = config.key_file.as_deref().map(Key::read).transpose()?;
    Store::open_with_key(vfs, &site.store(), &store::Options::default(), key.as_ref())
}

impl Upkeep {
    /// Looks after a store until the shutdown. What is damaged in it comes from `elsewhere`.
    pub fn new(
        store: Store,
        catalogue: Arc<Catalogue>,
        config: Config,
        shutdown: Shutdown,
        elsewhere: Arc<dyn Elsewhere>,
    ) -> Arc<Self> {
        Arc::new(Self { store, catalogue, config, shutdown, elsewhere })
    }

    /// Does what is due, now and every hour, until the shutdown.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.requested() => return,
                _ = ticks.tick() => {}
            }
            let this = Arc::clone(&self);
            // A panic there was reported when it happened.
            let _ = tokio::task::spawn_blocking(move || this.due()).await;
        }
    }

    /// What is asked over the admin socket; `None` for what is no business of the store.
    pub async fn call(
        self: &Arc<Self>,
        method: &str,
        params: Value,
    ) -> Option<Result<Value, AdminFault>> {
        let work: fn(&Self, &Value) -> Result<Value, String> = match method {
            "store_stat" => |this, _| Ok(this.figures()),
            "store_collect" => |this, _| this.collect("admin"),
            "store_check" => |this, _| this.check("admin"),
            "store_rewrite" => |this, _| this.rewrite("admin"),
            "store_compare" => |this, params| this.compare("admin", params),
            "store_lock" => |this, params| this.lock(params),
            _ => return None,
        };
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&this, &params)).await;
        let failed = |text: String| AdminFault::new(FaultCode::Failed, text);
        Some(done.map_err(|error| failed(error.to_string())).and_then(|done| done.map_err(failed)))
    }

    /// Locks a cartridge until a time, if one is given; until when it is locked.
    fn lock(&self, params: &Value) -> Result<Value, String> {
        let word = |key: &str| params[key].as_str().ok_or_else(|| format!("{key:?} is missing"));
        let (library, barcode) = (word("library")?, word("barcode")?);
        let all = self.catalogue.cartridge_status().map_err(|error| error.to_string())?;
        let is = |row: &svs::CartridgeStatus| {
            row.library.as_str() == library && row.barcode.as_str() == barcode
        };
        let mut found = all.into_iter().filter(is);
        let unknown = || format!("no cartridge {library}:{barcode}; see: twinreel cartridges");
        let row = found.next().ok_or_else(unknown)?;
        if found.next().is_some() {
            return Err(format!("{library}:{barcode} is a cartridge of several sites"));
        }
        if let Some(until_ms) = params["until_ms"].as_u64() {
            let locked = self.store.lock_cartridge(row.cartridge, until_ms);
            locked.map_err(|error| error.to_string())?;
            tracing::info!(library, barcode, until_ms, "a cartridge is locked");
        }
        let until = self.store.locked_until(row.cartridge);
        let time = |ms: u64| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok();
        let text = until.map(|ms| time(ms).map_or("for ever".to_owned(), |it| it.to_string()));
        Ok(json!({ "cartridge": format!("{library}:{barcode}"), "locked_until": text }))
    }

    /// Blocks.
    fn due(&self) {
        self.end_former();
        self.end_former_seeds();
        if let Err(error) = self.store.mend_index(&|| self.shutdown.is_requested()) {
            tracing::warn!(%error, "the index of the store is damaged, and could not be made anew");
        }
        let hours = u64::from(self.config.collect_hours) * HOUR;
        // Before its old copies are collected. A copy that reads has the disks to itself.
        if self.config.rewrite_reads > 0 && self.is_due("rewrite", hours) && !self.is_copying() {
            // It has said why if it failed.
            let _ = self.rewrite("schedule");
        }
        if self.is_due("collect", hours) {
            // It has said why.
            let _ = self.collect("schedule");
        }
        if self.is_due("check", u64::from(self.config.check_days) * DAY) {
            let _ = self.check("schedule");
        }
        // Where nobody is connected it stays due.
        let days = u64::from(self.config.compare_days);
        if !self.elsewhere.compares_with().is_empty() && self.is_due("compare", days * DAY) {
            let _ = self.compare("schedule", &Value::Null);
        }
    }

    /// Whether something was done so long ago. The first time counts from the first look.
    fn is_due(&self, what: &str, seconds: u64) -> bool {
        let (key, now) = (format!("upkeep/{what}"), now().as_secs());
        let last = self.catalogue.meta(&key).ok().flatten().and_then(|text| text.parse().ok());
        match last {
            _ if seconds == 0 || self.shutdown.is_requested() => false,
            Some(last) => now.saturating_sub(last) >= seconds,
            None => {
                self.note_done(what);
                false
            }
        }
    }

    fn note_done(&self, what: &str) {
        let key = format!("upkeep/{what}");
        if let Err(error) = self.catalogue.set_meta(&key, &now().as_secs().to_string()) {
            tracing::warn!(%error, what, "the time of the upkeep could not be kept");
        }
    }

    /// What a run of this engine that ended left under way is over; it is done anew when it is due.
    fn end_former(&self) {
        for kind in [JobKind::Collect, JobKind::Scrub] {
            for job in self.catalogue.unfinished_jobs(Some(kind)).unwrap_or_default() {
                if job.state == JobState::Pending {
                    let ending = Ending::cancelled("the engine was restarted".to_owned());
                    self.log(self.catalogue.finish(job.id, &ending));
                }
            }
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    pub(crate) fn elsewhere(&self) -> &dyn Elsewhere {
        self.elsewhere.as_ref()
    }

    /// Bytes a second at which everything is read.
    pub(crate) fn check_rate(&self) -> u64 {
        self.config.check_rate.0
    }

    /// Whether the store has a key.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.config.key_file.is_some()
    }

    pub(crate) fn log<T>(&self, result: Result<T, svs::SvsError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "the job row of an upkeep could not be written");
        }
    }

    /// Does something with the store as a job, and notes when it was done.
    pub(crate) fn as_upkeep<T>(
        &self,
        (kind, what): (JobKind, &str),
        by: &str,
        work: impl FnOnce(JobId) -> Result<(T, u64), String>,
    ) -> Result<T, String> {
        let ends = ("store".to_owned(), "store".to_owned());
        let done = self.as_job(kind, (ends, None), by, work);
        self.note_done(what);
        done
    }

    /// Does something as a job from one end to another, whose row ends with its outcome. With a
    /// `mark` its row can be told from others of its kind.
    pub(crate) fn as_job<T>(
        &self,
        kind: JobKind,
        (ends, mark): ((String, String), Option<&str>),
        by: &str,
        work: impl FnOnce(JobId) -> Result<(T, u64), String>,
    ) -> Result<T, String> {
        let id = JobId::generate(now().as_millis() as u64);
        let mut job = NewJob::new(id, kind, JobOwner::Engine, ends, by);
        job.state = JobState::InProgress;
        job.resume = mark.map(str::to_owned);
        self.log(self.catalogue.create_job(&job));
        let done = work(id);
        let ending = match &done {
            Ok((_, bytes)) => Ending::done(*bytes, Verified::None),
            Err(cause) => Ending::failed(cause.clone()),
        };
        self.log(self.catalogue.finish(id, &ending));
        if let Err(cause) = &done {
            self.say(messages::UPKEEP_FAILED, &[("cause", cause)], id);
        }
        done.map(|(done, _)| done)
    }

    pub(crate) fn say(&self, message: &str, words: &[(&str, &dyn std::fmt::Display)], job: JobId) {
        let subject = job.to_string();
        messages::note(&self.catalogue, EventKind::Store, message, words, Some(&subject));
    }

    /// Deletes what is superseded and gives back its space. Blocks.
    fn collect(&self, by: &str) -> Result<Value, String> {
        self.as_upkeep((JobKind::Collect, "collect"), by, |job| {
            let config = &self.config;
            let keep = Keep {
                newest: config.keep_generations as usize,
                younger_than_ms: u64::from(config.keep_days) * DAY * 1000,
            };
            let now = now().as_millis() as u64;
            let retired = retire(&self.store, &self.catalogue, keep, now);
            let retired = retired.map_err(|error| error.to_string())?;
            if retired > 0 {
                let words: [(&str, &dyn std::fmt::Display); 2] =
                    [("count", &retired), ("keep", &config.keep_generations)];
                self.say(messages::GENERATIONS_RETIRED, &words, job);
            }
            let stop = || self.shutdown.is_requested();
            let done = self.store.collect(config.collect_below, &stop);
            let Collected { containers, chunks, freed, moved, left } =
                done.map_err(|error| error.to_string())?;
            if containers > 0 {
                let words: [(&str, &dyn std::fmt::Display); 3] =
                    [("containers", &containers), ("freed", &freed), ("moved", &moved)];
                self.say(messages::STORE_COLLECTED, &words, job);
            }
            let value = json!({
                "job": job.to_string(),
                "generations_deleted": retired,
                "containers_removed": containers,
                "chunks_freed": chunks,
                "bytes_freed": freed,
                "bytes_moved": moved,
                "bytes_left": left,
            });
            Ok((value, freed))
        })
    }

    /// Reads everything, and gets what is damaged from the other sites. Blocks.
    fn check(&self, by: &str) -> Result<Value, String> {
        self.as_upkeep((JobKind::Scrub, "check"), by, |job| {
            let mut pace = Pace::new(self.config.check_rate.0, &self.shutdown);
            let done =
                self.store.check(&mut |bytes| {
                    self.log(self.catalogue.progress(
                        job,
                        svs::Progress { bytes: pace.bytes + bytes, bytes_total: None },
                    ));
                    pace.wait(bytes)
                });
            let Checked { containers, chunks, bytes, damage, incomplete, lost } =
                done.map_err(|error| error.to_string())?;
            let healed = match lost.is_empty() {
                true => Healed { incomplete, ..Healed::default() },
                false => heal(&self.store, self.elsewhere.as_ref(), lost, &self.shutdown)
                    .map_err(|error| error.to_string())?,
            };
            if damage.is_empty() && healed.incomplete.is_empty() && healed.from.is_empty() {
                let words: [(&str, &dyn std::fmt::Display); 2] =
                    [("chunks", &chunks), ("bytes", &bytes)];
                self.say(messages::STORE_CHECKED, &words, job);
            }
            let incomplete = self.tell_damage(damage.len(), &healed, job);
            let damage: Vec<_> = damage.iter().map(|damage| format!("{damage:?}")).collect();
            let value = json!({
                "job": job.to_string(),
                "containers": containers,
                "chunks": chunks,
                "bytes": bytes,
                "damage": damage,
                "healed_chunks": healed.chunks(),
                "healed_from": healed.from.keys().map(ToString::to_string).collect::<Vec<_>>(),
                "incomplete_generations": incomplete,
            });
            Ok((value, bytes))
        })
    }

    /// Says what was found damaged and what came of it; names the generations that lack something.
    pub(crate) fn tell_damage(&self, damaged: usize, healed: &Healed, job: JobId) -> Vec<Value> {
        if !healed.from.is_empty() {
            let (count, sites) = (healed.chunks(), healed.from.keys());
            let sites = sites.map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let words: [(&str, &dyn std::fmt::Display); 2] = [("count", &count), ("sites", &sites)];
            self.say(messages::STORE_HEALED, &words, job);
        }
        let lacking = healed.incomplete.len();
        if lacking > 0 || damaged > 0 && healed.from.is_empty() {
            let words: [(&str, &dyn std::fmt::Display); 2] =
                [("damaged", &damaged), ("incomplete", &lacking)];
            self.say(messages::STORE_DAMAGED, &words, job);
        }
        let named = healed.incomplete.iter().map(|generation| {
            let cartridge = self.store.generation(*generation).map(|info| info.cartridge);
            let cartridge = cartridge.map_or("?".to_owned(), |id| self.cartridge_name(id));
            let words: [(&str, &dyn std::fmt::Display); 2] =
                [("cartridge", &cartridge), ("generation", generation)];
            self.say(messages::GENERATION_INCOMPLETE, &words, job);
            json!({ "cartridge": cartridge, "generation": generation.to_string() })
        });
        named.collect()
    }

    /// A cartridge for people: `vtl0:VTA001L8`, or its id if it has no row.
    pub(crate) fn cartridge_name(&self, id: CartridgeId) -> String {
        let row = self.catalogue.cartridge(id).ok().flatten();
        row.map_or_else(|| id.to_string(), |row| format!("{}:{}", row.library, row.barcode))
    }

    fn figures(&self) -> Value {
        let statistics = self.store.statistics();
        let generations = self.store.all_generations();
        let logical: u64 = generations.iter().map(|info| info.bytes).sum();
        json!({
            "generations": generations.len(),
            "bytes_in_generations": logical,
            "chunks": statistics.chunks,
            "bytes_in_chunks": statistics.raw_bytes,
            "bytes_stored": statistics.stored_bytes,
            "containers": statistics.containers,
            "index_memory": statistics.index_memory,
            "fragmentation": self.fragmentation(),
            "last_comparison": self.last_comparison(),
        })
    }
}

/// Keeps to a rate, and ends at the shutdown.
pub(crate) struct Pace<'a> {
    rate: u64,
    begun: Instant,
    bytes: u64,
    shutdown: &'a Shutdown,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(rate: u64, shutdown: &'a Shutdown) -> Self {
        Self { rate, begun: Instant::now(), bytes: 0, shutdown }
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits until so many bytes more are within the rate. False at the shutdown.
    pub(crate) fn wait(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let due = match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(self.bytes as f64 / rate as f64),
        };
        let wait = due.saturating_sub(self.begun.elapsed());
        self.shutdown.wait_blocking(wait)
    }
}
