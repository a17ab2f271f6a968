//! What a running engine is asked for.

use std::thread::sleep;
use std::time::Duration;

use model::{Barcode, ByteSize, GenerationId, LibraryName};
use serde_json::{Value, json};
use service::admin::AdminClient;
use svs::{Catalogue, Replication, ReplicationState};

use crate::catalogue::{open, site};
use crate::cli::{Failed, StoreCommand, Which};
use crate::output::Output;

/// How long an engine may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long it may take to read a whole store.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often a replication is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Asks a running engine.
pub(crate) fn ask(which: &Which, method: &str, params: Value) -> Result<Value, Failed> {
    ask_within(ANSWER, which, method, params)
}

/// Asks a running engine for what takes longer.
pub(crate) fn ask_within(
    patience: Duration,
    which: &Which,
    method: &str,
    params: Value,
) -> Result<Value, Failed> {
    let socket = site(which)?.admin_socket();
    let mut client = AdminClient::connect(&socket, patience).map_err(Failed::new)?;
    client.call(method, params).map_err(Failed::new)
}

pub(crate) fn status(which: &Which, output: &Output) -> Result<(), Failed> {
    let status = ask(which, "status", json!({}))?;
    output.show(&status, status_text)
}

/// Looks after the store of a running engine.
pub(crate) fn store(command: &StoreCommand, output: &Output) -> Result<(), Failed> {
    let nothing = json!({});
    let (which, method, params) = match command {
        StoreCommand::Stat { which } => (which, "store_stat", nothing),
        StoreCommand::Check { which } => (which, "store_check", nothing),
        StoreCommand::Collect { which } => (which, "store_collect", nothing),
        StoreCommand::Rewrite { which } => (which, "store_rewrite", nothing),
        StoreCommand::Compare { which, site, cartridge, read } => {
            let cartridge = cartridge.as_ref().map(|(library, code)| format!("{library}:{code}"));
            let params = json!({ "site": site, "cartridge": cartridge, "read": read });
            (which, "store_compare", params)
        }
        StoreCommand::Lock { which, cartridge: (library, barcode), until } => {
            let params = json!({ "library": library, "barcode": barcode, "until_ms": until });
            (which, "store_lock", params)
        }
        StoreCommand::Key(command) => return crate::store_key::run(command, output),
        StoreCommand::Seed(command) => return crate::seed::run(command, output),
    };
    long(which, method, params, output)
}

/// Asks a running engine for something that may take days, and shows what came of it. What is
/// damaged at the end is a failure.
pub(crate) fn long(
    which: &Which,
    method: &str,
    params: Value,
    output: &Output,
) -> Result<(), Failed> {
    let socket = site(which)?.admin_socket();
    let mut client = AdminClient::connect(&socket, LONG).map_err(Failed::new)?;
    let value: Value = client.call(method, params).map_err(Failed::new)?;
    output.show(&value, status_text)?;
    let found = |key: &str| value[key].as_array().map_or(0, Vec::len);
    let healed = value["healed_chunks"].as_u64().unwrap_or(0) > 0;
    if found("differing") > 0 {
        return Err(Failed::new("the sites differ; see docs/operations.md"));
    }
    match found("incomplete_generations") {
        0 if healed || found("damage") == 0 => Ok(()),
        _ => Err(Failed::new("something is damaged; see docs/operations.md")),
    }
}

/// The status in words: a line for each value, indented as deep as it lies; what lies in a list
/// begins with a dash.
fn status_text(status: &Value) -> String {
    let mut text = String::new();
    for key in ["program", "version", "site"] {
        if let Some(word) = status[key].as_str() {
            text.push_str(if key == "site" { "at site " } else { "" });
            text.push_str(word);
            text.push(' ');
        }
    }
    let mut lines = vec![text.trim_end().to_owned()];
    if let Some(fields) = status.as_object() {
        let said = |key: &&String| !["program", "version", "site"].contains(&key.as_str());
        for key in fields.keys().filter(said) {
            write_value(&mut lines, key, &status[key], 0);
        }
    }
    lines.join("\n")
}

fn write_value(lines: &mut Vec<String>, key: &str, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    let title = key.replace('_', " ");
    match value {
        Value::Object(fields) => {
            lines.push(format!("{pad}{title}"));
            for (key, value) in fields {
                write_value(lines, key, value, depth + 1);
            }
        }
        Value::Array(items) if items.is_empty() => lines.push(format!("{pad}{title}: none")),
        Value::Array(items) => {
            lines.push(format!("{pad}{title}"));
            items.iter().for_each(|item| write_item(lines, item, depth + 1));
        }
        value => lines.push(format!("{pad}{title}: {}", word(key, value))),
    }
}

/// One of a list: its words on one line, lists within it below.
fn write_item(lines: &mut Vec<String>, item: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    let Some(fields) = item.as_object() else {
        lines.push(format!("{pad}- {}", word("", item)));
        return;
    };
    let deep = |value: &Value| {
        value.is_object() || value.as_array().is_some_and(|all| all.iter().any(Value::is_object))
    };
    let words = fields.iter().filter(|(_, value)| !deep(value));
    let words = words.map(|(key, value)| format!("{} {}", key.replace('_', " "), word(key, value)));
    lines.push(format!("{pad}- {}", words.collect::<Vec<_>>().join(", ")));
    for (key, value) in fields.iter().filter(|(_, value)| deep(value)) {
        write_value(lines, key, value, depth + 1);
    }
}

fn word(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64().filter(|_| key.ends_with("bytes")) {
            Some(bytes) => ByteSize(bytes).to_string(),
            None => number.to_string(),
        },
        Value::Array(items) => {
            items.iter().map(|item| word(key, item)).collect::<Vec<_>>().join(" ")
        }
        Value::Object(_) => value.to_string(),
    }
}

/// Wants the newest generation of a cartridge at every site, and waits for it if asked to.
pub(crate) fn replicate(
    which: &Which,
    library: &LibraryName,
    barcode: &Barcode,
    wait: bool,
    output: &Output,
) -> Result<(), Failed> {
    let params = json!({ "library": library, "barcode": barcode });
    let mut answer = ask(which, "replicate", params)?;
    let sites = answer["sites"].as_array().map_or(0, Vec::len);
    if sites == 0 {
        return Err(Failed::new("no [[link]] is configured: there is no site to replicate to"));
    }
    if wait {
        let generation = answer["generation"].as_str().and_then(|id| id.parse().ok());
        let generation = generation.ok_or_else(|| Failed::new("the engine named no generation"))?;
        let (_, catalogue) = open(which)?;
        let mut told = false;
        let rows = loop {
            if let Some(rows) = replicated(&catalogue, generation, sites)? {
                break rows;
            }
            // An engine that has ended replicates nothing any more.
            let down = links_down(&ask(which, "status", json!({}))?);
            if !told && !down.is_empty() {
                eprintln!("waiting for the link to {}", down.join(", "));
                told = true;
            }
            sleep(EVERY);
        };
        answer["replications"] = serde_json::to_value(rows).map_err(Failed::new)?;
    }
    output.show(&answer, |answer| replicate_text(library, barcode, answer))
}

/// Where the links that are down would lead to.
fn links_down(status: &Value) -> Vec<String> {
    let links = status["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    let down = links.iter().filter(|link| link["up"] == false);
    down.map(|link| word("connect", &link["connect"])).collect()
}

/// The rows of a generation once it is at so many sites; an error if it failed for one.
fn replicated(
    catalogue: &Catalogue,
    generation: GenerationId,
    sites: usize,
) -> Result<Option<Vec<Replication>>, Failed> {
    let mut rows = catalogue.replications(&[]).map_err(Failed::new)?;
    rows.retain(|row| row.generation == generation);
    if let Some(row) = rows.iter().find(|row| row.state == ReplicationState::Failed) {
        let cause = row.message.as_deref().unwrap_or("no cause was told");
        return Err(Failed::new(format!("the replication to {} failed: {cause}", row.site)));
    }
    let done = rows.iter().filter(|row| row.state == ReplicationState::Done).count();
    Ok((done >= sites).then_some(rows))
}

fn replicate_text(library: &LibraryName, barcode: &Barcode, answer: &Value) -> String {
    let Some(rows) = answer["replications"].as_array() else {
        return format!("{library}:{barcode} is on its way; see `twinreel jobs`");
    };
    let size = |value: &Value| ByteSize(value.as_u64().unwrap_or(0));
    let line = |row: &Value| {
        let site = row["site"].as_str().unwrap_or("-");
        let (all, wire) = (size(&row["bytes_logical"]), size(&row["bytes_wire"]));
        format!("{library}:{barcode} is at {site}: {all}, {wire} of them on the wire")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_text_for_people() {
        let status = json!({
            "program": "local-engine", "version": "0.1.0", "site": "hq",
            "links": [{ "site": "dr", "up": true, "replications_pending": 0 }, { "site": null }],
            "leases": [],
            "libraries": [{ "name": "ptl0", "drives": [{ "device": "drive0", "barcode": null }] }],
            "store": { "chunks": 12, "raw_bytes": 1 << 20 },
        });
        let text = status_text(&status);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "local-engine 0.1.0 at site hq");
        for line in [
            "  - replications pending 0, site dr, up yes",
            "  - site -",
            "leases: none",
            "  - name ptl0",
            "    drives",
            "      - barcode -, device drive0",
            "  chunks: 12",
            "  raw bytes: 1.0 MiB",
        ] {
            assert!(lines.contains(&line), "{line:?} in {text}");
        }
    }

    #[test]
    fn links_that_are_down_are_named() {
        let links = json!([{ "connect": "h:1", "up": false }, { "connect": "h:2", "up": true }]);
        assert_eq!(links_down(&json!({ "links": links })), ["h:1"]);
        assert!(links_down(&json!({})).is_empty());
    }

    #[test]
    fn a_replication_is_told_with_its_bytes() {
        let library = LibraryName::new("vtl0").unwrap();
        let barcode = Barcode::new("VTA001L8").unwrap();
        let answer = json!({ "generation": "x", "sites": ["dr"] });
        assert!(replicate_text(&library, &barcode, &answer).contains("on its way"));
        let row = json!({ "site": "dr", "bytes_logical": 2048, "bytes_wire": 1024 });
        let answer = json!({ "replications": [row] });
        let text = replicate_text(&library, &barcode, &answer);
        assert_eq!(text, "vtl0:VTA001L8 is at dr: 2.0 KiB, 1.0 KiB of them on the wire");
    }
}
