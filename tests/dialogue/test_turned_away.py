"""A user for whom there is no room hears so once, sees it, and is hung up on. Nobody else notices anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from mynah.dialogue.admission import GOING_ON_S, MAX_TOLD, Admission, Level
from mynah.dialogue.continuity import Conversations
from mynah.dialogue.services import Services
from mynah.dialogue.session import Session
from mynah.dialogue.turn import Phase
from mynah.texts import text
from mynah.wire.messages import Abort, Hello, Listen, ListenMode, Mcp, TtsSentence, TtsStop
from tests.fakes import DEVICE_ID, HUSH, VOICE, FakeLink, Script, Stage
from tests.virtual_time import run

BUSY = {language: text("busy", language) for language in ("en", "zh")}
SAID = ["start", "face:sad", f"say:{BUSY['en']}", "audio", "stop"]
AUTO = Listen("start", ListenMode.AUTO)


class Link(FakeLink):
    """Keeps the close code."""

    code = 0

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.code = self.code or code
        super().close(code, reason)


def fill(services: Services) -> Admission:
    """Make the server full."""
    admission = services.admission
    admission.level = Level.FULL
    admission.talking += 100
    return admission


def play(
    act: Callable[[Stage], Awaitable[None]], *languages: str, guest: bool = False, full: bool = True
) -> Stage:
    """Run one scene on a full server with the sentence ready in these languages; nothing may be left behind."""

    async def main() -> Stage:
        stage = Stage(Script(speech_s=3.0))
        stage.link = Link()
        stage.session.on_closed()
        stage.recorder.opened = stage.recorder.closed = 0
        stage.session = Session(stage.link, stage.services, DEVICE_ID, guest=guest)
        stage.link.session = stage.session
        await stage.services.voice.warm([(BUSY[language], language) for language in languages])
        stage.tts.said.clear()
        if full:
            fill(stage.services)
        stage.session.on_message(Hello())
        stage.link.log.clear()
        await act(stage)
        await stage.end()
        assert stage.services.admission.talking in (0, 100)
        assert stage.services.admission.telling == 0
        return stage

    return run(main())


def code(stage: Stage) -> int:
    assert isinstance(stage.link, Link)
    return stage.link.code


@pytest.mark.parametrize("mode", list(ListenMode))
def test_who_begins_to_talk_is_told_and_hung_up_on(mode: ListenMode) -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("start", mode))
        await stage.stream((VOICE, 20), (HUSH, 30))
        stage.session.on_message(Listen("stop"))
        await stage.settle()

    stage = play(act, "en")
    assert stage.link.story == SAID
    assert (stage.link.closed, code(stage)) == (True, 1013)
    # Nobody listened, thought or spoke anew for it.
    assert not stage.asr.audio
    assert not stage.llm.requests
    assert not stage.tts.said
    assert stage.services.admission.busy_total == 1
    assert not stage.recorder.turns


def test_the_line_is_cut_after_the_sentence_was_played() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.settle()

    stage = play(act, "en")
    begun = stage.link.when(bytes)[0]
    assert stage.link.when(TtsStop)[0] >= begun + 3.0
    states = [message.state for message in stage.link.of(TtsSentence)]
    assert states == ["sentence_start", "sentence_end"]


def test_a_wake_word_is_shown_and_answered_in_its_language() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_audio(VOICE)
        stage.session.on_message(Listen("detect", text="你好小智"))
        await stage.settle(0.5)
        stage.session.on_message(AUTO)  # firmware goes on to listen
        await stage.settle()

    stage = play(act, "en", "zh")
    assert stage.link.story == ["stt:你好小智", "start", "face:sad", f"say:{BUSY['zh']}", "audio", "stop"]
    assert stage.services.admission.busy_total == 1


def test_a_language_that_is_not_ready_gives_way_to_the_one_of_the_settings() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="你好小智"))
        await stage.settle()

    assert play(act, "en").link.story == ["stt:你好小智", *SAID]


def test_without_the_sentence_it_is_shown_only() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.settle()

    stage = play(act)
    assert stage.link.story == ["start", "face:sad", f"say:{BUSY['en']}", "stop"]
    assert not stage.tts.said
    assert code(stage) == 1013


def test_only_so_many_are_told_aloud_at_the_same_time() -> None:
    async def act(stage: Stage) -> None:
        admission = stage.services.admission
        admission.telling = MAX_TOLD - 1
        first, second = Link(), Link()
        for link in (first, second):
            link.session = Session(link, stage.services, DEVICE_ID)
            link.session.on_message(AUTO)
        await stage.settle(0.5)
        assert first.story == SAID[:-1], "is still being said"
        assert second.story == [word for word in SAID if word != "audio"]
        assert (second.closed, second.code) == (True, 1013)
        await stage.settle()
        assert (first.story, first.code) == (SAID, 1013)
        assert (admission.telling, admission.busy_total) == (MAX_TOLD - 1, 2)
        admission.telling = 0
        stage.recorder.opened, stage.recorder.closed = 1, 0  # the two are counted out

    play(act, "en")


def test_who_does_not_want_to_hear_it_out_need_not() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.settle(1.0)
        stage.session.on_message(Abort())
        stage.session.on_message(Abort())
        await stage.settle(0.1)
        assert stage.link.closed

    stage = play(act, "en")
    assert stage.link.story == SAID
    assert len(stage.link.of(TtsStop)) == 1
    assert code(stage) == 1013


def test_a_device_that_goes_away_meanwhile_leaves_nothing_behind() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.settle(1.0)
        stage.link.closed = True  # no more may be sent: the link checks that
        stage.session.on_closed()
        await stage.settle()

    assert play(act, "en").link.story == SAID[:-1]


def test_for_everybody_else_that_conversation_is_over() -> None:
    told: list[bool] = []

    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        assert stage.session.phase is Phase.CLOSED
        stage.session.say("Dinner!", told.append)
        stage.session.on_message(Listen("detect", text="hello?"))
        stage.session.on_message(Mcp({}))
        await stage.settle()

    assert play(act, "en").link.story == SAID
    assert told == [False], "so that the message waits for the device"


def test_who_only_stays_connected_is_left_alone() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("stop"))
        await stage.stream((HUSH, 20))
        await stage.settle(50)
        assert not stage.link.closed
        stage.session.say("Dinner!")
        await stage.settle(5)

    assert play(act, "en").link.story == ["start", "face:happy", "say:Dinner!", "audio", "stop"]


def test_a_conversation_that_goes_on_is_untouched() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.stream((HUSH, 5), (VOICE, 15), (HUSH, 10))
        fill(stage.services)
        await stage.settle(10)
        stage.session.on_message(AUTO)  # auto mode: it listens again after each answer
        await stage.stream((HUSH, 5), (VOICE, 15), (HUSH, 10))
        await stage.settle(20)
        stage.session.on_message(Listen("detect", text="and now"))
        await stage.settle(20)

    async def quiet(stage: Stage) -> None:
        await act(stage)
        await stage.settle(GOING_ON_S)
        stage.session.on_message(AUTO)  # that was another conversation
        await stage.settle()

    story = play(act, "en", full=False).link.story
    assert story.count("stop") == 3
    assert f"say:{BUSY['en']}" not in story
    assert play(quiet, "en", full=False).link.story == [*story, *SAID]


def test_who_lost_the_connection_in_mid_conversation_goes_on() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hello"))
        await stage.settle(10)
        fill(stage.services)
        link = Link()
        again = link.session = Session(link, stage.services, DEVICE_ID)
        again.on_message(Listen("detect", text="are you there"))
        await stage.settle(10)
        assert "start" in link.story
        assert f"say:{BUSY['en']}" not in link.story
        link.closed = True
        again.on_closed()
        stage.recorder.opened -= 1
        stage.recorder.closed -= 1

    play(act, "en", full=False)


async def comes_back(stage: Stage) -> bool:
    """Lose the connection on a server that gets full, come back, and return whether one may talk."""
    fill(stage.services)
    stage.link.closed = True
    stage.session.on_closed()
    link = Link()
    again = link.session = Session(link, stage.services, DEVICE_ID)
    again.on_message(AUTO)
    await stage.settle(0.3)
    heard = again.phase is Phase.LISTENING
    assert heard is (f"say:{BUSY['en']}" not in link.story)
    link.closed = True
    again.on_closed()
    stage.recorder.opened -= 1
    stage.recorder.closed -= 1
    return heard


def began(stage: Stage, resume_s: float) -> None:
    """Begin anew on a server that keeps conversations for so long."""
    time = asyncio.get_running_loop().time
    conversations = Conversations(4000, "en", resume_s, time)
    stage.session.on_closed()
    stage.recorder.opened -= 1
    stage.recorder.closed -= 1
    stage.services = msgspec.structs.replace(stage.services, conversations=conversations)
    stage.session = stage.link.session = Session(stage.link, stage.services, DEVICE_ID)


@pytest.mark.parametrize("resume_s", [1800.0, 0.0])
@pytest.mark.parametrize("by", ["voice", "wake word", "recognised"])
def test_who_was_cut_off_in_the_first_sentence_goes_on(by: str, resume_s: float) -> None:
    async def act(stage: Stage) -> None:
        began(stage, resume_s)
        if by == "wake word":
            stage.session.on_message(Listen("detect", text="hey mynah"))
        else:
            stage.session.on_message(AUTO)
            await stage.stream((HUSH, 5), (VOICE, 15))
        if by == "recognised":
            await stage.stream((HUSH, 5))
        assert await comes_back(stage)

    play(act, "en", full=False)


@pytest.mark.parametrize("then", [None, Listen("stop"), Abort(), "announcement"])
def test_who_only_opens_the_microphone_has_said_nothing(then: Listen | Abort | str | None) -> None:
    """Else a place could be held by a stranger who never says a word."""

    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.stream((HUSH, 20))
        if isinstance(then, str):
            stage.session.say("Dinner!")
            await stage.settle(10)
        elif then is not None:
            stage.session.on_message(then)
            await stage.settle(1)
            stage.session.on_message(Abort())
        assert not await comes_back(stage)

    play(act, "en", full=False)


def test_a_long_answer_keeps_the_conversation_going() -> None:
    async def act(stage: Stage) -> None:
        stage.script.speech_s = GOING_ON_S
        stage.session.on_message(Listen("detect", text="tell me a story"))
        await stage.settle(2.5 * GOING_ON_S)
        assert stage.session.phase is Phase.IDLE
        assert await comes_back(stage)

    play(act, "en", full=False)


def test_a_guest_who_turns_out_to_be_somebody_is_none() -> None:
    async def act(stage: Stage) -> None:
        stage.session.identify("02:00:00:00:00:07")
        stage.session.on_message(AUTO)
        assert stage.session.phase is Phase.LISTENING

    assert play(act, "en", guest=True, full=False).link.story == []


def test_a_guest_is_told_whatever_the_load() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(AUTO)
        await stage.settle()

    stage = play(act, "en", guest=True, full=False)
    assert stage.link.story == SAID
    assert code(stage) == 1013


def test_sessions_count_who_talks() -> None:
    async def main() -> None:
        stage = Stage()
        admission = stage.services.admission
        stage.session.on_message(AUTO)
        assert admission.talking == 1
        await stage.stream((HUSH, 5), (VOICE, 15), (HUSH, 10))
        assert admission.talking == 1
        await stage.settle()
        assert admission.talking == 0, "auto mode: it rests until the device listens again"
        stage.session.on_message(AUTO)
        assert admission.talking == 1
        stage.link.closed = True
        stage.session.on_closed()
        assert admission.talking == 0
        await asyncio.sleep(0)
        await stage.end()

    run(main())
