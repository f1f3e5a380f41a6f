from typing import Any

import pytest

from mynah.errors import WireError
from mynah.sim.nvs import Nvs


def test_values_are_merged_and_stay() -> None:
    nvs = Nvs()
    nvs.merge("websocket", {"url": "ws://a", "token": "t", "version": 3})
    nvs.merge("websocket", {"url": "ws://b", "token": ""})
    assert nvs.text("websocket", "url") == "ws://b"
    assert nvs.text("websocket", "token") == ""
    assert nvs.number("websocket", "version") == 3  # nobody said otherwise
    assert nvs.text("mqtt", "url") == ""


def test_only_changes_are_written() -> None:
    nvs = Nvs()
    nvs.merge("mqtt", {"endpoint": "h", "keepalive": 240})
    nvs.merge("mqtt", {"endpoint": "h", "keepalive": 60})
    assert nvs.writes == 3


def test_a_text_is_no_number() -> None:
    nvs = Nvs()
    nvs.merge("websocket", {"version": "3", "url": 7, "f": 2.9, "b": True, "o": {}, "n": None, "l": [1]})
    assert nvs.number("websocket", "version") == 0
    assert nvs.text("websocket", "url") == ""
    assert nvs.number("websocket", "f") == 2
    assert nvs.writes == 3  # truth values, objects, lists and null are skipped


FITTING = {"k" * 15: 1, "s": "x" * 3999, "i": 2**31 - 1, "j": -(2**31)}


def test_what_just_fits() -> None:
    Nvs().merge("websocket", FITTING)


@pytest.mark.parametrize("settings", [{"k" * 16: 1}, {"s": "x" * 4000}, {"s": "好" * 1334}, {"i": 2**31}])
def test_what_does_not_fit_aborts(settings: dict[str, Any]) -> None:
    nvs = Nvs()
    with pytest.raises(WireError):
        nvs.merge("websocket", {"url": "ws://a", **settings})
    assert nvs.text("websocket", "url") == "ws://a"  # was written before
