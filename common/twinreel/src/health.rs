//! How drives and cartridges of the physical libraries of an engine are.

use serde_json::json;
use svs::Health;

use crate::catalogue::open;
use crate::cli::{Failed, Which};
use crate::output::{Output, or_dash, table};
use crate::status::ask;

/// Lists what is on record; with `clear`, one of it is well again.
pub(crate) fn run(which: &Which, clear: Option<&str>, output: &Output) -> Result<(), Failed> {
    if let Some(subject) = clear {
        ask(which, "health_clear", json!({ "subject": subject }))?;
    }
    let (_, catalogue) = open(which)?;
    let all = catalogue.health().map_err(Failed::new)?;
    output.show(&all, |all| health_table(all))
}

fn health_table(all: &[Health]) -> String {
    let row = |it: &Health| {
        let alerts = Some(&it.alerts).filter(|alerts| !alerts.is_empty());
        [
            it.kind.to_string(),
            it.subject.clone(),
            it.condition.to_string(),
            or_dash(alerts),
            or_dash(it.loads),
            or_dash(it.bytes_written),
            or_dash(it.bytes_read),
            or_dash(it.message.as_deref()),
        ]
    };
    let header = ["kind", "name", "condition", "alerts", "loads", "written", "read", "message"];
    table(header, all.iter().map(row).collect())
}
