//! The whole product, end to end: two engines as processes, driven from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod malformed;
mod records;
mod wire;
