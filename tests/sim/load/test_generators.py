"""The processes with devices: that they share the work, and that what is left of them is known."""

from __future__ import annotations

import os
import signal

import pytest

from mynah.errors import MynahError
from mynah.sim.load import generators as module
from mynah.sim.load.generators import Generators
from mynah.sim.load.tally import Tally

from ..scripted import ScriptedServer, silent
from .crowds import plan, until


async def test_they_share_the_devices_and_one_may_die() -> None:
    async with ScriptedServer(silent).running() as server, Generators() as generators:
        await generators.start([plan(server.ws_url, process=n, processes=2, family=7) for n in range(2)], [])
        assert generators.tally(1) is None, "nobody has begun with it"
        generators.ramp(1, 5, 0)
        await until(lambda: (tally := generators.tally(1)) is not None and not tally.untried, 20)
        settled = await generators.settle(1)
        assert (settled.connected, settled.attempted, settled.succeeded) == (5, 5, 5)
        assert len({connection.headers["Device-Id"] for connection in server.connections}) == 5
        assert generators.bereaved() == []
        first, second = generators.pids()
        os.kill(first, signal.SIGKILL)
        await until(lambda: generators.pids() == [second])
        (told,) = generators.bereaved()
        assert f"process {first} with devices has ended: killed by signal 9" in told
        assert generators.bereaved() == [], "it is told once"
        assert generators.alive
        left = generators.tally(1)
        assert left is not None
        assert (left.connected, left.succeeded) == (2, 5), "what it has seen still counts"
        generators.hold()
        assert (await generators.settle(1)).connected == 2
    assert generators.pids() == []
    assert generators.bereaved() == [], "who was told to end is not missed"


async def test_a_process_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAM", "raise SystemExit('no devices here')")
    async with Generators() as generators:
        with pytest.raises(MynahError, match=r"did not start: no devices here \(exit code 1\)"):
            await generators.start([plan("ws://127.0.0.1:9/")], [])


async def test_one_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(module, "LEAVE_TIMEOUT_S", 0.3)
    async with Generators() as generators:
        await generators.start([plan("ws://127.0.0.1:9/")], [])
        (pid,) = generators.pids()
        os.kill(pid, signal.SIGSTOP)
        assert await generators.settle(3) == Tally(step=3)
    assert generators.pids() == []


@pytest.mark.parametrize(("whole", "parts"), [(0, 3), (1, 3), (7, 3), (20_000, 7)])
def test_parts(whole: int, parts: int) -> None:
    shares = [module._part(whole, number, parts) for number in range(parts)]
    assert sum(shares) == whole
    assert max(shares) - min(shares) <= 1
