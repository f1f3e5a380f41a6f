"""Thresholds of overload: full is beyond tense."""

from __future__ import annotations

from pathlib import Path

import pytest

from mynah.config import Settings, load
from mynah.dialogue.admission import Thresholds
from mynah.engine import _admission
from mynah.errors import ConfigError


def test_the_defaults_are_those_of_the_rule_itself() -> None:
    assert _admission(Settings())._thresholds == Thresholds()


@pytest.mark.parametrize("name", ["lag", "queue"])
def test_full_is_beyond_tense(name: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("{}", "utf-8")
    with pytest.raises(ConfigError, match=f"full_{name}_ms.*must be more than tense_{name}_ms"):
        load(
            file, [f"server.overload.tense_{name}_ms=400", f"server.overload.full_{name}_ms=400"], environ={}
        )


def test_settings_reach_the_rule(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("server: {overload: {enabled: false, full_lag_ms: 250, always: 3}}", "utf-8")
    made = _admission(load(file, environ={}))
    assert not made.enabled
    assert (made._thresholds.lag_s.full, made._thresholds.always) == (0.25, 3)
