"""What who looks on gets to see: the same as with every transport."""

from __future__ import annotations

import asyncio

from mynah.sim.pull4g.codec import Form
from mynah.sim.pull4g.witness import Witness
from mynah.sim.state import Direction, Observer
from mynah.wire.messages import DeviceMessage, ReceivedMessage, Tts
from mynah.wire.pull4g import Codec
from tests.virtual_time import virtual

from .test_device import QUARTER, speaks
from .tower import PLAIN, WORDS, Tower, device


class Seen(Observer):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.sound = {Direction.UP: b"", Direction.DOWN: b""}

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        name = type(message).__name__.lower()
        self.told.append(f"{direction} {name} {getattr(message, 'state', '')}".strip())

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
        self.sound[direction] += packet


@virtual
async def test_a_turn_and_an_interruption() -> None:
    tower, seen = Tower(), Seen()
    speaks(tower, QUARTER * 4)
    one = device(tower, PLAIN, observer=seen)
    turn = await one.ask(WORDS)
    assert turn.ok
    speaks(tower, QUARTER * 4)
    one.press(WORDS)
    await asyncio.sleep(1.2)
    one.interrupt()
    await one.close()
    start, stop = "up listen start", "up listen stop"
    assert seen.told == [
        start,
        stop,
        "down tts start",
        "down tts stop",
        start,
        stop,
        "down tts start",
        "up abort",
    ]
    assert seen.sound[Direction.DOWN].startswith(QUARTER * 4)


def test_without_anybody_nothing_happens() -> None:
    one = Witness(None, Form(Codec.OPUS), lambda: 0.0)
    one.pressed()
    one.played(b"no packet at all")
    one.over()
    assert not one.looks_on
    assert Tts("stop").state == "stop"
