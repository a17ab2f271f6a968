//! What a dialogue is about, drawn from a seed.

use dma::Version;
use tests::{Item, Rng};

/// Where one end of a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A cartridge of a virtual library.
    Virtual,
    /// A cartridge of a library at the other site.
    Ghost,
    /// A plain socket of the test.
    Foreign,
}

/// The eight ways data can go.
pub(crate) const ROUTES: [(Place, Place); 8] = [
    (Place::Virtual, Place::Ghost),
    (Place::Virtual, Place::Virtual),
    (Place::Ghost, Place::Virtual),
    (Place::Ghost, Place::Ghost),
    (Place::Foreign, Place::Virtual),
    (Place::Foreign, Place::Ghost),
    (Place::Virtual, Place::Foreign),
    (Place::Ghost, Place::Foreign),
];

/// Bytes on a cartridge of a small library, and how long before its end the drive warns.
pub(crate) const SMALL: u64 = 1 << 20;
pub(crate) const ZONE: u64 = 48 << 10;

/// One dialogue, or several between the same two drives.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) version: Version,
    pub(crate) source: Place,
    pub(crate) target: Place,
    /// What is on the source's tapes; none for a foreign source.
    pub(crate) reels: Vec<Vec<Item>>,
    /// The first target tape is a small one.
    pub(crate) small: bool,
    /// What is on the first target tape before, and behind how many of its filemarks the copy
    /// begins. Nothing: what an earlier case left there, which is overwritten.
    pub(crate) before: Vec<Item>,
    pub(crate) start: u32,
    pub(crate) legs: Vec<Leg>,
}

/// One data connection.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    /// The target's mover listens and the source's connects, or the other way round.
    pub(crate) target_listens: bool,
    /// The movers meet at the local address.
    pub(crate) local: bool,
    /// Record sizes of the two movers.
    pub(crate) source_record: u32,
    pub(crate) target_record: u32,
    /// What is copied, in order.
    pub(crate) ranges: Vec<Range>,
    /// Parts of the only range (offset, bytes), each asked for by a MOVER_READ of its own; the last
    /// one goes to the end whatever its length.
    pub(crate) reads: Vec<(u64, u64)>,
    /// The stream of a foreign source.
    pub(crate) foreign: Vec<u8>,
    /// The target's window is empty at first, so that the first byte pauses it; otherwise the first
    /// step is done before the movers meet.
    pub(crate) empty_window: bool,
    /// The target's window is set while its mover listens (version 3).
    pub(crate) late_window: bool,
    /// What the application does at the target's pauses, one after the other.
    pub(crate) steps: Vec<Step>,
    /// Filemarks behind it; without any the drive writes the one that was forgotten.
    pub(crate) marks: u32,
}

/// A piece of a source tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) reel: usize,
    pub(crate) file: u32,
    /// Records at the beginning of the file that are passed.
    pub(crate) skip: usize,
    /// They are read, as headers are, and not just passed.
    pub(crate) read: bool,
    /// So many bytes by a window, or all to the filemark.
    pub(crate) bytes: Option<u64>,
    /// Go there from the beginning of the tape.
    pub(crate) absolute: bool,
    /// Another reel comes into another drive, not into the same one.
    pub(crate) switch: bool,
}

/// How the target's tape is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Another tape into the same drive, which stays open.
    Swap,
    /// Another tape in another drive of the library.
    Switch,
    /// Another tape in a library of the other kind.
    Elsewhere,
}

/// What the application does at one pause of the target.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Filemarks first.
    pub(crate) marks: u32,
    /// Then the tape is changed...
    pub(crate) change: Option<Change>,
    /// ... as it has to be at the end of the medium, unless this says to go on until it is full.
    pub(crate) stay: bool,
    pub(crate) forced: Change,
    /// Then come these, block by block.
    pub(crate) literals: Vec<Item>,
    /// The next window in records, or one without an end.
    pub(crate) window: Option<u64>,
}

impl Default for Step {
    /// What is done when nothing else is said: go on, with another tape if this one is full.
    fn default() -> Self {
        Self {
            marks: 0,
            change: None,
            stay: false,
            forced: Change::Swap,
            literals: Vec::new(),
            window: None,
        }
    }
}

/// Bytes that are told from all others.
pub(crate) fn record(rng: &mut Rng, length: u64) -> Item {
    Item::Record(rng.bytes(length as usize))
}

/// The files of a tape, as record lengths; the last one may lack its filemark.
fn reel(rng: &mut Rng, files: &[Vec<u64>], marked: bool) -> Vec<Item> {
    let mut items = Vec::new();
    for (i, file) in files.iter().enumerate() {
        items.extend(file.iter().map(|length| record(rng, *length)));
        if marked || i + 1 < files.len() {
            items.push(Item::Filemark);
        }
    }
    if items.is_empty() {
        // Something must overwrite what is on the tape.
        items.push(Item::Filemark);
    }
    items
}

/// Record sizes on either side.
const RECORDS: [u64; 12] =
    [1 << 10, 1025, 1536, 2048, 4096, 7777, 10_240, 32_768, 65_536, 100_000, 262_144, 1 << 20];

/// A record size with which `bytes` are not too many records.
fn record_size(rng: &mut Rng, bytes: u64, most: u64) -> u64 {
    let fitting: Vec<u64> = RECORDS.into_iter().filter(|size| bytes / size <= most).collect();
    *rng.pick(&fitting)
}

/// The record lengths of one file.
fn file(rng: &mut Rng) -> Vec<u64> {
    let bytes = match rng.below(8) {
        0 => return Vec::new(),
        1 => rng.between(1, 65_536),
        2..=5 => 65_536 * rng.between(1, 4),
        6 => 65_536 * rng.between(4, 10),
        _ => return (0..rng.between(1, 30)).map(|_| rng.between(1, 20_000)).collect(),
    };
    let size = record_size(rng, bytes, 200);
    let mut lengths = vec![size; (bytes / size).max(1) as usize];
    if rng.chance(1, 4) {
        // Headers of another length, as applications write them.
        lengths.insert(0, 32_768);
    }
    if rng.chance(1, 4) {
        lengths.push(rng.between(1, size));
    }
    lengths
}

/// What of a source tape is copied.
fn ranges(rng: &mut Rng, index: usize, files: &[Vec<u64>]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for (number, lengths) in files.iter().enumerate() {
        if rng.chance(1, 8) {
            continue;
        }
        let skip = if rng.chance(1, 3) { rng.below(3).min(lengths.len() as u64) } else { 0 };
        let rest: u64 = lengths[skip as usize..].iter().sum();
        let bytes = (rng.chance(1, 4) && rest > 0).then(|| match rng.below(3) {
            0 => rest,
            1 => lengths[skip as usize],
            _ => rng.between(1, rest),
        });
        ranges.push(Range {
            reel: index,
            file: number as u32,
            skip: skip as usize,
            read: rng.chance(1, 2),
            bytes,
            absolute: rng.chance(1, 5),
            switch: rng.chance(1, 2),
        });
    }
    if rng.chance(1, 6) {
        // Once more, from the beginning.
        ranges.extend(ranges.first().copied().map(|first| Range { absolute: true, ..first }));
    }
    ranges
}

/// What of which tapes is read.
fn source(rng: &mut Rng) -> (Vec<Vec<Item>>, Vec<Range>) {
    let (mut reels, mut all) = (Vec::new(), Vec::new());
    for index in 0..1 + usize::from(rng.chance(1, 5)) {
        let files: Vec<_> = (0..rng.between(1, 4)).map(|_| file(rng)).collect();
        reels.push(reel(rng, &files, rng.clone().chance(4, 5)));
        all.extend(ranges(rng, index, &files));
    }
    (reels, all)
}

fn change(rng: &mut Rng, foreign: bool) -> Change {
    match rng.below(5) {
        0 if !foreign => Change::Elsewhere,
        0..=2 => Change::Switch,
        _ => Change::Swap,
    }
}

fn literals(rng: &mut Rng) -> Vec<Item> {
    let item = |rng: &mut Rng| match rng.below(4) {
        0 => Item::Filemark,
        1 => record(rng, 32_768),
        _ => {
            let length = rng.between(1, 3000);
            record(rng, length)
        }
    };
    (0..rng.below(4)).map(|_| item(rng)).collect()
}

fn step(rng: &mut Rng, records: u64, foreign: bool) -> Step {
    let window = match rng.below(6) {
        0 => None,
        1 => Some(1),
        _ => Some(rng.between(1, records.div_ceil(2) + 1)),
    };
    Step {
        marks: [0, 0, 1, 2][rng.below(4) as usize],
        change: rng.chance(1, 12).then(|| change(rng, foreign)),
        stay: rng.chance(1, 3),
        forced: change(rng, foreign),
        literals: if rng.chance(1, 2) { literals(rng) } else { Vec::new() },
        window,
    }
}

fn leg(rng: &mut Rng, route: (Place, Place), version: Version, stream: u64) -> Leg {
    let foreign = route.0 == Place::Foreign || route.1 == Place::Foreign;
    let target_record = record_size(rng, stream, 300);
    let records = stream.div_ceil(target_record);
    let steps = rng.below(7);
    let target_listens = rng.chance(3, 4);
    Leg {
        target_listens,
        local: !foreign && rng.chance(1, 4),
        source_record: *rng.pick(&RECORDS) as u32,
        target_record: target_record as u32,
        ranges: Vec::new(),
        reads: Vec::new(),
        foreign: Vec::new(),
        empty_window: rng.chance(2, 3),
        late_window: version == Version::V3 && target_listens && rng.chance(1, 2),
        steps: (0..steps).map(|_| step(rng, records, route.0 == Place::Foreign)).collect(),
        marks: [0, 1, 1, 2][rng.below(4) as usize],
    }
}

/// What lies on the first target tape before, and where the copy begins. The end of a small one
/// comes somewhere in the first megabyte.
fn before(rng: &mut Rng, small: bool) -> (Vec<Item>, u32) {
    let mut items = Vec::new();
    for _ in 0..rng.below(3) {
        for _ in 0..rng.below(4) {
            let length = rng.between(1, 20_000);
            items.push(record(rng, length));
        }
        items.push(Item::Filemark);
    }
    if small {
        let used: u64 = items.iter().map(length_of).sum();
        let free = rng.between(1, SMALL - used);
        let fill = (SMALL - used - free).max(1);
        items.extend([Item::Record(vec![0xf1; fill as usize]), Item::Filemark]);
    }
    let marks = items.iter().filter(|item| **item == Item::Filemark).count() as u64;
    let start = if small || rng.chance(2, 3) { marks } else { rng.below(marks + 1) };
    (items, start as u32)
}

/// Bytes of a record.
pub(crate) fn length_of(item: &Item) -> u64 {
    match item {
        Item::Record(bytes) => bytes.len() as u64,
        Item::Filemark => 0,
    }
}

/// A case in which everything is random.
fn random(rng: &mut Rng, number: u64) -> Case {
    let route = ROUTES[(number % 8) as usize];
    let version = if (number / 8).is_multiple_of(2) { Version::V4 } else { Version::V3 };
    let small = rng.chance(1, 2);
    let (before, start) = before(rng, small);
    let mut case = Case {
        version,
        source: route.0,
        target: route.1,
        reels: Vec::new(),
        small,
        before,
        start,
        legs: Vec::new(),
    };
    if route.0 == Place::Foreign {
        for _ in 0..rng.between(1, 2) {
            let bytes = rng.between(1, 400_000);
            let foreign = rng.bytes(bytes as usize);
            case.legs.push(Leg { foreign, ..leg(rng, route, version, bytes) });
        }
        return case;
    }
    let mut all = Vec::new();
    while all.iter().map(|range| stream_of(&case.reels, range)).sum::<u64>() == 0 {
        (case.reels, all) = source(rng);
    }
    if rng.chance(1, 6) {
        reads(rng, &mut case);
        return case;
    }
    // Cut into connections, none of them without a byte.
    while !all.is_empty() {
        let mut take = rng.between(1, all.len() as u64) as usize;
        let bytes = |to: usize| all[..to].iter().map(|range| stream_of(&case.reels, range)).sum();
        while take < all.len() && bytes(take) == 0u64 {
            take += 1;
        }
        let bytes = bytes(take);
        if bytes == 0 {
            break;
        }
        let ranges = all.drain(..take).collect();
        case.legs.push(Leg { ranges, ..leg(rng, route, version, bytes) });
    }
    case
}

/// Bytes of a range.
fn stream_of(reels: &[Vec<Item>], range: &Range) -> u64 {
    let mut files = reels[range.reel].split(|item| *item == Item::Filemark);
    let file = files.nth(range.file as usize).unwrap_or_default();
    let rest: u64 = file[range.skip.min(file.len())..].iter().map(length_of).sum();
    range.bytes.unwrap_or(rest)
}

/// Pieces of one file, in any order, each by a MOVER_READ of its own.
fn reads(rng: &mut Rng, case: &mut Case) {
    let size = *rng.pick(&[1024, 1536, 7777, 32_768]);
    let count = rng.between(2, 40);
    let total = size * count;
    case.reels = vec![reel(rng, &[vec![size; 3], vec![size; count as usize]], true)];
    let mut reads = Vec::new();
    for _ in 0..rng.between(1, 4) {
        let offset = rng.below(total);
        reads.push((offset, rng.between(1, total - offset)));
    }
    reads.push((rng.below(total), 0));
    let stream = reads[..reads.len() - 1].iter().map(|read| read.1).sum::<u64>() + total
        - reads[reads.len() - 1].0;
    let range = Range {
        reel: 0,
        file: 1,
        skip: 0,
        read: false,
        bytes: rng.chance(1, 2).then_some(total),
        absolute: true,
        switch: false,
    };
    let (ranges, source_record) = (vec![range], size as u32);
    let leg = leg(rng, (case.source, case.target), case.version, stream);
    case.legs.push(Leg { ranges, reads, source_record, ..leg });
}

/// Record sizes of the target in a sweep.
const SWEPT: [u64; 6] = [1 << 10, 4096, 10_240, 32_768, 65_536, 80_000];
/// Records of the part.
const PART: u64 = 12;
/// Routes that end on a tape.
const SWEEPS: u64 = 6;
/// One case for each route to a tape, version, record size, and record at which the tape ends.
pub(crate) const SWEEP: u64 = SWEEPS * 2 * SWEPT.len() as u64 * (PART + 1);

/// The end of the medium at each record of a part: at early warning, or at the very end.
fn sweep(rng: &mut Rng, number: u64) -> Case {
    let route = ROUTES[(number % SWEEPS) as usize];
    let rest = number / SWEEPS;
    let version = if rest.is_multiple_of(2) { Version::V4 } else { Version::V3 };
    let rest = rest / 2;
    let size = SWEPT[(rest % SWEPT.len() as u64) as usize];
    let fits = rest / SWEPT.len() as u64 % (PART + 1);
    let warned = fits > 0 && size < ZONE && rng.chance(1, 2);
    // So many records up to early warning, or up to the end.
    let free = match warned {
        true => ZONE + (fits - 1) * size + rng.between(1, size),
        false => fits * size + rng.below(size),
    };
    let fill = SMALL - free.min(SMALL - 1);
    let before = vec![Item::Record(vec![0xf1; fill as usize]), Item::Filemark];
    let tail = if rng.chance(1, 3) { rng.between(1, size - 1) } else { 0 };
    let bytes = PART * size - tail;
    let step = Step {
        marks: rng.below(2) as u32,
        stay: rng.chance(1, 4),
        forced: change(rng, route.0 == Place::Foreign),
        literals: if rng.chance(1, 3) { literals(rng) } else { Vec::new() },
        window: Some(PART),
        ..Step::default()
    };
    let mut leg = leg(rng, route, version, bytes);
    leg.target_record = size as u32;
    // The literals of an opening step would move the end.
    leg.steps = vec![Step { literals: Vec::new(), ..step.clone() }, step];
    leg.steps[0].marks = 0;
    let mut case = Case {
        version,
        source: route.0,
        target: route.1,
        reels: Vec::new(),
        small: true,
        before,
        start: 1,
        legs: Vec::new(),
    };
    if route.0 == Place::Foreign {
        leg.foreign = rng.bytes(bytes as usize);
    } else {
        let other = *rng.pick(&[size, 1 << 10, 7777, 65_536]);
        let other = other.max(bytes / 300 + 1);
        let mut lengths = vec![other; (bytes / other) as usize];
        lengths.extend(Some(bytes % other).filter(|rest| *rest > 0));
        case.reels = vec![reel(rng, &[lengths], true)];
        leg.ranges = vec![whole_file(0)];
    }
    case.legs.push(leg);
    case
}

fn whole_file(file: u32) -> Range {
    Range { reel: 0, file, skip: 0, read: false, bytes: None, absolute: true, switch: false }
}

/// Large parts: 16 MiB, or 64 MiB.
fn large(rng: &mut Rng, number: u64, part: u64) -> Case {
    let route = ROUTES[(number % 8) as usize];
    let version = if rng.chance(1, 2) { Version::V4 } else { Version::V3 };
    let pairs = [(65_536, 1 << 20), (1 << 20, 65_536), (262_144, 32_768), (1 << 20, 1 << 20)];
    let (from, to) = *rng.pick(&pairs);
    let mut leg = leg(rng, route, version, part);
    leg.target_record = to;
    leg.source_record = from;
    leg.steps = (0..3).map(|_| step(rng, part / u64::from(to), true)).collect();
    let mut case = Case {
        version,
        source: route.0,
        target: route.1,
        reels: Vec::new(),
        small: false,
        before: Vec::new(),
        start: 0,
        legs: Vec::new(),
    };
    if route.0 == Place::Foreign {
        leg.foreign = rng.bytes(part as usize);
    } else {
        let file = vec![u64::from(from); (part / u64::from(from)) as usize];
        case.reels = vec![reel(rng, &[file], true)];
        leg.ranges = vec![whole_file(0)];
    }
    case.legs.push(leg);
    case
}

/// How many cases of each kind there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) large: u64,
    pub(crate) part: u64,
    pub(crate) sweep: u64,
    pub(crate) random: u64,
}

impl Counts {
    pub(crate) fn all(&self) -> u64 {
        self.large + self.sweep + self.random
    }

    /// Case `number` of a seed. Of the sweep a sample is spread over all of it.
    pub(crate) fn case(&self, seed: u64, number: u64) -> Case {
        let mut rng = Rng::new(seed).fork(&format!("case {number}"));
        match number {
            n if n < self.large => large(&mut rng, n, self.part),
            n if n < self.large + self.sweep => {
                let n = n - self.large;
                // A step without a common divisor with the whole visits every row of it.
                let step = if self.sweep < SWEEP { 607 } else { 1 };
                sweep(&mut rng, n * step % SWEEP)
            }
            n => random(&mut rng, n - self.large - self.sweep),
        }
    }
}
