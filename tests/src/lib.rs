//! What the tests of the whole product stand on: the engines as real processes ([`Engine`],
//! [`Pair`]), the wire between them with a hand on it ([`Relay`]), seeded data ([`Content`],
//! [`Input`]), scratch directories that survive a failure ([`Scratch`]), waiting for events instead
//! of sleeping ([`wait`]), and pictures of what was measured ([`Picture`]).
//!
//! Rules that everything here keeps:
//! - A random choice comes from [`seed`], which is printed and can be set: `TWINREEL_SEED=7`.
//! - Nothing waits for a length of time. It waits for an event with a deadline, and a deadline
//!   that passes fails the test with what was seen until then.
//! - An engine that logs a WARN or ERROR line which the test has not named fails the test.
//! - What can not be tested on this machine is said by [`skip`], never passed over.
//!
//! It does not speak NDMP itself: [`Operator`] does its steps with the `dma` crate, which the demo
//! uses too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod content;
mod engine;
mod expected;
mod inputs;
mod log;
mod operator;
mod pair;
mod picture;
mod port;
mod relay;
mod rng;
mod scratch;
mod sources;
mod tape;
pub mod wait;

pub use content::{Content, Reader, Texture};
pub use engine::{Engine, Role, twinreel, twinreel_binary};
pub use expected::Expected;
pub use inputs::Input;
pub use log::LogLines;
pub use operator::{Item, Operator, RECORD_MAX};
pub use pair::{Pair, start_replication};
pub use picture::{Axis, Picture, Series, draw, thousands};
pub use port::free_port;
pub use relay::{Direction, Relay};
pub use rng::{Rng, full, seed};
pub use scratch::Scratch;
pub use tape::{Object, read_encrypted_tape, read_tape};

/// Says that something was not tested and why. `tests/run` counts these lines.
pub fn skip(name: &str, why: &str) {
    println!("SKIPPED: {name} ({why})");
}
