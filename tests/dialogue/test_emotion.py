"""Emoji of a reply become the faces devices know."""

from __future__ import annotations

from mynah.dialogue import emotion
from mynah.wire.messages import EMOTIONS


def test_every_face_has_a_name_devices_know() -> None:
    assert set(emotion.FACES.values()) <= set(EMOTIONS)
    assert set(emotion.FACES.values()) == set(EMOTIONS)


def test_first_known_emoji_counts() -> None:
    assert emotion.find("🍎 😂 fine 😭") == ("😂", "funny")
    assert emotion.find("plain") is None
    assert emotion.DEFAULT_EMOJI in emotion.FACES
