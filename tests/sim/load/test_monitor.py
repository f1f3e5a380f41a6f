from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import resources
from mynah.sim.load import monitor, processes
from mynah.sim.load.monitor import Alarm, Monitor
from mynah.sim.load.record import Sample, Usage

WORK = "while True: pass"
WAIT = "input()"


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def texts(watcher: Monitor) -> list[str]:
    return [warned.text for warned in watcher.warnings]


def settle(watcher: Monitor, condition: str, at_s: float = 0.0) -> None:
    """Sample until a warning with this text has come."""
    deadline = time.monotonic() + 15
    while not any(condition in text for text in texts(watcher)):
        assert time.monotonic() < deadline, texts(watcher)
        at_s += 0.3
        time.sleep(0.3)
        watcher.sample(at_s, 1, 0, 0.0)


# ---------------------------------------------------------------- hysteresis


def test_an_alarm_is_raised_once_per_occurrence() -> None:
    alarm = Alarm(0.9, 0.8)
    values = [0.95, 0.95, 0.95, 0.85, 0.95, 0.95, 0.7, 0.95, 0.85, 0.95, 0.95]
    assert [alarm.look(value) for value in values] == [
        False, True, False, False, False, False, False, False, False, False, True,
    ]  # fmt: skip


@given(st.lists(st.floats(0, 1)))
def test_between_two_alarms_the_value_was_low(values: list[float]) -> None:
    alarm, armed = Alarm(0.9, 0.8), True
    for index, value in enumerate(values):
        if alarm.look(value):
            assert armed
            assert min(values[index - 1 : index + 1]) > 0.9
            armed = False
        elif value <= 0.8:
            armed = True


# ---------------------------------------------------------------- samples


def test_who_works_is_charged_for_it() -> None:
    with python(WORK) as server, python(WAIT) as generator:
        watcher = Monitor(server.pid, lambda: [generator.pid])
        began, used = time.monotonic(), processes.read(server.pid)
        watcher.sample(0.0, 0, 0, 0.0)
        time.sleep(0.8)
        at_s = time.monotonic() - began
        sample = watcher.sample(at_s, 7, 3, 4.5)
        then = processes.read(server.pid)
        assert used is not None
        assert then is not None
        assert sample.server is not None
        # Compared with what the kernel says it used: on a busy machine that is little.
        assert sample.server.cpu == pytest.approx((then.cpu_s - used.cpu_s) / at_s, abs=0.1)
        assert sample.generator.cpu < 0.2
        assert (sample.connected, sample.talking, sample.lag_ms) == (7, 3, 4.5)
        assert sample.machine_cpu >= 0.5 * sample.server.cpu
        assert (sample.server.processes, sample.generator.processes) == (1, 1)
        assert sample.server.resident > 1 << 20
        assert sample.server.descriptors >= 3
        assert sample.memory_available > 0
        server_usage, generator_usage = watcher.usage_between(0.0, at_s)
        assert server_usage is not None
        assert server_usage.cpu == pytest.approx(sample.server.cpu, abs=0.01)
        assert generator_usage.cpu < 0.2
        assert server_usage.descriptors == sample.server.descriptors


def test_children_belong_to_the_server_unless_they_make_the_load() -> None:
    with python(WAIT), python(WAIT) as generator:
        watcher = Monitor(os.getpid(), lambda: [generator.pid])
        sample = watcher.sample(0.0, 0, 0, 0.0)
        assert sample.server is not None
        others = set(processes.children(os.getpid())) - {generator.pid}
        assert sample.server.processes == 1 + len(others)
        assert len(others) >= 1
        assert sample.generator.processes == 1


def test_two_samples_in_a_row_do_not_multiply_ticks() -> None:
    watcher = Monitor(os.getpid(), list)
    watcher.sample(0.0, 0, 0, 0.0)
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    sample = watcher.sample(1.0, 0, 0, 0.0)
    again = watcher.sample(1.001, 0, 0, 0.0)
    assert sample.server is not None
    assert again.server is not None
    assert again.server.cpu == pytest.approx(sample.server.cpu, abs=0.1)


def test_usage_between_samples_is_in_proportion() -> None:
    watcher = Monitor(None, list)
    group = watcher._generator
    for at_s, used_s in ((0.0, 0.0), (10.0, 5.0), (20.0, 5.0)):
        group.used_s = used_s
        watcher.sample(at_s, 0, 0, 0.0)
    assert watcher.usage_between(0.0, 10.0)[1].cpu == pytest.approx(0.5)
    assert watcher.usage_between(5.0, 10.0)[1].cpu == pytest.approx(0.5)
    assert watcher.usage_between(5.0, 15.0)[1].cpu == pytest.approx(0.25)
    assert watcher.usage_between(12.0, 19.0)[1].cpu == 0.0
    assert watcher.usage_between(15.0, 99.0)[1].cpu == 0.0
    assert watcher.usage_between(7.0, 7.0)[1].cpu == 0.0
    assert watcher.usage_between(0.0, 20.0)[0] is None, "there is no server"


def test_without_a_sample_there_is_nothing() -> None:
    server, generator = Monitor(os.getpid(), list).usage_between(0.0, 1.0)
    assert server is None
    assert generator.cpu == 0.0


# ---------------------------------------------------------------- what goes wrong


def test_a_server_that_ends_is_said_once_and_stays_counted() -> None:
    with python(WORK) as server:
        watcher = Monitor(server.pid, list)
        watcher.sample(0.0, 0, 0, 0.0)
        time.sleep(0.4)
        seen = watcher.sample(1.0, 0, 0, 0.0)
        assert seen.server is not None
        server.kill()
        server.wait()
        for second in (2.0, 3.0, 4.0):
            assert watcher.sample(second, 0, 0, 0.0).server is None
        assert [text for text in texts(watcher) if "has ended" in text] == [
            f"the server, process {server.pid}, has ended"
        ]
        usage, _ = watcher.usage_between(0.0, 4.0)
        assert usage is not None
        assert usage.processes == 1


def test_a_server_that_begins_anew_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "FAMILY_S", 0.0)
    with python(WAIT) as old, python(WAIT) as new:
        watcher = Monitor(old.pid, list, find=lambda: new.pid)
        watcher.sample(0.0, 0, 0, 0.0)
        old.kill()
        old.wait()
        watcher.sample(1.0, 0, 0, 0.0)
        sample = watcher.sample(2.0, 0, 0, 0.0)
        assert watcher.server_pid == new.pid
        assert sample.server is not None
        assert f"the server has begun anew, as process {new.pid}" in texts(watcher)


def test_a_generator_that_ends_is_left_out() -> None:
    with python(WAIT) as generator:
        watcher = Monitor(None, lambda: [generator.pid])
        assert watcher.sample(0.0, 0, 0, 0.0).generator.processes == 1
        generator.kill()
        generator.wait()
        assert watcher.sample(1.0, 0, 0, 0.0).generator.processes == 0


def test_lateness_is_said_when_it_lasts_and_again_when_it_comes_back() -> None:
    watcher = Monitor(None, list)

    def late(*values: float) -> int:
        for value in values:
            watcher.sample(0.0, 0, 0, value)
        return len([text for text in texts(watcher) if "the load test itself was" in text])

    assert late(50, 50, 3) == 0, "a hiccup"
    assert late(50, 50, 50, 50) == 1
    assert late(15, 50, 50, 50) == 1, "it never was good in between"
    assert late(3, 60, 60, 60) == 2
    assert "60 ms late" in texts(watcher)[-1]


def test_a_full_main_thread_of_the_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Monitor(os.getpid(), list)
    watcher.cores = 2
    monkeypatch.setattr(watcher._server, "update", _held_at(watcher, 0.99))
    for second in range(3):
        watcher.sample(float(second), 0, 0, 0.0)
    assert len([text for text in texts(watcher) if "uses a whole core" in text]) == 1
    watcher.cores = 1
    watcher._alarms["server core"] = Alarm(0.95, 0.85)
    for second in range(3, 6):
        watcher.sample(float(second), 0, 0, 0.0)
    assert len([text for text in texts(watcher) if "uses a whole core" in text]) == 1, (
        "it is the machine's only one"
    )


def _held_at(watcher: Monitor, share: float) -> Callable[[set[int], float], Usage]:
    original = watcher._server.update

    def update(pids: set[int], now: float) -> Usage:
        usage = original(pids, now)
        watcher._server.busiest = share
        return usage

    return update


def test_a_full_machine_is_said_with_who_fills_it() -> None:
    watcher = Monitor(None, list)
    watcher.cores = 2
    full = Sample(
        at_s=1.0,
        machine_cpu=1.9,
        server=Usage(processes=1, cpu=0.5),
        generator=Usage(cpu=0.1),
        memory_available=1 << 40,
    )
    watcher._warn(full)
    watcher._warn(full)
    watcher._warn(full)
    (text,) = texts(watcher)
    assert "95% of the machine's CPU" in text
    assert "the server 0.50, the load test 0.10, other programs 1.30" in text


def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Monitor(None, list)
    watcher._memory = 1 << 30
    monkeypatch.setattr(watcher, "_memory_available", lambda: 50 << 20)
    for second in range(4):
        watcher.sample(float(second), 0, 0, 0.0)
    assert [text for text in texts(watcher) if "memory" in text] == [
        "less than a tenth of the memory is left: 50 MiB"
    ]


def test_descriptors_that_run_out_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    held = processes.descriptors(os.getpid())
    assert held is not None
    monkeypatch.setattr(processes, "descriptor_limit", lambda pid: held + 1)
    watcher = Monitor(os.getpid(), list)
    for second in range(4):
        watcher.sample(float(second), 0, 0, 0.0)
    assert len([text for text in texts(watcher) if "files and sockets open" in text]) == 1


def test_swap_and_a_full_queue_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped, overflows = [0], [10]
    monkeypatch.setattr(monitor, "FAMILY_S", 0.0)
    monkeypatch.setattr(monitor, "_swapped", lambda: swapped[0])
    monkeypatch.setattr(monitor, "_overflows", lambda: overflows[0])
    watcher = Monitor(os.getpid(), list)
    watcher.sample(0.0, 0, 0, 0.0)
    assert not [text for text in texts(watcher) if "swaps" in text or "dropped" in text]
    swapped[0], overflows[0] = 100 << 20, 17
    for second in (1.0, 2.0, 3.0):
        watcher.sample(second, 0, 0, 0.0)
    overflows[0] = 20
    watcher.sample(4.0, 0, 0, 0.0)
    said = [text for text in texts(watcher) if "swaps" in text or "dropped" in text]
    assert [text.split(":")[0] for text in said] == [
        "the kernel has dropped 7 new connections because the queue of a listening socket was full",
        "the machine swaps",
        "the kernel has dropped 3 new connections because the queue of a listening socket was full",
    ]


def test_warnings_are_bounded() -> None:
    watcher = Monitor(None, list)
    for second in range(5 * monitor.MAX_WARNINGS):
        watcher._warn(watcher_sample(second))
    assert len(watcher.warnings) == monitor.MAX_WARNINGS


def watcher_sample(second: int) -> Sample:
    return Sample(at_s=second, lag_ms=0 if second % 4 == 3 else 100, memory_available=1 << 40)


def test_a_container_with_a_quota_is_a_machine_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used_s = [1.0]
    monkeypatch.setattr(resources, "limits", lambda: resources.Limits(cores=1.0, memory=1 << 30))
    monkeypatch.setattr(resources, "cpu_used_s", lambda found: used_s[0])
    monkeypatch.setattr(resources, "memory_left", lambda found: 1 << 20)
    watcher = Monitor(None, list)
    watcher.sample(0.0, 0, 0, 0.0)
    used_s[0] = 1.8
    sample = watcher.sample(1.0, 0, 0, 0.0)
    assert sample.machine_cpu == pytest.approx(0.8)
    assert sample.memory_available == 1 << 20
    assert watcher.cores == 1


def test_a_full_thread_is_told_apart_from_as_much_work_of_many() -> None:
    many = (
        "import hashlib, threading\n"
        "def work():\n"
        "    while True: hashlib.sha256(bytes(1 << 22)).digest()\n"
        "for _ in range(2): threading.Thread(target=work, daemon=True).start()\n"
        "threading.Event().wait()"
    )
    found = []
    for code in (WORK, many):
        with python(code) as server, python(WORK) as generator:
            deadline = time.monotonic() + 15
            while (
                used := processes.read(server.pid)
            ) is None or used.cpu_s < 0.3:  # Python has to start first
                assert time.monotonic() < deadline
                time.sleep(0.05)
            watcher = Monitor(server.pid, lambda pid=generator.pid: [pid])  # type: ignore[misc]
            began = time.monotonic()
            watcher.sample(0.0, 0, 0, 0.0)
            time.sleep(0.8)
            at_s = time.monotonic() - began
            sample = watcher.sample(at_s, 0, 0, 0.0)
            assert sample.server is not None
            usage, load = watcher.usage_between(0.0, at_s)
            assert usage is not None
            assert usage.main == pytest.approx(sample.server.main, abs=0.02)
            assert load.main == pytest.approx(load.cpu, abs=0.1) == sample.generator.main
            found.append((usage.main, usage.cpu))
    (main, cpu), (idle, shared) = found
    assert main == pytest.approx(cpu, abs=0.1), "one thread does it all"
    assert cpu > 0.1
    assert shared > 0.1
    assert idle < 0.5 * shared, "its main thread only waits"


def test_the_main_thread_between_samples_is_in_proportion() -> None:
    watcher = Monitor(None, list)
    for at_s, main_s in ((0.0, 0.0), (10.0, 5.0), (20.0, 5.0)):
        watcher._generator.main_s = main_s
        watcher.sample(at_s, 0, 0, 0.0)
    assert watcher.usage_between(0.0, 10.0)[1].main == pytest.approx(0.5)
    assert watcher.usage_between(5.0, 15.0)[1].main == pytest.approx(0.25)
