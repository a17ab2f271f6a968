//! What was measured, and the table of it.

use std::collections::BTreeMap;
use std::fmt;

use tests::thousands;

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

/// The same step by the other tape server, measured once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerFigure {
    /// Seconds from the first message to the last answer.
    pub(crate) answered: f64,
    /// Seconds until what it wrote was on the disk.
    pub(crate) on_disk: f64,
}

/// All rounds so far.
#[derive(Debug)]
pub(crate) struct Figures {
    bytes: u64,
    order: Vec<&'static str>,
    steps: BTreeMap<&'static str, Vec<Figure>>,
    /// By the step of ours that each is compared with; one for each round.
    peer: BTreeMap<&'static str, Vec<PeerFigure>>,
}

impl Figures {
    /// None yet, of steps over so many bytes each.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, order: Vec::new(), steps: BTreeMap::new(), peer: BTreeMap::new() }
    }

    /// Notes one.
    pub(crate) fn add(&mut self, step: &'static str, figure: Figure) {
        eprintln!("  {step}: {:.2} s, {:.2} times `cp`", figure.seconds, figure.times);
        if !self.steps.contains_key(step) {
            self.order.push(step);
        }
        self.steps.entry(step).or_default().push(figure);
    }

    /// Notes one of the other server.
    pub(crate) fn add_peer(&mut self, step: &'static str, figure: PeerFigure) {
        let PeerFigure { answered, on_disk } = figure;
        eprintln!("  {step}, by ndmjob: {answered:.2} s, {on_disk:.2} s until it is on the disk");
        self.peer.entry(step).or_default().push(figure);
    }

    /// Ours beside the other server's: how many times as fast, round by round.
    pub(crate) fn beside(&self) -> Beside<'_> {
        Beside(self)
    }

    fn rate(&self, seconds: f64) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / seconds
    }
}

/// The table that compares both servers.
pub(crate) struct Beside<'a>(&'a Figures);

impl fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| step | MiB/s | ndmjob's MiB/s | times ndmjob's speed (least to most) | \
             ndmjob's MiB/s to the disk | times that (least to most) |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        let Figures { order, steps, peer, .. } = self.0;
        for (step, theirs) in order.iter().filter_map(|step| Some((step, peer.get(step)?))) {
            let ours = &steps[step];
            let seconds = Spread::of(ours.iter().map(|f| f.seconds));
            write!(f, "| {step} | {:.0} ", self.0.rate(seconds.median))?;
            for pick in [|f: &PeerFigure| f.answered, |f: &PeerFigure| f.on_disk] {
                let median = Spread::of(theirs.iter().map(pick)).median;
                let pairs = ours.iter().zip(theirs);
                let times = Spread::of(pairs.map(|(ours, theirs)| pick(theirs) / ours.seconds));
                let Spread { least, median: middle, most } = times;
                let rate = self.0.rate(median);
                write!(f, "| {rate:.0} | {middle:.2} ({least:.2} to {most:.2}) ")?;
            }
            writeln!(f, "|")?;
        }
        Ok(())
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
                self.rate(seconds.median),
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
