//! The three maps: what a touch, a copy and a migration do to their rows.

use model::JobId;
use svs::{
    Catalogue, CopyEntry, CopyStart, DeviceRef, FrontendBackend, JobKind, JobOwner, JobState,
    MapPolicy, MapStatus, MediumRef, MigrationEntry, NewJob, Settled, SvsError, Verified,
};

use crate::support::catalogue;

fn device(text: &str) -> DeviceRef {
    text.parse().unwrap()
}

fn tape(name: &str) -> MediumRef {
    format!("lib V tape {name}").parse().unwrap()
}

fn job(kind: JobKind) -> NewJob {
    let id = JobId::generate(1_800_000_000_000);
    NewJob::new(id, kind, JobOwner::Engine, ("a", "b"), "test")
}

fn only(c: &Catalogue) -> CopyEntry {
    c.copy_entries().unwrap().remove(0)
}

fn begin(c: &Catalogue, from: u64) -> JobId {
    let (source, target) = (tape("A"), tape("B"));
    let version = c.medium_facts(&source).unwrap().version;
    let (job, seen) = (job(JobKind::Copy), (0, 0));
    let start = CopyStart { source: &source, target: &target, version, from, seen };
    c.begin_copy(&job, &start).unwrap();
    job.id
}

fn settle(c: &Catalogue, job: JobId, how: Settled) -> bool {
    c.settle_copy(&tape("A"), &tape("B"), job, &how).unwrap()
}

fn done() -> Settled {
    Settled::Done(Verified::Position)
}

#[test]
fn frontends_and_unmapped_backends_are_kept_as_people_write_them() {
    let (_dir, c) = catalogue();
    let mut entry = FrontendBackend {
        backend_device: device("lib P drive D0"),
        frontend_device: Some(device("lib F drive F0")),
        alternative_backend_device: None,
        backend_tapes: vec!["lib P tape A12345-A23456".parse().unwrap()],
    };
    c.put_frontend_backend(&entry).unwrap();
    let unmapped = FrontendBackend {
        backend_device: device("lib Q drive D0"),
        frontend_device: None,
        alternative_backend_device: None,
        backend_tapes: vec!["lib Q tape B10000-B10010".parse().unwrap()],
    };
    c.put_frontend_backend(&unmapped).unwrap();
    c.put_frontend_backend(&unmapped).unwrap();
    assert_eq!(c.frontend_backends().unwrap(), [unmapped.clone(), entry.clone()]);
    let other = device("lib Q drive D0");
    c.set_alternative(&device("lib F drive F0"), Some(&other)).unwrap();
    entry.alternative_backend_device = Some(other);
    assert_eq!(c.frontend_backends().unwrap()[1], entry);
    c.set_alternative(&device("lib F drive F0"), None).unwrap();
    assert!(c.set_alternative(&device("lib F drive F9"), None).is_err());
    // A backend that gets a frontend is no longer unmapped.
    let mapped = FrontendBackend { frontend_device: Some(device("lib F drive F1")), ..unmapped };
    c.put_frontend_backend(&mapped).unwrap();
    assert_eq!(c.frontend_backends().unwrap().len(), 2);
    c.remove_frontend_backend(&device("lib F drive F1")).unwrap();
    c.remove_frontend_backend(&device("lib F drive F0")).unwrap();
    assert!(c.remove_frontend_backend(&device("lib F drive F0")).is_err());
}

#[test]
fn a_copy_is_current_until_its_source_is_touched() {
    let (_dir, c) = catalogue();
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::Incremental)).unwrap();
    assert_eq!(only(&c).changed_from, Some(0));
    assert!(c.places(&tape("A")).unwrap().copies.is_empty());
    c.touch(&tape("A"), 0, None, 1000).unwrap();
    let first = begin(&c, 0);
    assert_eq!(only(&c).status, MapStatus::InProgress);
    assert!(settle(&c, first, done()));
    assert!(!settle(&c, first, done()), "it is settled once");
    let entry = only(&c);
    assert_eq!((entry.status, entry.changed_from), (MapStatus::Done, None));
    assert_eq!(entry.proven, Verified::Position);
    assert_eq!(c.places(&tape("A")).unwrap().copies, [tape("B")]);
    // Who looked a moment ago does not make it done again.
    c.touch(&tape("A"), 9, None, 1000).unwrap();
    c.copy_waits(&tape("A"), &tape("B"), MapStatus::Done, None).unwrap();
    assert_eq!(only(&c).status, MapStatus::Pending);
    // Several stretches of writing: the lowest one counts.
    c.touch(&tape("A"), 7, None, 1000).unwrap();
    c.touch(&tape("A"), 9, None, 1000).unwrap();
    let entry = only(&c);
    assert_eq!((entry.status, entry.changed_from), (MapStatus::Pending, Some(7)));
    assert!(c.places(&tape("A")).unwrap().copies.is_empty());
    assert_eq!(c.medium_facts(&tape("A")).unwrap().version, 4);
}

#[test]
fn what_is_written_during_a_copy_is_copied_next() {
    let (_dir, c) = catalogue();
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::Incremental)).unwrap();
    c.touch(&tape("A"), 0, None, 1000).unwrap();
    let first = begin(&c, 0);
    c.touch(&tape("A"), 12, None, 1000).unwrap();
    // The copy's own writes are no foreign ones.
    c.touch(&tape("B"), 0, Some(&tape("A")), 1000).unwrap();
    settle(&c, first, done());
    let entry = only(&c);
    assert_eq!((entry.status, entry.changed_from), (MapStatus::Pending, Some(12)));
    // A copy that fails has brought nothing.
    let second = begin(&c, 12);
    c.touch(&tape("A"), 20, None, 1000).unwrap();
    settle(&c, second, Settled::Failed { message: "no".into(), again: Some(5) });
    let entry = only(&c);
    assert_eq!((entry.status, entry.changed_from), (MapStatus::Pending, Some(12)));
    assert_eq!((entry.attempts, entry.next_try), (1, Some(5)));
    // Somebody else writes the target: it begins anew.
    let third = begin(&c, 12);
    c.touch(&tape("B"), 3, None, 1000).unwrap();
    settle(&c, third, done());
    assert_eq!(only(&c).changed_from, Some(0));
}

#[test]
fn a_write_between_the_look_and_the_job_is_looked_at_again() {
    let (_dir, c) = catalogue();
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::Incremental)).unwrap();
    c.touch(&tape("A"), 0, None, 1000).unwrap();
    let (source, target) = (tape("A"), tape("B"));
    let version = c.medium_facts(&source).unwrap().version;
    c.touch(&tape("A"), 4, None, 1000).unwrap();
    let job = job(JobKind::Copy);
    let start = CopyStart { source: &source, target: &target, version, from: 0, seen: (1, 2) };
    assert!(matches!(c.begin_copy(&job, &start), Err(SvsError::Conflict(_))));
    assert!(c.job(job.id).unwrap().is_none() && only(&c).status == MapStatus::Pending);
    let start = CopyStart { version: version + 1, ..start };
    c.begin_copy(&job, &start).unwrap();
    assert!(matches!(c.begin_copy(&job, &start), Err(SvsError::NotFound(_))), "one at a time");
    settle(&c, job.id, done());
    assert_eq!(only(&c).changed_from, None);
    assert_eq!(c.job(job.id).unwrap().unwrap().state, JobState::Pending);
}

#[test]
fn a_failure_is_told_and_a_command_tries_again() {
    let (_dir, c) = catalogue();
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::Always)).unwrap();
    let first = begin(&c, 0);
    settle(&c, first, Settled::Failed { message: "too small".into(), again: None });
    assert_eq!(only(&c).status, MapStatus::Failed);
    assert_eq!(only(&c).message.as_deref(), Some("too small"));
    c.ask_copy(&tape("A"), &tape("B")).unwrap();
    let entry = only(&c);
    assert!(entry.asked && entry.status == MapStatus::Pending && entry.attempts == 0);
    let waits = |status| c.copy_waits(&tape("A"), &tape("B"), status, Some("in a drive"));
    waits(MapStatus::Scheduled).unwrap();
    assert_eq!(only(&c).status, MapStatus::Scheduled);
    begin(&c, 0);
    waits(MapStatus::Pending).unwrap();
    assert_eq!(only(&c).status, MapStatus::InProgress);
    assert!(!only(&c).asked);
    assert!(c.ask_copy(&tape("A"), &tape("C")).is_err());
    c.remove_copy_entry(&tape("A"), &tape("B")).unwrap();
    assert!(c.remove_copy_entry(&tape("A"), &tape("B")).is_err());
}

#[test]
fn a_migration_moves_what_was_not_written_since() {
    let (_dir, c) = catalogue();
    let entry = MigrationEntry::new(tape("A"), tape("M"), MapPolicy::WhenFull);
    c.put_migration_entry(&entry).unwrap();
    c.touch(&tape("A"), 0, None, 1000).unwrap();
    c.set_full(&tape("A")).unwrap();
    let facts = c.medium_facts(&tape("A")).unwrap();
    assert!(facts.full);
    c.begin_migration(&job(JobKind::Migration), &tape("A"), facts.version).unwrap();
    assert!(c.put_migration_entry(&entry).is_err(), "it is being moved");
    assert_eq!(c.migration_version(&tape("A")).unwrap(), Some(facts.version));
    c.touch(&tape("A"), 3, None, 1000).unwrap();
    assert!(!c.moved(&tape("A"), facts.version, Verified::Readback).unwrap());
    c.migration_failed(&tape("A"), "written meanwhile", Some(1)).unwrap();
    let version = c.medium_facts(&tape("A")).unwrap().version;
    c.begin_migration(&job(JobKind::Migration), &tape("A"), version).unwrap();
    assert!(c.moved(&tape("A"), version, Verified::Readback).unwrap());
    assert_eq!(c.places(&tape("A")).unwrap().primary, tape("M"));
    assert_eq!(c.to_be_freed().unwrap(), [tape("A")]);
    // Written before it was freed: it is the primary again, and moved once more.
    c.touch(&tape("A"), 5, None, 1000).unwrap();
    assert_eq!(c.places(&tape("A")).unwrap().primary, tape("A"));
    let again = c.migration_entry(&tape("A")).unwrap().unwrap();
    assert_eq!(again.status, MapStatus::Pending);
    let version = c.medium_facts(&tape("A")).unwrap().version;
    assert!(c.moved(&tape("A"), version, Verified::Readback).unwrap());
    c.set_freed(&tape("A")).unwrap();
    assert!(c.to_be_freed().unwrap().is_empty());
    assert!(!c.medium_facts(&tape("A")).unwrap().full);
    let entry = c.migration_entries().unwrap().remove(0);
    assert_eq!((entry.status, entry.proven), (MapStatus::Done, Verified::Readback));
    c.remove_migration_entry(&tape("A")).unwrap();
    assert_eq!(c.places(&tape("A")).unwrap().primary, tape("M"));
}

#[test]
fn a_medium_is_not_copied_to_while_it_is_migrated_to_or_afterwards() {
    let (_dir, c) = catalogue();
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::Always)).unwrap();
    c.put_migration_entry(&MigrationEntry::new(tape("A"), tape("B"), MapPolicy::WhenFull)).unwrap();
    c.touch(&tape("A"), 0, None, 1000).unwrap();
    let version = c.medium_facts(&tape("A")).unwrap().version;
    let migrate = || c.begin_migration(&job(JobKind::Migration), &tape("A"), version);
    let (source, target) = (tape("A"), tape("B"));
    let start = CopyStart { source: &source, target: &target, version, from: 0, seen: (0, 0) };
    let copy = || c.begin_copy(&job(JobKind::Copy), &start);
    let first = begin(&c, 0);
    assert!(migrate().is_err(), "it is being copied to");
    assert!(!c.moved(&tape("A"), version, Verified::Readback).unwrap());
    settle(&c, first, Settled::Failed { message: "no".into(), again: Some(1) });
    migrate().unwrap();
    assert!(copy().is_err(), "it is being migrated to");
    assert!(c.moved(&tape("A"), version, Verified::Readback).unwrap());
    assert!(copy().is_err() && c.holds_migrated(&tape("B")).unwrap());
    assert!(!c.holds_migrated(&tape("A")).unwrap());
}

#[test]
fn media_are_counted_and_pools_give_what_is_free() {
    let (_dir, c) = catalogue();
    c.count_written(&tape("A"), 3, 100).unwrap();
    c.count_written(&tape("A"), 2, 50).unwrap();
    let facts = c.medium_facts(&tape("A")).unwrap();
    assert_eq!((facts.records, facts.bytes, facts.version), (5, 150, 0));
    c.put_in_pool("dr", &[tape("B"), tape("C")]).unwrap();
    assert!(c.put_in_pool("d r", &[tape("B")]).is_err());
    assert_eq!(c.free_in_pool("dr").unwrap(), Some(tape("B")));
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::Always)).unwrap();
    assert_eq!(c.free_in_pool("dr").unwrap(), Some(tape("C")));
    let pools = c.pools().unwrap();
    assert!(pools[0].taken && !pools[1].taken);
    c.take_out_of_pools(&[tape("C")]).unwrap();
    assert_eq!(c.free_in_pool("dr").unwrap(), None);
}

#[test]
fn people_look_at_views_and_are_stopped_by_checks() {
    let (_dir, c) = catalogue();
    c.put_copy_entry(&CopyEntry::new(tape("A"), tape("B"), MapPolicy::WhenFull)).unwrap();
    c.put_migration_entry(&MigrationEntry::new(tape("A"), tape("M"), MapPolicy::AfterDays))
        .unwrap();
    begin(&c, 0);
    let raw = rusqlite::Connection::open(c.path()).unwrap();
    let text = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("SELECT status || job_state FROM copy_status"), "in progresspending");
    assert_eq!(text("SELECT status FROM migration_status"), "pending");
    let insert = |source: &str, policy: &str, status: &str| {
        raw.execute(
            "INSERT INTO copy_map (source_medium, target_medium, policy, status)
             VALUES (?1, 'lib P tape T', ?2, ?3)",
            [source, policy, status],
        )
    };
    assert!(insert("VTA001L8", "always", "pending").is_err());
    assert!(insert("lib A tape B", "sometimes", "pending").is_err());
    assert!(insert("lib A tape B", "after days", "pending").is_err());
    assert!(insert("lib A tape B", "always", "in_progress").is_err());
    insert("lib A tape B C", "always", "pending").unwrap();
    assert!(matches!(c.copy_entries(), Err(SvsError::Corrupt { .. })));
}
