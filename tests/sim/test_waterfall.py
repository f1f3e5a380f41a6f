import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim import waterfall
from mynah.sim.timeline import Origin, Packet, Sentence, Span, TurnTimeline, played
from mynah.sim.waterfall import LEFT, MAX_ROWS, MAX_TURNS, RIGHT, WIDTH, Scale, draw
from mynah.sim.waterfall_svg import cut, escaped, width_of

SVG = "{http://www.w3.org/2000/svg}"

texts = st.text(st.characters() | st.sampled_from("\x00\x1b\x7f\u202e\ufffe\ud800<>&\"'天👩‍ "), max_size=60)
times = st.floats(-1e9, 1e9) | st.floats(-2000, 20000)
maybe = st.none() | times


@st.composite
def spans(draw_: st.DrawFn) -> Span:
    start = draw_(times)
    return Span(draw_(texts), start, start + draw_(st.floats(0, 30000)))


@st.composite
def sentences(draw_: st.DrawFn) -> Sentence:
    at = draw_(times)
    play = draw_(st.none() | st.just(at))
    return Sentence(draw_(texts), at, play, None if play is None else play + draw_(st.floats(0, 30000)))


turns = st.builds(
    TurnTimeline,
    said=texts,
    origin=st.sampled_from(Origin),
    error=texts,
    envelope=st.lists(st.tuples(times, st.floats(0, 1)), max_size=5).map(tuple),
    speech=st.lists(spans(), max_size=3).map(tuple),
    microphone=st.lists(spans(), max_size=3).map(tuple),
    stt=texts,
    stt_ms=maybe,
    tts_start_ms=maybe,
    first_audio_ms=maybe,
    tts_stop_ms=maybe,
    sentences=st.lists(sentences(), max_size=4).map(tuple),
    packets=st.lists(st.tuples(times, st.floats(0, 120)), max_size=5).map(
        lambda found: played(sorted(found))
    ),
    tools=st.lists(spans(), max_size=3).map(tuple),
    aborts=st.lists(times, max_size=2).map(tuple),
)

TURN = TurnTimeline(
    said="turn on the lamp",
    envelope=tuple((float(at), 0.5) for at in range(-1000, 0, 10)),
    speech=(Span("speech", -1000, -600), Span("speech", -300, 0)),
    microphone=(Span("microphone", -1200, 300),),
    stt="turn on a lamp",
    stt_ms=200,
    tts_start_ms=210,
    first_audio_ms=312.4,
    tts_stop_ms=2000,
    sentences=(Sentence("It is on.", 300, 312, 900), Sentence("Anything <else>?", 900, 950, 2100)),
    packets=played([(312.4 + 60 * number + 50 * (number == 5), 60) for number in range(10)]),
    tools=(Span("self.lamp.turn_on", 220, 290),),
    aborts=(1900,),
)


def told(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def check_room(svg: str) -> None:
    """No text leaves the picture, and none runs into another on its line."""
    lines: dict[float, list[tuple[float, float, str]]] = defaultdict(list)
    for element in ET.fromstring(svg).iter(f"{SVG}text"):
        text, style = element.text or "", element.get("class", "")
        size = 20 if "headline" in style else 11 if "small" in style else 12
        width, x = width_of(text, size), float(element.get("x", "nan"))
        x -= width if {"end", "value"} & set(style.split()) else width / 2 if "middle" in style else 0
        assert x >= -0.1, text
        assert x + width <= WIDTH, text
        lines[float(element.get("y", "nan"))].append((x, x + width, text))
    for line in lines.values():
        for before, after in itertools.pairwise(sorted(line)):
            assert before[1] <= after[0] + 0.2, (before, after)


@given(st.lists(turns, max_size=3))
def test_whatever_happens_the_picture_is_legal_and_nothing_overlaps(seen: list[TurnTimeline]) -> None:
    svg = draw(seen)
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")
    assert svg.encode("utf-8")
    assert not re.search(r"\b(nan|inf)\b", re.sub(r">[^<]*<", "><", svg))
    check_room(svg)
    for rect in root.iter(f"{SVG}rect"):
        x, width = float(rect.get("x", "nan")), float(rect.get("width", "nan"))
        assert 0 <= x <= x + width <= WIDTH + 0.1


def test_what_a_turn_shows() -> None:
    svg = draw([TURN])
    shown = told(svg)
    assert shown[0] == "end of speech → first audio: 312 ms"
    rows = dict(reversed(list(itertools.pairwise(shown))))
    for name, value in (
        ("user's speech", "1000 ms"),
        ("microphone open", "1500 ms"),
        ("wait for first audio", "312 ms"),
        ("end of speech → stt", "200 ms"),
        ("stt → tts start", "10 ms"),
        ("tts start → first audio", "102 ms"),
        ("tool call", "70 ms"),
        ("abort → tts stop", "100 ms"),
        ("tts start → tts stop", "1790 ms"),
        ("audio packets", "10"),
        ("sentence 1", "588 ms"),
        ("sentence 2", "1150 ms"),
    ):
        assert rows[name] == value
    for text in (
        "said: turn on the lamp · understood: turn on a lamp",
        "longest pause 300 ms",
        "300",  # below the pause
        "up to 50 ms ahead, 1 late",
        "self.lamp.turn_on",
        "It is on.",
        "Anything <else>?",
    ):
        assert text in shown
    marks = {
        element.get("class"): (element.get("d") or "").count("M")
        for element in ET.fromstring(svg).iter(f"{SVG}path")
        if element.get("class") in {"tick", "late"} and "v9" in (element.get("d") or "") + "v12v9"
    }
    assert set(marks) == {"tick", "late"}
    assert "first audio 312 ms, tts stop 2000 ms" in (ET.fromstring(svg).findtext(f"{SVG}desc") or "")


def test_bars_stand_where_the_scale_says() -> None:
    svg = draw([TURN])
    root = ET.fromstring(svg)
    zero = next(
        float(line.get("x1", "nan")) for line in root.iter(f"{SVG}line") if line.get("class") == "zero"
    )
    goal = next(
        float(line.get("x1", "nan")) for line in root.iter(f"{SVG}line") if line.get("class") == "goal"
    )
    waits = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "wait"][:3]
    edges = [
        (float(r.get("x", "nan")), float(r.get("x", "nan")) + float(r.get("width", "nan"))) for r in waits
    ]
    assert edges[0][0] == pytest.approx(zero, abs=0.2)
    assert edges[-1][1] == pytest.approx(goal, abs=0.2)
    assert (edges[0][1] - zero) / (goal - zero) == pytest.approx(200 / 312.4, abs=0.01)


def test_the_device_was_not_answered() -> None:
    shown = told(draw([TurnTimeline(said="hello", error="no answer came within 30 s")]))
    assert shown[0] == "end of speech → first audio: none came"
    assert "no answer came within 30 s" in shown
    assert "nothing was said" in told(draw([TurnTimeline()]))
    assert "There was no turn." in draw([])


def test_a_reply_without_end_and_a_sentence_that_was_cut_off() -> None:
    seen = TurnTimeline(tts_start_ms=100, sentences=(Sentence("Hi.", 200),), aborts=(150,))
    shown = told(draw([seen]))
    rows = dict(reversed(list(itertools.pairwise(shown))))
    assert (rows["tts start → tts stop"], rows["sentence 1"]) == ("no stop", "not heard")
    assert "abort" in shown


def test_long_conversations_and_long_replies_are_cut_with_a_word() -> None:
    many = MAX_ROWS + 4
    long = TurnTimeline(
        sentences=tuple(Sentence(f"Number {number}.", number * 10.0) for number in range(many)),
        tools=tuple(Span("tool", number * 10.0, number * 10.0) for number in range(many)),
    )
    shown = told(draw([TURN] * MAX_TURNS + [long, long]))
    assert shown.count("and 4 more sentences") == 2
    assert shown.count("and 4 more tool calls") == 2
    assert "2 earlier turns are not shown" in shown
    assert f"turn 3 of {MAX_TURNS + 2}" in shown
    assert f"turn 2 of {MAX_TURNS + 2}" not in shown
    assert f"turn {MAX_TURNS + 2} of {MAX_TURNS + 2}" in shown


def test_a_long_reply_is_squeezed_and_the_wait_is_not() -> None:
    stop = 60_000.0
    packets = tuple(Packet(300.0 + 60 * n, 300.0 + 60 * n, 360.0 + 60 * n) for n in range(990))
    seen = TurnTimeline(stt_ms=200, tts_start_ms=210, first_audio_ms=300, tts_stop_ms=stop, packets=packets)
    svg = draw([seen])
    assert any(re.fullmatch(r"[\d.]+× faster", text) for text in told(svg))
    (wait,) = (e for e in ET.fromstring(svg).iter(f"{SVG}path") if e.get("class") == "measure")
    start, end = (float(x) for x in re.findall(r"M([\d.]+) ", wait.get("d") or "")[::2])
    assert end - start > 40  # of 600 px, for 0.5 % of the time
    (ticks,) = (e.get("d") or "" for e in ET.fromstring(svg).iter(f"{SVG}path") if "v9" in (e.get("d") or ""))
    assert ticks.count("M") <= (RIGHT - LEFT) / 2


@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.floats(0, 1e4), st.lists(times, min_size=2))
def test_later_is_never_further_left(start: float, end: float, waited: float, at: list[float]) -> None:
    scale = Scale(start - 60, end + 60, (-1500.0, waited + 2500.0))
    xs = [scale.x(ms) for ms in sorted(at)]
    assert all(before <= after + 1e-6 for before, after in itertools.pairwise(xs))
    assert all(LEFT <= x <= RIGHT for x in xs)
    assert scale.x(start - 60) == LEFT
    assert scale.x(end + 60) == RIGHT
    labels = scale.ticks()
    assert "0" in [label for _, label in labels]
    assert all(after[0] - before[0] >= waterfall.LABEL_PX for before, after in itertools.pairwise(labels))
    for x, label in labels:
        ms = float(label.replace("−", "-").removesuffix(" s")) * (1000 if label.endswith(" s") else 1)
        assert scale.x(ms) == pytest.approx(x, abs=0.01)


@given(texts, st.floats(0, 400))
def test_a_text_is_cut_to_its_room(text: str, room: float) -> None:
    shown = cut(text, room, 12)
    assert width_of(shown, 12) <= room
    assert len(shown) <= len(text) + 1


@given(texts)
def test_any_text_is_legal_xml(text: str) -> None:
    shown = ET.fromstring(f"<text>{escaped(text)}</text>").text or ""
    assert shown == " ".join(shown.split())
    plain = re.sub(r"[^a-z天👩<>&\"']", "", text)
    assert re.sub(r"[^a-z天👩<>&\"']", "", shown) == plain


def test_steps_of_the_axis_are_round() -> None:
    for ms in (0.0, 1.0, 1.1, 3.0, 64.0, 700.0, 9_999.0):
        step = waterfall._round_step(ms)
        assert step >= max(ms, 1.0)
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in {1, 2, 5}
