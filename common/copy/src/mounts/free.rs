//! What is free while the queue is gone through: taken, or kept, by those before.

use std::collections::{BTreeMap, BTreeSet};

use model::LibraryName;

use super::{Choice, DriveNow, Holder, Need, Obstacle, Seat, Seen, Spot, TapeAt, Ticket};

/// A drive.
type DriveAt = (LibraryName, u16);

pub(super) struct Free<'a> {
    seen: &'a Seen,
    /// Tapes that somebody of the queue has.
    used: BTreeSet<TapeAt>,
    /// Tapes that are for one before.
    kept: BTreeSet<TapeAt>,
    /// Tapes that are done with, and their drives.
    handed: BTreeMap<TapeAt, u16>,
    /// Drives that somebody of the queue has.
    busy: BTreeSet<DriveAt>,
    /// Drives that are for one before.
    reserved: BTreeSet<DriveAt>,
}

impl<'a> Free<'a> {
    pub(super) fn new(seen: &'a Seen, holding: &BTreeMap<Ticket, Holder>) -> Self {
        let (used, kept, handed, busy, reserved) = Default::default();
        let mut free = Self { seen, used, kept, handed, busy, reserved };
        for holder in holding.values() {
            for seat in &holder.seats {
                free.busy.insert((seat.tape.library.clone(), seat.drive));
                match holder.leaving && free.may_go_on(seat) {
                    true => drop(free.handed.insert(seat.tape.clone(), seat.drive)),
                    false => drop(free.used.insert(seat.tape.clone())),
                }
            }
        }
        free
    }

    /// Whether a tape can be used on in its drive.
    fn may_go_on(&self, seat: &Seat) -> bool {
        let library = self.seen.libraries.get(&seat.tape.library);
        let drive = library.and_then(|it| it.drives.get(usize::from(seat.drive)));
        drive.is_some_and(|drive| drive.in_service)
    }

    fn spot(&self, tape: &TapeAt) -> Spot {
        self.seen.tapes.get(tape).copied().unwrap_or(Spot::Away)
    }

    /// The tape for which none of the choices can ever be, if that is so.
    pub(super) fn never<'c>(&self, choices: &'c [Choice]) -> Option<&'c TapeAt> {
        let mut first = None;
        for choice in choices {
            let away = choice.iter().find(|need| self.spot(&need.tape) == Spot::Away)?;
            first = first.or(Some(&away.tape));
        }
        first
    }

    /// Those of the seats whose tapes are handed on.
    pub(super) fn handed<'s>(&self, seats: &'s [Seat]) -> impl Iterator<Item = &'s Seat> {
        seats.iter().filter(|seat| self.handed.contains_key(&seat.tape))
    }

    fn drives(&self, library: &LibraryName) -> impl Iterator<Item = (u16, &'a DriveNow)> {
        let library = self.seen.libraries.get(library);
        (0u16..).zip(library.into_iter().flat_map(|library| &library.drives))
    }

    fn drive(&self, library: &LibraryName, index: u16) -> Option<&'a DriveNow> {
        self.seen.libraries.get(library)?.drives.get(usize::from(index))
    }

    /// The first choice that can be had now; else what the first choice lacks.
    pub(super) fn choose(&self, choices: &[Choice]) -> Result<(usize, Vec<Seat>), Obstacle> {
        let mut lacks = None;
        for (index, choice) in choices.iter().enumerate() {
            match self.seats(choice) {
                Ok(seats) => return Ok((index, seats)),
                Err(obstacle) => lacks = lacks.or(Some(obstacle)),
            }
        }
        Err(lacks.unwrap_or(Obstacle::Again))
    }

    fn seats(&self, choice: &Choice) -> Result<Vec<Seat>, Obstacle> {
        let mut seats: Vec<Seat> = Vec::new();
        for need in choice {
            let seat = self.seat(need, &seats)?;
            seats.push(seat);
        }
        Ok(seats)
    }

    /// A drive for a tape, besides those that were picked.
    fn seat(&self, need: &Need, picked: &[Seat]) -> Result<Seat, Obstacle> {
        let tape = &need.tape;
        let library = &tape.library;
        if self.seen.libraries.get(library).is_none_or(|it| !it.online) {
            return Err(Obstacle::Offline(library.clone()));
        }
        let in_use = || Err(Obstacle::TapeInUse(tape.clone()));
        if self.used.contains(tape) {
            return in_use();
        }
        if self.kept.contains(tape) {
            return Err(Obstacle::TapeKept(tape.clone()));
        }
        if let Some(drive) = self.handed.get(tape) {
            return Ok(Seat { tape: tape.clone(), drive: *drive, fetch: false });
        }
        match self.spot(tape) {
            Spot::Away => return Err(Obstacle::TapeInUse(tape.clone())),
            Spot::Drive(index) => match self.drive(library, index) {
                Some(drive) if drive.taken || drive.rumoured || self.is_busy(library, index) => {
                    return in_use();
                }
                Some(drive) if drive.in_service => {
                    return Ok(Seat { tape: tape.clone(), drive: index, fetch: false });
                }
                // It is fetched from there.
                _ => {}
            },
            Spot::Shelf => {}
        }
        let drive = self.empty_drive(need, picked).ok_or_else(|| match self.usable(need) {
            0 => Obstacle::TooFewDrives(library.clone()),
            _ => Obstacle::NoDrive(library.clone()),
        })?;
        Ok(Seat { tape: tape.clone(), drive, fetch: true })
    }

    fn is_busy(&self, library: &LibraryName, drive: u16) -> bool {
        self.busy.contains(&(library.clone(), drive))
    }

    /// A drive to bring a tape to: the preferred one, or the first.
    fn empty_drive(&self, need: &Need, picked: &[Seat]) -> Option<u16> {
        let library = &need.tape.library;
        let fits = |(index, drive): &(u16, &DriveNow)| {
            let is_picked =
                picked.iter().any(|it| it.tape.library == *library && it.drive == *index);
            let is_kept = self.reserved.contains(&(library.clone(), *index));
            let free = drive.in_service && !drive.taken && !drive.full;
            let ours = self.is_busy(library, *index) || is_kept || is_picked;
            free && !ours && !need.spared.contains(index)
        };
        let all = || self.drives(library).filter(fits);
        let preferred = need.prefer.and_then(|wanted| all().find(|(index, _)| *index == wanted));
        let found = preferred.or_else(|| all().find(|(_, drive)| !drive.rumoured));
        found.map(|(index, _)| index)
    }

    /// Drives that a tape can be brought to now or when somebody of the queue is done.
    fn usable(&self, need: &Need) -> usize {
        let library = &need.tape.library;
        let usable = |(index, drive): &(u16, &DriveNow)| {
            let able =
                self.is_busy(library, *index) || !(drive.taken || drive.rumoured || drive.full);
            drive.in_service && able && !need.spared.contains(index)
        };
        self.drives(library).filter(usable).count()
    }

    pub(super) fn take(&mut self, seats: &[Seat]) {
        for seat in seats {
            self.handed.remove(&seat.tape);
            self.used.insert(seat.tape.clone());
            self.busy.insert((seat.tape.library.clone(), seat.drive));
        }
    }

    /// Keeps for one who can not go what he could use, so that it is not taken by those behind.
    pub(super) fn keep_for(&mut self, choices: &[Choice]) {
        let Some(choice) = choices.first() else { return };
        // Enough drives for all that has to be fetched, once those of the queue are done.
        let fetched = |need: &&Need| !self.handed.contains_key(&need.tape) && !self.lies(need);
        let short = choice.iter().filter(fetched).any(|need| {
            let same = |other: &&Need| other.tape.library == need.tape.library;
            choice.iter().filter(fetched).filter(same).count() > self.usable(need)
        });
        if short {
            return;
        }
        let mut seats: Vec<Seat> = Vec::new();
        let mut waits_for_tape = false;
        for need in choice {
            match self.seat(need, &seats) {
                Ok(seat) => seats.push(seat),
                Err(Obstacle::NoDrive(_)) => {}
                Err(Obstacle::TapeKept(_)) => waits_for_tape = true,
                Err(Obstacle::TapeInUse(tape)) if self.used.contains(&tape) => {
                    waits_for_tape = true;
                }
                // That is not for the queue to give.
                Err(_) => return,
            }
        }
        self.kept.extend(choice.iter().map(|need| need.tape.clone()));
        if !waits_for_tape {
            let drives = seats.iter().map(|seat| (seat.tape.library.clone(), seat.drive));
            self.reserved.extend(drives);
        }
    }

    /// Whether a tape lies in a drive where it can be used.
    fn lies(&self, need: &Need) -> bool {
        let Spot::Drive(index) = self.spot(&need.tape) else { return false };
        self.drive(&need.tape.library, index).is_some_and(|drive| drive.in_service)
    }
}
