"""Who asks to connect, as far as the handshake tells."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from mynah.net.address import FORWARDING_HEADERS, RequestOrigin, carries_forwarding
from mynah.security.tokens import MAX_ID_CHARS, is_loopback, normal_device_id

KEPT_HEADERS: Final = {name: name for name in (*FORWARDING_HEADERS, "host", "origin", "protocol-version")}
"""Of a handshake: what is asked for later, when addresses are handed out. The rest is a KB of each connection."""


class Peer(msgspec.Struct, frozen=True, gc=False):
    """Who asks to connect, as far as the handshake tells. Made in thousands and kept as long as a connection."""

    ip: str
    path: str
    headers: Mapping[str, str]
    """Those of `KEPT_HEADERS` that were sent."""
    device_id: str
    client_id: str
    authorization: str | None
    local_ip: str = ""
    """Our end of the connection."""
    secure: bool = False
    """Whether we ourselves ended TLS."""

    @property
    def origin(self) -> RequestOrigin:
        """How the handshake reached us."""
        return RequestOrigin(self.headers, self.ip, self.local_ip, self.secure)

    @property
    def forwarded(self) -> bool:
        """Whether a proxy stands in between."""
        return carries_forwarding(self.headers)

    @property
    def cross_site(self) -> bool:
        """Whether a browser sends this for a page that this machine does not serve. Devices send no Origin at all.

        That the page and we have the same name proves nothing: its owner may let his name lead to our address.
        """
        origin = self.headers.get("origin")
        return origin is not None and not (
            is_loopback(_host(origin)) and is_loopback(_host(f"//{self.headers.get('host', '')}"))
        )


def read_peer(
    target: str, headers: Mapping[str, str], ip: str, local_ip: str = "", secure: bool = False
) -> Peer:
    """Gather who is asking from headers, or from the query string as browsers must (they cannot set headers).

    Names of ``headers`` are lower-case. Raises ValueError for a target that is no address.
    """
    parts = urlsplit(target)
    asked = {k.lower(): v[0] for k, v in parse_qs(parts.query).items()} if parts.query else {}
    query: Callable[[str], str] = asked.get  # type: ignore[assignment]
    authorization = headers.get("authorization") or query("authorization") or query("token")
    return Peer(
        ip=ip,
        path=parts.path,
        headers=_kept(tuple([(KEPT_HEADERS[k], v) for k, v in headers.items() if k in KEPT_HEADERS])),
        device_id=normal_device_id(_printable(headers.get("device-id") or query("device-id"))),
        client_id=_printable(headers.get("client-id") or query("client-id")),
        authorization=authorization,
        local_ip=sys.intern(local_ip),
        secure=secure,
    )


def told_peer(peer: Peer, device_id: str, client_id: str) -> Peer:
    """Return the peer with the ids that it tells in a message, where the handshake had none."""
    return msgspec.structs.replace(
        peer,
        device_id=peer.device_id or normal_device_id(_printable(device_id)),
        client_id=peer.client_id or _printable(client_id),
    )


def _host(url: str) -> str:
    """Return the name of the host in a URL; empty when there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address: no browser sends that
        return ""


@lru_cache(maxsize=64)
def _kept(headers: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """Return these headers. The devices of a site say the same in them, so they have them together."""
    return MappingProxyType(dict(headers))


def _printable(told: str | None) -> str:
    """Return an id fit for logs and terminals, bounded."""
    if told and len(told) <= MAX_ID_CHARS and told.isprintable():
        return told.strip()  # as all real ones are
    return "".join(char for char in (told or "") if char.isprintable()).strip()[:MAX_ID_CHARS].rstrip()
