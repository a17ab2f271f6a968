//! Arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use service::cli::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use service::init::{InitOptions, init};

use crate::catalogue;
use crate::output::Output;

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
    /// Run the engine of the backup site (`twinreel local-engine --help`).
    LocalEngine,
    /// Run the engine of the tape site (`twinreel remote-engine --help`).
    RemoteEngine,
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

fn carry_out(command: Command, output: &Output) -> Result<(), Failed> {
    match command {
        Command::Init { dir, ndmp_port, link_port, virtual_capacity, physical_capacity } => {
            let mut options = InitOptions::with_ports(ndmp_port, link_port).map_err(Failed::new)?;
            options.virtual_capacity = virtual_capacity;
            options.physical_capacity = physical_capacity;
            let made = init(&dir, &options).map_err(Failed::new)?;
            output.initialised(&made)
        }
        Command::Status { which } => catalogue::status(&which, output),
        Command::Jobs { which, watch, active } => catalogue::jobs(&which, watch, active, output),
        Command::Libraries { which } => catalogue::libraries(&which, output),
        Command::Cartridges { which } => catalogue::cartridges(&which, output),
        // Taken by name before the arguments are parsed; listed here for the help.
        Command::LocalEngine | Command::RemoteEngine => Ok(()),
    }
}
