"""More devices than there is room for: who comes in, who is told so, who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec
import pytest
from loguru import logger

from mynah.dialogue.admission import GOING_ON_S, WINDOW, Admission, Level, Signals, Thresholds
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import VisionAccess
from mynah.dialogue.turn import Phase
from mynah.net.devices import GUEST_S, SWEEP_S, Devices
from mynah.net.lines import LINES_AT_ONCE, SUMMARY_S
from mynah.net.peer import Peer
from mynah.security.tokens import AuthReason, AuthResult
from mynah.texts import text
from mynah.wire.messages import Listen, ListenMode
from tests.fakes import FakeLink, Script, Stage
from tests.net.test_devices import Wire
from tests.servers import app, connect
from tests.virtual_time import virtual


class Doorman:
    """Lets everybody in."""

    def check(self, *_: object, **__: object) -> AuthResult:
        return AuthResult(True, AuthReason.AUTH_OFF)


class Coded(Wire):
    """Keeps the close code."""

    code = 0

    def __init__(self, devices: Devices, device_id: str, client_id: str = "client", **headers: str) -> None:
        FakeLink.__init__(self)
        self.devices = devices
        self.peer = Peer("192.0.2.1", "/", headers, device_id, client_id, None)
        self.session = devices.open(self, self.peer)  # type: ignore[arg-type]

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.code = self.code or code
        super().close(code, reason)


def named(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


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
            services, Doorman(), room, lambda peer: VisionAccess("", ""), agenda, self.outbox, reserve,  # type: ignore[arg-type]
            ("192.0.2.0/28",),
        )  # fmt: skip

    def come(self, number: int | None, client_id: str = "client") -> Coded | None:
        """A device connects; None when it is refused. Without a number it has no id."""
        device_id = named(number) if number is not None else ""
        refusal = self.devices.admit(Peer("192.0.2.1", "/", {}, device_id, client_id, None))
        if refusal is not None:
            assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE
            return None
        wire = Coded(self.devices, device_id, client_id)
        wire.hello()
        return wire

    def introduced(self, number: int) -> Coded:
        """A device connects that tells its id only afterwards."""
        assert self.devices.admit(Peer("192.0.2.1", "/", {}, "", "client", None)) is None
        wire = Coded(self.devices, "")
        assert self.devices.identify(wire, named(number), "client")  # type: ignore[arg-type]
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


# ---------------------------------------------------------------- ids


@virtual
async def test_an_id_that_only_came_as_a_guest_is_not_known() -> None:
    """Else everybody could use the whole reserve with ids that are made up, the second time."""
    async with house(room=1, reserve=4) as home:
        resident = home.served(1)
        for number in (2, 3):
            assert not await home.talks(home.served(number))
        await asyncio.sleep(1)
        for number in (4, 5):
            home.served(number)
        assert home.come(2) is None
        assert home.come(3) is None
        resident.drop()
        home.devices.disconnect(named(4))
        home.devices.disconnect(named(5))
        await asyncio.sleep(1)
        assert await home.talks(home.served(2)), "there is room"


@virtual
async def test_who_had_a_place_once_is_known() -> None:
    async with house(room=1, reserve=2) as home:
        for number in (2, 1):
            home.served(number).drop()
        home.served(1)
        home.served(3)
        assert home.come(4) is None
        assert home.come(2) is not None


@virtual
async def test_a_guest_takes_no_name_from_whom_it_belongs_to() -> None:
    async with house(room=1, reserve=4) as home:
        resident, guest = home.served(1), home.come(2, "impostor")
        assert guest is not None
        guest.drop()
        resident.drop()
        owner = home.served(2)
        assert owner.session.kept_as == named(2), "a guest does not become an owner"
        owner.drop()
        home.served(1)
        impostor = home.come(2, "impostor")
        assert impostor is not None
        assert impostor.session.kept_as != named(2)
        impostor.drop()
        assert home.served(2).session.kept_as == named(2)


@virtual
async def test_another_under_the_same_id_does_not_go_on_in_its_place() -> None:
    async with house(room=1, reserve=2) as home:
        talking = home.served(1)
        assert await home.talks(talking)
        talking.drop()
        home.served(2)
        home.served(3)
        home.served(1)
        await asyncio.sleep(0)
        home.devices.disconnect(named(1))
        await asyncio.sleep(1)
        guest = home.come(1, "impostor")
        assert guest is not None, "its id is known, so it may hear that there is no room"
        assert not await home.talks(guest)


@virtual
async def test_who_tells_the_id_late_is_judged_with_it() -> None:
    async with house(room=1, reserve=4) as home:
        talking = home.introduced(1)
        assert await home.talks(talking)
        talking.drop()
        home.served(2)
        again = home.introduced(1)
        assert await home.talks(again), "it was cut off in mid-conversation"
        await asyncio.sleep(GUEST_S + SWEEP_S + 1)
        assert not again.closed, "it is no guest any more"
        replaced = home.introduced(2)
        assert await home.talks(replaced), "it had a place"
        assert not await home.talks(home.introduced(3))
        again.drop()
        replaced.drop()
        assert await home.talks(home.introduced(3)), "there is room"


@virtual
async def test_who_tells_an_id_late_that_nobody_knows_stays_a_guest() -> None:
    async with house(room=1, reserve=4) as home:
        home.served(1)
        silent, talking = home.introduced(2), home.introduced(3)
        assert not await home.talks(talking)
        await asyncio.sleep(GUEST_S + SWEEP_S + 1)
        assert (silent.closed, silent.code) == (True, 1013)
        for number in (4, 5):
            home.served(number)
        assert home.come(2) is None, "nor is it known"


@virtual
async def test_a_place_that_got_free_meanwhile_is_for_who_tells_his_id() -> None:
    async with house(room=1, reserve=2) as home:
        resident = home.served(1)
        assert home.devices.admit(Peer("192.0.2.1", "/", {}, "", "client", None)) is None
        wire = Coded(home.devices, "")
        resident.drop()
        assert home.devices.identify(wire, named(2), "client")  # type: ignore[arg-type]
        wire.hello()
        assert await home.talks(wire)


@virtual
async def test_who_had_room_when_he_came_keeps_it_when_he_tells_his_id() -> None:
    async with house(room=1, reserve=2) as home:
        assert home.devices.admit(Peer("192.0.2.1", "/", {}, "", "client", None)) is None
        wire = Coded(home.devices, "")
        home.served(2)
        assert home.devices.identify(wire, named(1), "client")  # type: ignore[arg-type]
        wire.hello()
        assert await home.talks(wire)


# ---------------------------------------------------------------- addresses, lines


@virtual
async def test_at_a_tense_server_places_are_shared_by_address() -> None:
    """Behind a proxy that is trusted, by the address it tells."""
    async with house(room=100, reserve=2) as home:
        for number in range(WINDOW):
            home.admission.sample(1000.0 + number / 10, Signals(lag_s=0.0999))
        assert home.admission.level is Level.TENSE

        def may_talk(number: int, address: str) -> bool:
            wire = Coded(home.devices, named(number), **{"x-forwarded-for": address})
            wire.session.on_message(Listen("start", ListenMode.AUTO))
            return wire.session.phase is Phase.LISTENING

        one = [may_talk(number, "198.51.100.1") for number in range(20)]
        assert one == [True] * 5 + [False] * 15
        assert may_talk(20, "198.51.100.2")
        assert may_talk(21, "198.51.100.3")


@virtual
async def test_a_storm_of_those_who_come_again_is_no_storm_of_lines() -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="INFO", format="{message}")
    async with house(room=300, reserve=2) as home:
        for _ in range(2):
            for number in range(200):
                home.served(number)
        await asyncio.sleep(SUMMARY_S + 1)
    logger.remove(sink)
    told = [line for line in lines if "connected again" in line]
    assert len(told) == LINES_AT_ONCE + 1
    assert told[-1] == f"{200 - LINES_AT_ONCE} more connected again; each one is logged at DEBUG\n"


async def test_a_storm_of_those_who_are_refused_is_no_storm_of_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="INFO", format="{message}")
    async with app(tmp_path, "server.limits.max_connections=1") as (_, at), connect(at.ws):
        for number in range(LINES_AT_ONCE + 30):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                async with connect(at.ws, named(number + 16)):
                    pass
    logger.remove(sink)
    assert LINES_AT_ONCE <= sum("refused" in line for line in lines) < LINES_AT_ONCE + 30
