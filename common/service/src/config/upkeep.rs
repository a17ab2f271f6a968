//! `[store]`: how long generations are kept, and when the store is looked after.

use std::path::{Path, PathBuf};

use model::ByteSize;
use serde::Deserialize;

use super::check::{Findings, resolve};

/// `[store]`, valid in both engines.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upkeep {
    /// The newest generations of each cartridge that are kept, 1 to 1000000; 3 if not given.
    pub keep_generations: u32,
    /// Older ones are kept as well until they are so many days old; 0 if not given.
    pub keep_days: u32,
    /// How often the space of deleted generations is given back, in hours, 0 for never; 24 if not
    /// given.
    pub collect_hours: u32,
    /// A container is given up when less than this percentage of it is needed, 0 to 100; 50 if not
    /// given.
    pub collect_below: u8,
    /// How often everything is read and checked, in days, 0 for never; 30 if not given.
    pub check_days: u32,
    /// How fast, in bytes a second, 0 for as fast as it goes; 50 MB if not given.
    pub check_rate: ByteSize,
    /// A newest generation is written together anew where reading it takes more than so many reads
    /// for each GiB, 512 to 65536, 0 for never; 1024 if not given.
    pub rewrite_reads: u32,
    /// Old copies of what was written anew may take this percentage of the store until they are
    /// collected, 1 to 100; 10 if not given.
    pub rewrite_room: u8,
    /// How fast that goes, in bytes read and written a second, 0 for as fast as it goes; 100 MB if
    /// not given.
    pub rewrite_rate: ByteSize,
    /// How often the local engine compares what it replicated with what the sites hold, in days, 0
    /// for never; 7 if not given.
    pub compare_days: u32,
    /// The key of the store, which is encrypted if one is given when it is made. Absolute after
    /// loading.
    pub key_file: Option<PathBuf>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            keep_generations: 3,
            keep_days: 0,
            collect_hours: 24,
            collect_below: 50,
            check_days: 30,
            check_rate: ByteSize(50_000_000),
            rewrite_reads: 1024,
            rewrite_room: 10,
            rewrite_rate: ByteSize(100_000_000),
            compare_days: 7,
            key_file: None,
        }
    }
}

impl Upkeep {
    pub(super) fn resolve(&mut self, base: &Path) {
        resolve(base, self.key_file.as_mut());
    }

    pub(super) fn check(&self, findings: &mut Findings) {
        findings.require((1..=1_000_000).contains(&self.keep_generations), || {
            format!("store: keep_generations is 1 to 1000000, not {}", self.keep_generations)
        });
        findings.require(self.collect_below <= 100, || {
            format!("store: collect_below is a percentage, not {}", self.collect_below)
        });
        let reads = self.rewrite_reads;
        findings.require(reads == 0 || (512..=65_536).contains(&reads), || {
            format!("store: rewrite_reads is 512 to 65536, or 0, not {reads}")
        });
        findings.require((1..=100).contains(&self.rewrite_room), || {
            format!("store: rewrite_room is a percentage, 1 to 100, not {}", self.rewrite_room)
        });
    }
}
