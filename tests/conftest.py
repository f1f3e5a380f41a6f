"""What all tests share."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Async tests run on the loop that the server runs on."""
    return uvloop.EventLoopPolicy()
