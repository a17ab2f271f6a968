//! The one program: the command line of an administrator, and both engines under their names.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(twinreel::run(std::env::args_os().collect()))
}
