//! Which tapes a frontend shows, which drives it takes, and how mounts are spread.

use super::*;
use crate::device::Library;

fn shown(rig: &Rig) -> Vec<String> {
    rig.elements("fe").into_iter().map(|(_, barcode)| barcode).collect()
}

#[test]
fn slots_follow_the_map() {
    let rig = Rig::new();
    assert_eq!(shown(&rig), ["A00001L8", "A00002L8", "A00003L8"]);
    rig.load("A00001L8", 0);
    let tapes = ["lib P tape A00002L8", "lib D tape C00001L8-C00002L8", "lib D tape C00777L8"];
    let map = row("lib F drive F001", "lib P drive P0", &tapes);
    rig.catalogue.put_frontend_backend(&map).unwrap();
    rig.frontend.refresh();
    // What is in a drive stays; a tape that does not exist is not shown.
    assert_eq!(shown(&rig), ["A00001L8", "A00002L8", "C00001L8", "C00002L8"]);
    rig.unload(0);
    rig.frontend.refresh();
    assert_eq!(shown(&rig), ["A00002L8", "C00001L8", "C00002L8"]);
    // A library that can not tell loses nothing.
    rig.d.switch(false);
    rig.frontend.refresh();
    assert_eq!(shown(&rig), ["A00002L8", "C00001L8", "C00002L8"]);
    let view = rig.frontend.view().unwrap();
    assert_eq!((view.role, view.identity.serial.as_str()), (svs::LibraryRole::Frontend, "F"));
}

#[test]
fn too_few_slots_are_told_once() {
    let rig = Rig::new();
    let tapes =
        ["lib P tape A00001L8-A00003L8", "lib C tape B00001L8-B00003L8", "lib D tape C00001L8"];
    let map = row("lib F drive F001", "lib P drive P0", &tapes);
    rig.catalogue.put_frontend_backend(&map).unwrap();
    rig.frontend.refresh();
    rig.frontend.refresh();
    assert_eq!(shown(&rig).len(), 6);
    assert_eq!(rig.events(), ["TWR-8107-W"]);
}

#[test]
fn a_drive_without_a_row_and_drives_of_other_frontends() {
    let rig = Rig::new();
    // No row for the second drive.
    rig.load("A00002L8", 1);
    let (claim, mut drive) = rig.drive("fe/drive1");
    assert_eq!(sense(drive.position(&control())), Sense::new(2, 4, 3));
    drop((claim, drive));
    rig.unload(1);
    // With one, it takes its own backend; what is not in its row is found in another.
    let map = row("lib F drive F002", "lib P drive P1", &[]);
    rig.catalogue.put_frontend_backend(&map).unwrap();
    rig.frontend.refresh();
    rig.load("A00002L8", 1);
    assert!(rig.is_held("p/drive1") && !rig.is_held("p/drive0"));
    rig.load("A00001L8", 0);
    assert!(rig.is_held("p/drive0"));
}

#[test]
fn another_drive_of_the_library_is_taken_unless_it_is_anothers() {
    let rig = Rig::new();
    rig.load_at("p", "A00003L8", 0);
    rig.load("A00001L8", 0);
    assert!(rig.is_held("p/drive1"));
    assert_eq!(rig.alternative().as_deref(), Some("lib P drive P1"));
    rig.unload(0);
    // P1 stands behind another frontend now; the copy is taken.
    rig.try_unload("p", 0).unwrap();
    rig.copied("A00002L8", &[("C", "B00001L8")], "abc");
    rig.load_at("p", "A00003L8", 0);
    let map = row("lib F drive F002", "lib P drive P1", &[]);
    rig.catalogue.put_frontend_backend(&map).unwrap();
    rig.frontend.refresh();
    rig.load("A00002L8", 0);
    assert_eq!(rig.alternative().as_deref(), Some("lib C drive C0"));
}

#[test]
fn mounts_are_spread_as_utilisation_says() {
    let rig = Rig::new();
    for n in 1..=3 {
        let copies = [("C", format!("B0000{n}L8")), ("D", format!("C0000{n}L8"))];
        let copies = copies.each_ref().map(|(library, tape)| (*library, tape.as_str()));
        rig.copied(&format!("A0000{n}L8"), &copies, "abc");
    }
    for (drive, backend) in [("F002", "lib P drive P1"), ("F003", "lib P drive P0")] {
        let map = row(&format!("lib F drive {drive}"), backend, &[]);
        rig.catalogue.put_frontend_backend(&map).unwrap();
    }
    rig.frontend.refresh();
    for n in 0..3 {
        rig.load(&format!("A0000{}L8", n + 1), n);
    }
    let in_use = [&rig.p, &rig.c, &rig.d].map(|library| library.in_drives().len());
    assert_eq!(in_use, [1, 1, 1]);
    for n in 0..3 {
        let (_claim, mut drive) = rig.drive(&format!("fe/drive{n}"));
        assert_eq!(letters(drive.as_mut()), "abc|");
    }
    assert!(rig.events().is_empty(), "nothing went wrong");
}

#[test]
fn the_view_waits_for_no_mount() {
    let rig = Rig::new();
    rig.p.faults("changer move 1 delay 3000");
    std::thread::scope(|scope| {
        scope.spawn(|| rig.load("A00001L8", 0));
        // While the mount is under way the changer at the backend is held.
        crate::testing::until("the mount is under way", || rig.is_held("p/changer").then_some(()));
        let elements = rig.frontend.view().unwrap().inventory.elements;
        let bay = elements.into_iter().find(|e| e.address == 128).unwrap();
        assert!(bay.full && rig.is_held("p/changer"), "{bay:?}");
    });
}
