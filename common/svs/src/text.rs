//! How values are written in columns: words for enumerations, text for identifiers and times.

use jiff::Timestamp;
use rusqlite::Row;

use crate::SvsError;

/// Declares an enumeration whose variants are words in a column and in JSON.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($what:literal) {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word as it stands in the column.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl TryFrom<String> for $name {
            type Error = crate::SvsError;
            fn try_from(value: String) -> Result<Self, crate::SvsError> {
                let found = Self::ALL.iter().find(|word| word.as_str() == value);
                found.copied().ok_or(crate::SvsError::Corrupt { expected: $what, value })
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::SvsError;
            fn from_str(text: &str) -> Result<Self, crate::SvsError> {
                text.to_owned().try_into()
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                self.as_str().to_sql()
            }
        }
    };
}
pub(crate) use words;

/// Now, as every time column has it: RFC 3339, UTC, milliseconds, so that text sorts as time.
pub(crate) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Milliseconds between two time columns; 0 if they run backwards or one is damaged.
pub(crate) fn millis_between(from: &str, to: &str) -> i64 {
    match (from.parse::<Timestamp>(), to.parse::<Timestamp>()) {
        (Ok(from), Ok(to)) => (to.as_millisecond() - from.as_millisecond()).max(0),
        _ => 0,
    }
}

/// Reads a text column as the type it stands for.
pub(crate) fn parsed<T: TryFrom<String>>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<T, SvsError> {
    let value: String = row.get(column)?;
    T::try_from(value.clone()).map_err(|_| SvsError::Corrupt { expected: column, value })
}

/// Like [`parsed`], for a column that may be NULL.
pub(crate) fn parsed_opt<T: TryFrom<String>>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<T>, SvsError> {
    let Some(value) = row.get::<_, Option<String>>(column)? else {
        return Ok(None);
    };
    let damaged = SvsError::Corrupt { expected: column, value: value.clone() };
    T::try_from(value).map(Some).map_err(|_| damaged)
}

/// Cuts a text at `limit` bytes, on a character, so that no row grows without bound.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
