//! Who is given which drive, and when: the queue of those who need tapes in drives.
//!
//! A state machine without a clock, a thread or a device. Whoever runs it says what the libraries
//! look like, and hears whose turn it is. It keeps these rules:
//!
//! * All tapes of one who waits are given at once, or none: nobody holds a drive and waits for
//!   another.
//! * The order is that of a number which never changes: the time of the arrival, and a step for
//!   each priority below the first. So whoever waits is overtaken by those alone who come within a
//!   bounded time after him.
//! * Whoever can not go because a drive is missing keeps the free drives that he could use, and
//!   whoever waits for a tape of the queue keeps his tapes: those behind take what he has no use
//!   for, and nothing else. He keeps nothing while he waits for what the queue does not give out: a
//!   library that does not answer, a drive or a tape that somebody outside holds.
//! * A tape that is done with goes on in its drive to the next who wants it. For that he passes by
//!   those who wait for the drive, if they are not more urgent, each of them at most
//!   [`PASSES_MAX`] times.

mod free;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{Barcode, LibraryName};
use serde::{Deserialize, Serialize};
use svs::MountPriority;

use free::Free;

/// How often one who waits for a drive is passed by for the sake of a tape that lies in it.
pub const PASSES_MAX: u8 = 4;
/// How many wait at a time.
pub const WAITERS_MAX: usize = 1024;

/// A tape by its library and its volume tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TapeAt {
    /// The library, by its name here.
    pub library: LibraryName,
    /// The volume tag.
    pub barcode: Barcode,
}

impl fmt::Display for TapeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.library, self.barcode)
    }
}

/// One who waits, or has drives.
pub type Ticket = u64;

/// A tape that is wanted in a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The tape.
    pub tape: TapeAt,
    /// The drive to take if it is free.
    pub prefer: Option<u16>,
    /// Drives not to take.
    pub spared: BTreeSet<u16>,
}

impl From<TapeAt> for Need {
    fn from(tape: TapeAt) -> Self {
        Self { tape, prefer: None, spared: BTreeSet::new() }
    }
}

/// Tapes that are wanted at once.
pub type Choice = Vec<Need>;

/// Where a tape is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Where the arm can take it.
    Shelf,
    /// In this drive.
    Drive(u16),
    /// Not in the library, or not to be taken.
    Away,
}

/// A drive at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveNow {
    /// It may be used.
    pub in_service: bool,
    /// Somebody holds it. Where that is the queue's doing it does not matter.
    pub taken: bool,
    /// Somebody was said to hold it a moment ago: it is not taken by those who have no preference
    /// for it.
    pub rumoured: bool,
    /// A tape is in it.
    pub full: bool,
}

/// A library at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryNow {
    /// It answers.
    pub online: bool,
    /// Its drives, in order.
    pub drives: Vec<DriveNow>,
}

/// What there is: every library and tape that is wanted. What is not named is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The libraries.
    pub libraries: BTreeMap<LibraryName, LibraryNow>,
    /// The tapes.
    pub tapes: BTreeMap<TapeAt, Spot>,
}

/// A tape and the drive for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The tape.
    pub tape: TapeAt,
    /// The drive.
    pub drive: u16,
    /// It is to be brought there; else it lies there already.
    pub fetch: bool,
}

/// What one who waits is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// These drives are his: for this of his choices, in the order of its needs.
    Go {
        /// Which of his choices.
        choice: usize,
        /// The drives.
        seats: Vec<Seat>,
    },
    /// None of his choices can be: this tape is not there.
    Never(TapeAt),
}

/// What one who waits lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The library does not answer.
    Offline(LibraryName),
    /// The tape is in use.
    TapeInUse(TapeAt),
    /// The tape is for one before him.
    TapeKept(TapeAt),
    /// No drive of the library is free.
    NoDrive(LibraryName),
    /// The library does not have so many drives in service.
    TooFewDrives(LibraryName),
    /// The last attempt failed; there is a pause before the next.
    Again,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(library) => write!(f, "the library {library} can not be reached"),
            Self::TapeInUse(tape) => write!(f, "{tape} is in use"),
            Self::TapeKept(tape) => write!(f, "{tape} is wanted by one before it"),
            Self::NoDrive(library) => write!(f, "no drive of {library} is free"),
            Self::TooFewDrives(library) => {
                write!(f, "drives of {library} are held by others or out of service")
            }
            Self::Again => f.write_str("drive or changer were in use; it is tried again"),
        }
    }
}

/// One who waits.
#[derive(Clone, Debug)]
struct Waiter {
    priority: MountPriority,
    joined: u64,
    /// How often he was passed by.
    passed: u8,
    /// He does not go before that time.
    not_before: u64,
    choices: Vec<Choice>,
    obstacle: Option<Obstacle>,
}

/// One who has drives.
#[derive(Clone, Debug)]
struct Holder {
    was: Waiter,
    seats: Vec<Seat>,
    /// He is done with the tapes, and they still lie in the drives.
    leaving: bool,
}

/// One who waits or has drives, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub ticket: Ticket,
    /// How urgent.
    pub priority: MountPriority,
    /// Since when.
    pub joined: u64,
    /// The smaller the sooner.
    pub rank: u64,
    /// What is wanted: the first choice.
    pub tapes: Vec<TapeAt>,
    /// The drives that he has; none while he waits.
    pub seats: Vec<Seat>,
    /// What he lacks, as of the last decision.
    pub obstacle: Option<Obstacle>,
}

/// The queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// What one step of priority is worth, in milliseconds of waiting.
    step: u64,
    next: Ticket,
    waiting: BTreeMap<Ticket, Waiter>,
    holding: BTreeMap<Ticket, Holder>,
}

impl Queue {
    /// An empty queue. A step of priority is worth so many milliseconds of waiting.
    pub fn new(step: u64) -> Self {
        Self { step, next: 1, waiting: BTreeMap::new(), holding: BTreeMap::new() }
    }

    /// Somebody wants one of these choices, the first the most. `None`: too many wait.
    pub fn join(
        &mut self,
        now: u64,
        priority: MountPriority,
        choices: Vec<Choice>,
    ) -> Option<Ticket> {
        if self.waiting.len() >= WAITERS_MAX {
            return None;
        }
        let ticket = self.next;
        self.next += 1;
        let (passed, not_before, obstacle) = Default::default();
        let waiter = Waiter { priority, joined: now, passed, not_before, choices, obstacle };
        self.waiting.insert(ticket, waiter);
        Some(ticket)
    }

    /// One who waits wants this from now on; whether that is something else than before.
    pub fn revise(&mut self, ticket: Ticket, choices: &[Choice]) -> bool {
        let Some(waiter) = self.waiting.get_mut(&ticket) else { return false };
        let differs = waiter.choices != choices;
        if differs {
            waiter.choices = choices.to_vec();
        }
        differs
    }

    /// One who waits is as urgent as that. `false`: he does not wait.
    pub fn set_priority(&mut self, ticket: Ticket, priority: MountPriority) -> bool {
        let waiter = self.waiting.get_mut(&ticket);
        waiter.map(|waiter| waiter.priority = priority).is_some()
    }

    /// Drives that were given could not be used. He waits again, where he was before, and not
    /// before that time.
    pub fn back(&mut self, ticket: Ticket, not_before: u64) {
        if let Some(holder) = self.holding.remove(&ticket) {
            self.waiting.insert(ticket, Waiter { not_before, ..holder.was });
        }
    }

    /// Somebody goes, and what he had is free.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
        self.holding.remove(&ticket);
    }

    /// Somebody is done with his tapes, which still lie in their drives. Returns whose turn it is
    /// now, and which of the tapes are to be put back: the others stay where they are, and belong
    /// to somebody else. The drives of those that are put back are his until he leaves.
    pub fn finish(
        &mut self,
        ticket: Ticket,
        now: u64,
        seen: &Seen,
    ) -> (Vec<(Ticket, Turn)>, Vec<Seat>) {
        if let Some(holder) = self.holding.get_mut(&ticket) {
            holder.leaving = true;
        }
        let turns = self.decide(now, seen);
        let Some(holder) = self.holding.get_mut(&ticket) else { return (turns, Vec::new()) };
        holder.leaving = false;
        (turns, holder.seats.clone())
    }

    /// The tapes of those that wait.
    pub fn wanted(&self) -> BTreeSet<&TapeAt> {
        let choices = self.waiting.values().flat_map(|waiter| &waiter.choices);
        choices.flatten().map(|need| &need.tape).collect()
    }

    /// Everybody: those that have drives, and then those that wait, in their order.
    pub fn standing(&self) -> Vec<Standing> {
        let line = |ticket: Ticket, waiter: &Waiter, seats: &[Seat]| Standing {
            ticket,
            priority: waiter.priority,
            joined: waiter.joined,
            rank: self.rank(waiter),
            tapes: waiter.choices.iter().take(1).flatten().map(|it| it.tape.clone()).collect(),
            seats: seats.to_vec(),
            obstacle: waiter.obstacle.clone().filter(|_| seats.is_empty()),
        };
        let holding = self.holding.iter().map(|(it, holder)| line(*it, &holder.was, &holder.seats));
        let order = self.order();
        let waiting = order.iter().filter_map(|it| Some(line(*it, self.waiting.get(it)?, &[])));
        holding.chain(waiting).collect()
    }

    fn rank(&self, waiter: &Waiter) -> u64 {
        let steps = waiter.priority as u64;
        waiter.joined.saturating_add(steps.saturating_mul(self.step))
    }

    /// Those that wait, the first first.
    fn order(&self) -> Vec<Ticket> {
        let mut order: Vec<_> = self.waiting.iter().map(|(it, w)| (self.rank(w), *it)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, ticket)| ticket).collect()
    }

    /// Whose turn it is, as things look now.
    pub fn decide(&mut self, now: u64, seen: &Seen) -> Vec<(Ticket, Turn)> {
        let mut turns = Vec::new();
        let mut free = Free::new(seen, &self.holding);
        // Those that lack a drive, by the library of it.
        let mut short: Vec<(Ticket, LibraryName)> = Vec::new();
        for ticket in self.order() {
            let Some(waiter) = self.waiting.get(&ticket) else { continue };
            if let Some(tape) = free.never(&waiter.choices) {
                turns.push((ticket, Turn::Never(tape.clone())));
                self.waiting.remove(&ticket);
                continue;
            }
            let chosen = free.choose(&waiter.choices);
            let chosen = chosen.and_then(|(choice, seats)| {
                let in_the_way = free.handed(&seats).find(|seat| {
                    let passed = short.iter().filter(|(_, library)| *library == seat.tape.library);
                    passed.clone().any(|(before, _)| !self.lets_pass(*before, waiter.priority))
                });
                match in_the_way {
                    Some(seat) => Err(Obstacle::TapeKept(seat.tape.clone())),
                    None => Ok((choice, seats)),
                }
            });
            match chosen {
                Ok((choice, seats)) => {
                    let ready = waiter.not_before <= now;
                    if ready {
                        self.pass(&short, free.handed(&seats));
                    }
                    free.take(&seats);
                    self.go(ticket, ready, choice, seats, &mut turns);
                }
                Err(obstacle) => {
                    if let Obstacle::NoDrive(library) = &obstacle {
                        short.push((ticket, library.clone()));
                    }
                    free.keep_for(&waiter.choices);
                    self.lacks(ticket, obstacle);
                }
            }
        }
        turns
    }

    /// Whether one who waits lets one of this priority pass, who wants the tape in the drive.
    fn lets_pass(&self, before: Ticket, priority: MountPriority) -> bool {
        let waiter = self.waiting.get(&before);
        waiter.is_none_or(|it| it.priority >= priority && it.passed < PASSES_MAX)
    }

    fn pass<'a>(
        &mut self,
        short: &[(Ticket, LibraryName)],
        handed: impl Iterator<Item = &'a Seat>,
    ) {
        for seat in handed {
            for (before, _) in short.iter().filter(|(_, library)| *library == seat.tape.library) {
                if let Some(waiter) = self.waiting.get_mut(before) {
                    waiter.passed = waiter.passed.saturating_add(1);
                }
            }
        }
    }

    fn lacks(&mut self, ticket: Ticket, obstacle: Obstacle) {
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.obstacle = Some(obstacle);
        }
    }

    /// He goes, if he is ready; else what he was given is only kept for him.
    fn go(
        &mut self,
        ticket: Ticket,
        ready: bool,
        choice: usize,
        seats: Vec<Seat>,
        turns: &mut Vec<(Ticket, Turn)>,
    ) {
        if !ready {
            return self.lacks(ticket, Obstacle::Again);
        }
        let Some(was) = self.waiting.remove(&ticket) else { return };
        // Tapes that are handed on belong to nobody else any more.
        for holder in self.holding.values_mut().filter(|holder| holder.leaving) {
            holder.seats.retain(|old| seats.iter().all(|seat| seat.tape != old.tape));
        }
        self.holding.insert(ticket, Holder { was, seats: seats.clone(), leaving: false });
        turns.push((ticket, Turn::Go { choice, seats }));
    }
}
