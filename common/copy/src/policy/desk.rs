//! Sees the entries of the maps through: begins what is due, writes down how it ended.

use std::sync::Arc;

use model::JobId;
use svs::{
    Catalogue, CopyEntry, MapStatus, MediumRef, MigrationEntry, Settled, SvsError, Verified,
};

use super::{Found, Now, Verdict, Whereabouts, copy_verdict, current, migration_verdict};

/// How long after a refusal for something in use it is asked again, in milliseconds.
const BUSY: u64 = 5_000;
/// After the first failure; twice as long after each further one, up to an hour.
const AGAIN: u64 = 30_000;
const AGAIN_MAX: u64 = 3_600_000;
/// Failures one after the other after which an entry waits for the operator, or for a new content.
const ATTEMPTS: u32 = 10;
/// And where the proof is missing: an engine that does not prove will not the next time.
const PROOFS: u32 = 2;
/// How often a proof is looked for, in milliseconds.
const PROOF: u64 = 500;

/// A copy that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyWish<'a> {
    /// The entry's source.
    pub source: &'a MediumRef,
    /// The entry's target.
    pub target: &'a MediumRef,
    /// What is read: the source, or where it was migrated to.
    pub read: &'a MediumRef,
    /// The version of the source.
    pub version: u64,
    /// From this object on, on both media.
    pub from: u64,
    /// Records and bytes written to the source in all.
    pub seen: (u64, u64),
    /// How the target is to be proven.
    pub verify: Verified,
}

/// A migration that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationWish<'a> {
    /// The entry's source.
    pub source: &'a MediumRef,
    /// Where it goes.
    pub target: &'a MediumRef,
    /// The version of the source.
    pub version: u64,
    /// How the target is to be proven.
    pub verify: Verified,
}

/// Why something due was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something is in use or out of reach; it is asked again.
    Busy(String),
    /// It can not be as the entry has it; the operator's to change.
    Never(String),
}

/// How far a job has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It has not ended.
    Running,
    /// It is done, and how it was proven is to be told in a moment.
    Proving,
    /// It is done, and proven so.
    Done(Verified),
    /// It failed; a retry may help.
    Failed(String),
    /// It failed, and would again: the target is too small or write-protected; or somebody
    /// cancelled it.
    Unfit(String),
}

/// What touches tapes and jobs.
pub trait Hands {
    /// Where a medium is, and what it holds. The desk fills in what the catalogue counted.
    fn find(&self, medium: &MediumRef) -> Found;
    /// Begins a copy: its job and its entry in one transaction ([`Catalogue::begin_copy`]).
    fn copy(&self, wish: &CopyWish<'_>) -> Result<JobId, Refusal>;
    /// Begins a migration ([`Catalogue::begin_migration`]).
    fn migrate(&self, wish: &MigrationWish<'_>) -> Result<JobId, Refusal>;
    /// How far a job has come.
    fn job(&self, id: JobId) -> JobEnd;
    /// Frees a medium whose content was moved. Asked again until it is `Ok`.
    fn free(&self, medium: &MediumRef) -> Result<(), String>;
    /// Tells the operator of an end.
    fn tell(&self, source: &MediumRef, target: &MediumRef, end: &Settled, is_migration: bool);
}

/// A target that is not proven as its entry wants is none, and is made again.
fn proven(settled: Settled, wanted: Verified, attempts: u32, now: &Now) -> Settled {
    match settled {
        Settled::Done(proven) if proven < wanted => Settled::Failed {
            message: format!("the target is proven by {proven}, and {wanted} is wanted"),
            again: (attempts < PROOFS).then(|| now.ms + AGAIN),
        },
        other => other,
    }
}

/// Which source an entry is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// As it is found.
    AsItIs,
    /// As if it were dismounted, where it is in a drive.
    Dismounted,
}

/// The one place where entries are acted upon.
pub struct Desk<H> {
    catalogue: Arc<Catalogue>,
    hands: H,
}

/// The earliest of the times that something waits for.
#[derive(Default)]
struct Next(Option<u64>);

impl Next {
    fn at(&mut self, time: u64) {
        self.0 = Some(self.0.map_or(time, |next| next.min(time)));
    }
}

impl<H: Hands> Desk<H> {
    /// A desk over a catalogue. It keeps nothing by itself: a new one goes on where the last was.
    pub fn new(catalogue: Arc<Catalogue>, hands: H) -> Self {
        Self { catalogue, hands }
    }

    /// What it works with.
    pub fn hands(&self) -> &H {
        &self.hands
    }

    /// Looks at every entry once. Returns when to look again even if nothing happens, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// The catalogue's. What was begun stays begun.
    pub fn look(&mut self, now: &Now) -> Result<Option<u64>, SvsError> {
        let mut next = Next::default();
        for entry in self.catalogue.copy_entries()? {
            // Of many entries most are current: nothing is looked for.
            if entry.changed_from.is_some() || entry.status != MapStatus::Done {
                self.copy(&entry, now, &mut next)?;
            }
        }
        for entry in self.catalogue.migration_entries()? {
            self.migration(&entry, now, &mut next)?;
        }
        for medium in self.catalogue.to_be_freed()? {
            self.free(&medium, now, &mut next)?;
        }
        Ok(next.0)
    }

    /// What would be done for an entry of the copy map, and nothing is done.
    pub fn judge_copy(
        &self,
        entry: &CopyEntry,
        source: Source,
        now: &Now,
    ) -> Result<Verdict, SvsError> {
        if entry.changed_from.is_none() {
            // Of many entries most are current: nothing is looked for.
            return Ok(current(entry));
        }
        let moving = self.catalogue.migration_entry(&entry.source_medium)?;
        if let Some(moving) = moving
            && moving.status == MapStatus::InProgress
            && moving.migration_medium == entry.target_medium
        {
            let why = "the migration to the same medium is under way".to_owned();
            return Ok(Verdict::Wait { status: MapStatus::Pending, why, until: None });
        }
        let found = self.found(&entry.source_medium, source)?;
        if found.facts.moved_to.as_ref() == Some(&entry.target_medium) {
            let why = "the source was migrated to this medium".to_owned();
            return Ok(Verdict::Wait { status: MapStatus::Done, why, until: None });
        }
        Ok(copy_verdict(entry, &found, now))
    }

    /// What would be done for an entry of the migration map, and nothing is done.
    pub fn judge_migration(
        &self,
        entry: &MigrationEntry,
        copy: Option<&CopyEntry>,
        source: Source,
        now: &Now,
    ) -> Result<Verdict, SvsError> {
        let found = self.found(&entry.source_medium, source)?;
        Ok(migration_verdict(entry, copy, &found, now))
    }

    fn found(&self, medium: &MediumRef, source: Source) -> Result<Found, SvsError> {
        let facts = self.catalogue.medium_facts(medium)?;
        let read = facts.moved_to.clone().unwrap_or_else(|| medium.clone());
        let found = Found { facts, ..self.hands.find(&read) };
        Ok(match (source, found.place) {
            (Source::Dismounted, Whereabouts::InDrive) => {
                Found { place: Whereabouts::Shelved, ..found }
            }
            _ => found,
        })
    }

    fn copy(&self, listed: &CopyEntry, now: &Now, next: &mut Next) -> Result<(), SvsError> {
        let catalogue = &self.catalogue;
        let (source, target) = (&listed.source_medium, &listed.target_medium);
        // What is written from here on has a later version, and the copy does not begin then. The
        // row is read behind it: the one in the list may be older than the last write.
        let before = catalogue.medium_facts(source)?;
        let Some(mut entry) = catalogue.copy_entry(source, target)? else { return Ok(()) };
        if entry.status == MapStatus::InProgress {
            let Some(settled) = self.ended(entry.job, entry.attempts, now, next) else {
                return Ok(());
            };
            let settled = proven(settled, entry.rule.verify, entry.attempts, now);
            if let Some(job) = entry.job
                && catalogue.settle_copy(source, target, job, &settled)?
            {
                self.hands.tell(source, target, &settled, false);
            }
            let Some(settled) = catalogue.copy_entry(source, target)? else { return Ok(()) };
            entry = settled;
        }
        match self.judge_copy(&entry, Source::AsItIs, now)? {
            Verdict::Wait { status, why, until } => {
                until.into_iter().for_each(|time| next.at(time));
                // A failure's own words stay until it is tried again.
                let why = if entry.attempts > 0 { entry.message.clone() } else { Some(why) };
                let why = why.filter(|_| status != MapStatus::Done);
                catalogue.copy_waits(source, target, status, why.as_deref())
            }
            Verdict::Switch { .. } => Ok(()),
            Verdict::Copy { from, .. } => {
                let facts = catalogue.medium_facts(source)?;
                let read = facts.moved_to.as_ref().unwrap_or(source);
                let (version, seen) = (before.version, (before.records, before.bytes));
                let verify = entry.rule.verify;
                let wish = CopyWish { source, target, read, version, from, seen, verify };
                let (status, why) = match self.hands.copy(&wish) {
                    Ok(_) => return Ok(()),
                    Err(Refusal::Busy(why)) => {
                        next.at(now.ms + BUSY);
                        (MapStatus::Pending, why)
                    }
                    Err(Refusal::Never(why)) => {
                        let end = Settled::Failed { message: why.clone(), again: None };
                        self.hands.tell(source, target, &end, false);
                        (MapStatus::Failed, why)
                    }
                };
                catalogue.copy_waits(source, target, status, Some(&why))
            }
        }
    }

    /// How a job ended, in terms of its entry; `None` while it runs.
    fn ended(
        &self,
        job: Option<JobId>,
        attempts: u32,
        now: &Now,
        next: &mut Next,
    ) -> Option<Settled> {
        let end =
            job.map_or_else(|| JobEnd::Failed("it has no job".into()), |job| self.hands.job(job));
        if end == JobEnd::Proving {
            next.at(now.ms + PROOF);
        }
        match end {
            JobEnd::Running | JobEnd::Proving => None,
            JobEnd::Done(verified) => Some(Settled::Done(verified)),
            JobEnd::Unfit(message) => Some(Settled::Failed { message, again: None }),
            JobEnd::Failed(message) => {
                let wait = AGAIN.saturating_mul(1 << attempts.min(20)).min(AGAIN_MAX);
                let again = (attempts + 1 < ATTEMPTS).then(|| now.ms + wait);
                Some(Settled::Failed { message, again })
            }
        }
    }

    fn migration(
        &self,
        entry: &MigrationEntry,
        now: &Now,
        next: &mut Next,
    ) -> Result<(), SvsError> {
        let (catalogue, source) = (&self.catalogue, &entry.source_medium);
        // As for copies: what is written behind this look is noticed.
        let version = catalogue.medium_facts(source)?.version;
        if entry.status == MapStatus::InProgress {
            let Some(settled) = self.ended(entry.job, entry.attempts, now, next) else {
                return Ok(());
            };
            return self.migrated(entry, settled, now, next);
        }
        let copy = catalogue.copy_entry(source, &entry.migration_medium)?;
        match self.judge_migration(entry, copy.as_ref(), Source::AsItIs, now)? {
            Verdict::Wait { status, why, until } => {
                until.into_iter().for_each(|time| next.at(time));
                let why = if entry.attempts > 0 { entry.message.clone() } else { Some(why) };
                catalogue.migration_waits(source, status, why.as_deref())
            }
            Verdict::Switch { proven } => {
                let moved = catalogue.moved_to_copy(source, proven)?;
                self.told(entry, moved, proven, now, next)
            }
            Verdict::Copy { .. } => {
                let (target, verify) = (&entry.migration_medium, entry.rule.verify);
                let wish = MigrationWish { source, target, version, verify };
                let (status, why) = match self.hands.migrate(&wish) {
                    Ok(_) => return Ok(()),
                    Err(Refusal::Busy(why)) => {
                        next.at(now.ms + BUSY);
                        (MapStatus::Pending, why)
                    }
                    Err(Refusal::Never(why)) => {
                        let end = Settled::Failed { message: why.clone(), again: None };
                        self.hands.tell(source, target, &end, true);
                        (MapStatus::Failed, why)
                    }
                };
                catalogue.migration_waits(source, status, Some(&why))
            }
        }
    }

    /// The job of a migration ended: where it is done the content is found at its new place.
    fn migrated(
        &self,
        entry: &MigrationEntry,
        settled: Settled,
        now: &Now,
        next: &mut Next,
    ) -> Result<(), SvsError> {
        let (source, target) = (&entry.source_medium, &entry.migration_medium);
        let failed = match proven(settled, entry.rule.verify, entry.attempts, now) {
            Settled::Done(proven) => {
                let version = self.catalogue.migration_version(source)?.unwrap_or(0);
                let moved = self.catalogue.moved(source, version, proven)?;
                return self.told(entry, moved, proven, now, next);
            }
            failed => failed,
        };
        if let Settled::Failed { message, again } = &failed {
            self.catalogue.migration_failed(source, message, *again)?;
            again.iter().for_each(|time| next.at(*time));
        }
        self.hands.tell(source, target, &failed, true);
        Ok(())
    }

    /// Tells that the content was moved, or that it has to be looked at again.
    fn told(
        &self,
        entry: &MigrationEntry,
        moved: bool,
        proven: Verified,
        now: &Now,
        next: &mut Next,
    ) -> Result<(), SvsError> {
        let (source, target) = (&entry.source_medium, &entry.migration_medium);
        if moved {
            self.hands.tell(source, target, &Settled::Done(proven), true);
        } else {
            let text = "the source was written while it was copied; it is copied again";
            self.catalogue.migration_failed(source, text, Some(now.ms))?;
            next.at(now.ms);
        }
        Ok(())
    }

    fn free(&self, medium: &MediumRef, now: &Now, next: &mut Next) -> Result<(), SvsError> {
        match self.hands.free(medium) {
            Ok(()) => self.catalogue.set_freed(medium),
            Err(cause) => {
                tracing::info!(%medium, cause, "a migrated medium is not freed yet");
                next.at(now.ms + BUSY);
                Ok(())
            }
        }
    }
}
