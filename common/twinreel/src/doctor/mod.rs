//! `twinreel doctor`: looks at what applications will meet, and says what to do about it.
//!
//! Looking ([`look`], [`devices`]) and judging ([`judge`]) are apart, so that every judgement can
//! be tried without a server.

mod devices;
mod finding;
mod judge;
mod look;
mod seen;
mod smis;
#[cfg(test)]
mod tests;

use clap::Subcommand;
use serde_json::json;

use crate::cli::Failed;
use crate::dma::Server;
use crate::output::Output;
use finding::{Finding, Severity};
use seen::Expected;
use smis::SmisServer;

/// What `twinreel doctor` looks at.
#[derive(Debug, Subcommand)]
pub(crate) enum DoctorCommand {
    /// Connect to an NDMP server as a backup application would and tell, line by line, what is seen
    /// and what to do. Moves no tape and writes none.
    Ndmp {
        #[command(flatten)]
        server: Server,
    },
    /// Connect to the WBEM server of a local engine as a management application would and tell,
    /// line by line, what is seen and what to do. Changes nothing.
    Smis {
        #[command(flatten)]
        server: SmisServer,
    },
}

pub(crate) fn run(command: &DoctorCommand, output: &Output) -> Result<(), Failed> {
    let (server, findings) = match command {
        DoctorCommand::Ndmp { server } => ndmp(server)?,
        DoctorCommand::Smis { server } => smis::look(server)?,
    };
    let wrong = findings.iter().filter(|it| it.severity == Severity::Fail).count();
    let value = json!({ "server": server, "ok": wrong == 0, "findings": findings });
    output.show(&value, |_| text(&findings))?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failed::new("one thing is wrong")),
        many => Err(Failed::new(format!("{many} things are wrong"))),
    }
}

fn ndmp(server: &Server) -> Result<(String, Vec<Finding>), Failed> {
    let config = server.config()?;
    let expected = config.map(|config| Expected {
        own: config.library_names().map(ToString::to_string).collect(),
        links: config.links.len(),
        login_attempts: config.ndmp.login_attempts,
    });
    let seen = look::look(&server.console()?, server.sends_in_clear(), expected);
    Ok((seen.server.clone(), judge::judge(&seen)))
}

fn text(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
