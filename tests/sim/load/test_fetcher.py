"""Devices of the pull protocol in a crowd: against the real server, and against servers that are not up to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mynah.sim.load import dial, fetcher, machine
from mynah.sim.load import director as module
from mynah.sim.load.dial import NO_PULL4G, Endpoint, read_reply
from mynah.sim.load.director import LoadOptions, run
from mynah.sim.load.fetcher import NOT_ALLOWED, POLLS_UNANSWERED
from mynah.sim.load.record import Machine, Stage
from mynah.sim.load.scenario import Behaviour, Scenario, Thresholds, Transport
from mynah.sim.load.stock import recordings
from mynah.sim.pull4g.codec import Form
from mynah.sim.pull4g.record import Policy
from mynah.wire import pull4g
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import Codec, ErrorCode, ServerStream
from tests.servers import FAKES, app, serve

from .crowds import crowd, until

PULL = {"transport": Transport.PULL4G, "mode": ListenMode.MANUAL, "codec": Codec.PCM, "framed": False}
SHORT = ("TTS.FakeTTS.seconds=0.1", "server.pull4g_port=0")

Answering = Callable[[pull4g.ClientEvent], bytes]


@asynccontextmanager
async def server(answer: Answering) -> AsyncIterator[str]:
    """A server that answers each command as it is told to."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = ServerStream()
        try:
            while data := await reader.read(65536):
                for event in stream.feed(data):
                    writer.write(answer(event))
        except ConnectionError:
            pass
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as made:
        yield f"tcp://127.0.0.1:{made.sockets[0].getsockname()[1]}"


def bracket(audio: bytes = b"") -> bytes:
    return pull4g.audio_start(False) + audio + pull4g.audio_end(False)


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "look", lambda *_, **__: Machine(cpu="a test", cores=2))
    monkeypatch.setattr(module, "REST_S", 0.3)
    monkeypatch.setattr(module, "RAMP_GRACE_S", 10.0)


@pytest.mark.e2e
@pytest.mark.speech
@pytest.mark.usefixtures("in_a_hurry")
def test_a_load_test_of_the_real_server(tmp_path: Path) -> None:
    lenient = Thresholds(
        success=1.0, connect_p95_ms=None, hello_p95_ms=None, first_audio_growth=None, late_share=None, dry_share=None,
        overflow=None,
    )  # fmt: skip
    wanted = Scenario(
        steps=(2, 4), behaviour=Behaviour.MIXED, talkers_share=0.5, hold_s=3.0, connects_per_s=100.0,
        thresholds=lenient, mode=ListenMode.MANUAL, transport=Transport.PULL4G, codec=Codec.ADPCM, pause_s=(0.1, 0.3),
    )  # fmt: skip
    with serve(tmp_path, *SHORT, config=FAKES) as process:
        report = run(process.ready["ota"], wanted, LoadOptions(processes=1), lambda _: None)
    assert report.reasons == []
    assert report.passed
    for step in report.steps:
        assert step.connected == step.devices
        assert step.turns.succeeded >= 1
        assert (step.errors, step.faults) == ({}, {})
        assert set(step.times) >= set(Stage) - {Stage.HELLO}
        assert 0 < step.times[Stage.FIRST_AUDIO].p50 < 5000
        assert step.frames.sent > 10
        assert step.frames.received > 5
    assert Stage.HELLO in report.steps[0].times, "who talks is let in first"
    assert report.scenario["transport"] == "pull4g"


@pytest.mark.parametrize(
    ("codec", "framed"), [(Codec.PCM, False), (Codec.OPUS, True)], ids=["plain pcm", "framed opus"]
)
@pytest.mark.e2e
@pytest.mark.speech
async def test_talkers_and_idle_devices(codec: Codec, framed: bool, tmp_path: Path) -> None:
    stock = await asyncio.to_thread(recordings, ("Time?",), "en", Form(codec, framed=framed))
    async with app(tmp_path, *SHORT) as (served, at):
        wanted = {**PULL, "codec": codec, "framed": framed, "answer_timeout_s": 15.0, "interrupt_share": 0.5}
        async with crowd(at.pull4g, 4, 0, **wanted) as one:
            one._script.recordings[:] = [
                type(made)(
                    [pull4g.device_audio(piece, framed) for piece in made.packets],
                    made.last,
                    made.after_ms,
                    made.first,
                )
                for made in stock
            ]
            await until(lambda: one.tally.connected == 4)
            assert served.devices is not None
            assert len(served.devices) == 0, "who is idle has no conversation"
            one.ramp(2, 4, 2)
            one.hold()
            await until(lambda: one.tally.answered >= 3, 20)
            assert one.tally.turns == one.tally.answered
            assert one.tally.errors == {}
            assert one.tally.faults == {}
            assert len(served.devices) == 2


async def test_who_comes_and_goes_is_let_in_each_time() -> None:
    def answer(event: pull4g.ClientEvent) -> bytes:
        return bracket() if isinstance(event, pull4g.Request) else b""

    churn = {**PULL, "behaviour": Behaviour.CHURN, "stay_s": 0.1}
    async with server(answer) as url, crowd(url, 3, **churn) as one:
        await until(lambda: one.tally.succeeded >= 12)
        assert one.tally.errors == {}
        assert one.tally.times[Stage.HELLO].distribution().count >= 12
        assert one.tally.times[Stage.CONNECT].distribution().count >= 12


@pytest.mark.parametrize(
    ("code", "error", "busy"),
    [
        (ErrorCode.BUSY, "", True),
        (ErrorCode.UNAUTHORIZED, NOT_ALLOWED, False),
        (ErrorCode.BAD_COMMAND, "answered ERROR bad_command", False),
    ],
)
async def test_refusals(code: ErrorCode, error: str, busy: bool) -> None:
    async with server(lambda _: pull4g.error(code, "why", False)) as url, crowd(url, 1, 1, **PULL) as one:
        await until(lambda: one.tally.busy or one.tally.errors)
        assert bool(one.tally.busy) == busy
        assert set(one.tally.errors) == ({error} if error else set())


async def test_a_server_that_answers_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "_POLICY", Policy(poll_s=0.05))
    answers = [bracket()]

    def first_only(event: pull4g.ClientEvent) -> bytes:
        return answers.pop() if isinstance(event, pull4g.Request) and answers else b""

    async with server(first_only) as url, crowd(url, 1, 1, **PULL) as one:
        await until(lambda: POLLS_UNANSWERED in one.tally.errors)
        assert (one.tally.lost, one.tally.turns, one.tally.answered) == (1, 1, 0)


async def test_gaps_and_audio_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "_POLICY", Policy(poll_s=0.5))
    polls = []

    def answer(event: pull4g.ClientEvent) -> bytes:
        if not isinstance(event, pull4g.Request):
            return b""
        polls.append(1)
        return b"noise\n" + pull4g.stt("what", False) + bracket(bytes(1920) if len(polls) in {2, 4} else b"")

    async with server(answer) as url, crowd(url, 1, 1, **PULL) as one:
        await until(lambda: one.tally.turns)
        tally = one.tally
        assert tally.answered == 1
        assert tally.received == 2
        assert (tally.late, tally.dry) == (1, 1)
        assert tally.worst_gap_ms > 500
        assert tally.faults["unreadable_messages"] >= 4


def test_ota_answers() -> None:
    body = b'{"websocket":{"url":"ws://h/"},"pull4g":{"host":"::1","port":5,"tls":true,"token":"t"}}'
    assert read_reply(body, Transport.PULL4G) == Endpoint("tls://[::1]:5", "t")
    assert read_reply(b'{"websocket":{"url":"ws://h/"}}', Transport.PULL4G) == NO_PULL4G
    assert read_reply(b'{"pull4g":{"host":"","port":5}}', Transport.PULL4G) == NO_PULL4G
    assert dial.asked_of(Scenario()) == ""
