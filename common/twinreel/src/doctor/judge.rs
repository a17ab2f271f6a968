//! From what was seen to findings: a pure function.

use std::collections::BTreeMap;
use std::time::Duration;

use dma::Version;
use model::ElementType;
use ndmp::wire::AuthType;
use scsi::ElementDescriptor;

use super::finding::Finding;
use super::seen::{
    Attempt, Changer, Contact, Dialled, Expected, Inside, Library, MoverTrial, NoContact, Seen,
    State,
};

/// How long a message may take: some applications wait no longer for a greeting.
const PROMPT: Duration = Duration::from_secs(1);
/// Seconds that two clocks may differ without anybody being misled.
const SKEW: i64 = 5;

const DIAL_ADVICE: &str = "the data hosts must reach it: open the way, or name other addresses in \
                           mover_addresses and ports in mover_ports of [ndmp]";

/// All findings, in the order in which an application would meet them.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let server = &seen.server;
    let contact = match &seen.contact {
        Ok(contact) => contact,
        Err(NoContact::Unreachable(why)) => {
            return vec![Finding::fail(
                format!("{server} can not be reached: {why}"),
                "start the engine; compare the address with listen of [ndmp] and with firewalls",
            )];
        }
        Err(NoContact::Refused(why)) => {
            let why = if why.is_empty() { "without a word" } else { why };
            return vec![Finding::fail(
                format!("{server} turns this host away: {why}"),
                "look at allow and max_sessions of [ndmp], and at the engine's log",
            )];
        }
        Err(NoContact::Strange(why)) => {
            return vec![Finding::fail(
                format!("{server} does not answer as an NDMP server: {why}"),
                "name the port of the NDMP server and a version that it serves",
            )];
        }
    };
    let mut findings = vec![greeting(server, contact)];
    versions(contact, &mut findings);
    findings.extend(clock(contact));
    methods(contact, &mut findings);
    logins(contact, &mut findings);
    if let Some(inside) = &contact.session {
        judge_inside(contact, inside, &mut findings);
    }
    findings
}

fn greeting(server: &str, contact: &Contact) -> Finding {
    let seen = format!("{server} greets within {}", milliseconds(contact.greeting));
    match contact.address.is_loopback() {
        _ if contact.greeting > PROMPT => {
            Finding::warn(seen, "applications give up after a second: look at names and network")
        }
        true => Finding::ok(seen).but("ask it from the application's host too: this is loopback"),
        false => Finding::ok(seen),
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis().max(1))
}

fn versions(contact: &Contact, findings: &mut Vec<Finding>) {
    let opened: Vec<_> = contact.versions.iter().filter(|(_, it)| it.is_ok()).collect();
    let names: Vec<_> = opened.iter().map(|(version, _)| version.to_wire().to_string()).collect();
    let seen = format!("announces version {}, opens {}", contact.offered, names.join(", "));
    let highest = opened.iter().map(|(version, _)| *version).max();
    findings.push(match highest {
        Some(Version::V4) => Finding::ok(seen),
        Some(Version::V3) => Finding::warn(seen, "copies work; without version 4, no raw mode"),
        _ => Finding::fail(seen, "a copy from mover to mover needs version 3 or 4"),
    });
    for (version, result) in &contact.versions {
        let announced = version.to_wire() <= contact.offered && *version > Version::V2;
        if let (Err(why), true) = (result, announced) {
            findings.push(Finding::warn(
                format!("version {} does not open: {why}", version.to_wire()),
                "set the application to one that does",
            ));
        }
    }
}

fn clock(contact: &Contact) -> Option<Finding> {
    let ahead = contact.ahead?;
    let way = if ahead < 0 { "behind" } else { "ahead" };
    Some(match ahead.abs() {
        0..=SKEW => Finding::ok("its clock agrees with this one"),
        far => Finding::warn(
            format!("its clock is {far} s {way} of this one"),
            "set both by NTP: else jobs and logs can not be compared",
        ),
    })
}

fn method(method: AuthType) -> String {
    match method {
        AuthType::None => "none".to_owned(),
        AuthType::Text => "text".to_owned(),
        AuthType::Md5 => "md5".to_owned(),
        other => other.to_string(),
    }
}

fn methods(contact: &Contact, findings: &mut Vec<Finding>) {
    let Some(offered) = &contact.methods else { return };
    let names: Vec<_> = offered.iter().map(|it| method(*it)).collect();
    let seen = format!("offers to log in by {}", names.join(", "));
    findings.push(match () {
        () if offered.is_empty() => {
            Finding::fail("offers no way to log in", "give an [[ndmp.user]] a password")
        }
        () if offered.contains(&AuthType::None) && !contact.address.is_loopback() => {
            Finding::fail(seen, "anybody may come in: take \"none\" out of auth of [[ndmp.user]]")
        }
        () if offered.contains(&AuthType::None) => {
            Finding::warn(seen, "everybody on that machine may come in: take \"none\" out of auth")
        }
        () if !offered.contains(&AuthType::Md5) => {
            Finding::warn(seen, "passwords go in clear: add \"md5\" to auth of [[ndmp.user]]")
        }
        () => Finding::ok(seen),
    });
}

fn logins(contact: &Contact, findings: &mut Vec<Finding>) {
    let works = contact.right.iter().any(|(_, it)| *it == Attempt::Accepted);
    for (kind, attempt) in &contact.right {
        let kind = method(*kind);
        let refused = format!("logging in by {kind} is refused");
        findings.push(match attempt {
            Attempt::Accepted => Finding::ok(format!("logging in by {kind} works")),
            Attempt::Refused if works => {
                Finding::warn(refused, format!("set the application to another way than {kind}"))
            }
            Attempt::Refused => Finding::fail(
                refused,
                "compare user and password with [[ndmp.user]]; after login_attempts failures a \
                 host is locked out for lockout_seconds",
            ),
            Attempt::NotInClear => Finding::ok(format!("logging in by {kind} was not tried"))
                .but("the password would cross the network in clear: --auth text tries it"),
            Attempt::Failed(why) if works => {
                Finding::warn(format!("logging in by {kind}: {why}"), "look at the engine's log")
            }
            Attempt::Failed(why) => {
                Finding::fail(format!("logging in by {kind}: {why}"), "look at the engine's log")
            }
        });
    }
    for (kind, attempt) in &contact.wrong {
        let kind = method(*kind);
        findings.extend(match attempt {
            Attempt::Accepted => Some(Finding::fail(
                format!("a wrong password is accepted by {kind}"),
                "this server protects nothing: take it off the network",
            )),
            Attempt::Refused => Some(Finding::ok(format!("a wrong password is refused by {kind}"))),
            Attempt::NotInClear | Attempt::Failed(_) => None,
        });
    }
    if works && contact.session.is_none() {
        findings.push(Finding::fail(
            "the session after that was not taken",
            "look at max_sessions of [ndmp] and at the engine's log",
        ));
    }
}

fn judge_inside(contact: &Contact, inside: &Inside, findings: &mut Vec<Finding>) {
    findings.push(identity(inside));
    devices(inside, findings);
    if let Some(expected) = &inside.expected {
        missing(expected, &inside.libraries, findings);
    }
    for library in &inside.libraries {
        judge_library(library, findings);
    }
    barcodes(&inside.libraries, findings);
    mover(contact, &inside.mover, findings);
    if let Some((what, took)) = &inside.slowest {
        let seen = format!("the slowest answer took {}: {what}", milliseconds(*took));
        findings.push(match *took > PROMPT {
            true => Finding::warn(seen, "look at the load of the engines, their disks, the link"),
            false => Finding::ok(seen),
        });
    }
}

fn identity(inside: &Inside) -> Finding {
    let version = inside.version;
    let host = inside.host.as_ref().map(|host| {
        format!(
            "host {} ({} {}, id {})",
            host.hostname, host.os_type, host.os_version, host.host_id
        )
    });
    let server = inside
        .server
        .as_ref()
        .map(|server| format!("{} {} {}", server.vendor, server.product, server.revision));
    match (server, host) {
        (None, None) => Finding::warn(
            format!("{version}: it tells neither server nor host"),
            "an application that asks for them may fail",
        ),
        (server, host) => {
            let both: Vec<_> = server.into_iter().chain(host).collect();
            Finding::ok(format!("{version}: {}", both.join(", ")))
        }
    }
}

fn devices(inside: &Inside, findings: &mut Vec<Finding>) {
    if let Some(why) = &inside.unlisted {
        let advice = match inside.version {
            Version::V2 => {
                "version 2 has no lists: enter LIBRARY/changer and LIBRARY/drive0 by hand"
            }
            _ => "look at the engine's log",
        };
        findings.push(Finding::warn(format!("the devices are not listed: {why}"), advice));
    } else if inside.libraries.is_empty() {
        findings.push(Finding::fail(
            "no devices are listed",
            "look at the libraries of the configuration and at devices of this [[ndmp.user]]",
        ));
    }
}

/// What the configuration has and the lists have not.
fn missing(expected: &Expected, libraries: &[Library], findings: &mut Vec<Finding>) {
    let listed = |name: &String| libraries.iter().any(|library| library.name == *name);
    for name in expected.own.iter().filter(|name| !listed(name)) {
        findings.push(Finding::fail(
            format!("library {name} of the configuration is not listed"),
            "let this user see it: devices of [[ndmp.user]]; or restart the engine with this file",
        ));
    }
    let ghosts = libraries.iter().filter(|it| !expected.own.contains(&it.name)).count();
    if ghosts == 0 && expected.links > 0 {
        findings.push(Finding::fail(
            format!("no ghost library is listed, {} [[link]] configured", expected.links),
            "the other site was never reached: look at `twinreel status`, and at libraries of \
             [[peer]] in the remote configuration",
        ));
    }
}

fn judge_library(library: &Library, findings: &mut Vec<Finding>) {
    let name = &library.name;
    match &library.changer {
        None => findings.push(Finding::warn(
            format!("library {name} lists no changer"),
            "without a robot somebody has to load its drives: look at devices of [[ndmp.user]]",
        )),
        Some(changer) => {
            findings.push(judge_changer(changer));
            if let Some(elements) = &changer.elements {
                inventory(library, elements, findings);
            }
        }
    }
    if library.drives.is_empty() {
        findings.push(Finding::warn(
            format!("library {name} lists no drive"),
            "look at drives of the library and at devices of [[ndmp.user]]",
        ));
    }
    let drives = library.drives.iter();
    findings.extend(drives.map(|drive| state(&drive.device, &drive.state, "is loaded and ready")));
}

fn judge_changer(changer: &Changer) -> Finding {
    let ready = match &changer.elements {
        Some(elements) => format!("is ready: {}", counted(elements)),
        None => "is ready".to_owned(),
    };
    state(&changer.device, &changer.state, &ready)
}

fn counted(elements: &[ElementDescriptor]) -> String {
    let count = |kind| elements.iter().filter(|element| element.kind == kind).count();
    format!(
        "{} slots, {} drives, {} import/export, {} cartridges",
        count(ElementType::Storage),
        count(ElementType::DataTransfer),
        count(ElementType::ImportExport),
        elements.iter().filter(|element| element.full).count(),
    )
}

fn state(device: &str, state: &State, ready: &str) -> Finding {
    match state {
        State::Ready => Finding::ok(format!("{device} {ready}")),
        State::Empty => Finding::ok(format!("{device} is empty")),
        State::Busy(holder) => {
            let by = holder.as_ref().map_or_else(String::new, |holder| format!(": {holder}"));
            Finding::warn(
                format!("{device} is in use by another session{by}"),
                "if it should be free, end that session; the engine's log names its host",
            )
        }
        // What a ghost device answers while nobody can reach the real one.
        State::NotReady(sense) if (sense.key, sense.asc) == (0x02, 0x04) => Finding::fail(
            format!("{device} is not ready ({sense}): nobody can reach it"),
            "if it is a ghost: is the remote engine up, and the link? `twinreel status` says; \
             else look at the device",
        ),
        State::NotReady(sense) => Finding::fail(
            format!("{device} is not ready: {sense}"),
            "look at the device: the sense data says what it is",
        ),
        State::Failed(why) => Finding::fail(
            format!("{device} can not be asked: {why}"),
            "look at devices of [[ndmp.user]] and at the engine's log",
        ),
    }
}

fn inventory(library: &Library, elements: &[ElementDescriptor], findings: &mut Vec<Finding>) {
    let name = &library.name;
    let drives = elements.iter().filter(|it| it.kind == ElementType::DataTransfer).count();
    if drives != library.drives.len() && !library.drives.is_empty() {
        findings.push(Finding::warn(
            format!("{name} has {drives} drives, {} of them are listed", library.drives.len()),
            "tell the application which element is which drive, or give this user all devices",
        ));
    }
    let bare: Vec<_> = elements.iter().filter(|it| it.full && it.tag.is_none()).collect();
    if !bare.is_empty() {
        let at: Vec<_> = bare.iter().map(|it| it.address.to_string()).collect();
        findings.push(Finding::warn(
            format!("{name}: no barcode on the cartridge in element {}", at.join(", ")),
            "put a label on it and take inventory: applications find cartridges by barcode",
        ));
    }
    for element in elements {
        if let Some((asc, ascq)) = element.exception {
            findings.push(Finding::warn(
                format!("{name}: element {} reports {asc:02x}/{ascq:02x}", element.address),
                "look at that element of the library",
            ));
        }
    }
}

/// Barcodes that are in two places, of one library or of several.
fn barcodes(libraries: &[Library], findings: &mut Vec<Finding>) {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for library in libraries {
        let elements = library.changer.iter().filter_map(|it| it.elements.as_ref()).flatten();
        for element in elements {
            if let Some(tag) = &element.tag {
                let place = format!("{} element {}", library.name, element.address);
                places.entry(tag).or_default().push(place);
            }
        }
    }
    for (barcode, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        findings.push(Finding::fail(
            format!("barcode {barcode} is there twice: {}", places.join(", ")),
            "give each cartridge a barcode of its own: an application takes one for the other",
        ));
    }
}

fn mover(contact: &Contact, trial: &MoverTrial, findings: &mut Vec<Finding>) {
    let Some(drive) = &trial.drive else {
        findings.push(Finding::warn(
            "the mover was not tried: no drive is free",
            "ask again when one is empty, or loaded and idle",
        ));
        return;
    };
    if let Some(why) = &trial.deaf {
        findings.push(Finding::fail(
            format!("the mover of {drive} does not listen over TCP: {why}"),
            "look at mover_addresses and mover_ports of [ndmp] and at the engine's log",
        ));
    }
    for (address, dialled) in &trial.addresses {
        let at = format!("the mover of {drive} listens at {address}");
        let stranded = address.ip().is_loopback() && !contact.address.is_loopback();
        findings.push(match dialled {
            Dialled::Nowhere => {
                Finding::fail(format!("{at}, which is no address to dial"), DIAL_ADVICE)
            }
            _ if stranded => {
                Finding::fail(format!("{at}, which every other host takes for itself"), DIAL_ADVICE)
            }
            Dialled::Taken => Finding::ok(format!("{at} and takes a connection from here")),
            Dialled::NotNoticed => Finding::fail(
                format!("{at}, and does not take the connection that was made"),
                "somebody else answers there, or mover_peers of [ndmp] turns this host away",
            ),
            Dialled::Failed(why) => {
                Finding::fail(format!("{at}, where nobody answers: {why}"), DIAL_ADVICE)
            }
        });
    }
    findings.extend(trial.local.as_ref().map(|local| match local {
        Ok(()) => Finding::ok(format!("the mover of {drive} listens for one of the same server")),
        Err(why) => Finding::warn(
            format!("the mover of {drive} does not listen locally: {why}"),
            "set the application to data connections over TCP",
        ),
    }));
}
