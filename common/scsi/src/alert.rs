//! TapeAlert (SSC-4 4.2.20, log page 2Eh): what each flag asks for.

/// What to do about a raised flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertAction {
    /// Nothing but to note it.
    Note,
    /// The drive wants a cleaning cartridge.
    Clean,
    /// Write no more on this cartridge.
    Freeze,
    /// Use this drive no more until somebody has looked at it.
    TakeDown,
}

/// A flag that is acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its number.
    pub flag: u16,
    /// What to do.
    pub action: AlertAction,
    /// What it means.
    pub meaning: &'static str,
}

const fn alert(flag: u16, action: AlertAction, meaning: &'static str) -> Alert {
    Alert { flag, action, meaning }
}

use AlertAction::{Clean, Freeze, Note, TakeDown};

/// The flags that mean something to us. Where drive or medium may be at fault (hard error, failed
/// read or write) it is only noted: the sense data of the command itself are acted upon.
pub static ALERTS: &[Alert] = &[
    alert(3, Note, "hard error"),
    alert(4, Freeze, "the medium can no longer be relied on"),
    alert(5, Note, "a read has failed: the tape is damaged or the drive is faulty"),
    alert(6, Note, "a write has failed: the tape is damaged or the drive is faulty"),
    alert(7, Freeze, "the medium has reached the end of its life"),
    alert(9, Note, "a write to a protected cartridge was tried"),
    alert(10, Note, "removal is prevented"),
    alert(11, Note, "a cleaning cartridge is loaded"),
    alert(13, Freeze, "the tape has snapped; it can be ejected"),
    alert(14, TakeDown, "the tape has snapped and can not be ejected"),
    alert(15, Freeze, "the memory chip of the cartridge has failed"),
    alert(16, Note, "the cartridge was ejected by hand while the drive was using it"),
    alert(17, Note, "the cartridge has a format that can only be read"),
    alert(20, Clean, "the drive has to be cleaned now"),
    alert(21, Clean, "the drive is due for cleaning"),
    alert(22, Note, "the cleaning cartridge is used up"),
    alert(30, TakeDown, "the drive has a hardware fault that a reset does not mend"),
    alert(31, TakeDown, "the drive has a hardware fault"),
    alert(32, Note, "the interface between host and drive is faulty"),
    alert(33, Note, "the operation has failed: eject the cartridge and insert it again"),
    alert(52, Freeze, "the system area of the tape could not be written"),
    alert(53, Freeze, "the system area of the tape could not be read"),
    alert(55, Freeze, "the cartridge could not be loaded"),
    alert(56, TakeDown, "the cartridge could not be unloaded"),
    alert(58, TakeDown, "the firmware of the drive has failed"),
    alert(59, Freeze, "the integrity of a WORM cartridge is doubtful"),
    alert(60, Note, "overwriting a WORM cartridge was tried"),
];

/// What a flag asks for; `None` for one that means nothing to us.
pub fn find(flag: u16) -> Option<&'static Alert> {
    ALERTS.iter().find(|alert| alert.flag == flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_stands_once_and_is_one() {
        assert!(ALERTS.windows(2).all(|pair| pair[0].flag < pair[1].flag));
        assert!(
            ALERTS.iter().all(|alert| (1..=crate::log::TAPE_ALERT_FLAGS).contains(&alert.flag))
        );
        assert_eq!(find(20).map(|alert| alert.action), Some(Clean));
        assert_eq!(find(2), None);
    }
}
