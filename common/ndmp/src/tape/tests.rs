//! The TAPE semantics of each version over a drive made of a list.

use bytes::Bytes;

use super::{FailureKind, Next, Tape, TapeOp};
use crate::testing::{ListDrive, Object};
use crate::wire::ErrorCode::{self, *};
use crate::wire::{MtioOp, Reply, ReplyBody, TapeOpenMode, TapeState, Version};

struct Bench {
    drive: ListDrive,
    tape: Tape,
}

impl Bench {
    fn new(version: Version, mode: TapeOpenMode, drive: ListDrive) -> Self {
        Self { drive, tape: Tape::new(version, mode) }
    }

    fn opened(version: Version) -> Self {
        let mut bench = Self::new(version, TapeOpenMode::ReadWrite, ListDrive::with_tape());
        assert_eq!(bench.run(TapeOp::Open).error, NoErr);
        bench
    }

    fn run(&mut self, op: TapeOp) -> Reply {
        let mut next = self.tape.begin(op);
        loop {
            match next {
                Next::Done(reply) => return reply,
                Next::Step(step) => next = self.tape.on_step(self.drive.perform(&step)),
            }
        }
    }

    fn mtio(&mut self, op: MtioOp, count: u32) -> (ErrorCode, u32) {
        let reply = self.run(TapeOp::Mtio { op, count });
        let ReplyBody::Residual(residual) = reply.body else { panic!("{reply:?}") };
        (reply.error, residual)
    }

    fn write(&mut self, length: usize) -> ErrorCode {
        let reply = self.run(TapeOp::Write(vec![7; length].into()));
        let written = if reply.error == NoErr { length as u32 } else { 0 };
        assert_eq!(reply.body, ReplyBody::Written(written));
        reply.error
    }

    fn read(&mut self, count: u32) -> (ErrorCode, usize) {
        let reply = self.run(TapeOp::Read(count));
        let ReplyBody::Data(data) = reply.body else { panic!("{:?}", reply.body) };
        (reply.error, data.len())
    }

    fn state(&mut self) -> TapeState {
        let reply = self.run(TapeOp::GetState);
        assert_eq!(reply.error, NoErr);
        let ReplyBody::TapeState(state) = reply.body else { panic!("{:?}", reply.body) };
        state
    }

    /// File and block number, the latter `None` if unknown.
    fn place(&mut self) -> (u32, Option<u32>) {
        let state = self.state();
        (state.file_num, Some(state.blockno).filter(|block| *block != TapeState::UNKNOWN))
    }

    fn marks(&self) -> usize {
        self.drive.objects.iter().filter(|object| **object == Object::Mark).count()
    }
}

#[test]
fn opening_looks_at_the_medium() {
    let empty = ListDrive::default;
    let protected = || {
        let mut drive = ListDrive::with_tape();
        drive.loaded.write_protected = true;
        drive
    };
    for (drive, mode, error) in [
        (empty(), TapeOpenMode::Read, NoTapeLoaded),
        (empty(), TapeOpenMode::ReadWrite, NoTapeLoaded),
        (empty(), TapeOpenMode::Raw, NoErr),
        (protected(), TapeOpenMode::Read, NoErr),
        (protected(), TapeOpenMode::ReadWrite, WriteProtect),
        (protected(), TapeOpenMode::Raw, NoErr),
    ] {
        let mut bench = Bench::new(Version::V4, mode, drive);
        assert_eq!(bench.run(TapeOp::Open).error, error, "{mode}");
    }
}

#[test]
fn a_raw_drive_may_be_empty_and_filled_later() {
    let mut bench = Bench::new(Version::V4, TapeOpenMode::Raw, ListDrive::default());
    assert_eq!(bench.run(TapeOp::Open).error, NoErr);
    assert_eq!(bench.run(TapeOp::GetState).error, NoTapeLoaded);
    assert_eq!(bench.read(10).0, NoTapeLoaded);
    assert_eq!(bench.write(10), NoTapeLoaded);
    assert_eq!(bench.mtio(MtioOp::Tur, 1).0, NoTapeLoaded);
    bench.drive = ListDrive::with_tape();
    assert_eq!(bench.mtio(MtioOp::Tur, 1).0, NoErr);
    assert_eq!(bench.place(), (0, Some(0)));
    assert_eq!(bench.write(10), NoErr);
}

#[test]
fn a_protected_tape_opened_raw_fails_when_written() {
    let mut drive = ListDrive::with_tape();
    drive.loaded.write_protected = true;
    let mut bench = Bench::new(Version::V4, TapeOpenMode::Raw, drive);
    bench.run(TapeOp::Open);
    assert_eq!(bench.write(10), WriteProtect);
    assert_eq!(bench.mtio(MtioOp::Eof, 1), (WriteProtect, 1));
    assert_ne!(bench.state().flags & TapeState::WRITE_PROTECTED, 0);
}

#[test]
fn a_tape_opened_for_reading_is_not_written() {
    let mut bench = Bench::new(Version::V3, TapeOpenMode::Read, ListDrive::with_tape());
    bench.run(TapeOp::Open);
    assert_eq!(bench.write(10), Permission);
    assert_eq!(bench.write(0), Permission);
    assert_eq!(bench.mtio(MtioOp::Eof, 1), (Permission, 1));
    assert_eq!(bench.run(TapeOp::Close).error, NoErr);
    assert!(bench.drive.objects.is_empty());
}

#[test]
fn lengths_of_reading_and_writing() {
    for version in Version::ALL {
        let mut bench = Bench::opened(version);
        assert_eq!(bench.write(0), NoErr);
        assert_eq!(bench.write(1000), NoErr);
        assert_eq!(bench.write(1000), NoErr);
        bench.mtio(MtioOp::Rew, 1);
        assert_eq!(bench.read(0), (NoErr, 0));
        assert_eq!(bench.read(0x8000_0000), (IllegalArgs, 0));
        // cut off, and the rest is passed
        assert_eq!(bench.read(10), (NoErr, 10));
        assert_eq!(bench.place(), (0, Some(1)));
        assert_eq!(bench.read(5000), (NoErr, 1000));
    }
}

#[test]
fn filemarks_stop_reading_each_version_its_way() {
    for version in Version::ALL {
        let mut bench = Bench::opened(version);
        bench.write(100);
        bench.mtio(MtioOp::Eof, 1);
        assert_eq!(bench.place(), (1, Some(0)));
        bench.mtio(MtioOp::Rew, 1);
        bench.read(100);
        assert_eq!(bench.read(100), (Eof, 0));
        if version == Version::V4 {
            assert_eq!(bench.place(), (0, None));
            assert_eq!(bench.read(100), (Eof, 0));
            assert_eq!(bench.mtio(MtioOp::Fsf, 1), (NoErr, 0));
            assert_eq!(bench.place(), (1, Some(0)));
            assert_eq!(bench.read(100), (Eom, 0));
            assert_eq!(bench.read(100), (Eom, 0));
        } else {
            assert_eq!(bench.place(), (1, Some(0)));
            assert_eq!(bench.read(100), (Eof, 0));
            assert_eq!(bench.read(100), (Eof, 0));
        }
    }
}

/// The spacing of ndmjob's T-BWR and T-MTIO, over files of 3, 1 and 5 records.
#[test]
fn spacing_lands_where_each_version_wants_it() {
    for version in Version::ALL {
        let v4 = version == Version::V4;
        let files = [3u32, 1, 5];
        let mut bench = Bench::opened(version);
        for count in files {
            (0..count).for_each(|_| assert_eq!(bench.write(100), NoErr));
            assert_eq!(bench.mtio(MtioOp::Eof, 1), (NoErr, 0));
        }
        for (file, count) in (0u32..).zip(files) {
            assert_eq!(bench.mtio(MtioOp::Rew, 1), (NoErr, 0));
            assert_eq!(bench.place(), (0, Some(0)));
            assert_eq!(bench.mtio(MtioOp::Fsf, file), (NoErr, 0));
            assert_eq!(bench.place(), (file, Some(0)));
            assert_eq!(bench.mtio(MtioOp::Fsr, 1_000_000), (NoErr, 1_000_000 - count));
            if v4 {
                assert_eq!(bench.place(), (file, Some(count)));
            } else {
                assert_eq!(bench.place(), (file + 1, Some(0)));
                assert_eq!(bench.mtio(MtioOp::Bsf, 1), (NoErr, 0));
                assert_eq!(bench.place(), (file, None));
            }
            assert_eq!(bench.mtio(MtioOp::Bsr, 1_000_000), (NoErr, 1_000_000 - count));
            if file > 0 && !v4 {
                assert_eq!(bench.place(), (file - 1, None));
                assert_eq!(bench.mtio(MtioOp::Fsf, 1), (NoErr, 0));
            }
            assert_eq!(bench.place(), (file, Some(0)));
            assert_eq!(bench.mtio(MtioOp::Fsr, 0), (NoErr, 0));
            assert_eq!(bench.mtio(MtioOp::Fsr, count / 2), (NoErr, 0));
            assert_eq!(bench.place(), (file, Some(count / 2)));
            assert_eq!(bench.read(100), (NoErr, 100));
            assert_eq!(bench.mtio(MtioOp::Bsr, 1), (NoErr, 0));
            assert_eq!(bench.place(), (file, Some(count / 2)));
        }
    }
}

#[test]
fn spacing_at_the_ends_leaves_a_residual() {
    for version in Version::ALL {
        let mut bench = Bench::opened(version);
        assert_eq!(bench.mtio(MtioOp::Bsr, 100), (NoErr, 100));
        assert_eq!(bench.mtio(MtioOp::Bsf, 100), (NoErr, 100));
        assert_eq!(bench.mtio(MtioOp::Eof, 1), (NoErr, 0));
        assert_eq!(bench.mtio(MtioOp::Bsf, 100), (NoErr, 99));
        assert_eq!(bench.place(), (0, Some(0)));
        assert_eq!(bench.mtio(MtioOp::Fsf, 100), (NoErr, 99));
        assert_eq!(bench.place().0, 1);
        let end = if version == Version::V4 { Eom } else { Eof };
        assert_eq!(bench.read(100), (end, 0));
        assert_eq!(bench.mtio(MtioOp::Rew, 1), (NoErr, 0));
        assert_eq!(bench.write(512), NoErr);
        assert_eq!(bench.mtio(MtioOp::Bsr, 100), (NoErr, 99));
        assert_eq!(bench.mtio(MtioOp::Fsr, 100), (NoErr, 99));
        assert_eq!(bench.mtio(MtioOp::Fsr, 100), (NoErr, 100));
        assert_eq!(bench.mtio(MtioOp::Fsf, 100), (NoErr, 100));
    }
}

#[test]
fn the_forgotten_mark_is_written_once_and_only_where_writing_ended() {
    for (op, expected) in
        [(MtioOp::Rew, 1), (MtioOp::Off, 1), (MtioOp::Bsr, 0), (MtioOp::Bsf, 0), (MtioOp::Eof, 1)]
    {
        let mut bench = Bench::opened(Version::V4);
        bench.write(10);
        bench.write(10);
        assert_eq!(bench.mtio(op, 1).0, NoErr);
        assert_eq!(bench.run(TapeOp::Close).error, NoErr);
        assert_eq!(bench.marks(), expected, "{op}");
        let records = bench.drive.objects.len() - bench.marks();
        assert_eq!(records, 2, "{op}: nothing that was written is lost");
    }
    let mut bench = Bench::opened(Version::V4);
    bench.write(10);
    bench.run(TapeOp::Close);
    assert_eq!(bench.marks(), 1);
}

#[test]
fn early_warning_fails_one_write_and_the_end_all() {
    for version in Version::ALL {
        let mut bench = Bench::opened(version);
        bench.drive.warning = Some((250, 450));
        assert_eq!(bench.write(100), NoErr);
        assert_eq!(bench.write(100), NoErr);
        assert_eq!(bench.write(100), NoErr, "the one that crosses");
        assert_eq!(bench.write(100), Eom);
        assert_eq!(bench.write(100), NoErr);
        assert_eq!(bench.mtio(MtioOp::Eof, 1), (NoErr, 0));
        assert_eq!(bench.write(100), Io);
        assert_eq!(bench.write(100), Io);
        // on the next tape, or after going back, everything starts anew
        bench.mtio(MtioOp::Rew, 1);
        assert_eq!(bench.write(100), NoErr);
    }
    let mut bench = Bench::opened(Version::V4);
    bench.drive.warning = Some((150, 150));
    assert_eq!(bench.write(100), NoErr);
    assert_eq!(bench.write(100), Eom, "a drive that gave no warning");
    assert_eq!(bench.write(100), Io);
}

#[test]
fn attentions_are_passed_where_the_place_does_not_matter() {
    let mut drive = ListDrive::with_tape();
    drive.failures = vec![FailureKind::MediumChanged, FailureKind::Reset];
    let mut bench = Bench::new(Version::V4, TapeOpenMode::ReadWrite, drive);
    assert_eq!(bench.run(TapeOp::Open).error, NoErr);
    bench.write(10);
    bench.drive.failures = vec![FailureKind::Reset];
    assert_eq!(bench.write(10), Io);
    // the place is asked for anew, and no mark is written where the reset left the tape
    bench.drive.at = 0;
    assert_eq!(bench.place(), (0, Some(0)));
    bench.run(TapeOp::Close);
    assert_eq!(bench.marks(), 0);
    bench.drive.failures = vec![FailureKind::Reset; 9];
    assert_eq!(bench.run(TapeOp::GetState).error, Io, "not for ever");
}

#[test]
fn failures_are_said_in_the_protocols_words() {
    for (kind, error) in [
        (FailureKind::Busy, DeviceBusy),
        (FailureKind::Medium, Io),
        (FailureKind::TimedOut, Timeout),
        (FailureKind::NoMedium, NoTapeLoaded),
    ] {
        let mut bench = Bench::opened(Version::V4);
        bench.drive.failures = vec![kind];
        assert_eq!(bench.read(10).0, error);
    }
    let mut bench = Bench::opened(Version::V4);
    bench.drive.failures = vec![FailureKind::Medium];
    bench.read(10);
    assert_ne!(bench.state().flags & TapeState::MEDIA_ERROR, 0);
}

#[test]
fn operations_that_a_version_does_not_know() {
    let mut bench = Bench::opened(Version::V3);
    assert_eq!(bench.mtio(MtioOp::Tur, 1), (IllegalArgs, 1));
    assert_eq!(bench.mtio(MtioOp::Unknown(99), 1), (IllegalArgs, 1));
    assert_eq!(bench.mtio(MtioOp::Eof, u32::MAX), (IllegalArgs, u32::MAX));
    assert_eq!(bench.mtio(MtioOp::Eof, 0), (NoErr, 0));
    let state = bench.state();
    assert_ne!(state.unsupported & TapeState::PARTITION, 0);
    assert_ne!(state.unsupported & TapeState::SPACE_REMAIN, 0);
}

#[test]
fn an_answer_to_another_question_is_an_error() {
    let mut tape = Tape::new(Version::V4, TapeOpenMode::Read);
    let Next::Done(reply) = tape.on_step(super::StepResult::Done) else { panic!() };
    assert_eq!(reply.error, Undefined);
    let Next::Step(_) = tape.begin(TapeOp::Read(10)) else { panic!() };
    let Next::Done(reply) = tape.on_step(super::StepResult::Overflow) else { panic!() };
    assert_eq!((reply.error, reply.body), (Undefined, ReplyBody::Data(Bytes::new())));
}
