//! The mover's states against everything that can be asked or can happen, as tables.

use super::*;
use crate::tape::{Failure, FailureKind};
use crate::wire::ErrorCode::{self, *};
use crate::wire::*;

fn failure() -> Failure {
    Failure::new(FailureKind::Medium, "torn")
}

fn drain(mover: &mut Mover) -> Vec<MoverEffect> {
    std::iter::from_fn(|| mover.next_effect()).collect()
}

fn listening(version: Version, mode: MoverMode) -> Mover {
    let mut mover = Mover::new(version);
    mover.set_record_size(10).unwrap();
    mover.set_window(0, u64::MAX).unwrap();
    mover.listen(mode, AddrType::Tcp, TapeAccess::Writable).unwrap();
    assert!(mover.on_event(MoverEvent::Listening(Addr::Local)).is_some());
    drain(&mut mover);
    mover
}

fn active(version: Version, mode: MoverMode) -> Mover {
    let mut mover = listening(version, mode);
    assert!(mover.on_event(MoverEvent::Connected).is_none());
    drain(&mut mover);
    mover
}

fn in_state(version: Version, mode: MoverMode, state: MoverState) -> Mover {
    let mut mover = match state {
        MoverState::Idle => {
            let mut mover = Mover::new(version);
            mover.set_record_size(10).unwrap();
            mover
        }
        MoverState::Listen => listening(version, mode),
        _ => active(version, mode),
    };
    if matches!(state, MoverState::Paused | MoverState::Halted) {
        if mode == MoverMode::Write {
            mover.read(0, 10).unwrap();
        }
        let progress = Progress { bytes: 10, records: 1 };
        mover.on_event(MoverEvent::Stopped(StopReason::EndOfMedium, progress));
    }
    if state == MoverState::Halted {
        mover.close(true);
    }
    drain(&mut mover);
    assert_eq!(mover.state(), state);
    mover
}

/// Each request in IDLE, LISTEN, ACTIVE, PAUSED and HALTED.
#[test]
fn requests_are_legal_where_the_standard_says() {
    type Ask = fn(&mut Mover) -> Result<(), ErrorCode>;
    const NO: ErrorCode = IllegalState;
    let table: &[(&str, MoverMode, Ask, [ErrorCode; 5])] = &[
        (
            "SET_RECORD_SIZE",
            MoverMode::Read,
            |mover| mover.set_record_size(20),
            [NoErr, NO, NO, NO, NO],
        ),
        (
            "SET_WINDOW",
            MoverMode::Read,
            |mover| mover.set_window(0, 100),
            [NoErr, NO, NO, NoErr, NO],
        ),
        (
            "LISTEN",
            MoverMode::Read,
            |mover| mover.listen(MoverMode::Read, AddrType::Tcp, TapeAccess::Writable),
            [NoErr, NO, NO, NO, NO],
        ),
        (
            "CONNECT",
            MoverMode::Read,
            |mover| mover.connect(MoverMode::Read, Addr::Local, TapeAccess::Writable),
            [NoErr, NO, NO, NO, NO],
        ),
        (
            "READ towards the connection",
            MoverMode::Write,
            |mover| mover.read(0, 10).map(drop),
            [NO, NO, NoErr, NO, NO],
        ),
        ("READ towards the tape", MoverMode::Read, |mover| mover.read(0, 10).map(drop), [NO; 5]),
        (
            "CONTINUE",
            MoverMode::Read,
            |mover| mover.resume(TapeAccess::Writable),
            [NO, NO, NO, NoErr, NO],
        ),
        ("CLOSE", MoverMode::Read, |mover| mover.may_close(), [NO, NO, NO, NoErr, NO]),
        (
            "ABORT",
            MoverMode::Read,
            |mover| mover.abort().map(|_| ()),
            [NO, NoErr, NoErr, NoErr, NoErr],
        ),
        ("STOP", MoverMode::Read, |mover| mover.stop(), [NO, NO, NO, NO, NoErr]),
    ];
    for version in Version::ALL {
        for (name, mode, ask, expected) in table {
            for (state, error) in MoverState::ALL.iter().zip(expected) {
                let mut mover = in_state(version, *mode, *state);
                let window_in_listen =
                    *name == "SET_WINDOW" && *state == MoverState::Listen && version < Version::V4;
                let error = if window_in_listen { NoErr } else { *error };
                let told = ask(&mut mover).err().unwrap_or(NoErr);
                assert_eq!(told, error, "{version} {name} in {state}");
                if error == IllegalState {
                    assert_eq!(mover.state(), *state);
                    assert_eq!(drain(&mut mover), []);
                }
            }
        }
    }
}

#[test]
fn listening_and_dialling_are_checked_in_order() {
    use TapeAccess::{None, ReadOnly, Writable};
    let table = [
        (MoverMode::Unknown(123), AddrType::Unknown(123), None, IllegalArgs),
        (MoverMode::NoAction, AddrType::Tcp, None, IllegalArgs),
        (MoverMode::Read, AddrType::Fc, None, IllegalArgs),
        (MoverMode::Read, AddrType::Ipc, None, IllegalArgs),
        (MoverMode::Read, AddrType::Tcp, None, DevNotOpen),
        (MoverMode::Read, AddrType::Tcp, ReadOnly, Permission),
        (MoverMode::Write, AddrType::Local, ReadOnly, NoErr),
        (MoverMode::Read, AddrType::Local, Writable, NoErr),
    ];
    for (mode, addr_type, tape, expected) in table {
        let mut mover = in_state(Version::V4, MoverMode::Read, MoverState::Idle);
        let told = mover.listen(mode, addr_type, tape).err().unwrap_or(NoErr);
        assert_eq!(told, expected, "{mode} {addr_type} {tape:?}");
        let mut halted = in_state(Version::V4, MoverMode::Read, MoverState::Halted);
        let told = halted.listen(mode, addr_type, tape).err();
        let expected = if expected == IllegalArgs { IllegalArgs } else { IllegalState };
        assert_eq!(told, Some(expected));
    }
    let mut mover = Mover::new(Version::V4);
    let told = mover.listen(MoverMode::Read, AddrType::Tcp, Writable);
    assert_eq!(told, Err(Precondition), "no record size");
    let told = mover.connect(MoverMode::Read, Addr::Tcp(vec![]), Writable);
    assert_eq!(told, Err(IllegalArgs));
}

fn paused(reason: PauseReason) -> Vec<MoverEffect> {
    vec![MoverEffect::Notify(Post::MoverPaused { reason, seek_position: 10 })]
}

fn halted(reason: HaltReason, text: &str) -> Vec<MoverEffect> {
    let orderly = reason == HaltReason::ConnectClosed;
    vec![
        MoverEffect::Command(MoverCommand::CloseConnection { orderly }),
        MoverEffect::Notify(Post::MoverHalted { reason, text: text.to_owned() }),
    ]
}

/// Each way a run can end, in each direction and version.
#[test]
fn runs_end_in_the_words_of_the_version() {
    let closed = halted(HaltReason::ConnectClosed, "the other end closed the connection");
    for version in Version::ALL {
        let v4 = version == Version::V4;
        let eow = if version == Version::V2 { PauseReason::Eom } else { PauseReason::Eow };
        let media = match v4 {
            true => halted(HaltReason::MediaError, "torn"),
            false => paused(PauseReason::MediaError),
        };
        let table = [
            (MoverMode::Read, StopReason::WindowFull, paused(eow)),
            (MoverMode::Read, StopReason::EndOfMedium, paused(PauseReason::Eom)),
            (MoverMode::Read, StopReason::PeerClosed, closed.clone()),
            (MoverMode::Read, StopReason::MediaError(failure()), media.clone()),
            (
                MoverMode::Read,
                StopReason::ConnectionError(failure()),
                halted(HaltReason::ConnectError, "torn"),
            ),
            (
                MoverMode::Read,
                StopReason::Internal(failure()),
                halted(HaltReason::InternalError, "torn"),
            ),
            (
                MoverMode::Read,
                StopReason::Cancelled,
                halted(HaltReason::InternalError, "cancelled"),
            ),
            (MoverMode::Write, StopReason::LimitReached, vec![]),
            (MoverMode::Write, StopReason::Filemark, paused(PauseReason::Eof)),
            (MoverMode::Write, StopReason::EndOfData, paused(PauseReason::Eom)),
            (MoverMode::Write, StopReason::PeerClosed, closed.clone()),
            (MoverMode::Write, StopReason::MediaError(failure()), media),
        ];
        for (mode, reason, expected) in table {
            let mut mover = active(version, mode);
            if mode == MoverMode::Write {
                mover.read(0, 10).unwrap();
                drain(&mut mover);
            }
            let progress = Progress { bytes: 10, records: 1 };
            let name = format!("{version} {mode} {reason:?}");
            assert!(mover.on_event(MoverEvent::Stopped(reason, progress)).is_none());
            assert_eq!(drain(&mut mover), expected, "{name}");
            let report = mover.report();
            assert_eq!(report.bytes_moved, 10);
            assert_eq!(
                report.pause_reason != PauseReason::NotApplicable,
                report.state == MoverState::Paused,
                "{name}"
            );
            assert_eq!(
                report.halt_reason != HaltReason::NotApplicable,
                report.state == MoverState::Halted,
                "{name}"
            );
        }
    }
}

/// What happens to a connection between runs.
#[test]
fn connections_end_in_every_state() {
    type State = (MoverMode, MoverState);
    let lost = || MoverEvent::ConnectionLost(failure());
    let table: &[(State, MoverEvent, Option<HaltReason>)] = &[
        ((MoverMode::Write, MoverState::Idle), lost(), None),
        ((MoverMode::Write, MoverState::Listen), lost(), Some(HaltReason::ConnectError)),
        ((MoverMode::Write, MoverState::Active), lost(), Some(HaltReason::ConnectError)),
        ((MoverMode::Write, MoverState::Paused), lost(), Some(HaltReason::ConnectError)),
        ((MoverMode::Write, MoverState::Halted), lost(), None),
        ((MoverMode::Write, MoverState::Idle), MoverEvent::PeerClosed, None),
        ((MoverMode::Write, MoverState::Listen), MoverEvent::PeerClosed, None),
        (
            (MoverMode::Write, MoverState::Active),
            MoverEvent::PeerClosed,
            Some(HaltReason::ConnectClosed),
        ),
        (
            (MoverMode::Write, MoverState::Paused),
            MoverEvent::PeerClosed,
            Some(HaltReason::ConnectClosed),
        ),
        ((MoverMode::Write, MoverState::Halted), MoverEvent::PeerClosed, None),
        ((MoverMode::Read, MoverState::Active), MoverEvent::PeerClosed, None),
    ];
    for ((mode, state), event, expected) in table {
        let mut mover = in_state(Version::V4, *mode, *state);
        assert!(mover.on_event(event.clone()).is_none());
        let told = drain(&mut mover).into_iter().find_map(|effect| match effect {
            MoverEffect::Notify(Post::MoverHalted { reason, .. }) => Some(reason),
            _ => None,
        });
        assert_eq!(told, *expected, "{mode} {state} {event:?}");
    }
}
