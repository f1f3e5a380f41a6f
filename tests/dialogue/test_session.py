"""Whole conversations of one device on virtual time, told as the sequence of messages the device sees."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from mynah.dialogue.turn import Phase
from mynah.errors import ProviderTimeoutError
from mynah.providers.base import Role, ToolCall
from mynah.texts import variants
from mynah.tools.base import ToolContext, register_function
from mynah.tools.loader import load_plugins
from mynah.wire.messages import (
    Abort,
    Alert,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Iot,
    Listen,
    ListenMode,
    Mcp,
    Ping,
    Pong,
    ServerHello,
    System,
    TtsSentence,
    TtsStart,
    TtsStop,
)
from tests.fakes import HUSH, PROVIDER_DOWN, VOICE, Script, Stage
from tests.virtual_time import run

START = {mode: Listen("start", ListenMode(mode)) for mode in ("auto", "manual", "realtime")}
UTTERANCE = ((HUSH, 5), (VOICE, 15), (HUSH, 10))
REPLY = ["stt:hello there", "start", "face:happy", "say:Hi!", "audio", "say:I am fine.", "audio", "stop"]


def play(script: Script | None, act: Callable[[Stage], Awaitable[None]], **options: object) -> Stage:
    """Run one scene and check that nothing is left behind."""

    async def main() -> Stage:
        stage = Stage(script, **options)  # type: ignore[arg-type]
        await act(stage)
        await stage.end()
        return stage

    return run(main())


def frames(stage: Stage) -> list[float]:
    return stage.link.when(bytes)


def test_hello_is_answered_once() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello())
        stage.session.on_message(Hello())

    answers = play(None, act).link.of(ServerHello)
    assert len(answers) == 1
    assert answers[0].audio_params.sample_rate == 16000


def test_auto_turn() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(*UTTERANCE)
        await stage.settle()

    stage = play(None, act)
    assert stage.link.story == REPLY
    assert stage.asr.audio[0].count(VOICE) == 15  # the start of the utterance is not lost
    record = stage.recorder.turns[0]
    assert (record.mode, record.text, record.answer) == ("auto", "hello there", "Hi! I am fine.")
    # Recognised, answered and spoken within the silence that ended the utterance: what is left is the gap after the
    # start, and less than a packet of rounding.
    assert record.guess == "hit"
    assert 24 < record.stages_ms()["first_frame"] < 60


def test_manual_turn_waits_for_the_button() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["manual"])
        await stage.stream((VOICE, 10), (HUSH, 20), (VOICE, 5))
        assert not stage.link.log
        stage.session.on_message(Listen("stop"))
        await stage.settle()

    stage = play(None, act)
    assert stage.link.story == REPLY
    assert stage.asr.audio[-1].count(VOICE) == 15


def test_realtime_goes_on_and_can_be_interrupted_by_voice() -> None:
    async def act(stage: Stage) -> None:
        stage.script.replies = [["One long sentence that goes on."], ["Second."]]
        stage.script.speech_s = 5.0
        stage.script.heard = ["first", "second"]
        stage.session.on_message(START["realtime"])
        await stage.stream(*UTTERANCE)
        await stage.stream((HUSH, 10), (VOICE, 10), (HUSH, 10))
        await stage.settle()

    stage = play(None, act)
    assert stage.link.story == [
        "stt:first", "start", "face:happy", "say:One long sentence that goes on.", "audio", "stop",
        "stt:second", "start", "face:happy", "say:Second.", "audio", "stop",
    ]  # fmt: skip
    assert stage.recorder.turns[0].interrupted


def test_frames_are_paced_and_stop_comes_after_play_out() -> None:
    async def act(stage: Stage) -> None:
        stage.script.speech_s = 3.0
        stage.session.on_message(Listen("detect", text="tell me"))
        await stage.settle()

    stage = play(Script(replies=[["One sentence."]]), act)
    at = frames(stage)
    assert len(at) == 50
    start = stage.link.when(TtsStart)[0]
    assert at[0] - start >= 0.02
    assert all(later - earlier <= 0.0601 for earlier, later in itertools.pairwise(at))
    assert all(i * 0.06 - (t - at[0]) <= 8 * 0.06 for i, t in enumerate(at))
    assert stage.link.when(TtsStop)[0] >= at[0] + 3.0


def test_abort_stops_at_once_and_nothing_of_the_old_reply_follows() -> None:
    async def act(stage: Stage) -> None:
        stage.script.speech_s = 5.0
        stage.session.on_message(Listen("detect", text="tell me a story"))
        await stage.settle(2.0)
        stage.session.on_message(Abort())
        aborted_at = asyncio.get_running_loop().time()
        assert stage.session.phase is Phase.IDLE
        await stage.settle()
        assert max(frames(stage)) <= aborted_at

    stage = play(Script(replies=[["Once upon a time. ", 10.0, "The end."]]), act)
    assert stage.link.story[-2:] == ["audio", "stop"]
    assert len(stage.link.of(TtsStop)) == 1
    assert stage.recorder.turns[0].answer == "Once…", "what was heard of it"
    assert stage.recorder.turns[0].interrupted


def test_a_reply_that_is_cut_short_by_the_next_question_keeps_its_own_record() -> None:
    async def act(stage: Stage) -> None:
        stage.script.speech_s = 5.0
        stage.session.on_message(Listen("detect", text="first"))
        await stage.settle(1.0)
        stage.session.on_message(Listen("stop"))
        stage.session.on_message(Listen("detect", text="second"))
        await stage.settle()

    stage = play(Script(replies=[["One."], ["Two."]]), act)
    records = [(r.mode, r.text, r.answer, r.interrupted) for r in stage.recorder.turns]
    assert records == [("text", "first", "", True), ("text", "second", "Two.", False)]
    assert all(r.stages_ms()["first_frame"] > 0 for r in stage.recorder.turns)


def test_history_holds_what_was_heard_and_nothing_else() -> None:
    async def act(stage: Stage) -> None:
        stage.script.speech_s = 5.0
        stage.session.on_message(Listen("detect", text="first question"))
        await stage.settle(1.0)
        stage.session.on_message(Abort())
        stage.session.on_message(Listen("detect", text="second question"))
        await stage.settle()

    stage = play(Script(replies=[["You hear this much of it. Never heard."], ["Fine."]]), act)
    system, *messages = stage.llm.requests[1].messages
    assert system.role is Role.SYSTEM
    assert system.content.startswith("You are Mynah.")
    assert [(m.role, m.content) for m in messages if m.role is not Role.SYSTEM] == [
        (Role.USER, "first question"),
        (Role.ASSISTANT, "You…"),
        (Role.USER, "second question"),
    ]
    assert messages[-2].role is Role.SYSTEM, (
        "the time is told next to the question, so that what is before it stays"
    )
    assert "15:04" in messages[-2].content


def test_wake_word_is_greeted_and_the_listen_start_behind_it_does_not_cancel() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="Hey, Mynah!"))
        stage.session.on_message(START["auto"])
        await stage.settle()
        assert stage.session.phase is Phase.LISTENING

    stage = play(None, act)
    assert stage.link.story[:3] == ["stt:Hey, Mynah!", "start", "face:happy"]
    assert stage.link.story[-1] == "stop"
    assert stage.tts.said[0].text in variants("greeting", "en")


def test_second_greeting_comes_from_the_cache() -> None:
    async def act(stage: Stage) -> None:
        for _ in range(12):
            stage.session.on_message(Listen("detect", text="hey mynah"))
            await stage.settle()

    stage = play(None, act)
    assert len(stage.tts.said) == len({request.text for request in stage.tts.said}) < 12
    assert len(stage.link.of(TtsStop)) == 12


def test_exit_command_says_goodbye_and_closes() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="goodbye"))
        await stage.settle()
        assert stage.link.closed

    stage = play(None, act)
    assert stage.tts.said[0].text in variants("farewell", "en")
    assert stage.link.story[-1] == "stop"


@pytest.mark.parametrize("where", ["asr", "llm", "late"])
def test_failures_end_with_a_spoken_apology(where: str) -> None:
    script = Script()
    if where == "asr":
        script.heard = [ProviderTimeoutError("slow")]
    else:
        script.replies = [[PROVIDER_DOWN] if where == "llm" else ["It begins well. ", 0.5, PROVIDER_DOWN]]

    async def act(stage: Stage) -> None:
        stage.session.on_message(START["manual"])
        await stage.stream((VOICE, 10))
        stage.session.on_message(Listen("stop"))
        await stage.settle()

    stage = play(script, act)
    assert stage.link.story[-1] == "stop"
    assert stage.link.story.count("start") == 1
    assert "face:sad" in stage.link.story or where == "late"
    key = "error_timeout" if where == "asr" else "error_provider"
    assert stage.tts.said[-1].text in variants(key, "en")
    assert stage.recorder.turns[0].error


def test_a_bug_in_a_provider_is_an_apology_too() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hello"))
        await stage.settle()

    stage = play(Script(replies=[[ZeroDivisionError("bug")]]), act)
    assert stage.recorder.turns[0].error == "internal"
    assert stage.link.story[-1] == "stop"


def test_without_a_voice_the_text_is_shown_and_the_device_leaves_speaking() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hello"))
        await stage.settle()

    stage = play(Script(tts_error=PROVIDER_DOWN), act)
    assert stage.link.story == ["stt:hello", "start", "face:happy", "say:Hi!", "say:I am fine.", "stop"]
    assert stage.recorder.turns[0].tts_failures == 2


def test_even_a_failing_apology_ends() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hello"))
        await stage.settle()

    stage = play(Script(replies=[[PROVIDER_DOWN]], tts_error=ZeroDivisionError("bug")), act)
    assert stage.link.story[-1] == "stop"


def test_noise_is_ignored_and_a_wordless_button_press_is_answered() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream(*UTTERANCE)
        await stage.settle(1)
        assert stage.link.story == []
        assert stage.session.phase is Phase.LISTENING
        stage.session.on_message(START["manual"])
        await stage.stream((VOICE, 10))
        stage.session.on_message(Listen("stop"))
        await stage.settle()

    stage = play(Script(heard=[""]), act)
    assert stage.tts.said[0].text in variants("nothing_heard", "en")


def test_silent_and_empty_button_presses_are_not_recognised() -> None:
    async def act(stage: Stage) -> None:
        for count in (0, 1, 20):
            stage.session.on_message(START["manual"])
            await stage.stream((HUSH, count))
            stage.session.on_message(Listen("stop"))
            await stage.settle(1)

    stage = play(None, act)
    assert stage.link.story == []
    assert stage.asr.audio == []


def test_tools_run_and_their_result_goes_back_to_the_model() -> None:
    asked: list[str] = []

    @register_function("get_weather")
    def get_weather(context: ToolContext, city: str) -> str:
        """Say what the weather is.

        Args:
            city: name of the city
        """
        asked.append(f"{city}/{context.language}/{context.now().hour}")
        return "18 degrees"

    from mynah.tools.base import registered_tool

    tool = registered_tool(get_weather)
    assert tool is not None

    async def act(stage: Stage) -> None:
        # A tool that is not async runs in a thread, which virtual time cannot wait for.
        stage.session.on_message(Listen("detect", text="weather?"))
        for _ in range(200):
            await asyncio.sleep(0.05)
            if stage.link.of(TtsStop):
                break

    async def main() -> Stage:
        script = Script(replies=[[ToolCall("c1", "get_weather", '{"city": "Rome"}')], ["It is mild."]])
        stage = Stage(script, tools=(tool,))
        await act(stage)
        await stage.end()
        return stage

    stage = asyncio.run(main())
    assert asked == ["Rome/en/15"]
    assert [spec.name for spec in stage.llm.requests[0].tools] == ["get_weather"]
    roles = [message.role for message in stage.llm.requests[1].messages]
    assert roles == [Role.SYSTEM, Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL]
    assert "say:It is mild." in stage.link.story


def test_timer_speaks_by_itself() -> None:
    async def act(stage: Stage) -> None:
        stage.session.say("Your tea is ready.")
        await stage.settle()

    stage = play(None, act)
    assert stage.link.story == ["start", "face:happy", "say:Your tea is ready.", "audio", "stop"]
    assert stage.recorder.turns[0].mode == ""


def test_silence_is_ended_with_a_farewell_only_if_the_device_listens() -> None:
    async def act(stage: Stage, listening: bool) -> None:
        loop = asyncio.get_running_loop()
        if listening:
            stage.session.on_message(START["auto"])
        await stage.stream((HUSH, 50))
        stage.session.check_quiet(loop.time())
        assert not stage.link.closed
        await stage.settle(110)
        stage.session.check_quiet(loop.time())
        await stage.settle()
        assert stage.link.closed

    async def listening(stage: Stage) -> None:
        await act(stage, listening=True)

    async def idle(stage: Stage) -> None:
        await act(stage, listening=False)

    assert play(None, listening).tts.said[0].text in variants("farewell_idle", "en")
    assert play(None, idle).link.story == []


def test_a_running_timer_keeps_the_conversation_open() -> None:
    async def act(stage: Stage) -> None:
        stage.reminders.add(300, "Eggs!")
        await stage.settle(200)
        stage.session.check_quiet(asyncio.get_running_loop().time())
        assert not stage.link.closed
        await stage.settle(150)

    assert "say:Eggs!" in play(None, act).link.story


def test_device_tools_are_asked_for_when_offered() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello(features={"mcp": True}))
        await stage.settle(0.1)
        stage.session.on_message(Mcp({"jsonrpc": "2.0", "id": 1, "result": {}}))
        await stage.settle(0.1)

    story = play(None, act).link.story
    assert story[0] == "ServerHello"
    assert story[1] == "mcp:initialize"


def test_other_messages() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Ping())
        stage.session.on_message(Iot(states=[{}]))
        stage.session.on_message(Mcp({"id": 7, "result": {}}))
        stage.session.on_audio(VOICE)  # before any listen: dropped
        stage.session.on_message(Goodbye())
        await stage.settle(1)

    stage = play(None, act)
    assert stage.link.of(Pong)
    assert stage.link.closed


def test_the_face_comes_from_the_reply_and_is_not_spoken() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="joke"))
        await stage.settle()

    stage = play(Script(replies=[["😂 Funny", " thing."]]), act)
    assert stage.link.story == ["stt:joke", "start", "face:funny", "say:Funny thing.", "audio", "stop"]
    assert stage.tts.said[0].text == "Funny thing."


def test_chinese_words_are_spoken_in_chinese() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="你好吗"))
        await stage.settle()

    stage = play(Script(replies=[["我很好。", "Thanks!"]]), act)
    assert [(r.text, r.language) for r in stage.tts.said] == [("我很好。", "zh"), ("Thanks!", "en")]
    assert stage.llm.requests[0].language == "zh"


def test_a_lost_connection_in_every_phase_leaves_nothing() -> None:
    for moment in (0.0, 0.5, 1.2, 1.3, 1.45, 2.5):

        async def act(stage: Stage, moment: float = moment) -> None:
            stage.session.on_message(START["auto"])
            talking = asyncio.ensure_future(stage.stream(*UTTERANCE))
            await stage.settle(moment)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

        play(None, act)


def test_built_in_plugins_are_offered() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle()

    stage = play(None, act, tools=load_plugins().functions)
    assert {"get_time", "set_timer", "tell_joke"} <= {spec.name for spec in stage.llm.requests[0].tools}
    stage = play(None, act, tools=load_plugins().functions, offers_tools=False)
    assert stage.llm.requests[0].tools == ()


def test_sentences_are_shown_when_they_begin_to_play() -> None:
    async def act(stage: Stage) -> None:
        stage.script.speech_s = 2.0
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle()

    stage = play(None, act)
    sentences = [(at, m.state) for at, m in stage.link.log if isinstance(m, TtsSentence)]
    assert [state for _, state in sentences] == ["sentence_start", "sentence_end"] * 2
    first, second = (at for at, state in sentences if state == "sentence_start")
    assert second - first == pytest.approx(2.0 - 0.12, abs=0.07)


@pytest.mark.parametrize("then", [Abort(), START["manual"], Listen("detect", text="typed")])
def test_what_cancels_a_recognition_before_its_first_step_leaks_nothing(then: object) -> None:
    async def act(stage: Stage) -> None:
        for _ in range(3):
            stage.session.on_message(START["manual"])
            await stage.stream((VOICE, 5))
            stage.session.on_message(Listen("stop"))
            stage.session.on_message(then)  # type: ignore[arg-type] # in the same read of the socket
            await stage.settle()

    assert play(None, act).asr.cancelled == 3


def test_a_device_that_dies_in_the_middle_of_a_word_is_closed() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        await stage.stream((VOICE, 10))
        assert stage.session.phase is Phase.LISTENING
        await stage.settle(120)
        stage.session.check_quiet(asyncio.get_running_loop().time())
        await stage.settle()
        assert stage.link.closed

    play(None, act)


def test_an_open_connection_gets_data_before_firmware_gives_it_up() -> None:
    async def act(stage: Stage) -> None:
        stage.reminders.add(1000, "Eggs!")
        for _ in range(60):
            await stage.settle(5)
            stage.session.check_quiet(asyncio.get_running_loop().time())
        assert not stage.link.closed
        at = stage.link.when(Pong)
        assert all(later - earlier < 110 for earlier, later in itertools.pairwise(at))
        assert len(at) >= 3

    play(None, act)


def test_what_led_to_no_reply_does_not_stick_to_the_next_one() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="hey mynah"))
        await stage.settle(60)
        stage.session.say("Your tea is ready.")
        await stage.settle()
        stage.session.on_message(Listen("detect", text="hello"))
        await stage.settle()

    stage = play(None, act, greeting=False)
    assert stage.recorder.turns[0].stages_ms() == {}
    said = [m.content for m in stage.llm.requests[0].messages if m.role is not Role.SYSTEM]
    assert said == ["Your tea is ready.", "hello"]


def test_typed_text_is_bounded() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Listen("detect", text="x" * 100_000))
        await stage.settle()

    assert len(play(None, act).llm.requests[0].messages[-1].content) == 4000


def test_a_heartbeat_keeps_an_idle_device_connected() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(Hello())
        for beat in range(20):
            await stage.settle(30)
            stage.session.on_message(Heartbeat(beat))
            stage.session.check_quiet(asyncio.get_running_loop().time())
        assert not stage.link.closed
        await stage.settle(110)
        stage.session.check_quiet(asyncio.get_running_loop().time())
        assert stage.link.closed

    assert [m.timestamp for m in play(None, act).link.of(HeartbeatAck)] == list(range(20))


def test_a_heartbeat_does_not_keep_a_silent_microphone_open() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_message(START["auto"])
        for beat in range(4):
            await stage.settle(29)
            stage.session.on_message(Heartbeat(beat))
            stage.session.check_quiet(asyncio.get_running_loop().time())
        await stage.settle()
        assert stage.link.closed

    assert "stop" in play(None, act).link.story


def test_pcm_is_heard_like_opus() -> None:
    async def act(stage: Stage) -> None:
        stage.session.on_pcm(bytes(1920), 16000)  # nobody listens yet
        stage.session.on_message(START["auto"])
        for word, count in UTTERANCE:
            for _ in range(count):
                stage.session.on_pcm(word.ljust(1920, b"\0"), 16000)
                await asyncio.sleep(0.06)
        await stage.settle()

    assert play(None, act).link.story == REPLY


def test_wake_word_audio_is_counted_to_the_turn_and_to_no_other() -> None:
    async def act(stage: Stage) -> None:
        packet = b"\xf8\xff\xfe"  # 20 ms
        for _ in range(10):
            stage.session.on_audio(packet)
        stage.session.on_message(Listen("detect", text="hey mynah"))
        await stage.settle()
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle()
        stage.session.on_audio(packet)
        stage.session.on_message(START["manual"])  # so that was no wake word
        stage.session.on_message(Listen("stop"))
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle()

    assert [record.wake_ms for record in play(None, act).recorder.turns] == [200, 0, 0]


def test_alerts_wait_for_the_end_of_a_reply_and_the_newest_count() -> None:
    async def act(stage: Stage) -> None:
        stage.session.alert("a", "now", "happy")
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle(0.3)
        for number in range(10):
            stage.session.alert("a", f"later {number}", "happy")
        await stage.settle()
        stage.session.reboot()

    stage = play(None, act)
    assert [alert.message for alert in stage.link.of(Alert)] == ["now", *(f"later {n}" for n in range(6, 10))]
    story = stage.link.story
    assert story[0] == "Alert"
    assert story[story.index("stop") :] == ["stop", *["Alert"] * 4, "System"]
    assert stage.link.of(System)[0].command == "reboot"


def test_a_name_told_late_is_that_of_the_turns() -> None:
    async def act(stage: Stage) -> None:
        stage.session.identify("02:00:00:00:00:07")
        stage.session.on_message(Listen("detect", text="hi"))
        await stage.settle()

    assert play(None, act).recorder.turns[0].device_id == "02:00:00:00:00:07"
