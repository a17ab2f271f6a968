//! Injected faults: a plan says which command of which kind fails, is late, or loses its answer.
//!
//! The text form has one rule in a line; `#` begins a comment:
//!
//! ```text
//! # device  operation  which  action
//!   drive0  write      3      sense 03/0c/00      the third WRITE fails, nothing is written
//!   *       read       2..4   sense 03/11/00      the second, third and fourth READ
//!   drive1  filemarks  1      deferred 03/0c/00   as an earlier buffered write that failed
//!   *       write      10..   delay 50            every WRITE from the tenth on is 50 ms late
//!   drive0  write      7      lost                done, but the answer never comes
//!   drive0  write      1      alert 20            done, and TapeAlert flag 20 is raised
//!   changer move       1      sense 04/15/01
//!   drive0  load       1      calibrate 5         ready when asked five times, as LTO-9 is
//! ```
//!
//! Operations are `read`, `write`, `filemarks` (a count of 1 or more), `flush` (a count of 0),
//! `space`, `locate`, `rewind`, `load`, `unload`, `move`. A cartridge that the library puts into a
//! drive is a `load` too, for `calibrate` alone. Each device counts each of its
//! operations from the moment the plan is set. The first rule that fits acts, delays besides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::DeviceRole;
use scsi::Sense;

use crate::{Control, TapeError};

/// Most rules in one plan.
const RULES_MAX: usize = 1000;

/// Longest delay.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultOperation {
    /// A record is read.
    Read,
    /// A record is written.
    Write,
    /// One filemark or more are written.
    Filemarks,
    /// WRITE FILEMARKS with a count of 0.
    Flush,
    /// SPACE.
    Space,
    /// LOCATE.
    Locate,
    /// REWIND.
    Rewind,
    /// A medium is threaded.
    Load,
    /// A medium is unthreaded on command.
    Unload,
    /// MOVE or EXCHANGE MEDIUM.
    Move,
}

impl FaultOperation {
    const NAMES: [(&'static str, Self); 10] = [
        ("read", Self::Read),
        ("write", Self::Write),
        ("filemarks", Self::Filemarks),
        ("flush", Self::Flush),
        ("space", Self::Space),
        ("locate", Self::Locate),
        ("rewind", Self::Rewind),
        ("load", Self::Load),
        ("unload", Self::Unload),
        ("move", Self::Move),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, known)| *known == self).map_or("?", |(name, _)| name)
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// CHECK CONDITION with this sense data; the command is not done.
    Sense(Sense),
    /// The command is done after so long. Cancelling or the deadline ends the wait, undone.
    Delay(Duration),
    /// The command is done and its answer lost: the caller sees a time-out.
    Lost,
    /// The command is done, and a TapeAlert flag is raised.
    Alert(u16),
    /// The medium is threaded, and the drive says that it becomes ready (02/04/01, with progress)
    /// until it was asked so often: the calibration of LTO-9, without the hours.
    Calibrate(u16),
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// Which device, `None` for each.
    pub device: Option<DeviceRole>,
    /// Which operation.
    pub operation: FaultOperation,
    /// The first one it acts on, from 1.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// What it does.
    pub action: FaultAction,
}

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// In the order of the text.
    pub rules: Vec<FaultRule>,
}

/// A line of a plan that is none; its author's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; write DEVICE OPERATION WHICH ACTION")]
pub struct FaultError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl FaultPlan {
    /// Reads the text form.
    ///
    /// # Errors
    /// The first line that does not fit it.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        let mut plan = Self::default();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<_> =
                line.split('#').next().unwrap_or_default().split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let at = |problem: String| FaultError { line: index + 1, problem };
            if plan.rules.len() == RULES_MAX {
                return Err(at(format!("more than {RULES_MAX} rules")));
            }
            plan.rules.push(parse_rule(&words).map_err(at)?);
        }
        Ok(plan)
    }
}

fn parse_rule(words: &[&str]) -> Result<FaultRule, String> {
    let [device, operation, which, action @ ..] = words else {
        return Err("too few words".to_owned());
    };
    let known = FaultOperation::NAMES.iter().find(|(name, _)| name == operation);
    let operation = known.ok_or_else(|| format!("{operation:?} is no operation"))?.1;
    let (first, last) =
        parse_range(which).ok_or_else(|| format!("{which:?} is not N, N.. or N..M from 1"))?;
    Ok(FaultRule {
        device: parse_device(device)?,
        operation,
        first,
        last,
        action: parse_action(action)?,
    })
}

fn parse_device(word: &str) -> Result<Option<DeviceRole>, String> {
    match (word, word.strip_prefix("drive").map(str::parse)) {
        ("*", _) => Ok(None),
        ("changer", _) => Ok(Some(DeviceRole::Changer)),
        (_, Some(Ok(index))) => Ok(Some(DeviceRole::Drive(index))),
        _ => Err(format!("{word:?} is not changer, driveN or *")),
    }
}

fn parse_range(word: &str) -> Option<(u64, u64)> {
    let (first, last) = match word.split_once("..") {
        None => (word.parse().ok()?, word.parse().ok()?),
        Some((first, "")) => (first.parse().ok()?, u64::MAX),
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
    };
    (1 <= first && first <= last).then_some((first, last))
}

fn parse_action(words: &[&str]) -> Result<FaultAction, String> {
    let wrong = || {
        format!(
            "{:?} is not sense K/A/Q, deferred K/A/Q, delay MS, alert N, \
         calibrate N or lost",
            words
        )
    };
    match words {
        ["lost"] => Ok(FaultAction::Lost),
        ["calibrate", looks] => Ok(FaultAction::Calibrate(looks.parse().map_err(|_| wrong())?)),
        ["alert", flag] => match flag.parse() {
            Ok(flag) if (1..=scsi::log::TAPE_ALERT_FLAGS).contains(&flag) => {
                Ok(FaultAction::Alert(flag))
            }
            _ => Err(wrong()),
        },
        ["delay", milliseconds] => {
            let delay = Duration::from_millis(milliseconds.parse().map_err(|_| wrong())?);
            Ok(FaultAction::Delay(delay.min(DELAY_MAX)))
        }
        [kind @ ("sense" | "deferred"), code] => {
            let sense = parse_sense(code).ok_or_else(wrong)?;
            Ok(FaultAction::Sense(Sense { deferred: *kind == "deferred", ..sense }))
        }
        _ => Err(wrong()),
    }
}

fn parse_sense(text: &str) -> Option<Sense> {
    let mut parts = text.split('/').map(|part| u8::from_str_radix(part, 16).ok());
    let sense = Sense::new(parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none() && sense.key < 16).then_some(sense)
}

/// A plan at work in one device.
#[derive(Debug, Default)]
pub(super) struct Faults {
    device: Option<DeviceRole>,
    rules: Vec<FaultRule>,
    counts: BTreeMap<FaultOperation, u64>,
    /// Flags to be raised.
    alerts: Vec<u16>,
    /// Media that were threaded.
    calibrations: u64,
}

impl Faults {
    /// The rules of `plan` for one device; counting begins anew.
    pub(super) fn new(plan: &FaultPlan, device: DeviceRole) -> Self {
        let ours = |rule: &&FaultRule| rule.device.is_none_or(|wanted| wanted == device);
        let rules = plan.rules.iter().filter(ours).cloned().collect();
        Self {
            device: Some(device),
            rules,
            counts: BTreeMap::new(),
            alerts: Vec::new(),
            calibrations: 0,
        }
    }

    /// How often a drive is asked until a medium that was threaded now is ready.
    pub(super) fn calibration(&mut self) -> u16 {
        let load = FaultOperation::Load;
        let plans = |rule: &FaultRule| match rule.action {
            FaultAction::Calibrate(looks) if rule.operation == load => Some(looks),
            _ => None,
        };
        if !self.rules.iter().any(|rule| plans(rule).is_some()) {
            return 0;
        }
        let count = self.calibrations.saturating_add(1);
        self.calibrations = count;
        let fits = self.rules.iter().filter(|rule| (rule.first..=rule.last).contains(&count));
        fits.filter_map(plans).max().unwrap_or(0)
    }

    /// The flags that rules have raised since they were asked for last.
    pub(super) fn raised(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.alerts)
    }

    /// Counts an operation that is about to be done. `Ok(true)` says to do it and lose the
    /// answer; an error says not to do it.
    pub(super) fn before(
        &mut self,
        operation: FaultOperation,
        control: &Control,
    ) -> Result<bool, TapeError> {
        control.check()?;
        if self.rules.is_empty() {
            return Ok(false);
        }
        let count = self.counts.entry(operation).or_insert(0);
        *count += 1;
        let fits = |rule: &&FaultRule| {
            rule.operation == operation && (rule.first..=rule.last).contains(count)
        };
        for rule in self.rules.iter().filter(fits) {
            let (device, action) = (self.device, rule.action);
            tracing::debug!(?device, ?action, "fault: {} {count}", operation.name());
            match rule.action {
                FaultAction::Delay(delay) => wait(delay, control)?,
                FaultAction::Sense(sense) => return Err(TapeError::Check(sense)),
                FaultAction::Lost => return Ok(true),
                FaultAction::Alert(flag) => self.alerts.push(flag),
                // Where the medium is threaded.
                FaultAction::Calibrate(_) => {}
            }
        }
        Ok(false)
    }
}

/// What a caller sees of an operation whose answer is lost.
pub(super) fn answer<T>(lost: bool, done: T) -> Result<T, TapeError> {
    if lost { Err(TapeError::TimedOut) } else { Ok(done) }
}

/// Waits in steps, so that cancelling is seen soon.
fn wait(delay: Duration, control: &Control) -> Result<(), TapeError> {
    const STEP: Duration = Duration::from_millis(5);
    let end = Instant::now() + delay;
    loop {
        control.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let text = "# nothing\n\n drive0 write 3 sense 03/0c/00 # why\n* read 2.. delay 7\n\
                    changer move 1..2 lost\ndrive1 flush 1 deferred 3/c/0\n";
        let plan = FaultPlan::parse(text).unwrap();
        assert_eq!(plan.rules.len(), 4);
        assert_eq!(plan.rules[0].device, Some(DeviceRole::Drive(0)));
        assert_eq!(plan.rules[0].action, FaultAction::Sense(Sense::WRITE_ERROR));
        assert_eq!((plan.rules[1].first, plan.rules[1].last), (2, u64::MAX));
        assert_eq!(plan.rules[2].action, FaultAction::Lost);
        let deferred = Sense { deferred: true, ..Sense::WRITE_ERROR };
        assert_eq!(plan.rules[3].action, FaultAction::Sense(deferred));
    }

    #[test]
    fn wrong_lines_are_named() {
        for line in [
            "drive write 1 lost",
            "drive0 wrote 1 lost",
            "drive0 write 0 lost",
            "drive0 write 3..2 lost",
            "drive0 write 1 sense 03/0c",
            "drive0 write 1 sense 13/0c/00",
            "drive0 write 1",
            "drive0 write 1 delay soon",
            "drive0 write 1 alert 65",
            "drive0 load 1 calibrate long",
        ] {
            let error = FaultPlan::parse(&format!("\n{line}")).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
    }

    #[test]
    fn the_nth_operation_fails_and_a_cancelled_delay_ends() {
        let plan = FaultPlan::parse("* write 2 sense 03/0c/00\n* read 1 delay 3600000").unwrap();
        let mut faults = Faults::new(&plan, DeviceRole::Drive(3));
        let control = Control::within(Duration::from_secs(60));
        let write = FaultOperation::Write;
        assert_eq!(faults.before(write, &control), Ok(false));
        let failed = Err(TapeError::Check(Sense::WRITE_ERROR));
        assert_eq!(faults.before(write, &control), failed);
        assert_eq!(faults.before(write, &control), Ok(false));
        let short = Control::within(Duration::from_millis(1));
        assert_eq!(faults.before(FaultOperation::Read, &short), Err(TapeError::TimedOut));
    }
}
