//! The tape-to-tape copy: two control connections, the target's mover listens, the source's
//! connects (NDMP version 4, D.6), versions 3 and 4.
//!
//! ```text
//!   target                                  source
//!   SET_RECORD_SIZE SET_WINDOW(0,0) LISTEN  SET_RECORD_SIZE SET_WINDOW CONNECT READ
//!   PAUSED(EOW)       the first byte of a part meets the end of the window
//!   label, filemark, header by TAPE_WRITE
//!   SET_WINDOW CONTINUE                     PAUSED(EOF)   a filemark: the part is sent
//!                                           past the mark, SET_WINDOW CONTINUE
//!   ...                                     CLOSE
//!   HALTED(CONNECT_CLOSED), last filemark
//! ```
//!
//! What the target's mover is given by TAPE_WRITE can only go on tape while that mover is paused,
//! so it is kept until then. A part whose length is not known beforehand, or is no multiple of
//! the target's record size, ends its connection; the next part makes a new one.

mod dialogue;

use std::time::Duration;

use ndmp::wire::AddrType;

use crate::{BLOCK_MAX, Client, DmaError, Wrote};

/// What to copy, and how.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// What to copy, from where the source tape stands.
    pub what: What,
    /// Bytes of a record on the source tape; `None` to look at the first record of each part.
    pub record_size: Option<u32>,
    /// Bytes of a record on the target tape; `None` for the same as the source's.
    pub target_record_size: Option<u32>,
    /// Largest window given to the target at once, in bytes, a multiple of the target's record
    /// size; `None` for whole parts.
    pub window: Option<u64>,
    /// How the movers are joined: `Tcp`, or `Local` within one server.
    pub addr_type: AddrType,
    /// How long nothing at all may move before the copy is given up. A copy that waits for
    /// replication or for a drive stands still, so this is long.
    pub patience: Duration,
}

impl Default for CopyPlan {
    /// The whole tape, each file as it is, over TCP, with six hours of patience.
    fn default() -> Self {
        Self {
            what: What::Everything { headers: 0 },
            record_size: None,
            target_record_size: None,
            window: None,
            addr_type: AddrType::Tcp,
            patience: Duration::from_secs(6 * 3600),
        }
    }
}

/// What to copy.
#[derive(Debug, Clone)]
pub enum What {
    /// Every file to the end of the data, the first `headers` records of each one by one and the
    /// rest by the movers.
    Everything {
        /// Records at the beginning of each file that are copied one by one.
        headers: u32,
    },
    /// These files, in order.
    Parts(Vec<Part>),
    /// Everything to the end of the data, record by record without the movers: exact for tapes
    /// with records of all lengths in one file.
    RecordByRecord,
}

/// One file on tape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Records at its beginning that are copied one by one.
    pub headers: u32,
    /// Bytes that follow up to the filemark, if the catalogue knows.
    pub length: Option<u64>,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Files that are complete.
    pub parts: u64,
    /// Bytes on the target tape, of all parts, counted by the target.
    pub bytes: u64,
}

/// What a finished copy has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Bytes that the movers copied, of each part.
    pub parts: Vec<u64>,
    /// Records that were copied one by one.
    pub records: u64,
    /// Filemarks written.
    pub filemarks: u64,
    /// How often the target tape was changed.
    pub tape_changes: u32,
    /// Bytes of the records on each target tape, in order, copied in whichever way; pads do not
    /// count.
    pub tapes: Vec<u64>,
}

impl CopyReport {
    /// Bytes that the movers copied.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().sum()
    }
}

/// Who watches a copy, and changes its tapes.
pub trait CopyObserver {
    /// How far it is; called about four times a second while data moves.
    fn progress(&mut self, progress: CopyProgress) {
        let _ = progress;
    }

    /// A line that one of the servers wrote.
    fn log(&mut self, line: &str) {
        tracing::info!(line, "the server says");
    }

    /// The target tape is full. On return another tape is in the target's open drive and stands
    /// where the data goes on (behind a label, a header...); `position` counts the bytes that the
    /// movers copied since their connection was made.
    ///
    /// # Errors
    /// [`DmaError::EndOfMedium`] if there is no other tape, which ends the copy.
    fn change_tape(&mut self, target: &mut Client, position: u64) -> Result<(), DmaError> {
        let _ = target;
        Err(DmaError::EndOfMedium { position })
    }
}

/// Watches nothing, and has one tape.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unattended;

impl CopyObserver for Unattended {}

/// Copies from the tape in the source's open drive to that in the target's, from where both
/// stand. Leaves both movers idle and both tapes behind what was copied; the drives stay open.
///
/// # Errors
/// The first thing that went wrong. What is on the target tape then is for the caller to find
/// out; nothing is said to be copied that the target has not counted.
pub fn copy(
    source: &mut Client,
    target: &mut Client,
    plan: &CopyPlan,
    observer: &mut dyn CopyObserver,
) -> Result<CopyReport, DmaError> {
    check(plan, source)?;
    let mut dialogue = dialogue::Dialogue::new(source, target, plan, observer);
    let outcome = match &plan.what {
        What::Everything { headers } => dialogue.copy_everything(*headers),
        What::Parts(parts) => dialogue.copy_parts(parts),
        What::RecordByRecord => dialogue.copy_records(),
    };
    dialogue.end(outcome)
}

fn check(plan: &CopyPlan, source: &Client) -> Result<(), DmaError> {
    let invalid = |text: &str| Err(DmaError::Invalid(text.to_owned()));
    let bad_size = |size: Option<u32>| size.is_some_and(|size| size == 0 || size > BLOCK_MAX);
    if bad_size(plan.record_size) || bad_size(plan.target_record_size) {
        return invalid("a record has 1 byte to 2 MiB");
    }
    let record = plan.target_record_size.or(plan.record_size);
    match (plan.window, record) {
        (Some(0), _) => return invalid("a window of no bytes"),
        (Some(_), None) => return invalid("a window needs a record size"),
        (Some(window), Some(record)) if window % u64::from(record) != 0 => {
            return invalid("a window is a multiple of the target's record size");
        }
        _ => {}
    }
    if source.version() < ndmp::wire::Version::V3 && !matches!(plan.what, What::RecordByRecord) {
        return Err(DmaError::NotInVersion(
            ndmp::wire::MessageCode::MoverConnect,
            source.version(),
        ));
    }
    Ok(())
}

/// Writes one block, on another tape if this one is full. Returns whether the tape was changed.
fn write_block(
    target: &mut Client,
    block: bytes::Bytes,
    position: u64,
    observer: &mut dyn CopyObserver,
) -> Result<bool, DmaError> {
    match target.write_block(block.clone())? {
        Wrote::Done => Ok(false),
        Wrote::EndOfMedium => {
            observer.change_tape(target, position)?;
            match target.write_block(block)? {
                Wrote::Done => Ok(true),
                Wrote::EndOfMedium => Err(DmaError::EndOfMedium { position }),
            }
        }
    }
}

/// Something that goes on the target tape by itself.
#[derive(Debug, Clone)]
enum Literal {
    Block(bytes::Bytes),
    Filemark,
}
