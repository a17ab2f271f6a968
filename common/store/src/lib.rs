//! The store: cartridges as records and filemarks over deduplicated, compressed, checksummed
//! chunks in append-only containers, behind `vfs`, crash-consistent.
//!
//! - [`Store`] is the handle: opened once per process and directory, cloned freely, shared by
//!   threads.
//! - [`Image`] is one cartridge open for reading and writing. The first write begins a new
//!   *generation*; [`Image::flush`] makes it durable, [`Image::seal`] makes it immutable.
//! - [`GenerationReader`] reads a sealed generation, as a tape or by byte extents. What it shares
//!   with an image, moving and reading, is [`Reel`].
//! - [`Recipes`], [`Compare`], [`Store::missing`], [`Store::stored_chunk`],
//!   [`Store::put_stored_chunk`] and [`Import`] are what replication is made of. [`Store::bring`]
//!   does it between two stores that are open here, [`Store::digests`] compares two that are not.
//!
//! # Invariants
//!
//! - What a flush acknowledged is there after any crash; what is there after a crash is what was
//!   written, up to some point at or behind the last acknowledged flush. No record is ever torn.
//! - A sealed generation never changes, and a recipe is only committed when every chunk that it
//!   names is durable.
//! - No byte is returned that does not have the SHA-256 it was stored under.
//! - Record boundaries are kept apart from the byte stream, so block sizes do not spoil
//!   deduplication. Chunks never span filemarks.
//! - Memory is bounded but for about 3 bytes a chunk of the index: lists of chunks and objects are
//!   read in pages from files.
//! - After a sync that failed nothing is written any more until the store is opened anew.
//! - A store that was made with a [`Key`] has nothing on disk that tells what is in it.
//!
//! # What it does not do
//!
//! It knows no barcodes, capacities or drives (the layer above does), and takes no decision which
//! generation to keep. Space of deleted generations comes back when [`Store::collect`] is asked.
//!
//! The files are described in `docs/formats/store.md`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bring;
mod bytesio;
mod chunker;
mod codec;
mod collect;
mod compare;
mod container;
mod crew;
mod digests;
mod error;
mod follow;
#[cfg(test)]
mod golden;
mod image;
mod import;
mod index;
mod info;
mod journal;
mod keyfile;
mod kin;
mod layout;
mod lock;
mod paged;
mod put;
mod readahead;
mod reader;
mod recipe;
mod recover;
mod reel;
mod rewrite;
mod spares;
mod store;
#[cfg(test)]
mod testing;
mod vault;

pub use bring::{BringError, Brought};
pub use collect::{Checked, Collected, Hold, LOST_MAX};
pub use compare::{Compare, Piece};
pub use crew::side_by_side;
pub use digests::{Depth, chunk_digest, part};
pub use error::{Result, StoreError};
pub use follow::{Growth, Standing, Watcher};
pub use image::{Extent, Image};
pub use import::Import;
pub use info::{
    ChunkParams, ChunkRef, Damage, Encoding, GenerationInfo, MAX_CHUNK, MAX_RECORD, ObjectRun,
    OpenReport, Options, RecoveredGeneration, Statistics, StoredChunk,
};
pub use keyfile::{KeyBytes, make_key_file, read_key_file};
pub use layout::Place;
pub use reader::{GenerationReader, Recipes};
pub use reel::{Object, Reel, Runs, Space, SpaceStop, Spaced};
pub use rewrite::{Fragmentation, Rewriting, Rewritten};
pub use store::{Pin, Store};
pub use vault::{Key, KeyError, KeyId};
