//! The catalogue of an engine: jobs, events, cartridges, replication, devices and maps in SQLite.
//!
//! [`Catalogue`] is the door. It owns the file `STATE_DIR/svs.db` (WAL, `synchronous=FULL`): one
//! writer behind a mutex, and read-only connections for everything that lists. The SQL lives in
//! `schemas/svs/`; this crate is the only user of SQLite in the house.
//!
//! # Types
//!
//! - [`NewJob`], [`Job`], [`JobState`], [`JobStatus`]: long work. A row is written before the work
//!   starts and moves only along [`JobState::may_become`].
//! - [`Event`]: what happened, for the operator, by message number.
//! - [`Cartridge`], [`Generation`], [`Replication`]: what the store holds and where it went.
//! - [`Library`], [`Device`], [`Inventory`]: both sites, as last reported.
//! - [`FrontendBackend`], [`CopyEntry`], [`MigrationEntry`] with [`DeviceRef`] and [`MediumRef`]:
//!   the three maps.
//! - [`Catalogue::put_lease_row`]: what makes a ghost operation happen exactly once.
//!
//! # Invariants
//!
//! - A call that returned `Ok` is durable: it survives a power failure. The one exception is
//!   [`Catalogue::progress`], which may fall back by some seconds, but never becomes inconsistent.
//! - No call leaves half of its change behind: each one is a transaction.
//! - A finished job never changes its state again; after
//!   [`Catalogue::recover_after_restart`] none is in progress.
//!
//! # What it does not do
//!
//! It decides nothing: who resumes a job, which copy goes where and what is on tape is known by its
//! callers. It holds no secrets and no cartridge data. Calls block on the disk; an async caller
//! makes them on a blocking thread.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cartridge;
mod catalogue;
mod error;
mod event;
mod health;
mod job;
mod jobs;
mod lease;
mod library;
mod maps;
mod mount;
mod outside;
mod recover;
mod replication;
mod schema;
mod text;

pub use cartridge::{Cartridge, CartridgeStatus, Generation, GenerationState, TapeFacts};
pub use catalogue::Catalogue;
pub use error::SvsError;
pub use event::{Event, EventFilter, EventKind, NewEvent, Severity};
pub use health::{Condition, Health, HealthKind};
pub use job::{
    CopyPath, Ending, Job, JobFilter, JobKind, JobOwner, JobState, JobStatus, NewJob, Progress,
    Verified,
};
pub use library::{Device, Inventory, Library, LibraryRole};
pub use maps::{
    CopyEntry, CopyRule, CopyStart, DeviceRef, DiskRef, FrontendBackend, MapPolicy, MapStatus,
    MediumFacts, MediumRef, MigrationEntry, MigrationRule, Places, Pooled, ReferenceError, Settled,
    TapeRange,
};
pub use mount::{Mount, MountPriority, MountState};
pub use outside::{Outside, OutsidePlace};
pub use recover::{PeerFact, Recovered};
pub use replication::{Replication, ReplicationState};
pub use schema::VERSION as SCHEMA_VERSION;
