//! Where the objects of a tape begin: a sparse table in memory.

use super::format::Place;

/// Objects between two entries at first.
const STRIDE: u64 = 1024;
/// Entries at most; beyond it every second one is dropped and the stride doubled.
const ENTRIES_MAX: usize = 1 << 16;

/// Places at regular object numbers, the first one at BOT.
#[derive(Debug)]
pub(super) struct Index {
    stride: u64,
    entries_max: usize,
    places: Vec<Place>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { stride: STRIDE, entries_max: ENTRIES_MAX, places: vec![Place::BOT] }
    }

    /// Takes note of a place that was reached; they must come in order.
    pub(super) fn note(&mut self, place: Place) {
        if place.object != self.places.len() as u64 * self.stride {
            return;
        }
        if self.places.len() == self.entries_max {
            let mut keep = false;
            self.places.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
            return self.note(place);
        }
        self.places.push(place);
    }

    /// Forgets every place behind an object.
    pub(super) fn cut(&mut self, object: u64) {
        self.places.retain(|place| place.object <= object);
    }

    /// The last noted place at or before an object.
    pub(super) fn floor(&self, object: u64) -> Place {
        let index = usize::try_from(object / self.stride).unwrap_or(usize::MAX);
        let last = self.places.len().saturating_sub(1);
        self.places.get(index.min(last)).copied().unwrap_or(Place::BOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stays_bounded_and_finds_the_floor() {
        let mut index = Index { stride: 2, entries_max: 4, places: vec![Place::BOT] };
        for object in 1..100 {
            index.note(Place { object, ..Place::BOT });
            assert!(index.places.len() <= 4);
            for sought in 0..=object {
                let floor = index.floor(sought).object;
                assert!(floor <= sought && sought - floor < 2 * index.stride);
            }
        }
        index.cut(40);
        assert!(index.places.iter().all(|place| place.object <= 40));
        for object in 41..60 {
            index.note(Place { object, ..Place::BOT });
            assert_eq!(index.floor(40).object % index.stride, 0);
        }
    }
}
