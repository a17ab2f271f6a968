//! Proof of what a copy wrote, after each flush and before it is answered.

use std::time::Duration;

use copy::proof::{Proof, RecordDigest, Unproven};
use link::Verify;
use model::ObjectNumber;
use scsi::Sense;
use service::messages;
use svs::{EventKind, JobState, Verified};
use tape::{Control, Operation, TapeError};

use super::copying::Copying;
use super::seat::Seat;

/// Reading back takes as long as writing did; who waits for it can cancel nothing by then.
const READING_BACK: Duration = Duration::from_secs(30 * 24 * 3600);

impl Copying {
    /// Notes a record, where it is to be read back.
    pub(super) fn wrote(&mut self, object: ObjectNumber, length: usize, digest: &RecordDigest) {
        self.proof.wrote(object, length, digest);
    }

    /// Whether something of it is in the drive's buffer only.
    pub(super) fn is_unflushed(&self) -> bool {
        !self.flushed
    }

    /// Whether its records are to be read back.
    pub(super) fn reads_back(&self) -> bool {
        self.verify == Verify::Readback
    }

    /// What was flushed is proven in this way: the least proof of all counts.
    fn proven(&mut self, how: Verified) {
        self.verified = Some(self.verified.map_or(how, |before| before.min(how)));
    }
}

impl Seat {
    /// Whether the position behind a flush is part of the proof.
    pub(super) fn asks_for_position(&self) -> bool {
        self.copying.as_ref().is_none_or(|copying| copying.verify != Verify::None)
    }

    /// Proves what was flushed. `at` is where the drive stands, if it was asked, and where it
    /// stands again afterwards.
    ///
    /// # Errors
    /// What is on tape is not what was written, or can not be read: the copy has failed.
    pub(super) fn prove(&mut self, at: Option<ObjectNumber>) -> Result<(), TapeError> {
        let Some(copying) = &mut self.copying else { return Ok(()) };
        let how = match (copying.verify, at) {
            (Verify::None, _) | (_, None) => Verified::None,
            (Verify::Readback, Some(_)) if !copying.proof.is_empty() => {
                return self.read_back(at.unwrap_or(0));
            }
            // What was proven before is not proven less by a flush of nothing.
            (Verify::Readback, Some(_)) => return Ok(()),
            (Verify::Position, Some(_)) => Verified::Position,
        };
        copying.proven(how);
        Ok(())
    }

    fn read_back(&mut self, at: ObjectNumber) -> Result<(), TapeError> {
        let Some((id, mut proof)) =
            self.copying.as_mut().map(|it| (it.id, std::mem::take(&mut it.proof)))
        else {
            return Ok(());
        };
        let text = "what was written is read back and compared";
        self.ground.jobs.enter(id, JobState::InProgress, Some(text));
        let control = Control::within(READING_BACK);
        let compared = self.compare(&mut proof, at, &control);
        self.ground.jobs.enter(id, JobState::InProgress, None);
        let Some(copying) = &mut self.copying else { return Ok(()) };
        match compared {
            Ok(true) => copying.proven(Verified::Readback),
            Ok(false) => copying.proven(Verified::Position),
            Err(cause) => {
                copying.proof = Proof::default();
                copying.fault = Some(cause.to_string());
                copying.proven(Verified::None);
                let words: [(&str, &dyn std::fmt::Display); 2] =
                    [("target", &self.name), ("cause", &cause)];
                let (subject, message) = (id.to_string(), messages::COPY_NOT_PROVEN);
                let catalogue = &self.ground.catalogue;
                messages::note(catalogue, EventKind::Job, message, &words, Some(&subject));
                // What was answered GOOD before is not on tape: that is what a deferred error says.
                let sense = Sense { deferred: true, ..Sense::WRITE_ERROR };
                return Err(TapeError::Check(sense));
            }
        }
        Ok(())
    }

    /// Reads back, and goes to where the tape stood.
    fn compare(
        &mut self,
        proof: &mut Proof,
        at: ObjectNumber,
        control: &Control,
    ) -> Result<bool, Unproven> {
        let drive = self.drive().map_err(Unproven::Drive)?;
        let whole = proof.read_back(drive, control, &mut |_| {})?;
        drive.locate(at, control).map_err(Unproven::Drive)?;
        Ok(whole)
    }

    /// Before the tape moves away from what a copy wrote, that is flushed and proven.
    pub(super) fn prove_before(
        &mut self,
        operation: &Operation,
        control: &Control,
    ) -> Result<(), TapeError> {
        let stays = match operation {
            Operation::Write(_) | Operation::WriteFilemarks(_) => true,
            Operation::Position | Operation::State => true,
            Operation::Cdb(request) => stays(&request.cdb),
            _ => false,
        };
        match self.copying.as_ref().filter(|copying| copying.verify != Verify::None) {
            Some(copying) if !stays && copying.is_unflushed() => self.flush(control),
            _ => Ok(()),
        }
    }
}

/// Whether a command leaves the tape where it is, or writes behind it.
fn stays(cdb: &[u8]) -> bool {
    const ASKS: [u8; 13] =
        [0x00, 0x03, 0x05, 0x0a, 0x10, 0x12, 0x1a, 0x34, 0x44, 0x4d, 0x5a, 0x8c, 0xa3];
    cdb.first().is_none_or(|code| ASKS.contains(code))
}
