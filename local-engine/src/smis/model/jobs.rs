//! Jobs: every row of `job_status`, whoever began it.

use cim::{CimError, Instance, Path, Value};
use model::JobId;
use svs::{Job, JobFilter, JobKind, JobState};

use super::health::{interval, moment};
use super::names::of_system;
use super::{Model, Sink};
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
fn states(state: JobState) -> (u16, Vec<u16>) {
    match state {
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
pub(in crate::smis) fn job_instance(job: &Job) -> Instance {
    let (state, operational) = states(job.state);
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
        let filter = JobFilter { limit: JOBS_MAX, ..JobFilter::default() };
        let rows = catalogue.jobs(&filter).map_err(CimError::failed)?;
        let whole = rows.iter().map(|row| catalogue.job(row.id));
        let whole: Result<Vec<_>, _> = whole.collect();
        Ok(whole.map_err(CimError::failed)?.into_iter().flatten().collect())
    }

    /// The service that a job belongs to.
    fn owner(&self, job: &Job) -> Path {
        let of_copies = job.requested_by.starts_with("smis ");
        let library = |text: &str| text.split_once('/').map(|(library, _)| library.to_owned());
        let of = |text: &str| {
            let name = library(text)?;
            let mut all = self.libraries().iter();
            all.find(|l| l.names.library().as_str() == name && l.has_replication())
        };
        match of(&job.source).or_else(|| of(&job.target)).filter(|_| of_copies) {
            Some(library) => library.names.replication(),
            None => self.tape_server(),
        }
    }

    /// The tape that a job's target names, if it is in a library.
    fn affected(&self, job: &Job) -> Option<Path> {
        if !matches!(job.kind, JobKind::Copy) {
            return None;
        }
        self.partition(job.target.rsplit(", ").next()?)
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
                    sink.add(job_path(job.id), |_| job_instance(&job));
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
                    let Some(tape) = self.affected(&job) else { continue };
                    let ends = [("AffectedElement", tape), ("AffectingElement", job_path(job.id))];
                    // 5: Other.
                    sink.join_with("CIM_AffectedJobElement", ends, |i| {
                        i.with("ElementEffects", vec![5u16])
                            .with("OtherElementEffectsDescriptions", vec!["Target of the copy"])
                    });
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The errors of a job that failed, for GetError and GetErrors.
pub(in crate::smis) fn job_errors(job: &Job) -> Vec<Instance> {
    if job.state != JobState::Failed {
        return Vec::new();
    }
    let message = job.message.clone().unwrap_or_default();
    vec![
        Instance::embedded("CIM_Error")
            .with("ErrorType", 4u16)
            .with("OwningEntity", "Twinreel")
            .with("MessageID", "COPY-FAILED")
            .with("Message", message)
            .with("MessageArguments", vec![job.source.clone(), job.target.clone()])
            .with("PerceivedSeverity", 5u16)
            .with("ProbableCause", 0u16)
            .with("RecommendedActions", vec!["Look at the message and at the target's drive"])
            .with("ErrorSource", job_path(job.id).to_string())
            .with("ErrorSourceFormat", 2u16)
            .with("CIMStatusCode", 1u32)
            .with("CIMStatusCodeDescription", Value::Null),
    ]
}
