//! Who waits for drives.

use clap::Subcommand;
use serde_json::json;
use svs::Mount;

use crate::catalogue::open;
use crate::cli::{Failed, Which};
use crate::output::{Output, or_dash, table};
use crate::status::ask;

/// What is done with the queue.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// End a job that waits, or that has drives.
    Cancel {
        #[command(flatten)]
        which: Which,
        /// The job, or its number in the queue.
        job: String,
    },
    /// Say how urgent a job is that waits.
    Priority {
        #[command(flatten)]
        which: Which,
        /// The job, or its number in the queue.
        job: String,
        /// restore, copy, policy, migration or verify; the first is the most urgent.
        priority: svs::MountPriority,
    },
}

/// Shows the queue, or acts on it.
pub(crate) fn run(
    which: &Which,
    command: Option<&QueueCommand>,
    output: &Output,
) -> Result<(), Failed> {
    let which = match command {
        None => which,
        Some(QueueCommand::Cancel { which, job }) => {
            ask(which, "queue_cancel", json!({ "job": job }))?;
            which
        }
        Some(QueueCommand::Priority { which, job, priority }) => {
            ask(which, "queue_priority", json!({ "job": job, "priority": priority }))?;
            which
        }
    };
    let (_, catalogue) = open(which)?;
    let all = catalogue.mounts().map_err(Failed::new)?;
    output.show(&all, |all| queue_table(all))
}

fn queue_table(all: &[Mount]) -> String {
    let since = |ms: u64| {
        let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        or_dash(at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string()))
    };
    let row = |it: &Mount| {
        [
            it.ticket.to_string(),
            it.state.to_string(),
            it.priority.to_string(),
            it.tapes.clone(),
            or_dash(Some(&it.drives).filter(|drives| !drives.is_empty())),
            since(it.since),
            or_dash(it.job.as_ref()),
            it.who.clone(),
            or_dash(it.reason.as_ref()),
        ]
    };
    let header =
        ["number", "state", "priority", "tapes", "drives", "since", "job", "who", "waits for"];
    table(header, all.iter().map(row).collect())
}
