"""The face a reply wears: a leading emoji of the text, turned into one of the names every client knows."""

from __future__ import annotations

FACES: dict[str, str] = {
    "😶": "neutral", "😐": "neutral",
    "🙂": "happy", "😊": "happy", "😀": "happy", "😃": "happy", "😄": "happy", "☺": "happy",
    "😆": "laughing", "😂": "funny", "🤣": "funny", "😁": "laughing",
    "😔": "sad", "😢": "sad", "🙁": "sad", "☹": "sad",
    "😠": "angry", "😡": "angry", "😭": "crying",
    "😍": "loving", "🥰": "loving", "❤": "loving", "😳": "embarrassed", "😅": "embarrassed",
    "😲": "surprised", "😮": "surprised", "😯": "surprised", "😱": "shocked", "🤯": "shocked",
    "🤔": "thinking", "😉": "winking", "😎": "cool", "😌": "relaxed", "🤤": "delicious", "😋": "delicious",
    "😘": "kissy", "😏": "confident", "💪": "confident", "😴": "sleepy", "🥱": "sleepy",
    "😜": "silly", "🤪": "silly", "😛": "silly", "🙄": "confused", "😕": "confused", "😖": "confused",
}  # fmt: skip
"""Emoji → emotion name of the xiaozhi protocol."""

DEFAULT_EMOJI = "🙂"
SORRY = ("😔", "sad")
"""Emoji and emotion of an apology."""


def find(text: str) -> tuple[str, str] | None:
    """Return ``(emoji, emotion)`` for the first known emoji of ``text``, or None."""
    for char in text:
        if (emotion := FACES.get(char)) is not None:
            return char, emotion
    return None
