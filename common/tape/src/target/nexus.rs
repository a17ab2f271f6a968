//! What a logical unit remembers about its initiators: unit attentions, reservations, prevented
//! removal. An initiator is a number that its session carries (SAM: an I_T nexus).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scsi::Sense;

use crate::TapeError;

/// Most initiators remembered; the one with the lowest number goes first.
const NEXUS_MAX: usize = 1024;

/// Most unit attentions waiting for one initiator.
const ATTENTION_MAX: usize = 8;

/// What a command does, as reservations see it (SPC-5 5.14, SSC-4 4.2.22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Never conflicts.
    Any,
    /// Conflicts with RESERVE only.
    Status,
    /// Reads or moves the medium.
    Read,
    /// Changes the medium or the device.
    Write,
}

/// Everything that is kept by initiator.
#[derive(Debug, Default)]
pub(super) struct Nexuses {
    power_on: bool,
    attentions: BTreeMap<u64, VecDeque<Sense>>,
    reserved_by: Option<u64>,
    prevented_by: BTreeSet<u64>,
    /// Persistent reservation keys.
    registrations: BTreeMap<u64, u64>,
    /// Holder and TYPE of the persistent reservation.
    held: Option<(u64, u8)>,
    /// PRGENERATION.
    generation: u32,
}

/// Parameters of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReserveOut {
    pub(super) action: u8,
    pub(super) scope: u8,
    pub(super) kind: u8,
    pub(super) key: u64,
    pub(super) service_key: u64,
}

impl Nexuses {
    /// With `power_on`, every initiator finds 06/29/00 first.
    pub(super) fn new(power_on: bool) -> Self {
        Self { power_on, ..Self::default() }
    }

    /// The start of every command but INQUIRY, REPORT LUNS and REQUEST SENSE: unit attention
    /// first, then reservations.
    pub(super) fn enter(&mut self, nexus: u64, access: Access) -> Result<(), TapeError> {
        match self.queue(nexus).pop_front() {
            Some(attention) => Err(TapeError::Check(attention)),
            None if self.conflicts(nexus, access) => Err(TapeError::ReservationConflict),
            None => Ok(()),
        }
    }

    /// Takes the unit attention that REQUEST SENSE reports.
    pub(super) fn take_attention(&mut self, nexus: u64) -> Option<Sense> {
        self.queue(nexus).pop_front()
    }

    fn queue(&mut self, nexus: u64) -> &mut VecDeque<Sense> {
        let power_on = self.power_on.then_some(Sense::POWER_ON_RESET);
        if !self.attentions.contains_key(&nexus) && self.attentions.len() >= NEXUS_MAX {
            self.attentions.pop_first();
        }
        self.attentions.entry(nexus).or_insert_with(|| power_on.into_iter().collect())
    }

    /// Raises a unit attention for every initiator seen so far, but for `except`.
    pub(super) fn raise(&mut self, attention: Sense, except: Option<u64>) {
        for (nexus, queue) in &mut self.attentions {
            let wanted = except != Some(*nexus) && !queue.contains(&attention);
            if wanted && queue.len() < ATTENTION_MAX {
                queue.push_back(attention);
            }
        }
    }

    fn raise_for(&mut self, nexus: u64, attention: Sense) {
        let queue = self.queue(nexus);
        if !queue.contains(&attention) && queue.len() < ATTENTION_MAX {
            queue.push_back(attention);
        }
    }

    /// The initiator is gone for good: its attentions, reservations and prevention end. Numbers
    /// are not used twice, so a persistent reservation could only bind the device for ever.
    /// Whether it was the last one.
    pub(super) fn forget(&mut self, nexus: u64) -> bool {
        let last = self.attentions.remove(&nexus).is_some() && self.attentions.is_empty();
        self.prevented_by.remove(&nexus);
        self.release(nexus);
        self.registrations.remove(&nexus);
        self.end_if_unheld();
        last
    }

    /// Logical unit reset (SAM-5 6.3.3): RESERVE and PREVENT end, every initiator finds 06/29/00;
    /// persistent reservations stay.
    pub(super) fn reset(&mut self) {
        self.reserved_by = None;
        self.prevented_by.clear();
        self.attentions.values_mut().for_each(VecDeque::clear);
        self.raise(Sense::POWER_ON_RESET, None);
    }

    fn conflicts(&self, nexus: u64, access: Access) -> bool {
        if self.reserved_by.is_some_and(|holder| holder != nexus) {
            return access != Access::Any;
        }
        let Some((holder, kind)) = self.held else { return false };
        let registered = self.registrations.contains_key(&nexus);
        let excluded = match kind {
            1 | 3 => holder != nexus,
            _ => !registered,
        };
        let exclusive_access = matches!(kind, 3 | 6 | 8);
        excluded && (access == Access::Write || (access == Access::Read && exclusive_access))
    }

    /// RESERVE(6) and (10) of the whole unit.
    pub(super) fn reserve(&mut self, nexus: u64) -> Result<(), TapeError> {
        if self.reserved_by.is_some_and(|holder| holder != nexus) || !self.registrations.is_empty()
        {
            return Err(TapeError::ReservationConflict);
        }
        self.reserved_by = Some(nexus);
        Ok(())
    }

    /// RELEASE: nothing happens if the reservation is another's.
    pub(super) fn release(&mut self, nexus: u64) {
        self.reserved_by = self.reserved_by.filter(|holder| *holder != nexus);
    }

    /// PREVENT ALLOW MEDIUM REMOVAL.
    pub(super) fn prevent(&mut self, nexus: u64, prevent: bool) {
        match prevent && self.prevented_by.len() < NEXUS_MAX {
            true => self.prevented_by.insert(nexus),
            false => self.prevented_by.remove(&nexus),
        };
    }

    /// Whether any initiator prevents removal.
    pub(super) fn removal_prevented(&self) -> bool {
        !self.prevented_by.is_empty()
    }

    /// PERSISTENT RESERVE IN (SPC-5 6.17).
    pub(super) fn reserve_in(&self, action: u8) -> Vec<u8> {
        let mut data = self.generation.to_be_bytes().to_vec();
        let mut body = Vec::new();
        match action {
            0 => self.registrations.values().for_each(|key| body.extend(key.to_be_bytes())),
            1 => {
                if let Some((holder, kind)) = self.held {
                    body.extend(self.key_of(holder).to_be_bytes());
                    body.extend([0, 0, 0, 0, 0, kind, 0, 0]);
                }
            }
            2 => return vec![0, 8, 0x00, 0x80, 0xea, 0x01, 0, 0],
            _ => {
                for (nexus, key) in &self.registrations {
                    let kind = self.held.filter(|(holder, kind)| holder == nexus || *kind >= 7);
                    body.extend(key.to_be_bytes());
                    body.extend([0, 0, 0, 0, u8::from(kind.is_some())]);
                    body.push(kind.map_or(0, |(_, kind)| kind));
                    body.extend([0; 10]);
                }
            }
        }
        data.extend((body.len() as u32).to_be_bytes());
        data.extend(body);
        data
    }

    fn key_of(&self, nexus: u64) -> u64 {
        self.registrations.get(&nexus).copied().unwrap_or(0)
    }

    /// PERSISTENT RESERVE OUT (SPC-5 6.18). A wrong key is a reservation conflict.
    pub(super) fn reserve_out(&mut self, nexus: u64, out: ReserveOut) -> Result<(), TapeError> {
        if self.reserved_by.is_some_and(|holder| holder != nexus) {
            return Err(TapeError::ReservationConflict);
        }
        let typed = matches!(out.action, 1 | 2 | 4 | 5);
        if typed && (out.scope != 0 || !matches!(out.kind, 1 | 3 | 5..=8)) {
            return Err(Sense::bad_cdb_field(2, None).into());
        }
        let registered = self.registrations.get(&nexus).copied();
        if out.action != 6 && registered.unwrap_or(0) != out.key {
            return Err(TapeError::ReservationConflict);
        }
        if !matches!(out.action, 0 | 6) && registered.is_none() {
            return Err(TapeError::ReservationConflict);
        }
        match out.action {
            0 | 6 => self.register(nexus, out.service_key)?,
            1 => self.hold(nexus, out.kind)?,
            2 => self.let_go(nexus, out.kind)?,
            3 => {
                self.notify_registrants(nexus, Sense::RESERVATIONS_PREEMPTED);
                self.registrations.clear();
                self.held = None;
            }
            _ => self.preempt(nexus, out)?,
        }
        if !matches!(out.action, 1 | 2) {
            self.generation = self.generation.wrapping_add(1);
        }
        Ok(())
    }

    fn register(&mut self, nexus: u64, key: u64) -> Result<(), TapeError> {
        if key == 0 {
            self.registrations.remove(&nexus);
            self.end_if_unheld();
            return Ok(());
        }
        if !self.registrations.contains_key(&nexus) && self.registrations.len() >= NEXUS_MAX {
            return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
        }
        self.registrations.insert(nexus, key);
        Ok(())
    }

    /// A reservation ends with its holder's registration; one of all registrants with the last.
    fn end_if_unheld(&mut self) {
        let Some((holder, kind)) = self.held else { return };
        let stands = match kind {
            7 | 8 => !self.registrations.is_empty(),
            _ => self.registrations.contains_key(&holder),
        };
        if !stands {
            self.held = None;
            if kind >= 5 {
                self.notify_registrants(holder, Sense::RESERVATIONS_RELEASED);
            }
        }
    }

    fn hold(&mut self, nexus: u64, kind: u8) -> Result<(), TapeError> {
        match self.held {
            Some((holder, held)) if (holder != nexus && held < 7) || held != kind => {
                Err(TapeError::ReservationConflict)
            }
            Some(_) => Ok(()),
            None => {
                self.held = Some((nexus, kind));
                Ok(())
            }
        }
    }

    fn let_go(&mut self, nexus: u64, kind: u8) -> Result<(), TapeError> {
        match self.held {
            Some((holder, held)) if holder == nexus || held >= 7 => {
                if held != kind {
                    return Err(Sense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION.into());
                }
                self.held = None;
                if held >= 5 {
                    self.notify_registrants(nexus, Sense::RESERVATIONS_RELEASED);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn preempt(&mut self, nexus: u64, out: ReserveOut) -> Result<(), TapeError> {
        let all = out.service_key == 0;
        if all && self.held.is_none_or(|(_, kind)| kind < 7) {
            return Err(Sense::bad_parameter(8, None).into());
        }
        let ours = |key: u64| all || key == out.service_key;
        let holder = self.held.map(|(holder, _)| holder);
        let gone: Vec<u64> = self
            .registrations
            .iter()
            .filter(|(other, key)| **other != nexus && ours(**key))
            .map(|(other, _)| *other)
            .collect();
        let takes = holder.is_some_and(|h| ours(self.key_of(h)));
        if gone.is_empty() && !takes {
            return Err(TapeError::ReservationConflict);
        }
        for other in gone {
            self.registrations.remove(&other);
            self.raise_for(other, Sense::REGISTRATIONS_PREEMPTED);
        }
        match takes {
            true => self.held = Some((nexus, out.kind)),
            false => self.end_if_unheld(),
        }
        Ok(())
    }

    fn notify_registrants(&mut self, but: u64, attention: Sense) {
        let others: Vec<u64> =
            self.registrations.keys().copied().filter(|other| *other != but).collect();
        others.into_iter().for_each(|other| self.raise_for(other, attention));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(action: u8, kind: u8, key: u64, service_key: u64) -> ReserveOut {
        ReserveOut { action, scope: 0, kind, key, service_key }
    }

    const CONFLICT: Result<(), TapeError> = Err(TapeError::ReservationConflict);

    #[test]
    fn attentions_come_before_conflicts_and_once() {
        let mut nexuses = Nexuses::new(true);
        assert_eq!(nexuses.enter(1, Access::Any), Err(Sense::POWER_ON_RESET.into()));
        nexuses.reserve(1).unwrap();
        nexuses.raise(Sense::MEDIUM_MAY_HAVE_CHANGED, None);
        nexuses.raise(Sense::MEDIUM_MAY_HAVE_CHANGED, None);
        assert_eq!(nexuses.enter(2, Access::Status), Err(Sense::POWER_ON_RESET.into()));
        assert_eq!(nexuses.enter(2, Access::Status), CONFLICT);
        assert_eq!(nexuses.enter(1, Access::Read), Err(Sense::MEDIUM_MAY_HAVE_CHANGED.into()));
        assert_eq!(nexuses.enter(1, Access::Read), Ok(()));
        nexuses.release(2);
        assert_eq!(nexuses.enter(2, Access::Status), CONFLICT);
        nexuses.forget(1);
        assert_eq!(nexuses.enter(2, Access::Status), Ok(()));
    }

    #[test]
    fn persistent_reservations_exclude_by_type() {
        for (kind, read, registrants) in
            [(1, true, false), (3, false, false), (5, true, true), (6, false, true)]
        {
            let mut nexuses = Nexuses::default();
            nexuses.reserve_out(1, out(6, 0, 0, 11)).unwrap();
            nexuses.reserve_out(2, out(0, 0, 0, 22)).unwrap();
            nexuses.reserve_out(1, out(1, kind, 11, 0)).unwrap();
            assert_eq!(nexuses.enter(1, Access::Write), Ok(()));
            assert_eq!(nexuses.enter(2, Access::Write).is_ok(), registrants, "{kind}");
            assert_eq!(nexuses.enter(3, Access::Write), CONFLICT);
            assert_eq!(nexuses.enter(3, Access::Read).is_ok(), read, "{kind}");
            assert_eq!(nexuses.enter(3, Access::Status), Ok(()));
            assert_eq!(nexuses.reserve_out(2, out(1, kind, 22, 0)), CONFLICT);
            assert_eq!(nexuses.reserve(3), CONFLICT);
        }
    }

    #[test]
    fn preempting_takes_the_reservation_and_tells_the_loser() {
        let mut nexuses = Nexuses::default();
        nexuses.reserve_out(1, out(0, 0, 0, 11)).unwrap();
        nexuses.reserve_out(2, out(0, 0, 0, 22)).unwrap();
        nexuses.reserve_out(1, out(1, 3, 11, 0)).unwrap();
        assert_eq!(nexuses.reserve_out(2, out(4, 3, 99, 11)), CONFLICT);
        nexuses.reserve_out(2, out(4, 3, 22, 11)).unwrap();
        assert_eq!(nexuses.enter(1, Access::Any), Err(Sense::REGISTRATIONS_PREEMPTED.into()));
        assert_eq!(nexuses.enter(1, Access::Read), CONFLICT);
        assert_eq!(nexuses.reserve_in(0)[8..], 22u64.to_be_bytes());
        assert_eq!(nexuses.reserve_in(1).len(), 24);
        let wrong = nexuses.reserve_out(2, out(2, 1, 22, 0));
        assert_eq!(wrong, Err(Sense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION.into()));
        nexuses.reserve_out(2, out(2, 3, 22, 0)).unwrap();
        assert_eq!(nexuses.enter(1, Access::Read), Ok(()));
    }
}
