"""Many devices in one process."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from mynah.sim.load import crowd as module
from mynah.sim.load import talker
from mynah.sim.load.device import Device
from mynah.sim.load.record import Step
from mynah.sim.load.scenario import Behaviour, Thresholds
from mynah.sim.load.stock import Recording
from mynah.sim.load.talker import TAIL
from mynah.sim.load.verdict import judge

from ..scripted import Connection, ScriptedServer, silent
from .crowds import crowd, stock, until


class FakeDialer:
    """Devices that say at once what becomes of them."""

    def __init__(self, *outcomes: str) -> None:
        self.outcomes = list(outcomes)
        self.dialled: list[tuple[float, int]] = []
        self.closed = False

    async def dial(self, device: Device) -> str:
        self.dialled.append((asyncio.get_running_loop().time(), device.number))
        return self.outcomes.pop(0) if self.outcomes else "broken"

    async def close(self) -> None:
        self.closed = True


async def test_they_connect_at_the_rate_and_nobody_is_forgotten() -> None:
    async with ScriptedServer(silent).running() as server:
        async with crowd(server.ws_url, 30, connects_per_s=60.0) as one:
            await until(lambda: not one.tally.untried)
            assert one.tally.ramp_s >= 0.4, "30 at 60 per s"
            assert (one.tally.connected, one.tally.attempted, one.tally.succeeded) == (30, 30, 30)
            one.hold()
            one.ramp(2, 40, 0)
            assert one.tally.untried == 10
            await until(lambda: not one.tally.untried)
            assert (one.tally.step, one.tally.connected, one.tally.attempted) == (2, 40, 10)
        await until(lambda: all(connection.socket.closed for connection in server.connections))
        assert len({connection.headers["Device-Id"] for connection in server.connections}) == 40


async def test_processes_share_the_numbers() -> None:
    numbers: list[int] = []
    for process in range(3):
        async with crowd("ws://127.0.0.1:9/", 4, process=process, processes=3) as one:
            numbers += [device.number for device in one._devices]
    assert sorted(numbers) == list(range(12))


async def test_who_does_not_get_in_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDialer()
    monkeypatch.setattr(module, "_LONGEST_S", 0.4)
    monkeypatch.setattr("tests.sim.load.crowds.Dialer", lambda _: fake)
    async with crowd("ws://x/", 1) as one:
        await until(lambda: len(fake.dialled) == 3)
        assert one.tally.errors["broken"] >= 2
        assert one.tally.succeeded == 0
        assert one.tally.untried == 0
        times = [at for at, _ in fake.dialled]
        assert all(later - earlier > 0.19 for earlier, later in itertools.pairwise(times))
        assert one._devices[0].failures >= 2
    assert fake.closed


async def test_churn() -> None:
    async with (
        ScriptedServer(silent).running() as server,
        crowd(server.ws_url, 4, behaviour=Behaviour.CHURN, stay_s=0.1, connects_per_s=40.0) as one,
    ):
        await until(lambda: one.tally.succeeded >= 12)
        assert one.tally.connected <= 4
        assert one.tally.errors == {}
        assert (one.tally.lost, one.tally.hung_up) == (0, 0), "they leave by themselves"
        assert len({connection.headers["Device-Id"] for connection in server.connections}) == 4


async def test_idle_devices_begin_to_talk_in_a_later_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talker, "FIRST_PAUSE_S", 0.0)

    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.audio_frames(6)
        await connection.answer("hello", 2)
        await connection.drain()

    async with ScriptedServer(script).running() as server, crowd(server.ws_url, 3) as one:
        await until(lambda: one.tally.connected == 3)
        await asyncio.sleep(0.2)
        assert one.tally.sent == 0
        one.ramp(2, 3, 2)
        await until(lambda: one.tally.answered == 2)
        spoke = {
            connection.headers["Device-Id"][-2:] for connection in server.connections if connection.audio
        }
        assert spoke == {"00", "01"}, "the third one is still idle"


async def test_answers_that_hang_are_seen_when_a_step_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talker, "FIRST_PAUSE_S", 0.0)
    async with (
        ScriptedServer(silent).running() as server,
        crowd(server.ws_url, 2, 2, answer_timeout_s=60.0) as one,
    ):
        await until(lambda: len(one.settle().waits) == 2)
        assert len(one.settle().waits) == 2, "each once, however often it is settled"
        one.hold()
        assert one.tally.waits == []


async def test_a_step_shorter_than_the_time_for_an_answer_does_not_pass_when_answers_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        while True:
            await connection.audio_frames(6)
            if connection.headers["Device-Id"].endswith("01"):
                await connection.drain()  # and never says a word
            await connection.answer("hello", 2)

    monkeypatch.setattr(talker, "FIRST_PAUSE_S", 0.0)
    async with (
        ScriptedServer(script).running() as server,
        crowd(server.ws_url, 2, 2, answer_timeout_s=60.0) as one,
    ):
        await until(lambda: not one.tally.untried)
        one.hold()
        # With two turns and a wait that is long even when the answers are slow: the machine may be busy.
        await until(lambda: one.settle().answered >= 2 and max(one.tally.waits, default=0.0) > 2500, 30.0)
        step = one.settle().step_record(Step(number=1, devices=2, talkers=2))
    assert step.unanswered == step.errors[talker.UNANSWERED] == 1
    assert step.turns.attempted == step.turns.succeeded + 1
    lenient = Thresholds(connect_p95_ms=None, hello_p95_ms=None, late_share=None, dry_share=None)
    assert [reason.split(":")[0] for reason in judge(step, [], lenient).reasons] == ["turns"]


async def test_a_stall_of_its_own_is_told() -> None:
    async with crowd("ws://127.0.0.1:9/", 1) as one:
        await asyncio.sleep(0.1)
        time.sleep(0.2)
        await asyncio.sleep(0.1)
        assert one.tally.worst_lag_ms > 150
        assert one.tally.lag.distribution().max == one.tally.worst_lag_ms


async def test_closing_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talker, "FIRST_PAUSE_S", 0.0)
    async with ScriptedServer(silent).running() as server:
        async with crowd(server.ws_url, 2, 1) as one:
            await until(lambda: one.look().talking)
        tally: Any = one.tally
        assert (tally.lost, tally.errors) == (0, {})


def test_the_tail_of_a_recording_is_noise() -> None:
    recording: Recording
    for recording in stock():
        assert len(recording.packets) - recording.last > 2 * TAIL


async def test_a_dialler_that_breaks_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeDialer):
        async def dial(self, device: Device) -> str:
            self.dialled.append((0.0, device.number))
            raise RuntimeError("a bug")

    fake = Broken()
    monkeypatch.setattr("tests.sim.load.crowds.Dialer", lambda _: fake)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with crowd("ws://x/", 1) as one:
        await until(lambda: fake.dialled)
        await asyncio.sleep(0.05)
        assert not one._dialling
