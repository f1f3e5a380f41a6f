"""The ink of a waterfall: SVG elements, text that fits and is legal XML, and the colours of both themes."""

from __future__ import annotations

import html
import re
import unicodedata

MAX_TEXT = 500
"""Characters of a text that may be looked at before it is cut to what fits."""

_ILLEGAL = re.compile(
    # What XML 1.0 forbids, other control characters, and those that turn the direction of their neighbours round.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)

STYLE = """
text { font-family: -apple-system, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", \
"Noto Sans CJK SC", "WenQuanYi Micro Hei", sans-serif; font-size: 12px; fill: #1f2933; }
.card { fill: #ffffff; stroke: #d5dbe3; }
.headline { font-size: 20px; font-weight: 600; }
.value { text-anchor: end; font-weight: 600; font-variant-numeric: tabular-nums; }
.muted { fill: #5b6b7e; }
.small { font-size: 11px; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.bold { font-weight: 600; }
.failed { fill: #b3261e; }
.halo { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }
.grid { stroke: #e6eaf0; stroke-width: 1; }
.rule { stroke: #d5dbe3; stroke-width: 1; }
.zero { stroke: #1f2933; stroke-width: 1.5; }
.goal { stroke: #2463ae; stroke-width: 1.5; stroke-dasharray: 4 3; }
.measure { stroke: #2463ae; stroke-width: 2; fill: none; }
.squeezed { fill: #f3f5f8; }
.wave { fill: #6b4fa0; }
.open { fill: #e4dff0; stroke: #8f7bb8; }
.wait { fill: #f9dfae; stroke: #b06f0c; }
.tool { fill: #cdebd6; stroke: #2c7a4b; }
.reply { fill: #e3eefb; stroke: #7fa6d3; }
.heard { fill: #bcd8f7; stroke: #2463ae; }
.ahead { fill: #d6e7fa; }
.tick { stroke: #2463ae; stroke-width: 1; fill: none; }
.late { stroke: #d03a2f; stroke-width: 2; fill: none; }
.came { fill: #2463ae; }
.abort { fill: #d03a2f; }
@media (prefers-color-scheme: dark) {
text { fill: #e8edf3; }
.card { fill: #141a22; stroke: #37424f; }
.muted { fill: #9fb0c3; }
.failed { fill: #ff9b90; }
.halo { stroke: #141a22; }
.grid { stroke: #222c37; }
.rule { stroke: #37424f; }
.zero { stroke: #e8edf3; }
.goal, .measure, .tick { stroke: #79b0f0; }
.squeezed { fill: #1b232d; }
.wave { fill: #b9a3e8; }
.open { fill: #322a49; stroke: #8f7bc4; }
.wait { fill: #54400f; stroke: #e0a84a; }
.tool { fill: #1c4430; stroke: #6bc08d; }
.reply { fill: #1a2c42; stroke: #4a719e; }
.heard { fill: #21497a; stroke: #79b0f0; }
.ahead { fill: #1f3a5c; }
.late { stroke: #ff7a6e; }
.came { fill: #79b0f0; }
.abort { fill: #ff7a6e; }
}
"""


def line(style: str, x0: float, y0: float, x1: float, y1: float) -> str:
    """Return a line element."""
    return f'<line class="{style}" x1="{num(x0)}" y1="{num(y0)}" x2="{num(x1)}" y2="{num(y1)}"/>'


def text_element(x: float, y: float, text: str, style: str, room: float, size: float = 12) -> str:
    """Return a text element, cut to ``room`` px."""
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{num(x)}" y="{num(y)}">{escaped(cut(text, room, size))}</text>'


def escaped(text: str) -> str:
    """Return text as it may stand in XML: illegal characters replaced, all on one line."""
    return html.escape(_clean(text))


def _clean(text: str) -> str:
    """Return text that may stand in XML, on one line."""
    return " ".join(_ILLEGAL.sub("\ufffd", text).split())


def cut(text: str, room: float, size: float) -> str:
    """Shorten a text to ``room`` px."""
    text = _clean(text[:MAX_TEXT])
    if width_of(text, size) <= room:
        return text
    while text and width_of(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text.rstrip()}…" if text else ""


def width_of(text: str, size: float) -> float:
    """Guess the width of a text in px: no fonts here, and every reader has others. Rather too wide than too narrow."""
    return sum(map(_em, text)) * size


def _em(char: str) -> float:
    if unicodedata.east_asian_width(char) in {"W", "F"}:
        return 1.05 if char < "\U0001f000" else 1.4
    if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0.0
    if char in " .,:;!|'fijlrt":
        return 0.36
    return 0.9 if char in "mwMW—…→" else 0.7 if char.isupper() else 0.58


def num(number: float) -> str:
    """Write a coordinate: one decimal, no more."""
    return f"{number:.1f}".removesuffix(".0")
