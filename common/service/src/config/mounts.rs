//! `[mounts]`: in which order those go who wait for drives.

use serde::Deserialize;

use super::check::Findings;

/// `[mounts]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mounts {
    /// What one step of priority is worth in seconds of waiting, 0 to 86400; 600 if not given.
    pub step_seconds: u32,
}

impl Default for Mounts {
    fn default() -> Self {
        Self { step_seconds: 600 }
    }
}

impl Mounts {
    pub(super) fn check(&self, findings: &mut Findings) {
        findings.require(self.step_seconds <= 86_400, || {
            format!("mounts: step_seconds is 0 to 86400, not {}", self.step_seconds)
        });
    }
}
