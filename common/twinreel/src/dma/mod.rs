//! `twinreel dma`: a small backup application of our own, on the crate `dma`.

mod console;
mod copy;
mod login;
mod place;
mod screen;
mod stream;

use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use dma::DmaError;
use dma::copy::{CopyPlan, What};
use model::{ByteSize, ElementType, LibraryName};
use ndmp::wire::{AddrType, ErrorCode};
use scsi::ElementDescriptor;
use serde_json::{Value, json};

pub(crate) use console::Console;
pub(crate) use copy::{Copied, CopiedTape, copy};
pub(crate) use login::{Server, login_of};
pub(crate) use place::Place;
pub(crate) use screen::Screen;
pub(crate) use stream::{backup, restore};

use crate::cli::Failed;
use crate::output::{Output, or_dash, table};

/// What `twinreel dma` does.
#[derive(Debug, Subcommand)]
pub(crate) enum DmaCommand {
    /// Copy a tape to other tapes, from mover to mover; the next one follows when one is full.
    Copy(CopyArguments),
    /// List the elements of a library with their cartridges.
    Inventory {
        #[command(flatten)]
        server: Server,
        /// The library.
        #[arg(value_parser = LibraryName::new)]
        library: LibraryName,
    },
    /// Write a file to tape, behind a label. Overwrites the tapes.
    Backup {
        #[command(flatten)]
        server: Server,
        /// The file, or - for standard input.
        file: PathBuf,
        /// LIBRARY:BARCODE[,BARCODE...] or LIBRARY/driveN.
        #[arg(long, value_name = "PLACE")]
        target: Place,
        /// Bytes of a record on tape.
        #[arg(long, value_name = "SIZE", default_value = "256KiB")]
        record_size: ByteSize,
    },
    /// Read a file from tape.
    Restore {
        #[command(flatten)]
        server: Server,
        /// The file to make, or - for standard output.
        file: PathBuf,
        /// LIBRARY:BARCODE[,BARCODE...] or LIBRARY/driveN.
        #[arg(long, value_name = "PLACE")]
        source: Place,
    },
}

/// Cartridges that are not in a drive are put into a free one and taken back afterwards. The
/// target tapes are overwritten; one after another they hold what the source holds, record for
/// record.
#[derive(Debug, Args)]
pub(crate) struct CopyArguments {
    #[command(flatten)]
    server: Server,
    /// The tape to read: LIBRARY:BARCODE or LIBRARY/driveN.
    #[arg(long, value_name = "PLACE")]
    source: Place,
    /// The tapes to write: LIBRARY:BARCODE[,BARCODE...] or LIBRARY/driveN.
    #[arg(long, value_name = "PLACE")]
    target: Place,
    /// Bytes of a record on the source [default: those of the first record of each file].
    #[arg(long, value_name = "SIZE")]
    record_size: Option<ByteSize>,
    /// Bytes of a record on the target [default: the same].
    #[arg(long, value_name = "SIZE")]
    target_record_size: Option<ByteSize>,
    /// Records at the beginning of each file that are copied one by one, as labels and headers are.
    #[arg(long, value_name = "N", default_value_t = 1)]
    headers: u32,
    /// Copy every record by itself, without the movers: for files with records of many lengths.
    #[arg(long, conflicts_with_all = ["headers", "record_size", "target_record_size"])]
    record_by_record: bool,
    /// How the movers are joined.
    #[arg(long, value_enum, default_value_t = Join::Tcp)]
    join: Join,
    /// Minutes that nothing may move before the copy is given up.
    #[arg(long, value_name = "MINUTES", default_value_t = 360)]
    patience: u32,
}

/// How two movers are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Join {
    /// Over TCP.
    Tcp,
    /// Within one server.
    Local,
}

impl CopyArguments {
    fn plan(&self) -> Result<CopyPlan, Failed> {
        let size = |size: Option<ByteSize>| {
            let size = size.map(|size| u32::try_from(size.0)).transpose();
            size.map_err(|_| Failed::usage("a record has 1 byte to 2 MiB"))
        };
        let what = match self.record_by_record {
            true => What::RecordByRecord,
            false => What::Everything { headers: self.headers },
        };
        Ok(CopyPlan {
            what,
            record_size: size(self.record_size)?,
            target_record_size: size(self.target_record_size)?,
            window: None,
            addr_type: if self.join == Join::Tcp { AddrType::Tcp } else { AddrType::Local },
            patience: Duration::from_secs(60 * u64::from(self.patience)),
        })
    }
}

/// What the caller asked for wrongly is told apart from what failed.
fn failed(error: DmaError) -> Failed {
    let named = matches!(error.code(), Some(ErrorCode::NoDevice | ErrorCode::NoTapeLoaded));
    match error {
        DmaError::NotOpened { .. } if named => Failed::usage(error),
        DmaError::Invalid(_)
        | DmaError::NotAuthorized
        | DmaError::VersionRefused { .. }
        | DmaError::NotInVersion(..) => Failed::usage(error),
        error => Failed::new(error),
    }
}

pub(crate) fn run(command: DmaCommand, output: &Output) -> Result<(), Failed> {
    match command {
        DmaCommand::Copy(arguments) => run_copy(&arguments, output),
        DmaCommand::Inventory { server, library } => {
            let elements = server.console()?.inventory(&library).map_err(failed)?;
            let elements: Vec<_> = elements.iter().map(element).collect();
            output.show(&elements, |elements| element_table(elements))
        }
        DmaCommand::Backup { server, file, target, record_size } => {
            let console = server.console()?;
            let size = u32::try_from(record_size.0).ok().filter(|size| *size > 0);
            let size = size.ok_or_else(|| Failed::usage("a record has 1 byte to 2 MiB"))?;
            let (reader, length) = input(&file)?;
            let screen = Screen::new(&format!("backup to {target}"), length);
            let mut reader = screen.bar().wrap_read(reader);
            let begun = Instant::now();
            let bytes = backup(&console, &target, size, &mut reader).map_err(failed)?;
            drop(screen.close());
            moved(output, "written to", &target, bytes, begun)
        }
        DmaCommand::Restore { server, file, source } => {
            let console = server.console()?;
            let screen = Screen::new(&format!("restore from {source}"), None);
            let begun = Instant::now();
            let mut writer = screen.bar().wrap_write(sink(&file)?);
            let bytes = restore(&console, &source, &mut writer).map_err(failed)?;
            drop(screen.close());
            if is_standard(&file) {
                // Standard output is the stream itself.
                return Ok(());
            }
            moved(output, "read from", &source, bytes, begun)
        }
    }
}

fn run_copy(arguments: &CopyArguments, output: &Output) -> Result<(), Failed> {
    let console = arguments.server.console()?;
    let (source, target) = (&arguments.source, &arguments.target);
    if source.media().len() != 1 {
        return Err(Failed::usage("--source: one tape at a time"));
    }
    if source == target {
        return Err(Failed::usage("source and target are the same"));
    }
    let screen = Screen::new(&format!("{source} to {target}"), None);
    let plan = arguments.plan()?;
    let copied = copy(&console, source, target, &plan, screen).map_err(failed)?;
    output.show(&copied, copied_text)
}

fn copied_text(copied: &Copied) -> String {
    let row = |tape: &CopiedTape| {
        let rate = ByteSize((tape.bytes as f64 / tape.seconds.max(1e-3)) as u64);
        let seconds = format!("{:.1}", tape.seconds);
        [tape.target.clone(), ByteSize(tape.bytes).to_string(), seconds, format!("{rate}/s")]
    };
    let rows = copied.tapes.iter().map(row).collect();
    format!(
        "{}\n{} copied: {} in {} files, {} records one by one, {} filemarks",
        table(["target", "bytes", "seconds", "rate"], rows),
        copied.source,
        ByteSize(copied.bytes),
        copied.parts,
        copied.records,
        copied.filemarks,
    )
}

fn moved(
    output: &Output,
    verb: &str,
    place: &Place,
    bytes: u64,
    begun: Instant,
) -> Result<(), Failed> {
    let seconds = begun.elapsed().as_secs_f64();
    let value = json!({ "place": place.to_string(), "bytes": bytes, "seconds": seconds });
    output.show(&value, |_| format!("{} {verb} {place} in {seconds:.1} s", ByteSize(bytes)))
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What is to be read, and how long it is if that is known.
fn input(file: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failed> {
    if is_standard(file) {
        return Ok((Box::new(stdin()), None));
    }
    let told = |error| Failed::usage(format!("{}: {error}", file.display()));
    let opened = File::open(file).map_err(told)?;
    let about = opened.metadata().map_err(told)?;
    Ok((Box::new(opened), about.is_file().then_some(about.len())))
}

fn sink(file: &Path) -> Result<Box<dyn Write + Send>, Failed> {
    if is_standard(file) {
        return Ok(Box::new(stdout()));
    }
    let made = File::create(file);
    let made = made.map_err(|error| Failed::usage(format!("{}: {error}", file.display())))?;
    Ok(Box::new(made))
}

fn kind(kind: ElementType) -> &'static str {
    match kind {
        ElementType::Transport => "transport",
        ElementType::Storage => "slot",
        ElementType::ImportExport => "import/export",
        ElementType::DataTransfer => "drive",
    }
}

fn element(element: &ElementDescriptor) -> Value {
    json!({
        "element": element.address,
        "kind": kind(element.kind),
        "full": element.full,
        "barcode": element.tag,
        "from": element.source,
    })
}

fn element_table(elements: &[Value]) -> String {
    let row = |it: &Value| {
        [
            it["element"].to_string(),
            it["kind"].as_str().unwrap_or_default().to_owned(),
            if it["full"] == true { "full" } else { "empty" }.to_owned(),
            or_dash(it["barcode"].as_str()),
            or_dash(it["from"].as_u64()),
        ]
    };
    let rows = elements.iter().map(row).collect();
    table(["element", "kind", "state", "barcode", "from"], rows)
}
