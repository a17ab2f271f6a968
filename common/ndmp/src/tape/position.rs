//! What is known of where the tape stands.

use crate::wire::TapeState;

/// File and block number as `NDMP_TAPE_GET_STATE` shows them; `None` is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Filemarks before this place.
    pub(super) file: Option<u64>,
    /// Records since the last of them.
    pub(super) block: Option<u64>,
}

impl Place {
    /// The beginning of the tape.
    pub(super) const START: Self = Self { file: Some(0), block: Some(0) };
    /// Nothing is known.
    pub(super) const UNKNOWN: Self = Self { file: None, block: None };

    /// Behind `count` more filemarks.
    pub(super) fn pass_marks(&mut self, count: u64) {
        self.file = self.file.map(|file| file.saturating_add(count));
        self.block = Some(0);
    }

    /// Before `count` filemarks, going back.
    pub(super) fn back_over_marks(&mut self, count: u64) {
        self.file = self.file.map(|file| file.saturating_sub(count));
        if count > 0 {
            self.block = None;
        }
    }

    /// `count` records on, or back.
    pub(super) fn pass_records(&mut self, count: i64) {
        self.block = self.block.map(|block| block.saturating_add_signed(count));
    }

    /// The numbers for the wire.
    pub(super) fn file_number(self) -> u32 {
        number(self.file)
    }

    /// See [`Place::file_number`].
    pub(super) fn block_number(self) -> u32 {
        number(self.block)
    }
}

fn number(value: Option<u64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(TapeState::UNKNOWN)
}
