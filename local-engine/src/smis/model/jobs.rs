//! Jobs: every row of `job_status`, whoever began it.

use cim::{CimError, Instance, Path, Value};
use model::JobId;
use scsi::Sense;
use service::messages;
use svs::{Job, JobKind, JobState};

use super::health::{interval, moment};
use super::names::of_system;
use super::{Model, Sink};
use crate::copies::parts_of;
use crate::smis::ROOT;

/// Jobs that are shown: the newest.
const JOBS_MAX: u32 = 1000;

/// The path of a job.
pub(in crate::smis) fn job_path(id: JobId) -> Path {
    Path::new(ROOT, "Twinreel_ConcreteJob").with("InstanceID", format!("twinreel:job:{id}"))
}

/// The job that a path names.
pub(in crate::smis) fn job_of(path: &Path) -> Option<JobId> {
    path.text("InstanceID").strip_prefix("twinreel:job:")?.parse().ok()
}

/// JobState and OperationalStatus of a state (SMI-S Job Control).
fn states(state: JobState, suspended: bool) -> (u16, Vec<u16>) {
    match state {
        JobState::Pending if suspended => (5, vec![2]),
        JobState::Pending | JobState::Scheduled => (2, vec![2]),
        JobState::WaitingReplication | JobState::WaitingDrive => (3, vec![2]),
        JobState::InProgress => (4, vec![2]),
        JobState::PausedEom => (5, vec![2]),
        JobState::Done => (7, vec![17, 2]),
        JobState::Failed => (10, vec![17, 6]),
        JobState::Cancelled => (8, vec![17, 10]),
    }
}

/// 0 to 100; 100 only when everything is flushed.
fn percent(job: &Job) -> u16 {
    match (job.state, job.bytes_total) {
        (JobState::Done, _) => 100,
        (_, Some(total)) if total > 0 => {
            u16::try_from(u128::from(job.bytes) * 100 / u128::from(total)).unwrap_or(99).min(99)
        }
        _ => 0,
    }
}

/// A job as an instance.
fn job_instance(job: &Job, suspended: bool) -> Instance {
    let (state, operational) = states(job.state, suspended);
    let ended = job.ended.as_deref();
    let cause = || job.message.clone().unwrap_or_default();
    let failed = matches!(job.state, JobState::Failed | JobState::Cancelled);
    let health: u16 = if job.state == JobState::Failed { 25 } else { 5 };
    Instance::at(job_path(job.id))
        .with("Name", format!("{}: {} to {}", job.kind, job.source, job.target))
        .with("ElementName", format!("{} {}", job.kind, job.id))
        .with("JobState", state)
        .with("OperationalStatus", operational)
        .with("StatusDescriptions", Vec::<String>::new())
        .with("HealthState", health)
        .with("JobStatus", job.message.clone().unwrap_or_else(|| job.state.to_string()))
        .with("PercentComplete", percent(job))
        .with("TimeSubmitted", moment(Some(&job.created)))
        .with("StartTime", moment(job.started.as_deref()))
        .with("ElapsedTime", interval(job.started.as_deref(), ended))
        .with("TimeOfLastStateChange", moment(ended.or(job.started.as_deref())))
        .with("DeleteOnCompletion", false)
        .with("Owner", job.requested_by.clone())
        .with("Notify", "")
        .with("ErrorCode", u16::from(job.state == JobState::Failed))
        .with("ErrorDescription", if failed { cause() } else { String::new() })
        .with("Kind", job.kind.as_str())
        .with("Source", job.source.clone())
        .with("Target", job.target.clone())
        .with("RequestedBy", job.requested_by.clone())
        .with("BytesCopied", job.bytes)
        .with("BytesTotal", job.bytes_total)
        .with("Path", job.path.map(|path| path.as_str()))
        .with("PathReason", job.path_reason.clone())
        .with("StateText", job.state.as_str())
}

impl Model<'_> {
    /// The service of the NDMP server.
    pub(super) fn tape_server(&self) -> Path {
        of_system(&self.appliance_name(), "Twinreel_TapeServer", ("Name", "ndmp".into()))
    }

    /// The newest jobs, or the one that is asked for.
    fn jobs(&self, sink: &Sink<'_>) -> Result<Vec<Job>, CimError> {
        let catalogue = &self.engine.ground.catalogue;
        let one = sink.like.filter(|like| cim::same_name(&like.class, "Twinreel_ConcreteJob"));
        if let Some(path) = one {
            let id = job_of(path).map(|id| catalogue.job(id)).transpose();
            return Ok(id.map_err(CimError::failed)?.flatten().into_iter().collect());
        }
        catalogue.newest_jobs(JOBS_MAX).map_err(CimError::failed)
    }

    /// The service that a job belongs to.
    fn owner(&self, job: &Job) -> Path {
        let of_copies = job.requested_by.starts_with("smis ");
        let library = |text: &str| text.split_once('/').map(|(library, _)| library.to_owned());
        let of = |text: &str| {
            let name = library(text)?;
            let mut all = self.libraries();
            all.find(|l| l.names.library().as_str() == name && l.has_replication())
        };
        match of(&job.source).or_else(|| of(&job.target)).filter(|_| of_copies) {
            Some(library) => library.names.replication(),
            None => self.tape_server(),
        }
    }

    /// The tapes that a job's target names, as far as they are in a library; of a list those of
    /// its copies.
    fn affected(&self, job: &Job) -> Result<Vec<Path>, CimError> {
        if !matches!(job.kind, JobKind::Copy) {
            return Ok(Vec::new());
        }
        let last = |job: &Job| self.partition(job.target.rsplit(", ").next()?);
        let Some(parts) = parts_of(job) else { return Ok(last(job).into_iter().collect()) };
        let rows = parts.into_iter().map(|id| self.engine.ground.catalogue.job(id));
        let rows: Result<Vec<_>, _> = rows.collect();
        Ok(rows.map_err(CimError::failed)?.iter().flatten().filter_map(last).collect())
    }

    /// Whether the class is one of these.
    pub(super) fn job_instances(&self, class: &str, sink: &mut Sink<'_>) -> Result<bool, CimError> {
        match class {
            "Twinreel_TapeServer" => {
                sink.add(self.tape_server(), |instance| {
                    let instance = instance
                        .with("ElementName", "NDMP server")
                        .with("Started", true)
                        .with("StartMode", "Automatic");
                    super::health::Health::Good.enabled(instance)
                });
            }
            "Twinreel_ConcreteJob" => {
                for job in self.jobs(sink)? {
                    let suspended = self.engine.copies.is_suspended(job.id);
                    sink.add(job_path(job.id), |_| job_instance(&job, suspended));
                }
            }
            "CIM_OwningJobElement" => {
                for job in self.jobs(sink)? {
                    let ends =
                        [("OwningElement", self.owner(&job)), ("OwnedElement", job_path(job.id))];
                    sink.join("CIM_OwningJobElement", ends);
                }
            }
            "CIM_AffectedJobElement" => {
                for job in self.jobs(sink)? {
                    for tape in self.affected(&job)? {
                        let ends =
                            [("AffectedElement", tape), ("AffectingElement", job_path(job.id))];
                        // 5: Other.
                        sink.join_with("CIM_AffectedJobElement", ends, |i| {
                            i.with("ElementEffects", vec![5u16])
                                .with("OtherElementEffectsDescriptions", vec!["Target of the copy"])
                        });
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The sense data that a message names: `sense 03/0c/00`.
fn sense_in(message: &str) -> Option<Sense> {
    let (_, rest) = message.split_once("sense ")?;
    let mut bytes = rest.get(..8)?.split('/').map(|text| u8::from_str_radix(text, 16).ok());
    let mut next = || bytes.next().flatten();
    Some(Sense::new(next()?, next()?, next()?))
}

/// The errors of a job that failed, for GetError and GetErrors.
pub(in crate::smis) fn job_errors(job: &Job) -> Vec<Instance> {
    if job.state != JobState::Failed {
        return Vec::new();
    }
    let mut message = job.message.clone().unwrap_or_default();
    let about = messages::message(messages::COPY_FAILED);
    let mut action = about.map(|about| about.action.clone()).unwrap_or_default();
    // Unknown; Storage Capacity Problem; I/O Device Error.
    let mut cause = if message.contains("too small") { 50u16 } else { 0 };
    if let Some(sense) = sense_in(&message) {
        let advice = sense.advice();
        message = format!("{message} ({})", advice.meaning);
        action = advice.action.words().to_owned();
        cause = 24;
    }
    vec![
        Instance::embedded("CIM_Error")
            .with("ErrorType", 4u16)
            .with("OwningEntity", "Twinreel")
            .with("MessageID", messages::COPY_FAILED)
            .with("Message", message)
            .with("MessageArguments", vec![job.source.clone(), job.target.clone()])
            .with("PerceivedSeverity", 5u16)
            .with("ProbableCause", cause)
            .with("RecommendedActions", vec![action])
            .with("ErrorSource", job_path(job.id).to_string())
            .with("ErrorSourceFormat", 2u16)
            .with("CIMStatusCode", 1u32)
            .with("CIMStatusCodeDescription", Value::Null),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_data_in_a_message_are_told_in_words() {
        let sense = sense_in("the device reports sense 03/0c/00; flushed: 5 bytes").unwrap();
        assert_eq!((sense.key, sense.asc, sense.ascq), (3, 0x0c, 0));
        assert!(!sense.advice().meaning.is_empty());
        for other in ["no such words", "sense ", "sense 03/0c", "sense zz/00/00", "sense é/00/00"]
        {
            assert!(sense_in(other).is_none(), "{other}");
        }
    }
}
