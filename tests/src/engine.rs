//! An engine as the process it is in real life.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::log::LogLines;
use crate::wait::{self, PATIENCE};

/// Which of the two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one beside the backup application.
    Local,
    /// The one beside the tape library.
    Remote,
}

impl Role {
    /// The subcommand of `twinreel` that is this engine.
    pub fn command(self) -> &'static str {
        match self {
            Self::Local => "local-engine",
            Self::Remote => "remote-engine",
        }
    }
}

/// A running (or killed, or stopped) engine. Dropping it kills the process and fails the test if
/// it complained of anything that the test had not named.
pub struct Engine {
    role: Role,
    config: PathBuf,
    child: Option<Child>,
    /// Ends when the process has, with its last line in the log.
    reader: Option<JoinHandle<()>>,
    log: LogLines,
    /// Where in the log the present life begins.
    born: usize,
    allowed: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Engine {
    /// An engine that is not started yet.
    pub fn new(role: Role, config: &Path) -> Self {
        Self {
            role,
            config: config.to_owned(),
            child: None,
            reader: None,
            log: LogLines::default(),
            born: 0,
            allowed: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Starts one and waits until it is ready.
    pub fn start(role: Role, config: &Path) -> Self {
        let mut engine = Self::new(role, config);
        engine.run();
        engine
    }

    /// Sets a variable for the lives that come.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// WARN and ERROR lines with this text are expected.
    pub fn allow(&mut self, text: &str) {
        self.allowed.push(text.to_owned());
    }

    /// Starts the process and waits until it is ready.
    pub fn run(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{self:?} runs already");
        self.born = self.log.mark();
        let mut child = Command::new(twinreel_binary())
            .args([self.role.command(), "serve", "--config"])
            .arg(&self.config)
            // Levels are looked for in the lines, so no colours.
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the engine starts");
        let errors = child.stderr.take().expect("standard error is a pipe");
        self.reader = Some(self.log.follow(&format!("{:?} {}", self.role, child.id()), errors));
        self.child = Some(child);
    }

    /// Waits until this life has said that it is ready, and fails at once if it ends instead.
    pub fn wait_ready(&mut self) {
        let ready = format!("{} ready", self.role.command());
        wait::until("the engine is ready", || {
            if self.log.find(self.born, &ready, LOOK).is_some() {
                return Some(());
            }
            if let Some(status) = self.ended() {
                panic!("{self:?} ended with {status} before it was ready");
            }
            None
        });
    }

    /// The first line of this life with `text` in it, waited for.
    pub fn wait_line(&self, text: &str) -> String {
        self.wait_line_from(self.born, text)
    }

    /// The first line from a mark of [`LogLines::mark`] on with `text` in it, waited for.
    pub fn wait_line_from(&self, mark: usize, text: &str) -> String {
        match self.log.find(mark, text, PATIENCE) {
            Some(line) => line,
            None => panic!("{self:?} has not said {text:?} within {PATIENCE:?}"),
        }
    }

    /// All that it wrote, over all its lives.
    pub fn log(&self) -> &LogLines {
        &self.log
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// `kill -9`, and the end awaited.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the engine can be killed");
            child.wait().expect("a killed engine ends");
        }
        self.read_to_the_end();
    }

    /// SIGSTOP: the process does and says nothing more, and holds everything open.
    pub fn freeze(&self) {
        if let Some(child) = &self.child {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(child), Signal::STOP);
            let tasks = format!("/proc/{}/task", child.id());
            wait::until("every thread has stopped", || all_stopped(&tasks).then_some(()));
        }
    }

    fn read_to_the_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log is read");
        }
    }

    /// SIGTERM, and the end awaited.
    pub fn terminate(&mut self) -> ExitStatus {
        let child = self.child.as_ref().expect("the engine runs");
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::TERM).expect("the engine can be signalled");
        let status = wait::until("the engine ends after SIGTERM", || self.ended());
        self.child = None;
        self.read_to_the_end();
        status
    }

    /// [`kill`](Self::kill), then [`run`](Self::run).
    pub fn kill_and_run(&mut self) {
        self.kill();
        self.run();
    }

    /// The process id of this life.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the engine runs").id()
    }

    /// Resident memory in bytes (`VmRSS` of proc(5)).
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the engine runs on Linux");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a VmRSS line");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap();
        kib * 1024
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child can be waited for")
    }
}

/// Whether no thread of a process runs (`T` in stat of proc(5)) or is left.
fn all_stopped(tasks: &str) -> bool {
    let Ok(tasks) = std::fs::read_dir(tasks) else { return true };
    let stat = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("stat")));
    let mut states = stat.flatten().map(|stat| {
        // The name in parentheses may hold anything.
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
    });
    states.all(|state| matches!(state, Some('T' | 't' | 'Z' | 'X')))
}

/// How long one look at the log may take before the process is looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.child.as_ref().map(Child::id);
        write!(f, "{} {} (pid {pid:?})", self.role.command(), self.config.display())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
        let complaints = self.log.complaints(&self.allowed);
        if !std::thread::panicking() {
            assert!(complaints.is_empty(), "{self:?} complained: {complaints:#?}");
        }
    }
}

/// The `twinreel` program to test: `TWINREEL_BIN` if set, else built once with the profile that
/// this test itself was built with, so that it is never an old one.
pub fn twinreel_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TWINREEL_BIN") {
            return path.into();
        }
        // target/PROFILE/deps/TEST: the program lies two levels up.
        let test = std::env::current_exe().expect("a test knows where it is");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "twinreel", "--bin", "twinreel"]);
        if profile.file_name() == Some(OsStr::new("release")) {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "twinreel can not be built");
        profile.join("twinreel")
    })
}

/// Runs `twinreel ARGUMENTS` to its end: exit code, standard output, standard error.
pub fn twinreel<I, S>(arguments: I) -> (i32, String, String)
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let output = Command::new(twinreel_binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("twinreel starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
