//! The three maps and the media pools: shown from the catalogue, changed by the engine.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use svs::{Catalogue, DeviceRef, LibraryRole, MediumRef, TapeRange};

use crate::catalogue::open;
use crate::cli::{Failed, Which};
use crate::output::{Output, or_dash, table};
use crate::status::ask;

/// Which backend stands behind a frontend drive.
#[derive(Debug, Subcommand)]
pub(crate) enum MapCommand {
    /// Show the map.
    Show(Which),
    /// List every drive that could stand behind a frontend.
    Backends(Which),
    /// Put a backend drive behind a frontend drive, or keep it for copies and migrations.
    Set {
        #[command(flatten)]
        which: Which,
        /// The backend: LIBRARY/driveN.
        backend: String,
        /// The frontend before it; without one the backend is kept for copies and migrations.
        #[arg(long)]
        frontend: Option<String>,
        /// The tapes that the frontend shows: LIBRARY:FIRST-LAST; more than once.
        #[arg(long)]
        tapes: Vec<String>,
    },
    /// Take a frontend, or an unmapped backend, out of the map.
    Remove {
        #[command(flatten)]
        which: Which,
        /// LIBRARY/driveN.
        device: String,
    },
}

/// How a target is named.
#[derive(Debug, Args)]
pub(crate) struct Ends {
    /// The source: LIBRARY:BARCODE, or LIBRARY:FIRST-LAST for an entry each.
    source: String,
    /// As many targets.
    #[arg(required_unless_present = "pool")]
    target: Option<String>,
    /// Take the targets from this pool.
    #[arg(long, conflicts_with = "target")]
    pool: Option<String>,
}

impl Ends {
    fn params(&self) -> Value {
        let target = self.target.as_ref().or(self.pool.as_ref());
        json!({ "source": self.source, "target": target, "pool": self.pool.is_some() })
    }
}

/// Which medium is copied to which.
#[derive(Debug, Subcommand)]
pub(crate) enum CopyCommand {
    /// Show the map.
    Show(Which),
    /// Enter a copy, or change it.
    Set {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        ends: Ends,
        /// always, when-full, incremental or deferred.
        #[arg(long, value_parser = policy)]
        policy: String,
        /// `at 2026-12-01T22:00`, `every mon-fri 22:00` or `within 22:00-06:00`.
        #[arg(long)]
        schedule: Option<String>,
        /// Also after so many records were written.
        #[arg(long)]
        after_records: Option<u64>,
        /// Also after so much was written.
        #[arg(long, value_name = "SIZE")]
        after_bytes: Option<String>,
        /// Seconds that a dismount waits for the copy.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Seconds that a write to the source waits for the replication of a copy.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        lock_source: u64,
        /// none, position or readback.
        #[arg(long)]
        verify: Option<String>,
    },
    /// Take entries out of the map; what was copied stays where it is.
    Remove(Entries),
    /// Copy now, whatever the policy says.
    Run(Entries),
    /// Say what would happen if a tape were dismounted now, and why.
    Explain {
        #[command(flatten)]
        which: Which,
        /// The source: LIBRARY:BARCODE, or LIBRARY:FIRST-LAST.
        source: String,
    },
}

/// Entries of a map that are there.
#[derive(Debug, Args)]
pub(crate) struct Entries {
    #[command(flatten)]
    which: Which,
    /// The source: LIBRARY:BARCODE, or LIBRARY:FIRST-LAST.
    source: String,
    /// Only those with this target.
    target: Option<String>,
}

/// Which medium is migrated where.
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Show the map.
    Show(Which),
    /// Enter a migration, or change it.
    Set {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        ends: Ends,
        /// when-full, after-days, deferred or always.
        #[arg(long, value_parser = policy)]
        policy: String,
        /// Of after-days: days since the last write.
        #[arg(long)]
        days: Option<u32>,
        /// Of deferred: as for copies.
        #[arg(long)]
        schedule: Option<String>,
        /// How the target is proven before the source is freed: none, position or readback.
        #[arg(long)]
        verify: Option<String>,
    },
    /// Take entries out of the map; where a content was moved to stays known.
    Remove {
        #[command(flatten)]
        which: Which,
        /// The source: LIBRARY:BARCODE, or LIBRARY:FIRST-LAST.
        source: String,
    },
    /// Migrate now, whatever the policy says.
    Run {
        #[command(flatten)]
        which: Which,
        /// The source: LIBRARY:BARCODE, or LIBRARY:FIRST-LAST.
        source: String,
    },
}

/// Media that entries may take as targets.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Show the pools.
    Show(Which),
    /// Put tapes into a pool.
    Add {
        #[command(flatten)]
        which: Which,
        /// Its name.
        pool: String,
        /// LIBRARY:BARCODE or LIBRARY:FIRST-LAST.
        #[arg(required = true)]
        tapes: Vec<String>,
    },
    /// Take tapes out of their pools.
    Remove {
        #[command(flatten)]
        which: Which,
        /// LIBRARY:BARCODE or LIBRARY:FIRST-LAST.
        #[arg(required = true)]
        tapes: Vec<String>,
    },
}

/// A policy as the maps have it: words with blanks.
fn policy(text: &str) -> Result<String, String> {
    let words = text.replace('-', " ");
    let known: Result<svs::MapPolicy, _> = words.parse();
    known
        .map(|_| words)
        .map_err(|_| "write always, when-full, incremental, deferred or after-days".to_owned())
}

/// Library names by serial number.
struct Names(BTreeMap<String, String>);

impl Names {
    fn read(catalogue: &Catalogue) -> Result<Self, Failed> {
        let libraries = catalogue.libraries().map_err(Failed::new)?;
        let name = |library: &svs::Library| match library.role {
            LibraryRole::Ghost => format!("{}-{}", library.site, library.name),
            _ => library.name.to_string(),
        };
        let named = libraries.iter().map(|library| (library.serial.clone(), name(library)));
        Ok(Self(named.collect()))
    }

    fn library<'a>(&'a self, serial: &'a str) -> &'a str {
        self.0.get(serial).map_or(serial, String::as_str)
    }

    fn medium(&self, medium: &MediumRef) -> String {
        match medium {
            MediumRef::Tape { library, volser } => format!("{}:{volser}", self.library(library)),
            MediumRef::Disk(disk) => disk.to_string(),
        }
    }

    fn range(&self, range: &TapeRange) -> String {
        let library = self.library(&range.library);
        match range.first == range.last {
            true => format!("{library}:{}", range.first),
            false => format!("{library}:{}-{}", range.first, range.last),
        }
    }

    fn device(&self, device: &DeviceRef) -> String {
        match device {
            DeviceRef::Drive { library, drive } => format!("{} {drive}", self.library(library)),
            DeviceRef::Disk(disk) => disk.to_string(),
        }
    }
}

pub(crate) fn map(command: &MapCommand, output: &Output) -> Result<(), Failed> {
    match command {
        MapCommand::Show(which) => show_map(which, output),
        MapCommand::Backends(which) => {
            let found = ask(which, "map_backends", json!({}))?;
            output.show(&found, |found| {
                let row = |row: &Value| {
                    let word = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
                    let state = match (row["in_map"].as_bool(), row["frontend"].is_null()) {
                        (Some(true), false) => "mapped",
                        (Some(true), true) => "kept for copies",
                        _ => "free",
                    };
                    [word("drive"), word("device"), word("model"), state.to_owned()]
                };
                let rows = found["backends"].as_array().into_iter().flatten().map(row);
                table(["drive", "in the maps", "model", "state"], rows.collect())
            })
        }
        MapCommand::Set { which, backend, frontend, tapes } => {
            let params = json!({ "backend": backend, "frontend": frontend, "tapes": tapes });
            changed(ask(which, "map_set", params)?, output)
        }
        MapCommand::Remove { which, device } => {
            changed(ask(which, "map_remove", json!({ "device": device }))?, output)
        }
    }
}

fn show_map(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let names = Names::read(&catalogue)?;
    let rows = catalogue.frontend_backends().map_err(Failed::new)?;
    output.show(&rows, |rows| {
        let row = |row: &svs::FrontendBackend| {
            let tapes = row.backend_tapes.iter().map(|range| names.range(range));
            [
                names.device(&row.backend_device),
                or_dash(row.frontend_device.as_ref().map(|device| names.device(device))),
                or_dash(row.alternative_backend_device.as_ref().map(|it| names.device(it))),
                tapes.collect::<Vec<_>>().join(", "),
            ]
        };
        let header = ["backend", "frontend", "alternative in use", "tapes"];
        table(header, rows.iter().map(row).collect())
    })
}

/// What a change has answered: entries for people, all of it for programs.
fn changed(answer: Value, output: &Output) -> Result<(), Failed> {
    output.show(&answer, |answer| match answer["entries"].as_array() {
        Some(entries) => format!("{} entries", entries.len()),
        None => match answer["entries"].as_u64().or(answer["media"].as_u64()) {
            Some(count) => format!("{count} entries"),
            None => "done".to_owned(),
        },
    })
}

fn merged(mut params: Value, more: Value) -> Value {
    if let (Some(all), Value::Object(more)) = (params.as_object_mut(), more) {
        all.extend(more);
    }
    params
}

pub(crate) fn copy(command: &CopyCommand, output: &Output) -> Result<(), Failed> {
    let entries = |entries: &Entries| json!({ "source": entries.source, "target": entries.target });
    match command {
        CopyCommand::Show(which) => show_copies(which, output),
        CopyCommand::Set {
            which,
            ends,
            policy,
            schedule,
            after_records,
            after_bytes,
            wait,
            lock_source,
            verify,
        } => {
            let rule = json!({
                "policy": policy, "schedule": schedule, "after_records": after_records,
                "after_bytes": after_bytes, "wait": wait, "lock_source": lock_source,
                "verify": verify,
            });
            changed(ask(which, "copy_set", merged(ends.params(), rule))?, output)
        }
        CopyCommand::Remove(which) => {
            changed(ask(&which.which, "copy_remove", entries(which))?, output)
        }
        CopyCommand::Run(which) => changed(ask(&which.which, "copy_run", entries(which))?, output),
        CopyCommand::Explain { which, source } => {
            let found = ask(which, "copy_explain", json!({ "source": source }))?;
            output.show(&found, explained)
        }
    }
}

fn explained(found: &Value) -> String {
    let row = |entry: &Value| {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let verdict = &entry["verdict"];
        let would = match (verdict["would"].as_str(), verdict["from"].as_u64()) {
            (Some("copy"), Some(0)) => "copy all".to_owned(),
            (Some("copy"), Some(from)) => format!("copy from object {from} on"),
            (Some("wait"), _) => format!("nothing ({})", word(&verdict["status"])),
            (other, _) => other.unwrap_or("-").to_owned(),
        };
        let (source, target) = (word(&entry["source"]), word(&entry["target"]));
        [word(&entry["map"]), source, target, word(&entry["policy"]), would, word(&verdict["why"])]
    };
    let rows = found["entries"].as_array().into_iter().flatten().map(row);
    table(["map", "source", "target", "policy", "would", "why"], rows.collect())
}

fn show_copies(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let names = Names::read(&catalogue)?;
    let rows = catalogue.copy_entries().map_err(Failed::new)?;
    output.show(&rows, |rows| {
        let row = |entry: &svs::CopyEntry| {
            let current = match entry.changed_from {
                None => "yes".to_owned(),
                Some(0) => "no".to_owned(),
                Some(object) => format!("up to object {object}"),
            };
            [
                names.medium(&entry.source_medium),
                names.medium(&entry.target_medium),
                entry.policy.to_string(),
                or_dash(entry.rule.schedule.as_deref()),
                entry.status.to_string(),
                current,
                entry.proven.to_string(),
                or_dash(entry.copied.as_deref()),
                or_dash(entry.message.as_deref()),
            ]
        };
        let header = [
            "source", "target", "policy", "schedule", "status", "current", "proven", "copied",
            "message",
        ];
        table(header, rows.iter().map(row).collect())
    })
}

pub(crate) fn migrate(command: &MigrateCommand, output: &Output) -> Result<(), Failed> {
    match command {
        MigrateCommand::Show(which) => show_migrations(which, output),
        MigrateCommand::Set { which, ends, policy, days, schedule, verify } => {
            let rule = json!({
                "policy": policy, "days": days, "schedule": schedule, "verify": verify,
            });
            changed(ask(which, "migration_set", merged(ends.params(), rule))?, output)
        }
        MigrateCommand::Remove { which, source } => {
            changed(ask(which, "migration_remove", json!({ "source": source }))?, output)
        }
        MigrateCommand::Run { which, source } => {
            changed(ask(which, "migration_run", json!({ "source": source }))?, output)
        }
    }
}

fn show_migrations(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let names = Names::read(&catalogue)?;
    let rows = catalogue.migration_entries().map_err(Failed::new)?;
    output.show(&rows, |rows| {
        let row = |entry: &svs::MigrationEntry| {
            let when = entry.rule.days.map(|days| format!("{days} days"));
            [
                names.medium(&entry.source_medium),
                names.medium(&entry.migration_medium),
                entry.policy.to_string(),
                or_dash(when.or(entry.rule.schedule.clone())),
                entry.status.to_string(),
                entry.proven.to_string(),
                or_dash(entry.moved.as_deref()),
                or_dash(entry.message.as_deref()),
            ]
        };
        let header = ["source", "target", "policy", "when", "status", "proven", "moved", "message"];
        table(header, rows.iter().map(row).collect())
    })
}

pub(crate) fn pool(command: &PoolCommand, output: &Output) -> Result<(), Failed> {
    match command {
        PoolCommand::Show(which) => {
            let (_, catalogue) = open(which)?;
            let names = Names::read(&catalogue)?;
            let rows = catalogue.pools().map_err(Failed::new)?;
            output.show(&rows, |rows| {
                let row = |row: &svs::Pooled| {
                    let state = if row.taken { "taken" } else { "free" };
                    [row.pool.clone(), names.medium(&row.medium), state.to_owned()]
                };
                table(["pool", "tape", "state"], rows.iter().map(row).collect())
            })
        }
        PoolCommand::Add { which, pool, tapes } => {
            let params = json!({ "pool": pool, "tapes": tapes });
            changed(ask(which, "pool_set", params)?, output)
        }
        PoolCommand::Remove { which, tapes } => {
            changed(ask(which, "pool_set", json!({ "tapes": tapes }))?, output)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_with_hyphens() {
        assert_eq!(policy("when-full").unwrap(), "when full");
        assert_eq!(policy("after-days").unwrap(), "after days");
        assert!(policy("sometimes").unwrap_err().contains("incremental"));
    }

    #[test]
    fn what_would_happen_is_said_in_words() {
        let entry = |verdict: Value| {
            json!({ "map": "copy", "source": "vtl0:A", "target": "dr-ptl0:B", "policy": "always",
                    "verdict": verdict })
        };
        let found = json!({ "entries": [
            entry(json!({ "would": "copy", "from": 7, "why": "the source was dismounted" })),
            entry(json!({ "would": "wait", "status": "pending", "why": "not full" })),
        ]});
        let text = explained(&found);
        assert!(text.contains("copy from object 7 on"), "{text}");
        assert!(text.contains("nothing (pending)"), "{text}");
    }
}
