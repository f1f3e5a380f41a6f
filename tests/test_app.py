"""The composition root."""

from __future__ import annotations

from pathlib import Path

import pytest

from mynah.app import Addresses, App
from mynah.config import load
from mynah.errors import PortInUseError, ProviderError
from tests.servers import FAKES, LOOPBACK, app


def test_ready_line_names_every_service() -> None:
    line = Addresses("ws://h:1/xiaozhi/v1/", "http://h:2/xiaozhi/ota/").ready_line()
    assert line == "READY ws=ws://h:1/xiaozhi/v1/ ota=http://h:2/xiaozhi/ota/"


async def test_ports_are_free_ones_and_on_loopback(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, one), app(tmp_path) as (_, other):
        assert one.ws != other.ws
        assert one.ws.startswith("ws://127.0.0.1:")


async def test_a_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        taken = at.ws.rsplit(":", 1)[1].split("/")[0]
        settings = load(FAKES, [*LOOPBACK, f"log.data_dir={tmp_path}", f"server.port={taken}"], environ={})
        server = App(settings)
        with pytest.raises(PortInUseError, match=r"server\.port"):
            await server.start()
        await server.stop()
        await server.stop()


async def test_providers_that_cannot_start_stop_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mynah.providers.tts.fake import FakeTts

    async def broken(self: object) -> None:
        raise ValueError("no voice")  # a vendor's error, not one of ours

    monkeypatch.setattr(FakeTts, "start", broken)
    server = App(load(FAKES, [*LOOPBACK, f"log.data_dir={tmp_path}"], environ={}))
    with pytest.raises(ProviderError, match="no voice"):
        await server.start()
    await server.stop()


async def test_only_the_listed_functions_are_offered(tmp_path: Path) -> None:
    listed = 'Intent.function_call={"type": "function_call", "functions": ["get_time", "nobody"]}'
    async with app(tmp_path, "selected_module.Intent=function_call", listed) as (server, _):
        assert server.devices is not None
        tools = server.devices._services.toolbox.for_session(None)
        assert [spec.name for spec in tools.specs()] == ["get_time"]
    async with app(tmp_path, "selected_module.Intent=function_call") as (server, _):
        assert server.devices is not None
        assert len(server.devices._services.toolbox.for_session(None).specs()) > 10
