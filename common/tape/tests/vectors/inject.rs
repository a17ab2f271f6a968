//! Every row of the sense table through a real kernel: scsi_debug answers a WRITE with it, and the
//! driver does what the table says.

use std::fs;
use std::time::Duration;

use scsi::Sense;
use scsi::advice::{Action, Advice, Mark, TABLE};
use tape::driver::{ScsiDrive, ScsiTransport};
use tape::{Control, ReadEnd, TapeDrive, TapeError, WriteEnd};

const RECORD: &[u8] = &[7; 512];

/// Sense data of which this row speaks and no earlier one; `None` where the injection can not.
fn example(row: &Advice) -> Option<Sense> {
    // It sets no bits, and makes no deferred sense data.
    if row.mark != Mark::Any {
        return None;
    }
    let codes = (row.asc.0..=row.asc.1)
        .flat_map(|asc| (row.ascq.0..=row.ascq.1).map(move |ascq| (asc, ascq)));
    let mut found = codes.map(|(asc, ascq)| Sense::new(row.key, asc, ascq));
    found.find(|sense| std::ptr::eq(sense.advice(), row))
}

/// What a write has to come to that meets these sense data once, and how often the record is on
/// tape.
fn expected(row: &Advice, sense: Sense) -> (Result<WriteEnd, TapeError>, usize) {
    match (row.key, row.action) {
        (_, Action::Wait(_)) | (0x0b, _) => (Ok(WriteEnd::Written), 1),
        // The device says that it was done. (This one lies.)
        (0x00 | 0x01, _) => (Ok(WriteEnd::Written), 0),
        (0x0d, _) => (Ok(WriteEnd::Overflow), 0),
        _ => (Err(TapeError::Check(sense)), 0),
    }
}

/// How often the record is on the tape.
fn count(drive: &mut dyn TapeDrive, control: &Control) -> Result<usize, TapeError> {
    drive.rewind(control)?;
    let (mut buffer, mut found) = ([0; 512], 0);
    while drive.read(&mut buffer, control)? != ReadEnd::EndOfData {
        found += 1;
    }
    Ok(found)
}

/// Injects each row through the control file of a device. Whether all came to what they should.
///
/// # Errors
/// The control file can not be written, or the drive fails where nothing was injected.
pub(crate) fn run(way: Box<dyn ScsiTransport>, control_file: &str) -> Result<bool, String> {
    let control = Control::within(Duration::from_secs(600));
    let text = |error: TapeError| error.to_string();
    let mut drive = ScsiDrive::open(way, &control).map_err(text)?;
    drive.set_poll(Duration::from_millis(10));
    drive.ready(&control).map_err(text)?;
    let (mut met, mut wrong) = (0, 0);
    for row in TABLE {
        let Some(sense) = example(row) else { continue };
        drive.rewind(&control).map_err(text)?;
        // A filemark at the beginning takes away what an earlier row has left.
        drive.write_filemarks(0, &control).map_err(text)?;
        let rule = format!("2 -1 0x0a 0 0 2 {:#x} {:#x} {:#x}\n", sense.key, sense.asc, sense.ascq);
        fs::write(control_file, &rule).map_err(|error| format!("{control_file}: {error}"))?;
        drive.position(&control).map_err(text)?;
        let end = drive.write(RECORD, &control);
        // A rule that was not met would be met by the next row.
        let _ = fs::write(control_file, "- 2 0x0a\n");
        let left = if end.is_ok() { count(&mut drive, &control).map_err(text)? } else { 0 };
        met += 1;
        if (&end, left) != (&expected(row, sense).0, expected(row, sense).1) {
            wrong += 1;
            println!("FAILED: {sense} ({}): {end:?}, {left} records", row.meaning);
        }
    }
    println!("{met} rows of the sense table were injected, {wrong} came to something else");
    Ok(wrong == 0)
}
