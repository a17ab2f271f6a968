//! Several runs become one, a few entries at a time.

use std::path::Path;
use std::sync::Arc;

use vfs::Vfs;

use super::State;
use super::run::{Run, RunWriter, Spot};
use crate::Result;

/// So many runs of about one size are merged.
const FAN: usize = 4;
/// More runs than this are never left alone.
const MOST: usize = 24;

/// Which neighbours among runs of these lengths, oldest first, should be merged now. `alive` is how
/// many of all entries count, `least` how many entries are not worth the work.
pub(super) fn choice(lens: &[u64], alive: u64, least: u64) -> Option<std::ops::Range<usize>> {
    let all: u64 = lens.iter().sum();
    if all > 2 * alive + FAN as u64 * least {
        return Some(0..lens.len());
    }
    let windows = || (0..=lens.len().saturating_sub(FAN)).map(|from| from..from + FAN);
    let windows = || windows().filter(|window| window.end <= lens.len());
    let alike = |window: &std::ops::Range<usize>| {
        let lens = &lens[window.clone()];
        let (most, fewest) = (lens.iter().max(), lens.iter().min());
        most.zip(fewest).is_some_and(|(most, fewest)| *most < 3 * fewest.max(&least))
    };
    let sum = |window: &std::ops::Range<usize>| lens[window.clone()].iter().sum::<u64>();
    windows().rev().find(alike).or_else(|| match lens.len() > MOST {
        true => windows().min_by_key(sum),
        false => None,
    })
}

/// A run that is read from its beginning to its end.
struct Cursor {
    run: Arc<Run>,
    page: Arc<[Spot]>,
    number: u64,
    at: usize,
}

impl Cursor {
    fn new(run: Arc<Run>) -> Result<Self> {
        let page = run.page(0)?;
        Ok(Self { run, page, number: 0, at: 0 })
    }

    fn head(&self) -> Option<Spot> {
        self.page.get(self.at).copied()
    }

    fn advance(&mut self) -> Result<()> {
        self.at += 1;
        if self.at == self.page.len() {
            self.number += 1;
            self.at = 0;
            self.page = self.run.page(self.number)?;
        }
        Ok(())
    }
}

/// A merge that is under way.
pub(super) struct Merge {
    /// Oldest first.
    inputs: Vec<Cursor>,
    output: RunWriter,
}

impl Merge {
    /// Begins to merge neighbours, oldest first, into run `id`.
    pub(super) fn begin(vfs: &dyn Vfs, dir: &Path, id: u64, runs: &[Arc<Run>]) -> Result<Self> {
        let most = runs.iter().map(|run| run.len()).sum();
        let inputs = runs.iter().cloned().map(Cursor::new).collect::<Result<_>>()?;
        Ok(Self { inputs, output: RunWriter::create(vfs, dir, id, most)? })
    }

    /// The ids of the runs that are merged.
    pub(super) fn inputs(&self) -> Vec<u64> {
        self.inputs.iter().map(|cursor| cursor.run.id).collect()
    }

    /// Takes over at most so many entries; those that do not count are left out. True: that was
    /// all.
    pub(super) fn step(&mut self, entries: u64, state: &State) -> Result<bool> {
        for _ in 0..entries {
            let heads = self.inputs.iter().filter_map(|cursor| Some(cursor.head()?.digest));
            let Some(least) = heads.min() else { return Ok(true) };
            let mut newest: Option<Spot> = None;
            for cursor in &mut self.inputs {
                let Some(spot) = cursor.head().filter(|spot| spot.digest == least) else {
                    continue;
                };
                cursor.advance()?;
                let older = newest.filter(|older| !state.settle(&older.at, &spot.at));
                newest = older.or(Some(spot).filter(|spot| state.counts(&spot.at)));
            }
            newest.map_or(Ok(()), |spot| self.output.push(spot))?;
        }
        Ok(false)
    }

    /// Makes the run durable; `None` if nothing is in it.
    pub(super) fn finish(self, vfs: &dyn Vfs, dir: &Path) -> Result<Option<Run>> {
        self.output.finish(vfs, dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_when() {
        type Case = (&'static [u64], u64, Option<std::ops::Range<usize>>);
        let cases: [Case; 9] = [
            (&[], 0, None),
            (&[100, 100, 100], 300, None),
            (&[100, 100, 100, 100], 400, Some(0..4)),
            (&[400, 100, 100, 100], 700, None),
            (&[400, 100, 100, 100, 100], 800, Some(1..5)),
            (&[400, 400, 400, 400, 100], 1700, Some(0..4)),
            // Small ones are all of one size.
            (&[100, 1, 1, 60], 162, Some(0..4)),
            // Most of it counts no more.
            (&[1000, 100], 300, Some(0..2)),
            (&[], 9, None),
        ];
        for (lens, alive, wanted) in cases {
            assert_eq!(choice(lens, alive, 100), wanted, "{lens:?}");
        }
        // However unlike they are, there is an end to it.
        let lens: Vec<u64> = (0..25).map(|n| if n % 2 == 0 { 100 } else { 100_000 }).collect();
        assert!(choice(&lens, lens.iter().sum(), 100).is_some());
    }

    #[test]
    fn runs_stay_few() {
        let (mut lens, mut work) = (Vec::new(), 0);
        for flush in 0..5000u64 {
            lens.push(100);
            while let Some(window) = choice(&lens, 100 * (flush + 1), 100) {
                let sum = lens[window.clone()].iter().sum();
                work += sum;
                lens.splice(window, [sum]);
            }
            assert!(lens.len() <= 20, "{lens:?}");
        }
        println!("each entry was merged {} times", work / 500_000);
        assert!(work < 500_000 * 8);
    }
}
