//! One command to a device and what its ending means, whatever the command.

use std::time::{Duration, Instant};

use scsi::advice::Action;
use scsi::{Cdb, DeviceType, ModeForm, Sense, StandardInquiry, VitalPage, mode::ModeParameters};

use super::transport::{Data, ScsiCompletion, ScsiTransport, TransportError};
use crate::{CdbRequest, Completion, Control, DeviceIdentity, TapeError};

/// The longest transfer of one command: the length field of READ and WRITE has 24 bits.
pub(super) const TRANSFER_MAX: usize = 0xff_ffff;
/// How often a unit attention is passed over where looking again is the answer.
pub(super) const ATTENTIONS_MAX: usize = 16;
/// The longest pause without a look at the cancel token.
const SLICE: Duration = Duration::from_millis(50);

mod status {
    pub(super) const GOOD: u8 = 0x00;
    pub(super) const CHECK_CONDITION: u8 = 0x02;
    pub(super) const BUSY: u8 = 0x08;
    pub(super) const RESERVATION_CONFLICT: u8 = 0x18;
    pub(super) const TASK_SET_FULL: u8 = 0x28;
}

/// A command that the device executed: GOOD, or sense data that tell how it ended (keys 0, 1, 8
/// and D: filemark, length, early warning, end of data, overflow).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply {
    pub(super) sense: Option<Sense>,
    pub(super) residual: i64,
}

impl Reply {
    /// For commands to which no end but GOOD or a recovered error is a success.
    pub(super) fn done(&self) -> Result<(), TapeError> {
        match self.sense {
            Some(sense) if sense.key > 1 => Err(TapeError::Check(sense)),
            _ => Ok(()),
        }
    }
}

/// Why there is no [`Reply`].
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The command was not executed, or failed as told.
    Told(TapeError),
    /// Whether it was executed is unknown.
    Unknown(String),
}

/// How long a device is waited for: as long as what it says asks for, and says it only once.
struct Patience {
    since: Instant,
    told: Option<&'static str>,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), told: None }
    }

    fn lasts_for(&mut self, later: &TapeError) -> bool {
        let TapeError::Check(sense) = later else { return true };
        let advice = sense.advice();
        if self.told != Some(advice.meaning) {
            tracing::info!(%sense, meaning = advice.meaning, "waiting for a device");
            self.told = Some(advice.meaning);
        }
        match advice.action {
            Action::Wait(seconds) => self.since.elapsed() < Duration::from_secs(seconds.into()),
            _ => true,
        }
    }
}

/// A transport with the rules that hold for every command.
#[derive(Debug)]
pub(super) struct Channel<T> {
    transport: T,
    poll: Duration,
    /// How often something happened after which a device may not be as it was left.
    doubts: u64,
}

impl<T: ScsiTransport> Channel<T> {
    pub(super) fn new(transport: T) -> Self {
        Self { transport, poll: Duration::from_secs(1), doubts: 0 }
    }

    pub(super) fn transport(&self) -> &T {
        &self.transport
    }

    /// How often the device told a unit attention or the way to it broke.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts
    }

    /// Sends a CDB and takes note of what may have changed the device.
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        let completion = self.transport.execute(cdb, data, timeout);
        let is_doubtful = match &completion {
            Ok(it) => Sense::tell_unit_attention(&it.sense),
            Err(_) => true,
        };
        self.doubts += u64::from(is_doubtful);
        completion
    }

    pub(super) fn longest(&self) -> usize {
        self.transport.longest()
    }

    pub(super) fn set_poll(&mut self, poll: Duration) {
        self.poll = poll;
    }

    /// Sends a command, again while the device is busy or becoming ready.
    pub(super) fn send(
        &mut self,
        cdb: Cdb,
        data: &mut Data<'_>,
        control: &Control,
    ) -> Result<Reply, Fault> {
        let mut patience = Patience::new();
        loop {
            let later = match self.send_once(cdb, data, control)? {
                Ok(reply) => return Ok(reply),
                Err(later) => later,
            };
            if !patience.lasts_for(&later) {
                return Err(Fault::Told(later));
            }
            if !self.pause(control).map_err(Fault::Told)? {
                return Err(Fault::Told(later));
            }
        }
    }

    /// Sends a command. The inner error says that a later attempt may fare better.
    fn send_once(
        &mut self,
        cdb: Cdb,
        data: &mut Data<'_>,
        control: &Control,
    ) -> Result<Result<Reply, TapeError>, Fault> {
        control.check().map_err(Fault::Told)?;
        let timeout = cdb.timeout().min(control.remaining());
        let completion = match self.execute(&cdb.encode(), data.again(), timeout) {
            Ok(completion) => completion,
            Err(TransportError::NotSent(text)) => {
                return Err(Fault::Told(TapeError::Unreachable(text)));
            }
            Err(error) => return Err(Fault::Unknown(error.to_string())),
        };
        let residual = completion.residual;
        match completion.status {
            status::GOOD => Ok(Ok(Reply { sense: None, residual })),
            status::CHECK_CONDITION => {
                let sense = Sense::parse(&completion.sense);
                judge(sense.unwrap_or(Sense::INTERNAL_TARGET_FAILURE), residual)
            }
            status::BUSY | status::TASK_SET_FULL => Ok(Err(TapeError::Busy)),
            status::RESERVATION_CONFLICT => Err(Fault::Told(TapeError::ReservationConflict)),
            other => Err(Fault::Unknown(format!("status {other:02x}h"))),
        }
    }

    /// Lets some time pass; `false` when there is none left.
    fn pause(&self, control: &Control) -> Result<bool, TapeError> {
        let end = Instant::now() + self.poll;
        loop {
            match control.check() {
                Err(TapeError::TimedOut) => return Ok(false),
                other => other?,
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            std::thread::sleep(left.min(SLICE).min(control.remaining()));
        }
    }

    /// Sends a command that changes nothing, a second time if the first got no answer.
    pub(super) fn ask(
        &mut self,
        cdb: Cdb,
        mut data: Data<'_>,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        match self.send(cdb, &mut data, control) {
            Ok(reply) => return Ok(reply),
            Err(Fault::Told(error)) => return Err(error),
            Err(Fault::Unknown(_)) => {}
        }
        match self.send(cdb, &mut data, control) {
            Ok(reply) => Ok(reply),
            Err(Fault::Told(error)) => Err(error),
            Err(Fault::Unknown(_)) if control.remaining().is_zero() => Err(TapeError::TimedOut),
            Err(Fault::Unknown(text)) => Err(TapeError::Unreachable(text)),
        }
    }

    /// [`Channel::ask`], passing over unit attentions.
    pub(super) fn ask_anew(
        &mut self,
        cdb: Cdb,
        mut data: Data<'_>,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        for _ in 0..ATTENTIONS_MAX {
            match self.ask(cdb, data.again(), control) {
                Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
                result => return result,
            }
        }
        self.ask(cdb, data, control)
    }

    /// Fetches at most `length` bytes and cuts them to what came.
    pub(super) fn fetch(
        &mut self,
        cdb: Cdb,
        length: usize,
        control: &Control,
    ) -> Result<Vec<u8>, TapeError> {
        let mut bytes = vec![0; length];
        let reply = self.ask(cdb, Data::In(&mut bytes), control)?;
        reply.done()?;
        bytes.truncate(moved(length, reply.residual));
        Ok(bytes)
    }

    /// [`Channel::fetch`], passing over unit attentions.
    pub(super) fn fetch_anew(
        &mut self,
        cdb: Cdb,
        length: usize,
        control: &Control,
    ) -> Result<Vec<u8>, TapeError> {
        let mut bytes = vec![0; length];
        let reply = self.ask_anew(cdb, Data::In(&mut bytes), control)?;
        reply.done()?;
        bytes.truncate(moved(length, reply.residual));
        Ok(bytes)
    }

    /// Who the device is; never meets a unit attention (SPC-5 6.7).
    pub(super) fn identify(
        &mut self,
        kind: DeviceType,
        control: &Control,
    ) -> Result<DeviceIdentity, TapeError> {
        let bytes = self.fetch(Cdb::Inquiry { page: None, allocation: 96 }, 96, control)?;
        let found = StandardInquiry::parse(&bytes).map_err(malformed)?;
        if found.qualifier != 0 || found.device_type != kind as u8 {
            let text = format!("a device of type {:02x}h, not a {kind:?}", found.device_type);
            return Err(TapeError::Unreachable(text));
        }
        let bytes = self.fetch(Cdb::Inquiry { page: Some(0x80), allocation: 252 }, 252, control);
        let serial = match bytes.as_deref().map(VitalPage::parse) {
            Ok(Ok(VitalPage::SerialNumber(serial))) => serial,
            _ => String::new(),
        };
        let StandardInquiry { vendor, product, revision, .. } = found;
        Ok(DeviceIdentity { vendor, product, revision, serial })
    }

    /// MODE SENSE of the current values of a page, in the longer form if the device has it.
    pub(super) fn mode_sense(
        &mut self,
        page: u8,
        anew: bool,
        control: &Control,
    ) -> Result<ModeParameters, TapeError> {
        let cdb = |form, allocation| Cdb::ModeSense {
            form,
            no_descriptors: false,
            control: 0,
            page,
            subpage: 0,
            allocation,
        };
        let mut fetch = |form, length: usize| {
            let cdb = cdb(form, length as u16);
            let bytes = match anew {
                true => self.fetch_anew(cdb, length, control)?,
                false => self.fetch(cdb, length, control)?,
            };
            ModeParameters::parse(&bytes, form).map_err(malformed)
        };
        match fetch(ModeForm::Ten, 512) {
            Err(TapeError::Check(sense)) if sense.is(Sense::INVALID_OPERATION_CODE) => {
                fetch(ModeForm::Six, 255)
            }
            result => result,
        }
    }

    /// Passes a CDB through unchanged.
    pub(super) fn pass(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        control.check()?;
        if !(6..=scsi::CDB_MAX).contains(&request.cdb.len()) {
            return Err(TapeError::Check(Sense::INVALID_OPERATION_CODE));
        }
        let mut data_in = vec![0; (request.data_in_max as usize).min(TRANSFER_MAX)];
        let data = match (request.data_out.is_empty(), data_in.is_empty()) {
            (false, _) => Data::Out(&request.data_out),
            (true, false) => Data::In(&mut data_in),
            (true, true) => Data::None,
        };
        let is_in = matches!(data, Data::In(_));
        let timeout = request.timeout.min(control.remaining());
        match self.execute(&request.cdb, data, timeout) {
            Ok(ScsiCompletion { status, sense, residual }) => {
                let came = if is_in { moved(data_in.len(), residual) } else { 0 };
                data_in.truncate(came);
                Ok(Completion { status, sense, residual, data_in })
            }
            Err(TransportError::NotSent(text)) => Err(TapeError::Unreachable(text)),
            Err(TransportError::TimedOut) => Err(TapeError::TimedOut),
            Err(TransportError::Broken(text)) => Err(TapeError::PositionUnknown(text)),
        }
    }
}

/// Does it, passing over unit attentions.
pub(super) fn anew(mut step: impl FnMut() -> Result<(), TapeError>) -> Result<(), TapeError> {
    for _ in 0..ATTENTIONS_MAX {
        match step() {
            Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
            result => return result,
        }
    }
    step()
}

/// How much of a buffer came, by the residual.
pub(super) fn moved(length: usize, residual: i64) -> usize {
    length.saturating_sub(usize::try_from(residual.max(0)).unwrap_or(usize::MAX))
}

/// Data that do not have their form: the device is broken.
pub(super) fn malformed(error: scsi::Malformed) -> TapeError {
    tracing::warn!(%error, "a device answers malformed data");
    TapeError::Check(Sense::INTERNAL_TARGET_FAILURE)
}

fn judge(sense: Sense, residual: i64) -> Result<Result<Reply, TapeError>, Fault> {
    if sense.deferred {
        return Err(Fault::Told(TapeError::Check(sense)));
    }
    match sense.key {
        0x00 | 0x01 | 0x08 | 0x0d => Ok(Ok(Reply { sense: Some(sense), residual })),
        0x02 | 0x05 if matches!(sense.advice().action, Action::Wait(_)) => {
            Ok(Err(TapeError::Check(sense)))
        }
        0x0b => Err(Fault::Unknown(sense.to_string())),
        _ => Err(Fault::Told(TapeError::Check(sense))),
    }
}
