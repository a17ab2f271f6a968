//! Which targets and logical units there are behind a portal.

use std::time::{Duration, Instant};

use iscsi::{Kind, Pairs, Url, targets};

use super::connection::Connection;
use super::{CONNECT, IscsiOptions, IscsiTransport};
use crate::driver::transport::{Data, ScsiTransport, TransportError};

/// Most targets, and most logical units of each, that are looked at.
const FOUND_MAX: usize = 256;
/// Bytes for REPORT LUNS.
const LUNS: usize = 8 + 8 * FOUND_MAX;
/// How long one question may take.
const ASK: Duration = Duration::from_secs(10);
/// How often a unit attention is passed over.
const ATTENTIONS_MAX: usize = 8;

/// A portal: host and TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::str::FromStr for Portal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = Url::parse_portal(text).ok_or(())?;
        Ok(Self { host, port })
    }
}

/// Asks a portal for its targets, and each target for its logical units.
///
/// # Errors
/// The portal does not answer. A target that does not is passed over with a warning.
pub fn discover(portal: &Portal, options: &IscsiOptions) -> Result<Vec<Url>, TransportError> {
    let Portal { host, port } = portal.clone();
    let url = |target: String, lun| Url { host: host.clone(), port, target, lun };
    let failed = |text: String| TransportError::NotSent(format!("{host}:{port}: {text}"));
    let deadline = Instant::now() + CONNECT;
    let at = url(String::new(), 0).portal();
    let mut isid = [0x80; 6];
    getrandom::fill(&mut isid[1..]).map_err(|error| failed(error.to_string()))?;
    let connection = Connection::open(&at, &Kind::Discovery, options, isid, deadline);
    let mut connection = connection.map_err(failed)?;
    let mut question = Pairs::default();
    question.add("SendTargets", "All");
    let answer = connection.ask(&question, deadline).map_err(failed)?;
    connection.close();
    let mut found = Vec::new();
    for (target, _) in targets(&answer).into_iter().take(FOUND_MAX) {
        // Behind the portal that was asked: others may be addresses that are not ours to reach.
        match units(url(target.clone(), 0), options) {
            Ok(units) => found.extend(units.into_iter().map(|lun| url(target.clone(), lun))),
            Err(error) => tracing::warn!(target, %error, "a target is passed over"),
        }
    }
    Ok(found)
}

/// The logical units of a target (REPORT LUNS).
fn units(url: Url, options: &IscsiOptions) -> Result<Vec<u16>, TransportError> {
    let mut transport = IscsiTransport::new(url, options.clone())?;
    let allocation = LUNS as u32;
    let cdb = scsi::Cdb::ReportLuns { select: 0, allocation }.encode();
    let mut bytes = vec![0; LUNS];
    for _ in 0..ATTENTIONS_MAX {
        let completion = transport.execute(&cdb, Data::In(&mut bytes), ASK)?;
        if completion.status == 0 {
            let came = LUNS.saturating_sub(completion.residual.max(0) as usize);
            return Ok(scsi::parse_luns(&bytes[..came]));
        }
    }
    Err(TransportError::NotSent("REPORT LUNS gets no answer".to_owned()))
}
