"""Whose turn it is: real speech over real sockets, to a server that asks a language model which a test looks at."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import pytest

from mynah.audio import codec_pool
from mynah.audio.opus import Effort
from mynah.texts import variants
from mynah.wire.frames import decode_audio
from tests.conformance.device import Device, device, packets, silence
from tests.e2e.microphone import Microphone, cough, microphone, pause, spoken
from tests.e2e.model import LONG, Answer, Model, Request, config, running
from tests.servers import Process, app, serve

pytestmark = [pytest.mark.e2e, pytest.mark.speech]

WAKES = 20
ABORTS = 20
FRAME_MS = 60

PLUGIN = '''
from pathlib import Path
from mynah.tools.base import register_function

@register_function()
def open_door(reason: str) -> str:
    """Open the door."""
    with Path(__file__).with_name("opened.txt").open("a") as file:
        file.write(reason + "\\n")
    return "the door is open"
'''


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with running() as served:
        yield served


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "door.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def server(model: Model, plugins: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("server")
    file = folder / "config.yaml"
    file.write_text(
        config(
            model,
            f"""
wakeup_words: [mynah]
plugins:
  plugins_dir: {plugins}
conversation:
  fillers: false      # these tests know how slow the model is
  speculation: true   # whatever was learnt in the test before
""",
        )
    )
    with serve(folder, config=file) as process:
        yield process


@pytest.fixture(autouse=True)
def _forget(model: Model) -> None:
    model.forget()


@asynccontextmanager
async def connected(server: Process, number: int, protocol: int = 1) -> AsyncIterator[Device]:
    """Connect as a device of its own, which has said nothing yet."""
    headers = {"Protocol-Version": str(protocol)}
    async with device(server.ready["ws"], f"02:00:00:00:0e:{number:02x}", headers) as one:
        await one.hello()
        yield one


def story(one: Device) -> list[str]:
    """Return starts and stops of replies, and where audio came; checks that they make sense."""
    words: list[str] = []
    speaking = False
    for _, what in one.seen:
        if isinstance(what, bytes):
            assert speaking, f"audio outside a reply, after {words}"
            if words[-1] != "audio":
                words.append("audio")
        elif what["type"] == "tts" and what["state"] in {"start", "stop"}:
            assert not (speaking and what["state"] == "start"), f"two starts, after {words}"
            speaking = what["state"] == "start"
            words.append(what["state"])
    return words


def answer_of(one: Device) -> str:
    """Return all that was spoken."""
    return " ".join(message["text"] for message in one.messages("tts", "sentence_start"))


async def until_asked(model: Model, count: int = 1, timeout_s: float = 15.0) -> Request:
    """Wait for a request to the model."""
    async with asyncio.timeout(timeout_s):
        while len(model.requests) < count:
            await asyncio.sleep(0.01)
    return model.requests[count - 1]


async def type_in(one: Device, words: str) -> None:
    """Type something, and hear the answer out."""
    stops = len(one.messages("tts", "stop"))
    await one.listen("detect", text=words)
    await one.until("tts", "stop", count=stops + 1, timeout_s=20)


# ---------------------------------------------------------------- beginning


async def test_the_wake_word_is_greeted_at_once(server: Process, capsys: pytest.CaptureFixture[str]) -> None:
    """From the text of the wake word to the first frame of the greeting, which is ready before anybody asks."""
    delays: list[float] = []
    async with connected(server, 1) as one:
        for turn in range(-4, WAKES):  # the first ones only show that everything is ready
            frames = len(one.frames())
            asked = time.monotonic()
            await one.listen("detect", text="mynah")
            await one.wait(lambda: len(one.frames()) > frames)  # noqa: B023
            if turn >= 0:
                delays.append((one.frames()[frames][0] - asked) * 1000)
            await one.say(type="abort")
            await one.until("tts", "stop", count=turn + 5)
            await one.quiet(0.02)
        assert {m["text"] for m in one.messages("tts", "sentence_start")} <= set(variants("greeting", "en"))
    with capsys.disabled():
        print(
            f"\nwake word → greeting: p50 {median(delays):.1f} ms, p95 {quantiles(delays, n=20)[-1]:.1f} ms"
        )
    assert median(delays) < 150


# ---------------------------------------------------------------- the end of a turn

HALVES = "remind me to", "call my mother"


async def say_with_a_pause(one: Device, mic: Microphone) -> None:
    first, second = (spoken(half, "rms") for half in HALVES)
    await mic.say(first + pause(0.7) + second)
    await one.until("tts", "stop", timeout_s=15)


async def test_who_pauses_in_an_unfinished_sentence_is_heard_to_its_end(
    server: Process, model: Model
) -> None:
    async with connected(server, 2) as one, microphone(one) as mic:
        await say_with_a_pause(one, mic)
        await one.quiet(0.5)
        (heard,) = [message["text"] for message in one.messages("stt")]
        assert heard.startswith("remind me to ")
        assert heard.endswith(" mother")
        assert story(one) == ["start", "audio", "stop"]
    assert model.requests[-1].question == heard
    assert len(model.requests[-1].conversation) == 1


@pytest.mark.parametrize("adaptive", [True, False])
async def test_the_words_decide_how_long_a_pause_is_waited_for(
    tmp_path: Path, model: Model, adaptive: bool
) -> None:
    """With a recogniser whose words are known at once: without adaptivity, the answer begins in the pause."""
    file = tmp_path / "config.yaml"
    file.write_text(
        config(
            model,
            f"""
ASR:
  Quick: {{type: fake, text: {HALVES[0]}}}
conversation:
  endpointing: {{adaptive: {adaptive}}}
""",
            "ASR: Quick",
        )
    )
    async with app(tmp_path, config=file) as (_, at), device(at.ws) as one:
        await one.hello()
        async with microphone(one) as mic:
            first, second = (spoken(half, "rms") for half in HALVES)
            finished = await mic.say(first + pause(0.7) + second)
            await one.until("tts", "start")
            assert (one.timed("tts", "start")[0][0] > finished) is adaptive


async def test_who_goes_on_while_the_answer_is_prepared_is_answered_once(
    server: Process, model: Model
) -> None:
    model.answer = lambda _: Answer(delay_s=1.5)
    async with connected(server, 3) as one, microphone(one) as mic:
        await mic.say(spoken("what time is it"))
        first = await one.until("stt", timeout_s=10)
        assert first["text"] == "what time is it"
        assert one.messages("tts") == [], "it is still being thought about"
        await mic.say(spoken("and what day is it today"))
        await one.until("tts", "stop", timeout_s=20)
        await one.quiet(0.5)
        last = one.messages("stt")[-1]["text"]
        assert last.startswith("what time is it")
        assert last.endswith("what day is it today")
        assert story(one) == ["start", "audio", "stop"]
        assert answer_of(one) == Answer().text
    # The answer to the first half was kept until there were more words; nobody has heard it.
    assert [request.question for request in model.requests if request.finished][-1] == last
    assert [words for _, words in model.requests[-1].conversation[:-1]] == [], "the half answer left no trace"


# ---------------------------------------------------------------- interruptions


def stamps_of(one: Device) -> list[int]:
    return [decode_audio(2, frame).timestamp for _, frame in one.frames()]


def packets_of(one: Device) -> list[bytes]:
    return [decode_audio(2, frame).packet for _, frame in one.frames()]


def longest_gap_s(one: Device) -> float:
    times = [at for at, _ in one.frames()]
    return max(later - earlier for earlier, later in pairwise(times))


async def hear_out(url: str, number: int, sound: bytes) -> Device:
    """Have a long answer told in realtime mode, and make a sound in its midst."""
    headers = {"Protocol-Version": "2"}
    async with device(url, f"02:00:00:00:0e:{number:02x}", headers) as one:
        await one.hello()
        async with microphone(one, "realtime", 2) as mic:
            await one.listen("detect", text="tell me about the river")
            await one.wait(lambda: len(one.frames()) > 20)
            await mic.say(sound)
            await one.until("tts", "stop", timeout_s=30)
            return one


async def test_a_cough_or_a_yeah_does_not_cost_a_word(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame comes exactly once and in order, as in a reply that nobody disturbed.

    With a voice that says the same in the same way every time (eSpeak's breath is random), encoded with the same effort
    however busy the machine is.
    """
    monkeypatch.setattr(codec_pool._Load, "effort", lambda *_: Effort.FULL)
    model.answer = lambda _: Answer(LONG)
    file = tmp_path / "config.yaml"
    file.write_text(config(model, "TTS:\n  Same: {type: fake, seconds: 2.5, delay_ms: 20}", "TTS: Same"))
    async with app(tmp_path, config=file) as (_, at):
        plain, coughed, agreed = await asyncio.gather(
            hear_out(at.ws, 4, b""),
            hear_out(at.ws, 5, cough()),
            hear_out(at.ws, 6, spoken("yeah")),
        )
    for one in (plain, coughed, agreed):
        assert story(one) == ["start", "audio", "stop"]
        assert one.messages("stt")[1:] == []
        assert answer_of(one) == LONG
        stamps = stamps_of(one)
        assert stamps == list(range(stamps[0], stamps[0] + FRAME_MS * len(stamps), FRAME_MS))
    assert len(set(packets_of(plain))) > 40, "a frame that came twice would be noticed"
    assert packets_of(coughed) == packets_of(plain)
    assert packets_of(agreed) == packets_of(plain)
    assert longest_gap_s(plain) < 0.3
    assert 0.3 < longest_gap_s(agreed) < 1.6, "it was held until it was known what the voice was"
    assert len(model.requests) == 3


async def test_who_interrupts_is_heard_and_answered(
    server: Process, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model.answer = lambda request: Answer("It is late." if "time" in request.question else LONG)
    async with connected(server, 7, 2) as one, microphone(one, "realtime", 2) as mic:
        await one.listen("detect", text="tell me about the river")
        await one.wait(lambda: len(one.frames()) > 30)
        began = time.monotonic()
        await mic.say(spoken("stop what time is it", "rms"))
        await one.until("tts", "stop", count=2, timeout_s=15)
        await one.quiet(0.5)
        assert story(one) == ["start", "audio", "stop"] * 2
        stopped = one.timed("tts", "stop")[0][0]
        last = max(at for at, _ in one.frames() if at < stopped)
        with capsys.disabled():
            print(f"\ninterruption: silent after {last - began:.3f} s, stop after {stopped - began:.3f} s")
        assert last - began < 1.0
        assert stopped - began < 2.5
        assert "what time is it" in one.messages("stt")[-1]["text"]
        assert answer_of(one).endswith("It is late.")
        assert stamps_of(one) == sorted(set(stamps_of(one)))
    remembered = model.requests[-1].conversation
    assert remembered[0] == ("user", "tell me about the river")
    assert LONG.startswith(remembered[1][1].rstrip("…")), "only what was heard is remembered"
    assert len(remembered[1][1]) < len(LONG) / 2


async def interrupt(server: Process, number: int, after_s: float) -> None:
    """Ask, by typing or with a button, and abort at some moment."""
    async with connected(server, number) as one:
        if number % 2:
            await one.listen("detect", text="tell me about the river")
        else:
            await one.listen(mode="manual")
            await one.audio((*packets(spoken("what time is it")), *silence(5)), pace=0.01)
            await one.listen("stop")
        await asyncio.sleep(after_s)
        await one.say(type="abort")
        await one.until("tts", "stop", timeout_s=2)
        starts, stops = len(one.messages("tts", "start")), len(one.messages("tts", "stop"))
        assert stops == max(starts, 1), "one stop for each start; before any, one for the abort alone"
        assert await one.quiet(1.0) == []
        assert story(one)[-1] == "stop"
        before = len(story(one))
        await type_in(one, "and now something short")
        assert story(one)[before:] == ["start", "audio", "stop"]


async def test_an_abort_at_any_moment_is_one_stop_and_then_silence(server: Process, model: Model) -> None:
    """Before the recogniser is done, while the model thinks, between its words, in the midst of the sound."""
    model.answer = lambda request: (
        Answer(LONG, 0.3, 0.03) if "short" not in request.question else Answer(delay_s=0.1)
    )
    moments = random.Random(20_26)
    await asyncio.gather(
        *(interrupt(server, 16 + number, moments.uniform(0, 2.5)) for number in range(ABORTS))
    )


# ---------------------------------------------------------------- guesses


async def test_a_guess_that_holds_is_the_only_request(server: Process, model: Model) -> None:
    """The answer to the words at the pause is the answer to the question; twice in a row."""
    async with connected(server, 8) as one:
        for turn in range(2):
            await one.listen(mode="manual")
            await one.audio((*packets(spoken("what time is it")), *silence(10)))
            guessed = await until_asked(model, turn + 1)
            assert one.messages("stt")[turn:] == [], "the button is still held"
            assert guessed.question == "what time is it"
            await one.listen("stop")
            await one.until("tts", "stop", count=turn + 1, timeout_s=10)
            assert len(model.requests) == turn + 1
        assert story(one) == ["start", "audio", "stop"] * 2
    assert all(request.finished for request in model.requests)
    assert [words for role, words in model.requests[-1].conversation if role == "assistant"] == [
        Answer().text
    ]


async def test_in_auto_mode_the_model_works_while_the_silence_is_waited_for(
    server: Process, model: Model
) -> None:
    async with connected(server, 9) as one, microphone(one) as mic:
        lead: list[float] = []
        for turn in range(2):
            await mic.say(spoken("what time is it"))
            await one.until("tts", "stop", count=turn + 1, timeout_s=15)
            assert len(model.requests) == turn + 1
            lead.append(one.timed("stt")[turn][0] - model.requests[turn].at)
        assert max(lead) > 0, "it was asked before the utterance was over"


async def test_a_guess_that_fails_leaves_no_trace_and_opens_no_door(
    server: Process, model: Model, plugins: Path
) -> None:
    opened = plugins / "opened.txt"
    opened.unlink(missing_ok=True)

    def answer(request: Request) -> Answer:
        if request.answers_tool:
            return Answer("The door is open.")
        return Answer(tool="open_door", arguments={"reason": request.question})

    model.answer = answer
    async with connected(server, 10) as one:
        await one.listen(mode="manual")
        await one.audio((*packets(spoken("what time is it")), *silence(10)))
        guess = await until_asked(model)
        assert "open_door" in guess.tools
        await one.audio(silence(10))
        assert guess.finished, "the model has asked for the tool"
        assert not opened.exists()
        assert one.messages("stt") == one.messages("tts") == []
        await one.audio((*packets(spoken("and what day is it today")), *silence(10)))
        guesses = len(model.requests)
        await one.listen("stop")
        await one.until("tts", "stop", timeout_s=15)
        whole = one.messages("stt")[0]["text"]
        assert whole != guess.question
        assert opened.read_text().splitlines() == [whole]
        assert answer_of(one) == "The door is open."
        assert len(model.requests) - guesses in (1, 2), (
            "the tool's result, and the question unless it was guessed"
        )
        model.answer = lambda _: Answer()
        await type_in(one, "thank you")
        users = [words for role, words in model.requests[-1].conversation if role == "user"]
        assert users[0] == whole
        assert len(users) == 2
        tools = [words for role, words in model.requests[-1].conversation if role == "tool"]
        assert tools == ["the door is open"]


# ---------------------------------------------------------------- coming back


async def test_who_comes_back_goes_on_and_nobody_else_does(server: Process, model: Model) -> None:
    async with connected(server, 11) as one:
        await type_in(one, "my name is Ada")
        one.drop()
        await one.wait(lambda: one.closed)
    async with connected(server, 11) as one:
        await type_in(one, "what is my name")
    async with connected(server, 12) as other:
        await type_in(other, "what is my name")
    told, asked, stranger = model.requests
    assert told.question == "my name is Ada"
    assert asked.conversation[:2] == [("user", "my name is Ada"), ("assistant", Answer().text)]
    assert asked.question == "what is my name"
    assert len(stranger.conversation) == 1
    assert "Ada" not in str(stranger.messages)
