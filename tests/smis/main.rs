//! The server for management applications: hostile requests, and copies that no session holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copying;
mod health;
mod hostile;
mod jobs;
mod wire;
