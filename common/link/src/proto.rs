//! The messages as `schemas/link.proto` shapes them, generated. Their rules are kept by
//! [`Message`](crate::Message), which is what the engines use; these are for tests and tools.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/twinreel.link.v1.rs"));
