"""The operator's console on standard input."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest

from mynah.console.terminal import HELP, NO_TEXT, Terminal
from mynah.dialogue.outbox import MAX_PER_DEVICE
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
            assert terminal.run(f"say 02:00:00:00:00:01 {'x' * 1001}").startswith("that is 1001 characters")
            assert terminal.run("say 02:00:00:00:00:01 dinner is ready") == "ok"
            assert (await device.until("tts", "sentence_start"))["text"] == "dinner is ready"
            assert terminal.run("alert 02-00-00-00-00-01 the door is open") == "ok"
            await device.until("tts", "stop")
            assert (await device.until("alert"))["message"] == "the door is open"
            assert terminal.run("reboot 02:00:00:00:00:01") == "ok"
            assert (await device.until("system"))["command"] == "reboot"
            assert terminal.run("disconnect 02:00:00:00:00:01") == "ok"
            await device.until("close")
            for command in ("say", "alert", "reboot", "disconnect"):
                assert "not connected" in terminal.run(f"{command} ff:ff hello")
                assert terminal.run(command).startswith("usage")
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


async def test_bytes_that_are_no_text_are_said_and_do_not_end_it(tmp_path: Path) -> None:
    out = io.StringIO()
    lines = io.TextIOWrapper(io.BytesIO(b"status\nsay 02:00:00:00:00:01 k\xfcche\n\xff\nhelp\n"), "utf-8")
    async with app(tmp_path) as (server, _):
        assert server.devices is not None
        Terminal(server.devices, lambda: None, out).start(lines)
        async with asyncio.timeout(10):
            while HELP not in out.getvalue():
                await asyncio.sleep(0.01)
    assert out.getvalue() == f"0 devices connected\n{NO_TEXT}\n{NO_TEXT}\n{HELP}\n"


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


async def test_binding(tmp_path: Path) -> None:
    async with app(tmp_path, "server.binding=code") as (server, at):
        assert server.devices is not None
        assert server.bindings is not None
        terminal = Terminal(server.devices, lambda: None, bindings=server.bindings)
        code = server.bindings.offer("02:00:00:00:00:01", "test").code
        server.bindings.offer("02:00:00:00:00:02", "test")
        assert terminal.run("devices") == "no device is connected\nwaiting for `bind CODE`: 2"
        assert terminal.run("bind").startswith("usage")
        assert "read it off the device again" in terminal.run("bind 12345x")
        assert "02:00:00:00:00:01 is bound as living room" in terminal.run(f"bind {code} living room")
        assert "02:00:00:00:00:01    not connected  living room" in terminal.run("devices")
        async with connect(at.ws) as device:
            await device.hello()
            assert "02:00:00:00:00:01    idle           living room" in terminal.run("devices")
        assert terminal.run("unbind").startswith("usage")
        assert "is not bound" in terminal.run("unbind 02:00:00:00:00:02")
        assert "is no longer bound" in terminal.run("unbind 02-00-00-00-00-01")
        assert "living room" not in terminal.run("devices")


async def test_who_is_bound_anew_replaces_what_is_connected_under_its_id(tmp_path: Path) -> None:
    async with app(tmp_path, "server.binding=code") as (server, at):
        assert server.devices is not None
        assert server.bindings is not None
        terminal = Terminal(server.devices, lambda: None, bindings=server.bindings)
        terminal.run(f"bind {server.bindings.offer('02:00:00:00:00:01', 'test').code}")
        async with connect(at.ws) as device:
            await device.hello()
            code = server.bindings.offer("02:00:00:00:00:01", "after its flash was erased").code
            assert "is bound" in terminal.run(f"bind {code}")
            await device.until("close")


async def test_where_no_owner_is_needed_there_is_nothing_to_bind(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, _):
        assert server.devices is not None
        terminal = Terminal(server.devices, lambda: None, bindings=server.bindings)
        assert "nothing to bind" in terminal.run("bind 123456")
        assert "nothing to bind" in terminal.run("unbind 02:00:00:00:00:01")


async def test_messages_for_later(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        terminal = Terminal(server.devices, lambda: None)
        assert terminal.run("outbox") == "no message waits"
        for wrong in (
            "--wait",
            "--wait 60",
            "--wait x hello",
            "--wait 0 hello",
            "--wait -5 hello",
            "--wait 1e9 x",
        ):
            assert terminal.run(f"say 02:00:00:00:00:01 {wrong}").startswith("usage: say DEVICE_ID [--wait")
        kept = terminal.run("say 02-00-00-00-00-01 --wait 90 dinner is ready")
        assert kept == "02:00:00:00:00:01 is not connected; it is told if it connects within 90 s"
        assert terminal.run(f"say 02:00:00:00:00:01 --wait 3600 {'long ' * 50}").endswith("within 3600 s")
        first, second = terminal.run("outbox").splitlines()
        assert first == "02:00:00:00:00:01    0:01:30 left  dinner is ready"
        assert second.endswith("long…")
        for _ in range(MAX_PER_DEVICE - 2):
            terminal.run("say 02:00:00:00:00:01 --wait 90 and more")
        assert terminal.run("say 02:00:00:00:00:01 --wait 90 too much").startswith("too much waits")
        async with connect(at.ws) as device:
            await device.hello()
            server.devices.outbox.hand_over("02:00:00:00:00:01")
            assert (await device.until("tts", "sentence_start"))["text"] == "dinner is ready"
            assert "long" not in terminal.run("outbox")


async def test_reminders_are_listed(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, _):
        assert server.devices is not None
        terminal = Terminal(server.devices, lambda: None)
        assert terminal.run("reminders") == "no timer or reminder is running"
        server.devices.agenda.of("02:00:00:00:00:01").add(600, "tea")
        server.devices.agenda.of("02:00:00:00:00:02").add(0.001, "eggs")
        await asyncio.sleep(0.05)
        late, soon = terminal.run("reminders").splitlines()
        assert late == "02:00:00:00:00:02    was due, not heard yet  eggs"
        assert soon == "02:00:00:00:00:01    in 0:10:00  tea"
        assert terminal.run("reminders 02-00-00-00-00-01") == soon


async def test_a_new_owner_gets_nothing_of_the_last_one(tmp_path: Path) -> None:
    async with app(tmp_path, "server.binding=code") as (server, _):
        assert server.devices is not None
        assert server.bindings is not None
        terminal = Terminal(server.devices, lambda: None, bindings=server.bindings)
        for command in ("bind {code}", "unbind 02:00:00:00:00:01", "bind {code}"):
            server.devices.agenda.of("02:00:00:00:00:01").add(600, "tea")
            terminal.run("say 02:00:00:00:00:01 --wait 90 dinner")
            offer = server.bindings.offer("02:00:00:00:00:01", "test")
            assert "bound" in terminal.run(command.format(code=offer.code))
            assert len(server.devices.agenda) == len(server.devices.outbox) == 0
