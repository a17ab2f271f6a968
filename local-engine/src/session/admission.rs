//! Who may come in, use what, and make the server dial whom.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{DeviceName, DevicePattern, Network};
use service::config::Ndmp;

/// What a first failed login waits for; each further one twice as long, up to the longest.
const DELAY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// After how long without a failure a host's failures are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Hosts whose failures are kept in mind at most.
const HOSTS: usize = 4096;

/// The rules of the configuration.
pub struct Admission {
    allow: Option<Vec<Network>>,
    mover_peers: Option<Vec<Network>>,
    devices: BTreeMap<String, Vec<DevicePattern>>,
    /// Logins.
    pub gate: LoginGate,
    /// How long a session may be silent.
    pub idle: Duration,
}

impl Admission {
    /// The rules of `[ndmp]`.
    pub fn new(config: &Ndmp) -> Self {
        let devices = |user: &service::config::NdmpUser| {
            user.devices.clone().map(|devices| (user.name.clone(), devices))
        };
        Self {
            allow: config.allow.clone(),
            mover_peers: config.mover_peers.clone(),
            devices: config.users.iter().filter_map(devices).collect(),
            gate: LoginGate::new(
                config.login_attempts,
                Duration::from_secs(config.lockout_seconds.into()),
            ),
            idle: Duration::from_secs(config.idle_seconds.into()),
        }
    }

    /// Whether a host may connect.
    pub fn host(&self, host: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allow| within(allow, host))
    }

    /// Whether a user may know of a device and open it; `None` is who came in without a name.
    pub fn device(&self, user: Option<&str>, device: &DeviceName) -> bool {
        let devices = user.and_then(|user| self.devices.get(user));
        devices.is_none_or(|devices| devices.iter().any(|pattern| pattern.contains(device)))
    }

    /// Whether `host` may dial a mover that listens for an application at `client`.
    pub fn caller(&self, client: IpAddr, host: IpAddr) -> bool {
        match &self.mover_peers {
            Some(peers) => same_host(client, host) || within(peers, host),
            None => self.host(host),
        }
    }

    /// Whether a mover may dial `address` for an application at `client`. Without this rule who may
    /// log in could look, through the server, which ports of which hosts are open.
    pub fn dial(&self, client: IpAddr, address: SocketAddrV4) -> bool {
        let host = *address.ip();
        let one = !(host.is_unspecified() || host.is_multicast() || host.is_broadcast());
        let host = IpAddr::V4(host);
        let listed = || self.mover_peers.as_ref().is_some_and(|peers| within(peers, host));
        one && address.port() != 0 && (same_host(client, host) || listed())
    }
}

fn within(networks: &[Network], host: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(host))
}

fn same_host(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || (one.is_loopback() && other.is_loopback())
}

/// What a failed login costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// How long the answer waits.
    pub delay: Duration,
    /// The host is locked out from now on.
    pub locked_out: bool,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    locked: bool,
}

/// Slows down who guesses passwords. It counts by host, not by user: else anybody could lock a user
/// out. Of IPv6 hosts the first 64 bits count, since one host has all addresses behind them.
pub struct LoginGate {
    /// 0: neither delay nor lock-out.
    attempts: u32,
    lockout: Duration,
    hosts: Mutex<HashMap<IpAddr, Failures>>,
}

fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address => address,
    }
}

impl LoginGate {
    /// Locks a host out after so many failures.
    pub fn new(attempts: u32, lockout: Duration) -> Self {
        Self { attempts, lockout, hosts: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long what is known of a host still counts.
    fn counts(&self, failures: &Failures, now: Instant) -> bool {
        let long = if failures.locked { self.lockout } else { FORGOTTEN };
        now.duration_since(failures.last) < long
    }

    /// Whether a host is locked out.
    pub fn is_locked_out(&self, address: IpAddr, now: Instant) -> bool {
        let hosts = self.lock();
        let failures = hosts.get(&host_of(address));
        failures.is_some_and(|failures| failures.locked && self.counts(failures, now))
    }

    /// A login failed. One of a host that is locked out changes nothing, so that it is let in again
    /// in time although it keeps trying.
    pub fn failed(&self, address: IpAddr, now: Instant) -> Penalty {
        let none = Penalty { delay: Duration::ZERO, locked_out: false };
        if self.attempts == 0 {
            return none;
        }
        let mut hosts = self.lock();
        hosts.retain(|_, failures| self.counts(failures, now));
        let host = host_of(address);
        if hosts.len() >= HOSTS && !hosts.contains_key(&host) {
            let oldest = hosts.iter().min_by_key(|(_, failures)| failures.last);
            if let Some(oldest) = oldest.map(|(host, _)| *host) {
                hosts.remove(&oldest);
            }
        }
        let new = Failures { count: 0, last: now, locked: false };
        let failures = hosts.entry(host).or_insert(new);
        if failures.locked {
            return Penalty { delay: DELAY.1, ..none };
        }
        failures.count += 1;
        failures.last = now;
        failures.locked = failures.count >= self.attempts;
        let delay = DELAY.0.saturating_mul(1 << (failures.count - 1).min(16)).min(DELAY.1);
        Penalty { delay, locked_out: failures.locked }
    }

    /// A login was good: what failed before was a slip.
    pub fn succeeded(&self, address: IpAddr) {
        self.lock().remove(&host_of(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admission(text: &str) -> Admission {
        let table: toml::Table = text.parse().unwrap();
        Admission::new(&table.try_into().unwrap())
    }

    #[test]
    fn failed_logins_are_slowed_down_and_then_refused() {
        let gate = LoginGate::new(5, Duration::from_secs(300));
        let (host, begin) = (ip("192.0.2.1"), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let delays: Vec<_> =
            (0..5).map(|second| gate.failed(host, at(second)).delay.as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000]);
        assert!(gate.is_locked_out(host, at(5)));
        assert!(gate.is_locked_out(ip("::ffff:192.0.2.1"), at(5)));
        assert!(!gate.is_locked_out(ip("192.0.2.2"), at(5)));
        // Trying on does not prolong it.
        assert!(!gate.failed(host, at(200)).locked_out);
        assert!(gate.is_locked_out(host, at(303)));
        assert!(!gate.is_locked_out(host, at(304)));
        assert_eq!(gate.failed(host, at(305)).delay, DELAY.0);
    }

    #[test]
    fn a_good_login_and_time_make_failures_forgotten() {
        let gate = LoginGate::new(3, Duration::from_secs(300));
        let (host, begin) = (ip("2001:db8::1"), Instant::now());
        let neighbour = ip("2001:db8::2");
        gate.failed(host, begin);
        assert_eq!(gate.failed(neighbour, begin).delay, DELAY.0 * 2);
        gate.succeeded(host);
        assert_eq!(gate.failed(host, begin).delay, DELAY.0);
        assert_eq!(gate.failed(host, begin + FORGOTTEN).delay, DELAY.0);
        let never = LoginGate::new(0, Duration::from_secs(300));
        for _ in 0..100 {
            assert_eq!(never.failed(host, begin).delay, Duration::ZERO);
        }
        assert!(!never.is_locked_out(host, begin));
    }

    #[test]
    fn many_hosts_do_not_fill_the_memory() {
        let gate = LoginGate::new(1, Duration::from_secs(300));
        let begin = Instant::now();
        for number in 0..HOSTS as u32 + 100 {
            let host = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
            gate.failed(host, begin + Duration::from_millis(number.into()));
        }
        assert_eq!(gate.lock().len(), HOSTS);
        assert!(!gate.is_locked_out(ip("10.0.0.99"), begin + Duration::from_secs(10)));
        assert!(gate.is_locked_out(ip("10.0.0.100"), begin + Duration::from_secs(10)));
    }

    #[test]
    fn a_mover_dials_the_application_and_who_is_listed() {
        let to = |text: &str| text.parse::<SocketAddrV4>().unwrap();
        let client = ip("192.0.2.1");
        let none = admission("");
        assert!(none.dial(client, to("192.0.2.1:700")));
        assert!(none.dial(ip("::ffff:192.0.2.1"), to("192.0.2.1:700")));
        assert!(none.dial(ip("127.0.0.1"), to("127.0.0.2:700")));
        for refused in ["192.0.2.2:700", "127.0.0.1:22", "192.0.2.1:0"] {
            assert!(!none.dial(client, to(refused)), "{refused}");
        }
        let listed = admission("mover_peers = [\"0.0.0.0/0\"]");
        assert!(listed.dial(client, to("198.51.100.1:700")));
        for refused in ["0.0.0.0:700", "224.0.0.1:700", "255.255.255.255:700", "192.0.2.1:0"] {
            assert!(!listed.dial(client, to(refused)), "{refused}");
        }
    }

    #[test]
    fn who_may_connect_and_dial_in() {
        let all = admission("");
        assert!(all.host(ip("203.0.113.1")) && all.caller(ip("192.0.2.1"), ip("203.0.113.1")));
        let some = admission("allow = [\"192.0.2.0/24\"]\nmover_peers = [\"198.51.100.1\"]");
        assert!(some.host(ip("192.0.2.9")) && !some.host(ip("203.0.113.1")));
        let calls = |host| some.caller(ip("192.0.2.1"), ip(host));
        assert!(calls("192.0.2.1") && calls("198.51.100.1"));
        assert!(!calls("192.0.2.2") && !calls("203.0.113.1"));
        let allowed = admission("allow = [\"192.0.2.0/24\"]");
        assert!(!allowed.caller(ip("192.0.2.1"), ip("203.0.113.1")));
    }

    #[test]
    fn a_user_has_the_devices_of_the_configuration() {
        let rules = admission(
            "[[user]]\nname = \"a\"\npassword = \"a\"\ndevices = [\"vtl0\", \"dr-ptl0/drive1\"]\n\
             [[user]]\nname = \"b\"\npassword = \"b\"\n\
             [[user]]\nname = \"c\"\npassword = \"c\"\ndevices = []",
        );
        let may = |user, device: &str| rules.device(user, &device.parse().unwrap());
        assert!(may(Some("a"), "vtl0/changer") && may(Some("a"), "dr-ptl0/drive1"));
        assert!(!may(Some("a"), "dr-ptl0/drive0") && !may(Some("a"), "vtl1/changer"));
        assert!(may(Some("b"), "dr-ptl0/drive0") && may(None, "dr-ptl0/drive0"));
        assert!(!may(Some("c"), "vtl0/changer"));
    }
}
