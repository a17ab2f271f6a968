//! Looking at a WBEM server as a management application would.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cim::xml::{Element, Limits, Writer, read};
use clap::Args;
use service::config::{EngineConfig, LocalConfig, Secret};
use zeroize::Zeroizing;

use super::finding::Finding;
use crate::cli::Failed;

/// How long any answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// An answer that takes longer is told.
const SLOW: Duration = Duration::from_secs(2);
/// Bytes of an answer.
const ANSWER_MAX: u64 = 256 << 20;

/// A WBEM server and a user of it.
#[derive(Debug, Args)]
pub(crate) struct SmisServer {
    /// The server, without TLS.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "config")]
    server: Option<String>,
    /// The user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the password in its first line.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Take server, user and password from the configuration of a local engine on this machine.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "user", "password_file"])]
    config: Option<PathBuf>,
}

/// Whom to ask, and what must be there.
struct Console {
    server: String,
    user: String,
    password: Secret,
    /// Libraries of the configuration.
    expected: Vec<String>,
    may_fail: bool,
}

/// A library as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Library {
    name: String,
    status: String,
    drives: usize,
    tapes: usize,
    /// Tapes that are not whole.
    broken: usize,
}

/// What was seen of a server that lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inside {
    server: String,
    profiles: Vec<String>,
    libraries: Vec<Library>,
    services: usize,
    jobs: usize,
    failed: usize,
    subscriptions: usize,
    slowest: Duration,
}

/// What was seen.
struct Seen {
    server: String,
    expected: Vec<String>,
    /// HTTP status without credentials, with a wrong password, and with the right one.
    logins: Result<(u16, Option<u16>, u16), String>,
    inside: Option<Result<Inside, String>>,
}

impl SmisServer {
    fn console(&self) -> Result<Console, Failed> {
        let Some(config) = &self.config else {
            let user = self.user.clone().ok_or_else(|| Failed::usage("--user is missing"))?;
            let file = self.password_file.as_ref();
            let file = file.ok_or_else(|| Failed::usage("--password-file is missing"))?;
            let text = std::fs::read_to_string(file).map(Zeroizing::new);
            let text = text.map_err(|e| Failed::usage(format!("{}: {e}", file.display())))?;
            let password = Secret::new(text.lines().next().unwrap_or_default().to_owned());
            let server = self.server.clone().unwrap_or_default();
            return Ok(Console { server, user, password, expected: Vec::new(), may_fail: true });
        };
        let config = LocalConfig::load(config).map_err(Failed::usage)?;
        let off = "smis: http is not given; doctor smis looks at http, on the engine's own host";
        let server = config.smis.http.ok_or_else(|| Failed::usage(off))?;
        let known = config.smis.users.iter();
        let mut known = known.filter_map(|user| Some((user, user.password.clone()?)));
        let hashed =
            "every [[smis.user]] has a password_hash; name --server, --user and a password";
        let (user, password) = known.next().ok_or_else(|| Failed::usage(hashed))?;
        Ok(Console {
            server: server.to_string(),
            user: user.name.clone(),
            password,
            expected: config.library_names().map(ToString::to_string).collect(),
            may_fail: config.smis.login_attempts != 1,
        })
    }
}

/// Looks at everything: the server that was asked, and what was found.
pub(super) fn look(server: &SmisServer) -> Result<(String, Vec<Finding>), Failed> {
    let console = server.console()?;
    let logins = console.logins();
    let inside = match &logins {
        Ok((_, _, 200)) => Some(console.inside()),
        _ => None,
    };
    let Console { server, expected, .. } = console;
    let seen = Seen { server, expected, logins, inside };
    Ok((seen.server.clone(), judge(&seen)))
}

impl Console {
    /// Sends an operation: the HTTP status and the body.
    fn post(
        &self,
        password: Option<&str>,
        (space, operation, class): (&str, &str, &str),
    ) -> Result<(u16, Vec<u8>), String> {
        let body = message(space, operation, class);
        let mut head = format!(
            "POST /cimom HTTP/1.1\r\nHost: {}\r\nContent-Type: application/xml; \
             charset=\"utf-8\"\r\nContent-Length: {}\r\nConnection: close\r\nCIMOperation: \
             MethodCall\r\nCIMMethod: {operation}\r\nCIMObject: {space}\r\n",
            self.server,
            body.len()
        );
        if let Some(password) = password {
            let pair = Zeroizing::new(format!("{}:{password}", self.user));
            head.push_str(&format!("Authorization: Basic {}\r\n", STANDARD.encode(&*pair)));
        }
        let say = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.server).map_err(say)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(say)?;
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).map_err(say)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).map_err(say)?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.ok_or("the answer is no HTTP")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.ok_or("the answer is no HTTP")?, answer.split_off(end + 4)))
    }

    fn logins(&self) -> Result<(u16, Option<u16>, u16), String> {
        let ask = ("interop", "EnumerateInstanceNames", "CIM_ObjectManager");
        let (none, _) = self.post(None, ask)?;
        let wrong = match self.may_fail {
            true => Some(self.post(Some("\u{1f50e} not the password"), ask)?.0),
            false => None,
        };
        Ok((none, wrong, self.post(Some(self.password.expose()), ask)?.0))
    }

    /// The instances of a class, and how long that took.
    fn instances(
        &self,
        space: &str,
        class: &str,
        slowest: &mut Duration,
    ) -> Result<Vec<Element>, String> {
        let begun = Instant::now();
        let password = Some(self.password.expose());
        let (status, body) = self.post(password, (space, "EnumerateInstances", class))?;
        *slowest = begun.elapsed().max(*slowest);
        if status != 200 {
            return Err(format!("{class}: HTTP {status}"));
        }
        let limits = Limits { bytes: ANSWER_MAX as usize, elements: 1 << 24, ..Limits::REQUEST };
        let mut element = read(&body, &limits).map_err(|error| format!("{class}: {error}"))?;
        for name in ["CIM", "MESSAGE", "SIMPLERSP", "IMETHODRESPONSE", "IRETURNVALUE"] {
            if element.name != name {
                let text = element.attribute("DESCRIPTION").unwrap_or(&element.name);
                return Err(format!("{class}: {text}"));
            }
            match (name, element.children.is_empty()) {
                ("IRETURNVALUE", _) => {}
                (_, true) => return Ok(Vec::new()),
                _ => element = element.children.swap_remove(0),
            }
        }
        Ok(element.children.into_iter().filter_map(|mut named| named.children.pop()).collect())
    }

    fn inside(&self) -> Result<Inside, String> {
        let mut seen = Inside::default();
        let mut slowest = Duration::ZERO;
        let mut all = |space, class| self.instances(space, class, &mut slowest);
        let root = "root/twinreel";
        for manager in all("interop", "CIM_ObjectManager")? {
            seen.server = property(&manager, "Description");
        }
        for profile in all("interop", "CIM_RegisteredProfile")? {
            seen.profiles.push(property(&profile, "RegisteredName"));
        }
        seen.subscriptions = all("interop", "CIM_IndicationSubscription")?.len();
        let (drives, tapes) = (all(root, "CIM_TapeDrive")?, all(root, "CIM_TapePartition")?);
        for system in all(root, "CIM_ComputerSystem")? {
            let name = property(&system, "Name");
            let of = |all: &[Element], broken: bool| {
                let own = all.iter().filter(|one| property(one, "SystemName") == name);
                own.filter(|one| !broken || property(one, "OperationalStatus") == "6").count()
            };
            if name.ends_with(":engine") {
                continue;
            }
            seen.libraries.push(Library {
                status: property(&system, "OperationalStatus"),
                drives: of(&drives, false),
                tapes: of(&tapes, false),
                broken: of(&tapes, true),
                name: property(&system, "ElementName"),
            });
        }
        seen.services = all(root, "CIM_ReplicationService")?.len();
        let jobs = all(root, "CIM_ConcreteJob")?;
        seen.failed = jobs.iter().filter(|job| property(job, "JobState") == "10").count();
        seen.jobs = jobs.len();
        seen.slowest = slowest;
        Ok(seen)
    }
}

fn message(space: &str, operation: &str, class: &str) -> String {
    let mut w = Writer::new();
    w.within("CIM", &[("CIMVERSION", "2.0"), ("DTDVERSION", "2.0")], |w| {
        w.within("MESSAGE", &[("ID", "1"), ("PROTOCOLVERSION", "1.0")], |w| {
            w.within("SIMPLEREQ", &[], |w| {
                w.within("IMETHODCALL", &[("NAME", operation)], |w| {
                    w.within("LOCALNAMESPACEPATH", &[], |w| {
                        for part in space.split('/') {
                            w.leaf("NAMESPACE", &[("NAME", part)], "");
                        }
                    });
                    w.within("IPARAMVALUE", &[("NAME", "ClassName")], |w| {
                        w.leaf("CLASSNAME", &[("NAME", class)], "");
                    });
                });
            });
        });
    });
    w.finish()
}

/// The value of a property; of an array the first one.
fn property(instance: &Element, name: &str) -> String {
    let mut all = instance.children.iter();
    let found = all.find(|property| property.attribute("NAME") == Some(name));
    let mut value = found.and_then(|property| property.children.first());
    while let Some(inner) = value.and_then(|value| value.children.first()) {
        value = Some(inner);
    }
    value.map_or_else(String::new, |value| value.text.clone())
}

fn judge(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    let (none, wrong, right) = match &seen.logins {
        Ok(logins) => *logins,
        Err(cause) => {
            let text = format!("{} does not answer: {cause}", seen.server);
            let advice = "look whether the engine runs, and at http of [smis]";
            return vec![Finding::fail(text, advice)];
        }
    };
    found.push(Finding::ok(format!("{} answers", seen.server)));
    let advice = "anybody can read it; is this a Twinreel engine?";
    found.push(match none {
        401 => Finding::ok("who does not log in is refused"),
        other => Finding::fail(format!("who does not log in is answered {other}"), advice),
    });
    found.extend(wrong.map(|wrong| match wrong {
        401 => Finding::ok("a wrong password is refused"),
        other => Finding::fail(format!("a wrong password is answered {other}"), advice),
    }));
    found.push(match right {
        200 => Finding::ok("logging in works"),
        401 => Finding::fail(
            "the password is refused",
            "look at [[smis.user]]; after too many failures a host is locked out for a while",
        ),
        other => Finding::fail(format!("logging in is answered {other}"), "look at the log"),
    });
    match &seen.inside {
        None => {}
        Some(Err(cause)) => found.push(Finding::fail(cause, "look at the log of the engine")),
        Some(Ok(inside)) => judge_inside(inside, &seen.expected, &mut found),
    }
    found
}

fn judge_inside(inside: &Inside, expected: &[String], found: &mut Vec<Finding>) {
    found.push(Finding::ok(inside.server.clone()));
    let missing = ["SMI-S", "Server", "Storage Library"];
    let missing = missing.iter().find(|name| !inside.profiles.iter().any(|p| p == *name));
    found.push(match missing {
        None => Finding::ok(format!("{} profiles are registered", inside.profiles.len())),
        Some(name) => Finding::fail(
            format!("the profile {name} is not registered"),
            "an application will not find the libraries; is this a Twinreel engine?",
        ),
    });
    for name in expected.iter().filter(|name| !inside.libraries.iter().any(|l| l.name == **name)) {
        let text = format!("{name} of the configuration is not shown");
        found.push(Finding::fail(text, "restart the engine with this configuration"));
    }
    for library in &inside.libraries {
        let Library { name, drives, tapes, broken, status } = library;
        let text = format!("{name}: {drives} drives, {tapes} tapes");
        found.push(match status.as_str() {
            "2" => Finding::ok(text),
            "13" => Finding::fail(
                format!("{text}, as they were last seen: its site can not be reached"),
                "look at the link: twinreel status",
            ),
            other => Finding::warn(format!("{text}; status {other}"), "look at the library"),
        });
        if *broken > 0 {
            let text = format!("{name}: the last copy to {broken} tapes is not whole");
            found.push(Finding::warn(text, "copy to them again: twinreel jobs tells the causes"));
        }
    }
    found.push(match inside.services {
        0 => Finding::warn("nothing copies tapes", "a [[virtual_library]] has such a service"),
        some => Finding::ok(format!("{some} services copy tapes")),
    });
    let jobs = format!("{} jobs, {} of them failed", inside.jobs, inside.failed);
    found.push(Finding::ok(jobs));
    found.push(Finding::ok(format!("{} subscriptions to indications", inside.subscriptions)));
    if inside.slowest > SLOW {
        let text = format!("the slowest answer took {} ms", inside.slowest.as_millis());
        found.push(Finding::warn(text, "many applications give up after 30 s"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn library(name: &str, status: &str, broken: usize) -> Library {
        Library { name: name.into(), status: status.into(), drives: 2, tapes: 4, broken }
    }

    fn healthy() -> Seen {
        let profiles = ["SMI-S", "Server", "Storage Library"].map(str::to_owned).to_vec();
        let libraries = vec![library("vtl0", "2", 0), library("dr-ptl0", "2", 0)];
        let server = "Twinreel CIM server".to_owned();
        let inside = Inside { server, profiles, libraries, services: 1, ..Inside::default() };
        Seen {
            server: "h:1".into(),
            expected: vec!["vtl0".into()],
            logins: Ok((401, Some(401), 200)),
            inside: Some(Ok(inside)),
        }
    }

    fn amiss(seen: &Seen) -> Vec<(Severity, String)> {
        let found = judge(seen).into_iter().filter(|finding| finding.severity != Severity::Ok);
        found.map(|finding| (finding.severity, finding.seen)).collect()
    }

    fn with(change: impl FnOnce(&mut Inside)) -> Seen {
        let mut seen = healthy();
        if let Some(Ok(inside)) = &mut seen.inside {
            change(inside);
        }
        seen
    }

    #[test]
    fn a_healthy_server_has_nothing_amiss() {
        assert_eq!(amiss(&healthy()), []);
    }

    #[test]
    fn each_fault_is_found_by_its_own_line() {
        let refused = Seen { logins: Ok((401, None, 401)), inside: None, ..healthy() };
        let open = Seen { logins: Ok((200, Some(200), 200)), ..healthy() };
        let silent = Seen { logins: Err("no".into()), inside: None, ..healthy() };
        let broken = Seen { inside: Some(Err("CIM_TapeDrive: HTTP 500".into())), ..healthy() };
        let rows = [
            (refused, 1, "the password is refused"),
            (open, 2, "who does not log in is answered 200"),
            (silent, 1, "does not answer"),
            (broken, 1, "HTTP 500"),
            (with(|inside| inside.libraries.clear()), 1, "vtl0 of the configuration"),
            (with(|inside| inside.libraries[1].status = "13".into()), 1, "can not be reached"),
            (with(|inside| inside.libraries[1].broken = 2), 1, "2 tapes is not whole"),
            (with(|inside| inside.profiles.clear()), 1, "SMI-S is not registered"),
            (with(|inside| inside.services = 0), 1, "nothing copies"),
            (with(|inside| inside.slowest = SLOW * 2), 1, "took 4000 ms"),
        ];
        for (seen, count, says) in rows {
            let amiss = amiss(&seen);
            assert_eq!(amiss.len(), count, "{says}: {amiss:?}");
            assert!(amiss[0].1.contains(says), "{says}: {amiss:?}");
        }
    }
}
