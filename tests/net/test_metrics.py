"""Who is told the metrics over HTTP, and who is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import config
from mynah.net.http import DeviceHttp
from mynah.net.metrics import CONTENT_TYPE, PATH, MetricsService
from mynah.net.ota import OtaService
from mynah.security.tokens import Authenticator, TokenIssuer
from tests.conformance.raw_http import Answer, ask

TOKEN = "correct horse battery"
BODY = b"mynah_talking 1.0\n"


async def write() -> bytes:
    return BODY


@asynccontextmanager
async def serving(service: MetricsService, ip: str = "0.0.0.0") -> AsyncIterator[str]:
    settings = config.defaults("server.auth.enabled=false")
    ota = OtaService(settings, 8000, Authenticator(settings, TokenIssuer(b"0" * 32)))
    http = DeviceHttp(settings, ota, lambda: True, list(service.routes()))
    try:
        yield f"http://127.0.0.1:{await http.start(ip, 0)}{PATH}"
    finally:
        await http.stop()


async def get(url: str, **headers: str) -> Answer:
    return await ask(url, method="GET", headers={name.replace("_", "-"): v for name, v in headers.items()})


async def test_a_program_on_this_machine_needs_no_token() -> None:
    for token in ("", TOKEN):
        async with serving(MetricsService(write, token)) as url:
            answer = await get(url)
            assert (answer.status, answer.body) == (200, BODY)
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            named = await get(url, Host=f"localhost:{urlsplit(url).port}")
            assert named.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},  # a page whose owner lets its name lead here
        {"Host": "evil.example:8003"},
        {"Host": "[::"},
    ],
)
async def test_what_comes_through_a_proxy_or_a_browser_needs_the_token(headers: dict[str, str]) -> None:
    async with serving(MetricsService(write, "")) as url:
        refused = await get(url, **headers)
        assert refused.status == 403
        assert b"server.metrics_token" in refused.body, "says what to set"
        assert BODY not in refused.body
    async with serving(MetricsService(write, TOKEN)) as url:
        refused = await get(url, **headers)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert BODY not in refused.body
        assert (await get(url, **headers, Authorization=f"Bearer {TOKEN}")).body == BODY


async def test_without_metrics_there_is_no_such_call() -> None:
    async with serving(MetricsService(None, TOKEN)) as url:
        assert (await get(url)).status == 404


def test_only_the_token_opens() -> None:
    service = MetricsService(write, TOKEN)
    assert service.admits(f"Bearer {TOKEN}")
    assert service.admits(f"bearer  {TOKEN} ")
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
    ):
        assert not service.admits(wrong)
    assert not MetricsService(write, "").admits("Bearer ")


@given(st.text())
def test_nothing_else_opens(told: str) -> None:
    assert not MetricsService(write, TOKEN).admits(told)
    assert not MetricsService(write, "").admits(f"Bearer {told}")
