//! The catalogue from outside: rows, states, and what survives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod durability;
mod jobs;
mod maps;
mod rows;
mod support;
