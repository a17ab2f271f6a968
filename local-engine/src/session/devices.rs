//! What a session does with devices: opening, steps, CDBs, and giving them back.

use std::sync::Arc;
use std::time::Duration;

use model::DeviceRole;
use ndmp::server::{Cdb, CdbOutcome, DeviceEntry, DeviceReply, DeviceRequest};
use ndmp::tape::{DriveStep, Failure, FailureKind, StepResult};
use service::messages;
use tape::{CdbRequest, Completion, Control};

use super::{Shell, note};
use crate::device::{DeviceLine, Owner, failure, run_step};

/// How long opening a device may take, one of another site included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one step of a drive may take: a LOCATE over a whole tape, a wait for a site to return.
const STEP_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long each step of the clean-up behind a client may take: a flush, a filemark.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(600);
/// The time limit of a CDB whose sender set none.
const CDB_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) fn gone() -> Failure {
    Failure::new(FailureKind::Io, "the device is gone; open it anew")
}

impl Shell {
    fn control(&self, timeout: Duration) -> Control {
        Control::new(timeout, self.cancel.clone())
    }

    pub(super) async fn device(&mut self, request: DeviceRequest) -> DeviceReply {
        match request {
            DeviceRequest::OpenTape { name, .. } => self.open_tape(name).await,
            DeviceRequest::CloseTape => {
                if let Some(drive) = self.drive.take() {
                    drive.close().await;
                }
                self.tell_ended();
                DeviceReply::Done
            }
            DeviceRequest::Drive(step) => DeviceReply::Step(self.step(step).await),
            DeviceRequest::OpenScsi { name } => self.open_scsi(name).await,
            DeviceRequest::CloseScsi => {
                if let Some(scsi) = self.scsi.take() {
                    scsi.close().await;
                }
                DeviceReply::Done
            }
            DeviceRequest::ResetScsi => self.reset().await,
            DeviceRequest::ExecuteCdb(cdb) => self.execute(cdb).await,
            DeviceRequest::ListTapes => self.devices(|role| matches!(role, DeviceRole::Drive(_))),
            DeviceRequest::ListScsi => self.devices(|role| role == DeviceRole::Changer),
        }
    }

    fn devices(&self, filter: impl Fn(DeviceRole) -> bool) -> DeviceReply {
        let lines = self.shared.registry.devices(filter).into_iter();
        let user = self.session.user();
        let may = |line: &DeviceLine| self.shared.admission.device(user, &line.name);
        DeviceReply::Devices(lines.filter(may).map(entry).collect())
    }

    /// Whether the user may open the device; what is no device is refused elsewhere.
    async fn may_open(&mut self, name: &str) -> Result<(), Failure> {
        let Ok(device) = name.parse() else { return Ok(()) };
        let user = self.session.user();
        if self.shared.admission.device(user, &device) {
            return Ok(());
        }
        let user = user.unwrap_or("anybody").to_owned();
        let text = format!("{user} may not use {device}; see devices of [[ndmp.user]]");
        let address = self.opener.who.clone();
        let words = vec![("user", user), ("device", device.to_string()), ("address", address)];
        note(&self.shared, messages::DEVICE_DENIED, words).await;
        Err(Failure::new(FailureKind::Denied, text))
    }

    async fn open_tape(&mut self, name: String) -> DeviceReply {
        if let Err(denied) = self.may_open(&name).await {
            return DeviceReply::Failed(denied);
        }
        let (registry, opener) = (Arc::clone(&self.shared.registry), self.opener.clone());
        let control = self.control(OPEN_TIMEOUT);
        let opened = blocking(move || {
            let (claim, drive) = registry.open_tape(&name, &opener, &control)?;
            started(Owner::start("tape", (drive, claim)))
        });
        match opened.await {
            Ok(owner) => {
                self.drive = Some(owner);
                DeviceReply::Done
            }
            Err(failure) => DeviceReply::Failed(failure),
        }
    }

    async fn open_scsi(&mut self, name: String) -> DeviceReply {
        if let Err(denied) = self.may_open(&name).await {
            return DeviceReply::Failed(denied);
        }
        let (registry, opener) = (Arc::clone(&self.shared.registry), self.opener.clone());
        let control = self.control(OPEN_TIMEOUT);
        let opened = blocking(move || {
            let (claim, device) = registry.open_scsi(&name, &opener, &control)?;
            started(Owner::start("scsi", (device, claim)))
        });
        match opened.await {
            Ok(owner) => {
                self.scsi = Some(owner);
                DeviceReply::Done
            }
            Err(failure) => DeviceReply::Failed(failure),
        }
    }

    /// Never asked for while a run has the drive: the session answers from what it knows then.
    async fn step(&mut self, step: DriveStep) -> StepResult {
        let leaving = self.leaving;
        let control = self.control(if leaving { LEAVING_TIMEOUT } else { STEP_TIMEOUT });
        // What the last flush makes safe of a copy that its application has left.
        let job = self.job.clone().filter(|_| leaving && matches!(step, DriveStep::Filemarks(_)));
        let bytes = self.plane.progress().bytes;
        let Some(owner) = &self.drive else { return StepResult::Failed(gone()) };
        let answer = owner.call(move |(drive, _)| {
            if leaving && !drive.is_reachable() {
                let text = "the drive can not be reached; it is freed as soon as it can";
                return StepResult::Failed(Failure::new(FailureKind::Io, text));
            }
            let result = run_step(drive.tape(), step, &control);
            if let (Some(job), StepResult::Written | StepResult::EarlyWarning) = (job, &result)
                && let Ok(position) = drive.tape().position(&control)
            {
                job.flushed(position.object, bytes);
            }
            result
        });
        answer.await.unwrap_or_else(|_| StepResult::Failed(gone()))
    }

    async fn reset(&mut self) -> DeviceReply {
        let control = self.control(STEP_TIMEOUT);
        let Some(owner) = &self.scsi else { return DeviceReply::Failed(gone()) };
        match owner.call(move |(device, _)| device.reset(&control)).await {
            Ok(Ok(())) => DeviceReply::Done,
            Ok(Err(error)) => DeviceReply::Failed(failure(&error)),
            Err(_) => DeviceReply::Failed(gone()),
        }
    }

    async fn execute(&mut self, cdb: Cdb) -> DeviceReply {
        let timeout = cdb.timeout_ms.map_or(CDB_TIMEOUT, |ms| Duration::from_millis(ms.into()));
        let sent = cdb.data_out.len();
        let request = CdbRequest {
            cdb: cdb.cdb.to_vec(),
            data_out: cdb.data_out,
            data_in_max: cdb.data_in_max,
            timeout,
        };
        let control = self.control(timeout);
        let Some(owner) = &self.scsi else { return DeviceReply::Failed(gone()) };
        match owner.call(move |(device, _)| device.execute(&request, &control)).await {
            Ok(Ok(completion)) => DeviceReply::Cdb(outcome(completion, sent)),
            Ok(Err(error)) => DeviceReply::Failed(failure(&error)),
            Err(_) => DeviceReply::Failed(gone()),
        }
    }
}

fn started<T>(owner: std::io::Result<T>) -> Result<T, Failure> {
    owner.map_err(|error| {
        let text = format!("the system gives no thread for the device: {error}");
        Failure::new(FailureKind::Io, text)
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::new(FailureKind::Io, error.to_string())),
    }
}

fn outcome(completion: Completion, sent: usize) -> CdbOutcome {
    CdbOutcome {
        status: completion.status,
        data_out_moved: u32::try_from(sent).unwrap_or(u32::MAX),
        data_in: completion.data_in.into(),
        sense: completion.sense.into(),
    }
}

fn entry(line: DeviceLine) -> DeviceEntry {
    DeviceEntry {
        model: line.model,
        properties: vec![
            ("serial".into(), line.serial),
            ("library".into(), line.name.library.to_string()),
        ],
        device: line.name.to_string(),
    }
}
