//! `[admin]`: the status page.

use std::net::SocketAddr;

use serde::Deserialize;

use super::check::Findings;

/// `[admin]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where the status page listens, on loopback only; off if not given.
    pub http: Option<SocketAddr>,
}

impl Admin {
    pub(super) fn check(&self, findings: &mut Findings) {
        if let Some(http) = self.http {
            findings.require(http.ip().is_loopback(), || {
                format!(
                    "admin: http listens on {http}, which is not loopback, and the page asks \
                     nobody who he is; look at it by way of a tunnel, or of a proxy with a login"
                )
            });
        }
    }
}
