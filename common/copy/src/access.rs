//! Which copy of a tape a host is given.
//!
//! All copies are equal in what they hold: a stale one is no candidate. So the one is taken whose
//! library has the most of its drives free, and the primary where that does not decide.

use std::cmp::Ordering;

/// A medium that holds what the host asked for, and how its library stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// It is the medium that is written, not a copy of it.
    pub primary: bool,
    /// Its library answers.
    pub online: bool,
    /// It failed a short while ago.
    pub avoided: bool,
    /// Drives of its library.
    pub drives: u32,
    /// How many of them are in use; more than there are counts as all.
    pub in_use: u32,
}

impl Candidate {
    /// Compares by drives in use over drives. A library without drives is as one whose drives are
    /// all in use.
    fn utilisation(&self, other: &Self) -> Ordering {
        let parts = |it: &Self| match it.drives {
            0 => (1, 1),
            drives => (u64::from(it.in_use.min(drives)), u64::from(drives)),
        };
        let ((a, of_a), (b, of_b)) = (parts(self), parts(other));
        (a * of_b).cmp(&(b * of_a))
    }

    fn before(&self, other: &Self) -> Ordering {
        let reachable = other.online.cmp(&self.online);
        let trusted = self.avoided.cmp(&other.avoided);
        let primary = other.primary.cmp(&self.primary);
        reachable.then(trusted).then_with(|| self.utilisation(other)).then(primary)
    }
}

/// The candidates as they are to be tried, by their places in the list: first those whose library
/// answers and that did not fail lately, the least utilised library first, ties to the primary and
/// then in the order of the list. Those whose library does not answer come last: it may be back by
/// then.
pub fn order(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<_> = (0..candidates.len()).collect();
    // Stable: what is equal stays in the order of the list.
    order.sort_by(|a, b| candidates[*a].before(&candidates[*b]));
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIMARY: Candidate =
        Candidate { primary: true, online: true, avoided: false, drives: 2, in_use: 0 };
    const COPY: Candidate = Candidate { primary: false, ..PRIMARY };

    fn busy(candidate: Candidate, in_use: u32, drives: u32) -> Candidate {
        Candidate { in_use, drives, ..candidate }
    }

    #[test]
    fn the_table_of_orders() {
        let offline = Candidate { online: false, ..PRIMARY };
        let avoided = Candidate { avoided: true, ..PRIMARY };
        let rows: [(&str, &[Candidate], &[usize]); 12] = [
            ("nothing", &[], &[]),
            ("one", &[PRIMARY], &[0]),
            ("idle libraries: the primary", &[PRIMARY, COPY], &[0, 1]),
            ("wherever it stands", &[COPY, PRIMARY], &[1, 0]),
            ("the least utilised", &[busy(PRIMARY, 1, 2), COPY], &[1, 0]),
            ("equally utilised", &[busy(PRIMARY, 1, 2), busy(COPY, 2, 4)], &[0, 1]),
            ("by share, not by number", &[busy(PRIMARY, 1, 2), busy(COPY, 3, 8)], &[1, 0]),
            ("three libraries", &[busy(PRIMARY, 2, 2), busy(COPY, 1, 2), COPY], &[2, 1, 0]),
            ("no drives at all", &[busy(COPY, 0, 0), busy(PRIMARY, 1, 2)], &[1, 0]),
            ("counted twice", &[busy(COPY, 3, 2), busy(PRIMARY, 2, 2)], &[1, 0]),
            ("offline comes last", &[offline, busy(COPY, 2, 2), avoided], &[1, 2, 0]),
            ("what failed comes late", &[avoided, busy(COPY, 1, 2)], &[1, 0]),
        ];
        for (what, candidates, expected) in rows {
            assert_eq!(order(candidates), expected, "{what}");
        }
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<bool>(), any::<bool>(), any::<bool>(), 0..9u32, 0..9u32).prop_map(
            |(primary, online, avoided, drives, in_use)| Candidate {
                primary,
                online,
                avoided,
                drives,
                in_use,
            },
        )
    }

    proptest! {
        /// Said in other words than the code: no candidate stands behind one that is worse.
        #[test]
        fn nothing_better_stands_behind(candidates in prop::collection::vec(candidate(), 0..8)) {
            let order = order(&candidates);
            let mut places = order.clone();
            places.sort_unstable();
            prop_assert_eq!(places, (0..candidates.len()).collect::<Vec<_>>());
            for pair in order.windows(2) {
                let (first, second) = (&candidates[pair[0]], &candidates[pair[1]]);
                prop_assert!(first.online || !second.online);
                if first.online != second.online {
                    continue;
                }
                prop_assert!(!first.avoided || second.avoided);
                if first.avoided != second.avoided {
                    continue;
                }
                let share = |c: &Candidate| match c.drives {
                    0 => 1.0,
                    n => f64::from(c.in_use.min(n)) / f64::from(n),
                };
                prop_assert!(share(first) <= share(second) + 1e-9);
                if (share(first) - share(second)).abs() > 1e-9 {
                    continue;
                }
                prop_assert!(first.primary || !second.primary);
                if first.primary == second.primary {
                    prop_assert!(pair[0] < pair[1]);
                }
            }
        }
    }
}
