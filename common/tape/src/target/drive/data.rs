//! What a drive tells about itself and its medium: limits, densities, mode and log pages, medium
//! auxiliary memory.

use scsi::log::{LogPage, LogParameter, page};
use scsi::mam::{Attribute, AttributeFormat, HOST_ATTRIBUTES, id};
use scsi::mode::{self, BlockDescriptor, ModePage, ModeParameters};
use scsi::{BlockLimits, Cdb, Density, MediumType, ModeForm, Sense};

use super::{Settings, TargetDrive};
use crate::TapeError;
use crate::target::answer::{Reply, Transfer};
use crate::target::{Format, MAX_BLOCK, Medium, common};

const LOG_PAGES: [u8; 8] = [
    page::SUPPORTED,
    page::WRITE_ERRORS,
    page::READ_ERRORS,
    page::SEQUENTIAL_ACCESS,
    page::DEVICE_STATUS,
    page::VOLUME_STATISTICS,
    page::TAPE_ALERT,
    page::TAPE_CAPACITY,
];

const MIB: u64 = 1 << 20;

impl<M: Medium> TargetDrive<M> {
    /// Commands that carry data but no records.
    pub(super) fn data_command(
        &mut self,
        nexus: u64,
        cdb: &Cdb,
        transfer: &mut Transfer<'_>,
    ) -> Result<Reply, TapeError> {
        match *cdb {
            Cdb::ReadBlockLimits { object_limit: false } => {
                let limits = BlockLimits { granularity: 0, maximum: MAX_BLOCK, minimum: 1 };
                Ok(Reply::Data(limits.encode()))
            }
            Cdb::ReadBlockLimits { object_limit: true } => {
                let mut data = vec![0; 20];
                data[12..].copy_from_slice(&u64::MAX.to_be_bytes());
                Ok(Reply::Data(data))
            }
            Cdb::ReportDensity { medium_types, loaded, allocation } => {
                if loaded {
                    self.ready()?;
                }
                if medium_types {
                    let types = [self.format().medium()];
                    return Ok(Reply::data(MediumType::encode_report(&types), allocation));
                }
                Ok(Reply::data(Density::encode_report(&[self.density()]), allocation))
            }
            Cdb::ModeSense { form, no_descriptors, control, page, subpage, allocation } => {
                let data = self.mode_sense(form, no_descriptors, control, page, subpage)?;
                Ok(Reply::data(data, allocation))
            }
            Cdb::ModeSelect { form, length } => {
                let list = common::parameters(transfer, length.into())?;
                self.mode_select(nexus, form, list)
            }
            Cdb::LogSense { page, subpage, parameter, allocation, .. } => {
                Ok(Reply::data(self.log_sense(page, subpage, parameter)?, allocation))
            }
            Cdb::LogSelect { reset, length, .. } => {
                if length != 0 {
                    return Err(Sense::bad_cdb_field(7, None).into());
                }
                if reset {
                    self.counters = super::Counters::default();
                }
                Ok(Reply::Done)
            }
            Cdb::AllowOverwrite { mode, partition, object } => {
                self.allow_overwrite(mode, partition, object).map(|()| Reply::Done)
            }
            Cdb::ReadAttribute { action, partition, first, allocation } => {
                let data = self.read_attribute(action, partition, first)?;
                Ok(Reply::data(data, allocation))
            }
            Cdb::WriteAttribute { partition, length, .. } => {
                if partition != 0 {
                    return Err(Sense::bad_cdb_field(7, None).into());
                }
                let list = common::parameters(transfer, length as usize)?;
                self.write_attribute(list)
            }
            _ => Err(Sense::INVALID_OPERATION_CODE.into()),
        }
    }

    /// What its tapes are, by whom the drive claims to be.
    fn format(&self) -> Format {
        Format::of(&self.spec.identity)
    }

    fn density(&self) -> Density {
        self.format().density(self.medium.as_ref().map(Medium::capacity))
    }

    fn mode_pages(&self) -> Vec<ModePage> {
        vec![
            mode::error_recovery(),
            mode::disconnect_reconnect(),
            mode::control(),
            mode::data_compression(self.settings.compression),
            mode::device_configuration(self.settings.compression),
            mode::device_configuration_extension(self.settings.append_only),
            mode::medium_partition(),
            mode::informational_exceptions(),
            mode::medium_configuration(false),
        ]
    }

    fn mode_sense(
        &self,
        form: ModeForm,
        no_descriptors: bool,
        control: u8,
        page: u8,
        subpage: u8,
    ) -> Result<Vec<u8>, Sense> {
        if control == 3 {
            return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED);
        }
        let mut pages = self.mode_pages();
        // FFh: with all subpages.
        pages.retain(|it| it.subpage == subpage || subpage == 0xff);
        match page {
            0x3f => {}
            // Page 00h alone asks for header and block descriptor.
            0x00 => pages.clear(),
            _ => pages.retain(|p| p.code == page),
        }
        if pages.is_empty() && page != 0x00 {
            let is_known = self.mode_pages().iter().any(|it| it.code == page);
            let wrong = if is_known { (3, None) } else { (2, Some(5)) };
            return Err(Sense::bad_cdb_field(wrong.0, wrong.1));
        }
        if page == 0x00 && !matches!(subpage, 0x00 | 0xff) {
            return Err(Sense::bad_cdb_field(3, None));
        }
        if control == 1 {
            pages.iter_mut().for_each(changeable);
        }
        let loaded = self.medium.as_ref();
        let protected = loaded.is_some_and(Medium::write_protected);
        let format = self.format();
        let density = if loaded.is_some() { format.density } else { 0 };
        let block = match control {
            1 => BlockDescriptor { density: 0, blocks: 0, length: 0xff_ffff },
            2 => BlockDescriptor { density, blocks: 0, length: 0 },
            _ => BlockDescriptor { density, blocks: 0, length: self.settings.block_length },
        };
        let parameters = ModeParameters {
            medium_type: if loaded.is_some() { format.medium_type } else { 0 },
            device_specific: u8::from(protected) << 7 | u8::from(self.settings.buffered) << 4,
            block: (!no_descriptors).then_some(block),
            pages,
        };
        Ok(parameters.encode(form))
    }

    fn mode_select(&mut self, nexus: u64, form: ModeForm, list: &[u8]) -> Result<Reply, TapeError> {
        if list.is_empty() {
            return Ok(Reply::Done);
        }
        let bad = |_| Sense::PARAMETER_LIST_LENGTH_ERROR;
        let parameters = ModeParameters::parse(list, form).map_err(bad)?;
        // What does not read back whole holds a page that was cut.
        if parameters.encode_select(form).len() != list.len() {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let (header, specific) = if form == ModeForm::Six { (4, 2) } else { (8, 3) };
        let mut settings = self.settings;
        settings.buffered = match parameters.device_specific >> 4 & 7 {
            0 => false,
            1 => true,
            _ => return Err(Sense::bad_parameter(specific, Some(6)).into()),
        };
        if let Some(block) = parameters.block {
            if !(matches!(block.density, 0 | 0x7f) || block.density == self.format().density) {
                return Err(Sense::bad_parameter(header, None).into());
            }
            if block.length > MAX_BLOCK {
                return Err(Sense::bad_parameter(header + 5, None).into());
            }
            settings.block_length = block.length;
        }
        let mut at = header + if parameters.block.is_some() { 8 } else { 0 };
        for page in &parameters.pages {
            self.select_page(page, at, &mut settings)?;
            at += page.data.len() as u16 + if page.subpage == 0 { 2 } else { 4 };
        }
        if !settings.buffered {
            self.flush()?;
        }
        self.settings = settings;
        self.nexuses.raise(Sense::MODE_PARAMETERS_CHANGED, Some(nexus));
        Ok(Reply::Done)
    }

    /// Checks a page of MODE SELECT that begins at byte `at`: only changeable bits may differ.
    /// Takes over what it asks for.
    fn select_page(&self, page: &ModePage, at: u16, settings: &mut Settings) -> Result<(), Sense> {
        let own = self.mode_pages();
        let is_same = |own: &&ModePage| (own.code, own.subpage) == (page.code, page.subpage);
        let header = if page.subpage == 0 { 2 } else { 4 };
        let current = own.iter().find(is_same);
        let current = current.ok_or(Sense::bad_parameter(at, Some(5)))?;
        if page.data.len() != current.data.len() {
            return Err(Sense::bad_parameter(at + header - 1, None));
        }
        let mut mask = current.clone();
        changeable(&mut mask);
        let pairs = page.data.iter().zip(&current.data).zip(&mask.data);
        for (index, ((wanted, now), mask)) in pairs.enumerate() {
            if (wanted ^ now) & !mask != 0 {
                return Err(Sense::bad_parameter(at + header + index as u16, None));
            }
        }
        match (page.code, page.subpage) {
            (0x0f, 0) => settings.compression = page.data[0] & 0x80 != 0,
            (0x10, 0) => settings.compression = page.data[12] != 0,
            (0x10, 1) => settings.append_only = page.data[1] != 0,
            _ => {}
        }
        Ok(())
    }

    fn log_sense(&mut self, code: u8, subpage: u8, first: u16) -> Result<Vec<u8>, Sense> {
        if subpage != 0 {
            return Err(Sense::bad_cdb_field(3, None));
        }
        if !LOG_PAGES.contains(&code) {
            return Err(Sense::bad_cdb_field(2, Some(5)));
        }
        let parameters = match code {
            page::SUPPORTED => return Ok(LogPage::supported(&LOG_PAGES)),
            page::TAPE_ALERT => {
                let mut raised = std::mem::take(&mut self.counters.alerts);
                raised.extend(self.faults.raised());
                return Ok(LogPage::tape_alert(&raised).encode(first));
            }
            page::WRITE_ERRORS => {
                error_counters(self.counters.bytes_written, self.counters.write_errors)
            }
            page::READ_ERRORS => {
                error_counters(self.counters.bytes_read, self.counters.read_errors)
            }
            page::SEQUENTIAL_ACCESS => self.sequential_access(),
            page::DEVICE_STATUS => self.device_status(),
            page::VOLUME_STATISTICS => self.volume_statistics(),
            _ => self.tape_capacity(),
        };
        Ok(LogPage { code, parameters }.encode(first))
    }

    fn sequential_access(&self) -> Vec<LogParameter> {
        let Extent { used, recorded, warning, capacity } = self.extent();
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let (written, read) = (self.counters.bytes_written, self.counters.bytes_read);
        [
            (0x0000, written),
            (0x0001, written),
            (0x0002, read),
            (0x0003, read),
            (0x0004, megabytes(recorded)),
            (0x0005, megabytes(warning)),
            (0x0006, megabytes(capacity - warning)),
            (0x0007, megabytes(used)),
            (0x0008, megabytes(self.buffered.1)),
            (0x0100, 0),
        ]
        .map(|(code, value)| LogParameter::counter(code, 8, value))
        .into()
    }

    /// Very high frequency data (SSC-4 8.3.3.2): what is in the drive and what it does.
    fn device_status(&self) -> Vec<LogParameter> {
        let present = u64::from(self.cartridge.is_some());
        let threaded = u64::from(self.medium.is_some());
        let protected = u64::from(self.medium.as_ref().is_some_and(Medium::write_protected));
        let prevented = u64::from(self.nexuses.removal_prevented());
        let flags = prevented << 31 | protected << 28 | threaded << 20;
        let flags = flags | present << 18 | threaded << 17 | threaded << 16;
        vec![LogParameter::binary(0x0000, 4, flags)]
    }

    fn volume_statistics(&self) -> Vec<LogParameter> {
        let mut list = vec![LogParameter::binary(0x0000, 1, u64::from(self.medium.is_some()))];
        let Some(medium) = &self.medium else { return list };
        let Extent { recorded, warning, .. } = self.extent();
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let stored = medium.attribute(id::LOAD_COUNT).unwrap_or_default();
        let loads = stored.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b));
        let counters = [
            (0x0001, loads.max(self.counters.loads)),
            (0x0004, self.counters.write_errors),
            (0x0009, self.counters.read_errors),
            (0x000e, megabytes(self.counters.bytes_written)),
            (0x000f, megabytes(self.counters.bytes_read)),
            (0x0016, megabytes(warning)),
            (0x0017, megabytes(recorded)),
        ];
        list.extend(counters.map(|(code, value)| LogParameter::counter(code, 8, value)));
        list.push(LogParameter::text(0x0040, medium.barcode().as_str()));
        list.push(LogParameter::binary(0x0080, 1, u64::from(medium.write_protected())));
        list.push(LogParameter::binary(0x0081, 1, 0));
        // Partition record: length, reserved, partition number, megabytes to early warning.
        let left = u32::try_from(megabytes(warning.saturating_sub(recorded))).unwrap_or(u32::MAX);
        let record = [&[7, 0, 0, 0][..], &left.to_be_bytes()].concat();
        list.push(LogParameter { code: 0x0204, control: 0x03, value: record });
        list
    }

    fn tape_capacity(&self) -> Vec<LogParameter> {
        let Extent { recorded, warning, .. } = self.extent();
        let remaining = warning.saturating_sub(recorded) / MIB;
        [(1, remaining), (2, 0), (3, warning / MIB), (4, 0)]
            .map(|(code, value)| LogParameter::counter(code, 4, value))
            .into()
    }

    fn extent(&self) -> Extent {
        match &self.medium {
            None => Extent::default(),
            Some(medium) => Extent {
                used: medium.used(),
                recorded: medium.recorded(),
                warning: self.warning_at(),
                capacity: medium.capacity(),
            },
        }
    }

    /// Every attribute there is, ascending: what the drive knows and what the host stored.
    fn attributes(&self) -> Vec<Attribute> {
        use AttributeFormat::{Ascii, Binary};
        let Some(medium) = &self.medium else { return Vec::new() };
        let Extent { recorded, warning, .. } = self.extent();
        let loads = medium.attribute(id::LOAD_COUNT);
        let loads = loads.unwrap_or_else(|| self.counters.loads.to_be_bytes().to_vec());
        let mut label = medium.barcode().as_str().as_bytes().to_vec();
        label.resize(32, b' ');
        let mib = |bytes: u64| (bytes / MIB).to_be_bytes().to_vec();
        let own = [
            (id::REMAINING_CAPACITY, Binary, mib(warning.saturating_sub(recorded))),
            (id::MAXIMUM_CAPACITY, Binary, mib(warning)),
            (id::TAPE_ALERT, Binary, vec![0; 8]),
            (id::LOAD_COUNT, Binary, loads),
            (id::ORGANISATION, Ascii, b"LTO-CVE ".to_vec()),
            (id::FORMATTED_DENSITY, Binary, vec![self.format().density]),
            (id::MANUFACTURER, Ascii, b"TWINREEL".to_vec()),
            (id::SERIAL_NUMBER, Ascii, label.clone()),
            (id::DENSITY, Binary, vec![self.format().density]),
            (id::MEDIUM_TYPE, Binary, vec![0]),
        ];
        let own = own.into_iter().map(|(id, format, value)| Attribute {
            id,
            read_only: true,
            format,
            value,
        });
        let stored = HOST_ATTRIBUTES.iter().filter_map(|(id, format, _)| {
            let known = (*id == id::BARCODE).then(|| label.clone());
            let value = medium.attribute(*id).or(known)?;
            Some(Attribute { id: *id, read_only: false, format: *format, value })
        });
        own.chain(stored).collect()
    }

    fn read_attribute(
        &mut self,
        action: u8,
        partition: u8,
        first: u16,
    ) -> Result<Vec<u8>, TapeError> {
        self.ready()?;
        if partition != 0 {
            return Err(Sense::bad_cdb_field(7, None).into());
        }
        let from_first = |attribute: &Attribute| attribute.id >= first;
        let list: Vec<_> = self.attributes().into_iter().filter(from_first).collect();
        Ok(match action {
            0 => Attribute::encode_list(&list),
            1 => Attribute::encode_ids(&list.iter().map(|a| a.id).collect::<Vec<_>>()),
            // One logical volume and one partition, both number 0.
            2 | 3 => vec![0, 2, 0, 1],
            _ => {
                let hosts = HOST_ATTRIBUTES.iter().map(|(id, _, _)| *id).filter(|id| *id >= first);
                let own = list.iter().filter(|a| a.read_only).map(|a| a.id);
                Attribute::encode_ids(&own.chain(hosts).collect::<Vec<_>>())
            }
        })
    }

    /// WRITE ATTRIBUTE: all of the list or nothing.
    fn write_attribute(&mut self, list: &[u8]) -> Result<Reply, TapeError> {
        self.writable()?;
        if list.is_empty() {
            return Ok(Reply::Done);
        }
        let list = Attribute::parse_list(list).map_err(|_| Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let mut at = 4;
        for attribute in &list {
            let known = HOST_ATTRIBUTES.iter().find(|(id, _, _)| *id == attribute.id);
            let (_, format, longest) = known.ok_or(Sense::bad_parameter(at, None))?;
            if attribute.format != *format {
                return Err(Sense::bad_parameter(at + 2, Some(1)).into());
            }
            if attribute.value.len() > *longest {
                return Err(Sense::bad_parameter(at + 3, None).into());
            }
            at = at.saturating_add(5 + attribute.value.len() as u16);
        }
        for attribute in &list {
            let stored = self.writable()?.set_attribute(attribute.id, &attribute.value);
            stored.map_err(|error| self.write_failed(&error))?;
        }
        Ok(Reply::Done)
    }
}

/// Where the medium's data, warning and end are, in bytes from BOT.
#[derive(Default)]
struct Extent {
    used: u64,
    recorded: u64,
    warning: u64,
    capacity: u64,
}

/// Turns a page into the mask of its changeable bits: compression on and off, append-only.
fn changeable(page: &mut ModePage) {
    let (at, mask) = match (page.code, page.subpage) {
        (0x0f, 0) => (0, 0x80),
        (0x10, 0) => (12, 0xff),
        (0x10, 1) => (1, 0x10),
        _ => (usize::MAX, 0),
    };
    page.data.iter_mut().enumerate().for_each(|(i, b)| *b = if i == at { mask } else { 0 });
}

fn error_counters(bytes: u64, errors: u64) -> Vec<LogParameter> {
    let counter = |(code, value)| LogParameter::counter(code, 8, value);
    [(3, 0), (4, 0), (5, bytes), (6, errors)].map(counter).into()
}
