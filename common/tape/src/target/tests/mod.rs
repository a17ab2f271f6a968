//! Drives and libraries over media in memory, through both faces.

mod drive;
mod library;
mod model;
mod pages;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::model::Barcode;
use scsi::{Cdb, Sense};

use super::*;
use crate::{Control, DeviceIdentity};

type Drive = TargetDrive<MemoryMedium>;

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn barcode(text: &str) -> Barcode {
    Barcode::new(text).unwrap()
}

fn identity(serial: &str) -> DeviceIdentity {
    DeviceIdentity {
        vendor: "TWINREEL".into(),
        product: "ULTRIUM-TD8".into(),
        revision: "0001".into(),
        serial: serial.into(),
    }
}

fn drive_spec(index: u16) -> DriveSpec {
    DriveSpec {
        index,
        identity: identity(&format!("TESTDRIVE{index}")),
        early_warning: Some(100),
        power_on_attention: false,
    }
}

/// A loaded drive and its shelf; the cartridge is `T00001L8`.
fn loaded(capacity: u64) -> (Drive, MemoryShelf) {
    let shelf = MemoryShelf::new();
    shelf.add(&barcode("T00001L8"), capacity);
    let mut drive = TargetDrive::new(drive_spec(0), Arc::new(shelf.clone()));
    drive.insert(&barcode("T00001L8")).unwrap();
    (drive, shelf)
}

/// What a command without data-out came to: status, sense, data.
#[derive(Debug, PartialEq)]
struct Ended {
    status: u8,
    sense: Option<Sense>,
    data: Vec<u8>,
    residual: i64,
}

impl Ended {
    fn sense(&self) -> Sense {
        assert_eq!(self.status, 2, "{self:?}");
        self.sense.unwrap()
    }
}

/// Executes a command with room for `room` bytes.
fn ask(drive: &mut Drive, cdb: Cdb, room: usize) -> Ended {
    raw(drive, 1, &cdb.encode(), room)
}

fn raw(drive: &mut Drive, nexus: u64, cdb: &[u8], room: usize) -> Ended {
    let mut data = vec![0xee; room];
    let transfer = if room == 0 { Transfer::None } else { Transfer::In(&mut data) };
    let answer = drive.execute_cdb(nexus, cdb, transfer, &control()).unwrap();
    data.truncate(answer.moved);
    Ended { status: answer.status, sense: answer.sense, data, residual: answer.residual }
}

fn send(drive: &mut Drive, cdb: Cdb, data: &[u8]) -> Answer {
    drive.execute_cdb(1, &cdb.encode(), Transfer::Out(data), &control()).unwrap()
}

fn write(drive: &mut Drive, record: &[u8]) -> Answer {
    send(drive, Cdb::Write { fixed: false, length: record.len() as u32 }, record)
}

fn good(drive: &mut Drive, cdb: Cdb) {
    let ended = ask(drive, cdb, 0);
    assert_eq!((ended.status, ended.sense), (0, None), "{cdb:?}");
}

fn rewind(drive: &mut Drive) {
    good(drive, Cdb::Rewind { immediate: false });
}

fn filemarks(drive: &mut Drive, count: u32) {
    good(drive, Cdb::WriteFilemarks { immediate: false, count });
}

fn shared(drive: Drive) -> Arc<Mutex<Drive>> {
    Arc::new(Mutex::new(drive))
}
