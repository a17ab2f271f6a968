//! The numbered messages for operators: `schemas/messages.toml`.
//!
//! The letter at the end of a number is its severity. [`note`] says a message: to the log and as
//! an event of the catalogue.

use std::fmt::Display;
use std::sync::OnceLock;

use serde::Deserialize;
use svs::{Catalogue, EventKind, NewEvent, Severity};

/// One message of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `TWR-1001-I`: number and severity.
    pub id: String,
    /// The text, with `{words}` to be filled in.
    pub text: String,
    /// Why it happens.
    pub cause: String,
    /// What the operator does.
    pub action: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    message: Vec<Message>,
}

const FILE: &str = include_str!("../../../schemas/messages.toml");

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        $($(#[$doc])* pub const $name: &str = $id;)*
        #[cfg(test)]
        const NAMED: &[&str] = &[$($id),*];
    };
}

messages! {
    /// program, version, site, state_dir
    ENGINE_STARTED = "TWR-1001-I",
    /// program, site
    ENGINE_STOPPED = "TWR-1002-I",
    /// resumed, failed
    ENGINE_RECOVERED = "TWR-1003-W",
    /// program, cause
    ENGINE_FAILED = "TWR-1004-E",
    /// site
    LINK_UP = "TWR-2001-I",
    /// site, cause
    LINK_DOWN = "TWR-2002-W",
    /// peer, cause
    LINK_REFUSED = "TWR-2003-E",
    /// site
    PEER_RESTARTED = "TWR-2004-W",
    /// library, site, cause
    GHOST_REFUSED = "TWR-2005-E",
    /// cartridge, site, bytes
    REPLICATION_BEGINS = "TWR-3001-I",
    /// cartridge, site, logical, unique, wire
    REPLICATION_DONE = "TWR-3002-I",
    /// cartridge, site, cause
    REPLICATION_INTERRUPTED = "TWR-3003-W",
    /// cartridge, site, cause
    REPLICATION_FAILED = "TWR-3004-E",
    /// source, target, path, reason
    COPY_BEGINS = "TWR-4001-I",
    /// source, target, bytes
    COPY_DONE = "TWR-4002-I",
    /// source, target, cause
    COPY_FAILED = "TWR-4003-E",
    /// target, bytes
    COPY_AT_END_OF_MEDIUM = "TWR-4004-I",
    /// source, target, bytes, object
    COPY_LOST_SESSION = "TWR-4005-W",
    /// source, percent, bytes
    COPY_WAITS = "TWR-4006-I",
    /// target, cause
    COPY_NOT_PROVEN = "TWR-4010-E",
    /// target, count, milliseconds
    COPY_STARVED = "TWR-4011-W",
    /// source, target, who
    COPY_CANCELLED = "TWR-4007-I",
    /// library, drives, slots, cartridges
    LIBRARY_READY = "TWR-5001-I",
    /// library, cause
    LIBRARY_UNUSABLE = "TWR-5002-E",
    /// library, barcode, from, to
    CARTRIDGE_MOVED = "TWR-5003-I",
    /// device, operation, cause
    POSITION_UNKNOWN = "TWR-5004-E",
    /// device, site, cause
    LEASE_ENDED = "TWR-5005-W",
    /// device, sense
    DEVICE_SENSE = "TWR-5006-W",
    /// device, cause
    TAPE_KEY = "TWR-5007-E",
    /// count
    GENERATIONS_ADOPTED = "TWR-6001-W",
    /// cartridge, generation
    GENERATION_MISSING = "TWR-6002-E",
    /// cartridge, cause
    CHUNK_DAMAGED = "TWR-6003-E",
    /// cause
    STORE_FAILING = "TWR-6004-E",
    /// containers, freed, moved
    STORE_COLLECTED = "TWR-6005-I",
    /// damaged, incomplete
    STORE_DAMAGED = "TWR-6006-E",
    /// chunks, bytes
    STORE_CHECKED = "TWR-6007-I",
    /// count, keep
    GENERATIONS_RETIRED = "TWR-6008-I",
    /// cause
    UPKEEP_FAILED = "TWR-6009-E",
    /// count, sites
    STORE_HEALED = "TWR-6010-W",
    /// cartridge, generation
    GENERATION_INCOMPLETE = "TWR-6011-E",
    /// moved, count
    STORE_REWRITTEN = "TWR-6012-I",
    /// percent
    STORE_SCATTERED = "TWR-6013-W",
    /// count, site, dir, bytes
    SEED_WRITTEN = "TWR-6014-I",
    /// count, dir, bytes
    SEED_READ = "TWR-6015-I",
    /// count, dir, bytes, incomplete
    SEED_INCOMPLETE = "TWR-6016-E",
    /// cartridge, site
    SEED_WRONG = "TWR-6017-E",
    /// count, site, chunks
    SITES_SAME = "TWR-6018-I",
    /// cartridge, generation, site, cause
    SITES_DIFFER = "TWR-6019-E",
    /// device, flag, meaning
    DRIVE_ALERT = "TWR-6020-W",
    /// device, cause
    DRIVE_DOWN = "TWR-6021-E",
    /// barcode, cause
    CARTRIDGE_FROZEN = "TWR-6022-E",
    /// library, barcode
    CARTRIDGE_EXPORTED = "TWR-6025-I",
    /// library, barcode
    CARTRIDGE_IMPORTED = "TWR-6026-I",
    /// device, barcode
    DRIVE_CLEANED = "TWR-6023-I",
    /// device, cause
    DRIVE_NOT_CLEANED = "TWR-6024-W",
    /// user, address, cause
    LOGIN_REFUSED = "TWR-7001-W",
    /// address, cause
    SESSION_ENDED = "TWR-7002-W",
    /// address, max
    TOO_MANY_SESSIONS = "TWR-7003-W",
    /// names, address
    PEER_UNKNOWN = "TWR-7004-W",
    /// user, address
    LOGGED_IN = "TWR-7005-I",
    /// address
    HOST_LOCKED_OUT = "TWR-7006-W",
    /// address
    HOST_REFUSED = "TWR-7007-W",
    /// user, device, address
    DEVICE_DENIED = "TWR-7008-W",
    /// target, address
    DIAL_DENIED = "TWR-7009-W",
    /// source, target, proven
    POLICY_COPIED = "TWR-8001-I",
    /// source, target, cause
    POLICY_AGAIN = "TWR-8002-W",
    /// source, target, cause
    POLICY_FAILED = "TWR-8003-E",
    /// source, target, proven
    MIGRATED = "TWR-8004-I",
    /// source, target, cause
    MIGRATION_FAILED = "TWR-8005-E",
    /// what
    MAPS_CHANGED = "TWR-8006-I",
    /// tape, medium, cause
    FRONTEND_SERVES_COPY = "TWR-8101-W",
    /// tape, medium, cause
    FRONTEND_MOUNT_FAILED = "TWR-8102-W",
    /// tape, cause
    FRONTEND_NO_COPY = "TWR-8103-E",
    /// tape, medium, cause
    FRONTEND_READ_FAILED = "TWR-8104-W",
    /// tape, cause
    FRONTEND_NO_PRIMARY = "TWR-8105-E",
    /// medium, cause
    FRONTEND_LEFT_IN_DRIVE = "TWR-8106-W",
    /// library, count
    FRONTEND_TOO_FEW_SLOTS = "TWR-8107-W",
}

/// All messages, in the order of the file.
pub fn all() -> &'static [Message] {
    static MESSAGES: OnceLock<File> = OnceLock::new();
    // A test holds that the file parses; a message must never be what ends an engine.
    &MESSAGES.get_or_init(|| toml::from_str(FILE).unwrap_or_default()).message
}

/// The message with this number.
pub fn message(id: &str) -> Option<&'static Message> {
    all().iter().find(|message| message.id == id)
}

/// The text of a message with its words filled in: `("site", &site)` for `{site}`. What is not
/// filled in stays as it is; an unknown number gives the number and the words.
pub fn text(id: &str, words: &[(&str, &dyn Display)]) -> String {
    let Some(message) = message(id) else {
        return words
            .iter()
            .fold(id.to_owned(), |text, (name, value)| format!("{text} {name}={value}"));
    };
    let mut text = String::with_capacity(message.text.len() + 64);
    let mut rest = message.text.as_str();
    // One pass, so that a value with braces in it is not filled in again.
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        text.push_str(before);
        match words.iter().find(|(word, _)| *word == name) {
            Some((_, value)) => text.push_str(&value.to_string()),
            None => text.push_str(&format!("{{{name}}}")),
        }
        rest = after;
    }
    text + rest
}

/// The severity that the last letter of a number tells.
pub fn severity(id: &str) -> Severity {
    match id.as_bytes().last() {
        Some(b'E') => Severity::Error,
        Some(b'W') => Severity::Warning,
        _ => Severity::Info,
    }
}

/// Says a message: to the log, and as an event about `subject` (a job's id, a device's name). If
/// the catalogue can not be written, the log tells so and the caller goes on. Blocks on the disk.
pub fn note(
    catalogue: &Catalogue,
    kind: EventKind,
    id: &str,
    words: &[(&str, &dyn Display)],
    subject: Option<&str>,
) {
    let (text, severity) = (text(id, words), severity(id));
    match severity {
        Severity::Error => tracing::error!(id, subject, "{text}"),
        Severity::Warning => tracing::warn!(id, subject, "{text}"),
        Severity::Info => tracing::info!(id, subject, "{text}"),
    }
    let event = NewEvent { kind, severity, message_id: id, text: &text, subject };
    if let Err(error) = catalogue.event(&event) {
        tracing::error!(%error, id, "an event could not be written");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn numbers() -> BTreeSet<&'static str> {
        all().iter().map(|message| message.id.as_str()).collect()
    }

    #[test]
    fn the_file_parses_and_each_number_is_there_once() {
        let file: File = toml::from_str(FILE).unwrap();
        assert_eq!(numbers().len(), file.message.len());
        for message in file.message {
            let (number, letter) = message.id[4..].split_once('-').unwrap();
            assert!(message.id.starts_with("TWR-") && number.len() == 4, "{}", message.id);
            assert!(number.parse::<u16>().is_ok() && ["I", "W", "E"].contains(&letter));
            assert!(!message.cause.is_empty() && !message.action.is_empty());
        }
    }

    #[test]
    fn every_number_has_a_name_and_every_name_a_number() {
        assert_eq!(numbers(), NAMED.iter().copied().collect());
    }

    /// Every number that is written anywhere in our code is in the file.
    #[test]
    fn every_number_in_the_code_is_in_the_file() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut folders: Vec<_> =
            ["common", "local-engine", "remote-engine", "tests"].map(|f| root.join(f)).into();
        let (mut seen, known) = (0, numbers());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for (at, _) in text.match_indices("TWR-") {
                        let Some(id) = text.get(at..at + 10) else { continue };
                        if id.as_bytes()[4..8].iter().all(u8::is_ascii_digit) {
                            assert!(known.contains(id), "{}: {id} is in no file", path.display());
                            seen += 1;
                        }
                    }
                }
            }
        }
        assert!(seen >= NAMED.len());
    }

    #[test]
    fn words_are_filled_in_once() {
        let cause = "{site} is a word {";
        assert_eq!(
            text(LINK_DOWN, &[("site", &"dr"), ("cause", &cause)]),
            "the link to site dr is down: {site} is a word {"
        );
        assert_eq!(text(LINK_UP, &[]), "the link to site {site} is up");
        assert_eq!(text("?", &[("a", &1)]), "? a=1");
    }

    #[test]
    fn a_note_becomes_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&dir.path().join("svs.db")).unwrap();
        note(&catalogue, EventKind::Link, LINK_UP, &[("site", &"dr")], Some("dr"));
        let events = catalogue.events(&svs::EventFilter::default()).unwrap();
        assert_eq!(events[0].text, "the link to site dr is up");
        assert_eq!(
            (events[0].severity, events[0].subject.as_deref()),
            (Severity::Info, Some("dr"))
        );
    }
}
