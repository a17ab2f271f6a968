//! The embedded library behind an iSCSI port of 127.0.0.1, for clients of others: over the target
//! of `tests/iscsi`, without its trouble. Prints its portal and its name, and runs until killed.
//!
//! ```text
//! iscsi_target DIRECTORY        where the library keeps its files
//! ```

// What the tests do with it beyond that is not used here.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/iscsi/target.rs"]
mod target;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use model::CartridgeSet;
use tape::file::{FileLibrary, FileLibrarySpec};
use target::{Manners, NAME};

fn open(directory: &str) -> Result<FileLibrary, String> {
    let cartridges = CartridgeSet { prefix: "PTA".into(), count: 4 };
    let spec = FileLibrarySpec {
        name: "ptl0".into(),
        drives: 2,
        slots: 6,
        import_export: 1,
        capacity: 64 << 20,
        early_warning: None,
        barcodes: cartridges.barcodes().map_err(|error| error.to_string())?,
    };
    let opened = FileLibrary::open(Arc::new(vfs::RealVfs), Path::new(directory), &spec);
    opened.map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let library = match words.as_slice() {
        [directory] => open(directory),
        _ => Err("iscsi_target DIRECTORY".to_owned()),
    };
    let library = match library {
        Ok(library) => library,
        Err(error) => {
            eprintln!("iscsi_target: {error}");
            return ExitCode::from(2);
        }
    };
    let long = 256 << 10;
    let manners = Manners { segment: long, first_burst: long, burst: long, ..Manners::default() };
    let (address, _shared) = target::listen(manners, Arc::clone(library.library()));
    println!("{address} {NAME}");
    loop {
        std::thread::park();
    }
}
