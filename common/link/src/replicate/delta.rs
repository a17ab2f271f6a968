//! New bytes as what stays of the old ones and what does not: copies and literals.
//!
//! A pack of megabytes that differs in a few hundred places becomes some kilobytes before a
//! compressor sees it, which is both faster and shorter than letting the compressor find the
//! old bytes: its blocks of 128 KiB each pay for tables of their own.
//!
//! An operation is so many literals and then a copy. The operations stand in columns, since what is
//! alike compresses better side by side: how many there are; of each the number of literals, the
//! copy's length without its lowest byte, and where it begins in the old bytes, less where it
//! would if the literals had taken the place of as many old bytes; then the lowest bytes of the
//! lengths. Literals behind the last copy need no operation.

/// Old bytes are found again by so many in a row.
const WINDOW: usize = 16;
/// Entered at every fourth place only.
const STRIDE: usize = 4;
/// The shortest copy from anywhere, and where it was expected.
const COPY_MIN: usize = 24;
const NEAR_MIN: usize = 12;
/// The longer nothing is found the fewer places are looked at: every third after so many bytes,
/// every fifth after twice as many, and so on up to the last. Steps are odd, so that one of four
/// meets a place that was entered: what is longer than a window and four steps is found.
const PATIENCE: usize = 2 << 10;
const STEP_MAX: usize = 15;
/// The table of places, in entries of 4 bytes.
const TABLE_BITS_MAX: u32 = 20;
/// Of an entry so many bits say where, in strides, which reaches over 4 MiB; the others are of the
/// hash, so that hardly any place is looked at in vain: each is far from the one before.
const PLACE_BITS: u32 = 20;

/// What is left of new bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// The columns.
    pub(super) operations: Vec<u8>,
    /// Bytes that were not found.
    pub(super) literals: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

/// Of the bytes in a window: their slot in a table of so many bits, and what an entry has of them,
/// which is never 0.
fn slot(bytes: &[u8], at: usize, bits: u32) -> (usize, u32) {
    let first = word(bytes, at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let second = word(bytes, at + 8).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let hash = (first ^ second).wrapping_mul(0x1656_67b1_9e37_79f9);
    ((hash >> (64 - bits)) as usize, hash as u32 >> PLACE_BITS | 1)
}

/// How many bytes at the front are the same.
fn same(a: &[u8], b: &[u8]) -> usize {
    let length = a.len().min(b.len());
    let mut at = 0;
    while at + 8 <= length {
        let differ = word(a, at) ^ word(b, at);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + a[at..length].iter().zip(&b[at..length]).take_while(|(a, b)| a == b).count()
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Where the old bytes are.
struct Places<'a> {
    old: &'a [u8],
    table: Vec<u32>,
    bits: u32,
}

impl<'a> Places<'a> {
    fn of(old: &'a [u8]) -> Self {
        let bits = usize::BITS - (old.len() / STRIDE).leading_zeros();
        let bits = bits.clamp(8, TABLE_BITS_MAX);
        let mut table = vec![0; 1 << bits];
        let places = (0..old.len().saturating_sub(WINDOW - 1)).step_by(STRIDE);
        for (at, place) in places.zip(0..1 << PLACE_BITS) {
            let (slot, tag) = slot(old, at, bits);
            table[slot] = tag << PLACE_BITS | place;
        }
        Self { old, table, bits }
    }

    /// A copy for what begins at `at`: where, and how long. `near` is where it is expected.
    fn find(&self, new: &[u8], at: usize, near: Option<usize>) -> Option<(usize, usize)> {
        let length = |from: usize| self.old.get(from..).map_or(0, |old| same(&new[at..], old));
        if let Some(near) = near.filter(|near| word(self.old, *near) == word(new, at)) {
            let length = length(near);
            if length >= NEAR_MIN {
                return Some((near, length));
            }
        }
        let (slot, tag) = slot(new, at, self.bits);
        let entry = self.table[slot];
        if entry >> PLACE_BITS != tag {
            return None;
        }
        let place = (entry & ((1 << PLACE_BITS) - 1)) as usize * STRIDE;
        Some((place, length(place))).filter(|(_, length)| *length >= COPY_MIN)
    }
}

/// So many literals, and then a copy of old bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation {
    literals: u32,
    length: u32,
    from: u32,
}

/// New bytes, told by old ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    operations: Vec<Operation>,
    /// Those behind the last copy as well.
    literals: Vec<u8>,
}

impl Difference {
    /// Tells `new` by `old`, both of 4 MiB at most.
    pub fn of(old: &[u8], new: &[u8]) -> Self {
        let places = Places::of(old);
        let mut difference = Self::default();
        // Of the new bytes those before `told` are told; `old_end` is where the last copy ended.
        let (mut at, mut told, mut old_end) = (0, 0, 0usize);
        while at + WINDOW <= new.len() {
            let near = old_end.checked_add(at - told);
            let Some((mut from, mut length)) = places.find(new, at, near) else {
                at += (2 * ((at - told) / PATIENCE) + 1).min(STEP_MAX);
                continue;
            };
            while from > 0 && at > told && old[from - 1] == new[at - 1] {
                (from, at, length) = (from - 1, at - 1, length + 1);
            }
            difference.literals.extend_from_slice(&new[told..at]);
            difference.operations.push(Operation {
                literals: (at - told) as u32,
                length: length as u32,
                from: from as u32,
            });
            at += length;
            (told, old_end) = (at, from + length);
        }
        difference.literals.extend_from_slice(&new[told..]);
        difference
    }

    /// New bytes that nothing old helps with.
    pub fn whole(new: Vec<u8>) -> Self {
        Self { operations: Vec::new(), literals: new }
    }

    /// The bytes that were not found.
    pub(super) fn literals(&self) -> &[u8] {
        &self.literals
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.operations.len() * size_of::<Operation>() + self.literals.len()
    }
}

/// Differences one behind the other as one, each with where its old bytes begin among all.
pub(super) fn joined(parts: &[(usize, &Difference)]) -> Delta {
    let (mut counts, mut highs, mut firsts, mut lows) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut literals = Vec::with_capacity(parts.iter().map(|it| it.1.literals.len()).sum());
    // Literals that are not followed by a copy yet, and where the last one ended.
    let (mut waiting, mut old_end) = (0u64, 0u64);
    for (start, part) in parts {
        literals.extend_from_slice(&part.literals);
        waiting += part.literals.len() as u64;
        let mut left = part.literals.len() as u64;
        for operation in &part.operations {
            left -= u64::from(operation.literals);
            let count = waiting - left;
            let (from, length) = (*start as u64 + u64::from(operation.from), operation.length);
            put(&mut counts, count);
            put(&mut highs, u64::from(length >> 8));
            lows.push(length as u8);
            let distance = (from as i64) - (old_end + count) as i64;
            put(&mut firsts, ((distance << 1) ^ (distance >> 63)).cast_unsigned());
            (waiting, old_end) = (left, from + u64::from(length));
        }
    }
    let mut operations = Vec::new();
    put(&mut operations, lows.len() as u64);
    [counts, highs, firsts, lows].iter().for_each(|column| operations.extend_from_slice(column));
    Delta { operations, literals }
}

/// The new bytes, of which there must be `total`; `None` if it makes no sense.
pub(super) fn decode(old: &[u8], delta: &Delta, total: usize) -> Option<Vec<u8>> {
    let mut rest = &delta.operations[..];
    let number = usize::try_from(take(&mut rest)?).ok()?;
    // Each has a byte in each column at least.
    if number > rest.len() / 4 {
        return None;
    }
    let mut column = || (0..number).map(|_| take(&mut rest)).collect::<Option<Vec<_>>>();
    let (counts, highs, firsts) = (column()?, column()?, column()?);
    let lows = Some(rest).filter(|lows| lows.len() == number)?;
    let (mut out, mut literals) = (Vec::with_capacity(total), &delta.literals[..]);
    let mut old_end = 0i64;
    for (((count, high), first), low) in counts.iter().zip(highs).zip(firsts).zip(lows) {
        let count = usize::try_from(*count).ok()?;
        let length = usize::try_from(high.checked_mul(256)?).ok()?.checked_add((*low).into())?;
        let (taken, left) = literals.split_at_checked(count)?;
        literals = left;
        let distance = (first >> 1).cast_signed() ^ -((first & 1).cast_signed());
        let from = old_end.checked_add(i64::try_from(count).ok()?)?.checked_add(distance)?;
        let start = usize::try_from(from).ok()?;
        let copied = old.get(start..start.checked_add(length)?)?;
        if out.len() + taken.len() + copied.len() > total {
            return None;
        }
        out.extend_from_slice(taken);
        out.extend_from_slice(copied);
        old_end = i64::try_from(start + length).ok()?;
    }
    out.extend_from_slice(literals);
    (out.len() == total).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What may become of old bytes: pieces of them in any order, and new ones between.
    fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let old = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            prop::collection::vec(0u8..3, 0..3000),
        ];
        let piece =
            (any::<prop::sample::Index>(), 0usize..800, prop::collection::vec(any::<u8>(), 0..40));
        (old, prop::collection::vec(piece, 0..8)).prop_map(|(old, pieces)| {
            let mut new = Vec::new();
            for (from, length, literal) in pieces {
                let from = from.index(old.len() + 1);
                new.extend_from_slice(&old[from..(from + length).min(old.len())]);
                new.extend(literal);
            }
            (old, new)
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes((old, new) in edited()) {
            let delta = joined(&[(0, &Difference::of(&old, &new))]);
            let back = decode(&old, &delta, new.len());
            prop_assert_eq!(back.as_ref(), Some(&new));
            prop_assert!(delta.operations.len() <= new.len() + 1);
            prop_assert_eq!(decode(&old, &delta, new.len() + 1), None);
        }

        #[test]
        fn what_is_joined_decodes(pairs in prop::collection::vec(edited(), 0..5), whole: bool) {
            let (mut old, mut new, mut parts) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (before, after)) in pairs.iter().enumerate() {
                let difference = match whole && index == 1 {
                    true => Difference::whole(after.clone()),
                    false => Difference::of(before, after),
                };
                parts.push((old.len(), difference));
                old.extend_from_slice(before);
                new.extend_from_slice(after);
            }
            let parts: Vec<_> = parts.iter().map(|(start, part)| (*start, part)).collect();
            prop_assert_eq!(decode(&old, &joined(&parts), new.len()), Some(new));
        }

        #[test]
        fn nonsense_gives_nothing_or_the_length_it_should(
            old in prop::collection::vec(any::<u8>(), 0..100),
            operations in prop::collection::vec(0u8..20, 0..60),
            literals in prop::collection::vec(any::<u8>(), 0..60),
            total in 0usize..300,
        ) {
            let out = decode(&old, &Delta { operations, literals }, total);
            prop_assert!(out.is_none_or(|out| out.len() == total));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let huge = [0xff; 9].iter().copied().chain([1]).collect::<Vec<u8>>();
        for column in 0..3 {
            let mut operations = vec![1];
            for n in 0..3 {
                operations.extend_from_slice(if n == column { &huge } else { &[0] });
            }
            operations.push(1);
            let delta = Delta { operations, literals: vec![7] };
            assert_eq!(decode(&[1, 2, 3], &delta, 1), None);
        }
        let delta = Delta { operations: huge, literals: Vec::new() };
        assert_eq!(decode(&[], &delta, 0), None);
    }
}
