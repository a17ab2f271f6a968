//! What the figures were measured on, and what the engines used.

use std::path::Path;
use std::process::Command;

/// Date, commit, processor, memory and disk in a few lines.
pub(crate) fn describe() -> String {
    let date = said("date", &["-u", "+%Y-%m-%d"]);
    let commit = said("git", &["rev-parse", "--short=10", "HEAD"]);
    let changed = match said("git", &["status", "--porcelain", "--untracked-files=no"]).as_str() {
        "" => "",
        _ => " with changes that are not committed",
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let disk = std::env::temp_dir();
    let kind = said("stat", &["-f", "-c", "%T", disk.to_str().unwrap_or(".")]);
    format!(
        "{date}, commit {commit}{changed}\n{} cores ({}), {} GiB of memory, disk {kind}, {}",
        cores,
        field("/proc/cpuinfo", "model name"),
        memory_gib(),
        said("uname", &["-sr"]),
    )
}

/// What a program says, empty if it can not be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(program).args(arguments).current_dir(here).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The value of the first line `NAME : VALUE` of a file.
fn field(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
    value.unwrap_or("unknown").to_owned()
}

fn memory_gib() -> u64 {
    let kib = field("/proc/meminfo", "MemTotal");
    kib.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) >> 20
}

/// Processor time that a process has used since it began, in seconds (`utime` and `stime` of
/// proc(5), in clock ticks of 10 ms).
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the engine runs");
    // The name of the program, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}
