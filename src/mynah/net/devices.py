"""The devices that are connected, whatever the transport: who may come in, who replaces whom, who has gone silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http import HTTPStatus

from loguru import logger

from mynah.dialogue.services import Services
from mynah.dialogue.session import Session
from mynah.dialogue.turn import Phase
from mynah.net.websocket import DeviceSocket, Peer, Refusal
from mynah.security.tokens import Authenticator

SWEEP_S = 5.0
"""How often silent conversations are looked for: one pass over all sessions, no timer per device."""

log = logger.bind(tag="devices")


class Devices:
    """Implements `mynah.net.websocket.Gate`."""

    def __init__(self, services: Services, authenticator: Authenticator, max_connections: int) -> None:
        self._services = services
        self._authenticator = authenticator
        self._max_connections = max_connections
        self._sessions: dict[DeviceSocket, Session] = {}
        self._by_device: dict[str, DeviceSocket] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._draining = False

    # -- Gate

    def admit(self, peer: Peer) -> Refusal | None:
        """Return why the peer is refused, or None to let it in."""
        if self._draining:
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down, try again in a moment"
            )
        if len(self._sessions) >= self._max_connections and peer.device_id not in self._by_device:
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server is full (server.limits.max_connections)"
            )
        result = self._authenticator.check(
            peer.authorization,
            peer.device_id,
            peer.client_id,
            peer.ip,
            # A web page of another site is not "this machine", even if the browser runs on it.
            forwarded=peer.forwarded or peer.cross_site,
        )
        if result.ok:
            return None
        return Refusal(
            HTTPStatus.UNAUTHORIZED,
            f"{result.reason}, use the token of the OTA reply or one of server.auth.tokens",
        )

    def open(self, link: DeviceSocket, peer: Peer) -> Session:
        """Make the session of an accepted connection. A newer connection of a device replaces the older one."""
        device_id = peer.device_id or f"anonymous-{id(link):x}"
        older = self._by_device.get(device_id)
        if older is not None:
            log.info("{} connected again, the older connection is closed", device_id)
            older.close()
        session = Session(link, self._services, device_id)
        self._sessions[link] = session
        self._by_device[device_id] = link
        return session

    def closed(self, link: DeviceSocket) -> None:
        """The connection is gone."""
        session = self._sessions.pop(link, None)
        # The entry may belong to a newer connection of the same device by now.
        if session is not None and self._by_device.get(session.device_id) is link:
            del self._by_device[session.device_id]

    # -- for the operator

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def say(self, device_id: str, words: str) -> bool:
        """Make a connected device speak; False when it is not connected, or has not said hello yet."""
        link = self._by_device.get(device_id)
        if link is None or not self._sessions[link].greeted:
            return False
        self._sessions[link].say(words)
        return True

    # -- life

    def start(self) -> None:
        """Begin to look for silent conversations."""
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        # First of all, so that one bad session cannot end the sweeps for all.
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        now = loop.time()
        for session in self:
            session.check_quiet(now)

    async def drain(self, limit_s: float) -> None:
        """Let replies that are being spoken finish, for ``limit_s`` at most, then close every connection."""
        self._draining = True
        loop = asyncio.get_running_loop()
        until = loop.time() + limit_s
        while self._sessions:
            for link, session in tuple(self._sessions.items()):
                if session.phase not in (Phase.RECOGNISING, Phase.REPLYING) or loop.time() >= until:
                    link.close(1001, "server is shutting down")
            if loop.time() >= until + 2.0:  # the close grace is over: whoever is left does not answer
                return
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Stop looking for silent conversations."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
