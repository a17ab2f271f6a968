//! What sense data ask for: the table of everything that a drive or a changer says and that
//! somebody has to act upon. The first row that fits counts.

use crate::Sense;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The command was done; what was met is in the sense data.
    Continue,
    /// Send it again; it was not executed.
    Retry,
    /// Wait and send it again, for so many seconds at most.
    Wait(u32),
    /// The device wants its initializing command first: LOAD, or INITIALIZE ELEMENT STATUS.
    Initialize,
    /// Ask where the tape stands before anything else.
    CheckPosition,
    /// Read the elements anew: what was known of them is wrong.
    LookAnew,
    /// This medium takes or gives no more; go on with another one.
    ChangeMedium,
    /// Use no more of this cartridge until somebody has looked at it.
    Quarantine,
    /// Use this drive no more until somebody has looked at it.
    TakeOffline,
    /// Somebody has to do something.
    AskOperator,
    /// The command is not for this device; it fails, and sending it again does not help.
    GiveUp,
}

impl Action {
    /// In words for the operator.
    pub fn words(self) -> &'static str {
        match self {
            Self::Continue => "nothing is to be done",
            Self::Retry | Self::Wait(_) => "it is tried again",
            Self::Initialize => "load the drive, or let the library look at its elements",
            Self::CheckPosition => "the position of the tape decides how it goes on",
            Self::LookAnew => "the elements of the library are read anew",
            Self::ChangeMedium => "take another tape",
            Self::Quarantine => "take this cartridge out of use until it was looked at",
            Self::TakeOffline => "take this drive out of use until it was looked at",
            Self::AskOperator => "somebody has to look at the library",
            Self::GiveUp => "the command is not possible here",
        }
    }
}

/// Bits besides key and code that a row asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// None.
    Any,
    /// 71h, 73h: it is about an earlier command.
    Deferred,
    /// FM.
    Filemark,
    /// EOM, with any code.
    EndOfMedium,
    /// ILI.
    Length,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Sense key.
    pub key: u8,
    /// First and last additional sense code.
    pub asc: (u8, u8),
    /// First and last qualifier.
    pub ascq: (u8, u8),
    /// Bits.
    pub mark: Mark,
    /// What to do.
    pub action: Action,
    /// What it means.
    pub meaning: &'static str,
}

impl Advice {
    /// Whether the row speaks of these sense data.
    pub fn fits(&self, sense: &Sense) -> bool {
        let within = |value: u8, (first, last): (u8, u8)| (first..=last).contains(&value);
        let marked = match self.mark {
            Mark::Any => true,
            Mark::Deferred => sense.deferred,
            Mark::Filemark => sense.filemark,
            Mark::EndOfMedium => sense.eom,
            Mark::Length => sense.ili,
        };
        let key = self.mark == Mark::Deferred || self.key == sense.key;
        marked && key && within(sense.asc, self.asc) && within(sense.ascq, self.ascq)
    }
}

const ALL: (u8, u8) = (0x00, 0xff);

const fn marked(key: u8, mark: Mark, action: Action, meaning: &'static str) -> Advice {
    Advice { key, asc: ALL, ascq: ALL, mark, action, meaning }
}

const fn code(key: u8, asc: u8, ascq: (u8, u8), action: Action, meaning: &'static str) -> Advice {
    Advice { key, asc: (asc, asc), ascq, mark: Mark::Any, action, meaning }
}

const fn key(key: u8, action: Action, meaning: &'static str) -> Advice {
    Advice { key, asc: ALL, ascq: ALL, mark: Mark::Any, action, meaning }
}

const fn one(key: u8, asc: u8, ascq: u8, action: Action, meaning: &'static str) -> Advice {
    code(key, asc, (ascq, ascq), action, meaning)
}

use Action::{
    AskOperator, ChangeMedium, CheckPosition, Continue, GiveUp, Initialize, LookAnew, Quarantine,
    Retry, TakeOffline, Wait,
};

/// The longest that a drive may be busy with a new cartridge: LTO-9 calibrates for up to two hours.
const LOADING: u32 = 7800;

/// The table. The last rows, one for each key, speak of what no other row does.
pub static TABLE: &[Advice] = &[
    marked(0x00, Mark::Deferred, CheckPosition, "an earlier write has failed"),
    marked(0x00, Mark::Filemark, Continue, "a filemark"),
    marked(0x00, Mark::Length, Continue, "a block of another length"),
    one(0x00, 0x00, 0x04, Continue, "the beginning of the tape"),
    marked(0x00, Mark::EndOfMedium, ChangeMedium, "early warning: the end of the tape is near"),
    one(0x00, 0x00, 0x07, ChangeMedium, "programmable early warning"),
    key(0x00, Continue, "done"),
    marked(0x01, Mark::EndOfMedium, ChangeMedium, "early warning: the end of the tape is near"),
    key(0x01, Continue, "done, after an error that was recovered"),
    one(0x02, 0x00, 0x17, Wait(LOADING), "the drive is being cleaned"),
    one(0x02, 0x04, 0x00, Wait(300), "not ready, without a cause"),
    one(0x02, 0x04, 0x01, Wait(LOADING), "becoming ready; a new cartridge may be calibrated"),
    one(0x02, 0x04, 0x02, Initialize, "an initializing command is required"),
    one(0x02, 0x04, 0x03, AskOperator, "manual intervention is required"),
    one(0x02, 0x04, 0x04, Wait(LOADING), "the medium is being formatted"),
    one(0x02, 0x04, 0x07, Wait(LOADING), "an operation is in progress"),
    one(0x02, 0x04, 0x12, AskOperator, "the device is offline"),
    one(0x02, 0x30, 0x03, Wait(LOADING), "a cleaning cartridge is loaded"),
    one(0x02, 0x3a, 0x02, AskOperator, "the import/export door or the tray is open"),
    code(0x02, 0x3a, ALL, LookAnew, "no medium"),
    code(0x02, 0x53, ALL, Quarantine, "loading or ejecting has failed"),
    key(0x02, AskOperator, "not ready"),
    code(0x03, 0x0c, ALL, Quarantine, "the tape can not be written here"),
    code(0x03, 0x11, ALL, CheckPosition, "the tape can not be read here"),
    code(0x03, 0x14, ALL, CheckPosition, "what was looked for is not found on the tape"),
    code(0x03, 0x3b, ALL, CheckPosition, "the tape could not be positioned"),
    code(0x03, 0x30, ALL, ChangeMedium, "the drive can not use this medium or its format"),
    code(0x03, 0x31, ALL, ChangeMedium, "the format of the medium is damaged"),
    one(0x03, 0x00, 0x02, ChangeMedium, "the physical end of the tape"),
    key(0x03, Quarantine, "the medium has an error"),
    code(0x04, 0x3b, (0x0d, 0x0e), LookAnew, "an element is not as it was known"),
    code(0x04, 0x53, ALL, Quarantine, "loading or ejecting has failed"),
    key(0x04, TakeOffline, "the hardware has an error"),
    one(0x05, 0x21, 0x01, LookAnew, "there is no such element"),
    code(0x05, 0x30, ALL, ChangeMedium, "the drive can not use this medium"),
    one(0x05, 0x3a, 0x00, Initialize, "the drive is not unloaded"),
    one(0x05, 0x3b, 0x0c, CheckPosition, "the tape is not at its beginning"),
    code(0x05, 0x3b, (0x0d, 0x0e), LookAnew, "the element is full or empty"),
    code(0x05, 0x3b, (0x11, 0x12), AskOperator, "a magazine is missing"),
    code(0x05, 0x53, ALL, AskOperator, "taking the medium out is prevented"),
    code(0x05, 0x55, ALL, Wait(10), "the device is out of resources"),
    key(0x05, GiveUp, "the command is not supported"),
    one(0x06, 0x00, 0x02, ChangeMedium, "early warning"),
    code(0x06, 0x28, (0x01, 0x01), LookAnew, "an import/export element was accessed"),
    code(0x06, 0x28, ALL, CheckPosition, "the medium may have been changed"),
    code(0x06, 0x29, ALL, CheckPosition, "the device was reset"),
    one(0x06, 0x2a, 0x01, Retry, "mode parameters were changed"),
    code(0x06, 0x2a, (0x03, 0x05), TakeOffline, "another host has taken the device"),
    code(0x06, 0x2a, (0x11, 0x12), CheckPosition, "encryption parameters were changed"),
    code(0x06, 0x2f, ALL, CheckPosition, "commands were cleared by another initiator"),
    code(0x06, 0x30, ALL, ChangeMedium, "the drive can not use this medium"),
    code(0x06, 0x3b, ALL, LookAnew, "a magazine was taken out or put in"),
    code(0x06, 0x3f, ALL, Retry, "the device has changed its description"),
    one(0x06, 0x53, 0x02, AskOperator, "taking the medium out is prevented"),
    one(0x06, 0x5a, 0x01, AskOperator, "an operator wants the medium out"),
    key(0x06, Retry, "something has happened that concerns us"),
    code(0x07, 0x27, ALL, ChangeMedium, "the medium is write-protected"),
    code(0x07, 0x30, ALL, ChangeMedium, "the medium can not be written here"),
    code(0x07, 0x50, ALL, ChangeMedium, "a WORM medium can only be written at its end"),
    code(0x07, 0x5a, ALL, ChangeMedium, "an operator has protected the medium"),
    code(0x07, 0x74, ALL, AskOperator, "the key for the data is missing or wrong"),
    key(0x07, ChangeMedium, "the data are protected"),
    one(0x08, 0x14, 0x03, Quarantine, "the end of the data is not found: it was not closed"),
    key(0x08, Continue, "the end of the data"),
    key(0x0b, CheckPosition, "the command was aborted"),
    key(0x0d, ChangeMedium, "the tape is full; nothing was written"),
];

/// What no row speaks of: keys that SPC-5 has no use for with tapes.
const UNKNOWN: Advice = key(0xff, AskOperator, "a condition that no standard knows");

impl Sense {
    /// What these sense data ask for.
    pub fn advice(&self) -> &'static Advice {
        TABLE.iter().find(|row| row.fits(self)).unwrap_or(&UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sense data of which a row speaks: its first codes.
    fn example(row: &Advice) -> Sense {
        Sense {
            filemark: row.mark == Mark::Filemark,
            eom: row.mark == Mark::EndOfMedium,
            ili: row.mark == Mark::Length,
            deferred: row.mark == Mark::Deferred,
            ..Sense::new(row.key, row.asc.0, row.ascq.0)
        }
    }

    #[test]
    fn every_row_can_be_met() {
        for row in TABLE {
            let reached = (row.asc.0..=row.asc.1).any(|asc| {
                (row.ascq.0..=row.ascq.1)
                    .any(|ascq| std::ptr::eq(Sense { asc, ascq, ..example(row) }.advice(), row))
            });
            assert!(reached, "hidden by an earlier row: {row:?}");
        }
        assert_eq!(Sense::new(0x0e, 1, 1).advice().action, AskOperator);
    }

    /// The same by hand, so that a slip in the table shows.
    #[test]
    fn sense_data_ask_for_what_they_should() {
        let early = Sense { eom: true, ..Sense::new(0, 0x99, 0) };
        assert_eq!(early.advice().action, ChangeMedium);
        let deferred = Sense { deferred: true, ..Sense::WRITE_ERROR };
        assert_eq!(deferred.advice().action, CheckPosition);
        for (sense, action) in [
            (Sense::NO_SENSE, Continue),
            (Sense::FILEMARK_DETECTED, Continue),
            (Sense::BEGINNING_OF_MEDIUM, Continue),
            (Sense::EARLY_WARNING, ChangeMedium),
            (Sense::new(1, 0x37, 0), Continue),
            (Sense::END_OF_DATA, Continue),
            (Sense::new(8, 0x14, 3), Quarantine),
            (Sense::VOLUME_OVERFLOW, ChangeMedium),
            (Sense::BECOMING_READY, Wait(7800)),
            (Sense::MEDIUM_NOT_PRESENT, LookAnew),
            (Sense::WRITE_ERROR, Quarantine),
            (Sense::UNRECOVERED_READ_ERROR, CheckPosition),
            (Sense::INTERNAL_TARGET_FAILURE, TakeOffline),
            (Sense::MEDIA_LOAD_FAILED, Quarantine),
            (Sense::INVALID_OPERATION_CODE, GiveUp),
            (Sense::INVALID_ELEMENT_ADDRESS, LookAnew),
            (Sense::DESTINATION_ELEMENT_FULL, LookAnew),
            (Sense::DRIVE_NOT_UNLOADED, Initialize),
            (Sense::MEDIUM_MAY_HAVE_CHANGED, CheckPosition),
            (Sense::IMPORT_EXPORT_ACCESSED, LookAnew),
            (Sense::POWER_ON_RESET, CheckPosition),
            (Sense::RESERVATIONS_PREEMPTED, TakeOffline),
            (Sense::MODE_PARAMETERS_CHANGED, Retry),
            (Sense::WRITE_PROTECTED, ChangeMedium),
            (Sense::ABORTED_COMMAND, CheckPosition),
        ] {
            assert_eq!(sense.advice().action, action, "{sense}");
        }
    }
}
