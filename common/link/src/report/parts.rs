//! A report in messages that a connection takes, and whole again.

use model::EngineId;
use tape::DeviceIdentity;

use super::{DriveReport, FROZEN_MAX, LibraryReport, SiteReport};

/// Bytes that a part is filled with, by estimate: well below what a frame's structure may have.
const PART: usize = 512 << 10;
/// Libraries of a whole report.
pub(crate) const LIBRARIES_MAX: usize = 64;
/// Drives of a library.
pub(crate) const DRIVES_MAX: usize = 896;
/// Elements of a library.
pub(crate) const ELEMENTS_MAX: usize = 65_536;

/// What an encoded element, drive or line of text takes at most beside its texts.
const FIXED: usize = 64;

fn of_identity(identity: &DeviceIdentity) -> usize {
    let DeviceIdentity { vendor, product, revision, serial } = identity;
    FIXED + vendor.len() + product.len() + revision.len() + serial.len()
}

fn of_drive(drive: &DriveReport) -> usize {
    let why = drive.down.as_ref().map_or(0, String::len);
    2 * FIXED + of_identity(&drive.identity) + why
}

/// Fills parts.
struct Filling {
    sequence: u64,
    done: Vec<SiteReport>,
    now: Vec<LibraryReport>,
    left: usize,
}

impl Filling {
    /// The part is full.
    fn turn(&mut self) {
        let libraries = std::mem::take(&mut self.now);
        self.done.push(SiteReport { sequence: self.sequence, libraries, more: true });
        self.left = PART;
    }

    /// A library, with nothing in its lists yet.
    fn begin(&mut self, head: LibraryReport) {
        let cost = 4 * FIXED + of_identity(&head.identity);
        if cost > self.left {
            self.turn();
        }
        self.left = self.left.saturating_sub(cost);
        self.now.push(head);
    }

    /// Puts something into the library that came last, or into its continuation in the next part.
    fn put(&mut self, head: &LibraryReport, cost: usize, put: impl FnOnce(&mut LibraryReport)) {
        if cost > self.left {
            self.turn();
            self.begin(head.clone());
        }
        self.left = self.left.saturating_sub(cost);
        if let Some(library) = self.now.last_mut() {
            put(library);
        }
    }
}

impl SiteReport {
    /// The report in parts that fit a message each: the first ones say that more follows. A library
    /// may be in several, each with a piece of its lists.
    pub fn parts(self) -> Vec<Self> {
        let Self { sequence, libraries, more } = self;
        let mut filling = Filling { sequence, done: Vec::new(), now: Vec::new(), left: PART };
        for mut head in libraries {
            let elements = std::mem::take(&mut head.inventory.elements);
            let (drives, frozen) =
                (std::mem::take(&mut head.drives), std::mem::take(&mut head.frozen));
            filling.begin(head.clone());
            for element in elements {
                let tag = element.barcode.as_ref().map_or(0, |tag| tag.as_str().len());
                let cost = FIXED + tag + element.drive.as_ref().map_or(0, of_identity);
                filling.put(&head, cost, |library| library.inventory.elements.push(element));
            }
            for drive in drives {
                filling.put(&head, of_drive(&drive), |library| library.drives.push(drive));
            }
            for (barcode, why) in frozen {
                let cost = FIXED + barcode.as_str().len() + why.len();
                filling.put(&head, cost, |library| library.frozen.push((barcode, why)));
            }
        }
        filling.done.push(Self { sequence, libraries: filling.now, more });
        filling.done
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// Together they have more than a report may have.
    fn take(&mut self, part: Self) -> Result<(), ReportTooLong> {
        self.more = part.more;
        for piece in part.libraries {
            match self.libraries.last_mut().filter(|last| last.name == piece.name) {
                None => self.libraries.push(piece),
                Some(library) => {
                    library.inventory.elements.extend(piece.inventory.elements);
                    library.drives.extend(piece.drives);
                    library.frozen.extend(piece.frozen);
                }
            }
        }
        let fits = |library: &LibraryReport| {
            library.inventory.elements.len() <= ELEMENTS_MAX
                && library.drives.len() <= DRIVES_MAX
                && library.frozen.len() <= FROZEN_MAX
        };
        match self.libraries.len() <= LIBRARIES_MAX && self.libraries.iter().all(fits) {
            true => Ok(()),
            false => Err(ReportTooLong),
        }
    }
}

/// A report whose parts have more together than one may have. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a report of the peer has more libraries, drives or elements than there can be")]
pub struct ReportTooLong;

/// Puts the reports of one remote site together, and keeps the newest apart from stale ones.
#[derive(Clone, Debug, Default)]
pub struct ReportWatch {
    last: Option<(EngineId, u64)>,
    /// Parts of a report whose last one has not come.
    begun: Option<(EngineId, SiteReport)>,
}

impl ReportWatch {
    /// Takes a report, or a part of one, and gives it when it is whole. A report of this run that
    /// is not newer than all before it counts nothing; a new run of the remote begins anew at 1.
    ///
    /// # Errors
    /// See [`ReportTooLong`]; what came of it so far is forgotten.
    pub fn accept(
        &mut self,
        engine: EngineId,
        part: SiteReport,
    ) -> Result<Option<SiteReport>, ReportTooLong> {
        let is_stale = |(known, last): (EngineId, u64)| known == engine && part.sequence <= last;
        if self.last.is_some_and(is_stale) {
            return Ok(None);
        }
        let sequence = part.sequence;
        let same =
            |(of, begun): &(EngineId, SiteReport)| *of == engine && begun.sequence == sequence;
        let whole = match self.begun.take().filter(same) {
            None => part,
            Some((_, mut begun)) => {
                begun.take(part)?;
                begun
            }
        };
        if whole.more {
            self.begun = Some((engine, whole));
            return Ok(None);
        }
        self.last = Some((engine, sequence));
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests {
    use model::{Barcode, ElementMap, ElementType, LibraryName, Ulid};
    use tape::{ElementStatus, Inventory};

    use super::*;
    use crate::{BODY_MAX, Message};

    fn identity(serial: &str) -> DeviceIdentity {
        let [vendor, product, revision] = ["IBM", "03584L32", "1234"].map(str::to_owned);
        DeviceIdentity { vendor, product, revision, serial: serial.to_owned() }
    }

    fn id(number: u128) -> EngineId {
        EngineId(Ulid(number))
    }

    /// A library with a cartridge in every slot, and long words about drives and cartridges.
    fn library(name: &str, drives: u16, slots: u16, frozen: usize) -> LibraryReport {
        let tag = |number: usize| Barcode::new(&format!("T{number:05}L9")).unwrap();
        let slot = |number: u16| ElementStatus {
            address: 4096 + number,
            kind: ElementType::Storage,
            full: true,
            barcode: Some(tag(number.into())),
            accessible: true,
            imported: false,
            source: Some(4096 + number),
            exception: Some((0x83, 0x02)),
            drive: Some(identity("00078AFFEE0123456789")),
        };
        let drive = |number: u16| DriveReport {
            element: 256 + number,
            identity: identity(&format!("00078A{number:04}")),
            state: None,
            in_use: true,
            down: Some("it makes a noise ".repeat(60)),
            readying: Some(1),
        };
        LibraryReport {
            name: LibraryName::new(name).unwrap(),
            identity: identity("0000078A"),
            inventory: Inventory {
                map: ElementMap::with_counts(drives, slots, 0),
                elements: (0..slots).map(slot).collect(),
            },
            drives: (0..drives).map(drive).collect(),
            capacity: Some(18_000_000_000_000),
            online: true,
            frozen: (0..frozen).map(|number| (tag(number), "hard error ".repeat(90))).collect(),
        }
    }

    fn report(sequence: u64, libraries: Vec<LibraryReport>) -> SiteReport {
        SiteReport { sequence, libraries, more: false }
    }

    /// Over the wire in parts, and whole again.
    fn carried(watch: &mut ReportWatch, report: &SiteReport) -> (usize, Option<SiteReport>) {
        let parts = report.clone().parts();
        let (count, mut whole) = (parts.len(), None);
        for part in parts {
            assert_eq!(whole, None, "something follows the last part");
            let frame = Message::Report(part).encode();
            assert!(frame.len() <= BODY_MAX, "{} bytes", frame.len());
            let Ok(Message::Report(part)) = Message::decode(frame) else { panic!("no report") };
            whole = watch.accept(id(1), part).unwrap();
        }
        (count, whole)
    }

    #[test]
    fn sixty_thousand_slots_arrive_whole_in_messages_that_fit() {
        let mut watch = ReportWatch::default();
        let libraries = vec![
            library("small", 2, 8, 0),
            library("large", 896, 60_000, FROZEN_MAX),
            library("last", 1, 3, 1),
        ];
        let report = report(1, libraries);
        let (count, whole) = carried(&mut watch, &report);
        assert!((10..40).contains(&count), "{count} parts");
        assert!(whole == Some(report), "it is not what was sent");
    }

    #[test]
    fn a_report_that_fits_is_one_message_as_before() {
        let small = report(1, vec![library("small", 4, 200, 2)]);
        assert_eq!(small.clone().parts(), [small]);
        let none = report(1, Vec::new());
        assert_eq!(none.clone().parts(), [none]);
    }

    #[test]
    fn a_report_that_was_cut_off_gives_way_to_the_next() {
        let mut watch = ReportWatch::default();
        let large = report(1, vec![library("large", 1, 60_000, 0)]);
        for part in large.clone().parts().into_iter().take(3) {
            assert_eq!(watch.accept(id(1), part), Ok(None));
        }
        let next = SiteReport { sequence: 2, ..large.clone() };
        assert!(carried(&mut watch, &next).1 == Some(next.clone()));
        // What is left of an older one is nothing.
        for part in large.clone().parts() {
            assert_eq!(watch.accept(id(1), part), Ok(None));
        }
        // Nor do parts of two runs come together.
        let mut parts = SiteReport { sequence: 3, ..large }.parts();
        let last = parts.pop().unwrap();
        for part in parts {
            assert_eq!(watch.accept(id(1), part), Ok(None));
        }
        let other = watch.accept(id(2), last).unwrap().unwrap();
        assert!(other.libraries[0].inventory.elements.len() < 60_000);
    }

    #[test]
    fn parts_without_an_end_are_refused() {
        let mut watch = ReportWatch::default();
        let endless = SiteReport { more: true, ..report(1, vec![library("large", 0, 30_000, 0)]) };
        assert_eq!(watch.accept(id(1), endless.clone()), Ok(None));
        assert_eq!(watch.accept(id(1), endless.clone()), Ok(None));
        assert_eq!(watch.accept(id(1), endless), Err(ReportTooLong));
        let names = (0..200).map(|number| library(&format!("lib{number}"), 0, 0, 0));
        let many = SiteReport { more: true, ..report(2, names.collect()) };
        assert_eq!(watch.accept(id(1), many.clone()), Ok(None));
        assert_eq!(watch.accept(id(1), many), Err(ReportTooLong));
    }

    #[test]
    fn only_newer_reports_count_and_a_restart_begins_anew() {
        let mut watch = ReportWatch::default();
        let mut accepts = |engine, sequence| {
            watch.accept(id(engine), report(sequence, Vec::new())).unwrap().is_some()
        };
        assert!(accepts(1, 1));
        assert!(!accepts(1, 1));
        assert!(accepts(1, 5));
        assert!(!accepts(1, 4));
        assert!(accepts(2, 1));
    }
}
