"""Binding with the real process: codes are typed into its terminal, and what is bound outlives a crash."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.raw_http import ask, boot, named
from tests.servers import LOOPBACK

pytestmark = pytest.mark.e2e


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "mynah.cli", "serve"]
    for override in (*LOOPBACK, "server.binding=code"):
        command += ["-s", override]
    process = subprocess.Popen(
        command, cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready.startswith("READY "), ready
    return process, ready.split("ota=")[1].split()[0]


async def test_a_code_typed_into_the_terminal_binds_for_good(tmp_path: Path) -> None:
    process, ota = start(tmp_path)
    try:
        code = (await boot(ota))["activation"]["code"]
        assert (await ask(f"{ota}activate", {}, headers=named())).status == 202
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"bind {code} kitchen\n")
        process.stdin.flush()
        assert "is bound as kitchen" in await asyncio.to_thread(process.stdout.readline)
        assert (await ask(f"{ota}activate", {}, headers=named())).status == 200
        kept = tmp_path / "data" / "devices.json"
        async with asyncio.timeout(20):  # it is written beside the event loop
            while not kept.exists():
                await asyncio.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    process, ota = start(tmp_path)
    try:
        assert "activation" not in await boot(ota)
        assert "activation" in await boot(ota, device_id="02:00:00:00:00:02")
    finally:
        process.kill()
        process.communicate()
