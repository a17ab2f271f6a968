//! What people see while bytes move: a bar on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

const KNOWN: &str = "{spinner} {msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN: &str = "{spinner} {msg} {bytes} {bytes_per_sec}";

/// A progress bar, and the lines above it.
#[derive(Debug)]
pub(crate) struct Screen {
    bar: ProgressBar,
    /// Lines that were told, in order; the oldest are forgotten.
    told: Vec<String>,
}

/// Lines that are remembered.
const LINES: usize = 1000;

impl Screen {
    /// A bar with what it is about; `total` bytes if that is known.
    pub(crate) fn new(about: &str, total: Option<u64>) -> Self {
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(about.to_owned());
        Self { bar, told: Vec::new() }
    }

    /// A better knowledge of how much there is.
    pub(crate) fn set_total(&self, total: u64) {
        if let Ok(style) = ProgressStyle::with_template(KNOWN) {
            self.bar.set_style(style);
        }
        self.bar.set_length(total);
    }

    /// How many bytes are done.
    pub(crate) fn at(&self, bytes: u64) {
        if self.bar.length().is_some_and(|length| bytes > length) {
            self.bar.set_length(bytes);
        }
        self.bar.set_position(bytes);
    }

    /// The bar itself, to wrap a reader or a writer.
    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{text}"),
            false => self.bar.println(text),
        }
        if self.told.len() >= LINES {
            self.told.remove(0);
        }
        self.told.push(text.to_owned());
    }

    /// Takes the bar away; the lines that were told.
    pub(crate) fn close(self) -> Vec<String> {
        self.bar.finish_and_clear();
        self.told
    }
}
