"""Which server a device is sent to: the answer at boot is the load balancer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from mynah.config import Settings
from mynah.net.address import RequestOrigin, websocket_address


class Placement(Protocol):
    """Chooses a WebSocket address for a device."""

    def websocket_url(self, device_id: str, origin: RequestOrigin) -> str:
        """Return where this device is to connect; ``device_id`` may be empty."""


class OwnAddress:
    """Sends every device to this server, by the name under which it has just reached it."""

    def __init__(self, settings: Settings, websocket_port: int) -> None:
        """``websocket_port`` is the port really listened on."""
        self._settings = settings
        self._websocket_port = websocket_port

    def websocket_url(self, device_id: str, origin: RequestOrigin) -> str:  # noqa: ARG002
        """Return our own address as the device sees it."""
        return websocket_address(self._settings, origin, self._websocket_port)


class FixedAddresses:
    """Spreads devices evenly over the addresses of ``server.websocket``.

    The same device gets the same one each time, and when an address is added or taken away only the devices that
    belong to it move (rendezvous hashing), so that conversations find their history again.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)

    def websocket_url(self, device_id: str, origin: RequestOrigin) -> str:
        """Return the address of this device; who tells no id is known by its IP address."""
        who = device_id or origin.peer_ip
        return max(self._addresses, key=lambda address: _weight(who, address))


def _weight(who: str, address: str) -> bytes:
    return hashlib.sha256(f"{len(who)}:{who}{address}".encode("utf-8", "surrogatepass")).digest()


def placement_of(settings: Settings, websocket_port: int) -> Placement:
    """Return the placement that the settings ask for."""
    addresses = settings.server.websocket_addresses
    return FixedAddresses(addresses) if addresses else OwnAddress(settings, websocket_port)
