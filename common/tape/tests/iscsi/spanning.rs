//! Random data over three tapes, with early warning at awkward places: every record is on exactly
//! one tape, whole, and in its order.

use tape::driver::{IscsiTransport, ScsiChanger, ScsiDrive};
use tape::{MediumChanger, ReadEnd, TapeDrive, TapeError, WriteEnd};

use super::target::{CHANGER, DRIVE, Manners, Target, Trouble};
use super::{control, transport};

const CAPACITY: u64 = 300_000;
const LONGEST: usize = 20_000;
/// What an application writes behind the last record of a tape that is full.
const TRAILER: &[u8] = b"continued on the next tape";

/// SplitMix64 (Vigna): its seed is printed by the test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A record, or now and then a filemark.
    fn object(&mut self) -> Option<Vec<u8>> {
        if self.below(6) == 0 {
            return None;
        }
        let length = 1 + self.below(LONGEST);
        Some((0..length).map(|_| self.next() as u8).collect())
    }
}

fn seed() -> u64 {
    let seed = std::env::var("TWINREEL_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(20_260_101);
    println!("seed {seed}: repeat with TWINREEL_SEED={seed} cargo test -p tape --test iscsi");
    seed
}

/// What is not a write is done again after a unit attention.
fn again<T>(mut act: impl FnMut() -> Result<T, TapeError>) -> T {
    loop {
        match act() {
            Err(TapeError::Check(sense)) if sense.is_unit_attention() => {}
            done => break done.unwrap(),
        }
    }
}

/// The application: writes until three tapes are full.
struct Application<'a> {
    target: &'a Target,
    changer: ScsiChanger<IscsiTransport>,
    drive: ScsiDrive<IscsiTransport>,
    tape: usize,
    /// What it was told is on tape, in its order.
    kept: Vec<Option<Vec<u8>>>,
}

impl<'a> Application<'a> {
    fn new(target: &'a Target) -> Self {
        let changer = ScsiChanger::open(transport(target, CHANGER), &control()).unwrap();
        let drive = ScsiDrive::open(transport(target, DRIVE), &control()).unwrap();
        let mut new = Self { target, changer, drive, tape: 0, kept: Vec::new() };
        new.next_tape();
        new
    }

    /// Elements: the drive and the slot of a tape, as the changer tells.
    fn next_tape(&mut self) {
        let inventory = self.changer.inventory(&control()).unwrap();
        let place = |kind| inventory.map.range(kind).0;
        let bay = place(model::ElementType::DataTransfer);
        let slot = |tape: usize| place(model::ElementType::Storage) + tape as u16 - 1;
        if self.tape > 0 {
            again(|| self.drive.unload(&control()));
            again(|| self.changer.move_medium(bay, slot(self.tape), &control()));
        }
        self.tape += 1;
        if self.tape <= 3 {
            again(|| self.changer.move_medium(slot(self.tape), bay, &control()));
            again(|| self.drive.ready(&control()));
            assert_eq!(again(|| self.drive.position(&control())).object, 0);
        }
    }

    fn put(&mut self, object: &Option<Vec<u8>>) -> Result<WriteEnd, TapeError> {
        match object {
            Some(record) => self.drive.write(record, &control()),
            None => self.drive.write_filemarks(1, &control()),
        }
    }

    /// Early warning was told: a trailer if there is room, a filemark, the next tape.
    fn close_tape(&mut self) {
        let _ = self.drive.write(TRAILER, &control()).unwrap();
        let _ = self.drive.write_filemarks(1, &control()).unwrap();
        self.next_tape();
    }

    fn run(&mut self, random: &mut Random, trouble: bool) {
        while self.tape <= 3 {
            let object = random.object();
            if trouble && random.below(4) == 0 {
                self.target.plan_trouble(random.below(12), Trouble::Drop);
            }
            match self.put(&object).unwrap() {
                WriteEnd::Written => self.kept.push(object),
                WriteEnd::EarlyWarning => {
                    self.kept.push(object);
                    self.close_tape();
                }
                WriteEnd::Overflow => {
                    // It goes first on the next tape.
                    self.next_tape();
                    if self.tape <= 3 {
                        assert_eq!(self.put(&object), Ok(WriteEnd::Written));
                        self.kept.push(object);
                    }
                }
            }
        }
    }
}

/// What is on the three tapes, without trailers.
fn whole(target: &Target) -> Vec<Option<Vec<u8>>> {
    let mut all = Vec::new();
    for number in 1..=3 {
        let mut tape = target.tape(number);
        let length = tape.iter().flatten().map(Vec::len).sum::<usize>();
        // As full as the longest record and the largest warning zone of these tests let it be.
        assert!(length > (CAPACITY / 2) as usize - LONGEST, "tape {number} has {length} bytes");
        let end = tape.len().saturating_sub(2);
        if tape.get(end) == Some(&Some(TRAILER.to_vec())) {
            tape.truncate(end);
        }
        all.extend(tape);
    }
    all
}

/// The same by reading: what the driver finds on each tape.
fn read_back(target: &Target, number: usize) -> Vec<Option<Vec<u8>>> {
    target.insert(number);
    let mut drive = ScsiDrive::open(transport(target, DRIVE), &control()).unwrap();
    drive.ready(&control()).unwrap();
    let (mut buffer, mut objects) = (vec![0; LONGEST], Vec::new());
    loop {
        match drive.read(&mut buffer, &control()).unwrap() {
            ReadEnd::Record { length } => objects.push(Some(buffer[..length].to_vec())),
            ReadEnd::Filemark => objects.push(None),
            ReadEnd::EndOfData => break,
        }
    }
    objects
}

fn span(manners: Manners, random: &mut Random, trouble: bool) {
    let name = format!("{:?}, {} late, {trouble}", manners.early_warning, manners.late_warning);
    let target = Target::start(Manners { capacity: CAPACITY, ..manners });
    let mut application = Application::new(&target);
    application.run(random, trouble);
    let kept = std::mem::take(&mut application.kept);
    drop(application);
    assert!(kept == whole(&target), "{name}: {} objects", kept.len());
    if !trouble {
        assert!(read_back(&target, 2) == target.tape(2), "{name}: tape 2 reads otherwise");
    }
}

#[test]
fn three_tapes_hold_every_record_once_wherever_early_warning_comes() {
    let mut random = Random(seed());
    let base =
        Manners { segment: 1 << 18, first_burst: 1 << 18, burst: 1 << 20, ..Manners::default() };
    // No zone: nothing is told before it does not fit. A zone of less than a record, of several
    // records, and of half the tape.
    for zone in [0, 1, 1000, 50_000, 150_000] {
        // At once, behind a run that was buffered already, and not before a filemark.
        for late in [0, 3, usize::MAX] {
            for trouble in [false, true] {
                let early_warning = Some(zone);
                let manners = Manners { early_warning, late_warning: late, ..base.clone() };
                span(manners, &mut random, trouble);
            }
        }
    }
}
