//! Two engines, joined by a relay, as `twinreel init` sets them up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use svs::{CartridgeStatus, Catalogue, JobFilter, JobKind, JobStatus, ReplicationState};
use toml::{Table, Value};

use crate::wait::{self, PATIENCE};
use crate::{Engine, Relay, Role, free_port, twinreel};

/// A pair on loopback. The link goes through [`Pair::relay`], so a test can count, cut, stall and
/// slow it.
#[derive(Debug)]
pub struct Pair {
    /// The engine at the backup site.
    pub local: Engine,
    /// The engine at the tape site.
    pub remote: Engine,
    /// Every byte between the two.
    pub relay: Relay,
    directory: PathBuf,
    ndmp: SocketAddr,
}

impl Pair {
    /// `twinreel init` in `directory`, both configurations handed to `change` (local, remote)
    /// before anything starts. Nothing runs yet: see [`Pair::run`].
    pub fn new(directory: &Path, change: impl FnOnce(&mut Table, &mut Table)) -> Self {
        let directory = directory.join("pair");
        let path = directory.to_str().expect("a scratch path is text");
        let (code, _, errors) = twinreel(["init", path]);
        assert_eq!(code, 0, "twinreel init: {errors}");
        let (local_file, remote_file) =
            (directory.join("local.toml"), directory.join("remote.toml"));
        let (mut local, mut remote) = (load(&local_file), load(&remote_file));

        let ndmp = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let link = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let relay = Relay::to(link);
        set(&mut local, "ndmp", "listen", Value::String(ndmp.to_string()));
        // One step at a time: those who want to see data go ahead of the unload say so.
        start_replication(&mut local, "on-unload");
        // Many tests fail to log in on purpose.
        set(&mut local, "ndmp", "login_attempts", Value::Integer(0));
        set(&mut remote, "link", "listen", Value::String(link.to_string()));
        let first = local["link"].as_array_mut().and_then(|l| l.first_mut());
        let first = first.and_then(Value::as_table_mut).expect("init writes one [[link]]");
        first.insert("connect".into(), Value::String(relay.address().to_string()));
        change(&mut local, &mut remote);
        save(&local_file, &local);
        save(&remote_file, &remote);

        Self {
            local: Engine::new(Role::Local, &local_file),
            remote: Engine::new(Role::Remote, &remote_file),
            relay,
            directory,
            ndmp,
        }
    }

    /// Starts both and waits until both are ready. The link may still be connecting.
    pub fn run(&mut self) {
        self.remote.run();
        self.local.run();
    }

    /// Where `init` put everything.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The password of the NDMP user `ndmp`.
    pub fn password(&self) -> String {
        let path = self.directory.join("ndmp.password");
        std::fs::read_to_string(path).expect("init wrote it").trim_end().to_owned()
    }

    /// The catalogue of an engine, which may run meanwhile.
    pub fn catalogue(&self, role: Role) -> Catalogue {
        let state = match role {
            Role::Local => "hq",
            Role::Remote => "dr",
        };
        let path = self.directory.join(state).join("svs.db");
        Catalogue::open_read_only(&path).expect("the catalogue opens")
    }

    /// All copies that an engine knows of, oldest first.
    pub fn copies(&self, role: Role) -> Vec<JobStatus> {
        let filter = JobFilter { kinds: vec![JobKind::Copy], ..JobFilter::default() };
        self.catalogue(role).jobs(&filter).expect("the jobs are listed")
    }

    /// What an engine knows of a virtual cartridge.
    pub fn cartridge(&self, role: Role, barcode: &str) -> CartridgeStatus {
        let all = self.catalogue(role).cartridge_status().expect("the cartridges are listed");
        let found = all.into_iter().find(|c| c.barcode.as_str() == barcode);
        found.unwrap_or_else(|| panic!("no cartridge {barcode} in the catalogue"))
    }

    /// Waits until the newest generation of a cartridge is at the other site.
    pub fn wait_replicated(&self, barcode: &str) {
        wait::until_within(PATIENCE * 5, &format!("{barcode} is replicated"), || {
            let status = self.cartridge(Role::Local, barcode);
            match status.replication {
                Some(ReplicationState::Done) => Some(()),
                Some(ReplicationState::Failed) => panic!("{status:?}"),
                _ => None,
            }
        });
    }

    /// Waits until neither engine has a job that has not ended, and fails with those that do not.
    pub fn wait_idle(&self) {
        for role in [Role::Local, Role::Remote] {
            let open = || self.catalogue(role).jobs(&JobFilter::unfinished()).expect("the jobs");
            let deadline = Instant::now() + PATIENCE;
            let what = format!("{role:?} has no unfinished job");
            wait::until_within(PATIENCE * 2, &what, || match open() {
                none if none.is_empty() => Some(()),
                jobs if Instant::now() > deadline => panic!("not {what}: {jobs:#?}"),
                _ => None,
            });
        }
    }

    /// The local engine's NDMP address.
    pub fn ndmp(&self) -> SocketAddr {
        self.ndmp
    }
}

impl Drop for Pair {
    /// Both stop at once, so that neither has to complain that the other is gone.
    fn drop(&mut self) {
        self.local.freeze();
        self.remote.freeze();
    }
}

/// Sets when the local engine replicates.
pub fn start_replication(local: &mut Table, when: &str) {
    let section = local.entry("replication").or_insert_with(|| Table::new().into());
    let section = section.as_table_mut().expect("a section is a table");
    section.insert("start".into(), when.into());
}

fn load(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).expect("init wrote it");
    text.parse().expect("init writes TOML")
}

fn save(path: &Path, table: &Table) {
    std::fs::write(path, toml::to_string(table).expect("a table is TOML"))
        .expect("it can be written");
}

fn set(table: &mut Table, section: &str, key: &str, value: Value) {
    let section = table.get_mut(section).and_then(Value::as_table_mut).expect("init writes it");
    section.insert(key.to_owned(), value);
}
