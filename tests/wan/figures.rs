//! The tables and the pictures of what was measured.

use tests::{Axis, Input, Picture, Series, draw, thousands};

use crate::ours::Moved;
use crate::peers::{Kind, Peer};

/// One generation of one input.
struct Row {
    input: Input,
    number: usize,
    ours: u64,
    /// One for each peer.
    others: Vec<Option<u64>>,
}

/// All that was measured so far.
pub(crate) struct Figures {
    peers: Vec<Peer>,
    rows: Vec<Row>,
}

impl Figures {
    /// None yet.
    pub(crate) fn new(peers: &[Peer]) -> Self {
        Self { peers: peers.to_vec(), rows: Vec::new() }
    }

    /// The head of the table.
    pub(crate) fn head(&self) -> String {
        let names: Vec<_> = self.peers.iter().map(|peer| format!(" {} |", peer.name())).collect();
        let rules = "--:|".repeat(self.peers.len() + 2);
        format!("| input, generation | Twinreel |{} stored here |\n|---|{rules}", names.concat())
    }

    /// Notes one, and gives its line.
    pub(crate) fn add(&mut self, input: Input, moved: &Moved, others: Vec<Option<u64>>) -> String {
        let number = self.rows.iter().filter(|row| row.input == input).count();
        let cells: Vec<_> = others
            .iter()
            .map(|bytes| format!(" {} |", bytes.map_or_else(|| "-".into(), thousands)))
            .collect();
        let (ours, stored) = (thousands(moved.bytes), thousands(moved.stored));
        self.rows.push(Row { input, number, ours: moved.bytes, others });
        format!("| {input}, {number} | {ours} |{} {stored} |", cells.concat())
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs: Vec<_> = self.rows.iter().map(|row| row.input).collect();
        inputs.dedup();
        inputs
    }

    fn of(&self, input: Input) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.input == input)
    }

    /// The least that one of these kinds needed, by what we did.
    fn best(&self, row: &Row, kinds: &[Kind]) -> Option<f64> {
        let them = self.peers.iter().zip(&row.others);
        let those = them.filter(|(peer, _)| kinds.contains(&peer.kind()));
        let least = those.filter_map(|(_, bytes)| *bytes).min()?;
        Some(least as f64 / row.ours.max(1) as f64)
    }

    /// How many times as much the best of each kind sends as we do.
    pub(crate) fn ratios(&self) -> String {
        let mut text = "How many times our bytes the best of the others sends (least to most of \
                        the generations)\n\n| input | first generation | later, as they come | \
                        later, at any setting | later, delta tools |\n|---|--:|--:|--:|--:|"
            .to_owned();
        for input in self.inputs() {
            let stores = &[Kind::Default, Kind::Tuned][..];
            let of = |first: bool, kinds: &[Kind]| {
                let rows = self.of(input).filter(|row| (row.number == 0) == first);
                spread(rows.filter_map(|row| self.best(row, kinds)).collect())
            };
            let all = [
                of(true, stores),
                of(false, &[Kind::Default]),
                of(false, stores),
                of(false, &[Kind::Delta]),
            ];
            text.push_str(&format!("\n| {input} | {} |", all.join(" | ")));
        }
        text
    }

    /// A picture of all inputs, and one of each that has generations enough for a curve.
    pub(crate) fn draw(&self) {
        let inputs = self.inputs();
        let names = inputs.iter().map(ToString::to_string).collect();
        let first_later = |row: &Row| row.number == 1;
        let at = |row: &Row| inputs.iter().position(|it| *it == row.input).unwrap_or(0) as f64;
        draw(
            "wan",
            &Picture {
                title: "The first later generation, bytes between the sites".into(),
                x: Axis::Names(names),
                y: Axis::Log("bytes".into()),
                series: self.series(&|row| first_later(row).then(|| at(row))),
            },
        );
        for input in inputs {
            if self.of(input).count() < 4 {
                continue;
            }
            let picture = Picture {
                title: format!("Bytes between the sites, {input}"),
                x: Axis::Linear("generation".into()),
                y: Axis::Log("bytes".into()),
                series: self.series(&|row| (row.input == input).then_some(row.number as f64)),
            };
            draw(&format!("wan-{input}"), &picture);
        }
    }

    /// Ours and everybody's over the place that `x` gives to a row.
    fn series(&self, x: &dyn Fn(&Row) -> Option<f64>) -> Vec<Series> {
        let series = |name: &str, bytes: &dyn Fn(&Row) -> Option<u64>| Series {
            name: name.into(),
            points: self
                .rows
                .iter()
                .filter_map(|row| Some((x(row)?, bytes(row)? as f64)))
                .collect(),
        };
        let mut all = vec![series("Twinreel", &|row| Some(row.ours))];
        for (column, peer) in self.peers.iter().enumerate() {
            all.push(series(peer.name(), &|row| row.others[column]));
        }
        all
    }
}

fn spread(mut all: Vec<f64>) -> String {
    all.sort_by(f64::total_cmp);
    let short =
        |ratio: f64| if ratio < 10.0 { format!("{ratio:.3}") } else { format!("{ratio:.0}") };
    match all.as_slice() {
        [] => "-".into(),
        [one] => short(*one),
        [least, .., most] => format!("{} to {}", short(*least), short(*most)),
    }
}
