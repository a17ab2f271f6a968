//! Connections: the greeting, and how two of them become one pair.

use std::collections::VecDeque;
use std::fmt;

use model::{EngineId, SiteName};

/// The version of the protocol that this code speaks; [`greet`] settles on the lower of two.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest version that this code still understands.
const OLDEST_VERSION: u32 = 1;

/// How many half pairs [`Pairing`] holds before it drops the oldest.
const HALVES_MAX: usize = 16;

/// Which of the two connections of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Small messages: reports, leases, operations, jobs.
    Control,
    /// Data: replication and streams. It never blocks a tape operation.
    Bulk,
}

/// Ties the two connections of one pair together; random, chosen by the engine that connects.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    /// Not the bytes: they would let another connection join the pair.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Messages that a side understands beyond those of its version. An engine sends none that the
/// other one does not understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// [`crate::Heal`].
    pub const HEAL: Self = Self(1);
    /// [`crate::Compare`].
    pub const COMPARE: Self = Self(2);
    /// Everything that this code understands.
    pub const ALL: Self = Self(Self::HEAL.0 | Self::COMPARE.0);

    /// Whether all of these are among them.
    pub fn has(self, these: Self) -> bool {
        self.0 & these.0 == these.0
    }
}

/// The first message on each connection, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest version that the sender speaks.
    pub version: u32,
    /// The oldest version that the sender speaks.
    pub oldest: u32,
    /// The sender's site; the engine compares it with the certificate.
    pub site: SiteName,
    /// This run of the sender: a new one tells of a restart.
    pub engine: EngineId,
    /// What the connection is for.
    pub channel: Channel,
    /// Which pair the connection belongs to.
    pub token: Token,
    /// What the sender understands.
    pub capabilities: Capabilities,
}

impl Hello {
    /// The greeting of the engine that connects, or the answer to one with its token and channel.
    pub fn new(site: SiteName, engine: EngineId, channel: Channel, token: Token) -> Self {
        let (version, oldest) = (PROTOCOL_VERSION, OLDEST_VERSION);
        let capabilities = Capabilities::ALL;
        Self { version, oldest, site, engine, channel, token, capabilities }
    }
}

/// Why an engine closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// It shuts down; connect again later.
    Shutdown,
    /// The peer broke a rule; the text says which.
    Protocol,
    /// No version in common.
    Version,
    /// The peer is not known here, or its certificate and its name differ.
    NotAllowed,
    /// A newer pair of connections of the same peer took over.
    Replaced,
}

/// The last message on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Why.
    pub reason: GoodbyeReason,
    /// For people, at most 1024 bytes; longer is cut when it is sent.
    pub text: String,
}

/// Who is at the other end, after [`greet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The site.
    pub site: SiteName,
    /// Its run.
    pub engine: EngineId,
    /// The version both speak.
    pub version: u32,
    /// What it understands.
    pub capabilities: Capabilities,
}

/// Greetings that do not go together; a retry helps only after someone changed something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetError {
    /// No common version: the older engine must be updated.
    #[error(
        "the peer speaks versions {oldest} to {version} of the link protocol, this engine \
        {OLDEST_VERSION} to {PROTOCOL_VERSION}; update the older one"
    )]
    Version {
        /// The peer's oldest.
        oldest: u32,
        /// The peer's newest.
        version: u32,
    },
    /// The name in the greeting is not the one in the certificate: a wrong certificate or name in
    /// the peer's configuration.
    #[error("the peer calls itself {said} but its certificate says {certificate}")]
    Site {
        /// The greeting's name.
        said: SiteName,
        /// The certificate's name.
        certificate: SiteName,
    },
    /// Both ends have the same site name or the same run: the engine was connected to itself.
    #[error("the peer is this engine itself, or a site of the same name ({0})")]
    Myself(SiteName),
    /// The answer belongs to another connection: the peer is at fault.
    #[error("the peer answered the greeting of another connection")]
    Mixed,
}

/// Compares the two greetings of one connection: `theirs` against `mine` and against the name in
/// the peer's certificate. Both ends call it; the accepting end after it took over channel and
/// token from the greeting it received.
pub fn greet(mine: &Hello, theirs: &Hello, certificate: &SiteName) -> Result<Peer, GreetError> {
    let version = mine.version.min(theirs.version);
    if version < mine.oldest.max(theirs.oldest) {
        let (oldest, version) = (theirs.oldest, theirs.version);
        return Err(GreetError::Version { oldest, version });
    }
    if theirs.site != *certificate {
        let (said, certificate) = (theirs.site.clone(), certificate.clone());
        return Err(GreetError::Site { said, certificate });
    }
    if theirs.site == mine.site || theirs.engine == mine.engine {
        return Err(GreetError::Myself(mine.site.clone()));
    }
    if theirs.token != mine.token || theirs.channel != mine.channel {
        return Err(GreetError::Mixed);
    }
    let (site, engine, capabilities) = (theirs.site.clone(), theirs.engine, theirs.capabilities);
    Ok(Peer { site, engine, version, capabilities })
}

/// What a greeting tells about the peer since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Never met in this run of ours.
    First,
    /// The same run: it remembers.
    Same,
    /// It was restarted in between: what it had in memory is gone.
    Restarted,
}

/// Remembers which run of one peer was met last.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerMemory(Option<EngineId>);

impl PeerMemory {
    /// Takes note of a greeting.
    pub fn meet(&mut self, engine: EngineId) -> Meeting {
        match self.0.replace(engine) {
            None => Meeting::First,
            Some(known) if known == engine => Meeting::Same,
            Some(_) => Meeting::Restarted,
        }
    }
}

/// Brings the two connections of a pair together at the accepting end. `T` is the connection.
#[derive(Debug)]
pub struct Pairing<T> {
    halves: VecDeque<(SiteName, Token, Channel, T)>,
}

impl<T> Default for Pairing<T> {
    fn default() -> Self {
        Self { halves: VecDeque::new() }
    }
}

impl<T> Pairing<T> {
    /// Adds a greeted connection. With its other half here, gives (control, bulk). A second
    /// connection for the same half replaces the first; the oldest of more than 16 is dropped.
    pub fn add(&mut self, site: SiteName, hello: &Hello, connection: T) -> Option<(T, T)> {
        let mine = |half: &(SiteName, Token, Channel, T)| half.0 == site && half.1 == hello.token;
        let found = self.halves.iter().position(mine).and_then(|at| self.halves.remove(at));
        match found {
            Some((_, _, channel, other)) if channel != hello.channel => Some(match hello.channel {
                Channel::Control => (connection, other),
                Channel::Bulk => (other, connection),
            }),
            _ => {
                if self.halves.len() >= HALVES_MAX {
                    self.halves.pop_front();
                }
                self.halves.push_back((site, hello.token, hello.channel, connection));
                None
            }
        }
    }

    /// Drops the half that waits with this token, if it still does (its time is over).
    pub fn forget(&mut self, site: &SiteName, token: Token) -> Option<T> {
        let at = self.halves.iter().position(|half| half.0 == *site && half.1 == token)?;
        self.halves.remove(at).map(|half| half.3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(site: &str, engine: u64, channel: Channel, token: u8) -> Hello {
        let site = SiteName::new(site).unwrap();
        let engine = EngineId(model::Ulid::from_parts(engine, 0));
        Hello::new(site, engine, channel, Token([token; 16]))
    }

    #[test]
    fn greetings_settle_or_say_why_not() {
        let mine = hello("hq", 1, Channel::Control, 7);
        let good = hello("dr", 2, Channel::Control, 7);
        let dr = SiteName::new("dr").unwrap();
        assert_eq!(greet(&mine, &good, &dr).unwrap().version, PROTOCOL_VERSION);
        let older = Hello { capabilities: Capabilities::default(), ..good.clone() };
        let peer = greet(&mine, &older, &dr).unwrap();
        assert!(!peer.capabilities.has(Capabilities::HEAL));
        assert!(greet(&mine, &good, &dr).unwrap().capabilities.has(Capabilities::ALL));
        let newer = Hello { version: 9, oldest: 1, ..good.clone() };
        assert_eq!(greet(&mine, &newer, &dr).unwrap().version, PROTOCOL_VERSION);
        let too_new = Hello { version: 9, oldest: 8, ..good.clone() };
        assert!(matches!(greet(&mine, &too_new, &dr), Err(GreetError::Version { .. })));
        let other = SiteName::new("other").unwrap();
        assert!(matches!(greet(&mine, &good, &other), Err(GreetError::Site { .. })));
        let hq = SiteName::new("hq").unwrap();
        assert!(matches!(greet(&mine, &mine, &hq), Err(GreetError::Myself(_))));
        let mixed = hello("dr", 2, Channel::Bulk, 7);
        assert_eq!(greet(&mine, &mixed, &dr), Err(GreetError::Mixed));
    }

    #[test]
    fn two_connections_with_one_token_are_a_pair_in_either_order() {
        let mut pairing = Pairing::default();
        let site = SiteName::new("hq").unwrap();
        let control = hello("hq", 1, Channel::Control, 1);
        let bulk = hello("hq", 1, Channel::Bulk, 1);
        assert_eq!(pairing.add(site.clone(), &bulk, "b"), None);
        assert_eq!(pairing.add(site.clone(), &hello("hq", 1, Channel::Control, 2), "x"), None);
        assert_eq!(pairing.add(site.clone(), &control, "c"), Some(("c", "b")));
        assert_eq!(pairing.add(site.clone(), &control, "c1"), None);
        assert_eq!(pairing.add(site.clone(), &control, "c2"), None);
        assert_eq!(pairing.forget(&site, Token([1; 16])), Some("c2"));
        for token in 10..60 {
            assert_eq!(pairing.add(site.clone(), &hello("hq", 1, Channel::Bulk, token), "h"), None);
        }
        assert!(pairing.halves.len() <= HALVES_MAX);
    }

    #[test]
    fn a_restart_is_noticed_once() {
        let mut memory = PeerMemory::default();
        let id = |n| EngineId(model::Ulid::from_parts(n, 0));
        assert_eq!(memory.meet(id(1)), Meeting::First);
        assert_eq!(memory.meet(id(1)), Meeting::Same);
        assert_eq!(memory.meet(id(2)), Meeting::Restarted);
        assert_eq!(memory.meet(id(2)), Meeting::Same);
    }
}
