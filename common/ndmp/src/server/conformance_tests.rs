//! What ndmjob's conformance sets check, as unit tests: all 100 checks of test-mover, and the
//! opening and basic parts of test-tape.

use super::rig::{DRIVE, Rig};
use crate::wire::ErrorCode::{self, *};
use crate::wire::*;

/// Counts checks, so that none goes missing.
struct Checks {
    rig: Rig,
    version: Version,
    count: u32,
}

impl Checks {
    fn new(version: Version) -> Self {
        Self { rig: Rig::new(version), version, count: 0 }
    }

    fn check(&mut self, request: Request, expected: ErrorCode) {
        let code = request.code();
        let error = self.rig.ask(request);
        assert_eq!(error, expected, "{} {code} after {} checks", self.version, self.count);
        self.count += 1;
        // the conformance set reads on until its reply, so a notification may come any time
        self.rig.seen.clear();
    }

    fn bare(&mut self, code: MessageCode, expected: ErrorCode) {
        self.check(Request::Bare(code), expected);
    }

    fn state(&mut self, state: MoverState, halt: HaltReason) {
        let report = self.rig.mover();
        assert_eq!(
            (report.state, report.pause_reason, report.halt_reason),
            (state, PauseReason::NotApplicable, halt)
        );
        self.count += 1;
    }

    fn phase(&mut self, count: u32) {
        assert_eq!(std::mem::take(&mut self.count), count);
    }

    fn record_size(&mut self, expected: ErrorCode) {
        self.check(Request::MoverSetRecordSize(10240), expected);
    }

    fn empty_window(&mut self, expected: ErrorCode) {
        self.check(Request::MoverSetWindow { offset: 0, length: 0 }, expected);
    }

    fn idle(&mut self) {
        self.state(MoverState::Idle, HaltReason::NotApplicable);
    }

    fn listen(&mut self, mode: MoverMode, addr_type: AddrType, expected: ErrorCode) {
        self.check(Request::MoverListen { mode, addr_type }, expected);
    }

    fn listen_series(&mut self, mode: MoverMode, addr_type: AddrType, expected: ErrorCode) {
        self.idle();
        self.listen(mode, addr_type, expected);
        if expected != NoErr {
            return;
        }
        self.state(MoverState::Listen, HaltReason::NotApplicable);
        self.listen(mode, addr_type, IllegalState);
        self.bare(MessageCode::MoverContinue, IllegalState);
        self.bare(MessageCode::MoverStop, IllegalState);
        self.empty_window(if self.version < Version::V4 { NoErr } else { IllegalState });
        self.record_size(IllegalState);
        self.bare(MessageCode::MoverAbort, NoErr);
        self.state(MoverState::Halted, HaltReason::Aborted);
        self.bare(MessageCode::MoverStop, NoErr);
        self.idle();
    }

    fn each_way(&mut self, read: ErrorCode, write: ErrorCode) {
        for (mode, expected) in [(MoverMode::Read, read), (MoverMode::Write, write)] {
            for addr_type in [AddrType::Local, AddrType::Tcp] {
                self.listen_series(mode, addr_type, expected);
            }
        }
    }

    fn open(&mut self, mode: TapeOpenMode, expected: ErrorCode) {
        self.check(Request::TapeOpen { device: DRIVE.into(), mode }, expected);
    }

    fn close(&mut self, expected: ErrorCode) {
        self.bare(MessageCode::TapeClose, expected);
    }
}

#[test]
fn test_mover_passes_in_every_version() {
    for version in Version::ALL {
        let mut checks = Checks::new(version);
        // M-IDLE
        checks.idle();
        for code in [
            MessageCode::MoverContinue,
            MessageCode::MoverAbort,
            MessageCode::MoverStop,
            MessageCode::MoverClose,
        ] {
            checks.bare(code, IllegalState);
        }
        checks.empty_window(NoErr);
        checks.record_size(NoErr);
        checks.phase(7);
        // M-LISTEN
        checks.idle();
        checks.record_size(NoErr);
        checks.empty_window(NoErr);
        checks.phase(3);
        // M-LISTEN/bogus-args
        checks.listen(MoverMode::Unknown(123), AddrType::Local, IllegalArgs);
        checks.listen(MoverMode::Read, AddrType::Unknown(123), IllegalArgs);
        checks.phase(2);
        // M-LISTEN/not-open
        checks.each_way(DevNotOpen, DevNotOpen);
        checks.phase(8);
        // M-LISTEN/tape-ro
        checks.open(TapeOpenMode::Read, NoErr);
        checks.each_way(Permission, NoErr);
        checks.close(NoErr);
        checks.phase(30);
        // M-LISTEN/tape-rw
        checks.open(TapeOpenMode::ReadWrite, NoErr);
        checks.each_way(NoErr, NoErr);
        checks.close(NoErr);
        checks.phase(50);
    }
}

#[test]
fn test_tape_opens_and_closes() {
    for version in Version::ALL {
        let mut checks = Checks::new(version);
        // T-OC
        checks.close(DevNotOpen);
        let bogus = Request::TapeOpen { device: "bogus".into(), mode: TapeOpenMode::Read };
        checks.check(bogus, NoDevice);
        checks.open(TapeOpenMode::Unknown(123), IllegalArgs);
        checks.open(TapeOpenMode::Read, NoErr);
        checks.close(NoErr);
        checks.open(TapeOpenMode::ReadWrite, NoErr);
        checks.open(TapeOpenMode::Read, DeviceOpened);
        checks.close(NoErr);
        checks.phase(8);
        // T-BGS
        checks.bare(MessageCode::TapeGetState, DevNotOpen);
        checks.open(TapeOpenMode::Read, NoErr);
        checks.bare(MessageCode::TapeGetState, NoErr);
        checks.close(NoErr);
        checks.phase(4);
        // the first of T-BW and T-BR
        checks.check(Request::TapeWrite(vec![0; 1024].into()), DevNotOpen);
        checks.check(Request::TapeRead(1024), DevNotOpen);
        checks.open(TapeOpenMode::Read, NoErr);
        checks.check(Request::TapeWrite(vec![0; 1024].into()), Permission);
        checks.check(Request::TapeMtio { op: MtioOp::Rew, count: 1 }, NoErr);
        checks.close(NoErr);
    }
}
