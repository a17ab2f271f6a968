//! Whether an entry can stand in the maps.

use svs::{FrontendBackend, MapPolicy, MediumRef, SvsError};

use super::names;
use crate::engine::Engine;

/// What the maps say already.
pub(super) struct Maps {
    /// Source and target of every copy.
    pub(super) copies: Vec<(MediumRef, MediumRef)>,
    /// Source and target of every migration.
    pub(super) migrations: Vec<(MediumRef, MediumRef)>,
}

impl Maps {
    pub(super) fn read(engine: &Engine) -> Result<Self, SvsError> {
        let catalogue = &engine.ground.catalogue;
        let copies = catalogue.copy_entries()?.into_iter();
        let migrations = catalogue.migration_entries()?.into_iter();
        Ok(Self {
            copies: copies.map(|entry| (entry.source_medium, entry.target_medium)).collect(),
            migrations: migrations
                .map(|entry| (entry.source_medium, entry.migration_medium))
                .collect(),
        })
    }

    fn all(&self) -> impl Iterator<Item = &(MediumRef, MediumRef)> {
        self.copies.iter().chain(&self.migrations)
    }

    /// Why a medium can not be the target of a source: in words for the administrator.
    ///
    /// A medium has one role and a target one source; the one target that two entries share is
    /// that of a copy and of the migration of the same source.
    pub(super) fn refuse(&self, source: &MediumRef, target: &MediumRef) -> Option<String> {
        if source == target {
            return Some(format!("{source} can not be its own target"));
        }
        if self.leads(target, source) {
            return Some(format!("{target} leads back to {source} by other entries: a cycle"));
        }
        let mut all = self.all();
        if let Some((other, _)) = all.find(|(s, t)| t == target && s != source) {
            return Some(format!("{target} is the target of {other} already"));
        }
        if self.all().any(|(s, _)| s == target) {
            return Some(format!("{target} is the source of another entry"));
        }
        if let Some((other, _)) = self.all().find(|(_, t)| t == source) {
            return Some(format!("{source} is the target of {other}"));
        }
        None
    }

    /// Whether entries lead from one medium to another.
    fn leads(&self, from: &MediumRef, to: &MediumRef) -> bool {
        let mut reached = vec![from];
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            next += 1;
            for (source, target) in self.all() {
                if source == at && !reached.contains(&target) {
                    reached.push(target);
                }
            }
        }
        reached.contains(&to)
    }
}

/// Whether a medium is known here, and how many bytes fit on it.
fn known(engine: &Engine, medium: &MediumRef) -> Result<Option<u64>, String> {
    let MediumRef::Tape { library, volser } = medium else {
        return Err("logical disks are not supported yet".into());
    };
    let Some((_, view)) = names::by_serial(engine, library) else {
        return Err(format!("there is no library with the serial number {library} here"));
    };
    match names::element(&view, volser) {
        Some(_) => Ok(view.capacity),
        None => Err(format!("there is no tape {}", names::show(engine, medium))),
    }
}

/// Whether two media can be source and target of an entry.
pub(super) fn pair(
    engine: &Engine,
    maps: &Maps,
    source: &MediumRef,
    target: &MediumRef,
) -> Result<(), String> {
    let (of_source, of_target) = (known(engine, source)?, known(engine, target)?);
    if let Some(why) = maps.refuse(source, target) {
        return Err(why);
    }
    match of_source.zip(of_target) {
        Some((source_bytes, bytes)) if bytes < source_bytes => Err(format!(
            "{} takes {bytes} bytes, {} {source_bytes}: the target is smaller than the source",
            names::show(engine, target),
            names::show(engine, source),
        )),
        _ => Ok(()),
    }
}

/// Whether a policy fits a map.
pub(super) fn policy(policy: MapPolicy, is_migration: bool) -> Result<(), String> {
    match (policy, is_migration) {
        (MapPolicy::AfterDays, false) => {
            Err("`after days` is a policy of migrations; write --schedule for a copy".into())
        }
        (MapPolicy::Incremental, true) => {
            Err("a migration moves all of a medium: `incremental` is a policy of copies".into())
        }
        _ => Ok(()),
    }
}

/// Whether a frontend can stand before a backend.
pub(super) fn frontend(engine: &Engine, entry: &FrontendBackend) -> Result<(), String> {
    let backend = &entry.backend_device;
    let svs::DeviceRef::Drive { library, .. } = backend else {
        return Err("logical disks are not supported yet".into());
    };
    let Some((_, view)) = names::by_serial(engine, library) else {
        return Err(format!("there is no library with the serial number {library} here"));
    };
    if view.role == svs::LibraryRole::Frontend {
        return Err(format!("{backend} is a frontend itself; name the drive behind it"));
    }
    if let Some(svs::DeviceRef::Drive { library: front, .. }) = &entry.frontend_device
        && front == library
    {
        return Err("a library can not stand before itself".into());
    }
    for range in &entry.backend_tapes {
        if range.library != *library {
            return Err(format!("{range} is not in the library of {backend}"));
        }
        // Ranges may name tapes that are to come; a single one that is not there is a slip.
        let there = names::element(&view, &range.first).is_some();
        if range.first == range.last && !there {
            return Err(format!("there is no tape {}", range.first));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tape(name: &str) -> MediumRef {
        format!("lib V tape {name}").parse().unwrap()
    }

    #[test]
    fn a_medium_has_one_role_and_a_target_one_source() {
        let pair = |a, b| (tape(a), tape(b));
        let maps = Maps {
            copies: vec![pair("A", "B"), pair("A", "C"), pair("D", "E")],
            migrations: vec![pair("A", "C"), pair("F", "G")],
        };
        let cases = [
            ("A", "A", "its own target"),
            ("B", "A", "a cycle"),
            ("H", "B", "is the target of"),
            ("H", "A", "is the source of"),
            ("B", "H", "is the target of"),
            ("E", "H", "is the target of"),
            ("H", "G", "is the target of"),
        ];
        for (source, target, why) in cases {
            let refused = maps.refuse(&tape(source), &tape(target)).unwrap();
            assert!(refused.contains(why), "{source} {target}: {refused}");
        }
        // What stands there may be entered again, and a copy may be what a migration wants.
        for (source, target) in [("A", "B"), ("A", "C"), ("F", "G"), ("F", "H"), ("H", "I")] {
            assert_eq!(maps.refuse(&tape(source), &tape(target)), None, "{source} {target}");
        }
    }

    #[test]
    fn a_policy_fits_its_map() {
        for word in MapPolicy::ALL {
            assert_eq!(policy(*word, false).is_ok(), *word != MapPolicy::AfterDays);
            assert_eq!(policy(*word, true).is_ok(), *word != MapPolicy::Incremental);
        }
    }
}
