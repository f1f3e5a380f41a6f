"""A device that comes back finds its own conversation, and never another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from mynah.dialogue.admission import GOING_ON_S
from mynah.dialogue.continuity import Conversations, Kept
from mynah.providers.base import ChatMessage, Role

RESUME_S = 1800.0
DEVICE = "02:00:00:00:00:01"
OTHER = "02:00:00:00:00:02"


@pytest.mark.parametrize("resume_s", [RESUME_S, 0.0])
@pytest.mark.parametrize("words", ["hello", ""])
def test_when_a_device_last_talked_is_known_whatever_else_is_kept(resume_s: float, words: str) -> None:
    """Also when it was cut off in its first sentence, or begins anew with every connection."""
    conversations = make(resume_s=resume_s)
    assert conversations.talked_at(DEVICE) == 0.0
    kept = conversations.join(DEVICE)
    conversations.heard(DEVICE, kept, 7.0)
    assert (kept.talked_at, conversations.talked_at(DEVICE)) == (7.0, 7.0)
    if words:
        say(kept, words)
    conversations.leave(DEVICE)
    assert (conversations.talked_at(DEVICE), conversations.talked_at(OTHER)) == (7.0, 0.0)
    assert len(conversations) == (1 if words and resume_s else 0)
    assert conversations.join(DEVICE).talked_at == 7.0
    conversations.heard(OTHER, conversations.join(OTHER), 7.0 + GOING_ON_S)
    conversations.leave(DEVICE)
    assert DEVICE not in conversations._talked, "it is of no use any more"


def test_a_reply_counts_only_where_somebody_was_heard() -> None:
    conversations = make()
    kept = conversations.join(DEVICE)
    conversations.replied(DEVICE, kept, 5.0)
    assert conversations.talked_at(DEVICE) == 0.0, "an announcement, or an abort of nothing"
    conversations.heard(DEVICE, kept, 7.0)
    conversations.replied(DEVICE, kept, 9.0)
    conversations.replied(DEVICE, kept, 11.0)
    assert conversations.talked_at(DEVICE) == 9.0


def test_of_those_who_talked_only_so_many_are_known() -> None:
    conversations = make(max_talked=2)
    for number, device in enumerate("abac", 1):
        conversations.heard(device, conversations.join(device), float(number))
        conversations.leave(device)
    assert [conversations.talked_at(device) for device in "abc"] == [3.0, 0.0, 4.0]


def test_who_is_connected_does_not_depend_on_that() -> None:
    conversations = make(max_talked=1)
    kept = conversations.join(DEVICE)
    conversations.heard(DEVICE, kept, 1.0)
    conversations.heard(OTHER, conversations.join(OTHER), 2.0)
    assert kept.talked_at == conversations.talked_at(DEVICE) == 1.0


def test_another_owner_goes_on_with_nothing() -> None:
    conversations = make()
    conversations.heard(DEVICE, conversations.join(DEVICE), 7.0)
    conversations.leave(DEVICE)
    conversations.forget(DEVICE)
    assert conversations.join(DEVICE).talked_at == 0.0


@pytest.mark.parametrize("device_id", ["anonymous-7f0012345678", ""])
def test_who_tells_no_name_talks_for_one_connection(device_id: str) -> None:
    conversations = make()
    kept = conversations.join(device_id)
    conversations.heard(device_id, kept, 7.0)
    assert kept.talked_at == 7.0
    assert conversations.talked_at(device_id) == conversations.join(device_id).talked_at == 0.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock | None = None, resume_s: float = RESUME_S, **bounds: int) -> Conversations:
    return Conversations(4000, "en", resume_s, clock or Clock(), **bounds)


def say(kept: Kept, words: str) -> None:
    kept.history.add([ChatMessage(Role.USER, words), ChatMessage(Role.ASSISTANT, "I see.")])


def said(kept: Kept) -> list[str]:
    return [message.content for message in kept.history if message.role is Role.USER]


def talk(conversations: Conversations, device_id: str, words: str) -> None:
    say(conversations.join(device_id), words)
    conversations.leave(device_id)


def test_who_comes_back_in_time_goes_on() -> None:
    clock = Clock()
    conversations = make(clock)
    first = conversations.join(DEVICE)
    assert (said(first), first.language) == ([], "en")
    say(first, "my name is Ada")
    first.language = "zh"
    clock.now = 10_000.0  # a long conversation is not over because it is long
    conversations.leave(DEVICE)
    clock.now += RESUME_S - 1
    again = conversations.join(DEVICE)
    assert (said(again), again.language) == (["my name is Ada"], "zh")
    assert len(conversations) == 0, "what is in use is not kept a second time"
    conversations.leave(DEVICE)
    clock.now += RESUME_S - 1
    assert said(conversations.join(DEVICE)) == ["my name is Ada"], "the time counts from the last farewell"


def test_who_comes_too_late_begins_anew() -> None:
    clock = Clock()
    conversations = make(clock)
    talk(conversations, DEVICE, "my name is Ada")
    clock.now = RESUME_S
    assert said(conversations.join(DEVICE)) == []


def test_what_is_over_is_not_kept_in_memory() -> None:
    clock = Clock()
    conversations = make(clock)
    talk(conversations, DEVICE, "one")
    clock.now = 1000.0
    talk(conversations, OTHER, "two")
    clock.now = RESUME_S
    conversations.expire()
    assert len(conversations) == 1
    assert said(conversations.join(OTHER)) == ["two"]


def test_no_device_gets_the_conversation_of_another() -> None:
    conversations = make()
    talk(conversations, DEVICE, "secret")
    assert said(conversations.join(OTHER)) == []
    assert said(conversations.join(DEVICE[:-1])) == []
    assert said(conversations.join(DEVICE)) == ["secret"]


def test_the_newer_session_gets_what_the_replaced_one_still_adds() -> None:
    """The older connection closes after the newer one has begun, and only then remembers its last words."""
    conversations = make()
    older = conversations.join(DEVICE)
    say(older, "one")
    newer = conversations.join(DEVICE)
    assert said(newer) == ["one"]
    say(older, "two")
    conversations.leave(DEVICE)
    assert len(conversations) == 0
    say(newer, "three")
    conversations.leave(DEVICE)
    assert said(conversations.join(DEVICE)) == ["one", "two", "three"]


@pytest.mark.parametrize("device_id", ["anonymous-7f0012345678", "anonymous-", ""])
def test_devices_without_a_name_are_not_kept(device_id: str) -> None:
    conversations = make()
    first = conversations.join(device_id)
    assert conversations.join(device_id) is not first, "not even at the same time"
    say(first, "secret")
    conversations.leave(device_id)
    conversations.leave(device_id)
    assert len(conversations) == 0
    assert said(conversations.join(device_id)) == []


def test_nothing_is_kept_when_every_connection_begins_anew() -> None:
    conversations = make(resume_s=0)
    talk(conversations, DEVICE, "one")
    assert len(conversations) == 0
    assert said(conversations.join(DEVICE)) == []


def test_silent_sessions_are_not_kept() -> None:
    conversations = make()
    conversations.join(DEVICE)
    conversations.leave(DEVICE)
    assert len(conversations) == 0


def test_to_leave_too_often_takes_nothing_from_others() -> None:
    conversations = make()
    conversations.leave(DEVICE)
    talk(conversations, DEVICE, "one")
    conversations.leave(DEVICE)
    assert said(conversations.join(DEVICE)) == ["one"]


def test_forgetting_reaches_kept_and_running_conversations() -> None:
    conversations = make()
    talk(conversations, DEVICE, "one")
    talk(conversations, OTHER, "two")
    conversations.forget(DEVICE)
    conversations.forget("02:00:00:00:00:99")
    running = conversations.join(DEVICE)
    assert said(running) == []
    say(running, "three")
    conversations.forget(DEVICE)
    assert said(running) == []
    say(running, "four")
    conversations.leave(DEVICE)
    assert said(conversations.join(DEVICE)) == ["four"]
    assert said(conversations.join(OTHER)) == ["two"]


def test_devices_are_bounded_and_the_one_away_longest_goes() -> None:
    conversations = make(max_devices=2)
    for device in ("a", "b", "a", "c"):
        talk(conversations, device, device)
    assert len(conversations) == 2
    assert [said(conversations.join(device)) for device in "abc"] == [["a", "a"], [], ["c"]]


def test_text_is_bounded_too() -> None:
    conversations = make(max_tokens=5000)
    for number in range(10):
        talk(conversations, str(number), "word " * 1500)
    assert len(conversations) == 2
    assert said(conversations.join("9")) != []
    assert said(conversations.join("7")) == []
    for number in range(10):
        conversations.forget(str(number))
    for number in range(3):
        talk(conversations, str(number), "hello")
    assert len(conversations) == 3, "what was forgotten does not count"


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("xyz")), max_size=30))
def test_every_conversation_is_that_of_its_device(talks: list[tuple[str, str]]) -> None:
    conversations = make()
    expected: dict[str, list[str]] = {}
    for device, words in talks:
        talk(conversations, device, f"{device}: {words}")
        expected.setdefault(device, []).append(f"{device}: {words}")
    for device, words_of in expected.items():
        assert said(conversations.join(device)) == (words_of if device else [])


class Visits(RuleBasedStateMachine):
    """Devices come and go in any order, with several connections at once: each sees its own words, and all of them."""

    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.conversations = make(self.clock, max_devices=3)
        self.open: list[tuple[str, Kept]] = []
        self.count = 0

    @rule(target=sessions, device=st.sampled_from(["a", "b", "c", "d", "anonymous-1"]))
    def connect(self, device: str) -> tuple[str, Kept]:
        session = (device, self.conversations.join(device))
        self.open.append(session)
        for other, kept in self.open:
            if other == device and not device.startswith("anonymous"):
                assert kept is session[1]
        return session

    @rule(session=sessions)
    def speak(self, session: tuple[str, Kept]) -> None:
        if any(session is one for one in self.open):
            self.count += 1
            say(session[1], f"{session[0]} {self.count}")

    @rule(session=sessions)
    def close(self, session: tuple[str, Kept]) -> None:
        at = next((i for i, one in enumerate(self.open) if one is session), None)
        if at is not None:
            del self.open[at]
            self.conversations.leave(session[0])

    @rule(seconds=st.sampled_from([1.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def each_has_its_own(self) -> None:
        if hasattr(self, "open"):
            for device, kept in self.open:
                assert all(words.startswith(f"{device} ") for words in said(kept))
            assert len(self.conversations) <= 3


TestVisits = Visits.TestCase
