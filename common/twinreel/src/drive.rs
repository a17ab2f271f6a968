//! Taking drives out of use, and bringing them back.

use clap::Subcommand;
use serde_json::json;

use crate::cli::{Failed, Which};
use crate::health;
use crate::output::Output;
use crate::status::ask;

/// What is done with a drive of a physical library.
#[derive(Debug, Subcommand)]
pub(crate) enum DriveCommand {
    /// Take a drive out of use: whoever has it keeps it, nobody else gets it.
    Down {
        #[command(flatten)]
        which: Which,
        /// The drive: LIBRARY/driveN.
        drive: String,
        /// Why, for those who look.
        #[arg(long, value_name = "TEXT", default_value = "taken down by an administrator")]
        reason: String,
    },
    /// Bring a drive back into use.
    Up {
        #[command(flatten)]
        which: Which,
        /// The drive: LIBRARY/driveN.
        drive: String,
    },
}

/// Does it, and lists how everything is.
pub(crate) fn run(command: &DriveCommand, output: &Output) -> Result<(), Failed> {
    let which = match command {
        DriveCommand::Down { which, drive, reason } => {
            ask(which, "drive_down", json!({ "drive": drive, "reason": reason }))?;
            which
        }
        DriveCommand::Up { which, drive } => {
            ask(which, "drive_up", json!({ "drive": drive }))?;
            which
        }
    };
    health::run(which, None, output)
}
