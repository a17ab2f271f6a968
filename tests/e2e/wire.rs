//! What crosses the WAN, counted by a relay between the engines and not by the engines.

use dma::Version;
use dma::copy::{CopyPlan, Part, Unattended, What, copy};
use dma::data::{OneTape, backup};
use svs::{CopyPath, JobState};
use tests::wait::PATIENCE;
use tests::{
    Content, Direction, Object, Operator, Pair, Rng, Role, Scratch, Texture, full, read_tape, seed,
};

use crate::scene::{RECORD, SOURCE, Scene, TAPES, TARGET, VIRTUAL};

/// Bytes of a part of a copy.
const PART: u64 = 64 << 20;
/// Bytes of the header before each part.
const HEADER: usize = 32 << 10;

/// Writes `content` as a new tape of the first virtual cartridge, unloads it, waits until the other
/// site has it, and tells what that cost on the wire, both ways.
fn backup_and_replicate(pair: &Pair, operator: &Operator, content: &Content) -> u64 {
    let before = pair.relay.total();
    operator.load("vtl0", "VTA001L8", 0);
    assert_eq!(operator.backup("vtl0/drive0", 65_536, content.reader()), content.length());
    operator.unload("vtl0", 0);
    pair.wait_replicated("VTA001L8");
    pair.relay.total() - before
}

#[test]
fn a_second_generation_costs_what_changed_in_it() {
    let scratch = Scratch::new("wire");
    let seed = seed("a_second_generation_costs_what_changed_in_it");
    let mut pair = Pair::new(&scratch, |_, _| {});
    pair.run();
    let operator = Operator::of(&pair);

    let first = Content::new(Texture::Incompressible, seed, full(1 << 30, 4 << 30));
    let cost = backup_and_replicate(&pair, &operator, &first);
    println!("first generation: {} bytes, {cost} on the wire", first.length());
    assert!(cost >= first.length(), "less than the data itself: is the relay in between?");
    assert!(cost < first.length() + first.length() / 20, "{cost} for {}", first.length());

    let second = first.edited(64, 8, seed);
    let cost = backup_and_replicate(&pair, &operator, &second);
    println!("second generation: {} bytes, {cost} on the wire", second.length());
    assert!(cost <= 16 << 20, "the second generation cost {cost} bytes on the wire");
    assert!(pair.relay.bytes(Direction::Down) > 0);
    let status = pair.cartridge(Role::Local, "VTA001L8");
    assert_eq!(status.logical_bytes, Some(second.length().next_multiple_of(65_536)));
    assert!(status.wire_bytes.is_some_and(|bytes| bytes <= cost), "{status:?}, relay: {cost}");
}

/// Writes parts to a tape as a backup application does, each a header, the data and a filemark.
/// What is on the tape then.
fn write_parts(operator: &Operator, parts: u64, rng: &mut Rng) -> Vec<Object> {
    let (mut tape, mut objects) = (operator.tape(SOURCE), Vec::new());
    tape.rewind().expect("the tape rewinds");
    for _ in 0..parts {
        let header = rng.bytes(HEADER);
        let data = Content::new(Texture::Incompressible, rng.next_u64(), PART);
        objects.push(Object::record(&header));
        objects.extend(data.to_vec().chunks(RECORD).map(Object::record));
        objects.push(Object::Filemark);
        tape.write_block(header.into()).expect("the header is written");
        let sent = backup(&mut tape, RECORD as u32, &mut data.reader(), &mut OneTape);
        assert_eq!(sent.expect("the part is written"), PART);
        tape.write_filemarks(1).expect("the filemark is written");
    }
    tape.close_tape().expect("the drive closes");
    objects
}

/// Copies the parts from mover to mover, the headers by TAPE_WRITE, a window for each part.
fn copy_parts(operator: &Operator, parts: u64) {
    let plan = CopyPlan {
        what: What::Parts(vec![Part { headers: 1, length: Some(PART) }; parts as usize]),
        record_size: Some(RECORD as u32),
        patience: PATIENCE,
        ..CopyPlan::default()
    };
    let (mut from, mut to) = (operator.tape(SOURCE), operator.tape(TARGET));
    from.rewind().expect("the source rewinds");
    to.rewind().expect("the target rewinds");
    let report = copy(&mut from, &mut to, &plan, &mut Unattended).expect("the copy succeeds");
    assert_eq!((report.bytes(), report.records), (parts * PART, parts));
    to.close_tape().expect("the target closes");
    from.close_tape().expect("the source closes");
}

#[test]
fn an_offloaded_copy_sends_less_than_a_hundredth_of_its_data() {
    let mut rng = Rng::new(seed("an_offloaded_copy")).fork("parts");
    let parts = full(4, 16);
    let scene = Scene::new("offloaded", |_, _| {});
    let operator = &scene.operator;
    operator.load("vtl0", VIRTUAL, 0);
    let objects = write_parts(operator, parts, &mut rng);
    operator.unload("vtl0", 0);
    scene.pair.wait_replicated(VIRTUAL);
    operator.load("vtl0", VIRTUAL, 0);

    for (version, barcode) in [Version::V3, Version::V4].into_iter().zip(TAPES) {
        operator.load("dr-ptl0", barcode, 0);
        let before = scene.pair.relay.total();
        copy_parts(&operator.clone().speaking(version), parts);
        let wire = scene.pair.relay.total() - before;
        // What the application writes by itself has to be sent.
        let (data, headers) = (parts * PART, parts * HEADER as u64);
        assert!(wire > headers, "less than the headers: is the relay in between?");
        let wire = wire - headers;
        println!("{version}: {data} bytes copied, {wire} on the wire besides the headers");
        assert!(wire < data / 100, "{version}: {wire} on the wire for {data}");

        let job = scene.copy_job(Role::Local);
        assert_eq!((job.state, job.path), (JobState::Done, Some(CopyPath::Offloaded)), "{job:#?}");
        operator.unload("dr-ptl0", 0);
        assert!(read_tape(&scene.pair.ghost_files(), barcode) == objects, "{barcode} differs");
    }
}
