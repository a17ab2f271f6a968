//! How long things may grow, and what may not be written at all.
//!
//! The files are formatted (`cargo fmt --check` is another step of `tests/run`), so a function
//! ends at the first `}` in the column where it began, and a look at lines is enough.

use std::path::{Path, PathBuf};

use crate::{files, none, read};

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 600;
const TEST_FILE_LINES: usize = 900;
const COLUMNS: usize = 100;

/// The files that may hold `unsafe`, each with a reason.
const UNSAFE: [(&str, &str); 2] = [
    ("common/tape/src/driver/sg/ioctl.rs", "SG_IO takes pointers to the memory of a command"),
    ("common/lanes/src/x86.rs", "the SHA instructions are there on some processors only"),
];

/// A Rust file and which of its lines are tests.
struct Source {
    path: PathBuf,
    lines: Vec<String>,
    /// The first line that belongs to tests; all lines of a test file do.
    tests_from: usize,
}

impl Source {
    fn is_test_file(&self) -> bool {
        self.tests_from == 0
    }

    /// Line numbers (from 1) and lines outside tests, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().take(self.tests_from).enumerate();
        lines.map(|(i, l)| (i + 1, l.as_str())).filter(|(_, l)| !l.trim_start().starts_with("//"))
    }

    /// Line numbers and lines of tests.
    fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().enumerate().skip(self.tests_from);
        lines.map(|(i, l)| (i + 1, l.as_str())).filter(|(_, l)| !l.trim_start().starts_with("//"))
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

fn sources() -> Vec<Source> {
    let rust = |p: &PathBuf| p.extension().is_some_and(|e| e == "rs");
    let paths: Vec<PathBuf> = files().into_iter().filter(rust).collect();
    let test_modules = test_modules(&paths);
    paths
        .into_iter()
        .map(|path| {
            let lines: Vec<String> = read(&path).lines().map(str::to_owned).collect();
            let whole = path.starts_with("tests")
                || path.components().any(|c| c.as_os_str() == "tests")
                || test_modules
                    .iter()
                    .any(|m| path == *m || path.starts_with(m.with_extension("")));
            let inline =
                lines.windows(2).position(|l| l[0] == "#[cfg(test)]" && l[1].ends_with('{'));
            let tests_from = if whole { 0 } else { inline.unwrap_or(lines.len()) };
            Source { path, lines, tests_from }
        })
        .collect()
}

/// The files named by `#[cfg(test)] mod NAME;`.
fn test_modules(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    for path in paths {
        let text = read(path);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|p| p[0].trim() == "#[cfg(test)]") {
            let name = pair[1].trim().trim_start_matches("pub(crate) ").strip_prefix("mod ");
            let Some(name) = name.and_then(|n| n.strip_suffix(';')) else { continue };
            for directory in homes(path) {
                modules.push(directory.join(format!("{name}.rs")));
                modules.push(directory.join(name).join("mod.rs"));
            }
        }
    }
    modules
}

/// Where the modules of a file lie.
fn homes(path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new("")).to_owned();
    if matches!(stem, "lib" | "main" | "mod") { vec![parent] } else { vec![parent.join(stem)] }
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().filter_map(|s| {
        let most = if s.is_test_file() { TEST_FILE_LINES } else { FILE_LINES };
        let lines = s.lines.len();
        (lines > most).then(|| s.at(lines, &format!("{lines} lines, at most {most}")))
    });
    none("split these files along an idea", &long.collect::<Vec<_>>());
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let mut open: Option<(usize, String)> = None;
        for (i, line) in source.lines.iter().enumerate() {
            if open.is_none() && starts_function(line) && !line.trim_end().ends_with([';', '}']) {
                let indent = &line[..line.len() - line.trim_start().len()];
                open = Some((i, format!("{indent}}}")));
            } else if let Some((start, end)) = &open
                && (line == end || (i == start + 1 && line.is_empty()))
            {
                let lines = i - start + 1;
                if lines > FUNCTION_LINES {
                    let name = source.lines[*start].trim();
                    long.push(source.at(start + 1, &format!("{lines} lines: {name}")));
                }
                open = None;
            }
        }
    }
    none("split these functions", &long);
}

fn starts_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let before = |w: &&str| {
        w.starts_with("pub") || matches!(*w, "in" | "async" | "const" | "unsafe" | "extern")
    };
    words.find(|w| !before(w)) == Some("fn")
}

#[test]
fn lines_fit_the_page() {
    let mut wide = Vec::new();
    for source in sources() {
        for (i, line) in source.lines.iter().enumerate() {
            let columns = line.chars().count();
            // A URL or a byte vector can not be broken.
            if columns > COLUMNS && line.split_whitespace().all(|w| w.chars().count() < 90) {
                wide.push(source.at(i + 1, &format!("{columns} columns")));
            }
        }
    }
    none("these lines are too long", &wide);
}

#[test]
fn nothing_panics_outside_tests() {
    let words = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!("];
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            let code = without_text(line);
            if words.iter().any(|w| code.contains(w)) {
                found.push(source.at(number, line.trim()));
            }
            let allows = code.contains("allow(clippy::") && !code.contains("cfg_attr(test");
            if allows && ["unwrap_used", "expect_used", "panic"].iter().any(|l| code.contains(l)) {
                found.push(source.at(number, "the lint is switched off outside tests"));
            }
        }
    }
    none("errors are values: return them", &found);
}

#[test]
fn unsafe_lives_where_it_is_listed() {
    let mut found = Vec::new();
    for source in sources() {
        let listed = UNSAFE.iter().any(|(path, _)| source.path == Path::new(path));
        let all = source.code().chain(source.tests());
        for (number, line) in all.filter(|_| !listed) {
            let code = without_text(line);
            let word = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if word.into_iter().any(|w| w == "unsafe") {
                found.push(source.at(number, line.trim()));
            }
        }
    }
    none("unsafe outside the listed files", &found);
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut found = Vec::new();
    for source in sources() {
        for (i, line) in source.lines.iter().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric());
            if words.into_iter().any(|w| marks.contains(&w)) {
                found.push(source.at(i + 1, line.trim()));
            }
        }
        for (number, line) in source.tests() {
            let code = without_text(line);
            if code.contains("#[ignore") {
                found.push(source.at(number, "an ignored test"));
            }
            if code.contains("sleep(") {
                found.push(source.at(number, "a test that sleeps: wait for an event"));
            }
        }
    }
    none("finish these", &found);
}

#[test]
fn every_crate_has_a_first_page() {
    let first = |s: &Source| s.path.ends_with("src/lib.rs");
    let bare = |s: &Source| !s.lines.iter().take(2).all(|l| l.starts_with("//!"));
    let found: Vec<_> =
        sources().iter().filter(|s| first(s) && bare(s)).map(|s| s.at(1, "no //! page")).collect();
    none("say what the crate is, its types, its invariants, what it does not do", &found);
}

/// The line with the insides of its string literals taken out, and without a trailing comment.
fn without_text(line: &str) -> String {
    let mut code = String::new();
    let mut chars = line.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => drop(chars.next()),
            '"' => inside = !inside,
            '/' if !inside && chars.peek() == Some(&'/') => break,
            _ if !inside => code.push(c),
            _ => {}
        }
    }
    code
}
