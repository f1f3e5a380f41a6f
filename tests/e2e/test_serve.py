"""`mynah serve` as a process: what it prints, what it listens on, how it ends, what it needs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.servers import FAKES, LOOPBACK, serve

pytestmark = pytest.mark.e2e


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status, answer.read().decode()


def base(url: str) -> str:
    return url.partition("/xiaozhi")[0].replace("ws://", "http://")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_services_and_a_clean_end(tmp_path: Path, number: signal.Signals) -> None:
    with serve(tmp_path) as server:
        assert set(server.ready) == {"ws", "ota", "pull4g"}
        assert get(base(server.ready["ws"])) == (200, "Server is running\n")
        assert "WebSocket" in get(server.ready["ota"])[1]
        http = base(server.ready["ota"])
        assert get(http + "/healthz")[0] == 200
        assert get(http + "/readyz")[0] == 200
        code, errors = server.stop(number)
    assert code == 0
    assert "Traceback" not in errors


def test_memory_of_all_processes_and_start_time(tmp_path: Path) -> None:
    """The bar is 3 s and 400 MB; time gets slack because the machine may be busy, memory does not."""
    with serve(tmp_path) as server:
        main = psutil.Process(server.popen.pid)
        everybody = [main, *main.children(recursive=True)]
        resident = sum(process.memory_info().rss for process in everybody) / 2**20
        assert resident < 400, f"{resident:.0f} MB in {len(everybody)} processes"
        assert server.started_s < 15


def test_no_process_outlives_the_server(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        children = psutil.Process(server.popen.pid).children(recursive=True)
        server.popen.kill()  # no chance to clean up
        _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_the_auth_key_is_kept(tmp_path: Path) -> None:
    def key() -> bytes:
        with serve(tmp_path, "log.data_dir=kept", config=FAKES):
            return next((tmp_path / "kept").glob("*key*")).read_bytes()

    assert key() == key()


def failing(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mynah.cli", "serve", *arguments],
        cwd=folder, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stderr


PORTS = ("server.port", "server.http_port", "server.pull4g_port")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for key in PORTS:
            others = [part for other in PORTS if other != key for part in ("-s", f"{other}=0")]
            code, errors = failing(
                tmp_path,
                "-c",
                str(FAKES),
                "-s",
                f"{key}={port}",
                *others,
                "-s",
                "server.ip=127.0.0.1",
            )
            assert code == 2
            last = errors.strip().splitlines()[-1]
            assert str(port) in last and key in last
            assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("content", "mentions"),
    [
        ("server:\n  prot: 1\n", ["server.prot", "port"]),
        ("server:\n  port: many\n", ["server.port"]),
        ("selected_module:\n  LLM: ChatGLMLLM\n", ["CHATGLM_API_KEY"]),
        ("selected_module:\n  TTS: Nobody\n", ["selected_module.TTS", "Nobody"]),
        ("LLM:\n  Builtin:\n    type: bultin\n", ["bultin", "builtin"]),
        ("server: [\n", ["config.yaml"]),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(tmp_path: Path, content: str, mentions: list[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    code, errors = failing(tmp_path, "-c", str(file))
    assert code == 2
    assert len(errors.strip().splitlines()) == 1, errors
    assert "Traceback" not in errors
    for word in mentions:
        assert word in errors


def test_a_signal_while_starting_ends_it(tmp_path: Path) -> None:
    """The recogniser's start is the slow part; whoever changes his mind does not wait for it."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "mynah.cli", "serve", *(part for key in PORTS for part in ("-s", f"{key}=0"))],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.0)
    popen.send_signal(signal.SIGTERM)
    _, errors = popen.communicate(timeout=20)
    assert "Traceback" not in errors
    # Before the handlers are set the signal kills in the ordinary way.
    assert popen.returncode in (0, -signal.SIGTERM)


def test_closed_standard_streams(tmp_path: Path) -> None:
    ports = " ".join(f"-s {setting}" for setting in LOOPBACK)
    command = f"exec {sys.executable} -m mynah.cli serve -c {FAKES} {ports} <&-"
    popen = subprocess.Popen(
        ["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert popen.stdout is not None
    assert popen.stdout.readline().startswith("READY")
    popen.send_signal(signal.SIGTERM)
    _, errors = popen.communicate(timeout=20)
    assert popen.returncode == 0, errors
    assert "Traceback" not in errors
