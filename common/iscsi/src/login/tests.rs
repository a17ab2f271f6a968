//! Logins by table: what is sent, what is taken, what is refused.

use proptest::prelude::*;

use super::*;
use crate::chap_response;
use crate::text::to_hex;

fn options(credentials: Option<Credentials>) -> LoginOptions {
    LoginOptions {
        initiator: "iqn.2026-01.test:us".into(),
        kind: Kind::Normal { target: "iqn.2026-01.test:library".into() },
        credentials,
        digests: Digests { header: true, data: true },
        isid: [0x80, 1, 2, 3, 4, 5],
        random: [9; CHALLENGE + 1],
    }
}

fn credentials(mutual: bool) -> Option<Credentials> {
    let target = mutual.then(|| ("library".to_owned(), Secret::new(b"tape-tape-tape".to_vec())));
    let secret = Secret::new(b"reel-reel-reel".to_vec());
    Some(Credentials { user: "twin".into(), secret, target })
}

fn response(transit: bool, stage: u8, next: u8) -> LoginResponse {
    LoginResponse { transit, stage, next, max_cmd_sn: 33, ..LoginResponse::default() }
}

fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Pairs::default();
    for (key, value) in pairs {
        out.add(key, *value);
    }
    out.encode()
}

fn sent(step: Result<Step, LoginError>) -> (LoginRequest, Pairs) {
    match step {
        Ok(Step::Send(request, text)) => (request, Pairs::parse(&text).unwrap()),
        other => panic!("nothing is sent: {other:?}"),
    }
}

/// A login that has come to the operational stage without a password.
fn operational() -> Login {
    let (mut login, first, _) = Login::new(options(None));
    assert!(first.transit && first.immediate && (first.stage, first.next) == (0, 1));
    let answer = text(&[("AuthMethod", "None"), ("TargetPortalGroupTag", "1")]);
    let (request, offer) = sent(login.receive(&response(true, 0, 1), &answer));
    assert!(request.transit && (request.stage, request.next) == (1, 3));
    assert_eq!(offer.get("HeaderDigest"), Some("CRC32C,None"));
    assert_eq!(offer.get("InitialR2T"), Some("No"));
    login
}

fn agreed(pairs: &[(&str, &str)]) -> Result<Limits, LoginError> {
    match operational().receive(&response(true, 1, 3), &text(pairs))? {
        Step::Done(session) => Ok(*session.limits()),
        Step::Send(..) => Err(LoginError::Endless),
    }
}

#[test]
fn limits_are_the_smaller_ones() {
    let defaults = agreed(&[]).unwrap();
    assert_eq!(defaults, Limits { first_burst: 65_536, ..Limits::INITIAL });
    let tgt = agreed(&[
        ("HeaderDigest", "CRC32C"),
        ("DataDigest", "None"),
        ("MaxRecvDataSegmentLength", "8192"),
        ("MaxBurstLength", "16776192"),
        ("FirstBurstLength", "16776192"),
        ("InitialR2T", "No"),
        ("ImmediateData", "Yes"),
        ("MaxOutstandingR2T", "1"),
        ("ErrorRecoveryLevel", "0"),
    ]);
    let expected = Limits {
        digests: Digests { header: true, data: false },
        send: 8192,
        take: 256 << 10,
        immediate: true,
        initial_r2t: false,
        first_burst: 256 << 10,
        burst: 1 << 20,
    };
    assert_eq!(tgt, Ok(expected));
    let short = agreed(&[("MaxBurstLength", "1024"), ("FirstBurstLength", "0x800")]).unwrap();
    assert_eq!((short.burst, short.first_burst), (1024, 1024));
    let refused = [("HeaderDigest", "Reject"), ("FirstBurstLength", "Irrelevant")];
    assert_eq!(agreed(&refused), Ok(defaults));
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (key, value) in [
        ("HeaderDigest", "MD5"),
        ("DataDigest", ""),
        ("MaxRecvDataSegmentLength", "511"),
        ("MaxRecvDataSegmentLength", "16777216"),
        ("MaxBurstLength", "-1"),
        ("InitialR2T", "Maybe"),
        ("DataPDUInOrder", "No"),
        ("DataSequenceInOrder", "No"),
        ("ErrorRecoveryLevel", "2"),
    ] {
        let error = agreed(&[(key, value)]);
        assert_eq!(error, Err(LoginError::Value(key, value.to_owned())));
    }
}

#[test]
fn digests_that_were_not_wished_are_refused() {
    let plain = LoginOptions { digests: Digests::default(), ..options(None) };
    let (mut login, ..) = Login::new(plain);
    let (_, offer) = sent(login.receive(&response(true, 0, 1), b""));
    assert_eq!(offer.get("DataDigest"), Some("None"));
    let error = login.receive(&response(true, 1, 3), &text(&[("DataDigest", "CRC32C")]));
    assert_eq!(error.unwrap_err(), LoginError::Value("DataDigest", "CRC32C".into()));
}

#[test]
fn questions_of_the_target_are_answered() {
    let mut login = operational();
    let question = text(&[("X-com.example.new", "Yes"), ("TargetAlias", "library")]);
    let (request, answer) = sent(login.receive(&response(false, 1, 0), &question));
    assert!(request.transit);
    assert_eq!(answer.iter().collect::<Vec<_>>(), [("X-com.example.new", "NotUnderstood")]);
    assert!(matches!(login.receive(&response(true, 1, 3), b""), Ok(Step::Done(_))));
}

/// Plays the target's side of CHAP; `prove` is what it answers at the end.
fn chap(mutual: bool, prove: impl Fn(&Pairs) -> Vec<u8>) -> Result<Step, LoginError> {
    let (mut login, first, opening) = Login::new(options(credentials(mutual)));
    assert!(!first.transit);
    assert_eq!(Pairs::parse(&opening).unwrap().get("AuthMethod"), Some("CHAP"));
    let (_, a) = sent(login.receive(&response(false, 0, 0), &text(&[("AuthMethod", "CHAP")])));
    assert_eq!(a.get("CHAP_A"), Some("5"));
    let challenge = text(&[("CHAP_A", "5"), ("CHAP_I", "3"), ("CHAP_C", "0x0102030405")]);
    let (request, answer) = sent(login.receive(&response(false, 0, 0), &challenge));
    assert!(request.transit && request.next == 1);
    let proof = chap_response(3, &Secret::new(b"reel-reel-reel".to_vec()), &[1, 2, 3, 4, 5]);
    assert_eq!(answer.get("CHAP_R"), Some(to_hex(&proof).as_str()));
    login.receive(&response(true, 0, 1), &prove(&answer))
}

#[test]
fn chap_proves_one_or_both() {
    assert!(sent(chap(false, |_| Vec::new())).1.get("HeaderDigest").is_some());
    let good = |_: &Pairs| {
        let sum = chap_response(9, &Secret::new(b"tape-tape-tape".to_vec()), &[9; CHALLENGE]);
        text(&[("CHAP_N", "library"), ("CHAP_R", &to_hex(&sum))])
    };
    assert!(sent(chap(true, good)).1.get("HeaderDigest").is_some());
    let error = chap(true, |_| Vec::new()).unwrap_err();
    assert_eq!(error, ChapError::Missing("CHAP_R").into());
    // Our own answer sent back proves nothing.
    let mirror = |answer: &Pairs| {
        text(&[("CHAP_N", "library"), ("CHAP_R", answer.get("CHAP_R").unwrap_or(""))])
    };
    assert_eq!(chap(true, mirror).unwrap_err(), ChapError::Target.into());
}

#[test]
fn a_target_can_not_talk_us_out_of_a_password() {
    for answer in [text(&[("AuthMethod", "None")]), text(&[])] {
        let (mut login, ..) = Login::new(options(credentials(true)));
        let error = login.receive(&response(true, 0, 1), &answer).unwrap_err();
        assert!(matches!(error, LoginError::Method { wanted: "CHAP", .. }), "{error}");
    }
    let (mut login, ..) = Login::new(options(credentials(true)));
    let method = text(&[("AuthMethod", "CHAP")]);
    let error = login.receive(&response(true, 0, 1), &method).unwrap_err();
    assert_eq!(error, LoginError::Order);
    let (mut login, ..) = Login::new(options(None));
    let error = login.receive(&response(false, 0, 0), &method).unwrap_err();
    assert!(matches!(error, LoginError::Method { wanted: "None", .. }), "{error}");
}

#[test]
fn a_target_may_tell_everybody_what_there_is() {
    let asking = LoginOptions { kind: Kind::Discovery, ..options(credentials(true)) };
    let (mut login, _, opening) = Login::new(asking);
    let opening = Pairs::parse(&opening).unwrap();
    assert_eq!(opening.get("AuthMethod"), Some("CHAP,None"));
    assert_eq!((opening.get("SessionType"), opening.get("TargetName")), (Some("Discovery"), None));
    let none = text(&[("AuthMethod", "None")]);
    let (request, _) = sent(login.receive(&response(false, 0, 0), &none));
    assert!(request.transit);
    let (_, offer) = sent(login.receive(&response(true, 0, 1), b""));
    assert_eq!((offer.get("DataDigest"), offer.get("MaxBurstLength")), (Some("CRC32C,None"), None));
}

#[test]
fn refusals_say_why() {
    let refused = |class, detail, data: &[u8]| {
        let (mut login, ..) = Login::new(options(None));
        let response = LoginResponse { class, detail, ..response(false, 0, 0) };
        login.receive(&response, data).unwrap_err()
    };
    let error = refused(2, 1, b"");
    assert!(error.to_string().contains("user and secret are not accepted"), "{error}");
    let moved = text(&[("TargetAddress", "10.0.0.9:3260,1")]);
    assert_eq!(refused(1, 1, &moved), LoginError::Moved("10.0.0.9:3260".into()));
    assert_eq!(refused(1, 1, b""), LoginError::Refused { class: 1, detail: 1 });
}

#[test]
fn what_is_out_of_order_or_without_end_is_refused() {
    let error = |response: LoginResponse| {
        let (mut login, ..) = Login::new(options(None));
        login.receive(&response, b"").unwrap_err()
    };
    assert_eq!(error(response(true, 1, 3)), LoginError::Order);
    assert_eq!(error(response(true, 0, 3)), LoginError::Order);
    assert_eq!(error(LoginResponse { task: 5, ..response(true, 0, 1) }), LoginError::Order);
    assert_eq!(error(LoginResponse { more: true, ..response(true, 0, 1) }), LoginError::Order);
    let (mut login, ..) = Login::new(options(None));
    let last = (0..20).find_map(|_| login.receive(&response(false, 0, 0), b"").err());
    assert_eq!(last, Some(LoginError::Endless));
    let (mut login, ..) = Login::new(options(None));
    let more = LoginResponse { more: true, ..response(false, 0, 0) };
    let last = (0..20).find_map(|_| login.receive(&more, &[b'a'; 8192]).err());
    assert_eq!(last, Some(LoginError::Text(TextError::TooLong)));
}

#[test]
fn long_texts_come_in_parts() {
    let mut login = operational();
    let (first, second) = (b"MaxRecvDataSegm".as_slice(), b"entLength=4096\0".as_slice());
    let more = LoginResponse { more: true, ..response(false, 1, 0) };
    let (request, pairs) = sent(login.receive(&more, first));
    assert!(!request.transit && pairs == Pairs::default());
    match login.receive(&response(true, 1, 3), second) {
        Ok(Step::Done(session)) => assert_eq!(session.limits().send, 4096),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn rubbish_never_panics(
        mutual: bool,
        answers in prop::collection::vec(
            (
                any::<[bool; 2]>(),
                0u8..4,
                0u8..4,
                "(CHAP_[ACINR]=[0-9a-fx]{0,9}\0|AuthMethod=CHAP\0){0,4}",
            ),
            0..20,
        ),
    ) {
        let (mut login, ..) = Login::new(options(credentials(mutual)));
        for ([transit, more], stage, next, text) in answers {
            let response = LoginResponse { more, ..response(transit, stage, next) };
            if login.receive(&response, text.as_bytes()).is_err() {
                break;
            }
        }
    }
}
