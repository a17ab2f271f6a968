//! Who goes, as a table; and random lives of a queue against what must hold of any queue.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const STEP: u64 = 1000;

fn library() -> LibraryName {
    LibraryName::new("ptl0").unwrap()
}

fn tape(name: &str) -> TapeAt {
    TapeAt { library: library(), barcode: Barcode::new(name).unwrap() }
}

fn need(name: &str) -> Need {
    tape(name).into()
}

const FREE: DriveNow = DriveNow { in_service: true, taken: false, rumoured: false, full: false };
const DOWN: DriveNow = DriveNow { in_service: false, ..FREE };
const TAKEN: DriveNow = DriveNow { taken: true, ..FREE };

/// A library with these drives, and the tapes A to F on its shelf, except those that are placed.
fn seen(drives: &[DriveNow], placed: &[(&str, Spot)]) -> Seen {
    let mut seen = Seen::default();
    seen.libraries.insert(library(), LibraryNow { online: true, drives: drives.to_vec() });
    for name in ["A", "B", "C", "D", "E", "F"] {
        seen.tapes.insert(tape(name), Spot::Shelf);
    }
    for (name, spot) in placed {
        seen.tapes.insert(tape(name), *spot);
        if let Spot::Drive(index) = spot {
            seen.libraries.get_mut(&library()).unwrap().drives[usize::from(*index)].full = true;
        }
    }
    seen
}

/// A queue in which these wait from moment 0 on, one after the other.
fn queue(wants: &[(MountPriority, &[&str])]) -> Queue {
    let mut queue = Queue::new(STEP);
    for (at, (priority, names)) in (0..).zip(wants) {
        let choice = names.iter().map(|name| need(name)).collect();
        queue.join(at, *priority, vec![choice]).unwrap();
    }
    queue
}

/// Turns as `2: A in 0` for a tape that is fetched and `2: A stays in 0` for one that is there.
fn words(turns: &[(Ticket, Turn)]) -> Vec<String> {
    let word = |(ticket, turn): &(Ticket, Turn)| match turn {
        Turn::Never(tape) => format!("{ticket}: never {}", tape.barcode),
        Turn::Go { seats, .. } => {
            let seat = |it: &Seat| {
                let stays = if it.fetch { "" } else { " stays" };
                format!("{}{stays} in {}", it.tape.barcode, it.drive)
            };
            format!("{ticket}: {}", seats.iter().map(seat).collect::<Vec<_>>().join(", "))
        }
    };
    turns.iter().map(word).collect()
}

fn obstacle(queue: &Queue, ticket: Ticket) -> Option<Obstacle> {
    queue.standing().into_iter().find(|it| it.ticket == ticket).unwrap().obstacle
}

use MountPriority::{Copy, Migration, Policy, Restore};

#[test]
fn who_goes_first() {
    type Wants<'a> = &'a [(MountPriority, &'a [&'a str])];
    type Row<'a> = (&'a str, Wants<'a>, Seen, &'a [&'a str]);
    let one = &[FREE][..];
    let table: &[Row<'_>] = &[
        ("the first of equals", &[(Copy, &["A"]), (Copy, &["B"])], seen(one, &[]), &["1: A in 0"]),
        (
            "the most urgent",
            &[(Migration, &["A"]), (Policy, &["B"]), (Restore, &["C"]), (Copy, &["D"])],
            seen(one, &[]),
            &["3: C in 0"],
        ),
        (
            "as many as there are drives",
            &[(Copy, &["A"]), (Restore, &["B"]), (Copy, &["C"])],
            seen(&[FREE, FREE], &[]),
            &["2: B in 0", "1: A in 1"],
        ),
        (
            "a drive that is down or taken is passed over",
            &[(Copy, &["A"])],
            seen(&[DOWN, TAKEN, FREE], &[]),
            &["1: A in 2"],
        ),
        (
            "a tape that lies in a drive is used there",
            &[(Copy, &["A"])],
            seen(&[FREE, FREE], &[("A", Spot::Drive(1))]),
            &["1: A stays in 1"],
        ),
        (
            "out of a drive that is down it is fetched",
            &[(Copy, &["A"])],
            seen(&[DOWN, FREE], &[("A", Spot::Drive(0))]),
            &["1: A in 1"],
        ),
        (
            "two tapes at once or none; nobody takes the drive that is kept",
            &[(Copy, &["A", "B"]), (Copy, &["C"])],
            seen(&[FREE, TAKEN, FREE], &[]),
            &["1: A in 0, B in 2"],
        ),
        (
            "who needs more drives than there are keeps none",
            &[(Copy, &["A", "B"]), (Copy, &["C"])],
            seen(&[FREE, DOWN], &[]),
            &["2: C in 0"],
        ),
        (
            "a tape is in one drive",
            &[(Copy, &["A"]), (Copy, &["A"]), (Copy, &["B"])],
            seen(&[FREE, FREE], &[]),
            &["1: A in 0", "3: B in 1"],
        ),
        (
            "what is not there is said",
            &[(Copy, &["A"]), (Copy, &["B"])],
            seen(one, &[("A", Spot::Away)]),
            &["1: never A", "2: B in 0"],
        ),
    ];
    for (name, wants, seen, expected) in table {
        let turns = queue(wants).decide(10, seen);
        assert_eq!(words(&turns), *expected, "{name}");
    }
}

#[test]
fn a_drive_of_ones_own_is_preferred_and_those_of_others_are_spared() {
    let mut queue = Queue::new(STEP);
    let prefer = Need { prefer: Some(1), ..need("A") };
    let spare = Need { spared: [0].into(), ..need("B") };
    queue.join(0, Copy, vec![vec![prefer]]).unwrap();
    queue.join(1, Copy, vec![vec![spare]]).unwrap();
    let all = seen(&[FREE, FREE], &[]);
    assert_eq!(words(&queue.decide(5, &all)), ["1: A in 1"]);
    assert_eq!(obstacle(&queue, 2), Some(Obstacle::NoDrive(library())));
    // It is tried although somebody is said to have it; others go elsewhere.
    queue.back(1, 5);
    let rumour = DriveNow { rumoured: true, ..FREE };
    assert_eq!(words(&queue.decide(5, &seen(&[FREE, rumour], &[]))), ["1: A in 1"]);
    assert_eq!(obstacle(&queue, 2), Some(Obstacle::NoDrive(library())));
    // The preferred one goes down: another is taken.
    queue.back(1, 5);
    assert_eq!(words(&queue.decide(5, &seen(&[FREE, DOWN], &[]))), ["1: A in 0"]);
    assert_eq!(obstacle(&queue, 2), Some(Obstacle::TooFewDrives(library())));
}

#[test]
fn the_second_choice_is_taken_while_the_first_is_in_use() {
    let mut queue = queue(&[(Copy, &["A"])]);
    let all = seen(&[FREE, FREE], &[]);
    queue.decide(0, &all);
    queue.join(1, Restore, vec![vec![need("A")], vec![need("B")]]).unwrap();
    let turns = queue.decide(1, &all);
    assert_eq!(words(&turns), ["2: B in 1"]);
    assert!(matches!(turns[0].1, Turn::Go { choice: 1, .. }));
}

#[test]
fn a_tape_goes_on_in_its_drive() {
    let mut queue = queue(&[(Copy, &["A"]), (Copy, &["B"]), (Copy, &["A"])]);
    let one = seen(&[FREE], &[]);
    assert_eq!(words(&queue.decide(0, &one)), ["1: A in 0"]);
    let loaded = seen(&[TAKEN], &[("A", Spot::Drive(0))]);
    // 3 passes 2 by, since it wants what is mounted.
    let (turns, back) = queue.finish(1, 5, &loaded);
    assert_eq!((words(&turns), back), (vec!["3: A stays in 0".to_owned()], vec![]));
    queue.leave(1);
    // Nobody wants it any more: it goes back, and its drive is not given away before it has.
    let (turns, back) = queue.finish(3, 6, &loaded);
    assert_eq!((words(&turns), back.len()), (vec![], 1));
    assert_eq!(words(&queue.decide(7, &one)), Vec::<String>::new());
    queue.leave(3);
    assert_eq!(words(&queue.decide(8, &one)), ["2: B in 0"]);
}

#[test]
fn a_mounted_tape_does_not_pass_who_is_more_urgent_nor_too_often() {
    let loaded = seen(&[TAKEN], &[("A", Spot::Drive(0))]);
    let mut urgent = queue(&[(Copy, &["A"]), (Restore, &["B"]), (Copy, &["A"])]);
    urgent.set_priority(1, Restore);
    urgent.decide(0, &seen(&[FREE], &[]));
    assert_eq!(words(&urgent.finish(1, 5, &loaded).0), Vec::<String>::new());
    let mut often = queue(&[(Copy, &["A"]), (Copy, &["B"])]);
    for at in 2..2 + u64::from(PASSES_MAX) + 1 {
        often.join(at, Copy, vec![vec![need("A")]]).unwrap();
    }
    let mut holder = 1;
    often.decide(0, &seen(&[FREE], &[]));
    for _ in 0..PASSES_MAX {
        let (turns, _) = often.finish(holder, 9, &loaded);
        often.leave(holder);
        holder = turns[0].0;
    }
    let (turns, back) = often.finish(holder, 9, &loaded);
    assert_eq!((words(&turns), back.len()), (vec![], 1));
    often.leave(holder);
    assert_eq!(words(&often.decide(9, &seen(&[FREE], &[]))), ["2: B in 0"]);
}

#[test]
fn a_tape_does_not_go_on_in_a_drive_that_went_down() {
    let mut queue = queue(&[(Copy, &["A"]), (Copy, &["A"])]);
    queue.decide(0, &seen(&[FREE, FREE], &[]));
    let down = DriveNow { taken: true, ..DOWN };
    let (turns, back) = queue.finish(1, 5, &seen(&[down, FREE], &[("A", Spot::Drive(0))]));
    assert_eq!((words(&turns), back.len()), (vec![], 1));
    queue.leave(1);
    assert_eq!(words(&queue.decide(6, &seen(&[DOWN, FREE], &[]))), ["2: A in 1"]);
}

#[test]
fn who_comes_back_keeps_his_place_and_his_drive_through_the_pause() {
    let mut queue = queue(&[(Copy, &["A"]), (Copy, &["B"])]);
    let one = seen(&[FREE], &[]);
    queue.decide(0, &one);
    queue.back(1, 50);
    assert_eq!(words(&queue.decide(10, &one)), Vec::<String>::new());
    assert_eq!(obstacle(&queue, 1), Some(Obstacle::Again));
    assert_eq!(words(&queue.decide(50, &one)), ["1: A in 0"]);
}

#[test]
fn whoever_waits_long_enough_is_the_most_urgent() {
    let mut queue = queue(&[(Migration, &["A"])]);
    let none = seen(&[TAKEN], &[]);
    for at in (1..).map(|n| n * STEP).take(4) {
        queue.join(at, Restore, vec![vec![need("B")]]).unwrap();
        queue.decide(at, &none);
    }
    // Three steps: those of the first three seconds pass, the one with the same number does not.
    let order: Vec<_> = queue.standing().iter().map(|it| it.ticket).collect();
    assert_eq!(order, [2, 3, 1, 4, 5]);
}

#[test]
fn who_waits_for_outsiders_keeps_nothing() {
    let mut queue = queue(&[(Restore, &["A", "B"]), (Migration, &["B"])]);
    // A is in a drive that somebody else holds.
    let outside = seen(&[TAKEN, FREE, FREE], &[("A", Spot::Drive(0))]);
    assert_eq!(words(&queue.decide(5, &outside)), ["2: B in 1"]);
    assert_eq!(obstacle(&queue, 1), Some(Obstacle::TapeInUse(tape("A"))));
}

#[test]
fn the_queue_has_an_end() {
    let mut queue = Queue::new(STEP);
    for _ in 0..WAITERS_MAX {
        queue.join(0, Copy, vec![vec![need("A")]]).unwrap();
    }
    assert_eq!(queue.join(0, Copy, vec![vec![need("A")]]), None);
}

/// What happens to a queue.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join { priority: usize, first: usize, second: Option<usize> },
    Done { which: usize },
    Fails { which: usize },
    Cancel { which: usize },
    Down { drive: usize },
    Up { drive: usize },
    Outsider { drive: usize },
    Passes(u64),
}

const NAMES: [&str; 6] = ["A", "B", "C", "D", "E", "F"];
const DRIVES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let drive = 0..DRIVES;
    prop_oneof![
        6 => (0..5usize, 0..NAMES.len(), proptest::option::weighted(0.2, 0..NAMES.len()))
            .prop_map(|(priority, first, second)| Step::Join { priority, first, second }),
        6 => (0..9usize).prop_map(|which| Step::Done { which }),
        1 => (0..9usize).prop_map(|which| Step::Fails { which }),
        1 => (0..9usize).prop_map(|which| Step::Cancel { which }),
        1 => drive.clone().prop_map(|drive| Step::Down { drive }),
        1 => drive.clone().prop_map(|drive| Step::Up { drive }),
        1 => drive.prop_map(|drive| Step::Outsider { drive }),
        2 => (1..3 * STEP).prop_map(Step::Passes),
    ]
}

/// A library and those who use it, written down as simply as can be.
struct World {
    queue: Queue,
    now: u64,
    /// What lies in each drive.
    inside: [Option<TapeAt>; DRIVES],
    down: [bool; DRIVES],
    outsider: [bool; DRIVES],
    /// Who has which drives.
    holding: BTreeMap<Ticket, Vec<(usize, TapeAt)>>,
    waiting: BTreeMap<Ticket, (u64, Vec<TapeAt>)>,
}

impl World {
    fn new() -> Self {
        Self {
            queue: Queue::new(STEP),
            now: 0,
            inside: Default::default(),
            down: Default::default(),
            outsider: Default::default(),
            holding: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn held(&self, drive: usize) -> bool {
        self.holding.values().flatten().any(|(held, _)| *held == drive)
    }

    fn seen(&self) -> Seen {
        let drives: Vec<_> = (0..DRIVES)
            .map(|drive| DriveNow {
                in_service: !self.down[drive],
                taken: self.outsider[drive] || self.held(drive),
                rumoured: false,
                full: self.inside[drive].is_some(),
            })
            .collect();
        let placed = self.inside.iter().enumerate().filter_map(|(drive, tape)| {
            let name = tape.as_ref()?.barcode.as_str();
            let name = NAMES.iter().find(|it| **it == name)?;
            Some((*name, Spot::Drive(drive as u16)))
        });
        seen(&drives, &placed.collect::<Vec<_>>())
    }

    /// Takes turns: nothing is given that is not free, and nobody is passed over for nothing.
    fn obey(&mut self, turns: Vec<(Ticket, Turn)>) {
        let granted: Vec<_> = turns.iter().map(|(ticket, _)| *ticket).collect();
        for (ticket, turn) in turns {
            let Turn::Go { seats, .. } = turn else { panic!("every tape is there") };
            let (rank, wanted) = self.waiting.remove(&ticket).expect("only who waits goes");
            let given: Vec<_> = seats.iter().map(|seat| seat.tape.clone()).collect();
            assert_eq!(given, wanted, "all at once");
            // Whoever is before and wants one of these tapes alone and nothing else is not passed.
            for (other, (before, tapes)) in &self.waiting {
                let same = tapes.len() == 1 && given.contains(&tapes[0]);
                let passed = same && *before < rank && !granted.contains(other);
                assert!(!passed, "{ticket} has what {other} waits for");
            }
            for seat in seats {
                let drive = usize::from(seat.drive);
                assert!(!self.held(drive), "drive {drive} twice");
                assert!(!self.down[drive] && !self.outsider[drive], "drive {drive} is not free");
                let in_use = self.holding.values().flatten().any(|(_, tape)| *tape == seat.tape);
                assert!(!in_use, "{} twice", seat.tape);
                match seat.fetch {
                    true => {
                        assert_eq!(self.inside[drive], None, "drive {drive} is full");
                        for inside in
                            self.inside.iter_mut().filter(|it| **it == Some(seat.tape.clone()))
                        {
                            *inside = None;
                        }
                        self.inside[drive] = Some(seat.tape.clone());
                    }
                    false => assert_eq!(self.inside[drive], Some(seat.tape.clone())),
                }
                self.holding.entry(ticket).or_default().push((drive, seat.tape));
            }
        }
    }

    fn decide(&mut self) {
        let turns = self.queue.decide(self.now, &self.seen());
        self.obey(turns);
    }

    /// Somebody is done: what nobody wants goes back, and then he is gone.
    fn done(&mut self, ticket: Ticket) {
        let (turns, back) = self.queue.finish(ticket, self.now, &self.seen());
        let mine = self.holding.remove(&ticket).unwrap();
        let kept: Vec<_> = back.iter().map(|seat| usize::from(seat.drive)).collect();
        // Those that go back are still his while the others go on.
        let rest = mine.into_iter().filter(|(drive, _)| kept.contains(drive)).collect();
        self.holding.insert(ticket, rest);
        self.obey(turns);
        for (drive, _) in self.holding.remove(&ticket).unwrap() {
            self.inside[drive] = None;
        }
        self.queue.leave(ticket);
    }

    fn act(&mut self, step: Step) {
        let nth = |of: &mut dyn Iterator<Item = Ticket>, n: usize| {
            let all: Vec<_> = of.collect();
            (!all.is_empty()).then(|| all[n % all.len()])
        };
        match step {
            Step::Join { priority, first, second } => {
                let second = second.filter(|second| *second != first);
                let names = [Some(first), second];
                let tapes: Vec<_> = names.into_iter().flatten().map(|it| tape(NAMES[it])).collect();
                let priority = MountPriority::ALL[priority];
                let choice = tapes.iter().cloned().map(Need::from).collect();
                let ticket = self.queue.join(self.now, priority, vec![choice]).unwrap();
                let rank = self.now + priority as u64 * STEP;
                self.waiting.insert(ticket, (rank, tapes));
            }
            Step::Done { which } => {
                if let Some(ticket) = nth(&mut self.holding.keys().copied(), which) {
                    self.done(ticket);
                }
            }
            Step::Fails { which } => {
                if let Some(ticket) = nth(&mut self.holding.keys().copied(), which) {
                    let rank = self.queue.standing().into_iter().find(|it| it.ticket == ticket);
                    let mine = self.holding.remove(&ticket).unwrap();
                    mine.iter().for_each(|(drive, _)| self.inside[*drive] = None);
                    let tapes = mine.into_iter().map(|(_, tape)| tape).collect();
                    self.waiting.insert(ticket, (rank.unwrap().rank, tapes));
                    self.queue.back(ticket, self.now + STEP);
                }
            }
            Step::Cancel { which } => {
                if let Some(ticket) = nth(&mut self.waiting.keys().copied(), which) {
                    self.waiting.remove(&ticket);
                    self.queue.leave(ticket);
                }
            }
            Step::Down { drive } => self.down[drive] = true,
            Step::Up { drive } => (self.down[drive], self.outsider[drive]) = (false, false),
            Step::Outsider { drive } => self.outsider[drive] |= !self.held(drive),
            Step::Passes(time) => self.now += time,
        }
        self.decide();
    }

    /// Everything works from here on, nobody comes, and everybody ends: how many rounds it took.
    fn drain(&mut self) -> usize {
        (self.down, self.outsider) = Default::default();
        // What outsiders left in drives is taken away.
        for drive in 0..DRIVES {
            if !self.held(drive) {
                self.inside[drive] = None;
            }
        }
        self.now += STEP;
        for round in 0.. {
            assert!(round < 500, "{} starve", self.waiting.len());
            self.decide();
            match self.holding.keys().next().copied() {
                Some(ticket) => self.done(ticket),
                None if self.waiting.is_empty() => return round,
                None => panic!("nobody has a drive, and {} wait", self.waiting.len()),
            }
        }
        0
    }
}

proptest! {
    #[test]
    fn nothing_is_given_twice_and_nobody_starves(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.act(step);
        }
        let all = world.waiting.len() + world.holding.len();
        prop_assert!(world.drain() <= all);
    }

    /// With tapes of their own, all go in the order of their numbers: the model is a sort.
    #[test]
    fn single_tapes_go_in_order(wants in vec((0..5usize, 0..3 * STEP), 1..6), drives in 1..3usize) {
        let mut queue = Queue::new(STEP);
        let mut model = Vec::new();
        for (name, (priority, at)) in NAMES.iter().zip(&wants) {
            let priority = MountPriority::ALL[*priority];
            let ticket = queue.join(*at, priority, vec![vec![need(name)]]).unwrap();
            model.push((at + priority as u64 * STEP, ticket));
        }
        model.sort_unstable();
        let all = seen(&vec![FREE; drives], &[]);
        let mut went = Vec::new();
        while went.len() < model.len() {
            let turns = queue.decide(10 * STEP, &all);
            prop_assert!(!turns.is_empty());
            for (ticket, _) in turns {
                went.push(ticket);
                queue.leave(ticket);
            }
        }
        let expected: Vec<_> = model.into_iter().map(|(_, ticket)| ticket).collect();
        prop_assert_eq!(went, expected);
    }

    /// However many urgent ones come, one who waits has its turn within its steps.
    #[test]
    fn the_least_urgent_has_its_turn(pause in 1..STEP, priority in 0..5usize) {
        let mut queue = Queue::new(STEP);
        let priority = MountPriority::ALL[priority];
        let last = queue.join(0, priority, vec![vec![need("F")]]).unwrap();
        let mut now = 0;
        let mut holder = None;
        loop {
            prop_assert!(now <= (priority as u64 + 2) * STEP, "it starves");
            queue.join(now, Restore, vec![vec![need("A")]]).unwrap();
            if let Some(holder) = holder {
                queue.leave(holder);
            }
            let turns = queue.decide(now, &seen(&[FREE], &[]));
            holder = turns.first().map(|(ticket, _)| *ticket);
            if holder == Some(last) {
                break;
            }
            now += pause;
        }
    }
}
