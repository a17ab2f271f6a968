//! A finding: what was seen, how bad it is, and what to do.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// It works, or may; somebody should look.
    Warn,
    /// An application will fail here.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) seen: String,
    /// What to do about it.
    #[serde(rename = "do")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(seen: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, seen: seen.into(), advice: None }
    }

    pub(super) fn warn(seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warn, seen: seen.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Fail, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// The same with a hint, for what is good only as far as it was seen.
    pub(super) fn but(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        };
        write!(f, "{severity:<4}  {}", self.seen)?;
        match &self.advice {
            Some(advice) => write!(f, "  ->  {advice}"),
            None => Ok(()),
        }
    }
}
