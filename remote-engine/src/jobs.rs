//! Job rows of what this engine does for a peer, and what the peer has still to hear of them.
//!
//! A row has the id that the peer made. Copies carry a note of the lease and the run of the peer
//! that they belong to, so that after a restart it is known which of them nobody will continue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use link::{EndReason, JobReport, Peer, Verify};
use model::{EngineId, GenerationId, JobId, LeaseId, SiteName};
use serde::{Deserialize, Serialize};
use service::messages;
use svs::{
    Catalogue, CopyPath, Ending, EventKind, Job, JobKind, JobOwner, JobState, NewJob, Progress,
    SvsError, Verified,
};

/// Where reports that were not acknowledged are kept.
const REPORTS_KEY: &str = "job reports not acknowledged";
/// The most reports that are kept; the oldest goes first.
const REPORTS_MAX: usize = 1000;
/// The most bytes of a report's text.
const TEXT_MAX: usize = 1000;

/// Whom a copy belongs to: the note in its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The site that asked for it.
    pub site: SiteName,
    /// The run of that site's engine, as far as it is known.
    pub engine: Option<EngineId>,
    /// The lease that writes it.
    pub lease: LeaseId,
    /// All of what was asked so far is on tape and flushed; there may be more to come.
    #[serde(default)]
    pub whole: bool,
    /// It waited for its next tape when this engine was restarted.
    #[serde(default)]
    pub paused: bool,
    /// Its device was let go behind all of what was asked. The originator may still go on in
    /// another drive.
    #[serde(default)]
    pub let_go: bool,
    /// The least proof of what was flushed, `None` before the first flush.
    #[serde(default)]
    pub verified: Option<Verified>,
    /// The originator has said that nothing more comes.
    #[serde(default)]
    pub over: bool,
}

impl Owner {
    /// The owner of a copy that has just begun.
    pub fn new(site: SiteName, engine: Option<EngineId>, lease: LeaseId) -> Self {
        Self {
            site,
            engine,
            lease,
            whole: false,
            paused: false,
            let_go: false,
            verified: None,
            over: false,
        }
    }
}

/// A copy as its first range tells it.
#[derive(Clone, Debug)]
pub struct NewCopy {
    /// Made by the peer.
    pub id: JobId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What is read, for people.
    pub source: String,
    /// What is written: `ptl0/PTA001L8`.
    pub target: String,
    /// The generation that is read, if it is one.
    pub generation: Option<GenerationId>,
    /// Who moves the bytes.
    pub path: CopyPath,
}

/// A report that the peer has not acknowledged.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    site: SiteName,
    job: JobId,
    complete: bool,
    flushed_bytes: u64,
    flushed_object: Option<u64>,
    text: String,
}

/// The jobs of this engine.
pub struct Jobs {
    catalogue: Arc<Catalogue>,
    reports: Mutex<Vec<Kept>>,
    /// Held while a copy's end is decided: the originator's word and the close of the device come
    /// over different threads.
    ending: Mutex<()>,
}

fn note(job: &Job) -> Option<Owner> {
    serde_json::from_str(job.resume.as_deref()?).ok()
}

impl Jobs {
    /// The jobs in this catalogue, with the reports that were kept.
    ///
    /// # Errors
    /// The catalogue can not be read.
    pub fn open(catalogue: Arc<Catalogue>) -> Result<Self, SvsError> {
        let kept = catalogue.meta(REPORTS_KEY)?.unwrap_or_default();
        let reports = serde_json::from_str(&kept).unwrap_or_default();
        Ok(Self { catalogue, reports: Mutex::new(reports), ending: Mutex::default() })
    }

    fn reports(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row that can not be written must not stop what runs; it is told in the log.
    fn log(&self, id: JobId, result: Result<(), SvsError>) {
        if let Err(error) = result {
            tracing::warn!(job = %id, %error, "the job row could not be written");
        }
    }

    /// A range of a copy begins: writes the row if there is none. Gives the bytes done before, and
    /// how they were proven.
    ///
    /// # Errors
    /// The row can not be written, or the job has failed: the work must not begin.
    pub fn begin_copy(&self, new: &NewCopy) -> Result<(u64, Option<Verified>), String> {
        let text = |error: SvsError| error.to_string();
        let known = self.catalogue.job(new.id).map_err(text)?;
        let before = known.as_ref().and_then(note).and_then(|owner| owner.verified);
        let owner = Owner { verified: before, ..new.owner.clone() };
        let resume = serde_json::to_string(&owner).ok();
        let ends = (new.source.clone(), new.target.clone());
        let by = format!("site {}", new.owner.site);
        let mut row = NewJob::new(new.id, JobKind::Copy, JobOwner::Peer, ends, by);
        row.state = JobState::InProgress;
        row.generation = new.generation;
        row.path = Some(new.path);
        row.resume = resume.clone();
        if self.catalogue.create_job(&row).map_err(text)? {
            return Ok((0, None));
        }
        let known = known.ok_or("its row vanished")?;
        match known.state {
            JobState::Failed => return Err(format!("job {} has failed already", new.id)),
            // Taken for complete at the end of the former lease; its session knows better.
            state if state.is_final() => return Ok((known.bytes, before)),
            _ => {}
        }
        if !known.target.split(", ").any(|target| target == new.target) {
            let all = format!("{}, {}", known.target, new.target);
            self.catalogue.set_target(new.id, &all).map_err(text)?;
        }
        if let Some(resume) = resume.filter(|_| note(&known).as_ref() != Some(&owner)) {
            self.catalogue.set_resume(new.id, &resume).map_err(text)?;
        }
        if known.state != JobState::InProgress {
            self.catalogue.transition(new.id, JobState::InProgress, None).map_err(text)?;
        }
        Ok((known.bytes, before))
    }

    /// What was not flushed is written anew, and counted anew.
    pub fn back_to_flush(&self, id: JobId) {
        let known = self.catalogue.job(id).ok().flatten();
        if let Some(job) = known.filter(|job| !job.state.is_final()) {
            self.progress(id, job.flushed_bytes.unwrap_or(0));
        }
    }

    /// What a copy reads has become known.
    pub fn set_source(&self, id: JobId, source: &str) {
        self.log(id, self.catalogue.set_source(id, source));
    }

    /// All of what was asked of a copy so far is on tape and flushed, or not any more: should
    /// nothing more come, that is what its originator has to know.
    pub fn set_whole(&self, id: JobId, whole: bool, verified: Option<Verified>) {
        self.change_note(id, |owner| Owner { whole, verified, ..owner });
    }

    /// A copy waited for its next tape when this engine was restarted.
    pub fn waited(&self, id: JobId) {
        self.change_note(id, |owner| Owner { paused: true, ..owner });
    }

    fn change_note(&self, id: JobId, change: impl FnOnce(Owner) -> Owner) {
        let known = self.catalogue.job(id).ok().flatten();
        let Some(owner) = known.and_then(|job| note(&job)) else { return };
        if let Ok(resume) = serde_json::to_string(&change(owner)) {
            self.log(id, self.catalogue.set_resume(id, &resume));
        }
    }

    /// Moves a job to a state that has not ended.
    pub fn enter(&self, id: JobId, to: JobState, message: Option<&str>) {
        self.log(id, self.catalogue.transition(id, to, message).map(drop));
    }

    /// Notes how many bytes are done in all.
    pub fn progress(&self, id: JobId, bytes: u64) {
        let progress = Progress { bytes, bytes_total: None };
        self.log(id, self.catalogue.progress(id, progress));
    }

    /// Notes what a flush made safe.
    pub fn flushed(&self, id: JobId, object: u64, bytes: u64) {
        self.log(id, self.catalogue.flushed(id, object, bytes));
    }

    /// Ends a job in a way that the peer knows of.
    pub fn finish(&self, id: JobId, ending: &Ending) {
        self.log(id, self.catalogue.finish(id, ending));
    }

    /// A device was let go by its holder, and all of what was asked of the copy is on its tape. It
    /// is done when its originator says so, which may have been before.
    pub fn let_go(&self, id: JobId, bytes: u64, verified: Verified) {
        let _ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.catalogue.job(id).ok().flatten();
        if known.as_ref().and_then(note).is_some_and(|owner| owner.over) {
            return self.done(id, bytes, verified);
        }
        self.progress(id, bytes);
        let verified = Some(verified);
        self.change_note(id, |owner| Owner { whole: true, let_go: true, verified, ..owner });
    }

    /// How a copy that is done was proven, for whoever asked for it.
    pub fn proof(&self, id: JobId) -> Option<Verify> {
        let row = self.catalogue.job(id).ok().flatten()?;
        let is_done = row.kind == JobKind::Copy && row.state == JobState::Done;
        is_done.then_some(match row.verified {
            Verified::None => Verify::None,
            Verified::Position => Verify::Position,
            Verified::Readback => Verify::Readback,
        })
    }

    /// Everything that was asked is on tape.
    pub fn done(&self, id: JobId, bytes: u64, verified: Verified) {
        self.finish(id, &Ending::done(bytes, verified));
    }

    /// Ends a copy that its session will not continue, and keeps a report for the peer until it
    /// is acknowledged. `complete` says that all of what was asked is on tape.
    pub fn abandon(&self, job: &Job, site: &SiteName, complete: bool, cause: &str) {
        let current = self.catalogue.job(job.id).ok().flatten();
        let row = current.as_ref().unwrap_or(job);
        let flushed = (row.flushed_bytes.unwrap_or(0), row.flushed_object);
        let object = flushed.1.map_or("no object".to_owned(), |object| format!("object {object}"));
        let text = format!("{cause}; flushed to the target: {} bytes, up to {object}", flushed.0);
        self.finish(job.id, &Ending::failed(text.clone()));
        let words: [(&str, &dyn std::fmt::Display); 4] = [
            ("source", &row.source),
            ("target", &row.target),
            ("bytes", &flushed.0),
            ("object", &flushed.1.unwrap_or(0)),
        ];
        let id = messages::COPY_LOST_SESSION;
        messages::note(&self.catalogue, EventKind::Job, id, &words, Some(&job.id.to_string()));
        let kept = Kept {
            site: site.clone(),
            job: job.id,
            complete,
            flushed_bytes: flushed.0,
            flushed_object: flushed.1,
            text: text.chars().take(TEXT_MAX / 4).collect(),
        };
        self.change_reports(|reports| {
            reports.retain(|other| other.job != kept.job);
            if reports.len() >= REPORTS_MAX {
                reports.remove(0);
            }
            reports.push(kept);
        });
    }

    fn change_reports(&self, change: impl FnOnce(&mut Vec<Kept>)) {
        let mut reports = self.reports();
        change(&mut reports);
        let text = serde_json::to_string(&*reports).unwrap_or_default();
        if let Err(error) = self.catalogue.set_meta(REPORTS_KEY, &text) {
            tracing::warn!(%error, "job reports could not be kept");
        }
    }

    /// The unfinished copies that pass a filter, with whom they belong to.
    pub fn copies(&self, filter: impl Fn(&Owner) -> bool) -> Vec<(Job, Owner)> {
        let all = self.catalogue.unfinished_jobs(Some(JobKind::Copy)).unwrap_or_default();
        let owned = all.into_iter().filter_map(|job| note(&job).map(|owner| (job, owner)));
        owned.filter(|(_, owner)| filter(owner)).collect()
    }

    /// A lease ended without its holder's wish: its copies are not continued.
    pub fn lease_lost(&self, lease: LeaseId, complete: bool, why: EndReason) {
        for (job, owner) in self.copies(|owner| owner.lease == lease) {
            self.abandon(&job, &owner.site, complete || owner.whole, &why.to_string());
        }
    }

    /// A lease was closed by its holder, and what this engine wrote under it in an earlier run was
    /// not continued; but what waited for its next tape may be, under another lease.
    pub fn lease_closed(&self, lease: LeaseId) {
        for (job, owner) in self.copies(|owner| owner.lease == lease && !owner.paused) {
            if owner.whole {
                self.enter(job.id, JobState::InProgress, None);
                self.done(job.id, job.bytes, Verified::None);
            } else {
                let why = "it was interrupted by a restart and not continued";
                self.abandon(&job, &owner.site, false, why);
            }
        }
    }

    /// A peer was met: copies of its earlier runs are not continued. `live` tells of a lease
    /// whether it is open; such a one ends by itself.
    pub fn peer_met(&self, peer: &Peer, live: impl Fn(LeaseId) -> bool) {
        let former = |owner: &Owner| owner.site == peer.site && owner.engine != Some(peer.engine);
        for (job, owner) in self.copies(|owner| former(owner) && !live(owner.lease)) {
            self.abandon(&job, &owner.site, owner.whole, &EndReason::PeerRestarted.to_string());
        }
    }

    /// What a site has to be told.
    pub fn reports_for(&self, site: &SiteName) -> Vec<JobReport> {
        let reports = self.reports();
        let of_site = reports.iter().filter(|kept| kept.site == *site).cloned();
        let report = |kept: Kept| JobReport {
            job: kept.job,
            complete: kept.complete,
            flushed_bytes: kept.flushed_bytes,
            flushed_object: kept.flushed_object,
            text: kept.text,
        };
        of_site.map(report).collect()
    }

    /// A site has taken over the report of a job.
    pub fn acknowledged(&self, site: &SiteName, id: JobId) {
        self.change_reports(|reports| {
            reports.retain(|kept| kept.job != id || kept.site != *site);
        });
    }

    /// A site that asked for a copy has ended it. One that waits here for its next tape, or for
    /// anything else, is over; one whose device is still held ends with that.
    pub fn over(&self, site: &SiteName, id: JobId) {
        let _ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copies = self.copies(|owner| owner.site == *site).into_iter();
        match copies.find(|(job, _)| job.id == id) {
            Some((job, Owner { let_go: true, verified, .. })) => {
                self.enter(id, JobState::InProgress, None);
                self.done(id, job.bytes, verified.unwrap_or(Verified::None));
            }
            Some((job, _)) if job.state == JobState::InProgress => {
                self.change_note(id, |owner| Owner { over: true, ..owner });
            }
            Some((job, Owner { whole: true, verified, .. }))
                if job.state == JobState::PausedEom =>
            {
                self.done(id, job.bytes, verified.unwrap_or(Verified::None));
            }
            Some(_) => self.finish(id, &Ending::cancelled(format!("ended by site {site}"))),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(engine: u64) -> Peer {
        let engine = EngineId(model::Ulid::from_parts(engine, 0));
        Peer {
            site: SiteName::new("hq").unwrap(),
            engine,
            version: 1,
            capabilities: link::Capabilities::ALL,
        }
    }

    fn copy(number: u64, engine: u64) -> NewCopy {
        let id = |n| model::Ulid::from_parts(n, 0);
        let Peer { site, engine, .. } = peer(engine);
        let lease = LeaseId(id(number));
        let owner = Owner::new(site, Some(engine), lease);
        let (source, target) = ("vtl0/VTA001L8".to_owned(), "ptl0/PTA001L8".to_owned());
        let path = CopyPath::Offloaded;
        NewCopy { id: JobId(id(number)), owner, source, target, generation: None, path }
    }

    fn jobs() -> (tempfile::TempDir, Jobs) {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&dir.path().join("svs.db")).unwrap();
        (dir, Jobs::open(Arc::new(catalogue)).unwrap())
    }

    fn state(jobs: &Jobs, copy: &NewCopy) -> JobState {
        jobs.catalogue.job(copy.id).unwrap().unwrap().state
    }

    #[test]
    fn a_copy_goes_on_under_another_lease_and_never_behind_a_failure() {
        let (_dir, jobs) = jobs();
        let first = copy(1, 1);
        assert_eq!(jobs.begin_copy(&first), Ok((0, None)));
        jobs.progress(first.id, 500);
        jobs.enter(first.id, JobState::PausedEom, None);
        let lease = LeaseId(model::Ulid::from_parts(9, 0));
        let next = NewCopy {
            owner: Owner { lease, ..first.owner.clone() },
            target: "ptl0/PTA002L8".to_owned(),
            ..first.clone()
        };
        assert_eq!(jobs.begin_copy(&next), Ok((500, None)));
        let row = jobs.catalogue.job(first.id).unwrap().unwrap();
        assert_eq!(
            (row.state, row.target.as_str()),
            (JobState::InProgress, "ptl0/PTA001L8, ptl0/PTA002L8")
        );
        jobs.lease_lost(first.owner.lease, false, EndReason::Expired);
        assert_eq!(state(&jobs, &first), JobState::InProgress, "not its lease any more");
        jobs.flushed(first.id, 4, 400);
        jobs.lease_lost(lease, false, EndReason::Expired);
        assert_eq!(state(&jobs, &first), JobState::Failed);
        assert!(jobs.begin_copy(&next).is_err());
        let report = jobs.reports_for(&next.owner.site).remove(0);
        assert_eq!(
            (report.flushed_bytes, report.flushed_object, report.complete),
            (400, Some(4), false)
        );
        // That it is over for its originator does not mean that the report was met.
        jobs.over(&next.owner.site, first.id);
        assert_eq!(jobs.reports_for(&next.owner.site).len(), 1);
        jobs.acknowledged(&next.owner.site, first.id);
        assert!(jobs.reports_for(&next.owner.site).is_empty());
    }

    #[test]
    fn what_was_written_is_done_when_its_originator_has_said_so() {
        let (_dir, jobs) = jobs();
        // Said while the drive is held, and afterwards.
        for (number, before) in [(1, true), (2, false)] {
            let copy = copy(number, 1);
            jobs.begin_copy(&copy).unwrap();
            if before {
                jobs.over(&copy.owner.site, copy.id);
                assert_eq!(state(&jobs, &copy), JobState::InProgress);
            }
            jobs.let_go(copy.id, 700, Verified::Position);
            if !before {
                assert_eq!(state(&jobs, &copy), JobState::InProgress);
                jobs.over(&copy.owner.site, copy.id);
            }
            let row = jobs.catalogue.job(copy.id).unwrap().unwrap();
            assert_eq!((row.state, row.bytes), (JobState::Done, 700));
            assert_eq!(row.verified, Verified::Position);
        }
        // It goes on in another drive instead, where it meets the end of the medium.
        let first = copy(3, 1);
        jobs.begin_copy(&first).unwrap();
        jobs.let_go(first.id, 700, Verified::Position);
        let lease = LeaseId(model::Ulid::from_parts(9, 0));
        let next = NewCopy { owner: Owner { lease, ..first.owner.clone() }, ..first.clone() };
        assert_eq!(jobs.begin_copy(&next), Ok((700, Some(Verified::Position))));
        jobs.enter(first.id, JobState::PausedEom, None);
        assert_eq!(state(&jobs, &first), JobState::PausedEom);
        jobs.over(&first.owner.site, first.id);
        assert_eq!(state(&jobs, &first), JobState::Cancelled);
        // Its originator was restarted and never says a word.
        let lost = copy(4, 1);
        jobs.begin_copy(&lost).unwrap();
        jobs.let_go(lost.id, 700, Verified::Position);
        jobs.peer_met(&peer(2), |_| false);
        assert_eq!(state(&jobs, &lost), JobState::Failed);
        assert!(jobs.reports_for(&lost.owner.site).iter().any(|report| report.complete));
    }

    #[test]
    fn a_new_run_of_the_peer_ends_what_no_lease_holds() {
        let (_dir, jobs) = jobs();
        let [held, lost, own] = [copy(1, 1), copy(2, 1), copy(3, 2)];
        [&held, &lost, &own].into_iter().for_each(|copy| drop(jobs.begin_copy(copy)));
        jobs.peer_met(&peer(2), |lease| lease == held.owner.lease);
        let states = [&held, &lost, &own].map(|copy| state(&jobs, copy));
        assert_eq!(states, [JobState::InProgress, JobState::Failed, JobState::InProgress]);
    }

    #[test]
    fn what_waits_for_a_tape_ends_when_its_originator_says_so() {
        let (_dir, jobs) = jobs();
        let [whole, rest, running] = [copy(1, 1), copy(2, 1), copy(3, 1)];
        for copy in [&whole, &rest, &running] {
            jobs.begin_copy(copy).unwrap();
        }
        jobs.enter(whole.id, JobState::PausedEom, None);
        jobs.set_whole(whole.id, true, Some(Verified::Position));
        jobs.enter(rest.id, JobState::PausedEom, None);
        for copy in [&whole, &rest, &running] {
            jobs.over(&copy.owner.site, copy.id);
        }
        let states = [&whole, &rest, &running].map(|copy| state(&jobs, copy));
        assert_eq!(states, [JobState::Done, JobState::Cancelled, JobState::InProgress]);
        // A restart found it waiting: it may go on, and a close of its old lease changes nothing.
        let paused = copy(4, 1);
        jobs.begin_copy(&paused).unwrap();
        jobs.waited(paused.id);
        jobs.lease_closed(paused.owner.lease);
        assert_eq!(state(&jobs, &paused), JobState::InProgress);
        jobs.begin_copy(&paused).unwrap();
        jobs.lease_closed(paused.owner.lease);
        assert_eq!(state(&jobs, &paused), JobState::Failed);
        // All of it was on tape when the restart came, and its holder closed the device.
        let written = copy(5, 1);
        jobs.begin_copy(&written).unwrap();
        jobs.set_whole(written.id, true, Some(Verified::Position));
        jobs.lease_closed(written.owner.lease);
        assert_eq!(state(&jobs, &written), JobState::Done);
    }
}
