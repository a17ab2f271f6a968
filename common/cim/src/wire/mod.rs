//! CIM-XML (DSP0201, DSP0203): requests in, replies and exports out, and the HTTP headers of
//! DSP0200.

mod decode;
mod encode;
mod export;
mod header;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use decode::{Raw, read_instance, typed};
pub(crate) use encode::declaration;
pub use encode::{Encoder, Shape};
pub use export::{ExportReply, export, export_reply};
pub use header::{Head, Named};
pub use reply::{Reply, ReturnValue};
pub use request::{Call, Refusal, Request};
