//! The judgement, without a server.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dma::Version;
use model::{ElementAddress, ElementType};
use ndmp::wire::{AuthType, HostInfo, ServerInfo};
use scsi::{ElementDescriptor, Sense};

use super::finding::{Finding, Severity};
use super::judge::judge;
use super::seen::{
    Attempt, Changer, Contact, Dialled, Drive, Expected, Inside, Library, MoverTrial, NoContact,
    Seen, State,
};

fn element(address: ElementAddress, kind: ElementType, tag: Option<&str>) -> ElementDescriptor {
    ElementDescriptor {
        address,
        kind,
        full: tag.is_some(),
        imported: false,
        accessible: true,
        exception: None,
        source: None,
        tag: tag.map(str::to_owned),
        identity: None,
    }
}

fn library(name: &str, tags: [&str; 2]) -> Library {
    let elements = vec![
        element(1024, ElementType::Storage, Some(tags[0])),
        element(1025, ElementType::Storage, Some(tags[1])),
        element(128, ElementType::DataTransfer, None),
        element(0, ElementType::ImportExport, None),
    ];
    let device = format!("{name}/changer");
    let changer = Changer { device, state: State::Ready, elements: Some(elements) };
    let device = format!("{name}/drive0");
    let drive = Drive { device, moves_at_close: false, state: State::Empty };
    Library { name: name.to_owned(), changer: Some(changer), drives: vec![drive] }
}

fn inside() -> Inside {
    Inside {
        version: Version::V4,
        host: Some(HostInfo { hostname: "hq".into(), ..HostInfo::default() }),
        server: Some(ServerInfo { product: "Twinreel".into(), ..ServerInfo::default() }),
        unlisted: None,
        libraries: vec![library("vtl0", ["A", "B"]), library("dr-ptl0", ["C", "D"])],
        expected: Some(Expected { own: vec!["vtl0".into()], links: 1, login_attempts: 10 }),
        mover: MoverTrial {
            drive: Some("vtl0/drive0".into()),
            addresses: vec![("192.0.2.1:4711".parse().unwrap(), Dialled::Taken)],
            deaf: None,
            local: Some(Ok(())),
        },
        slowest: Some(("NDMP_SCSI_OPEN".into(), Duration::from_millis(20))),
    }
}

fn contact() -> Contact {
    let each = |attempt: Attempt| vec![(AuthType::Md5, attempt.clone()), (AuthType::Text, attempt)];
    Contact {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        greeting: Duration::from_millis(3),
        offered: 4,
        versions: Version::ALL.into_iter().map(|version| (version, Ok(()))).collect(),
        ahead: Some(-1),
        methods: Some(vec![AuthType::Text, AuthType::Md5]),
        wrong: each(Attempt::Refused),
        right: each(Attempt::Accepted),
        session: Some(inside()),
    }
}

fn findings(contact: Contact) -> Vec<Finding> {
    judge(&Seen { server: "hq:10000".into(), contact: Ok(contact) })
}

/// What is not as it should be when one thing is changed: severity and text.
fn amiss(change: impl FnOnce(&mut Contact)) -> Vec<(Severity, String)> {
    let mut contact = contact();
    change(&mut contact);
    let found = findings(contact).into_iter().filter(|it| it.severity != Severity::Ok);
    let found = found.map(|it| {
        assert!(it.advice.is_some(), "nothing to do about it: {it}");
        (it.severity, it.to_string())
    });
    found.collect()
}

fn amiss_inside(change: impl FnOnce(&mut Inside)) -> Vec<(Severity, String)> {
    amiss(|contact| change(contact.session.as_mut().unwrap()))
}

#[track_caller]
fn one(found: &[(Severity, String)], severity: Severity, text: &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, severity, "{found:#?}");
    assert!(found[0].1.contains(text), "{found:#?}");
}

#[test]
fn nothing_is_amiss_with_a_healthy_pair() {
    let found = findings(contact());
    assert!(found.iter().all(|it| it.severity == Severity::Ok), "{found:#?}");
    let text: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 16, "{text:#?}");
    assert!(text.contains(&"ok    vtl0/drive0 is empty".to_owned()), "{text:#?}");
    let changer =
        "ok    dr-ptl0/changer is ready: 2 slots, 1 drives, 1 import/export, 2 cartridges";
    assert!(text.contains(&changer.to_owned()), "{text:#?}");
}

#[test]
fn a_finding_is_one_line_with_what_to_do() {
    let line = Finding::fail("it is broken", "mend it").to_string();
    assert_eq!(line, "fail  it is broken  ->  mend it");
    assert_eq!(Finding::warn("a", "b").to_string(), "warn  a  ->  b");
    assert_eq!(Finding::ok("a").but("b").to_string(), "ok    a  ->  b");
    assert_eq!(Finding::ok("fine").to_string(), "ok    fine");
}

#[test]
fn without_a_session_there_is_one_finding() {
    for (contact, text) in [
        (NoContact::Unreachable("connection refused".into()), "can not be reached: connection"),
        (NoContact::Refused("all sessions are taken".into()), "turns this host away: all"),
        (NoContact::Refused(String::new()), "turns this host away: without a word"),
        (NoContact::Strange("no greeting".into()), "does not answer as an NDMP server"),
    ] {
        let found = judge(&Seen { server: "hq:10000".into(), contact: Err(contact) });
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, Severity::Fail);
        assert!(found[0].seen.starts_with("hq:10000 ") && found[0].seen.contains(text));
    }
}

#[test]
fn greeting_versions_and_clock() {
    let slow = amiss(|it| it.greeting = Duration::from_millis(1500));
    one(&slow, Severity::Warn, "greets within 1500 ms");
    let old = amiss(|it| {
        it.offered = 2;
        it.versions[1].1 = Err("too new".into());
        it.versions[2].1 = Err("too new".into());
    });
    one(&old, Severity::Fail, "announces version 2, opens 2");
    let three = amiss(|it| it.versions[2].1 = Err("refused".into()));
    assert_eq!(three.len(), 2, "{three:#?}");
    assert!(three[0].1.contains("opens 2, 3") && three[1].1.contains("version 4 does not open"));
    assert_eq!(amiss(|it| it.versions[0].1 = Err("not served".into())), []);
    one(&amiss(|it| it.ahead = Some(90)), Severity::Warn, "90 s ahead");
    one(&amiss(|it| it.ahead = Some(-6)), Severity::Warn, "6 s behind");
    assert_eq!(amiss(|it| it.ahead = None), []);
}

#[test]
fn logging_in() {
    let all = |attempt: Attempt| {
        move |it: &mut Contact| {
            it.right = vec![(AuthType::Md5, attempt.clone()), (AuthType::Text, attempt)];
            it.session = None;
        }
    };
    let refused = amiss(all(Attempt::Refused));
    assert_eq!(refused.len(), 2, "{refused:#?}");
    assert!(refused.iter().all(|it| it.0 == Severity::Fail && it.1.contains("[[ndmp.user]]")));
    let failed = amiss(all(Attempt::Failed("it broke".into())));
    assert!(failed.iter().all(|it| it.0 == Severity::Fail && it.1.contains("it broke")));
    let one_way = amiss(|it| it.right[1].1 = Attempt::Refused);
    one(&one_way, Severity::Warn, "logging in by text is refused");
    assert_eq!(amiss(|it| it.right[1].1 = Attempt::NotInClear), []);
    let open = amiss(|it| it.wrong[0].1 = Attempt::Accepted);
    one(&open, Severity::Fail, "a wrong password is accepted by md5");
    one(&amiss(|it| it.session = None), Severity::Fail, "the session after that");
}

#[test]
fn ways_to_log_in() {
    let offers = |methods: Vec<AuthType>| amiss(|it| it.methods = Some(methods));
    one(&offers(Vec::new()), Severity::Fail, "offers no way");
    one(&offers(vec![AuthType::Text]), Severity::Warn, "in clear");
    one(&offers(vec![AuthType::Md5, AuthType::None]), Severity::Fail, "anybody may come in");
    let here = amiss(|it| {
        it.methods = Some(vec![AuthType::None]);
        it.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    });
    one(&here, Severity::Warn, "by none");
}

#[test]
fn devices_that_are_missing() {
    let none = amiss_inside(|it| {
        it.libraries.clear();
        it.expected = None;
        it.mover = MoverTrial::default();
    });
    assert_eq!(none.len(), 2, "{none:#?}");
    assert!(none[0].1.contains("no devices are listed") && none[0].0 == Severity::Fail);
    let ghostless = amiss_inside(|it| drop(it.libraries.pop()));
    one(&ghostless, Severity::Fail, "no ghost library is listed");
    let alone = amiss_inside(|it| {
        it.libraries.pop();
        it.expected.as_mut().unwrap().links = 0;
    });
    assert_eq!(alone, []);
    let hidden = amiss_inside(|it| drop(it.libraries.remove(0)));
    one(&hidden, Severity::Fail, "library vtl0 of the configuration is not listed");
    let armless = amiss_inside(|it| it.libraries[0].changer = None);
    one(&armless, Severity::Warn, "vtl0 lists no changer");
    let driveless = amiss_inside(|it| it.libraries[0].drives.clear());
    one(&driveless, Severity::Warn, "vtl0 lists no drive");
    let fewer = amiss_inside(|it| {
        let more = element(129, ElementType::DataTransfer, None);
        it.libraries[0].changer.as_mut().unwrap().elements.as_mut().unwrap().push(more);
    });
    one(&fewer, Severity::Warn, "has 2 drives, 1 of them");
    let unlisted = amiss_inside(|it| it.unlisted = Some("NDMP_NOT_SUPPORTED_ERR".into()));
    one(&unlisted, Severity::Warn, "the devices are not listed: NDMP_NOT");
}

#[test]
fn states_of_devices() {
    let drive = |state: State| amiss_inside(|it| it.libraries[1].drives[0].state = state);
    assert_eq!(drive(State::Ready), []);
    one(&drive(State::Busy(None)), Severity::Warn, "dr-ptl0/drive0 is in use by another session  ");
    one(&drive(State::Busy(Some("by X".into()))), Severity::Warn, "session: by X");
    let cut = drive(State::NotReady(Sense::new(0x02, 0x04, 0x00)));
    one(&cut, Severity::Fail, "not ready (sense 02/04/00): nobody can reach it");
    assert!(cut[0].1.contains("twinreel status"));
    let broken = drive(State::NotReady(Sense::new(0x04, 0x44, 0x00)));
    one(&broken, Severity::Fail, "sense 04/44/00");
    one(&drive(State::Failed("denied".into())), Severity::Fail, "can not be asked: denied");
    let changer = amiss_inside(|it| {
        it.libraries[1].changer.as_mut().unwrap().state =
            State::NotReady(Sense::new(0x02, 0x04, 0x00));
    });
    one(&changer, Severity::Fail, "dr-ptl0/changer is not ready");
}

#[test]
fn barcodes() {
    let tag = |at: usize, tag: Option<&'static str>| {
        move |it: &mut Inside| {
            let elements = it.libraries[1].changer.as_mut().unwrap().elements.as_mut().unwrap();
            elements[at].tag = tag.map(str::to_owned);
            elements[at].full = true;
        }
    };
    let twice = amiss_inside(tag(0, Some("A")));
    one(
        &twice,
        Severity::Fail,
        "barcode A is there twice: vtl0 element 1024, dr-ptl0 element 1024",
    );
    one(&amiss_inside(tag(0, Some("D"))), Severity::Fail, "dr-ptl0 element 1024, dr-ptl0 element");
    one(&amiss_inside(tag(1, None)), Severity::Warn, "no barcode on the cartridge in element 1025");
    let odd = amiss_inside(|it| {
        let elements = it.libraries[0].changer.as_mut().unwrap().elements.as_mut().unwrap();
        elements[2].exception = Some((0x83, 0x00));
    });
    one(&odd, Severity::Warn, "element 128 reports 83/00");
}

#[test]
fn where_the_mover_listens() {
    let at = |address: &str, dialled: Dialled| {
        let address = address.parse().unwrap();
        amiss_inside(|it| it.mover.addresses.push((address, dialled)))
    };
    one(&at("0.0.0.0:9", Dialled::Nowhere), Severity::Fail, "0.0.0.0:9, which is no address");
    // Somebody on this machine may answer there; it is another for everybody else.
    one(&at("127.0.0.1:9", Dialled::Taken), Severity::Fail, "every other host takes for itself");
    one(&at("192.0.2.9:9", Dialled::Failed("no way".into())), Severity::Fail, "answers: no way");
    one(&at("192.0.2.9:9", Dialled::NotNoticed), Severity::Fail, "mover_peers");
    let here = amiss(|it| {
        it.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        it.session.as_mut().unwrap().mover.addresses[0].0 = "127.0.0.1:9".parse().unwrap();
    });
    assert_eq!(here, []);
    let deaf = amiss_inside(|it| {
        it.mover.addresses.clear();
        it.mover.deaf = Some("NDMP_CONNECT_ERR".into());
    });
    one(&deaf, Severity::Fail, "does not listen over TCP: NDMP_CONNECT_ERR");
    let local = amiss_inside(|it| it.mover.local = Some(Err("no".into())));
    one(&local, Severity::Warn, "does not listen locally: no");
    let busy = amiss_inside(|it| it.mover = MoverTrial::default());
    one(&busy, Severity::Warn, "no drive is free");
}

#[test]
fn slow_answers() {
    let slow = amiss_inside(|it| {
        it.slowest = Some(("opening dr-ptl0/drive0".into(), Duration::from_millis(2500)));
    });
    one(&slow, Severity::Warn, "took 2500 ms: opening dr-ptl0/drive0");
}
