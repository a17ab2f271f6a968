//! The tape-to-tape copy, with its tapes.

use std::collections::VecDeque;
use std::time::Instant;

use dma::copy::{CopyObserver, CopyPlan, CopyProgress, CopyReport};
use dma::{Client, DmaError, TapeOpenMode};
use model::{Barcode, ByteSize};
use serde::Serialize;

use super::console::{Console, Seat};
use super::place::Place;
use super::screen::Screen;

/// What a copy has done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Copied {
    /// The cartridge or drive that was read.
    pub(crate) source: String,
    /// What was written, in order.
    pub(crate) tapes: Vec<CopiedTape>,
    /// Bytes of all records.
    pub(crate) bytes: u64,
    /// Files that the movers copied.
    pub(crate) parts: u64,
    /// Records that were copied one by one.
    pub(crate) records: u64,
    pub(crate) filemarks: u64,
    pub(crate) seconds: f64,
    /// What the server told meanwhile.
    pub(crate) log: Vec<String>,
}

/// One tape of a copy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CopiedTape {
    pub(crate) target: String,
    /// Bytes of the records on it.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Copies a whole tape. The target's next cartridge follows when one is full, and goes on with the
/// record that the last one did not take: the tapes after one another are the source.
pub(crate) fn copy(
    console: &Console,
    source: &Place,
    target: &Place,
    plan: &CopyPlan,
    screen: Screen,
) -> Result<Copied, DmaError> {
    let begun = Instant::now();
    let (from_seat, mut from) = console.take(source, TapeOpenMode::Read)?;
    let (to_seat, mut to) = match console.take(target, TapeOpenMode::Raw) {
        Ok(taken) => taken,
        Err(error) => {
            let _ = console.release(from_seat, from);
            return Err(error);
        }
    };
    if let Some(bytes) = recorded(&mut from) {
        screen.set_total(bytes);
    }
    let mut attendant = Attendant::new(console, target, to_seat, screen);
    let outcome = dma::copy::copy(&mut from, &mut to, plan, &mut attendant);
    let Attendant { seat, screen, used, .. } = attendant;
    // A tape is copied when it is closed: only then is everything known to be on it.
    let released = [console.release(seat, to), console.release(from_seat, from)];
    let log = screen.close();
    let report = outcome?;
    released.into_iter().collect::<Result<(), _>>()?;
    Ok(copied(source, target, report, &used, begun, log))
}

/// How much the tape holds, as the drive tells it; a guess that only the bar is made of.
fn recorded(client: &mut Client) -> Option<u64> {
    let state = client.tape_state().ok()?;
    let used = state.total_space.checked_sub(state.space_remain)?;
    (used > 0).then_some(used)
}

fn copied(
    source: &Place,
    target: &Place,
    report: CopyReport,
    ended: &[Instant],
    begun: Instant,
    log: Vec<String>,
) -> Copied {
    let now = Instant::now();
    let mut last = begun;
    let mut tapes = Vec::new();
    for (at, (target, bytes)) in target.media().into_iter().zip(&report.tapes).enumerate() {
        let until = ended.get(at).copied().unwrap_or(now);
        let seconds = until.duration_since(last).as_secs_f64();
        last = until;
        tapes.push(CopiedTape { target, bytes: *bytes, seconds });
    }
    Copied {
        source: source.to_string(),
        bytes: report.tapes.iter().sum(),
        tapes,
        parts: report.parts.len() as u64,
        records: report.records,
        filemarks: report.filemarks,
        seconds: begun.elapsed().as_secs_f64(),
        log,
    }
}

/// Watches the copy and changes the target's tapes.
struct Attendant<'a> {
    console: &'a Console,
    seat: Seat,
    next: VecDeque<&'a Barcode>,
    screen: Screen,
    /// When each tape but the last was full.
    used: Vec<Instant>,
}

impl<'a> Attendant<'a> {
    fn new(console: &'a Console, target: &'a Place, seat: Seat, screen: Screen) -> Self {
        let next = match target {
            Place::Drive(_) => VecDeque::new(),
            Place::Cartridges(_, barcodes) => barcodes.iter().skip(1).collect(),
        };
        Self { console, seat, next, screen, used: Vec::new() }
    }
}

impl CopyObserver for Attendant<'_> {
    fn progress(&mut self, progress: CopyProgress) {
        self.screen.at(progress.bytes);
    }

    fn log(&mut self, line: &str) {
        self.screen.line(line);
    }

    fn change_tape(&mut self, target: &mut Client, position: u64) -> Result<(), DmaError> {
        let next = self.next.pop_front().ok_or(DmaError::EndOfMedium { position })?;
        let at = ByteSize(position);
        self.screen.line(&format!("the target tape is full at {at}; {next} is next"));
        self.used.push(Instant::now());
        self.console.change(&mut self.seat, target, next)
    }
}
