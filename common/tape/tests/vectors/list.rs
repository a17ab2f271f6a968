//! The list of vectors as data: CDBs, and what a device has to answer.
//!
//! ```text
//! peer NAME [no-position] [stale] [first BYTES]: REASON   a device that can be compared so far
//! case NAME                                          begins at the beginning of the tape
//!   write 2000@1                                     WRITE of a record; good
//!   marks 2                                          WRITE FILEMARKS; good
//!   rewind
//!   > CDB [| in LENGTH] [| out DATA] = ANSWER        to the drive
//!   c> CDB ... = ANSWER                              to the changer; S0 D0 A0 I0 are elements
//!     ~ PEER = ANSWER | REASON                       what another device answers, and why
//! ```
//!
//! Data is `LENGTH@SEED` for a record, or bytes in hexadecimal. An answer is a status (`good`, or
//! `check KEY/ASC/ASCQ` with `fm`, `eom`, `ili` and `info N`), what came (`2000@1`, `300 bytes`, or
//! bytes in hexadecimal, where `..` is any and `...` all that follows), and `at N`, the object
//! number afterwards.

/// One device that is compared with the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) name: String,
    /// It does not tell positions.
    pub(crate) no_position: bool,
    /// What comes with a filemark or an end is what its buffer held before.
    pub(crate) stale: bool,
    /// It keeps so many bytes of each record.
    pub(crate) first: Option<usize>,
    /// Why.
    pub(crate) reason: String,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A record of this length and seed is written.
    Write(usize, u8),
    /// So many filemarks are written.
    Marks(u32),
    /// The tape is rewound.
    Rewind,
    /// A command, and its answer.
    Ask(Box<Ask>),
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// To the changer, not to the drive.
    pub(crate) is_changer: bool,
    /// Bytes in hexadecimal and elements.
    pub(crate) cdb: Vec<String>,
    /// Most bytes that are to come.
    pub(crate) data_in: u32,
    /// What is sent.
    pub(crate) data_out: Option<String>,
    /// The answer by the standard.
    pub(crate) expected: String,
    /// Other answers: whose, which, why.
    pub(crate) others: Vec<(String, String, String)>,
}

/// A case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: String,
    /// What is done in it, with the lines of the list.
    pub(crate) acts: Vec<(usize, Act)>,
}

/// The whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// Devices that can be compared only so far.
    pub(crate) peers: Vec<Peer>,
    /// The cases.
    pub(crate) cases: Vec<Case>,
}

fn wrong(line: usize, what: &str) -> String {
    format!("line {}: {what}", line + 1)
}

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// The first line that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut list = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix("peer ") {
                list.peers.push(peer(rest).ok_or_else(|| wrong(at, "no peer"))?);
                continue;
            }
            if let Some(name) = line.strip_prefix("case ") {
                list.cases.push(Case { name: name.to_owned(), acts: Vec::new() });
                continue;
            }
            let case = list.cases.last_mut().ok_or_else(|| wrong(at, "before the first case"))?;
            if let Some(rest) = line.strip_prefix("~ ") {
                let Some((_, Act::Ask(ask))) = case.acts.last_mut() else {
                    return Err(wrong(at, "another answer to nothing"));
                };
                ask.others.push(other(rest).ok_or_else(|| wrong(at, "no other answer"))?);
                continue;
            }
            let act = act(line).ok_or_else(|| wrong(at, "nothing known"))?;
            case.acts.push((at + 1, act));
        }
        Ok(list)
    }

    /// The differences of all devices, as the rows of a table for people.
    pub(crate) fn differences(&self) -> Vec<String> {
        let mut rows: Vec<(String, String, String)> = Vec::new();
        for case in &self.cases {
            for (_, act) in &case.acts {
                let Act::Ask(ask) = act else { continue };
                for (peer, answer, reason) in &ask.others {
                    let difference = format!("{}: {answer}", case.name);
                    match rows.iter_mut().find(|(p, _, r)| p == peer && r == reason) {
                        Some((_, all, _)) if !all.contains(&difference) => {
                            *all = format!("{all}; {difference}");
                        }
                        Some(_) => {}
                        None => rows.push((peer.clone(), difference, reason.clone())),
                    }
                }
            }
        }
        rows.sort();
        let limits = self
            .peers
            .iter()
            .map(|peer| format!("| {} | what can be compared | {} |", peer.name, peer.reason));
        let rows = rows.into_iter().map(|(peer, what, why)| format!("| {peer} | {what} | {why} |"));
        limits.chain(rows).collect()
    }
}

fn peer(text: &str) -> Option<Peer> {
    let (head, reason) = text.split_once(": ")?;
    let mut words = head.split_whitespace();
    let mut peer = Peer { name: words.next()?.to_owned(), ..Peer::default() };
    peer.reason = reason.to_owned();
    while let Some(word) = words.next() {
        match word {
            "no-position" => peer.no_position = true,
            "stale" => peer.stale = true,
            "first" => peer.first = Some(words.next()?.parse().ok()?),
            _ => return None,
        }
    }
    Some(peer)
}

fn other(text: &str) -> Option<(String, String, String)> {
    let (peer, rest) = text.split_once(" = ")?;
    let (answer, reason) = rest.split_once(" | ")?;
    Some((peer.to_owned(), answer.to_owned(), reason.to_owned()))
}

/// `LENGTH@SEED`.
pub(crate) fn pattern(text: &str) -> Option<(usize, u8)> {
    let (length, seed) = text.split_once('@')?;
    Some((length.parse().ok()?, seed.parse().ok()?))
}

fn act(line: &str) -> Option<Act> {
    if line == "rewind" {
        return Some(Act::Rewind);
    }
    if let Some(rest) = line.strip_prefix("write ") {
        let (length, seed) = pattern(rest)?;
        return Some(Act::Write(length, seed));
    }
    if let Some(rest) = line.strip_prefix("marks ") {
        return Some(Act::Marks(rest.parse().ok()?));
    }
    let (is_changer, rest) = match line.strip_prefix("c> ") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("> ")?),
    };
    let (command, expected) = rest.split_once(" = ")?;
    let mut parts = command.split('|').map(str::trim);
    let cdb = parts.next()?.split_whitespace().map(str::to_owned).collect();
    let (mut data_in, mut data_out) = (0, None);
    for part in parts {
        match part.split_once(' ')? {
            ("in", length) => data_in = length.parse().ok()?,
            ("out", data) => data_out = Some(data.to_owned()),
            _ => return None,
        }
    }
    let (expected, others) = (expected.to_owned(), Vec::new());
    Some(Act::Ask(Box::new(Ask { is_changer, cdb, data_in, data_out, expected, others })))
}
