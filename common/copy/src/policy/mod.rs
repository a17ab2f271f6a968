//! Which entries of the copy map and the migration map are due.
//!
//! [`copy_verdict`] and [`migration_verdict`] are pure functions of what is known of an entry and
//! its two media. [`Desk`] looks at all entries, begins what is due and writes down how it ended;
//! what touches tapes it does through [`Hands`].

mod desk;
mod schedule;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use svs::{CopyEntry, MapPolicy, MapStatus, MediumFacts, MigrationEntry, Verified};

pub use desk::{CopyWish, Desk, Hands, JobEnd, MigrationWish, Refusal, Source};
pub use schedule::{Clock, Days, Moment, Schedule, ScheduleError, Turn};

/// A day in milliseconds.
const DAY: u64 = 24 * 3600 * 1000;

/// Where a medium is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a slot: it is not mounted.
    Shelved,
    /// In a drive.
    InDrive,
    /// In no library that is known here.
    Unknown,
}

/// What time it is, and what the clock on the wall says.
#[derive(Clone, Debug)]
pub struct Now {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Of the schedules.
    pub zone: TimeZone,
}

/// A medium as it is found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub place: Whereabouts,
    /// Whether anything was ever written to it.
    pub blank: bool,
    /// What was counted.
    pub facts: MediumFacts,
}

/// What is to be done for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing now.
    Wait {
        /// Where the entry stands.
        status: MapStatus,
        /// Why, for people.
        why: String,
        /// Not before this time, in milliseconds since 1970, if that is known.
        until: Option<u64>,
    },
    /// A copy from this object on; 0 is all of it.
    Copy {
        /// The first object.
        from: u64,
        /// Why, for people.
        why: String,
    },
    /// The migration medium has a current copy: only the maps change.
    Switch {
        /// How it was proven.
        proven: Verified,
    },
}

fn wait(status: MapStatus, why: impl Into<String>) -> Verdict {
    Verdict::Wait { status, why: why.into(), until: None }
}

fn wait_until(status: MapStatus, why: impl Into<String>, until: u64) -> Verdict {
    Verdict::Wait { status, why: why.into(), until: Some(until) }
}

fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// Whether a schedule is due for what changed at `since`, or what to wait for.
fn scheduled(schedule: Option<&str>, since: u64, now: &Now) -> Result<String, Verdict> {
    let Some(text) = schedule else {
        return Err(wait(MapStatus::Pending, "waits for a command"));
    };
    let schedule: Schedule = match text.parse() {
        Ok(schedule) => schedule,
        Err(error) => return Err(wait(MapStatus::Failed, format!("{error}"))),
    };
    match schedule.turn(timestamp(since), timestamp(now.ms), &now.zone) {
        Turn::Now => Ok(format!("scheduled {text}")),
        Turn::At(at) => {
            let local = at.to_zoned(now.zone.clone()).datetime();
            let why = format!("{text}: due at {local}");
            Err(wait_until(MapStatus::Scheduled, why, millis(at)))
        }
    }
}

/// What every entry waits for that could not be acted upon lately, or whose source is not there.
fn obstacle(
    status: MapStatus,
    (asked, next_try): (bool, Option<u64>),
    message: Option<&str>,
    source: &Found,
    now: &Now,
) -> Option<Verdict> {
    let last = message.unwrap_or("it failed");
    match () {
        () if status == MapStatus::InProgress => Some(wait(status, "is under way")),
        () if status == MapStatus::Failed => Some(wait(status, last)),
        () if source.place == Whereabouts::Unknown => {
            Some(wait(MapStatus::Pending, "the source is in no library here"))
        }
        () if source.blank => Some(wait(MapStatus::Pending, "the source was never written")),
        () => next_try
            .filter(|time| *time > now.ms && !asked)
            .map(|time| wait_until(MapStatus::Pending, last, time)),
    }
}

/// What is said of an entry whose target lacks nothing.
fn current(entry: &CopyEntry) -> Verdict {
    match entry.status {
        MapStatus::InProgress => wait(entry.status, "is under way"),
        _ => wait(MapStatus::Done, "the target is a current copy"),
    }
}

/// What is to be done for an entry of the copy map.
pub fn copy_verdict(entry: &CopyEntry, source: &Found, now: &Now) -> Verdict {
    let next_try = (entry.asked, entry.next_try);
    let standing = obstacle(entry.status, next_try, entry.message.as_deref(), source, now);
    let Some(changed_from) = entry.changed_from else { return current(entry) };
    if let Some(verdict) = standing {
        return verdict;
    }
    match copy_trigger(entry, source, now) {
        Err(verdict) => verdict,
        Ok(why) => {
            let incremental = entry.policy == MapPolicy::Incremental;
            Verdict::Copy { from: if incremental { changed_from } else { 0 }, why }
        }
    }
}

/// Why a copy is due, or what it waits for.
fn copy_trigger(entry: &CopyEntry, source: &Found, now: &Now) -> Result<String, Verdict> {
    if entry.asked {
        return Ok("asked for".into());
    }
    let facts = &source.facts;
    let records = facts.records.saturating_sub(entry.seen_records);
    if entry.rule.after_records.is_some_and(|limit| records >= limit) {
        return Ok(format!("{records} records were written"));
    }
    let bytes = facts.bytes.saturating_sub(entry.seen_bytes);
    if entry.rule.after_bytes.is_some_and(|limit| bytes >= limit) {
        return Ok(format!("{bytes} bytes were written"));
    }
    let since = entry.changed_at.unwrap_or(0);
    let schedule = entry.rule.schedule.as_deref();
    if entry.policy == MapPolicy::Deferred {
        return scheduled(schedule, since, now);
    }
    let by_schedule = schedule.map(|text| scheduled(Some(text), since, now));
    if let Some(Ok(why)) = by_schedule {
        return Ok(why);
    }
    let on_dismount = match (entry.policy, source.place) {
        (MapPolicy::WhenFull, _) if !facts.full => Err("waits until the source is full"),
        (_, Whereabouts::InDrive) => Err("waits for the dismount of the source"),
        (MapPolicy::WhenFull, _) => Ok("the source is full"),
        _ => Ok("the source was dismounted"),
    };
    match (on_dismount, by_schedule) {
        (Ok(why), _) => Ok(why.to_owned()),
        (Err(_), Some(Err(verdict))) => Err(verdict),
        (Err(why), _) => Err(wait(MapStatus::Pending, why)),
    }
}

/// What is to be done for an entry of the migration map. `copy` is the entry of the copy map for
/// the same two media, if there is one.
pub fn migration_verdict(
    entry: &MigrationEntry,
    copy: Option<&CopyEntry>,
    source: &Found,
    now: &Now,
) -> Verdict {
    if entry.status == MapStatus::Done {
        return wait(MapStatus::Done, "it was moved");
    }
    let next_try = (entry.asked, entry.next_try);
    let standing = obstacle(entry.status, next_try, entry.message.as_deref(), source, now);
    if let Some(verdict) = standing {
        return verdict;
    }
    let why = match migration_trigger(entry, source, now) {
        Err(verdict) => return verdict,
        Ok(why) => why,
    };
    if source.place == Whereabouts::InDrive {
        return wait(MapStatus::Pending, "waits for the dismount of the source");
    }
    match copy {
        // A copy that is being made is waited for.
        Some(copy) if copy.status == MapStatus::InProgress => {
            wait(MapStatus::Pending, "the copy to the same medium is under way")
        }
        Some(copy) if copy.changed_from.is_none() && copy.proven >= entry.rule.verify => {
            Verdict::Switch { proven: copy.proven }
        }
        _ => Verdict::Copy { from: 0, why },
    }
}

/// Why a migration is due, or what it waits for.
fn migration_trigger(entry: &MigrationEntry, source: &Found, now: &Now) -> Result<String, Verdict> {
    if entry.asked {
        return Ok("asked for".into());
    }
    let last_write = source.facts.last_write;
    match entry.policy {
        MapPolicy::Always | MapPolicy::Incremental => Ok("the source was dismounted".into()),
        MapPolicy::WhenFull if source.facts.full => Ok("the source is full".into()),
        MapPolicy::WhenFull => Err(wait(MapStatus::Pending, "waits until the source is full")),
        MapPolicy::Deferred => {
            scheduled(entry.rule.schedule.as_deref(), last_write.unwrap_or(0), now)
        }
        MapPolicy::AfterDays => {
            let days = entry.rule.days.unwrap_or(0);
            let due = last_write.unwrap_or(0).saturating_add(u64::from(days) * DAY);
            if now.ms >= due {
                return Ok(format!("not written for {days} days"));
            }
            let local = timestamp(due).to_zoned(now.zone.clone()).datetime();
            let why = format!("{days} days after the last write: due at {local}");
            Err(wait_until(MapStatus::Scheduled, why, due))
        }
    }
}

#[cfg(test)]
mod tests;
