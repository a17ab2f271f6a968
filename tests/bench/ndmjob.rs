//! A tape server that nobody here wrote, for comparison: `ndmjob` of Debian's `amanda-common` as a
//! daemon. A tape of its simulator is a plain file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tests::{Operator, free_port};

const PROGRAM: &str = "/usr/lib/amanda/ndmjob";
/// Its configuration: one user, and no data service.
const CONFIG: &str = "[password]\npassword ndmp ndmp\n";

/// The daemon; ended when dropped.
pub(crate) struct Peer {
    /// Somebody who works with it.
    pub(crate) operator: Operator,
    directory: PathBuf,
    process: Child,
    /// Kept open: it would die of a word to a closed pipe.
    _said: BufReader<ChildStdout>,
}

impl Peer {
    /// Whether there is one on this machine.
    pub(crate) fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts one with its files in `directory`, if it is installed.
    pub(crate) fn start(directory: PathBuf) -> Option<Self> {
        if !Self::is_installed() {
            return None;
        }
        fs::create_dir(&directory).expect("a new directory");
        let config = directory.join("ndmjob.conf");
        fs::write(&config, CONFIG).expect("the configuration is written");
        let port = free_port();
        let mut process = Command::new(PROGRAM)
            .args(["-o", "test-daemon", "-p", &port.to_string(), "-o"])
            .arg(format!("config-file={}", config.display()))
            .current_dir(&directory)
            // It ends when its standard input does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ndmjob starts");
        let mut ready = String::new();
        let said = process.stdout.take().expect("standard output is a pipe");
        let mut said = BufReader::new(said);
        said.read_line(&mut ready).expect("ndmjob speaks");
        assert_eq!(ready.trim(), "READY", "ndmjob's daemon");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let operator = Operator::at(address, "ndmp");
        Some(Self { operator, directory, process, _said: said })
    }

    /// The device name of a tape, which is its file.
    pub(crate) fn tape(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("a scratch path is text").to_owned()
    }

    /// Makes a tape without anything on it, in place of what was there.
    pub(crate) fn blank(&self, name: &str) {
        let tape = self.tape(name);
        if Path::new(&tape).exists() {
            fs::remove_file(&tape).expect("the old tape goes");
        }
        fs::write(&tape, []).expect("a new tape");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // Whether it has ended by itself by now makes no difference.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
