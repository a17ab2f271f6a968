//! How the drives and cartridges of physical libraries are: what TapeAlert says is acted upon, what
//! an administrator says counts, and both are kept in the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Barcode, DeviceName, DeviceRole, LibraryName};
use scsi::alert::{self, AlertAction};
use serde_json::{Value, json};
use svs::{Catalogue, Condition, EventKind, Health, HealthKind, SvsError};
use tape::driver::DriveHealth;

use crate::admin::{AdminFault, FaultCode};
use crate::messages;

/// How every drive and cartridge is that was looked at.
pub struct HealthBook {
    catalogue: Arc<Catalogue>,
    /// Hears of every change.
    changed: Box<dyn Fn() + Send + Sync>,
    rows: Mutex<BTreeMap<String, Health>>,
    /// Drives that are being cleaned.
    cleaning: Mutex<BTreeSet<DeviceName>>,
    is_stopping: AtomicBool,
}

fn subject_of(library: &LibraryName, barcode: &Barcode) -> String {
    format!("{library}/{barcode}")
}

fn fresh(subject: String, kind: HealthKind) -> Health {
    Health {
        subject,
        kind,
        condition: Condition::Ok,
        alerts: String::new(),
        loads: None,
        bytes_written: None,
        bytes_read: None,
        message: None,
    }
}

impl HealthBook {
    /// What is on record; `changed` hears of every change from here on.
    ///
    /// # Errors
    /// The catalogue can not be read.
    pub fn open(
        catalogue: Arc<Catalogue>,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, SvsError> {
        let rows = catalogue.health()?.into_iter().map(|row| (row.subject.clone(), row)).collect();
        Ok(Self {
            catalogue,
            changed: Box::new(changed),
            rows: Mutex::new(rows),
            cleaning: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        })
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine stops: cleaning is not waited for.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether the engine stops.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// A drive is about to be cleaned, and is nobody else's; `false` if it is cleaned already.
    pub fn begin_cleaning(&self, drive: &DeviceName) -> bool {
        self.cleaning.lock().unwrap_or_else(PoisonError::into_inner).insert(drive.clone())
    }

    /// It is not cleaned any more, whatever came of it.
    pub fn end_cleaning(&self, drive: &DeviceName) {
        self.cleaning.lock().unwrap_or_else(PoisonError::into_inner).remove(drive);
        (self.changed)();
    }

    fn condition(&self, subject: &str) -> Condition {
        self.rows().get(subject).map_or(Condition::Ok, |row| row.condition)
    }

    /// Why a drive is not opened now, if it is not.
    pub fn refuses(&self, drive: &DeviceName) -> Option<String> {
        if self.cleaning.lock().unwrap_or_else(PoisonError::into_inner).contains(drive) {
            return Some(format!("{drive} is being cleaned"));
        }
        let rows = self.rows();
        let row = rows.get(&drive.to_string()).filter(|row| row.condition == Condition::Down)?;
        let why = row.message.as_deref().unwrap_or("it has a fault");
        Some(format!("{drive} was taken out of use: {why}"))
    }

    /// Whether nothing is to be written on a cartridge any more.
    pub fn is_frozen(&self, library: &LibraryName, barcode: &Barcode) -> bool {
        self.condition(&subject_of(library, barcode)) == Condition::Frozen
    }

    /// The cartridges of a library on which nothing is to be written any more, and why; at most so
    /// many.
    pub fn frozen(&self, library: &LibraryName, most: usize) -> Vec<(Barcode, String)> {
        let rows = self.rows();
        let frozen = rows.values().filter(|row| row.condition == Condition::Frozen);
        let its = frozen.filter_map(|row| {
            let (of, barcode) = row.subject.split_once('/')?;
            let barcode = Barcode::new(barcode).ok().filter(|_| of == library.as_str())?;
            Some((barcode, row.message.clone().unwrap_or_default()))
        });
        its.take(most).collect()
    }

    /// An administrator takes a drive out of use. Whoever holds it keeps it.
    pub fn take_down(&self, drive: &DeviceName, because: &str) {
        let name = drive.to_string();
        self.set(&name, HealthKind::Drive, Condition::Down, because);
        let words: [(&str, &dyn Display); 2] = [("device", drive), ("cause", &because)];
        self.say(messages::DRIVE_DOWN, &words, &name);
    }

    /// The drives that want a cleaning cartridge.
    pub fn wants_cleaning(&self) -> Vec<DeviceName> {
        let rows = self.rows();
        let wanting = rows.values().filter(|row| row.condition == Condition::Clean);
        wanting.filter_map(|row| row.subject.parse().ok()).collect()
    }

    fn say(&self, id: &str, words: &[(&str, &dyn Display)], subject: &str) {
        messages::note(&self.catalogue, EventKind::Device, id, words, Some(subject));
    }

    /// Changes a row, in memory and on disk.
    fn change(&self, subject: &str, kind: HealthKind, change: impl FnOnce(&mut Health)) {
        let mut rows = self.rows();
        let row = rows.entry(subject.to_owned()).or_insert_with(|| fresh(subject.into(), kind));
        let before = row.clone();
        change(row);
        if *row == before {
            return;
        }
        if let Err(error) = self.catalogue.put_health(row) {
            tracing::warn!(subject, %error, "how a device is could not be kept");
        }
        (self.changed)();
    }

    /// What a drive told of itself, with this cartridge in it: kept, and acted upon.
    pub fn told(&self, drive: &DeviceName, barcode: Option<&Barcode>, told: &DriveHealth) {
        let alerts: Vec<String> = told.alerts.iter().map(u16::to_string).collect();
        let alerts = alerts.join(",");
        self.change(&drive.to_string(), HealthKind::Drive, |row| {
            row.bytes_written = told.bytes_written.or(row.bytes_written);
            row.bytes_read = told.bytes_read.or(row.bytes_read);
            if !alerts.is_empty() {
                row.alerts.clone_from(&alerts);
            }
        });
        if let Some(barcode) = barcode {
            let subject = subject_of(&drive.library, barcode);
            self.change(&subject, HealthKind::Cartridge, |row| {
                row.loads = told.medium_loads.or(row.loads);
                if !alerts.is_empty() {
                    row.alerts.clone_from(&alerts);
                }
            });
        }
        for flag in &told.alerts {
            self.act(drive, barcode, *flag);
        }
    }

    fn act(&self, drive: &DeviceName, barcode: Option<&Barcode>, flag: u16) {
        let Some(known) = alert::find(flag) else { return };
        let name = drive.to_string();
        let words: [(&str, &dyn Display); 3] =
            [("device", drive), ("flag", &flag), ("meaning", &known.meaning)];
        self.say(messages::DRIVE_ALERT, &words, &name);
        let because = format!("TapeAlert {flag}: {}", known.meaning);
        match (known.action, barcode) {
            (AlertAction::TakeDown, _) => {
                self.take_down(drive, &because);
            }
            (AlertAction::Clean, _) => {
                self.set(&name, HealthKind::Drive, Condition::Clean, &because);
            }
            (AlertAction::Freeze, Some(barcode)) => {
                let subject = subject_of(&drive.library, barcode);
                self.set(&subject, HealthKind::Cartridge, Condition::Frozen, &because);
                let words: [(&str, &dyn Display); 2] = [("barcode", barcode), ("cause", &because)];
                self.say(messages::CARTRIDGE_FROZEN, &words, &subject);
            }
            (AlertAction::Freeze, None) | (AlertAction::Note, _) => {}
        }
    }

    fn set(&self, subject: &str, kind: HealthKind, condition: Condition, because: &str) {
        self.change(subject, kind, |row| {
            // A drive that is down is not brought up by wanting to be cleaned.
            if row.condition != Condition::Down {
                row.condition = condition;
                row.message = Some(because.to_owned());
            }
        });
    }

    /// A cleaning cartridge was in the drive.
    pub fn cleaned(&self, drive: &DeviceName, barcode: &Barcode) {
        self.change(&drive.to_string(), HealthKind::Drive, |row| {
            if row.condition == Condition::Clean {
                row.condition = Condition::Ok;
                row.message = None;
            }
        });
        let words: [(&str, &dyn Display); 2] = [("device", drive), ("barcode", barcode)];
        self.say(messages::DRIVE_CLEANED, &words, &drive.to_string());
    }

    /// A drive could not be cleaned.
    pub fn not_cleaned(&self, drive: &DeviceName, cause: &str) {
        let words: [(&str, &dyn Display); 2] = [("device", drive), ("cause", &cause)];
        self.say(messages::DRIVE_NOT_CLEANED, &words, &drive.to_string());
    }

    /// Answers what the command line asks of drives and cartridges, `None` what is no such request.
    /// `has` tells whether there is a drive of this name.
    pub fn call(
        &self,
        method: &str,
        params: &Value,
        has: impl Fn(&DeviceName) -> bool,
    ) -> Option<Result<Value, AdminFault>> {
        let text = |key| params.get(key).and_then(Value::as_str).unwrap_or_default();
        match method {
            "health_clear" => {
                let subject = text("subject");
                let unknown = || format!("nothing is known of {subject:?}");
                let cleared = self.clear(subject).then(|| json!({ "subject": subject }));
                Some(cleared.ok_or_else(|| AdminFault::new(FaultCode::BadRequest, unknown())))
            }
            "drive_down" | "drive_up" => {
                let named = text("drive");
                let drive = named.parse::<DeviceName>().ok();
                let drive = drive.filter(|it| it.role != DeviceRole::Changer && has(it));
                let Some(drive) = drive else {
                    let text = format!("there is no drive {named:?} that is driven here");
                    return Some(Err(AdminFault::new(FaultCode::NotFound, text)));
                };
                match method {
                    "drive_down" => self.take_down(&drive, text("reason")),
                    // One of which nothing is known is well.
                    _ => drop(self.clear(named)),
                }
                Some(Ok(json!({ "drive": named })))
            }
            _ => None,
        }
    }

    /// Somebody says that a drive or a cartridge is well again. `false`: nothing is known of it.
    pub fn clear(&self, subject: &str) -> bool {
        let Some(kind) = self.rows().get(subject).map(|row| row.kind) else { return false };
        self.change(subject, kind, |row| {
            row.condition = Condition::Ok;
            row.alerts.clear();
            row.message = None;
        });
        true
    }
}
