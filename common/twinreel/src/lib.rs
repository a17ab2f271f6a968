//! The command line of an administrator, and both engines under their names.
//!
//! `twinreel local-engine ...` and `twinreel remote-engine ...` are the engines themselves, so that
//! one program is all that has to be built and carried. The rest:
//!
//! - `init` writes configurations; `status` and `replicate` talk to a running engine; `jobs`,
//!   `libraries` and `cartridges` read its catalogue, whether it runs or not.
//! - `dma` is a small backup application on the crate `dma`: inventory, backup, tape-to-tape copy,
//!   restore.
//! - `doctor` looks at an NDMP server as an application does, and says what to do.
//! - `demo` shows the whole line with two engines as processes of their own, and compares what
//!   comes out with what went in.
//!
//! Results go to standard output, as text or as one JSON document with `--json`; everything else
//! goes to standard error. Nothing here knows a protocol or a format: the rooms below do.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod catalogue;
mod cli;
mod demo;
mod dma;
mod doctor;
mod drive;
mod health;
mod library;
mod maps;
mod output;
mod queue;
mod seed;
mod status;
mod store_key;

use std::ffi::OsString;

/// The whole program; `arguments` begin with the program's name. Returns the exit code: 0 done,
/// 1 failed, 2 wrong arguments or configuration.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let rest = || arguments.iter().skip(1).cloned();
    match arguments.get(1).and_then(|name| name.to_str()) {
        Some("local-engine") => local_engine::run(rest()),
        Some("remote-engine") => remote_engine::run(rest()),
        _ => cli::run(arguments),
    }
}
