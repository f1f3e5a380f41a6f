"""Sources: whom a request is counted for, where one sender must not take what is meant for all."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from mynah.net.address import RequestOrigin, is_trusted

SOURCE: Final = web.RequestKey("source", str)
"""Set by `DeviceHttp` on every request."""

_SITE_BITS: Final = 64
"""Of an IPv6 address: whoever has one address has all of such a network."""


def source_of(origin: RequestOrigin, proxies: Sequence[str]) -> str:
    """Return the address a request is counted for: the peer's, or the client's that a trusted proxy names.

    Only ``X-Forwarded-For`` is read for that. Clients behind one NAT or an unknown proxy have one source together.
    """
    source = origin.peer_ip
    if is_trusted(source, proxies):
        # Each proxy appends whom it heard: in front of the last stranger stands only what he says himself.
        told = [part.strip() for part in origin.headers.get("x-forwarded-for", "").split(",")]
        source = next((part for part in reversed(told) if not is_trusted(part, proxies)), source)
        source = source if _readable(source) else origin.peer_ip
    return _site(source)


def _readable(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _site(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(ip), _SITE_BITS), strict=False))
        ip = ip.ipv4_mapped
    return str(ip)
