//! Seeds: a first replication on a disk that is shipped.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use model::{Barcode, LibraryName, SiteName};
use serde_json::json;

use crate::cli::{Failed, Which, cartridge};
use crate::output::Output;
use crate::status::long;

/// What is done with a seed.
#[derive(Debug, Subcommand)]
pub(crate) enum SeedCommand {
    /// Write what a site lacks to a directory on a disk, through the local engine that runs. May
    /// be ended and given again.
    Write {
        #[command(flatten)]
        which: Which,
        /// The site that the disk goes to.
        #[arg(long, value_name = "NAME", value_parser = site)]
        site: SiteName,
        /// Only this cartridge, and others that are named so.
        #[arg(long = "cartridge", value_name = "LIBRARY:BARCODE", value_parser = cartridge)]
        cartridges: Vec<(LibraryName, Barcode)>,
        /// Encrypt the seed with the key in this file (`twinreel store key new`).
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// Write it in clear although the store is encrypted.
        #[arg(long, conflicts_with = "key_file")]
        in_clear: bool,
        /// A directory that is empty or not there, or one of an earlier run.
        dir: PathBuf,
    },
    /// Take in what is in such a directory, through the remote engine that runs. May be ended and
    /// given again.
    Read {
        #[command(flatten)]
        which: Which,
        /// The file with the key of the seed.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// The directory.
        dir: PathBuf,
    },
}

fn site(text: &str) -> Result<SiteName, String> {
    SiteName::new(text).map_err(|error| error.to_string())
}

/// The engine may stand in another directory.
fn absolute(path: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(Failed::new)
}

/// Has a running engine write or read a seed.
pub(crate) fn run(command: &SeedCommand, output: &Output) -> Result<(), Failed> {
    let key = |key_file: &Option<PathBuf>| key_file.as_deref().map(absolute).transpose();
    match command {
        SeedCommand::Write { which, site, cartridges, key_file, in_clear, dir } => {
            let params = json!({
                "dir": absolute(dir)?,
                "key_file": key(key_file)?,
                "site": site,
                "cartridges": cartridges,
                "in_clear": in_clear,
            });
            long(which, "seed_write", params, output)
        }
        SeedCommand::Read { which, key_file, dir } => {
            let params = json!({ "dir": absolute(dir)?, "key_file": key(key_file)? });
            long(which, "seed_read", params, output)
        }
    }
}
