//! XML: what comes in as a bounded tree, what goes out as text.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Element, Limits, NotXml, read};
pub use write::{Drain, Writer};
