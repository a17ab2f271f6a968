//! `twinreel doctor ndmp` before real engines: what it finds, and that it leaves no trace.

use std::path::Path;

use serde_json::Value;
use tests::{Content, Operator, Role, Texture, seed, twinreel};

use crate::scene::{SOURCE, Scene, VIRTUAL};

/// What it said: the exit code, and findings by severity.
struct Report {
    code: i32,
    findings: Vec<(String, String)>,
}

impl Report {
    fn of(arguments: &[&str]) -> Self {
        let (code, out, errors) = twinreel([&["doctor", "ndmp", "--json"], arguments].concat());
        let value: Value =
            serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code}: {errors}"));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
        let findings = value["findings"].as_array().expect("a list");
        let findings: Vec<_> =
            findings.iter().map(|it| (text(it, "severity"), text(it, "seen"))).collect();
        for finding in value["findings"].as_array().expect("a list") {
            let idle = finding["severity"] != "ok" && finding["do"].is_null();
            assert!(!idle, "nothing to do about it: {finding}");
        }
        let failed = findings.iter().any(|(severity, _)| severity == "fail");
        assert_eq!(value["ok"], !failed, "{value:#}");
        assert_eq!(code, i32::from(failed), "{value:#}");
        Self { code, findings }
    }

    /// Exactly these things are not as they should be, in this order.
    fn is_amiss(&self, expected: &[(&str, &str)]) {
        let amiss: Vec<_> = self.findings.iter().filter(|it| it.0 != "ok").collect();
        let fits = |(found, expected): (&&(String, String), &(&str, &str))| {
            found.0 == expected.0 && found.1.contains(expected.1)
        };
        let fit = amiss.iter().zip(expected).all(fits);
        assert!(amiss.len() == expected.len() && fit, "{amiss:#?}, expected {expected:#?}");
    }

    fn has(&self, seen: &str) {
        assert!(self.findings.iter().any(|it| it.1.contains(seen)), "{seen}: {:#?}", self.findings);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a scratch path is text")
}

/// Where every cartridge lies, and what is on the one in the drive.
fn traces(operator: &Operator) -> impl PartialEq + use<> {
    let tapes = [operator.inventory("vtl0"), operator.inventory("dr-ptl0")];
    (tapes, operator.read(SOURCE))
}

#[test]
fn a_doctor_tells_what_is_wrong_and_leaves_no_trace() {
    let mut scene = Scene::new("doctor", |_, _| {});
    let operator = scene.operator.clone();
    operator.load("vtl0", VIRTUAL, 0);
    let content = Content::new(Texture::Compressible, seed("doctor"), 1_000_000);
    operator.backup(SOURCE, 32_768, content.reader());
    let config = scene.pair.directory().join("local.toml");
    let config = ["--config", path(&config)];
    let before = traces(&operator);

    let healthy = Report::of(&config);
    healthy.is_amiss(&[]);
    for seen in [
        "opens 2, 3, 4",
        "a wrong password is refused by md5",
        "a wrong password is refused by text",
        "logging in by md5 works",
        "logging in by text works",
        "vtl0/changer is ready: 8 slots, 2 drives",
        "vtl0/drive0 is loaded and ready",
        "vtl0/drive1 is empty",
        "dr-ptl0/changer is ready",
        "dr-ptl0/drive1 is empty",
        "the mover of vtl0/drive1 listens at 127.0.0.1:",
        "the mover of vtl0/drive1 listens for one of the same server",
    ] {
        healthy.has(seen);
    }
    let three = Report::of(&[&config[..], &["--protocol", "3"]].concat());
    three.is_amiss(&[]);
    three.has("the mover of vtl0/drive0 listens at 127.0.0.1:");
    let (code, text, _) = twinreel([&["doctor", "ndmp"], &config[..]].concat());
    assert!(code == 0 && text.lines().all(|line| line.starts_with("ok    ")), "{text}");

    let busy = operator.tape("vtl0/drive1");
    Report::of(&config).is_amiss(&[("warn", "vtl0/drive1 is in use by another session")]);
    drop(busy);

    assert!(traces(&operator) == before, "the doctor has changed something");
    troubles(&mut scene, config);
}

/// A wrong password, no link, no engine, no configuration.
fn troubles(scene: &mut Scene, config: [&str; 2]) {
    let wrong = scene.pair.directory().join("wrong");
    std::fs::write(&wrong, "not the password\n").expect("it can be written");
    let server = scene.pair.ndmp().to_string();
    let arguments = ["--server", &server, "--user", "ndmp", "--password-file", path(&wrong)];
    let refused = Report::of(&arguments);
    refused.is_amiss(&[
        ("fail", "logging in by md5 is refused"),
        ("fail", "logging in by text is refused"),
    ]);

    let mark = scene.pair.local.log().mark();
    scene.pair.relay.part();
    scene.pair.local.wait_line_from(mark, "link down");
    let alone = Report::of(&config);
    alone.is_amiss(&[
        ("fail", "dr-ptl0/changer is not ready (sense 02/04/00)"),
        ("fail", "dr-ptl0/drive0 is not ready (sense 02/04/00)"),
        ("fail", "dr-ptl0/drive1 is not ready (sense 02/04/00)"),
    ]);
    alone.has("vtl0/drive0 is loaded and ready");
    alone.has("the mover of vtl0/drive1 listens at 127.0.0.1:");
    scene.pair.relay.join();

    scene.pair.local.kill();
    let gone = Report::of(&config);
    gone.is_amiss(&[("fail", "can not be reached")]);
    assert_eq!(gone.code, 1);
    let (code, _, errors) = twinreel(["doctor", "ndmp", "--config", "/nowhere/local.toml"]);
    assert!(code == 2 && errors.contains("/nowhere/local.toml"), "{code}: {errors}");
    assert_eq!(scene.replications(Role::Remote).len(), 0, "the doctor has replicated");
}
