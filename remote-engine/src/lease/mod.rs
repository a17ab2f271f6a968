//! The leases of this engine: `link::LeaseTable` with devices, rows and connections around it.
//!
//! - [`Desk`] is the one thread that owns the table. Requests, ends of work and ticks come in over
//!   a bounded queue; what the table says is done in its order, a row before the answer behind it.
//! - [`Seat`] is an open device on its own thread.

mod copying;
mod desk;
mod proving;
mod seat;
mod source;
mod streaming;

pub use desk::{Desk, Event, Held, tick};
pub use seat::Seat;
