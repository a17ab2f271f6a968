//! What every daemon of the house needs around its work: configuration, TLS, logging, shutdown,
//! frames on sockets, the admin endpoint, and the command line of an engine.
//!
//! # Rooms
//!
//! - [`config`]: [`config::LocalConfig`] and [`config::RemoteConfig`], read, resolved and checked.
//! - [`init`](mod@init) and [`pki`]: working configurations and certificates for a pair.
//! - [`tls`]: mutual TLS 1.3; the names in a certificate are the site that speaks.
//! - [`framing`], [`bandwidth`]: length-prefixed frames with a cap, a rate limit, counters.
//! - [`admin`]: JSON requests over a Unix socket, for the command line.
//! - [`http`]: the accept loop of web servers; [`status`]: the status page.
//! - [`state`]: the state directory, one engine at a time.
//! - [`owner`]: the thread that owns an open device.
//! - [`upkeep`]: the store's space given back and its data checked, by schedule and by command.
//! - [`seed`]: generations on a disk that is shipped to the other site.
//! - [`healing`], [`comparing`]: what peers are asked for, and for what they hold.
//! - [`health`]: how drives and cartridges are, and what is done about it; [`cleaning`].
//! - [`physical`]: from a configuration to the physical library that it names;
//!   [`unit`](mod@unit): a device of it.
//! - [`messages`]: numbered messages, to the log and as events.
//! - [`cli`], [`logging`], [`shutdown`]: `main` of an engine.
//!
//! # Invariants
//!
//! - A configuration that loads is usable: names fit and do not clash, passwords and keys are
//!   readable by their owner only, certificates would be accepted by a peer of the same CA.
//! - Passwords and keys are in no log and no `Debug`.
//! - Whatever comes from a socket has a bound: frames, lines, connections, handshake time.
//!
//! # What it does not do
//!
//! It knows no protocol: what is in a frame belongs to `link`, what an NDMP session says to
//! `ndmp`, what an admin request does to the engine that answers it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
mod asking;
pub mod bandwidth;
pub mod cleaning;
pub mod cli;
pub mod comparing;
pub mod config;
pub mod framing;
pub mod healing;
pub mod health;
pub mod http;
pub mod init;
pub mod logging;
pub mod messages;
pub mod owner;
pub mod physical;
pub mod pki;
pub mod seed;
pub mod shutdown;
pub mod state;
pub mod status;
pub mod tls;
pub mod unit;
pub mod upkeep;
