"""What the guides say about proxies and about capacity is so."""

import json
import re
from pathlib import Path

import pytest

from mynah import config
from mynah.net.address import FORWARDING_HEADERS
from mynah.net.metrics import MetricsService
from mynah.security.tokens import Authenticator, AuthReason, TokenIssuer
from tests.net.test_metrics import BODY, TOKEN, get, serving, write

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("folder", ["docs", "docs/zh"])
def test_who_puts_a_proxy_in_front_is_told_what_it_has_to_send(folder: str) -> None:
    (metrics,) = [
        part for part in read(f"{folder}/observability.md").split("\n\n") if "`X-Forwarded-For`" in part
    ]
    assert "`/metrics`" in metrics
    assert "(connect-a-device.md#" in metrics
    named = {name.lower() for name in re.findall(r"`([A-Z][\w-]+)`", metrics)}
    assert len(named) >= 4
    assert named <= FORWARDING_HEADERS
    device = read(f"{folder}/connect-a-device.md").rpartition("\n## ")[2]
    assert "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" in device
    assert "location = /metrics { return 404; }" in device


async def test_a_proxy_of_this_machine_that_says_nothing_is_taken_for_a_program_of_it() -> None:
    async with serving(MetricsService(write, TOKEN)) as url:
        # What nginx sends by itself: its own name for the server, and no word of the client.
        silent = await get(url, Connection="close")
        assert (silent.status, silent.body) == (200, BODY), "else the guides warn for nothing"
        assert (await get(url, Connection="close", X_Forwarded_For="192.0.2.1")).status == 401
    auth = Authenticator(config.defaults("server.ip=0.0.0.0"), TokenIssuer(b"0" * 32))
    device = (None, "02:00:00:00:00:01", "", "127.0.0.1")
    assert auth.check(*device, forwarded=False).reason is AuthReason.LOOPBACK
    assert not auth.check(*device, forwarded=True).ok


@pytest.mark.parametrize(
    ("front", "page"), [("README.md", "capacity.md"), ("README.zh.md", "zh/capacity.md")]
)
def test_the_front_page_promises_what_was_measured(front: str, page: str) -> None:
    text = read(front)
    assert text.count("`mynah loadtest`") == 1
    assert f"](docs/{page})" in text
    devices, talkers = (int(found.replace(" ", "")) for found in re.findall(r"\*\*([\d ]+)\D[^*]*\*\*", text))
    best = {
        name: max(step["devices"] for step in told["steps"] if step["passed"])
        for name in ("idle", "talkers")
        if (told := json.loads(read(f"benchmarks/capacity/{name}/report.json")))
    }
    assert (devices, talkers) == (best["idle"], best["talkers"])
    assert all(f"{number:,}".replace(",", " ") in read(f"docs/{page}") for number in (devices, talkers))
