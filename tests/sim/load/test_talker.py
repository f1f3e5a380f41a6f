"""Turns, tick by tick: no sockets, no clock."""

from __future__ import annotations

from typing import Any

import pytest

from mynah.sim.load import talker as module
from mynah.sim.load.record import Stage
from mynah.sim.load.scenario import Behaviour, Scenario
from mynah.sim.load.stock import Recording
from mynah.sim.load.talker import EARLY, NO_ANSWER, NO_AUDIO, NO_TRANSCRIPT, STALLED, Doing, Script, Talker
from mynah.sim.load.tally import Tally
from mynah.wire.messages import ListenMode

PACKETS = [bytes([number]) for number in range(40)]
RECORDING = Recording(PACKETS, last=9, after_ms=20.0, first=2)


class FakeDevice:
    """What a talker uses of a device."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.mic_open = False
        self.sent: list[bytes] = []
        self.did: list[str] = []

    def listen(self) -> None:
        self.mic_open = True
        self.did.append("listen")

    def stop_listening(self) -> None:
        self.mic_open = False
        self.did.append("stop")

    def abort(self) -> None:
        self.did.append("abort")

    def stuck(self) -> None:
        self.did.append("stuck")

    def hang_up(self) -> None:
        self.mic_open = False
        self.did.append("hang up")

    def send_audio(self, framed: bytes) -> None:
        assert self.mic_open
        self.sent.append(framed)


class Scene:
    """A talker who is ticked along."""

    def __init__(self, mode: ListenMode = ListenMode.AUTO, **changed: Any) -> None:
        fields: dict[str, Any] = {"pause_s": (0.18, 0.18), "answer_timeout_s": 3.0, **changed}
        scenario = Scenario(behaviour=Behaviour.TALK, mode=mode, **fields)
        self.device = FakeDevice()
        self.talker = Talker(self.device, Script.make(scenario, [RECORDING]), seed=1)  # type: ignore[arg-type]
        self.now = 1000.0
        self.talker.start()

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.now += 0.06
            self.talker.tick(self.now)

    def until(self, doing: Doing) -> None:
        for _ in range(200):
            if self.talker.doing is doing:
                return
            self.ticks(1)
        raise AssertionError(f"never {doing}, still {self.talker.doing}")

    def answer(self, packets: int = 5, *, stt: bool = True, stop: bool = True) -> None:
        if stt:
            self.talker.on_stt(self.now)
        self.talker.on_start(self.now)
        if self.device.mic_open:
            self.device.mic_open = False
        for _ in range(packets):
            self.ticks(1)
            self.talker.on_audio(self.now)
        if stop:
            self.talker.on_stop(self.now, self.now + 0.3)

    def counted(self) -> tuple[int, int, dict[str, int]]:
        tally = self.device.tally
        return tally.turns, tally.answered, tally.errors


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.12)


def test_a_turn_in_auto_mode() -> None:
    scene = Scene()
    assert scene.device.did == ["listen"]
    scene.until(Doing.ASKING)
    assert scene.talker.doing is not Doing.THINKING and scene.talker.in_turn
    scene.until(Doing.WAITING)
    assert scene.device.sent[-10:] == PACKETS[:10], "the words, to the packet with their last sound"
    asked = scene.now - 0.02
    scene.ticks(3)
    assert scene.device.sent[-3:] == PACKETS[10:13], "the room goes on"
    scene.answer()
    times = scene.device.tally.times
    assert scene.counted() == (1, 1, {})
    assert times[Stage.TRANSCRIPT].total == pytest.approx(200, abs=1)
    assert times[Stage.FIRST_AUDIO].total == pytest.approx(260, abs=1)
    assert times[Stage.ANSWER].total == pytest.approx((scene.now - asked) * 1000, abs=1)
    assert times[Stage.TURN].total == pytest.approx((scene.now - asked) * 1000 + 400, abs=1)
    assert scene.device.did == ["listen"]
    scene.ticks(4)
    assert scene.talker.doing is Doing.PLAYING and not scene.talker.in_turn
    scene.ticks(2)
    assert scene.device.did == ["listen", "listen"], "again when all was played"
    scene.until(Doing.WAITING)
    scene.answer()
    assert scene.counted() == (2, 2, {})


def test_who_has_to_wait_long_hears_the_same_second_again() -> None:
    scene = Scene()
    scene.until(Doing.WAITING)
    scene.ticks(46)
    assert scene.device.sent[-46:-16] == PACKETS[10:]
    assert scene.device.sent[-16:] == PACKETS[-16:]


def test_a_turn_in_manual_mode_begins_when_the_button_is_released() -> None:
    scene = Scene(ListenMode.MANUAL)
    assert scene.device.did == []
    scene.until(Doing.WAITING)
    assert scene.device.did == ["listen", "stop"]
    assert scene.device.sent == PACKETS[:13], "the words and three packets more"
    scene.ticks(2)
    assert len(scene.device.sent) == 13
    scene.answer(packets=1)
    assert scene.counted() == (1, 1, {})
    assert scene.device.tally.times[Stage.FIRST_AUDIO].total == pytest.approx(180, abs=1)
    scene.until(Doing.ASKING)
    assert scene.device.did == ["listen", "stop", "listen"]


def test_in_realtime_the_microphone_stays_open() -> None:
    scene = Scene(ListenMode.REALTIME)
    scene.until(Doing.WAITING)
    scene.talker.on_stt(scene.now)
    scene.talker.on_start(scene.now)
    sent = len(scene.device.sent)
    scene.ticks(5)
    scene.talker.on_audio(scene.now)
    assert len(scene.device.sent) == sent + 5
    scene.talker.on_stop(scene.now, scene.now + 5)
    assert scene.talker.doing is Doing.THINKING
    scene.until(Doing.ASKING)
    assert scene.device.did == ["listen"]


def test_no_answer_ends_with_the_user_hanging_up() -> None:
    scene = Scene()
    scene.until(Doing.WAITING)
    scene.ticks(48)
    assert scene.counted() == (0, 0, {})
    scene.ticks(2)
    assert scene.counted() == (1, 0, {NO_ANSWER: 1})
    assert scene.device.did[:2] == ["listen", "hang up"]
    scene.talker.on_lost(busy=False)
    assert scene.counted() == (1, 0, {NO_ANSWER: 1}), "counted once"


def test_an_answer_without_sound_or_words_or_end() -> None:
    silent, wordless, endless, mute = (Scene() for _ in range(4))
    for scene in (silent, wordless, endless, mute):
        scene.until(Doing.WAITING)
    silent.answer(packets=0)
    assert silent.counted() == (1, 0, {NO_AUDIO: 1})
    wordless.answer(stt=False)
    assert wordless.counted() == (1, 0, {NO_TRANSCRIPT: 1})
    assert Stage.FIRST_AUDIO in wordless.device.tally.times, "what there was is timed"
    assert Stage.ANSWER not in wordless.device.tally.times
    endless.answer(stop=False)
    endless.ticks(52)
    assert endless.counted() == (1, 0, {STALLED: 1})
    assert endless.device.did[:3] == ["listen", "stuck", "hang up"]
    mute.answer(packets=0, stop=False)
    mute.ticks(52)
    assert mute.counted() == (1, 0, {NO_AUDIO: 1})
    assert mute.device.did[:2] == ["listen", "hang up"]


def test_an_answer_that_comes_too_early() -> None:
    scene = Scene()
    scene.until(Doing.ASKING)
    scene.ticks(4)
    scene.answer()
    assert scene.counted() == (1, 0, {EARLY: 1})
    scene.until(Doing.WAITING)
    scene.answer()
    assert scene.counted() == (2, 1, {EARLY: 1})


def test_what_nobody_has_asked_for_is_heard_and_not_counted() -> None:
    scene = Scene()
    scene.answer()
    assert scene.counted() == (0, 0, {})
    scene.until(Doing.WAITING)
    scene.answer()
    assert scene.counted() == (1, 1, {})


def test_interrupting() -> None:
    scene = Scene(interrupt_share=1.0)
    scene.until(Doing.WAITING)
    scene.answer(packets=30)
    assert scene.device.did == ["listen", "abort"]
    assert scene.counted() == (1, 1, {})
    assert set(scene.device.tally.times) == {Stage.TRANSCRIPT, Stage.FIRST_AUDIO}, "its end is not timed"


def test_the_first_audio_is_timed_when_it_comes_and_not_when_the_answer_has_ended() -> None:
    scene = Scene()
    scene.until(Doing.WAITING)
    scene.answer(stop=False)
    assert scene.counted() == (0, 0, {})
    times = scene.device.tally.times
    assert (times[Stage.TRANSCRIPT].distribution().count, times[Stage.FIRST_AUDIO].distribution().count) == (
        1,
        1,
    )
    scene.talker.settle(scene.now)
    assert (scene.device.tally.waits, scene.device.tally.silences) == ([], [0.0])
    scene.talker.on_stop(scene.now, scene.now)
    assert [times[stage].distribution().count for stage in Stage if stage in times] == [1, 1, 1, 1]


def test_who_still_waits_at_the_end_of_a_step_says_how_long() -> None:
    asked, heard, thinking = Scene(), Scene(), Scene()
    asked.until(Doing.WAITING)
    heard.until(Doing.WAITING)
    thinking.talker.settle(thinking.now)
    asked.ticks(10)
    heard.ticks(10)
    heard.talker.on_stt(heard.now)
    heard.talker.on_start(heard.now)
    for scene in (asked, heard):
        scene.talker.settle(scene.now)
        assert scene.device.tally.waits == [pytest.approx(620, abs=1)]
        assert scene.counted() == (0, 0, {})
    assert Stage.TRANSCRIPT in heard.device.tally.times
    assert thinking.device.tally.waits == []


def test_who_has_waited_too_long_at_the_end_of_a_step_got_no_answer() -> None:
    scene = Scene()
    scene.until(Doing.WAITING)
    scene.ticks(30)
    scene.talker.on_start(scene.now)  # and no sound of it
    scene.now += 2.0  # before the next tick
    assert scene.counted() == (0, 0, {})
    scene.talker.settle(scene.now)
    assert (scene.counted(), scene.device.tally.waits) == ((1, 0, {NO_AUDIO: 1}), [])
    scene.ticks(1)
    assert "hang up" in scene.device.did
    assert scene.counted() == (1, 0, {NO_AUDIO: 1}), "counted once"


def test_an_answer_that_does_not_go_on_at_the_end_of_a_step_says_for_how_long() -> None:
    scene, over = Scene(answer_timeout_s=9.0), Scene(answer_timeout_s=9.0)
    for one in (scene, over):
        one.until(Doing.WAITING)
        one.answer(stop=False)
    scene.ticks(50)  # 3 s, of which the device may have played for 2.4
    scene.talker.settle(scene.now)
    assert scene.device.tally.silences == [pytest.approx(600, abs=1)]
    assert scene.device.tally.waits == []
    assert scene.counted() == (0, 0, {})
    over.now += 9.1  # before the next tick
    over.talker.settle(over.now)
    assert (over.counted(), over.device.tally.silences) == ((1, 0, {STALLED: 1}), [])
    over.ticks(1)
    assert over.device.did[-2:] == ["stuck", "hang up"]
    assert over.counted() == (1, 0, {STALLED: 1}), "counted once"


def test_a_server_that_says_aloud_that_it_is_busy() -> None:
    scene = Scene(ListenMode.MANUAL)
    scene.until(Doing.ASKING)
    scene.answer(stt=False)
    assert scene.counted() == (1, 0, {EARLY: 1})
    scene.talker.on_lost(busy=True)
    assert scene.counted() == (0, 0, {}), "it does not count"
    scene.talker.on_lost(busy=True)
    assert scene.counted() == (0, 0, {})


def test_what_failed_before_the_step_was_held_is_not_taken_back_in_it() -> None:
    scene = Scene(ListenMode.MANUAL)
    scene.until(Doing.ASKING)
    scene.answer(stt=False)
    tally = scene.device.tally
    tally.hold()
    tally.error(EARLY)
    tally.turns += 1
    scene.talker.on_lost(busy=True)
    assert scene.counted() == (1, 0, {EARLY: 1})


def test_a_failure_of_the_turn_before_stands() -> None:
    scene = Scene(ListenMode.MANUAL)
    scene.until(Doing.ASKING)
    scene.answer(stt=False)
    scene.until(Doing.ASKING)
    scene.talker.on_lost(busy=True)
    assert scene.counted() == (1, 0, {EARLY: 1})


def test_a_connection_that_is_lost_in_a_turn() -> None:
    lost, refused, thinking = Scene(), Scene(), Scene()
    lost.until(Doing.ASKING)
    refused.until(Doing.ASKING)
    lost.talker.on_lost(busy=False)
    refused.talker.on_lost(busy=True)
    thinking.talker.on_lost(busy=False)
    assert lost.counted() == (1, 0, {}), "the reason is counted with the connection"
    assert refused.counted() == (0, 0, {}), "busy is no failure"
    assert thinking.counted() == (0, 0, {})
