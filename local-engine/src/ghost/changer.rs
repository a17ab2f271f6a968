//! A ghost library's changer.

use std::sync::{Arc, PoisonError, RwLock};

use link::{Answer, LibraryReport, Work};
use model::{DeviceName, ElementAddress};
use scsi::{Cdb, DeviceType, Sense};
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, Operation, Outcome,
    TapeError,
};

use super::way_lost;
use crate::device::EngineChanger;
use crate::link::{LeaseHandle, RemoteSite};

/// A changer of a remote site, opened by one session. Its lease is taken when it is first needed,
/// so that a listing works while the link is down.
pub(super) struct GhostChanger {
    site: Arc<RemoteSite>,
    report: Arc<RwLock<LibraryReport>>,
    lease: Option<LeaseHandle>,
    /// Restarts of the remote engine that this session knows of.
    restarts: u64,
    /// It was reset: what comes next is told so first.
    attention: bool,
}

impl GhostChanger {
    pub(super) fn new(site: Arc<RemoteSite>, report: Arc<RwLock<LibraryReport>>) -> Self {
        let restarts = site.restarts();
        Self { site, report, lease: None, restarts, attention: false }
    }

    fn report(&self) -> LibraryReport {
        self.report.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn perform(&mut self, operation: Operation, control: &Control) -> Result<Outcome, TapeError> {
        let attention = self.attention || self.restarts != self.site.restarts();
        if super::meets_attention(&operation) && attention {
            (self.restarts, self.attention) = (self.site.restarts(), false);
            return Err(TapeError::Check(Sense::POWER_ON_RESET));
        }
        let mut lease = match self.lease.take() {
            Some(lease) => lease,
            None => {
                let name = DeviceName::changer(self.report().name);
                self.site.open(name, control).map_err(way_lost)?
            }
        };
        let answer = lease.perform(Work::Operation(operation), control, &mut |_, _| {});
        // A lease that is over is taken anew by the next operation.
        if !lease.is_useless() {
            self.lease = Some(lease);
        }
        match answer? {
            Answer::Outcome(outcome) => Ok(outcome),
            Answer::Failed(error) => Err(error),
            _ => Err(TapeError::Lost("the remote gave another answer".into())),
        }
    }

    /// Brings the report in line with a move at once: a copy that begins now names its tape by it.
    fn note_move(&self, request: &CdbRequest, completion: &Completion) {
        let moved = Cdb::parse(DeviceType::Changer, &request.cdb);
        if let (0, Ok(Cdb::MoveMedium { source, destination, .. })) = (completion.status, moved) {
            let mut report = self.report.write().unwrap_or_else(PoisonError::into_inner);
            report.moved(source, destination);
        }
    }

    fn not_ready<T>(&self) -> Result<T, TapeError> {
        Err(TapeError::Check(Sense::new(0x02, 0x04, 0x00)))
    }
}

impl EngineChanger for GhostChanger {
    /// The link has no reset. Giving the device back and taking it anew ends what this initiator
    /// holds there.
    fn reset(&mut self, control: &Control) -> Result<(), TapeError> {
        if !self.site.is_up() {
            return self.not_ready();
        }
        self.attention = true;
        self.lease.take().map_or(Ok(()), |lease| lease.close(control))
    }
}

impl MediumChanger for GhostChanger {
    fn identity(&self) -> DeviceIdentity {
        self.report().identity
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        if !self.site.is_up() {
            return Ok(self.report().inventory);
        }
        match self.perform(Operation::Inventory, control)? {
            Outcome::Inventory(inventory) => Ok(inventory),
            _ => Err(TapeError::Lost("the remote gave another answer".into())),
        }
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        if !self.site.is_up() {
            return self.not_ready();
        }
        self.perform(Operation::Initialize, control).map(drop)
    }

    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        if !self.site.is_up() {
            return self.not_ready();
        }
        self.perform(Operation::Move { from, to }, control).map(drop)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        if self.site.is_up() {
            match self.perform(Operation::Cdb(request.clone()), control) {
                Ok(Outcome::Completion(completion)) => {
                    self.note_move(request, &completion);
                    return Ok(completion);
                }
                Ok(_) => return Err(TapeError::Lost("the remote gave another answer".into())),
                Err(TapeError::Unreachable(_)) => {}
                Err(TapeError::Check(sense)) => return Ok(Completion::check(sense)),
                Err(error) => return Err(error),
            }
        }
        let report = self.report();
        let inventory = Some(&report.inventory);
        Ok(tape::target::offline(DeviceType::Changer, &report.identity, inventory, request))
    }
}
