//! What is wrong with a configuration file, and where.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, from 1; `None` for what has no one place.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what to write instead.
    pub text: String,
}

/// A configuration that can not be used; the fault of whoever wrote it. No retry helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Everything that was found, at least one thing.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(file: &std::path::Path, texts: Vec<String>) -> Self {
        let problems = texts.into_iter().map(|text| Problem { place: None, text }).collect();
        Self { file: file.to_owned(), problems }
    }
}

impl fmt::Display for ConfigError {
    /// One line for each problem: `FILE:LINE:COLUMN: what is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", self.file.display())?;
            if let Some((line, column)) = problem.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
