//! What a process wrote to standard error, line by line, to wait for and to judge.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The lines of one or several lives of a process, in order. Cheap to clone; all clones see the
/// same lines.
#[derive(Clone, Default)]
pub struct LogLines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl LogLines {
    /// Collects what `source` says until it ends, which ends the thread; each line is also printed,
    /// so that a failed test shows it.
    pub fn follow(&self, name: &str, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let (log, name) = (self.clone(), name.to_owned());
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                eprintln!("[{name}] {line}");
                log.lines().push(line);
                log.0.1.notify_all();
            }
        })
    }

    /// How many lines there are: a mark to wait from.
    pub fn mark(&self) -> usize {
        self.lines().len()
    }

    /// The lines from a mark on.
    pub fn since(&self, mark: usize) -> Vec<String> {
        self.lines()[mark..].to_vec()
    }

    /// The first line from `mark` on that contains `needle`, as soon as it comes; `None` after the
    /// patience.
    pub fn find(&self, mark: usize, needle: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.lines();
        let mut seen = mark;
        loop {
            if let Some(line) = lines[seen..].iter().find(|l| l.contains(needle)) {
                return Some(line.clone());
            }
            seen = lines.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// WARN and ERROR lines, and panics, that contain none of `allowed`.
    pub fn complaints(&self, allowed: &[String]) -> Vec<String> {
        let bad = |line: &&String| {
            let line = line.as_str();
            is_complaint(line) && !allowed.iter().any(|a| line.contains(a.as_str()))
        };
        self.lines().iter().filter(bad).cloned().collect()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogLines({})", self.mark())
    }
}

/// The level stands right after the time in a text line and in `"level"` of a JSON line.
fn is_complaint(line: &str) -> bool {
    if line.contains("panicked at") || line.contains("stack backtrace") {
        return true;
    }
    if line.starts_with('{') {
        return line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
    }
    line.split_whitespace().take(2).any(|word| word == "WARN" || word == "ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_known_by_its_level_and_not_by_a_word() {
        let log = LogLines::default();
        let text = "2026-01-01T00:00:00Z  INFO link: no ERROR here\n\
                    2026-01-01T00:00:01Z  WARN link: the peer is gone\n\
                    {\"level\":\"ERROR\",\"fields\":{\"message\":\"disk full\"}}\n\
                    thread 'main' panicked at src/main.rs:1:1:\n";
        log.follow("x", text.as_bytes()).join().unwrap();
        assert!(log.find(0, "panicked", Duration::ZERO).is_some());
        assert_eq!(log.complaints(&[]).len(), 3);
        let allowed = ["the peer is gone".to_owned(), "disk full".to_owned()];
        assert_eq!(log.complaints(&allowed), log.since(3));
        assert_eq!(log.find(0, "never said", Duration::ZERO), None);
        assert!(log.find(1, "the peer", Duration::ZERO).is_some());
        assert!(log.find(2, "the peer", Duration::ZERO).is_none());
    }
}
