//! Runs the list of SCSI vectors against devices of others.
//!
//! ```text
//! vectors PEER DRIVE [CHANGER]                compares with the list; PEER names a device of it
//! vectors --differences                       the table of differences, for the book
//! vectors --inject CONTROL DRIVE              every row of the sense table, injected by scsi_debug
//! ```
//!
//! A device is `/dev/sgN` or `iscsi://HOST:PORT/IQN/LUN`. What is on the tape is lost.

#[path = "../tests/vectors/inject.rs"]
mod inject;
#[path = "../tests/vectors/list.rs"]
mod list;
#[path = "../tests/vectors/run.rs"]
mod run;

use std::process::ExitCode;
use std::time::Duration;

use list::{List, Peer};
use run::Device;
use tape::Control;
use tape::driver::{IscsiOptions, ScsiChanger, ScsiDrive, ScsiTransport};
use tape::physical::Address;

const TEXT: &str = include_str!("../tests/vectors/vectors.txt");

fn way(text: &str) -> Result<Box<dyn ScsiTransport>, String> {
    let address: Address = text.parse().map_err(|error| format!("{error}"))?;
    let options = IscsiOptions {
        initiator: "iqn.2026-01.local.twinreel:vectors".to_owned(),
        credentials: None,
        digests: iscsi::Digests { header: true, data: true },
    };
    address.transport(&options).map_err(|error| error.to_string())
}

fn compare(name: &str, drive: &str, changer: Option<&String>) -> Result<bool, String> {
    let list = List::parse(TEXT)?;
    let control = Control::within(Duration::from_secs(60));
    let text = |error: tape::TapeError| error.to_string();
    let drive = ScsiDrive::open(way(drive)?, &control).map_err(text)?;
    let changer = match changer {
        Some(changer) => Some(ScsiChanger::open(way(changer)?, &control).map_err(text)?),
        None => None,
    };
    let peer = list.peers.iter().find(|peer| peer.name == name).cloned();
    let peer = peer.unwrap_or(Peer { name: name.to_owned(), ..Peer::default() });
    let failed = Device { drive, changer, peer }.run(&list);
    for text in &failed {
        println!("FAILED: {name}: {text}");
    }
    println!("{name}: {} answers of {} cases differ from the list", failed.len(), list.cases.len());
    Ok(failed.is_empty())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--differences"] => List::parse(TEXT).map(|list| {
            list.differences().iter().for_each(|row| println!("{row}"));
            true
        }),
        ["--inject", control, drive] => way(drive).and_then(|way| inject::run(way, control)),
        [name, drive] => compare(name, drive, None),
        [name, drive, _] => compare(name, drive, words.get(2)),
        _ => Err("vectors PEER DRIVE [CHANGER], --differences, or --inject CONTROL DRIVE".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vectors: {error}");
            ExitCode::from(2)
        }
    }
}
