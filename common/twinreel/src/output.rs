//! What commands print: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use serde_json::json;
use service::init::Initialised;

use crate::cli::Failed;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints a value as one JSON document, or what `people` makes of it.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failed> {
        self.print(value, people).map(drop)
    }

    /// The same in place of what was shown before, if standard output is a terminal.
    pub(crate) fn show_anew<T: Serialize>(
        &self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<bool, Failed> {
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        self.print(value, |value| format!("{clear}{}", people(value)))
    }

    /// [`Output::show`]; `false` if nobody reads any more: a pager that was left is no failure.
    pub(crate) fn print<T: Serialize>(
        &self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<bool, Failed> {
        let text = match self.json {
            true => serde_json::to_string(value).map_err(Failed::new)?,
            false => people(value),
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            result => result.map(|()| true).map_err(Failed::new),
        }
    }

    pub(crate) fn key(&self, file: &std::path::Path, id: &str) -> Result<(), Failed> {
        let value = json!({ "file": file, "id": id });
        self.show(&value, |_| format!("{}: key {id}", file.display()))
    }

    pub(crate) fn initialised(&self, made: &Initialised) -> Result<(), Failed> {
        let value = json!({
            "local": made.local,
            "remote": made.remote,
            "password_file": made.password_file,
        });
        self.show(&value, |_| {
            format!(
                "wrote {0} and {1}\n\nstart the pair:\n  \
                 twinreel remote-engine serve --config {1}\n  \
                 twinreel local-engine serve --config {0}\n\n\
                 the NDMP user is `ndmp`, the password is in {2}",
                made.local.display(),
                made.remote.display(),
                made.password_file.display(),
            )
        })
    }
}

/// A plain table: a header and rows.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// A value or a dash.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
