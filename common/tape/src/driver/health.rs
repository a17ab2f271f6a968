//! What a drive tells of its own state, by log pages.

use scsi::Cdb;
use scsi::log::{LogPage, page as log_page};

use super::channel::malformed;
use super::drive::{ScsiDrive, optional};
use super::transport::ScsiTransport;
use crate::{Control, TapeError};

/// What a drive tells of its own state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveHealth {
    /// TapeAlert flags that were raised since they were asked for last.
    pub alerts: Vec<u16>,
    /// Bytes that hosts have written since power-on, as far as the drive tells.
    pub bytes_written: Option<u64>,
    /// Bytes that hosts have read since power-on.
    pub bytes_read: Option<u64>,
    /// How often the medium in it was loaded.
    pub medium_loads: Option<u64>,
}

impl<T: ScsiTransport> ScsiDrive<T> {
    /// A log page; `None` where the drive does not have it.
    fn log(&mut self, page: u8, control: &Control) -> Result<Option<LogPage>, TapeError> {
        const LENGTH: u16 = 4096;
        let (parameter, subpage, allocation) = (0, 0, LENGTH);
        let cdb = Cdb::LogSense { control: 1, page, subpage, parameter, allocation };
        let bytes = optional(self.channel.fetch_anew(cdb, LENGTH.into(), control))?;
        bytes.map(|bytes| LogPage::parse(&bytes).map_err(malformed)).transpose()
    }

    /// How the drive and what lies in it are, by log pages. Asking clears the TapeAlert flags.
    /// Unit attentions are passed over: nobody may depend on the drive's position any more.
    ///
    /// # Errors
    /// The drive does not answer; a page that it does not have is none.
    pub fn health(&mut self, control: &Control) -> Result<DriveHealth, TapeError> {
        let alerts = self.log(log_page::TAPE_ALERT, control)?;
        let access = self.log(log_page::SEQUENTIAL_ACCESS, control)?;
        let volume = self.log(log_page::VOLUME_STATISTICS, control)?;
        let number = |page: &Option<LogPage>, code| page.as_ref().and_then(|it| it.number(code));
        Ok(DriveHealth {
            alerts: alerts.map(|page| page.raised_alerts()).unwrap_or_default(),
            bytes_written: number(&access, 0),
            bytes_read: number(&access, 3),
            medium_loads: number(&volume, 1),
        })
    }
}
