//! What is on a tape, by the account of a program that shares no code with the engines.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A record or a filemark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A record: its length and the SHA-256 of its bytes.
    Record(usize, String),
    /// A filemark.
    Filemark,
}

impl Object {
    /// The record with these bytes.
    pub fn record(bytes: &[u8]) -> Self {
        Self::Record(
            bytes.len(),
            Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect(),
        )
    }
}

/// The objects on a cartridge of the embedded library in `directory`, read by
/// `tests/tools/read_file_tape.py`, which must find nothing damaged.
pub fn read_tape(directory: &Path, barcode: &str) -> Vec<Object> {
    read(directory, barcode, None)
}

/// The same of a tape that the drive encrypted with the key in a file.
pub fn read_encrypted_tape(directory: &Path, barcode: &str, key: &Path) -> Vec<Object> {
    read(directory, barcode, Some(key))
}

fn read(directory: &Path, barcode: &str, key: Option<&Path>) -> Vec<Object> {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/read_file_tape.py");
    let tape: PathBuf = directory.join("cartridges").join(format!("{barcode}.tape"));
    let output = Command::new("python3")
        .arg(reader)
        .arg(&tape)
        .arg("--json")
        .args(key.into_iter().flat_map(|key| [Path::new("--key"), key]))
        .stdin(Stdio::null())
        .output()
        .expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", tape.display());
    let answer: Value = serde_json::from_slice(&output.stdout).expect("the reader prints JSON");
    let object = |value: &Value| match value["type"].as_str() {
        Some("filemark") => Object::Filemark,
        Some("record") => {
            let length = value["length"].as_u64().expect("a length") as usize;
            Object::Record(length, value["sha256"].as_str().expect("a digest").to_owned())
        }
        other => panic!("the reader knows an object of type {other:?}"),
    };
    answer["objects"].as_array().expect("a list of objects").iter().map(object).collect()
}
