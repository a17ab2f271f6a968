//! Headers of archives of any known form: where they begin, and which chunk begins with one.

use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::{Rules, cpio, dump, tar};

/// Data of less than this stays together with the headers around it: a chunk costs some hundred
/// bytes in lists.
const SMALL: usize = 2048;
/// So many false ones in one chunk, and no more are looked for.
const FALSE_MAX: usize = 64;

/// A header, and the data behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Bytes of the header.
    pub header: usize,
    /// Bytes of the data as they stand in the stream, filled up.
    pub filled: usize,
    /// Bytes of the data themselves.
    pub data: usize,
}

impl Member {
    /// With data that are filled up to a multiple of `unit`.
    pub(crate) fn new(header: usize, data: u64, unit: usize) -> Self {
        let data = usize::try_from(data).unwrap_or(usize::MAX);
        Self { header, data, filled: data.checked_next_multiple_of(unit).unwrap_or(data) }
    }
}

/// A form of headers.
pub(crate) struct Form {
    /// What each of them has in it.
    pub magic: &'static [u8],
    /// And where.
    pub at: usize,
    /// Takes the header at the front apart, and says if it is none.
    pub member: fn(&[u8]) -> Option<Member>,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("magic", &self.magic).finish_non_exhaustive()
    }
}

/// Finds headers of some forms.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    forms: Vec<&'static Form>,
    magics: AhoCorasick,
    /// No header is longer.
    longest: usize,
    /// How far in a header a magic begins, the nearest and the farthest.
    nearest: usize,
    farthest: usize,
}

impl Finder {
    /// One for the forms of these rules, if there are any.
    pub(crate) fn new(rules: Rules) -> Option<Self> {
        let (forms, longest): (Vec<&Form>, _) = match rules {
            Rules::Plain => return None,
            Rules::Tar => (vec![&tar::FORM], tar::HEADER),
            Rules::Archives => (
                std::iter::once(&tar::FORM).chain(&cpio::FORMS).chain(&dump::FORMS).collect(),
                tar::HEADER.max(cpio::HEADER_MAX).max(dump::HEADER),
            ),
        };
        let magics = forms.iter().map(|form| form.magic);
        // A dozen patterns of constant bytes are within every limit of the builder.
        let magics =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(magics).ok()?;
        let nearest = forms.iter().map(|form| form.at).min().unwrap_or(0);
        let farthest = forms.iter().map(|form| form.at).max().unwrap_or(0);
        Some(Self { forms, magics, longest, nearest, farthest })
    }

    /// No header is longer.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The member whose header is at the front.
    fn member(&self, bytes: &[u8]) -> Option<Member> {
        let has = |form: &&&Form| bytes.get(form.at..).is_some_and(|it| it.starts_with(form.magic));
        self.forms.iter().filter(has).find_map(|form| (form.member)(bytes))
    }

    /// The length of the chunk that begins with a header: the header, and what follows it as long
    /// as that is small members and further headers.
    pub(crate) fn headers(&self, bytes: &[u8], max: usize) -> Option<usize> {
        let mut end = 0;
        let mut member = self.member(bytes)?;
        loop {
            end += member.header;
            if member.data >= SMALL {
                return Some(end);
            }
            let next = end + member.filled;
            match bytes.get(next..).and_then(|it| self.member(it)) {
                Some(behind) if next + behind.header <= max => (member, end) = (behind, next),
                _ => return Some(end),
            }
        }
    }

    /// The first header that begins behind the front of `bytes` and before `length`, at which a
    /// chunk of that length is cut instead.
    pub(crate) fn before(&self, bytes: &[u8], length: usize) -> Option<usize> {
        let from = self.nearest + 1;
        let magic = self.forms.iter().map(|form| form.magic.len()).max().unwrap_or(0);
        let end = bytes.len().min(length + self.farthest + magic - 1);
        let begins = self.magics.find_iter(bytes.get(from..end)?).filter_map(|found| {
            let form = self.forms[found.pattern()];
            let begin = (from + found.start()).checked_sub(form.at)?;
            (begin > 0 && begin < length).then_some((begin, form))
        });
        let mut first: Option<usize> = None;
        for (begin, form) in begins.take(FALSE_MAX) {
            // A header may begin before one whose magic stands before its own, but not by more.
            if first.is_some_and(|first| begin + form.at > first + self.farthest) {
                break;
            }
            let earlier = first.is_none_or(|first| begin < first);
            if earlier && (form.member)(&bytes[begin..]).is_some() {
                first = Some(begin);
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder() -> Finder {
        Finder::new(Rules::Archives).unwrap()
    }

    #[test]
    fn the_header_that_begins_first_counts_whatever_form_it_has() {
        // A cpio header in the name of a tar member: its magic stands before that of tar.
        let mut bytes = b"junk".to_vec();
        let inner = cpio::header("x", 9, 9);
        let name = "n".repeat(40);
        bytes.extend(tar::header(&name, 9, 9));
        assert_eq!(finder().before(&bytes, 400), Some(4));
        bytes.splice(10..10 + inner.len(), inner);
        // It is no tar header any more, but the other is one.
        assert_eq!(finder().before(&bytes, 400), Some(10));
        let sum: u64 = bytes[4..516].iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = bytes[152..160].iter().map(|byte| u64::from(*byte)).sum();
        bytes[152..160].copy_from_slice(format!("{:06o}\0 ", sum - own + 256).as_bytes());
        // Now both are.
        assert_eq!(finder().before(&bytes, 400), Some(4));
    }

    #[test]
    fn small_members_of_any_form_stay_together() {
        let mut archive = Vec::new();
        archive.extend(tar::header("tar", 100, 5));
        archive.resize(archive.len() + 512, b'.');
        archive.extend(cpio::header("cpio", 2047, 5));
        archive.resize(archive.len() + 2048, b'.');
        archive.extend(dump::header(dump::Kind::Inode, 1, 5, false));
        archive.resize(archive.len() + 1024, b'.');
        archive.extend(dump::header(dump::Kind::Inode, 2, 5, true));
        let whole = archive.len();
        archive.resize(whole + 2048, b'.');
        assert_eq!(finder().headers(&archive, 65_536), Some(whole));
        assert_eq!(finder().headers(&archive, whole - 1), Some(whole - 2048));
    }

    #[test]
    fn what_only_looks_like_headers_is_given_up_on() {
        for magic in [b"070707".as_slice(), b"\0\0\xea\x6c", b"ustar"] {
            let mut bytes = magic.repeat(4000);
            let begin = bytes.len();
            bytes.extend(cpio::header("behind", 9, 9));
            assert_eq!(finder().before(&bytes, bytes.len()), None);
            assert_eq!(finder().before(&bytes[begin - 200..], 1000), Some(200));
        }
    }
}
