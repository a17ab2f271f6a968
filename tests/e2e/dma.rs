//! The small backup application against an engine of its own, as people use it: by commands.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::twinreel_binary;

/// Tapes that are smaller than those of `vtl0`, so that a copy needs several.
const SMALL: &str = r#"
[[virtual_library]]
name = "vtl1"
drives = 1
slots = 4
import_export = 0
capacity = "3MB"
cartridges = { prefix = "VTB", count = 4 }
"#;

/// A local engine with two virtual libraries; dropped, it is gone.
struct Site {
    dir: tempfile::TempDir,
    engine: Child,
    port: u16,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = tests::free_port();
        let pair = dir.path().join("pair");
        let (port_text, pair_text) = (port.to_string(), pair.to_str().unwrap());
        let init = ["init", pair_text, "--ndmp-port", &port_text, "--virtual-capacity", "10MB"];
        assert!(Command::new(twinreel_binary()).args(init).output().unwrap().status.success());
        let config = pair.join("local.toml");
        let mut file = OpenOptions::new().append(true).open(&config).unwrap();
        file.write_all(SMALL.as_bytes()).unwrap();
        let log = dir.path().join("log");
        let engine = Command::new(twinreel_binary())
            .args(["local-engine", "serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let site = Self { dir, engine, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fs::read_to_string(&log).unwrap().contains("local-engine ready") {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(&log).unwrap());
            std::thread::yield_now();
        }
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        self.file("pair/local.toml").to_str().unwrap().to_owned()
    }

    /// Runs a command of `dma` with the engine's configuration: exit code, output, errors.
    fn dma(&self, line: &str, files: &[&Path]) -> (i32, String, String) {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        for file in files {
            let place = words.iter().position(|word| word == "FILE").unwrap();
            words[place] = file.to_str().unwrap().to_owned();
        }
        run(Command::new(twinreel_binary())
            .arg("dma")
            .args(words)
            .args(["--config", &self.config()]))
    }

    fn done(&self, line: &str, files: &[&Path]) -> String {
        let (code, output, errors) = self.dma(line, files);
        assert_eq!(code, 0, "{line}: {errors}");
        output
    }

    fn in_drives(&self, library: &str) -> usize {
        let listed = self.done(&format!("inventory {library} --json"), &[]);
        let elements: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let full = |it: &&Value| it["kind"] == "drive" && it["full"] == true;
        elements.iter().filter(full).count()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.engine.kill().unwrap();
        self.engine.wait().unwrap();
    }
}

fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn streams_and_copies_go_over_several_tapes_and_come_back() {
    let site = Site::start();
    let (input, back) = (site.file("in"), site.file("out"));
    let data = noise(8_000_001);
    fs::write(&input, &data).unwrap();
    site.done("backup FILE --target vtl0:VTA001L8", &[&input]);
    site.done("backup FILE --target vtl1:VTB001L8,VTB002L8,VTB003L8 --json", &[&input]);
    let restored = |source: &str| {
        site.done(&format!("restore FILE --source {source}"), &[&back]);
        assert!(fs::read(&back).unwrap() == data, "{source}");
    };
    restored("vtl0:VTA001L8");
    for protocol in 2..=4 {
        restored(&format!("vtl1:VTB001L8,VTB002L8,VTB003L8 --protocol {protocol}"));
    }
    for how in ["--protocol 3", "--protocol 4", "--join local", "--record-by-record"] {
        let order = "copy --source vtl0:VTA001L8 --target vtl1:VTB004L8,VTB002L8,VTB003L8";
        let copied = site.done(&format!("{order} --json {how}"), &[]);
        let copied: Value = serde_json::from_str(&copied).unwrap();
        let tapes = copied["tapes"].as_array().unwrap();
        assert_eq!(tapes.len(), 3, "{how}: {copied}");
        assert_eq!(tapes[0]["target"], "vtl1:VTB004L8");
        let bytes: u64 = tapes.iter().map(|tape| tape["bytes"].as_u64().unwrap()).sum();
        assert_eq!(Some(bytes), copied["bytes"].as_u64(), "{how}");
        assert!(bytes > data.len() as u64, "{how}: {bytes}");
        restored("vtl1:VTB004L8,VTB002L8,VTB003L8");
    }
    assert_eq!(site.in_drives("vtl0") + site.in_drives("vtl1"), 0, "every tape went home");
    let jobs =
        run(Command::new(twinreel_binary()).args(["jobs", "--json", "--config", &site.config()]));
    let jobs: Vec<Value> = serde_json::from_str(&jobs.1).unwrap();
    assert!(jobs.iter().filter(|job| job["kind"] == "copy").all(|job| job["state"] == "done"));
}

#[test]
fn what_can_not_be_done_is_said_and_leaves_no_tape_in_a_drive() {
    let site = Site::start();
    let (input, back) = (site.file("in"), site.file("out"));
    fs::write(&input, noise(8_000_000)).unwrap();
    site.done("backup FILE --target vtl0:VTA001L8", &[&input]);
    let cases = [
        ("copy --source vtl0:VTA001L8 --target vtl1:VTB001L8,VTB002L8", 1, "there is no other"),
        ("copy --source vtl0:VTA009L8 --target vtl1:VTB001L8", 2, "no cartridge VTA009L8"),
        ("copy --source vtl0:VTA001L8 --target nolib:VTB001L8", 2, "nolib/changer can not be"),
        ("copy --source vtl0/drive0 --target vtl1:VTB001L8", 2, "no tape is loaded"),
        ("copy --source vtl0:VTA001L8,VTA002L8 --target vtl1:VTB001L8", 2, "one tape at a time"),
        ("copy --source vtl0:VTA001L8 --target vtl0:VTA001L8", 2, "are the same"),
        ("backup FILE --target vtl1:VTB001L8", 1, "there is no other"),
        ("restore FILE --source vtl0:VTA002L8", 2, "has no data"),
    ];
    for (line, code, reason) in cases {
        let files = if line.contains("FILE") { vec![input.as_path()] } else { Vec::new() };
        let files = if line.starts_with("restore") { vec![back.as_path()] } else { files };
        let (got, _, errors) = site.dma(line, &files);
        assert_eq!(got, code, "{line}: {errors}");
        assert!(errors.contains(reason), "{line}: {errors}");
        assert_eq!(site.in_drives("vtl0") + site.in_drives("vtl1"), 0, "{line}");
    }
    let wrong = site.file("wrong");
    fs::write(&wrong, "not the password\n").unwrap();
    let server = format!("127.0.0.1:{}", site.port);
    let user = ["--user", "ndmp", "--password-file", wrong.to_str().unwrap()];
    let (code, _, errors) = run(Command::new(twinreel_binary())
        .args(["dma", "inventory", "vtl0", "--server", &server])
        .args(user));
    assert!(code == 2 && errors.contains("one of them is wrong"), "{code}: {errors}");
}
