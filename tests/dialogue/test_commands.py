"""Commands are values, and say no more by default than they must."""

from __future__ import annotations

import pytest

from mynah.dialogue.commands import CloseEar, OpenEar, Say, StopReply, Think
from mynah.wire.messages import ListenMode


def test_commands_are_values() -> None:
    assert OpenEar(1, ListenMode.AUTO) == OpenEar(1, ListenMode.AUTO) != OpenEar(2, ListenMode.AUTO)
    assert CloseEar() != StopReply()
    assert len({Think(1, "a"), Think(1, "a"), Think(1, "a", farewell=True)}) == 2
    with pytest.raises(AttributeError):
        Think(1, "a").text = "b"  # type: ignore[misc]


def test_nothing_is_remembered_or_ended_unless_it_is_said() -> None:
    say = Say(1, "hi")
    assert (say.remember, say.end_session, say.sorry, say.ticket) == (False, False, False, 0)
    assert not OpenEar(1, ListenMode.REALTIME).interrupting
    assert not Think(1, "hi").farewell
