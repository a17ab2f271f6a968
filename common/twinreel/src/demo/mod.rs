//! `twinreel demo`: the whole line on real files, with two engines as processes of their own.

mod archive;
mod engines;
mod random;
mod report;
mod story;
mod tree;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use tempfile::TempDir;

use crate::cli::Failed;
use crate::output::Output;
use engines::{Engines, Interrupt, tail};
use report::Report;
use story::Story;

/// A tar of real files is backed up to a virtual tape and replicated; so is a second generation
/// of it. That is copied to two ghost tapes with a change of tape at the end of the medium, and
/// read back from them. Takes less than a minute and 2 GB in the directory for temporary files.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Work in this directory, which must be new or empty, and leave everything there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What the made files and the changes come from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Where it takes place.
enum Ground {
    Kept(PathBuf),
    Passing(TempDir),
}

impl Ground {
    fn new(keep: Option<&Path>) -> Result<Self, Failed> {
        let Some(dir) = keep else {
            let dir = tempfile::Builder::new().prefix("twinreel-demo-").tempdir();
            return dir.map(Self::Passing).map_err(Failed::new);
        };
        let told = |error| Failed::usage(format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(dir).map_err(told)?;
        if std::fs::read_dir(dir).map_err(told)?.next().is_some() {
            return Err(told(ErrorKind::DirectoryNotEmpty.into()));
        }
        std::path::absolute(dir).map(Self::Kept).map_err(told)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(dir) => dir.path(),
        }
    }
}

pub(crate) fn run(arguments: &DemoArguments, output: &Output) -> Result<(), Failed> {
    let ground = Ground::new(arguments.keep.as_deref())?;
    let interrupt = Interrupt::new()?;
    let engines = Engines::new(&interrupt);
    let story = Story {
        dir: ground.path(),
        seed: arguments.seed,
        interrupt: &interrupt,
        engines: &engines,
        begun: Instant::now(),
        aside: output.json,
        keep: arguments.keep.is_some(),
    };
    let mut report = Report::default();
    let told = story.tell(&mut report);
    // However it ended, the engines end now. What went wrong first is what is told; after an
    // interruption everything goes wrong.
    let stopped = engines.stop();
    let ended = interrupt.check().and(told).and(stopped);
    report.seconds = story.begun.elapsed().as_secs_f64();
    report.ok = ended.is_ok();
    report.error = ended.as_ref().err().map(|failed| failed.text.clone());
    if let Ground::Kept(path) = &ground {
        report.directory = Some(path.display().to_string());
    }
    if !report.ok && !interrupt.is_requested() {
        show_logs(ground.path());
    }
    output.show(&report, |report| {
        let look = report.directory.as_deref().map(commands).unwrap_or_default();
        format!("\n{}{look}", report.text())
    })?;
    ended
}

fn show_logs(dir: &Path) {
    for name in ["local-engine", "remote-engine"] {
        let lines = tail(&dir.join(format!("{name}.log")));
        if !lines.is_empty() {
            eprintln!("--- the end of {name}.log\n{lines}");
        }
    }
}

/// How to look at what was left.
fn commands(dir: &str) -> String {
    let program = std::env::current_exe().ok();
    let twinreel = program.map_or_else(|| "twinreel".to_owned(), |it| it.display().to_string());
    let (local, remote) = (format!("{dir}/local.toml"), format!("{dir}/remote.toml"));
    format!(
        "

everything is in {dir}; to look at it:
  {twinreel} jobs --config {local}
  {twinreel} cartridges --config {local}
  {twinreel} libraries --config {local}
  {twinreel} jobs --config {remote}
  sqlite3 -header -column {dir}/hq/svs.db 'select * from job_status'
  sqlite3 -header -column {dir}/hq/svs.db 'select * from replication'
  tests/tools/read_file_tape.py {dir}/ptl0/cartridges/PTA001L8.tape
  tar tf {dir}/restored.tar
to run the pair again:
  {twinreel} remote-engine serve --config {remote} &
  {twinreel} local-engine serve --config {local} &"
    )
}
