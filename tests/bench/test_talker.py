"""The talkers: that they converse, and say so when nobody answers."""

from __future__ import annotations

import pytest

from mynah.bench.server import ServerUnderTest
from mynah.bench.talker import Talkers
from mynah.errors import MynahError
from mynah.wire.messages import ListenMode


@pytest.mark.e2e
@pytest.mark.speech
def test_two_people_talk() -> None:
    with ServerUnderTest("conversation.speculation=true") as server:
        with Talkers(server.url(), ListenMode.AUTO, talkers=2, turns=2, warm_up=1) as talkers:
            talk = talkers.wait()
        report = server.stop()
    assert len(talk.turns) == 4
    assert report.summary.startswith("6 turns: 6 interrupted, 0 with a spoken error, 0 silent")
    assert talk.faults == {}
    assert len(talk.lag_ms) > 50 * talk.seconds
    for times in talk.turns:
        assert 50 < times.stt < times.first_audio < 5000
        assert 0 <= times.last_frame <= times.stop < 5000


@pytest.mark.e2e
@pytest.mark.speech
def test_people_whom_nobody_answers_say_so() -> None:
    with (
        Talkers("ws://127.0.0.1:9/", ListenMode.AUTO, talkers=1, turns=1) as talkers,
        pytest.raises(MynahError, match="nothing listens"),
    ):
        talkers.wait()
