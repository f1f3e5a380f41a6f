"""Who asks to connect, as far as the handshake tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

import msgspec

from mynah.net.address import RequestOrigin, carries_forwarding
from mynah.security.tokens import MAX_ID_CHARS, is_loopback, normal_device_id


class Peer(msgspec.Struct, frozen=True):
    """Who asks to connect, as far as the handshake tells. Header names are lower-case."""

    ip: str
    path: str
    headers: Mapping[str, str]
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


def read_peer(target: str, headers: Mapping[str, str], ip: str) -> Peer:
    """Gather who is asking from headers, or from the query string as browsers must (they cannot set headers).

    Raises ValueError for a target that is no address.
    """
    parts = urlsplit(target)
    query: Callable[[str], str] = {k.lower(): v[0] for k, v in parse_qs(parts.query).items()}.get  # type: ignore[assignment]
    authorization = headers.get("authorization") or query("authorization") or query("token")
    return Peer(
        ip=ip,
        path=parts.path,
        headers=headers,
        device_id=normal_device_id(_printable(headers.get("device-id") or query("device-id"))),
        client_id=_printable(headers.get("client-id") or query("client-id")),
        authorization=authorization,
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


def _printable(told: str | None) -> str:
    """Return an id fit for logs and terminals, bounded."""
    return "".join(char for char in (told or "") if char.isprintable()).strip()[:MAX_ID_CHARS].rstrip()
