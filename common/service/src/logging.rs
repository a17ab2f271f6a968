//! Log lines to standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The environment variable whose filter goes before the configured level.
pub const VARIABLE: &str = "TWINREEL_LOG";

/// A filter that can not be understood; the fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {filter:?} is no log filter: write info, or info,link=debug ({cause})")]
pub struct LogError {
    /// `log.level` or the environment variable.
    pub place: &'static str,
    /// What stands there.
    pub filter: String,
    /// What is wrong with it.
    pub cause: String,
}

/// Checks a filter text.
pub(crate) fn filter(place: &'static str, text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(text).map_err(|error| LogError {
        place,
        filter: text.to_owned(),
        cause: error.to_string(),
    })
}

/// Starts logging for this process. A second call in one process (two engines in one test)
/// changes nothing.
///
/// # Errors
/// [`LogError`] for a filter that can not be understood.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => filter(VARIABLE, &text)?,
        _ => filter("log.level", &log.level)?,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter);
    // The error means that somebody logs already.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
