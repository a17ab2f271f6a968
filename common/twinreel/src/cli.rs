//! Arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use model::{Barcode, LibraryName};
use service::cli::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use service::init::{InitOptions, init};

use crate::demo::{self, DemoArguments};
use crate::dma::{self, DmaCommand};
use crate::doctor::{self, DoctorCommand};
use crate::drive::{self, DriveCommand};
use crate::library::{self, LibraryCommand};
use crate::maps::{self, CopyCommand, MapCommand, MigrateCommand, PoolCommand};
use crate::output::Output;
use crate::queue::{self, QueueCommand};
use crate::seed::SeedCommand;
use crate::{catalogue, health, status};

/// Administer a pair of Twinreel engines.
#[derive(Debug, Parser)]
#[command(name = "twinreel", version, disable_help_subcommand = true)]
struct Arguments {
    /// Print JSON for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Which engine's catalogue is read.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The configuration file of the engine.
    #[arg(long, value_name = "FILE", default_value = "local.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole line on real files: two engines, backup, replication, copy, restore.
    Demo(DemoArguments),
    /// Write a certificate authority, certificates and working configurations for a pair.
    Init {
        /// The directory to make.
        dir: PathBuf,
        /// The port of NDMP on loopback.
        #[arg(long, default_value_t = 10000)]
        ndmp_port: u16,
        /// The port of the link on loopback.
        #[arg(long, default_value_t = 10001)]
        link_port: u16,
        /// Capacity of each virtual cartridge.
        #[arg(long, value_name = "SIZE", default_value = "100GiB")]
        virtual_capacity: String,
        /// Capacity of each physical cartridge.
        #[arg(long, value_name = "SIZE", default_value = "100GiB")]
        physical_capacity: String,
    },
    /// Show whether the engine runs, its store and its links.
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// List jobs.
    Jobs {
        #[command(flatten)]
        which: Which,
        /// Go on listing until interrupted.
        #[arg(long)]
        watch: bool,
        /// Only jobs that have not ended.
        #[arg(long)]
        active: bool,
    },
    /// List libraries and their devices, of both sites.
    Libraries {
        #[command(flatten)]
        which: Which,
    },
    /// List cartridges, their newest generation and where it is replicated.
    Cartridges {
        #[command(flatten)]
        which: Which,
    },
    /// List how the drives and cartridges of physical libraries are.
    Health {
        #[command(flatten)]
        which: Which,
        /// This drive or cartridge (LIBRARY/driveN, LIBRARY/BARCODE) is well again.
        #[arg(long, value_name = "SUBJECT")]
        clear: Option<String>,
    },
    /// Show who waits for drives, and who has them.
    #[command(args_conflicts_with_subcommands = true)]
    Queue {
        #[command(flatten)]
        which: Which,
        #[command(subcommand)]
        command: Option<QueueCommand>,
    },
    /// Take drives of physical libraries out of use, and bring them back.
    #[command(subcommand)]
    Drive(DriveCommand),
    /// Take cartridges out of a library, and bring them in.
    #[command(subcommand)]
    Library(LibraryCommand),
    /// Replicate the newest generation of a cartridge to every site, now.
    Replicate {
        #[command(flatten)]
        which: Which,
        /// The cartridge: LIBRARY:BARCODE.
        #[arg(value_name = "LIBRARY:BARCODE", value_parser = cartridge)]
        cartridge: (LibraryName, Barcode),
        /// Return when every site has it.
        #[arg(long)]
        wait: bool,
    },
    /// Look after the store of an engine.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Which backend stands behind a frontend drive, and the tapes it shows.
    #[command(subcommand)]
    Map(MapCommand),
    /// Which tape is copied to which, when, and whether the copy is current.
    #[command(subcommand)]
    Copy(CopyCommand),
    /// Which tape is moved where, and when.
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Tapes that copies and migrations may take as targets.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Keys for the data on tapes.
    #[command(subcommand)]
    Key(KeyCommand),
    /// A small backup application: inventory, backup, copy from tape to tape, restore.
    #[command(subcommand)]
    Dma(DmaCommand),
    /// Look at a server as an application does, and say what to do.
    #[command(subcommand)]
    Doctor(DoctorCommand),
    /// Run the engine of the backup site (`twinreel local-engine --help`).
    LocalEngine,
    /// Run the engine of the tape site (`twinreel remote-engine --help`).
    RemoteEngine,
}

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a file with a new random key, mode 0600. Keep a copy of it in a safe place: without it
    /// the tapes that it was used for can not be read by anybody.
    New {
        /// The file; it must not be there yet.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show by which identifier a key is named on tapes.
    Show {
        /// The file with the key.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What is done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Show how much is in it, how much room that takes, and how scattered it lies.
    Stat {
        #[command(flatten)]
        which: Which,
    },
    /// Read everything and compare it with its checksums, at the configured rate.
    Check {
        #[command(flatten)]
        which: Which,
    },
    /// Compare what was replicated with what the sites hold, through the local engine.
    Compare {
        #[command(flatten)]
        which: Which,
        /// Only with this site.
        #[arg(long, value_name = "NAME")]
        site: Option<String>,
        /// Only this cartridge.
        #[arg(long, value_name = "LIBRARY:BARCODE", value_parser = cartridge)]
        cartridge: Option<(LibraryName, Barcode)>,
        /// Read every chunk at both sites, at the configured rate, and not only look it up.
        #[arg(long)]
        read: bool,
    },
    /// Delete superseded generations and give back their space, now.
    Collect {
        #[command(flatten)]
        which: Which,
    },
    /// Write newest generations together anew where they lie scattered, now.
    Rewrite {
        #[command(flatten)]
        which: Which,
    },
    /// The key of a store that is encrypted.
    #[command(subcommand)]
    Key(StoreKeyCommand),
    /// A first replication on a disk that is shipped.
    #[command(subcommand)]
    Seed(SeedCommand),
    /// Keep everything on a cartridge until a date, whatever else is asked; or show until when.
    Lock {
        #[command(flatten)]
        which: Which,
        /// The cartridge: LIBRARY:BARCODE.
        #[arg(value_name = "LIBRARY:BARCODE", value_parser = cartridge)]
        cartridge: (LibraryName, Barcode),
        /// The last day (UTC), such as 2027-01-31. A lock is never shortened.
        #[arg(long, value_name = "DATE", value_parser = last_day)]
        until: Option<u64>,
    },
}

/// What is done with the key of an encrypted store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreKeyCommand {
    /// Make a new key in a file that is not there yet.
    New {
        /// The file.
        file: PathBuf,
    },
    /// Have another key open the store, while its engine does not run. No data is written anew.
    Change {
        #[command(flatten)]
        which: Which,
        /// The file of the other key.
        file: PathBuf,
    },
}

/// The end of a day in UTC, in milliseconds since 1970.
fn last_day(text: &str) -> Result<u64, String> {
    let day: jiff::civil::Date = text.parse().map_err(|_| "write a date as 2027-01-31")?;
    let end = day.tomorrow().and_then(|next| next.to_zoned(jiff::tz::TimeZone::UTC));
    let end = end.map_err(|error| error.to_string())?.timestamp().as_millisecond();
    u64::try_from(end).map_err(|_| "that is before 1970".to_owned())
}

pub(crate) fn cartridge(text: &str) -> Result<(LibraryName, Barcode), String> {
    let (library, barcode) = text.split_once(':').ok_or("write LIBRARY:BARCODE")?;
    let library = LibraryName::new(library).map_err(|error| error.to_string())?;
    let barcode = Barcode::new(barcode).map_err(|error| error.to_string())?;
    Ok((library, barcode))
}

/// A failure in words for the operator, with the exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failed {
    /// Something failed while running.
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self { code: EXIT_FAILED, text: error.to_string() }
    }

    /// The arguments or a configuration are wrong.
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self { code: EXIT_USAGE, text: error.to_string() }
    }
}

/// Runs the command line and returns the exit code.
pub(crate) fn run(arguments: Vec<OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap prints help to standard output and faults to standard error.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
        }
    };
    let output = Output { json: arguments.json };
    match carry_out(arguments.command, &output) {
        Ok(()) => EXIT_OK,
        Err(failed) => {
            eprintln!("twinreel: {}", failed.text);
            failed.code
        }
    }
}

fn key(command: &KeyCommand, output: &Output) -> Result<(), Failed> {
    let file = match command {
        KeyCommand::New { file } => {
            store::make_key_file(file).map_err(Failed::new)?;
            file
        }
        KeyCommand::Show { file } => file,
    };
    // The name is not the file's business; any will do to read it.
    let read = service::config::TapeKeyFile { name: "key".to_owned(), file: file.clone() };
    let id = read.read().map_err(Failed::new)?.id().to_string();
    output.key(file, &id)
}

fn carry_out(command: Command, output: &Output) -> Result<(), Failed> {
    match command {
        Command::Init { dir, ndmp_port, link_port, virtual_capacity, physical_capacity } => {
            let mut options = InitOptions::with_ports(ndmp_port, link_port).map_err(Failed::new)?;
            options.virtual_capacity = virtual_capacity;
            options.physical_capacity = physical_capacity;
            let made = init(&dir, &options).map_err(Failed::new)?;
            output.initialised(&made)
        }
        Command::Demo(arguments) => demo::run(&arguments, output),
        Command::Key(command) => key(&command, output),
        Command::Dma(command) => dma::run(command, output),
        Command::Doctor(command) => doctor::run(&command, output),
        Command::Status { which } => status::status(&which, output),
        Command::Store(command) => status::store(&command, output),
        Command::Map(command) => maps::map(&command, output),
        Command::Copy(command) => maps::copy(&command, output),
        Command::Migrate(command) => maps::migrate(&command, output),
        Command::Pool(command) => maps::pool(&command, output),
        Command::Replicate { which, cartridge: (library, barcode), wait } => {
            status::replicate(&which, &library, &barcode, wait, output)
        }
        Command::Jobs { which, watch, active } => catalogue::jobs(&which, watch, active, output),
        Command::Libraries { which } => catalogue::libraries(&which, output),
        Command::Cartridges { which } => catalogue::cartridges(&which, output),
        Command::Queue { which, command } => queue::run(&which, command.as_ref(), output),
        Command::Drive(command) => drive::run(&command, output),
        Command::Library(command) => library::run(&command, output),
        Command::Health { which, clear } => health::run(&which, clear.as_deref(), output),
        // Taken by name before the arguments are parsed; listed here for the help.
        Command::LocalEngine | Command::RemoteEngine => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("twinreel").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| arguments.command)
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_takes_what_its_help_says() {
        for line in [
            "demo",
            "demo --keep /tmp/reel --json --seed 7",
            "init /tmp/pair --ndmp-port 1 --virtual-capacity 1GB",
            "status --config a.toml --json",
            "--json jobs --watch --active",
            "libraries",
            "store stat --config a.toml",
            "store check",
            "store collect --json",
            "store rewrite",
            "store key new store.key",
            "store key change new.key --config a.toml",
            "store lock vtl0:VTA001L8 --until 2027-01-31",
            "store lock vtl0:VTA001L8",
            "store seed write --site dr /mnt/disk --key-file seed.key",
            "store seed write --site dr --cartridge vtl0:A --cartridge vtl0:B disk --in-clear",
            "store compare --site dr --cartridge vtl0:VTA001L8 --read",
            "store seed read /mnt/disk --config remote.toml --json",
            "cartridges --config a.toml",
            "health --config remote.toml --clear ptl0/drive0",
            "queue --config a.toml --json",
            "queue cancel 7 --config a.toml",
            "queue priority 01JD0000000000000000000000 restore",
            "drive down ptl0/drive0 --reason noise --config remote.toml",
            "drive up ptl0/drive0",
            "library export dr-ptl0:PTA001L8 --config a.toml",
            "library import dr-ptl0 --json",
            "library import dr-ptl0 PTA001L8",
            "library outside",
            "replicate vtl0:VTA001L8 --wait",
            "dma inventory --config a.toml vtl0",
            "dma copy --server h:1 --user u --password-file p --source vtl0/drive0 --target a:B,C",
            "dma copy --server h:1 --auth none --source v:A --target a:B --record-size 64KiB",
            "dma copy --config a.toml --source v:A --target a:B --record-by-record --protocol 3",
            "dma backup --config a.toml - --target vtl0:VTA001L8 --record-size 1MiB",
            "dma restore --config a.toml file --source vtl0:VTA001L8,VTA002L8",
            "map show",
            "map backends --json",
            "map set vtl0/drive0 --frontend front/drive0 --tapes vtl0:A1-A9 --tapes vtl0:B1",
            "map remove front/drive0 --config a.toml",
            "copy show --json",
            "copy set vtl0:A1 dr-ptl0:B1 --policy always --wait 60 --verify readback",
            "copy set vtl0:A1-A9 --pool dr --policy deferred",
            "copy remove vtl0:A1",
            "copy run vtl0:A1-A9 dr-ptl0:B1",
            "copy explain vtl0:A1",
            "migrate set vtl0:A1 dr-ptl0:B1 --policy after-days --days 30",
            "migrate run vtl0:A1",
            "migrate show",
            "migrate remove vtl0:A1",
            "pool add dr dr-ptl0:B1-B9 dr-ptl0:C1",
            "pool show",
            "key new keys/site.key",
            "key show keys/site.key --json",
            "doctor ndmp --config a.toml --json",
            "doctor ndmp --server h:1 --user u --password-file p --auth text --protocol 3",
            "doctor smis --config a.toml --json",
            "doctor smis --server h:1 --user u --password-file p",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "Usage"),
            ("statu", "similar"),
            ("replicate VTA001L8", "write LIBRARY:BARCODE"),
            ("replicate vtl0:a/b", "may not contain"),
            ("store lock vtl0:VTA001L8 --until soon", "2027-01-31"),
            ("store seed write /mnt/disk", "--site"),
            ("store seed write --site dr d --in-clear --key-file k", "cannot be used"),
            ("dma copy --source v:A --target a:B", "--server"),
            ("dma copy --server h:1 --source v:A --target a", "write LIBRARY:BARCODE"),
            ("dma copy --server h:1 --source v:A --target a:B,B", "named twice"),
            ("dma copy --server h:1 --config c --source v:A --target a:B", "cannot be used"),
            ("dma copy --server h:1 --password-file p --source v:A --target a:B", "--user"),
            ("dma copy --config c --source v:A --target a:B --protocol 5", "2..=4"),
            ("dma copy --config c --source v:A --target a:B --record-size x", "is not a size"),
            ("dma restore --config c file", "--source"),
            ("doctor ndmp", "--server"),
            ("doctor smis", "--server"),
            ("doctor", "Usage"),
            ("copy set vtl0:A1 --policy always", "<TARGET>"),
            ("copy set vtl0:A1 x:B --pool dr --policy always", "cannot be used"),
            ("copy set vtl0:A1 x:B --policy sometimes", "write always"),
            ("pool add dr", "<TAPES>"),
        ];
        for (line, reason) in cases {
            let error = parse(line).map(drop).unwrap_err().to_string();
            assert!(error.contains(reason), "{line:?}: {error}");
        }
    }
}
