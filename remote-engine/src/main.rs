//! The daemon at the tape site.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(remote_engine::run(std::env::args_os()))
}
