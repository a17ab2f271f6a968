//! The surroundings of a daemon from outside: configurations, certificates, command lines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod command;
mod config;
mod secured;

use service::init::{InitOptions, Initialised, init};

/// A pair's files in a directory of their own.
fn pair() -> (tempfile::TempDir, Initialised) {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path(), &InitOptions::with_ports(10000, 10001).unwrap()).unwrap();
    (dir, made)
}
