//! What a drive tells about itself.

use scsi::log::{LogPage, page};
use scsi::mam::{Attribute, AttributeFormat, id};
use scsi::mode::{ModePage, ModeParameters};
use scsi::{BlockLimits, Density, ModeForm, StandardInquiry, VitalPage};

use super::*;

#[test]
fn inquiry_works_without_a_medium_and_refuses_unknown_pages() {
    let mut drive: Drive = TargetDrive::new(drive_spec(3), Arc::new(MemoryShelf::new()));
    let standard = ask(&mut drive, Cdb::Inquiry { page: None, allocation: 36 }, 36);
    assert_eq!(StandardInquiry::parse(&standard.data).unwrap().product, "ULTRIUM-TD8");
    assert_eq!(ask(&mut drive, Cdb::Inquiry { page: None, allocation: 5 }, 36).data.len(), 5);
    let mut page = |page| {
        let data = ask(&mut drive, Cdb::Inquiry { page: Some(page), allocation: 255 }, 255).data;
        VitalPage::parse(&data).unwrap()
    };
    let VitalPage::Supported(pages) = page(0) else { panic!("no list") };
    for code in pages {
        assert_eq!(page(code).code(), code);
    }
    assert_eq!(page(0x80), VitalPage::SerialNumber("TESTDRIVE3".into()));
    let VitalPage::Identification(list) = page(0x83) else { panic!("no identification") };
    assert_eq!(list[0].t10_parts().unwrap().2, "TESTDRIVE3");
    let wrong = ask(&mut drive, Cdb::Inquiry { page: Some(0xc0), allocation: 255 }, 255);
    assert_eq!(wrong.sense(), Sense::bad_cdb_field(2, None));
}

#[test]
fn limits_densities_and_luns_are_told() {
    let (mut drive, _) = loaded(1 << 30);
    let limits = ask(&mut drive, Cdb::ReadBlockLimits { object_limit: false }, 6).data;
    let limits = BlockLimits::parse(&limits).unwrap();
    assert_eq!((limits.minimum, limits.maximum), (1, MAX_BLOCK));
    let density = Cdb::ReportDensity { medium_types: false, loaded: true, allocation: 999 };
    assert_eq!(Density::parse_report(&ask(&mut drive, density, 999).data).unwrap().len(), 1);
    let luns = Cdb::ReportLuns { select: 0, allocation: 16 };
    assert_eq!(ask(&mut drive, luns, 64).data.len(), 16);
    let query = scsi::OpcodeQuery::All;
    let codes = Cdb::ReportSupportedOpcodes { query, timeouts: true, allocation: 9999 };
    let codes = scsi::parse_supported_opcodes(&ask(&mut drive, codes, 9999).data).unwrap();
    assert!(codes.iter().any(|code| code.opcode == 0x92));
    // What is longer than the host's room shows as a negative residual.
    let cut = ask(&mut drive, Cdb::Inquiry { page: None, allocation: 36 }, 30);
    assert_eq!((cut.data.len(), cut.residual), (30, -6));
}

#[test]
fn a_drive_has_the_density_of_whom_it_claims_to_be() {
    for (name, code, medium_type) in
        [("ibm-ts4500-lto7", 0x5c, 0x78), ("ibm-ts4500-lto9", 0x60, 0x98)]
    {
        let shelf = MemoryShelf::new();
        shelf.add(&barcode("T00001L8"), 1 << 30);
        let identity = Personality::find(name).unwrap().drive("S0".into());
        let spec = DriveSpec { identity, ..drive_spec(0) };
        let mut drive: Drive = TargetDrive::new(spec, Arc::new(shelf));
        drive.insert(&barcode("T00001L8")).unwrap();
        let report = Cdb::ReportDensity { medium_types: false, loaded: true, allocation: 999 };
        let density = Density::parse_report(&ask(&mut drive, report, 999).data).unwrap().remove(0);
        assert_eq!((density.code, density.capacity_mb), (code, 1073));
        let data = mode_sense(&mut drive, ModeForm::Ten, 0, 0x10).data;
        let list = ModeParameters::parse(&data, ModeForm::Ten).unwrap();
        assert_eq!((list.block.unwrap().density, list.medium_type), (code, medium_type));
        // What it tells it takes back, and no other's.
        let mut list = list.clone();
        list.pages.clear();
        assert_eq!(mode_select(&mut drive, &list.encode_select(ModeForm::Ten)), None);
        list.block.as_mut().unwrap().density = 0x5e;
        assert!(mode_select(&mut drive, &list.encode_select(ModeForm::Ten)).is_some());
    }
}

fn mode_sense(drive: &mut Drive, form: ModeForm, control: u8, page: u8) -> Ended {
    let cdb =
        Cdb::ModeSense { form, no_descriptors: false, control, page, subpage: 0, allocation: 250 };
    ask(drive, cdb, 250)
}

fn mode_select(drive: &mut Drive, list: &[u8]) -> Option<Sense> {
    let cdb = Cdb::ModeSelect { form: ModeForm::Ten, length: list.len() as u16 };
    send(drive, cdb, list).sense
}

#[test]
fn modes_are_read_modified_and_written() {
    let (mut drive, shelf) = loaded(1 << 20);
    raw(&mut drive, 2, &[0; 6], 0);
    for form in [ModeForm::Six, ModeForm::Ten] {
        for page in [0x00, 0x01, 0x02, 0x0a, 0x0f, 0x10, 0x11, 0x1c, 0x1d, 0x3f] {
            let data = mode_sense(&mut drive, form, 0, page).data;
            let list = ModeParameters::parse(&data, form).unwrap();
            let expected = match page {
                0x3f => 8,
                0x00 => 0,
                _ => 1,
            };
            assert_eq!(list.pages.len(), expected, "{page:02x}");
            assert_eq!(list.encode(form), data);
        }
    }
    let form = ModeForm::Ten;
    let (no_descriptors, control, allocation) = (true, 0, 250);
    for (page, subpage, count) in [(0x3f, 0xff, 9), (0x10, 0xff, 2), (0x10, 0x01, 1)] {
        let cdb = Cdb::ModeSense { form, no_descriptors, control, page, subpage, allocation };
        let list = ModeParameters::parse(&ask(&mut drive, cdb, 250).data, form).unwrap();
        assert_eq!(list.pages.len(), count, "{page:02x}/{subpage:02x}");
    }
    let all = mode_sense(&mut drive, ModeForm::Ten, 0, 0x3f).data;
    let mut list = ModeParameters::parse(&all, ModeForm::Ten).unwrap();
    assert!(!list.write_protected());
    list.block.as_mut().unwrap().length = 512;
    // Two pages speak of compression: one of them is enough.
    list.pages.retain(|page| page.code != 0x10);
    let compression = list.pages.iter_mut().find(|page| page.code == 0x0f).unwrap();
    compression.data[0] &= 0x7f;
    assert_eq!(mode_select(&mut drive, &list.encode_select(ModeForm::Ten)), None);
    let now = mode_sense(&mut drive, ModeForm::Ten, 0, 0x0f).data;
    let now = ModeParameters::parse(&now, ModeForm::Ten).unwrap();
    assert_eq!((now.block.unwrap().length, now.pages[0].data[0]), (512, 0x40));
    assert_eq!(raw(&mut drive, 2, &[0; 6], 0).sense(), Sense::MODE_PARAMETERS_CHANGED);

    shelf.alter(&barcode("T00001L8"), |tape| tape.write_protected = true);
    let data = mode_sense(&mut drive, ModeForm::Six, 0, 0).data;
    assert!(ModeParameters::parse(&data, ModeForm::Six).unwrap().write_protected());
}

#[test]
fn wrong_modes_are_pointed_at_and_change_nothing() {
    let (mut drive, _) = loaded(1 << 20);
    let six = ModeForm::Six;
    let saved = mode_sense(&mut drive, six, 3, 0x0f).sense();
    assert_eq!(saved, Sense::SAVING_PARAMETERS_NOT_SUPPORTED);
    assert_eq!(mode_sense(&mut drive, six, 0, 0x2a).sense(), Sense::bad_cdb_field(2, Some(5)));
    let block = scsi::mode::BlockDescriptor { density: 0, blocks: 0, length: 0x90_0000 };
    let base = ModeParameters { device_specific: 0x10, ..Default::default() };
    let with_page = |page| ModeParameters { pages: vec![page], ..base.clone() };
    let short = Sense::PARAMETER_LIST_LENGTH_ERROR;
    let mut cut = with_page(scsi::mode::data_compression(true)).encode_select(ModeForm::Ten);
    cut.pop();
    for (list, sense) in [
        (vec![0; 7], short),
        (cut, short),
        (
            ModeParameters { device_specific: 0x20, ..base.clone() }.encode_select(ModeForm::Ten),
            Sense::bad_parameter(3, Some(6)),
        ),
        (
            ModeParameters { block: Some(block), ..base.clone() }.encode_select(ModeForm::Ten),
            Sense::bad_parameter(13, None),
        ),
        (
            with_page(ModePage::new(0x2a, [0; 4])).encode_select(ModeForm::Ten),
            Sense::bad_parameter(8, Some(5)),
        ),
        (
            with_page(scsi::mode::medium_configuration(true)).encode_select(ModeForm::Ten),
            Sense::bad_parameter(10, None),
        ),
    ] {
        assert_eq!(mode_select(&mut drive, &list), Some(sense), "{list:02x?}");
    }
    let data = mode_sense(&mut drive, six, 0, 0).data;
    let now = ModeParameters::parse(&data, six).unwrap();
    assert_eq!(now.block.unwrap().length, 0);
}

#[test]
fn log_pages_count_and_alerts_clear() {
    let (mut drive, _) = loaded(1 << 30);
    write(&mut drive, &[1; 5000]);
    let log = |drive: &mut Drive, page| {
        let (control, subpage, parameter, allocation) = (1, 0, 0, 4000);
        let cdb = Cdb::LogSense { control, page, subpage, parameter, allocation };
        ask(drive, cdb, 4000).data
    };
    let supported = LogPage::parse_supported(&log(&mut drive, 0)).unwrap();
    for code in &supported[1..] {
        let page = LogPage::parse(&log(&mut drive, *code)).unwrap();
        assert_eq!(page.code, *code);
        assert!(!page.parameters.is_empty());
        assert_eq!(page.encode(0), log(&mut drive, *code));
    }
    let sequential = LogPage::parse(&log(&mut drive, page::SEQUENTIAL_ACCESS)).unwrap();
    assert_eq!(sequential.number(0), Some(5000));
    let capacity = LogPage::parse(&log(&mut drive, page::TAPE_CAPACITY)).unwrap();
    assert_eq!(capacity.number(3), Some(1023));
    let wrong = Cdb::LogSense { control: 1, page: 0x33, subpage: 0, parameter: 0, allocation: 9 };
    assert_eq!(ask(&mut drive, wrong, 9).sense(), Sense::bad_cdb_field(2, Some(5)));
}

fn attributes(drive: &mut Drive, action: u8, first: u16) -> Vec<u8> {
    let cdb = Cdb::ReadAttribute { action, partition: 0, first, allocation: 4096 };
    ask(drive, cdb, 4096).data
}

fn write_attributes(drive: &mut Drive, list: &[Attribute]) -> Option<Sense> {
    let list = Attribute::encode_list(list);
    let length = list.len() as u32;
    send(drive, Cdb::WriteAttribute { write_through: false, partition: 0, length }, &list).sense
}

#[test]
fn cartridge_memory_is_read_and_written() {
    let (mut drive, shelf) = loaded(1 << 30);
    let list = Attribute::parse_list(&attributes(&mut drive, 0, 0)).unwrap();
    let value = |id| list.iter().find(|a| a.id == id).unwrap().value.clone();
    assert_eq!(value(id::MAXIMUM_CAPACITY), 1023u64.to_be_bytes());
    assert_eq!(value(id::BARCODE), *b"T00001L8                        ");
    assert!(list.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(attributes(&mut drive, 1, 0).len(), 4 + 2 * list.len());

    let label = |value: &[u8]| Attribute {
        id: id::TEXT_LABEL,
        read_only: false,
        format: AttributeFormat::Text,
        value: value.to_vec(),
    };
    assert_eq!(write_attributes(&mut drive, &[label(b"hello")]), None);
    let from_label = attributes(&mut drive, 0, id::TEXT_LABEL);
    assert_eq!(Attribute::parse_list(&from_label).unwrap()[0], label(b"hello"));
    assert_eq!(shelf.tape(&barcode("T00001L8")).unwrap().attributes.len(), 1);
    assert_eq!(write_attributes(&mut drive, &[label(b"")]), None);
    assert!(shelf.tape(&barcode("T00001L8")).unwrap().attributes.is_empty());

    let unknown = Attribute { id: id::LOAD_COUNT, ..label(b"x") };
    let refused = write_attributes(&mut drive, &[label(b"x"), unknown]);
    assert_eq!(refused, Some(Sense::bad_parameter(10, None)));
    assert_eq!(
        write_attributes(&mut drive, &[label(&[b'x'; 161])]),
        Some(Sense::bad_parameter(7, None))
    );
    let binary = Attribute { format: AttributeFormat::Binary, ..label(b"x") };
    assert_eq!(write_attributes(&mut drive, &[binary]), Some(Sense::bad_parameter(6, Some(1))));
    assert!(shelf.tape(&barcode("T00001L8")).unwrap().attributes.is_empty());
}
