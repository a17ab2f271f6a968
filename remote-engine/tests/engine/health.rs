//! What a drive says of itself is acted upon: it is cleaned, taken out of use, or its cartridge is
//! written on no more.

use link::{Answer, Work};
use model::CartridgeSet;
use remote_engine::engine::Running;
use scsi::Sense;
use service::config::Backend;
use svs::{Condition, EventFilter, Health};
use tape::{CdbRequest, Completion, Operation, Outcome, TapeError, WriteEnd};

use super::support::{Local, PATIENCE, Site, run_id};

const SLOT: u16 = 1024;
const DRIVE: u16 = 128;

/// A library of three tapes and a cleaning cartridge in the fourth slot.
async fn site() -> Site {
    let mut site = Site::new("8MB", "1MB");
    for (prefix, count) in [("PTA", 3), ("CLN", 1)] {
        let Backend::File(file) = &mut site.config.physical_libraries[0].backend else { panic!() };
        file.cartridges = Some(CartridgeSet { prefix: prefix.into(), count });
        site.start().await.stop().await;
    }
    site
}

fn plan(site: &Site, faults: &str) {
    let path = &site.config.physical_libraries[0].file().unwrap().path;
    std::fs::write(path.join("faults"), faults).unwrap();
}

/// Writes a record while a flag is raised, and lets the drive go.
async fn raise(site: &Site, local: &mut Local, flag: u16) {
    local.change(&[(SLOT, DRIVE)]).await;
    plan(site, &format!("drive0 write 1 alert {flag}\n"));
    let mut drive = local.open("ptl0/drive0").await;
    local.attention(&mut drive, Operation::Rewind).await;
    let record = bytes::Bytes::from_static(b"record");
    let written = local.operate(&mut drive, Operation::Write(record)).await;
    assert_eq!(written, Ok(Outcome::Written(WriteEnd::Written)));
    assert_eq!(local.work(&mut drive, Work::Close).await, Answer::Closed);
    plan(site, "");
}

fn health(engine: &Running, subject: &str) -> Option<Health> {
    let all = engine.ground().catalogue.health().unwrap();
    all.into_iter().find(|row| row.subject == subject)
}

fn messages(engine: &Running) -> Vec<String> {
    let events = engine.ground().catalogue.events(&EventFilter::default()).unwrap();
    events.into_iter().map(|event| event.message_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_asks_for_it_is_cleaned_once_it_is_empty() {
    let site = site().await;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    raise(&site, &mut local, 20).await;
    let row = health(&engine, "ptl0/drive0").unwrap();
    assert_eq!((row.condition, row.alerts.as_str()), (Condition::Clean, "20"));
    assert_eq!(row.bytes_written, Some(6));
    assert_eq!(health(&engine, "ptl0/PTA001L8").unwrap().loads, Some(1));
    // Not while a tape is in it.
    local.change(&[(DRIVE, SLOT)]).await;
    engine.ground().reporter.poke();
    let until = std::time::Instant::now() + PATIENCE;
    while health(&engine, "ptl0/drive0").unwrap().condition != Condition::Ok {
        assert!(std::time::Instant::now() < until, "{:?}", messages(&engine));
        tokio::task::yield_now().await;
    }
    // The cleaning cartridge is back, and the drive is anybody's.
    let report = local.report(|report| {
        let full = |at| report.libraries[0].inventory.elements.iter().find(|it| it.address == at);
        full(SLOT + 3).is_some_and(|it| it.full) && full(DRIVE).is_some_and(|it| !it.full)
    });
    report.await;
    while let Some(why) = engine.ground().health.refuses(&"ptl0/drive0".parse().unwrap()) {
        assert!(std::time::Instant::now() < until, "{why}");
        tokio::task::yield_now().await;
    }
    assert!(messages(&engine).iter().any(|id| id == "TWR-6023-I"));
    local.change(&[(SLOT, DRIVE)]).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_with_a_fault_is_not_opened_until_somebody_says_so() {
    let site = site().await;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    raise(&site, &mut local, 31).await;
    assert_eq!(health(&engine, "ptl0/drive0").unwrap().condition, Condition::Down);
    let seen = local.report(|report| report.libraries[0].drives[0].down.is_some()).await;
    let why = seen.libraries[0].drives[0].down.clone().unwrap();
    assert!(why.contains("hardware fault"), "{why}");
    assert_eq!(seen.libraries[0].drives[1].down, None);
    assert!(messages(&engine).iter().any(|id| id == "TWR-6021-E"));
    drop(local);
    engine.stop().await;
    // Nor by the next run.
    let engine = site.start().await;
    let why = engine.ground().health.refuses(&"ptl0/drive0".parse().unwrap()).unwrap();
    assert!(why.contains("hardware fault"), "{why}");
    let mut local = site.connect(&engine, run_id()).await;
    let refused = local.refused("ptl0/drive0").await;
    assert!(refused.contains("hardware fault"), "{refused}");
    assert!(!engine.ground().health.clear("ptl0/drive7"));
    assert!(engine.ground().health.clear("ptl0/drive0"));
    local.report(|report| report.libraries[0].drives[0].down.is_none()).await;
    local.open("ptl0/drive0").await;
    engine.ground().health.take_down(&"ptl0/drive1".parse().unwrap(), "it makes a noise");
    let seen = local.report(|report| report.libraries[0].drives[1].down.is_some()).await;
    assert!(seen.libraries[0].drives[1].down.as_ref().unwrap().contains("noise"));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cartridge_at_its_end_is_read_and_not_written() {
    let site = site().await;
    let engine = site.start().await;
    let mut local = site.connect(&engine, run_id()).await;
    raise(&site, &mut local, 7).await;
    assert_eq!(health(&engine, "ptl0/PTA001L8").unwrap().condition, Condition::Frozen);
    assert_eq!(health(&engine, "ptl0/drive0").unwrap().condition, Condition::Ok);
    let seen = local.report(|report| !report.libraries[0].frozen.is_empty()).await;
    assert_eq!(seen.libraries[0].frozen[0].0.as_str(), "PTA001L8");
    let mut drive = local.open("ptl0/drive0").await;
    local.operate(&mut drive, Operation::Rewind).await.unwrap();
    let read = local.operate(&mut drive, Operation::Read(100)).await;
    assert!(matches!(read, Ok(Outcome::Read(..))), "{read:?}");
    let record = bytes::Bytes::from_static(b"another");
    let refused = local.operate(&mut drive, Operation::Write(record.clone())).await;
    assert_eq!(refused, Err(TapeError::Check(Sense::WRITE_PROTECTED)));
    // Nor by filemarks, nor by a command that is passed through. A flush is none.
    let refused = local.operate(&mut drive, Operation::WriteFilemarks(1)).await;
    assert_eq!(refused, Err(TapeError::Check(Sense::WRITE_PROTECTED)));
    let cdb = vec![0x0a, 0, 0, 0, record.len() as u8, 0];
    let timeout = std::time::Duration::from_secs(60);
    let request = CdbRequest { cdb, data_out: record, data_in_max: 0, timeout };
    let refused = local.operate(&mut drive, Operation::Cdb(request)).await;
    assert_eq!(refused, Ok(Outcome::Completion(Completion::check(Sense::WRITE_PROTECTED))));
    let flushed = local.operate(&mut drive, Operation::WriteFilemarks(0)).await;
    assert_eq!(flushed, Ok(Outcome::Written(WriteEnd::Written)));
    engine.stop().await;
}
