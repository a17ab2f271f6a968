//! Taking cartridges out of libraries and bringing them in.

use std::time::Duration;

use clap::Subcommand;
use model::{Barcode, LibraryName};
use serde_json::json;

use crate::catalogue::open;
use crate::cli::{Failed, Which, cartridge};
use crate::output::{Output, or_dash, table};
use crate::status::ask_within;

/// How long an arm may take to move all that lies in a station.
const ARM: Duration = Duration::from_secs(4 * 3600);

/// What is done with the import/export station of a library.
#[derive(Debug, Subcommand)]
pub(crate) enum LibraryCommand {
    /// Bring a cartridge from its slot to the import/export station.
    Export {
        #[command(flatten)]
        which: Which,
        /// The cartridge: LIBRARY:BARCODE.
        #[arg(value_name = "LIBRARY:BARCODE", value_parser = cartridge)]
        cartridge: (LibraryName, Barcode),
    },
    /// Bring what lies in the import/export station into slots.
    Import {
        #[command(flatten)]
        which: Which,
        /// The library.
        #[arg(value_parser = library)]
        library: LibraryName,
        /// Only this cartridge.
        #[arg(value_parser = barcode)]
        barcode: Option<Barcode>,
    },
    /// List the cartridges that were exported, and whether they were taken away.
    Outside {
        #[command(flatten)]
        which: Which,
    },
}

fn library(text: &str) -> Result<LibraryName, String> {
    LibraryName::new(text).map_err(|error| error.to_string())
}

fn barcode(text: &str) -> Result<Barcode, String> {
    Barcode::new(text).map_err(|error| error.to_string())
}

/// Does it.
pub(crate) fn run(command: &LibraryCommand, output: &Output) -> Result<(), Failed> {
    let moved = match command {
        LibraryCommand::Export { which, cartridge: (library, barcode) } => ask_within(
            ARM,
            which,
            "library_export",
            json!({ "library": library, "barcode": barcode }),
        )?,
        LibraryCommand::Import { which, library, barcode } => ask_within(
            ARM,
            which,
            "library_import",
            json!({ "library": library, "barcode": barcode }),
        )?,
        LibraryCommand::Outside { which } => return outside(which, output),
    };
    output.show(&moved, |moved| {
        let row = |it: &serde_json::Value| {
            let text = |key| or_dash(it.get(key).filter(|it| !it.is_null()).map(plain));
            [text("barcode"), text("from"), text("to")]
        };
        let rows = moved.as_array().map(|all| all.iter().map(row).collect());
        table(["barcode", "from", "to"], rows.unwrap_or_default())
    })
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn outside(which: &Which, output: &Output) -> Result<(), Failed> {
    let (_, catalogue) = open(which)?;
    let all = catalogue.outside().map_err(Failed::new)?;
    output.show(&all, |all| {
        let row =
            |it: &svs::Outside| [it.medium.to_string(), it.place.to_string(), it.since.clone()];
        table(["medium", "place", "since"], all.iter().map(row).collect())
    })
}
