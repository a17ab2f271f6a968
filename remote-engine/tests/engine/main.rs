//! The remote engine with a peer written by hand, over real TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod health;
mod leases;
mod proofs;
mod ranges;
mod streams;
mod support;
