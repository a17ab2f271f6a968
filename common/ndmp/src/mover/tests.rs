//! Windows, reads and counters.

use super::*;
use crate::wire::ErrorCode::*;
use crate::wire::*;

const ALL: u64 = u64::MAX;

fn grants(mover: &mut Mover) -> Vec<Grant> {
    std::iter::from_fn(|| mover.next_effect())
        .filter_map(|effect| match effect {
            MoverEffect::Command(MoverCommand::Run(grant)) => Some(grant),
            _ => None,
        })
        .collect()
}

fn grant(mover: &mut Mover) -> Grant {
    let all = grants(mover);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

fn started(version: Version, mode: MoverMode, offset: u64, length: u64) -> Mover {
    let mut mover = Mover::new(version);
    mover.set_record_size(10).unwrap();
    mover.set_window(offset, length).unwrap();
    mover.connect(mode, Addr::Local, TapeAccess::Writable).unwrap();
    grants(&mut mover);
    let reply = mover.on_event(MoverEvent::Connected).unwrap();
    assert_eq!(reply.error, NoErr);
    mover
}

fn stopped(mover: &mut Mover, reason: StopReason, bytes: u64, records: u64) {
    mover.on_event(MoverEvent::Stopped(reason, Progress { bytes, records }));
}

#[test]
fn windows_are_checked() {
    let mut mover = Mover::new(Version::V4);
    assert_eq!(mover.set_window(0, 0), Ok(()), "every client does this first");
    assert_eq!(mover.set_window(0, 100), Err(Precondition), "no record size");
    assert_eq!(mover.set_record_size(0), Err(IllegalArgs));
    assert_eq!(mover.set_record_size(u32::MAX), Err(IllegalArgs));
    mover.set_record_size(10).unwrap();
    assert_eq!(mover.set_window(10, 0), Err(IllegalArgs));
    assert_eq!(mover.set_window(10, ALL - 9), Err(IllegalArgs), "overflow");
    assert_eq!(mover.set_window(10, ALL - 10), Ok(()), "to the very end");
    assert_eq!(mover.set_window(10, ALL), Ok(()), "to the end, as clients write it");
    assert_eq!(mover.report().record_num, 1);
    assert_eq!(mover.set_window(0, 15), Ok(()), "the direction is not known yet");
    mover.set_record_size(20).unwrap();
    let report = mover.report();
    assert_eq!((report.window_offset, report.window_length), (0, 0), "a new size forgets it");
    let mut mover = started(Version::V4, MoverMode::Read, 0, 20);
    stopped(&mut mover, StopReason::WindowFull, 20, 2);
    assert_eq!(mover.set_window(20, 15), Err(IllegalArgs));
    assert_eq!(mover.set_window(20, 0), Err(IllegalArgs));
    assert_eq!(mover.set_window(20, 10), Ok(()));
}

#[test]
fn the_first_byte_meets_an_empty_window() {
    let mut mover = started(Version::V4, MoverMode::Read, 0, 0);
    assert_eq!(grant(&mut mover).limit, Some(0));
    stopped(&mut mover, StopReason::WindowFull, 0, 0);
    let Some(MoverEffect::Notify(post)) = mover.next_effect() else { panic!() };
    assert_eq!(post, Post::MoverPaused { reason: PauseReason::Eow, seek_position: 0 });
    // going on without a window gets no further
    mover.resume(TapeAccess::Writable).unwrap();
    assert_eq!(grant(&mut mover).limit, Some(0));
}

#[test]
fn grants_to_the_tape_follow_the_window() {
    let mut mover = started(Version::V4, MoverMode::Read, 0, 35);
    let first = grant(&mut mover);
    assert_eq!((first.offset, first.limit, first.flow), (0, Some(30), Flow::ToTape));
    stopped(&mut mover, StopReason::EndOfMedium, 10, 1);
    assert_eq!(mover.report().seek_position, 10);
    mover.resume(TapeAccess::Writable).unwrap();
    let second = grant(&mut mover);
    assert_eq!((second.offset, second.limit), (10, Some(20)));
    stopped(&mut mover, StopReason::WindowFull, 30, 3);
    mover.set_window(30, ALL).unwrap();
    mover.resume(TapeAccess::Writable).unwrap();
    let third = grant(&mut mover);
    assert_eq!((third.offset, third.limit), (30, None));
    mover.on_event(MoverEvent::Moved(Progress { bytes: 50, records: 5 }));
    let report = mover.report();
    assert_eq!((report.bytes_moved, report.record_num), (50, 5));
    // counts never go back
    mover.on_event(MoverEvent::Moved(Progress { bytes: 40, records: 4 }));
    assert_eq!(mover.report().bytes_moved, 50);
}

#[test]
fn a_read_waits_for_the_end_of_the_one_that_is_satisfied() {
    for end in [StopReason::LimitReached, StopReason::PeerClosed] {
        let mut mover = started(Version::V4, MoverMode::Write, 0, 100);
        assert_eq!(mover.read(0, 25), Ok(true));
        grant(&mut mover);
        // All of it is sent; the drive is still busy. Who got it may know that before.
        mover.on_event(MoverEvent::Moved(Progress { bytes: 25, records: 3 }));
        assert_eq!(mover.report().bytes_left_to_read, 1);
        assert_eq!(mover.read(40, 5), Ok(false));
        let goes_on = end == StopReason::LimitReached;
        let ended = MoverEvent::Stopped(end, Progress { bytes: 25, records: 3 });
        let reply = mover.on_event(ended).unwrap();
        match goes_on {
            true => {
                assert_eq!(reply.error, NoErr);
                let next = grant(&mut mover);
                assert_eq!((next.offset, next.limit), (40, Some(5)));
            }
            false => assert_eq!(reply.error, IllegalState),
        }
        assert!(!mover.is_waiting());
    }
}

#[test]
fn reads_are_served_from_the_window() {
    let mut mover = started(Version::V4, MoverMode::Write, 100, 100);
    assert_eq!(grants(&mut mover), [], "nothing moves without a read");
    assert_eq!(mover.read(100, 0), Err(IllegalArgs));
    assert_eq!(mover.read(ALL, 5), Err(IllegalArgs));
    assert_eq!(mover.read(100, 25), Ok(true));
    let first = grant(&mut mover);
    assert_eq!((first.offset, first.limit), (100, Some(25)));
    assert_eq!(first.reposition, Some(Reposition { records: 0, skip: 0 }));
    assert_eq!(mover.read(125, 5), Err(ReadInProgress));
    let report = mover.report();
    assert_eq!((report.bytes_left_to_read, report.seek_position), (25, 100));
    stopped(&mut mover, StopReason::LimitReached, 25, 3);
    assert_eq!((mover.state(), mover.report().bytes_left_to_read), (MoverState::Active, 0));
    assert_eq!(mover.next_effect(), None);
    // on from there, with the rest of the third record
    mover.read(125, 5).unwrap();
    let second = grant(&mut mover);
    assert_eq!((second.offset, second.limit, second.reposition), (125, Some(5), None));
    stopped(&mut mover, StopReason::LimitReached, 30, 3);
    // back into the second record
    mover.read(113, 2).unwrap();
    let back = grant(&mut mover);
    assert_eq!(back.reposition, Some(Reposition { records: -2, skip: 3 }));
    stopped(&mut mover, StopReason::LimitReached, 32, 4);
    // and forward into the seventh
    mover.read(165, 1000).unwrap();
    let on = grant(&mut mover);
    assert_eq!(on.reposition, Some(Reposition { records: 4, skip: 5 }));
    assert_eq!(on.limit, Some(35), "the end of the window");
    stopped(&mut mover, StopReason::LimitReached, 67, 8);
    let Some(MoverEffect::Notify(post)) = mover.next_effect() else { panic!() };
    assert_eq!(post, Post::MoverPaused { reason: PauseReason::Seek, seek_position: 200 });
    assert_eq!(mover.report().seek_position, 165);
    // the next tape holds what follows
    mover.set_window(200, ALL).unwrap();
    mover.resume(TapeAccess::ReadOnly).unwrap();
    let next = grant(&mut mover);
    assert_eq!((next.offset, next.limit), (200, Some(965)));
    assert_eq!(next.reposition, Some(Reposition { records: 0, skip: 0 }));
}

#[test]
fn reads_outside_of_the_window_pause_at_once() {
    for (offset, length, wanted) in [(100, 100, 99), (100, 100, 200), (0, 0, 0)] {
        let mut mover = started(Version::V3, MoverMode::Write, offset, length);
        mover.read(wanted, 10).unwrap();
        let Some(MoverEffect::Notify(post)) = mover.next_effect() else { panic!() };
        assert_eq!(post, Post::MoverPaused { reason: PauseReason::Seek, seek_position: wanted });
        // and again, unless the window moves
        mover.resume(TapeAccess::ReadOnly).unwrap();
        assert!(matches!(mover.next_effect(), Some(MoverEffect::Notify(_))));
        if offset > 0 {
            mover.set_window(wanted, 50).unwrap();
            mover.resume(TapeAccess::ReadOnly).unwrap();
            assert_eq!(grant(&mut mover).limit, Some(10));
        }
    }
}

#[test]
fn filemarks_leave_the_tape_on_the_side_of_the_version() {
    for (version, side) in [
        (Version::V2, FilemarkSide::EndOfTape),
        (Version::V3, FilemarkSide::EndOfTape),
        (Version::V4, FilemarkSide::BeginningOfTape),
    ] {
        let mut mover = started(version, MoverMode::Write, 0, ALL);
        mover.read(0, ALL).unwrap();
        let run = grant(&mut mover);
        assert_eq!((run.at_filemark, run.limit), (side, None));
        assert_eq!(mover.report().bytes_left_to_read, ALL);
        stopped(&mut mover, StopReason::Filemark, 37, 4);
        let Some(MoverEffect::Notify(post)) = mover.next_effect() else { panic!() };
        assert_eq!(post, Post::MoverPaused { reason: PauseReason::Eof, seek_position: 37 });
        // the application has passed the mark and a header; its window begins off a record
        mover.set_window(37, ALL - 37).unwrap();
        mover.resume(TapeAccess::ReadOnly).unwrap();
        let next = grant(&mut mover);
        assert_eq!((next.offset, next.reposition), (37, Some(Reposition { records: 0, skip: 0 })));
    }
}

#[test]
fn stop_forgets_all_but_the_record_size() {
    let mut mover = started(Version::V4, MoverMode::Read, 0, ALL);
    mover.on_event(MoverEvent::Stopped(StopReason::PeerClosed, Progress { bytes: 5, records: 1 }));
    mover.stop().unwrap();
    assert_eq!(mover.report(), MoverReport { record_size: 10, ..MoverReport::default() });
}
