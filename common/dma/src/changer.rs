//! The SCSI interface, and a medium changer through it.

use bytes::Bytes;
use ndmp::wire::{CdbResult, ExecuteCdb, MessageCode, ReplyBody, Request};
use scsi::{Cdb, ElementDescriptor, ElementRange, ElementReport, Sense, StandardInquiry};

use crate::{Client, DmaError};

/// UNIT ATTENTIONs that may stand in the way of one command.
const ATTENTIONS: usize = 4;
/// `NDMP_SCSI_DATA_IN`.
const DATA_IN: u32 = 1;
/// `NDMP_SCSI_DATA_OUT`.
const DATA_OUT: u32 = 2;
/// The header of READ ELEMENT STATUS data.
const ELEMENT_HEADER: u32 = 8;
/// Milliseconds for a command that moves a cartridge.
const TIMEOUT_MS: u32 = 300_000;

impl Client {
    /// Opens a changer, or a drive, for CDBs.
    pub fn open_scsi(&mut self, device: &str) -> Result<(), DmaError> {
        self.ask_open(device, &Request::ScsiOpen(device.to_owned()))
    }

    /// Closes it.
    pub fn close_scsi(&mut self) -> Result<(), DmaError> {
        self.ask_bare(MessageCode::ScsiClose).map(|_| ())
    }

    /// Sends a CDB and returns what the device answered, whatever that was.
    pub fn execute_cdb(
        &mut self,
        cdb: &[u8],
        data_out: Bytes,
        data_in_max: u32,
    ) -> Result<CdbResult, DmaError> {
        let in_flag = if data_in_max > 0 { DATA_IN } else { 0 };
        let out_flag = if data_out.is_empty() { 0 } else { DATA_OUT };
        let request = ExecuteCdb {
            flags: in_flag | out_flag,
            timeout_ms: TIMEOUT_MS,
            data_in_len: data_in_max,
            cdb: Bytes::copy_from_slice(cdb),
            data_out,
        };
        match self.ask(&Request::ScsiExecuteCdb(request))? {
            ReplyBody::Cdb(result) => Ok(result),
            _ => Err(DmaError::Protocol("NDMP_SCSI_EXECUTE_CDB: no result".to_owned())),
        }
    }

    /// Sends a command without data to the device and returns its data. UNIT ATTENTIONs are
    /// passed over.
    ///
    /// # Errors
    /// [`DmaError::Scsi`] if the device does not answer GOOD.
    pub fn scsi_command(&mut self, cdb: &Cdb, data_in_max: u32) -> Result<Bytes, DmaError> {
        let bytes = cdb.encode();
        let mut attentions = 0;
        loop {
            let result = self.execute_cdb(&bytes, Bytes::new(), data_in_max)?;
            if result.status == 0 {
                return Ok(result.data_in);
            }
            let sense = Sense::parse(&result.sense);
            let attention = sense.as_ref().is_some_and(|sense| sense.key == 0x06);
            if attention && attentions < ATTENTIONS {
                attentions += 1;
                continue;
            }
            let sense = sense.map_or_else(|| "no sense data".to_owned(), |it| it.to_string());
            let command = bytes.first().copied().unwrap_or(0);
            return Err(DmaError::Scsi { command, status: result.status, sense });
        }
    }

    /// Who the open SCSI device is.
    pub fn inquiry(&mut self) -> Result<StandardInquiry, DmaError> {
        let cdb = Cdb::Inquiry { page: None, allocation: 96 };
        let data = self.scsi_command(&cdb, 96)?;
        StandardInquiry::parse(&data).map_err(|error| DmaError::Protocol(error.to_string()))
    }

    /// Every element of the open changer with its volume tag: the size first, then all of it, as
    /// applications do.
    pub fn inventory(&mut self) -> Result<Vec<ElementDescriptor>, DmaError> {
        let read = |allocation| Cdb::ReadElementStatus {
            tags: true,
            identities: true,
            current_data: false,
            range: ElementRange { kind: None, start: 0, count: u16::MAX },
            allocation,
        };
        let parse = |data: &[u8]| {
            ElementReport::parse(data).map_err(|error| DmaError::Protocol(error.to_string()))
        };
        let head = parse(&self.scsi_command(&read(ELEMENT_HEADER), ELEMENT_HEADER)?)?;
        let size = ELEMENT_HEADER.saturating_add(head.byte_count);
        let report = parse(&self.scsi_command(&read(size), size)?)?;
        if report.elements.len() < usize::from(report.available) {
            return Err(DmaError::Protocol("READ ELEMENT STATUS was cut short".to_owned()));
        }
        Ok(report.elements)
    }

    /// The element that holds the cartridge with this volume tag.
    pub fn find_cartridge(&mut self, tag: &str) -> Result<ElementDescriptor, DmaError> {
        let found = self.inventory()?.into_iter().find(|it| it.tag.as_deref() == Some(tag));
        found.ok_or_else(|| DmaError::Invalid(format!("no cartridge {tag} in the library")))
    }

    /// MOVE MEDIUM with the default arm.
    pub fn move_medium(&mut self, from: u16, to: u16) -> Result<(), DmaError> {
        let cdb = Cdb::MoveMedium { transport: 0, source: from, destination: to, invert: false };
        self.scsi_command(&cdb, 0).map(|_| ())
    }

    /// INITIALIZE ELEMENT STATUS.
    pub fn initialize_elements(&mut self) -> Result<(), DmaError> {
        self.scsi_command(&Cdb::InitializeElementStatus, 0).map(|_| ())
    }
}
