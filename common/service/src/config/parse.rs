//! From a file to a typed value: places, unknown keys and suggestions.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::{ConfigError, Problem};

/// No configuration is longer; a larger file is some other file.
const FILE_MAX: u64 = 4 << 20;

/// Reads and parses a file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let fail = |text: String| ConfigError::new(path, vec![text]);
    let size = std::fs::metadata(path).map_err(|e| fail(format!("can not be read: {e}")))?.len();
    if size > FILE_MAX {
        return Err(fail(format!("is {size} bytes long and so no configuration")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| fail(format!("can not be read: {e}")))?;
    parse(&text).map_err(|problem| ConfigError { file: path.to_owned(), problems: vec![problem] })
}

/// Parses a text; the problem has its place and, for an unknown word, the nearest known one.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| place(text, span.start));
        let message = error.message().trim();
        let text = match suggestion(message) {
            Some(word) => format!("{message}; did you mean `{word}`?"),
            None => message.to_owned(),
        };
        Problem { place, text }
    })
}

/// Line and column (in characters), both from 1, of a byte of the text.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// serde says: unknown field `slot`, expected one of `name`, `slots`. The first word in backquotes
/// is the unknown one, the others are those it knows.
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    words
        .map(|word| (strsim::damerau_levenshtein(unknown, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len().min(unknown.len()) / 3)
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Library {
        slots: u16,
        drives: u16,
    }

    #[test]
    fn an_unknown_key_has_its_place_and_a_suggestion() {
        let problem = parse::<Library>("drives = 1\n# ä\nslot = 3\n").unwrap_err();
        assert_eq!(problem.place, Some((3, 1)));
        assert!(problem.text.contains("`slot`"), "{}", problem.text);
        assert!(problem.text.ends_with("did you mean `slots`?"), "{}", problem.text);
    }

    #[test]
    fn a_far_word_gets_no_suggestion() {
        let problem = parse::<Library>("colour = 3\n").unwrap_err();
        assert!(!problem.text.contains("did you mean"), "{}", problem.text);
    }

    #[test]
    fn a_wrong_type_and_broken_toml_have_a_place() {
        let problem = parse::<Library>("drives = 1\nslots = \"x\"\n").unwrap_err();
        assert_eq!(problem.place, Some((2, 9)));
        assert_eq!(parse::<Library>("drives = = 1").unwrap_err().place.unwrap().0, 1);
    }
}
