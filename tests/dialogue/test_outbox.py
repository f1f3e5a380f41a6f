"""Messages that wait for devices, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue import outbox as module
from mynah.dialogue.outbox import (
    ANONYMOUS,
    MAX_PER_DEVICE,
    MAX_WAIT_S,
    MAX_WORDS_CHARS,
    Announcement,
    Delivery,
    Outbox,
)
from tests.virtual_time import settle, virtual

LAMP, RADIO = "02:00:00:00:00:01", "02:00:00:00:00:02"


class FakeSpeaker:
    """A conversation with room for ``room`` messages; a test says what becomes of them."""

    quiet_s = 10.0

    def __init__(self, room: int = 8) -> None:
        self.room = room
        self.said: list[str] = []
        self.pending: list[Callable[[bool], None]] = []

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        assert on_done is not None
        if len(self.pending) >= self.room:
            on_done(False)
            return
        self.said.append(words)
        self.pending.append(on_done)

    def tell(self, spoken: bool) -> None:
        """The oldest message is heard, or never will be."""
        self.pending.pop(0)(spoken)

    def close(self) -> None:
        while self.pending:
            self.tell(False)


class House:
    """An outbox, and the devices that are connected."""

    def __init__(self) -> None:
        self.here: dict[str, FakeSpeaker] = {}
        self.outbox = Outbox(self.here.get)

    def connect(self, device_id: str = LAMP, room: int = 8) -> FakeSpeaker:
        self.here[device_id] = FakeSpeaker(room)
        return self.here[device_id]

    def disconnect(self, device_id: str = LAMP) -> None:
        self.here.pop(device_id).close()


def outcome(message: Announcement) -> Delivery | None:
    return message.done.result() if message.done.done() else None


@virtual
async def test_who_is_connected_is_spoken_to_at_once() -> None:
    house = House()
    lamp = house.connect()
    message = house.outbox.announce(LAMP, "dinner")
    assert (lamp.said, message.state, outcome(message)) == (["dinner"], Delivery.QUEUED, None)
    lamp.tell(True)
    assert message.state is outcome(message) is Delivery.SPOKEN
    assert len(house.outbox) == 0


@virtual
async def test_who_is_not_and_is_not_waited_for_is_reported() -> None:
    house = House()
    message = house.outbox.announce(LAMP, "dinner")
    assert message.state is outcome(message) is Delivery.UNDELIVERED
    assert not house.outbox.holds(LAMP)


@virtual
async def test_what_waits_is_handed_over_in_order() -> None:
    house = House()
    messages = [house.outbox.announce(LAMP, words, 60) for words in "abc"]
    assert [message.state for message in messages] == [Delivery.WAITING] * 3
    assert len(house.outbox) == 3
    house.outbox.hand_over(LAMP)  # too early: nothing is lost
    assert house.outbox.holds(LAMP)
    lamp = house.connect()
    house.outbox.hand_over(LAMP)
    assert lamp.said == ["a", "b", "c"]
    assert not house.outbox.holds(LAMP)
    lamp.close()
    await asyncio.sleep(61)


@virtual
async def test_it_expires() -> None:
    house = House()
    soon = house.outbox.announce(LAMP, "a", 10)
    late = house.outbox.announce(LAMP, "b", MAX_WAIT_S * 100)
    await asyncio.sleep(9.9)
    assert soon.state is Delivery.WAITING
    await asyncio.sleep(0.2)
    assert outcome(soon) is Delivery.UNDELIVERED
    assert [message.words for message in house.outbox] == ["b"]
    await asyncio.sleep(MAX_WAIT_S)
    assert outcome(late) is Delivery.UNDELIVERED
    assert not house.outbox.holds(LAMP)


@virtual
async def test_what_was_not_heard_before_the_device_went_waits_again() -> None:
    house = House()
    house.connect()
    first = house.outbox.announce(LAMP, "first", 60)
    unasked = house.outbox.announce(LAMP, "unasked")
    house.disconnect()
    second = house.outbox.announce(LAMP, "second", 60)
    assert first.state is Delivery.WAITING
    assert outcome(unasked) is Delivery.UNDELIVERED
    lamp = house.connect()
    house.outbox.hand_over(LAMP)
    assert lamp.said == ["first", "second"]
    lamp.tell(True)
    lamp.tell(True)
    assert outcome(first) is outcome(second) is Delivery.SPOKEN


@virtual
async def test_one_that_came_back_is_older_than_what_came_meanwhile() -> None:
    house = House()
    house.connect()
    house.outbox.announce(LAMP, "older", 60)
    older = house.here.pop(LAMP)
    house.outbox.announce(LAMP, "newer", 60)
    older.close()
    assert [message.words for message in house.outbox] == ["older", "newer"]


@virtual
async def test_it_does_not_wait_again_beyond_its_time() -> None:
    house = House()
    house.connect()
    message = house.outbox.announce(LAMP, "dinner", 60)
    await asyncio.sleep(61)  # a long answer is being given
    assert message.state is Delivery.QUEUED
    house.disconnect()
    assert outcome(message) is Delivery.UNDELIVERED


@virtual
async def test_what_a_busy_conversation_cannot_take_waits_on() -> None:
    house = House()
    for words in "abc":
        house.outbox.announce(LAMP, words, 60)
    lamp = house.connect(room=2)
    house.outbox.hand_over(LAMP)
    assert lamp.said == ["a", "b"]
    assert [message.words for message in house.outbox] == ["c"]
    lamp.tell(True)
    house.outbox.hand_over(LAMP)
    assert lamp.said == ["a", "b", "c"]


@virtual
async def test_an_outcome_that_is_told_twice_counts_once() -> None:
    house = House()
    lamp = house.connect()
    message = house.outbox.announce(LAMP, "dinner", 60)
    told = lamp.pending[0]
    told(True)
    told(False)
    assert outcome(message) is Delivery.SPOKEN
    assert len(house.outbox) == 0


@virtual
async def test_too_many_for_one_device() -> None:
    house = House()
    kept = [house.outbox.announce(LAMP, str(number), 60) for number in range(MAX_PER_DEVICE)]
    assert outcome(house.outbox.announce(LAMP, "one more", 60)) is Delivery.UNDELIVERED
    assert all(message.state is Delivery.WAITING for message in kept)
    assert house.outbox.announce(RADIO, "x", 60).state is Delivery.WAITING


@virtual
async def test_too_many_in_all() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_MESSAGES", 3)
        house = House()
        for number in range(3):
            assert house.outbox.announce(str(number), "x", 60).state is Delivery.WAITING
        assert outcome(house.outbox.announce("3", "x", 60)) is Delivery.UNDELIVERED
        await asyncio.sleep(61)
        assert house.outbox.announce("3", "x", 60).state is Delivery.WAITING


@virtual
async def test_nothing_waits_for_who_cannot_be_known_again() -> None:
    house = House()
    assert outcome(house.outbox.announce(ANONYMOUS + "7f", "x", 60)) is Delivery.UNDELIVERED


@virtual
async def test_long_messages_are_cut() -> None:
    house = House()
    lamp = house.connect()
    house.outbox.announce(LAMP, "x" * 100_000)
    assert len(lamp.said[0]) == MAX_WORDS_CHARS


@virtual
async def test_forgetting_and_closing() -> None:
    house = House()
    mine, other = house.outbox.announce(LAMP, "a", 60), house.outbox.announce(RADIO, "b", 60)
    house.outbox.forget(LAMP)
    assert (outcome(mine), outcome(other)) == (Delivery.UNDELIVERED, None)
    house.outbox.close()
    assert outcome(other) is Delivery.UNDELIVERED
    assert len(house.outbox) == 0
    await asyncio.sleep(61)  # no timer of theirs is left to stumble


@virtual
async def test_who_waits_for_the_outcome_and_gives_up_ends_nothing() -> None:
    house = House()
    message = house.outbox.announce(LAMP, "a", 60)
    waiting = asyncio.ensure_future(asyncio.wait([message.done]))
    await settle()
    waiting.cancel()
    await settle()
    lamp = house.connect()
    house.outbox.hand_over(LAMP)
    lamp.tell(True)
    assert outcome(message) is Delivery.SPOKEN


@pytest.mark.parametrize(
    ("words", "late_s", "said"),
    [
        ("Tea!", 0, "Tea!"),
        ("Tea!", 59, "Tea!"),
        ("Tea!", 95, "This was due 2 minutes ago: Tea!"),
        ("Tea!", 7260, "This was due 2 hours and 1 minute ago: Tea!"),
        ("提醒你：喝水。", 600, "这是10分钟前的提醒：提醒你：喝水。"),
    ],
)
def test_a_reminder_that_is_late_says_so(words: str, late_s: float, said: str) -> None:
    @virtual
    async def main() -> None:
        now = asyncio.get_running_loop().time()
        assert Announcement(1, LAMP, words, now + 60, now).phrase(now + late_s) == said
        assert Announcement(1, LAMP, words, now + 60).phrase(now + late_s) == words

    main()


STEPS = st.sampled_from(
    ["send", "keep", "connect", "disconnect", "hand over", "heard", "lost", "time", "forget"]
)


@given(st.lists(st.tuples(STEPS, st.sampled_from([LAMP, RADIO])), max_size=60))
def test_every_message_has_one_outcome_whatever_happens(steps: list[tuple[str, str]]) -> None:
    @virtual
    async def main() -> None:
        house = House()
        sent: list[Announcement] = []
        for step, device_id in steps:
            speaker = house.here.get(device_id)
            match step:
                case "send" | "keep":
                    sent.append(house.outbox.announce(device_id, "x", 100.0 if step == "keep" else 0.0))
                case "connect" if speaker is None:
                    house.connect(device_id, room=2)
                case "disconnect" if speaker is not None:
                    house.disconnect(device_id)
                case "hand over":
                    house.outbox.hand_over(device_id)
                case "heard" | "lost" if speaker is not None and speaker.pending:
                    speaker.tell(step == "heard")
                case "time":
                    await asyncio.sleep(40)
                case "forget":
                    house.outbox.forget(device_id)
            waiting = [message for message in sent if message.state is Delivery.WAITING]
            assert sorted(message.number for message in house.outbox) == [m.number for m in waiting]
            assert len(house.outbox) == len(waiting)
            assert all(house.outbox.holds(message.device_id) for message in waiting)
            assert all(message.done.done() == (message.state in FINAL) for message in sent)
        for device_id in tuple(house.here):
            house.disconnect(device_id)
        await asyncio.sleep(200)
        assert all(outcome(message) in FINAL for message in sent)
        assert len(house.outbox) == 0

    main()


FINAL = (Delivery.SPOKEN, Delivery.UNDELIVERED)
