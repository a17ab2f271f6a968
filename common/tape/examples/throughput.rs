//! Writes records to a tape through the SCSI driver, and reads them back: MB/s of each.
//!
//! ```text
//! throughput DEVICE MEGABYTES RECORD        DEVICE: /dev/sgN or iscsi://HOST:PORT/IQN/LUN, loaded
//! throughput --embedded DIR MEGABYTES RECORD
//! ```
//!
//! What is on the tape is lost. `tests/peers/tape_speed` runs it beside other programs.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::CartridgeSet;
use tape::driver::{IscsiOptions, ScsiDrive};
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::physical::{Address, AnyDrive, PhysicalLibrary};
use tape::{Control, MediumChanger, ReadEnd, TapeDrive, TapeError, WriteEnd};

/// Room for filemarks and early warning.
const SLACK: u64 = 64 << 20;

fn control() -> Control {
    Control::within(Duration::from_secs(3600))
}

fn opened(device: &str) -> Result<AnyDrive, String> {
    let address: Address = device.parse().map_err(|error| format!("{error}"))?;
    let options = IscsiOptions {
        initiator: "iqn.2026-01.local.twinreel:throughput".to_owned(),
        credentials: None,
        digests: iscsi::Digests { header: false, data: false },
    };
    let way = address.transport(&options).map_err(|error| error.to_string())?;
    ScsiDrive::open(way, &control()).map_err(|error| error.to_string())
}

/// The embedded library in a directory, and its first drive with a tape in it.
fn embedded(dir: &Path, bytes: u64) -> Result<(FileLibrary, AnyDrive), String> {
    let set = CartridgeSet { prefix: "SPD".to_owned(), count: 1 };
    let spec = FileLibrarySpec {
        name: "speed".to_owned(),
        drives: 1,
        slots: 1,
        import_export: 0,
        capacity: bytes * 2 + SLACK,
        early_warning: None,
        barcodes: set.barcodes().map_err(|error| error.to_string())?,
    };
    let library = FileLibrary::open(Arc::new(vfs::RealVfs), dir, &spec);
    let library = library.map_err(|error| error.to_string())?;
    let text = |error: TapeError| error.to_string();
    let mut changer = library.open_changer(1, &control()).map_err(text)?;
    let inventory = changer.inventory(&control()).map_err(text)?;
    let place = |kind| inventory.map.range(kind).0;
    let (slot, bay) = (place(model::ElementType::Storage), place(model::ElementType::DataTransfer));
    changer.move_medium(slot, bay, &control()).map_err(text)?;
    let drive = library.open_drive(0, 1, &control()).map_err(text)?;
    Ok((library, drive))
}

/// MB/s of writing with a filemark behind it, and of reading.
fn measure(drive: &mut AnyDrive, bytes: u64, record: usize) -> Result<(f64, f64), TapeError> {
    drive.ready(&control())?;
    drive.rewind(&control())?;
    let mut data = vec![0; record];
    let mut state = 1u64;
    for word in data.chunks_exact_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
    let (records, began) = (bytes / record as u64, Instant::now());
    for _ in 0..records {
        if drive.write(&data, &control())? == WriteEnd::Overflow {
            return Err(TapeError::Check(scsi::Sense::VOLUME_OVERFLOW));
        }
    }
    drive.write_filemarks(1, &control())?;
    let written = began.elapsed();
    drive.rewind(&control())?;
    let (mut found, began) = (0, Instant::now());
    while let ReadEnd::Record { .. } = drive.read(&mut data, &control())? {
        found += 1;
    }
    if found != records {
        return Err(TapeError::PositionUnknown(format!("{found} records of {records}")));
    }
    let speed = |time: Duration| (records * record as u64) as f64 / 1e6 / time.as_secs_f64();
    Ok((speed(written), speed(began.elapsed())))
}

fn run(words: &[String]) -> Result<(f64, f64), String> {
    let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let text = |error: TapeError| error.to_string();
    match words {
        [flag, dir, megabytes, record] if flag == "--embedded" => {
            let (bytes, record) = (number(megabytes)? * 1_000_000, number(record)? as usize);
            let (_library, mut drive) = embedded(Path::new(dir), bytes)?;
            measure(&mut drive, bytes, record).map_err(text)
        }
        [device, megabytes, record] => {
            let (bytes, record) = (number(megabytes)? * 1_000_000, number(record)? as usize);
            measure(&mut opened(device)?, bytes, record).map_err(text)
        }
        _ => Err("throughput DEVICE MEGABYTES RECORD, or --embedded DIR MEGABYTES RECORD".into()),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok((write, read)) => {
            println!("{write:.1} {read:.1}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}
