"""Settings of metrics and traces."""

from __future__ import annotations

import pytest

from mynah import config
from mynah.errors import ConfigError


def test_metrics_are_on_and_traces_are_off() -> None:
    settings = config.defaults()
    assert settings.server.metrics
    assert not settings.tracing.endpoint
    assert not settings.tracing.words


def test_an_address_of_a_collector() -> None:
    assert config.defaults("tracing.endpoint= http://c:4318/ ").tracing.endpoint == "http://c:4318"
    with pytest.raises(ConfigError, match=r"tracing\.endpoint.*http://"):
        config.defaults("tracing.endpoint=c:4317")


def test_a_token_is_long_and_kept_secret() -> None:
    with pytest.raises(ConfigError, match=r"server\.metrics_token.*16"):
        config.defaults("server.metrics_token=short")
    settings = config.defaults("server.metrics_token=0123456789abcdef")
    assert "0123456789abcdef" in config.secret_values(settings)
    assert "0123456789abcdef" not in repr(settings)
