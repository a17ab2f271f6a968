//! What has to come of a case: every pause, every count, every tape. Computed from the case alone,
//! by the rules of docs/protocols/ndmp.md, on tapes that are plain lists of records and filemarks.

use std::collections::BTreeMap;

use dma::{TO_THE_END, Version};
use ndmp::wire::PauseReason;
use tests::Item;

use crate::case::{Case, Change, Leg, Place, Range, SMALL, Step, ZONE, length_of};

/// A library of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Library {
    pub(crate) ghost: bool,
    pub(crate) small: bool,
}

/// A cartridge of the worker that plays the case: the first ones are sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tape {
    pub(crate) library: Library,
    pub(crate) index: usize,
}

/// Source tapes, and target tapes, that a worker has in each library.
pub(crate) const SOURCES: usize = 2;
pub(crate) const TARGETS: usize = 3;

/// How a TAPE_WRITE is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    Done,
    /// `EOM_ERR`, not written.
    EndOfMedium,
    /// `IO_ERR`, not written: the medium is full.
    Full,
}

/// Something the application does with the target, or what it must find there.
#[derive(Clone, Debug)]
pub(crate) enum TargetAct {
    Write(Vec<u8>, Wrote),
    Marks(u32),
    /// Another tape: into the same drive, or into another one which is opened instead.
    Change(Tape, Change),
    Rewind,
    SkipMarks(u32),
    /// Filemarks before the tape's place, and records since the last one.
    Stands(u32, u32),
    Window(u64, u64),
    Continue,
}

/// The same for the source.
#[derive(Clone, Debug)]
pub(crate) enum SourceAct {
    Load(Tape, Change),
    Rewind,
    SkipMarks(u32),
    SkipRecords(u32),
    Read(Vec<u8>),
    Stands(u32, u32),
    Window(u64, u64),
    Continue,
    Close,
}

/// A pause, and what follows it.
#[derive(Clone, Debug)]
pub(crate) struct Turn<Act> {
    pub(crate) reason: PauseReason,
    /// `seek_position` of the notification.
    pub(crate) position: u64,
    /// `bytes_moved` and `record_num`.
    pub(crate) moved: u64,
    pub(crate) record: u64,
    /// The window (offset, length) that the mover has.
    pub(crate) window: (u64, u64),
    pub(crate) acts: Vec<Act>,
}

/// The row of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) source: Option<Tape>,
    pub(crate) targets: Vec<Tape>,
    pub(crate) offloaded: bool,
    pub(crate) reason: &'static str,
}

/// One data connection.
#[derive(Debug)]
pub(crate) struct LegPlan {
    pub(crate) stream: Vec<u8>,
    /// Where in the stream the source's records end.
    pub(crate) edges: Vec<u64>,
    pub(crate) source_begins: Vec<SourceAct>,
    pub(crate) source_window: (u64, u64),
    pub(crate) reads: Vec<(u64, u64)>,
    pub(crate) source: Vec<Turn<SourceAct>>,
    pub(crate) target_begins: Vec<TargetAct>,
    pub(crate) target_window: (u64, u64),
    pub(crate) target: Vec<Turn<TargetAct>>,
    /// `record_num` of the target at its end.
    pub(crate) records: u64,
    pub(crate) target_ends: Vec<TargetAct>,
    pub(crate) job: Option<Job>,
}

/// Everything about a case.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) first_reel: usize,
    pub(crate) first_target: Tape,
    pub(crate) legs: Vec<LegPlan>,
    /// What the target tapes hold afterwards, all that were written from their beginning.
    pub(crate) tapes: BTreeMap<Tape, Vec<Item>>,
}

impl Plan {
    pub(crate) fn of(case: &Case) -> Self {
        let first = case.legs[0].ranges.first().map_or(0, |range| range.reel);
        let mut source = Source { case, reel: first, at: 0 };
        let mut target = Target::new(case);
        let first_target = target.here;
        let mut legs = Vec::new();
        for (i, leg) in case.legs.iter().enumerate() {
            let mut plan = source.play(leg, i == 0);
            if case.target != Place::Foreign {
                target.play(leg, &mut plan, i == 0);
            }
            plan.job = target.job(case, leg);
            legs.push(plan);
        }
        target.leave();
        let tapes = target.tapes.into_iter().filter(|(_, reel)| reel.known);
        let tapes = tapes.map(|(tape, reel)| (tape, reel.objects)).collect();
        Self { first_reel: first, first_target, legs, tapes }
    }
}

/// The library of a source.
pub(crate) fn source_library(place: Place) -> Library {
    Library { ghost: place == Place::Ghost, small: false }
}

/// Filemarks before an object, and records since the last of them.
fn place(objects: &[Item], at: usize) -> (u32, u32) {
    let before = &objects[..at];
    let files = before.iter().filter(|item| **item == Item::Filemark).count();
    let records = before.iter().rev().take_while(|item| **item != Item::Filemark).count();
    (files as u32, records as u32)
}

// ---- the source ----

struct Source<'a> {
    case: &'a Case,
    reel: usize,
    at: usize,
}

impl Source<'_> {
    fn objects(&self) -> &[Item] {
        self.case.reels.get(self.reel).map_or(&[], Vec::as_slice)
    }

    fn play(&mut self, leg: &Leg, first: bool) -> LegPlan {
        let mut plan = LegPlan {
            stream: leg.foreign.clone(),
            edges: Vec::new(),
            source_begins: Vec::new(),
            source_window: (0, TO_THE_END),
            reads: vec![(0, TO_THE_END)],
            source: Vec::new(),
            target_begins: Vec::new(),
            target_window: (0, 0),
            target: Vec::new(),
            records: 0,
            target_ends: Vec::new(),
            job: None,
        };
        if leg.reads.is_empty() {
            self.play_ranges(leg, first, &mut plan);
        } else {
            self.play_reads(leg, &mut plan);
        }
        plan
    }

    fn play_ranges(&mut self, leg: &Leg, first: bool, plan: &mut LegPlan) {
        for (i, range) in leg.ranges.iter().enumerate() {
            let mut acts = self.go(range, first && i == 0);
            let offset = plan.stream.len() as u64;
            let window = (offset, range.bytes.unwrap_or(TO_THE_END - offset));
            match plan.source.last_mut() {
                None => (plan.source_begins, plan.source_window) = (acts, window),
                Some(turn) => {
                    acts.extend([SourceAct::Window(window.0, window.1), SourceAct::Continue]);
                    turn.acts.extend(acts);
                }
            }
            let records = plan.edges.len() as u64;
            let reason = self.take(range, plan);
            let position = plan.stream.len() as u64;
            let records = plan.edges.len() as u64 - records;
            let turn = Turn {
                reason,
                position,
                moved: position,
                record: offset / u64::from(leg.source_record) + records,
                window,
                acts: vec![self.stands()],
            };
            plan.source.push(turn);
        }
        if let Some(last) = plan.source.last_mut() {
            last.acts.push(SourceAct::Close);
        }
    }

    fn stands(&self) -> SourceAct {
        let (file, block) = place(self.objects(), self.at);
        SourceAct::Stands(file, block)
    }

    /// Brings the tape to the beginning of a range.
    fn go(&mut self, range: &Range, first: bool) -> Vec<SourceAct> {
        let mut acts = Vec::new();
        let mut absolute = range.absolute || first;
        if range.reel != self.reel {
            self.reel = range.reel;
            let tape = Tape { library: source_library(self.case.source), index: range.reel };
            let change = if range.switch { Change::Switch } else { Change::Swap };
            acts.push(SourceAct::Load(tape, change));
            absolute = true;
        }
        let objects = self.case.reels[self.reel].as_slice();
        let mut start = 0;
        for _ in 0..range.file {
            start += objects[start..].iter().take_while(|i| **i != Item::Filemark).count() + 1;
        }
        if absolute || self.at > start {
            acts.push(SourceAct::Rewind);
            self.at = 0;
        }
        let marks = range.file - place(objects, self.at).0;
        if marks > 0 {
            acts.push(SourceAct::SkipMarks(marks));
        }
        self.at = start + range.skip;
        for item in &objects[start..self.at] {
            match item {
                Item::Record(bytes) if range.read => acts.push(SourceAct::Read(bytes.clone())),
                _ => acts.push(SourceAct::SkipRecords(1)),
            }
        }
        acts.push(self.stands());
        acts
    }

    /// Takes a range into the stream.
    fn take(&mut self, range: &Range, plan: &mut LegPlan) -> PauseReason {
        let objects = self.case.reels[self.reel].as_slice();
        let mut left = range.bytes.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(Item::Record(bytes)) = objects.get(self.at) else { break };
            let now = left.min(bytes.len() as u64);
            plan.stream.extend_from_slice(&bytes[..now as usize]);
            plan.edges.push(plan.stream.len() as u64);
            left -= now;
            self.at += 1;
        }
        match objects.get(self.at) {
            _ if left == 0 => PauseReason::Seek,
            None => PauseReason::Eom,
            Some(_) => {
                // Version 4 stays before the mark.
                self.at += usize::from(self.case.version == Version::V3);
                PauseReason::Eof
            }
        }
    }

    /// Pieces of one file, by MOVER_READ.
    fn play_reads(&mut self, leg: &Leg, plan: &mut LegPlan) {
        let range = leg.ranges[0];
        plan.source_begins = self.go(&range, true);
        plan.source_window = (0, range.bytes.unwrap_or(TO_THE_END));
        let start = self.at;
        let objects = self.case.reels[self.reel].as_slice();
        let file: Vec<u8> =
            objects[start..].iter().map_while(bytes_of).flatten().copied().collect();
        plan.reads.clear();
        let record = u64::from(leg.source_record);
        for (i, (offset, length)) in leg.reads.iter().enumerate() {
            let last = i + 1 == leg.reads.len();
            let end = if last { file.len() as u64 } else { offset + length };
            plan.reads.push((*offset, if last { TO_THE_END } else { *length }));
            let mut at = *offset;
            while at < end {
                let next = ((at / record + 1) * record).min(end);
                plan.stream.extend_from_slice(&file[at as usize..next as usize]);
                plan.edges.push(plan.stream.len() as u64);
                at = next;
            }
        }
        self.at = start + file.len() / record as usize;
        let reason = match range.bytes {
            Some(_) => PauseReason::Seek,
            None => {
                self.at += usize::from(self.case.version == Version::V3);
                PauseReason::Eof
            }
        };
        plan.source.push(Turn {
            reason,
            position: file.len() as u64,
            moved: plan.stream.len() as u64,
            record: plan.edges.len() as u64,
            window: plan.source_window,
            acts: vec![self.stands(), SourceAct::Close],
        });
    }
}

fn bytes_of(item: &Item) -> Option<&Vec<u8>> {
    match item {
        Item::Record(bytes) => Some(bytes),
        Item::Filemark => None,
    }
}

// ---- the target ----

/// A target tape.
struct Reel {
    objects: Vec<Item>,
    at: usize,
    /// Bytes of the records before that place.
    used: u64,
    /// It was written from its beginning, so that all of it is known.
    known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Written,
    EarlyWarning,
    Overflow,
}

impl Reel {
    fn put(&mut self, item: Item, small: bool) -> Put {
        let (capacity, warning) = if small { (SMALL, SMALL - ZONE) } else { (u64::MAX, u64::MAX) };
        let length = length_of(&item);
        if length > 0 && self.used + length > capacity {
            return Put::Overflow;
        }
        self.known |= self.at == 0;
        self.objects.truncate(self.at);
        self.objects.push(item);
        self.at += 1;
        self.used += length;
        if self.used >= warning { Put::EarlyWarning } else { Put::Written }
    }
}

/// What the application knows of the end of the medium (3.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Far,
    Near,
    Told,
}

/// Why the target's mover stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Window,
    Medium,
    Closed,
}

struct Target<'a> {
    case: &'a Case,
    tapes: BTreeMap<Tape, Reel>,
    here: Tape,
    end: End,
    /// Data was written and no mark behind it (3.4.1).
    unmarked: bool,
    /// The tapes that were in the drive when the mover ran.
    ran: Vec<Tape>,
}

impl<'a> Target<'a> {
    fn new(case: &'a Case) -> Self {
        let library = Library { ghost: case.target == Place::Ghost, small: case.small };
        let here = Tape { library, index: SOURCES };
        let known = !case.before.is_empty() && case.target != Place::Foreign;
        let reel = Reel { objects: case.before.clone(), at: 0, used: 0, known };
        let tapes = BTreeMap::from([(here, reel)]);
        Self { case, tapes, here, end: End::Far, unmarked: false, ran: Vec::new() }
    }

    fn reel(&mut self) -> &mut Reel {
        self.tapes.get_mut(&self.here).expect("the tape in the drive is there")
    }

    fn put(&mut self, item: Item) -> Put {
        let small = self.here.library.small;
        self.reel().put(item, small)
    }

    fn stands(&mut self) -> TargetAct {
        let reel = self.reel();
        let (file, block) = place(&reel.objects, reel.at);
        TargetAct::Stands(file, block)
    }

    fn note(&mut self, put: Put) {
        if put == Put::EarlyWarning && self.end == End::Far {
            self.end = End::Near;
        }
    }

    fn marks(&mut self, count: u32) {
        for _ in 0..count {
            let put = self.put(Item::Filemark);
            self.note(put);
            self.unmarked = false;
        }
    }

    /// The mark that is written by itself.
    fn leave(&mut self) {
        if std::mem::take(&mut self.unmarked) {
            self.put(Item::Filemark);
        }
    }

    fn write(&mut self, item: &Item) -> Wrote {
        if self.end == End::Near {
            self.end = End::Told;
            return Wrote::EndOfMedium;
        }
        match self.put(item.clone()) {
            Put::Overflow if self.end == End::Told => Wrote::Full,
            Put::Overflow => {
                self.end = End::Told;
                Wrote::EndOfMedium
            }
            put => {
                self.unmarked = true;
                self.note(put);
                Wrote::Done
            }
        }
    }

    /// Records of the stream from `at` on, in a window of so many bytes.
    fn run(&mut self, leg: &Leg, stream: &[u8], at: &mut u64, window: Option<u64>) -> Stop {
        let size = u64::from(leg.target_record);
        if self.ran.last() != Some(&self.here) {
            self.ran.push(self.here);
        }
        let (mut moved, mut warned) = (0, false);
        while *at < stream.len() as u64 {
            if window.is_some_and(|window| moved + size > window) {
                return Stop::Window;
            }
            if warned {
                self.end = End::Told;
                return Stop::Medium;
            }
            let rest = &stream[*at as usize..];
            let mut record = rest[..rest.len().min(size as usize)].to_vec();
            let payload = record.len() as u64;
            record.resize(size as usize, 0);
            match self.put(Item::Record(record)) {
                Put::Overflow => {
                    self.end = End::Told;
                    return Stop::Medium;
                }
                put => warned = put == Put::EarlyWarning && self.end != End::Told,
            }
            self.unmarked = true;
            *at += payload;
            moved += payload;
        }
        Stop::Closed
    }

    /// Another tape, at its beginning.
    fn change(&mut self, how: Change, acts: &mut Vec<TargetAct>) {
        self.leave();
        let mut library = self.here.library;
        if how == Change::Elsewhere {
            library.ghost = !library.ghost;
        }
        let used = |library: Library| self.tapes.keys().filter(|t| t.library == library).count();
        if used(library) == TARGETS {
            library.small = !library.small;
        }
        let index = SOURCES + used(library);
        assert!(index < SOURCES + TARGETS, "too many tapes for one case");
        let how = if library == self.here.library { how } else { Change::Elsewhere };
        self.here = Tape { library, index };
        self.tapes.insert(self.here, Reel { objects: Vec::new(), at: 0, used: 0, known: false });
        self.end = End::Far;
        acts.extend([TargetAct::Change(self.here, how), TargetAct::Rewind, self.stands()]);
    }

    /// What the application does at a pause, but for the window.
    fn step(&mut self, step: &Step, full: bool, acts: &mut Vec<TargetAct>) {
        if step.marks > 0 {
            self.marks(step.marks);
            acts.push(TargetAct::Marks(step.marks));
        }
        match step.change {
            Some(change) => self.change(change, acts),
            None if full && !step.stay => self.change(step.forced, acts),
            None => {}
        }
        for item in &step.literals {
            let Item::Record(bytes) = item else {
                self.marks(1);
                acts.push(TargetAct::Marks(1));
                continue;
            };
            let wrote = self.write(item);
            acts.push(TargetAct::Write(bytes.clone(), wrote));
            if wrote != Wrote::Done {
                self.change(step.forced, acts);
                let again = self.write(item);
                acts.push(TargetAct::Write(bytes.clone(), again));
                assert_eq!(again, Wrote::Done, "a literal fits on an empty tape");
            }
        }
        acts.push(self.stands());
    }

    fn play(&mut self, leg: &Leg, plan: &mut LegPlan, first: bool) {
        self.ran.clear();
        let mut steps = leg.steps.iter().cloned();
        if first {
            plan.target_begins.push(TargetAct::Rewind);
            if self.case.start > 0 {
                plan.target_begins.push(TargetAct::SkipMarks(self.case.start));
            }
            let mut marks = 0;
            while marks < self.case.start {
                let reel = self.reel();
                let item = &reel.objects[reel.at];
                marks += u32::from(*item == Item::Filemark);
                reel.used += length_of(item);
                reel.at += 1;
            }
            plan.target_begins.push(self.stands());
        }
        let mut window = Some(0);
        if !leg.empty_window {
            let step = steps.next().unwrap_or_default();
            self.step(&step, false, &mut plan.target_begins);
            window = step.window.map(|records| records * u64::from(leg.target_record));
            plan.target_window = (0, window.unwrap_or(TO_THE_END));
        }
        let (mut at, mut stuck) = (0, None);
        let mut set = plan.target_window;
        loop {
            let before = at;
            let stop = self.run(leg, &plan.stream, &mut at, window);
            let size = u64::from(leg.target_record);
            let record = set.0 / size + (at - before).div_ceil(size);
            let reason = match stop {
                Stop::Window => PauseReason::Eow,
                Stop::Medium => PauseReason::Eom,
                Stop::Closed => {
                    plan.records = record;
                    break;
                }
            };
            let mut acts = vec![self.stands()];
            let mut step = steps.next().unwrap_or_default();
            // A tape that is full stays full.
            let full = stop == Stop::Medium;
            step.stay &= !full || stuck != Some(at);
            stuck = full.then_some(at);
            self.step(&step, full, &mut acts);
            window = step.window.map(|records| records * size);
            let next = (at, window.unwrap_or(TO_THE_END));
            acts.extend([TargetAct::Window(next.0, next.1), TargetAct::Continue]);
            plan.target.push(Turn { reason, position: at, moved: at, record, window: set, acts });
            set = next;
        }
        plan.target_ends.push(self.stands());
        if leg.marks > 0 {
            self.marks(leg.marks);
            plan.target_ends.push(TargetAct::Marks(leg.marks));
        }
        plan.target_ends.push(self.stands());
    }

    /// The row that the connection leaves.
    fn job(&self, case: &Case, leg: &Leg) -> Option<Job> {
        let last = self.ran.last()?.library.ghost;
        let (offloaded, reason) = match (case.source, case.target, last) {
            (_, Place::Foreign, _) | (Place::Foreign, _, false) => return None,
            (Place::Foreign, _, true) => (false, "one mover belongs to another host"),
            (Place::Virtual, _, true) => (true, "dr writes from its replica"),
            (Place::Virtual, _, false) => (true, "the store has the data already"),
            (Place::Ghost, ..) => (false, "the tape is read at dr"),
        };
        let source = leg
            .ranges
            .first()
            .map(|range| Tape { library: source_library(case.source), index: range.reel });
        Some(Job { source, targets: self.ran.clone(), offloaded, reason })
    }
}
