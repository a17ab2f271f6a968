//! The line from end to end, step by step.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dma::copy::{CopyPlan, Part, What};
use model::{ByteSize, LibraryName};
use serde_json::{Value, json};
use service::admin::AdminClient;
use service::config::{EngineConfig, LocalConfig};
use service::init::{InitOptions, init};
use svs::{Catalogue, JobFilter, JobKind, JobStatus, Replication, ReplicationState};

use super::archive::{self, Hashed, Member, Written};
use super::engines::{Engines, Interrupt};
use super::report::{CopyLine, GenerationLine, Report};
use super::tree;
use crate::cli::Failed;
use crate::dma::{Console, Copied, Place, Screen, backup, copy, login_of, restore};

/// Bytes that an archive has at least, and how many of them are real files at most.
const TOTAL: u64 = 256 << 20;
const REAL: u64 = 128 << 20;
/// Bytes of a record on tape.
const RECORD: u32 = 256 << 10;
/// What is written, and what it is copied to.
const VIRTUAL: &str = "vtl0:VTA001L8";
const GHOST: &str = "dr-ptl0";
const PHYSICAL: [&str; 2] = ["PTA001L8", "PTA002L8"];
/// How long an engine may take to answer the admin socket.
const ANSWER: Duration = Duration::from_secs(10);

/// Everything that the steps share.
pub(super) struct Story<'a> {
    pub(super) dir: &'a Path,
    pub(super) seed: u64,
    pub(super) interrupt: &'a Interrupt,
    pub(super) engines: &'a Engines,
    pub(super) begun: Instant,
    /// Steps are told on standard error, since standard output is for the result.
    pub(super) aside: bool,
    /// What was read back is kept as a file.
    pub(super) keep: bool,
}

/// A pair that runs.
struct Running {
    console: Console,
    catalogue: Catalogue,
}

impl Story<'_> {
    /// Tells it; what is known is in `report`, however it ends.
    pub(super) fn tell(&self, report: &mut Report) -> Result<(), Failed> {
        let members = self.members();
        let first = self.archive(&members, 1)?;
        let running = self.start(first.bytes)?;
        self.back_up(&running, 1, &first, report)?;
        let second = self.archive(&members, 2)?;
        report.sha256_in = Some(second.sha256.clone());
        self.back_up(&running, 2, &second, report)?;
        self.copy(&running, &second, report)?;
        let came_out = self.restore(&running, second.bytes)?;
        report.sha256_out = Some(came_out.clone());
        self.engines.stop()?;
        match came_out == second.sha256 {
            true => Ok(()),
            false => Err(Failed::new("what came out is not what went in")),
        }
    }

    /// A step that was done: when, what, and with what result.
    fn say(&self, step: &str, text: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        let line = format!("{at:6.1} s  {step:<10}  {text}");
        match self.aside {
            true => eprintln!("{line}"),
            // A reader that has gone does not stop the story.
            false => drop(writeln!(io::stdout(), "{line}")),
        }
    }

    fn archive_path(&self, generation: u32) -> PathBuf {
        self.dir.join(format!("generation-{generation}.tar"))
    }

    fn members(&self) -> Vec<Member> {
        let root = tree::root();
        let mut members = root.as_ref().map_or_else(Vec::new, |root| tree::files(root, REAL));
        let real = members.len();
        archive::top_up(&mut members, TOTAL);
        let from = root.map_or_else(String::new, |root| format!(" of {}", root.display()));
        let seeded = members.len() - real;
        let text = format!("{real} files{from}, {seeded} made from seed {}", self.seed);
        self.say("files", &text);
        members
    }

    fn archive(&self, members: &[Member], generation: u32) -> Result<Written, Failed> {
        let go_on = || match self.interrupt.is_requested() {
            true => Err(io::Error::other("interrupted")),
            false => Ok(()),
        };
        let path = self.archive_path(generation);
        let what = (generation, self.seed, u64::from(RECORD));
        let written = archive::write(&path, members, what, &go_on).map_err(Failed::new)?;
        let percent = 100.0 * written.changed as f64 / written.bytes as f64;
        let changed = match generation {
            1 => String::new(),
            _ => format!(", {} of it new ({percent:.1} %)", ByteSize(written.changed)),
        };
        let text = format!("generation {generation} is a tar of {}", ByteSize(written.bytes));
        self.say("tar", &format!("{text}{changed}"));
        self.say("", &format!("SHA-256 {}", written.sha256));
        Ok(written)
    }

    /// A pair of engines whose virtual cartridges hold the archive easily and whose physical ones
    /// do not: two of them are needed.
    fn start(&self, bytes: u64) -> Result<Running, Failed> {
        self.interrupt.check()?;
        let (ndmp, link) = free_ports().map_err(Failed::new)?;
        let mut options = InitOptions::with_ports(ndmp, link).map_err(Failed::new)?;
        options.virtual_capacity = (bytes * 2).to_string();
        options.physical_capacity = (bytes / 10 * 6).to_string();
        let made = init(self.dir, &options).map_err(Failed::new)?;
        self.engines.start("remote-engine", &made.remote)?;
        self.engines.start("local-engine", &made.local)?;
        let config = LocalConfig::load(&made.local).map_err(Failed::new)?;
        let server = config.ndmp.listen.to_string();
        let console = Console { server, version: None, login: login_of(&config)? };
        let catalogue = Catalogue::open_read_only(&config.site.catalogue()).map_err(Failed::new)?;
        self.engines.wait("the link between the engines", || {
            self.interrupt.check()?;
            let mut client = AdminClient::connect(&config.site.admin_socket(), ANSWER);
            let status = client
                .as_mut()
                .ok()
                .and_then(|client| client.call::<Value>("status", json!({})).ok());
            Ok(status.filter(|status| status["links"][0]["up"] == true))
        })?;
        let ghost = LibraryName::new(GHOST).map_err(Failed::new)?;
        let elements = self.engines.wait("the ghost library", || {
            self.interrupt.check()?;
            Ok(console.inventory(&ghost).ok())
        })?;
        let tapes = elements.iter().filter(|element| element.tag.is_some()).count();
        let text = format!(
            "two engines, NDMP at {}; ghost library {GHOST} with {tapes} tapes of {}",
            console.server,
            ByteSize(bytes / 10 * 6),
        );
        self.say("engines", &text);
        Ok(Running { console, catalogue })
    }

    /// A backup over the whole of the virtual cartridge, unloaded, and its replication.
    fn back_up(
        &self,
        running: &Running,
        generation: u32,
        written: &Written,
        report: &mut Report,
    ) -> Result<(), Failed> {
        self.interrupt.check()?;
        let begun = Instant::now();
        let place: Place = VIRTUAL.parse().map_err(Failed::new)?;
        let file = File::open(self.archive_path(generation)).map_err(Failed::new)?;
        let screen = Screen::new("backup", Some(written.bytes));
        let mut reader = screen.bar().wrap_read(file);
        let bytes = backup(&running.console, &place, RECORD, &mut reader).map_err(Failed::new)?;
        screen.close();
        let took = begun.elapsed();
        self.say("backup", &format!("generation {generation} to {VIRTUAL}, {}", rate(bytes, took)));
        let row = self.replicated(&running.catalogue, generation)?;
        let seconds = begun.elapsed();
        let line = GenerationLine {
            generation,
            logical_bytes: row.bytes_logical,
            unique_bytes: row.bytes_unique,
            wan_bytes: row.bytes_wire,
            seconds: seconds.as_secs_f64(),
        };
        let (all, wire) = (ByteSize(line.logical_bytes), ByteSize(line.wan_bytes));
        let took = (seconds - took).as_secs_f64();
        let text = format!("generation {generation} is at {}: {wire} on the WAN", row.site);
        self.say("replicated", &format!("{text} for {all}, {took:.1} s after the backup"));
        report.generations.push(line);
        Ok(())
    }

    /// The replication of a generation of the cartridge, once it is done.
    fn replicated(&self, catalogue: &Catalogue, number: u32) -> Result<Replication, Failed> {
        self.engines.wait("a replication", || {
            self.interrupt.check()?;
            let rows = catalogue.cartridge_status().map_err(Failed::new)?;
            let ours = |row: &&svs::CartridgeStatus| {
                format!("{}:{}", row.library, row.barcode) == VIRTUAL
                    && row.number == Some(u64::from(number))
            };
            let found = rows.iter().find(ours).and_then(|row| row.generation.zip(row.peer.clone()));
            let Some((generation, site)) = found else { return Ok(None) };
            let row = catalogue.replication(generation, &site).map_err(Failed::new)?;
            match row {
                Some(row) if row.state == ReplicationState::Done => Ok(Some(row)),
                Some(row) if row.state == ReplicationState::Failed => {
                    let cause = row.message.unwrap_or_default();
                    Err(Failed::new(format!("the replication failed: {cause}")))
                }
                _ => Ok(None),
            }
        })
    }

    /// The copy as a backup application does it: it knows what is on its tape.
    fn copy(
        &self,
        running: &Running,
        written: &Written,
        report: &mut Report,
    ) -> Result<(), Failed> {
        self.interrupt.check()?;
        let source: Place = VIRTUAL.parse().map_err(Failed::new)?;
        let target: Place = ghosts().parse().map_err(Failed::new)?;
        let one = Part { headers: 1, length: Some(0) };
        let data = Part { headers: 0, length: Some(written.bytes) };
        let what = What::Parts(vec![one, data, one]);
        let plan = CopyPlan { what, record_size: Some(RECORD), ..CopyPlan::default() };
        let screen = Screen::new("copy", Some(written.bytes));
        let copied =
            copy(&running.console, &source, &target, &plan, screen).map_err(Failed::new)?;
        let job = self.engines.wait("the end of the copy", || {
            let filter = JobFilter { kinds: vec![JobKind::Copy], ..JobFilter::default() };
            let jobs = running.catalogue.jobs(&filter).map_err(Failed::new)?;
            Ok(jobs.into_iter().next_back().filter(|job| job.state.is_final()))
        })?;
        let took = Duration::from_secs_f64(copied.seconds);
        let text = format!("{VIRTUAL} to {target}, {}", rate(copied.bytes, took));
        self.say("copy", &text);
        report.copies = copies(&copied, &job);
        match job.state {
            svs::JobState::Done if copied.tapes.len() == PHYSICAL.len() => Ok(()),
            svs::JobState::Done => Err(Failed::new("the copy did not change its tape")),
            state => {
                let cause = job.message.unwrap_or_default();
                Err(Failed::new(format!("the copy is {state}: {cause}")))
            }
        }
    }

    /// Reads the stream back from the ghost tapes: the SHA-256 of what came.
    fn restore(&self, running: &Running, bytes: u64) -> Result<String, Failed> {
        self.interrupt.check()?;
        let begun = Instant::now();
        let source: Place = ghosts().parse().map_err(Failed::new)?;
        let inner: Box<dyn Write + Send> = match self.keep {
            true => {
                let file = File::create(self.dir.join("restored.tar")).map_err(Failed::new)?;
                Box::new(BufWriter::new(file))
            }
            false => Box::new(io::sink()),
        };
        let mut out = Hashed::new(inner);
        let screen = Screen::new("restore", Some(bytes));
        let mut writer = screen.bar().wrap_write(&mut out);
        let read = restore(&running.console, &source, &mut writer).map_err(Failed::new)?;
        screen.close();
        self.say("restore", &format!("from {source}, {}", rate(read, begun.elapsed())));
        self.say("", &format!("SHA-256 {}", out.digest()));
        Ok(out.digest())
    }
}

fn ghosts() -> String {
    format!("{GHOST}:{}", PHYSICAL.join(","))
}

fn copies(copied: &Copied, job: &JobStatus) -> Vec<CopyLine> {
    let line = |tape: &crate::dma::CopiedTape| CopyLine {
        source: copied.source.clone(),
        target: tape.target.clone(),
        state: job.state.to_string(),
        bytes: tape.bytes,
        seconds: tape.seconds,
        job: job.id.to_string(),
        path: job.path.map(|path| path.to_string()),
    };
    copied.tapes.iter().map(line).collect()
}

fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let each = ByteSize((bytes as f64 / seconds.max(1e-3)) as u64);
    format!("{} in {seconds:.1} s ({each}/s)", ByteSize(bytes))
}

/// Two ports on loopback that nobody listens at. They lie below those that Linux gives to
/// connections, so that none of these takes one before the engines are started.
fn free_ports() -> io::Result<(u16, u16)> {
    const PORTS: std::ops::Range<u32> = 10_240..32_000;
    let listen = |port| std::net::TcpListener::bind(("127.0.0.1", port));
    let start = std::process::id().wrapping_mul(97);
    let mut free = (0..PORTS.end - PORTS.start)
        .map(|step| PORTS.start + start.wrapping_add(step) % (PORTS.end - PORTS.start))
        .filter_map(|port| listen(u16::try_from(port).ok()?).ok()?.local_addr().ok())
        .map(|address| address.port());
    let two = free.next().zip(free.next());
    two.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no two ports are free"))
}
