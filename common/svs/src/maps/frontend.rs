//! Which backend stands behind a frontend device.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{DeviceRef, TapeRange};
use crate::cartridge::found;
use crate::catalogue::collect;
use crate::text::{parsed, parsed_opt};
use crate::{Catalogue, SvsError};

/// Ranges of media of one frontend device; more are refused.
const RANGES_MAX: usize = 10_000;

/// A row of `frontend_backend_map`: which device stands behind a frontend device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendBackend {
    /// The device that does the work.
    pub backend_device: DeviceRef,
    /// The device that the host sees; once in the map. A backend without one is kept for copies
    /// and migrations.
    pub frontend_device: Option<DeviceRef>,
    /// The device that is used in the backend's place, for as long as it is.
    pub alternative_backend_device: Option<DeviceRef>,
    /// The media that belong to it.
    pub backend_tapes: Vec<TapeRange>,
}

impl Catalogue {
    /// Writes the entry of a frontend device (of an unmapped backend), or replaces it. A backend
    /// that gets a frontend is no longer unmapped.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] for more than ten thousand ranges.
    pub fn put_frontend_backend(&self, entry: &FrontendBackend) -> Result<(), SvsError> {
        if entry.backend_tapes.len() > RANGES_MAX {
            return Err(SvsError::Conflict(format!("more than {RANGES_MAX} ranges in one entry")));
        }
        let tapes: Vec<_> = entry.backend_tapes.iter().map(ToString::to_string).collect();
        let frontend = entry.frontend_device.as_ref().map(ToString::to_string);
        self.write(|tx| {
            tx.execute(
                "DELETE FROM frontend_backend_map
                 WHERE backend_device = ?1 AND frontend_device IS NULL",
                [entry.backend_device.to_string()],
            )?;
            tx.execute(
                "INSERT OR REPLACE INTO frontend_backend_map (backend_device, frontend_device,
                     alternative_backend_device, backend_tapes) VALUES (?1, ?2, ?3, ?4)",
                params![
                    entry.backend_device.to_string(),
                    frontend,
                    entry.alternative_backend_device.as_ref().map(ToString::to_string),
                    tapes.join(", "),
                ],
            )?;
            Ok(())
        })
    }

    /// The whole map, by frontend device; unmapped backends first.
    pub fn frontend_backends(&self) -> Result<Vec<FrontendBackend>, SvsError> {
        let sql = "SELECT * FROM frontend_backend_map ORDER BY frontend_device, backend_device";
        self.read(|c| collect(c, sql, [], frontend_backend_from_row))
    }

    /// Notes which device a frontend uses in its backend's place, or that it uses none.
    pub fn set_alternative(
        &self,
        frontend: &DeviceRef,
        alternative: Option<&DeviceRef>,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "UPDATE frontend_backend_map SET alternative_backend_device = ?2
                       WHERE frontend_device = ?1";
            let rows = tx.execute(
                sql,
                params![frontend.to_string(), alternative.map(ToString::to_string)],
            )?;
            found(rows, || format!("entry for {frontend}"))
        })
    }

    /// Removes the entry of a frontend device, or of an unmapped backend.
    pub fn remove_frontend_backend(&self, device: &DeviceRef) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM frontend_backend_map WHERE frontend_device = ?1
                           OR (backend_device = ?1 AND frontend_device IS NULL)";
            found(tx.execute(sql, [device.to_string()])?, || format!("entry for {device}"))
        })
    }
}

fn frontend_backend_from_row(row: &Row<'_>) -> Result<FrontendBackend, SvsError> {
    let tapes: String = row.get("backend_tapes")?;
    let tapes = tapes.split(',').map(str::trim).filter(|text| !text.is_empty());
    let tapes: Result<Vec<TapeRange>, _> = tapes.map(str::parse).collect();
    Ok(FrontendBackend {
        backend_device: parsed(row, "backend_device")?,
        frontend_device: parsed_opt(row, "frontend_device")?,
        alternative_backend_device: parsed_opt(row, "alternative_backend_device")?,
        backend_tapes: tapes
            .map_err(|e| SvsError::Corrupt { expected: "a list of media", value: e.text })?,
    })
}
