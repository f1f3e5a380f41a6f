"""Who may come in, as the transports see it: they ask the gate, and tell it who has gone."""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Protocol

import msgspec

from mynah.dialogue.services import Link, Services
from mynah.dialogue.session import Session
from mynah.net.peer import Peer
from mynah.wire.json_dialect import JsonDialect


class Cause(enum.StrEnum):
    """Why a connection is not accepted, in a word for whoever counts."""

    STARTING = "starting"
    STOPPING = "stopping"
    FULL = "full"
    NOT_BOUND = "not_bound"
    NO_TOKEN = "no_token"  # noqa: S105 - a word
    WRONG_TOKEN = "wrong_token"  # noqa: S105 - a word
    OTHER = "other"


class Refusal(msgspec.Struct, frozen=True):
    """The answer to who is not let in."""

    status: HTTPStatus
    reason: str
    cause: Cause = Cause.OTHER


class DeviceLink(Link, Protocol):
    """One device as its transport knows it."""

    peer: Peer

    def equip(self, services: Services) -> Services:
        """Return what the device's session is given: ``services``, or some of them made fit for this transport."""

    def abort(self) -> None:
        """End it at once."""


class Gate(Protocol):
    """Decides who may connect and makes the session for those who may."""

    def admit(self, peer: Peer) -> Refusal | None:
        """Return why the peer is refused, or None to let it in."""

    def open(self, link: DeviceLink, peer: Peer) -> Session:
        """Make the session of who was let in."""

    def identify(self, link: DeviceLink, device_id: str, client_id: str) -> bool:
        """Take the ids that a device tells in its first message; False when it may not be who it says it is."""

    def closed(self, link: DeviceLink) -> None:
        """The device is gone."""

    def json_dialect(self) -> JsonDialect:
        """Make the voice of a connection that speaks the JSON dialect."""
