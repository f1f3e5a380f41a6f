"""`mynah doctor`."""

from __future__ import annotations

import json
import resource
import socket
from pathlib import Path

import pytest

from mynah import doctor
from mynah.doctor import Status, available_memory, examine, memory, open_files


def overrides(tmp_path: Path, *more: str) -> list[str]:
    return [
        "server.ip=127.0.0.1",
        "server.port=0",
        "server.http_port=0",
        "server.pull4g_port=0",
        f"log.data_dir={tmp_path}/data",
        "ASR.f={type: fake, text: hi}",
        "selected_module.ASR=f",
        *more,
    ]


@pytest.fixture(autouse=True)
def _no_outside_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_this_machine_can_run_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(None, overrides(tmp_path), as_json=True) == 0
    checks = json.loads(capsys.readouterr().out)
    names = {check["name"] for check in checks}
    assert {
        "python",
        "libopus",
        "eSpeak NG",
        "flite",
        "open files",
        "memory",
        "settings",
        "port 0",
        "LLM",
    } <= names
    assert all(check["remedy"] for check in checks if check["status"] != "ok")
    assert not (tmp_path / "data").exists()


def test_a_taken_port_and_a_wrong_entry_are_told_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        more = (f"server.http_port={port}", "TTS.T={type: none-such}", "selected_module.TTS=T")
        assert doctor.run(None, overrides(tmp_path, *more), as_json=False) == 1
    text = capsys.readouterr().out
    assert f"fail port {port}" in text
    assert "-s server.http_port=" in text
    assert "fail TTS" in text
    assert "will not start" in text


def test_a_vision_model_is_looked_at_when_one_is_selected(tmp_path: Path) -> None:
    assert "VLLM" not in {check.name for check in examine(None, overrides(tmp_path))}
    more = ("VLLM.v={type: fake}", "selected_module.VLLM=v")
    checks = {check.name: check for check in examine(None, overrides(tmp_path, *more))}
    assert checks["VLLM"].detail == "v (fake)"


def test_wrong_settings_end_the_examination(tmp_path: Path) -> None:
    checks = list(examine(None, ["server.prot=1"]))
    assert checks[-1].status is Status.FAIL
    assert "did you mean server.port?" in checks[-1].detail


def test_an_unwritable_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checks = {
        check.name: check
        for check in examine(None, overrides(tmp_path, f"log.data_dir={tmp_path}/file/data"))
    }
    assert checks["data directory"].status is Status.FAIL


def test_judging_numbers() -> None:
    assert open_files(1024).status is Status.WARN
    assert "ulimit" in open_files(1024).remedy
    assert open_files(65536).status is open_files(resource.RLIM_INFINITY).status is Status.OK
    assert memory(100 * 2**20).status is Status.WARN
    assert memory(2**30).status is memory(None).status is Status.OK


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2048 kB\n")
    assert available_memory(tmp_path) == 2048 * 1024
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1000000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("400000\n")
    assert available_memory(tmp_path) == 600000
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 2048 * 1024


def test_a_voice_that_does_not_exist_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("TTS:\n  EspeakTTS: {voice_en: klingon}\n")
    assert doctor.run(file, (), False) != 0
    assert "klingon" in capsys.readouterr().out
