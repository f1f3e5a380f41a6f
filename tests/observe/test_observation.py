"""What is attached to a server, and what is not even imported when it is switched off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from mynah import config, observe
from mynah.app import Addresses
from mynah.observe.observation import Observation
from tests.observe.exposed import Values, read, value
from tests.servers import app, connect

SPEAKS_SHORTLY = "TTS.FakeTTS.seconds=0.2"


async def scrape(at: Addresses) -> Values:
    async with (
        aiohttp.ClientSession() as http,
        http.get(at.ota.replace("/xiaozhi/ota/", "/metrics")) as reply,
    ):
        assert reply.status == 200
        return read(await reply.read())


async def test_a_conversation_is_counted(tmp_path: Path) -> None:
    async with app(tmp_path, SPEAKS_SHORTLY) as (_, at), connect(at.ws) as device:
        await device.hello()
        await device.say(type="listen", state="detect", text="tell me something")
        await device.until("tts", "stop")
        found = await scrape(at)
        assert value(found, "mynah_turns_total", mode="text", outcome="done") == 1
        assert value(found, "mynah_turn_stage_seconds_count", stage="first_frame") == 1
        assert value(found, "mynah_provider_requests_total", kind="LLM", provider="FakeLLM") == 1
        assert value(found, "mynah_provider_first_result_seconds_count", kind="TTS", provider="FakeTTS") >= 1
        assert value(found, "mynah_frames_sent_total") >= 3
        assert sum(count for (name, _), count in found.items() if name == "mynah_sessions") == 1
        assert 0 < value(found, "mynah_connections_limit") <= 25000, "of benchmarks/fakes.yaml, or what fits"
        assert value(found, "mynah_event_loop_lag_seconds_count") > 0
        assert value(found, "mynah_memory_limit_bytes") > 0


async def test_calls_of_tools_are_counted(tmp_path: Path) -> None:
    overrides = ("selected_module.LLM=Builtin", "selected_module.Intent=function_call", SPEAKS_SHORTLY)
    async with app(tmp_path, *overrides) as (_, at), connect(at.ws) as device:
        await device.hello()
        await device.say(type="listen", state="detect", text="what time is it")
        await device.until("tts", "stop")
        assert value(await scrape(at), "mynah_tool_seconds_count", tool="get_time") == 1


@pytest.mark.parametrize(
    ("override", "reason"),
    [("server.limits.max_connections=1", "full"), ("server.auth.enabled=true", "no_token")],
)
async def test_refused_connections_are_counted_by_reason(tmp_path: Path, override: str, reason: str) -> None:
    async with app(tmp_path, override, "server.overload.reserve=0", SPEAKS_SHORTLY) as (server, at):
        for number in range(2):
            try:
                async with connect(at.ws, f"02:00:00:00:00:0{number}") as device, connect(at.ws, "02::9"):
                    await device.hello()
            except aiohttp.WSServerHandshakeError as error:
                assert error.status in {401, 503}
        assert server.devices is not None
        found = await scrape(at)
        assert value(found, "mynah_connections_refused_total", reason=reason) >= 1


async def test_a_wrong_token_is_told_from_none(tmp_path: Path) -> None:
    async with app(tmp_path, "server.auth.enabled=true") as (_, at):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with connect(at.ws, Authorization="Bearer wrong"):
                pass
        assert value(await scrape(at), "mynah_connections_refused_total", reason="wrong_token") == 1


async def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    async with app(tmp_path, "server.metrics=false", SPEAKS_SHORTLY) as (_, at):
        async with connect(at.ws) as device:
            await device.hello()
            await device.say(type="listen", state="detect", text="tell me something")
            await device.until("tts", "stop")
        url = at.ota.replace("/xiaozhi/ota/", "/metrics")
        async with aiohttp.ClientSession() as http, http.get(url) as reply:
            assert reply.status == 404


async def test_from_another_machine_the_token_opens(tmp_path: Path) -> None:
    """This machine's other loopback addresses are its own, so the header of a proxy stands for the other machine."""
    token = "0123456789abcdef"
    async with app(tmp_path, f"server.metrics_token={token}") as (_, at):
        url = f"http://127.0.0.1:{urlsplit(at.ota).port}/metrics"
        far = {"X-Forwarded-For": "192.0.2.1"}
        async with aiohttp.ClientSession() as http:
            async with http.get(url, headers=far) as reply:
                assert reply.status == 401
            async with http.get(url, headers={**far, "Authorization": f"Bearer {token}"}) as reply:
                assert b"mynah_sessions" in await reply.read()


def test_with_all_switched_off_there_is_the_log_alone() -> None:
    off = Observation(config.defaults("server.metrics=false"), {})
    assert isinstance(off.observer, observe.TurnLog)
    assert off.on_refused is None
    assert off.on_lag is None


async def test_what_is_switched_off_is_not_even_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from mynah import app, config; from mynah.observe import Observation;"
        "Observation(config.defaults('server.metrics=false'), {});"
        "print([name for name in sys.modules if name.split('.')[0] in ('prometheus_client', 'opentelemetry')])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert (await process.communicate())[0].strip() == b"[]"
