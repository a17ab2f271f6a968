//! Ports for servers that are told one before they start.

use std::collections::HashMap;
use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Below the ports that Linux gives to connections (32768 and up unless
/// `net.ipv4.ip_local_port_range` says otherwise): a connection of another test can not take one
/// of them between the choice and the server's start.
const PORTS: Range<u16> = 10_240..32_000;

/// What this process holds until it ends: for each port a socket in Linux's abstract namespace.
/// No other test process chooses the port then, and a server may be stopped and started at it.
static HELD: Mutex<Option<HashMap<u16, UnixListener>>> = Mutex::new(None);

/// A TCP port on loopback that nobody listens at, and that no other test will be given while this
/// process runs.
pub fn free_port() -> u16 {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.get_or_insert_default();
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes of one moment start apart from each other.
    let start = std::process::id().wrapping_mul(97) % count;
    for step in 0..count {
        let port = PORTS.start + u16::try_from((start + step) % count).expect("below 65536");
        if held.contains_key(&port) {
            continue;
        }
        if let Some(hold) = hold(port) {
            held.insert(port, hold);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Takes the port for this process, if nobody has it and nobody listens at it.
fn hold(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("twinreel-test-port-{port}"));
    let hold = UnixListener::bind_addr(&name.expect("a short name")).ok()?;
    TcpListener::bind(("127.0.0.1", port)).ok()?;
    Some(hold)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{free_port, hold};

    #[test]
    fn a_port_is_given_once() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            assert!(hold(port).is_none(), "{port} was given twice");
        }
    }
}
