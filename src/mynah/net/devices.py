"""The devices that are connected, whatever the transport: who may come in, who replaces whom, who has gone silent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus

from loguru import logger

from mynah.dialogue.admission import GOING_ON_S, TRY_AGAIN_LATER
from mynah.dialogue.listen import MAX_UTTERANCE_BYTES, SAMPLE_BYTES_PER_MS
from mynah.dialogue.outbox import ANONYMOUS, Announcement, Delivery, Outbox
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import Services, VisionAccess
from mynah.dialogue.session import Session
from mynah.dialogue.turn import Phase
from mynah.net.gate import Cause, DeviceLink, Refusal
from mynah.net.lines import Lines
from mynah.net.owners import MAX_DEVICES, Owners
from mynah.net.peer import Peer, told_peer
from mynah.net.source import source_of
from mynah.security.tokens import Authenticator, AuthReason, AuthResult
from mynah.wire.json_dialect import JsonDialect
from mynah.wire.messages import SessionConfig

SWEEP_S = 5.0
"""How often each conversation is looked at, whether it has fallen silent: no timer per device."""
SWEPT_AT_ONCE = 64
"""Sessions looked at in one go: 0.1 ms, and 2 ms where all are due to be sent something. Nobody waits for more."""
QUIET_S = 3.0
"""Silence after which a device is told what has waited for it: longer than people think before they ask what they have
woken the assistant for, and short enough to come before they go away."""
GUEST_S = 15.0
"""How long a device for which there is no room may stay without a word: those that connect to talk do so at once."""

log = logger.bind(tag="devices")


class Devices:
    """Implements `mynah.net.gate.Gate`."""

    def __init__(
        self,
        services: Services,
        authenticator: Authenticator,
        max_connections: int,
        vision: Callable[[Peer], VisionAccess],
        agenda: Agenda,
        outbox: Outbox,
        reserve: int = 0,
        proxies: Sequence[str] = (),
    ) -> None:
        """``vision`` says where the pictures of a device's camera go.

        ``reserve``: connections beyond ``max_connections``, for devices in mid-conversation that come back and for
        guests, which are let in to be told that there is no room. Beyond that devices are refused.
        ``outbox`` finds conversations by `find`; ``services.reminders`` is that of ``agenda``. ``proxies``: those who
        are believed whom they speak for, as in `source_of`.
        """
        self._services = services
        self._vision = vision
        # One bound method each for all sessions.
        self._vision_for = self._vision_of
        self._source_for = self._source_of
        self._proxies = proxies
        self._lines = Lines(log)
        self._authenticator = authenticator
        self._max_connections = max_connections
        self._reserve = reserve
        self._guests: dict[DeviceLink, float] = {}  # since when; as many as `reserve`
        self._sessions: dict[DeviceLink, Session] = {}
        self._by_device: dict[str, DeviceLink] = {}
        self._replaced: dict[str, DeviceLink] = {}
        """Connections that had to make room and have not closed yet: one of a device at most."""
        # Not fewer than are connected: nobody shall take the name of one that is here.
        self._owners = Owners(max(MAX_DEVICES, max_connections + reserve))
        self._open = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._unswept: list[Session] = []
        """Those that were connected when this sweep began, and have not been looked at."""
        self._draining = False
        self.agenda = agenda
        """Timers and reminders of all devices."""
        self.outbox = outbox
        """Messages that wait for devices."""

    # -- Gate

    def admit(self, peer: Peer) -> Refusal | None:
        """Return why the peer is refused, or None to let it in."""
        if self._draining or not self._open:
            doing = "shutting down" if self._draining else "starting"
            cause = Cause.STOPPING if self._draining else Cause.STARTING
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the server is {doing}, try again in a moment", cause
            )
        if not self._has_place(peer):
            self._services.admission.refused_total += 1
            why = "memory" if self._services.admission.memory_full else "server.limits.max_connections"
            full = f"the server is full ({why}), try again later"
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, full, Cause.FULL)
        result = self._authenticate(peer)
        if result.ok:
            return None
        if result.reason is AuthReason.NOT_BOUND:
            return Refusal(HTTPStatus.UNAUTHORIZED, result.reason, Cause.NOT_BOUND)
        return Refusal(
            HTTPStatus.UNAUTHORIZED,
            f"{result.reason}, use the token of the OTA reply or one of server.auth.tokens",
            Cause.NO_TOKEN if result.reason is AuthReason.NO_TOKEN else Cause.WRONG_TOKEN,
        )

    def open(self, link: DeviceLink, peer: Peer) -> Session:
        """Make the session of an accepted connection."""
        guest = self._is_guest(peer)
        kept_as = self._name(peer, guest)
        session = Session(
            link,
            link.equip(self._services),
            peer.device_id or f"{ANONYMOUS}{id(link):x}",
            partial(self._vision_for, link),
            kept_as,
            guest,
            partial(self._source_for, link),
        )
        self._sessions[link] = session
        if guest:
            self._guests[link] = asyncio.get_running_loop().time()
        self._enter(session.device_id, link)
        return session

    def identify(self, link: DeviceLink, device_id: str, client_id: str) -> bool:
        """Take the ids that a device tells in its first message; False when it may not be who it says it is.

        Ids from the handshake stand: it was let in with them. Who was taken for a guest because he had told none is
        judged again, as he would have been with these.
        """
        peer = told_peer(link.peer, device_id, client_id)
        session = self._sessions.get(link)
        if session is None or link.peer.device_id or not peer.device_id:
            return True
        if not self._authenticate(peer).ok:
            self._lines.refused(
                Cause.WRONG_TOKEN, peer.device_id, peer.ip, "its token is not for this device"
            )
            return False
        del self._by_device[session.device_id]
        link.peer = peer
        guest = link in self._guests and self._is_guest(peer, here=1)
        if not guest:
            self._guests.pop(link, None)
        session.identify(peer.device_id, self._name(peer, guest), guest)
        self._enter(peer.device_id, link)
        return True

    def json_dialect(self) -> JsonDialect:
        """Make the voice of a connection that speaks the JSON dialect."""
        return JsonDialect(
            SessionConfig(
                vad_threshold=self._services.vad.threshold,
                max_audio_length=MAX_UTTERANCE_BYTES // SAMPLE_BYTES_PER_MS,
            )
        )

    def _crowded(self, here: int = 0) -> bool:
        """Return whether a device that comes now is one too many. ``here``: 1 if it counts as connected already."""
        return len(self._sessions) - here >= self._max_connections or self._services.admission.memory_full

    def _name(self, peer: Peer, guest: bool) -> str:
        """Return under which name the things of a device are kept; empty if it told no id.

        A guest is not remembered: else an id that was made up would be a known one when it comes again.
        """
        if not peer.device_id:
            return ""
        name = self._owners.name if guest else self._owners.kept_as
        return name(peer.device_id, peer.client_id)

    def _going_on(self, peer: Peer) -> bool:
        """Return whether a device was in the middle of a conversation a moment ago; not another under its id."""
        if not peer.device_id:
            return False
        talked_at = self._services.conversations.talked_at(self._owners.name(peer.device_id, peer.client_id))
        return talked_at > 0 and asyncio.get_running_loop().time() - talked_at < GOING_ON_S

    def _has_place(self, peer: Peer) -> bool:
        """Return whether a device may come in, if only to be told that there is no room.

        Where places are scarce, conversations that were cut off go first, then devices that were here before, then
        those with an id that nobody knows. No id at all counts as an unknown one.
        """
        if not self._crowded() or peer.device_id in self._by_device:
            return True
        if len(self._sessions) >= self._max_connections + self._reserve:
            return False
        if self._going_on(peer):
            return True
        places = self._reserve if self._owners.knows(peer.device_id) else self._reserve // 2
        return len(self._guests) < places

    def _is_guest(self, peer: Peer, here: int = 0) -> bool:
        if not self._crowded(here) or self._going_on(peer):
            return False
        older = self._by_device.get(peer.device_id)
        return older is None or older in self._guests

    def _vision_of(self, link: DeviceLink) -> VisionAccess:
        return self._vision(link.peer)

    def _source_of(self, link: DeviceLink) -> str:
        return source_of(link.peer.origin, self._proxies)

    def _authenticate(self, peer: Peer) -> AuthResult:
        return self._authenticator.check(
            peer.authorization,
            peer.device_id,
            peer.client_id,
            peer.ip,
            forwarded=peer.forwarded,
            cross_site=peer.cross_site,
        )

    def _enter(self, device_id: str, link: DeviceLink) -> None:
        """Put a connection on record. A newer connection of a device replaces the older one."""
        older = self._by_device.get(device_id)
        self._by_device[device_id] = link
        if older is None:
            return
        self._lines.replaced(device_id)
        leaving = self._replaced.get(device_id)
        if leaving is not None:  # who comes back faster than his connections can close must not pile them up
            leaving.abort()
        self._replaced[device_id] = older
        older.close(reason="replaced by a newer connection")

    def closed(self, link: DeviceLink) -> None:
        """The connection is gone."""
        session = self._sessions.pop(link, None)
        self._guests.pop(link, None)
        if session is None:
            return
        # The entries may belong to newer connections of the same device by now.
        for known in (self._by_device, self._replaced):
            if known.get(session.device_id) is link:
                del known[session.device_id]
        if session.device_id.startswith(ANONYMOUS):
            self.agenda.forget(session.device_id)  # nobody could know it again

    # -- for the operator

    @property
    def limit(self) -> int:
        """How many devices there is room for."""
        return self._max_connections

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Those that are connected and not being closed."""
        # A copy, because they come and go. Each is looked at when it is taken: who takes few at a time pays for few.
        return (session for session in tuple(self._sessions.values()) if session.phase is not Phase.CLOSED)

    def find(self, device_id: str, kept_as: str = "") -> Session | None:
        """Return the session of a connected device that has said hello, or None.

        ``kept_as``: only if things are kept for it under this name.
        """
        link = self._by_device.get(device_id)
        session = self._sessions.get(link) if link is not None else None
        if session is None or not session.greeted or session.phase is Phase.CLOSED:
            return None
        return session if kept_as in ("", session.kept_as) else None

    def announce(self, device_id: str, words: str, wait_s: float = 0.0) -> Announcement:
        """Make a device speak at the next gap in its conversation, or when it connects within ``wait_s`` seconds.

        Never raises: ``state`` and ``done`` of what is returned tell what becomes of it.
        """
        return self.outbox.announce(device_id, words, wait_s)

    def say(self, device_id: str, words: str) -> bool:
        """Make a connected device speak; False when it is not connected, or too much is to be said already."""
        return self.announce(device_id, words).state is not Delivery.UNDELIVERED

    def alert(self, device_id: str, words: str) -> bool:
        """Show a message on a device, with a vibration; False when it is not connected."""
        session = self.find(device_id)
        if session is not None:
            session.alert("Mynah", words, "neutral")
        return session is not None

    def reboot(self, device_id: str) -> bool:
        """Have a device start anew; False when it is not connected."""
        session = self.find(device_id)
        if session is not None:
            session.reboot()
        return session is not None

    def disconnect(self, device_id: str) -> bool:
        """End the connection of a device; False when it has none."""
        link = self._by_device.get(device_id)
        if link is None or self._sessions[link].phase is Phase.CLOSED:
            return False
        link.close(reason="ended by the operator")
        return True

    def forget(self, device_id: str) -> None:
        """Drop what was kept for a device, which has another owner now, or none: words, reminders and messages."""
        self._services.conversations.forget(device_id)
        self.agenda.forget(device_id)
        self.outbox.forget(device_id)
        self._services.profiles.forget(device_id)
        self._owners.forget(device_id)

    # -- life

    def start(self) -> None:
        """Let devices in, and begin to look for silent conversations."""
        self._open = True
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        slices = max(1, math.ceil(len(self._sessions) / SWEPT_AT_ONCE))
        # First of all, so that one bad session cannot end the sweeps for all.
        self._sweeper = loop.call_later(SWEEP_S / slices, self._sweep)
        now = loop.time()
        if not self._unswept:
            self._begin_sweep(now)
        for _ in range(min(SWEPT_AT_ONCE, len(self._unswept))):
            session = self._unswept.pop()
            if session.phase is not Phase.CLOSED:
                session.check_quiet(now)
                self._hand_over(session)

    def _begin_sweep(self, now: float) -> None:
        self._unswept = list(self._sessions.values())
        self._services.conversations.expire()
        for link, since in tuple(self._guests.items()):
            if now - since >= GUEST_S and self._sessions[link].phase is Phase.IDLE:
                link.close(TRY_AGAIN_LATER, "busy, try again later")

    def _hand_over(self, session: Session) -> None:
        """Give a device what has waited for it, once nobody has spoken for a moment.

        Not when it connects: then somebody has just said the wake word and wants to be answered first.
        """
        kept_as = session.kept_as
        if not self.outbox.holds(kept_as) or self.find(session.device_id) is not session:
            return
        if session.quiet_s >= QUIET_S:
            self.outbox.hand_over(kept_as)

    async def drain(self, limit_s: float) -> None:
        """Let replies that are being spoken finish, for ``limit_s`` at most, then close every connection."""
        self._draining = True
        loop = asyncio.get_running_loop()
        until = loop.time() + limit_s
        while self._sessions:
            for link, session in tuple(self._sessions.items()):
                busy = session.phase in (Phase.RECOGNISING, Phase.THINKING, Phase.REPLYING)
                if not busy or loop.time() >= until:
                    link.close(1001, "server is shutting down")
            if loop.time() >= until + 2.0:  # the close grace is over: whoever is left does not answer
                return
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Stop looking for silent conversations and give up messages that wait. ``agenda.snapshot`` keeps reminders."""
        self.agenda.close()
        self.outbox.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._unswept.clear()
