"""Files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from mynah.security import files
from mynah.security.files import LatestFile, replace_file

OLD, NEW = b"old" * 1000, b"new" * 2000


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    yield lines
    logger.remove(sink)


def only(path: Path) -> bool:
    """Say whether there is nothing beside a file: no draft was left behind."""
    return list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "data" / "deep" / "state.json"
    for content in (OLD, NEW, b""):
        replace_file(path, content)
        assert path.read_bytes() == content
        assert only(path)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(OLD)
    path.chmod(0o644)
    mask = os.umask(0)
    try:
        replace_file(path, NEW)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_who_has_the_old_one_open_goes_on_reading_it(tmp_path: Path) -> None:
    """It is another file that takes the name, not the same one written over."""
    path = tmp_path / "state.json"
    replace_file(path, OLD)
    with path.open("rb") as reader:
        assert reader.read(10) == OLD[:10]
        replace_file(path, NEW)
        assert reader.read() == OLD[10:]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_fails_leaves_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """First the content is brought to the disk, then the name."""
    path = tmp_path / "state.json"
    replace_file(path, OLD)
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        replace_file(path, NEW)
    assert path.read_bytes() == (OLD if failing == 1 else NEW)
    assert only(path)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    replace_file(path, OLD)

    def replace(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, NEW)
    assert path.read_bytes() == OLD
    assert only(path)


WRITER = """
import sys
from pathlib import Path
from mynah.security.files import replace_file
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        replace_file(Path(sys.argv[1]), letter * 300_000)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            until = time.monotonic() + 0.5
            seen = set()
            while time.monotonic() < until:
                if path.exists():
                    content = path.read_bytes()
                    assert content in (b"a" * 300_000, b"b" * 300_000)
                    seen.add(content[:1])
        finally:
            writer.kill()
    assert seen == {b"a", b"b"}
    assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)


def test_the_latest_state_wins_and_those_before_it_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk is not given what is out of date by the time it is ready."""
    path = tmp_path / "state.json"
    written: list[bytes] = []
    busy, ready = threading.Event(), threading.Event()

    def slow(target: Path, content: bytes) -> None:
        written.append(content)
        busy.set()
        assert ready.wait(10)
        replace_file(target, content)

    monkeypatch.setattr(files, "replace_file", slow)
    file = LatestFile(path, "nothing is lost")
    began = time.monotonic()
    file.save(b"0")
    assert busy.wait(10)
    for number in range(1, 6):
        file.save(b"%d" % number)
    assert time.monotonic() - began < 5, "whoever saves does not wait for the disk"
    ready.set()
    file.close()
    assert written == [b"0", b"5"]
    assert path.read_bytes() == b"5"


def test_closing_waits_for_the_last_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for number in range(20):
        file = LatestFile(path, "nothing is lost")
        file.save(b"%d" % number)
        file.close()
        assert path.read_bytes() == b"%d" % number


def test_what_cannot_be_written_is_told_and_the_next_state_is_tried_again(
    tmp_path: Path, log: list[str]
) -> None:
    folder = tmp_path / "data"
    folder.write_bytes(b"in the way")
    file = LatestFile(folder / "state.json", "bindings are lost at the next restart")
    file.save(OLD)
    until = time.monotonic() + 10
    while not log and time.monotonic() < until:
        time.sleep(0.01)
    assert [line for line in log if line.startswith("ERROR") and "bindings are lost" in line]
    folder.unlink()
    file.save(NEW)
    file.close()
    assert (folder / "state.json").read_bytes() == NEW
    assert len(log) == 1


def test_drafts_of_a_server_that_was_killed_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"old")
    draft = tmp_path / ".state.json.4711.abcd"
    draft.write_bytes(b"half")
    other = tmp_path / ".other.json.4711.abcd"
    other.write_bytes(b"not ours")
    LatestFile(path, "x").close()
    assert not draft.exists()
    assert other.exists()
    assert path.read_bytes() == b"old"
