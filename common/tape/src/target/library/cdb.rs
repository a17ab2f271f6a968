//! The CDB face of a changer.

use model::{ElementAddress, ElementType};
use scsi::log::{LogPage, page};
use scsi::{Cdb, DeviceType, ElementReport, ModeForm, Sense, TagTemplate};

use super::{Search, TargetLibrary};
use crate::target::answer::{Answer, Reply, Transfer};
use crate::target::nexus::Access;
use crate::target::{Medium, common, elements};
use crate::{Control, TapeError};

fn access(cdb: &Cdb) -> Access {
    match cdb {
        Cdb::Release { .. }
        | Cdb::PersistentReserveIn { .. }
        | Cdb::PersistentReserveOut { .. }
        | Cdb::ReportSupportedOpcodes { .. }
        | Cdb::PreventAllow { prevent: false } => Access::Any,
        Cdb::TestUnitReady => Access::Status,
        Cdb::ModeSense { .. }
        | Cdb::LogSense { .. }
        | Cdb::ReadElementStatus { .. }
        | Cdb::RequestVolumeElementAddress { .. } => Access::Read,
        _ => Access::Write,
    }
}

impl<M: Medium> TargetLibrary<M> {
    /// Answers a CDB of the initiator `nexus` to the changer.
    ///
    /// # Errors
    /// Only when the device does not answer: the control's end before the command began, or an
    /// injected fault (the command may then have been done).
    pub fn execute_cdb(
        &mut self,
        nexus: u64,
        cdb: &[u8],
        transfer: Transfer<'_>,
        control: &Control,
    ) -> Result<Answer, TapeError> {
        control.check()?;
        let reply = self.dispatch(nexus, cdb, &transfer, control);
        transfer.answer(reply)
    }

    fn dispatch(
        &mut self,
        nexus: u64,
        bytes: &[u8],
        transfer: &Transfer<'_>,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        let cdb = match Cdb::parse(DeviceType::Changer, bytes) {
            Ok(cdb) => cdb,
            Err(sense) => {
                self.nexuses.enter(nexus, Access::Any)?;
                return Err(sense.into());
            }
        };
        match cdb {
            Cdb::Inquiry { page, allocation } => {
                let data = common::inquiry(DeviceType::Changer, &self.identity, page)?;
                return Ok(Reply::data(data, allocation));
            }
            Cdb::ReportLuns { select, allocation } => {
                return Ok(Reply::data(common::report_luns(select)?, allocation));
            }
            Cdb::RequestSense { descriptor, allocation } => {
                let sense = self.nexuses.take_attention(nexus).unwrap_or(Sense::NO_SENSE);
                return Ok(Reply::data(common::sense_data(sense, descriptor), allocation));
            }
            _ => {}
        }
        self.nexuses.enter(nexus, access(&cdb))?;
        let kind = DeviceType::Changer;
        if let Some(reply) = common::shared(kind, &mut self.nexuses, nexus, &cdb, transfer)? {
            return Ok(reply);
        }
        if let Cdb::ReadElementStatus { .. } | Cdb::ModeSense { .. } = cdb
            && let Some(reply) = elements::from_inventory(&self.inventory(), &cdb)?
        {
            return Ok(reply);
        }
        self.changer_command(nexus, &cdb, transfer, control)
    }

    fn changer_command(
        &mut self,
        nexus: u64,
        cdb: &Cdb,
        transfer: &Transfer<'_>,
        control: &Control,
    ) -> Result<Reply, TapeError> {
        match *cdb {
            Cdb::TestUnitReady | Cdb::InitializeElementStatus => {}
            Cdb::InitializeElementStatusRange { range, .. } => {
                if let Some((first, _)) = range {
                    self.known(first)?;
                }
            }
            Cdb::PositionToElement { transport, destination, invert } => {
                self.arm(transport, u8::from(invert), 8)?;
                self.known(destination)?;
            }
            Cdb::OpenCloseImportExport { element, action } => self.door(element, action)?,
            Cdb::MoveMedium { transport, source, destination, invert } => {
                self.arm(transport, u8::from(invert), 10)?;
                self.move_cartridge(source, destination, control)?;
            }
            Cdb::ExchangeMedium { transport, source, first, second, invert } => {
                self.arm(transport, invert, 10)?;
                self.exchange_cartridges(source, first, second, control)?;
            }
            Cdb::SendVolumeTag { .. } => self.send_volume_tag(nexus, cdb, transfer)?,
            Cdb::RequestVolumeElementAddress { tags, allocation, .. } => {
                return self.found_volumes(nexus, tags, allocation);
            }
            Cdb::ModeSelect { form, length } => {
                let list = common::parameters(transfer, length.into())?;
                let header = if form == ModeForm::Six { 4 } else { 8 };
                // Nothing is changeable: only an empty list goes through.
                match list.len() {
                    0 => {}
                    n if n < header => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into()),
                    n if n == header => {}
                    _ => return Err(Sense::bad_parameter(header as u16, None).into()),
                }
            }
            Cdb::LogSense { page, subpage, parameter, allocation, .. } => {
                return Ok(Reply::data(self.log_sense(page, subpage, parameter)?, allocation));
            }
            Cdb::LogSelect { length: 0, .. } => {}
            Cdb::LogSelect { .. } => return Err(Sense::bad_cdb_field(7, None).into()),
            _ => return Err(Sense::INVALID_OPERATION_CODE.into()),
        }
        Ok(Reply::Done)
    }

    /// An element of the library, or 05/21/01.
    fn known(&self, address: ElementAddress) -> Result<ElementType, Sense> {
        let element = self.map.element(address).ok_or(Sense::INVALID_ELEMENT_ADDRESS)?;
        Ok(element.kind)
    }

    /// Checks the arm (0 for the default one); no cartridge can be turned over.
    fn arm(&self, transport: ElementAddress, invert: u8, invert_at: u16) -> Result<(), Sense> {
        if invert != 0 {
            let bit = 7 - invert.leading_zeros() as u8;
            return Err(Sense::bad_cdb_field(invert_at, Some(bit)));
        }
        match transport {
            0 => Ok(()),
            arm if self.known(arm)? == ElementType::Transport => Ok(()),
            _ => Err(Sense::INVALID_ELEMENT_ADDRESS),
        }
    }

    /// OPEN/CLOSE IMPORT/EXPORT ELEMENT: there is no door, but a locked one stays shut.
    fn door(&self, element: ElementAddress, action: u8) -> Result<(), Sense> {
        if self.known(element)? != ElementType::ImportExport {
            return Err(Sense::INVALID_ELEMENT_ADDRESS);
        }
        match action {
            0 if self.nexuses.removal_prevented() => Err(Sense::MEDIUM_REMOVAL_PREVENTED),
            0 | 1 => Ok(()),
            _ => Err(Sense::bad_cdb_field(4, Some(4))),
        }
    }

    /// SEND VOLUME TAG with a translate action: looks for tags and remembers what it found.
    fn send_volume_tag(
        &mut self,
        nexus: u64,
        cdb: &Cdb,
        transfer: &Transfer<'_>,
    ) -> Result<(), TapeError> {
        let Cdb::SendVolumeTag { range, action, length } = *cdb else { return Ok(()) };
        if !matches!(action, 0 | 1 | 4 | 5) {
            return Err(Sense::bad_cdb_field(5, Some(4)).into());
        }
        let list = common::parameters(transfer, length.into())?;
        let template = TagTemplate::parse(list).map_err(|_| Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let range = scsi::ElementRange { count: u16::MAX, ..range };
        let mut found = elements::select(&self.inventory(), &range)?;
        found.retain(|element| element.tag.as_deref().is_some_and(|tag| template.matches(tag)));
        self.search = Some(Search { nexus, action, found });
        Ok(())
    }

    /// REQUEST VOLUME ELEMENT ADDRESS: what the initiator's last search found.
    fn found_volumes(
        &mut self,
        nexus: u64,
        tags: bool,
        allocation: u32,
    ) -> Result<Reply, TapeError> {
        let search = self.search.as_ref().filter(|search| search.nexus == nexus);
        let search = search.ok_or(Sense::COMMAND_SEQUENCE_ERROR)?;
        let mut data = ElementReport::encode(&search.found, tags, false);
        data[4] = search.action;
        Ok(Reply::data(data, allocation))
    }

    fn log_sense(&self, code: u8, subpage: u8, first: u16) -> Result<Vec<u8>, Sense> {
        match (code, subpage) {
            (_, 1..) => Err(Sense::bad_cdb_field(3, None)),
            (page::SUPPORTED, _) => Ok(LogPage::supported(&[page::SUPPORTED, page::TAPE_ALERT])),
            (page::TAPE_ALERT, _) => Ok(LogPage::tape_alert(&[]).encode(first)),
            _ => Err(Sense::bad_cdb_field(2, Some(5))),
        }
    }
}
