//! How the drives and cartridges of physical libraries are: what TapeAlert says is acted upon, what
//! an administrator says counts, and both are kept in the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{Barcode, DeviceName, DeviceRole, LibraryName};
use scsi::alert::{self, AlertAction};
use serde_json::{Value, json};
use svs::{Catalogue, Condition, EventKind, Health, HealthKind, SvsError};
use tape::driver::DriveHealth;
use tape::physical::{AnyDrive, PhysicalLibrary};
use tape::{Control, TapeDrive};

use crate::admin::{AdminFault, FaultCode};
use crate::messages;

/// How long a drive may take to say how it is.
const ASKING: Duration = Duration::from_secs(60);

/// What is under way.
#[derive(Default)]
struct Work {
    /// Drives that are being cleaned.
    cleaning: BTreeSet<DeviceName>,
    is_stopping: bool,
}

/// How every drive and cartridge is that was looked at.
pub struct HealthBook {
    catalogue: Arc<Catalogue>,
    /// Hears of every change.
    changed: Box<dyn Fn() + Send + Sync>,
    rows: Mutex<BTreeMap<String, Health>>,
    work: Mutex<Work>,
    /// Rung when the work changes.
    turned: Condvar,
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
            work: Mutex::default(),
            turned: Condvar::new(),
        })
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine stops: cleaning is not waited for, only that its cartridge is put back.
    pub fn stop(&self) {
        self.work().is_stopping = true;
        self.turned.notify_all();
    }

    /// Whether the engine stops.
    pub fn is_stopping(&self) -> bool {
        self.work().is_stopping
    }

    /// Lets so much time pass, less if the engine stops.
    pub fn pause(&self, time: Duration) {
        let goes_on = |work: &mut Work| !work.is_stopping;
        drop(self.turned.wait_timeout_while(self.work(), time, goes_on));
    }

    /// Waits until no drive is cleaned any more, at most so long.
    pub fn wait_idle(&self, patience: Duration) {
        let busy = |work: &mut Work| !work.cleaning.is_empty();
        drop(self.turned.wait_timeout_while(self.work(), patience, busy));
    }

    /// A drive is about to be cleaned, and is nobody else's; `false` if it is cleaned already.
    pub fn begin_cleaning(&self, drive: &DeviceName) -> bool {
        self.work().cleaning.insert(drive.clone())
    }

    /// It is not cleaned any more, whatever came of it.
    pub fn end_cleaning(&self, drive: &DeviceName) {
        self.work().cleaning.remove(drive);
        self.turned.notify_all();
        (self.changed)();
    }

    fn condition(&self, subject: &str) -> Condition {
        self.rows().get(subject).map_or(Condition::Ok, |row| row.condition)
    }

    /// Why a drive is not opened now, if it is not.
    pub fn refuses(&self, drive: &DeviceName) -> Option<String> {
        if self.work().cleaning.contains(drive) {
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

    /// Whether nothing is to be written any more on what lies in a drive. Sends no command.
    pub fn forbids(&self, drive: &DeviceName, library: &dyn PhysicalLibrary) -> bool {
        let DeviceRole::Drive(index) = drive.role else { return false };
        let medium = library.medium(index);
        medium.is_some_and(|(barcode, _)| self.is_frozen(&drive.library, &barcode))
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

    /// Asks a drive how it is, now that nobody depends on it any more: what it says is kept, and
    /// acted upon. One that does not say is left as it is.
    pub fn ask(&self, name: &DeviceName, drive: &mut AnyDrive, library: &dyn PhysicalLibrary) {
        let DeviceRole::Drive(index) = name.role else { return };
        // Capacity and tab of the tape are the drive's to tell.
        if let Ok(state) = drive.state(&Control::within(ASKING)) {
            library.learn(index, &state);
        }
        match drive.health(&Control::within(ASKING)) {
            Ok(told) => {
                let medium = library.medium(index);
                self.told(name, medium.as_ref().map(|(barcode, _)| barcode), &told);
            }
            Err(error) => tracing::debug!(device = %name, %error, "a drive does not say how it is"),
        }
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

    /// Whether [`HealthBook::call`] answers it.
    pub fn answers(method: &str) -> bool {
        matches!(method, "health_clear" | "drive_down" | "drive_up")
    }

    /// Answers what the command line asks of drives and cartridges. `has` tells whether there is a
    /// drive of this name. Blocks on the catalogue.
    ///
    /// # Errors
    /// There is nothing of that name.
    pub fn call(
        &self,
        method: &str,
        params: &Value,
        has: impl Fn(&DeviceName) -> bool,
    ) -> Result<Value, AdminFault> {
        let text = |key| params.get(key).and_then(Value::as_str).unwrap_or_default();
        if method == "health_clear" {
            let subject = text("subject");
            let unknown = || format!("nothing is known of {subject:?}");
            let cleared = self.clear(subject).then(|| json!({ "subject": subject }));
            return cleared.ok_or_else(|| AdminFault::new(FaultCode::BadRequest, unknown()));
        }
        let named = text("drive");
        let drive = named.parse::<DeviceName>().ok();
        let drive = drive.filter(|it| it.role != DeviceRole::Changer && has(it));
        let drive = drive.ok_or_else(|| {
            let text = format!("there is no drive {named:?} that is driven here");
            AdminFault::new(FaultCode::NotFound, text)
        })?;
        match method {
            "drive_down" => self.take_down(&drive, text("reason")),
            // One of which nothing is known is well.
            _ => drop(self.clear(named)),
        }
        Ok(json!({ "drive": named }))
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
