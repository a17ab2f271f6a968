//! Pairs, reports, devices; lost answers, restarts and expiry.

use bytes::Bytes;
use link::{Answer, ClientEvent, EndReason, Message, Work};
use tape::{Operation, Outcome, ReadEnd, TapeError, WriteEnd};

use crate::support::{Site, run_id};

fn record(byte: u8) -> Operation {
    Operation::Write(Bytes::from(vec![byte; 1000]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_sees_the_library_and_moves_a_cartridge() {
    let site = Site::new("8MB", "1MB");
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    let report = local.report(|_| true).await;
    assert_eq!((report.sequence, report.libraries.len()), (1, 1));
    let library = &report.libraries[0];
    assert_eq!((library.name.as_str(), library.drives.len()), ("ptl0", 2));
    let barcodes = library.inventory.elements.iter().filter_map(|it| it.barcode.as_ref());
    let barcodes: Vec<_> = barcodes.map(ToString::to_string).collect();
    assert_eq!(barcodes, [1, 2, 3, 4, 5, 6].map(|n| format!("PTA00{n}L8")));
    assert!(library.drives.iter().all(|drive| !drive.in_use));

    local.change(&[(1024, 128)]).await;
    let loaded = |report: &link::SiteReport| {
        let state = report.libraries[0].drives[0].state.as_ref();
        state.is_some_and(|state| state.medium.is_some())
    };
    let report = local.report(loaded).await;
    let medium = report.libraries[0].drives[0].state.clone().unwrap().medium.unwrap();
    assert_eq!(medium.barcode.unwrap().to_string(), "PTA001L8");
    let catalogue = &engine.ground().catalogue;
    let row = catalogue.libraries().unwrap().remove(0);
    assert_eq!((row.name.as_str(), row.state.as_str()), ("ptl0", "ready"));
    let devices = catalogue.devices(&row.site, &row.name).unwrap();
    assert!(devices[1].state.starts_with("loaded PTA001L8"), "{devices:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_one_holder_and_only_an_allowed_one() {
    let site = Site::new("8MB", "1MB");
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    let mut first = local.open("ptl0/drive0").await;
    for (device, why) in [
        ("ptl0/drive0", link::RefusalWhy::Busy),
        ("ptl0/drive7", link::RefusalWhy::NoSuchDevice),
        ("other/drive0", link::RefusalWhy::NotAllowed),
    ] {
        let id = model::LeaseId::generate(1);
        let (mut client, request) = link::LeaseClient::open(id, device.parse().unwrap(), true);
        local.send(Message::Lease(request)).await;
        match local.event(&mut client).await {
            ClientEvent::Refused(refusal) => assert_eq!(refusal.why, why, "{device}"),
            other => panic!("{device}: {other:?}"),
        }
    }
    let used = local.report(|report| report.libraries[0].drives[0].in_use).await;
    assert!(!used.libraries[0].drives[1].in_use);
    assert_eq!(local.work(&mut first, Work::Close).await, Answer::Closed);
    local.report(|report| !report.libraries[0].drives[0].in_use).await;
    local.open("ptl0/drive0").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_twice_is_done_once() {
    let site = Site::new("8MB", "1MB");
    let engine = site.start().await;
    let run = run_id();
    let mut local = site.connect(&engine, run).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    // A new initiator finds 06/29/00 with its first real operation, and once.
    local.attention(&mut drive, Operation::State).await;
    assert_eq!(local.position(&mut drive).await, 0);
    for byte in 1..=3 {
        let written = local.operate(&mut drive, record(byte)).await;
        assert_eq!(written, Ok(Outcome::Written(WriteEnd::Written)));
    }
    // The answer is lost with the connection; a newer pair takes over.
    local.submit(&mut drive, Work::Operation(record(4))).await;
    let mut local = site.connect(&engine, run).await;
    let again = local.resume(&mut drive).await;
    assert_eq!(again, Some(Answer::Outcome(Outcome::Written(WriteEnd::Written))));
    assert_eq!(local.position(&mut drive).await, 4);
    assert_eq!(local.operate(&mut drive, Operation::Rewind).await, Ok(Outcome::Done));
    for byte in 1..=4 {
        let Ok(Outcome::Read(end, data)) = local.operate(&mut drive, Operation::Read(4096)).await
        else {
            panic!("record {byte} can not be read")
        };
        assert_eq!((end, data), (ReadEnd::Record { length: 1000 }, vec![byte; 1000].into()));
    }
    let end = local.operate(&mut drive, Operation::Read(4096)).await;
    assert_eq!(end, Ok(Outcome::Read(ReadEnd::EndOfData, Bytes::new())));
    assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_answers_from_the_record_and_shows_the_reset() {
    let site = Site::new("8MB", "1MB");
    let run = run_id();
    let engine = site.start().await;
    let mut local = site.connect(&engine, run).await;
    local.change(&[(1024, 128)]).await;
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    local.operate(&mut drive, Operation::Rewind).await.unwrap();
    local.operate(&mut drive, record(1)).await.unwrap();
    // Executed and recorded, but never heard of.
    local.submit(&mut drive, Work::Operation(Operation::WriteFilemarks(1))).await;
    local.lose_answer().await;
    engine.abandon().await;

    let engine = site.start().await;
    let mut local = site.connect(&engine, run).await;
    let again = local.resume(&mut drive).await;
    assert_eq!(again, Some(Answer::Outcome(Outcome::Written(WriteEnd::Written))));
    // Nothing was at stake any more, so the drive's own attention is the answer.
    local.attention(&mut drive, Operation::Position).await;
    assert_eq!(local.position(&mut drive).await, 0);
    for expected in [ReadEnd::Record { length: 1000 }, ReadEnd::Filemark, ReadEnd::EndOfData] {
        match local.operate(&mut drive, Operation::Read(4096)).await {
            Ok(Outcome::Read(end, _)) => assert_eq!(end, expected),
            other => panic!("{other:?}"),
        }
    }

    // With records in the buffer a restart is the end of the copy, never a repetition.
    local.operate(&mut drive, Operation::Rewind).await.unwrap();
    local.operate(&mut drive, record(2)).await.unwrap();
    engine.abandon().await;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run).await;
    assert_eq!(local.resume(&mut drive).await, None);
    let lost = local.operate(&mut drive, record(3)).await;
    assert!(matches!(lost, Err(TapeError::PositionUnknown(_))), "{lost:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_ends_and_frees_the_drive() {
    let mut site = Site::new("8MB", "1MB");
    site.config.link.lease_seconds = 1;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    let mut drive = local.open("ptl0/drive1").await;
    assert_eq!(
        local.event(&mut drive).await,
        ClientEvent::Ended { why: EndReason::Expired, unanswered: None }
    );
    local.report(|report| !report.libraries[0].drives[1].in_use).await;
    local.open("ptl0/drive1").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_run_of_the_peer_ends_the_leases_of_the_old_one() {
    let site = Site::new("8MB", "1MB");
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    let mut old = local.open("ptl0/drive0").await;
    let mut local = site.connect(&engine, run_id()).await;
    let why = EndReason::PeerRestarted;
    assert_eq!(local.event(&mut old).await, ClientEvent::Ended { why, unanswered: None });
    local.report(|report| !report.libraries[0].drives[0].in_use).await;
    local.open("ptl0/drive0").await;
    engine.stop().await;
}
