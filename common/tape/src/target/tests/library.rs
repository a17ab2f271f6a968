//! Changers: elements, moves, what is kept over a restart.

use ::model::{ElementAddress, ElementMap, ElementType};
use proptest::collection::vec;
use proptest::prelude::*;
use scsi::mode::{ModeParameters, parse_element_assignment};
use scsi::{ElementRange, ElementReport, ModeForm, TagTemplate};

use super::*;
use crate::{MediumChanger, ReadEnd, TapeDrive, TapeError};

type Library = TargetLibrary<MemoryMedium>;

struct Shop {
    shelf: MemoryShelf,
    store: MemoryInventory,
}

fn names(count: u32) -> Vec<Barcode> {
    ::model::CartridgeSet { prefix: "PTA".into(), count }.barcodes().unwrap()
}

impl Shop {
    fn new() -> Self {
        let shelf = MemoryShelf::new();
        names(9).iter().for_each(|name| shelf.add(name, 1 << 20));
        Self { shelf, store: MemoryInventory::default() }
    }

    fn spec(cartridges: u32) -> LibrarySpec {
        LibrarySpec {
            identity: identity("TESTCHG001"),
            map: ElementMap::with_counts(2, 5, 2),
            drives: vec![drive_spec(0), drive_spec(1)],
            cartridges: names(cartridges),
            power_on_attention: false,
        }
    }

    fn open(&self, spec: LibrarySpec) -> Result<Library, LibraryError> {
        TargetLibrary::open(spec, Arc::new(self.shelf.clone()), Box::new(self.store.clone()))
    }

    /// Two drives (128, 129), five slots (1024-1028), two import/export elements (0, 1), and
    /// cartridges PTA001L8 to PTA003L8 in the first slots.
    fn library(&self) -> Library {
        self.open(Self::spec(3)).unwrap()
    }
}

fn ask(library: &mut Library, cdb: Cdb, room: usize) -> Ended {
    raw(library, 1, &cdb.encode(), room)
}

fn raw(library: &mut Library, nexus: u64, cdb: &[u8], room: usize) -> Ended {
    let mut data = vec![0; room];
    let transfer = if room == 0 { Transfer::None } else { Transfer::In(&mut data) };
    let answer = library.execute_cdb(nexus, cdb, transfer, &control()).unwrap();
    data.truncate(answer.moved);
    Ended { status: answer.status, sense: answer.sense, data, residual: answer.residual }
}

fn move_cdb(source: ElementAddress, destination: ElementAddress) -> Cdb {
    Cdb::MoveMedium { transport: 0, source, destination, invert: false }
}

fn moved(library: &mut Library, from: ElementAddress, to: ElementAddress) -> Option<Sense> {
    ask(library, move_cdb(from, to), 0).sense
}

fn status_cdb(kind: Option<ElementType>, start: u16, count: u16, allocation: u32) -> Cdb {
    let range = ElementRange { kind, start, count };
    Cdb::ReadElementStatus { tags: true, identities: true, current_data: true, range, allocation }
}

fn where_is(library: &Library, name: &str) -> Option<ElementAddress> {
    library.find(&barcode(name))
}

#[test]
fn element_status_tells_tags_drives_and_places() {
    let shop = Shop::new();
    let mut library = shop.library();
    assert_eq!(moved(&mut library, 1025, 129), None);
    let all = ask(&mut library, status_cdb(None, 0, u16::MAX, 0x10000), 0x10000);
    let report = ElementReport::parse(&all.data).unwrap();
    assert_eq!((report.elements.len(), report.is_complete()), (10, true));
    assert_eq!(all.data.len(), report.byte_count as usize + 8);
    let at = |address| report.elements.iter().find(|e| e.address == address).unwrap();
    assert_eq!(at(1024).tag.as_deref(), Some("PTA001L8"));
    assert!(at(1024).full && at(1024).accessible && !at(1025).full);
    let drive = at(129);
    assert_eq!((drive.tag.as_deref(), drive.source), (Some("PTA002L8"), Some(1025)));
    assert!(drive.full && !drive.accessible && at(128).accessible);
    let parts = drive.identity.as_ref().unwrap().t10_parts().unwrap();
    assert_eq!(parts.2, "TESTDRIVE1");

    let probe = ask(&mut library, status_cdb(None, 0, u16::MAX, 8), 8);
    assert_eq!(probe.data, all.data[..8]);
    let slots = status_cdb(Some(ElementType::Storage), 1026, 2, 0x10000);
    let report = ElementReport::parse(&ask(&mut library, slots, 0x10000).data).unwrap();
    let addresses: Vec<_> = report.elements.iter().map(|e| e.address).collect();
    assert_eq!(addresses, [1026, 1027]);
    let beyond = status_cdb(None, 1029, 1, 0x10000);
    assert_eq!(ask(&mut library, beyond, 99).sense(), Sense::INVALID_ELEMENT_ADDRESS);
}

#[test]
fn the_map_is_on_its_mode_page() {
    let mut library = Shop::new().library();
    let form = ModeForm::Six;
    let (no_descriptors, control, subpage, allocation) = (true, 0, 0, 255);
    let cdb = Cdb::ModeSense { form, no_descriptors, control, page: 0x3f, subpage, allocation };
    let list = ModeParameters::parse(&ask(&mut library, cdb, 255).data, form).unwrap();
    assert_eq!(list.pages.len(), 3);
    let map = parse_element_assignment(list.page(0x1d, 0).unwrap()).unwrap();
    assert_eq!(map, ElementMap::with_counts(2, 5, 2));
}

#[test]
fn moves_that_can_not_be_say_why() {
    let mut library = Shop::new().library();
    for (from, to, sense) in [
        (1024, 5, Sense::INVALID_ELEMENT_ADDRESS),
        (2000, 128, Sense::INVALID_ELEMENT_ADDRESS),
        (1024, 16, Sense::INVALID_ELEMENT_ADDRESS),
        (1028, 128, Sense::SOURCE_ELEMENT_EMPTY),
        (1024, 1025, Sense::DESTINATION_ELEMENT_FULL),
        (1024, 1024, Sense::DESTINATION_ELEMENT_FULL),
    ] {
        assert_eq!(moved(&mut library, from, to), Some(sense), "{from} {to}");
    }
    let turned = Cdb::MoveMedium { transport: 0, source: 1024, destination: 128, invert: true };
    assert_eq!(ask(&mut library, turned, 0).sense(), Sense::bad_cdb_field(10, Some(0)));
    let no_arm = Cdb::MoveMedium { transport: 17, source: 1024, destination: 128, invert: false };
    assert_eq!(ask(&mut library, no_arm, 0).sense(), Sense::INVALID_ELEMENT_ADDRESS);
    assert_eq!(where_is(&library, "PTA001L8"), Some(1024));
}

#[test]
fn a_loaded_drive_is_unloaded_by_a_move_unless_prevented() {
    let shop = Shop::new();
    let mut library = shop.library();
    let mut drive = library.drive(0, 7).unwrap();
    let c = control();
    assert_eq!(drive.state(&c).unwrap().medium, None);
    assert_eq!(moved(&mut library, 1024, 128), None);
    assert_eq!(drive.write(b"abc", &c), Err(Sense::MEDIUM_MAY_HAVE_CHANGED.into()));
    drive.write(b"abc", &c).unwrap();
    let prevent = |prevent| Cdb::PreventAllow { prevent }.encode();
    drive.lock().execute_cdb(7, &prevent(true), Transfer::None, &c).unwrap();
    assert_eq!(moved(&mut library, 128, 1024), Some(Sense::MEDIUM_REMOVAL_PREVENTED));
    assert_eq!(where_is(&library, "PTA001L8"), Some(128));
    library.forget_nexus(7);
    assert_eq!(moved(&mut library, 128, 1027), None);
    assert_eq!(shop.shelf.tape(&barcode("PTA001L8")).unwrap().closed, 1);
    assert!(library.drives().all(|drive| drive.lock().unwrap().medium().is_none()));
}

#[test]
fn exchange_moves_two_cartridges() {
    let mut library = Shop::new().library();
    let exchange = |source, first, second| Cdb::ExchangeMedium {
        transport: 0,
        source,
        first,
        second,
        invert: 0,
    };
    assert_eq!(moved(&mut library, 1024, 128), None);
    assert_eq!(ask(&mut library, exchange(1025, 128, 1028), 0).sense, None);
    assert_eq!(where_is(&library, "PTA001L8"), Some(1028));
    assert_eq!(where_is(&library, "PTA002L8"), Some(128));
    assert_eq!(ask(&mut library, exchange(1026, 128, 1026), 0).sense, None);
    assert_eq!(where_is(&library, "PTA002L8"), Some(1026));
    let loaded = library.drive(0, 1).unwrap();
    assert_eq!(loaded.lock().cartridge(), Some(&barcode("PTA003L8")));
    let empty = ask(&mut library, exchange(1026, 129, 1025), 0).sense();
    assert_eq!(empty, Sense::SOURCE_ELEMENT_EMPTY);
    let full = ask(&mut library, exchange(1026, 128, 1028), 0).sense();
    assert_eq!(full, Sense::DESTINATION_ELEMENT_FULL);
}

#[test]
fn a_restart_finds_everything_where_it_was() {
    let shop = Shop::new();
    let mut library = shop.library();
    moved(&mut library, 1025, 129);
    moved(&mut library, 1026, 0);
    let mut drive = library.drive(1, 1).unwrap();
    drive.write(b"kept", &control()).unwrap();
    let before = library.inventory();
    drop(library);

    let mut spec = Shop::spec(4);
    spec.drives[1].power_on_attention = true;
    let library = shop.open(spec).unwrap();
    assert_eq!(where_is(&library, "PTA004L8"), Some(1025));
    let mut after = library.inventory();
    let slot = after.elements.iter_mut().find(|e| e.address == 1025).unwrap();
    (slot.full, slot.barcode) = (false, None);
    assert_eq!(after, before);
    let mut drive = library.drive(1, 1).unwrap();
    let mut buffer = [0; 9];
    assert_eq!(drive.read(&mut buffer, &control()), Err(Sense::POWER_ON_RESET.into()));
    assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::Record { length: 4 }));
}

#[test]
fn an_inventory_that_does_not_fit_is_refused() {
    let shop = Shop::new();
    assert_eq!(shop.open(Shop::spec(6)).err(), Some(LibraryError::NoSlot(names(6)[5].clone())));
    let mut spec = Shop::spec(1);
    spec.drives.pop();
    assert_eq!(shop.open(spec).err(), Some(LibraryError::Drives { elements: 2, drives: 1 }));
    shop.library();
    let mut spec = Shop::spec(3);
    spec.map = ElementMap::with_counts(2, 2, 2);
    let error = shop.open(spec).err().unwrap();
    assert!(matches!(&error, LibraryError::Inventory(text) if text.contains("PTA003L8")));
}

/// Saves once and then no more.
struct Stuck(bool);

impl InventoryStore for Stuck {
    fn load(&self) -> Result<Option<SavedInventory>, MediumError> {
        Ok(None)
    }

    fn save(&mut self, _: &SavedInventory) -> Result<(), MediumError> {
        match std::mem::replace(&mut self.0, true) {
            false => Ok(()),
            true => Err(MediumError::Io("disk full".into())),
        }
    }
}

#[test]
fn a_move_that_can_not_be_saved_did_not_happen() {
    let shelf = Shop::new().shelf;
    let store = Box::new(Stuck(false));
    let mut library = TargetLibrary::open(Shop::spec(3), Arc::new(shelf), store).unwrap();
    let before = library.inventory();
    assert_eq!(moved(&mut library, 1024, 128), Some(Sense::INTERNAL_TARGET_FAILURE));
    assert_eq!(library.inventory(), before);
    assert_eq!(library.import(&barcode("NEW001L8")), Err(Sense::INTERNAL_TARGET_FAILURE));
    assert_eq!(library.inventory(), before);
}

#[test]
fn operators_use_the_import_export_elements() {
    let mut library = Shop::new().library();
    assert_eq!(raw(&mut library, 1, &[0; 6], 0).status, 0);
    let new = barcode("NEW001L8");
    assert_eq!(library.import(&new), Ok(0));
    assert_eq!(library.import(&new), Err(Sense::DESTINATION_ELEMENT_FULL));
    assert_eq!(raw(&mut library, 1, &[0; 6], 0).sense(), Sense::IMPORT_EXPORT_ACCESSED);
    assert!(library.inventory().elements[0].imported);
    assert_eq!(ask(&mut library, Cdb::PreventAllow { prevent: true }, 0).sense, None);
    let open = Cdb::OpenCloseImportExport { element: 0, action: 0 };
    assert_eq!(ask(&mut library, open, 0).sense(), Sense::MEDIUM_REMOVAL_PREVENTED);
    assert_eq!(library.export(0), Err(Sense::MEDIUM_REMOVAL_PREVENTED));
    library.forget_nexus(1);
    assert_eq!(moved(&mut library, 0, 1027), None);
    assert_eq!(moved(&mut library, 1024, 1), None);
    assert!(!library.inventory().elements[1].imported);
    assert_eq!(library.export(1), Ok(barcode("PTA001L8")));
    assert_eq!(library.export(1), Err(Sense::SOURCE_ELEMENT_EMPTY));
    assert_eq!(library.export(128), Err(Sense::INVALID_ELEMENT_ADDRESS));
}

#[test]
fn tags_are_searched() {
    let mut library = Shop::new().library();
    let range = ElementRange { kind: None, start: 0, count: 0 };
    let request = Cdb::RequestVolumeElementAddress {
        tags: true,
        range: ElementRange { count: 99, ..range },
        allocation: 999,
    };
    assert_eq!(ask(&mut library, request, 999).sense(), Sense::COMMAND_SEQUENCE_ERROR);
    let template = TagTemplate { pattern: "PTA00?L8".into(), minimum: 0, maximum: 0 }.encode();
    let send = Cdb::SendVolumeTag { range, action: 5, length: 40 }.encode();
    let answer = library.execute_cdb(1, &send, Transfer::Out(&template), &control()).unwrap();
    assert_eq!(answer.status, 0);
    let found = ask(&mut library, request, 999).data;
    assert_eq!(found[4], 5);
    assert_eq!(ElementReport::parse(&found).unwrap().elements.len(), 3);
    let wrong = Cdb::SendVolumeTag { range, action: 8, length: 40 }.encode();
    let answer = library.execute_cdb(1, &wrong, Transfer::Out(&template), &control()).unwrap();
    assert_eq!(answer.sense, Some(Sense::bad_cdb_field(5, Some(4))));
}

#[test]
fn the_changer_has_the_trait_face_too() {
    let shop = Shop::new();
    let library = Arc::new(Mutex::new(shop.library()));
    let mut one = ChangerHandle::new(Arc::clone(&library), 1);
    let mut two = ChangerHandle::new(library, 2);
    let c = control();
    one.move_medium(1024, 128, &c).unwrap();
    assert_eq!(two.inventory(&c).unwrap().map.count(ElementType::Storage), 5);
    let full = one.move_medium(1025, 128, &c);
    assert_eq!(full, Err(Sense::DESTINATION_ELEMENT_FULL.into()));
    let request = crate::CdbRequest {
        cdb: Cdb::Reserve { ten: false }.encode(),
        data_out: bytes::Bytes::new(),
        data_in_max: 0,
        timeout: Duration::from_secs(1),
    };
    assert_eq!(two.execute(&request, &c).unwrap().status, 0);
    assert_eq!(one.initialize(&c), Err(TapeError::ReservationConflict));
    two.lock().forget_nexus(2);
    let plan = FaultPlan::parse("changer move 1 sense 04/15/01\nchanger move 2 lost").unwrap();
    one.lock().set_faults(&plan);
    let failed = one.move_medium(128, 1024, &c);
    assert_eq!(failed, Err(Sense::MECHANICAL_POSITIONING_ERROR.into()));
    assert_eq!(one.move_medium(128, 1024, &c), Err(TapeError::TimedOut));
    assert_eq!(where_is(&one.lock(), "PTA001L8"), Some(1024));
}

proptest! {
    #[test]
    fn no_bytes_break_a_library_and_no_cartridge_is_lost(
        commands in vec((any::<[u8; 12]>(), 0usize..13, any::<bool>()), 1..40),
        moves in vec((0usize..10, 0usize..10), 0..20),
    ) {
        let mut library = Shop::new().library();
        let elements: Vec<_> = library.inventory().elements.iter().map(|e| e.address).collect();
        let table: Vec<_> = scsi::commands(scsi::DeviceType::Changer).collect();
        for (bytes, length, legal) in commands {
            let mut cdb = bytes[..length].to_vec();
            if legal {
                let usage = table[usize::from(bytes[0]) % table.len()].usage;
                cdb = usage.iter().zip(bytes).map(|(usage, byte)| usage & byte).collect();
                cdb[0] = usage[0];
            }
            let ended = raw(&mut library, 1, &cdb, 200);
            prop_assert!(ended.data.len() <= 200);
        }
        library.forget_nexus(1);
        for (from, to) in moves {
            moved(&mut library, elements[from], elements[to]);
        }
        for name in names(3) {
            let place = library.find(&name).unwrap();
            let full = library.inventory().elements.into_iter().filter(|e| e.full);
            let bearing = full.filter(|e| e.barcode.as_ref() == Some(&name));
            prop_assert_eq!(bearing.map(|e| e.address).collect::<Vec<_>>(), [place]);
        }
        for drive in library.drives() {
            let inside = drive.lock().unwrap().cartridge().cloned();
            let told = inside.as_ref().and_then(|name| library.find(name));
            prop_assert_eq!(inside.is_some(), told.is_some_and(|at| (128..130).contains(&at)));
        }
    }
}

#[test]
fn cartridges_come_and_go_by_themselves() {
    let shop = Shop::new();
    let mut library = shop.library();
    let seen = library.seen();
    assert_eq!(moved(&mut library, 1025, 128), None);
    // One leaves its slot, one stays in its drive although it is not wanted, two come: not into
    // the home of the one in the drive.
    let wanted = ["PTA004L8", "PTA001L8", "PTA005L8"].map(barcode);
    assert_eq!(library.restock(&wanted), Ok(vec![]));
    let found = ["PTA001L8", "PTA002L8", "PTA003L8", "PTA004L8", "PTA005L8"];
    let places = found.map(|name| where_is(&library, name));
    assert_eq!(places, [Some(1024), Some(128), None, Some(1026), Some(1027)]);
    assert_eq!(seen.inventory(), Some(library.inventory()));
    let attention = ask(&mut library, Cdb::TestUnitReady, 0).sense();
    assert_eq!(attention, Sense::MEDIUM_MAY_HAVE_CHANGED);
    // Nothing new: nobody is told.
    assert_eq!(library.restock(&wanted), Ok(vec![]));
    assert_eq!(ask(&mut library, Cdb::TestUnitReady, 0).status, 0);
    // What does not fit is named; the unwanted one goes once it is out of the drive.
    let more = names(9);
    assert_eq!(library.restock(&more).unwrap(), names(9)[5..]);
    drop(ask(&mut library, Cdb::TestUnitReady, 0));
    assert_eq!(moved(&mut library, 128, 1025), None);
    assert_eq!(library.restock(&[]), Ok(vec![]));
    assert!(library.inventory().elements.iter().all(|element| !element.full));
    // It is kept over a restart.
    drop(library);
    let library = shop.open(Shop::spec(0)).unwrap();
    assert!(library.inventory().elements.iter().all(|element| !element.full));
}

#[test]
fn a_library_can_be_looked_at_while_it_is_locked() {
    let shop = Shop::new();
    let mut library = shop.library();
    let seen = library.seen();
    assert_eq!(moved(&mut library, 1024, 128), None);
    let drive = Arc::clone(library.drives().next().unwrap());
    let held = Mutex::new(library);
    let library = held.lock().unwrap();
    let inventory = seen.inventory().unwrap();
    assert_eq!(inventory, library.inventory());
    let bay = inventory.elements.iter().find(|e| e.address == 128).unwrap();
    assert!(bay.full && !bay.accessible);
    let mut handle = DriveHandle::new(drive, 1);
    handle.unload(&control()).unwrap();
    let bay = seen.inventory().unwrap().elements.into_iter().find(|e| e.address == 128).unwrap();
    assert!(bay.full && bay.accessible);
}
