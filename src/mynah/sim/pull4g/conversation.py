"""A whole conversation as a device that fetches its answers: discover, connect, ask, hear the answer out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from mynah.sim.boot import ONE_TRY, Boot, BootPolicy
from mynah.sim.conversation import Conversation, Said, Turn, booted, turn_of
from mynah.sim.counters import Counters
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError, TokenRefusedError
from mynah.sim.pull4g.codec import Form, words
from mynah.sim.pull4g.device import PullDevice
from mynah.sim.pull4g.record import PullTurn
from mynah.sim.recorder import Marks, Recorder
from mynah.sim.state import Direction, Observer
from mynah.sim.timeline import Origin, Tracer
from mynah.wire.messages import DeviceMessage, ReceivedMessage
from mynah.wire.pull4g import ErrorCode


class PullTarget(msgspec.Struct, frozen=True):
    """Which server to talk to, and as which device. Give ``ota_url`` or ``url``; the latter skips the boot."""

    ota_url: str = ""
    url: str = ""
    """``tcp://host:port`` or ``tls://host:port``."""
    token: str = ""
    """Empty: the one that discovery hands out."""
    identity: DeviceIdentity = DeviceIdentity()
    form: Form = Form()
    timeout_s: float = 30.0
    """How long to wait for an owner, for the connection, and for the answer or more of it."""
    verify_tls: bool = True
    boot: BootPolicy = ONE_TRY


async def converse_pull(
    target: PullTarget,
    said: Sequence[Said],
    *,
    watcher: Observer | None = None,
    record: Conversation | None = None,
) -> Conversation:
    """Say everything in ``said``, one after the other, each after the answer to the one before has been played.

    Raises ConnectError when no conversation comes about, ConfigError for a form that does not exist; what was seen
    until then is in ``record``, which otherwise is what is returned. A turn without an answer ends the conversation;
    its ``error`` says why.
    """
    conversation = record if record is not None else Conversation()
    async with _connected(target, watcher or Observer(), conversation) as (device, recorder, tracer):
        for question in said:
            recorder.marks = marks = Marks()
            tracer.begin()
            spoken = await asyncio.to_thread(words, question.pcm or b"", target.form, question.text)
            gaps = device.faults.underruns
            asked = await device.ask(spoken, timeout_s=target.timeout_s)
            turn = _result(question, asked, marks)
            turn.late_frames = device.faults.underruns - gaps
            conversation.turns.append(turn)
            tracer.end(question.text, Origin.BUTTON, asked.released_at, turn.error)
            if not turn.ok:
                break
    return conversation


async def probe(target: PullTarget) -> None:
    """Connect to ``target.url`` and poll once. Raises ConnectError that says what is wrong with it."""
    device = PullDevice(
        target.url, target.identity, form=target.form, token=target.token, verify_tls=target.verify_tls
    )
    try:
        await _open(device, target.timeout_s, Conversation())
    finally:
        await device.close()


def _result(question: Said, asked: PullTurn, marks: Marks) -> Turn:
    turn = turn_of(question, marks, asked.released_at)
    if asked.error or not turn.ok:
        turn.ok = False
        turn.error = asked.error or "the answer was empty"
    return turn


@contextlib.asynccontextmanager
async def _connected(
    target: PullTarget, watcher: Observer, conversation: Conversation
) -> AsyncIterator[tuple[PullDevice, Recorder, Tracer]]:
    """Boot, connect and be let in; afterwards put everything into the conversation's record."""
    started_at = time.monotonic()
    rate = target.form.rate

    def duration_ms(pcm: bytes) -> float:
        return len(pcm) / 2 / rate * 1000

    tracer = Tracer(watcher, pcm=True, duration_ms=duration_ms)
    recorder = Recorder(tracer, started_at, duration_ms=duration_ms)
    heard = _Heard(recorder)
    url, token = target.url, target.token
    if not url:
        boot = Boot(
            target.identity,
            policy=target.boot,
            counters=conversation.counters,
            observer=recorder,
            verify_tls=target.verify_tls,
            pull4g=True,
        )
        found = await booted(boot, target.ota_url, target.timeout_s, recorder)
        url, token = found.url, token or found.token
        conversation.stages["discover"] = _ms(started_at)
    device = PullDevice(
        url, target.identity, form=target.form, token=token, observer=heard, verify_tls=target.verify_tls
    )
    try:
        await _open(device, target.timeout_s, conversation)
        yield device, recorder, tracer
    finally:
        await device.close()
        conversation.messages = recorder.messages
        conversation.pcm, conversation.sample_rate = bytes(heard.pcm), rate
        _count(device, conversation.counters)
        conversation.timelines = tracer.timelines()
        for turn, seen in zip(reversed(conversation.turns), reversed(conversation.timelines), strict=False):
            turn.timeline = seen.spans()


async def _open(device: PullDevice, timeout_s: float, conversation: Conversation) -> None:
    """Connect and poll once: only then is it known whether we are let in. Raises ConnectError."""
    opening_at = time.monotonic()
    device.start()
    await _until_connected(device)
    conversation.stages["connect"] = _ms(opening_at)
    asked_at = time.monotonic()
    device.activate()
    try:
        async with asyncio.timeout(timeout_s):
            while not device.hearing.brackets.answered and device.refused is None and device.connected:
                await device.changed()
    except TimeoutError:
        raise ConnectError(
            f"{device.url} did not answer within {timeout_s:g} s: is it a server of the 4G pull protocol?"
        ) from None
    if (refused := device.refused) is not None:
        kind = TokenRefusedError if refused.code is ErrorCode.UNAUTHORIZED else ConnectError
        raise kind(f"{device.url} refuses ({refused.code}: {refused.text})")
    if not device.hearing.brackets.answered:
        raise ConnectError(f"{device.url} hung up: is it a server of the 4G pull protocol, and without TLS?")
    conversation.stages["hello"] = _ms(asked_at)


async def _until_connected(device: PullDevice) -> None:
    """Wait for the first connection. Raises ConnectError when it fails: people are told at once, devices go on."""
    while not device.connected:
        if device.keeper.trouble:
            raise ConnectError(device.keeper.trouble)
        await device.changed()


class _Heard(Observer):
    """Keeps what was played, and passes everything on."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.pcm = bytearray()

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        self._recorder.on_message(direction, message, at_s)

    def on_audio(self, direction: Direction, packet: bytes, at_s: float) -> None:
        if direction is Direction.DOWN:
            self.pcm += packet
        self._recorder.on_audio(direction, packet, at_s)


def _count(device: PullDevice, counters: Counters) -> None:
    """Tell what the device suffered by the names that all devices use."""
    faults = device.faults
    counters.stray_audio += faults.audio_outside + faults.audio_after_interrupt
    counters.unreadable_messages += faults.unknown_lines


def _ms(since: float) -> float:
    return round((time.monotonic() - since) * 1000, 1)
