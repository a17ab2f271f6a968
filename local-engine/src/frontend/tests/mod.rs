//! Frontends over libraries in memory: one that holds the tapes, two that hold copies.

mod fake;
mod moved;
mod outcomes;
mod showing;

use std::sync::Arc;
use std::time::Duration;

use model::{DeviceName, ElementType, JobId};
use scsi::Sense;
use svs::{
    Catalogue, CopyEntry, CopyStart, FrontendBackend, JobKind, JobOwner, MapPolicy, MediumRef,
    MigrationEntry, NewJob, Settled, Verified,
};
use tape::{Control, ReadEnd, TapeError};

use super::{Access, FrontendLibrary};
use crate::device::{Device, Opener, Registry};
use crate::mover::EngineDrive;
use fake::Fake;

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn tape(library: &str, volser: &str) -> MediumRef {
    format!("lib {library} tape {volser}").parse().unwrap()
}

/// `lib P` (two drives) holds A00001L8 to A00003L8, `lib C` and `lib D` (two drives each)
/// B00001L8 and C00001L8 and so on. The frontend `fe` has the serial number F, three drives and
/// the row F001 -> P0 with all tapes of P.
struct Rig {
    dir: tempfile::TempDir,
    catalogue: Arc<Catalogue>,
    registry: Arc<Registry>,
    access: Arc<Access>,
    frontend: Arc<FrontendLibrary>,
    p: Arc<Fake>,
    c: Arc<Fake>,
    d: Arc<Fake>,
}

fn config() -> service::config::FrontendLibrary {
    let text = "name = \"fe\"\ndrives = 3\nslots = 6\nimport_export = 0\nserial = \"F\"\n";
    toml::from_str(text).unwrap()
}

fn row(frontend: &str, backend: &str, tapes: &[&str]) -> FrontendBackend {
    FrontendBackend {
        backend_device: backend.parse().unwrap(),
        frontend_device: Some(frontend.parse().unwrap()),
        alternative_backend_device: None,
        backend_tapes: tapes.iter().map(|range| range.parse().unwrap()).collect(),
    }
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&dir.path().join("svs.db")).unwrap();
        let tapes = ["lib P tape A00001L8-A00003L8"];
        let map = row("lib F drive F001", "lib P drive P0", &tapes);
        catalogue.put_frontend_backend(&map).unwrap();
        let libraries = [("P", "A"), ("C", "B"), ("D", "C")];
        let libraries = libraries.map(|(serial, prefix)| Fake::new(serial, 2, prefix));
        Self::over(dir, Arc::new(catalogue), libraries)
    }

    fn over(dir: tempfile::TempDir, catalogue: Arc<Catalogue>, libraries: [Arc<Fake>; 3]) -> Self {
        let registry = Arc::new(Registry::default());
        for library in &libraries {
            registry.add(library.clone()).unwrap();
        }
        let access = Access::new(&registry, Arc::clone(&catalogue)).unwrap();
        let site = model::SiteName::new("hq").unwrap();
        let frontend = Arc::new(FrontendLibrary::open(&config(), &site, &access).unwrap());
        frontend.refresh();
        registry.add(frontend.clone()).unwrap();
        let [p, c, d] = libraries;
        Self { dir, catalogue, registry, access, frontend, p, c, d }
    }

    /// The engine is killed and started again; the libraries stand on.
    fn killed(self) -> Self {
        self.access.stop();
        Self::over(self.dir, self.catalogue, [self.p, self.c, self.d])
    }

    fn opener(&self) -> Opener {
        self.access.opener("a test")
    }

    fn elements(&self, library: &str) -> Vec<(u16, String)> {
        let libraries = self.registry.libraries();
        let library = libraries.iter().find(|it| it.name().as_str() == library).unwrap();
        let elements = library.view().unwrap().inventory.elements.into_iter();
        elements.filter_map(|e| Some((e.address, e.barcode?.to_string()))).collect()
    }

    fn moved(&self, library: &str, from: u16, to: u16) -> Result<(), TapeError> {
        let (_claim, device) = self
            .registry
            .open_scsi(&format!("{library}/changer"), &self.opener(), &control())
            .unwrap();
        let Device::Changer(mut changer) = device else { panic!("no changer") };
        changer.move_medium(from, to, &control())
    }

    /// Moves a tape of a library into one of its drives.
    fn load_at(&self, library: &str, barcode: &str, drive: u16) {
        let elements = self.elements(library);
        let (from, _) = elements.iter().find(|(_, tag)| tag == barcode).unwrap();
        self.moved(library, *from, 128 + drive).unwrap();
    }

    fn load(&self, barcode: &str, drive: u16) {
        self.load_at("fe", barcode, drive);
    }

    /// Moves what is in a drive to a free slot.
    fn try_unload(&self, library: &str, drive: u16) -> Result<(), TapeError> {
        let libraries = self.registry.libraries();
        let library = libraries.iter().find(|it| it.name().as_str() == library).unwrap();
        let elements = library.view().unwrap().inventory.elements;
        let free = |e: &&tape::ElementStatus| e.kind == ElementType::Storage && !e.full;
        let slot = elements.iter().find(free).unwrap().address;
        self.moved(library.name().as_str(), 128 + drive, slot)
    }

    fn unload(&self, drive: u16) {
        self.try_unload("fe", drive).unwrap();
    }

    fn drive(&self, name: &str) -> (crate::device::Claim, Box<dyn EngineDrive>) {
        self.registry.open_tape(name, &self.opener(), &control()).unwrap()
    }

    /// Puts records of these letters on a tape, from its beginning, and dismounts it.
    fn write(&self, library: &str, barcode: &str, records: &str) {
        self.load_at(library, barcode, 0);
        {
            let (_claim, mut drive) = self.drive(&format!("{library}/drive0"));
            for letter in records.bytes() {
                drive.write(&[letter; 10], &control()).unwrap();
            }
            drive.write_filemarks(1, &control()).unwrap();
        }
        self.try_unload(library, 0).unwrap();
    }

    /// Makes a tape of C or D a current copy of one of P, with the same records on both.
    fn copied(&self, volser: &str, to: &[(&str, &str)], records: &str) {
        let source = tape("P", volser);
        self.write("p", volser, records);
        for (library, target) in to {
            self.write(&library.to_lowercase(), target, records);
            self.settled(&source, &tape(library, target));
        }
    }

    fn settled(&self, source: &MediumRef, target: &MediumRef) {
        let entry = CopyEntry::new(source.clone(), target.clone(), MapPolicy::Always);
        self.catalogue.put_copy_entry(&entry).unwrap();
        let version = self.catalogue.medium_facts(source).unwrap().version;
        let job = NewJob::new(
            JobId::generate(crate::engine::now_ms()),
            JobKind::Copy,
            JobOwner::Engine,
            (source.to_string(), target.to_string()),
            "a test",
        );
        let start = CopyStart { source, target, version, from: 0, seen: (0, 0) };
        self.catalogue.begin_copy(&job, &start).unwrap();
        let done = Settled::Done(Verified::Position);
        assert!(self.catalogue.settle_copy(source, target, job.id, &done).unwrap());
    }

    /// The numbers of the events about frontends, oldest first.
    fn events(&self) -> Vec<String> {
        let events = self.catalogue.events(&svs::EventFilter::default()).unwrap();
        let numbers = events.into_iter().map(|event| event.message_id);
        numbers.filter(|id| id.starts_with("TWR-81")).collect()
    }

    /// The content of a tape was moved, and its own medium is free.
    fn migrated(&self, source: &MediumRef, medium: &MediumRef) {
        let entry = MigrationEntry::new(source.clone(), medium.clone(), MapPolicy::Always);
        self.catalogue.put_migration_entry(&entry).unwrap();
        let version = self.catalogue.medium_facts(source).unwrap().version;
        assert!(self.catalogue.moved(source, version, Verified::Position).unwrap());
        self.catalogue.set_freed(source).unwrap();
    }

    /// The alternative device of the row of F001.
    fn alternative(&self) -> Option<String> {
        let rows = self.catalogue.frontend_backends().unwrap();
        let row = rows.into_iter().find(|row| row.frontend_device.is_some()).unwrap();
        row.alternative_backend_device.map(|device| device.to_string())
    }

    /// Whether somebody has a drive of a library.
    fn is_held(&self, name: &str) -> bool {
        self.registry.holder(&name.parse::<DeviceName>().unwrap()).is_some()
    }
}

/// The first letters of the records from the position on; a bar for a filemark.
fn letters(drive: &mut dyn EngineDrive) -> String {
    let (mut text, mut buffer) = (String::new(), vec![0; 100]);
    loop {
        match drive.read(&mut buffer, &control()).unwrap() {
            ReadEnd::Record { .. } => text.push(buffer[0] as char),
            ReadEnd::Filemark => text.push('|'),
            ReadEnd::EndOfData => return text,
        }
    }
}

fn sense<T: std::fmt::Debug>(result: Result<T, TapeError>) -> Sense {
    match result.unwrap_err() {
        TapeError::Check(sense) => Sense::new(sense.key, sense.asc, sense.ascq),
        other => panic!("{other}"),
    }
}
