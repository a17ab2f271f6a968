//! The whole product, end to end: two engines as processes, driven from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ahead;
mod differences;
mod dma;
mod doctor;
mod drives;
mod faults;
mod frontends;
mod heal;
mod keys;
mod kill;
mod library;
mod listing;
mod malformed;
mod page;
mod policies;
mod records;
mod scene;
mod seed;
mod trouble;
mod upkeep;
mod wire;
