"""Many devices, many turns, a bad link: what was answered, how soon, and whether every byte arrived."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from mynah.sim.discovery import DeviceIdentity
from mynah.sim.pull4g.codec import Form, Words, words
from mynah.sim.pull4g.device import SEED, PullDevice
from mynah.sim.pull4g.record import PullTurn
from mynah.sim.voice import speak
from mynah.wire.pull4g import Codec
from tests.badlink.digest import ENTRY_POINT
from tests.badlink.proxy import Link
from tests.servers import FAKES, ROOT, serve

FORMS = {
    "framed pcm": Form(Codec.PCM, 16000, framed=True),
    "framed adpcm": Form(Codec.ADPCM, 16000, framed=True),
    "framed opus": Form(Codec.OPUS, 16000, framed=True),
    "plain pcm, from=": Form(Codec.PCM, 16000, framed=False),
    "plain pcm, from the seed": SEED,
}
"""How the devices talk; by turns. The last one knows no options, so what a reset loses is lost."""
SEED_ONLY = "plain pcm, from the seed"
SENTENCE = "turn on the light in the kitchen please"
PAUSE_S = (0.5, 3.0)
ANSWER_TIMEOUT_S = 60.0


class Kind(msgspec.Struct):
    """What became of the turns of one form. Times in s, from the release of the button."""

    turns: int = 0
    answered: int = 0
    """The answer was heard to its end."""
    reported: dict[str, int] = {}
    """Why others were not; the device knows."""
    silent: int = 0
    """Neither: must be 0."""
    exact_up: int = 0
    """The server heard exactly what was said."""
    exact_down: int = 0
    """The device got exactly what was spoken, each byte once and in order."""
    resumed: int = 0
    """Turns that lost a connection and went on."""
    text_s: list[float] = []
    first_audio_s: list[float] = []


class Outcome(msgspec.Struct):
    """The whole campaign."""

    link: Link
    kinds: dict[str, Kind]
    connections_tried: int = 0
    connections_made: int = 0
    connections_lost: int = 0
    faults: dict[str, int] = {}
    proxy: dict[str, Any] = {}
    server_memory_mb: list[float] = []
    """Resident, at the beginning, in the middle of it all, and at the end."""
    server_files: list[int] = []
    seconds: float = 0.0


class Reference(msgspec.Struct, frozen=True):
    """What a turn over a good link was like."""

    stt: str
    data: bytes
    pieces: int


@contextmanager
def entry_point() -> Iterator[None]:
    """Let servers that are started meanwhile find our recogniser, as they find any installed package."""
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "badlink-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: badlink\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINT)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, str(ROOT), before)))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


@contextmanager
def proxied(port: int, link: Link, seed: int, seen: dict[str, Any]) -> Iterator[int]:
    """Run the proxy in front of a port; give its own. ``seen`` is filled at the end."""
    command = [sys.executable, "-m", "tests.badlink.proxy", str(port), "--seed", str(seed)]
    for name, value in msgspec.to_builtins(link).items():
        command += ["--" + name.replace("_", "-"), str(value)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        told, _ = process.communicate(timeout=20)
        with suppress(ValueError):
            seen.update(json.loads(told))


class Campaign:
    """Runs it. ``seconds_of_speech``: of each of the answer's three sentences."""

    def __init__(self, devices: int, turns: int, link: Link, seed: int) -> None:
        self._devices, self._turns, self._seed = devices, turns, seed
        self._words: dict[str, Words] = {}
        self._references: dict[str, Reference] = {}
        self.outcome = Outcome(link, {name: Kind() for name in FORMS})
        self._started = 0

    def run(self, folder: Path, overrides: tuple[str, ...] = ()) -> Outcome:
        """Run it to its end."""
        more = ("ASR.Digest={type: digest}", "selected_module.ASR=Digest", "log.log_level=ERROR", *overrides)
        with entry_point(), serve(folder, *more, config=FAKES) as server:
            port = int(server.ready["pull4g"].rpartition(":")[2])
            pid = server.popen.pid
            with proxied(port, self.outcome.link, self._seed, self.outcome.proxy) as bad:
                asyncio.run(self._all(port, bad, pid))
        return self.outcome

    async def _all(self, port: int, bad: int, pid: int) -> None:
        loop = asyncio.get_running_loop()
        pcm = speak(SENTENCE)
        for name, form in FORMS.items():
            self._words[name] = words(pcm, form, SENTENCE)
        self._references = dict(
            zip(
                FORMS,
                await asyncio.gather(
                    *(self._reference(name, form, port, at) for at, (name, form) in enumerate(FORMS.items()))
                ),
                strict=True,
            )
        )
        self._note_server(pid)
        begin = loop.time()
        middle = loop.create_task(self._watch(pid))
        await asyncio.gather(*(self._live(number, bad) for number in range(self._devices)))
        middle.cancel()
        self.outcome.seconds = round(loop.time() - begin, 1)
        await asyncio.sleep(2.0)
        self._note_server(pid)

    async def _reference(self, name: str, form: Form, port: int, at: int) -> Reference:
        device = PullDevice(
            f"tcp://127.0.0.1:{port}",
            DeviceIdentity(f"02:00:00:00:ff:{at:02x}"),
            form=form,
            seed_only=name == SEED_ONLY,
        )
        device.start()
        turn = await device.ask(self._words[name])
        await device.close()
        assert turn.ok and turn.reply is not None, (name, turn.error)
        return Reference(turn.stt, bytes(turn.reply.data), len(turn.reply.packets))

    async def _live(self, number: int, port: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        name = list(FORMS)[number % len(FORMS)]
        device = PullDevice(
            f"tcp://127.0.0.1:{port}",
            DeviceIdentity(f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"),
            form=FORMS[name], seed_only=name == SEED_ONLY, seed=number,
        )  # fmt: skip
        await asyncio.sleep(chance.uniform(0, 5))
        device.start()
        while self._started < self._turns:
            self._started += 1
            await self._turn(device, name)
            await asyncio.sleep(chance.uniform(*PAUSE_S))
        await device.close()
        outcome, made = self.outcome, device.keeper.connections
        outcome.connections_tried += made.tried
        outcome.connections_made += made.made
        outcome.connections_lost += made.lost
        for fault, count in msgspec.to_builtins(device.faults).items():
            outcome.faults[fault] = outcome.faults.get(fault, 0) + count

    async def _turn(self, device: PullDevice, name: str) -> None:
        loop, kind = asyncio.get_running_loop(), self.outcome.kinds[name]
        kind.turns += 1
        told: list[float] = []

        async def watch(turn: PullTurn) -> None:
            while not turn.stt:
                await device.changed()
            told.append(loop.time())

        asking = asyncio.create_task(device.ask(self._words[name], timeout_s=ANSWER_TIMEOUT_S))
        await asyncio.sleep(0)
        watching = asyncio.create_task(watch(device.turns[-1]))
        turn = await asking
        watching.cancel()
        reference, reply = self._references[name], turn.reply
        if told:
            kind.text_s.append(told[0] - turn.released_at)
        if (first := turn.first_audio_s) is not None:
            kind.first_audio_s.append(first)
        kind.resumed += bool(turn.resumed)
        kind.exact_up += bool(turn.stt) and turn.stt == reference.stt
        if turn.ok and reply is not None:
            kind.answered += 1
            same = bytes(reply.data) == reference.data
            kind.exact_down += len(reply.packets) == reference.pieces if reply.packets else same
        elif turn.error:
            cause = turn.error.partition(" within")[0].partition(":")[0]
            kind.reported[cause] = kind.reported.get(cause, 0) + 1
        else:
            kind.silent += 1

    async def _watch(self, pid: int) -> None:
        while True:
            await asyncio.sleep(30.0)
            self._note_server(pid)

    def _note_server(self, pid: int) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        self.outcome.server_memory_mb.append(round(int(resident.split()[1]) / 1024, 1))
        self.outcome.server_files.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
