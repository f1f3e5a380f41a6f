"""What all tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop
from hypothesis import HealthCheck, settings

# Machines that run the suite may be busy: how long an example takes says nothing about the code.
settings.register_profile("mynah", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mynah")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on the loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}
