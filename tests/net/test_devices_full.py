"""More devices than there is room for: who comes in, who is told so, who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import msgspec

from mynah.dialogue.admission import GOING_ON_S, Admission, Signals, Thresholds
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import VisionAccess
from mynah.net.devices import GUEST_S, SWEEP_S, Devices
from mynah.net.peer import Peer
from mynah.security.tokens import AuthReason, AuthResult
from mynah.texts import text
from tests.fakes import Script, Stage
from tests.net.test_devices import Wire
from tests.virtual_time import virtual


class Doorman:
    """Lets everybody in."""

    def check(self, *_: object, **__: object) -> AuthResult:
        return AuthResult(True, AuthReason.AUTH_OFF)


class Coded(Wire):
    """Keeps the close code."""

    code = 0

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.code = self.code or code
        super().close(code, reason)


class House:
    """A server with room for ``room`` devices, and ``reserve`` places more."""

    def __init__(self, room: int, reserve: int) -> None:
        stage = Stage(Script(replies=[["Answer."]]))
        self.admission = Admission(Thresholds(always=0))
        self.outbox = Outbox(lambda _: None)
        agenda = Agenda(self.outbox.announce)
        services = msgspec.structs.replace(stage.services, reminders=agenda.of, admission=self.admission)
        self.voice = services.voice
        self.devices = Devices(
            services, Doorman(), room, lambda peer: VisionAccess("", ""), agenda, self.outbox, reserve  # type: ignore[arg-type]
        )  # fmt: skip

    def come(self, number: int | None) -> Coded | None:
        """A device connects; None when it is refused. Without a number it has no id."""
        device_id = f"02:00:00:00:00:{number:02x}" if number is not None else ""
        refusal = self.devices.admit(Peer("192.0.2.1", "/", {}, device_id, "client", None))
        if refusal is not None:
            assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE
            return None
        wire = Coded(self.devices, device_id)
        wire.hello()
        return wire

    def served(self, number: int | None) -> Coded:
        wire = self.come(number)
        assert wire is not None
        return wire

    async def talks(self, wire: Coded) -> bool:
        """Ask something; return whether there was an answer, and not only *busy*."""
        wire.ask("hello")
        await asyncio.sleep(5)
        assert wire.said in (["Answer."], [text("busy", "en")])
        busy = wire.said != ["Answer."]
        assert (wire.closed, wire.code) == ((True, 1013) if busy else (False, 0))
        return not busy


@asynccontextmanager
async def house(room: int, reserve: int) -> AsyncIterator[House]:
    made = House(room, reserve)
    await made.voice.warm([(text("busy", "en"), "en")])
    made.devices.start()
    yield made
    await made.devices.drain(0)
    made.devices.stop()


@virtual
async def test_devices_in_the_reserve_are_told_and_the_rest_is_refused() -> None:
    async with house(room=2, reserve=4) as home:
        first, second = home.served(1), home.served(2)
        assert [home.come(number) is not None for number in (3, 4, 5)] == [True, True, False]
        assert home.admission.refused_total == 1
        assert await home.talks(first)
        assert await home.talks(second)


@virtual
async def test_a_guest_hears_busy_and_makes_room_for_the_next() -> None:
    async with house(room=1, reserve=2) as home:
        home.served(1)
        assert not await home.talks(home.served(2))
        assert home.admission.busy_total == 1
        await asyncio.sleep(1)
        assert len(home.devices) == 1
        assert not await home.talks(home.served(3))


@virtual
async def test_guests_that_say_nothing_do_not_stay() -> None:
    async with house(room=1, reserve=2) as home:
        resident, guest = home.served(1), home.served(2)
        await asyncio.sleep(GUEST_S + SWEEP_S + 1)
        assert (guest.closed, guest.code) == (True, 1013)
        assert not resident.closed
        assert home.come(3) is not None


@virtual
async def test_who_was_here_before_goes_before_ids_that_nobody_knows() -> None:
    async with house(room=3, reserve=2) as home:
        known = home.served(1)
        known.drop()
        for number in (2, 3, 4):
            home.served(number)
        assert home.come(5) is not None, "half of the reserve is for anybody"
        assert home.come(6) is None
        assert home.come(None) is None
        assert not await home.talks(home.served(1))


@virtual
async def test_who_was_cut_off_in_mid_conversation_comes_back_first() -> None:
    async with house(room=1, reserve=1) as home:
        talking = home.served(1)
        assert await home.talks(talking)
        talking.drop()
        home.served(2)
        assert home.come(3) is None
        again = home.served(1)
        assert await home.talks(again)
        again.drop()
        await asyncio.sleep(GOING_ON_S)
        assert not await home.talks(home.served(1)), "that conversation is over"


@virtual
async def test_the_reserve_is_a_bound_for_them_as_well() -> None:
    async with house(room=2, reserve=1) as home:
        talking = [home.served(1), home.served(2)]
        for wire in talking:
            assert await home.talks(wire)
            wire.drop()
        for number in (3, 4):
            home.served(number)
        assert home.come(1) is not None
        assert home.come(2) is None


@virtual
async def test_a_guest_that_connects_again_is_still_one() -> None:
    async with house(room=1, reserve=2) as home:
        resident, guest = home.served(1), home.served(2)
        again = home.served(2)
        await asyncio.sleep(1)
        assert guest.closed
        assert not await home.talks(again)
        replaced = home.served(1)
        await asyncio.sleep(1)
        assert resident.closed
        assert await home.talks(replaced)


@virtual
async def test_without_memory_nobody_new_comes_in() -> None:
    async with house(room=100, reserve=2) as home:
        talking = home.served(1)
        assert await home.talks(talking)
        for number in range(20):
            home.admission.sample(1.0 + number, Signals(memory=0.99))
        guest = home.served(2)
        assert home.come(3) is None, "the reserve holds for this as well"
        assert not await home.talks(guest)
        talking.drop()
        assert await home.talks(home.served(1))
        for number in range(20):
            home.admission.sample(100.0 + number, Signals(memory=0.5))
        assert await home.talks(home.served(4))
