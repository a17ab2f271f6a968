//! Media that are outside of their libraries.

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::catalogue::collect;
use crate::text::{now, parsed, words};
use crate::{Catalogue, MediumRef, SvsError};

words! {
    /// Where a medium is that is not in a slot.
    OutsidePlace ("a place outside") {
        /// In the import/export station of its library.
        Exported = "exported",
        /// Taken from there.
        OffSite = "off site",
    }
}

/// A medium that was taken out of its library by a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The medium.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub medium: MediumRef,
    /// Where it is.
    pub place: OutsidePlace,
    /// Since when; RFC 3339 UTC.
    pub since: String,
}

fn as_text<S: serde::Serializer>(medium: &MediumRef, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(medium)
}

fn from_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<MediumRef, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

impl Catalogue {
    /// A medium is outside of its library from now on.
    pub fn put_outside(&self, medium: &MediumRef, place: OutsidePlace) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO outside (medium, place, since) VALUES (?1, ?2, ?3)",
                params![medium.to_string(), place, now()],
            )?;
            Ok(())
        })
    }

    /// A medium is in its library again. `false`: it was not outside.
    pub fn remove_outside(&self, medium: &MediumRef) -> Result<bool, SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM outside WHERE medium = ?1";
            Ok(tx.execute(sql, [medium.to_string()])? > 0)
        })
    }

    /// Where a medium is, if it is outside of its library.
    pub fn find_outside(&self, medium: &MediumRef) -> Result<Option<Outside>, SvsError> {
        self.read(|c| {
            let sql = "SELECT * FROM outside WHERE medium = ?1";
            let found = c.query_row(sql, [medium.to_string()], |row| Ok(from_row(row)));
            found.optional()?.transpose()
        })
    }

    /// All media that are outside of their libraries.
    pub fn outside(&self) -> Result<Vec<Outside>, SvsError> {
        self.read(|c| collect(c, "SELECT * FROM outside ORDER BY medium", [], from_row))
    }
}

fn from_row(row: &Row<'_>) -> Result<Outside, SvsError> {
    let medium: String = row.get("medium")?;
    let wrong = |_| SvsError::Corrupt { expected: "a medium", value: medium.clone() };
    Ok(Outside {
        medium: medium.parse().map_err(wrong)?,
        place: parsed(row, "place")?,
        since: row.get("since")?,
    })
}
