//! The book is whole: every page can be reached, every link leads somewhere, every decision is
//! written the same way.

use std::path::{Component, Path, PathBuf};

use crate::{files, none, read, root};

fn pages() -> Vec<PathBuf> {
    files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "md")).collect()
}

/// The targets of `[text](target)` outside code blocks, web addresses left out, anchors cut off.
fn links(page: &Path) -> Vec<String> {
    let text = read(page);
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// `target` as seen from the page, relative to the root, `..` taken out.
fn resolve(page: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in page.parent().unwrap_or(Path::new("")).join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

#[test]
fn every_page_is_in_the_index() {
    let index = Path::new("docs/README.md");
    let linked: Vec<PathBuf> = links(index).iter().map(|t| resolve(index, t)).collect();
    let missing: Vec<String> = pages()
        .into_iter()
        .filter(|p| p.starts_with("docs") && p != index && !linked.contains(p))
        .map(|p| p.display().to_string())
        .collect();
    none("link these pages from docs/README.md", &missing);
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for target in links(&page) {
            if !root().join(resolve(&page, &target)).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    none("these links lead nowhere", &broken);
}

#[test]
fn every_decision_has_its_parts_and_its_number() {
    let mut wrong = Vec::new();
    let decisions: Vec<PathBuf> =
        pages().into_iter().filter(|p| p.starts_with("docs/adr")).collect();
    assert!(decisions.len() >= 6, "where are the decisions? {decisions:?}");
    let mut numbers = std::collections::BTreeSet::new();
    for page in &decisions {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.split_once('-').map_or("", |(number, _)| number);
        if number.len() != 4 || number.parse::<u16>().is_err() || !numbers.insert(number.to_owned())
        {
            wrong.push(format!("{name}: a decision begins with a number of its own, 0001 and up"));
        }
        let text = read(page);
        let number = name.get(..4).unwrap_or_default();
        if !text.starts_with(&format!("# {number} ")) {
            wrong.push(format!("{name}: the title begins with its number"));
        }
        for part in ["Status: ", "Date: ", "## Context", "## Decision", "## Consequences"] {
            if !text.lines().any(|l| l.starts_with(part)) {
                wrong.push(format!("{name}: no {part:?}"));
            }
        }
    }
    none("decisions", &wrong);
}

#[test]
fn the_readme_names_its_two_commands() {
    let text = read(Path::new("README.md"));
    for command in ["cargo run --release --bin twinreel -- demo", "tests/run"] {
        assert!(text.contains(command), "README.md does not name `{command}`");
    }
}

#[test]
fn every_key_of_the_examples_is_explained() {
    let book = read(Path::new("docs/configuration.md"));
    let mut missing = Vec::new();
    for example in files().iter().filter(|p| p.starts_with("schemas/examples")) {
        for line in read(example).lines() {
            let line = line.trim_start_matches("# ");
            let table = line.starts_with('[').then(|| line.trim_end());
            let key = line.split_once(" = ").map(|(key, _)| key).filter(|k| !k.contains(' '));
            for name in table.into_iter().chain(key) {
                if !book.contains(&format!("`{name}`")) {
                    missing.push(format!("{}: {name}", example.display()));
                }
            }
        }
    }
    none("explain these keys in docs/configuration.md", &missing);
}

/// Every message has its row, in the versions that the codec knows it in, and the test that is
/// named there is one.
#[test]
fn every_message_of_ndmp_is_told() {
    use ndmp::wire::{MessageCode, Version};

    let page = read(Path::new("docs/protocols/ndmp-messages.md"));
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `NDMP_"))
        .map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
        })
        .collect();
    let sources: Vec<String> = files()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| read(path))
        .collect();
    let mut wrong = Vec::new();
    for code in MessageCode::ALL {
        let name = code.to_string();
        let found: Vec<_> = rows.iter().filter(|row| row[0] == name).collect();
        let [row] = found[..] else {
            wrong.push(format!("{name} is there {} times", found.len()));
            continue;
        };
        let versions = Version::ALL.into_iter().filter(|version| code.exists_in(*version));
        let versions: Vec<String> = versions.map(|version| version.to_wire().to_string()).collect();
        if row[1] != versions.join(" ") {
            wrong.push(format!("{name} is known in versions {versions:?}"));
        }
        let test = format!("fn {}()", row[3]);
        if row[3] != "-" && !sources.iter().any(|source| source.contains(&test)) {
            wrong.push(format!("{name}: there is no test {}", row[3]));
        }
        if row[3] == "-" && row[2] != "never posted" {
            wrong.push(format!("{name}: without a test"));
        }
    }
    none("rows of docs/protocols/ndmp-messages.md", &wrong);
}
