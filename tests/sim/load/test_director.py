"""Whole load tests, small ones: against the real server, and against servers that are not up to it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSCloseCode

from mynah.errors import MynahError
from mynah.sim.link import ConnectError
from mynah.sim.load import director as module
from mynah.sim.load import machine
from mynah.sim.load.director import (
    Director,
    LoadOptions,
    Progress,
    ports_for,
    processes_for,
    run,
    talkers_of,
    without_credentials,
)
from mynah.sim.load.record import Check, LoadReport, Machine, Stage
from mynah.sim.load.scenario import Behaviour, Scenario, Thresholds
from mynah.wire.messages import ListenMode
from tests.servers import FAKES, serve

from ..scripted import Connection, ScriptedServer, silent
from .crowds import stock

LENIENT = Thresholds(
    success=1.0, connect_p95_ms=None, hello_p95_ms=None, first_audio_growth=None, late_share=None, dry_share=None,
    overflow=None,
)  # fmt: skip
"""The machine that runs this may be busy."""


def scenario(**changed: Any) -> Scenario:
    fields: dict[str, Any] = {"steps": (2, 4), "hold_s": 1.0, "connects_per_s": 100.0, "thresholds": LENIENT}
    return Scenario(**{**fields, **changed})


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No looking at the machine for a second, and no rest before and after."""
    monkeypatch.setattr(machine, "look", lambda *_, **__: Machine(cpu="a test", cores=2))
    monkeypatch.setattr(module, "REST_S", 0.3)
    monkeypatch.setattr(module, "RAMP_GRACE_S", 10.0)


@pytest.mark.e2e
@pytest.mark.speech
def test_the_real_server(tmp_path: Path) -> None:
    seen: list[Progress] = []
    wanted = scenario(
        steps=(2, 6),
        behaviour=Behaviour.MIXED,
        talkers_share=0.5,
        hold_s=3.0,
        mode=ListenMode.MANUAL,
        pause_s=(0.1, 0.3),
    )
    options = LoadOptions(processes=2, command="mynah loadtest …")
    with serve(tmp_path, "TTS.FakeTTS.seconds=0.2", config=FAKES) as server:
        report = run(server.ready["ota"], wanted, options, seen.append)
        assert report.at_rest is not None
        assert report.afterwards is not None
        assert report.at_rest.resident > 10_000_000
    assert report.reasons == []
    assert report.passed
    assert [step.devices for step in report.steps] == [2, 6]
    assert [step.talkers for step in report.steps] == [1, 3]
    for step in report.steps:
        assert step.connected == step.devices
        assert step.turns.succeeded >= 1
        assert step.errors == {}
        assert set(step.times) == set(Stage)
        assert 0 < step.times[Stage.FIRST_AUDIO].p50 < 5000
        assert step.frames.sent > 10
        assert step.frames.received > 10
        assert step.connects_per_s > 0
        assert step.server is not None
        assert step.server.resident > 10_000_000
        assert step.generator.processes == 2
        assert step.lag.count > 10
        assert step.began_s < step.ramped_s < step.ended_s
    assert report.steps[1].connections.attempted == 4
    assert max(sample.connected for sample in report.samples) == 6
    assert (report.target, report.command) == (server.ready["ota"], "mynah loadtest …")
    assert report.scenario["steps"] == (2, 6)
    assert {progress.phase for progress in seen} >= {"rest", "hold", "leave"}


def test_a_server_that_refuses_more_devices() -> None:
    async def script(connection: Connection) -> None:
        if len([one for one in server.connections if not one.socket.closed]) > 2:
            await connection.socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
        else:
            await silent(connection)

    server = ScriptedServer(script)
    with server.in_thread():
        report = run(server.ws_url, scenario(steps=(2, 6, 9)), LoadOptions(processes=1), lambda _: None)
    assert [step.passed for step in report.steps] == [True, False], "and it does not go on"
    assert report.steps[1].busy == 4
    assert report.steps[1].errors == {}
    assert not report.passed
    assert report.reasons[0].startswith("step 2 (6 devices): ")


def test_a_server_that_stalls() -> None:
    async def script(connection: Connection) -> None:
        if len(server.connections) == 1:  # the one that looks whether anybody is there
            await silent(connection)
        await connection.drain()

    server = ScriptedServer(script)
    with server.in_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RAMP_GRACE_S", 0.5)
        report = run(server.ws_url, scenario(steps=(2,)), LoadOptions(processes=1), lambda _: None)
    (step,) = report.steps
    assert (step.connected, step.passed) == (0, False)


def test_devices_that_come_and_go_are_not_missing() -> None:
    wanted = scenario(steps=(5,), behaviour=Behaviour.CHURN, stay_s=0.0, connects_per_s=20.0)
    with ScriptedServer(silent).in_thread() as server:
        report = run(server.ws_url, wanted, LoadOptions(processes=1), lambda _: None)
    (step,) = report.steps
    assert step.connected < 5
    assert (step.passed, step.reasons, report.knee) == (True, [], None)


def test_a_server_that_floods_its_devices() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await asyncio.sleep(1.0)  # what comes in the ramp is none of the measurement
        await connection.send("tts", state="start")
        for _ in range(60):
            await connection.send_audio(stock()[0].packets[2])
        await connection.drain()

    with ScriptedServer(script).in_thread() as server:
        wanted = scenario(steps=(1,), hold_s=1.5, thresholds=Thresholds())
        report = run(server.ws_url, wanted, LoadOptions(processes=1), lambda _: None)
    assert 10 <= report.steps[0].frames.overflow <= 18
    assert not report.passed


def test_nobody_there_and_no_entry() -> None:
    with pytest.raises(ConnectError, match="nothing listens"):
        run("ws://127.0.0.1:9/", scenario(), LoadOptions(), lambda _: None)
    with (
        ScriptedServer(silent, token="t").in_thread() as server,
        pytest.raises(ConnectError, match="wants a token"),
    ):
        run(server.ws_url, scenario(), LoadOptions(), lambda _: None)
    wants = {"websocket": {"url": "ws://h/"}, "activation": {"code": "1"}}
    with (
        ScriptedServer(silent, ota=wants).in_thread() as server,
        pytest.raises(ConnectError, match="OTA answer wants an activation: devices cannot connect"),
    ):
        run(server.ota_url, scenario(), LoadOptions(), lambda _: None)


def test_a_machine_that_is_not_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [
        Check(name="open files", ok=False, found="10", wanted="600", remedy="ulimit -n 600", fatal=True)
    ]
    monkeypatch.setattr(machine, "look", lambda *_, **__: Machine(checks=checks))
    with (
        ScriptedServer(silent).in_thread() as server,
        pytest.raises(MynahError, match="open files: 10, and it takes 600: ulimit -n 600"),
    ):
        run(server.ws_url, scenario(), LoadOptions(), lambda _: None)


def test_ctrl_c_leaves_a_report() -> None:
    def interrupt() -> None:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    def watch(progress: Progress) -> None:
        if progress.phase == "hold" and progress.tally.connected and not threads:
            threads.append(threading.Thread(target=interrupt))
            threads[0].start()

    threads: list[threading.Thread] = []
    with ScriptedServer(silent).in_thread() as server:
        began = time.monotonic()
        report = run(server.ws_url, scenario(hold_s=60.0), LoadOptions(processes=1), watch)
    threads[0].join()
    assert time.monotonic() - began < 30
    assert report.interrupted
    assert report.reasons == ["step 1 (2 devices): stopped before its end", "stopped before its end"]
    assert not report.steps[0].passed
    assert [(step.devices, step.connected) for step in report.steps] == [(2, 2)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_dies_is_told_and_the_rest_goes_on() -> None:
    async def both() -> LoadReport:
        director = Director(server.ws_url, scenario(steps=(4, 6)), LoadOptions(processes=2), watch)
        pids.append(director._generators.pids)
        return await director.conduct([])

    def watch(progress: Progress) -> None:
        if progress.phase == "hold" and not killed:
            killed.append(pids[0]()[0])
            os.kill(killed[0], signal.SIGKILL)

    pids: list[Callable[[], list[int]]] = []
    killed: list[int] = []
    with ScriptedServer(silent).in_thread() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SAMPLE_S", 0.2)
        report = asyncio.run(both())
    assert f"process {killed[0]} with devices has ended: killed by signal 9" in report.reasons
    assert any("killed by signal 9" in warning.text for warning in report.warnings)
    assert not report.passed
    assert [step.connected for step in report.steps[:1]] == [2]


def test_how_many_talk() -> None:
    mixed = Scenario(behaviour=Behaviour.MIXED, talkers_share=0.1)
    assert [talkers_of(mixed, devices) for devices in (1, 5, 100, 2000)] == [1, 1, 10, 200]
    assert talkers_of(Scenario(behaviour=Behaviour.MIXED, max_talkers=50), 2000) == 50
    assert talkers_of(Scenario(behaviour=Behaviour.MIXED, talkers_share=0.0), 2000) == 0
    assert talkers_of(Scenario(behaviour=Behaviour.TALK), 7) == 7
    assert talkers_of(Scenario(behaviour=Behaviour.CHURN), 7) == 0


def test_how_many_processes() -> None:
    assert processes_for(100, 8, 20_000) == 1
    assert processes_for(2000, 8, 20_000) == 4
    assert processes_for(20_000, 8, 20_000) == 7
    assert processes_for(20_000, 1, 20_000) == 2
    assert processes_for(2000, 1, 1024) == 3, "as many as their file descriptors ask for"


def test_ports_of_the_last_minute_count_with_churn() -> None:
    assert ports_for(Scenario(steps=(10, 500))) == 500
    assert ports_for(Scenario(steps=(500,), behaviour=Behaviour.CHURN, connects_per_s=100)) == 6500


def test_credentials_stay_out_of_the_report() -> None:
    assert without_credentials("wss://user:secret@host:8443/x?token=t#f") == "wss://host:8443/x"
    assert without_credentials("http://host/ota/") == "http://host/ota/"


def test_the_server_is_who_talks_and_not_who_answers_ota(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    asked: list[str] = []
    spread: list[str] = []

    def look(target: str, *_: object, server_pid: int | None, **__: object) -> Machine:
        looked.append(f"{target} {server_pid}")
        return Machine(cores=2)

    def find(target: str) -> int | None:
        asked.append(target)
        return os.getpid()

    def sources(target: str, _: int) -> list[str]:
        spread.append(target)
        return [""]

    monkeypatch.setattr(machine, "look", look)
    monkeypatch.setattr(module, "find_server", find)
    monkeypatch.setattr(module.sources, "source_addresses", sources)
    talking = ScriptedServer(silent)
    with talking.in_thread():
        ota = ScriptedServer(silent, ota={"websocket": {"url": talking.ws_url}})
        with ota.in_thread():
            report = run(
                ota.ota_url, scenario(steps=(2,), hold_s=0.3), LoadOptions(processes=1), lambda _: None
            )
    assert report.steps[0].connected == 2
    assert looked == [f"{talking.ws_url} {os.getpid()}"]
    assert set(asked) == set(spread) == {talking.ws_url}


def test_behind_a_proxy_of_this_machine_the_server_is_who_answers_ota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ota = "http://127.0.0.1:8003/ota/"
    monkeypatch.setattr(module, "find_server", lambda target: 7 if target == ota else None)
    director = Director(ota, scenario(), LoadOptions(), lambda _: None)
    director._server = "ws://127.0.0.1:8000/"
    assert director._find_server() == 7
    director._server = "ws://192.0.2.1:8000/"  # another machine's
    assert director._find_server() is None
    assert Director(ota, scenario(), LoadOptions(server_pid=5), lambda _: None)._find_server() == 5


def test_credentials_stay_out_of_complaints() -> None:
    with ScriptedServer(silent, ota={}).in_thread() as server:
        target = server.ota_url.replace("http://", "http://me:secret@")
        with pytest.raises(ConnectError, match="devices cannot connect") as caught:
            run(target, scenario(), LoadOptions(), lambda _: None)
    assert "secret" not in str(caught.value)


def test_no_limit_of_files_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert processes_for(100, 8, module._descriptors()) == 1
