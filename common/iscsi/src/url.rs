//! `iscsi://HOST:PORT/TARGET/LUN`.

use std::fmt;
use std::str::FromStr;

/// The port that IANA gave to iSCSI.
const PORT: u16 = 3260;
/// The longest iSCSI name (RFC 7143 4.2.7.1).
const NAME_MAX: usize = 223;

/// Where a logical unit is. Shows and parses as `iscsi://HOST:PORT/TARGET/LUN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// Name or address of the portal's host, without brackets.
    pub host: String,
    /// Its TCP port; 3260 if not given.
    pub port: u16,
    /// Name of the target: `iqn.`, `eui.` or `naa.`
    pub target: String,
    /// Logical unit number, up to 16383.
    pub lun: u16,
}

/// A text that is no [`Url`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not iscsi://HOST:PORT/TARGET/LUN, such as iscsi://10.0.0.7:3260/iqn.2026-01.x:y/1"
)]
pub struct UrlError(String);

impl Url {
    /// The LUN field of a PDU (SAM-5 4.7.4): peripheral device addressing up to 255, flat space
    /// addressing above.
    pub fn lun_field(&self) -> u64 {
        let first = if self.lun < 256 { self.lun } else { 0x4000 | self.lun };
        u64::from(first) << 48
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    pub fn portal(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Reads `HOST:PORT` or `HOST`.
    pub fn parse_portal(text: &str) -> Option<(String, u16)> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.contains(':').then_some((host, port))?
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if port.is_empty() => PORT,
            None => return None,
        };
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        (!host.is_empty() && host.chars().all(good)).then(|| (host.to_owned(), port))
    }
}

/// Whether a text is a name of RFC 7143 4.2.7.
fn is_name(text: &str) -> bool {
    let kind = ["iqn.", "eui.", "naa."].iter().any(|kind| text.starts_with(kind));
    kind && text.len() <= NAME_MAX && text.chars().all(|c| !c.is_whitespace() && !c.is_control())
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parse = || {
            let (portal, rest) = text.strip_prefix("iscsi://")?.split_once('/')?;
            let (target, lun) = rest.rsplit_once('/')?;
            let (host, port) = Self::parse_portal(portal)?;
            let lun = lun.parse().ok().filter(|lun| *lun < 1 << 14)?;
            is_name(target).then(|| Self { host, port, target: target.to_owned(), lun })
        };
        parse().ok_or_else(|| UrlError(text.to_owned()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iscsi://{}/{}/{}", self.portal(), self.target, self.lun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_back() {
        for text in [
            "iscsi://10.0.0.7:3260/iqn.2026-01.x:y/1",
            "iscsi://tape.example.com:860/eui.02004567A425678D/0",
            "iscsi://[fe80::1]:3261/naa.52004567BA64678D/16383",
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        let url: Url = "iscsi://host/iqn.a/2".parse().unwrap();
        assert_eq!((url.port, url.lun_field()), (3260, 2 << 48));
        let url: Url = "iscsi://host/iqn.a/b/300".parse().unwrap();
        assert_eq!((url.target.as_str(), url.lun_field()), ("iqn.a/b", 0x412c << 48));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "iscsi://",
            "http://host/iqn.a/1",
            "iscsi://host/iqn.a",
            "iscsi://host/iqn.a/16384",
            "iscsi://host/iqn.a/-1",
            "iscsi://host/lqn.a/1",
            "iscsi://host/iqn.a b/1",
            "iscsi://host:0/iqn.a/1",
            "iscsi://host:x/iqn.a/1",
            "iscsi://:3260/iqn.a/1",
            "iscsi://[::1/iqn.a/1",
            "iscsi://[host]/iqn.a/1",
            "iscsi://ho st/iqn.a/1",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
