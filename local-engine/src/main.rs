//! The daemon at the backup site.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(local_engine::run(std::env::args_os()))
}
