//! What came of it.

use model::ByteSize;
use serde::Serialize;

use crate::output::{or_dash, table};

/// The result, filled in as far as it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Report {
    /// Everything was done, and what came out is what went in.
    pub(super) ok: bool,
    /// Of the second generation, as it was given to the backup.
    pub(super) sha256_in: Option<String>,
    /// Of what was read from the ghost tapes.
    pub(super) sha256_out: Option<String>,
    pub(super) generations: Vec<GenerationLine>,
    pub(super) copies: Vec<CopyLine>,
    /// From the beginning to the end.
    pub(super) seconds: f64,
    /// Where files and databases were left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<String>,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// One generation of the cartridge, as its replication row has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct GenerationLine {
    pub(super) generation: u32,
    /// Bytes of all records.
    pub(super) logical_bytes: u64,
    /// Bytes of the chunks that the other site lacked, before they were compressed.
    pub(super) unique_bytes: u64,
    /// Bytes on the wire.
    pub(super) wan_bytes: u64,
    /// From the beginning of the backup to the end of the replication.
    pub(super) seconds: f64,
}

/// One tape that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct CopyLine {
    pub(super) source: String,
    pub(super) target: String,
    /// Of its job.
    pub(super) state: String,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) job: String,
    /// Who moved the bytes.
    pub(super) path: Option<String>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        if !self.generations.is_empty() {
            parts.push(self.generation_table());
        }
        if !self.copies.is_empty() {
            parts.push(self.copy_table());
        }
        if let (Some(went_in), Some(came_out)) = (&self.sha256_in, &self.sha256_out) {
            parts.push(format!("SHA-256 in   {went_in}\nSHA-256 out  {came_out}"));
        }
        parts.push(match &self.error {
            None => format!("ok: what came out is what went in, in {:.1} s", self.seconds),
            Some(error) => format!("NOT ok: {error}"),
        });
        parts.join("\n\n")
    }

    fn generation_table(&self) -> String {
        let row = |line: &GenerationLine| {
            let ratio = line.logical_bytes as f64 / line.wan_bytes.max(1) as f64;
            [
                line.generation.to_string(),
                ByteSize(line.logical_bytes).to_string(),
                ByteSize(line.unique_bytes).to_string(),
                ByteSize(line.wan_bytes).to_string(),
                format!("{ratio:.1} : 1"),
                format!("{:.1}", line.seconds),
            ]
        };
        let header = ["generation", "logical", "unique", "on the WAN", "ratio", "seconds"];
        table(header, self.generations.iter().map(row).collect())
    }

    fn copy_table(&self) -> String {
        let row = |line: &CopyLine| {
            [
                line.source.clone(),
                line.target.clone(),
                line.state.clone(),
                ByteSize(line.bytes).to_string(),
                format!("{:.1}", line.seconds),
                or_dash(line.path.as_ref()),
            ]
        };
        let header = ["source", "target", "state", "bytes", "seconds", "path"];
        table(header, self.copies.iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_are_told_the_same() {
        let mut report = Report {
            sha256_in: Some("ab".into()),
            sha256_out: Some("ab".into()),
            ok: true,
            ..Report::default()
        };
        report.generations.push(GenerationLine {
            generation: 2,
            logical_bytes: 256 << 20,
            unique_bytes: 3 << 20,
            wan_bytes: 4 << 20,
            seconds: 1.5,
        });
        report.copies.push(CopyLine {
            source: "vtl0:VTA001L8".into(),
            target: "dr-ptl0:PTA001L8".into(),
            state: "done".into(),
            bytes: 1 << 20,
            seconds: 0.5,
            job: "x".into(),
            path: Some("offloaded".into()),
        });
        let text = report.text();
        for words in ["64.0 : 1", "256.0 MiB", "dr-ptl0:PTA001L8", "SHA-256 out  ab", "ok: what"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["generations"][0]["wan_bytes"], 4 << 20);
        assert_eq!(value["copies"][0]["state"], "done");
        assert!(value.get("error").is_none());
        report.error = Some("a tape tore".into());
        assert!(report.text().contains("NOT ok: a tape tore"));
    }
}
