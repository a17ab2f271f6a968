//! `twinreel doctor`: looks at what applications will meet, and says what to do about it.
//!
//! Looking ([`look`], [`devices`]) and judging ([`judge`]) are apart, so that every judgement can
//! be tried without a server.

mod devices;
mod finding;
mod judge;
mod look;
mod seen;
#[cfg(test)]
mod tests;

use clap::Subcommand;
use serde_json::json;

use crate::cli::Failed;
use crate::dma::Server;
use crate::output::Output;
use finding::{Finding, Severity};
use seen::Expected;

/// What `twinreel doctor` looks at.
#[derive(Debug, Subcommand)]
pub(crate) enum DoctorCommand {
    /// Connect to an NDMP server as a backup application would and tell, line by line, what is seen
    /// and what to do. Moves no tape and writes none.
    Ndmp {
        #[command(flatten)]
        server: Server,
    },
}

pub(crate) fn run(command: &DoctorCommand, output: &Output) -> Result<(), Failed> {
    let DoctorCommand::Ndmp { server } = command;
    let config = server.config()?;
    let expected = config.map(|config| Expected {
        own: config.library_names().map(ToString::to_string).collect(),
        links: config.links.len(),
        login_attempts: config.ndmp.login_attempts,
    });
    let seen = look::look(&server.console()?, server.sends_in_clear(), expected);
    let findings = judge::judge(&seen);
    let wrong = findings.iter().filter(|it| it.severity == Severity::Fail).count();
    let value = json!({ "server": seen.server, "ok": wrong == 0, "findings": findings });
    output.show(&value, |_| text(&findings))?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failed::new("one thing is wrong")),
        many => Err(Failed::new(format!("{many} things are wrong"))),
    }
}

fn text(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
