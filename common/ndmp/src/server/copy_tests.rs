//! The tape-to-tape dialogue of a real application between two sessions: labels and headers by
//! TAPE_WRITE, parts by the movers, a window for each part, a change of tape at its end.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::rig::{Pipe, Rig};
use crate::mover::MoverEvent;
use crate::testing::{ListDrive, Object};
use crate::wire::ErrorCode::*;
use crate::wire::*;

const RECORD: u32 = 32;
const ALL: u64 = u64::MAX;

struct Copy {
    source: Rig,
    target: Rig,
    version: Version,
    /// The header that the source tape had last.
    source_header: Bytes,
}

fn record(seed: u8) -> Bytes {
    vec![seed; RECORD as usize].into()
}

/// A label, a mark, and each part as a header, records and a mark.
fn source_tape(parts: &[u8]) -> ListDrive {
    let mut drive = ListDrive::with_tape();
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        Object::Record(record(seed))
    };
    drive.objects.extend([next(), Object::Mark]);
    for records in parts {
        (0..=*records).for_each(|_| drive.objects.push(next()));
        drive.objects.push(Object::Mark);
    }
    drive
}

impl Copy {
    fn new(version: Version, source: ListDrive) -> Self {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        let mode = if version == Version::V4 { TapeOpenMode::Raw } else { TapeOpenMode::ReadWrite };
        let open = |drive: ListDrive| {
            let mut rig = Rig::new(version);
            rig.drive = drive;
            assert_eq!(rig.open(mode), NoErr);
            assert_eq!(rig.mtio(MtioOp::Rew, 1), NoErr);
            assert_eq!(rig.ask(Request::MoverSetRecordSize(RECORD)), NoErr);
            rig.plane.pipe = Some(pipe.clone());
            rig
        };
        let (source, target) = (open(source), open(ListDrive::with_tape()));
        Self { source, target, version, source_header: Bytes::new() }
    }

    /// Lets both sides move until neither can.
    fn run(&mut self) {
        while self.source.pump() | self.target.pump() {}
    }

    /// Takes the source past the mark that stopped it, over the next header, and on.
    fn next_source_part(&mut self, offset: u64) {
        if self.version == Version::V4 {
            assert_eq!(self.source.mtio(MtioOp::Fsf, 1), NoErr);
        }
        self.source_header = self.source.read();
        assert_eq!(self.source.window(offset, ALL - offset), NoErr);
        assert_eq!(self.source.bare(MessageCode::MoverContinue), NoErr);
        self.run();
    }

    /// The source closes, the target ends, the tapes are closed.
    fn finish(&mut self) {
        let closed =
            |post| matches!(post, Post::MoverHalted { reason: HaltReason::ConnectClosed, .. });
        assert_eq!(self.source.bare(MessageCode::MoverClose), NoErr);
        assert!(closed(self.source.post()));
        assert_eq!(self.source.bare(MessageCode::MoverStop), NoErr);
        self.run();
        assert!(closed(self.target.post()));
        assert_eq!(self.target.mtio(MtioOp::Eof, 1), NoErr);
        assert_eq!(self.target.bare(MessageCode::MoverStop), NoErr);
        assert_eq!(self.target.bare(MessageCode::TapeClose), NoErr);
    }

    fn start(&mut self) {
        assert_eq!(self.source.read().len(), RECORD as usize, "label");
        assert_eq!(self.source.mtio(MtioOp::Fsf, 1), NoErr);
        self.source_header = self.source.read();
        assert_eq!(self.target.window(0, 0), NoErr);
        let listen = Request::MoverListen { mode: MoverMode::Read, addr_type: AddrType::Tcp };
        let ReplyBody::Address(addr) = self.target.call(listen).body else { panic!() };
        assert_eq!(self.source.window(0, ALL), NoErr);
        let connect = Request::MoverConnect { mode: MoverMode::Write, addr };
        assert_eq!(self.source.ask(connect), NoErr);
        self.target.event(MoverEvent::Connected);
        assert_eq!(self.source.ask(Request::MoverRead { offset: 0, length: ALL }), NoErr);
        assert_eq!(self.source.mover().state, MoverState::Active);
        self.run();
        let first = Post::MoverPaused { reason: PauseReason::Eow, seek_position: 0 };
        assert_eq!(self.target.post(), first);
        // the source may not run ahead: it stays active until its part is taken
        assert_eq!(self.source.mover().state, MoverState::Active);
        assert_eq!(self.source.seen, []);
    }
}

impl Rig {
    fn mtio(&mut self, op: MtioOp, count: u32) -> ErrorCode {
        self.ask(Request::TapeMtio { op, count })
    }

    fn window(&mut self, offset: u64, length: u64) -> ErrorCode {
        self.ask(Request::MoverSetWindow { offset, length })
    }

    fn write(&mut self, data: Bytes) -> ErrorCode {
        self.ask(Request::TapeWrite(data))
    }

    fn read(&mut self) -> Bytes {
        match self.call(Request::TapeRead(RECORD)) {
            Reply { error: NoErr, body: ReplyBody::Data(data) } => data,
            other => panic!("{other:?}"),
        }
    }
}

/// As long as a part's exact size fills the window, its end shows with the next part's first byte.
#[test]
fn parts_are_copied_one_window_at_a_time() {
    for version in [Version::V3, Version::V4] {
        let parts = [4u64, 1, 6];
        let mut copy = Copy::new(version, source_tape(&parts.map(|records| records as u8)));
        copy.start();
        assert_eq!(copy.target.write(record(1)), NoErr, "label");
        assert_eq!(copy.target.mtio(MtioOp::Eof, 1), NoErr);
        let mut offset = 0;
        for (index, records) in parts.iter().enumerate() {
            if index > 0 {
                copy.next_source_part(offset);
                let eow = Post::MoverPaused { reason: PauseReason::Eow, seek_position: offset };
                assert_eq!(copy.target.post(), eow);
                assert_eq!(copy.target.mtio(MtioOp::Eof, 1), NoErr);
            }
            let header = copy.source_header.clone();
            assert_eq!(copy.target.write(header), NoErr);
            assert_eq!(copy.target.tape_state().file_num, index as u32 + 1);
            let size = records * u64::from(RECORD);
            assert_eq!(copy.target.window(offset, size), NoErr);
            assert_eq!(copy.target.bare(MessageCode::MoverContinue), NoErr);
            copy.run();
            offset += size;
            let eof = Post::MoverPaused { reason: PauseReason::Eof, seek_position: offset };
            assert_eq!(copy.source.post(), eof);
            let target = copy.target.mover();
            assert_eq!((target.state, target.bytes_moved), (MoverState::Active, offset));
            assert_eq!(u64::from(target.record_num), offset / u64::from(RECORD));
        }
        copy.finish();
        assert_eq!(copy.target.drive.objects, copy.source.drive.objects, "{version}");
    }
}

#[test]
fn a_full_tape_is_changed_and_nothing_is_lost_or_doubled() {
    for version in [Version::V3, Version::V4] {
        let mut copy = Copy::new(version, source_tape(&[9]));
        copy.target.drive.warning = Some((5 * RECORD as usize, 9 * RECORD as usize));
        copy.start();
        let size = 9 * u64::from(RECORD);
        assert_eq!(copy.target.write(record(101)), NoErr);
        assert_eq!(copy.target.window(0, size), NoErr);
        assert_eq!(copy.target.bare(MessageCode::MoverContinue), NoErr);
        copy.run();
        let at = 5 * u64::from(RECORD);
        let eom = Post::MoverPaused { reason: PauseReason::Eom, seek_position: at };
        assert_eq!(copy.target.post(), eom);
        assert_eq!(copy.source.mover().state, MoverState::Active);
        // beyond early warning the application may still write its trailer
        assert_eq!(copy.target.mtio(MtioOp::Eof, 1), NoErr);
        assert_eq!(copy.target.write(record(102)), NoErr);
        assert_eq!(copy.target.bare(MessageCode::TapeClose), NoErr);
        let full = std::mem::replace(&mut copy.target.drive, ListDrive::with_tape());
        assert_eq!(copy.target.open(TapeOpenMode::ReadWrite), NoErr);
        assert_eq!(copy.target.mtio(MtioOp::Rew, 1), NoErr);
        assert_eq!(copy.target.write(record(103)), NoErr);
        assert_eq!(copy.target.window(at, size - at), NoErr);
        assert_eq!(copy.target.bare(MessageCode::MoverContinue), NoErr);
        copy.run();
        let eof = Post::MoverPaused { reason: PauseReason::Eof, seek_position: size };
        assert_eq!(copy.source.post(), eof);
        assert_eq!(copy.source.bare(MessageCode::MoverClose), NoErr);
        copy.run();
        assert!(matches!(copy.target.post(), Post::MoverHalted { .. }));
        assert_eq!(copy.target.mover().bytes_moved, size);
        let mut copied = full.objects[1..6].to_vec();
        copied.extend_from_slice(&copy.target.drive.objects[1..]);
        assert_eq!(copied, copy.source.drive.objects[3..12], "{version}");
    }
}

#[test]
fn going_on_beyond_early_warning_stops_only_at_the_end() {
    let mut copy = Copy::new(Version::V4, source_tape(&[9]));
    copy.target.drive.warning = Some((3 * RECORD as usize, 6 * RECORD as usize));
    copy.start();
    assert_eq!(copy.target.window(0, ALL), NoErr);
    assert_eq!(copy.target.bare(MessageCode::MoverContinue), NoErr);
    copy.run();
    let at = |records: u64| Post::MoverPaused {
        reason: PauseReason::Eom,
        seek_position: records * u64::from(RECORD),
    };
    assert_eq!(copy.target.post(), at(4));
    assert_eq!(copy.target.bare(MessageCode::MoverContinue), NoErr);
    copy.run();
    assert_eq!(copy.target.post(), at(6));
}
