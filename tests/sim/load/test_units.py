import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.sim.load.units import NOTHING, Unit, scale, show


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (None, Unit.MS, NOTHING),
        (math.nan, Unit.MS, NOTHING),
        (math.inf, Unit.BYTES, NOTHING),
        (0, Unit.MS, "0 ms"),
        (0.0424, Unit.MS, "0.042 ms"),
        (4.036, Unit.MS, "4.04 ms"),
        (312.4, Unit.MS, "312 ms"),
        (1624, Unit.MS, "1,624 ms"),
        (15_230, Unit.MS, "15.2 s"),
        (61.04, Unit.SECONDS, "61.0 s"),
        (3600, Unit.SECONDS, "60.0 min"),
        (20_000, Unit.COUNT, "20,000"),
        (0.5, Unit.COUNT, "0.5"),
        (998, Unit.BYTES, "998 B"),
        (29_600, Unit.BYTES, "29.6 KB"),
        (999_800, Unit.BYTES, "1 MB"),
        (8_340_000_000, Unit.BYTES, "8.34 GB"),
        (1_500_000, Unit.BYTES_PER_S, "1.5 MB/s"),
        (0.464, Unit.CORES, "0.46"),
        (298.4, Unit.PER_S, "298/s"),
        (1, Unit.SHARE, "100 %"),
        (0, Unit.SHARE, "0 %"),
        (0.976, Unit.SHARE, "97.6 %"),
        (0.9996, Unit.SHARE, "99.96 %"),
        (0.999999, Unit.SHARE, "> 99.99 %"),
        (0.00001, Unit.SHARE, "< 0.01 %"),
        (0.004, Unit.SHARE, "0.40 %"),
    ],
)
def test_what_people_read(value: float | None, unit: Unit, told: str) -> None:
    assert show(value, unit) == told


@given(st.floats(0, 1), st.sampled_from(Unit))
def test_nothing_is_rounded_to_perfection(value: float, unit: Unit) -> None:
    told = show(value, Unit.SHARE)
    assert (told == "100 %") == (value == 1)
    assert (told == "0 %") == (value == 0)


@given(st.floats(), st.sampled_from(Unit))
def test_any_number_can_be_shown_in_little_room(value: float, unit: Unit) -> None:
    assert 1 <= len(show(value, unit)) <= 28
    assert scale(abs(value), unit).factor > 0
