"""Ports for servers that are told one before they start."""

import os
import socket

# Below the ports that Linux gives to connections: none of those can take one of these between the
# choice and the server's start.
PORTS = range(10240, 32000)
HELD: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on loopback that nobody listens at, and that no other test is given while this
    process runs: a socket in Linux's abstract namespace holds it."""
    start = os.getpid() * 97 % len(PORTS)
    for port in (*PORTS[start:], *PORTS[:start]):
        hold = socket.socket(socket.AF_UNIX)
        try:
            hold.bind(f"\0twinreel-test-port-{port}")
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
        except OSError:
            hold.close()
            continue
        HELD.append(hold)
        return port
    raise RuntimeError("no port is free")
