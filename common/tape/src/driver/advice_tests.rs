//! Every row of the sense table, injected into a drive that is driven by its CDBs: what the driver
//! does of its own accord, and what it leaves to its caller.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Barcode;
use scsi::Sense;
use scsi::advice::{Action, Advice, Mark, TABLE};

use super::{LocalTransport, ScsiDrive};
use crate::target::{
    DriveSpec, FaultAction, FaultOperation, FaultPlan, FaultRule, MemoryShelf, TapeObject,
    TargetDrive,
};
use crate::{Control, DeviceIdentity, TapeDrive, TapeError, WriteEnd};

/// What the driver says of a write whose first attempt meets the sense data, and how often the
/// record is on tape then.
fn write_meeting(sense: Sense) -> (Result<WriteEnd, TapeError>, usize) {
    let control = Control::within(Duration::from_secs(30));
    let barcode = Barcode::new("PTA001L8").unwrap();
    let shelf = MemoryShelf::new();
    shelf.add(&barcode, 1 << 20);
    let identity = DeviceIdentity { serial: "S1".into(), ..DeviceIdentity::default() };
    let spec = DriveSpec { index: 0, identity, early_warning: None, power_on_attention: false };
    let mut drive = TargetDrive::new(spec, Arc::new(shelf.clone()));
    drive.insert(&barcode).unwrap();
    let drive = Arc::new(Mutex::new(drive));
    let mut driven =
        ScsiDrive::open(LocalTransport::drive(Arc::clone(&drive), 7), &control).unwrap();
    driven.set_poll(Duration::from_millis(1));
    driven.ready(&control).unwrap();
    driven.position(&control).unwrap();
    let rule = FaultRule {
        device: None,
        operation: FaultOperation::Write,
        first: 1,
        last: 1,
        action: FaultAction::Sense(sense),
    };
    drive.lock().unwrap().set_faults(&FaultPlan { rules: vec![rule] });
    let end = driven.write(b"record", &control);
    let record = TapeObject::Record(b"record".to_vec());
    let written = shelf.tape(&barcode).unwrap().objects.iter().filter(|it| **it == record).count();
    (end, written)
}

/// Sense data of which this row speaks and no earlier one.
fn example(row: &Advice) -> Sense {
    let sense = Sense {
        filemark: row.mark == Mark::Filemark,
        eom: row.mark == Mark::EndOfMedium,
        ili: row.mark == Mark::Length,
        deferred: row.mark == Mark::Deferred,
        ..Sense::new(row.key, row.asc.0, row.ascq.0)
    };
    let codes = (row.asc.0..=row.asc.1)
        .flat_map(|asc| (row.ascq.0..=row.ascq.1).map(move |ascq| (asc, ascq)));
    let found = codes.map(|(asc, ascq)| Sense { asc, ascq, ..sense });
    found.into_iter().find(|sense| std::ptr::eq(sense.advice(), row)).unwrap()
}

#[test]
fn every_row_of_the_sense_table_is_met_by_the_driver() {
    for row in TABLE {
        let sense = example(row);
        let (end, written) = write_meeting(sense);
        let told = Err(TapeError::Check(sense));
        let expected = match (row.key, row.action) {
            // It waits by itself, and sends it again.
            (_, Action::Wait(_)) => (Ok(WriteEnd::Written), 1),
            // Whether it was done is found out by the position: it was not, and is done once.
            (0x0b, _) => (Ok(WriteEnd::Written), 1),
            _ if sense.deferred => (told, 0),
            // The drive says that it was done. (This one lies: nothing was written.)
            (0x00 | 0x01, _) if sense.eom => (Ok(WriteEnd::EarlyWarning), 0),
            (0x00 | 0x01, _) => (Ok(WriteEnd::Written), 0),
            (0x0d, _) => (Ok(WriteEnd::Overflow), 0),
            // Everything else is for who asked, who has the advice.
            _ => (told, 0),
        };
        assert_eq!((end, written), expected, "{row:?}");
    }
}
