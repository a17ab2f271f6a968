//! What was measured, and the table of it.

use std::collections::BTreeMap;
use std::fmt;

/// One step, measured once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// From the first message to the last answer.
    pub(crate) seconds: f64,
    /// The same by how long the `cp` just before it took.
    pub(crate) times: f64,
    /// Processor seconds of the local and the remote engine meanwhile.
    pub(crate) cpu: Option<(f64, f64)>,
    /// Bytes between the engines meanwhile, both ways, TLS and all.
    pub(crate) wire: Option<u64>,
}

/// All rounds so far.
#[derive(Debug)]
pub(crate) struct Figures {
    bytes: u64,
    order: Vec<&'static str>,
    steps: BTreeMap<&'static str, Vec<Figure>>,
}

impl Figures {
    /// None yet, of steps over so many bytes each.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, order: Vec::new(), steps: BTreeMap::new() }
    }

    /// Notes one.
    pub(crate) fn add(&mut self, step: &'static str, figure: Figure) {
        eprintln!("  {step}: {:.2} s, {:.2} times `cp`", figure.seconds, figure.times);
        if !self.steps.contains_key(step) {
            self.order.push(step);
        }
        self.steps.entry(step).or_default().push(figure);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| step | seconds, median (least to most) | MiB/s | times `cp` (least to most) | \
             CPU s, local + \
                     remote | bytes on the wire |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        let mib = self.bytes as f64 / f64::from(1 << 20);
        for step in &self.order {
            let all = &self.steps[step];
            let seconds = Spread::of(all.iter().map(|f| f.seconds));
            let times = Spread::of(all.iter().map(|f| f.times));
            let cpu = |pick: fn((f64, f64)) -> f64| {
                let all = all.iter().filter_map(|f| f.cpu).map(pick);
                Spread::of(all).median
            };
            let cpu = match all[0].cpu {
                Some(_) => format!("{:.2} + {:.2}", cpu(|c| c.0), cpu(|c| c.1)),
                None => "-".into(),
            };
            let wire = match all[0].wire {
                Some(_) => {
                    let all = all.iter().filter_map(|f| f.wire).map(|wire| wire as f64);
                    thousands(Spread::of(all).median as u64)
                }
                None => "-".into(),
            };
            writeln!(
                f,
                "| {step} | {:.2} ({:.2} to {:.2}) | {:.0} | {:.2} ({:.2} to {:.2}) \
                 | {cpu} | {wire} |",
                seconds.median,
                seconds.least,
                seconds.most,
                mib / seconds.median,
                times.median,
                times.least,
                times.most,
            )?;
        }
        Ok(())
    }
}

/// Three numbers that say what a list of numbers is like.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// Of at least one number; not a number without any.
    fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = numbers.collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        let median = (at(all.len().saturating_sub(1) / 2) + at(all.len() / 2)) / 2.0;
        Self { least: at(0), median, most: at(all.len().saturating_sub(1)) }
    }
}

/// A number that people can read.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
