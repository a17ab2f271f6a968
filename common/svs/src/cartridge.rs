//! Cartridges and generations: the catalogue's side of what the store holds.

use model::{Barcode, CartridgeId, ElementAddress, GenerationId, LibraryName, SiteName};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::catalogue::{collect, first};
use crate::text::{now, parsed, parsed_opt, words};
use crate::{Catalogue, ReplicationState, SvsError};

/// A cartridge in the store of this engine.
///
/// `site` tells whose it is: this engine's own, or at the remote the peer's whose replica it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cartridge {
    /// The same at both sites.
    pub id: CartridgeId,
    /// The site whose library it belongs to.
    pub site: SiteName,
    /// The virtual library it belongs to.
    pub library: LibraryName,
    /// Its volume tag, once in a library.
    pub barcode: Barcode,
    /// Bytes that fit, as configured.
    pub capacity: u64,
    /// Whether the write-protect switch is on.
    pub write_protected: bool,
    /// Where it is in the library; `None` outside.
    pub element: Option<ElementAddress>,
    /// The slot it came from, while it is in a drive.
    pub home: Option<ElementAddress>,
}

words! {
    /// What the store holds of a generation.
    GenerationState ("a state of a generation") {
        /// Being written by a mount.
        Open = "open",
        /// Being received from the peer.
        Receiving = "receiving",
        /// Complete, durable and immutable.
        Sealed = "sealed",
        /// The store has no recipe for it: it can not be read.
        Missing = "missing",
    }
}

/// One generation of a cartridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The same at both sites, and the name of its recipe in the store.
    pub id: GenerationId,
    /// The cartridge, whose row must be there.
    pub cartridge: CartridgeId,
    /// Counts up from 1 for each cartridge.
    pub number: u64,
    /// What the store holds of it.
    pub state: GenerationState,
    /// Data records.
    pub records: u64,
    /// Filemarks.
    pub filemarks: u64,
    /// Bytes of all records.
    pub logical_bytes: u64,
    /// Bytes that this generation added to the store.
    pub unique_bytes: u64,
}

/// One row of the view `cartridge_status`: a cartridge, its newest generation, and where that went
/// (a row for each peer).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartridgeStatus {
    /// The site whose library it belongs to.
    pub site: SiteName,
    /// Its library.
    pub library: LibraryName,
    /// Its volume tag.
    pub barcode: Barcode,
    /// Its identifier.
    pub cartridge: CartridgeId,
    /// Where it is in the library.
    pub element: Option<ElementAddress>,
    /// Bytes that fit.
    pub capacity: u64,
    /// Whether the write-protect switch is on.
    pub write_protected: bool,
    /// The newest generation; null if it was never written.
    pub generation: Option<GenerationId>,
    /// The number of that generation.
    pub number: Option<u64>,
    /// What the store holds of it.
    pub state: Option<GenerationState>,
    /// Data records.
    pub records: Option<u64>,
    /// Filemarks.
    pub filemarks: Option<u64>,
    /// Bytes of all records.
    pub logical_bytes: Option<u64>,
    /// Bytes that it added to the store.
    pub unique_bytes: Option<u64>,
    /// The peer that it is replicated to or from.
    pub peer: Option<SiteName>,
    /// How far that is.
    pub replication: Option<ReplicationState>,
    /// Bytes on the wire for it.
    pub wire_bytes: Option<u64>,
}

/// What is asked of many tapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapeFacts {
    /// Volume tag.
    pub barcode: String,
    /// Bytes that fit.
    pub capacity: u64,
    /// Whether it may not be written.
    pub write_protected: bool,
    /// Bytes of the newest generation.
    pub logical_bytes: Option<u64>,
}

impl Catalogue {
    /// Writes a cartridge, or replaces what is known of it.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] if its library has another cartridge with this barcode.
    pub fn put_cartridge(&self, cartridge: &Cartridge) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO cartridges (id, site, library, barcode, capacity, write_protected,
                     element, home, created, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
                 ON CONFLICT (id) DO UPDATE SET site = excluded.site, library = excluded.library,
                     barcode = excluded.barcode, capacity = excluded.capacity,
                     write_protected = excluded.write_protected, element = excluded.element,
                     home = excluded.home, updated = excluded.updated",
                params![
                    cartridge.id.to_string(),
                    cartridge.site.as_str(),
                    cartridge.library.as_str(),
                    cartridge.barcode.as_str(),
                    cartridge.capacity,
                    cartridge.write_protected,
                    cartridge.element,
                    cartridge.home,
                    now(),
                ],
            )?;
            Ok(())
        })
    }

    /// Notes where a cartridge is now: its element and the slot it came from.
    ///
    /// # Errors
    /// [`SvsError::NotFound`].
    pub fn place_cartridge(
        &self,
        id: CartridgeId,
        element: Option<ElementAddress>,
        home: Option<ElementAddress>,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE cartridges SET element = ?2, home = ?3, updated = ?4 WHERE id = ?1",
                params![id.to_string(), element, home, now()],
            )?;
            found(rows, || format!("cartridge {id}"))
        })
    }

    /// One cartridge.
    pub fn cartridge(&self, id: CartridgeId) -> Result<Option<Cartridge>, SvsError> {
        let sql = "SELECT * FROM cartridges WHERE id = ?1";
        self.read(|c| first(c, sql, [id.to_string()], cartridge_from_row))
    }

    /// The cartridge with this barcode in a library.
    pub fn find_cartridge(
        &self,
        site: &SiteName,
        library: &LibraryName,
        barcode: &Barcode,
    ) -> Result<Option<Cartridge>, SvsError> {
        let sql = "SELECT * FROM cartridges WHERE site = ?1 AND library = ?2 AND barcode = ?3";
        let key = (site.as_str(), library.as_str(), barcode.as_str());
        self.read(|c| first(c, sql, key, cartridge_from_row))
    }

    /// All cartridges of a library, by barcode.
    pub fn cartridges(
        &self,
        site: &SiteName,
        library: &LibraryName,
    ) -> Result<Vec<Cartridge>, SvsError> {
        let sql = "SELECT * FROM cartridges WHERE site = ?1 AND library = ?2 ORDER BY barcode";
        self.read(|c| collect(c, sql, (site.as_str(), library.as_str()), cartridge_from_row))
    }

    /// Every cartridge with its newest generation and where that went, by site, library, barcode.
    pub fn cartridge_status(&self) -> Result<Vec<CartridgeStatus>, SvsError> {
        self.read(|c| collect(c, "SELECT * FROM cartridge_status", [], status_from_row))
    }

    /// The tapes of one library, or the one of that barcode, with little of each: for those who
    /// look at ten thousand.
    pub fn tape_facts(
        &self,
        site: &SiteName,
        library: &LibraryName,
        barcode: Option<&str>,
    ) -> Result<Vec<TapeFacts>, SvsError> {
        let sql = "SELECT barcode, capacity, write_protected,
                (SELECT logical_bytes FROM generations
                 WHERE cartridge = cartridges.id ORDER BY number DESC LIMIT 1) AS logical_bytes
            FROM cartridges
            WHERE site = ?1 AND library = ?2";
        let facts = |row: &Row<'_>| {
            Ok(TapeFacts {
                barcode: row.get("barcode")?,
                capacity: row.get("capacity")?,
                write_protected: row.get("write_protected")?,
                logical_bytes: row.get("logical_bytes")?,
            })
        };
        let (site, library) = (site.as_str(), library.as_str());
        self.read(|c| match barcode {
            None => collect(c, sql, [site, library], facts),
            Some(barcode) => {
                collect(c, &format!("{sql} AND barcode = ?3"), [site, library, barcode], facts)
            }
        })
    }

    /// Forgets a cartridge, its generations and their replication.
    pub fn remove_cartridge(&self, id: CartridgeId) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute("DELETE FROM cartridges WHERE id = ?1", [id.to_string()])?;
            found(rows, || format!("cartridge {id}"))
        })
    }

    /// Writes a generation, or replaces what is known of it. Its time of sealing is that of the
    /// first call with [`GenerationState::Sealed`].
    ///
    /// # Errors
    /// [`SvsError::Conflict`] if its cartridge has no row, or its number is taken.
    pub fn put_generation(&self, generation: &Generation) -> Result<(), SvsError> {
        let at = now();
        let sealed = (generation.state == GenerationState::Sealed).then_some(&at);
        self.write(|tx| {
            tx.execute(
                "INSERT INTO generations (id, cartridge, number, state, records, filemarks,
                     logical_bytes, unique_bytes, created, sealed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (id) DO UPDATE SET number = excluded.number, state = excluded.state,
                     records = excluded.records, filemarks = excluded.filemarks,
                     logical_bytes = excluded.logical_bytes, unique_bytes = excluded.unique_bytes,
                     sealed = coalesce(sealed, excluded.sealed)",
                params![
                    generation.id.to_string(),
                    generation.cartridge.to_string(),
                    generation.number,
                    generation.state,
                    generation.records,
                    generation.filemarks,
                    generation.logical_bytes,
                    generation.unique_bytes,
                    at,
                    sealed,
                ],
            )?;
            Ok(())
        })
    }

    /// One generation.
    pub fn generation(&self, id: GenerationId) -> Result<Option<Generation>, SvsError> {
        let sql = "SELECT * FROM generations WHERE id = ?1";
        self.read(|c| first(c, sql, [id.to_string()], generation_from_row))
    }

    /// The generations of a cartridge, oldest first.
    pub fn generations(&self, cartridge: CartridgeId) -> Result<Vec<Generation>, SvsError> {
        let sql = "SELECT * FROM generations WHERE cartridge = ?1 ORDER BY number";
        self.read(|c| collect(c, sql, [cartridge.to_string()], generation_from_row))
    }

    /// Every generation: what a start-up compares with the recipes of the store.
    pub fn all_generations(&self) -> Result<Vec<Generation>, SvsError> {
        let sql = "SELECT * FROM generations ORDER BY cartridge, number";
        self.read(|c| collect(c, sql, [], generation_from_row))
    }

    /// Forgets a generation and its replication, after the store freed it (or before it does, so
    /// that no row is left without its recipe).
    pub fn remove_generation(&self, id: GenerationId) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute("DELETE FROM generations WHERE id = ?1", [id.to_string()])?;
            found(rows, || format!("generation {id}"))
        })
    }
}

/// Turns "no row was changed" into [`SvsError::NotFound`].
pub(crate) fn found(rows: usize, what: impl FnOnce() -> String) -> Result<(), SvsError> {
    if rows == 0 { Err(SvsError::NotFound(what())) } else { Ok(()) }
}

fn cartridge_from_row(row: &Row<'_>) -> Result<Cartridge, SvsError> {
    Ok(Cartridge {
        id: parsed(row, "id")?,
        site: parsed(row, "site")?,
        library: parsed(row, "library")?,
        barcode: parsed(row, "barcode")?,
        capacity: row.get("capacity")?,
        write_protected: row.get("write_protected")?,
        element: row.get("element")?,
        home: row.get("home")?,
    })
}

fn generation_from_row(row: &Row<'_>) -> Result<Generation, SvsError> {
    Ok(Generation {
        id: parsed(row, "id")?,
        cartridge: parsed(row, "cartridge")?,
        number: row.get("number")?,
        state: parsed(row, "state")?,
        records: row.get("records")?,
        filemarks: row.get("filemarks")?,
        logical_bytes: row.get("logical_bytes")?,
        unique_bytes: row.get("unique_bytes")?,
    })
}

fn status_from_row(row: &Row<'_>) -> Result<CartridgeStatus, SvsError> {
    Ok(CartridgeStatus {
        site: parsed(row, "site")?,
        library: parsed(row, "library")?,
        barcode: parsed(row, "barcode")?,
        cartridge: parsed(row, "cartridge")?,
        element: row.get("element")?,
        capacity: row.get("capacity")?,
        write_protected: row.get("write_protected")?,
        generation: parsed_opt(row, "generation")?,
        number: row.get("number")?,
        state: parsed_opt(row, "state")?,
        records: row.get("records")?,
        filemarks: row.get("filemarks")?,
        logical_bytes: row.get("logical_bytes")?,
        unique_bytes: row.get("unique_bytes")?,
        peer: parsed_opt(row, "peer")?,
        replication: parsed_opt(row, "replication")?,
        wire_bytes: row.get("wire_bytes")?,
    })
}
