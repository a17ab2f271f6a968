//! What the remote engine knows of jobs: it is the authority for what is on tape.

use link::{JobReport, Verify};
use model::JobId;
use svs::{Catalogue, JobState, PeerFact, SvsError, Verified};

/// Takes over how a copy that is done was proven on tape. Blocks on the catalogue.
pub(super) fn proven(catalogue: &Catalogue, job: JobId, how: Verify) {
    let verified = match how {
        Verify::None => Verified::None,
        Verify::Position => Verified::Position,
        Verify::Readback => Verified::Readback,
    };
    if let Err(error) = catalogue.set_verified(job, verified) {
        tracing::warn!(%error, %job, "how a copy was proven could not be kept");
    }
}

/// Takes over what the remote knows of a copy that ended without its session; true when it may
/// forget it. Blocks on the catalogue.
pub(super) fn reconcile(catalogue: &Catalogue, report: &JobReport) -> bool {
    let state = if report.complete { JobState::Done } else { JobState::Failed };
    let fact = PeerFact {
        state,
        bytes: report.flushed_bytes,
        flushed: report.flushed_object.map(|object| (object, report.flushed_bytes)),
        message: Some(report.text.clone()),
    };
    match catalogue.reconcile(report.job, &fact) {
        Ok(_) | Err(SvsError::NotFound(_)) => true,
        Err(error) => {
            tracing::warn!(%error, job = %report.job, "what the remote knows could not be kept");
            false
        }
    }
}
