//! What a host is answered when a copy is used, is gone, or fails.

use super::*;

const COPIES: [(&str, &str); 2] = [("C", "B00001L8"), ("D", "C00001L8")];

#[test]
fn a_frontend_is_the_tape_at_its_backend() {
    let rig = Rig::new();
    rig.load("A00001L8", 0);
    assert_eq!(rig.p.in_drives(), ["A00001L8"]);
    assert!(rig.is_held("p/drive0"), "the drive of the row is taken");
    {
        let (_claim, mut drive) = rig.drive("fe/drive0");
        for letter in *b"abc" {
            drive.write(&[letter; 10], &control()).unwrap();
        }
        drive.write_filemarks(2, &control()).unwrap();
        let at = drive.position(&control()).unwrap();
        assert_eq!((at.object, at.file, at.at_bot), (5, 2, false));
        assert_eq!(drive.medium_name(), "fe/A00001L8");
        drive.rewind(&control()).unwrap();
        assert_eq!(letters(drive.as_mut()), "abc||");
        drive.locate(1, &control()).unwrap();
        assert_eq!(letters(drive.as_mut()), "bc||");
        assert_eq!(sense(drive.locate(9, &control())), Sense::END_OF_DATA);
        let spaced = drive.space(tape::SpaceKind::Filemarks, -1, &control()).unwrap();
        assert_eq!((spaced.residual, drive.position(&control()).unwrap().object), (0, 4));
        // What follows a write is gone.
        drive.locate(1, &control()).unwrap();
        drive.write(b"z", &control()).unwrap();
        drive.write_filemarks(1, &control()).unwrap();
        drive.rewind(&control()).unwrap();
        assert_eq!(letters(drive.as_mut()), "az|");
    }
    rig.unload(0);
    assert!(rig.p.in_drives().is_empty() && !rig.is_held("p/drive0"));
    assert_eq!(rig.p.objects("A00001L8"), 3);
    assert_eq!((rig.alternative(), rig.events()), (None, vec![]));
}

#[test]
fn the_end_of_the_medium_is_the_backends() {
    let rig = Rig::new();
    rig.load("A00001L8", 0);
    let (_claim, mut drive) = rig.drive("fe/drive0");
    let state = drive.state(&control()).unwrap().medium.unwrap();
    assert_eq!((state.capacity, state.remaining), (Some(800), Some(800)));
    let ends: Vec<_> = (0..11).map(|_| drive.write(&[1; 100], &control()).unwrap()).collect();
    use tape::WriteEnd::{EarlyWarning, Overflow, Written};
    let expected = [[Written; 7].as_slice(), &[EarlyWarning; 3], &[Overflow]].concat();
    assert_eq!(ends, expected);
    assert!(drive.position(&control()).unwrap().past_early_warning);
    assert_eq!(drive.write_filemarks(1, &control()).unwrap(), EarlyWarning);
    assert!(rig.catalogue.medium_facts(&tape("P", "A00001L8")).unwrap().full);
    assert_eq!(rig.p.objects("A00001L8"), 11);
}

#[test]
fn primary_off_before_the_mount_a_copy_is_read_and_nothing_is_written() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES[..1], "abc");
    rig.p.switch(false);
    rig.load("A00001L8", 0);
    assert_eq!(rig.alternative().as_deref(), Some("lib C drive C0"));
    let (claim, mut drive) = rig.drive("fe/drive0");
    assert_eq!(letters(drive.as_mut()), "abc|");
    // Appending needs the primary.
    assert_eq!(sense(drive.write(b"more", &control())), Sense::WRITE_PROTECTED);
    assert_eq!(drive.position(&control()).unwrap().object, 4);
    assert_eq!((rig.p.objects("A00001L8"), rig.c.objects("B00001L8")), (4, 4));
    assert_eq!(rig.alternative().as_deref(), Some("lib C drive C0"));
    // Reading goes on.
    drive.rewind(&control()).unwrap();
    assert_eq!(letters(drive.as_mut()), "abc|");
    drop((claim, drive));
    rig.unload(0);
    assert_eq!(rig.alternative(), None);
    assert_eq!(rig.events(), ["TWR-8101-W", "TWR-8105-E"]);
    assert!(rig.c.in_drives().is_empty());
}

#[test]
fn primary_off_in_a_read_the_host_is_told_and_a_remount_goes_on() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES[..1], "abc");
    rig.load("A00001L8", 0);
    let (claim, mut drive) = rig.drive("fe/drive0");
    let mut buffer = [0; 100];
    drive.read(&mut buffer, &control()).unwrap();
    rig.p.switch(false);
    assert_eq!(sense(drive.read(&mut buffer, &control())), Sense::new(2, 4, 0));
    drop((claim, drive));
    // The dismount works although the backend is gone.
    rig.unload(0);
    rig.load("A00001L8", 0);
    let (claim, mut drive) = rig.drive("fe/drive0");
    assert_eq!(letters(drive.as_mut()), "abc|");
    drop((claim, drive));
    rig.unload(0);
    assert_eq!(rig.events(), ["TWR-8104-W", "TWR-8106-W", "TWR-8101-W"]);
    // Once it is back its tape goes to its slot.
    rig.p.switch(true);
    crate::testing::until("the tape is put back", || rig.p.in_drives().is_empty().then_some(()));
}

#[test]
fn a_read_error_on_one_copy_sends_the_next_mount_to_another() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES, "abc");
    rig.p.faults("* read 2.. sense 03/11/00");
    for expected in [None, Some("lib C drive C0")] {
        rig.load("A00001L8", 0);
        assert_eq!(rig.alternative().as_deref(), expected);
        let (_claim, mut drive) = rig.drive("fe/drive0");
        let mut buffer = [0; 100];
        drive.read(&mut buffer, &control()).unwrap();
        match expected {
            None => {
                let error = sense(drive.read(&mut buffer, &control()));
                assert_eq!(error, Sense::UNRECOVERED_READ_ERROR);
            }
            Some(_) => assert_eq!(letters(drive.as_mut()), "bc|"),
        }
        drop((_claim, drive));
        rig.unload(0);
    }
    // Without any other, the one that failed is tried again.
    rig.c.switch(false);
    rig.d.switch(false);
    rig.load("A00001L8", 0);
    assert_eq!((rig.alternative(), rig.p.in_drives().len()), (None, 1));
}

#[test]
fn primary_off_in_an_append_the_host_is_told_and_no_copy_is_written() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES[..1], "abc");
    rig.load("A00001L8", 0);
    let (claim, mut drive) = rig.drive("fe/drive0");
    drive.space(tape::SpaceKind::EndOfData, 1, &control()).unwrap();
    drive.write(b"one", &control()).unwrap();
    rig.p.switch(false);
    assert_eq!(sense(drive.write(b"two", &control())), Sense::new(2, 4, 0));
    drop((claim, drive));
    // What was not flushed may be lost: the first attempt to take the tape out says so.
    assert_eq!(sense(rig.try_unload("fe", 0)), Sense::new(2, 4, 0));
    rig.unload(0);
    // The copy is stale since the append began: it is not served.
    rig.load("A00001L8", 0);
    let (_claim, mut drive) = rig.drive("fe/drive0");
    assert_eq!(sense(drive.state(&control())), Sense::new(2, 4, 0));
    assert_eq!(rig.c.objects("B00001L8"), 4);
    assert!(rig.events().contains(&"TWR-8103-E".to_owned()));
    // Back again, the tape can be had by a LOAD.
    rig.p.switch(true);
    crate::testing::until("the tape can be loaded", || drive.load(&control()).ok());
    assert_eq!(letters(drive.as_mut()), "abc|o");
}

#[test]
fn a_write_leaves_the_copy_for_the_primary_at_the_same_object() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES[..1], "abc");
    // Both drives of P but one are taken, so C is less utilised.
    rig.load_at("p", "A00002L8", 1);
    rig.load("A00001L8", 0);
    assert_eq!(rig.alternative().as_deref(), Some("lib C drive C0"));
    let (claim, mut drive) = rig.drive("fe/drive0");
    drive.locate(2, &control()).unwrap();
    drive.write(&[b'z'; 10], &control()).unwrap();
    assert_eq!(rig.alternative(), None);
    assert!(rig.c.in_drives().is_empty(), "the copy is back in its slot");
    drive.write_filemarks(1, &control()).unwrap();
    drive.rewind(&control()).unwrap();
    assert_eq!(letters(drive.as_mut()), "abz|");
    drop((claim, drive));
    rig.unload(0);
    assert_eq!(rig.c.objects("B00001L8"), 4);
    let entry = rig.catalogue.copies_of(&tape("P", "A00001L8")).unwrap().remove(0);
    assert_eq!(entry.changed_from, Some(2));
    // Stale: the primary it is, however utilised.
    rig.load("A00001L8", 0);
    assert_eq!(rig.alternative(), None);
    assert!(rig.events().is_empty(), "nothing went wrong");
}

#[test]
fn a_copy_that_becomes_stale_while_it_is_mounted_is_not_read_from_a_new_place() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES[..1], "abc");
    rig.load_at("p", "A00002L8", 1);
    rig.load("A00001L8", 0);
    let (_claim, mut drive) = rig.drive("fe/drive0");
    rig.catalogue.touch(&tape("P", "A00001L8"), 1, None, 1).unwrap();
    assert_eq!(sense(drive.rewind(&control())), Sense::UNRECOVERED_READ_ERROR);
}

#[test]
fn without_any_copy_the_mount_says_so() {
    let rig = Rig::new();
    rig.p.switch(false);
    rig.load("A00001L8", 0);
    let (_claim, mut drive) = rig.drive("fe/drive0");
    assert_eq!(sense(drive.position(&control())), Sense::new(2, 4, 0));
    rig.p.switch(true);
    rig.p.faults("changer move 1.. sense 04/15/01");
    assert_eq!(sense(drive.load(&control())), Sense::MEDIA_LOAD_FAILED);
    assert_eq!(rig.events(), ["TWR-8103-E", "TWR-8102-W", "TWR-8103-E"]);
    rig.p.faults("");
    drive.load(&control()).unwrap();
    assert!(drive.state(&control()).unwrap().medium.is_some());
}

#[test]
fn a_migrated_tape_is_served_under_its_own_name() {
    let rig = Rig::new();
    rig.write("p", "A00001L8", "old");
    rig.write("d", "C00001L8", "new");
    let (source, medium) = (tape("P", "A00001L8"), tape("D", "C00001L8"));
    rig.migrated(&source, &medium);
    rig.load("A00001L8", 0);
    assert_eq!(rig.alternative().as_deref(), Some("lib D drive D0"));
    let (_claim, mut drive) = rig.drive("fe/drive0");
    assert_eq!(letters(drive.as_mut()), "new|");
    drive.write(&[b'x'; 10], &control()).unwrap();
    drive.write_filemarks(1, &control()).unwrap();
    drop((_claim, drive));
    rig.unload(0);
    assert_eq!((rig.d.objects("C00001L8"), rig.p.objects("A00001L8")), (6, 4));
    assert_eq!(rig.catalogue.medium_facts(&source).unwrap().moved_to, Some(medium));
}

#[test]
fn killed_with_a_tape_mounted_it_goes_back_and_the_frontend_works() {
    let rig = Rig::new();
    rig.copied("A00001L8", &COPIES[..1], "abc");
    rig.p.switch(false);
    rig.load("A00001L8", 0);
    assert_eq!(rig.c.in_drives(), ["B00001L8"]);
    assert!(rig.alternative().is_some());
    let rig = rig.killed();
    assert_eq!(rig.alternative(), None);
    let slots = rig.elements("fe");
    assert!(slots.iter().all(|(address, _)| *address >= 1024), "{slots:?}");
    // Even before it was put back.
    rig.load("A00001L8", 0);
    rig.unload(0);
    assert!(rig.c.in_drives().is_empty());
    // And without anybody who asks for it.
    rig.load("A00001L8", 0);
    let rig = rig.killed();
    rig.access.put_back_left();
    crate::testing::until("the tape is put back", || rig.c.in_drives().is_empty().then_some(()));
}
