//! Who moves the bytes.
//!
//! The planner is asked anew whenever a copy begins or continues, since tapes, drives and the
//! link may have changed in a pause.

use std::fmt;

use model::SiteName;

/// Where one end of a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A cartridge in this engine's store.
    Store,
    /// A tape in a drive that this engine drives itself.
    LocalDrive,
    /// A tape in a drive of another site, and whether its engine can be reached now.
    RemoteDrive {
        /// The site whose engine drives it.
        site: SiteName,
        /// Whether its link is up.
        reachable: bool,
    },
    /// A mover of another host: bytes come and go over a connection.
    Foreign,
}

/// How a copy's data travels; the words of `job_status.path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The data stays where it is; the engine beside the target writes it.
    Offloaded,
    /// This engine reads and writes the bytes.
    Moved,
}

impl Path {
    /// The word in the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offloaded => "offloaded",
            Self::Moved => "moved",
        }
    }
}

/// Why a plan is what it is; the text of `job_status.path_reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The remote engine has the data by replication, or gets it first.
    RemoteHasData(SiteName),
    /// Source and target are cartridges of one store, which has the data already.
    SameStore,
    /// Source and target are both here.
    BothHere,
    /// The source is a tape at the other site: its records are read there and only unknown chunks
    /// travel.
    ReadAtSite(SiteName),
    /// One end is a mover of another host.
    ForeignMover,
    /// Replication to the target's site is switched off, so that its engine can not have the data.
    ReplicationOff(SiteName),
    /// The target's site can not be reached; the copy waits for it.
    Unreachable(SiteName),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteHasData(site) => write!(f, "{site} writes from its replica"),
            Self::SameStore => f.write_str("the store has the data already"),
            Self::BothHere => f.write_str("source and target are both at this site"),
            Self::ReadAtSite(site) => write!(f, "the tape is read at {site}"),
            Self::ForeignMover => f.write_str("one mover belongs to another host"),
            Self::ReplicationOff(site) => write!(f, "no replication to {site}"),
            Self::Unreachable(site) => write!(f, "{site} can not be reached"),
        }
    }
}

/// The planner's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the data travels.
    pub path: Path,
    /// Why.
    pub reason: Reason,
}

/// Decides who moves the bytes from `source` to `target`. `replicates_to` tells whether
/// cartridges may be replicated to a site.
pub fn plan(source: &Holder, target: &Holder, replicates_to: impl Fn(&SiteName) -> bool) -> Plan {
    let moved = |reason| Plan { path: Path::Moved, reason };
    match (source, target) {
        (Holder::Store, Holder::RemoteDrive { site, .. }) if !replicates_to(site) => {
            moved(Reason::ReplicationOff(site.clone()))
        }
        // An unreachable site changes nothing in who writes: the copy waits for its lease.
        (Holder::Store, Holder::RemoteDrive { site, .. }) => {
            Plan { path: Path::Offloaded, reason: Reason::RemoteHasData(site.clone()) }
        }
        (Holder::Store, Holder::Store) => Plan { path: Path::Offloaded, reason: Reason::SameStore },
        (Holder::Foreign, _) | (_, Holder::Foreign) => moved(Reason::ForeignMover),
        (Holder::RemoteDrive { site, reachable }, _)
        | (Holder::LocalDrive, Holder::RemoteDrive { site, reachable }) => match reachable {
            true => moved(Reason::ReadAtSite(site.clone())),
            false => moved(Reason::Unreachable(site.clone())),
        },
        (Holder::Store, Holder::LocalDrive)
        | (Holder::LocalDrive, Holder::Store | Holder::LocalDrive) => moved(Reason::BothHere),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(reachable: bool) -> Holder {
        Holder::RemoteDrive { site: SiteName::new("dr").unwrap(), reachable }
    }

    #[test]
    fn the_table_of_plans() {
        use Holder::{Foreign, LocalDrive, Store};
        let rows = [
            (Store, remote(true), true, "offloaded: dr writes from its replica"),
            (Store, remote(false), true, "offloaded: dr writes from its replica"),
            (Store, remote(true), false, "moved: no replication to dr"),
            (Store, Store, false, "offloaded: the store has the data already"),
            (LocalDrive, LocalDrive, true, "moved: source and target are both at this site"),
            (Store, LocalDrive, true, "moved: source and target are both at this site"),
            (LocalDrive, Store, true, "moved: source and target are both at this site"),
            (remote(true), Store, true, "moved: the tape is read at dr"),
            (remote(false), Store, true, "moved: dr can not be reached"),
            (remote(true), remote(true), true, "moved: the tape is read at dr"),
            (Foreign, remote(true), true, "moved: one mover belongs to another host"),
            (Store, Foreign, true, "moved: one mover belongs to another host"),
            (remote(true), Foreign, true, "moved: one mover belongs to another host"),
        ];
        for (source, target, replicates, expected) in rows {
            let plan = plan(&source, &target, |_| replicates);
            assert_eq!(
                format!("{}: {}", plan.path.as_str(), plan.reason),
                expected,
                "{source:?} -> {target:?}"
            );
        }
    }
}
