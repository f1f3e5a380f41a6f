"""Draws turns as a waterfall: an SVG picture of what a device saw and heard, and how long each part took."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from mynah.sim.timeline import Packet, Sentence, TurnTimeline
from mynah.sim.waterfall_svg import STYLE, escaped, line, num, text_element, width_of

WIDTH = 900
MARGIN = 20
NAME_X, VALUE_X = 32, 254
"""Where the names of the rows begin and their durations end, in px."""
LEFT, RIGHT = 268, 868
"""Of the plot."""

MAX_TURNS = 20
"""A longer picture is not looked at; the oldest turns are left out, and the picture says so."""

MAX_ROWS = 30
"""Sentences, and tool calls, that get a row of their own; later ones are left out, and a row says how many."""

LABEL_PX = 50
"""Between two labels of the axis; the longest is "−3600 s"."""

LIMIT_MS = 3_600_000.0
"""An hour: what claims to be farther away is drawn there."""

LEGEND_COLUMNS = 5

_LEGEND = (
    ("wave", "user's speech"),
    ("open", "microphone open"),
    ("wait", "waiting for the server"),
    ("tool", "tool call"),
    ("reply", "tts start to stop"),
    ("heard", "sentence played"),
    ("came", "text received"),
    ("tick", "packet received"),
    ("late", "late packet"),
    ("abort", "interruption"),
)


def draw(turns: Sequence[TurnTimeline]) -> str:
    """Return an SVG document of these turns, one below the other, 900 px wide. Times must be finite."""
    shown = turns[-MAX_TURNS:]
    parts: list[str] = []
    bottom = float(MARGIN)
    for number, turn in enumerate(shown, len(turns) - len(shown) + 1):
        panel = _Panel(turn, bottom, f"turn {number} of {len(turns)}" if len(turns) > 1 else "")
        parts += panel.parts
        bottom = panel.bottom + MARGIN
    if len(shown) < len(turns):
        left_out = f"{len(turns) - len(shown)} earlier turns are not shown"
        parts.append(text_element(NAME_X, bottom, left_out, "muted", RIGHT - NAME_X))
        bottom += MARGIN
    legend, height = _legend(bottom)
    about = "; ".join(_summary(turn) for turn in shown) or "There was no turn."
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-labelledby="title desc">',
            '<title id="title">What a device saw and heard, and how long it took</title>',
            f'<desc id="desc">{escaped(about)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>',
            *parts,
            *legend,
            "</svg>\n",
        )
    )


class Scale:
    """From time in ms to x in px: linear, but a long story before and a long reply after the wait are squeezed."""

    def __init__(self, start_ms: float, end_ms: float, focus: tuple[float, float]) -> None:
        """What lies in ``focus`` is not squeezed."""
        whole = RIGHT - LEFT
        knees = [(start_ms, float(LEFT)), (end_ms, float(RIGHT))]
        width = end_ms - start_ms
        low, high = max(focus[0], start_ms), min(focus[1], end_ms)
        before, after = 0.16 * whole, 0.3 * whole
        if (low - start_ms) / width > 2 * before / whole:
            knees.insert(1, (low, LEFT + before))
        if (end_ms - high) / width > 2 * after / whole:
            knees.insert(-1, (high, RIGHT - after))
        self.knees = knees
        self.rate = max((x1 - x0) / (t1 - t0) for (t0, x0), (t1, x1) in self._pieces())
        """Of the widest piece, in px per ms."""

    def _pieces(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return list(itertools.pairwise(self.knees))

    def x(self, ms: float) -> float:
        """Return where a time stands; what is outside is at the edge."""
        for (t0, x0), (t1, x1) in self._pieces():
            if ms < t1:
                return x0 + (max(ms, t0) - t0) / (t1 - t0) * (x1 - x0)
        return float(RIGHT)

    def squeezed(self) -> list[tuple[float, float, float]]:
        """Return the squeezed pieces: from, to, and how many times."""
        rates = [(x0, x1, self.rate * (t1 - t0) / (x1 - x0)) for (t0, x0), (t1, x1) in self._pieces()]
        return [(x0, x1, factor) for x0, x1, factor in rates if factor > 1.05]

    def ticks(self) -> list[tuple[float, str]]:
        """Return where the axis has a mark, and what stands there; 0 has one of its own."""
        found = [(self.x(0.0), "0")]
        for (t0, x0), (t1, x1) in sorted(
            self._pieces(), key=lambda p: (p[1][0] - p[0][0]) / (p[1][1] - p[0][1])
        ):
            step = _round_step((t1 - t0) / (x1 - x0) * 64)
            for count in range(math.ceil(t0 / step), math.floor(t1 / step) + 1):
                x = self.x(count * step)
                if x0 <= x <= x1 and all(abs(x - other) >= LABEL_PX for other, _ in found):
                    found.append((x, _label(count * step, step)))
        return sorted(found)


class _Panel:
    """One turn."""

    def __init__(self, turn: TurnTimeline, top: float, which: str) -> None:
        self.parts: list[str] = []
        self.bottom = top
        self._turn = turn
        self._scale = _scale(turn)
        self._stripe: list[str] = []
        self._header(which)
        plot = self.bottom
        frame_at = len(self.parts)
        self._speech()
        self._waiting()
        self._tools()
        self._aborts()
        self._reply()
        self._packets()
        for number, sentence in enumerate(turn.sentences[:MAX_ROWS], 1):
            self._sentence(number, sentence)
        if len(turn.sentences) > MAX_ROWS:
            self._row(f"and {len(turn.sentences) - MAX_ROWS} more sentences", "", 22)
        self.parts[frame_at:frame_at] = self._frame(plot)
        self.bottom += 8

    # ------------------------------------------------------------ what the rows stand on

    def _header(self, which: str) -> None:
        turn, y = self._turn, self.bottom
        total = turn.first_audio_ms
        found = _duration(total) if total is not None else "none came"
        cut = 90 if which else 0
        label = f"{turn.origin} → first audio: {found}"
        self.parts.append(text_element(NAME_X, y + 22, label, "headline", RIGHT - NAME_X - cut, 20))
        if which:
            self.parts.append(text_element(RIGHT, y + 22, which, "muted end", cut))
        y += 42
        if turn.error:
            self.parts.append(text_element(NAME_X, y, turn.error, "failed", RIGHT - NAME_X))
            y += 18
        heard = f"said: {turn.said}" if turn.said else "nothing was said"
        if turn.stt and turn.stt != turn.said:
            heard += f" · understood: {turn.stt}"
        self.parts.append(text_element(NAME_X, y, heard, "muted", RIGHT - NAME_X))
        self.bottom = y + 34

    def _frame(self, top: float) -> list[str]:
        """Return axis and grid."""
        scale, bottom = self._scale, self.bottom
        parts = [
            f'<rect class="squeezed" x="{num(x0)}" y="{num(top)}" width="{num(x1 - x0)}" height="{num(bottom - top)}"/>'
            for x0, x1, _ in scale.squeezed()
        ]
        for x, label in scale.ticks():
            style = "small middle bold" if label == "0" else "small middle muted"
            parts.append(line("grid", x, top, x, bottom))
            parts.append(text_element(x, top - 6, label, style, 60, 11))
        parts.append(text_element(NAME_X, top - 6, "time in ms", "small muted", 60, 11))
        parts.append(line("rule", NAME_X, top, RIGHT, top))
        parts.append(line("zero", scale.x(0.0), top, scale.x(0.0), bottom))
        if self._turn.first_audio_ms is not None:
            x = scale.x(self._turn.first_audio_ms)
            parts.append(line("goal", x, top, x, bottom))
        if scale.squeezed():
            self.bottom += 14
            parts += [
                text_element(
                    (x0 + x1) / 2,
                    self.bottom - 3,
                    f"{factor:.{factor < 9.95:d}f}× faster",
                    "small muted middle",
                    x1 - x0,
                )
                for x0, x1, factor in scale.squeezed()
            ]
        return parts

    def _row(self, name: str, value: str, height: float, detail: str = "", *, style: str = "") -> float:
        """Begin a row; return the y of its middle."""
        middle = self.bottom + height / 2
        base = middle + 4 - (7 if detail else 0)
        room = VALUE_X - NAME_X - (width_of(value, 12.5) + 8 if value else 0)
        self.parts.append(text_element(NAME_X, base, name, style, room))
        if value:
            self.parts.append(text_element(VALUE_X, base, value, f"value {style}".strip(), VALUE_X - NAME_X))
        if detail:
            self.parts.append(text_element(NAME_X, base + 15, detail, "small muted", VALUE_X - NAME_X, 11))
        self.bottom += height
        return middle

    def _bar(
        self, style: str, start: float, end: float, middle: float, height: float = 14, told: str = ""
    ) -> None:
        x0, x1 = self._scale.x(start), self._scale.x(end)
        width = max(2.0, x1 - x0)
        x0 = min(x0, RIGHT - width)
        self.parts.append(
            f'<rect class="{style}" x="{num(x0)}" y="{num(middle - height / 2)}" width="{num(width)}" '
            f'height="{num(height)}" rx="3"><title>{escaped(told)}</title></rect>'
        )

    def _beside(self, text: str, middle: float, *, after: float, before: float) -> None:
        """Write behind x ``after``; in front of x ``before`` when there is room only there; else cut."""
        if width_of(text, 12) <= RIGHT - after or RIGHT - after >= before - LEFT:
            self.parts.append(text_element(after, middle + 4, text, "", RIGHT - after))
        else:
            self.parts.append(text_element(before, middle + 4, text, "end halo", before - LEFT))

    # ------------------------------------------------------------ the rows

    def _speech(self) -> None:
        """The user's speech with its pauses, and when the microphone was open."""
        turn, scale = self._turn, self._scale
        if turn.envelope:
            pauses = [(a.end_ms, b.start_ms) for a, b in itertools.pairwise(turn.speech)]
            longest = max((end - start for start, end in pauses), default=0.0)
            detail = f"longest pause {_duration(longest)}" if pauses else "no pause"
            spoken = _duration(turn.speech[-1].end_ms - turn.speech[0].start_ms) if turn.speech else "none"
            middle = self._row("user's speech", spoken, 48, detail)
            self.parts.append(_waveform(turn.envelope, scale, middle - 2, 20))
            for start, end in pauses:
                self._pause(start, end, middle + 22)
        if turn.microphone:
            shown = [(span, scale.x(span.start_ms), scale.x(span.end_ms)) for span in turn.microphone]
            shown = [(span, x0, x1) for span, x0, x1 in shown if x1 > LEFT]
            middle = self._row(
                "microphone open", _duration(sum(span.end_ms - span.start_ms for span, _, _ in shown)), 22
            )
            for span, _, _ in shown:
                self._bar(
                    "open",
                    span.start_ms,
                    span.end_ms,
                    middle,
                    8,
                    f"open {_range(span.start_ms, span.end_ms)}",
                )

    def _pause(self, start: float, end: float, y: float) -> None:
        x0, x1 = self._scale.x(start), self._scale.x(end)
        text = f"{end - start:.0f}"
        if width_of(text, 11) + 4 <= x1 - x0:
            self.parts.append(text_element((x0 + x1) / 2, y, text, "small muted middle", x1 - x0, 11))

    def _waiting(self) -> None:
        """What the user waits for, as a whole and in its parts."""
        turn, scale = self._turn, self._scale
        if turn.first_audio_ms is not None:
            x0, x1 = sorted((scale.x(0.0), scale.x(turn.first_audio_ms)))
            middle = self._row("wait for first audio", _duration(turn.first_audio_ms), 24, style="bold")
            path = f"M{num(x0)} {num(middle - 5)}v10M{num(x0)} {num(middle)}H{num(x1)}M{num(x1)} {num(middle - 5)}v10"
            self.parts.append(f'<path class="measure" d="{path}"/>')
        before = turn.origin.value
        for stage in turn.stages():
            name = stage.name.replace("_", " ")
            middle = self._row(f"{before} → {name}", _duration(stage.end_ms - stage.start_ms), 22)
            self._bar("wait", stage.start_ms, stage.end_ms, middle, 14, _range(stage.start_ms, stage.end_ms))
            before = name

    def _tools(self) -> None:
        calls = self._turn.tools
        for call in calls[:MAX_ROWS]:
            middle = self._row("tool call", _duration(call.end_ms - call.start_ms), 22)
            self._bar(
                "tool",
                call.start_ms,
                call.end_ms,
                middle,
                14,
                f"{call.name}, {_range(call.start_ms, call.end_ms)}",
            )
            x0, x1 = self._scale.x(call.start_ms), self._scale.x(call.end_ms)
            self._beside(call.name, middle, after=x1 + 7, before=x0 - 6)
        if len(calls) > MAX_ROWS:
            self._row(f"and {len(calls) - MAX_ROWS} more tool calls", "", 22)

    def _aborts(self) -> None:
        turn = self._turn
        if turn.aborts:
            last = turn.aborts[-1]
            stopped = turn.tts_stop_ms is not None and turn.tts_stop_ms >= last
            value = _duration(turn.tts_stop_ms - last) if stopped and turn.tts_stop_ms is not None else ""
            middle = self._row("abort → tts stop" if value else "abort", value, 22)
            for at in turn.aborts:
                x = self._scale.x(at)
                self.parts.append(
                    f'<path class="abort" d="M{num(x)} {num(middle - 7)}l6 7l-6 7l-6 -7z">'
                    f"<title>{at:.0f} ms</title></path>"
                )

    def _reply(self) -> None:
        turn = self._turn
        if turn.tts_start_ms is not None:
            known = turn.tts_stop_ms is not None
            end = turn.tts_stop_ms if turn.tts_stop_ms is not None else _end(turn)
            value = _duration(end - turn.tts_start_ms) if known else "no stop"
            middle = self._row("tts start → tts stop", value, 22)
            self._bar("reply", turn.tts_start_ms, end, middle, 14, _range(turn.tts_start_ms, end))

    def _packets(self) -> None:
        """When each packet came, and how much audio was waiting to be played then."""
        packets = self._turn.packets
        if packets:
            ahead = [max(0.0, p.play_ms - p.at_ms) for p in packets if p.play_ms is not None]
            late = sum(packet.late for packet in packets)
            detail = f"up to {max(ahead, default=0.0):.0f} ms ahead, {late} late"
            middle = self._row("audio packets", str(len(packets)), 50, detail)
            base = middle + 8
            self.parts.append(_lead(packets, self._scale, base, 28))
            self.parts.append(_marks("tick", packets, self._scale, base + 3, 9, late=False))
            self.parts.append(_marks("late", packets, self._scale, base + 3, 12, late=True))

    def _sentence(self, number: int, sentence: Sentence) -> None:
        start, end = sentence.play_ms, sentence.end_ms
        came = self._scale.x(sentence.at_ms)
        if start is None or end is None:
            middle = self._row(f"sentence {number}", "not heard", 26)
            x0 = came
        else:
            middle = self._row(f"sentence {number}", _duration(end - start), 26)
            self._bar("heard", start, end, middle, 18, f"{sentence.text} (played {_range(start, end)})")
            x0 = self._scale.x(start)
        self.parts.append(
            f'<path class="came" d="M{num(came - 4)} {num(middle - 12)}h8l-4 6z">'
            f"<title>text came at {sentence.at_ms:.0f} ms</title></path>"
        )
        self._beside(sentence.text, middle, after=x0 + 6, before=min(x0, came - 4) - 4)


# ---------------------------------------------------------------- curves


def _waveform(envelope: Sequence[tuple[float, float]], scale: Scale, middle: float, half: float) -> str:
    """Return the sound as columns of one pixel, the loudest as high as there is room."""
    columns: dict[int, float] = {}
    for at, peak in envelope:
        x = scale.x(at)
        if LEFT <= x < RIGHT and at >= scale.knees[0][0]:
            first, last = int(x), max(int(x) + 1, math.ceil(scale.x(at + 10.0)))
            for column in range(first, min(last, RIGHT)):
                columns[column] = max(columns.get(column, 0.0), peak)
    loudest = max((*columns.values(), 0.02))
    path = "".join(
        f"M{x} {num(middle - height)}h1v{num(2 * height)}h-1z"
        for x, peak in sorted(columns.items())
        for height in (max(0.5, half * min(1.0, peak / loudest)),)
    )
    return f'<path class="wave" d="{path}"/>'


def _lead(packets: Sequence[Packet], scale: Scale, base: float, height: float) -> str:
    """Return how much audio is waiting, as an area: it jumps when a packet comes and falls while one is played."""
    points: list[tuple[float, float]] = []
    free = -math.inf
    for packet in packets:
        if packet.end_ms is not None:
            points += [
                (packet.at_ms, max(0.0, free - packet.at_ms)),
                (packet.at_ms, packet.end_ms - packet.at_ms),
            ]
            if free < packet.at_ms and points[:-2]:
                points.insert(-2, (free, 0.0))
            free = packet.end_ms
    if not points:
        return ""
    points.append((free, 0.0))
    most = max(1.0, *(ahead for _, ahead in points))
    path = f"M{num(scale.x(points[0][0]))} {num(base)}" + "".join(
        f"L{num(scale.x(at))} {num(base - height * min(1.0, max(0.0, ahead) / most))}" for at, ahead in points
    )
    return f'<path class="ahead" d="{path}z"/>'


def _marks(
    style: str, packets: Sequence[Packet], scale: Scale, top: float, length: float, *, late: bool
) -> str:
    """Return a mark for every packet; of those that would run into each other, the first."""
    xs: list[float] = []
    for x in sorted(scale.x(packet.at_ms) for packet in packets if packet.late is late):
        if not xs or x - xs[-1] >= 2.0:
            xs.append(x)
    return f'<path class="{style}" d="' + "".join(f"M{num(x)} {num(top)}v{length:g}" for x in xs) + '"/>'


def _legend(top: float) -> tuple[list[str], int]:
    """Return what the colours mean, and where the picture ends."""
    parts: list[str] = []
    for number, (style, words) in enumerate(_LEGEND):
        row, column = divmod(number, LEGEND_COLUMNS)
        x, y = NAME_X + column * (RIGHT - NAME_X) / LEGEND_COLUMNS, top + 6 + 20 * row
        if style in {"tick", "late"}:
            parts.append(f'<path class="{style}" d="M{num(x + 5)} {num(y - 10)}v11"/>')
        elif style == "came":
            parts.append(f'<path class="came" d="M{num(x + 1)} {num(y - 7)}h8l-4 6z"/>')
        elif style == "abort":
            parts.append(f'<path class="abort" d="M{num(x + 5)} {num(y - 11)}l6 7l-6 7l-6 -7z"/>')
        else:
            parts.append(
                f'<rect class="{style}" x="{num(x)}" y="{num(y - 9)}" width="11" height="10" rx="2"/>'
            )
        parts.append(text_element(x + 17, y, words, "small muted", 150, 11))
    return parts, round(top + 6 + 20 * (len(_LEGEND) // LEGEND_COLUMNS - 1) + MARGIN)


# ---------------------------------------------------------------- times


def _scale(turn: TurnTimeline) -> Scale:
    spoken = turn.speech[0].start_ms if turn.speech else 0.0
    start = _within(min(spoken, 0.0, *(span.start_ms for span in turn.stages()), 0.0))
    end = max(_end(turn), 0.0)
    waited = max((span.end_ms for span in (*turn.stages(), *turn.tools)), default=0.0)
    focus = (-1500.0, _within(max(waited, 0.0)) + 2500.0)
    margin = max(60.0, 0.02 * (min(end, focus[1]) - max(start, focus[0])))
    return Scale(start - margin, end + max(margin, 0.02 * (end - focus[1])), focus)


def _end(turn: TurnTimeline) -> float:
    """Return when the last thing was over."""
    ends = [span.end_ms for span in (*turn.speech, *turn.stages(), *turn.tools)]
    ends += [sentence.at_ms for sentence in turn.sentences]
    ends += [packet.end_ms if packet.end_ms is not None else packet.at_ms for packet in turn.packets]
    ends += [at for at in (turn.tts_start_ms, turn.tts_stop_ms, *turn.aborts) if at is not None]
    return _within(max(ends, default=0.0))


def _within(ms: float) -> float:
    return min(max(ms, -LIMIT_MS), LIMIT_MS)


def _round_step(ms: float) -> float:
    """Return the next larger of 1, 2, 5, 10, 20, 50 …"""
    power = 10.0 ** math.floor(math.log10(max(ms, 1.0)))
    return next((power * digit for digit in (1, 2, 5) if power * digit >= ms), power * 10)


def _label(ms: float, step: float) -> str:
    text = f"{ms / 1000:.0f} s" if step >= 1000 and abs(ms) >= 10_000 else f"{ms:.0f}"
    return text.replace("-", "−")


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if abs(ms) < 9_999.5 else f"{ms / 1000:.1f} s"


def _range(start: float, end: float) -> str:
    return f"{start:.0f} to {end:.0f} ms"


def _summary(turn: TurnTimeline) -> str:
    """Say the figures of a turn in words, for who does not see the picture."""
    if turn.first_audio_ms is None:
        return f"{turn.origin} → first audio: none came"
    stages = ", ".join(f"{stage.name.replace('_', ' ')} {_duration(stage.end_ms)}" for stage in turn.stages())
    stop = f", tts stop {_duration(turn.tts_stop_ms)}" if turn.tts_stop_ms is not None else ""
    return f"{turn.origin} → first audio: {_duration(turn.first_audio_ms)} (after the {turn.origin}: {stages}{stop})"
