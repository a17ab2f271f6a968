//! Libraries and devices of both sites, and the last inventory report of each.

use model::{DeviceName, LibraryName, SiteName};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::cartridge::found;
use crate::catalogue::{collect, first};
use crate::text::{now, parsed, words};
use crate::{Catalogue, SvsError};

/// The largest report that is kept: a library with ten thousand elements fits several times.
const REPORT_MAX: usize = 8 << 20;

words! {
    /// What stands behind a library.
    LibraryRole ("a role of a library") {
        /// Cartridges in the store of this engine.
        Virtual = "virtual",
        /// A changer and drives at this engine.
        Physical = "physical",
        /// A library of another site.
        Ghost = "ghost",
        /// Tapes and drives of the others, by the frontend-backend map.
        Frontend = "frontend",
    }
}

/// A library of this site or another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// The site where it stands.
    pub site: SiteName,
    /// Its name at that site (a ghost is shown as `SITE-LIBRARY`, but kept under its own name).
    pub name: LibraryName,
    /// The serial number of its changer.
    pub serial: String,
    /// What stands behind it here.
    pub role: LibraryRole,
    /// `store`, `file`, ...: how its owner drives it.
    pub backend: String,
    /// For people: `ready`, `link down`, ...
    pub state: String,
}

/// A changer or a drive of a library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Library (by its own name) and role: `ptl0/drive0`.
    pub name: DeviceName,
    /// Unit serial number.
    pub serial: String,
    /// T10 vendor identification.
    pub vendor: String,
    /// Product identification.
    pub product: String,
    /// Product revision.
    pub revision: String,
    /// For people: `empty`, `loaded VTA001L8`, ...
    pub state: String,
}

/// The last report of a library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The site where it stands.
    pub site: SiteName,
    /// The library, by its own name.
    pub library: LibraryName,
    /// RFC 3339 UTC: when it was reported.
    pub at: String,
    /// The report as JSON, in the words of whoever wrote it.
    pub report: String,
}

impl Catalogue {
    /// Writes a library and its devices, replacing what was known; devices that are not in the
    /// list are forgotten.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] for a device of another library.
    pub fn put_library(&self, library: &Library, devices: &[Device]) -> Result<(), SvsError> {
        if let Some(stray) = devices.iter().find(|d| d.name.library != library.name) {
            let (device, library) = (&stray.name, &library.name);
            return Err(SvsError::Conflict(format!("{device} is no device of {library}")));
        }
        let (site, name) = (library.site.as_str(), library.name.as_str());
        self.write(|tx| {
            let at = now();
            tx.execute(
                "INSERT INTO libraries (site, name, serial, role, backend, state, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (site, name) DO UPDATE SET serial = excluded.serial,
                     role = excluded.role, backend = excluded.backend, state = excluded.state,
                     updated = excluded.updated",
                params![
                    site,
                    name,
                    library.serial,
                    library.role,
                    library.backend,
                    library.state,
                    at
                ],
            )?;
            tx.execute("DELETE FROM devices WHERE site = ?1 AND library = ?2", (site, name))?;
            let mut insert = tx.prepare_cached(
                "INSERT INTO devices
                     (site, library, device, serial, vendor, product, revision, state, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for d in devices {
                insert.execute(params![
                    site,
                    name,
                    d.name.to_string(),
                    d.serial,
                    d.vendor,
                    d.product,
                    d.revision,
                    d.state,
                    at
                ])?;
            }
            Ok(())
        })
    }

    /// Notes what a library's state is now, for people.
    pub fn set_library_state(
        &self,
        site: &SiteName,
        name: &LibraryName,
        state: &str,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "UPDATE libraries SET state = ?3, updated = ?4 WHERE site = ?1 AND name = ?2";
            let rows = tx.execute(sql, (site.as_str(), name.as_str(), state, now()))?;
            found(rows, || format!("library {name} of {site}"))
        })
    }

    /// Forgets a library, its devices and its last report.
    pub fn remove_library(&self, site: &SiteName, name: &LibraryName) -> Result<(), SvsError> {
        let key = (site.as_str(), name.as_str());
        self.write(|tx| {
            tx.execute("DELETE FROM inventory_reports WHERE site = ?1 AND library = ?2", key)?;
            let rows = tx.execute("DELETE FROM libraries WHERE site = ?1 AND name = ?2", key)?;
            found(rows, || format!("library {name} of {site}"))
        })
    }

    /// All libraries of both sites, by site and name.
    pub fn libraries(&self) -> Result<Vec<Library>, SvsError> {
        let sql = "SELECT * FROM libraries ORDER BY site, name";
        self.read(|c| collect(c, sql, [], library_from_row))
    }

    /// The devices of a library: the changer first, drives by name.
    pub fn devices(&self, site: &SiteName, library: &LibraryName) -> Result<Vec<Device>, SvsError> {
        let sql = "SELECT * FROM devices WHERE site = ?1 AND library = ?2";
        let key = (site.as_str(), library.as_str());
        let mut all = self.read(|c| collect(c, sql, key, device_from_row))?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Keeps the last report of a library, so that it can be listed before its site is reached.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] above 8 MiB.
    pub fn put_inventory(
        &self,
        site: &SiteName,
        library: &LibraryName,
        report: &str,
    ) -> Result<(), SvsError> {
        if report.len() > REPORT_MAX {
            return Err(SvsError::Conflict(format!("the report of {library} exceeds 8 MiB")));
        }
        self.write(|tx| {
            tx.execute(
                "INSERT INTO inventory_reports (site, library, at, report) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (site, library) DO UPDATE SET at = excluded.at,
                     report = excluded.report",
                (site.as_str(), library.as_str(), now(), report),
            )?;
            Ok(())
        })
    }

    /// The last report of a library.
    pub fn inventory(
        &self,
        site: &SiteName,
        library: &LibraryName,
    ) -> Result<Option<Inventory>, SvsError> {
        let sql = "SELECT * FROM inventory_reports WHERE site = ?1 AND library = ?2";
        self.read(|c| first(c, sql, (site.as_str(), library.as_str()), inventory_from_row))
    }

    /// The last report of every library, by site and name.
    pub fn inventories(&self) -> Result<Vec<Inventory>, SvsError> {
        let sql = "SELECT * FROM inventory_reports ORDER BY site, library";
        self.read(|c| collect(c, sql, [], inventory_from_row))
    }
}

fn library_from_row(row: &Row<'_>) -> Result<Library, SvsError> {
    Ok(Library {
        site: parsed(row, "site")?,
        name: parsed(row, "name")?,
        serial: row.get("serial")?,
        role: parsed(row, "role")?,
        backend: row.get("backend")?,
        state: row.get("state")?,
    })
}

fn device_from_row(row: &Row<'_>) -> Result<Device, SvsError> {
    Ok(Device {
        name: parsed(row, "device")?,
        serial: row.get("serial")?,
        vendor: row.get("vendor")?,
        product: row.get("product")?,
        revision: row.get("revision")?,
        state: row.get("state")?,
    })
}

fn inventory_from_row(row: &Row<'_>) -> Result<Inventory, SvsError> {
    Ok(Inventory {
        site: parsed(row, "site")?,
        library: parsed(row, "library")?,
        at: row.get("at")?,
        report: row.get("report")?,
    })
}
