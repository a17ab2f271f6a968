//! Arrows between rooms point one way: down.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use crate::{none, root};

/// The floors, from the ground up. A room may use those on floors below its own, and no other.
const FLOORS: [&[&str]; 8] = [
    &["model", "xdr", "vfs", "cut", "lanes"],
    &["ndmp", "cim", "scsi", "iscsi", "svs", "store"],
    &["tape"],
    &["copy", "link"],
    &["service", "dma"],
    &["local-engine", "remote-engine"],
    &["twinreel"],
    &["tests"],
];

/// Arrows that would point down and are wrong all the same.
const FORBIDDEN: [(&str, &str, &str); 3] = [
    ("link", "store", "the protocol asks its shell for store work and stays pure"),
    ("link", "svs", "the protocol hands out what is to be kept and stays pure"),
    ("service", "link", "service is for any daemon"),
];

/// Other people's crates that only some rooms may use, directly or through others.
const RESERVED: [(&[&str], &[&str]); 2] = [
    (
        &["tokio", "rustls", "tokio-rustls"],
        &["service", "local-engine", "remote-engine", "twinreel", "tests"],
    ),
    (&["rusqlite"], &["svs"]),
];

/// The workspace as built on this machine; without the network, since the tests are built already.
fn metadata() -> Metadata {
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let about = String::from_utf8(rustc.stdout).expect("rustc speaks text");
    let host = about.lines().find_map(|l| l.strip_prefix("host: ")).expect("rustc has a host");
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline", "--filter-platform", host].map(str::to_owned))
        .exec()
        .expect("cargo metadata")
}

/// The direct dependencies of every room, those for tests only with `true`.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, Vec<(String, bool)>> {
    let members = metadata.workspace_packages();
    let list = |p: &&cargo_metadata::Package| {
        let of = |d: &cargo_metadata::Dependency| {
            (d.name.clone(), d.kind == DependencyKind::Development)
        };
        (p.name.to_string(), p.dependencies.iter().map(of).collect())
    };
    members.iter().map(list).collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|f| f.contains(&room))
}

#[test]
fn every_room_has_a_floor_and_uses_only_lower_ones() {
    let rooms = dependencies(&metadata());
    let mut wrong = Vec::new();
    for (room, uses) in &rooms {
        let Some(own) = floor(room) else {
            wrong.push(format!("{room} has no floor: add it to FLOORS and say why in docs/adr"));
            continue;
        };
        for (used, _) in uses.iter().filter(|(u, _)| rooms.contains_key(u)) {
            match floor(used) {
                Some(other) if other < own => {}
                _ => wrong.push(format!("{room} (floor {own}) uses {used} (not below it)")),
            }
        }
    }
    none("an arrow turns round", &wrong);
}

#[test]
fn what_must_not_know_each_other_does_not() {
    let rooms = dependencies(&metadata());
    let mut wrong = Vec::new();
    for (room, other, why) in FORBIDDEN {
        let uses = rooms.get(room).map(Vec::as_slice).unwrap_or_default();
        if uses.iter().any(|(used, _)| used == other) {
            wrong.push(format!("{room} uses {other}: {why}"));
        }
    }
    none("a room knows what it should not", &wrong);
}

#[test]
fn reserved_crates_stay_where_they_belong() {
    let metadata = metadata();
    let direct = dependencies(&metadata);
    let mut wrong = Vec::new();
    for (crates, owners) in RESERVED {
        for (room, uses) in direct.iter().filter(|(r, _)| !owners.contains(&r.as_str())) {
            for (used, _) in uses.iter().filter(|(u, _)| crates.contains(&u.as_str())) {
                wrong.push(format!("{room} uses {used}, which belongs to {owners:?}"));
            }
        }
    }
    // Sockets and daemons must not come in by a back door either: below `service` not even a
    // dependency of a dependency is tokio or rustls.
    let (asynchronous, owners) = RESERVED[0];
    for room in direct.keys().filter(|r| !owners.contains(&r.as_str())) {
        let all = closure(&metadata, room);
        for name in asynchronous.iter().filter(|n| all.contains(**n)) {
            wrong.push(format!("{room} comes with {name} through its dependencies"));
        }
    }
    none("a reserved crate is used elsewhere", &wrong);
}

/// The names of all packages that a room is built with, tests aside.
fn closure(metadata: &Metadata, room: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("metadata resolves");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let start = metadata.workspace_packages().into_iter().find(|p| p.name == room);
    let mut open: Vec<&PackageId> = vec![&start.expect("a room of the workspace").id];
    let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let normal = |d: &&cargo_metadata::NodeDep| {
            d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal)
        };
        open.extend(nodes[id].deps.iter().filter(normal).map(|d| &d.pkg));
    }
    let name = |p: &cargo_metadata::Package| seen.contains(&p.id).then(|| p.name.to_string());
    metadata.packages.iter().filter_map(name).collect()
}
