//! The command line that both engines have: `serve`, `check-config`, `example-config` and
//! `discover`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tape::driver::Portal;

use crate::config::{Chap, EngineConfig, Log};
use crate::physical::{self, Looking};
use crate::shutdown::{self, Shutdown};
use crate::{logging, messages};

/// Everything was done.
pub const EXIT_OK: u8 = 0;
/// Something failed while running.
pub const EXIT_FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM or SIGINT.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file with everything that it names, and say what is wrong.
    CheckConfig {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print a commented configuration file.
    ExampleConfig,
    /// Look for tape libraries, and print a configuration of them that can be pasted.
    Discover {
        /// HOST:PORT of an iSCSI portal; the SCSI devices of this host without one.
        #[arg(value_name = "PORTAL", value_parser = portal)]
        portal: Option<Portal>,
        /// User for CHAP.
        #[arg(long, requires = "secret_file")]
        user: Option<String>,
        /// A file with the secret of that user, mode 0600.
        #[arg(long, value_name = "FILE", requires = "user")]
        secret_file: Option<PathBuf>,
        /// Our iSCSI name, where the target knows us by it.
        #[arg(long, value_name = "IQN")]
        initiator: Option<String>,
    },
}

fn portal(text: &str) -> Result<Portal, String> {
    text.parse().map_err(|()| "it is HOST:PORT, such as 10.0.0.7:3260".to_owned())
}

/// The failure of an engine that ends its process, in words for the operator.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The whole `main` of an engine: reads the arguments, and for `serve` loads the configuration,
/// starts logging and a tokio runtime, and runs `serve` until it returns. `serve` returns soon
/// after the [`Shutdown`] is requested.
///
/// Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration.
pub fn main<C, F>(serve: impl FnOnce(C, Shutdown) -> F) -> ExitCode
where
    C: EngineConfig,
    F: Future<Output = Result<(), Failure>>,
{
    ExitCode::from(run(std::env::args_os(), serve))
}

/// Like [`main`], with arguments that came from elsewhere (the first one is not looked at), and the
/// exit code as a number.
pub fn run<C, F>(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    serve: impl FnOnce(C, Shutdown) -> F,
) -> u8
where
    C: EngineConfig,
    F: Future<Output = Result<(), Failure>>,
{
    let program = std::iter::once(C::PROGRAM.into());
    let arguments = program.chain(arguments.into_iter().skip(1));
    let parsed = Arguments::command().name(C::PROGRAM).try_get_matches_from(arguments);
    let command = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // clap prints help to standard output and faults to standard error.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
        }
    };
    match command {
        Command::ExampleConfig => {
            print!("{}", C::example());
            EXIT_OK
        }
        Command::Discover { portal, user, secret_file, initiator } => {
            let chap = user.zip(secret_file).map(|(user, secret_file)| Chap {
                user,
                secret_file,
                target_user: None,
                target_secret_file: None,
                secret: None,
                target_secret: None,
            });
            let log = Log { level: "warn".to_owned(), ..Log::default() };
            if let Err(error) = logging::init(&log) {
                return complain(&error, EXIT_USAGE);
            }
            match physical::discover(&Looking { portal, initiator, chap }) {
                Ok(text) if text.is_empty() => complain(&"no tape library was found", EXIT_FAILED),
                Ok(text) => {
                    print!("{text}");
                    EXIT_OK
                }
                Err(error) => complain(&error, EXIT_FAILED),
            }
        }
        Command::CheckConfig { config } => match C::load(&config) {
            Ok(_) => {
                println!("{} is good", config.display());
                EXIT_OK
            }
            Err(error) => complain(&error, EXIT_USAGE),
        },
        Command::Serve { config } => match C::load(&config) {
            Ok(config) => start(config, serve),
            Err(error) => complain(&error, EXIT_USAGE),
        },
    }
}

fn start<C, F>(config: C, serve: impl FnOnce(C, Shutdown) -> F) -> u8
where
    C: EngineConfig,
    F: Future<Output = Result<(), Failure>>,
{
    if let Err(error) = logging::init(config.log()) {
        return complain(&error, EXIT_USAGE);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, EXIT_FAILED),
    };
    let result = runtime.block_on(async {
        // The trigger lives as long as the engine: dropped, it would be a wish to stop.
        let (_trigger, shutdown) = shutdown::on_signals()?;
        serve(config, shutdown).await
    });
    // A blocking call at a device may outlast the engine's patience; the process ends anyway.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match result {
        Ok(()) => EXIT_OK,
        Err(error) => {
            let words: [(&str, &dyn Display); 2] = [("program", &C::PROGRAM), ("cause", &error)];
            let id = messages::ENGINE_FAILED;
            tracing::error!(id, "{}", messages::text(id, &words));
            EXIT_FAILED
        }
    }
}

fn complain(error: &impl Display, code: u8) -> u8 {
    eprintln!("{error}");
    code
}
