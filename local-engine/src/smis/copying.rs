//! Replication Services and Job Control: methods, and what is joined by them.

use std::sync::Arc;

use cim::{Caller, CimError, Instance, Invoked, Method, Path, Value};
use model::JobId;
use svs::{Job, JobFilter, JobKind, JobState, MountPriority};

use super::capabilities;
use super::model::{Look, Model, TapeName, job_errors, job_of, job_path, tape_of};
use super::not_available;
use crate::copies::{OnFailure, Order, Refused, Section, TapeAt};
use crate::engine::Engine;

/// How `requested_by` of a job begins that was begun here.
const BY: &str = "smis ";

/// Return codes of the replication service.
pub(super) const DONE: u32 = 0;
pub(super) const NOT_SUPPORTED: u32 = 1;
const FAILED: u32 = 4;
pub(super) const INVALID: u32 = 5;
const IN_USE: u32 = 6;
const STARTED: u32 = 4096;
/// RequestStateChange: the job is in no state to do so.
const INVALID_TRANSITION: u32 = 4097;

/// SyncType Clone, Mode Asynchronous.
pub(super) const CLONE: i128 = 8;
pub(super) const ASYNCHRONOUS: i128 = 3;
/// Operations of ModifyReplicaSynchronization.
pub(super) const ABORT: i128 = 2;
pub(super) const DETACH: i128 = 8;
pub(super) const RESUME: i128 = 16;
pub(super) const SUSPEND: i128 = 22;
/// Overwrite and Append of TargetPosition.
const OVERWRITE: i128 = 2;
const APPEND: i128 = 3;
/// Continue and Stop of OnGroupOrListError.
const CONTINUE: i128 = 2;
const STOP: i128 = 3;
/// Pairs of one list.
const LIST_MAX: usize = 64;

/// The parameters of a call by name.
struct Inputs(Vec<(String, Value)>);

impl Inputs {
    fn get(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or(&Value::Null, |(_, value)| value)
    }

    fn references(&self, name: &str) -> Vec<Path> {
        let all = self.get(name).elements().iter();
        all.filter_map(|one| match one {
            cim::Scalar::Reference(path) => Some(path.as_ref().clone()),
            _ => None,
        })
        .collect()
    }
}

/// Calls a method of a service or a job.
pub(super) fn invoke(
    engine: &Arc<Engine>,
    path: &Path,
    method: &Method,
    inputs: Vec<(String, Value)>,
    caller: &Caller,
) -> Result<Invoked, CimError> {
    let inputs = Inputs(inputs);
    let call = Calling { engine, service: path, inputs, caller };
    match (path.class.to_ascii_lowercase().as_str(), method.feature.name.as_ref()) {
        ("twinreel_replicationservice", "CreateElementReplica") => call.create_element(),
        ("twinreel_replicationservice", "CreateListReplica") => call.create_list(),
        ("twinreel_replicationservice", "CopyTapeSection") => call.copy_section(),
        ("twinreel_replicationservice", "GetAvailableTargetElements") => call.targets(),
        ("twinreel_replicationservice", "ModifyReplicaSynchronization") => call.modify(),
        ("twinreel_replicationservice", "GetReplicationRelationships") => call.relationships(),
        ("twinreel_replicationservice", "GetReplicationRelationshipInstances") => {
            call.relationship_instances()
        }
        ("cim_replicationservicecapabilities", name) => {
            let told = capabilities::answer(name, |input| call.inputs.get(input).clone());
            told.ok_or_else(|| not_available(path, method))
        }
        ("twinreel_concretejob", "RequestStateChange") => call.change_job(),
        ("twinreel_concretejob", "KillJob") => Ok(call.kill_job()),
        ("twinreel_concretejob", "GetError") => call.job_error(),
        ("twinreel_concretejob", "GetErrors") => call.job_errors(),
        _ => Err(not_available(path, method)),
    }
}

struct Calling<'a> {
    engine: &'a Arc<Engine>,
    service: &'a Path,
    inputs: Inputs,
    caller: &'a Caller,
}

fn at(name: TapeName) -> TapeAt {
    TapeAt { library: name.library, barcode: name.barcode }
}

/// What a setting says of the section: `None` where it can not be.
fn section_of(start: &Value, count: &Value, position: &Value) -> Option<(Section, bool)> {
    let number = |value: &Value| value.integer().map(u64::try_from).transpose().ok();
    let start = number(start)?.unwrap_or(0);
    let append = match position.integer() {
        None | Some(OVERWRITE) => false,
        Some(APPEND) => true,
        Some(_) => return None,
    };
    Some((Section { start, count: number(count)? }, append))
}

/// What a refused copy returns.
fn code_of(copy: &str, refused: &Refused) -> u32 {
    tracing::info!(copy, %refused, "SMI-S: a copy was refused");
    match refused {
        Refused::Invalid(_) => INVALID,
        Refused::InUse(_) => IN_USE,
        Refused::TooMany | Refused::Failed(_) | Refused::Catalogue(_) => FAILED,
    }
}

impl Calling<'_> {
    fn order(&self, source: &Path, target: &Path, part: (Section, bool)) -> Result<Order, u32> {
        let tape = |path| tape_of(path).map(at).ok_or(INVALID);
        let (source, target) = (tape(source)?, tape(target)?);
        // The service of a library copies from it and to it.
        let own = self.service.text("SystemName").split_once(':').map(|(_, library)| library);
        let concerns = |tape: &TapeAt| own == Some(tape.library.as_str());
        if !concerns(&source) && !concerns(&target) {
            return Err(INVALID);
        }
        let (section, append) = part;
        let requested_by = format!("{BY}{} at {}", self.caller.user, self.caller.host);
        let (generation, begins) = (None, None);
        let verify = None;
        let priority = MountPriority::Copy;
        Ok(Order {
            source,
            target,
            section,
            append,
            verify,
            requested_by,
            priority,
            generation,
            begins,
        })
    }

    /// Begins a copy: the job, or the return code.
    fn begin(&self, source: &Path, target: &Path, part: (Section, bool)) -> Result<JobId, u32> {
        let order = self.order(source, target, part)?;
        let names = format!("{} to {}", order.source, order.target);
        self.engine.copy(order).map_err(|refused| code_of(&names, &refused))
    }

    /// The section that an embedded setting wants.
    fn setting(&self) -> Option<(Section, bool)> {
        match self.inputs.get("ReplicationSettingData").instance() {
            None => Some((Section { start: 0, count: None }, false)),
            Some(setting) => section_of(
                setting.get("SourceStartObject"),
                setting.get("SourceObjectCount"),
                setting.get("TargetPosition"),
            ),
        }
    }

    /// Whether what is asked for is an asynchronous clone.
    fn kind_fits(&self) -> bool {
        let mode = self.inputs.get("Mode").integer();
        let kind = self.inputs.get("SyncType").integer();
        kind == Some(CLONE) && mode.is_none_or(|mode| mode == ASYNCHRONOUS)
    }

    fn create_element(&self) -> Result<Invoked, CimError> {
        if !self.kind_fits() {
            return Ok(Invoked::code(NOT_SUPPORTED));
        }
        let ends = (self.inputs.get("SourceElement"), self.inputs.get("TargetElement"));
        let (Some(source), Some(target)) = (ends.0.reference(), ends.1.reference()) else {
            return Ok(Invoked::code(INVALID));
        };
        let Some(part) = self.setting() else { return Ok(Invoked::code(INVALID)) };
        Ok(match self.begin(source, target, part) {
            Ok(job) => Invoked::code(STARTED)
                .with("Job", job_path(job))
                .with("TargetElement", target.clone())
                .with("Synchronization", synchronized(source.clone(), target.clone())),
            Err(code) => Invoked::code(code),
        })
    }

    /// One job for the list; each pair has one of its own too.
    fn create_list(&self) -> Result<Invoked, CimError> {
        if !self.kind_fits() {
            return Ok(Invoked::code(NOT_SUPPORTED));
        }
        let sources = self.inputs.references("SourceElements");
        let targets = self.inputs.references("TargetElements");
        let Some(part) = self.setting() else { return Ok(Invoked::code(INVALID)) };
        if sources.is_empty() || sources.len() != targets.len() || sources.len() > LIST_MAX {
            return Ok(Invoked::code(INVALID));
        }
        let pairs: Vec<_> = sources.into_iter().zip(targets).collect();
        let orders = pairs.iter().map(|(source, target)| self.order(source, target, part));
        let orders: Vec<Order> = match orders.collect() {
            Ok(orders) => orders,
            Err(code) => return Ok(Invoked::code(code)),
        };
        let setting = self.inputs.get("ReplicationSettingData").instance();
        let on_failure = match setting.and_then(|it| it.get("OnGroupOrListError").integer()) {
            None | Some(STOP) => OnFailure::Stop,
            Some(CONTINUE) => OnFailure::Continue,
            Some(_) => return Ok(Invoked::code(INVALID)),
        };
        Ok(match self.engine.copy_list(orders, on_failure) {
            Ok(job) => {
                let all = pairs.into_iter().map(|(source, target)| synchronized(source, target));
                let all: Vec<Path> = all.collect();
                Invoked::code(STARTED).with("Job", job_path(job)).with("Synchronizations", all)
            }
            Err(refused) => Invoked::code(code_of("a list", &refused)),
        })
    }

    fn copy_section(&self) -> Result<Invoked, CimError> {
        let ends = (self.inputs.get("SourceElement"), self.inputs.get("TargetElement"));
        let part = section_of(
            self.inputs.get("SourceStartObject"),
            self.inputs.get("SourceObjectCount"),
            self.inputs.get("TargetPosition"),
        );
        let (Some(source), Some(target), Some(part)) =
            (ends.0.reference(), ends.1.reference(), part)
        else {
            return Ok(Invoked::code(INVALID));
        };
        Ok(match self.begin(source, target, part) {
            Ok(job) => Invoked::code(STARTED).with("Job", job_path(job)),
            Err(code) => Invoked::code(code),
        })
    }

    /// Tapes of the other libraries that are free.
    fn targets(&self) -> Result<Invoked, CimError> {
        if !self.kind_fits() {
            return Ok(Invoked::code(NOT_SUPPORTED));
        }
        let source = self.inputs.get("SourceElement").reference().and_then(tape_of);
        let Some(source) = source else { return Ok(Invoked::code(INVALID)) };
        let most = self.inputs.get("MaxElementCount").integer().unwrap_or(0);
        let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let look = Look::default();
        let model = Model::new(self.engine, &look);
        let candidates: Vec<Path> = model.free_tapes(&source)?.into_iter().take(most).collect();
        Ok(Invoked::code(DONE).with("Candidates", candidates))
    }

    fn modify(&self) -> Result<Invoked, CimError> {
        let pair = self.inputs.get("Synchronization").reference();
        let ends =
            pair.map(|pair| (pair.reference("SystemElement"), pair.reference("SyncedElement")));
        let Some((Some(source), Some(target))) = ends else { return Ok(Invoked::code(INVALID)) };
        let names = (tape_of(source).map(at), tape_of(target).map(at));
        let (Some(source), Some(target)) = names else { return Ok(Invoked::code(INVALID)) };
        let filter = JobFilter {
            kinds: vec![JobKind::Copy],
            about: Some(target.to_string()),
            ..JobFilter::default()
        };
        let jobs = self.engine.ground.catalogue.jobs(&filter).map_err(CimError::failed)?;
        let (source, target) = (source.to_string(), target.to_string());
        let last = jobs.iter().rev().find(|job| job.source == source && job.target == target);
        let Some(job) = last else { return Ok(Invoked::code(INVALID)) };
        let done = match self.inputs.get("Operation").integer() {
            Some(ABORT) => self.engine.end_copy(job.id),
            Some(SUSPEND) => self.engine.suspend_copy(job.id),
            Some(RESUME) => self.engine.resume_copy(job.id),
            // A pair detaches itself: one that is over has, and one that is not will at its end.
            Some(DETACH) if job.state == JobState::Done => return Ok(Invoked::code(DONE)),
            Some(DETACH) => !job.state.is_final(),
            _ => return Ok(Invoked::code(NOT_SUPPORTED)),
        };
        Ok(match done {
            true => Invoked::code(STARTED).with("Job", job_path(job.id)),
            false => Invoked::code(FAILED),
        })
    }

    fn relationships(&self) -> Result<Invoked, CimError> {
        let look = Look::default();
        let model = Model::new(self.engine, &look);
        let all = model.instances("CIM_StorageSynchronized")?;
        let paths: Vec<Path> = all.into_iter().map(|instance| instance.path).collect();
        Ok(Invoked::code(DONE).with("Synchronizations", paths))
    }

    fn relationship_instances(&self) -> Result<Invoked, CimError> {
        let look = Look::default();
        let all = Model::new(self.engine, &look).instances("CIM_StorageSynchronized")?;
        Ok(Invoked::code(DONE).with("Synchronizations", all))
    }

    /// Only a copy of this engine is changed so: what an application runs, the application ends.
    fn change_job(&self) -> Result<Invoked, CimError> {
        const START: i128 = 2;
        const SUSPEND: i128 = 3;
        const TERMINATE: i128 = 4;
        const KILL: i128 = 5;
        let change = match self.inputs.get("RequestedState").integer() {
            Some(START) => Engine::resume_copy,
            Some(SUSPEND) => |engine: &Arc<Engine>, id| engine.suspend_copy(id),
            Some(TERMINATE | KILL) => |engine: &Arc<Engine>, id| engine.end_copy(id),
            Some(_) => return Ok(Invoked::code(NOT_SUPPORTED)),
            None => return Err(CimError::parameter("RequestedState is missing")),
        };
        Ok(Invoked::code(match job_of(self.service) {
            Some(id) if change(self.engine, id) => STARTED,
            _ => INVALID_TRANSITION,
        }))
    }

    fn kill_job(&self) -> Invoked {
        Invoked::code(match job_of(self.service) {
            Some(id) if self.engine.end_copy(id) => STARTED,
            _ => INVALID_TRANSITION,
        })
    }

    fn job(&self) -> Result<Job, CimError> {
        let id = job_of(self.service).ok_or_else(|| CimError::not_found(self.service))?;
        let job = self.engine.ground.catalogue.job(id).map_err(CimError::failed)?;
        job.ok_or_else(|| CimError::not_found(self.service))
    }

    fn job_error(&self) -> Result<Invoked, CimError> {
        let error = job_errors(&self.job()?).into_iter().next();
        Ok(Invoked::code(DONE).with("Error", error))
    }

    fn job_errors(&self) -> Result<Invoked, CimError> {
        Ok(Invoked::code(DONE).with("Errors", job_errors(&self.job()?)))
    }
}

/// DeleteInstance of a job: one that was begun here and has ended. What applications began, their
/// administrators look for.
pub(super) fn forget(engine: &Engine, path: &Path) -> Result<(), CimError> {
    let catalogue = &engine.ground.catalogue;
    let id = job_of(path).ok_or_else(|| CimError::not_found(path))?;
    let job = catalogue.job(id).map_err(CimError::failed)?;
    let job = job.ok_or_else(|| CimError::not_found(path))?;
    if !job.requested_by.starts_with(BY) || !job.state.is_final() {
        let text = "only a job that was begun here, and has ended, is removed";
        return Err(CimError::new(cim::Status::AccessDenied, text));
    }
    catalogue.forget_job(id).map(drop).map_err(CimError::failed)
}

/// The copies that have not ended.
pub(super) fn unfinished(engine: &Engine) -> Result<Vec<svs::JobStatus>, CimError> {
    let filter = JobFilter { kinds: vec![JobKind::Copy], ..JobFilter::unfinished() };
    engine.ground.catalogue.jobs(&filter).map_err(CimError::failed)
}

/// The path of a pair.
pub(super) fn synchronized(source: Path, target: Path) -> Path {
    Path::new(super::ROOT, "CIM_StorageSynchronized")
        .with_reference("SystemElement", source)
        .with_reference("SyncedElement", target)
}

/// CopyState and ProgressStatus of a copy.
pub(super) fn copy_states(state: JobState, suspended: bool) -> (u16, u16) {
    match state {
        // Suspended, Dormant.
        JobState::Pending if suspended => (9, 3),
        // Initialized, Pending.
        JobState::Pending | JobState::Scheduled => (2, 20),
        // Unsynchronized, Initializing.
        JobState::WaitingDrive | JobState::WaitingReplication => (3, 4),
        // Unsynchronized, Synchronizing.
        JobState::InProgress => (3, 6),
        // Suspended.
        JobState::PausedEom => (9, 16),
        JobState::Done => (4, 2),
        JobState::Failed => (5, 23),
        JobState::Cancelled => (12, 13),
    }
}

/// A pair that is being copied.
pub(super) fn pair(instance: Instance, job: &svs::JobStatus, suspended: bool) -> Instance {
    let (copy, progress) = copy_states(job.state, suspended);
    let percent = job.percent.unwrap_or(0.0).clamp(0.0, 100.0) as u16;
    instance
        // Asynchronous; Clone; full copy.
        .with("Mode", 3u16)
        .with("SyncType", 8u16)
        .with("ReplicaType", 2u16)
        .with("CopyType", 4u16)
        .with("CopyState", copy)
        .with("RequestedCopyState", 4u16)
        .with("ProgressStatus", progress)
        .with("PercentSynced", percent)
        .with("SyncMaintained", false)
        .with("UndiscoveredElement", Value::Null)
}
