"""Devices that fetch their answers: whole conversations on virtual time, whatever happens to their connections."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mynah.audio.outlet import FetchedPlayback, Outlet
from mynah.dialogue import admission
from mynah.dialogue.session import Session
from mynah.dialogue.turn import Phase
from mynah.net.pull_device import GONE_S, UNUSED_S, UPLOAD_LOST_S, PullDevice
from mynah.net.pull_download import Download
from mynah.net.pull_line import PullLine
from mynah.net.pull_reply import KEPT_S, PullReply
from mynah.net.pull_upload import Upload
from mynah.net.tcp_pull4g import PullConnection
from mynah.texts import variants
from mynah.wire.messages import Hello, Listen, ListenMode, TtsStart
from mynah.wire.pull4g import AudioEnd, Codec, Options, Ready, Received, Said
from tests.fakes import FakeLink, Script
from tests.net.pull_world import DEVICE, SECOND, Modem, World, framed, peer, soon
from tests.virtual_time import settle, virtual

OTHER = "aabbccddee01"


def only(world: World) -> PullDevice:
    (device,) = world.server._devices.values()
    return device


# ---------------------------------------------------------------- a turn


@pytest.mark.parametrize(
    "options",
    [Options(), Options(codec=Codec.ADPCM), framed(), framed(Codec.ADPCM), framed(text=True)],
    ids=str,
)
@virtual
async def test_turns_one_after_the_other(options: Options) -> None:
    world = World()
    modem = Modem(world, options)
    for number in range(3):
        modem.ask(SECOND if options.codec is Codec.PCM else SECOND[: len(SECOND) // 4])
        await modem.fetch(5)
        assert len(world.recorder.turns) == number + 1
    assert world.recorder.turns[0].mode == "manual"
    if options.codec is Codec.PCM:
        assert modem.socket.audio == world.tts.made
        assert [turn.answer for turn in world.recorder.turns] == ["Hi! I am fine."] * 3
        assert world.history == ["hello there", "Hi! I am fine."] * 3
    assert not modem.socket.errors
    assert world.recorder.opened == 2, "one conversation; the other is the stage's"
    await world.end()


@virtual
async def test_the_recogniser_gets_what_was_recorded() -> None:
    world = World()
    modem = Modem(world)
    modem.ask(SECOND * 3)
    await soon(2)
    assert world.stage.asr.audio[0] in SECOND * 3
    assert len(world.stage.asr.audio[0]) > 2.5 * len(SECOND)
    await world.end()


@virtual
async def test_a_recording_longer_than_the_credit_is_heard_whole() -> None:
    world = World()
    modem = Modem(world)
    modem.ask(SECOND * 40)
    await modem.fetch(20)
    assert len(world.stage.asr.audio[0]) == pytest.approx(40 * len(SECOND), rel=0.02)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_a_recording_that_is_too_long_is_told_once_and_answered() -> None:
    world = World()
    modem = Modem(world)
    modem.start()
    for _ in range(65):
        modem.talk()
    modem.complete()
    assert modem.socket.errors == ["too_large"]
    await modem.fetch(30)
    assert modem.socket.errors == ["too_large"], "its end is not a surprise"
    assert modem.socket.audio == world.tts.made != b""
    assert len(world.stage.asr.audio[0]) <= 60 * len(SECOND)
    await world.end()


@virtual
async def test_silence_is_answered_with_nothing() -> None:
    world = World(Script(heard=[""]))
    modem = Modem(world, framed())
    modem.ask(bytes(32000))
    await modem.fetch(3)
    assert modem.socket.audio == b""
    assert world.session.phase is Phase.IDLE
    assert modem.socket.of(AudioEnd)[-1].final
    await world.end()


@virtual
async def test_where_the_voice_fails_the_text_is_there_and_the_turn_ends() -> None:
    from tests.fakes import PROVIDER_DOWN

    world = World(Script(tts_error=PROVIDER_DOWN))
    modem = Modem(world, framed(text=True))
    modem.ask()
    await modem.fetch(5)
    assert [said.text for said in modem.socket.of(Said)] == ["Hi!", "I am fine."]
    assert modem.socket.audio == b""
    assert world.session.phase is Phase.IDLE
    await world.end()


@virtual
async def test_another_codec_is_another_conversation_with_the_same_memory() -> None:
    world = World()
    modem = Modem(world)
    modem.ask()
    await modem.fetch(5)
    first = only(world)
    modem.options = Options(codec=Codec.ADPCM)
    modem.ask()
    assert only(world) is not first
    await modem.fetch(5)
    assert len(world.history) == 4
    assert len(world.devices) == 1
    await world.end()


@virtual
async def test_who_says_goodbye_keeps_the_connection_and_may_begin_anew() -> None:
    world = World(Script(heard=["goodbye", "hello there"]))
    modem = Modem(world, framed())
    modem.ask()
    got = await modem.fetch(1)
    await soon(5)
    assert got == world.tts.made
    assert len(world.devices) == 0
    assert not modem.socket.is_closing()
    modem.ask()
    assert len(world.devices) == 1
    assert len(modem.socket.of(Ready)) == 2
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_a_recording_in_the_moment_of_the_goodbye_is_another_conversation() -> None:
    world = World()
    modem = Modem(world)
    modem.poll()
    device = only(world)
    device.close()
    modem.ask()
    assert only(world) is not device
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made != b""
    await world.end()


# ---------------------------------------------------------------- the link is lost


@pytest.mark.parametrize("back", [0, 1, 3, 700, 5000])
@pytest.mark.parametrize("options", [Options(), framed()], ids=["plain", "framed"])
@virtual
async def test_an_upload_goes_on_after_the_link_was_lost(options: Options, back: int) -> None:
    world = World()
    modem = Modem(world, options)
    whole = SECOND * 2
    modem.start()
    modem.talk(whole[:40_001])
    modem.socket.cut()
    await soon(4)
    modem.connect()
    modem.start(40_001 - back)
    if options.framed:
        assert modem.socket.of(Received) == [Received(40_001)]
    modem.talk(whole[40_001 - back :])
    modem.complete()
    if options.framed:
        assert modem.socket.of(Received)[-1] == Received(len(whole))
    await modem.fetch(5)
    assert len(world.recorder.turns) == 1
    reference = World()
    other = Modem(reference)
    other.ask(whole)
    await other.fetch(5)
    assert world.stage.asr.audio == reference.stage.asr.audio, "as if nothing had happened"
    await world.end()
    await reference.end()


@virtual
async def test_who_goes_on_with_a_recording_that_is_complete_already_does_not_begin_anew() -> None:
    """The link broke after the last byte: the device does not know whether that arrived."""
    for seconds in (0.02, 0.3, 5):
        world = World(Script(asr_s=0.2))
        modem = Modem(world, framed())
        modem.ask()
        modem.socket.cut()
        await soon(seconds)
        modem.connect()
        modem.start(len(SECOND) - 500)
        assert modem.socket.of(Received) == [Received(len(SECOND))]
        modem.talk(SECOND[-500:])
        modem.complete()
        await modem.fetch(6)
        assert not modem.socket.errors
        assert modem.socket.audio == world.tts.made
        assert len(world.recorder.turns) == 1
        await world.end()


@virtual
async def test_who_goes_on_behind_what_has_arrived_is_told_where_that_is() -> None:
    """The modem had taken more than it sent."""
    world = World()
    modem = Modem(world, framed())
    whole = SECOND * 2
    modem.start()
    modem.talk(whole[:20_000])
    modem.socket.cut()
    modem.connect()
    modem.start(30_000)
    assert modem.socket.of(Received) == [Received(20_000)]
    modem.start(20_000)
    modem.talk(whole[20_000:])
    modem.complete()
    assert modem.socket.of(Received)[1:] == [Received(20_000), Received(len(whole))]
    await modem.fetch(5)
    assert world.stage.asr.audio[0] in whole
    assert len(world.stage.asr.audio[0]) > 0.9 * len(whole)
    await world.end()


@virtual
async def test_who_goes_on_with_what_nobody_knows_is_told_that_nothing_is_here() -> None:
    world = World()
    modem = Modem(world, framed())
    modem.start(30_000)
    assert modem.socket.of(Received) == [Received(0)]
    modem.ask(SECOND)
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    assert len(world.stage.asr.audio) == 1
    await world.end()


@virtual
async def test_who_goes_on_too_late_is_told_what_was_heard() -> None:
    world = World()
    modem = Modem(world, framed())
    modem.start()
    modem.talk(SECOND)
    modem.socket.cut()
    await soon(UPLOAD_LOST_S + 3)
    modem.connect()
    modem.start(len(SECOND))
    modem.talk(SECOND)
    modem.complete()
    assert modem.socket.of(Received) == [Received(len(SECOND))] * 2
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    assert len(world.stage.asr.audio) == 1
    await world.end()


@virtual
async def test_who_goes_on_at_the_first_byte_begins_anew() -> None:
    world = World()
    modem = Modem(world, framed())
    modem.start(0)
    modem.talk(SECOND)
    modem.socket.cut()
    modem.connect()
    modem.start(0)
    assert modem.socket.of(Received) == [Received(0)]
    modem.talk(SECOND)
    modem.complete()
    await modem.fetch(5)
    modem.start(0)
    modem.talk(SECOND)
    modem.complete()
    await modem.fetch(5)
    assert [len(audio) for audio in world.stage.asr.audio] == [pytest.approx(len(SECOND), rel=0.1)] * 2
    await world.end()


@pytest.mark.parametrize("connected", [False, True])
@virtual
async def test_a_recording_that_broke_off_is_answered(connected: bool) -> None:
    world = World()
    modem = Modem(world)
    modem.start()
    modem.talk()
    if not connected:
        modem.socket.cut()
    await soon(UPLOAD_LOST_S - 1.5)
    assert not world.stage.asr.audio
    await soon(3)
    assert len(world.stage.asr.audio) == 1
    if not connected:
        modem.connect()
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made != b""
    await world.end()


@virtual
async def test_a_plain_device_that_asks_for_the_answer_has_said_everything() -> None:
    world = World()
    modem = Modem(world)
    modem.start()
    modem.talk()
    modem.socket.cut()
    await soon(1)
    modem.connect()
    await modem.fetch(3)
    assert modem.socket.audio == world.tts.made != b""
    await world.end()


@virtual
async def test_who_is_away_while_we_think_finds_the_answer() -> None:
    world = World(Script(asr_s=1.0))
    modem = Modem(world, framed())
    modem.ask()
    modem.socket.cut()
    await soon(50)
    assert world.session.phase is Phase.REPLYING, "it waits"
    modem.connect()
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    assert modem.socket.of(Ready), "framed mode is announced on each connection"
    await world.end()


@pytest.mark.parametrize("moment", ["recording", "thinking", "fetching", "idle"])
@virtual
async def test_who_never_comes_back_is_forgotten_after_a_minute(moment: str) -> None:
    world = World()
    modem = Modem(world)
    if moment == "recording":
        modem.start()
        modem.talk()
    else:
        modem.ask()
    if moment in {"fetching", "idle"}:
        await modem.fetch(0.5 if moment == "fetching" else 5)
    modem.socket.cut()
    await soon(GONE_S - 2)
    assert len(world.devices) == 1
    await soon(4)
    assert len(world.devices) == 0
    assert world.kept() == 0
    assert world.open_ears == 0
    await world.end()


@virtual
async def test_a_newer_connection_takes_the_conversation_over() -> None:
    world = World(Script(replies=[["A sentence that is long. "]], speech_s=6.0))
    modem = Modem(world, framed())
    modem.ask()
    await modem.fetch(2)
    first = modem.socket
    had = first.audio
    modem.connect()
    modem.poll(len(had))
    await soon()
    assert first.is_closing()
    await modem.fetch(8)
    assert had + modem.socket.audio == world.tts.made
    assert len(world.devices) == 1
    assert len(world.server) == 1
    await world.end()


# ---------------------------------------------------------------- interrupting

MOMENTS = {
    "idle": -1.0, "recording": -0.5, "uploaded": 0.0, "recognising": 0.1, "thinking": 0.4, "synthesising": 0.9,
    "first frame": 1.21, "fetching": 2.5, "played": 12.0,
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("polling", [False, True])
@pytest.mark.parametrize("options", [Options(), framed()], ids=["plain", "framed"])
@virtual
async def test_interrupted_at_any_moment(moment: str, polling: bool, options: Options) -> None:
    script = Script(
        replies=[[0.5, "First sentence is this. ", "Second sentence is that."]], asr_s=0.2, tts_s=0.5
    )
    script.speech_s = 3.0
    world = World(script)
    modem = Modem(world, options)
    at = MOMENTS[moment]
    if at < 0:
        modem.poll()
    if at >= -0.5:
        modem.start()
        modem.talk()
    if at >= 0:
        modem.complete()
    for _ in range(round(at * 2)):
        modem.poll()
        await soon(0.5)
    await soon(at % 0.5 if at > 0 else 0)
    if polling and at >= 0:
        modem.poll()
        await soon()
    modem.interrupt()
    assert world.session.phase is Phase.IDLE
    ended, heard = modem.socket.answers, modem.socket.audio
    assert len(modem.socket.of(AudioEnd)) == len(ended)
    assert world.kept() == 0
    spoken = world.history[1] if len(world.history) > 1 else ""
    assert "First sentence is this. Second sentence is that.".startswith(spoken.rstrip("…"))
    if moment == "fetching":
        assert spoken.startswith("First")
    if moment == "played":
        assert spoken.endswith("that.")
    await modem.fetch(5)
    assert modem.socket.audio == heard, "nothing of the old reply"
    assert all(count == 0 for count in modem.socket.answers[len(ended) :])
    assert world.open_ears == 0
    # And on with the next question.
    script.tts_s = 0.05
    world.tts.made = b""
    modem.ask()
    await modem.fetch(12)
    assert modem.socket.audio[len(heard) :] == world.tts.made != b""
    assert not modem.socket.errors
    await world.end()


@virtual
async def test_what_a_line_still_carries_comes_before_the_end_of_its_answer() -> None:
    world = World(Script(replies=[["A sentence that is long. "]], speech_s=6.0))
    modem = Modem(world)
    modem.ask()
    modem.socket.stalled = True
    await modem.fetch(2)
    modem.interrupt()
    modem.interrupt()
    modem.socket.go()
    await modem.fetch(3)
    assert 0 < len(modem.socket.audio) < 20_000
    assert modem.socket.answers.index(len(modem.socket.audio)) == 0
    await world.end()


@virtual
async def test_another_recording_interrupts_as_well() -> None:
    world = World(Script(replies=[["A sentence that is long. "]], speech_s=6.0))
    modem = Modem(world)
    modem.ask()
    await modem.fetch(1.5)
    had = len(modem.socket.audio)
    world.script.speech_s = 0.6
    world.tts.made = b""
    modem.ask()
    await modem.fetch(5)
    assert modem.socket.audio[had:] == world.tts.made
    assert [turn.interrupted for turn in world.recorder.turns] == [True, False]
    await world.end()


@virtual
async def test_an_interrupt_over_another_connection() -> None:
    world = World(Script(replies=[["A sentence that is long. "]], speech_s=6.0))
    modem = Modem(world)
    modem.ask()
    await modem.fetch(1.5)
    modem.socket.cut()
    modem.connect()
    modem.interrupt()
    assert world.session.phase is Phase.IDLE
    assert world.history[-1].startswith("A")
    await modem.fetch(2)
    assert modem.socket.audio == b""
    await world.end()


# ---------------------------------------------------------------- speaking unasked


@virtual
async def test_a_message_is_delivered_to_who_polls() -> None:
    world = World()
    modem = Modem(world)
    modem.poll()
    told: list[bool] = []
    world.session.say("Dinner is ready.", told.append)
    await soon(1)
    assert not told, "nobody has heard it"
    assert await modem.fetch(3) == world.tts.made
    assert told == [True]
    assert world.history[-1] == "Dinner is ready."
    await world.end()


@pytest.mark.parametrize("connected", [False, True])
@virtual
async def test_a_message_that_is_not_fetched_is_not_delivered(connected: bool) -> None:
    world = World()
    modem = Modem(world)
    modem.poll()
    told: list[bool] = []
    world.session.say("Dinner is ready.", told.append)
    if not connected:
        modem.socket.cut()
    for _ in range(round(KEPT_S / 10) + 1):
        modem.socket.send(b"\r\n")
        await soon(10)
    assert told == [False]
    assert world.kept() == 0
    assert len(world.devices) == (1 if connected else 0)
    await world.end()


@virtual
async def test_a_message_waits_for_the_end_of_a_turn() -> None:
    world = World()
    modem = Modem(world)
    modem.ask()
    await soon(0.1)
    world.session.say("Dinner is ready.")
    await modem.fetch(6)
    assert modem.socket.audio == world.tts.made
    assert [turn.answer for turn in world.recorder.turns] == ["Hi! I am fine.", "Dinner is ready."]
    await world.end()


@virtual
async def test_the_outbox_finds_who_polls() -> None:
    world = World()
    modem = Modem(world)
    waiting = world.outbox.announce(DEVICE, "Dinner is ready.", wait_s=600)
    assert waiting.state.value == "waiting"
    for _ in range(20):
        modem.poll()
        await soon(0.5)
    assert waiting.state.value == "spoken"
    assert modem.socket.audio == world.tts.made
    await world.end()


# ---------------------------------------------------------------- with others


class WebSocket(FakeLink):
    """A device of another transport."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.peer = world, peer()
        self.session = world.devices.open(self, self.peer)
        self.session.on_message(Hello())

    def equip(self, services: Any) -> Any:
        return services

    def close(self, code: int = 1000, reason: str = "") -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.abort)

    def abort(self) -> None:
        self.closed = True
        assert self.session is not None
        self.session.on_closed()
        self.world.devices.closed(self)  # type: ignore[arg-type]


@virtual
async def test_it_shares_its_memory_with_another_transport_and_one_replaces_the_other() -> None:
    world = World()
    modem = Modem(world)
    modem.ask()
    await modem.fetch(5)
    socket = WebSocket(world)
    assert modem.socket.is_closing(), "replaced"
    await soon()
    assert not world.server._devices
    assert socket.session is not None
    socket.session.on_message(Listen("detect", text="And you?"))
    await soon(5)
    assert socket.of(TtsStart)
    assert world.history == ["hello there", "Hi! I am fine.", "And you?", "Hi! I am fine."]
    modem.connect()
    world.tts.made = b""
    modem.ask()
    assert socket.closed
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    assert len(world.history) == 6
    assert len(world.devices) == 1
    await world.end()


@virtual
async def test_devices_do_not_disturb_each_other() -> None:
    world = World()
    modems = [Modem(world, device_id=f"aabbccddee{number:02x}") for number in range(8)]
    for modem in modems:
        modem.ask()
    await asyncio.gather(*(modem.fetch(5) for modem in modems))
    assert {len(modem.socket.audio) for modem in modems} == {2 * 10 * 1920}
    assert len(world.recorder.turns) == 8
    await world.end()


# ---------------------------------------------------------------- too many


@pytest.mark.parametrize("polls", [True, False])
@virtual
async def test_a_guest_hears_that_there_is_no_room(polls: bool) -> None:
    world = World(room=1, reserve=2)
    (busy, *_) = variants("busy", "en")
    await world.services.voice.through(Outlet(world.stage.pacer, lambda: None), _form()).warm([(busy, "en")])
    first = Modem(world, device_id=OTHER)
    first.poll()
    world.tts.made = b""
    modem = Modem(world)
    modem.ask()
    assert world.services.admission.telling == 1
    if polls:
        await modem.fetch(5)
        assert len(modem.socket.audio) == 10 * 1920
        assert world.tts.made == b"", "it was ready"
    else:
        for _ in range(8):
            modem.socket.send(b"\n")
            await soon(10)
        assert modem.socket.audio == b""
    assert modem.socket.errors[-1] == "busy"
    assert set(modem.socket.errors) <= {"busy", "no_session"}
    assert not modem.socket.is_closing(), "it may ask again"
    assert world.services.admission.telling == 0
    assert world.services.admission.busy_total == 1
    assert not world.stage.asr.audio
    assert modem.socket.answers is not None
    await world.end()


def _form() -> Any:
    from mynah.audio.encode import Form

    return Form(16000, opus=False)


@virtual
async def test_where_many_are_told_it_is_not_said_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_TOLD", 0)
    world = World(room=1, reserve=2)
    Modem(world, device_id=OTHER).poll()
    modem = Modem(world)
    modem.ask()
    await soon(0.5)
    assert modem.socket.errors[-1] == "busy"
    await world.end()


# ---------------------------------------------------------------- nothing is left

KINDS = (
    PullDevice, Download, Outlet, FetchedPlayback, PullReply, Upload, PullConnection, PullLine, Session
)  # fmt: skip


@pytest.mark.parametrize(
    "end", ["cut", "goodbye", "gone", "interrupted", "replaced", "closed", "other codec"]
)
@virtual
async def test_nothing_is_left_of_a_conversation_and_no_collector_is_needed(end: str) -> None:
    world = World(Script(heard=["goodbye" if end == "goodbye" else "hello there"], speech_s=0.6))
    warm = Modem(world, device_id=OTHER)
    warm.ask()
    await warm.fetch(5)
    warm.socket.cut()
    del warm
    await soon(GONE_S + 20)
    gc.collect()
    gc.disable()
    try:
        before = [id(thing) for thing in gc.get_objects() if isinstance(thing, KINDS)]
        modem = Modem(world, framed())
        modem.ask()
        await modem.fetch(0.6 if end != "goodbye" else 5)
        match end:
            case "interrupted":
                modem.interrupt()
            case "replaced":
                modem.connect()
                await modem.fetch(1)
            case "closed":
                world.devices.disconnect(DEVICE)
            case "other codec":
                modem.options = framed(Codec.ADPCM)
                modem.ask()
                await modem.fetch(1)
        for socket in modem.sockets:
            socket.cut()
        await soon(GONE_S + 20)
        assert not world.server._devices
        for socket in modem.sockets:
            del socket.connection
        left = [
            type(thing).__name__
            for thing in gc.get_objects()
            if isinstance(thing, KINDS) and id(thing) not in before
        ]
    finally:
        gc.enable()
    assert not left
    await world.end()


# ---------------------------------------------------------------- by chance


class Chance:
    """A device that does anything at any time over a link that does what it likes."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        options = self.dice.choice([Options(), Options(text=True), framed(), framed(text=True)])
        self.modem = Modem(world, options, f"aabbccddee{seed % 4:02x}")

    async def act(self) -> None:
        if self.modem.socket.is_closing():
            self.modem.connect()
        modem, dice = self.modem, self.dice
        acts: list[tuple[int, Callable[[], Any]]] = [
            (3, self._record),
            (7, lambda: modem.poll(dice.choice([None, None, dice.randrange(50_000)]))),
            (1, modem.interrupt),
            (1, modem.complete),
            (1, lambda: modem.start(dice.randrange(40_000))),
            (1, lambda: modem.acknowledge(dice.randrange(50_000)) if modem.framed else None),
            (1, self._say),
            (1, modem.connect),
            (1, modem.socket.cut),
            (1, lambda: setattr(modem.socket, "stalled", True)),
            (2, modem.socket.go),
        ]
        weights = [weight for weight, _ in acts]
        dice.choices(acts, weights)[0][1]()
        if dice.random() < 0.2:
            await asyncio.sleep(dice.choice([0, 0.05, 0.3, 2]))
        await settle(3)

    def _record(self) -> None:
        self.modem.start()
        for _ in range(self.dice.randrange(3)):
            self.modem.talk(SECOND[: self.dice.randrange(32000)])
        if self.dice.random() < 0.8:
            self.modem.complete()

    def _say(self) -> None:
        session = self.world.devices.find(f"aa:bb:cc:dd:ee:{self.modem.device_id[-2:]}")
        if session is not None:
            session.say("News.")


@pytest.mark.parametrize("seed", range(12))
@virtual
async def test_whatever_happens_the_state_is_sound(seed: int) -> None:
    world = World(
        Script(replies=[["A sentence. ", 0.2, "And another one, much longer."]], speech_s=1.5, asr_s=0.1)
    )
    devices = [Chance(world, seed * 4 + number) for number in range(4)]
    for _ in range(120):
        for device in devices:
            await device.act()
        found = world.server._devices
        assert len(world.devices) == len(found), "a conversation without a device"
        for device in found.values():  # type: ignore[assignment]
            link: Any = device
            assert not link.ending
            line = link.line
            assert line is None or any(line is known._line for known in world.server._connections)
            assert line is not None or not link.download.polling
        for device in devices:
            for socket in device.modem.sockets[-2:]:
                assert socket.answers is not None
                assert set(socket.errors) <= {"no_session", "bad_command"}
    # Whatever they did: each can have a whole turn now.
    for device in devices:
        modem = device.modem = Modem(
            world, msgspec.structs.replace(device.modem.options), device.modem.device_id
        )
        modem.interrupt()
        modem.ask()
        await modem.fetch(30)
        sentences, rest = divmod(len(modem.socket.audio), 25 * 1920)
        assert rest == 0
        assert 2 <= sentences <= 2 + 8, "the answer, and the news that waited"
        assert not modem.socket.errors
        modem.socket.cut()
    await soon(GONE_S + KEPT_S)
    assert world.kept() == 0
    assert len(world.devices) == 0
    await world.end()


@virtual
async def test_the_mode_of_a_turn_is_that_of_a_button() -> None:
    """Who fetches decides himself when he has said everything: nothing ends the recording but the device."""
    world = World()
    modem = Modem(world)
    modem.start()
    modem.talk()
    for _ in range(5):
        modem.talk(bytes(32000))
        await soon(1)
    assert world.session.phase is Phase.LISTENING
    modem.complete()
    await modem.fetch(3)
    assert world.recorder.turns[0].mode == ListenMode.MANUAL.value
    await world.end()


@virtual
async def test_who_only_asked_whether_there_is_anything_holds_no_place() -> None:
    world = World()
    modem = Modem(world)
    modem.poll()
    assert len(world.devices) == 1
    modem.socket.cut()
    await soon(UNUSED_S + 3)
    assert len(world.devices) == 0
    await world.end()
