"""Which network interface processes on several machines talk by. Loads no torch."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import suppress

import psutil

# Reserved for documentation: on the way to it lies whatever leads to the outside.
OUTSIDE = "192.0.2.1"
GIVEN = "GLOO_SOCKET_IFNAME"


def talk_by_the_way_to(host: str) -> None:
    """Have gloo use the interface that leads to another machine.

    Left alone it takes the address of this machine's name, which is often the loopback interface's
    and leads nowhere. What the environment says already stays.

    Args:
        host: name or address of the first process's machine, which may be this one.
    """
    if GIVEN in os.environ:
        return
    own = own_address(host) or own_address(OUTSIDE)
    for name, addresses in psutil.net_if_addrs().items():
        if own in {address.address.partition("%")[0] for address in addresses}:
            os.environ[GIVEN] = name


def own_address(host: str) -> str | None:
    """The address that this machine would send from, or None if nothing but loopback leads there.

    Nothing is sent.
    """
    found = []
    with suppress(OSError):
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    for family, kind, protocol, _, address in found:
        with suppress(OSError), socket.socket(family, kind, protocol) as s:
            s.connect(address)
            own = str(s.getsockname()[0]).partition("%")[0]
            if not ipaddress.ip_address(own).is_loopback:
                return own
    return None
