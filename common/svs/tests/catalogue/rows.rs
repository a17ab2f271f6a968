//! Cartridges, replication, libraries, maps, leases and events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::*;
use svs::{
    Device, DeviceRef, EventFilter, EventKind, GenerationState, Library, LibraryRole, MediumRef,
    NewEvent, Replication, ReplicationState, Severity, SvsError,
};

#[test]
fn cartridges_generations_and_replication_hang_together() {
    let (_dir, c) = catalogue();
    let tape = cartridge("VTA001L8");
    c.put_cartridge(&tape).unwrap();
    c.put_cartridge(&tape).unwrap();
    let twin = cartridge("VTA001L8");
    let twin = svs::Cartridge { id: model::CartridgeId::generate(99), ..twin };
    assert!(matches!(c.put_cartridge(&twin), Err(SvsError::Conflict(_))));
    c.place_cartridge(tape.id, Some(128), Some(1024)).unwrap();
    let found = c.find_cartridge(&tape.site, &tape.library, &tape.barcode).unwrap().unwrap();
    assert_eq!((found.element, found.home), (Some(128), Some(1024)));

    let mut generation = generation(tape.id, 1);
    c.put_generation(&generation).unwrap();
    (generation.state, generation.logical_bytes) = (GenerationState::Sealed, 4096);
    let told = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    c.on_write(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    c.put_generation(&generation).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1, "every commit is told");
    let facts = c.tape_facts(&tape.site, &tape.library, None).unwrap();
    assert_eq!((facts.len(), facts[0].logical_bytes), (1, Some(4096)));
    let one = c.tape_facts(&tape.site, &tape.library, Some(tape.barcode.as_str())).unwrap();
    assert_eq!(one, facts);
    assert!(c.tape_facts(&tape.site, &tape.library, Some("OTHER1L8")).unwrap().is_empty());
    let mut row = Replication {
        generation: generation.id,
        site: site("dr"),
        state: ReplicationState::InProgress,
        job: Some(job_id(1)),
        bytes_logical: 4096,
        bytes_unique: 10,
        bytes_wire: 20,
        message: None,
    };
    c.put_replication(&row).unwrap();
    assert_eq!(c.replications(&[ReplicationState::Done]).unwrap(), []);
    row.state = ReplicationState::Done;
    c.put_replication(&row).unwrap();
    assert_eq!(c.replication(generation.id, &site("dr")).unwrap().unwrap(), row);

    let status = c.cartridge_status().unwrap();
    assert_eq!(status.len(), 1);
    assert_eq!((status[0].logical_bytes, status[0].wire_bytes), (Some(4096), Some(20)));
    assert_eq!(status[0].replication, Some(ReplicationState::Done));
    c.remove_cartridge(tape.id).unwrap();
    assert!(c.all_generations().unwrap().is_empty() && c.replications(&[]).unwrap().is_empty());
    assert!(matches!(c.put_generation(&generation), Err(SvsError::Conflict(_))));
    assert!(matches!(c.remove_cartridge(tape.id), Err(SvsError::NotFound(_))));
    c.check().unwrap();
}

#[test]
fn libraries_devices_and_reports_of_both_sites() {
    let (_dir, c) = catalogue();
    let ghost = Library {
        site: site("dr"),
        name: library("ptl0"),
        serial: "PTL0".into(),
        role: LibraryRole::Ghost,
        backend: "file".into(),
        state: "ready".into(),
    };
    let device = |name: &str| Device {
        name: name.parse().unwrap(),
        serial: name.replace('/', ""),
        vendor: "TWINREEL".into(),
        product: "DRIVE".into(),
        revision: "0001".into(),
        state: "empty".into(),
    };
    let all = [device("ptl0/drive10"), device("ptl0/drive2"), device("ptl0/changer")];
    c.put_library(&ghost, &all).unwrap();
    let names: Vec<_> = c
        .devices(&ghost.site, &ghost.name)
        .unwrap()
        .into_iter()
        .map(|d| d.name.to_string())
        .collect();
    assert_eq!(names, ["ptl0/changer", "ptl0/drive2", "ptl0/drive10"]);
    c.put_library(&ghost, &all[..1]).unwrap();
    assert_eq!(c.devices(&ghost.site, &ghost.name).unwrap().len(), 1);
    assert!(c.put_library(&ghost, &[device("other/drive0")]).is_err());
    c.set_library_state(&ghost.site, &ghost.name, "link down").unwrap();
    assert_eq!(c.libraries().unwrap()[0].state, "link down");

    c.put_inventory(&ghost.site, &ghost.name, "{\"v\":1}").unwrap();
    c.put_inventory(&ghost.site, &ghost.name, "{\"v\":2}").unwrap();
    assert_eq!(c.inventories().unwrap().len(), 1);
    let last = c.inventory(&ghost.site, &ghost.name).unwrap().unwrap();
    assert_eq!(last.report, "{\"v\":2}");
    c.remove_library(&ghost.site, &ghost.name).unwrap();
    assert!(c.inventories().unwrap().is_empty() && c.libraries().unwrap().is_empty());
}

#[test]
fn device_and_medium_texts_lead_back() {
    for text in ["lib VTL0 drive VTL0D0", "wwpn 500507630a1b2c3d lun 0", "lib a/b drive x:1"] {
        assert_eq!(text.parse::<DeviceRef>().unwrap().to_string(), text);
    }
    for text in ["lib VTL0 tape VTA001L8", "wwpn 500507630a1b2c3d lun 16383"] {
        assert_eq!(text.parse::<MediumRef>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "lib",
        "lib A drive",
        "lib A  drive B",
        "lib A drive B ",
        "lib A drive B C",
        "lib A tape B",
        "LIB A drive B",
        "lib A,B drive C",
        "wwpn 5005 lun 0",
        "wwpn 500507630a1b2c3g lun 0",
        "wwpn 500507630a1b2c3d lun 16384",
        "wwpn 500507630a1b2c3d lun 01",
        "wwpn 500507630a1b2c3d lun -1",
    ] {
        assert!(text.parse::<DeviceRef>().is_err(), "{text:?}");
    }
    assert!("lib A drive B".parse::<MediumRef>().is_err());
    assert!("lib A tape a/b".parse::<MediumRef>().is_err());
}

#[test]
fn rows_of_leases_are_replaced_listed_and_forgotten() {
    let (_dir, c) = catalogue();
    let [first, second] = [1, 2].map(model::LeaseId::generate);
    c.put_lease_row(second, b"two").unwrap();
    c.put_lease_row(first, b"one").unwrap();
    c.put_lease_row(first, b"").unwrap();
    let rows = c.lease_rows().unwrap();
    assert_eq!(rows, [(first, Vec::new()), (second, b"two".to_vec())]);
    assert!(matches!(c.put_lease_row(first, &[0; 2 << 20]), Err(SvsError::Conflict(_))));
    c.remove_lease_row(first).unwrap();
    c.remove_lease_row(first).unwrap();
    assert_eq!(c.lease_rows().unwrap().len(), 1);
}

#[test]
fn events_are_numbered_and_found_again() {
    let (_dir, c) = catalogue();
    let write = |text: &str, subject| {
        let (kind, severity) = (EventKind::Device, Severity::Warning);
        c.event(&NewEvent { kind, severity, message_id: "TWR-5006-W", text, subject }).unwrap()
    };
    let ids = ["a", "b", "c"].map(|text| write(text, (text == "b").then_some("ptl0/drive0")));
    assert!(ids[0] < ids[1] && ids[1] < ids[2]);
    let since = EventFilter { after: ids[0], ..EventFilter::default() };
    assert_eq!(c.events(&since).unwrap().len(), 2);
    let about = EventFilter { subject: Some("ptl0/drive0".into()), ..EventFilter::default() };
    assert_eq!(c.events(&about).unwrap()[0].text, "b");
}
