//! What survives: copies of the files at every step, torn logs, killed processes, old versions,
//! and other readers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::*;
use svs::{
    Catalogue, Ending, EventFilter, EventKind, JobFilter, JobKind, JobOwner, JobState, NewEvent,
    Progress, Severity, SvsError, Verified,
};

fn say(c: &Catalogue, text: &str) -> u64 {
    let (kind, severity) = (EventKind::Engine, Severity::Info);
    let message_id = "TWR-1001-I";
    c.event(&NewEvent { kind, severity, message_id, text, subject: None }).unwrap()
}

/// What a crash of the process leaves: the database and its log, without the shared memory.
fn image(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    for name in ["svs.db", "svs.db-wal"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    to.join("svs.db")
}

/// Everything that the steps below change, as one comparable text.
fn digest(c: &Catalogue) -> String {
    let lease = c.lease_rows().unwrap();
    let jobs = c.jobs(&JobFilter::default()).unwrap();
    let events = c.events(&EventFilter::default()).unwrap();
    format!("{jobs:?} {events:?} {lease:?} {:?}", c.cartridge_status().unwrap())
}

#[test]
fn an_image_taken_after_any_step_holds_that_step() {
    let (dir, c) = catalogue();
    let (tape, lease) = (cartridge("VTA001L8"), model::LeaseId::generate(1));
    let generation = generation(tape.id, 1);
    let steps: [&dyn Fn(); 12] = [
        &|| assert!(c.create_job(&job(1, JobKind::Copy, JobOwner::Dma)).unwrap()),
        &|| c.transition(job_id(1), JobState::InProgress, None).map(drop).unwrap(),
        &|| c.progress(job_id(1), Progress { bytes: 5, bytes_total: Some(9) }).unwrap(),
        &|| c.flushed(job_id(1), 2, 9).unwrap(),
        &|| c.put_cartridge(&tape).unwrap(),
        &|| c.put_generation(&generation).unwrap(),
        &|| assert_eq!(say(&c, "one"), 1),
        &|| c.put_lease_row(lease, &[1]).unwrap(),
        &|| c.put_lease_row(lease, &[2]).unwrap(),
        &|| c.finish(job_id(1), &Ending::done(9, Verified::Position)).unwrap(),
        &|| c.remove_lease_row(lease).unwrap(),
        &|| c.remove_cartridge(tape.id).unwrap(),
    ];
    for (number, step) in steps.iter().enumerate() {
        step();
        let path = image(dir.path(), &dir.path().join(format!("image{number}")));
        let copy = Catalogue::open(&path).unwrap();
        copy.check().unwrap();
        assert_eq!(digest(&copy), digest(&c), "after step {number}");
    }
}

#[test]
fn a_log_cut_anywhere_gives_an_earlier_state_and_never_a_broken_one() {
    let (dir, c) = catalogue();
    let total = 40;
    for n in 1..=total {
        c.create_job(&job(n, JobKind::Copy, JobOwner::Engine)).unwrap();
        say(&c, &format!("event {n}"));
    }
    let wal = std::fs::read(dir.path().join("svs.db-wal")).unwrap();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed | 1;
    for round in 0..30 {
        // xorshift64: any spread of places will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let cut = usize::try_from(random % (wal.len() as u64 + 1)).unwrap();
        let place = dir.path().join(format!("cut{round}"));
        let path = image(dir.path(), &place);
        std::fs::write(place.join("svs.db-wal"), &wal[..cut]).unwrap();
        // What is cut may be the very making of the database; then it is made again.
        let copy = Catalogue::open(&path).unwrap();
        copy.check().unwrap();
        let jobs = copy.jobs(&JobFilter::default()).unwrap();
        let events = copy.events(&EventFilter::default()).unwrap();
        let ids: Vec<_> = jobs.iter().map(|row| row.id).collect();
        let prefix: Vec<_> = (1..=jobs.len() as u64).map(job_id).collect();
        assert_eq!(ids, prefix, "cut at {cut}");
        assert!(jobs.len() == events.len() || jobs.len() == events.len() + 1, "cut at {cut}");
    }
}

const CHILD: &str = "SVS_TEST_CHILD";

/// Not a test of its own: the process that the next one kills.
#[test]
fn child_writes_until_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let c = Catalogue::open(Path::new(&path)).unwrap();
    for n in 0.. {
        let id = say(&c, &format!("{n}"));
        c.create_job(&job(id, JobKind::Copy, JobOwner::Engine)).unwrap();
        // Bypasses the capture of the test harness.
        use std::io::Write;
        writeln!(std::io::stderr(), "ack {id}").unwrap();
    }
}

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("svs.db");
    let mut last = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::child_writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let acks = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("ack ").and_then(|id| id.parse::<u64>().ok()));
        let mut seen = 0;
        for id in acks {
            (last, seen) = (id, seen + 1);
            if seen == 10 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let c = Catalogue::open(&path).unwrap();
        c.check().unwrap();
        let filter = EventFilter { limit: 1, ..EventFilter::default() };
        let newest = c.events(&filter).unwrap()[0].id;
        assert!(newest == last || newest == last + 1, "{newest} for {last} acknowledged");
        assert!(c.job(job_id(last)).unwrap().is_some());
    }
}

#[test]
fn version_1_is_migrated_with_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("svs.db");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalogue/golden/v1.db");
    std::fs::copy(golden, &path).unwrap();
    let old = Catalogue::open_read_only(&path);
    assert!(matches!(old, Err(SvsError::Corrupt { .. })), "a reader does not migrate");
    let c = Catalogue::open(&path).unwrap();
    c.check().unwrap();
    let jobs = c.jobs(&JobFilter::default()).unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!((jobs[0].state, jobs[0].percent), (JobState::InProgress, Some(50.0)));
    assert_eq!(c.cartridge_status().unwrap()[0].logical_bytes, Some(640));
    assert_eq!(c.copy_entries().unwrap().len(), 1);
    assert_eq!(c.recover_after_restart("restart").unwrap().len(), 1);
    c.put_lease_row(model::LeaseId::generate(1), b"row").unwrap();
    drop(c);
    Catalogue::open(&path).unwrap().check().unwrap();
}

#[test]
fn a_newer_version_and_what_is_no_database_are_refused() {
    let (dir, c) = catalogue();
    drop(c);
    let path = dir.path().join("svs.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    for result in [Catalogue::open(&path), Catalogue::open_read_only(&path)] {
        assert!(matches!(result, Err(SvsError::Newer { found: 99, .. })));
    }
    std::fs::write(dir.path().join("x.db"), [b'x'; 5000]).unwrap();
    assert!(Catalogue::open(&dir.path().join("x.db")).is_err());
    let missing = Catalogue::open_read_only(&dir.path().join("missing.db"));
    assert!(matches!(missing, Err(SvsError::Open { .. })));
}

#[test]
fn readers_and_writers_do_not_wait_for_each_other() {
    let (dir, c) = catalogue();
    let other = Catalogue::open_read_only(&dir.path().join("svs.db")).unwrap();
    assert!(matches!(other.set_meta("a", "b"), Err(SvsError::ReadOnly)));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let c = &c;
            scope.spawn(move || {
                for n in 0..30 {
                    let id = 1000 * thread + n;
                    c.create_job(&job(id, JobKind::Copy, JobOwner::Engine)).unwrap();
                    c.transition(job_id(id), JobState::InProgress, None).unwrap();
                    c.progress(job_id(id), Progress { bytes: n, bytes_total: None }).unwrap();
                }
            });
        }
        for reader in [&other, &c] {
            scope.spawn(move || {
                for _ in 0..60 {
                    assert!(reader.jobs(&JobFilter::default()).unwrap().len() <= 90);
                }
            });
        }
    });
    assert_eq!(other.jobs(&JobFilter::unfinished()).unwrap().len(), 90);
    c.set_meta("store", "x").unwrap();
    assert_eq!(other.meta("store").unwrap().as_deref(), Some("x"));
    assert_eq!(other.meta("nothing").unwrap(), None);
}
