//! What a backup application wrote on a virtual tape stands on the physical tape after a copy:
//! record for record, filemark for filemark, by the account of independent code.

use bytes::Bytes;
use dma::Version;
use dma::copy::{CopyPlan, CopyReport, Part, Unattended, What, copy};
use svs::{CopyPath, JobState};
use tests::{Content, Item, Object, Operator, Pair, Rng, Role, Scratch, Texture, read_tape, seed};

/// One way a tape can look, and how it is copied.
struct Case {
    name: &'static str,
    items: Vec<Item>,
    plan: CopyPlan,
    /// What must stand on the target; the items themselves if the copy does not change records.
    expected: Option<Vec<Object>>,
}

fn plan(what: What) -> CopyPlan {
    CopyPlan { what, patience: tests::wait::PATIENCE, ..CopyPlan::default() }
}

fn everything(headers: u32) -> CopyPlan {
    plan(What::Everything { headers })
}

/// A file of `count` records of `size` bytes and its filemark.
fn file(rng: &mut Rng, size: usize, count: usize) -> Vec<Item> {
    let texture = *rng.pick(&[Texture::Incompressible, Texture::Compressible, Texture::Zero]);
    let data = Content::new(texture, rng.next_u64(), (size * count) as u64).to_vec();
    let records = data.chunks(size).map(|r| Item::Record(r.to_vec()));
    records.chain([Item::Filemark]).collect()
}

/// Files of records of one size each, from 512 bytes to 1 MiB, with a label as applications write.
fn sizes(rng: &mut Rng) -> Case {
    let mut items = file(rng, 32_768, 1);
    for size in [512, 1024, 10_240, 32_768, 65_536, 262_144, 1 << 20] {
        items.extend(file(rng, size, (3 << 20) / size + 1));
    }
    Case { name: "block sizes", items, plan: everything(0), expected: None }
}

/// Headers of one size before data of another, as Amanda writes its parts.
fn headers(rng: &mut Rng) -> Case {
    let mut items = Vec::new();
    for _ in 0..4 {
        items.push(Item::Record(rng.bytes(32_768)));
        let size = *rng.pick(&[4096, 65_536]);
        items.extend(file(rng, size, 20));
    }
    Case { name: "headers and data", items, plan: everything(1), expected: None }
}

/// Records of all lengths in one file: copied one by one.
fn mixed(rng: &mut Rng) -> Case {
    let mut items: Vec<Item> = (0..60)
        .map(|_| {
            let length = match rng.below(4) {
                0 => rng.between(1, 600),
                1 => rng.between(512, 70_000),
                2 => 1 << rng.between(9, 20),
                _ => 10_240,
            };
            Item::Record(rng.bytes(length as usize))
        })
        .collect();
    for place in [50, 31, 7] {
        items.insert(place, Item::Filemark);
    }
    items.push(Item::Filemark);
    Case { name: "mixed records", items, plan: plan(What::RecordByRecord), expected: None }
}

/// Empty files at the beginning, in the middle and at the end.
fn empty(rng: &mut Rng) -> Case {
    let mut items = vec![Item::Filemark];
    items.extend(file(rng, 10_240, 5));
    items.extend([Item::Filemark, Item::Filemark]);
    items.extend(file(rng, 512, 9));
    items.push(Item::Filemark);
    Case { name: "empty files", items, plan: everything(0), expected: None }
}

/// Sections whose length the catalogue knows, some of them nothing.
fn sections(rng: &mut Rng) -> Case {
    let (size, counts) = (10_240, [0, 7, 0, 0, 30]);
    let items: Vec<Item> = counts.iter().flat_map(|count| file(rng, size, *count)).collect();
    let part = |count: &usize| Part { headers: 0, length: Some((count * size) as u64) };
    let parts = counts.iter().map(part).collect();
    let plan = CopyPlan { record_size: Some(size as u32), ..plan(What::Parts(parts)) };
    Case { name: "zero-length sections", items, plan, expected: None }
}

/// The same bytes in records of another size; the last one is filled up with zeros.
fn reblocked(rng: &mut Rng, from: usize, to: usize) -> Case {
    let items = file(rng, from, 100);
    let records = items.iter().filter_map(|item| match item {
        Item::Record(bytes) => Some(bytes.as_slice()),
        Item::Filemark => None,
    });
    let mut bytes = records.collect::<Vec<_>>().concat();
    bytes.resize(bytes.len().next_multiple_of(to), 0);
    let records = bytes.chunks(to).map(Object::record);
    let expected = Some(records.chain([Object::Filemark]).collect());
    let plan = CopyPlan { target_record_size: Some(to as u32), ..everything(0) };
    Case { name: "re-blocking", items, plan, expected }
}

fn cases(rng: &mut Rng) -> Vec<Case> {
    vec![
        sizes(rng),
        headers(rng),
        mixed(rng),
        empty(rng),
        sections(rng),
        reblocked(rng, 10_240, 65_536),
        reblocked(rng, 65_536, 512),
        reblocked(rng, 7000, 32_768),
    ]
}

/// Copies from one drive to another by the plan, both from the beginning of the tape.
fn run_copy(operator: &Operator, source: &str, target: &str, plan: &CopyPlan) -> CopyReport {
    let (mut from, mut to) = (operator.tape(source), operator.tape(target));
    from.rewind().expect("the source rewinds");
    to.rewind().expect("the target rewinds");
    let report = copy(&mut from, &mut to, plan, &mut Unattended).expect("the copy succeeds");
    to.close_tape().expect("the target closes");
    from.close_tape().expect("the source closes");
    report
}

/// Every case, each from a virtual cartridge of its own to a cartridge of `library`, whose files
/// are in `files`; the numbers of both are counted from 1.
fn all_cases(operator: &Operator, library: &str, files: &std::path::Path, prefix: &str) {
    let mut rng = Rng::new(seed("records")).fork(&operator.version().to_string());
    for (i, case) in cases(&mut rng).into_iter().enumerate() {
        println!("{}", case.name);
        let (from, to) = (format!("VTA{:03}L8", i + 1), format!("{prefix}{:03}L8", i + 1));
        operator.load("vtl0", &from, 0);
        operator.load(library, &to, 0);
        operator.write("vtl0/drive0", &case.items);
        let written: Vec<Object> = case.items.iter().map(Item::object).collect();
        assert_eq!(operator.read("vtl0/drive0"), written, "{}: the virtual tape", case.name);

        run_copy(operator, "vtl0/drive0", &format!("{library}/drive0"), &case.plan);
        operator.unload(library, 0);
        operator.unload("vtl0", 0);
        let expected = case.expected.unwrap_or(written);
        assert_eq!(read_tape(files, &to), expected, "{}: the physical tape", case.name);
    }
}

#[test]
fn a_copy_to_a_library_of_this_site_needs_no_link() {
    let scratch = Scratch::new("local-copy");
    let mut pair = Pair::new(&scratch, |local, _| {
        more_cartridges(local, "virtual_library");
        let library = "name = \"ptl1\"\nbackend = \"file\"\npath = \"ptl1\"\ndrives = 1\n\
                       slots = 16\ncapacity = \"1GiB\"\n\
                       cartridges = { prefix = \"PTB\", count = 12 }";
        let library: toml::Table = library.parse().expect("a table");
        local.insert("physical_library".into(), vec![toml::Value::Table(library)].into());
    });
    // The remote engine is never started. A drive tells every new session of its power on.
    pair.local.allow("the remote can not be reached");
    pair.local.allow("sense 06/29/00");
    pair.local.run();
    let operator = Operator::of(&pair);
    all_cases(&operator, "ptl1", &pair.directory().join("ptl1"), "PTB");
    all_done(&pair, CopyPath::Moved);
}

/// Every copy has a row that says so.
fn all_done(pair: &Pair, path: CopyPath) {
    let jobs = pair.copies(Role::Local);
    assert!(jobs.len() >= 7, "{jobs:#?}");
    for job in jobs {
        let good = job.state == JobState::Done && job.path == Some(path);
        assert!(good && job.path_reason.is_some() && job.ended.is_some(), "{job:#?}");
    }
}

/// Room and cartridges for every case.
fn more_cartridges(config: &mut toml::Table, libraries: &str) {
    let library = config[libraries].as_array_mut().and_then(|l| l.first_mut());
    let library = library.and_then(toml::Value::as_table_mut).expect("init writes one");
    library.insert("slots".into(), 16.into());
    library["cartridges"]["count"] = 12.into();
}

#[test]
fn a_copy_to_a_ghost_library_is_record_for_record() {
    let scratch = Scratch::new("ghost-copy");
    let mut pair = Pair::new(&scratch, |local, remote| {
        more_cartridges(local, "virtual_library");
        more_cartridges(remote, "physical_library");
    });
    pair.local.allow("sense 06/29/00");
    pair.run();
    let operator = Operator::of(&pair);
    operator.wait_for("dr-ptl0");
    all_cases(&operator, "dr-ptl0", &pair.ghost_files(), "PTA");
    // The same tapes again, overwritten, in the other version that can copy.
    all_cases(&operator.speaking(Version::V3), "dr-ptl0", &pair.ghost_files(), "PTA");
    all_done(&pair, CopyPath::Offloaded);
}

#[test]
fn a_label_read_back_from_a_ghost_tape_is_the_one_written() {
    let scratch = Scratch::new("ghost-label");
    let mut pair = Pair::new(&scratch, |_, _| {});
    pair.local.allow("sense 06/29/00");
    pair.run();
    let operator = Operator::of(&pair);
    operator.wait_for("dr-ptl0");
    operator.load("dr-ptl0", "PTA001L8", 1);
    let label = [Item::Record(vec![b'L'; 32_768]), Item::Filemark];
    operator.write("dr-ptl0/drive1", &label);
    assert_eq!(operator.read("dr-ptl0/drive1"), label.each_ref().map(Item::object));
    let mut tape = operator.tape("dr-ptl0/drive1");
    tape.rewind().expect("the tape rewinds");
    tape.write_block(Bytes::from_static(b"another")).expect("it is overwritten");
    tape.close_tape().expect("the drive closes");
    operator.unload("dr-ptl0", 1);
    let expected = [Object::record(b"another"), Object::Filemark];
    assert_eq!(read_tape(&pair.ghost_files(), "PTA001L8"), expected);
}
