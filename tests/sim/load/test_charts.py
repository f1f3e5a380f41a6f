import itertools
import re
import xml.etree.ElementTree as ET
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.sim.load.charts import (
    LEFT,
    MAX_CATEGORIES,
    MAX_POINTS,
    PLOT,
    RIGHT,
    WIDTH,
    Band,
    Bars,
    Limit,
    Mark,
    Series,
    row_chart,
    step_chart,
    time_chart,
)
from mynah.sim.load.units import Unit
from mynah.sim.load.words import Words, same
from mynah.sim.waterfall_svg import width_of

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Words("time", "时间"), Words("load", "负载")

texts = st.text(st.characters() | st.sampled_from("\x00\x1b\u202e\ufffe<>&\"'天👩‍ "), max_size=60)
values = st.floats() | st.floats(0, 1000)
names = st.builds(Words, texts, texts)
lines = st.builds(Series, names, st.lists(st.tuples(st.floats(0, 1e5), st.none() | values), max_size=30))
units = st.sampled_from(Unit)


def checked(svg: str) -> ET.Element:
    """Well-formed, finite, inside its box, and no text runs into another in either language."""
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert not re.search(r"\b(nan|inf)\b", re.sub(r">[^<]*<", "><", svg))
    height = float(root.get("viewBox", "").split()[3])
    rows: dict[tuple[float, str], list[tuple[float, float, str]]] = defaultdict(list)
    for element in root.iter(f"{SVG}text"):
        text, style = element.text or "", set((element.get("class") or "").split())
        width = width_of(text, 11 if "small" in style else 12)
        x = float(element.get("x", "nan"))
        x -= width if "end" in style else width / 2 if "middle" in style else 0
        y = float(element.get("y", "nan"))
        assert x >= -0.1, text
        assert x + width <= WIDTH + 0.1, text
        assert 0 <= y <= height
        for language in {"en", "zh"} & style or {"en", "zh"}:
            rows[(y, language)].append((x, x + width, text))
    for row in rows.values():
        for one, other in itertools.pairwise(sorted(row)):
            assert one[1] <= other[0] + 0.5, (one, other)
    for rect in root.iter(f"{SVG}rect"):
        x, width = float(rect.get("x", "nan")), float(rect.get("width", "nan"))
        assert -0.1 <= x <= x + width <= WIDTH + 0.1
        assert float(rect.get("height", "nan")) >= 0
    return root


@settings(max_examples=60)
@given(
    st.lists(lines, max_size=4),
    units,
    st.lists(st.builds(Limit, names, values), max_size=2),
    st.lists(st.builds(Band, st.floats(0, 100), st.floats(100, 1e4), st.just("12")), max_size=3),
    st.lists(st.builds(Mark, st.floats(0, 1e4), st.just("▾1")), max_size=5),
)
def test_any_time_chart_is_sound(
    series: list[Series], unit: Unit, limits: list[Limit], bands: list[Band], marks: list[Mark]
) -> None:
    checked(time_chart(series, unit, Y, X, limits=limits, bands=bands, marks=marks))


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["1", "100", "20k", "12345"]), max_size=30),
    st.lists(st.builds(Bars, names, st.lists(st.none() | values, max_size=30)), max_size=3),
    units,
    st.booleans(),
    st.none() | st.booleans(),
)
def test_any_step_chart_is_sound(
    categories: list[str], series: list[Bars], unit: Unit, bars: bool, log: bool | None
) -> None:
    checked(step_chart(categories, series, unit, Y, X, bars=bars, log=log))


@given(st.lists(st.tuples(texts, values), max_size=20), units)
def test_any_row_chart_is_sound(rows: list[tuple[str, float]], unit: Unit) -> None:
    checked(row_chart(rows, unit))


def path_of(root: ET.Element, style: str) -> list[tuple[float, float]]:
    (d,) = (
        path.get("d", "")
        for path in root.iter(f"{SVG}path")
        if path.get("class") == style and len(path.get("d", "")) > 10
    )
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", d)]


def test_a_line_goes_where_its_values_are() -> None:
    svg = time_chart([Series(same("load"), [(0, 0), (50, 10), (100, 5)])], Unit.COUNT, Y, X)
    places = path_of(checked(svg), "s0")
    bottom = places[0][1]
    assert [x for x, _ in places] == [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    assert [bottom - y for _, y in places] == [0, PLOT, PLOT / 2]


def test_a_gap_is_not_bridged_and_a_lonely_point_is_seen() -> None:
    svg = time_chart(
        [Series(same("load"), [(0, 1), (1, 2), (2, None), (3, 4), (4, None), (5, 6), (6, 7)])],
        Unit.COUNT,
        Y,
        X,
    )
    assert [d.count("M") for d in re.findall(r'class="s0" d="([^"]{20,})"', svg)] == [2]
    assert svg.count("s0 dot") == 3, "one in each legend, one for the lonely point"


def test_bars_are_as_high_as_their_values() -> None:
    svg = step_chart(["1", "2"], [Bars(same("a"), [5, 10])], Unit.COUNT, Y, X, bars=True)
    heights = [
        float(r.get("height", "")) for r in checked(svg).iter(f"{SVG}rect") if r.get("class") == "s0 bar"
    ]
    assert heights == [PLOT / 2, PLOT]
    assert "<title>2: a 10</title>" in svg


def test_a_logarithmic_axis_is_taken_where_values_need_it() -> None:
    wide = step_chart(["1", "2"], [Bars(same("a"), [1, 1000])], Unit.MS, Y, X, log=None)
    narrow = step_chart(["1", "2"], [Bars(same("a"), [900, 1000])], Unit.MS, Y, X, log=None)
    assert ">10<" in wide
    assert ">10<" not in narrow


def test_titles_and_units_stand_at_the_axes_in_both_languages() -> None:
    svg = time_chart([Series(same("a"), [(0, 2e9), (3600, 4e9)])], Unit.BYTES, Words("memory", "内存"), X)
    told = {element.text for element in checked(svg).iter(f"{SVG}text")}
    assert {"memory, GB", "内存（GB）", "time, min", "时间（min）", "4", "60"} <= told
    assert 'aria-labelledby="a b"' in time_chart([], Unit.MS, Y, X, label_id="a b")


def test_nothing_to_draw_is_said() -> None:
    assert "no data" in time_chart([], Unit.MS, Y, X)
    assert "没有数据" in step_chart([], [], Unit.MS, Y, X)
    assert "no data" in row_chart([], Unit.COUNT)
    assert "no data" not in row_chart([("a", 1)], Unit.COUNT)


def test_much_data_makes_a_small_picture() -> None:
    points = [(float(at), float(at % 97)) for at in range(100_000)]
    svg = time_chart([Series(same("a"), points)], Unit.COUNT, Y, X)
    assert len(path_of(checked(svg), "s0")) <= MAX_POINTS
    many = step_chart(
        [str(n) for n in range(5000)], [Bars(same("a"), [1.0] * 5000)], Unit.MS, Y, X, bars=True
    )
    assert sum(r.get("class") == "s0 bar" for r in ET.fromstring(many).iter(f"{SVG}rect")) == MAX_CATEGORIES


def test_labels_leave_out_what_has_no_room_but_not_the_last() -> None:
    svg = step_chart([str(100 * n) for n in range(1, 101)], [Bars(same("a"), [1.0] * 100)], Unit.MS, Y, X)
    labels = [e.text for e in checked(svg).iter(f"{SVG}text") if "middle" in (e.get("class") or "")]
    assert labels[-1] == "10000"
    assert 5 < len(labels) < 20
