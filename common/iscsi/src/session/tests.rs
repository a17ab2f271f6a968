//! A session by its PDUs: every kind of data phase, and everything that a target must not do.

use proptest::prelude::*;

use super::*;
use crate::{Digests, LogoutResponse, Reject, TaskResponse, TextResponse};

const LUN: u64 = 1 << 48;

fn limits() -> Limits {
    Limits {
        digests: Digests::default(),
        send: 100,
        take: 1000,
        immediate: true,
        initial_r2t: false,
        first_burst: 250,
        burst: 400,
    }
}

fn session(limits: Limits) -> Session {
    Session::new(limits, 10, 50, 12)
}

/// Everything that is to be sent now: operation code, bytes of the command's data, F.
fn sent(session: &mut Session) -> Vec<(u8, Range<usize>, bool)> {
    let mut out = Vec::new();
    while let Some(action) = session.next_action() {
        let Action::Send(pdu, Payload::Data(range)) = action else { panic!("{action:?}") };
        let header = pdu.to_header();
        out.push((header[0] & 0x3f, range, header[1] & 0x80 != 0));
    }
    out
}

fn begin(limits: Limits, direction: Direction) -> (Session, Vec<(u8, Range<usize>, bool)>) {
    let mut session = session(limits);
    session.command(LUN, &[0x0a, 0, 0, 0, 1, 0], direction).unwrap();
    let out = sent(&mut session);
    (session, out)
}

fn response(task: u32, stat_sn: u32) -> Response {
    Response { task, stat_sn, max_cmd_sn: 20, ..Response::default() }
}

fn r2t(offset: u32, length: u32, r2t_sn: u32) -> ReadyToTransfer {
    ReadyToTransfer { task: 1, transfer: 77, offset, length, r2t_sn, ..Default::default() }
}

fn data_in(offset: u32, data_sn: u32) -> DataIn {
    DataIn { task: 1, offset, data_sn, ..DataIn::default() }
}

fn take(session: &mut Session, pdu: impl Into<Pdu>) -> Result<(), Violation> {
    session.receive(&pdu.into(), b"", &mut [])
}

fn done(status: u8, sense: &[u8], residual: i64) -> Option<Action> {
    Some(Action::Done(Completion { status, sense: sense.to_vec(), residual }))
}

#[test]
fn data_go_unasked_as_far_as_was_agreed() {
    let out = Direction::Out(1000);
    let closed = Limits { initial_r2t: true, ..limits() };
    let asked = Limits { immediate: false, ..limits() };
    let silent = Limits { immediate: false, initial_r2t: true, ..limits() };
    assert_eq!(begin(limits(), Direction::Out(80)).1, [(1, 0..80, true)]);
    let unasked = [(1, 0..100, false), (5, 100..200, false), (5, 200..250, true)];
    assert_eq!(begin(limits(), out).1, unasked);
    assert_eq!(begin(closed, out).1, [(1, 0..100, true)]);
    let unasked = [(1, 0..0, false), (5, 0..100, false), (5, 100..200, false), (5, 200..250, true)];
    assert_eq!(begin(asked, out).1, unasked);
    assert_eq!(begin(silent, out).1, [(1, 0..0, true)]);
    assert_eq!(begin(limits(), Direction::In(1000)).1, [(1, 0..0, true)]);
    assert_eq!(begin(limits(), Direction::None).1, [(1, 0..0, true)]);
}

#[test]
fn the_rest_goes_when_it_is_asked_for() {
    let (mut session, _) = begin(limits(), Direction::Out(1000));
    take(&mut session, r2t(250, 150, 0)).unwrap();
    assert_eq!(sent(&mut session), [(5, 250..350, false), (5, 350..400, true)]);
    take(&mut session, r2t(400, 400, 1)).unwrap();
    assert_eq!(sent(&mut session).len(), 4);
    take(&mut session, r2t(800, 200, 2)).unwrap();
    assert_eq!(sent(&mut session).last(), Some(&(5, 900..1000, true)));
    assert!(!session.is_open());
    take(&mut session, response(1, 50)).unwrap();
    assert_eq!(session.next_action(), done(0, b"", 0));
    assert!(session.is_open());
}

#[test]
fn what_a_target_must_not_ask_for_it_does_not_get() {
    for (request, violation) in [
        (r2t(250, 401, 0), Violation::Transfer),
        (r2t(250, 0, 0), Violation::Transfer),
        (r2t(900, 101, 0), Violation::Transfer),
        (r2t(u32::MAX, u32::MAX, 0), Violation::Transfer),
        // What was sent is never sent again.
        (r2t(0, 100, 0), Violation::Transfer),
        (r2t(250, 100, 1), Violation::DataOrder),
        (ReadyToTransfer { task: 2, ..r2t(250, 100, 0) }, Violation::NoTask),
    ] {
        let (mut session, _) = begin(limits(), Direction::Out(1000));
        assert_eq!(take(&mut session, request.clone()), Err(violation), "{request:?}");
    }
    let (mut session, _) = begin(limits(), Direction::In(1000));
    assert_eq!(take(&mut session, r2t(0, 10, 0)), Err(Violation::Transfer));
}

#[test]
fn data_come_with_status_or_before_it() {
    let mut buffer = [0; 10];
    let (mut session, _) = begin(limits(), Direction::In(10));
    session.receive(&data_in(0, 0).into(), b"abcd", &mut buffer).unwrap();
    let last =
        DataIn { has_status: true, stat_sn: 50, underflow: true, residual: 3, ..data_in(4, 1) };
    session.receive(&last.into(), b"efg", &mut buffer).unwrap();
    assert_eq!(&buffer, b"abcdefg\0\0\0");
    assert_eq!(session.next_action(), done(0, b"", 3));

    // For tape, data with a CHECK CONDITION are the normal case.
    let (mut session, _) = begin(limits(), Direction::In(10));
    session.receive(&data_in(0, 0).into(), b"abcd", &mut buffer).unwrap();
    let check = Response { status: 2, underflow: true, residual: 6, ..response(1, 50) };
    session.receive(&check.into(), &[0, 3, 0x70, 0, 0x20, 9, 9], &mut buffer).unwrap();
    assert_eq!(session.next_action(), done(2, &[0x70, 0, 0x20], 6));
}

#[test]
fn what_came_decides_whatever_is_said_about_it() {
    let residual = |came: &[u8], overflow, underflow, count| {
        let mut buffer = [0; 10];
        let (mut session, _) = begin(limits(), Direction::In(10));
        if !came.is_empty() {
            session.receive(&data_in(0, 0).into(), came, &mut buffer).unwrap();
        }
        let end = Response { overflow, underflow, residual: count, ..response(1, 50) };
        take(&mut session, end).unwrap();
        let Some(Action::Done(completion)) = session.next_action() else { panic!("not done") };
        completion.residual
    };
    assert_eq!(residual(b"", false, false, 0), 10);
    assert_eq!(residual(b"abc", false, true, 2), 7);
    assert_eq!(residual(b"0123456789", false, true, 5), 0);
    assert_eq!(residual(b"0123456789", true, false, 5), -5);
}

#[test]
fn data_out_of_order_or_beyond_the_end_are_refused() {
    for (pdu, data, violation) in [
        (data_in(1, 0), &b"ab"[..], Violation::DataOrder),
        (data_in(0, 1), b"ab", Violation::DataOrder),
        (data_in(0, 0), b"01234567890", Violation::TooMuch),
        (DataIn { task: 9, ..data_in(0, 0) }, b"ab", Violation::NoTask),
        (DataIn { has_status: true, stat_sn: 51, ..data_in(0, 0) }, b"", Violation::StatusOrder),
    ] {
        let (mut session, _) = begin(limits(), Direction::In(10));
        assert_eq!(session.receive(&pdu.into(), data, &mut [0; 10]), Err(violation));
    }
    let (mut session, _) = begin(limits(), Direction::Out(10));
    let error = session.receive(&data_in(0, 0).into(), b"ab", &mut [0; 10]);
    assert_eq!(error, Err(Violation::TooMuch));
    let (mut session, _) = begin(limits(), Direction::In(10));
    let lost = Response { exp_data_sn: 2, ..response(1, 50) };
    assert_eq!(take(&mut session, lost), Err(Violation::DataOrder));
}

#[test]
fn answers_are_in_order_and_to_questions() {
    let (mut session, _) = begin(limits(), Direction::None);
    assert_eq!(take(&mut session, response(1, 51)), Err(Violation::StatusOrder));
    let (mut session, _) = begin(limits(), Direction::None);
    assert_eq!(take(&mut session, response(2, 50)), Err(Violation::NoTask));
    let (mut session, _) = begin(limits(), Direction::None);
    let failed = Response { response: 1, ..response(1, 50) };
    assert_eq!(take(&mut session, failed), Err(Violation::Failed(1)));
    let reject = Reject { reason: 4, stat_sn: 50, ..Reject::default() };
    assert_eq!(take(&mut session, reject), Err(Violation::Rejected(4)));
    assert_eq!(
        take(&mut session, TaskResponse { stat_sn: 51, ..Default::default() }),
        Err(Violation::NoTask)
    );
    assert_eq!(take(&mut session, NopOut::default()), Err(Violation::Unexpected));
}

#[test]
fn the_window_of_the_target_is_kept() {
    let mut session = Session::new(limits(), u32::MAX, 50, u32::MAX);
    session.command(LUN, &[0; 6], Direction::None).unwrap();
    assert_eq!(session.command(LUN, &[0; 6], Direction::None), Err(Violation::Closed));
    sent(&mut session);
    let full = Response { max_cmd_sn: u32::MAX, ..response(1, 50) };
    take(&mut session, full).unwrap();
    assert_eq!(session.next_action(), done(0, b"", 0));
    assert!(!session.is_open());
    let ping = NopIn { task: NO_TAG, transfer: NO_TAG, max_cmd_sn: 0, ..NopIn::default() };
    take(&mut session, ping).unwrap();
    assert!(session.is_open() && session.next_action().is_none());
}

#[test]
fn pings_go_both_ways() {
    let mut session = session(limits());
    session.ping();
    session.ping();
    let Some(Action::Send(Pdu::NopOut(ping), _)) = session.next_action() else { panic!("no ping") };
    assert!(ping.immediate && ping.transfer == NO_TAG && session.next_action().is_none());
    let pong = NopIn { task: ping.task, transfer: NO_TAG, stat_sn: 50, ..NopIn::default() };
    take(&mut session, pong).unwrap();
    assert_eq!(session.next_action(), Some(Action::Pong));
    assert!(!session.is_pinging());
    let ping = NopIn { task: NO_TAG, transfer: 8, lun: LUN, stat_sn: 51, ..NopIn::default() };
    session.receive(&ping.into(), b"hello", &mut []).unwrap();
    let Some(Action::Send(Pdu::NopOut(pong), data)) = session.next_action() else {
        panic!("no answer")
    };
    assert_eq!((pong.task, pong.transfer, pong.lun), (NO_TAG, 8, LUN));
    assert_eq!(data, Payload::Bytes(b"hello".to_vec()));
}

#[test]
fn pings_without_end_are_refused() {
    let mut session = session(limits());
    let ping = NopIn { task: NO_TAG, transfer: 8, ..NopIn::default() };
    let refused = (0..1000).find_map(|_| take(&mut session, ping.clone()).err());
    assert_eq!(refused, Some(Violation::Unexpected));
}

#[test]
fn a_command_is_aborted_or_ends_before() {
    let abort = |end: Pdu| {
        let (mut session, _) = begin(limits(), Direction::Out(1000));
        session.manage(LUN, false);
        let Some(Action::Send(Pdu::TaskRequest(request), _)) = session.next_action() else {
            panic!("no request")
        };
        assert_eq!((request.function, request.referenced, request.ref_cmd_sn), (1, 1, 10));
        take(&mut session, end).unwrap();
        (session.next_action(), session.is_open())
    };
    let managed = |response| {
        let stat_sn = 50;
        Pdu::from(TaskResponse { task: 2, response, stat_sn, ..TaskResponse::default() })
    };
    assert_eq!(abort(managed(0)), (Some(Action::Managed(true)), true));
    assert_eq!(abort(managed(1)), (Some(Action::Managed(true)), true));
    assert_eq!(abort(managed(5)), (Some(Action::Managed(false)), false));
    assert_eq!(abort(response(1, 50).into()), (done(0, b"", 0), false));
    // It is asked for data that it no longer gives.
    assert_eq!(abort(r2t(250, 100, 0).into()), (None, false));
}

#[test]
fn text_and_logout_are_answered() {
    let mut session = session(limits());
    let mut question = Pairs::default();
    question.add("SendTargets", "All");
    session.ask(&question);
    assert!(matches!(session.next_action(), Some(Action::Send(Pdu::TextRequest(_), _))));
    let part = TextResponse { task: 1, transfer: 5, stat_sn: 50, ..TextResponse::default() };
    session.receive(&part.into(), b"TargetName=", &mut []).unwrap();
    let Some(Action::Send(Pdu::TextRequest(again), _)) = session.next_action() else {
        panic!("not asked on")
    };
    assert_eq!(again.transfer, 5);
    let end =
        TextResponse { task: 1, transfer: NO_TAG, last: true, stat_sn: 51, ..Default::default() };
    session.receive(&end.into(), b"iqn.a\0", &mut []).unwrap();
    let Some(Action::Text(pairs)) = session.next_action() else { panic!("no text") };
    assert_eq!(pairs.get("TargetName"), Some("iqn.a"));
    session.log_out();
    assert!(matches!(session.next_action(), Some(Action::Send(Pdu::LogoutRequest(_), _))));
    take(&mut session, LogoutResponse { task: 2, stat_sn: 52, ..Default::default() }).unwrap();
    assert_eq!(session.next_action(), Some(Action::LoggedOut));
}

#[test]
fn a_target_may_ask_us_to_leave() {
    let mut session = session(limits());
    take(&mut session, AsyncMessage { event: 0, stat_sn: 50, ..Default::default() }).unwrap();
    assert_eq!(session.next_action(), None);
    take(&mut session, AsyncMessage { event: 1, stat_sn: 51, ..Default::default() }).unwrap();
    assert_eq!(session.next_action(), Some(Action::Leave));
}

proptest! {
    /// A target that asks in any sizes gets every byte once.
    #[test]
    fn every_byte_goes_once(
        length in 1usize..2000,
        flags in any::<[bool; 2]>(),
        first_burst in 1usize..600,
        send in 1usize..300,
        asks in prop::collection::vec(1u32..400, 0..40),
    ) {
        let [immediate, initial_r2t] = flags;
        let limits = Limits { immediate, initial_r2t, first_burst, send, ..limits() };
        let (mut session, out) = begin(limits, Direction::Out(length));
        let mut at = 0;
        let mut follow = |out: Vec<(u8, Range<usize>, bool)>| {
            for (_, range, _) in out {
                assert_eq!(range.start, at);
                at = range.end;
            }
            at
        };
        let mut so_far = follow(out);
        for (r2t_sn, ask) in asks.into_iter().enumerate() {
            let left = (length - so_far) as u32;
            if left == 0 {
                break;
            }
            take(&mut session, r2t(so_far as u32, ask.min(left), r2t_sn as u32)).unwrap();
            let before = so_far;
            so_far = follow(sent(&mut session));
            prop_assert_eq!(so_far, before + ask.min(left) as usize);
        }
        take(&mut session, response(1, 50)).unwrap();
        prop_assert_eq!(session.next_action(), done(0, b"", 0));
    }

    #[test]
    fn rubbish_never_panics(
        out: bool,
        pdus in prop::collection::vec((any::<[u8; 24]>(), any::<[u8; 24]>(), 0u8..64), 0..30),
    ) {
        let direction = if out { Direction::Out(100) } else { Direction::In(100) };
        let (mut session, _) = begin(limits(), direction);
        for (a, b, opcode) in pdus {
            let mut header = [0; crate::BHS];
            header[..24].copy_from_slice(&a);
            header[24..].copy_from_slice(&b);
            header[0] = opcode;
            header[16..20].copy_from_slice(&[0, 0, 0, 1]);
            if let Some(pdu) = Pdu::from_header(&header)
                && session.receive(&pdu, &a, &mut [0; 100]).is_err()
            {
                break;
            }
            while session.next_action().is_some() {}
        }
    }
}
