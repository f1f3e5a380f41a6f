"""Settings of devices that fetch their answers."""

from __future__ import annotations

import pytest

from mynah import config
from mynah.audio.outlet import LEAD_MS
from mynah.errors import ConfigError


def test_they_are_served_unless_said_otherwise_and_with_the_lead_that_the_outlet_names() -> None:
    server = config.load(environ={}, overrides=[]).server
    assert server.pull4g.enabled
    assert server.pull4g.tls
    assert server.pull4g.lead_ms == LEAD_MS
    assert server.pull4g_port == 10002


@pytest.mark.parametrize("lead", ["999", "30001", "much"])
def test_a_lead_that_bridges_nothing_or_fills_the_device_is_refused(lead: str) -> None:
    with pytest.raises(ConfigError, match="lead_ms"):
        config.load(environ={}, overrides=[f"server.pull4g.lead_ms={lead}"])


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_is_a_port(port: str) -> None:
    with pytest.raises(ConfigError, match="pull4g_port"):
        config.load(environ={}, overrides=[f"server.pull4g_port={port}"])


def test_all_of_them_can_be_set() -> None:
    given = [
        "server.pull4g.enabled=false",
        "server.pull4g.lead_ms=1000",
        "server.pull4g.tls=false",
        "server.pull4g_port=0",
    ]
    server = config.load(environ={}, overrides=given).server
    assert (server.pull4g.enabled, server.pull4g.lead_ms, server.pull4g.tls, server.pull4g_port) == (
        False,
        1000,
        False,
        0,
    )
