//! CIM-XML: codec, schema and operations of a WBEM server, without a socket.
//!
//! ```text
//!   xml      bytes to a bounded tree, and text out (DSP0201's elements are `wire`'s)
//!   value    instances, paths and values
//!   schema   the classes that are served, from `schemas/cim/`
//!   wire     requests, replies and exports in XML (DSP0201, DSP0203), HTTP headers (DSP0200)
//!   server   the operations of DSP0200 over a [`Repository`]
//!   query    the WQL and CQL of indication filters
//! ```
//!
//! # Invariants
//!
//! - Nothing here knows a socket, a clock or a thread. The one lock is around pull contexts.
//! - Every length, depth and count of what a stranger sends is bounded before it is kept
//!   ([`xml::Limits`]); there is no document type and no entity but the five of XML.
//! - A reply holds what wbemcli's hand-written parser reads: no comment, no self-closed element
//!   with a value in it, no character reference but the five.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
pub mod query;
mod schema;
pub mod server;
mod value;
pub mod wire;
pub mod xml;

pub use error::{CimError, Status};
pub use schema::{Class, Feature, Method, Parameter, Schema, SchemaError};
pub use server::{Caller, Invoked, Repository, Server, Take};
pub use value::{Instance, KeyValue, Name, Path, Scalar, Type, Value, namespace, same_name};
