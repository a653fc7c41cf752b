"""By which address a host is known to others."""

import socket
from contextlib import suppress
from ipaddress import ip_address

FAR_AWAY = "192.0.2.1"
"""Nobody's address (RFC 5737): on the way there is whatever leads out of this host."""


def own_address(name: str) -> str:
    """IP address of this host, which others call `name`; hosts may know themselves by a loopback address alone."""
    address = socket.gethostbyname(name)
    if ip_address(address).is_loopback:
        with suppress(OSError):  # nothing leads out: there are no others
            return own_address_towards(FAR_AWAY, 9)
    return address


def own_address_towards(host: str, port: int) -> str:
    """IP address of this host on the way to there. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def host_and_port(address: str) -> tuple[str, int]:
    """Of HOST:PORT."""
    host, _, port = address.rpartition(":")
    return host, int(port)
