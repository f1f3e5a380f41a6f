"""The operator's console on standard input."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest

from mynah.console.terminal import HELP, Terminal
from tests.servers import app, connect


async def test_commands(tmp_path: Path) -> None:
    stopped: list[bool] = []
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        terminal = Terminal(server.devices, lambda: stopped.append(True))
        assert terminal.run("help") == HELP
        assert terminal.run("status") == "0 devices connected"
        assert terminal.run("devices") == "no device is connected"
        async with connect(at.ws) as device:
            await device.hello()
            assert terminal.run(" STATUS ") == "1 device connected: 1 idle"
            assert "02:00:00:00:00:01" in terminal.run("devices")
            assert terminal.run("say 02:00:00:00:00:01 dinner is ready") == "ok"
            assert (await device.until("tts", "sentence_start"))["text"] == "dinner is ready"
            assert "not connected" in terminal.run("say ff:ff hello")
            assert terminal.run("say").startswith("usage")
        assert "help" in terminal.run("frobnicate")
        assert terminal.run("quit") == "stopping"
        assert stopped == [True]


async def test_lines_are_read_from_a_stream(tmp_path: Path) -> None:
    out = io.StringIO()
    async with app(tmp_path) as (server, _):
        assert server.devices is not None
        Terminal(server.devices, lambda: None, out).start(io.StringIO("status\n\nhelp\n"))
        for _ in range(100):
            await asyncio.sleep(0.01)
            if HELP in out.getvalue():
                break
    assert out.getvalue() == f"0 devices connected\n{HELP}\n"


async def test_without_or_in_the_background_of_a_terminal_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 0

    out = io.StringIO()
    async with app(tmp_path) as (server, _):
        assert server.devices is not None
        terminal = Terminal(server.devices, lambda: None, out)
        monkeypatch.setattr(os, "tcgetpgrp", lambda fd: -1)
        terminal.start(Tty("status\n"))
        monkeypatch.setattr(sys, "stdin", None)
        terminal.start()
        await asyncio.sleep(0.1)
    assert out.getvalue() == ""
