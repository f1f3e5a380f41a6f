"""Addresses: those we listen on, and those we hand out.

What a device is told must be right by itself on a LAN, behind a reverse proxy and in a container. The request
itself says it best: the device has just reached us by the name in its Host header.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mynah.config import Settings
from mynah.errors import ConfigError, PortInUseError

WEBSOCKET_PATH: Final = "/xiaozhi/v1/"
VISION_PATH: Final = "/mcp/vision/explain"
BACKLOG: Final = 4096
"""Connections the kernel holds while the loop is busy: all devices of a site come back at once after a cut, and the
loop takes one in each of its rounds. What current kernels allow at most. Overflow policy: theirs, the client tries
again after a second."""

FORWARDING_HEADERS: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-real-ip",
    }
)
"""Names (lower case) that reverse proxies add."""

_HOST: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_FORWARDED_PAIR: Final = re.compile(r'\s*([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))\s*')


@dataclass(frozen=True)
class RequestOrigin:
    """How a request reached us. ``headers`` has lower-case names; ``local_ip`` is our end of the connection."""

    headers: Mapping[str, str]
    peer_ip: str
    local_ip: str = ""
    secure: bool = False
    """Whether we ourselves ended TLS."""
    local_port: int = 0
    """Port of our end of the connection; 0 when unknown."""


def carries_forwarding(headers: Mapping[str, str]) -> bool:
    """Say whether a request came through a proxy, by its headers (lower-case names), trusted or not."""
    return not FORWARDING_HEADERS.isdisjoint(headers)


def is_trusted(peer_ip: str, proxies: Sequence[str]) -> bool:
    """Say whether a peer is one of ``server.trusted_proxies``."""
    try:
        ip = ipaddress.ip_address(peer_ip.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in ipaddress.ip_network(proxy, strict=False) for proxy in proxies)


# ---------------------------------------------------------------- handed out


def websocket_address(settings: Settings, origin: RequestOrigin, websocket_port: int) -> str:
    """Return our own WebSocket address for whoever sent this request.

    In this order: what a trusted proxy forwarded, with the proxy's own port; the name in the Host header with our
    WebSocket port; the address of the interface the request came in on.
    """
    front = _front(settings, origin)
    if front is not None:
        return f"{'wss' if front.secure else 'ws'}://{front.place}{WEBSOCKET_PATH}"
    scheme = "wss" if _ends_tls(settings, origin) else "ws"
    name, _ = _told_host(origin)
    return f"{scheme}://{name or _interface(origin)}:{websocket_port}{WEBSOCKET_PATH}"


def http_address(settings: Settings, origin: RequestOrigin, path: str, http_port: int | None = None) -> str:
    """Return the address of ``path`` on our HTTP port for whoever sent this request.

    In this order: what a trusted proxy forwarded; the name in the Host header; the address of the interface the
    request came in on. ``http_port`` is the port really listened on, for requests that came in on another one. None:
    the request came in on the HTTP port, so its Host header names the port as well, and one without a port means
    the scheme's own (a container may map 80 to ours).
    """
    front = _front(settings, origin)
    if front is not None:
        return f"{'https' if front.secure else 'http'}://{front.place}{path}"
    scheme = "https" if _ends_tls(settings, origin) else "http"
    name, told_port = _told_host(origin)
    if not name:
        name, told_port = _interface(origin), str(origin.local_port or "")
    port = told_port if http_port is None else str(http_port)
    return f"{scheme}://{name}{port and ':' + port}{path}"


def vision_address(settings: Settings, origin: RequestOrigin, http_port: int) -> str:
    """Return where the sender of this WebSocket handshake finds the vision service.

    ``server.vision_explain`` if it is set, else worked out from the request.
    """
    return settings.server.vision_explain or http_address(settings, origin, VISION_PATH, http_port)


def _ends_tls(settings: Settings, origin: RequestOrigin) -> bool:
    return origin.secure or bool(settings.server.tls.cert)


def _told_host(origin: RequestOrigin) -> tuple[str, str]:
    """Return name and port of the Host header; an empty name when it says nothing that leads anywhere."""
    match = _HOST.fullmatch(origin.headers.get("host", ""))
    if match is None or match["name"] in {"0.0.0.0", "[::]"}:  # noqa: S104 - compared, not bound
        return "", ""
    return match["name"], match["port"] or ""


def _interface(origin: RequestOrigin) -> str:
    return _bracketed(origin.local_ip) or _bracketed(lan_address())


@dataclass(frozen=True)
class _Front:
    """What stands in front of us: a proxy's name, port and path prefix (``place``), and whether it speaks TLS."""

    place: str
    secure: bool


def _front(settings: Settings, origin: RequestOrigin) -> _Front | None:
    """Return what a trusted proxy says of itself; None without one, or when it did not say enough.

    A client can slip values of its own past some proxies, but it would only mislead itself.
    """
    if not is_trusted(origin.peer_ip, settings.server.trusted_proxies):
        return None
    headers = origin.headers
    said = _forwarded_pairs(headers.get("forwarded", ""))
    proto = (_first(headers.get("x-forwarded-proto", "")) or said.get("proto", "")).lower()
    host = _first(headers.get("x-forwarded-host", "")) or said.get("host", "")
    if not proto and not host:
        return None
    match = _HOST.fullmatch(host or headers.get("host", ""))
    if match is None or proto not in {"", "http", "https", "ws", "wss"}:
        return None
    secure = proto in {"https", "wss"}
    port = _first(headers.get("x-forwarded-port", "")) or match["port"] or ""
    if not re.fullmatch(r"[0-9]{1,5}", port) or port == ("443" if secure else "80"):
        port = ""
    prefix = _first(headers.get("x-forwarded-prefix", "")).rstrip("/")
    if not _PREFIX.fullmatch(prefix):
        prefix = ""
    return _Front(f"{match['name']}{port and ':' + port}{prefix}", secure)


def _first(value: str) -> str:
    return value.partition(",")[0].strip()


def _forwarded_pairs(value: str) -> dict[str, str]:
    """Read the first element of a Forwarded header (RFC 7239)."""
    pairs: dict[str, str] = {}
    position = 0
    while match := _FORWARDED_PAIR.match(value, position):
        pairs.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3])
        position = match.end()
        if value[position : position + 1] != ";":
            break
        position += 1
    return pairs


def _bracketed(address: str) -> str:
    address = address.partition("%")[0]
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_unspecified:
        return ""
    return f"[{ip}]" if ip.version == 6 else str(ip)


def lan_address() -> str:
    """Return this machine's address on the network that leads outside; the loopback address without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a UDP connect sends nothing, it only chooses the interface
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return address


# ---------------------------------------------------------------- listened on


def listening_socket(host: str, port: int, key: str) -> socket.socket:
    """Return a listening TCP socket. ``key`` is the setting that chose the port (``server.http_port``).

    ``::`` listens on IPv4 as well. Raises PortInUseError or ConfigError, naming the setting and the remedy.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(f"server.ip: {host} is not an address to listen on: {_reason(error)}") from None
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(address)
        server.listen(BACKLOG)
        server.setblocking(False)
    except OSError as error:
        server.close()
        raise _explained(error, host, port, key) from None
    return server


def _explained(error: OSError, host: str, port: int, key: str) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} ({key}) is already in use: stop the program that has it, or choose another with "
            f"`-s {key}=…` (0 picks a free one)"
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"port {port} ({key}) needs privileges: choose one above 1023")
    return ConfigError(
        f"server.ip: cannot listen on {host}: {_reason(error)}; use 0.0.0.0 for all interfaces"
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
