"""Every point of the device contract has a test in this folder, found by its number."""

from __future__ import annotations

import re
from pathlib import Path

MQTT = range(82, 92)
"""MQTT and UDP are not offered, so nothing can be asked of them."""


def test_every_point_has_a_test_in_one_file() -> None:
    found: dict[int, set[str]] = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for number in re.findall(r"^(?:async )?def test_point_(\d+)_", text, re.MULTILINE):
            found.setdefault(int(number), set()).add(path.name)
    assert sorted(found) == [number for number in range(1, 96) if number not in MQTT]
    assert all(len(files) == 1 for files in found.values())
