//! Figures for people: numbers, and pictures of curves. A picture is a plain SVG with axes, ticks,
//! a legend, and colours for light and dark.

use std::fmt::Write as _;
use std::path::Path;

/// One axis.
#[derive(Clone, Debug)]
pub enum Axis {
    /// From 0 on, in even steps.
    Linear(String),
    /// In powers of ten.
    Log(String),
    /// A place for each name, numbered from 0.
    Names(Vec<String>),
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the legend says.
    pub name: String,
    /// `x`, `y`, in order of `x`.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one pair of axes.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What is above it.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Up to eight, each in a colour of its own.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
/// Of the field that the curves are in.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 720.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 380.0;

/// Colours that people who see few of them tell apart, for light and for dark.
const COLOURS: [(&str, &str); 8] = [
    ("#c2410c", "#fb923c"),
    ("#0369a1", "#38bdf8"),
    ("#15803d", "#4ade80"),
    ("#a21caf", "#e879f9"),
    ("#a16207", "#facc15"),
    ("#0f766e", "#5eead4"),
    ("#4b5563", "#9ca3af"),
    ("#1e3a8a", "#a5b4fc"),
];

/// Values shown along an axis, and where the least and the most of it lie.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Scale {
    fn of(axis: &Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        match axis {
            Axis::Linear(_) => Self::linear(values.fold(0.0, f64::max)),
            Axis::Log(_) => {
                // What is nothing has no place on such an axis.
                let some = values.filter(|value| *value > 0.0);
                let least = some.clone().fold(f64::INFINITY, f64::min).min(1e15);
                Self::log(least, some.fold(least, f64::max))
            }
            Axis::Names(names) => {
                let ticks = names.iter().enumerate().map(|(i, name)| (i as f64, name.clone()));
                let high = names.len() as f64 - 0.5;
                Self { low: -0.5, high, log: false, ticks: ticks.collect() }
            }
        }
    }

    fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10f64.powf((most / 4.0).log10().floor());
        let fits = |step: &f64| most / step <= 6.0;
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps.into_iter().find(fits).unwrap_or(10.0 * power);
        let count = (most / step).ceil() as u32;
        let ticks = (0..=count).map(|n| (f64::from(n) * step, number(f64::from(n) * step)));
        Self { low: 0.0, high: f64::from(count) * step, log: false, ticks: ticks.collect() }
    }

    fn log(least: f64, most: f64) -> Self {
        let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let high = high.max(low + 1);
        let ticks = (low..=high).map(|n| (10f64.powi(n), number(10f64.powi(n))));
        Self { low: f64::from(low), high: f64::from(high), log: true, ticks: ticks.collect() }
    }

    /// From 0 at the least to 1 at the most; none for what has no place.
    fn place(&self, value: f64) -> Option<f64> {
        let value = match self.log {
            true if value <= 0.0 => return None,
            true => value.log10(),
            false => value,
        };
        Some((value - self.low) / (self.high - self.low))
    }
}

/// A number of few letters: 20k, 5M, 0.5.
fn number(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(size, _)| value >= *size * 0.999_999) {
        Some((size, unit)) => format!("{}{unit}", (value / size * 100.0).round() / 100.0),
        None => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

impl Picture {
    /// The file.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::of(&self.x, points().map(|point| point.0));
        let y = Scale::of(&self.y, points().map(|point| point.1));
        let mut out = self.head();
        self.axes(&mut out, &x, &y);
        for (number, series) in self.series.iter().enumerate() {
            let class = number % COLOURS.len();
            let placed: Vec<_> = series
                .points
                .iter()
                .filter_map(|(px, py)| {
                    let (px, py) = (x.place(*px)?, y.place(*py)?);
                    Some((LEFT + px * (RIGHT - LEFT), BOTTOM - py * (BOTTOM - TOP)))
                })
                .collect();
            if !matches!(self.x, Axis::Names(_)) {
                let line: Vec<_> = placed.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                put(
                    &mut out,
                    &format!("<polyline class=\"c{class}\" points=\"{}\"/>", line.join(" ")),
                );
            }
            // Of many points the line says enough.
            for (x, y) in placed.iter().filter(|_| placed.len() <= 40) {
                put(&mut out, &mark(class, *x, *y));
            }
            let at = TOP + 10.0 + 24.0 * number as f64;
            put(&mut out, &mark(class, RIGHT + 22.0, at));
            put(&mut out, &text(RIGHT + 36.0, at + 4.0, "start", &series.name));
        }
        out.push_str("</svg>\n");
        out
    }

    fn head(&self) -> String {
        let mut style = "text{font:13px sans-serif;fill:#1f2937}.g{stroke:#d1d5db}\
                         .b{fill:#ffffff}polyline{fill:none;stroke-width:2}"
            .to_owned();
        let mut dark = "text{fill:#e5e7eb}.g{stroke:#374151}.b{fill:#0d1117}".to_owned();
        for (number, (light, in_dark)) in COLOURS.iter().enumerate() {
            for (sheet, colour) in [(&mut style, light), (&mut dark, in_dark)] {
                let rule = "polyline.cN{stroke:COLOUR}.m.cN{fill:COLOUR}";
                sheet
                    .push_str(&rule.replace("cN", &format!("c{number}")).replace("COLOUR", colour));
            }
        }
        let (title, middle) = (escaped(&self.title), (LEFT + RIGHT) / 2.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{title}\">\n<style>{style}\n\
             @media (prefers-color-scheme: dark){{{dark}}}</style>\n\
             <rect class=\"b\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n{}\n",
            text(middle, 24.0, "middle", &self.title)
        )
    }

    fn axes(&self, out: &mut String, x: &Scale, y: &Scale) {
        let line = |x1: f64, y1: f64, x2: f64, y2: f64| {
            format!("<path class=\"g\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>")
        };
        for (value, label) in &y.ticks {
            let at = BOTTOM - y.place(*value).unwrap_or(0.0) * (BOTTOM - TOP);
            put(out, &line(LEFT, at, RIGHT, at));
            put(out, &text(LEFT - 8.0, at + 4.0, "end", label));
        }
        for (value, label) in &x.ticks {
            let at = LEFT + x.place(*value).unwrap_or(0.0) * (RIGHT - LEFT);
            put(out, &line(at, BOTTOM, at, BOTTOM + 5.0));
            put(out, &text(at, BOTTOM + 20.0, "middle", label));
        }
        put(out, &line(LEFT, TOP, LEFT, BOTTOM));
        if let Axis::Linear(name) | Axis::Log(name) = &self.x {
            put(out, &text((LEFT + RIGHT) / 2.0, BOTTOM + 44.0, "middle", name));
        }
        if let Axis::Linear(name) | Axis::Log(name) = &self.y {
            let middle = (TOP + BOTTOM) / 2.0;
            let turned = text(18.0, middle, "middle", name);
            put(out, &format!("<g transform=\"rotate(-90 18 {middle})\">{turned}</g>"));
        }
    }
}

fn put(out: &mut String, element: &str) {
    writeln!(out, "{element}").expect("a string takes it");
}

fn mark(class: usize, x: f64, y: f64) -> String {
    // Two shapes, so that the colour is not all there is.
    match class % 2 {
        0 => format!("<circle class=\"m c{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        _ => format!(
            "<rect class=\"m c{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"/>",
            x - 3.5,
            y - 3.5
        ),
    }
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>")
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A number that people can read: 1 234 567.
pub fn thousands(number: u64) -> String {
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

/// Writes a picture as `NAME.svg` to the other pictures of the book, and says where it is.
pub fn draw(name: &str, picture: &Picture) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    std::fs::create_dir_all(&directory).expect("a directory for pictures");
    let path = directory.join(name).with_extension("svg");
    std::fs::write(&path, picture.svg()).expect("the picture is written");
    eprintln!("  {}", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(y: Axis, points: Vec<(f64, f64)>) -> String {
        let series = vec![Series { name: "a < b".into(), points }];
        let x = Axis::Linear("time".into());
        Picture { title: "T & t".into(), x, y, series }.svg()
    }

    #[test]
    fn points_stand_where_the_axes_say() {
        let svg = picture(Axis::Linear("y".into()), vec![(0.0, 0.0), (10.0, 50.0)]);
        assert!(svg.contains("points=\"84.0,380.0 720.0,44.0\""), "{svg}");
        let svg = picture(Axis::Log("y".into()), vec![(0.0, 1000.0), (10.0, 100_000.0)]);
        assert!(svg.contains("points=\"84.0,380.0 720.0,44.0\""), "{svg}");
        assert!(svg.contains(">10k</text>"), "{svg}");
    }

    #[test]
    fn nothing_on_a_log_axis_is_left_out_and_words_are_escaped() {
        let svg = picture(Axis::Log("y".into()), vec![(0.0, 0.0), (10.0, 50.0)]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("T &amp; t"));
        assert!(!picture(Axis::Log("y".into()), Vec::new()).contains("NaN"));
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.5, 20.0, 1000.0, 2500.0, 1e6, 3e9].map(number);
        assert_eq!(all, ["0", "0.5", "20", "1k", "2.5k", "1M", "3G"]);
    }
}
