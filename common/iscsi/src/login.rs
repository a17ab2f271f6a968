//! The login of an initiator (RFC 7143 6.3): security stage, operational stage, full feature.

use crate::chap::{CHALLENGE, Chap, ChapError, Secret};
use crate::text::{Pairs, TEXT_MAX, TextError};
use crate::{Digests, LoginRequest, LoginResponse, Session};

/// Requests after which a login that still goes on is given up.
const ROUNDS_MAX: u32 = 16;
/// The longest data segment that we take.
const SEGMENT: usize = 256 << 10;
/// Most bytes in one sequence of data PDUs.
const BURST: usize = 1 << 20;
/// Most bytes that go with a command unasked.
const FIRST_BURST: usize = 256 << 10;
/// What the other side takes if it says nothing (RFC 7143 13.12).
const SEGMENT_DEFAULT: usize = 8192;
const BURST_DEFAULT: usize = 262_144;
const FIRST_BURST_DEFAULT: usize = 65_536;

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Digests behind PDUs of the full feature phase.
    pub digests: Digests,
    /// The longest data segment that we send.
    pub send: usize,
    /// The longest data segment that we take.
    pub take: usize,
    /// Data may go along with the command.
    pub immediate: bool,
    /// Beyond that nothing goes unasked.
    pub initial_r2t: bool,
    /// Most bytes that go unasked.
    pub first_burst: usize,
    /// Most bytes that one R2T asks for.
    pub burst: usize,
}

impl Limits {
    /// What holds before anything was agreed.
    pub const INITIAL: Self = Self {
        digests: Digests { header: false, data: false },
        send: SEGMENT_DEFAULT,
        take: SEGMENT,
        immediate: true,
        initial_r2t: true,
        first_burst: FIRST_BURST_DEFAULT,
        burst: BURST_DEFAULT,
    };
}

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To ask which targets there are.
    Discovery,
    /// To send commands to a target.
    Normal {
        /// Its name.
        target: String,
    },
}

/// Who logs in: CHAP, in one direction or in both.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The name that the target knows.
    pub user: String,
    /// The secret of that name.
    pub secret: Secret,
    /// Name and secret by which the target proves itself; not asked for if not given.
    pub target: Option<(String, Secret)>,
}

/// A login to be.
#[derive(Clone, Debug)]
pub struct LoginOptions {
    /// Our name.
    pub initiator: String,
    /// What the session is for.
    pub kind: Kind,
    /// CHAP, or nothing.
    pub credentials: Option<Credentials>,
    /// Which digests we wish; the target may not have them.
    pub digests: Digests,
    /// The identifier of the session on our side; the same one again ends the session before.
    pub isid: [u8; 6],
    /// Random bytes: the challenge for the target, and behind it the challenge's identifier.
    pub random: [u8; CHALLENGE + 1],
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// A request with its data segment.
    Send(LoginRequest, Vec<u8>),
    /// The session is there.
    Done(Box<Session>),
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The target can not be had here but at `HOST:PORT`.
    #[error("the target has moved to {0}")]
    Moved(String),
    /// The target says no.
    #[error("the target refuses the login: {} ({class:02x}{detail:02x}h)", why(*class, *detail))]
    Refused {
        /// Status class.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// The target wants or offers another way to prove who one is.
    #[error("the target does not agree to AuthMethod={wanted}: it answers {answered:?}")]
    Method {
        /// What we offer.
        wanted: &'static str,
        /// What it answers.
        answered: String,
    },
    /// CHAP did not succeed.
    #[error(transparent)]
    Chap(#[from] ChapError),
    /// A text that is none.
    #[error(transparent)]
    Text(#[from] TextError),
    /// An answer that does not belong to what was sent.
    #[error("the target answers the login out of order")]
    Order,
    /// A value that was not offered or makes no sense.
    #[error("the target answers {0}={1}")]
    Value(&'static str, String),
    /// It never ends.
    #[error("the login does not come to an end")]
    Endless,
}

/// In words (RFC 7143 11.13.5).
fn why(class: u8, detail: u8) -> &'static str {
    match (class, detail) {
        (2, 1) => "user and secret are not accepted",
        (2, 2) => "this initiator is not allowed",
        (2, 3) => "there is no such target",
        (2, 4) => "the target was removed",
        (2, 6) => "it has too many connections",
        (2, 9) => "it does not support this type of session",
        (2, _) => "it finds fault with us",
        (3, 1) => "it is out of service",
        (3, 2) => "it is out of resources",
        (3, _) => "it has an error of its own",
        _ => "no cause is known",
    }
}

/// Where CHAP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The method was offered.
    Method,
    /// CHAP_A was sent.
    Algorithm,
    /// Our answer was sent.
    Proof,
    /// Operational keys were sent.
    Operational,
}

/// A login under way.
#[derive(Debug)]
pub struct Login {
    options: LoginOptions,
    chap: Option<Chap>,
    stage: Stage,
    rounds: u32,
    limits: Limits,
    text: Vec<u8>,
    exp_stat_sn: u32,
}

impl Login {
    /// A login, and its first request.
    pub fn new(options: LoginOptions) -> (Self, LoginRequest, Vec<u8>) {
        let mut challenge = [0; CHALLENGE];
        challenge.copy_from_slice(&options.random[..CHALLENGE]);
        let chap = options.credentials.as_ref().map(|credentials| Chap {
            user: credentials.user.clone(),
            secret: credentials.secret.clone(),
            target: credentials.target.clone(),
            identifier: options.random[CHALLENGE],
            challenge,
        });
        let mut pairs = Pairs::default();
        pairs.add("InitiatorName", options.initiator.clone());
        match &options.kind {
            Kind::Discovery => pairs.add("SessionType", "Discovery"),
            Kind::Normal { target } => {
                pairs.add("SessionType", "Normal").add("TargetName", target.clone())
            }
        };
        // Many targets tell everybody what there is, and prove themselves only to who uses it.
        pairs.add(
            "AuthMethod",
            match (&chap, &options.kind) {
                (None, _) => "None",
                (Some(_), Kind::Normal { .. }) => "CHAP",
                (Some(_), Kind::Discovery) => "CHAP,None",
            },
        );
        let login = Self {
            options,
            stage: Stage::Method,
            rounds: 0,
            limits: Limits::INITIAL,
            text: Vec::new(),
            exp_stat_sn: 0,
            chap,
        };
        let request = login.request(SECURITY, login.chap.is_none());
        (login, request, pairs.encode())
    }

    fn request(&self, stage: u8, transit: bool) -> LoginRequest {
        let next = if stage == SECURITY { OPERATIONAL } else { FULL_FEATURE };
        LoginRequest {
            immediate: true,
            transit,
            stage,
            next: if transit { next } else { 0 },
            isid: self.options.isid,
            cmd_sn: 1,
            exp_stat_sn: self.exp_stat_sn,
            ..LoginRequest::default()
        }
    }

    /// Takes a response with its data segment.
    ///
    /// # Errors
    /// The login is over.
    pub fn receive(&mut self, response: &LoginResponse, data: &[u8]) -> Result<Step, LoginError> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(LoginError::Endless);
        }
        if response.class != 0 {
            return Err(refused(response, data));
        }
        let stage = if self.stage == Stage::Operational { OPERATIONAL } else { SECURITY };
        if response.task != 0 || response.stage != stage || response.version != 0 {
            return Err(LoginError::Order);
        }
        self.exp_stat_sn = response.stat_sn.wrapping_add(1);
        if self.text.len() + data.len() > TEXT_MAX {
            return Err(TextError::TooLong.into());
        }
        self.text.extend(data);
        if response.more {
            return match response.transit {
                true => Err(LoginError::Order),
                false => Ok(Step::Send(self.request(stage, false), Vec::new())),
            };
        }
        let pairs = Pairs::parse(&std::mem::take(&mut self.text))?;
        match self.stage {
            Stage::Operational => self.operational(response, &pairs),
            _ => self.security(response, &pairs),
        }
    }

    fn security(&mut self, response: &LoginResponse, pairs: &Pairs) -> Result<Step, LoginError> {
        if response.transit && response.next != OPERATIONAL {
            return Err(LoginError::Order);
        }
        let wanted = if self.chap.is_some() { "CHAP" } else { "None" };
        if self.stage == Stage::Method {
            match pairs.get("AuthMethod") {
                Some("None") if self.options.kind == Kind::Discovery => self.chap = None,
                Some(answered) if answered != wanted => {
                    return Err(LoginError::Method { wanted, answered: answered.to_owned() });
                }
                // Some targets that want nothing do not say so.
                None if self.chap.is_some() => {
                    return Err(LoginError::Method { wanted, answered: String::new() });
                }
                _ => {}
            }
        }
        let Some(chap) = &self.chap else { return Ok(self.go_on(response.transit)) };
        // Nobody goes on before both have proven themselves.
        if response.transit != (self.stage == Stage::Proof) {
            return Err(LoginError::Order);
        }
        match self.stage {
            Stage::Method => {
                self.stage = Stage::Algorithm;
                let mut pairs = Pairs::default();
                pairs.add("CHAP_A", "5");
                Ok(Step::Send(self.request(SECURITY, false), pairs.encode()))
            }
            Stage::Algorithm => {
                let answer = chap.answer(pairs)?;
                self.stage = Stage::Proof;
                Ok(Step::Send(self.request(SECURITY, true), answer.encode()))
            }
            _ => {
                chap.check(pairs)?;
                Ok(self.go_on(true))
            }
        }
    }

    /// To the operational stage, or once more the wish for it.
    fn go_on(&mut self, transit: bool) -> Step {
        if !transit {
            return Step::Send(self.request(SECURITY, true), Vec::new());
        }
        self.stage = Stage::Operational;
        Step::Send(self.request(OPERATIONAL, true), self.offer().encode())
    }

    /// The operational keys that we offer.
    fn offer(&self) -> Pairs {
        let digest = |wish| if wish { "CRC32C,None" } else { "None" };
        let mut pairs = Pairs::default();
        pairs.add("HeaderDigest", digest(self.options.digests.header));
        pairs.add("DataDigest", digest(self.options.digests.data));
        pairs.add("MaxRecvDataSegmentLength", SEGMENT.to_string());
        pairs.add("ErrorRecoveryLevel", "0");
        pairs.add("DefaultTime2Wait", "2").add("DefaultTime2Retain", "0");
        if matches!(self.options.kind, Kind::Normal { .. }) {
            pairs.add("InitialR2T", "No").add("ImmediateData", "Yes");
            pairs.add("MaxBurstLength", BURST.to_string());
            pairs.add("FirstBurstLength", FIRST_BURST.to_string());
            pairs.add("MaxOutstandingR2T", "1").add("MaxConnections", "1");
            pairs.add("DataPDUInOrder", "Yes").add("DataSequenceInOrder", "Yes");
        }
        pairs
    }

    fn operational(&mut self, response: &LoginResponse, pairs: &Pairs) -> Result<Step, LoginError> {
        let mut answer = Pairs::default();
        for (key, value) in pairs.iter() {
            self.agree(key, value, &mut answer)?;
        }
        if !response.transit {
            return Ok(Step::Send(self.request(OPERATIONAL, true), answer.encode()));
        }
        if response.next != FULL_FEATURE {
            return Err(LoginError::Order);
        }
        let limits =
            Limits { first_burst: self.limits.first_burst.min(self.limits.burst), ..self.limits };
        let session = Session::new(limits, 1, self.exp_stat_sn, response.max_cmd_sn);
        Ok(Step::Done(Box::new(session)))
    }

    /// What the target answers to an offer, declares, or asks.
    fn agree(&mut self, key: &str, value: &str, answer: &mut Pairs) -> Result<(), LoginError> {
        // Nothing was agreed on, so the default holds.
        if matches!(value, "Reject" | "NotUnderstood" | "Irrelevant") {
            return Ok(());
        }
        let limits = &mut self.limits;
        match key {
            "HeaderDigest" => {
                limits.digests.header = digest("HeaderDigest", value, self.options.digests.header)?;
            }
            "DataDigest" => {
                limits.digests.data = digest("DataDigest", value, self.options.digests.data)?;
            }
            "MaxRecvDataSegmentLength" => {
                limits.send = size("MaxRecvDataSegmentLength", value)?;
            }
            "MaxBurstLength" => limits.burst = size("MaxBurstLength", value)?.min(BURST),
            "FirstBurstLength" => {
                limits.first_burst = size("FirstBurstLength", value)?.min(FIRST_BURST);
            }
            "InitialR2T" => limits.initial_r2t = boolean("InitialR2T", value)?,
            "ImmediateData" => limits.immediate = boolean("ImmediateData", value)?,
            "DataPDUInOrder" if value != "Yes" => {
                return Err(LoginError::Value("DataPDUInOrder", value.to_owned()));
            }
            "DataSequenceInOrder" if value != "Yes" => {
                return Err(LoginError::Value("DataSequenceInOrder", value.to_owned()));
            }
            "ErrorRecoveryLevel" if value != "0" => {
                return Err(LoginError::Value("ErrorRecoveryLevel", value.to_owned()));
            }
            "MaxOutstandingR2T"
            | "MaxConnections"
            | "DefaultTime2Wait"
            | "DefaultTime2Retain"
            | "DataPDUInOrder"
            | "DataSequenceInOrder"
            | "ErrorRecoveryLevel"
            | "TargetAlias"
            | "TargetAddress"
            | "TargetPortalGroupTag" => {}
            _ => {
                answer.add(key, "NotUnderstood");
            }
        }
        Ok(())
    }
}

fn refused(response: &LoginResponse, data: &[u8]) -> LoginError {
    let address = Pairs::parse(data).ok();
    let address = address.as_ref().and_then(|pairs| pairs.get("TargetAddress"));
    match (response.class, address) {
        (1, Some(address)) => {
            let portal = address.rsplit_once(',').map_or(address, |(portal, _)| portal);
            LoginError::Moved(portal.to_owned())
        }
        (class, _) => LoginError::Refused { class, detail: response.detail },
    }
}

fn digest(key: &'static str, value: &str, wish: bool) -> Result<bool, LoginError> {
    match value {
        "None" => Ok(false),
        "CRC32C" if wish => Ok(true),
        other => Err(LoginError::Value(key, other.to_owned())),
    }
}

fn boolean(key: &'static str, value: &str) -> Result<bool, LoginError> {
    match value {
        "Yes" => Ok(true),
        "No" => Ok(false),
        other => Err(LoginError::Value(key, other.to_owned())),
    }
}

/// 512 to 2^24-1 (RFC 7143 13.12 to 13.14).
fn size(key: &'static str, value: &str) -> Result<usize, LoginError> {
    let number = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    };
    let number = number.filter(|number| (512..1 << 24).contains(number));
    number.ok_or_else(|| LoginError::Value(key, value.to_owned()))
}

#[cfg(test)]
mod tests;
